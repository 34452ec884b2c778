"""Parts of a data set chosen by class and by distance; smaller images, other labels.

Shapes: N training samples, R retain samples, r those of a subset, d features.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data import checks
from jax_unlearn.data.long_tail import largest_remainder
from jax_unlearn.data.sources import Dataset, Examples
from jax_unlearn.data.splits import draw_per_class, holdout, random_bits
from jax_unlearn.errors import InputError

__all__ = ["by_distance", "confuse_classes", "joined", "retain_subset", "shrink"]
__all__ += ["subset"]


def retain_subset(
    labels: ArrayLike, retain_ids: ArrayLike, *, rho: float, seed: int = 0
) -> NDArray[np.int64]:
    r"""Return the part of the retain set `[R]` that unlearning may read: the ρ-subset.

    .. math::
        \text{total} = \text{round}(\rho R), \quad
        b_k = \max(1, \lambda R_k), \quad \sum_k b_k = \text{total}

    Class k gives its share b_k of the total, rounded by largest remainder; a class
    whose share is under one gives one. Each class is shuffled by the seed alone and
    gives its first samples, so the subset of a smaller ρ lies within that of a larger
    one, but for classes that rounding gives fewer of in the larger. The ids, positions
    in the labels `[N]`, are sorted; a seed names the same in every NumPy version.

    Raises:
      InputError: `rho` not in (0, 1], or too small for one sample of each class, or ids
        that are empty, out of range or repeated.

    Source: LTU (ECCV 2024, arXiv 2407.10494), with ρ = 0.3; stratifying is our choice.

    >>> labels = np.repeat([0, 1], [10, 20])
    >>> subset = retain_subset(labels, range(30), rho=0.5)
    >>> np.bincount(labels[subset])
    array([ 5, 10])
    >>> set(retain_subset(labels, range(30), rho=0.1)) <= set(subset)
    True
    """
    classes, _ = checks.check_labels(labels)
    hint = "the part of the retain set to read, such as 0.3"
    checks.check_real("rho", rho, hint, positive=True)
    ids = checks.positions("retain_ids", retain_ids, len(classes))
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

    `train` and `test` are the numbers of samples, 0 for all. Samples keep their order;
    ids are positions in the new arrays.

    Raises:
      InputError: more samples than there are.

    >>> from jax_unlearn.data.sources import digits
    >>> small = subset(digits(), train=100, test=0)
    >>> len(small.train.labels), len(small.test.labels)
    (100, 797)
    """
    parts: dict[str, Any] = {"train": dataset.train, "test": dataset.test}
    for name, count in (("train", train), ("test", test)):
        labels = parts[name].labels
        size = len(labels)
        if not 0 <= count <= size:
            raise InputError(
                f"{name}={count}: {dataset.name} has {size} such samples; 0 takes all"
            )
        if 0 < count < size:
            _, ids = holdout(labels, count=count, seed=seed)
            parts[name] = parts[name].at(ids)
            if name == "train":
                columns = dataset.columns.items()
                parts["columns"] = {key: column[ids] for key, column in columns}
    return dataset._replace(**parts)


def joined(datasets: Sequence[Dataset]) -> Dataset:
    """Return data sets of the same classes as one, called as the first, in their order.

    Equal test sets count once: parts of a training set may each come with the whole.
    Columns that all of them have are joined too.

    Raises:
      InputError: none is given; other classes, shapes or types than the first has.

    >>> from jax_unlearn.data.sources import digits
    >>> both = joined([digits(), digits()])
    >>> len(both.train.labels), len(both.test.labels)
    (2000, 797)
    """
    if not datasets:
        raise InputError("datasets=[]: give one or more")
    first, tests = datasets[0], [datasets[0].test]
    for one in datasets:
        forms = [(d.class_names, d.train.inputs.shape[1:]) for d in (one, first)]
        if forms[0] != forms[1] or one.train.inputs.dtype != first.train.inputs.dtype:
            raise InputError(
                f"{one.name}: {one.num_classes} classes, images "
                f"{one.train.inputs.shape[1:]} of {one.train.inputs.dtype}, unlike "
                f"{first.name}; join parts of one data set"
            )
        if not any(all(map(np.array_equal, one.test, test)) for test in tests):
            tests.append(one.test)

    def whole(parts: Sequence[Examples]) -> Examples:
        return Examples(*map(np.concatenate, zip(*parts, strict=True)))

    common = set.intersection(*(set(d.columns) for d in datasets))
    columns = {
        name: np.concatenate([d.columns[name] for d in datasets])
        for name in first.columns
        if name in common
    }
    train = whole([d.train for d in datasets])
    return first._replace(train=train, test=whole(tests), columns=columns)


def by_distance(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    count: int,
    near: bool,
    neighbours: int = 10,
) -> NDArray[np.int64]:
    """Return a sorted forget set that lies among the other samples, or apart from them.

    Each class of the samples, of features `[N, d]` and labels `[N]`, gives its
    proportional share of `count`, rounded by largest remainder: its samples with the
    smallest (`near`) or largest mean Euclidean distance to their nearest other samples,
    `neighbours` of them, which may be of any class. Ties go by position. The time grows
    with the square of N.

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

    matrix, classes = checks.check_labelled("features", features, labels)
    for name, value in (("count", count), ("neighbours", neighbours)):
        if checks.positive_integer(name, value) >= len(matrix):
            raise InputError(
                f"{name}={value} must be less than the {len(matrix)} samples; lower it"
            )
    search = NearestNeighbors(n_neighbors=neighbours).fit(matrix - matrix.mean(axis=0))
    distance, _ = search.kneighbors()  # without an argument: to the other samples
    mean = distance.mean(axis=1)
    sizes = np.bincount(classes)
    counts = largest_remainder(count * sizes / len(classes), count, sizes)
    ranked = np.argsort(mean if near else -mean, kind="stable")
    chosen = [ranked[classes[ranked] == k][:n] for k, n in enumerate(counts)]
    return np.sort(np.concatenate(chosen))


def shrink(dataset: Dataset, factor: int) -> Dataset:
    """Return the data set of images with both sides divided by a whole factor.

    Each pixel is the mean of factor × factor pixels, of bytes rounded to bytes again;
    the name of the set says its new size.

    Raises:
      InputError: a factor that does not divide the sides.

    >>> images = Examples(np.array([[0, 2], [4, 6]], np.uint8).reshape(1, 2, 2, 1), [0])
    >>> small = shrink(Dataset("tiny", images, images, 1, ("a",)), 2)
    >>> small.name, small.train.inputs.ravel()
    ('tiny-1x1', array([3], dtype=uint8))
    """
    height, width = dataset.train.inputs.shape[1:3]
    if factor < 1 or height % factor or width % factor:
        raise InputError(
            f"factor={factor} must divide the sides of images of {height} x {width}"
        )
    if factor == 1:
        return dataset

    def reduced(part: Examples) -> Examples:
        n, h, w, c = part.inputs.shape
        blocks = part.inputs.reshape(n, h // factor, factor, w // factor, factor, c)
        means = blocks.mean(axis=(2, 4), dtype=np.float32)
        means = np.round(means) if part.inputs.dtype == np.uint8 else means
        return Examples(means.astype(part.inputs.dtype), part.labels)

    name = f"{dataset.name}-{height // factor}x{width // factor}"
    train, test = reduced(dataset.train), reduced(dataset.test)
    return dataset._replace(name=name, train=train, test=test)


def confuse_classes(
    labels: ArrayLike, ids: ArrayLike | Iterable[int], pair: Sequence[int]
) -> NDArray[Any]:
    """Return labels in which the samples named belong to the other class of the pair.

    Of class a become b, of class b become a; all others stay, so a second time gives
    the labels back. Train on the result,
    then forget the ids: `audit.interclass_confusion` says what is left. The ids,
    positions in the labels `[N]`, are of samples of the two classes, and can be drawn
    with `forget_split(labels, kind="class", classes=pair, fraction=0.5).forget`.

    Raises:
      InputError: a pair that is not two different classes with samples; ids that are
        no forget set (`check_ids`) or of another class.

    Source: Goel et al., arXiv 2201.06640.

    >>> confuse_classes([0, 0, 1, 1, 2], [0, 3], pair=(0, 1))
    array([1, 0, 1, 0, 2])
    """
    classes, _ = checks.check_labels(labels)
    chosen = np.asarray(pair)
    if chosen.shape != (2,) or chosen.dtype.kind not in "iu":
        raise InputError(f"pair={pair} must be two class numbers; give (3, 5)")
    first, second = chosen.tolist()
    if first == second:
        raise InputError(f"pair={pair} names one class twice; give two classes")
    for value in (first, second):
        if value not in classes:
            raise InputError(
                f"pair={pair}: class {value} has no samples; choose among "
                f"{np.unique(classes).tolist()}"
            )
    forget = checks.check_ids(ids, num_samples=len(classes))
    other = forget[~np.isin(classes[forget], chosen)]
    if other.size:
        raise InputError(
            f"ids holds {other[0]}, of class {classes[other[0]]} ({other.size} of "
            f"{forget.size} are of other classes); name samples of classes {first} and "
            f"{second} only"
        )
    result = np.array(labels)
    result[forget] = first + second - classes[forget]
    return result


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
