"""Residual networks of basic blocks (He et al., arXiv 1512.03385)."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from jax_unlearn._validate import one_of
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array
from jax_unlearn.zoo import layers

__all__ = ["BasicBlock", "ResNet", "ResNet18"]


class BasicBlock(nnx.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))), both convolutions 3x3.

    The shortcut is the identity, or a 1x1 convolution with BatchNorm where the shape
    changes (option B of the paper).

    Args:
      in_features, out_features: numbers of channels.
      stride: of the first convolution and the shortcut.
      dtype: compute dtype.
      convolution: what convolves; `ju.zoo.in_parts` is the fast one on CPUs.
      rngs: random streams.

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


class ResNet(layers.Classifier):
    """Stem, stages of basic blocks, global mean, linear classifier.

    Stage s (from 0) has `stage_sizes[s]` blocks of `width * 2**s` channels; every
    stage but the first halves the image. `stage_sizes=(2, 2, 2, 2), width=64` is
    ResNet-18, `(3, 4, 6, 3)` ResNet-34; `stage_sizes=(n, n, n), width=16` is the
    CIFAR network of 6n + 2 layers (ResNet-20: n = 3), here with option B shortcuts.

    Args:
      num_classes: K.
      stage_sizes: number of blocks of each stage.
      width: channels of the first stage.
      in_channels: channels of the images.
      stem: "cifar" (3x3 convolution) or "imagenet" (7x7 of stride 2, then 3x3
        max-pooling of stride 2).
      dtype: compute dtype, e.g. `jnp.bfloat16`; parameters and logits are float32.
      convolution: what convolves; `ju.zoo.in_parts` is the fast one on CPUs.
      rngs: random streams.

    Raises:
      InputError: on an unknown stem or empty `stage_sizes`.

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
        self.in_channels = in_channels
        self.large_stem = large
        options: dict[str, Any] = dict(dtype=dtype, convolution=convolution, rngs=rngs)
        shape = {"kernel": 7, "stride": 2} if large else {"kernel": 3, "stride": 1}
        self.stem = layers.ConvNorm(in_channels, width, **shape, **options)
        names = []
        features = width
        for stage, size in enumerate(stage_sizes):
            for index in range(size):
                block = BasicBlock(
                    features,
                    width * 2**stage,
                    stride=2 if stage > 0 and index == 0 else 1,
                    **options,
                )
                names.append(f"stage{stage + 1}_block{index + 1}")
                setattr(self, names[-1], block)
                features = width * 2**stage
        self.block_names = tuple(names)
        self.head = layers.classifier(features, num_classes, rngs=rngs)

    def features(self, x: Array, *, train: bool) -> Array:
        """Return penultimate features `f32[B, D]` of images `x [B, H, W, C]`."""
        layers.check_images(x, self.in_channels)
        x = self.stem(x, train=train)
        if self.large_stem:
            padding: Any = ((1, 1), (1, 1))  # the annotation of max_pool says str only
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
        for name in self.block_names:
            x = getattr(self, name)(x, train=train)
        return layers.global_mean(x)


def ResNet18(num_classes: int, **options: Any) -> ResNet:
    """Return a ResNet-18: four stages of two basic blocks.

    11,173,962 parameters for 10 classes with the CIFAR stem, 11,689,512 for 1,000
    classes with the ImageNet stem.

    Args:
      num_classes: K.
      **options: `width`, `in_channels`, `stem`, `dtype`, `convolution` and `rngs`, as
        in `ResNet`.

    >>> def logits(x):
    ...     return ResNet18(10, rngs=nnx.Rngs(0))(x, train=False)
    >>> nnx.eval_shape(logits, jnp.ones((2, 32, 32, 3)))
    ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """
    return ResNet(num_classes, stage_sizes=(2, 2, 2, 2), **options)
