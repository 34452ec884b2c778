"""KLoM: Kullback-Leibler divergence of the margins of unlearned and retrained models.

Example by example, the margins are put into histograms with common bins.
"""

import math
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.audit.evidence import FigureCard
from jax_unlearn.errors import InputError

__all__ = ["Klom", "klom", "klom_null"]


class Klom(NamedTuple):
    """Divergence of the margins of N unlearned and M retrained models, in nats.

    Attributes:
      per_example: `f64[F]`, 0..log(1/floor).
      mean, median: over the examples.
      quantile_95: value that 95 percent of the examples stay below.
      models: (N, M).
      bins: number of bins.
    """

    per_example: np.ndarray
    mean: float
    median: float
    quantile_95: float
    models: tuple[int, int]
    bins: int


def klom(
    unlearned: Any,
    retrained: Any,
    *,
    bins: int = 20,
    clip: float = 100.0,
    floor: float = 1e-5,
) -> Klom:
    """KL(unlearned || retrained) of the margins, example by example.

    KL = sum_b p_b log(p_b / q_b)

    Margins, `[N, F]` and `[M, F]` from `margins`, are clipped to ±clip. The bins, 2 or
    more, divide the range of the N + M margins of the example evenly; the last bin
    holds the largest margin. (Public code drops that one, and gives 0 where all
    retrained margins are equal and the largest.) p and q are the shares of the two
    ensembles, no less than `floor`, which lies between 0 and 1/bins, and then divided
    by their sum, so that the very same margins give 0 (the published code lifts q
    alone, a difference of the order of bins · floor, 0.0002). Equal margins throughout
    give 0.

    Target: the value between two ensembles of retrained models, not 0 (`klom_null`).
    Compare only figures from equal numbers of models and bins.

    Raises:
      InputError: fewer than 2 models, values not finite, other numbers of examples, an
        option out of range.

    Source: Georgiev et al., arXiv 2410.23232.

    >>> apart = klom([[0.0], [0.1]], [[4.9], [5.0]])  # no bin in common: log(1e5)
    >>> apart.mean
    11.51
    >>> klom([[0.0], [5.0]], [[5.0], [0.0]]).mean
    0.0
    >>> klom([[0.0], [5.0]], [[0.0], [0.0]]).mean  # half lost: (1/2) log(1e5 / 4)
    5.06
    """
    _checks.whole("bins", bins, 2, "try 20")
    if not 0 < floor < 1 / bins:
        raise InputError(f"floor={floor} must lie between 0 and 1/bins; try 1e-5")
    if not clip > 0:
        raise InputError(f"clip={clip} must be over 0; try 100")
    u, r = _checks.ensembles(unlearned, retrained)
    u, r = np.clip(u, -clip, clip), np.clip(r, -clip, clip)
    low = np.minimum(u.min(axis=0), r.min(axis=0))
    high = np.maximum(u.max(axis=0), r.max(axis=0))
    edges = np.linspace(low, high, bins + 1)
    p, q = _shares(u, edges, floor), _shares(r, edges, floor)
    divergence = np.maximum(np.sum(p * np.log(p / q), axis=0), 0.0)
    return Klom(
        per_example=divergence,
        mean=float(divergence.mean()),
        median=float(np.median(divergence)),
        quantile_95=float(np.quantile(divergence, 0.95)),
        models=(len(u), len(r)),
        bins=bins,
    )


def klom_null(
    unlearned_models: int,
    retrained_models: int,
    *,
    bins: int = 20,
    floor: float = 1e-5,
    draws: int = 1000,
    seed: int = 0,
) -> Klom:
    """KLoM of two ensembles of one distribution, by simulation: the noise level.

    What perfect unlearning of N models gets beside M retrained ones, each of `draws` an
    example. Were all bins well filled, it would be about (bins - 1)/2 · (1/N + 1/M);
    but the bins reach as far as the outermost margin, and each nearly empty one where a
    retrained model happens to be missing adds about (1/N) log(1/(N · floor)). With N =
    M and the defaults the mean is 7.9 for 5 models, 5.6 for 10, 3.1 for 20, 0.88 for
    50, 0.35 for 100, 0.15 for 200 and 0.05 for 512, against a largest value of 11.5:
    KLoM of a few models says little. Margins are drawn from a normal distribution; its
    mean and width do not matter while no margin is clipped. Source: our choice.

    Raises:
      InputError: fewer than 2 models of either kind, fewer than 1 draw, an option out
        of range.

    >>> few, many = klom_null(10, 10, draws=200), klom_null(100, 100, draws=200)
    >>> few.mean > many.mean > 19 / 2 * (1 / 100 + 1 / 100)
    True
    """
    u, r = _checks.drawn_ensembles(unlearned_models, retrained_models, draws, seed)
    return klom(u, r, bins=bins, floor=floor)


def _shares(values: np.ndarray, edges: np.ndarray, floor: float) -> np.ndarray:
    """Shares `[bins, F]` of the values between the edges, lifted to the floor."""
    below = np.stack([np.sum(values < edge, axis=0) for edge in edges[1:-1]])
    counts = np.diff(below, axis=0, prepend=0, append=len(values))
    shares = np.maximum(counts / len(values), floor)
    return shares / shares.sum(axis=0)


KLOM = FigureCard(
    "klom",
    "KLoM (mean)",
    "mean over the samples of how far their margins diverge from Retrain's",
    bounds=(0, math.inf),
    group="klom",
    models=4,
    tells="traces",
    source="Georgiev et al., arXiv 2410.23232",
    against=lambda models, others, seed: klom(models.margins, others.margins),
    read=attrgetter("mean"),
)
KLOM_95 = KLOM.like(
    "klom_95",
    "KLoM (95 % of samples)",
    "how far margins diverge from Retrain's, at the 95th percentile",
    read=attrgetter("quantile_95"),
)
