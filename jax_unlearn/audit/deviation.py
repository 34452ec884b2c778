"""Who was forgotten too little or too much, sample by sample, against Retrain.

A good average can hide that a method forgets half of the samples too much and half too
little. Shapes: F forget samples, K classes.
"""

from typing import Any, NamedTuple

import numpy as np

from jax_unlearn._validate import at_least
from jax_unlearn.audit import _checks
from jax_unlearn.audit.evidence import Evidence, FigureCard
from jax_unlearn.data import head_mid_tail
from jax_unlearn.errors import InputError

__all__ = ["ClassDeviation", "DeviationCounts", "GroupDeviation"]
__all__ += ["deviation_by_class", "deviation_by_group", "deviation_counts"]
__all__ += ["per_sample_deviation", "unlearning_deviation"]


class DeviationCounts(NamedTuple):
    """Number of forget samples more confident than Retrain, about as much, and less."""

    under: int
    faithful: int
    over: int


class ClassDeviation(NamedTuple):
    """Mean deviation of each class, `f64[K]`, NaN without samples; their `i64[K]`."""

    mean: np.ndarray
    count: np.ndarray


class GroupDeviation(NamedTuple):
    """Mean deviation of the samples of some classes, and their number.

    The classes go by falling forget count; the mean is NaN where there is no sample.
    """

    classes: list[int]
    mean: float
    count: int


def unlearning_deviation(conf: Any, retrained_conf: Any) -> np.ndarray:
    """Confidence in the true class beyond Retrain's: p_theta(c|x) - p_theta*(c|x).

    `[F]` in [-1, 1] for the probabilities of the unlearned model and of Retrain on D_f;
    their mean over several Retrain models lessens the noise. Positive: under-forgotten;
    negative: over-forgotten; 0: as Retrain. The null, the deviation between two Retrain
    models of different seeds, is not 0: measure it. Source: FaLW (ICLR 2026).

    Raises:
      InputError: an empty set, different lengths, values outside [0, 1].

    >>> unlearning_deviation([1.0, 0.25, 0.5], [0.75, 0.5, 0.5]).tolist()
    [0.25, -0.25, 0.0]
    """
    p = _checks.confidences("conf", conf)
    q = _checks.confidences("retrained_conf", retrained_conf)
    _checks.same_length("conf", p, "retrained_conf", q)
    return p - q


def per_sample_deviation(conf: Any, retrained_conf: Any) -> float:
    """Mean distance from Retrain sample by sample: (1/F) sum_i |p_i - p_i*|.

    Unlike the mean deviation, errors of opposite sign do not cancel: 0..1, and 0 where
    every sample has Retrain's confidence. It takes and refuses what
    `unlearning_deviation` does. Source: our choice.

    >>> per_sample_deviation([1.0, 0.25, 0.5, 0.5], [0.75, 0.5, 0.5, 0.5])
    0.125
    """
    return float(np.mean(np.abs(unlearning_deviation(conf, retrained_conf))))


def deviation_counts(deviation: Any, *, tolerance: float) -> DeviationCounts:
    """Number of samples under-forgotten, faithful and over-forgotten, F in all.

    The deviations are those of `unlearning_deviation`, `[F]`; faithful are those of at
    most the tolerance, for example the per-sample deviation between two Retrain models.

    Raises:
      InputError: a negative tolerance, a deviation that is not finite.

    >>> deviation_counts([0.4, 0.05, -0.1, -0.3], tolerance=0.1)
    DeviationCounts(under=1, faithful=2, over=1)
    """
    at_least("tolerance", tolerance, 0, "try 0.1")
    d = _checks.vector("deviation", deviation)
    under, over = int(np.sum(d > tolerance)), int(np.sum(d < -tolerance))
    return DeviationCounts(under, len(d) - under - over, over)


def deviation_by_class(deviation: Any, labels: Any, num_classes: int) -> ClassDeviation:
    """Mean deviation of each of K classes, NaN without samples, and their number.

    Of `unlearning_deviation`, or any other number a sample, and true classes, `[F]`.

    Raises:
      InputError: different lengths, labels outside 0..K-1.

    >>> deviation_by_class([0.5, 0.25, -1.0], [0, 0, 2], 3)
    ClassDeviation(mean=array([ 0.375,    nan, -1.   ]), count=array([2, 0, 1]))
    """
    d = _checks.vector("deviation", deviation)
    y = _checks.class_labels("labels", labels, len(d), num_classes)
    count = np.bincount(y, minlength=num_classes)
    total = np.bincount(y, weights=d, minlength=num_classes)
    mean = np.full(num_classes, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return ClassDeviation(mean, count)


def deviation_by_group(
    deviation: Any, labels: Any, forget_counts: Any
) -> dict[str, GroupDeviation]:
    """Mean deviation of the "head", the "mid" and the "tail" of the forget set.

    Of deviations and true classes, `[F]`, and the classes' numbers of forget samples,
    `[K]`. The groups are thirds of the classes that have forget samples, ordered by
    their number N_fk; the head holds the most frequent. Every sample counts the same,
    classes of equal N_fk go by number, and the first groups take what thirds leave over
    (our choice). Correctness of the method minus correctness of Retrain, given in place
    of the deviation, yields FaLW's change of accuracy by group.

    Raises:
      InputError: different lengths, fewer than three classes with forget samples, a
        sample of a class whose forget count is 0.

    >>> groups = deviation_by_group([-0.5, -0.25, 0.5, 1.0], [2, 2, 0, 1], [5, 1, 9])
    >>> groups["head"]
    GroupDeviation(classes=[2], mean=-0.375, count=2)
    """
    counts = np.asarray(forget_counts)
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or np.any(counts < 0):
        raise InputError(
            f"forget_counts={counts.tolist()} must be one whole number a class; give "
            "np.bincount(labels, minlength=num_classes)"
        )
    present = np.flatnonzero(counts)
    if present.size < 3:
        raise InputError(
            f"forget_counts={counts.tolist()} names {present.size} classes with forget "
            "samples, too few for three groups; use deviation_by_class"
        )
    d = _checks.vector("deviation", deviation)
    y = _checks.class_labels("labels", labels, len(d), counts.size)
    words = "has forget_counts 0; give the counts of the whole forget set"
    _checks.refuse("labels", y, counts[y] == 0, words)
    groups = {}
    for name, third in head_mid_tail(counts[present])._asdict().items():
        ids = present[third].tolist()
        inside = d[np.isin(y, ids)]
        mean = float(inside.mean()) if inside.size else float("nan")
        groups[name] = GroupDeviation(ids, mean, inside.size)
    return groups


def _thirds(models: Evidence, others: Evidence, level: float) -> dict[str, Any]:
    """Return the mean of p - p* by head, mid and tail of the forgotten classes."""
    del level
    labels = models.labels["forget"]
    counts = np.bincount(labels, minlength=models.probs["forget"].shape[2])
    if np.count_nonzero(counts) < 3:  # no thirds
        return {}
    mean, retrained = (e.confidence["forget"].mean(axis=0) for e in (models, others))
    groups = deviation_by_group(mean - retrained, labels, counts)
    return {"groups": {name: float(group.mean) for name, group in groups.items()}}


DEVIATION = FigureCard(
    "deviation",
    "|p - p*|",
    "mean distance of the confidence in each forget sample from Retrain's",
    against=lambda models, others, seed: np.abs(
        models.confidence["forget"] - others.confidence["forget"]
    ).mean(),
    bounds=(0, 1),
    group="deviation",
    tells="answers",
    headline=True,
    detail=_thirds,
    source="after FaLW (ICLR 2026)",
)
