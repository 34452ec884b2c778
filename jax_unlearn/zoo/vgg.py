"""VGG-16 with BatchNorm (Simonyan & Zisserman, arXiv 1409.1556)."""

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
    halve,
)

Array = jax.Array

STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))
"""(number of convolutions, channels in units of the width) of each stage."""


class VGG16(nnx.Module):
    """Thirteen 3x3 convolutions with bias, BatchNorm and ReLU, one linear classifier.

    Each of the five stages ends in 2x2 max-pooling; what is left (1x1 for 32x32
    images) is averaged. This is the CIFAR form, with one linear layer where the
    original has three: 14,728,266 parameters for 10 classes.

    Args:
      num_classes: K.
      width: channels of the first stage; 64 in the paper.
      in_channels: channels of the images.
      dtype: compute dtype, e.g. `jnp.bfloat16`; parameters and logits are float32.
      convolution: what convolves; `ju.zoo.in_parts` is the fast one on CPUs.
      rngs: random streams.

    Examples:
      >>> def logits(x):
      ...     return VGG16(10, rngs=nnx.Rngs(0))(x, train=False)
      >>> jax.eval_shape(logits, jnp.ones((2, 32, 32, 3)))
      ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: int = 64,
        in_channels: int = 3,
        dtype: Any = jnp.float32,
        convolution: Convolution = XLA,
        rngs: nnx.Rngs,
    ):
        self.in_channels = in_channels
        features = in_channels
        for stage, (size, multiple) in enumerate(STAGES):
            for index in range(size):
                block = ConvNorm(
                    features,
                    width * multiple,
                    use_bias=True,
                    dtype=dtype,
                    convolution=convolution,
                    rngs=rngs,
                )
                setattr(self, f"stage{stage + 1}_conv{index + 1}", block)
                features = width * multiple
        self.head = classifier(features, num_classes, rngs=rngs)

    def features(self, x: Array, *, train: bool) -> Array:
        """Return penultimate features `f32[B, 8 width]` of images `x [B, H, W, C]`.

        Raises:
          InputError: if a side of the images is below 32.
        """
        check_images(x, self.in_channels, least=2 ** len(STAGES))
        for stage, (size, _) in enumerate(STAGES):
            for index in range(size):
                x = getattr(self, f"stage{stage + 1}_conv{index + 1}")(x, train=train)
            x = halve(x)
        return global_mean(x)

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return logits `f32[B, K]` of images `x [B, H, W, C]`."""
        return self.head(self.features(x, train=train))
