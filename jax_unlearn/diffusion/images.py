"""Pixels and the range in which diffusion models work."""

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.types import Array


def to_model_range(images: Array) -> Array:
    """Return bytes as floats x/127.5 − 1; floats are taken to lie in [−1, 1] already.

    Args:
      images: `[B, H, W, C]`.

    >>> to_model_range(jnp.array([0, 255], jnp.uint8)).tolist()
    [-1.0, 1.0]
    """
    pixels = jnp.asarray(images).astype(jnp.float32)
    return pixels / 127.5 - 1.0 if images.dtype == jnp.uint8 else pixels


def to_pixels(images: ArrayLike) -> np.ndarray:
    """Return images of [−1, 1] as bytes `u8[N, H, W, C]`; what lies outside is clipped.

    Args:
      images: `[N, H, W, C]`.

    >>> to_pixels(np.array([-1.0, 0.0, 3.0])).tolist()
    [0, 128, 255]
    """
    scaled = (np.asarray(images, np.float32) + 1.0) * 127.5
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)
