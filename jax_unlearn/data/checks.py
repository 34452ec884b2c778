"""Checks of what a user gives: numbers, labels, features, ids.

Each returns what it was given in the type that the library uses, or raises InputError
with the name, the value and a remedy. On the host only: tracers have no values.
"""

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.errors import InputError

BINS = "np.digitize(labels, edges)"

__all__ = ["brief", "check_features", "check_ids", "check_labelled", "check_labels"]
__all__ += ["check_positions", "check_real", "check_seed", "few", "integers"]
__all__ += ["is_whole", "positions", "positive_integer", "refuse", "refuse_all"]
__all__ += ["whole_numbers"]

FEW = 5  # values that a message lists


def is_whole(value: Any) -> bool:
    """Return whether a value is an integer of Python or NumPy; True is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def positive_integer(name: str, value: Any) -> int:
    """Return a number of things, if it is a positive integer."""
    if not is_whole(value) or value < 1:
        raise InputError(f"{name}={value} must be a positive integer; try 1")
    return int(value)


def check_seed(seed: Any) -> int:
    """Return a seed of NumPy's generators, if it is a non-negative integer."""
    if not is_whole(seed) or seed < 0:
        raise InputError(f"seed={seed} must be a non-negative integer; try 0")
    return int(seed)


def check_real(
    name: str, value: Any, hint: str, *, high: float = 1.0, positive: bool = False
) -> None:
    """Refuse what is no finite number from 0 (over 0 if `positive`) to `high`."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number = float(value) if real else math.nan
    if not (math.isfinite(number) and 0 <= number <= high):
        raise InputError(f"{name}={value} must be from 0 to {high:g}; {hint}")
    if positive and number == 0:
        raise InputError(f"{name}={value} must be over 0; {hint}")


def check_labels(
    labels: ArrayLike, num_classes: int | None = None
) -> tuple[NDArray[np.int64], int]:
    """Return labels as i64[N], and K: the largest label + 1 where it is None."""
    array = np.asarray(labels)
    if array.ndim != 1 or array.size == 0:
        what = (
            f"use {numbered(array)}" if array.ndim > 1 and array.size else "give some"
        )
        raise InputError(
            f"labels of shape {array.shape} must be a list of integers; {what}"
        )
    if array.dtype.kind not in "iu":
        raise InputError(
            f"labels of type {array.dtype} must be integers; use {numbered(array)}"
        )
    num_classes = int(array.max()) + 1 if num_classes is None else num_classes
    wrong = (array < 0) | (array >= num_classes)
    remedy = "number the classes from 0 or raise num_classes"
    refuse("labels", array, wrong, f"must be 0 to {num_classes - 1}; {remedy}")
    return array.astype(np.int64), num_classes


def numbered(labels: NDArray[Any]) -> str:
    """Return the code that makes labels `[N]` whole numbers from 0 on."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        return "labels.argmax(axis=1)"
    kind = labels.dtype.kind
    if labels.ndim > 1:
        return "labels.reshape(-1)"
    if kind == "f" and not (labels == np.round(labels)).all():
        return BINS
    if kind in "fb":
        return "labels.astype(int)"
    return "np.unique(labels, return_inverse=True)[1]"


def check_features(
    name: str, features: ArrayLike, *, width: int | None = None
) -> NDArray[np.float64]:
    """Return features `[n, d]` as float64, if they are finite, of a given width d."""
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


def check_labelled(
    name: str,
    features: ArrayLike,
    labels: ArrayLike,
    *,
    num_classes: int | None = None,
    width: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return features `[n, d]` and labels `[n]`, if they are usable together."""
    matrix = check_features(name, features, width=width)
    classes, _ = check_labels(labels, num_classes)
    if len(classes) != len(matrix):
        raise InputError(
            f"{name.replace('features', 'labels')} of shape {classes.shape} must be "
            f"one a row of the features, ({len(matrix)},)"
        )
    return matrix, classes


def integers(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return a list of integers, one or more, of any type of them."""
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise InputError(
            f"{name} of shape {array.shape} and type {array.dtype} must be a list of "
            "at least one integer"
        )
    return array


def positions(name: str, ids: ArrayLike, count: int) -> NDArray[np.int64]:
    """Return ids `[F]` of 0 to count - 1, sorted; one may come twice."""
    array = integers(name, ids)
    wrong = array[(array < 0) | (array >= count)]
    if len(wrong):
        raise InputError(
            f"{name} holds {wrong[0]}; the {count} samples have ids 0 to {count - 1}"
        )
    return np.sort(array.astype(np.int64))


def check_ids(
    ids: ArrayLike | Iterable[int],
    *,
    num_samples: int,
    trained_ids: ArrayLike | None = None,
    unseen_ids: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Return ids as sorted `i64[F]`, if they name a forget set.

    They are 0 to `num_samples - 1`, positions in the training arrays; `trained_ids` are
    those the model was trained on, where these are not all, and `unseen_ids` those held
    out.

    Raises:
      InputError: no ids, an id that is no integer, negative, out of range, repeated
        or never trained on, or nothing left to retain.

    >>> check_ids([5, 2], num_samples=10)
    array([2, 5])
    >>> check_ids([5, 12], num_samples=10)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: ids[1]=12 is out of range; the 10 training samples \
    have ids 0 to 9
    """
    array = check_positions(ids, num_samples=num_samples)
    trained = num_samples
    if trained_ids is not None:
        trained_array = np.unique(np.asarray(trained_ids))
        trained = len(trained_array)
        rule = f"is not among the {trained} samples the model was trained on"
        remedy = "leave it out, there is nothing to forget"
        held = ": it was held out as unseen; "
        parts = () if unseen_ids is None else ((np.isin(array, unseen_ids), held),)
        for wrong, why in (*parts, (~np.isin(array, trained_array), "; ")):
            refuse_all("ids", array, wrong, f"{rule}{why}{remedy}")
    if len(array) == trained:
        raise InputError(
            f"ids names all {trained} training samples; leave some to retain, or start "
            "from a fresh model"
        )
    return np.sort(array)


def check_positions(
    ids: ArrayLike | Iterable[int], *, num_samples: int
) -> NDArray[np.int64]:
    """Return positions in arrays of so many samples as `i64[F]`, each named once.

    Raises:
      InputError: no ids, an id that is no integer, negative, out of range or repeated.
    """
    array = whole_numbers(ids)
    if array.size == 0:
        raise InputError("ids is empty; name at least one sample to forget")
    rule = "is negative; ids count from 0 at the first training sample"
    refuse_all("ids", array, array < 0, rule)
    known = f"the {num_samples} training samples have ids 0 to {num_samples - 1}"
    refuse_all("ids", array, array >= num_samples, f"is out of range; {known}")
    array = array.astype(np.int64)
    _, first, inverse = np.unique(array, return_index=True, return_inverse=True)
    earliest = first[inverse]
    again = earliest != np.arange(len(array))
    rule = f"repeats ids{earliest[again][:1]}; name each sample once"
    refuse_all("ids", array, again, rule)
    return array


def whole_numbers(values: Any, name: str = "ids") -> NDArray[Any]:
    """Return values as a one-dimensional array of integers, however large."""
    if hasattr(values, "dtype"):
        array = np.asarray(values)
        if array.dtype == np.bool_:
            raise InputError(
                f"{name} is a boolean mask; pass the positions: np.flatnonzero(mask)"
            )
        if array.ndim != 1:
            raise InputError(
                f"{name} has shape {array.shape}; pass one dimension: ids.ravel()"
            )
        if array.dtype.kind in "iu":
            return array
        if array.dtype.kind != "O" and array.size:
            shown = ""
            if array.dtype.kind == "f":
                odd = ~np.isfinite(array) | (array != np.round(array))
                shown = f"[{odd.argmax()}]={array[odd.argmax()]}"
            # Values of other types stay unread: a damaged file may hold text that
            # cannot even be shown.
            raise InputError(
                f"{name}{shown} is of type {array.dtype}; pass whole numbers of an "
                "integer type"
            )
        values = array
    elif isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
        raise InputError(f"{name}={brief(values)} is not a list of ids: [7, 3]")
    values = list(values)
    for position, value in enumerate(values):
        if not is_whole(value):
            raise InputError(
                f"{name}[{position}]={brief(value)} is not a whole number; ids are "
                "positions such as 7"
            )
    return np.asarray([int(value) for value in values], object)


def refuse(name: str, array: NDArray[Any], wrong: NDArray[np.bool_], rule: str) -> None:
    """Refuse the first value of an array that is wrong, naming its place."""
    for place in np.flatnonzero(wrong):
        raise InputError(f"{name}[{place}]={brief(array.tolist()[place])} {rule}")


def refuse_all(
    name: str, array: NDArray[Any], wrong: NDArray[np.bool_], rule: str
) -> None:
    """Refuse the first value that is wrong, and say which others are."""
    others = array[np.flatnonzero(wrong)[1:]].tolist()
    refuse(name, array, wrong, f"{rule}; also {few(others)}" if others else rule)


def few(values: Sequence[Any]) -> str:
    """Return the first few of some values on one line, and how many more there are."""
    shown = ", ".join(brief(value) for value in values[:FEW])
    return shown + (f" and {len(values) - FEW} more" if len(values) > FEW else "")


def brief(value: Any) -> str:
    """Return a value on one line of at most 40 characters."""
    if isinstance(value, (list, tuple, dict)):
        return f"a {type(value).__name__}"
    if is_whole(value):
        # Python refuses to write integers of thousands of digits in decimal.
        text = str(int(value)) if -(2**64) < value < 2**64 else hex(value)
    else:
        text = " ".join(repr(value).split())
    return text if len(text) <= 40 else text[:37] + "..."
