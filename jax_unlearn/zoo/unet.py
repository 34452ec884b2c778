"""The UNet of diffusion models, conditioned on a class or on tokens, and its blocks.

Shapes: B batch, images of H x W pixels and C channels, E width of the embeddings, L
length of a condition. Names follow the diffusers library (`block_out_channels`,
`layers_per_block`, `cross_attention_dim`, `sample_size`); images are NHWC, as
everywhere in flax. Parameters, normalisations and softmax are float32.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jax_unlearn.errors import InputError
from jax_unlearn.tables import no_wrap
from jax_unlearn.types import Array
from jax_unlearn.zoo import layers

__all__ = ["AttentionBlock", "ResBlock", "UNet", "timestep_embedding"]


def timestep_embedding(timesteps: Array, width: int, *, base: float = 1e4) -> Array:
    """Return the sinusoids of a timestep, `f32[B, E]`: (cos(t ω_j), sin(t ω_j)).

    ω_j = base^{−j/h}, j = 0 … h − 1, h = E/2 for an even width E.

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
      in_features, out_features, embedding: numbers of channels, and E.
      dropout: share of features dropped before the last convolution.
      groups, dtype, rngs: as in `UNet`.

    >>> def block(x, e):
    ...     return ResBlock(4, 8, embedding=6, rngs=nnx.Rngs(0))(x, e, train=False)
    >>> nnx.eval_shape(block, jnp.ones((2, 8, 8, 4)), jnp.ones((2, 6))).shape
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
        layer = _convolution(dtype, rngs)
        self.norm1 = layers.group_norm(in_features, groups, rngs=rngs)
        self.conv1 = layer(in_features, out_features)
        self.shift = layers.linear(embedding, out_features, dtype=dtype, rngs=rngs)
        self.norm2 = layers.group_norm(out_features, groups, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout > 0 else None
        self.conv2 = layer(out_features, out_features, init=nnx.initializers.zeros)
        same = in_features == out_features
        self.shortcut = None if same else layer(in_features, out_features, kernel=1)

    def __call__(self, x: Array, embedding: Array, *, train: bool) -> Array:
        """Return `[B, H, W, out]` of `x [B, H, W, in]` and `embedding [B, E]`."""
        y = self.conv1(nnx.silu(layers.normalised(self.norm1, x)))
        y = y + self.shift(nnx.silu(embedding))[:, None, None, :]
        y = nnx.silu(layers.normalised(self.norm2, y))
        if self.dropout is not None:
            y = self.dropout(y, deterministic=not train)
        return self.conv2(y) + (x if self.shortcut is None else self.shortcut(x))


class AttentionBlock(nnx.Module):
    """x + attention over the pixels (and then over the tokens of the condition).

    softmax(q kᵀ/√d) v with queries of the pixels; keys and values of the pixels, or
    of the tokens. The output projections are zero at first.

    Args:
      features, heads: numbers of channels, and of heads that divide them.
      context: width of the tokens, or None for self-attention alone.
      groups, dtype, rngs: as in `UNet`.

    Raises:
      InputError: `heads` does not divide `features`.

    Reference: as `TextEncoder`; for cross-attention as `TextUNet`.

    >>> def block(x, c):
    ...     return AttentionBlock(8, heads=2, context=5, rngs=nnx.Rngs(0))(x, c)
    >>> nnx.eval_shape(block, jnp.ones((2, 4, 4, 8)), jnp.ones((2, 3, 5))).shape
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
        layer = functools.partial(layers.linear, dtype=dtype, rngs=rngs)
        self.heads = heads
        self.norm = layers.group_norm(features, groups, rngs=rngs)
        self.qkv = layer(features, 3 * features)
        self.out = layer(features, features, zero=True)
        self.crosses = context is not None
        if context is not None:
            self.cross_norm = layers.group_norm(features, groups, rngs=rngs)
            self.query = layer(features, features)
            self.key_value = layer(context, 2 * features)
            self.cross_out = layer(features, features, zero=True)

    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """Return `[B, H, W, C]` of `x [B, H, W, C]` and `context [B, L, context]`."""
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        q, k, v = jnp.split(self.qkv(layers.normalised(self.norm, flat)), 3, axis=-1)
        flat = flat + self.out(layers.attention(q, k, v, heads=self.heads))
        if self.crosses:
            if context is None:
                raise InputError("context=None: this block attends to tokens")
            q = self.query(layers.normalised(self.cross_norm, flat))
            k, v = jnp.split(self.key_value(context.astype(flat.dtype)), 2, axis=-1)
            flat = flat + self.cross_out(layers.attention(q, k, v, heads=self.heads))
        return flat.reshape(x.shape)


class UNet(nnx.Module):
    """The denoiser of a diffusion model: `(x_t, t, condition) -> prediction`.

    Level l (from 0) has `layers_per_block` residual blocks of `block_out_channels[l]`
    channels on the way down and one more on the way up; every level but the last
    halves the image. Where `attention[l]` is set each block is followed by attention.

    The condition is class ids `i32[B]` (`num_classes`), embedded and added to the
    embedding of the timestep; or hidden states `[B, L, cross_attention_dim]`, read by
    cross-attention; or neither (then it is not read). Class ids run to `num_classes`,
    which is the null condition of classifier-free guidance.

    Args:
      num_classes: K, or None.
      in_channels: C of the images; the prediction has as many.
      block_out_channels: channels of the levels.
      layers_per_block: residual blocks a level.
      attention: whether each level attends; default the last level only.
      heads: of the attention.
      cross_attention_dim: width of the tokens, or None.
      groups: of the normalisations, at most.
      dropout: in the residual blocks.
      dtype: compute dtype, e.g. `jnp.bfloat16`; parameters and prediction are float32.
      rngs: random streams.

    Raises:
      InputError: settings that make no network; when called, images that are no
        multiple of 2^(levels − 1) or have other channels, a condition of another rank.

    Reference: Ho et al., arXiv 2006.11239 (the network); Nichol and Dhariwal, arXiv
    2102.09672 (class embedding); Ho and Salimans, arXiv 2207.12598 (null condition).

    >>> def predict(x, t, c):
    ...     net = UNet(10, block_out_channels=(8, 16), rngs=nnx.Rngs(0))
    ...     return net((x, t, c), train=False)
    >>> x, t = jnp.ones((2, 8, 8, 1)), jnp.array([0, 9])
    >>> nnx.eval_shape(predict, x, t, jnp.array([3, 10])).shape
    (2, 8, 8, 1)
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        in_channels: int = 1,
        block_out_channels: Sequence[int] = (32, 64),
        layers_per_block: int = 1,
        attention: Sequence[bool] | None = None,
        heads: int = 1,
        cross_attention_dim: int | None = None,
        groups: int = 8,
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        widths = tuple(block_out_channels)
        if not widths or min(widths) < 2 or widths[0] % 2 or layers_per_block < 1:
            raise InputError(
                f"block_out_channels={widths}, layers_per_block={layers_per_block}: "
                "give even widths, one a level, and 1 or more layers"
            )
        last_only = (False,) * (len(widths) - 1) + (True,)
        attends = last_only if attention is None else tuple(attention)
        if len(attends) != len(widths):
            raise InputError(
                f"attention={attends} must say yes or no for each of the "
                f"{len(widths)} levels of block_out_channels"
            )
        if num_classes is not None and num_classes < 1:
            raise InputError(f"num_classes={num_classes} must be at least 1, or None")
        if num_classes is not None and cross_attention_dim is not None:
            raise InputError(
                f"num_classes={num_classes}, cross_attention_dim={cross_attention_dim}:"
                " the condition is a class or tokens; give one of the two"
            )
        self.in_channels, self.levels = in_channels, len(widths)
        self.width, self.dtype = widths[0], dtype
        self.reads_class = num_classes is not None
        self.reads_tokens = cross_attention_dim is not None
        embedding = 4 * widths[0]
        shared: dict[str, Any] = {"groups": groups, "dtype": dtype, "rngs": rngs}

        def blocks(name: str, size: int, out: int, attend: bool) -> str:
            block = ResBlock(size, out, embedding=embedding, dropout=dropout, **shared)
            setattr(self, name, block)
            if attend:
                attention = AttentionBlock(
                    out, heads=heads, context=cross_attention_dim, **shared
                )
                setattr(self, f"{name}_attention", attention)
            return name

        convolution = _convolution(dtype, rngs)
        linear = functools.partial(layers.linear, dtype=dtype, rngs=rngs)
        self.time1 = linear(widths[0], embedding)
        self.time2 = linear(embedding, embedding)
        if num_classes is not None:
            init: Any = {"embedding_init": layers.flat_normal, "dtype": jnp.float32}
            self.classes = nnx.Embed(num_classes + 1, embedding, **init, rngs=rngs)
        self.stem = convolution(in_channels, widths[0])
        sizes, size, down, up = [widths[0]], widths[0], [], []
        for level, out in enumerate(widths):
            for layer in range(layers_per_block):
                down.append(blocks(f"down{level}_{layer}", size, out, attends[level]))
                size = out
                sizes.append(out)
            if level < len(widths) - 1:
                down.append(f"down{level}")
                setattr(self, down[-1], convolution(out, out, stride=2))
                sizes.append(out)
        blocks("mid0", size, size, attends[-1])
        blocks("mid1", size, size, False)
        for level in reversed(range(len(widths))):
            out, attend = widths[level], attends[level]
            for layer in range(layers_per_block + 1):
                up.append(blocks(f"up{level}_{layer}", size + sizes.pop(), out, attend))
                size = out
            if level:
                up.append(f"up{level}")
                setattr(self, up[-1], convolution(out, out))
        self.down_plan, self.up_plan = tuple(down), tuple(up)
        self.norm = layers.group_norm(size, groups, rngs=rngs)
        zeros = nnx.initializers.zeros
        self.out = convolution(size, in_channels, init=zeros, dtype=jnp.float32)

    def __call__(self, inputs: tuple[Array, Array, Array], *, train: bool) -> Array:
        """Return the prediction `f32[B, H, W, C]` of (x_t, t `i32[B]`, condition)."""
        x, timesteps, condition = inputs
        self._check(x, timesteps, condition)
        embedding = self.time1(timestep_embedding(timesteps, self.width))
        embedding = self.time2(nnx.silu(embedding))
        if self.reads_class:
            # a negative class would be counted from the null condition
            known = self.classes(no_wrap(condition))
            embedding = embedding + known.astype(embedding.dtype)
        context = condition if self.reads_tokens else None

        def through(name: str, y: Array) -> Array:
            y = getattr(self, name)(y, embedding, train=train)
            attention = getattr(self, f"{name}_attention", None)
            return y if attention is None else attention(y, context)

        y = self.stem(x.astype(self.dtype))
        skips = [y]
        for name in self.down_plan:
            y = through(name, y) if "_" in name else getattr(self, name)(y)
            skips.append(y)
        y = through("mid1", through("mid0", y))
        for name in self.up_plan:
            if "_" in name:
                y = through(name, jnp.concatenate([y, skips.pop()], axis=-1))
            else:
                y = getattr(self, name)(jnp.repeat(jnp.repeat(y, 2, 1), 2, 2))
        y = nnx.silu(layers.normalised(self.norm, y))
        return self.out(y.astype(jnp.float32))

    def _check(self, x: Array, timesteps: Array, condition: Array) -> None:
        step = 2 ** (self.levels - 1)
        if x.ndim != 4 or x.shape[-1] != self.in_channels:
            raise InputError(
                f"x_t.shape={x.shape} must be [B, H, W, {self.in_channels}]; pass NHWC "
                "images or set in_channels"
            )
        if x.shape[1] % step or x.shape[2] % step:
            raise InputError(
                f"x_t.shape={x.shape}: {self.levels} levels need sides that are "
                f"multiples of {step}; pad the images, or use fewer levels"
            )
        if timesteps.shape != x.shape[:1]:
            raise InputError(
                f"t.shape={timesteps.shape} must be [B]={x.shape[:1]}: one timestep an "
                "image"
            )
        if self.reads_class and (
            condition.ndim != 1 or not jnp.issubdtype(condition.dtype, jnp.integer)
        ):
            raise InputError(
                f"condition of shape {condition.shape} and dtype {condition.dtype}: "
                "this network reads class ids, integers [B]"
            )
        if self.reads_tokens and condition.ndim != 3:
            raise InputError(
                f"condition of shape {condition.shape}: this network reads hidden "
                "states [B, L, cross_attention_dim]"
            )


def _convolution(dtype: Any, rngs: nnx.Rngs) -> Callable[..., nnx.Conv]:
    """Return `layers.conv` as all convolutions here are: with bias."""
    start: Any = {"use_bias": True, "init": layers.linear_uniform}
    return functools.partial(layers.conv, dtype=dtype, rngs=rngs, **start)
