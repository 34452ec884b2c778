"""Labels as they come: text, one-hot, of any numbers; classes 0 to K − 1 go out."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.checks import BINS, brief
from jax_unlearn.errors import InputError, unknown_name

__all__ = ["Classes", "listed", "natural", "read_classes"]

SHOWN = 6  # classes that a note lists


class Classes(NamedTuple):
    """Labels of each part, a name for each class, and what was done to them."""

    parts: list[NDArray[Any]]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def read_classes(
    name: str, parts: Sequence[ArrayLike], names: Sequence[str] | None = None
) -> Classes:
    """Return the labels of the parts of a data set as classes 0 to K − 1.

    Labels are integers, text, truth values, floats that are whole numbers, or one-hot
    rows `[N, K]`; axes of length 1 are dropped. Text is numbered in its order, integers
    that are not 0 to K − 1 by size; their values stay as the names of the classes.
    Where `names` `[K]` are given, text must be among them, and integers are 0 to K − 1,
    or 1 to K. What was done is noted.

    Raises:
      InputError: labels of no or of several classes, with a remedy.

    >>> read_classes("pets", [["dog", "cat"], ["cat"]]).parts
    [array([1, 0]), array([0])]
    >>> read_classes("pets", [[1, 3, 2], [2]]).notes
    ('labels 1, 2, 3 are numbered 0 to 2; the names of the classes stay 1, 2, 3',)
    """
    notes: list[str] = []
    arrays = _flat(name, [np.asarray(part) for part in parts], notes)
    kinds = {_kind(name, array) for array in arrays if array.size}
    if len(kinds) > 1:
        raise InputError(
            f"{name}: the labels of one part are {' and of the other '.join(kinds)}; "
            "give both the same type"
        )
    kind = kinds.pop() if kinds else "numbers"
    if kind == "text":
        return _texts(name, [_text(name, array) for array in arrays], names, notes)
    if kind == "truth values":
        notes.append("labels False and True are the classes 0 and 1")
        names = names or ("False", "True")
    arrays = [_whole(name, array, notes) for array in arrays]
    return _integers(name, arrays, names, notes)


def natural(values: Sequence[str]) -> list[str]:
    """Return texts in order, those that are all whole numbers by size.

    >>> natural(["10", "9"]), natural(["10", "9", "b"])
    (['9', '10'], ['10', '9', 'b'])
    """
    whole = all(re.fullmatch(r"-?\d{1,18}", value) for value in values)
    return sorted(values, key=lambda value: (int(value), value) if whole else value)


def listed(values: Iterable[Any]) -> str:
    """Return the first values of a list, and how many more there are."""
    values = list(values)
    shown = ", ".join(str(value)[:30] for value in values[:SHOWN]) or "(none)"
    more = len(values) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _flat(
    name: str, arrays: list[NDArray[Any]], notes: list[str]
) -> list[NDArray[Any]]:
    """Return labels of one axis: without axes of length 1, one-hot rows as classes."""
    if any(a.ndim > 1 and a.size == len(a) for a in arrays):
        notes.append("labels of shape [N, 1] are read as [N]")
        arrays = [a.reshape(-1) if a.size == len(a) else a for a in arrays]
    if not all(a.ndim == 2 for a in arrays) or not all(map(len, arrays)):
        return arrays
    if len({a.shape[1] for a in arrays}) > 1 or arrays[0].dtype.kind not in "biuf":
        return arrays
    every = np.concatenate(arrays)
    values = np.unique(every)
    hot = every == values[-1]
    if len(values) == 2 and (hot.sum(axis=1) == 1).all():
        notes.append(f"one-hot labels [N, {every.shape[1]}] are read by argmax")
        return [a.argmax(axis=1) for a in arrays]
    row = every[(hot.sum(axis=1) != 1).argmax()].tolist()
    shown = f"{name}: labels of shape {arrays[0].shape} are not one-hot"
    if len(values) == 2:
        raise InputError(
            f"{shown} (a row is {str(row)[:40]}): a sample has one class here; keep "
            "one column, such as labels[:, 0]"
        )
    raise InputError(
        f"{shown} (the first row is {str(every[0].tolist())[:40]}); give one class a "
        "sample: labels.argmax(axis=1)"
    )


def _kind(name: str, array: NDArray[Any]) -> str:
    kind = array.dtype.kind
    if kind in "iuf":
        return "numbers"
    if kind == "b":
        return "truth values"
    if kind in "USO":
        return "text"
    raise InputError(
        f"{name}: labels[0]={brief(array.flat[0])} is of type {array.dtype}; give "
        "numbers or text: labels.astype(str)"
    )


def _text(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return labels as text, none of them empty."""
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    texts = np.array([str(v).strip() for v in array.ravel().tolist()], np.str_)
    for place in np.flatnonzero(texts == ""):
        raise InputError(
            f"{name}: labels[{place}] is empty; drop the sample or give it a class"
        )
    return texts.reshape(array.shape)


def _texts(
    name: str, arrays: list[NDArray[Any]], names: Sequence[str] | None, notes: list[str]
) -> Classes:
    found = natural(
        sorted({text for array in arrays for text in array.ravel().tolist()})
    )
    if names is None:
        _same_classes(name, [set(array.ravel().tolist()) for array in arrays])
        notes.append(f"labels are text: {len(found)} classes, {listed(found)}")
        names = found
    for text in found:
        if text not in names:
            raise unknown_name(f"{name}: class", text, names)
    number = {text: place for place, text in enumerate(names)}
    parts = [
        np.array([number[text] for text in a.flat], np.int64).reshape(a.shape)
        for a in arrays
    ]
    return Classes(parts, tuple(names), tuple(notes))


def _whole(name: str, array: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    if array.dtype.kind != "f":
        return array.astype(np.int64) if array.dtype.kind == "b" else array
    wrong = ~np.isfinite(array) | (array != np.round(array))
    for place in np.argwhere(wrong):
        value = array[tuple(place)].item()
        remedy = f"{BINS} makes classes of numbers"
        if not np.isfinite(value):
            remedy = "drop the sample or give it a class"
        raise InputError(
            f"{name}: labels{place.tolist()}={value} of type {array.dtype} is no "
            f"class; {remedy}"
        )
    note = "labels are floats, all whole: read as integers"
    if note not in notes:
        notes.append(note)
    return array.astype(np.int64)


def _same_classes(name: str, parts: Sequence[set[Any]]) -> None:
    """Refuse classes of the test part that the training part does not have."""
    train = parts[0]
    for other in parts[1:]:
        if strange := natural(sorted(map(str, other - train))):
            known = listed(natural(sorted(map(str, train))))
            raise InputError(
                f"{name}: the test labels {listed(strange)} are not among the training "
                f"labels {known}; number both alike, or drop those samples"
            )


def _integers(
    name: str, arrays: list[NDArray[Any]], names: Sequence[str] | None, notes: list[str]
) -> Classes:
    unique = [np.unique(array, return_inverse=True) for array in arrays]
    values = sorted({value for own, _ in unique for value in own.tolist()})
    count = len(values)
    if names is not None:
        if values and (values[0], values[-1]) == (1, len(names)):
            notes.append(f"labels 1 to {len(names)} are the classes in their order")
            arrays = [a.astype(np.int64) - 1 for a in arrays]
        return Classes(arrays, tuple(names), tuple(notes))
    if values != list(range(count)):
        _same_classes(name, [set(own.tolist()) for own, _ in unique])
        notes.append(
            f"labels {listed(values)} are numbered 0 to {count - 1}; the names of the "
            f"classes stay {listed(values)}"
        )
        number = {value: place for place, value in enumerate(values)}
        arrays = [
            np.array([number[v] for v in own.tolist()], np.int64)[place]
            for own, place in unique
        ]
    return Classes(arrays, tuple(map(str, values)), tuple(notes))
