"""Generation of text: greedy or drawn, one compiled program for prompt and answer."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jax_unlearn import _validate, programs
from jax_unlearn.errors import InputError
from jax_unlearn.language.text import Text
from jax_unlearn.types import Array, Model, ModelState, Params

__all__ = ["generate"]


def generate(
    model: Model,
    params: Params,
    model_state: ModelState,
    tokens: Any,
    *,
    max_new_tokens: int,
    real: Any = None,
    eos: int | Sequence[int] = (),
    pad: int = 0,
    temperature: float = 0.0,
    top_p: float = 1.0,
    key: Array | None = None,
    cache: bool = True,
) -> Array:
    """Return the tokens that follow each prompt, `i32[B, max_new_tokens]`.

    Greedy at temperature 0, else drawn from softmax(logits / temperature), of the
    likeliest tokens that together have `top_p`. A text that has ended is filled with
    `pad`; when all have, it stops. One program is compiled for each shape and length,
    and keeps keys and values of past tokens.

    Args:
      model: of `ju.language.decoder`, any outputs; with `cache=False` any that gives
        logits `[B, T, V]` of a `Text`.
      params: its parameters.
      model_state: its state.
      tokens: prompts, `i32[B, T]`.
      max_new_tokens: M.
      real: which tokens of the prompts are no padding, on either side, `bool[B, T]`;
        by default all.
      eos: the token that ends a text, or several.
      pad: what fills the rest.
      temperature: 0 or more.
      top_p: in (0, 1].
      key: for the draws; needed at a temperature above 0.
      cache: False runs the whole text for each token, for models without a cache.

    Raises:
      InputError: prompts of another shape, empty, or with tokens that the vocabulary
        lacks; a temperature without a key.

    >>> import jax_unlearn as ju
    >>> step = ju.from_stateless(  # the token after t is t + 1
    ...     lambda key, text: (), lambda p, text: jax.nn.one_hot(text.tokens + 1, 9)
    ... )
    >>> generate(step, (), (), [[3, 4]], max_new_tokens=4, eos=7, cache=False).tolist()
    [[5, 6, 7, 0]]
    """
    _validate.at_least("max_new_tokens", max_new_tokens, 1, "try 64")
    _validate.not_negative("temperature", temperature, "0 is greedy")
    _validate.fraction("top_p", top_p, "1 takes all")
    tokens = jnp.asarray(tokens)
    if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise InputError(
            f"tokens of shape {tokens.shape} and type {tokens.dtype} must be integers "
            "[B, T], one row a prompt"
        )
    tokens = tokens.astype(jnp.int32)
    real = jnp.ones(tokens.shape, jnp.bool_) if real is None else jnp.asarray(real)
    if real.shape != tokens.shape:
        raise InputError(f"real of shape {real.shape} for tokens of {tokens.shape}")
    real = real.astype(jnp.bool_)
    if temperature > 0 and key is None:
        raise InputError(
            f"temperature={temperature} draws, and key=None: give jax.random.key(0)"
        )
    ends = (eos,) if isinstance(eos, int) else tuple(int(end) for end in eos)
    options: dict[str, Any] = dict(
        apply=model.apply, count=max_new_tokens, ends=ends, cache=cache
    )
    _check_tokens(model, params, model_state, tokens, real, cache)
    key = jax.random.key(0) if key is None else key
    rates = jnp.float32(temperature), jnp.float32(top_p)
    greedy, whole = temperature == 0, top_p == 1
    options |= {"greedy": greedy, "whole": whole}
    fill = jnp.int32(pad)
    return _generated(params, model_state, tokens, real, fill, rates, key, **options)


@functools.partial(
    programs.jit, static_argnames=("apply", "count", "ends", "cache", "greedy", "whole")
)
def _generated(
    params, state, tokens, real, pad, rates, key, *, apply, count, ends, cache, **mode
):
    # padding to the left: all prompts end at the same place
    order = jnp.argsort(real, axis=1, stable=True)
    tokens, real = (jnp.take_along_axis(x, order, axis=1) for x in (tokens, real))
    batch, length = tokens.shape
    seen = jnp.concatenate([real, jnp.ones((batch, count), jnp.bool_)], axis=1)

    def run(inputs):
        return apply(params, state, inputs, train=False)[0]

    if cache:
        first, memory = run(_continuation(tokens, jnp.int32(0), seen))
    else:
        blank = jnp.zeros((batch, count), jnp.int32)
        memory = jnp.concatenate([tokens, blank], axis=1)
        text = Text(memory, jnp.zeros(memory.shape, jnp.bool_), None, seen)
        first = run(text)[:, length - 1]

    def following(token, at, memory):
        if cache:
            return run(_continuation(token[:, None], at, seen, memory))
        memory = jax.lax.dynamic_update_slice(memory, token[:, None], (0, at))
        logits = run(text._replace(tokens=memory))
        return jax.lax.dynamic_index_in_dim(logits, at, axis=1, keepdims=False), memory

    def going(carry):
        step, _, done, *_ = carry
        return (step < count) & ~done.all()

    def body(carry):
        step, written, done, logits, memory = carry
        chosen = _chosen(logits, rates, jax.random.fold_in(key, step), **mode)
        token = jnp.where(done, pad, chosen)
        written = jax.lax.dynamic_update_slice(written, token[:, None], (0, step))
        for end in ends:
            done = done | (token == end)
        logits, memory = following(token, length + step, memory)
        return step + 1, written, done, logits.astype(first.dtype), memory

    written = jnp.broadcast_to(pad, (batch, count))
    start = jnp.int32(0), written, jnp.zeros(batch, jnp.bool_), first, memory
    return jax.lax.while_loop(going, body, start)[1]


def _chosen(logits, rates, key, *, greedy: bool, whole: bool) -> Array:
    """Return the next token of each text, `i32[B]`."""
    if greedy:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    temperature, top_p = rates
    logits = logits.astype(jnp.float32) / temperature
    if not whole:
        falling = jnp.sort(logits, axis=-1, descending=True)
        shares = jax.nn.softmax(falling)
        # the first token beyond the share is left out, and all after it
        kept = jnp.cumsum(shares, axis=-1) - shares < top_p
        least = jnp.min(jnp.where(kept, falling, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def _continuation(*parts: Any) -> Any:
    from jax_unlearn.zoo import Continuation

    return Continuation(*parts)


def _check_tokens(model, params, model_state, tokens: Any, real: Any, cache) -> None:
    """Refuse prompts that are empty, or hold what the vocabulary lacks."""
    if isinstance(tokens, Tracer) or isinstance(real, Tracer):
        return
    tokens, mask = np.asarray(tokens), np.asarray(real)
    first, one = jnp.asarray(tokens[:1]), jnp.asarray(mask[:1])
    empty = np.flatnonzero(~mask.any(axis=1))
    if not tokens.size or len(empty):
        row = int(empty[0]) if len(empty) else 0
        raise InputError(
            f"prompt {row} is empty; begin it with the token that begins a text"
        )
    if cache:
        inputs = _continuation(first[:, :1], jnp.int32(0), one)
    else:
        inputs = Text(first, one)
    run = functools.partial(model.apply, train=False)
    outputs = jax.eval_shape(run, params, model_state, inputs)[0]
    size = (outputs[0] if cache else outputs).shape[-1]
    odd = mask & ((tokens < 0) | (tokens >= size))
    if odd.any():
        row, place = np.argwhere(odd)[0]
        raise InputError(
            f"token {tokens[row, place]} of prompt {row} is none of the vocabulary's "
            f"{size}; encode with the tokenizer of this model"
        )
