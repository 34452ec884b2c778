"""Which samples are forgotten: random, by class, or long-tailed over the classes.

Shapes: N samples, K classes, F forget, R retain. All draws order things by the raw
64-bit stream of `numpy.random.PCG64(seed)`, which NumPy guarantees not to change, so
that a seed names the same split in every version.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn._validate import one_of
from jax_unlearn.data.checks import check_ids, check_labels, check_real, check_seed
from jax_unlearn.data.long_tail import largest_remainder, long_tailed_counts
from jax_unlearn.errors import InputError

__all__ = ["CHOSEN", "KINDS", "MANIFEST_VERSION", "WORST", "Split", "digest"]
__all__ += ["draw_per_class"]
__all__ += ["forget_split", "given_split", "holdout", "ordered_digest", "random_bits"]
__all__ += ["to_ids"]

KINDS = ("random", "class", "long_tailed")
WORST = ("worst", "hard")  # searched, see `jax_unlearn.data.worst`
CHOSEN = ("given", "near", "far", *WORST)  # not drawn: `given_split`
MANIFEST_VERSION = 1


class Split(NamedTuple):
    """Forget and retain set, with the record of how they were made.

    Attributes:
      forget: sorted positions, `i64[F]`.
      retain: sorted positions, `i64[R]`; disjoint from `forget`, together all.
      manifest: JSON-able record: `version`, `kind`, `fraction`, `gamma`, `classes`,
        `class_order`, `max_class_fraction` (None where the kind does not use them),
        `seed`, `num_samples`, `num_classes`, `forget_counts` `[K]`, and the digests
        `labels_sha256`, `forget_sha256`, `retain_sha256`.
    """

    forget: NDArray[np.int64]
    retain: NDArray[np.int64]
    manifest: dict[str, Any]


def digest(ids: ArrayLike) -> str:
    """Return the sha256 of a set of ids `[F]`, in any order, as hexadecimal digits.

    The ids are sorted first; each counts as a little-endian int64.

    >>> digest([2, 1]) == digest(np.array([1, 2], np.int32))
    True
    >>> digest([])[:8]  # the sha256 of nothing
    'e3b0c442'
    """
    return ordered_digest(np.sort(np.asarray(ids)))


def ordered_digest(values: ArrayLike) -> str:
    """Return the sha256 of integers in their order, as little-endian int64."""
    return hashlib.sha256(np.asarray(values).astype("<i8").tobytes()).hexdigest()


def forget_split(
    labels: ArrayLike,
    *,
    kind: str = "random",
    fraction: float | None = None,
    gamma: float = 1.0,
    classes: Sequence[int] | None = None,
    seed: int = 0,
    max_class_fraction: float = 0.9,
    num_classes: int | None = None,
) -> Split:
    """Divide training samples, by position, into a forget and a retain set.

    - `"random"`: `round(fraction * N)` samples, uniformly.
    - `"class"`: `fraction` of the samples of `classes` (of one class drawn by the
      seed, when None), uniformly.
    - `"long_tailed"`: `round(fraction * N)` samples, of which each class gives what
      `long_tailed_counts` says; the class order is a permutation drawn by the seed
      of the classes that have samples.

    The labels `[N]` are classes of the training samples; K is the largest plus 1 unless
    told. `fraction` is 0.1 unless told, 1.0 for `"class"`, the only kind that takes
    `classes`; `gamma` and `max_class_fraction` are the imbalance and the cap of
    `"long_tailed"`. The same seed, 0 or more, gives the same split.

    Raises:
      InputError: anything of this that cannot be done, with the remedy.

    Source: METHODS [D]; `"random"` and `"class"` are what all the papers do.

    >>> labels = [0, 0, 1, 1, 2, 2]
    >>> split = forget_split(labels, kind="class", classes=[1])
    >>> split.forget, split.retain
    (array([2, 3]), array([0, 1, 4, 5]))
    >>> split.manifest["forget_counts"]
    [0, 2, 0]
    """
    labels, num_classes = check_labels(labels, num_classes)
    if kind in WORST:
        raise InputError(
            f"kind={kind!r} needs a model, not labels alone; find the samples by "
            "ju.data.worst_case and give them to given_split"
        )
    one_of("kind", kind, KINDS)
    if classes is not None and kind != "class":
        raise InputError(f"classes={classes} is for kind='class', not kind={kind!r}")
    fraction = (1.0 if kind == "class" else 0.1) if fraction is None else fraction
    check_real("fraction", fraction, "the part to forget, such as 0.1")
    bits = random_bits(seed)
    sizes = np.bincount(labels, minlength=num_classes)
    pool, used = np.arange(len(labels)), {}
    if kind == "class":
        chosen = _check_classes(classes, sizes, bits)
        pool = np.flatnonzero(np.isin(labels, chosen))
        used = {"classes": chosen.tolist()}
    total = round(fraction * len(pool))
    if kind == "long_tailed":
        order = _permute(bits, np.flatnonzero(sizes))
        law = {"gamma": gamma, "max_class_fraction": max_class_fraction}
        counts = long_tailed_counts(sizes, total, order=order, **law)
        forget = draw_per_class(bits, labels, counts)
        law = {name: float(value) for name, value in law.items()}
        used = {**law, "class_order": order.tolist()}
    else:
        forget = _permute(bits, pool)[:total]
    if not 0 < len(forget) < len(labels):
        raise InputError(
            f"fraction={fraction} with kind={kind!r} forgets {len(forget)} of "
            f"{len(labels)} samples; both sets need at least one"
        )
    told = {"kind": kind, "fraction": float(fraction), "seed": int(seed), **used}
    return _split(labels, forget, num_classes, **told)


def given_split(
    labels: ArrayLike,
    forget: ArrayLike,
    *,
    kind: str = "given",
    num_classes: int | None = None,
) -> Split:
    """Return the split, by position, of a forget set that was chosen otherwise.

    The manifest says how: "given", "near" or "far" (of `by_distance`), "worst" or
    "hard" (of `worst_case`, without and with a reference). `labels`
    `[N]` are those of the training samples, `forget` `[F]` positions in them.

    Raises:
      InputError: as `check_ids`, or an unknown kind.

    >>> split = given_split([0, 0, 1], [2])
    >>> split.retain, split.manifest["kind"]
    (array([0, 1]), 'given')
    """
    labels, num_classes = check_labels(labels, num_classes)
    one_of("kind", kind, CHOSEN)
    ids = check_ids(forget, num_samples=len(labels))
    return _split(labels, ids, num_classes, kind=kind)


def _split(
    labels: NDArray[np.int64], forget: NDArray[np.int64], num_classes: int, **told: Any
) -> Split:
    """Return a split with its manifest; what was not told is None."""
    forget = np.sort(forget).astype(np.int64)
    retain = np.setdiff1d(np.arange(len(labels)), forget)
    fields = ("kind", "fraction", "gamma", "max_class_fraction", "classes")
    manifest = {
        "version": MANIFEST_VERSION,
        **{name: told.get(name) for name in (*fields, "class_order", "seed")},
        "num_samples": len(labels),
        "num_classes": num_classes,
        "forget_counts": np.bincount(labels[forget], minlength=num_classes).tolist(),
        "labels_sha256": ordered_digest(labels),
        "forget_sha256": digest(forget),
        "retain_sha256": digest(retain),
    }
    return Split(forget, retain, manifest)


def holdout(
    labels: ArrayLike,
    *,
    fraction: float | None = None,
    count: int | None = None,
    seed: int = 0,
    stratified: bool = True,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Set samples aside that no model is trained on: the unseen set.

    Either a `fraction` or a `count` is set aside. If `stratified`, each class gives in
    proportion to its size (largest remainder), else all samples are drawn alike.
    Returned are (train ids, unseen ids): sorted positions in the labels `[N]`,
    disjoint, together all.

    Raises:
      InputError: neither or both numbers given, or one of the two sets empty.

    >>> train, unseen = holdout([0, 0, 0, 0, 1, 1], fraction=0.5)
    >>> len(train), np.asarray([0, 0, 0, 0, 1, 1])[unseen]
    (3, array([0, 0, 1]))
    """
    labels, num_classes = check_labels(labels)
    if (fraction is None) == (count is None):
        raise InputError(f"fraction={fraction}, count={count}: give exactly one")
    if fraction is not None:
        check_real("fraction", fraction, "the part to set aside")
        count = round(fraction * len(labels))
    assert count is not None
    if not 0 < count < len(labels):
        given = f"count={count}" if fraction is None else f"fraction={fraction}"
        raise InputError(
            f"{given}: {count} of {len(labels)} samples set aside; both sets need at "
            "least one"
        )
    bits = random_bits(seed)
    if stratified:
        sizes = np.bincount(labels, minlength=num_classes)
        counts = largest_remainder(count * sizes / len(labels), count, sizes)
        unseen = draw_per_class(bits, labels, counts)
    else:
        unseen = _permute(bits, np.arange(len(labels)))[:count]
    unseen = np.sort(unseen)
    return np.setdiff1d(np.arange(len(labels)), unseen), unseen


def to_ids(split: Split, ids: ArrayLike) -> Split:
    """Turn positions in a part of a data set into ids of the data set, digests too.

    Needed when `forget_split` was given `labels[ids]`, for example the labels of what
    `holdout` left for training; `ids` `[N]` are strictly increasing.

    Raises:
      InputError: `ids` has another length or is not strictly increasing.

    >>> split = forget_split([0, 0, 1], kind="class", classes=[1])
    >>> to_ids(split, [10, 20, 30]).forget
    array([30])
    """
    array = np.asarray(ids)
    if array.shape != (split.manifest["num_samples"],) or np.any(np.diff(array) <= 0):
        raise InputError(
            f"ids of shape {array.shape} must be the {split.manifest['num_samples']} "
            "increasing ids whose labels were split"
        )
    forget, retain = (array[part].astype(np.int64) for part in split[:2])
    digests = {"forget_sha256": digest(forget), "retain_sha256": digest(retain)}
    return Split(forget, retain, {**split.manifest, **digests})


def _check_classes(
    classes: Sequence[int] | None, sizes: NDArray[np.int64], bits: np.random.PCG64
) -> NDArray[np.int64]:
    if classes is None:
        return _permute(bits, np.flatnonzero(sizes))[:1]
    array = np.asarray(classes)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise InputError(f"classes={classes} must be a list of class numbers: [3]")
    for value in array:
        if not 0 <= value < len(sizes) or sizes[value] == 0:
            raise InputError(
                f"classes={classes}: class {value} has no samples; "
                f"choose among 0 to {len(sizes) - 1}"
            )
    return np.unique(array).astype(np.int64)


def random_bits(seed: Any) -> np.random.PCG64:
    """Return a stream that gives the same bits in every version of numpy."""
    return np.random.PCG64(check_seed(seed))


def _permute(bits: np.random.PCG64, pool: NDArray[np.int64]) -> NDArray[np.int64]:
    return pool[np.argsort(bits.random_raw(len(pool)), kind="stable")]


def draw_per_class(
    bits: np.random.PCG64, labels: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the positions of `counts[k]` samples of each class k."""
    pools = [np.flatnonzero(labels == k) for k in range(len(counts))]
    drawn = [_permute(bits, pool)[:n] for pool, n in zip(pools, counts, strict=True)]
    return np.concatenate(drawn)
