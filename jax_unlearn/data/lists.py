"""Lists of samples in files: ids by position, or keys such as user numbers.

Every form of file ends as values with a place each, so that a message can name the
row. Nothing is unpickled.
"""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.checks import brief, few, is_whole, refuse, whole_numbers
from jax_unlearn.data.files import read_as, read_file, read_json, read_npz
from jax_unlearn.errors import InputError

__all__ = ["INTEGER", "LISTS", "Values", "as_text", "check_apart", "keys_of"]
__all__ += ["load_ids", "positions_of", "read_values"]

INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_COLUMNS = ("id", "index")  # what heads a column of ids or keys, whatever it is called
_JSON_KEYS = ("forget", "ids")


class Values(NamedTuple):
    """What a file lists: text cells, values of JSON, or an array.

    Attributes:
      path: the file.
      entries: the values; the cells of a text file are `str`.
      rows: the row of each in a text file, None in other files.
      headed: whether a header named the column.
      whole: what a JSON file holds beside the list, if it is an object.
    """

    path: Path
    entries: Any
    rows: list[int] | None = None
    headed: bool = False
    whole: dict[str, Any] | None = None


def load_ids(path: str | os.PathLike[str]) -> NDArray[np.int64]:
    r"""Return the ids in a file, `i64[F]`; `check_ids` says whether they are usable.

    - `.csv`, `.tsv`: one id a line, under an optional header `id` or `index`; or a
      table with a column of that name. Blank lines are passed over.
    - `.txt`: one id a line; blank lines and lines that begin with `#` are passed over,
      as in `.tsv`.
    - `.json`: a list, or an object with the key `forget` or `ids` (a saved manifest),
      or with one list alone.
    - `.jsonl`: on each line a number, or an object with the key `id` or `index`.
    - `.npy`, `.npz`: a one-dimensional array of integers (of an `.npz` file the only
      one, or the one called `id`); pickled objects are refused.
    - `.parquet`: as `.csv`; needs pyarrow.

    `load_request` reads keys too, from the same files.

    Raises:
      InputError: the file cannot be read, or an entry is not a whole number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "forget.csv"
    ...     _ = path.write_text("id,why\n7,asked\n3,asked\n")
    ...     load_ids(path)
    array([7, 3])
    """
    return positions_of(read_values(path))


def positions_of(values: Values) -> NDArray[np.int64]:
    """Return values as whole numbers, however large, or name the first that is none."""
    path, rows, entries = values.path, values.rows, values.entries
    if rows is not None:
        ids = []
        for row, cell in zip(rows, entries, strict=True):
            text = cell.strip()
            if not INTEGER.fullmatch(text):
                first = row == rows[0] and not values.headed
                named = text.isidentifier() and len(text) < 20
                hint = (
                    f" under the header id; for keys of a column {text} of the data "
                    f"give --key-column {text}"
                )
                raise InputError(
                    f"path={path} row {row}: {text[:40]!r} is not one whole number; "
                    f"write one id a line{hint if first and named else ''}"
                )
            ids.append(int(text))
        return np.asarray(ids, np.int64)
    name = f"path={path} ids"
    array = whole_numbers(entries, name)
    wrong = (array < -(2**63)) | (array >= 2**63)
    refuse(name, array, wrong, "is no id of a sample; ids count from 0")
    return array.astype(np.int64)


def keys_of(values: Values) -> list[str | int]:
    """Return values as keys, text or whole numbers, or name the first that is none."""
    entries = values.entries
    if isinstance(entries, np.ndarray):
        if entries.ndim != 1 or entries.dtype.kind not in "iuUS":
            raise InputError(
                f"path={values.path} holds an array of {entries.dtype} of shape "
                f"{entries.shape}; keys are one row of text or whole numbers"
            )
        entries = as_text(entries) if entries.dtype.kind in "US" else entries
        entries = entries.tolist()
    if not len(entries):
        raise InputError(f"path={values.path} holds no keys; write one key a line")
    for place, key in enumerate(entries):
        if isinstance(key, str) and key.strip():
            continue
        if not is_whole(key):
            where = f"row {values.rows[place]}" if values.rows else f"keys[{place}]"
            raise InputError(
                f"path={values.path} {where}: {brief(key)} is no key; keys are text or "
                "whole numbers"
            )
    return list(entries)


def as_text(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as text, bytes decoded as UTF-8."""
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    return array.astype(str)


def read_values(
    path: str | os.PathLike[str], *, column: str | None = None, what: str = "id"
) -> Values:
    """Return what a file lists, in the column of a name, or one headed id or index.

    Raises:
      InputError: no such file, of another form, without such a column, or empty.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        *first, last = _READERS
        raise InputError(f"path={path} must end in {', '.join(first)} or {last}")
    return _READERS[suffix](path, column, what)


def _text(path: Path, what: str, told: str) -> str:
    remedy = f"save it as UTF-8, with one {what} a line"
    with read_as(path, f"a {told} in UTF-8", remedy):
        return read_file(path).decode("utf-8-sig")


def _from_csv(path: Path, column: str | None, what: str, sep: str = ",") -> Values:
    text = _text(path, what, "CSV text file")
    first = next((line for line in text.splitlines() if line.strip()), "")
    if sep == "," and sep not in first:  # as spreadsheets of some countries write it
        sep = next((other for other in ";\t" if other in first), sep)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=sep, strict=True)
    with read_as(path, "a CSV text file", f"write one {what} a line"):
        lines = list(rows)
    comments = path.suffix.lower() == ".tsv"
    table = [
        (number, row)
        for number, row in enumerate(lines, 1)
        if any(cell.strip() for cell in row)
        and not (comments and row[0].lstrip().startswith("#"))
    ]
    return _from_table(path, table, column, what)


def _from_txt(path: Path, column: str | None, what: str) -> Values:
    lines = _text(path, what, "text file").splitlines()
    table = [
        (number, [line])
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    return _from_table(path, table, column, what)


def _from_table(
    path: Path, table: list[tuple[int, list[str]]], column: str | None, what: str
) -> Values:
    """Return one column of numbered rows, under its header if they have one."""
    if not table:
        raise InputError(f"path={path} holds no {what}s; write one {what} a line")
    number, header = table[0]
    place = _place(path, header, column, f" row {number}", lone=len(header) == 1)
    body = table if place is None else table[1:]
    if not body:
        raise InputError(
            f"path={path} holds no {what}s below its header; write one {what} a line"
        )
    cells = []
    for number, row in body:
        cell = row[place or 0] if (place or 0) < len(row) else ""
        if not cell.strip() or (place is None and len(row) > 1):
            raise InputError(
                f"path={path} row {number}: {','.join(row)[:40]!r} is not one {what}; "
                f"write one {what} a line"
            )
        cells.append(cell)
    return Values(path, cells, [number for number, _ in body], place is not None)


def _place(
    path: Path, header: Sequence[str], column: str | None, where: str, *, lone: bool
) -> int | None:
    """Return which column of a header is meant; None: the only one, without header."""
    names = [cell.strip() for cell in header]
    if column is not None:
        for same in (column.__eq__, lambda n: n.lower() == column.lower()):
            found = [place for place, name in enumerate(names) if same(name)]
            if len(found) == 1:
                return found[0]
    found = [place for place, name in enumerate(names) if name.lower() in _COLUMNS]
    if len(found) == 1:
        return found[0]
    if lone:
        return None
    also = "" if column is None else f", none {column!r}"
    raise InputError(
        f"path={path}{where} has {len(names)} columns ({few(names)}) of which "
        f"{len(found)} are named id or index{also}; name exactly one, or say which: "
        "--key-column NAME"
    )


def _from_json(path: Path, column: str | None, what: str) -> Values:
    value = read_json(path)
    whole = value if isinstance(value, dict) else None
    if whole is not None:
        keys = [key for key in (column, *_JSON_KEYS) if key in whole]
        if not keys and sum(isinstance(v, list) for v in whole.values()) == 1:
            keys = [key for key, v in whole.items() if isinstance(v, list)]
        if len(keys) != 1:
            raise InputError(
                f"path={path} must be a list of {what}s or an object with one of the "
                f"keys 'forget' and 'ids'; it has {len(keys)} of them"
            )
        value = whole[keys[0]]
    if not isinstance(value, list):
        raise InputError(f"path={path} holds {brief(value)}; write a list: [7, 3]")
    return Values(path, _fields(path, value, column), whole=whole)


def _from_jsonl(path: Path, column: str | None, what: str) -> Values:
    entries = []
    for number, line in enumerate(_text(path, what, "text file").splitlines(), 1):
        if line.strip():
            with read_as(f"{path} line {number}", "JSON", f"write one {what} a line"):
                entries.append(json.loads(line))
    if not entries:
        raise InputError(f"path={path} holds no {what}s; write one {what} a line")
    return Values(path, _fields(path, entries, column))


def _fields(path: Path, entries: list[Any], column: str | None) -> list[Any]:
    """Return values of JSON, of objects those of the field that is meant."""
    if not any(isinstance(entry, dict) for entry in entries):
        return entries
    found = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(
                f"path={path}: entry {number} is {brief(entry)}, others are objects; "
                "write them alike"
            )
        place = _place(path, list(entry), column, f" entry {number}", lone=False)
        found.append(list(entry.values())[place or 0])
    return found


def _from_npy(path: Path, column: str | None, what: str) -> Values:
    del column, what
    with read_as(path, "a .npy file of integers", "write it with np.save(path, ids)"):
        stream = io.BytesIO(read_file(path))
        return Values(path, np.lib.format.read_array(stream, allow_pickle=False))


def _from_npz(path: Path, column: str | None, what: str) -> Values:
    del what
    with read_as(path, "a usable .npz file", "write it with np.savez(path, ids=ids)"):
        arrays = read_npz(io.BytesIO(read_file(path)))
    lone = len(arrays) == 1
    place = None if lone else _place(path, list(arrays), column, "", lone=False)
    return Values(path, list(arrays.values())[place or 0])


def _from_parquet(path: Path, column: str | None, what: str) -> Values:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise InputError(
            f"path={path}: reading .parquet needs pyarrow; pip install pyarrow, or "
            "write the list as .csv"
        ) from error
    with read_as(path, "a .parquet file", f"write one column of {what}s"):
        table = parquet.read_table(io.BytesIO(read_file(path)))
        names = [n for n in table.column_names if not n.startswith("__index_level_")]
        if not names:
            raise ValueError("no columns")
    place = _place(path, names, column, "", lone=len(names) == 1)
    return Values(path, table.column(names[place or 0]).to_pylist())


_READERS: dict[str, Callable[[Path, str | None, str], Values]] = {
    ".csv": _from_csv,
    ".tsv": lambda path, column, what: _from_csv(path, column, what, "\t"),
    ".txt": _from_txt,
    ".json": _from_json,
    ".jsonl": _from_jsonl,
    ".ndjson": _from_jsonl,
    ".npy": _from_npy,
    ".npz": _from_npz,
    ".parquet": _from_parquet,
}

LISTS = frozenset(_READERS) - {".json"}  # what is no split


def check_apart(**sets: ArrayLike) -> None:
    """Refuse ids that are in two sets, naming the first few."""
    named = [(name, np.asarray(ids)) for name, ids in sets.items()]
    for place, (first, ids) in enumerate(named):
        for second, others in named[place + 1 :]:
            shared = np.intersect1d(ids, others).tolist()
            if shared:
                raise InputError(
                    f"{len(shared)} ids are in both {first} and {second}: "
                    f"{few(shared)}; leave them in one"
                )
