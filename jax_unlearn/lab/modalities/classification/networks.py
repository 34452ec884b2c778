"""Networks by name, with their preprocessing, as the command line knows them."""

import dataclasses
import functools
import math
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from msgspec import Meta

from jax_unlearn import _validate, cards, data
from jax_unlearn.adapters import from_nnx
from jax_unlearn.errors import InputError
from jax_unlearn.lab import catalog, schema
from jax_unlearn.lab.modalities.classification import own
from jax_unlearn.lab.modality import MAX_WIDTH, Dimension, Dtype
from jax_unlearn.types import Model

__all__ = ["ARCHITECTURES", "Classifier", "Network", "Training", "build"]
__all__ += ["check_network", "describe"]

Architecture = Literal[
    "small_cnn",
    "mlp",
    "linear",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "vgg16",
    "vit_tiny",
    "vit_small",
    "vit_base",
    "resnet18_imagenet",
    "resnet34_imagenet",
    "resnet50_imagenet",
    "vgg16_imagenet",
]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
Augmentation = Literal["none", "flip", "flip_crop"]
Width = Annotated[
    int, functools.partial(_validate.within, interval=f"[0, {MAX_WIDTH}]")
]


def check_network(name: str, value: str, remedy: str = "") -> None:
    """Refuse a network that is none of the library's and none of a file."""
    del remedy
    if not own.is_own(value):
        _validate.one_of(name, value, ARCHITECTURES)


@dataclasses.dataclass(frozen=True)
class Training(cards.Options):
    """How the original model and Retrain are trained: SGD, cosine learning rate.

    Attributes:
      network: name of the network (small_cnn is an mlp if the data are a table), or
        FILE.py:NAME of your own: a ju.Model, a linen or nnx module, or a function (of
        rngs, num_classes) that returns one.
      width: channels of the first block (for mlp: units; for vit: width of a token); 0
        takes the usual number.
      dtype: number type of the computation; parameters are float32.
      epochs: passes over the training samples.
      batch_size: samples in a step.
      learning_rate: largest learning rate; it falls to 0 along a cosine.
      momentum: momentum of SGD.
      weight_decay: weight decay: this times the weight is added to the gradient.
      augment: random flips and crops of the images.
      mean: mean that is subtracted from the inputs (bytes are divided by 255 first):
        one for each channel, or one for all. Default: that of the training samples.
      std: standard deviation by which the inputs are divided then, like --mean.

    >>> Training(epochs=0)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: epochs=0 must be at least 1; try 40
    """

    network: Annotated[str, check_network] = "small_cnn"
    width: Width = 0
    dtype: Dtype = "float32"
    epochs: cards.Count = 40
    batch_size: cards.Count = 64
    learning_rate: cards.Positive = 0.1
    momentum: cards.Share = 0.9
    weight_decay: cards.NotNegative = 5e-4
    augment: Augmentation = "none"
    mean: tuple[float, ...] = ()
    std: tuple[cards.Positive, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        # records of runs, which `vars` makes, say of them only what was told
        for name in ("mean", "std"):
            if not getattr(self, name):
                object.__delattr__(self, name)


@dataclasses.dataclass(frozen=True)
class Network:
    """All that is needed to build a network again; stored with each checkpoint."""

    name: str
    width: Annotated[int, Meta(ge=0, le=MAX_WIDTH)]
    dtype: Dtype
    augment: Augmentation
    num_classes: Dimension
    input_shape: Annotated[tuple[Dimension, ...], Meta(min_length=3, max_length=3)]
    # moments of each channel of the training images, bytes scaled to [0, 1]
    mean: Annotated[tuple[schema.Finite, ...], Meta(min_length=1)]
    std: Annotated[tuple[schema.Positive, ...], Meta(min_length=1)]
    # what black is, for all channels or for each: crops are filled up with it
    black: Annotated[tuple[schema.Finite, ...], Meta(min_length=1)] = (0.0,)
    sha256: str = ""  # of the file of a network of one's own
    folder: str = ""  # where that file was

    def __post_init__(self):
        try:
            check_network("name", self.name)
        except InputError as error:
            raise schema.FieldError(f"name: {error}") from error

    @classmethod
    def from_record(cls, record: Any) -> "Network":
        """Return the network of a checkpoint's record, its file found again."""
        network = schema.read(cls, record, name="network", remedy=schema.TRAIN_ANEW)
        if not own.is_own(network.name):
            return network
        if catalog.instead:
            name = catalog.instead[-1]
            return dataclasses.replace(network, name=name, **own.described(name))
        name = own.placed(network.name, network.sha256, network.folder)
        return dataclasses.replace(network, name=name)


def describe(training: Training, dataset: data.Dataset) -> Network:
    """Return the network of a training setting for a data set.

    Rows of a table have no neighbourhood to convolve: the usual network is then an mlp.
    """
    name = training.network
    if dataset.is_text:
        raise InputError(
            f"{dataset.name} holds texts, which classifiers do not read; give "
            "--modality language"
        )
    if dataset.num_classes < 2:
        raise InputError(
            f"{dataset.name} has the classes {list(dataset.class_names)}; give "
            "data of two or more (images in a folder a class: ROOT/cat/1.png)"
        )
    if dataset.is_table:
        name = "mlp" if name == Training.network else name
        wrong = {"augment": training.augment != "none"}
        known = ARCHITECTURES
        wrong["network"] = name in known and name not in ("mlp", "linear")
        for field in (field for field, is_wrong in wrong.items() if is_wrong):
            raise InputError(
                f"{field}={getattr(training, field)!r} is for images, and "
                f"{dataset.name} is a table; leave it out"
            )
    file: dict[str, str] = {}
    if own.is_own(name):
        for field in ("width", "dtype"):
            value, usual = getattr(training, field), getattr(Training, field)
            if value != usual:
                raise InputError(
                    f"{field}={value}: the network of {name} has its own; leave "
                    f"--{field} out"
                )
        file = own.described(name)
    return Network(
        name,
        training.width,
        training.dtype,
        training.augment,
        dataset.num_classes,
        tuple(int(n) for n in dataset.train.inputs.shape[1:]),
        *_moments(training, dataset),
        dataset.range.low,
        **file,
    )


def _moments(
    training: Training, dataset: data.Dataset
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of each channel, as told or as measured."""
    if training.mean or training.std:
        channels, found = dataset.train.inputs.shape[-1], []
        for field in ("mean", "std"):
            values = tuple(float(value) for value in getattr(training, field))
            values = values * channels if len(values) == 1 else values
            if len(values) != channels or not np.isfinite(values).all():
                raise InputError(
                    f"{field}={list(values)}: give one finite number a channel, of "
                    f"which {dataset.name} has {channels}, and both --mean and --std"
                )
            found.append(values)
        return found[0], found[1]
    scale = dataset.range
    mean, std = data.channel_stats(dataset.train.inputs)
    # rounded as parts of the range, which is 1 but for floats of their own
    sizes = np.broadcast_to(np.subtract(scale.high, scale.low), mean.shape).tolist()
    moments = [*zip(mean.tolist(), std.tolist(), sizes, strict=True)]
    return (
        tuple(round(m / size, 6) * size for m, _, size in moments),
        tuple(round(max(s / size, 1e-3), 6) * size for _, s, size in moments),
    )


class Classifier(NamedTuple):
    """A classifier ready for use; its features are the penultimate ones."""

    model: Model
    features: Model
    network: Network


@functools.lru_cache(maxsize=16)
def build(network: Network, *, features: bool = False) -> Model:
    """Return the model; equal descriptions share one, and so its compiled programs."""
    import jax.numpy as jnp

    from jax_unlearn import zoo

    augments: dict[str, data.Augment | None] = {
        "none": None,
        "flip": data.random_flip,
        "flip_crop": data.compose(
            data.random_flip, data.random_crop(4, fill=network.black)
        ),
    }
    prepared = functools.partial(
        data.with_preprocessing,
        mean=network.mean,
        std=network.std,
        augment=augments[network.augment],
    )
    if own.is_own(network.name):
        pair = own.build(network.name, network.num_classes, network.input_shape)
        return prepared(pair[features])
    options: dict[str, Any] = {"dtype": jnp.dtype(network.dtype)}

    if network.name in ("mlp", "linear"):
        make: Any = zoo.MLP
        hidden = () if network.name == "linear" else (network.width or 128,) * 2
        options |= {"in_features": math.prod(network.input_shape), "hidden": hidden}
    else:
        height, width, _ = network.input_shape
        large: dict[str, Any] = {"stem": "imagenet"}
        three = {"hidden": (64 * (network.width or 64),) * 2, "pool": 7}
        patch = zoo.usual_patch(height, width)
        vit = functools.partial(zoo.ViT, image_size=(height, width), patch_size=patch)
        make, usual = {
            "small_cnn": (zoo.SmallCNN, 16),
            "resnet8": (functools.partial(zoo.ResNet, stage_sizes=(1, 1, 1)), 16),
            "resnet20": (functools.partial(zoo.ResNet, stage_sizes=(3, 3, 3)), 16),
            "resnet18": (zoo.ResNet18, 64),
            "resnet34": (zoo.ResNet34, 64),
            "resnet50": (zoo.ResNet50, 64),
            "resnet18_imagenet": (functools.partial(zoo.ResNet18, **large), 64),
            "resnet34_imagenet": (functools.partial(zoo.ResNet34, **large), 64),
            "resnet50_imagenet": (functools.partial(zoo.ResNet50, **large), 64),
            "vgg16": (zoo.VGG16, 64),
            "vgg16_imagenet": (functools.partial(zoo.VGG16, **three), 64),
            "vit_tiny": (vit, 192),
            "vit_small": (vit, 384),
            "vit_base": (vit, 768),
        }[network.name]
        options["in_channels"] = network.input_shape[-1]
        options["width"] = network.width or usual

    def module(rngs):
        return make(network.num_classes, rngs=rngs, **options)

    return prepared(from_nnx(module, method="features" if features else "__call__"))
