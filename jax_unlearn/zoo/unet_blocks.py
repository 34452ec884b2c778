"""The parts of the UNet: embedding of timesteps, residual and attention blocks.

Shapes as in `zoo.unet`. Parameters, normalisations and softmax are float32.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_unlearn.errors import InputError
from jax_unlearn.zoo.layers import linear_uniform

Array = jax.Array


def timestep_embedding(timesteps: Array, width: int, *, base: float = 1e4) -> Array:
    """Return the sinusoids of a timestep: (cos(t ω_j), sin(t ω_j)).

    ω_j = base^{−j/h}, j = 0 … h − 1, h = width/2.

    Args:
      timesteps: t, `[B]`.
      width: E, even.
      base: the slowest frequency is about 1/base.

    Returns:
      `f32[B, E]`.

    Raises:
      InputError: odd width.

    Reference: Vaswani et al., arXiv 1706.03762; Ho et al., arXiv 2006.11239.

    >>> timestep_embedding(jnp.array([0]), 4).tolist()
    [[1.0, 1.0, 0.0, 0.0]]
    """
    if width < 2 or width % 2:
        raise InputError(f"width={width} must be even and positive; try 64")
    half = width // 2
    rates = jnp.exp(-math.log(base) / half * jnp.arange(half, dtype=jnp.float32))
    angles = timesteps.astype(jnp.float32)[:, None] * rates[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class ResBlock(nnx.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + linear(silu(e))))), e the embedding.

    The last convolution is zero at first: a new block is the identity (or its
    shortcut). The shortcut is a 1x1 convolution where the number of channels changes.

    Args:
      in_features, out_features: numbers of channels.
      embedding: E.
      groups: of the normalisation, at most.
      dropout: share of features dropped before the last convolution.
      dtype: compute dtype.
      rngs: random streams.

    Examples:
      >>> def block(x, e):
      ...     return ResBlock(4, 8, embedding=6, rngs=nnx.Rngs(0))(x, e, train=False)
      >>> jax.eval_shape(block, jnp.ones((2, 8, 8, 4)), jnp.ones((2, 6))).shape
      (2, 8, 8, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        embedding: int,
        groups: int = 8,
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.norm1 = group_norm(in_features, groups, rngs)
        self.conv1 = convolution(in_features, out_features, dtype=dtype, rngs=rngs)
        self.shift = linear(embedding, out_features, dtype=dtype, rngs=rngs)
        self.norm2 = group_norm(out_features, groups, rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout > 0 else None
        self.conv2 = convolution(
            out_features, out_features, zero=True, dtype=dtype, rngs=rngs
        )
        same = in_features == out_features
        self.shortcut = (
            None
            if same
            else convolution(
                in_features, out_features, kernel=1, dtype=dtype, rngs=rngs
            )
        )

    def __call__(self, x: Array, embedding: Array, *, train: bool) -> Array:
        """Return `[B, H, W, out]` of `x [B, H, W, in]` and `embedding [B, E]`."""
        y = self.conv1(nnx.silu(normalised(self.norm1, x)))
        y = y + self.shift(nnx.silu(embedding))[:, None, None, :]
        y = nnx.silu(normalised(self.norm2, y))
        if self.dropout is not None:
            y = self.dropout(y, deterministic=not train)
        return self.conv2(y) + (x if self.shortcut is None else self.shortcut(x))


class AttentionBlock(nnx.Module):
    """x + attention over the pixels (and then over the tokens of the condition).

    softmax(q kᵀ/√d) v with queries of the pixels; keys and values of the pixels, or
    of the tokens. The output projections are zero at first.

    Args:
      features: number of channels.
      heads: number of heads; divides `features`.
      context: width of the tokens, or None for self-attention alone.
      groups: of the normalisation, at most.
      dtype: compute dtype.
      rngs: random streams.

    Raises:
      InputError: `heads` does not divide `features`.

    Reference: Vaswani et al., arXiv 1706.03762; cross-attention to a condition:
    Rombach et al., arXiv 2112.10752.

    Examples:
      >>> def block(x, c):
      ...     return AttentionBlock(8, heads=2, context=5, rngs=nnx.Rngs(0))(x, c)
      >>> jax.eval_shape(block, jnp.ones((2, 4, 4, 8)), jnp.ones((2, 3, 5))).shape
      (2, 4, 4, 8)
    """

    def __init__(
        self,
        features: int,
        *,
        heads: int = 1,
        context: int | None = None,
        groups: int = 8,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if heads < 1 or features % heads:
            raise InputError(
                f"heads={heads} must divide the {features} channels of the level"
            )
        self.heads = heads
        self.norm = group_norm(features, groups, rngs)
        self.qkv = linear(features, 3 * features, dtype=dtype, rngs=rngs)
        self.out = linear(features, features, zero=True, dtype=dtype, rngs=rngs)
        self.crosses = context is not None
        if context is not None:
            self.cross_norm = group_norm(features, groups, rngs)
            self.query = linear(features, features, dtype=dtype, rngs=rngs)
            self.key_value = linear(context, 2 * features, dtype=dtype, rngs=rngs)
            self.cross_out = linear(
                features, features, zero=True, dtype=dtype, rngs=rngs
            )

    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """Return `[B, H, W, C]` of `x [B, H, W, C]` and `context [B, L, context]`."""
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        q, k, v = jnp.split(self.qkv(normalised(self.norm, flat)), 3, axis=-1)
        flat = flat + self.out(self._attend(q, k, v))
        if self.crosses:
            if context is None:
                raise InputError("context=None: this block attends to tokens")
            q = self.query(normalised(self.cross_norm, flat))
            k, v = jnp.split(self.key_value(context.astype(flat.dtype)), 2, axis=-1)
            flat = flat + self.cross_out(self._attend(q, k, v))
        return flat.reshape(x.shape)

    def _attend(self, query: Array, key: Array, value: Array) -> Array:
        def cut(y: Array) -> Array:
            # jax takes the softmax of bfloat16 in float32, and mixes the two in the
            # derivative, which strict promotion forbids
            return y.reshape(*y.shape[:2], self.heads, -1).astype(jnp.float32)

        y = jax.nn.dot_product_attention(cut(query), cut(key), cut(value))
        return y.reshape(query.shape).astype(query.dtype)


def normalised(norm: nnx.GroupNorm, x: Array) -> Array:
    """Normalise in float32 and return the dtype of the input."""
    return norm(x).astype(x.dtype)


def group_norm(features: int, groups: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Return GroupNorm of the largest number of groups that divides the channels.

    Two channels a group at least: alone in its group, a channel would lose the shift
    by which timestep and class reach it.
    """
    most = max(1, min(groups, features // 2))
    count = next(g for g in range(most, 0, -1) if features % g == 0)
    return nnx.GroupNorm(features, num_groups=count, dtype=jnp.float32, rngs=rngs)


def convolution(
    in_features: int,
    out_features: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    zero: bool = False,
    dtype: Any,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Return a convolution that keeps the size, or divides it by the stride."""
    pad = (kernel // 2, kernel // 2)
    return nnx.Conv(
        in_features,
        out_features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=(pad, pad),
        kernel_init=nnx.initializers.zeros if zero else linear_uniform,
        dtype=dtype,
        rngs=rngs,
    )


def linear(
    in_features: int,
    out_features: int,
    *,
    zero: bool = False,
    dtype: Any,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """Return a linear layer, zero at first if asked."""
    return nnx.Linear(
        in_features,
        out_features,
        kernel_init=nnx.initializers.zeros if zero else linear_uniform,
        dtype=dtype,
        rngs=rngs,
    )


def flat_normal(std: float):
    """Return the initializer N(0, std²), drawn flat: quick to compile."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return std * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

    return init
