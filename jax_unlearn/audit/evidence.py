"""Outputs of many models on the parts of one request: what a whole audit reads.

Shapes: N models, n samples of a part, K classes.
"""

from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.audit.margins import margins, margins_from_probs
from jax_unlearn.errors import InputError

PARTS = ("forget", "retain", "test", "unseen")


class ModelOutputs(NamedTuple):
    """Outputs of N models of one kind, `[N, n, K]`; `[n, K]` for a single model.

    Attributes:
      forget, retain, test: on the forget, the retain and the test samples.
      unseen: on samples held out of all training, like the forget samples; or None.
    """

    forget: Any
    retain: Any
    test: Any
    unseen: Any = None


class PartLabels(NamedTuple):
    """True classes of the parts, `[n]` each, the same for all models."""

    forget: Any
    retain: Any
    test: Any
    unseen: Any = None


class Evidence(NamedTuple):
    """Checked outputs of N models.

    Attributes:
      probs: by part, `f64[N, n, K]`.
      confidence: probability of the true class by part, `f64[N, n]`.
      margins: log-odds of the true class of the forget samples, `f64[N, F]`.
      labels: by part, `i64[n]`.
      levels: what each model has, by key of the figure, `f64[N]`.
    """

    probs: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    margins: np.ndarray
    labels: dict[str, np.ndarray]
    levels: dict[str, np.ndarray]

    @property
    def models(self) -> int:
        """Number of models N."""
        return len(self.margins)

    @property
    def tested(self) -> np.ndarray:
        """Test samples of classes that are not forgotten as a whole, `bool[n]`."""
        gone = np.setdiff1d(self.labels["forget"], self.labels["retain"])
        return ~np.isin(self.labels["test"], gone)


def evidence(
    name: str, outputs: ModelOutputs, labels: PartLabels, *, kind: str = "logits"
) -> Evidence:
    """Check the outputs of models and derive what the metrics read.

    Args:
      name: what messages call the models.
      outputs: of the models.
      labels: true classes.
      kind: "logits" or "probabilities".

    Raises:
      InputError: unknown kind, outputs with NaN, other numbers of samples, models or
        classes than elsewhere; an unseen part without labels.

    >>> logits = np.zeros((2, 1, 3))
    >>> found = evidence(
    ...     "ours", ModelOutputs(logits, logits, logits), PartLabels([0], [1], [2])
    ... )
    >>> found.models, found.confidence["forget"].round(2).tolist()
    (2, [[0.33], [0.33]])
    """
    if kind not in ("logits", "probabilities"):
        raise InputError(f"kind={kind!r}: choose 'logits' or 'probabilities'")
    probs, truth, sizes = {}, {}, set()
    odds = np.empty((0, 0))
    for part in PARTS:
        given = getattr(outputs, part)
        if given is None:
            continue
        at = f"{name}.{part}"
        array = _three_axes(at, given)
        count, samples, classes = array.shape
        sizes.add((count, classes))
        wanted = getattr(labels, part)
        if wanted is None:
            raise InputError(f"labels.{part}=None but {at} is given; give its labels")
        rows = array.reshape(-1, classes)
        if kind == "logits":
            probs[part] = _softmax(_checks.scores(at, rows)).reshape(array.shape)
        else:
            probs[part] = _checks.probabilities(at, rows).reshape(array.shape)
        truth[part] = _checks.class_labels(f"labels.{part}", wanted, samples, classes)
        if part == "forget":
            log_odds = margins if kind == "logits" else margins_from_probs
            odds = log_odds(array, truth[part])
    if len(sizes) > 1:
        raise InputError(
            f"{name} has parts of {sorted(sizes)} models and classes; give the same "
            "models on all parts"
        )
    confidence = {
        part: p[:, np.arange(len(truth[part])), truth[part]]
        for part, p in probs.items()
    }
    return Evidence(probs, confidence, odds, truth, {})


def select(given: Evidence, models: np.ndarray) -> Evidence:
    """Return the evidence of some of the models.

    Args:
      given: of all.
      models: their numbers.
    """
    return given._replace(
        probs={part: p[models] for part, p in given.probs.items()},
        confidence={part: c[models] for part, c in given.confidence.items()},
        margins=given.margins[models],
        levels={key: values[models] for key, values in given.levels.items()},
    )


def _three_axes(name: str, outputs: Any) -> np.ndarray:
    array = _checks.real(name, outputs, "[models, samples, classes]")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(
            f"{name}.shape={array.shape} must be [models, samples, classes] or "
            "[samples, classes], none of them 0"
        )
    bad = np.argwhere(~np.isfinite(array.max(axis=2)))
    if len(bad):
        model, sample = bad[0]
        raise InputError(
            f"{name}[{model}, {sample}]={array[model, sample].tolist()} is not finite "
            f"({len(bad)} rows); find out where the model diverged, or leave it out"
        )
    return array


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
