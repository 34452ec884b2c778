"""One call for data of any kind on the disk: what a path is decides how it is read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax_unlearn.data.archives import from_npz
from jax_unlearn.data.arrow import TABLES, from_huggingface, from_table, table_files
from jax_unlearn.data.pictures import from_folder, in_classes
from jax_unlearn.data.sources import Dataset
from jax_unlearn.data.tfds_sets import from_tfds_folder
from jax_unlearn.errors import InputError

__all__ = ["load"]

TEXTS = (".jsonl", ".ndjson", ".json", ".txt", ".xz", ".gz")
KINDS = (
    ".npz, .csv, .tsv or .parquet, or a folder of images (ROOT/CLASS/1.png), of tables "
    "(train.csv, test.csv) or of a Hugging Face set"
)
HUGGING_FACE = ("dataset_dict.json", "state.json")


def load(
    path: str | os.PathLike[str],
    *,
    label_column: str | None = None,
    exclude: Sequence[str] | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Return the data set of a file or a folder, read by what it is.

    An `.npz` file (`from_npz`); a folder of images, one a class (`from_folder`); a csv,
    tsv or parquet file, or a folder of them (`from_table`); a folder that Hugging
    Face's `save_to_disk` wrote (`from_huggingface`); the folder of a prepared TFDS
    set. The same path gives the same arrays in the same order every time; what was
    done to them on the way is in `Dataset.notes`. `label_column` and `exclude` are for
    columns, `image_size` for images in files.

    Raises:
      InputError: none of these, or what the readers refuse.

    >>> load("no/such.npz")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: path=no/such.npz: no such file or folder; check the \
    path
    """
    root = Path(path)
    chosen = {"label_column": label_column, "exclude": exclude}
    if not root.exists():
        raise InputError(f"path={root}: no such file or folder; check the path")
    suffix = root.suffix.lower()
    if root.is_file() and suffix in TEXTS:
        from jax_unlearn.language.texts import read_texts, text_dataset

        _unused(root, {"exclude": exclude, "image_size": image_size})
        return text_dataset(read_texts(root, topic=label_column))
    if root.is_dir():
        if any((root / name).exists() for name in HUGGING_FACE):
            return from_huggingface(root, **chosen, image_size=image_size)
        if (root / "features.json").exists():
            _unused(root, chosen | {"image_size": image_size})
            return from_tfds_folder(root)
        if table_files(root) and not in_classes(root):
            return from_table(root, **chosen, image_size=image_size)
        _unused(root, chosen)
        return from_folder(root, image_size=image_size)
    if suffix in TABLES:
        return from_table(root, **chosen, image_size=image_size)
    if suffix != ".npz":
        raise InputError(f"path={root} is of no format that can be read; give {KINDS}")
    _unused(root, chosen | {"image_size": image_size})
    return from_npz(root)


def _unused(path: Path, options: dict[str, Any]) -> None:
    """Refuse options that would do nothing."""
    for name, value in options.items():
        if value is not None:
            raise InputError(
                f"{name}={value!r} is not used for path={path}; leave it out"
            )
