"""Parts of a data set chosen by class and by distance: what LTU reads and forgets.

Shapes: N training samples, R retain samples, r those of a subset, d features.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.batches import positions, positive
from jax_unlearn.data.long_tail import check_real, largest_remainder
from jax_unlearn.data.sources import Dataset, Examples
from jax_unlearn.data.splits import check_labels, draw_per_class, holdout, random_bits
from jax_unlearn.errors import InputError


def retain_subset(
    labels: ArrayLike, retain_ids: ArrayLike, *, rho: float, seed: int = 0
) -> NDArray[np.int64]:
    r"""Return the part of the retain set that unlearning may read: the ρ-subset.

    .. math::
        \text{total} = \text{round}(\rho R), \quad
        b_k = \max(1, \lambda R_k), \quad \sum_k b_k = \text{total}

    Class k gives its share b_k of the total, rounded by largest remainder; a class
    whose share is under one gives one. Each class is shuffled by the seed alone and
    gives its first samples, so the subset of a smaller ρ lies within that of a larger
    one, but for classes that rounding gives fewer of in the larger.

    Args:
      labels: classes of the training samples, integers `[N]`.
      retain_ids: positions in `labels`, `[R]`, in any order.
      rho: part of the retain set, in (0, 1].
      seed: a non-negative integer; it names the same subset in every NumPy version.

    Returns:
      Sorted ids `i64[r]`, `r = round(rho * R)`; all of them for `rho=1`.

    Raises:
      InputError: `rho` out of range or too small for one sample of each class, or ids
        that are empty, out of range or repeated.

    Source: LTU (ECCV 2024, arXiv 2407.10494), with ρ = 0.3; stratifying is our choice.

    >>> labels = np.repeat([0, 1], [10, 20])
    >>> subset = retain_subset(labels, range(30), rho=0.5)
    >>> np.bincount(labels[subset])
    array([ 5, 10])
    >>> set(retain_subset(labels, range(30), rho=0.1)) <= set(subset)
    True
    """
    classes, _ = check_labels(labels, None)
    check_part("rho", rho, "the part of the retain set to read, such as 0.3")
    samples = Examples(classes, classes.astype(np.int32))  # only counted
    ids = positions(samples, "retain_ids", retain_ids)
    twice = ids[1:][np.diff(ids) == 0]
    if len(twice):
        raise InputError(f"retain_ids holds {twice[0]} twice; name each sample once")
    sizes = np.bincount(classes[ids])
    present, total = np.count_nonzero(sizes), round(rho * len(ids))
    if total < present:
        enough = math.ceil(present / len(ids) * 1e4) / 1e4
        raise InputError(
            f"rho={rho} keeps {total} of {len(ids)} retain samples, fewer than their "
            f"{present} classes; raise rho to {enough}"
        )
    counts = largest_remainder(_shares(sizes, total), total, sizes)
    return ids[np.sort(draw_per_class(random_bits(seed), classes[ids], counts))]


def subset(dataset: Dataset, *, train: int, test: int, seed: int = 0) -> Dataset:
    """Return a smaller data set with the same proportions of the classes.

    Args:
      dataset: what to take from.
      train: number of training samples; 0 takes all.
      test: number of test samples; 0 takes all.
      seed: a non-negative integer.

    Returns:
      Dataset; samples keep their order, ids are positions in the new arrays.

    Raises:
      InputError: more samples than there are.

    >>> from jax_unlearn.data.sources import digits
    >>> small = subset(digits(), train=100, test=0)
    >>> len(small.train.labels), len(small.test.labels)
    (100, 797)
    """
    parts = []
    for name, count in (("train", train), ("test", test)):
        examples: Examples = getattr(dataset, name)
        size = len(examples.labels)
        if not 0 <= count <= size:
            raise InputError(
                f"{name}={count}: {dataset.name} has {size} such samples; 0 takes all"
            )
        if count in (0, size):
            parts.append(examples)
            continue
        _, ids = holdout(examples.labels, count=count, seed=seed)
        parts.append(Examples(examples.inputs[ids], examples.labels[ids]))
    return dataset._replace(train=parts[0], test=parts[1])


def by_distance(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    count: int,
    near: bool,
    neighbours: int = 10,
) -> NDArray[np.int64]:
    """Return a forget set that lies among the other samples, or apart from them.

    Each class gives its proportional share, rounded by largest remainder: its samples
    with the smallest (`near`) or largest mean Euclidean distance to their nearest
    other samples, which may be of any class. Ties go by position.

    Args:
      features: of the training samples, `[N, d]`. The time grows with the square of N.
      labels: their classes, integers `[N]`.
      count: samples to forget, under N.
      near: whether to take the nearest, else the farthest.
      neighbours: how many nearest other samples the distance is averaged over.

    Returns:
      Sorted positions `i64[count]`.

    Raises:
      InputError: unusable features or labels, `count` or `neighbours` not 1 to N - 1.

    Source: our choice, for a question that the LTU paper leaves open.

    >>> features, labels = [[0.0], [0.1], [5.0], [9.0]], [0, 0, 0, 0]
    >>> by_distance(features, labels, count=2, near=True, neighbours=1)
    array([0, 1])
    >>> by_distance(features, labels, count=2, near=False, neighbours=1)
    array([2, 3])
    """
    from sklearn.neighbors import NearestNeighbors

    matrix = check_features("features", features)
    classes, _ = check_labels(labels, None)
    check_rows("labels", classes, matrix)
    for name, value in (("count", count), ("neighbours", neighbours)):
        if positive(name, value) >= len(matrix):
            raise InputError(
                f"{name}={value} must be less than the {len(matrix)} samples; lower it"
            )
    search = NearestNeighbors(n_neighbors=neighbours).fit(matrix - matrix.mean(axis=0))
    distance, _ = search.kneighbors()  # without an argument: to the other samples
    mean = distance.mean(axis=1)
    sizes = np.bincount(classes)
    counts = largest_remainder(count * sizes / len(classes), count, sizes)
    chosen = []
    for label, number in enumerate(counts):
        members = np.flatnonzero(classes == label)
        order = np.argsort(mean[members] if near else -mean[members], kind="stable")
        chosen.append(members[order[:number]])
    return np.sort(np.concatenate(chosen))


def check_features(
    name: str, features: ArrayLike, *, width: int | None = None
) -> NDArray[np.float64]:
    """Return features as a matrix of float64, if they are usable.

    Args:
      name: what a message calls them.
      features: `[n, d]`.
      width: d, where other features fix it.

    Returns:
      `f64[n, d]`.

    Raises:
      InputError: another shape, no samples, NaN or infinite numbers.

    >>> check_features("features", [[1, 2]])
    array([[1., 2.]])
    """
    matrix = np.asarray(features, np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise InputError(
            f"{name} of shape {matrix.shape} must be one row a sample, [n, d]; reshape "
            "them"
        )
    if width is not None and matrix.shape[1] != width:
        raise InputError(
            f"{name} of shape {matrix.shape} must have {width} columns, like the other "
            "features; take both from the same layer"
        )
    wrong = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(wrong):
        raise InputError(
            f"{name}: {len(wrong)} of {len(matrix)} rows have NaN or infinite numbers, "
            f"the first {name}[{wrong[0]}]; mend or drop them"
        )
    return matrix


def check_rows(
    name: str, labels: NDArray[np.int64], features: NDArray[np.float64]
) -> None:
    """Refuse labels that are not one a row of the features.

    Args:
      name: what a message calls the labels.
      labels: `[n]`.
      features: `[n, d]`.

    Raises:
      InputError: they are not.

    >>> check_rows("labels", np.zeros(2, np.int64), np.zeros((3, 1)))
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: labels of shape (2,) must be one a row of the \
features, (3,)
    """
    if len(labels) != len(features):
        raise InputError(
            f"{name} of shape {labels.shape} must be one a row of the features, "
            f"({len(features)},)"
        )


def check_part(name: str, value: Any, hint: str) -> None:
    """Refuse a hyper-parameter that is no part of a whole, in (0, 1].

    Args:
      name: what the message calls it.
      value: the number.
      hint: the remedy.

    Raises:
      InputError: it is something else.

    >>> check_part("rho", 0, "try 0.3")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: rho=0 must be over 0; try 0.3
    """
    check_real(name, value, 0.0, 1.0, hint)
    if value == 0:
        raise InputError(f"{name}={value} must be over 0; {hint}")


def _shares(sizes: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    """Return shares of a total in proportion to the sizes, but at least one each."""
    budget = np.zeros(len(sizes))
    free = sizes > 0
    while True:
        left = total - budget[~free].sum()
        budget[free] = left * sizes[free] / sizes[free].sum()
        low = free & (budget < 1)
        if not low.any():
            return budget
        budget[low] = 1
        free &= ~low
