"""Data sets as arrays on the host: what they are, and what any source makes them of.

Shapes: N images of H x W pixels and C channels, K classes; a row of a table is an image
of one pixel, with a channel a column.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.checks import numbered
from jax_unlearn.data.labels import listed, read_classes
from jax_unlearn.data.preprocess import PixelRange, pixel_range
from jax_unlearn.data.splits import holdout
from jax_unlearn.errors import InputError

__all__ = ["Dataset", "Examples", "assembled", "check_examples", "digits"]
__all__ += ["fingerprint", "with_columns"]

SHARE = 0.2  # of the samples, held out where a source has no test part
ROW = "row"  # column of the positions in the source, where some were held out


class Examples(NamedTuple):
    """Labelled images `[N, H, W, C]`, `uint8` of 0 to 255 or `float32`.

    The labels are classes `i32[N]`, 0 to K - 1; the id of an image is its position.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int32]

    def at(self, ids: Any) -> "Examples":
        """Return the samples of some ids, or of a slice; inputs may be a pytree.

        >>> Examples(np.eye(2), np.arange(2)).at([1]).labels
        array([1])
        """
        inputs = jax.tree.map(lambda leaf: leaf[ids], self.inputs)
        return Examples(inputs, self.labels[ids])


class Dataset(NamedTuple):
    """A data set in memory: its two parts, K, and a name for each class.

    `columns` are what else is known of the training samples, `[N, ...]` each and in
    their order: neither inputs nor labels, so that no model sees them. `notes` say, a
    sentence each, what was done to the source when it was read; `test_columns` are the
    columns of the test samples, where they are known.
    """

    name: str
    train: Examples
    test: Examples
    num_classes: int
    class_names: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]] = {}
    notes: tuple[str, ...] = ()
    test_columns: Mapping[str, NDArray[Any]] = {}

    @property
    def is_table(self) -> bool:
        """Whether the inputs are rows of a table, not images."""
        return self.train.inputs.shape[1:3] == (1, 1)

    @property
    def is_text(self) -> bool:
        """Whether the inputs are texts, see `ju.language.text_dataset`."""
        return self.train.inputs.dtype == object

    @property
    def range(self) -> PixelRange:
        """The least and the largest pixel of the training images."""
        return pixel_range(self.train.inputs)


def check_examples(
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    num_classes: int | None = None,
    name: str = "examples",
) -> Examples:
    """Return images and labels in the types of `Examples`, if they are usable.

    Images `[N, H, W, C]` are `uint8` or floating (made `float32`), labels `[N]` of any
    integer type; without `num_classes` the largest label is open. The message begins
    with `name`, says how many are wrong, and which is the first.

    Raises:
      InputError: empty, wrong rank or type, unequal lengths, labels out of range,
        NaN or infinite pixels.

    >>> images = np.zeros((2, 4, 4, 1), np.uint8)
    >>> check_examples(images, [0, 1]).labels
    array([0, 1], dtype=int32)
    >>> check_examples(images, [0, 3], num_classes=3)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: examples: 1 of 2 labels out of range, the first \
    labels[1]=3; with num_classes=3 they are 0 to 2
    """
    images, classes = np.asarray(inputs), np.asarray(labels)
    if images.ndim != 4 or images.size == 0:
        raise InputError(
            f"{name}: inputs of shape {images.shape} must be [N, H, W, C] and not "
            "empty; reshape them"
        )
    if classes.ndim != 1 or len(classes) != len(images):
        raise InputError(
            f"{name}: labels of shape {classes.shape} must be one a sample, "
            f"({len(images)},); {_fitted(classes, len(images))}"
        )
    if classes.dtype.kind not in "iu":
        raise InputError(
            f"{name}: labels[0]={classes[0]} is of type {classes.dtype}; labels must "
            f"be whole numbers: {numbered(classes)}"
        )
    limit = 2**31 if num_classes is None else num_classes
    wrong = np.flatnonzero((classes < 0) | (classes >= limit))
    if len(wrong):
        raise InputError(
            f"{name}: {len(wrong)} of {len(classes)} labels out of range, the first "
            f"labels[{wrong[0]}]={classes[wrong[0]]}; with num_classes={num_classes} "
            f"they are 0 to {limit - 1}"
        )
    if images.dtype.kind == "f":
        with np.errstate(over="ignore"):  # an overflow is reported as infinite below
            images = images.astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        if len(wrong):
            raise InputError(
                f"{name}: {len(wrong)} of {len(images)} inputs have NaN or infinite "
                f"pixels, the first inputs[{wrong[0]}]; mend or drop them"
            )
    elif images.dtype != np.uint8:
        raise InputError(
            f"{name}: inputs of type {images.dtype} must be uint8 (0 to 255) or "
            f"float32; {_typed(images)}"
        )
    return Examples(images, classes.astype(np.int32))


def _fitted(labels: NDArray[Any], count: int) -> str:
    """Return what makes one label a sample of labels of another shape."""
    if labels.ndim > 1 and len(labels) == count:
        return f"use {numbered(labels)}"
    return "cut inputs and labels to the same samples"


def _typed(images: NDArray[Any]) -> str:
    """Return what makes pixels of a wrong type ones of a right type."""
    if images.dtype.kind not in "iub":
        return "give pixels as numbers"
    fits = images.dtype.kind != "b" and images.min() >= 0 and images.max() <= 255
    return f"use inputs.astype(np.{'uint8' if fits else 'float32'})"


def digits() -> Dataset:
    """Return scikit-learn's digits of 8x8 bytes, 1,000 to train and 797 to test.

    The division is fixed: `holdout(labels, count=797, seed=0)`, stratified; both parts
    keep the original order. Pixels of 0 to 16 become `round(255 x / 16)`, halves to
    even. Nothing is downloaded.

    Source: `sklearn.datasets.load_digits`; the division is our choice.

    >>> data = digits()
    >>> data.train.inputs.shape, len(data.test.labels), data.num_classes
    ((1000, 8, 8, 1), 797, 10)
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    train, test = (
        check_examples(pixels[ids], labels[ids], num_classes=10, name="digits")
        for ids in holdout(labels, count=797, seed=0)
    )
    return Dataset("digits", train, test, 10, tuple("0123456789"))


def with_columns(dataset: Dataset, columns: Mapping[str, ArrayLike]) -> Dataset:
    """Return a data set with columns of its training samples, `[N, ...]` each.

    Raises:
      InputError: a column of another length.

    >>> with_columns(digits(), {"user": np.arange(1000) // 10}).columns["user"][:12]
    array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    """
    count = len(dataset.train.labels)
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != count:
            raise InputError(
                f"{dataset.name}: column {name!r} of shape {array.shape} must have one "
                f"value for each of the {count} training samples; cut it or leave it "
                "out"
            )
    return dataset._replace(columns=arrays)


def assembled(
    name: str,
    train: tuple[ArrayLike, ArrayLike],
    test: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    class_names: ArrayLike | None = None,
    columns: Mapping[str, ArrayLike] | None = None,
    test_columns: Mapping[str, NDArray[Any]] | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """Return the data set of two parts, of inputs and labels as they came.

    Inputs are images `[N, H, W, C]`, `[N, H, W]` or `[N, C, H, W]` (where the shape
    shows it), or rows of a table `[N, d]`; labels as in `read_classes`. Without a test
    part a fifth of the samples, stratified, always the same, is held out as such, and
    the column "row" says where the others were. What was done is in the notes.

    Raises:
      InputError: parts that are not usable, or unlike each other.

    >>> x, y = np.zeros((10, 3, 8, 8), np.uint8), ["a", "b"] * 5
    >>> data = assembled("tiny", (x, y))
    >>> data.train.inputs.shape, data.test.labels, data.columns["row"]
    ((8, 8, 8, 3), array([0, 1], dtype=int32), array([0, 1, 2, 3, 4, 5, 8, 9]))
    """
    given = [train] if test is None else [train, test]
    inputs, told = _images([np.asarray(part[0]) for part in given])
    names = None if class_names is None else _names(name, class_names)
    classes = read_classes(name, [part[1] for part in given], names)
    count = None if names is None else len(names)
    parts = []
    for part, images, labels in zip(
        ("train", "test"), inputs, classes.parts, strict=False
    ):
        who = f"{name} {part}"
        parts.append(check_examples(images, labels, num_classes=count, name=who))
    said = (*notes, *told, *classes.notes)
    columns, test_columns = dict(columns or {}), dict(test_columns or {})
    if test is None:
        (whole,) = parts
        kept, held, note = set_apart(name, whole.labels)
        full = with_columns(Dataset(name, whole, whole, 0, ()), columns).columns
        parts = [whole.at(ids) for ids in (kept, held)]
        columns, test_columns = (
            {ROW: ids, **{key: array[ids] for key, array in full.items()}}
            for ids in (kept, held)
        )
        said += (note,)
    forms = [f"{part.inputs.dtype}{part.inputs.shape[1:]}" for part in parts]
    if forms[0] != forms[1]:
        raise InputError(
            f"{name}: train images {forms[0]} and test images {forms[1]} must have one "
            "type and shape"
        )
    names = classes.names
    there = np.unique(parts[0].labels)
    if gone := [one for place, one in enumerate(names) if place not in there]:
        said += (f"no training samples of the classes {listed(gone)}",)
    found = Dataset(name, parts[0], parts[1], len(names), names, notes=said)
    return with_columns(found._replace(test_columns=test_columns), columns)


def set_apart(
    name: str, labels: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Return which samples stay, which are the test part, and the note that says so."""
    size = len(labels)
    if size < 2:
        raise InputError(f"{name} has {size} samples; give 2 or more")
    kept, held = holdout(labels, count=max(1, round(SHARE * size)), seed=0)
    note = (
        f"no test part: {len(held)} of {size} samples are held out as one; ids count "
        f"the {len(kept)} others from 0, their places in the source are the column "
        f"{ROW!r}"
    )
    return kept, held, note


def fingerprint(dataset: Dataset, *, test: bool = True) -> str:
    """Return the sha256, as hexadecimal digits, of what a model can see of a data set.

    Shapes, types and bytes of the four arrays and K; not the names. Without `test`, of
    the training arrays only.

    >>> fingerprint(digits()) == fingerprint(digits()._replace(name="other"))
    True
    """
    state = hashlib.sha256(str(dataset.num_classes).encode())
    for array in (*dataset.train, *(dataset.test if test else ())):
        if array.dtype == object:  # texts: each with its length
            for text in map(str, array.ravel()):
                state.update(f";{len(content := text.encode())}:".encode() + content)
            continue
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        state.update(f";{little.dtype.str}{little.shape}".encode())
        state.update(little.data)
    return state.hexdigest()


def _names(name: str, class_names: ArrayLike) -> tuple[str, ...]:
    """Return the names of classes, if they are a list of texts."""
    array = np.asarray(class_names)
    if array.ndim != 1 or array.dtype.kind != "U":
        raise InputError(
            f"{name}: class_names of type {array.dtype} and shape {array.shape} "
            "must be a list of texts"
        )
    return tuple(array.tolist())


def _images(parts: list[NDArray[Any]]) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
    """Return inputs as images with channels last, and what was done to them."""
    notes = []
    first = parts[0]
    rows = [part.ndim == 2 for part in parts]
    if all(rows):
        width = first.shape[1]
        notes.append(f"inputs [N, {width}] are rows of a table of {width} numbers")
        parts = [part[:, None, None, :] for part in parts]
    parts = [part[..., None] if part.ndim == 3 else part for part in parts]
    if all(map(_channels_first, parts)):
        shape = ", ".join(map(str, first.shape[1:]))
        notes.append(f"images [N, {shape}] have their channels first: transposed")
        parts = [np.ascontiguousarray(part.transpose(0, 2, 3, 1)) for part in parts]
    kinds = {part.dtype.kind for part in parts if part.size}
    whole = kinds == {"b"} or (kinds and kinds <= {"i", "u"})
    if whole and {part.dtype for part in parts} != {np.dtype(np.uint8)}:
        fits = all(part.min() >= 0 and part.max() <= 255 for part in parts if part.size)
        to = np.uint8 if fits and not all(rows) and "b" not in kinds else np.float32
        notes.append(f"inputs of type {first.dtype} are read as {to.__name__}")
        parts = [part.astype(to) for part in parts]
    return parts, tuple(notes)


def _channels_first(images: NDArray[Any]) -> bool:
    """Whether a shape shows that the channels come before height and width."""
    if images.ndim != 4:
        return False
    channels, height, width = images.shape[1:]
    few = channels <= 4 < min(height, width)
    return few or (channels < height == width)
