"""Pictures in files or in memory as one array of bytes, whatever their format."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jax_unlearn.data.checks import is_whole
from jax_unlearn.errors import InputError

__all__ = ["ENDINGS", "any_pictures", "named_pictures", "stacked"]

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
