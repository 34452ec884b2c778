"""Decoders of text: Llama, Qwen, Gemma and GPT-2 are one module and its config.

Shapes: B batch, T tokens, S tokens a query may see, D width, H and G heads of queries
and of keys, V tokens of the vocabulary. Softmax, norms, logits and the sum of the
branches are float32, whatever the dtype of the products.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.language.text import Scored, Text, answered, scored
from jax_unlearn.losses import cross_entropy
from jax_unlearn.types import Array
from jax_unlearn.zoo import layers
from jax_unlearn.zoo.decoder_config import DecoderConfig, frequencies

__all__ = ["Adapted", "Continuation", "Decoder"]

LOGITS = 2**25
"""Logits that `score` holds at once unless told: 128 MB."""

Cache = tuple[tuple[Array, Array], ...]
"""Keys and values `[B, S, G, head_dim]` of each layer."""

Low = dict[str, Any]
"""What is added to the linear maps of a module, by name: see `Adapted`."""

Inputs = Any
"""A `Text`, tokens `i32[B, T]`, a `Continuation`, or one of these `Adapted`."""


class Continuation(NamedTuple):
    """Tokens that follow those whose keys and values are known: what generation reads.

    A decoder gives (logits `f32[B, V]` after the last of them, the cache with them).

    Attributes:
      tokens: the next t tokens of each text, `i32[B, t]`.
      at: their place in the row, `i32[]`.
      real: which of the row's places hold no padding, future ones too, `bool[B, S]`.
      cache: keys and values so far; None where the texts begin.
    """

    tokens: Array
    at: Array
    real: Array
    cache: Cache | None = None


class Adapted(NamedTuple):
    """Inputs, and what is added to linear maps on the way: y = W x + B A x.

    Attributes:
      inputs: a `Text`, tokens, or a `Continuation`.
      adapters: by module, as in the parameters: `{"layer0": {"mlp": {"up": {"a": Aᵀ,
        "b": Bᵀ}}}}`, `f32[in, r]` and `f32[r, out]`.
    """

    inputs: Any
    adapters: dict[str, Any]


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
        size, dense = config.head_size, functools.partial(_linear, **options)
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
        dense = functools.partial(_linear, use_bias=config.mlp_bias, **options)
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


class Decoder(nnx.Module):
    """A language model: each token is predicted from those before it in its text.

    Reads a `ju.language.Text`, or bare tokens `i32[B, T]`. A token attends to its own
    text only: padding on the left, on the right, and the other texts of a packed row do
    not change its logits, and positions begin anew with every text. Three methods share
    the parameters: calling it gives logits, `score` the loss of each token without
    holding all logits, `hidden` the states of a layer.

    Args:
      config: sizes and form, see `DecoderConfig`.
      layer: whose states `hidden` gives, from 0; None for those that the head reads.
      chunk: positions of each row that `score` holds logits of at once; by default as
        many as make 2²⁵ logits.
      remat: the backward pass computes each block anew, from its input.
      dtype: of the products.
      param_dtype: of the parameters.
      rngs: random streams.

    Raises:
      InputError: an unknown layer; when called, tokens of another shape or type, more
        than learned positions reach.

    Reference: Vaswani et al., arXiv 1706.03762, in the forms of `decoder_config`.

    >>> def logits(tokens):
    ...     return Decoder(DecoderConfig(64, width=32), rngs=nnx.Rngs(0))(tokens)
    >>> nnx.eval_shape(logits, jnp.zeros((2, 5), jnp.int32))
    ShapeDtypeStruct(shape=(2, 5, 64), dtype=float32)
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        layer: int | None = None,
        chunk: int | None = None,
        remat: bool = False,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if layer is not None:
            _validate.within("layer", layer, f"[0, {config.layers - 1}]")
        if chunk is not None:
            _validate.at_least("chunk", chunk, 1, "or leave it out")
        self.config, self.layer, self.chunk = config, layer, chunk
        self.remat, self.dtype = remat, dtype
        options: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.embedding = _table(config.vocab_size, config.width, **options)
        if config.learned_positions:
            self.positions = _table(config.length, config.width, **options)
        for index in range(config.layers):
            setattr(self, f"layer{index}", Block(config, **options))
        self.norm = Norm(config.width, config, **options)
        if not config.tied:
            self.head = _linear(
                config.width, config.vocab_size, use_bias=False, **options
            )

    def __call__(self, inputs: Inputs) -> Any:
        """Return logits `f32[B, T, V]`."""
        inputs, low = _parts(inputs)
        if isinstance(inputs, Continuation):
            return self._continued(inputs, low)
        return self._logits(self.norm(self._states(as_text(inputs), low)))

    def hidden(self, inputs: Inputs) -> Any:
        """Return the states `f32[B, T, D]` after block `layer`, or the last norm."""
        inputs, low = _parts(inputs)
        if isinstance(inputs, Continuation):
            return self._continued(inputs, low)
        if self.layer is None:
            return self.norm(self._states(as_text(inputs), low))
        return self._states(as_text(inputs), low, self.layer + 1)

    def score(self, inputs: Inputs) -> Any:
        """Return the `Scored` of a text, from the logits of a chunk at a time."""
        inputs, low = _parts(inputs)
        if isinstance(inputs, Continuation):
            return self._continued(inputs, low)
        text = as_text(inputs)
        states = self.norm(self._states(text, low))
        batch, length = text.tokens.shape
        chunk = chunk_of(self.config, batch, length, self.chunk)
        if chunk >= length - 1:
            return scored(self._logits(states), text)
        counted = answered(text)
        following = jnp.where(counted, text.tokens[:, 1:], 0)

        @jax.checkpoint
        def losses(part: tuple[Array, Array, Array]) -> Array:
            states, tokens, counted = part
            nll = cross_entropy(self._logits(states), tokens)
            return jnp.where(counted, nll, 0.0)

        parts = states[:, :-1], following, counted
        nll = jax.lax.map(losses, tuple(_chunks(part, chunk) for part in parts))
        nll = jnp.moveaxis(nll, 0, 1).reshape(batch, -1)[:, : length - 1]
        return Scored(nll, counted)

    def _states(self, text: Text, low: Low, count: int | None = None) -> Array:
        """Return the states `f32[B, T, D]` after the first blocks, or all."""
        own = segments_of(text)
        same = (own[:, :, None] == own[:, None, :]) & (own > 0)[:, None, :]
        place = jnp.arange(own.shape[1])
        mask = same & (place[:, None] >= place[None, :])[None]
        tokens = jnp.where(own > 0, text.tokens, 0)  # padding may hold anything
        return self._run(tokens, low, mask, place, count=count)[0]

    def _continued(self, inputs: Continuation, low: Low) -> tuple[Array, Cache]:
        """Return the logits after the last token, and the cache with the new ones."""
        tokens, at, real, cache = inputs
        if cache is None:
            shape = *real.shape, self.config.key_heads, self.config.head_size
            empty = jnp.zeros(shape, self.dtype)
            cache = ((empty, empty),) * self.config.layers
        own = at + jnp.arange(tokens.shape[1])
        place = jnp.arange(real.shape[1])
        mask = real[:, None, :] & (own[:, None] >= place[None, :])[None]
        here = jax.lax.dynamic_slice_in_dim(real, at, tokens.shape[1], axis=1)
        tokens = jnp.where(here, tokens, 0)
        x, cache = self._run(tokens, low, mask, own, cache=cache, at=at)
        return self._logits(self.norm(x[:, -1:]))[:, 0], cache

    def _run(self, tokens, low, mask, own, *, count=None, cache=None, at=None):
        """Run the first blocks; `own` are the places of the queries in their row."""
        config = self.config
        # how many tokens of its text are before it
        positions = jnp.maximum(mask.sum(axis=2, dtype=jnp.int32) - 1, 0)
        x = self.embedding(tokens).astype(jnp.float32)
        if config.scaled_embedding:
            x = x * jnp.sqrt(jnp.float32(config.width))
        turns = None
        if config.learned_positions:
            if mask.shape[2] > config.length:
                raise InputError(
                    f"{mask.shape[2]} tokens, but positions reach {config.length}: cut "
                    "the texts, or ask for fewer new tokens"
                )
            x = x + self.positions(positions).astype(jnp.float32)
        else:
            turns = rotation(config, positions)
        # padding attends to itself, for a softmax over nothing is not finite
        places = jnp.arange(mask.shape[2])
        mask = mask | (own[:, None] == places[None, :])[None]
        near = mask
        if config.window is not None:
            near = mask & (own[:, None] - places[None, :] < config.window)[None]
        caches = []
        for index in range(config.layers if count is None else count):
            block = getattr(self, f"layer{index}")
            seen = mask if config.window_of(index) is None else near
            past = None if cache is None else cache[index]
            run = _rematerialised(block) if self.remat else block
            x, pair = run(x, low.get(f"layer{index}", {}), turns, seen, past, at)
            caches.append(pair)
        return x, tuple(caches)

    def _logits(self, states: Array) -> Array:
        """Return logits `f32[B, T, V]` of normed states."""
        states = states.astype(self.dtype)
        if self.config.tied:
            kernel = self.embedding.embedding[...].astype(self.dtype).T
        else:
            kernel = self.head.kernel[...].astype(self.dtype)
        logits = jnp.dot(states, kernel, preferred_element_type=jnp.float32)
        return _capped(logits, self.config.logit_cap)


def as_text(inputs: Text | Array) -> Text:
    """Return bare tokens as a text that is answered for throughout."""
    if isinstance(inputs, Text):
        tokens = inputs.tokens
    else:
        tokens, inputs = inputs, Text(inputs, jnp.ones(jnp.shape(inputs), jnp.bool_))
    if jnp.ndim(tokens) != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise InputError(
            f"tokens of shape {jnp.shape(tokens)} and type {tokens.dtype} must be "
            "integers [B, T]: give ju.language.Text(tokens, targets), or tokens"
        )
    return inputs


def chunk_of(config: DecoderConfig, batch: int, length: int, chunk: int | None) -> int:
    """Return of how many positions of each row `score` holds the logits."""
    if chunk is None:
        chunk = max(1, LOGITS // (batch * config.vocab_size))
    return min(chunk, length - 1)


def segments_of(text: Text) -> Array:
    """Return of which text of its row each token is, 0 for padding, `i32[B, T]`."""
    own = text.segments
    if own is None:
        own = jnp.ones(text.tokens.shape, jnp.int32)
    return own if text.real is None else jnp.where(text.real, own, 0)


def rotation(config: DecoderConfig, positions: Array) -> tuple[Array, Array]:
    """Return cosine and sine of the angles, `f32[B, T, 1, head_dim / 2]`."""
    omega = jnp.asarray(frequencies(config))[None, None, None]
    angles = positions.astype(jnp.float32)[:, :, None, None] * omega
    return jnp.cos(angles), jnp.sin(angles)


def turned(x: Array, turns: tuple[Array, Array] | None) -> Array:
    """Turn the features (i, i + d/2) of each head by their angles, in float32."""
    if turns is None:
        return x
    cosine, sine = turns
    one, two = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    one, two = one * cosine - two * sine, two * cosine + one * sine
    return jnp.concatenate([one, two], axis=-1).astype(x.dtype)


def _parts(inputs: Inputs) -> tuple[Any, Low]:
    """Return the inputs without adapters, and these."""
    return inputs if isinstance(inputs, Adapted) else (inputs, {})


def _mapped(module: Any, low: Low, name: str, x: Array) -> Array:
    """Return what a linear map of a module gives, with its adapter if it has one."""
    y = getattr(module, name)(x)
    if name not in low:
        return y
    a, b = low[name]["a"], low[name]["b"]
    return y + (x.astype(jnp.float32) @ a @ b).astype(y.dtype)


def _chunks(part: Array, chunk: int) -> Array:
    """Return `[parts, B, chunk, ...]` of `[B, T, ...]`, the last one filled with 0."""
    missing = -part.shape[1] % chunk
    widths = [(0, missing if axis == 1 else 0) for axis in range(part.ndim)]
    part = jnp.pad(part, widths)
    part = part.reshape(part.shape[0], -1, chunk, *part.shape[2:])
    return jnp.moveaxis(part, 1, 0)


def _capped(x: Array, cap: float | None) -> Array:
    return x if cap is None else jnp.tanh(x / cap) * cap


def _activated(x: Array, name: str) -> Array:
    if name == "silu":
        return nnx.silu(x)
    return nnx.gelu(x, approximate=name == "gelu_tanh")


def _linear(
    in_features: int, out_features: int, *, gain: float = 1.0, **options: Any
) -> nnx.Linear:
    """Return a linear map whose kernel is from N(0, gain² / fan_in)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        drawn = layers.flat_normal(key, shape) * (gain / math.sqrt(shape[0]))
        return drawn.astype(dtype)

    return nnx.Linear(in_features, out_features, kernel_init=init, **options)


def _table(rows: int, width: int, **options: Any) -> nnx.Embed:
    """Return an embedding from N(0, 0.02²), as GPT-2's."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return (layers.flat_normal(key, shape) * 0.02).astype(dtype)

    return nnx.Embed(rows, width, embedding_init=init, **options)


def _rematerialised(block: Block) -> Any:
    """Return the block as a function whose backward pass computes it anew."""
    graph, variables = nnx.split(block)

    @jax.checkpoint
    def run(variables: Any, *inputs: Any) -> Any:
        return nnx.merge(graph, variables)(*inputs)

    return functools.partial(run, variables)
