"""Residual networks: basic and bottleneck blocks, stems for CIFAR and ImageNet."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from jax_unlearn._validate import one_of
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array
from jax_unlearn.zoo import layers
from jax_unlearn.zoo.classifiers import ConvClassifier

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "ResNet18", "ResNet34", "ResNet50"]

EXPANSION = 4
"""Channels of a bottleneck's output, in those of its inner convolutions."""

Layer = tuple[int, int, dict[str, Any]]


class Residual(nnx.Module):
    """A block whose layers `block1`, `block2`, … are added to a shortcut."""

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
        make = functools.partial(
            layers.ConvNorm, dtype=dtype, convolution=convolution, rngs=rngs
        )
        sizes = self._layers(in_features, out_features, stride)
        self.depth = len(sizes)
        for number, (before, after, options) in enumerate(sizes, 1):
            setattr(self, f"block{number}", make(before, after, **options))
        ends, options = (in_features, out_features), {"stride": stride, "relu": False}
        same = stride == 1 and in_features == out_features
        self.shortcut = None if same else make(*ends, kernel=1, **options)

    def _layers(self, before: int, after: int, stride: int) -> list[Layer]:
        """Return channels before and after each convolution, and its options."""
        raise NotImplementedError

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return `[B, H / stride, W / stride, out]` of `x [B, H, W, in]`."""
        y = x
        for index in range(1, self.depth + 1):
            y = getattr(self, f"block{index}")(y, train=train)
        if self.shortcut is not None:
            x = self.shortcut(x, train=train)
        return nnx.relu(x + y)


class BasicBlock(Residual):
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

    def _layers(self, before: int, after: int, stride: int) -> list[Layer]:
        return [(before, after, {"stride": stride}), (after, after, {"relu": False})]


class Bottleneck(Residual):
    """relu(shortcut(x) + expand(conv3x3(reduce(x)))): 1x1, 3x3 and 1x1 convolutions.

    BatchNorm follows each of them, ReLU the first two. The first two have a quarter of
    the channels; the second has the stride, as in today's PyTorch weights (the paper
    gives it to the first). The shortcut is that of `BasicBlock`.

    Args:
      out_features: a multiple of 4.
      in_features, stride, dtype, convolution, rngs: as in `BasicBlock`.

    Reference: He et al., arXiv 1512.03385, figure 5; the stride: Goyal et al., arXiv
    1706.02677.

    >>> def block(x):
    ...     return Bottleneck(4, 16, stride=2, rngs=nnx.Rngs(0))(x, train=True)
    >>> nnx.eval_shape(block, jnp.ones((2, 8, 8, 4))).shape
    (2, 4, 4, 16)
    """

    def _layers(self, before: int, after: int, stride: int) -> list[Layer]:
        if after % EXPANSION:
            raise InputError(f"out_features={after} must be a multiple of {EXPANSION}")
        inner = after // EXPANSION
        return [
            (before, inner, {"kernel": 1}),
            (inner, inner, {"stride": stride}),
            (inner, after, {"kernel": 1, "relu": False}),
        ]


class ResNet(ConvClassifier):
    """Stem, stages of residual blocks, global mean, linear classifier.

    Stage s (from 0) has `stage_sizes[s]` blocks of `width * 2**s` channels, four times
    as many with `bottleneck`; every stage but the first halves the image.
    `stage_sizes=(2, 2, 2, 2), width=64` is ResNet-18, `(3, 4, 6, 3)` ResNet-34 and with
    `bottleneck` ResNet-50; `stage_sizes=(n, n, n), width=16` is the CIFAR network of
    6n + 2 layers (ResNet-20: n = 3), here with option B shortcuts. Weights of PyTorch
    fit it: `ju.zoo.from_torch`.

    Args:
      stage_sizes: number of blocks of each stage.
      width: channels of the first stage.
      bottleneck: whether the blocks are `Bottleneck`, else `BasicBlock`.
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
        bottleneck: bool = False,
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
        make, times = (Bottleneck, EXPANSION) if bottleneck else (BasicBlock, 1)
        features = width
        for stage, size in enumerate(stage_sizes):
            for index in range(size):
                out = width * 2**stage * times
                stride = 2 if stage > 0 and index == 0 else 1
                steps.append(f"stage{stage + 1}_block{index + 1}")
                block = make(features, out, stride=stride, **shared)
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


def ResNet34(num_classes: int, **options: Any) -> ResNet:
    """Return a ResNet-34, stages of 3, 4, 6, 3 basic blocks; options as in `ResNet`.

    21,282,122 parameters for 10 classes with the CIFAR stem, 21,797,672 for 1,000
    classes with the ImageNet stem.

    >>> def logits(x):
    ...     return ResNet34(10, width=4, rngs=nnx.Rngs(0))(x, train=False)
    >>> nnx.eval_shape(logits, jnp.ones((2, 32, 32, 3)))
    ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """
    return ResNet(num_classes, stage_sizes=(3, 4, 6, 3), **options)


def ResNet50(num_classes: int, **options: Any) -> ResNet:
    """Return a ResNet-50, stages of 3, 4, 6, 3 bottlenecks; options as in `ResNet`.

    23,520,842 parameters for 10 classes with the CIFAR stem, 25,557,032 for 1,000
    classes with the ImageNet stem.

    >>> def features(x):
    ...     model = ResNet50(10, width=4, rngs=nnx.Rngs(0))
    ...     return model.features(x, train=False)
    >>> nnx.eval_shape(features, jnp.ones((2, 32, 32, 3))).shape
    (2, 128)
    """
    options = {"stage_sizes": (3, 4, 6, 3), "bottleneck": True, **options}
    return ResNet(num_classes, **options)


def _pooled(x: Array) -> Array:
    """Return the largest of each 3x3 pixels, two pixels apart."""
    padding: Any = ((1, 1), (1, 1))  # the annotation of max_pool says str only
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
