"""Image data sets as arrays on the host: scikit-learn digits, .npz files, TFDS.

Shapes: N images of H x W pixels and C channels, K classes.
"""

import difflib
import hashlib
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.files import read_npz
from jax_unlearn.data.splits import holdout
from jax_unlearn.errors import InputError, unknown_name

__all__ = ["Dataset", "Examples", "check_examples", "digits", "fingerprint"]
__all__ += ["from_npz", "from_tfds", "with_columns"]

NAMES = "class_names"
TEST_SPLITS = ("test", "validation", "val", "valid")
_TFDS_NAME = re.compile(r"[A-Za-z_]\w*(/[\w.\-]+)?(:[0-9.*]+)?", re.ASCII)


class Examples(NamedTuple):
    """Labelled images `[N, H, W, C]`, `uint8` of 0 to 255 or `float32`.

    The labels are classes `i32[N]`, 0 to K - 1; the id of an image is its position.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int32]


class Dataset(NamedTuple):
    """A data set in memory: its two parts, K, and a name for each class.

    `columns` are what else is known of the training samples, `[N, ...]` each and in
    their order: neither inputs nor labels, so that no model sees them.
    """

    name: str
    train: Examples
    test: Examples
    num_classes: int
    class_names: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]] = {}


def check_examples(
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    num_classes: int | None = None,
    name: str = "examples",
) -> Examples:
    """Return images and labels in the types of `Examples`, if they are usable.

    Images `[N, H, W, C]` are `uint8` or floating (made `float32`), labels `[N]` of any
    integer type; without `num_classes` the largest label is open. The message begins
    with `name`, says how many are wrong, and which is the first.

    Raises:
      InputError: empty, wrong rank or type, unequal lengths, labels out of range,
        NaN or infinite pixels.

    >>> images = np.zeros((2, 4, 4, 1), np.uint8)
    >>> check_examples(images, [0, 1]).labels
    array([0, 1], dtype=int32)
    >>> check_examples(images, [0, 3], num_classes=3)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: examples: 1 of 2 labels out of range, the first \
    labels[1]=3; with num_classes=3 they are 0 to 2
    """
    images, classes = np.asarray(inputs), np.asarray(labels)
    if images.ndim != 4 or images.size == 0:
        raise InputError(
            f"{name}: inputs of shape {images.shape} must be [N, H, W, C] and not "
            "empty; reshape them"
        )
    if classes.ndim != 1 or len(classes) != len(images):
        raise InputError(
            f"{name}: labels of shape {classes.shape} must be one a sample, "
            f"({len(images)},); reshape or cut them"
        )
    if classes.dtype.kind not in "iu":
        raise InputError(
            f"{name}: labels[0]={classes[0]} is of type {classes.dtype}; labels must "
            "be whole numbers: labels.astype(int)"
        )
    limit = 2**31 if num_classes is None else num_classes
    wrong = np.flatnonzero((classes < 0) | (classes >= limit))
    if len(wrong):
        raise InputError(
            f"{name}: {len(wrong)} of {len(classes)} labels out of range, the first "
            f"labels[{wrong[0]}]={classes[wrong[0]]}; with num_classes={num_classes} "
            f"they are 0 to {limit - 1}"
        )
    if images.dtype.kind == "f":
        with np.errstate(over="ignore"):  # an overflow is reported as infinite below
            images = images.astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        if len(wrong):
            raise InputError(
                f"{name}: {len(wrong)} of {len(images)} inputs have NaN or infinite "
                f"pixels, the first inputs[{wrong[0]}]; mend or drop them"
            )
    elif images.dtype != np.uint8:
        raise InputError(
            f"{name}: inputs of type {images.dtype} must be uint8 (0 to 255) or "
            "float32; use inputs.astype(np.uint8)"
        )
    return Examples(images, classes.astype(np.int32))


def digits() -> Dataset:
    """Return scikit-learn's digits of 8x8 bytes, 1,000 to train and 797 to test.

    The division is fixed: `holdout(labels, count=797, seed=0)`, stratified; both parts
    keep the original order. Pixels of 0 to 16 become `round(255 x / 16)`, halves to
    even. Nothing is downloaded.

    Source: `sklearn.datasets.load_digits`; the division is our choice.

    >>> data = digits()
    >>> data.train.inputs.shape, len(data.test.labels), data.num_classes
    ((1000, 8, 8, 1), 797, 10)
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    train, test = (
        check_examples(pixels[ids], labels[ids], num_classes=10, name="digits")
        for ids in holdout(labels, count=797, seed=0)
    )
    return Dataset("digits", train, test, 10, tuple("0123456789"))


def from_npz(path: str | os.PathLike[str]) -> Dataset:
    """Return the data set of a `.npz` file, named after it; nothing is unpickled.

    It holds `x_train`, `y_train`, `x_test`, `y_test` and, if wanted, `class_names`
    `[K]`. Images `[N, H, W]` get a channel axis. K is the number of class names, else
    the largest label + 1. Any other array `NAME_train` is the column NAME of the
    training samples, such as `user_id_train [N]`.

    Raises:
      InputError: the file cannot be read, lacks a key, or holds unusable arrays.

    >>> import tempfile
    >>> x, y = np.zeros((4, 2, 2), np.uint8), np.arange(4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "tiny.npz"
    ...     np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    ...     data = from_npz(path)
    >>> data.name, data.train.inputs.shape, data.class_names
    ('tiny', (4, 2, 2, 1), ('0', '1', '2', '3'))
    """
    path = Path(path)
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no such file" if not path.exists() else "not a zip file")
        arrays = read_npz(
            path, wanted=lambda key: key.endswith("_train") or key in (*keys, NAMES)
        )
        if missing := [key for key in keys if key not in arrays]:
            raise ValueError(f"missing {', '.join(missing)}")
    except ValueError as error:
        raise InputError(
            f"path={path} is not a usable .npz file ({error}); write it with "
            "np.savez(path, x_train=…, y_train=…, x_test=…, y_test=…)"
        ) from error
    values = [arrays.pop(key) for key in keys]
    names = arrays.pop(NAMES, None)
    dataset = _dataset(path.stem, values[:2], values[2:], names)
    columns = {key.removesuffix("_train"): array for key, array in arrays.items()}
    return with_columns(dataset, columns)


def with_columns(dataset: Dataset, columns: Mapping[str, ArrayLike]) -> Dataset:
    """Return a data set with columns of its training samples, `[N, ...]` each.

    Raises:
      InputError: a column of another length.

    >>> with_columns(digits(), {"user": np.arange(1000) // 10}).columns["user"][:12]
    array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    """
    count = len(dataset.train.labels)
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != count:
            raise InputError(
                f"{dataset.name}: column {name!r} of shape {array.shape} must have one "
                f"value for each of the {count} training samples; cut it or leave it "
                "out"
            )
    return dataset._replace(columns=arrays)


def from_tfds(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
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
    features, splits = dict(builder.info.features or {}), list(builder.info.splits)
    label, image = features.get("label"), features.get("image")
    if not (
        isinstance(label, tfds.features.ClassLabel)
        and isinstance(image, tfds.features.Image)
    ):
        raise InputError(
            f"name={name!r} has the features {', '.join(features)}; only sets with an "
            "'image' and a class 'label' can be used"
        )
    test = next((split for split in TEST_SPLITS if split in splits), None)
    if "train" not in splits or test is None:
        raise InputError(
            f"name={name!r} has the splits {', '.join(splits)}; 'train' and one of "
            f"{', '.join(TEST_SPLITS)} are needed"
        )
    train_part, test_part = (_tfds_arrays(builder, name, s) for s in ("train", test))
    return _dataset(builder.name, train_part, test_part, label.names)


def fingerprint(dataset: Dataset) -> str:
    """Return the sha256, as hexadecimal digits, of what a model can see of a data set.

    Shapes, types and bytes of the four arrays and K; not the names.

    >>> fingerprint(digits()) == fingerprint(digits()._replace(name="other"))
    True
    """
    state = hashlib.sha256(str(dataset.num_classes).encode())
    for array in (*dataset.train, *dataset.test):
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        state.update(f";{little.dtype.str}{little.shape}".encode())
        state.update(little.data)
    return state.hexdigest()


def _dataset(
    name: str,
    train: Sequence[NDArray[Any]],
    test: Sequence[NDArray[Any]],
    class_names: ArrayLike | None,
) -> Dataset:
    """Check two parts against each other and put them together."""
    names = None
    if class_names is not None:
        array = np.asarray(class_names)
        if array.ndim != 1 or array.dtype.kind != "U":
            raise InputError(
                f"{name}: class_names of type {array.dtype} and shape {array.shape} "
                "must be a list of texts"
            )
        names = tuple(array.tolist())
    classes = None if names is None else len(names)
    parts = []
    for part, (inputs, labels) in (("train", train), ("test", test)):
        inputs = inputs[..., None] if inputs.ndim == 3 else inputs
        told = f"{name} {part}"
        parts.append(check_examples(inputs, labels, num_classes=classes, name=told))
    forms = [f"{part.inputs.dtype}{part.inputs.shape[1:]}" for part in parts]
    if forms[0] != forms[1]:
        raise InputError(
            f"{name}: train images {forms[0]} and test images {forms[1]} must have one "
            "type and shape"
        )
    if names is None:
        largest = max(int(part.labels.max()) for part in parts)
        names = tuple(map(str, range(1 + largest)))
    return Dataset(name, parts[0], parts[1], len(names), names)


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


def _tfds_arrays(builder: Any, name: str, split: str) -> list[NDArray[Any]]:
    try:
        source = builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise InputError(
            f"name={name!r} is prepared as {builder.info.file_format.value}, which has "
            "no random access; prepare it in another data_dir with download=True"
        ) from error
    examples = [source[position] for position in range(len(source))]
    shapes = {example["image"].shape for example in examples}
    if len(shapes) > 1:
        raise InputError(
            f"name={name!r} has images of {len(shapes)} shapes, such as "
            f"{' and '.join(map(str, sorted(shapes)[:2]))}; resize them to one"
        )
    labels = np.asarray([example["label"] for example in examples], np.int64)
    return [np.stack([example["image"] for example in examples]), labels]
