"""Bricks shared by the networks: convolution with BatchNorm, head, input checks.

Convolutions compute in `dtype`; BatchNorm, the global mean and the head in float32,
which is also the type of all parameters and statistics. Images are NHWC. BatchNorm
keeps 0.9 of its running statistics a step and adds 1e-5 to the variance, the settings
of the CIFAR literature.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_unlearn.errors import InputError

Array = jax.Array
Convolution = Callable[..., Array]
"""As `jax.lax.conv_general_dilated`, which it is unless told otherwise."""

XLA: Convolution = jax.lax.conv_general_dilated


def kaiming(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Return a kernel from N(0, 2 / fan_out), fan_out = size · channels out.

    Drawn flat and reshaped: the same values as
    `variance_scaling(2.0, "fan_out", "normal")`, compiled ten times faster on CPUs.
    Source: He et al., arXiv 1502.01852.

    Args:
      key: random key.
      shape: (height, width, channels in, channels out), or (in, out).
      dtype: floating type.

    Returns:
      `dtype[shape]`.

    Examples:
      >>> kaiming(jax.random.key(0), (3, 3, 4, 8)).shape
      (3, 3, 4, 8)
    """
    fan_out = math.prod(shape[:-2]) * shape[-1]
    flat = jax.random.normal(key, (math.prod(shape),), dtype)
    return (flat * math.sqrt(2 / fan_out)).reshape(shape)


def linear_uniform(
    key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:
    """Return a linear kernel from U(-a, a), a = 1 / sqrt(fan_in), as is usual.

    Args:
      key: random key.
      shape: (in, out).
      dtype: floating type.

    Returns:
      `dtype[shape]`.

    Examples:
      >>> kernel = linear_uniform(jax.random.key(0), (4, 100))
      >>> bool(jnp.abs(kernel).max() <= 0.5)
      True
    """
    bound = 1 / math.sqrt(math.prod(shape[:-1]))
    flat = jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound)
    return flat.reshape(shape)


def conv(
    in_features: int,
    out_features: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    use_bias: bool = False,
    dtype: Any = jnp.float32,
    convolution: Convolution = XLA,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Return a square convolution padded by `kernel // 2` on all sides.

    Args:
      in_features: channels of the input.
      out_features: channels of the output.
      kernel: side of the kernel, odd.
      stride: both strides.
      use_bias: whether to add a bias (zero at first).
      dtype: compute dtype.
      convolution: what convolves; `in_parts` is the fast one on CPUs.
      rngs: random streams.

    Returns:
      `nnx.Conv`, `[B, H, W, in] -> [B, ceil(H / stride), ceil(W / stride), out]`.

    Examples:
      >>> def layer(x):
      ...     return conv(3, 8, stride=2, rngs=nnx.Rngs(0))(x)
      >>> jax.eval_shape(layer, jnp.ones((2, 7, 8, 3))).shape
      (2, 4, 4, 8)
    """
    pad = (kernel // 2, kernel // 2)
    return nnx.Conv(
        in_features,
        out_features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=(pad, pad),
        use_bias=use_bias,
        kernel_init=kaiming,
        dtype=dtype,
        conv_general_dilated=convolution,
        rngs=rngs,
    )


def batch_norm(features: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Return BatchNorm over all axes but the last, in float32 for every input.

    Args:
      features: number of channels.
      rngs: random streams.

    Returns:
      `nnx.BatchNorm`, to be called with `use_running_average=not train`.

    Examples:
      >>> layer = batch_norm(2, rngs=nnx.Rngs(0))
      >>> x = jnp.array([[1.0, 5.0], [3.0, 5.0]])
      >>> layer(x, use_running_average=False).round(3).tolist()
      [[-1.0, 0.0], [1.0, 0.0]]
    """
    return nnx.BatchNorm(
        features, momentum=0.9, epsilon=1e-5, dtype=jnp.float32, rngs=rngs
    )


class ConvNorm(nnx.Module):
    """Convolution, BatchNorm (or a bias without it), and perhaps ReLU.

    Args:
      in_features, out_features: numbers of channels.
      kernel, stride: of the convolution.
      use_norm: whether BatchNorm follows.
      use_bias: whether the convolution has a bias; None for "without BatchNorm only".
      relu: whether ReLU follows.
      dtype: compute dtype.
      convolution: as in `conv`.
      rngs: random streams.

    Examples:
      >>> def layer(x):
      ...     return ConvNorm(1, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(x, train=True)
      >>> jax.eval_shape(layer, jnp.ones((2, 8, 8, 1)))
      ShapeDtypeStruct(shape=(2, 8, 8, 4), dtype=bfloat16)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        use_norm: bool = True,
        use_bias: bool | None = None,
        relu: bool = True,
        dtype: Any = jnp.float32,
        convolution: Convolution = XLA,
        rngs: nnx.Rngs,
    ):
        self.conv = conv(
            in_features,
            out_features,
            kernel=kernel,
            stride=stride,
            use_bias=not use_norm if use_bias is None else use_bias,
            dtype=dtype,
            convolution=convolution,
            rngs=rngs,
        )
        self.norm = batch_norm(out_features, rngs=rngs) if use_norm else None
        self.relu = relu
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return features `[B, H', W', out_features]` of `x [B, H, W, in_features]`."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x, use_running_average=not train).astype(self.dtype)
        return nnx.relu(x) if self.relu else x


def classifier(in_features: int, num_classes: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Return the linear layer from features to logits, always in float32.

    Args:
      in_features: D, number of features.
      num_classes: K, number of classes, at least 1.
      rngs: random streams.

    Returns:
      `nnx.Linear`, `f32[B, D] -> f32[B, K]`.

    Raises:
      InputError: if `num_classes` is below 1.

    Examples:
      >>> classifier(4, 0, rngs=nnx.Rngs(0))
      Traceback (most recent call last):
      jax_unlearn.errors.InputError: num_classes=0 must be at least 1; try 10
    """
    if num_classes < 1:
        raise InputError(f"num_classes={num_classes} must be at least 1; try 10")
    return nnx.Linear(
        in_features,
        num_classes,
        kernel_init=linear_uniform,
        dtype=jnp.float32,
        rngs=rngs,
    )


def halve(x: Array) -> Array:
    """Return the largest of each 2x2 pixels; an odd last row or column is left out.

    As max-pooling of stride 2, by two comparisons: the gradient of a window's largest
    value is slow on CPUs.

    Args:
      x: `[B, H, W, C]`.

    Returns:
      `[B, H // 2, W // 2, C]`.

    Examples:
      >>> halve(jnp.arange(9.0).reshape(1, 3, 3, 1)).tolist()
      [[[[4.0]]]]
    """
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def global_mean(x: Array) -> Array:
    """Return the mean over the two image axes in float32.

    Args:
      x: `[B, H, W, C]`, H and W at least 1.

    Returns:
      `f32[B, C]`.

    Examples:
      >>> global_mean(jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
      [[1.5]]
    """
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def check_images(x: Array, channels: int, *, least: int = 1) -> None:
    """Refuse what is no batch of floating images with this number of channels.

    Args:
      x: `[B, H, W, channels]`.
      channels: expected number of channels.
      least: smallest side that the network takes.

    Raises:
      InputError: on another rank, number of channels, size, or an integer dtype.

    Examples:
      >>> check_images(jnp.ones((2, 8, 8, 1)), 3)
      Traceback (most recent call last):
      jax_unlearn.errors.InputError: x.shape=(2, 8, 8, 1) must be [B, H, W, 3]; \
pass NHWC images or set in_channels
    """
    if x.ndim != 4 or x.shape[-1] != channels:
        raise InputError(
            f"x.shape={x.shape} must be [B, H, W, {channels}]; "
            "pass NHWC images or set in_channels"
        )
    if min(x.shape[1:3]) < least:
        raise InputError(
            f"x.shape={x.shape} is too small, sides must be at least {least}; "
            "pad or enlarge the images, or take SmallCNN"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"x.dtype={x.dtype} must be floating; "
            "scale first, e.g. x.astype(jnp.float32) / 255"
        )
