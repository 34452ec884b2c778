"""A small classifier trained in seconds: fixed whitening of patches, then three groups.

Shapes: n images of H x W pixels and C channels, patches of s x s pixels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_unlearn._validate import positive
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, ModelState
from jax_unlearn.zoo import layers
from jax_unlearn.zoo.classifiers import ConvClassifier

__all__ = ["WhitenedCNN", "dirac", "whitened", "whitening"]

SIZE = 2  # sides of the patches
SCALE = 9  # of the logits: they are divided by it


def whitening(images: Array, *, size: int = SIZE, epsilon: float = 5e-4) -> Array:
    r"""Return the kernel that whitens patches, and its negative: `f32[s, s, C, 2s²C]`.

    .. math::
        w_i = e_i / \sqrt{\lambda_i + \epsilon}, \quad w_{i + s^2 C} = -w_i

    of the eigenvectors of E[p pᵀ], p the patches, by rising eigenvalue. Of the images
    of the retain set alone: a kernel that saw the forget set would carry it into
    Retrain.

    Args:
      images: as the network sees them, normalised floats `[n, H, W, C]`; 5,000 do.
      size: s, sides of a patch.
      epsilon: ε > 0, for directions in which patches do not vary.

    Raises:
      InputError: no batch of images, images smaller than a patch, or ε not positive.

    Reference: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv
    2404.00498, section 3.2.

    >>> images = jnp.array([[1.0, 3.0], [1.0, -3.0]]).reshape(2, 1, 2, 1)
    >>> kernel = whitening(images, size=1, epsilon=1e-9)  # E[p²] = 5
    >>> print(jnp.abs(kernel.ravel() * 5**0.5))
    [1. 1.]
    """
    positive("epsilon", epsilon, "try 5e-4")
    images = jnp.asarray(images)
    layers.check_images(images, images.shape[-1] if images.ndim else 0, least=size)
    high, wide = (side - size + 1 for side in images.shape[1:3])
    shifts = [(down, right) for down in range(size) for right in range(size)]
    patches = jnp.concatenate(
        [images[:, y : y + high, x : x + wide] for y, x in shifts], axis=-1
    ).reshape(-1, len(shifts) * images.shape[-1])
    exact = jax.lax.Precision.HIGHEST  # accelerators round the factors otherwise
    second = jnp.matmul(patches.T, patches, precision=exact) / len(patches)
    values, vectors = jnp.linalg.eigh(second)
    kernel = vectors / jnp.sqrt(jnp.maximum(values, 0) + epsilon)[None]
    kernel = kernel.reshape(size, size, images.shape[-1], -1)
    return jnp.concatenate([kernel, -kernel], axis=-1)


def whitened(model_state: ModelState, kernel: Array) -> ModelState:
    """Return the state of a `WhitenedCNN`, or of S stacked ones, with a kernel in it.

    Raises:
      InputError: a state of another network, or a kernel of another shape.

    >>> state = whitened(
    ...     {"whitening": jnp.zeros((5, 1, 1, 1, 2))}, jnp.ones((1, 1, 1, 2))
    ... )
    >>> state["whitening"].shape, float(state["whitening"].sum())
    ((5, 1, 1, 1, 2), 10.0)
    """
    old = model_state.get("whitening") if isinstance(model_state, dict) else None
    if old is None or kernel.shape[-4:] != old.shape[-4:]:
        wanted = None if old is None else old.shape[-4:]
        raise InputError(
            f"kernel of shape {kernel.shape} for a state whose kernel is {wanted}; "
            "give the state of a WhitenedCNN, and ju.zoo.whitening of its images"
        )
    return {**model_state, "whitening": jnp.broadcast_to(kernel, old.shape)}


def dirac(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Return a kernel that passes the channels in on, further ones out uniform."""
    height, width, inside, outside = shape
    same = jnp.eye(inside, min(inside, outside), dtype=dtype)
    kernel = layers.linear_uniform(key, shape, dtype)
    kernel = kernel.at[..., : same.shape[1]].set(0)
    return kernel.at[height // 2, width // 2, :, : same.shape[1]].set(same)


class Group(nnx.Module):
    """Convolution, 2x2 max-pooling, BatchNorm, GELU; convolution, BatchNorm, GELU."""

    def __init__(self, in_features: int, out_features: int, *, dtype: Any, **options):
        rngs, self.dtype = options["rngs"], dtype
        shared: dict[str, Any] = dict(init=dirac, dtype=dtype, **options)
        self.conv1 = layers.conv(in_features, out_features, **shared)
        self.conv2 = layers.conv(out_features, out_features, **shared)
        norm: dict[str, Any] = {"momentum": 0.6, "use_scale": False, "rngs": rngs}
        norm["dtype"] = jnp.float32
        self.norm1 = nnx.BatchNorm(out_features, **norm)
        self.norm2 = nnx.BatchNorm(out_features, **norm)

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return `[B, H // 2, W // 2, out_features]` of `x [B, H, W, in_features]`."""
        frozen: dict[str, Any] = {"use_running_average": not train}
        x = self.norm1(layers.halve(self.conv1(x)), **frozen).astype(self.dtype)
        x = self.norm2(self.conv2(nnx.gelu(x)), **frozen).astype(self.dtype)
        return nnx.gelu(x)


class WhitenedCNN(ConvClassifier):
    """Whitened 2x2 patches, three groups of two 3x3 convolutions, maximum, linear.

    The kernel of the first layer is not a parameter but part of the model state, so
    that no method moves, masks or resets it: `whitened(state, whitening(images))` puts
    one there that is made of retain images. Until then it passes the patches through.

    Args:
      num_classes: K.
      widths: channels of the three groups.
      in_channels, dtype, convolution, rngs: as in `SmallCNN`; images have sides of 9
        or more.

    Reference: Jordan, arXiv 2404.00498; trained by `ju.speed.whitened`.

    >>> def logits(x):
    ...     return WhitenedCNN(10, rngs=nnx.Rngs(0))(x, train=False)
    >>> nnx.eval_shape(logits, jnp.ones((2, 32, 32, 3)))
    ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """

    least = 9

    def __init__(
        self,
        num_classes: int,
        *,
        widths: Sequence[int] = (64, 256, 256),
        in_channels: int = 3,
        dtype: Any = jnp.float32,
        convolution: layers.Convolution = layers.XLA,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, convolution=convolution, rngs=rngs)
        values = SIZE * SIZE * in_channels
        same = jnp.eye(values).reshape(SIZE, SIZE, in_channels, values)
        self.whitening = nnx.BatchStat(jnp.concatenate([same, -same], axis=-1))
        self.whitening_bias = nnx.Param(jnp.zeros(2 * values))
        self.in_channels, self.dtype, self.convolve = in_channels, dtype, convolution
        features, steps = 2 * values, ["whiten"]
        for number, width in enumerate(widths, 1):
            steps.append(f"group{number}")
            setattr(self, steps[-1], Group(features, width, **options))
            features = width
        self.steps = tuple(steps)
        self.head = layers.linear(features, num_classes, use_bias=False, rngs=rngs)

    def whiten(self, x: Array, *, train: bool) -> Array:
        """Return `[B, H − 1, W − 1, 8C]`: GELU of the whitened patches plus a bias."""
        del train
        kernel, bias = self.whitening[...], self.whitening_bias[...]
        axes = ("NHWC", "HWIO", "NHWC")
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        x = self.convolve(x, kernel, (1, 1), [(0, 0), (0, 0)], dimension_numbers=axes)
        return nnx.gelu(x + bias.astype(self.dtype)[None, None, None])

    def features(self, x: Array, *, train: bool) -> Array:
        """Return the maximum over the image axes `f32[B, C]` of `x [B, H, W, C]`."""
        return jnp.max(self.maps(x, train=train), axis=(1, 2)).astype(jnp.float32)

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return logits `f32[B, K]` of images `x [B, H, W, C]`."""
        return super().__call__(x, train=train) / SCALE
