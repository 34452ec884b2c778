"""Decoders of text: Llama, Qwen, Gemma and GPT-2 are one module and its config.

Shapes: B batch, T tokens, S tokens a query may see, D width, H and G heads of queries
and of keys, V tokens of the vocabulary. Softmax, norms, logits and the sum of the
branches are float32, whatever the dtype of the products.
"""

import functools
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
from jax_unlearn.zoo.decoder_blocks import Block, Low, Norm, linear_map
from jax_unlearn.zoo.decoder_config import DecoderConfig, frequencies

__all__ = ["Adapted", "Continuation", "Decoder"]

LOGITS = 2**25
"""Logits that `score` holds at once unless told: 128 MB."""

Cache = tuple[tuple[Array, Array], ...]
"""Keys and values `[B, S, G, head_dim]` of each layer."""

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
            self.head = linear_map(
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


def _parts(inputs: Inputs) -> tuple[Any, Low]:
    """Return the inputs without adapters, and these."""
    return inputs if isinstance(inputs, Adapted) else (inputs, {})


def _chunks(part: Array, chunk: int) -> Array:
    """Return `[parts, B, chunk, ...]` of `[B, T, ...]`, the last one filled with 0."""
    missing = -part.shape[1] % chunk
    widths = [(0, missing if axis == 1 else 0) for axis in range(part.ndim)]
    part = jnp.pad(part, widths)
    part = part.reshape(part.shape[0], -1, chunk, *part.shape[2:])
    return jnp.moveaxis(part, 1, 0)


def _capped(x: Array, cap: float | None) -> Array:
    return x if cap is None else jnp.tanh(x / cap) * cap


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
