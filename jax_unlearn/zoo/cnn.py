"""A small convolutional network for digits and first tries on a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_unlearn.zoo.layers import (
    XLA,
    ConvNorm,
    Convolution,
    check_images,
    classifier,
    global_mean,
)

Array = jax.Array


class SmallCNN(nnx.Module):
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

    Examples:
      >>> def logits(x):
      ...     return SmallCNN(10, rngs=nnx.Rngs(0))(x, train=False)
      >>> jax.eval_shape(logits, jnp.ones((2, 8, 8, 1)))
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
        convolution: Convolution = XLA,
        rngs: nnx.Rngs,
    ):
        def block(inner: int, outer: int, stride: int) -> ConvNorm:
            return ConvNorm(
                inner,
                outer,
                stride=stride,
                use_norm=batch_norm,
                dtype=dtype,
                convolution=convolution,
                rngs=rngs,
            )

        self.in_channels = in_channels
        self.block1 = block(in_channels, width, 1)
        self.block2 = block(width, 2 * width, 2)
        self.block3 = block(2 * width, 4 * width, 2)
        self.head = classifier(4 * width, num_classes, rngs=rngs)

    def features(self, x: Array, *, train: bool) -> Array:
        """Return penultimate features `f32[B, 4 width]` of `x [B, H, W, C]`."""
        check_images(x, self.in_channels)
        x = self.block1(x, train=train)
        x = self.block2(x, train=train)
        return global_mean(self.block3(x, train=train))

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return logits `f32[B, K]` of `x [B, H, W, C]`."""
        return self.head(self.features(x, train=train))
