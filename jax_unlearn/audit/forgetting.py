"""Forgetting quality: how surely an attacker tells unlearned from retrained models.

Two ensembles are compared example by example: N unlearned and M retrained models. F is
the number of forget samples. Only the order of the values counts: the logit-scaled
confidence, the probability it comes from and the loss all give the same epsilon.
"""

import math
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn._validate import share
from jax_unlearn.audit import _checks
from jax_unlearn.audit.evidence import FigureCard
from jax_unlearn.errors import InputError

__all__ = ["ForgettingQuality", "example_epsilon", "forgetting_null"]
__all__ += ["forgetting_points", "forgetting_quality", "forgetting_score"]

SEPARATED = 50.0
"""Epsilon of an example on which some attack never errs: the estimate is infinite, and
the challenge's code caps it at this value."""

_CHUNK = 256  # examples worked on at once: bounds the memory


class ForgettingQuality(NamedTuple):
    """Forgetting quality and what it is the mean of.

    Attributes:
      f: mean of the points, in (0, 1]; 1 where no example is told apart.
      epsilon, points: of each example, `f64[F]`.
      median: median epsilon.
      quantile_95: epsilon that 95 percent of the examples stay below.
      separated: number of examples on which an attack never errs.
      models: (N, M), numbers of unlearned and of retrained models.
    """

    f: float
    epsilon: np.ndarray
    points: np.ndarray
    median: float
    quantile_95: float
    separated: int
    models: tuple[int, int]


def example_epsilon(
    unlearned: Any, retrained: Any, *, delta: float = 1e-5
) -> np.ndarray:
    """Epsilon: how surely the best attack tells an example's two ensembles apart.

    eps_t = max(ln(1 - delta - FPR) - ln FNR, ln(1 - delta - FNR) - ln FPR, 0)
    eps = max_t eps_t

    The models' confidences in the true class of F examples, `[N, F]` and `[M, F]`, give
    `f64[F]`, 0..50; 0 where all N + M values are equal. delta is that of differential
    privacy, in [0, 1), FNR the share of unlearned models that attack t calls retrained,
    FPR the share of retrained ones that it calls unlearned. An attack with exactly
    one of them 0 is dropped: with more models it would not be. With both 0 the estimate
    is infinite and counts as 50. The finite values end at ln(N - 1), where N = M.

    An attack calls unlearned (or retrained) what lies above a cut, or what lies between
    two cuts that hold at least half of one ensemble (our choice: else intervals that
    hold nine of one and one of the other by chance decide). All cuts between
    neighbouring values of the pooled models are tried, where the challenge tries a
    grid; time grows as F (N + M)^2. The challenge also counts an ensemble of under 1
    percent of the other's range as told apart; here the interval around it finds out
    whether it is.

    As the largest of many, epsilon is biased upwards: ensembles of one distribution
    give about 1.6, however many the models (`forgetting_null`).

    Raises:
      InputError: fewer than 2 models, values not finite, other numbers of examples, a
        delta outside [0, 1).

    Source: Triantafillou et al., arXiv 2406.09073 (NeurIPS 2023 challenge).

    >>> example_epsilon([[1.0], [3.0]], [[2.0], [4.0]], delta=0).tolist()  # ln 1
    [0.0]
    >>> four = [[1.0], [2.0], [3.0], [4.0]]
    >>> example_epsilon(four, [[2.5], [4.5], [5.5], [6.5]], delta=0).tolist()  # ln 3
    [1.0986]
    >>> example_epsilon(four, [[5.0], [6.0], [7.0], [8.0]]).tolist()
    [50.0]
    """
    share("delta", delta, "try 1e-5")
    u, r = _checks.ensembles(unlearned, retrained)
    table = _epsilon_of_counts(len(u), len(r), delta)
    starts = range(0, u.shape[1], _CHUNK)
    return np.concatenate(
        [_largest(u[:, s : s + _CHUNK], r[:, s : s + _CHUNK], table) for s in starts]
    )


def forgetting_points(epsilon: Any) -> np.ndarray:
    """Points of examples: 2^-floor(2 epsilon), half as many every 0.5; `f64[F]`.

    The challenge's code gives 0 points from epsilon = ceil(ln(N - 1)) on, where its
    buckets end; here the law goes on (2^-10 in place of 0 for N = 64).

    Raises:
      InputError: an epsilon that is negative or not finite.

    Source: Triantafillou et al., arXiv 2406.09073.

    >>> forgetting_points([0.0, 0.49, 0.5, 1.2]).tolist()
    [1.0, 1.0, 0.5, 0.25]
    """
    eps = _checks.vector("epsilon", epsilon)
    _checks.refuse("epsilon", eps, eps < 0, "is negative; give example_epsilon(...)")
    return np.exp2(-np.floor(2 * eps))


def forgetting_quality(
    unlearned: Any, retrained: Any, *, delta: float = 1e-5
) -> ForgettingQuality:
    """Forgetting quality F: the mean points of the forget samples.

    F = (1/F) sum_s 2^-floor(2 eps_s)

    Target: the value between two ensembles of retrained models, NOT 1: about 0.17 for
    independent ones, however many (`forgetting_null`; the challenge's own grid gives
    0.19). Only the very same models give 1. With few models it is coarse: of 2 against
    2 an epsilon is 0 or 50; the challenge used 512 of each. It takes and refuses what
    `example_epsilon` does. Source: Triantafillou et al., arXiv 2406.09073.

    >>> unlearned = [[1.0, 0.0], [2.0, 0.1], [3.0, 0.2], [4.0, 0.3]]
    >>> retrained = [[2.5, 7.0], [4.5, 7.1], [5.5, 7.2], [6.5, 7.3]]
    >>> quality = forgetting_quality(unlearned, retrained)
    >>> quality.points[0], quality.separated, round(quality.f, 6)
    (np.float64(0.25), 1, 0.125)
    """
    u, r = _checks.ensembles(unlearned, retrained)
    epsilon = example_epsilon(u, r, delta=delta)
    points = forgetting_points(epsilon)
    return ForgettingQuality(
        f=float(points.mean()),
        epsilon=epsilon,
        points=points,
        median=float(np.median(epsilon)),
        quantile_95=float(np.quantile(epsilon, 0.95)),
        separated=int(np.sum(epsilon >= SEPARATED)),
        models=(len(u), len(r)),
    )


def forgetting_null(
    unlearned_models: int,
    retrained_models: int,
    *,
    delta: float = 1e-5,
    draws: int = 1000,
    seed: int = 0,
) -> ForgettingQuality:
    """Forgetting quality of two ensembles of one distribution, by simulation.

    What perfect unlearning of N models gets beside M retrained ones, each of `draws` an
    example. Epsilon depends on the order of the values alone, so this holds for every
    continuous distribution. With N = M, F is 0.34, 0.24 and 0.18 for 2, 4 and 8 models
    and stays within 0.16 to 0.17 from 16 to 512. Source: our choice.

    Raises:
      InputError: fewer than 2 models of either kind, fewer than 1 draw.

    >>> null = forgetting_null(16, 16)
    >>> 1 < null.median < 2, 0.1 < null.f < 0.25
    (True, True)
    """
    u, r = _checks.drawn_ensembles(unlearned_models, retrained_models, draws, seed)
    return forgetting_quality(u, r, delta=delta)


def forgetting_score(
    f: float,
    *,
    retain_accuracy: float,
    retrain_retain_accuracy: float,
    test_accuracy: float,
    retrain_test_accuracy: float,
) -> float:
    """Score of the challenge: forgetting quality times what utility is left.

    F · (RA_u / RA_r) · (TA_u / TA_r), at least 0, of F in 0..1 and the accuracies of
    the unlearned and the retrained models on D_r and D_t in percent; over F where the
    unlearned models are the more accurate.

    Raises:
      InputError: `f` outside 0..1, an accuracy outside 0..100, a retrained one of 0.

    Source: Triantafillou et al., arXiv 2406.09073.

    >>> accuracies = {"retain_accuracy": 90, "retrain_retain_accuracy": 100}
    >>> accuracies |= {"test_accuracy": 72, "retrain_test_accuracy": 90}
    >>> round(forgetting_score(0.5, **accuracies), 12)
    0.36
    """
    if not 0 <= f <= 1:
        raise InputError(f"f={f} must lie in 0..1; give forgetting_quality(...).f")
    figures = {
        "retain_accuracy": retain_accuracy,
        "retrain_retain_accuracy": retrain_retain_accuracy,
        "test_accuracy": test_accuracy,
        "retrain_test_accuracy": retrain_test_accuracy,
    }
    for name, value in figures.items():
        if not 0 <= value <= 100:
            raise InputError(f"{name}={value} is outside 0..100; give percentages")
        if value == 0 and name.startswith("retrain_"):
            raise InputError(
                f"{name}={value} leaves the ratio without a meaning; give Retrain's "
                "accuracy in percent"
            )
    retain = retain_accuracy / retrain_retain_accuracy
    return float(f * retain * (test_accuracy / retrain_test_accuracy))


def _epsilon_of_counts(n: int, m: int, delta: float) -> np.ndarray:
    """Epsilon `[n + 1, m + 1]` of picking a of n and b of m models out as one kind."""
    fnr = (n - np.arange(n + 1))[:, None] / n
    fpr = np.arange(m + 1)[None, :] / m
    # A rate of 1 leaves the logarithm of a negative number, which bounds nothing.
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (
            np.log(1 - delta - a) - np.log(b) for a, b in ((fpr, fnr), (fnr, fpr))
        )
    epsilon = np.fmax(np.fmax(low, high), 0.0)
    epsilon[(fnr == 0) != (fpr == 0)] = 0.0  # dropped
    epsilon[n, 0] = SEPARATED
    return np.maximum(epsilon, epsilon[::-1, ::-1])


def _largest(u: np.ndarray, r: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Largest entry of the table, for each example, over all attacks."""
    n, m = len(u), len(r)
    pooled = np.concatenate([u, r])
    order = np.argsort(pooled, axis=0, kind="stable")
    ordered = np.take_along_axis(pooled, order, axis=0)
    places = np.broadcast_to(np.arange(n + m + 1)[:, None], (n + m + 1, u.shape[1]))
    below = np.concatenate([0 * places[:1], np.cumsum(order < n, axis=0)])
    # Index in the flattened table of the models below a place; the difference of two
    # is the index of the models between them.
    code = m * below + places
    # No cut divides equal values: each place moves up to the next where values differ.
    cut = np.where(np.diff(ordered, axis=0) > 0, places[1:-1], n + m)
    cut = np.concatenate([places[:1], cut, places[-1:]])
    cut = np.minimum.accumulate(cut[::-1], axis=0)[::-1]
    code = np.take_along_axis(code, cut, axis=0)
    best = table.ravel()[code].max(axis=0)
    half = (2 * np.arange(n + 1) >= n)[:, None] | (2 * np.arange(m + 1) >= m)
    between = np.where(half, table, 0.0).ravel()
    least = (min(n, m) + 1) // 2
    for low in range(n + m + 1 - least):
        counts = code[low + least :] - code[low]
        best = np.maximum(best, between[counts].max(axis=0))
    return best


FORGETTING_F = FigureCard(
    "forgetting_f",
    "forgetting quality F",
    "points for samples on which no attack tells the ensembles apart; at most 1",
    against=lambda ours, others, seed: forgetting_quality(ours.margins, others.margins),
    read=attrgetter("f"),
    bounds=(0, 1),
    kind="closeness",
    group="forgetting",
    tells="traces",
    models=4,
    source="Triantafillou et al., arXiv 2406.09073",
)
EPSILON = FORGETTING_F.like(
    "epsilon",
    "median epsilon",
    "median over the samples of how surely the best attack tells the ensembles apart",
    read=attrgetter("median"),
    digits=2,
    bounds=(0, math.inf),
    kind="distance",
    detail=lambda models, others, level: {
        "epsilon": example_epsilon(models.margins, others.margins)
    },
)
