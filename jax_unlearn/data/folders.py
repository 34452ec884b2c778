"""Data sets of image files, a folder a class."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jax_unlearn.data.archives import part_of
from jax_unlearn.data.labels import listed, natural
from jax_unlearn.data.pictures import ENDINGS, any_pictures, stacked
from jax_unlearn.data.sources import Dataset, assembled
from jax_unlearn.errors import InputError

__all__ = ["from_folder", "in_classes"]

FORM = (
    "put the images of each class in a folder of its name, ROOT/cat/1.png, or name "
    "them in a table beside them, ROOT/labels.csv: file,label and below 1.png,cat"
)


def from_folder(
    path: str | os.PathLike[str], *, image_size: int | None = None
) -> Dataset:
    """Return the images of a folder, named after it, a class a folder in it.

    They are `ROOT/CLASS/*.png` (or jpg, bmp, gif, tif, webp, ppm), or
    `ROOT/train/CLASS/*.png` with a test part `ROOT/test/CLASS/*.png` (or `val`);
    without a test part a share is held out. Folders in a class's folder belong to it.
    Classes and files are taken in the order of their names; the column "file" has the
    files' paths in the folder. How pixels are read is in `notes`; with `image_size` all
    images are made squares of so many pixels a side.

    Raises:
      InputError: no images, or none in folders; a file that cannot be read; images of
        several sizes.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"path={root} is no folder; check the path")
    parts: dict[str, Path] = {}
    others: list[str] = []
    for folder in _folders(root):
        part, rest = part_of(folder.name)
        if part and not rest and _folders(folder) and not _images(folder):
            parts.setdefault(part, folder)
        else:
            others.append(folder.name)
    notes: list[str] = []
    if "train" not in parts:
        parts = {"train": root}
    elif others:
        notes.append(f"{listed(others)} beside {parts['train'].name}: left out")
    test = next((part for part in ("test", "validation") if part in parts), None)
    if test == "test" and "validation" in parts:
        notes.append(f"{parts['validation'].name} is left out: there is a test part")
    wanted = [part for part in ("train", test) if part]
    files = {part: _files(parts[part], notes) for part in wanted}
    names = natural(sorted({name for one in files.values() for name, _ in one}))
    every = [file for one in files.values() for _, file in one]
    images, said = stacked(((str(f), f) for f in every), image_size)
    number = {name: place for place, name in enumerate(names)}
    labels = np.array([number[name] for one in files.values() for name, _ in one])
    size = len(files["train"])
    given = (images[:size], labels[:size]), (images[size:], labels[size:])
    relative = np.array([file.relative_to(root).as_posix() for file in every])
    return assembled(
        root.resolve().name,
        *given[: len(wanted)],
        class_names=names,
        columns={"file": relative[:size]},
        test_columns={"file": relative[size:]},
        notes=[f"{len(names)} classes of images: {listed(names)}", *notes, *said],
    )


def in_classes(root: Path) -> bool:
    """Return whether the images of a folder lie in two folders or more, parts aside."""
    within = [folder for folder in _folders(root) if any_pictures(folder)]
    parts = [folder for folder in within if not part_of(folder.name)[1]]
    deeper = [f for part in parts for f in _folders(part) if any_pictures(f)]
    return bool(deeper) or len(within) - len(parts) > 1


def _folders(path: Path) -> list[Path]:
    """Return the folders in one, in order, hidden ones left out."""
    found = (entry for entry in path.iterdir() if entry.is_dir())
    return sorted(e for e in found if not e.name.startswith((".", "__")))


def _images(path: Path) -> list[Path]:
    """Return the images that lie in a folder itself."""
    return [file for file in path.iterdir() if file.suffix.lower() in ENDINGS]


def _files(part: Path, notes: list[str]) -> Sequence[tuple[str, Path]]:
    """Return the images of a part, each with the name of its class."""
    classes = _folders(part)
    inside: list[tuple[str, Path]] = []
    others = 0
    for folder in classes:
        files = sorted(f for f in folder.rglob("*") if f.is_file())
        files = [f for f in files if not f.name.startswith(".")]
        images = [f for f in files if f.suffix.lower() in ENDINGS]
        others += len(files) - len(images)
        if not images:
            notes.append(f"{folder} has no images: left out")
        inside += [(folder.name, file) for file in images]
    if others:
        notes.append(f"{others} files in {part} are no images: left out")
    if not inside:
        loose = len(_images(part))
        what = f"{loose} images, none of them in a folder" if loose else "no images"
        raise InputError(f"path={part} holds {what}; {FORM}")
    return inside
