"""Samples by key: whoever a user number, a name or a file stands for.

A key is text or a whole number in a column of the training samples, and stands for all
samples that have it there.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.checks import brief, check_positions, few, is_whole
from jax_unlearn.data.files import read_file
from jax_unlearn.data.lists import (
    INTEGER,
    Values,
    as_text,
    check_apart,
    keys_of,
    positions_of,
    read_values,
)
from jax_unlearn.data.manifests import load_manifest
from jax_unlearn.data.sources import Dataset
from jax_unlearn.errors import InputError, unknown_name

__all__ = ["Named", "ids_of_keys", "load_request"]

LISTED = 100  # keys that a record holds; of more the digest
_SUFFIX = "_train"  # of a column's array in an npz file


class Named(NamedTuple):
    """Samples that a file names.

    Attributes:
      ids: their positions in the training arrays, sorted, `i64[F]`.
      record: JSON-able: `file`, its `sha256`, `key_column` (None: by position), how
        many ids or keys it lists (`count`), and the first 100 `keys`, those `unknown`
        and those that only test samples have (`in_test`).
    """

    ids: NDArray[np.int64]
    record: dict[str, Any]


def load_request(
    path: str | os.PathLike[str],
    dataset: Dataset,
    *,
    key_column: str | None = None,
    skip_unknown: bool = False,
) -> Named:
    r"""Return the training samples that a file names, by position or by key.

    The files are those of `load_ids`, and splits of `save_manifest`. With `key_column`
    they list keys: the file's column of that name (or headed `id` or `index`, or its
    only one) holds text or whole numbers, each of which stands for all samples with it
    in `dataset.columns[key_column]`.

    Args:
      path: the file.
      dataset: whose training samples are named.
      key_column: column of the data set to look keys up in; None: ids are positions.
      skip_unknown: pass over keys that no sample has; at least one must be known.

    Raises:
      InputError: a file that cannot be read; an id or key that comes twice, in two
        sets of the file, or that no sample has; a data set without that column.

    >>> import tempfile
    >>> from jax_unlearn.data.sources import digits, with_columns
    >>> users = np.array([f"u{n // 10}" for n in range(1000)])
    >>> dataset = with_columns(digits(), {"user_id": users})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "del.csv"
    ...     _ = path.write_text("user_id,asked\nu7,Monday\n")
    ...     request = load_request(path, dataset, key_column="user_id")
    >>> request.ids
    array([70, 71, 72, 73, 74, 75, 76, 77, 78, 79])
    >>> request.record["keys"]
    ['u7']
    """
    what = "id" if key_column is None else "key"
    name, column = (None, None) if key_column is None else _column(dataset, key_column)
    values = read_values(path, column=name, what=what)
    whole = values.whole or {}
    digest = hashlib.sha256(read_file(path)).hexdigest()
    record: dict[str, Any] = {"file": Path(path).name, "sha256": digest}
    record |= {"key_column": None, "count": len(values.entries)}
    if "labels_sha256" in whole:  # a split, whose ids are positions
        split, _ = load_manifest(path, labels=dataset.train.labels)
        return Named(split.forget, whole.get("request") or record)
    if name is None or column is None:
        ids = _positions(values, len(dataset.train.labels))
        _check_sets(path, whole, ids)
        return Named(np.sort(ids), record)
    keys = keys_of(values)
    _check_sets(path, whole, keys)
    headless = bool(values.rows) and not values.headed
    options = {"file": Path(path).name, "headless": headless}
    options |= {"test": dataset.test_columns.get(name)}
    found = _looked_up(keys, column, name, skip_unknown=skip_unknown, **options)
    record |= {"key_column": name, "keys": keys[:LISTED]}
    others = {"unknown": found.unknown, "in_test": found.in_test}
    record |= {what: some[:LISTED] for what, some in others.items() if some}
    return Named(found.ids, record)


def ids_of_keys(keys: Sequence[str | int], column: ArrayLike) -> NDArray[np.int64]:
    """Return the positions of all samples that have one of the keys, sorted, `i64[F]`.

    A column of text is compared exactly: "7" is not "007". In a column of whole
    numbers a key of text counts as the number it spells. NaN and None are nobody's.

    Raises:
      InputError: keys that no sample has or that come twice; a column `[N]` of neither
        text nor whole numbers.

    >>> ids_of_keys(["ann", "joe"], ["joe", "eve", "ann", "joe"])
    array([0, 2, 3])
    >>> ids_of_keys(["7"], ["007", "8"])
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: none of 1 key is in column 'column': '7'; they are \
text such as '7', the column holds text such as '007', compared exactly; check both, \
or name another column
    """
    return _looked_up(list(keys), np.asarray(column), "column").ids


class _Found(NamedTuple):
    ids: NDArray[np.int64]
    unknown: list[str | int]
    in_test: list[str | int]  # no training samples


def _positions(values: Values, size: int) -> NDArray[np.int64]:
    """Return ids that are positions of so many samples, each named once."""
    try:
        return check_positions(positions_of(values), num_samples=size)
    except InputError as error:
        told = str(error)
        if told.startswith(f"path={values.path}"):
            raise
        raise InputError(f"path={values.path}: {told}") from error


def _check_sets(path: Any, whole: dict[str, Any], listed: Any) -> None:
    """Refuse a file whose other sets hold some of what is to be forgotten."""
    for name in ("retain", "unseen"):
        others = whole.get(name)
        if isinstance(others, list) and others and whole.get(name) is not listed:
            try:
                check_apart(forget=listed, **{name: others})
            except TypeError as error:
                raise InputError(
                    f"path={path}: {name} is no list of ids like the others; mend it"
                ) from error
            except InputError as error:
                raise InputError(f"path={path}: {error}") from error


def _column(dataset: Dataset, asked: str) -> tuple[str, NDArray[Any]]:
    """Return the name and the values of a column of a data set."""
    for name in (asked, asked.removesuffix(_SUFFIX)):
        if name in dataset.columns:
            return name, np.asarray(dataset.columns[name])
    if dataset.columns:
        raise unknown_name("key column", asked, dataset.columns)
    raise InputError(
        f"key_column={asked!r}: {dataset.name} has no columns beside inputs and "
        f"labels; add the array {asked.removesuffix(_SUFFIX)}{_SUFFIX} to its .npz "
        "file, one value a training sample"
    )


def _looked_up(
    keys: list[str | int],
    column: NDArray[Any],
    name: str,
    *,
    file: str = "",
    headless: bool = False,
    skip_unknown: bool = False,
    test: NDArray[Any] | None = None,
) -> _Found:
    """Return the samples of keys in a column, and the keys that no sample has."""
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1:
        raise InputError(
            f"column {name!r} of shape {column.shape} must have one value a sample; "
            "name another"
        )
    values, known = _comparable(column, name)
    unique, inverse = np.unique(values, return_inverse=True)
    numbers = values.dtype.kind in "iu"
    places = {value: place for place, value in enumerate(unique.tolist())}
    found = [_place(key, places, numbers) for key in keys]
    held: dict[Any, int] = {}
    if test is not None:
        others = _comparable(test.reshape(len(test), -1)[:, 0], name)[0]
        held = dict.fromkeys(others.tolist(), 0)
    of = f" of {file}" if file else ""
    first: dict[Any, int] = {}
    for number, (key, place) in enumerate(zip(keys, found, strict=True)):
        first.setdefault(key if place is None else (place,), number)
    if again := sorted(set(range(len(keys))) - set(first.values())):
        raise InputError(
            f"{_counted(len(again))}{of} named twice: {few([keys[n] for n in again])}; "
            "name each once"
        )
    missing = [key for key, place in zip(keys, found, strict=True) if place is None]
    in_test = [key for key in missing if _place(key, held, numbers) is not None]
    unknown = [key for key in missing if _place(key, held, numbers) is None]
    if len(in_test) == len(keys):
        raise InputError(
            f"{_counted(len(keys))}{of} in column {name!r} of the test part alone: "
            f"{few(in_test)}; no model is trained on it, there is nothing to forget"
        )
    if len(unknown) == len(keys):
        kind = "whole numbers" if numbers else "text"
        shown = keys[-1 if headless else 0]  # not what may be a header
        given = "text" if isinstance(shown, str) else "whole numbers"
        sample = f" such as {brief(unique.tolist()[0])}" if len(unique) else ""
        exact = "" if numbers else ", compared exactly"
        raise InputError(
            f"none of {_counted(len(keys))}{of} is in column {name!r}: {few(unknown)}; "
            f"they are {given} such as {brief(shown)}, the column holds "
            f"{kind}{sample}{exact}; check both, or name another column"
        )
    if unknown and not skip_unknown:
        header = f"; if the first is a header, let it say {name}"
        header = header if headless and unknown == keys[:1] else ""
        raise InputError(
            f"{len(unknown)} of {_counted(len(keys))}{of} not in column {name!r}: "
            f"{few(unknown)}; take them out, or give --skip-unknown to go on without"
            f"{header}"
        )
    chosen = np.zeros(len(unique), bool)
    chosen[[place for place in found if place is not None]] = True
    return _Found(known[chosen[inverse]].astype(np.int64), unknown, in_test)


def _counted(count: int) -> str:
    return f"{count} key{'' if count == 1 else 's'}"


def _place(key: str | int, places: dict[Any, int], numbers: bool) -> int | None:
    """Return where a key is among the values of a column; None where it is not."""
    if isinstance(key, str):
        bare = key.strip()
        if not numbers:
            return places.get(key, places.get(bare))
        return places.get(int(bare)) if INTEGER.fullmatch(bare) else None
    return places.get(int(key) if numbers else str(int(key)))


def _comparable(
    column: NDArray[Any], name: str
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return a column's known values, text or whole numbers, and their positions."""
    known, kind = np.ones(len(column), bool), column.dtype.kind
    if kind == "O":
        known = np.array([v is not None and v == v for v in column.tolist()], bool)
        entries = column[known].tolist()
        whole = bool(entries) and all(is_whole(v) for v in entries)
        column = np.asarray(entries if whole else [str(v) for v in entries])
        kind = column.dtype.kind if entries else "U"
    elif kind == "f":  # whole numbers, some of them missing
        known = np.isfinite(column)
        column = column[known]
        if (column == np.round(column)).all() and (abs(column) < 2**53).all():
            column, kind = column.astype(np.int64), "i"
    if kind not in "USMiu":
        raise InputError(
            f"column {name!r} holds {column.dtype}; keys are looked up in text or "
            "whole numbers: name another column"
        )
    column = as_text(column) if kind in "USM" else column
    return column, np.flatnonzero(known)
