"""Pictures in files or in memory as one array; data sets of them, a folder a class."""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jax_unlearn.data.archives import part_of
from jax_unlearn.data.checks import is_whole
from jax_unlearn.data.labels import listed, natural
from jax_unlearn.data.sources import Dataset, assembled
from jax_unlearn.errors import InputError

__all__ = ["ENDINGS", "any_pictures", "from_folder", "in_classes", "named_pictures"]
__all__ += ["stacked"]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
ENDINGS += (".ppm", ".pgm", ".jfif")
LARGEST = 4096  # pixels of a side that may be asked for


def stacked(
    pictures: Iterable[tuple[str, Path | bytes]], image_size: int | None = None
) -> tuple[NDArray[np.uint8], list[str]]:
    """Return pictures, each with its name, as `u8[N, H, W, C]`, and what was done.

    Grey ones have one channel, and three among coloured ones; what is transparent is
    laid on white; 16 bits become 8; the way a camera was held is undone. With
    `image_size` all are made squares of it, else they must be of one size.

    Raises:
      InputError: a picture that cannot be read, or is of another size.
    """
    if image_size is not None and not (is_whole(image_size) and image_size > 0):
        raise InputError(f"image_size={image_size} must be a number of pixels; try 32")
    if image_size is not None and image_size > LARGEST:
        raise InputError(f"image_size={image_size} is over {LARGEST}; try 32")
    arrays, first = [], ""
    counts: dict[str, int] = dict.fromkeys(
        ("laid on white", "of 16 bits", "resized"), 0
    )
    for name, content in pictures:
        array = _read(name, content, image_size, counts)
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            one, other = (f"{a.shape[1]} x {a.shape[0]}" for a in (array, arrays[0]))
            raise InputError(
                f"{name} has {one} pixels, {first} has {other}; images must be of one "
                f"size: give image_size={min(32, *arrays[0].shape[:2])}"
            )
        first = first or name
        arrays.append(array)
    said = {
        "laid on white": "images with transparency are laid on white",
        "of 16 bits": "images of 16 bits are made bytes",
        "resized": f"images are resized to {image_size} x {image_size}",
    }
    notes = [f"{n} {said[what]}" for what, n in counts.items() if n]
    grey = [array.ndim == 2 for array in arrays]
    if all(grey):
        return np.stack(arrays)[..., None], notes
    if any(grey):
        notes.append(f"{sum(grey)} grey images among coloured ones get three channels")
    arrays = [np.stack([a] * 3, -1) if a.ndim == 2 else a for a in arrays]
    return np.stack(arrays), notes


def named_pictures(
    name: str, place: str, values: list[Any], folder: Path
) -> list[tuple[str, Any]]:
    """Return the images of a column: their bytes, or files, each with its place."""
    found: list[tuple[str, Any]] = []
    lying: dict[str, list[Path]] = {}
    for number, value in enumerate(values):
        who = f"{name}: {place}[{number}]"
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if value is None:
            raise InputError(f"{who} has no image; drop the sample")
        if isinstance(value, str):
            value = _lying(who, folder, value, lying)
        found.append((who, value))
    return found


def _lying(who: str, folder: Path, name: str, lying: dict[str, list[Path]]) -> Path:
    """Return the file of a path in a folder, or of a name that one in it has."""
    if (folder / name).exists():
        return folder / name
    if not lying:
        for file in folder.rglob("*"):
            lying.setdefault(file.name, []).append(file)
    places = lying.get(name, [])
    if len(places) == 1:
        return places[0]
    what = f"lies in {len(places)} folders" if places else "is not there"
    raise InputError(
        f"{who}={name!r} {what} in {folder}; give its path from there, such as "
        "train/1.png, or drop the row"
    )


def any_pictures(path: Path) -> bool:
    """Return whether there are image files in a folder or in its folders."""
    return any(file.suffix.lower() in ENDINGS for file in path.rglob("*"))


def _read(
    name: str, content: Path | bytes, image_size: int | None, counts: dict[str, int]
) -> NDArray[np.uint8]:
    """Return one picture, `u8[H, W]` or `u8[H, W, 3]`, and count what was done."""
    from PIL import Image, ImageOps

    source = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        with Image.open(source) as opened:
            image: Any = ImageOps.exif_transpose(opened)
            image.load()
    except Exception as error:  # the formats name no set of errors
        raise InputError(
            f"{name} cannot be read as an image ({str(error).split(': <')[0][:80]}); "
            "replace or remove it"
        ) from error
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        counts["of 16 bits"] += 1
        image = Image.fromarray((wide.clip(0, 65535) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise InputError(
            f"{name} has floating pixels; put such images in an .npz file, as x_train"
        )
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        grey = image.mode in ("L", "LA", "La", "1")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("L" if grey else "RGB")
        counts["laid on white"] += 1
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image_size is not None and image.size != (image_size, image_size):
        size = image_size, image_size
        image = image.resize(size, Image.Resampling.BILINEAR)
        counts["resized"] += 1
    return np.asarray(image)


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
