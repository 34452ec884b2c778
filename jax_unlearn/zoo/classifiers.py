"""Classifiers: SmallCNN, VGG-16, residual networks and a multi-layer perceptron."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from jax_unlearn._validate import one_of
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array
from jax_unlearn.zoo import layers

__all__ = ["MLP", "VGG16", "BasicBlock", "ResNet", "ResNet18", "SmallCNN"]

STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))
"""Of VGG-16: (number of convolutions, channels in units of the width) of each stage."""


class Classifier(nnx.Module):
    """A network of `features` and a linear `head`."""

    head: nnx.Linear

    def features(self, x: Array, *, train: bool) -> Array:
        """Return penultimate features `f32[B, D]` of `x [B, ...]`."""
        raise NotImplementedError

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return logits `f32[B, K]` of `x [B, ...]`."""
        return self.head(self.features(x, train=train))


class ConvClassifier(Classifier):
    """Steps (names of submodules, or functions), global mean, linear classifier."""

    in_channels: int
    steps: tuple[str | Callable[[Array], Array], ...]
    least = 1

    def features(self, x: Array, *, train: bool) -> Array:
        """Return penultimate features `f32[B, D]` of images `x [B, H, W, C]`."""
        layers.check_images(x, self.in_channels, least=self.least)
        for step in self.steps:
            x = step(x) if callable(step) else getattr(self, step)(x, train=train)
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


class SmallCNN(ConvClassifier):
    """Three 3x3 convolutions (strides 1, 2, 2), global mean, linear classifier.

    The channels are width, 2 width, 4 width. Any image size works: 8x8 digits, 28x28,
    32x32. Source: our choice; strides instead of max-pooling, whose gradient is slow
    on CPUs.

    Args:
      num_classes: K.
      width: channels of the first convolution.
      in_channels: channels of the images.
      batch_norm: whether BatchNorm follows each convolution (else a bias).
      dtype: compute dtype, e.g. `jnp.bfloat16`; parameters and logits are float32.
      convolution: what convolves; by default XLA's, on CPUs as `ju.programs` says.
      rngs: random streams.

    >>> def logits(x):
    ...     return SmallCNN(10, rngs=nnx.Rngs(0))(x, train=False)
    >>> nnx.eval_shape(logits, jnp.ones((2, 8, 8, 1)))
    ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: int = 16,
        in_channels: int = 1,
        batch_norm: bool = True,
        dtype: Any = jnp.float32,
        convolution: layers.Convolution = layers.XLA,
        rngs: nnx.Rngs,
    ):
        shared: dict[str, Any] = dict(dtype=dtype, convolution=convolution, rngs=rngs)
        block = functools.partial(layers.ConvNorm, use_norm=batch_norm, **shared)
        self.in_channels = in_channels
        self.block1 = block(in_channels, width)
        self.block2 = block(width, 2 * width, stride=2)
        self.block3 = block(2 * width, 4 * width, stride=2)
        self.steps = ("block1", "block2", "block3")
        self.head = layers.classifier(4 * width, num_classes, rngs=rngs)


class VGG16(ConvClassifier):
    """Thirteen 3x3 convolutions with bias, BatchNorm and ReLU, one linear classifier.

    Each of the five stages ends in 2x2 max-pooling, so that images have sides of 32 or
    more; what is left (1x1 for 32x32 images) is averaged. This is the CIFAR form, with
    one linear layer where the original (Simonyan & Zisserman, arXiv 1409.1556) has
    three: 14,728,266 parameters for 10 classes.

    Args:
      width: channels of the first stage; 64 in the paper.
      num_classes, in_channels, dtype, convolution, rngs: as in `SmallCNN`.

    >>> def logits(x):
    ...     return VGG16(10, rngs=nnx.Rngs(0))(x, train=False)
    >>> nnx.eval_shape(logits, jnp.ones((2, 32, 32, 3)))
    ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """

    least = 2 ** len(STAGES)

    def __init__(
        self,
        num_classes: int,
        *,
        width: int = 64,
        in_channels: int = 3,
        dtype: Any = jnp.float32,
        convolution: layers.Convolution = layers.XLA,
        rngs: nnx.Rngs,
    ):
        shared: dict[str, Any] = dict(dtype=dtype, convolution=convolution, rngs=rngs)
        self.in_channels = features = in_channels
        steps = []
        for stage, (size, multiple) in enumerate(STAGES):
            out = width * multiple
            for index in range(size):
                steps.append(f"stage{stage + 1}_conv{index + 1}")
                block = layers.ConvNorm(features, out, use_bias=True, **shared)
                setattr(self, steps[-1], block)
                features = out
            steps.append(layers.halve)
        self.steps = tuple(steps)
        self.head = layers.classifier(features, num_classes, rngs=rngs)


class BasicBlock(nnx.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))), both convolutions 3x3.

    The shortcut is the identity, or a 1x1 convolution with BatchNorm where the shape
    changes (option B of the paper).

    Args:
      in_features, out_features: numbers of channels.
      stride: of the first convolution and the shortcut.
      dtype, convolution, rngs: as in `SmallCNN`.

    Reference: He et al., arXiv 1512.03385.

    >>> def block(x):
    ...     return BasicBlock(4, 8, stride=2, rngs=nnx.Rngs(0))(x, train=True)
    >>> nnx.eval_shape(block, jnp.ones((2, 8, 8, 4))).shape
    (2, 4, 4, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        stride: int = 1,
        dtype: Any = jnp.float32,
        convolution: layers.Convolution = layers.XLA,
        rngs: nnx.Rngs,
    ):
        layer = functools.partial(
            layers.ConvNorm, dtype=dtype, convolution=convolution, rngs=rngs
        )
        self.block1 = layer(in_features, out_features, stride=stride)
        self.block2 = layer(out_features, out_features, relu=False)
        same = stride == 1 and in_features == out_features
        down = functools.partial(layer, kernel=1, stride=stride, relu=False)
        self.shortcut = None if same else down(in_features, out_features)

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return `[B, H / stride, W / stride, out]` of `x [B, H, W, in]`."""
        y = self.block2(self.block1(x, train=train), train=train)
        if self.shortcut is not None:
            x = self.shortcut(x, train=train)
        return nnx.relu(x + y)


class ResNet(ConvClassifier):
    """Stem, stages of basic blocks, global mean, linear classifier.

    Stage s (from 0) has `stage_sizes[s]` blocks of `width * 2**s` channels; every
    stage but the first halves the image. `stage_sizes=(2, 2, 2, 2), width=64` is
    ResNet-18, `(3, 4, 6, 3)` ResNet-34; `stage_sizes=(n, n, n), width=16` is the
    CIFAR network of 6n + 2 layers (ResNet-20: n = 3), here with option B shortcuts.

    Args:
      stage_sizes: number of blocks of each stage.
      width: channels of the first stage.
      stem: "cifar" (3x3 convolution) or "imagenet" (7x7 of stride 2, then 3x3
        max-pooling of stride 2).
      num_classes, in_channels, dtype, convolution, rngs: as in `SmallCNN`.

    Raises:
      InputError: on an unknown stem or empty `stage_sizes`.

    Reference: He et al., arXiv 1512.03385.

    >>> def resnet20_features(x):
    ...     model = ResNet(10, stage_sizes=(3, 3, 3), width=16, rngs=nnx.Rngs(0))
    ...     return model.features(x, train=False)
    >>> nnx.eval_shape(resnet20_features, jnp.ones((2, 32, 32, 3))).shape
    (2, 64)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        stage_sizes: Sequence[int],
        width: int = 64,
        in_channels: int = 3,
        stem: Literal["cifar", "imagenet"] = "cifar",
        dtype: Any = jnp.float32,
        convolution: layers.Convolution = layers.XLA,
        rngs: nnx.Rngs,
    ):
        one_of("stem", stem, ("cifar", "imagenet"))
        if not stage_sizes or min(stage_sizes) < 1:
            raise InputError(
                f"stage_sizes={tuple(stage_sizes)} must be positive block counts; "
                "try (2, 2, 2, 2)"
            )
        large = stem == "imagenet"
        shared: dict[str, Any] = dict(dtype=dtype, convolution=convolution, rngs=rngs)
        shape = {"kernel": 7, "stride": 2} if large else {"kernel": 3, "stride": 1}
        self.in_channels = in_channels
        self.stem = layers.ConvNorm(in_channels, width, **shape, **shared)
        steps = ["stem", _pooled] if large else ["stem"]
        features = width
        for stage, size in enumerate(stage_sizes):
            for index in range(size):
                out, stride = width * 2**stage, 2 if stage > 0 and index == 0 else 1
                steps.append(f"stage{stage + 1}_block{index + 1}")
                block = BasicBlock(features, out, stride=stride, **shared)
                setattr(self, steps[-1], block)
                features = out
        self.steps = tuple(steps)
        self.head = layers.classifier(features, num_classes, rngs=rngs)


def ResNet18(num_classes: int, **options: Any) -> ResNet:
    """Return a ResNet-18, four stages of two basic blocks; options as in `ResNet`.

    11,173,962 parameters for 10 classes with the CIFAR stem, 11,689,512 for 1,000
    classes with the ImageNet stem.

    >>> def logits(x):
    ...     return ResNet18(10, rngs=nnx.Rngs(0))(x, train=False)
    >>> nnx.eval_shape(logits, jnp.ones((2, 32, 32, 3)))
    ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """
    return ResNet(num_classes, stage_sizes=(2, 2, 2, 2), **options)


class MLP(Classifier):
    """Linear layers with ReLU, then a linear classifier; no BatchNorm, no dropout.

    Args:
      in_features: D, number of values of a sample, e.g. 64 for 8x8 grey images.
      hidden: widths of the hidden layers; `()` is logistic regression.
      num_classes, dtype, rngs: as in `SmallCNN`.

    >>> def logits(x):
    ...     return MLP(10, in_features=64, rngs=nnx.Rngs(0))(x, train=False)
    >>> nnx.eval_shape(logits, jnp.ones((2, 8, 8, 1)))
    ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        in_features: int,
        hidden: Sequence[int] = (128, 128),
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = in_features
        self.depth = len(hidden)
        for i, width in enumerate(hidden):
            layer = nnx.Linear(
                in_features, width, kernel_init=layers.kaiming, dtype=dtype, rngs=rngs
            )
            setattr(self, f"hidden{i + 1}", layer)
            in_features = width
        self.head = layers.classifier(in_features, num_classes, rngs=rngs)

    def features(self, x: Array, *, train: bool) -> Array:
        """Return the last hidden layer `f32[B, hidden[-1]]` of `x [B, ...]`.

        Raises:
          InputError: if the samples do not have `in_features` values.
        """
        del train
        if math.prod(x.shape[1:]) != self.in_features:
            raise InputError(
                f"x.shape={x.shape} must be [B, ...] with in_features="
                f"{self.in_features} values a sample; build MLP with "
                f"in_features={math.prod(x.shape[1:])}"
            )
        x = x.reshape(x.shape[0], -1)
        for i in range(self.depth):
            x = nnx.relu(getattr(self, f"hidden{i + 1}")(x))
        return x.astype(jnp.float32)


def _pooled(x: Array) -> Array:
    """Return the largest of each 3x3 pixels, two pixels apart."""
    padding: Any = ((1, 1), (1, 1))  # the annotation of max_pool says str only
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
