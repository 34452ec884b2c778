"""Queries of LTU: batches of the retain set, each drawn by another strategy.

Shapes: R retain samples, r those of the subset that is accessible, F forget samples,
N strategies, d features. A strategy is bound to arrays of the subset, in the order of
its sorted ids, and draws positions in it, 0 to r - 1. No sample comes twice in one
query unless the pool the strategy draws from is smaller than the query; then the
samples of the pool come in turn, until the query is full.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data import checks
from jax_unlearn.data.batches import QUERY, Passes, Schedule, take
from jax_unlearn.data.schedules import Shared, combined, together
from jax_unlearn.data.sources import Examples
from jax_unlearn.errors import InputError
from jax_unlearn.types import Batch, UnlearnBatch

__all__ = ["Strategy", "class_skewed", "draw_queries", "feature_cluster", "hard"]
__all__ += ["nearest", "queried", "uniform"]


class Strategy(NamedTuple):
    """A way to choose a query: `draw(rng, size)` gives positions in the subset."""

    name: str
    draw: Callable[[np.random.Generator, int], NDArray[np.int64]]


def uniform(count: int) -> Strategy:
    """Return the strategy that draws among all `count` = r samples of the subset alike.

    Raises:
      InputError: `count` is not positive.

    Source: our choice, as all strategies here: the paper asks for different ones.

    >>> sorted(uniform(3).draw(np.random.default_rng(0), 3).tolist())
    [0, 1, 2]
    """
    pool = np.arange(checks.positive_integer("count", count))
    return Strategy("uniform", _among(pool))


def class_skewed(labels: ArrayLike, *, classes: int = 2) -> Strategy:
    """Return the strategy that keeps to a few classes, drawn anew for each query.

    The classes are drawn uniformly among those present in the labels `[r]` and give
    equal numbers, to within one, until a class has no more samples. Its pool is the
    samples of the classes drawn.

    Raises:
      InputError: `classes` is more than there are; in `draw`, than the query holds.

    >>> labels = np.array([5, 5, 6, 6, 7, 7])
    >>> drawn = class_skewed(labels).draw(np.random.default_rng(0), 4)
    >>> np.unique(labels[drawn], return_counts=True)[1]
    array([2, 2])
    """
    array, _ = checks.check_labels(labels)
    present = np.unique(array)
    if checks.positive_integer("classes", classes) > len(present):
        raise InputError(
            f"classes={classes} is more than the {len(present)} classes of the subset; "
            "lower it"
        )
    members = [np.flatnonzero(array == label) for label in present]

    def draw(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        if classes > size:
            raise InputError(
                f"classes={classes} is more classes than the query can hold, "
                f"size={size}; lower classes or make the query larger"
            )
        chosen = rng.choice(len(present), classes, replace=False)
        pools = [rng.permutation(members[place]) for place in chosen]
        turn = np.concatenate([np.arange(len(pool)) for pool in pools])
        # First the first sample of each class, then the second of each, ...
        return np.resize(np.concatenate(pools)[np.argsort(turn, kind="stable")], size)

    return Strategy("class_skewed", draw)


def feature_cluster(
    features: ArrayLike, *, clusters: int = 8, seed: int = 0
) -> Strategy:
    """Return the strategy that keeps to one cluster of the features `[r, d]`.

    k-means makes the clusters (the best of 4 starts; `seed` is its own, 0 to 2³² - 1).
    Each query draws a cluster with probability in proportion to its samples; one that
    is too small is filled up from the nearest other clusters, by the distance of the
    centres. Its pool is the whole subset.

    Raises:
      InputError: unusable features, or fewer distinct ones than `clusters`.

    >>> strategy = feature_cluster([[0.0], [9.0], [0.1], [9.1]], clusters=2)
    >>> sorted(strategy.draw(np.random.default_rng(0), 2).tolist()) in ([0, 2], [1, 3])
    True
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics.pairwise import euclidean_distances

    matrix = checks.check_features("features", features)
    checks.check_seed(seed)
    if seed >= 2**32:
        raise InputError(f"seed={seed} must be under 2**32 for k-means; try 0")
    distinct = len(np.unique(matrix, axis=0))
    if checks.positive_integer("clusters", clusters) > distinct:
        raise InputError(
            f"clusters={clusters} is more than the {distinct} distinct features; lower "
            "clusters"
        )
    starts: Any = 4
    means = KMeans(clusters, n_init=starts, random_state=int(seed)).fit(matrix)
    labels = np.asarray(means.labels_)
    members = [np.flatnonzero(labels == cluster) for cluster in range(clusters)]
    share = np.bincount(labels, minlength=clusters) / len(labels)
    distance = euclidean_distances(means.cluster_centers_)
    np.fill_diagonal(distance, -1)  # the cluster itself comes first
    order = np.argsort(distance, axis=1, kind="stable")

    def draw(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        chosen = order[rng.choice(clusters, p=share)]
        ranked = [rng.permutation(members[cluster]) for cluster in chosen]
        return np.resize(np.concatenate(ranked), size)

    return Strategy("feature_cluster", draw)


def hard(confidence: ArrayLike, *, share: float = 0.25) -> Strategy:
    """Return the strategy that draws among the samples the model is least sure of.

    Its pool are the `ceil(share * r)` samples with the lowest true-class probability
    `[r]` under the original model, ties by position; the share is in (0, 1].

    Raises:
      InputError: unusable confidences or `share`.

    >>> hard([0.9, 0.2, 0.8, 0.7]).draw(np.random.default_rng(0), 1)
    array([1])
    """
    array = np.asarray(confidence, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(
            f"confidence of shape {array.shape} must be one number a sample: [r]"
        )
    wrong = ~np.isfinite(array)
    checks.refuse("confidence", array, wrong, "must be finite; mend it first")
    return Strategy("hard", _among(_lowest(array, share)))


def nearest(
    features: ArrayLike, forget_features: ArrayLike, *, share: float = 0.25
) -> Strategy:
    """Return the strategy that draws among the samples most like the forget set.

    Its pool are the `ceil(share * r)` samples of which the features `[r, d]` have the
    smallest Euclidean distance to the nearest of those of the forget set `[F, d]`, ties
    by position; the share is in (0, 1].

    Raises:
      InputError: unusable features or `share`.

    >>> strategy = nearest([[0.0], [4.0], [6.0], [9.0]], [[1.5], [9.0]], share=0.5)
    >>> sorted(strategy.draw(np.random.default_rng(0), 2).tolist())
    [0, 3]
    """
    from sklearn.neighbors import NearestNeighbors

    matrix = checks.check_features("features", features)
    width = matrix.shape[1]
    forget = checks.check_features("forget_features", forget_features, width=width)
    centre = matrix.mean(axis=0)  # distances lose fewer digits near the origin
    search = NearestNeighbors(n_neighbors=1).fit(forget - centre)
    distance, _ = search.kneighbors(matrix - centre)
    return Strategy("nearest", _among(_lowest(distance[:, 0], share)))


def queried(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    strategies: Sequence[Strategy],
    *,
    batch_size: int,
    query_size: int,
    **options: Unpack[Shared],
) -> Schedule[UnlearnBatch]:
    """Return steps with a shuffled forget batch and one retain query a strategy.

    The queries, of `query_size` samples each, are drawn from the subset `retain_ids`
    `[r]`, of which the N strategies hold arrays in sorted order. Those of a step lie
    one after the other in one retain batch of `N * query_size` samples, in the order of
    `strategies`; reshape it to `[N, query_size, ...]` to part them. The draws depend on
    the seed, the step and the number of the strategy only.

    Otherwise as `combined`; an epoch is `ceil(r / (N * query_size))` steps, which read
    as many samples as the subset has but need not read them all.

    Raises:
      InputError: as `supervised`; no strategy, a query larger than the subset, or a
        strategy that draws what is not in the subset.

    Source: LTU (ECCV 2024, arXiv 2407.10494): one query a sampling strategy.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> two = [uniform(6), hard([0.9, 0.9, 0.9, 0.9, 0.9, 0.1], share=0.1)]
    >>> schedule = queried(
    ...     examples, [0, 1], range(3, 9), two, batch_size=2, query_size=1, epochs=1
    ... )
    >>> len(schedule), int(schedule[0].retain.index[1])  # the last is hard
    (3, 8)
    """
    subset = checks.positions("retain_ids", retain_ids, len(examples.labels))
    size, seed = (query_size, len(subset)), options.get("seed", 0)

    def drawn(step: int) -> Batch:
        queries = draw_queries(strategies, *size, seed=seed, step=step)
        return take(examples, subset[queries.ravel()])

    drawn(0)  # what is wrong with a strategy is told before the first step
    retains = Passes(-(-len(subset) // (len(strategies) * query_size)), drawn)
    return combined(
        examples, forget_ids, retains, together(), batch_size=batch_size, **options
    ).schedule


def draw_queries(
    strategies: Sequence[Strategy], size: int, count: int, *, seed: int, step: int
) -> NDArray[np.int64]:
    """Return the queries of one step as positions in the subset, `i64[N, size]`."""
    if not strategies:
        raise InputError(
            f"strategies={strategies} must hold at least one, such as uniform({count})"
        )
    if checks.positive_integer("query_size", size) > count:
        raise InputError(
            f"query_size={size} is more than the {count} samples of the subset; lower "
            "it or take a larger subset"
        )
    checks.check_seed(seed)
    queries = []
    for number, strategy in enumerate(strategies):
        if not isinstance(strategy, Strategy):
            raise InputError(
                f"strategies[{number}]={strategy!r} must be a Strategy, such as "
                f"uniform({count}); pass a list of them"
            )
        rng = np.random.default_rng([seed, QUERY, step, number])
        query = np.asarray(strategy.draw(rng, size))
        whole = query.dtype.kind in "iu" and query.shape == (size,)
        if not whole or query.min() < 0 or query.max() >= count:
            raise InputError(
                f"strategies[{number}]={strategy.name!r} must draw {size} positions, 0 "
                f"to {count - 1}; make it of arrays of the {count} samples queried"
            )
        queries.append(query.astype(np.int64))
    return np.stack(queries)


def _among(
    pool: NDArray[np.int64],
) -> Callable[[np.random.Generator, int], NDArray[np.int64]]:
    """Return draws of a pool, all of it in turn if the query is larger."""
    return lambda rng, size: np.resize(rng.permutation(pool), size)


def _lowest(values: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    """Return the positions of the lowest values, at least one."""
    hint = "the part of the subset to draw from, such as 0.25"
    checks.check_real("share", share, hint, positive=True)
    count = math.ceil(round(share * len(values), 6))  # 0.07·100 is 7.000000000000001
    return np.argsort(values, kind="stable")[: max(count, 1)]
