"""Inception v3 as the standard FID has it: a table of its layers, and a forward pass.

It is that of pytorch-fid: mean pooling leaves out what lies beyond the border, and the
last block pools the maximum.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Conv(NamedTuple):
    """Convolution, batch normalisation and ReLU.

    Attributes:
      name: of the layer within its block.
      features: channels out.
      kernel: height and width.
      stride: 1 or 2.
      padding: "SAME" or "VALID".
    """

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


class Pool(NamedTuple):
    """3 × 3 pooling; the mean leaves out what lies beyond the border.

    Attributes:
      kind: "mean" or "max".
      stride: 1 (same size) or 2 (no padding).
    """

    kind: str
    stride: int = 1


class Fork(NamedTuple):
    """Branches from one input, joined along the channels.

    Attributes:
      branches: each a sequence of layers.
    """

    branches: tuple[tuple[Any, ...], ...]


TALL, WIDE, SQUARE = (7, 1), (1, 7), (3, 3)


def _first(pool: int) -> Fork:
    return Fork(
        (
            (Conv("branch1x1", 64),),
            (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
            (
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, SQUARE),
                Conv("branch3x3dbl_3", 96, SQUARE),
            ),
            (Pool("mean"), Conv("branch_pool", pool)),
        )
    )


def _factored(width: int) -> Fork:
    return Fork(
        (
            (Conv("branch1x1", 192),),
            (
                Conv("branch7x7_1", width),
                Conv("branch7x7_2", width, WIDE),
                Conv("branch7x7_3", 192, TALL),
            ),
            (
                Conv("branch7x7dbl_1", width),
                Conv("branch7x7dbl_2", width, TALL),
                Conv("branch7x7dbl_3", width, WIDE),
                Conv("branch7x7dbl_4", width, TALL),
                Conv("branch7x7dbl_5", 192, WIDE),
            ),
            (Pool("mean"), Conv("branch_pool", 192)),
        )
    )


def _spread(name: str, parts: tuple[str, str]) -> Fork:
    first, second = (f"{name}{part}" for part in parts)
    return Fork(((Conv(first, 384, (1, 3)),), (Conv(second, 384, (3, 1)),)))


def _last(pool: str) -> Fork:
    return Fork(
        (
            (Conv("branch1x1", 320),),
            (Conv("branch3x3_1", 384), _spread("branch3x3_2", ("a", "b"))),
            (
                Conv("branch3x3dbl_1", 448),
                Conv("branch3x3dbl_2", 384, SQUARE),
                _spread("branch3x3dbl_3", ("a", "b")),
            ),
            (Pool(pool), Conv("branch_pool", 192)),
        )
    )


NETWORK: dict[str, Any] = {
    "Conv2d_1a_3x3": Conv("", 32, SQUARE, 2, "VALID"),
    "Conv2d_2a_3x3": Conv("", 32, SQUARE, 1, "VALID"),
    "Conv2d_2b_3x3": Conv("", 64, SQUARE),
    "maxpool1": Pool("max", 2),
    "Conv2d_3b_1x1": Conv("", 80),
    "Conv2d_4a_3x3": Conv("", 192, SQUARE, 1, "VALID"),
    "maxpool2": Pool("max", 2),
    "Mixed_5b": _first(32),
    "Mixed_5c": _first(64),
    "Mixed_5d": _first(64),
    "Mixed_6a": Fork(
        (
            (Conv("branch3x3", 384, SQUARE, 2, "VALID"),),
            (
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, SQUARE),
                Conv("branch3x3dbl_3", 96, SQUARE, 2, "VALID"),
            ),
            (Pool("max", 2),),
        )
    ),
    "Mixed_6b": _factored(128),
    "Mixed_6c": _factored(160),
    "Mixed_6d": _factored(160),
    "Mixed_6e": _factored(192),
    "Mixed_7a": Fork(
        (
            (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, SQUARE, 2, "VALID")),
            (
                Conv("branch7x7x3_1", 192),
                Conv("branch7x7x3_2", 192, WIDE),
                Conv("branch7x7x3_3", 192, TALL),
                Conv("branch7x7x3_4", 192, SQUARE, 2, "VALID"),
            ),
            (Pool("max", 2),),
        )
    ),
    "Mixed_7b": _last("mean"),
    "Mixed_7c": _last("max"),
}
"""Layers in their order, by the prefix of their names."""

Weights = dict[str, tuple[Array, Array]]  # kernel HWIO, bias; normalisation folded in


def inception(weights: Weights, x: Array) -> Array:
    """Return the last block's features at each place.

    Args:
      weights: kernel and bias by name of the convolution.
      x: `f32[B, H, W, 3]` in [−1, 1], H and W at least 75.

    Returns:
      `f32[B, h, w, 2048]`; 8 × 8 places of 299 × 299.

    Reference: Szegedy et al., arXiv 1512.00567; the variant is that of pytorch-fid.

    >>> weights = {
    ...     name: (jnp.zeros((*layer.kernel, channels, layer.features)), jnp.ones(()))
    ...     for name, layer, channels in convolutions()
    ... }
    >>> jax.eval_shape(inception, weights, jnp.zeros((1, 299, 299, 3))).shape
    (1, 8, 8, 2048)
    """
    for prefix, layer in NETWORK.items():
        x = _apply(layer, prefix, weights, x)
    return x


def inception_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of each array that the network needs, in the layout of torch.

    >>> inception_shapes()["Mixed_5b.branch1x1.conv.weight"]  # out, in, height, width
    (64, 192, 1, 1)
    """
    return {
        name: shape
        for layer in convolutions()
        for name, shape in array_shapes(*layer).items()
    }


def convolutions() -> list[tuple[str, Conv, int]]:
    """Return name, layer and channels in of each convolution, in their order.

    >>> convolutions()[0][0], len(convolutions())
    ('Conv2d_1a_3x3', 94)
    """
    found: list[tuple[str, Conv, int]] = []

    def walk(layer: Any, prefix: str, channels: int) -> int:
        if isinstance(layer, Pool):
            return channels
        if isinstance(layer, Conv):
            found.append((_name(prefix, layer), layer, channels))
            return layer.features
        total = 0
        for branch in layer.branches:
            width = channels
            for part in branch:
                width = walk(part, prefix, width)
            total += width
        return total

    channels = 3
    for prefix, layer in NETWORK.items():
        channels = walk(layer, prefix, channels)
    return found


def _name(prefix: str, layer: Conv) -> str:
    return f"{prefix}.{layer.name}" if layer.name else prefix


def array_shapes(at: str, layer: Conv, channels: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a convolution's arrays: kernel, γ, β, μ, σ².

    >>> list(array_shapes("a", Conv("", 2), 3).values())
    [(2, 3, 1, 1), (2,), (2,), (2,), (2,)]
    """
    norm = ("weight", "bias", "running_mean", "running_var")
    return {f"{at}.conv.weight": (layer.features, channels, *layer.kernel)} | {
        f"{at}.bn.{name}": (layer.features,) for name in norm
    }


def _apply(layer: Any, prefix: str, weights: Weights, x: Array) -> Array:
    if isinstance(layer, Pool):
        return _pool(layer, x)
    if isinstance(layer, Fork):
        joined = []
        for branch in layer.branches:
            y = x
            for part in branch:
                y = _apply(part, prefix, weights, y)
            joined.append(y)
        return jnp.concatenate(joined, axis=-1)
    kernel, bias = weights[_name(prefix, layer)]
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (layer.stride, layer.stride),
        layer.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jax.nn.relu(y + bias.reshape(1, 1, 1, -1))


def _pool(layer: Pool, x: Array) -> Array:
    window, strides = (1, 3, 3, 1), (1, layer.stride, layer.stride, 1)
    padding = "SAME" if layer.stride == 1 else "VALID"
    if layer.kind == "max":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)

    def add(values: Array) -> Array:
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, window, strides, padding)

    return add(x) / add(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
