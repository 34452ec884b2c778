"""A convolution for CPUs: the same sums in an order that XLA's compiler does fast.

Two things are slow on CPUs (jaxlib 0.10): the gradient of a kernel over many large
images, which is one matrix product of a long inner dimension, and images smaller than
the kernel, which no fast routine takes: `in_parts` helps both. `ju.programs` says where
the networks here take it. Accelerators have no such trouble.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jax_unlearn import programs

__all__ = ["PIXELS", "convolve", "in_parts"]

Array = jax.Array

PIXELS = 4096
"""Pixels of the images of a part: a few of 32 x 32, many of 8 x 8."""


def convolve(
    x: Array, kernel: Array, strides: Any, padding: Any, **options: Any
) -> Array:
    """Return XLA's convolution; a wide one `in_parts` where `ju.programs` says so."""
    parts = programs.in_parts() and _is_wide(x, kernel, strides) and _is_plain(options)
    way = in_parts if parts else jax.lax.conv_general_dilated
    return way(x, kernel, strides, padding, **options)


def _is_wide(x: Array, kernel: Array, strides: Any) -> bool:
    """Return whether the rule of `programs` takes it for wide."""
    samples, *sides, channels = x.shape
    products = math.prod(sides) * math.prod(kernel.shape) // math.prod(strides)
    return products * samples // max(samples, channels) >= programs.LEAST


def _is_plain(options: dict[str, Any]) -> bool:
    dilations = (options.get(f"{side}_dilation") or (1,) for side in ("lhs", "rhs"))
    groups = options.get("feature_group_count", 1)
    return groups == 1 and all(set(each) == {1} for each in dilations)


def in_parts(
    x: Array, kernel: Array, strides: Any, padding: Any, **options: Any
) -> Array:
    """Return the convolution, its kernel's gradient summed over parts of the batch.

    Takes the place of `jax.lax.conv_general_dilated` in `nnx.Conv` and in the networks
    here (`convolution=ju.zoo.in_parts`), for NHWC images without dilation or groups.
    Forward pass and gradient of the images are XLA's, unless the images are smaller
    than the kernel: then the convolution is a product with the patches. Differs from
    XLA's by rounding only; can be differentiated again, forward and in reverse.

    Of images `[B, H, W, C]` and a kernel `[h, w, C, D]` it is `[B, H', W', D]`; strides
    and padding (before, after) are those of the two image axes.

    Source: our choice.

    >>> x, kernel = jnp.ones((2, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    >>> axes = ("NHWC", "HWIO", "NHWC")
    >>> pad = [(1, 1), (1, 1)]
    >>> y = in_parts(x, kernel, (1, 1), pad, dimension_numbers=axes)
    >>> y[0, :, :, 0].tolist()[:2]
    [[4.0, 6.0, 6.0, 4.0], [6.0, 9.0, 9.0, 6.0]]
    """
    if min(x.shape[1:3]) < max(kernel.shape[:2]):
        return _by_patches(x, kernel, strides, padding)

    def plain(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)

    size = max(1, PIXELS // (x.shape[1] * x.shape[2]))
    if x.shape[0] <= size:
        return plain(x, kernel)
    starts = range(0, x.shape[0], size)

    @jax.custom_jvp
    def convolve(x, kernel):
        return plain(x, kernel)

    def tangents(primals, tangents):
        (x, kernel), (dx, dkernel) = primals, tangents
        y = convolve(x, kernel)
        change = jnp.zeros_like(y)
        if not isinstance(dx, SymbolicZero):
            change += plain(dx, kernel)
        if not isinstance(dkernel, SymbolicZero):  # only transposed in reverse mode
            parts = [plain(x[start : start + size], dkernel) for start in starts]
            change += jnp.concatenate(parts)
        return y, change

    convolve.defjvp(tangents, symbolic_zeros=True)
    return convolve(x, kernel)


def _by_patches(x: Array, kernel: Array, strides: Any, padding: Any) -> Array:
    """Return the convolution as one product of all patches with the kernel."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    (height, width), (down, right) = kernel.shape[:2], strides
    last = x.shape[1] - height + 1, x.shape[2] - width + 1
    patches = jnp.concatenate(
        [
            x[:, top : top + last[0] : down, left : left + last[1] : right]
            for top in range(height)
            for left in range(width)
        ],
        axis=-1,
    )
    return patches @ kernel.reshape(-1, kernel.shape[-1])
