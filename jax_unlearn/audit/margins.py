"""The margin of the true class: what attacks on ensembles look at.

The margin is the logit-scaled confidence log(p_y / (1 - p_y)), nearly Gaussian over
models. Shapes: N samples, K classes, any number of models before them. numpy float64.
"""

from typing import Any

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.audit.features import FLOOR
from jax_unlearn.errors import InputError


def margins(logits: Any, labels: Any) -> np.ndarray:
    """Margin of the true class: logit_y - log sum_{k != y} exp logit_k.

    The same number as the logit-scaled confidence log(p_y / (1 - p_y)), without its
    cancellation at p_y near 1. (`losses.margin` takes the largest other logit instead.)

    Args:
      logits: `[..., N, K]`, for example models, samples, classes; K >= 2. Log
        probabilities give the same margins, probabilities do not.
      labels: true classes of the samples, `[N]`.

    Returns:
      `f64[..., N]`.

    Raises:
      InputError: shapes or labels that do not fit, a margin that is not finite.

    >>> margins([[[0.0, 3.0], [9.0, 9.0]], [[1.0, 0.0], [0.0, 0.0]]], [1, 0]).tolist()
    [[3.0, 0.0], [-1.0, 0.0]]
    """
    z = _checks.floats("logits", logits, max(_axes(logits), 2))
    if z.shape[-1] < 2 or 0 in z.shape:
        raise InputError(
            f"logits.shape={z.shape} must be [..., samples, classes] with at least 2 "
            "classes; for a sigmoid output z give the two columns 0 and z"
        )
    y = _checks.class_labels("labels", labels, *z.shape[-2:])
    true = z[..., np.arange(len(y)), y]
    others = z.copy()
    others[..., np.arange(len(y)), y] = -np.inf
    peak = others.max(axis=-1)
    bad = np.argwhere(~(np.isfinite(true) & np.isfinite(peak)))
    if len(bad):
        place = tuple(bad[0].tolist())
        raise InputError(
            f"logits{list(place)}={z[place].tolist()} have no finite margin ({len(bad)}"
            f" of {true.size} rows); give finite logits in float32, not log(softmax)"
        )
    rest = np.exp(others - peak[..., None]).sum(axis=-1)
    return true - (peak + np.log(rest))


def margins_from_probs(probs: Any, labels: Any) -> np.ndarray:
    """Margin of the true class from probabilities: log p_y - log sum_{k != y} p_k.

    For where only probabilities are at hand; logits are finer. The other probabilities
    are summed, for 1 - p_y is 0 in float32 from p_y = 0.99999997 on. Either sum counts
    as at least 1e-30, so that the result stays within ±69.08. Source: Carlini et al.
    (LiRA), arXiv 2112.03570; the floor is our choice.

    Args:
      probs: softmax probabilities `[..., N, K]`.
      labels: true classes `[N]`, the same for all models.

    Returns:
      `f64[..., N]` in [-69.08, 69.08].

    Raises:
      InputError: rows that are no probabilities, labels that do not fit.

    >>> margins_from_probs([[0.9, 0.1], [1.0, 0.0]], [0, 0]).round(2)
    array([ 2.2 , 69.08])
    """
    rows, y, shape = _rows_labels("probs", probs, labels)
    rows = _checks.probabilities("probs", rows)
    own = np.take_along_axis(rows, y[:, None], axis=1)[:, 0]
    others = rows.copy()
    np.put_along_axis(others, y[:, None], 0.0, axis=1)
    rest = others.sum(axis=1)
    odds = np.log(np.maximum(own, FLOOR)) - np.log(np.maximum(rest, FLOOR))
    return odds.reshape(shape)


def _axes(values: Any) -> int:
    try:
        return np.ndim(values)
    except ValueError:  # not rectangular, which _checks.floats reports
        return 0


def _rows_labels(
    name: str, outputs: Any, labels: Any
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Return (rows `[R, K]`, a label a row, the shape without classes)."""
    array = np.asarray(outputs)
    if array.ndim < 2 or array.size == 0:
        raise InputError(
            f"{name}.shape={array.shape} must be [..., N, K] and not empty; give one "
            "row a sample"
        )
    rows = _checks.scores(name, array.reshape(-1, array.shape[-1]))
    y = _checks.class_labels("labels", labels, array.shape[-2], array.shape[-1])
    models = len(rows) // len(y)
    return rows, np.tile(y, models), array.shape[:-1]
