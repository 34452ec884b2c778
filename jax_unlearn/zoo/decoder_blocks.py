"""The blocks of a decoder: norms, attention of grouped heads, MLP."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_unlearn.types import Array
from jax_unlearn.zoo import layers
from jax_unlearn.zoo.decoder_config import DecoderConfig

__all__ = ["Attention", "Block", "Low", "Mlp", "Norm", "linear_map", "turned"]

Low = dict[str, Any]
"""What is added to the linear maps of a module, by name: see `Adapted`."""


class Norm(nnx.Module):
    """x / √(mean x² + ε) · w, or LayerNorm, in float32."""

    def __init__(self, width: int, config: DecoderConfig, *, rms: bool = False, **o):
        zero = config.unit_offset
        make = jnp.zeros if zero else jnp.ones
        self.scale = nnx.Param(make(width, o["param_dtype"]))
        layered = config.norm == "layer" and not rms
        self.bias = nnx.Param(jnp.zeros(width, o["param_dtype"])) if layered else None
        self.epsilon, self.offset = config.epsilon, 1.0 if zero else 0.0

    def __call__(self, x: Array) -> Array:
        """Return `f32[..., D]`."""
        x = x.astype(jnp.float32)
        if self.bias is not None:
            x = x - x.mean(axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
        scale = self.scale[...].astype(jnp.float32) + self.offset
        x = x * jnp.expand_dims(scale, range(x.ndim - 1))
        if self.bias is None:
            return x
        bias = self.bias[...].astype(jnp.float32)
        return x + jnp.expand_dims(bias, range(x.ndim - 1))


class Attention(nnx.Module):
    """Causal attention of grouped heads."""

    def __init__(self, config: DecoderConfig, **options: Any):
        size, dense = config.head_size, functools.partial(linear_map, **options)
        heads, groups = config.heads * size, config.key_heads * size
        self.config = config
        self.query = dense(config.width, heads, use_bias=config.qkv_bias)
        self.key = dense(config.width, groups, use_bias=config.qkv_bias)
        self.value = dense(config.width, groups, use_bias=config.qkv_bias)
        depth = 1 / math.sqrt(2 * config.layers)
        self.out = dense(heads, config.width, use_bias=config.out_bias, gain=depth)
        norm = functools.partial(Norm, size, config, rms=True, **options)
        self.query_norm = norm() if config.qk_norm else None
        self.key_norm = norm() if config.qk_norm else None

    def __call__(
        self, x: Array, low: Low, turns: Any, mask: Array, cache: Any, at: Any
    ) -> tuple[Array, tuple[Array, Array]]:
        """Return `[B, T, D]` of `x [B, T, D]`, and all keys and values."""

        def cut(y: Array, norm: Any = None) -> Array:
            y = y.reshape(*y.shape[:2], -1, self.config.head_size)
            return y if norm is None else norm(y).astype(y.dtype)

        mapped = functools.partial(_mapped, self, low)
        query = turned(cut(mapped("query", x), self.query_norm), turns)
        key = turned(cut(mapped("key", x), self.key_norm), turns)
        value = cut(mapped("value", x))
        if cache is not None:
            key, value = (
                jax.lax.dynamic_update_slice(old, new.astype(old.dtype), (0, at, 0, 0))
                for old, new in zip(cache, (key, value), strict=True)
            )
        scale, cap = self.config.score_scale, self.config.attention_cap
        y = layers.grouped_attention(query, key, value, mask=mask, scale=scale, cap=cap)
        return mapped("out", y.reshape(*y.shape[:2], -1)), (key, value)


class Mlp(nnx.Module):
    """down(act(gate x) · up x), or down(act(up x))."""

    def __init__(self, config: DecoderConfig, **options: Any):
        dense = functools.partial(linear_map, use_bias=config.mlp_bias, **options)
        self.activation = config.activation
        if config.gated:
            self.gate = dense(config.width, config.hidden_size)
        self.up = dense(config.width, config.hidden_size)
        depth = 1 / math.sqrt(2 * config.layers)
        self.down = dense(config.hidden_size, config.width, gain=depth)

    def __call__(self, x: Array, low: Low) -> Array:
        """Return `[B, T, D]` of `x [B, T, D]`."""
        mapped = functools.partial(_mapped, self, low)
        up = mapped("up", x)
        if not hasattr(self, "gate"):
            return mapped("down", _activated(up, self.activation))
        return mapped("down", _activated(mapped("gate", x), self.activation) * up)


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); Gemma 2 norms the branches too."""

    def __init__(self, config: DecoderConfig, **options: Any):
        norm = functools.partial(Norm, config.width, config, **options)
        self.norm1, self.norm2 = norm(), norm()
        self.attention, self.mlp = Attention(config, **options), Mlp(config, **options)
        self.after1 = norm() if config.post_norms else None
        self.after2 = norm() if config.post_norms else None

    def __call__(self, x: Array, low: Low, *context: Any) -> tuple[Array, Any]:
        """Return `f32[B, T, D]`, and all keys and values."""
        own = low.get("attention", {})
        y, cache = self.attention(self.norm1(x), own, *context)
        x = x + (y if self.after1 is None else self.after1(y)).astype(x.dtype)
        y = self.mlp(self.norm2(x), low.get("mlp", {}))
        return x + (y if self.after2 is None else self.after2(y)).astype(x.dtype), cache


def turned(x: Array, turns: tuple[Array, Array] | None) -> Array:
    """Turn the features (i, i + d/2) of each head by their angles, in float32."""
    if turns is None:
        return x
    cosine, sine = turns
    one, two = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    one, two = one * cosine - two * sine, two * cosine + one * sine
    return jnp.concatenate([one, two], axis=-1).astype(x.dtype)


def _mapped(module: Any, low: Low, name: str, x: Array) -> Array:
    """Return what a linear map of a module gives, with its adapter if it has one."""
    # a row a token: XLA's compiler for CPUs makes products of [B, T, D], and above all
    # their gradients, slower
    rows = x.reshape(-1, x.shape[-1])
    y = getattr(module, name)(rows)
    if name in low:
        a, b = low[name]["a"], low[name]["b"]
        y += (rows.astype(jnp.float32) @ a @ b).astype(y.dtype)
    return y.reshape(*x.shape[:-1], -1)


def _activated(x: Array, name: str) -> Array:
    if name == "silu":
        return nnx.silu(x)
    return nnx.gelu(x, approximate=name == "gelu_tanh")


def linear_map(
    in_features: int, out_features: int, *, gain: float = 1.0, **options: Any
) -> nnx.Linear:
    """Return a linear map whose kernel is from N(0, gain² / fan_in)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        drawn = layers.flat_normal(key, shape) * (gain / math.sqrt(shape[0]))
        return drawn.astype(dtype)

    return nnx.Linear(in_features, out_features, kernel_init=init, **options)
