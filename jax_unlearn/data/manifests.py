"""Splits on disk, one JSON file each, checked as they are read."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data import splits
from jax_unlearn.data.files import read_json, write_atomic
from jax_unlearn.data.splits import MANIFEST_VERSION, Split, digest
from jax_unlearn.errors import InputError

__all__ = ["load_manifest", "save_manifest"]

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
_REQUEST = "request"  # of a split: who asked for it, see `load_request`


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
    manifest = {
        key: value for key, value in record.items() if key in (*_KEYS, _REQUEST)
    }
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
    if not isinstance(record.get(_REQUEST, {}), dict):
        raise fail(f"{_REQUEST}={str(record[_REQUEST])[:40]!r} has the wrong type")
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
