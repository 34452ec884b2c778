"""Layers shared by the networks: convolution, normalisation, head, input checks.

Convolutions compute in `dtype`; normalisations, the global mean and the head in
float32, which is also the type of all parameters and statistics. Images are NHWC.
BatchNorm keeps 0.9 of its running statistics a step and adds 1e-5 to the variance, the
settings of the CIFAR literature. Initial values are drawn flat and reshaped: the same
as those of `jax.nn.initializers`, compiled ten times faster on CPUs.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jax_unlearn._validate import at_least
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array
from jax_unlearn.zoo.convolution import convolve

__all__ = ["XLA", "ConvNorm", "Convolution", "attention", "averaged", "batch_norm"]
__all__ += ["check_images", "classifier", "conv", "dropout", "flat_normal"]
__all__ += ["group_norm", "grouped_attention", "halve", "kaiming", "linear"]
__all__ += ["linear_uniform", "normalised"]

Convolution = Callable[..., Array]
"""As `jax.lax.conv_general_dilated`, which it is unless told otherwise."""

XLA: Convolution = convolve


def flat_normal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Return an array from N(0, 1)."""
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def kaiming(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Return a kernel from N(0, 2 / fan_out), fan_out = size · channels out."""
    fan_out = math.prod(shape[:-2]) * shape[-1]  # He et al., arXiv 1502.01852
    return flat_normal(key, shape, dtype) * math.sqrt(2 / fan_out)


def linear_uniform(
    key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:
    """Return a kernel from U(-a, a), a = 1 / sqrt(fan_in), usual for linear maps."""
    bound = 1 / math.sqrt(math.prod(shape[:-1]))
    flat = jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound)
    return flat.reshape(shape)


def linear(
    in_features: int, out_features: int, *, zero: bool = False, **options: Any
) -> nnx.Linear:
    """Return a linear layer with bias, its kernel `linear_uniform` or zero."""
    init = nnx.initializers.zeros if zero else linear_uniform
    options = {"dtype": jnp.float32, "kernel_init": init, **options}
    return nnx.Linear(in_features, out_features, **options)


def conv(
    in_features: int,
    out_features: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    init: Callable[..., Array] = kaiming,
    convolution: Convolution = XLA,
    **options: Any,
) -> nnx.Conv:
    """Return a square convolution, padded by `kernel // 2`, in float32 unless told."""
    return nnx.Conv(
        in_features,
        out_features,
        (kernel, kernel),
        strides=stride,
        kernel_init=init,
        conv_general_dilated=convolution,
        **{"padding": kernel // 2, "use_bias": False, "dtype": jnp.float32, **options},
    )


def batch_norm(features: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Return BatchNorm over all axes but the last, in float32 for every input."""
    return nnx.BatchNorm(
        features, momentum=0.9, epsilon=1e-5, dtype=jnp.float32, rngs=rngs
    )


def group_norm(features: int, groups: int, *, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Return GroupNorm of the largest number of groups that divides the channels."""
    # Alone in its group, a channel would lose the shift by timestep and class.
    most = max(1, min(groups, features // 2))
    count = next(g for g in range(most, 0, -1) if features % g == 0)
    return nnx.GroupNorm(features, num_groups=count, dtype=jnp.float32, rngs=rngs)


def normalised(norm: nnx.GroupNorm, x: Array) -> Array:
    """Normalise in float32 and return the dtype of the input."""
    return norm(x).astype(x.dtype)


def attention(
    query: Array, key: Array, value: Array, *, heads: int, mask: Array | None = None
) -> Array:
    """Return softmax(q kᵀ/√d) v, `[B, L, C]`, of heads of d = C / heads features."""

    def cut(y: Array) -> Array:
        # jax takes the softmax of bfloat16 in float32, and mixes the two in the
        # derivative, which strict promotion forbids
        return y.reshape(*y.shape[:2], heads, -1).astype(jnp.float32)

    y = jax.nn.dot_product_attention(cut(query), cut(key), cut(value), mask=mask)
    return y.reshape(query.shape).astype(query.dtype)


def grouped_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array,
    scale: float,
    cap: float | None = None,
) -> Array:
    """Return softmax(cap·tanh(s q kᵀ / cap)) v, `[B, T, H, d]`, computed in float32.

    Keys and values `[B, S, G, d]` serve H / G heads of queries each; `mask` is
    `bool[B, T, S]`. Without a cap the scores are s q kᵀ.
    """
    batch, length, heads, size = query.shape
    # heads first: XLA's compiler for CPUs does such products, and their gradients, fast
    q, k, v = (jnp.swapaxes(x.astype(jnp.float32), 1, 2) for x in (query, key, value))
    q = q.reshape(batch, k.shape[1], -1, size) * scale
    scores = q @ jnp.swapaxes(k, 2, 3)
    if cap is not None:
        scores = jnp.tanh(scores / cap) * cap
    scores = scores.reshape(batch, k.shape[1], -1, *mask.shape[1:])
    lowest = jnp.finfo(jnp.float32).min  # −inf would make the gradient NaN
    shares = jax.nn.softmax(jnp.where(mask[:, None, None], scores, lowest))
    y = shares.reshape(*q.shape[:3], -1) @ v
    y = y.reshape(batch, heads, length, size)
    return jnp.swapaxes(y, 1, 2).astype(query.dtype)


class ConvNorm(nnx.Module):
    """Convolution, BatchNorm, perhaps ReLU; without BatchNorm a bias, unless told."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_norm: bool = True,
        use_bias: bool | None = None,
        relu: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        bias = not use_norm if use_bias is None else use_bias
        options = {"use_bias": bias, "dtype": dtype, "rngs": rngs, **options}
        self.conv = conv(in_features, out_features, **options)
        self.norm = batch_norm(out_features, rngs=rngs) if use_norm else None
        self.relu, self.dtype = relu, dtype

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return features `[B, H', W', out_features]` of `x [B, H, W, in_features]`."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x, use_running_average=not train).astype(self.dtype)
        return nnx.relu(x) if self.relu else x


def classifier(in_features: int, num_classes: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Return the linear layer from features to logits, always in float32."""
    at_least("num_classes", num_classes, 1, "try 10")
    return linear(in_features, num_classes, rngs=rngs)


def halve(x: Array) -> Array:
    """Return the largest of each 2x2 pixels; an odd last row or column is left out."""
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    # By comparisons: the gradient of a window's largest value is slow on CPUs.
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def averaged(x: Array, size: int) -> Array:
    """Return means `f32[B, size, size, C]` of windows, as even as whole pixels allow.

    Window i of n pixels reaches from ⌊i n / size⌋ to ⌈(i + 1) n / size⌉; those of an
    image with fewer pixels overlap.
    """

    def windows(pixels: int) -> Array:
        index = np.arange(size)[:, None]
        start, end = index * pixels // size, -((index + 1) * pixels // -size)
        inside = (np.arange(pixels) >= start) & (np.arange(pixels) < end)
        return jnp.asarray(inside / (end - start), jnp.float32)

    rows, columns = map(windows, x.shape[1:3])
    exact = jax.lax.Precision.HIGHEST  # accelerators round the factors otherwise
    x = x.astype(jnp.float32)
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns, precision=exact)


def dropout(rate: float, *, rngs: nnx.Rngs, **options: Any) -> Callable[..., Array]:
    """Return dropout, or the identity, which has no random stream, at a rate of 0."""
    if rate == 0:
        return _identity
    return nnx.Dropout(rate, rngs=rngs, **options)


def _identity(x: Array, *, deterministic: bool) -> Array:
    del deterministic
    return x


def check_images(x: Array, channels: int, *, least: int = 1) -> None:
    """Refuse all but floating images `[B, H, W, channels]`, with sides of `least`."""
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
