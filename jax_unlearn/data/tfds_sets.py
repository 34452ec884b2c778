"""Image data sets of TensorFlow Datasets, read without TensorFlow."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jax_unlearn.data.sources import Dataset, assembled
from jax_unlearn.errors import InputError, unknown_name

__all__ = ["from_tfds"]

TEST_SPLITS = ("test", "validation", "val", "valid")
_TFDS_NAME = re.compile(r"[A-Za-z_]\w*(/[\w.\-]+)?(:[0-9.*]+)?", re.ASCII)


def from_tfds(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, download: bool = False
) -> Dataset:
    """Return an image classification set of TensorFlow Datasets.

    Its name is `name`, `name/config` or `name/config:version`. It is read by random
    access (`tfds.data_source`), without TensorFlow, in the order on the disk, so that
    an id names the same image every time. All images are held in memory and must have
    one shape. The test part is the first split there is of `test`, `validation`, `val`,
    `valid`. `data_dir` is the folder of the prepared sets, by default that of TFDS;
    only with `download` may the set be fetched and prepared, else no network is used.

    Raises:
      InputError: unknown name, not prepared, prepared in a format without random
        access, no `image` and `label` features, or unequal image shapes.

    >>> from_tfds("no_such_set", data_dir="no/such/folder")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: unknown TFDS data set 'no_such_set'; known: \
    cifar10, cifar100, fashion_mnist, mnist
    """
    import tensorflow_datasets as tfds

    if not _TFDS_NAME.fullmatch(name):
        raise InputError(f"name={name!r} must look like cifar10 or name/config:1.0.0")
    builder = _tfds_builder(tfds, name, data_dir, download)
    return read_builder(builder, name)


def read_builder(builder: Any, name: str) -> Dataset:
    """Return the set of a builder whose files are on the disk."""
    image, label, class_names = _keys(builder.info, name)
    splits = list(builder.info.splits)
    if "train" not in splits:
        raise InputError(
            f"name={name!r} has the splits {', '.join(splits)}; 'train' is needed; "
            "make an .npz file of it, for --data"
        )
    test = next((split for split in TEST_SPLITS if split in splits), None)
    parts = [
        _tfds_arrays(builder, name, split, (image, label))
        for split in ("train", test)
        if split is not None
    ]
    return assembled(builder.name, *parts, class_names=class_names)


def _keys(info: Any, name: str) -> tuple[str, str, list[str] | None]:
    """Return the features that are image and label, and the names of the classes."""
    import tensorflow_datasets as tfds

    features = dict(info.features or {})
    keys = info.supervised_keys or ("image", "label")
    image, label = keys[0], keys[-1]
    kind = features.get(label) if isinstance(label, str) else None
    number = getattr(kind, "shape", None) == () and not isinstance(
        kind, tfds.features.Image
    )
    pictured = isinstance(image, str) and isinstance(
        features.get(image), tfds.features.Image
    )
    if not pictured or not number:
        raise InputError(
            f"name={name!r} has the features {', '.join(features)}; only sets with an "
            "'image' and a class 'label' (or such supervised keys) can be used"
        )
    names = getattr(kind, "names", None)
    return image, label, names


def _tfds_builder(tfds: Any, name: str, data_dir: Any, download: bool) -> Any:
    """Return a builder whose files are on the disk."""
    data_dir = None if data_dir is None else os.path.expanduser(data_dir)
    try:
        if not download:
            reader = tfds.core.read_only_builder
            return reader.builder_from_files(name, data_dir=data_dir)
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError as error:
        raise _not_found(tfds, name, data_dir) from error
    except ModuleNotFoundError as error:
        module = re.findall(r"No module named '([\w.]+)'", str(error))
        raise InputError(
            f"preparing name={name!r} needs the package {' '.join(module) or error}; "
            "pip install it once (tensorflow-cpu for tensorflow): reading needs neither"
        ) from error
    return builder


def _not_found(tfds: Any, name: str, data_dir: str | None) -> InputError:
    """Return the error for a set that is not on the disk, or nowhere at all."""
    base = re.split("[/:]", name)[0]
    catalogue = tfds.list_builders(with_community_datasets=False)
    folder = Path(data_dir or tfds.core.constants.DATA_DIR)
    prepared = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    prepared = [p for p in prepared if _TFDS_NAME.fullmatch(p) and p != "downloads"]
    if base not in catalogue and base not in prepared:
        near = difflib.get_close_matches(base, catalogue, n=5, cutoff=0.6)
        usual = ("cifar10", "cifar100", "fashion_mnist", "mnist")
        return unknown_name("TFDS data set", base, {*near, *prepared, *usual})
    return InputError(
        f"name={name!r} is not prepared in data_dir={folder}; pass download=True, or "
        f"run once: tfds build {name} --file_format=array_record"
    )


def _tfds_arrays(
    builder: Any, name: str, split: str, keys: tuple[str, str]
) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        source = builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise InputError(
            f"name={name!r} is prepared as {builder.info.file_format.value}, which has "
            "no random access; prepare it in another data_dir with download=True"
        ) from error
    image, label = keys
    examples = [source[position] for position in range(len(source))]
    shapes = {example[image].shape for example in examples}
    if len(shapes) > 1:
        raise InputError(
            f"name={name!r} has images of {len(shapes)} shapes, such as "
            f"{' and '.join(map(str, sorted(shapes)[:2]))}; save them as files, a "
            "folder a class, and give that folder with image_size=32"
        )
    labels = np.asarray([example[label] for example in examples])
    return np.stack([example[image] for example in examples]), labels


def from_tfds_folder(path: Path) -> Dataset:
    """Return the set that TFDS prepared in a folder, such as mnist/3.0.1."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(path)
    return read_builder(builder, builder.name)
