"""Forget ids from a user's file, checked before anything is computed."""

import csv
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.files import read_file, read_json
from jax_unlearn.errors import InputError

_COLUMNS = ("id", "index")
_JSON_KEYS = ("forget", "ids")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def load_ids(path: str | os.PathLike[str]) -> NDArray[np.int64]:
    r"""Read ids from a file.

    - `.csv`: one id a line, under an optional header `id` or `index`; or a table with
      a column of that name. Blank lines are passed over.
    - `.json`: a list, or an object with the key `forget` or `ids` (a saved manifest).
    - `.npy`: a one-dimensional array of integers; pickled objects are refused.

    Args:
      path: the file to read.

    Returns:
      Ids in the order of the file, `i64[F]`; `check_ids` says whether they are usable.

    Raises:
      InputError: the file cannot be read, or an entry is not a whole number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "forget.csv"
    ...     _ = path.write_text("id,why\n7,asked\n3,asked\n")
    ...     load_ids(path)
    array([7, 3])
    """
    path = Path(path)
    readers = {".csv": _from_csv, ".json": _from_json, ".npy": _from_npy}
    if path.suffix.lower() not in readers:
        raise InputError(f"path={path} must end in .csv, .json or .npy")
    return readers[path.suffix.lower()](path)


def check_ids(
    ids: ArrayLike | Iterable[int],
    *,
    num_samples: int,
    trained_ids: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Return the ids sorted, if they name a forget set.

    Args:
      ids: `[F]`, of any integer type.
      num_samples: samples in the training arrays; ids are 0 to `num_samples - 1`.
      trained_ids: ids the model was trained on, where these are not all.

    Returns:
      Ids `i64[F]`, strictly increasing.

    Raises:
      InputError: no ids, an id that is no integer, negative, out of range, repeated
        or never trained on, or nothing left to retain. The message names the value,
        its position and the remedy.

    >>> check_ids([5, 2], num_samples=10)
    array([2, 5])
    >>> check_ids([5, 12], num_samples=10)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: ids[1]=12 is out of range; the 10 training samples \
have ids 0 to 9
    """
    array = _integers(ids)
    if array.size == 0:
        raise InputError("ids is empty; name at least one sample to forget")
    wrong = _first(array < 0)
    if wrong is not None:
        raise InputError(
            f"{_entry(array, wrong)} is negative; ids count from 0 at the first "
            "training sample"
        )
    wrong = _first(array >= num_samples)
    if wrong is not None:
        raise InputError(
            f"{_entry(array, wrong)} is out of range; the {num_samples} training "
            f"samples have ids 0 to {num_samples - 1}"
        )
    array = array.astype(np.int64)
    _, first, inverse = np.unique(array, return_index=True, return_inverse=True)
    wrong = _first(first[inverse] != np.arange(len(array)))
    if wrong is not None:
        raise InputError(
            f"{_entry(array, wrong)} repeats ids[{first[inverse[wrong]]}]; name "
            "each sample once"
        )
    trained = num_samples
    if trained_ids is not None:
        trained_array = np.unique(np.asarray(trained_ids))
        trained = len(trained_array)
        wrong = _first(~np.isin(array, trained_array))
        if wrong is not None:
            raise InputError(
                f"{_entry(array, wrong)} is not among the {trained} samples the "
                "model was trained on; leave it out, there is nothing to forget"
            )
    if len(array) == trained:
        raise InputError(
            f"ids names all {trained} training samples; leave some to retain, or start "
            "from a fresh model"
        )
    return np.sort(array)


def _from_csv(path: Path) -> NDArray[np.int64]:
    try:
        text = read_file(path).decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"path={path} is not a CSV text file ({error}); write one id a line"
        ) from error
    rows = [
        (number, [cell.strip() for cell in line])
        for number, line in enumerate(lines, 1)
        if any(cell.strip() for cell in line)
    ]
    if not rows:
        raise InputError(f"path={path} holds no ids; write one id a line")
    header = [cell.lower() for cell in rows[0][1]]
    columns = [place for place, cell in enumerate(header) if cell in _COLUMNS]
    if len(columns) > 1 or (not columns and len(header) > 1):
        raise InputError(
            f"path={path} row {rows[0][0]} has {len(header)} columns of which "
            f"{len(columns)} are named id or index; name exactly one"
        )
    place = columns[0] if columns else 0
    ids = []
    for number, row in rows[len(columns) :]:
        cell = row[place] if place < len(row) else ""
        if not _INTEGER.fullmatch(cell) or (not columns and len(row) > 1):
            raise InputError(
                f"path={path} row {number}: {','.join(row)[:40]!r} is not one whole "
                "number; write one id a line"
            )
        ids.append(int(cell))
    return np.asarray(ids, np.int64)


def _from_json(path: Path) -> NDArray[np.int64]:
    value = read_json(path)
    if isinstance(value, dict):
        keys = [key for key in _JSON_KEYS if key in value]
        if len(keys) != 1:
            raise InputError(
                f"path={path} must be a list of ids or an object with one of the keys "
                f"'forget' and 'ids'; it has {len(keys)} of them"
            )
        value = value[keys[0]]
    if not isinstance(value, list):
        raise InputError(f"path={path} holds {_short(value)}; write a list: [7, 3]")
    return _int64(path, _integers(value, f"path={path} ids"))


def _from_npy(path: Path) -> NDArray[np.int64]:
    stream = io.BytesIO(read_file(path))
    try:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # NumPy names no set of errors for a broken file
        reason = " ".join(str(error).split())
        raise InputError(
            f"path={path} is not a .npy file of integers ({reason[:80]}); write it "
            "with np.save(path, ids)"
        ) from error
    return _int64(path, _integers(array, f"path={path} ids"))


def _int64(path: Path, array: NDArray[Any]) -> NDArray[np.int64]:
    wrong = _first((array < -(2**63)) | (array >= 2**63))
    if wrong is not None:
        raise InputError(
            f"path={path} {_entry(array, wrong)} is no id of a sample; ids count from 0"
        )
    return array.astype(np.int64)


def _integers(values: Any, name: str = "ids") -> NDArray[Any]:
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
                wrong = _first(odd) or 0
                shown = f"[{wrong}]={array[wrong]}"
            # Values of other types stay unread: a damaged file may hold text that
            # cannot even be shown.
            raise InputError(
                f"{name}{shown} is of type {array.dtype}; pass whole numbers of an "
                "integer type"
            )
        values = array
    elif isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
        raise InputError(f"{name}={_short(values)} is not a list of ids: [7, 3]")
    values = list(values)
    for position, value in enumerate(values):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole:
            raise InputError(
                f"{name}[{position}]={_short(value)} is not a whole number; ids are "
                "positions such as 7"
            )
    return np.asarray([int(value) for value in values], object)


def _entry(array: NDArray[Any], position: int) -> str:
    return f"ids[{position}]={_short(array[position])}"


def _first(wrong: NDArray[np.bool_]) -> int | None:
    places = np.flatnonzero(wrong)
    return int(places[0]) if len(places) else None


def _short(value: Any) -> str:
    """Return a value on one line of at most 40 characters."""
    if isinstance(value, (list, tuple, dict)):
        return f"a {type(value).__name__}"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        # Python refuses to write integers of thousands of digits in decimal.
        text = str(int(value)) if -(2**64) < value < 2**64 else hex(value)
    else:
        text = " ".join(repr(value).split())
    return text if len(text) <= 40 else text[:37] + "..."
