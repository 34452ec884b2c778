"""Classifiers: SmallCNN, VGG-16 and a multi-layer perceptron."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array
from jax_unlearn.zoo import layers

__all__ = ["MLP", "VGG16", "SmallCNN"]

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

    def maps(self, x: Array, *, train: bool) -> Array:
        """Return feature maps `[B, H', W', D]` of images `x [B, H, W, C]`."""
        layers.check_images(x, self.in_channels, least=self.least)
        for step in self.steps:
            x = step(x) if callable(step) else getattr(self, step)(x, train=train)
        return x

    def features(self, x: Array, *, train: bool) -> Array:
        """Return penultimate features `f32[B, D]` of images `x [B, H, W, C]`."""
        return jnp.mean(self.maps(x, train=train), axis=(1, 2), dtype=jnp.float32)


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
    three: 14,728,266 parameters for 10 classes. `hidden=(4096, 4096), pool=7` is the
    original head: 138,365,992 for 1,000 classes. Weights of PyTorch fit both:
    `ju.zoo.from_torch`.

    Args:
      width: channels of the first stage; 64 in the paper.
      hidden: widths of linear layers with ReLU before the classifier.
      pool: sides of what the feature maps are averaged to, whatever their size; its
        pixels follow each other in the features.
      dropout: share of each hidden layer's features dropped in training; 0.5 in the
        paper.
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
        hidden: Sequence[int] = (),
        pool: int = 1,
        dropout: float = 0.0,
        in_channels: int = 3,
        dtype: Any = jnp.float32,
        convolution: layers.Convolution = layers.XLA,
        rngs: nnx.Rngs,
    ):
        shared: dict[str, Any] = dict(dtype=dtype, convolution=convolution, rngs=rngs)
        _validate.at_least("pool", pool, 1, "try 7")
        _validate.share("dropout", dropout, "try 0.5")
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
        self.pool, self.depth = pool, len(hidden)
        features *= pool**2
        dense = functools.partial(layers.linear, dtype=dtype, rngs=rngs)
        for index, size in enumerate(hidden, 1):
            layer = dense(features, size, kernel_init=layers.kaiming)
            setattr(self, f"hidden{index}", layer)
            features = size
        self.dropout = layers.dropout(dropout, rngs=rngs)
        self.head = layers.classifier(features, num_classes, rngs=rngs)

    def features(self, x: Array, *, train: bool) -> Array:
        """Return penultimate features `f32[B, D]` of images `x [B, H, W, C]`."""
        if self.pool == 1:
            x = super().features(x, train=train)
        else:
            x = layers.averaged(self.maps(x, train=train), self.pool)
            x = x.reshape(x.shape[0], -1)
        for index in range(1, self.depth + 1):
            x = nnx.relu(getattr(self, f"hidden{index}")(x))
            x = self.dropout(x, deterministic=not train)
        return x.astype(jnp.float32)


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
