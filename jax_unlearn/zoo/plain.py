"""Networks without shortcuts: SmallCNN, VGG-16 and a multi-layer perceptron."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array
from jax_unlearn.zoo import layers

__all__ = ["MLP", "VGG16", "SmallCNN"]

STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))
"""Of VGG-16: (number of convolutions, channels in units of the width) of each stage."""


class SmallCNN(layers.Classifier):
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
      convolution: what convolves; `ju.zoo.in_parts` is the fast one on CPUs.
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
        block = functools.partial(
            layers.ConvNorm,
            use_norm=batch_norm,
            dtype=dtype,
            convolution=convolution,
            rngs=rngs,
        )
        self.in_channels = in_channels
        self.block1 = block(in_channels, width)
        self.block2 = block(width, 2 * width, stride=2)
        self.block3 = block(2 * width, 4 * width, stride=2)
        self.head = layers.classifier(4 * width, num_classes, rngs=rngs)

    def features(self, x: Array, *, train: bool) -> Array:
        """Return penultimate features `f32[B, 4 width]` of `x [B, H, W, C]`."""
        layers.check_images(x, self.in_channels)
        x = self.block1(x, train=train)
        x = self.block2(x, train=train)
        return layers.global_mean(self.block3(x, train=train))


class VGG16(layers.Classifier):
    """Thirteen 3x3 convolutions with bias, BatchNorm and ReLU, one linear classifier.

    Each of the five stages ends in 2x2 max-pooling; what is left (1x1 for 32x32
    images) is averaged. This is the CIFAR form, with one linear layer where the
    original (Simonyan & Zisserman, arXiv 1409.1556) has three: 14,728,266 parameters
    for 10 classes.

    Args:
      num_classes: K.
      width: channels of the first stage; 64 in the paper.
      in_channels: channels of the images.
      dtype: compute dtype, e.g. `jnp.bfloat16`; parameters and logits are float32.
      convolution: what convolves; `ju.zoo.in_parts` is the fast one on CPUs.
      rngs: random streams.

    >>> def logits(x):
    ...     return VGG16(10, rngs=nnx.Rngs(0))(x, train=False)
    >>> nnx.eval_shape(logits, jnp.ones((2, 32, 32, 3)))
    ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """

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
        block = functools.partial(
            layers.ConvNorm,
            use_bias=True,
            dtype=dtype,
            convolution=convolution,
            rngs=rngs,
        )
        self.in_channels = in_channels
        features = in_channels
        for stage, (size, multiple) in enumerate(STAGES):
            for index in range(size):
                name = f"stage{stage + 1}_conv{index + 1}"
                setattr(self, name, block(features, width * multiple))
                features = width * multiple
        self.head = layers.classifier(features, num_classes, rngs=rngs)

    def features(self, x: Array, *, train: bool) -> Array:
        """Return penultimate features `f32[B, 8 width]` of images `x [B, H, W, C]`.

        Raises:
          InputError: if a side of the images is below 32.
        """
        layers.check_images(x, self.in_channels, least=2 ** len(STAGES))
        for stage, (size, _) in enumerate(STAGES):
            for index in range(size):
                x = getattr(self, f"stage{stage + 1}_conv{index + 1}")(x, train=train)
            x = layers.halve(x)
        return layers.global_mean(x)


class MLP(layers.Classifier):
    """Linear layers with ReLU, then a linear classifier; no BatchNorm, no dropout.

    Args:
      num_classes: K.
      in_features: D, number of values of a sample, e.g. 64 for 8x8 grey images.
      hidden: widths of the hidden layers; `()` is logistic regression.
      dtype: compute dtype, e.g. `jnp.bfloat16`; parameters and logits are float32.
      rngs: random streams.

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
