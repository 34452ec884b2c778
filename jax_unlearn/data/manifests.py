"""Ids and splits on disk: a user's forget ids, and one JSON file a split.

Both are checked as they are read, before anything is computed from them.
"""

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data import splits
from jax_unlearn.data.checks import brief, refuse, whole_numbers
from jax_unlearn.data.files import read_file, read_json, write_atomic
from jax_unlearn.data.splits import MANIFEST_VERSION, Split, digest
from jax_unlearn.errors import InputError

__all__ = ["load_ids", "load_manifest", "save_manifest"]

_COLUMNS = ("id", "index")
_JSON_KEYS = ("forget", "ids")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_SETS = ("forget", "retain", "unseen")
_DIGESTS = ("labels_sha256", "forget_sha256", "retain_sha256", "unseen_sha256")
_KEYS = {
    **dict.fromkeys(("version", "num_samples", "num_classes"), int),
    **dict.fromkeys(("fraction", "gamma", "max_class_fraction"), float | None),
    **dict.fromkeys(("classes", "class_order"), list | None),
    **dict.fromkeys(("kind", *_DIGESTS), str),
    "seed": int | None,
    "forget_counts": list,
}


def load_ids(path: str | os.PathLike[str]) -> NDArray[np.int64]:
    r"""Return the ids in a file, `i64[F]`; `check_ids` says whether they are usable.

    - `.csv`: one id a line, under an optional header `id` or `index`; or a table with
      a column of that name. Blank lines are passed over.
    - `.json`: a list, or an object with the key `forget` or `ids` (a saved manifest).
    - `.npy`: a one-dimensional array of integers; pickled objects are refused.

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


def save_manifest(
    path: str | os.PathLike[str],
    split: Split,
    *,
    unseen: ArrayLike = (),
    overwrite: bool = False,
) -> Path:
    """Save a split, its unseen ids and its record as one JSON file; return its path.

    The file is written whole or not at all, and only if `load_manifest` would take it.

    Raises:
      InputError: the file exists and `overwrite` is False, or the sets overlap or do
        not agree with the record.

    >>> import tempfile
    >>> from jax_unlearn.data.splits import forget_split
    >>> split = forget_split([0, 0, 1, 1], kind="class", classes=[0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_manifest(Path(folder) / "split.json", split, unseen=[7, 6])
    ...     loaded, unseen = load_manifest(path)
    >>> loaded.forget, unseen
    (array([0, 1]), array([6, 7]))
    """
    ids = np.sort(np.asarray(unseen))
    record = {
        **split.manifest,
        "unseen_sha256": digest(ids),
        "forget": split.forget.tolist(),
        "retain": split.retain.tolist(),
        "unseen": ids.tolist(),
    }
    _verify(record, "split")
    return write_atomic(path, json.dumps(record) + "\n", overwrite=overwrite)


def load_manifest(
    path: str | os.PathLike[str], *, labels: ArrayLike | None = None
) -> tuple[Split, NDArray[np.int64]]:
    """Return a split and its unseen ids `i64[U]` from a file, verified again.

    `split.manifest` holds `unseen_sha256` too. If the labels of the whole training set
    are given, those of the forget and retain ids must be those the split was made from.

    Raises:
      InputError: no such file, not JSON, a key missing or of a wrong type, another
        version, overlapping sets, a digest that does not match, other labels.

    The example of `save_manifest` shows both.
    """
    record = read_json(path)
    sets = _verify(record, f"path={path}")
    forget, retain, unseen = (sets[name] for name in _SETS)
    if labels is not None:
        array = np.asarray(labels)
        trained = np.sort(np.concatenate([forget, retain]))
        if array.ndim != 1 or trained[-1] >= len(array):
            raise InputError(
                f"path={path} names id {trained[-1]} but labels has shape "
                f"{array.shape}; load it with the data set it was made from"
            )
        if splits.ordered_digest(array[trained]) != record["labels_sha256"]:
            raise InputError(
                f"path={path} was made from other labels (labels_sha256 differs); "
                "load it with the data set it was made from"
            )
    manifest = {key: value for key, value in record.items() if key in _KEYS}
    return Split(forget, retain, manifest), unseen


def _verify(record: Any, what: str) -> dict[str, NDArray[np.int64]]:
    """Return the three sets of a record that holds together."""

    def fail(reason: str) -> InputError:
        return InputError(f"{what}: {reason}; make the split again")

    if not isinstance(record, dict):
        raise fail("a manifest is a JSON object")
    if record.get("version") != MANIFEST_VERSION:
        raise fail(
            f"version={repr(record.get('version'))[:40]} must be {MANIFEST_VERSION}"
        )
    for key, kind in {**_KEYS, **dict.fromkeys(_SETS, list)}.items():
        if key not in record:
            raise fail(f"the key {key!r} is missing")
        if not isinstance(record[key], kind) or isinstance(record[key], bool):
            raise fail(f"{key}={str(record[key])[:40]!r} has the wrong type")
    kinds = (*splits.KINDS, *splits.CHOSEN)
    if record["kind"] not in kinds:
        raise fail(f"kind={record['kind'][:40]!r} must be one of {', '.join(kinds)}")
    if not re.fullmatch("[0-9a-f]{64}", record["labels_sha256"]):
        raise fail("labels_sha256 is no sha256")
    sets = {name: _id_set(record, name, fail) for name in _SETS}
    for name, ids in sets.items():
        if digest(ids) != record[f"{name}_sha256"]:
            raise fail(f"{name}_sha256 does not match the {name} ids")
    for first, second in (("forget", "retain"), ("forget", "unseen"), _SETS[1:]):
        shared = np.intersect1d(sets[first], sets[second])
        if len(shared):
            raise fail(f"id {shared[0]} is in both {first} and {second}")
    sizes = [len(ids) for ids in sets.values()]
    if not (sizes[0] and sizes[1] and sizes[0] + sizes[1] == record["num_samples"]):
        raise fail(
            f"{sizes[0]} forget and {sizes[1]} retain ids must both be there and make "
            f"num_samples={record['num_samples']}"
        )
    counts = record["forget_counts"]
    if (
        len(counts) != record["num_classes"]
        or not all(type(count) is int and count >= 0 for count in counts)
        or sum(counts) != sizes[0]
    ):
        raise fail(f"forget_counts must be num_classes numbers that sum to {sizes[0]}")
    return sets


def _id_set(record: dict[str, Any], name: str, fail: Any) -> NDArray[np.int64]:
    values = record[name]
    for position, value in enumerate(values):
        if type(value) is not int or not 0 <= value < 2**63:
            raise fail(f"{name}[{position}]={str(value)[:40]!r} is not an id")
    ids = np.asarray(values, np.int64)
    if np.any(np.diff(ids) <= 0):
        raise fail(f"{name} is not strictly increasing")
    return ids


def _from_csv(path: Path) -> NDArray[np.int64]:
    try:
        text = read_file(path).decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"path={path} is not a CSV text file ({error}); write one id a line"
        ) from error
    stripped = ([cell.strip() for cell in line] for line in lines)
    rows = [(number, row) for number, row in enumerate(stripped, 1) if any(row)]
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
        raise InputError(f"path={path} holds {brief(value)}; write a list: [7, 3]")
    return _int64(path, value)


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
    return _int64(path, array)


def _int64(path: Path, values: Any) -> NDArray[np.int64]:
    name = f"path={path} ids"
    array = whole_numbers(values, name)
    wrong = (array < -(2**63)) | (array >= 2**63)
    refuse(name, array, wrong, "is no id of a sample; ids count from 0")
    return array.astype(np.int64)
