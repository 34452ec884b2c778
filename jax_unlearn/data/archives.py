"""Data sets of one .npz file, under any of the usual names of arrays."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax_unlearn.data.files import Header, npz_headers, read_as, read_npz
from jax_unlearn.data.labels import listed
from jax_unlearn.data.sources import Dataset, assembled
from jax_unlearn.errors import InputError

__all__ = ["from_npz", "part_of"]

SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}
# the first of these that a file has is it; the others are columns
INPUTS = ("x", "images", "image", "inputs", "input", "imgs", "img", "pixels", "data")
INPUTS += ("features",)
LABELS = ("y", "labels", "label", "targets", "target", "classes", "class")
NAMES = ("class_names", "label_names", "target_names")
EXPECTED = (
    "x_train, y_train, x_test, y_test; the test arrays may be missing, and images, "
    "data or inputs stand for x, labels or target for y"
)


def from_npz(path: str | os.PathLike[str]) -> Dataset:
    """Return the data set of a `.npz` file, named after it; nothing is unpickled.

    It holds `x_train`, `y_train`, `x_test`, `y_test` and, if wanted, `class_names`
    `[K]`. Other usual names are taken as well: `X_train`, `train_images` and
    `train_labels`, `images` and `labels`, `data` and `target`. The arrays may have any
    form that `assembled` reads; without a test part a share is held out. K is the
    number of class names, else of the classes there are. Any other array `NAME_train`,
    or NAME of the training part's length alone, is a column of the training samples,
    such as `user_id_train [N]`.

    Raises:
      InputError: the file cannot be read, lacks a key, or holds unusable arrays.

    >>> import tempfile
    >>> import numpy as np
    >>> x, y = np.zeros((4, 2, 2), np.uint8), np.arange(4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "tiny.npz"
    ...     np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    ...     data = from_npz(path)
    >>> data.name, data.train.inputs.shape, data.class_names
    ('tiny', (4, 2, 2, 1), ('0', '1', '2', '3'))
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"path={path}: no such file; check the path")
    form = "x_train=…, y_train=…, x_test=…, y_test=…"
    remedy = f"write it anew with np.savez(path, {form})"
    with read_as(path, "a usable .npz file", remedy):
        if not zipfile.is_zipfile(path):
            raise ValueError("not a zip file")
        headers = npz_headers(path)
        keys = _keys(path, headers)
        columns, notes = _columns(keys, headers)
        names = keys.get(("", "names"), "")
        arrays = read_npz(path, wanted={*keys.values(), *columns.values()})
    parts = {
        part: (arrays[key], arrays[keys[part, "labels"]])
        for (part, role), key in keys.items()
        if role == "inputs"
    }
    left = keys.get(("validation", "inputs"))
    if left:
        taken = "is left out" if "test" in parts else "is the test part"
        notes.append(f"{left} {taken}")
    return assembled(
        path.stem,
        parts["train"],
        parts.get("test", parts.get("validation")),
        class_names=arrays.get(names),
        columns={name: arrays[key] for name, key in columns.items()},
        notes=notes,
    )


def part_of(name: str) -> tuple[str, str]:
    """Return the part of a data set that a name begins or ends with, and the rest.

    >>> part_of("train_images"), part_of("Xtest"), part_of("label")
    (('train', 'images'), ('test', 'x'), ('', 'label'))
    """
    lower = name.lower()
    for word in sorted(SPLITS, key=len, reverse=True):
        for rest in (lower.removesuffix(word), lower.removeprefix(word)):
            if rest != lower:
                return SPLITS[word], rest.strip("_-. ")
    return "", lower


def _keys(path: Path, names: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return the name of the array of each (part, role): inputs, labels; the names."""
    keys: dict[tuple[str, str], str] = {}
    lower = {name.lower(): name for name in names}
    for known in NAMES:
        if known in lower:
            keys.setdefault(("", "names"), lower[known])
    for role, known in (("inputs", INPUTS), ("labels", LABELS)):
        for name in sorted(names):
            part, rest = part_of(name)
            if rest not in known:
                continue
            held = keys.get((part, role))
            if held is None or known.index(rest) < known.index(part_of(held)[1]):
                keys[part, role] = name
    for role in ("inputs", "labels"):
        alone = keys.pop(("", role), None)
        if alone is not None:
            keys.setdefault(("train", role), alone)
    usual = {"inputs": "x_train", "labels": "y_train"}
    missing = [name for role, name in usual.items() if ("train", role) not in keys]
    if missing:
        raise InputError(
            f"path={path}: missing {', '.join(missing)} or the like; its arrays are "
            f"{listed(names)}; expected are {EXPECTED}"
        )
    for part in ("test", "validation"):
        found = [role for role in ("inputs", "labels") if (part, role) in keys]
        if len(found) == 1:
            name = keys[part, found[0]]
            other = "labels" if found == ["inputs"] else "inputs"
            raise InputError(
                f"path={path} has {name!r} and no {other} beside it; expected are "
                f"{EXPECTED}"
            )
    return keys


def _columns(
    keys: Mapping[tuple[str, str], str], headers: Mapping[str, Header]
) -> tuple[dict[str, str], list[str]]:
    """Return the array of each column of the training samples, and what is left out."""
    columns, notes = {}, []
    shape = headers[keys["train", "labels"]].shape
    others = [
        headers[key].shape[:1]
        for (part, _), key in keys.items()
        if part in ("test", "validation")
    ]
    for name in sorted(headers.keys() - set(keys.values())):
        part, _ = part_of(name)
        if part == "train":
            bare = name[5:] if name.lower().startswith("train") else name[:-5]
            columns[bare.strip("_-. ") or name] = name
        elif not part and headers[name].shape[:1] == shape[:1] not in others:
            if headers[name].dtype.hasobject:
                notes.append(f"{name} holds Python objects: left out")
            else:
                columns[name] = name
    return columns, notes
