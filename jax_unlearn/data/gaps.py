"""How far queries are from the forget set: gaps of the labels and of the features.

Shapes: r samples of the retain subset, F forget samples (the support), n and m samples
of two sets, K classes, d features.
"""

import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.batches import QUERY
from jax_unlearn.data.checks import check_labelled, positive_integer
from jax_unlearn.data.queries import Strategy, draw_queries
from jax_unlearn.errors import InputError

__all__ = ["MOST_POOLED", "NULL", "Gap", "distribution_gap", "query_gaps"]

NULL = "support"
MOST_POOLED = 1000
"""Samples of each side that `query_gaps` takes its bandwidth from: at most so many."""

_ROWS = 1024  # of a kernel matrix held at once


class Gap(NamedTuple):
    """How different the distributions of two sets are; 0 for the same.

    Attributes:
      labels: total variation distance of the class frequencies, 0 to 1.
      features: squared maximum mean discrepancy, at most 2; an unbiased estimate, so
        slightly negative at times.
    """

    labels: float
    features: float


def distribution_gap(
    features_a: ArrayLike,
    labels_a: ArrayLike,
    features_b: ArrayLike,
    labels_b: ArrayLike,
    *,
    num_classes: int,
    bandwidth: float | None = None,
) -> Gap:
    r"""Return the gap of two sets of samples: features `[n, d]`, `[m, d]` and classes.

    With class frequencies a and b, and samples x of the one and y of the other set,

    .. math::
        \text{labels} = \tfrac12 \sum_k |a_k - b_k|, \quad
        \text{features} = \frac{\sum_{i \ne j} k(x_i, x_j)}{n (n - 1)}
        {} + \frac{\sum_{i \ne j} k(y_i, y_j)}{m (m - 1)}
        {} - \frac{2 \sum_{i,j} k(x_i, y_j)}{n m}, \quad
        k(x, y) = \exp\Big(\!-\frac{\|x - y\|^2}{2 h^2}\Big)

    The bandwidth h is by default the median distance between the pooled samples; where
    that is 0, the median of the positive distances; where there are none, 1, and the
    gap of the features is 0. The time, and without a bandwidth the memory, grow with
    the square of n + m; both are 2 or more.

    Raises:
      InputError: unusable features or labels, or a bandwidth that is not positive.

    Source: Gretton et al., JMLR 13 (2012), lemma 6; the median is their heuristic.

    >>> near, far = [[0.0], [0.0]], [[9.0], [9.0]]  # h = 9: 1 + 1 - 2 exp(-1/2)
    >>> distribution_gap(near, [0, 0], far, [0, 1], num_classes=2)
    Gap(labels=0.5, features=0.787)
    """
    x, labels_x, y, labels_y = _two_sets(
        ("features_a", features_a, labels_a),
        ("features_b", features_b, labels_b),
        num_classes,
    )
    for name, rows in (("features_a", x), ("features_b", y)):
        if len(rows) < 2:
            raise InputError(
                f"{name} of shape {rows.shape} must hold at least 2 samples: the "
                "unbiased estimate compares the pairs of a set"
            )
    x, y = _scaled(x, y, bandwidth)
    sums = _total(x, x) - len(x), _total(y, y) - len(y), _total(x, y)
    return _gap(labels_x, labels_y, sums, num_classes)


def query_gaps(
    strategies: Sequence[Strategy],
    features: ArrayLike,
    labels: ArrayLike,
    *,
    support_features: ArrayLike,
    support_labels: ArrayLike,
    num_classes: int,
    query_size: int,
    draws: int = 20,
    seed: int = 0,
) -> dict[str, Gap]:
    """Return how far the queries of each strategy are from the support: mean gaps.

    A query is small, so that even samples of the support itself have a gap of the
    labels to the rest of it: the null, last, under the key `"support"`. All share one
    bandwidth: the median distance between the pooled samples (1,000 random ones of
    each side, where there are more). A query that repeats samples, its pool being too
    small, has a larger gap for it.

    The strategies, of distinct names, draw from the subset of features `[r, d]` and
    classes `[r]`, as in the first `draws` steps of `queried`; the support, the forget
    set, has features `[F, d]` and classes `[F]`. A query has 2 to F - 2 samples.

    Raises:
      InputError: as `distribution_gap` and `queried`; two strategies of one name, or a
        `query_size` for which the support is too small.

    >>> from jax_unlearn.data.queries import uniform
    >>> near, far = np.zeros((4, 1)), np.full((6, 1), 9.0)  # h = 9, as above
    >>> support = {"support_features": near, "support_labels": [0] * 4}
    >>> gaps = query_gaps(
    ...     [uniform(6)], far, [1] * 6, **support, num_classes=2, query_size=2
    ... )
    >>> gaps["uniform"], gaps["support"]
    (Gap(labels=1.0, features=0.787), Gap(labels=0.0, features=0.0))
    """
    x, labels_x, y, labels_y = _two_sets(
        ("features", features, labels),
        ("support_features", support_features, support_labels),
        num_classes,
    )
    queries = [
        draw_queries(strategies, query_size, len(x), seed=seed, step=step)
        for step in range(positive_integer("draws", draws))
    ]
    if not 2 <= query_size <= len(y) - 2:
        raise InputError(
            f"query_size={query_size} must be 2 to {len(y) - 2}: the null compares as "
            f"many of the {len(y)} support samples with at least 2 others"
        )
    names = [*(strategy.name for strategy in strategies), NULL]
    for number, name in enumerate(names[:-1]):
        if name in names[number + 1 :]:
            raise InputError(
                f"strategies[{number}]={name!r} has the name of another row of the "
                "result; rename it: strategy._replace(name=...)"
            )
    rng = np.random.default_rng([seed, QUERY, 0, len(names)])
    few = [rows[rng.permutation(len(rows))[:MOST_POOLED]] for rows in (x, y)]
    x, y = _scaled(x, y, _median_distance(np.concatenate(few)))
    within = _total(y, y) - len(y)
    gaps: dict[str, list[Gap]] = {name: [] for name in names}
    for step, rows in enumerate(queries):
        for name, row in zip(names[:-1], rows, strict=True):
            sums = _total(x[row], x[row]) - query_size, within, _total(x[row], y)
            gaps[name].append(_gap(labels_x[row], labels_y, sums, num_classes))
        rng = np.random.default_rng([seed, QUERY, step, len(strategies)])
        row, rest = np.split(rng.permutation(len(y)), [query_size])
        # The sums over the rest follow from those over the whole support.
        own = _total(y[row], y[row]) - query_size
        cross = _total(y[row], y) - query_size - own
        sums = own, within - 2 * cross - own, cross
        gaps[NULL].append(_gap(labels_y[row], labels_y[rest], sums, num_classes))
    return {name: Gap(*np.mean(drawn, axis=0).tolist()) for name, drawn in gaps.items()}


def _two_sets(first, second, num_classes: int):
    """Return features and labels of two sets, checked, given by name."""
    positive_integer("num_classes", num_classes)
    x, labels_x = check_labelled(*first, num_classes=num_classes)
    y, labels_y = check_labelled(*second, num_classes=num_classes, width=x.shape[1])
    return x, labels_x, y, labels_y


def _scaled(
    x: NDArray[np.float64], y: NDArray[np.float64], bandwidth: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two sets about their common mean, the unit being the bandwidth."""
    pooled = np.concatenate([x, y])
    if bandwidth is None:
        bandwidth = _median_distance(pooled)
    real = isinstance(bandwidth, numbers.Real) and not isinstance(bandwidth, bool)
    if not (real and math.isfinite(bandwidth) and bandwidth > 0):
        raise InputError(
            f"bandwidth={bandwidth} must be a positive number; leave it out for the "
            "median distance"
        )
    centre = pooled.mean(axis=0)  # distances lose fewer digits near the origin
    return (x - centre) / bandwidth, (y - centre) / bandwidth


def _median_distance(pooled: NDArray[np.float64]) -> float:
    """Return the median distance, of the distinct where most are equal, or else 1."""
    from scipy.spatial.distance import pdist

    distance = pdist(pooled)  # exactly 0 for equal samples
    if np.median(distance) == 0:
        distance = distance[distance > 0]
    return float(np.median(distance)) if len(distance) else 1.0


def _total(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the sum of k(x, y) over all pairs, h being the unit."""
    from sklearn.metrics.pairwise import rbf_kernel

    parts = (x[start : start + _ROWS] for start in range(0, len(x), _ROWS))
    return float(sum(rbf_kernel(part, y, gamma=0.5).sum() for part in parts))


def _gap(
    labels_x: NDArray[np.int64],
    labels_y: NDArray[np.int64],
    sums: tuple[float, float, float],
    num_classes: int,
) -> Gap:
    """Return the gap, from the sums of k over the pairs within x, within y, across."""
    n, m = len(labels_x), len(labels_y)
    means = sums[0] / (n * (n - 1)), sums[1] / (m * (m - 1)), sums[2] / (n * m)
    x, y = (
        np.bincount(labels, minlength=num_classes) / len(labels)
        for labels in (labels_x, labels_y)
    )
    return Gap(float(np.abs(x - y).sum() / 2), means[0] + means[1] - 2 * means[2])
