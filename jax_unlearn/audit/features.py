"""From outputs and true classes: a number a sample, or a share of the samples.

Shapes: N samples, K classes; of the margins any number of models before them. numpy
float64 on the host; a value never depends on the batch it is computed in. Logarithms
are natural.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.errors import InputError

__all__ = ["accuracy", "entropy", "interclass_confusion", "margins"]
__all__ += ["margins_from_probs", "modified_entropy"]
__all__ += ["true_class_confidence", "true_class_loss"]

FLOOR = 1e-30
"""Least argument of a logarithm (our choice): -log 0 counts as 69.08."""


def true_class_confidence(probs: Any, labels: Any) -> np.ndarray:
    """Probability of the true class, p_y, `[N]` in [0, 1].

    Of softmax probabilities `[N, K]` and true classes `[N]`.

    Raises:
      InputError: rows that are no probabilities, labels that do not fit them.

    >>> true_class_confidence([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [0, 2]).tolist()
    [0.7, 0.1]
    """
    return _own_and_others(_checks.probabilities("probs", probs), labels, 0.0)[0]


def true_class_loss(probs: Any, labels: Any) -> np.ndarray:
    """Cross-entropy with the true class, -log p_y, `[N]` in [0, 69.08].

    Losses computed from logits are finer where p_y underflows: here p_y below 1e-30
    counts as 1e-30. It takes and refuses what `true_class_confidence` does.

    >>> true_class_loss([[0.5, 0.5], [1.0, 0.0]], [0, 0]).round(4).tolist()
    [0.6931, 0.0]
    """
    return -_log(true_class_confidence(probs, labels)) + 0.0


def entropy(probs: Any) -> np.ndarray:
    """Entropy of softmax probabilities `[N, K]`: -sum_k p_k log p_k, 0 log 0 = 0.

    `[N]` in [0, log K].

    Raises:
      InputError: rows that are no probabilities.

    >>> entropy([[0.5, 0.5], [1.0, 0.0]]).round(4).tolist()
    [0.6931, 0.0]
    """
    p = _checks.probabilities("probs", probs)
    return -np.sum(p * _log(p), axis=1) + 0.0


def modified_entropy(probs: Any, labels: Any) -> np.ndarray:
    """Entropy that knows the true class: low if right and sure, high if wrong and sure.

    -(1 - p_y) log p_y - sum_{k != y} p_k log(1 - p_k)

    `[N]`, at least 0; logarithms of less than 1e-30 count as log 1e-30, so that a row
    sure of a wrong class gives 138.16. It takes and refuses what
    `true_class_confidence` does. Source: Song and Mittal, "Systematic evaluation of
    privacy risks of machine learning models", 2021.

    >>> modified_entropy([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [0, 1]).round(3).tolist()
    [0.162, 0.066]
    """
    p = _checks.probabilities("probs", probs)
    own, others = _own_and_others(p, labels, 0.0)
    return -(1 - own) * _log(own) - np.sum(others * _log(1 - others), axis=1) + 0.0


def margins(logits: Any, labels: Any) -> np.ndarray:
    """Margin of the true class: logit_y - log sum_{k != y} exp logit_k.

    The logit-scaled confidence log(p_y / (1 - p_y)), `f64[..., N]`, nearly Gaussian
    over models, without its cancellation at p_y near 1. (`losses.margin` takes the
    largest other logit instead.) Of logits `[..., N, K]`, for example models, samples,
    classes, and true classes `[N]`. Log probabilities give the same margins,
    probabilities do not.

    Raises:
      InputError: shapes or labels that do not fit, a margin that is not finite.

    >>> margins([[[0.0, 3.0], [9.0, 9.0]], [[1.0, 0.0], [0.0, 0.0]]], [1, 0]).tolist()
    [[3.0, 0.0], [-1.0, 0.0]]
    """
    z = _checks.scores("logits", logits, None)
    own, others = _own_and_others(z, labels, -np.inf)
    peak = others.max(axis=-1)
    _checks.refuse(
        "logits",
        z,
        ~(np.isfinite(own) & np.isfinite(peak)),
        "have no finite margin ({n} of {all} rows); give finite logits in float32, not "
        "log(softmax)",
    )
    return own - (peak + np.log(np.exp(others - peak[..., None]).sum(axis=-1)))


def margins_from_probs(probs: Any, labels: Any) -> np.ndarray:
    """Margin of the true class from probabilities: log p_y - log sum_{k != y} p_k.

    For where only probabilities `[..., N, K]` are at hand; logits are finer. The other
    probabilities are summed, for 1 - p_y is 0 in float32 from p_y = 0.99999997 on.
    Either sum counts as at least 1e-30, so that the result, `f64[..., N]`, stays within
    ±69.08. Source: Carlini et al. (LiRA), arXiv 2112.03570; the floor is our choice.

    Raises:
      InputError: rows that are no probabilities, labels that do not fit.

    >>> margins_from_probs([[0.9, 0.1], [1.0, 0.0]], [0, 0]).round(2)
    array([ 2.2 , 69.08])
    """
    p = _checks.probabilities("probs", probs, None)
    own, others = _own_and_others(p, labels, 0.0)
    return _log(own) - _log(others.sum(axis=-1))


def accuracy(outputs: Any, labels: Any) -> float:
    """Share of samples whose largest output is their true class, 0..100 percent.

    Of outputs `[N, K]`, probabilities or logits, and true classes `[N]`; of equal
    largest outputs the first counts. Minus infinity marks a class left out.

    Raises:
      InputError: outputs with NaN, labels that do not fit, no samples.

    >>> accuracy([[2.0, -1.0], [0.3, 0.1], [0.0, 5.0], [1.0, 0.0]], [0, 0, 1, 1])
    75.0
    """
    predicted, y, _ = _predicted(outputs, labels)
    return float(100 * np.mean(predicted == y))


def interclass_confusion(outputs: Any, labels: Any, pair: Sequence[int]) -> float:
    """Share of the samples of two classes that are taken for the other one of the two.

    100 · (C_ab + C_ba) / (N_a + N_b), C_kl: number of samples of k predicted as l, for
    the pair (a, b), outputs as for `accuracy` and true classes `[N]`, before any
    exchange; samples of other classes are passed over. Target: Retrain's value, not 0.
    The test: exchange the labels of some training samples of two classes
    (`data.confuse_classes`), train on them, forget these very samples. On unseen
    samples it tells whether the model still confuses the classes, on the forget set
    (with its TRUE labels) whether it still remembers the wrong ones.

    Raises:
      InputError: as `accuracy`, a pair that is not two different classes, no sample of
        them.

    Source: Goel et al., arXiv 2201.06640, who give the number C_ab + C_ba.

    >>> outputs = [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.1, 0.2, 0.7], [0.6, 0.4, 0.0]]
    >>> interclass_confusion(outputs, [0, 0, 1, 1], (0, 1))
    50.0
    """
    predicted, y, num_classes = _predicted(outputs, labels)
    classes = np.asarray(pair)
    if classes.shape != (2,) or classes.dtype.kind not in "iu":
        raise InputError(f"pair={pair} must be two class numbers; give (3, 5)")
    classes = _checks.class_labels("pair", classes, 2, num_classes)
    first, second = classes.tolist()
    if first == second:
        raise InputError(f"pair={pair} names one class twice; give two classes")
    ours = np.isin(y, classes)
    if not ours.any():
        raise InputError(
            f"pair={pair} has no sample among the {len(y)} labels; give samples of "
            "these classes"
        )
    return float(100 * np.mean(predicted[ours] == first + second - y[ours]))


def _predicted(outputs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Return predicted and true classes `[N]`, and K."""
    array = _checks.scores("outputs", outputs)
    y = _checks.class_labels("labels", labels, *array.shape)
    return array.argmax(axis=1), y, array.shape[1]


def _own_and_others(
    array: np.ndarray, labels: Any, fill: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the true class's values `[..., N]`, and all with `fill` in their place."""
    y = _checks.class_labels("labels", labels, *array.shape[-2:])
    others = array.copy()
    others[..., np.arange(len(y)), y] = fill
    return array[..., np.arange(len(y)), y], others


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(x, FLOOR))
