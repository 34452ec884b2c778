"""Token sequences, and how likely a model finds them.

Shapes: B batch, T tokens, V tokens of the vocabulary. Position t of a `Scored` is about
token t + 1.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jax_unlearn.errors import InputError
from jax_unlearn.losses import cross_entropy
from jax_unlearn.types import Array, PyTree

__all__ = ["Scored", "Text", "answered", "scored", "text_losses"]


class Text(NamedTuple):
    """Texts as tokens: the `inputs` of a language model's batch.

    Attributes:
      tokens: `i32[B, T]`; padding may hold any token.
      targets: tokens that are answered for (answer and end of text), `bool[B, T]`;
        prompt and padding are not.
      segments: which text of a packed row a token is of, from 1, 0 for padding,
        `i32[B, T]`; None where a row is one text, whose padding `real` tells.
      real: tokens that are no padding, `bool[B, T]`; None where all are, or where
        `segments` says so.
    """

    tokens: Array
    targets: Array
    segments: Array | None = None
    real: Array | None = None


class Scored(NamedTuple):
    """What a model says of each token of a text.

    Attributes:
      nll: −log π(x_{t+1} | x_{≤t}), `f32[B, T − 1]`, 0 where not counted.
      counted: tokens that are answered for, `bool[B, T − 1]`.
    """

    nll: Array
    counted: Array


def answered(text: Text) -> Array:
    """Return which tokens a model answers for, by the position before, `bool[B, T−1]`.

    Targets that follow a token of the same text: the first token of a text, whatever
    pads it, cannot be predicted.

    Raises:
      InputError: no `Text`, or parts of other shapes than the tokens.

    >>> answered(Text(jnp.zeros((1, 4), int), jnp.array([[0, 1, 1, 0]], bool))).tolist()
    [[True, True, False]]
    """
    if not isinstance(text, Text):
        raise InputError(
            f"inputs are {type(text).__name__}: give a language model's batch "
            "ju.language.Text(tokens, targets, ...) as inputs"
        )
    shape = jnp.shape(text.tokens)
    for name, part in zip(text._fields[1:], text[1:], strict=True):
        if part is not None and jnp.shape(part) != shape:
            raise InputError(
                f"{name} of shape {jnp.shape(part)} for tokens of {shape}: give both "
                "the same shape, [B, T]"
            )
    counted = text.targets[..., 1:].astype(jnp.bool_)
    if text.segments is not None:
        own = text.segments[..., 1:]
        counted &= (own == text.segments[..., :-1]) & (own > 0)
    if text.real is not None:
        counted &= text.real[..., 1:] & text.real[..., :-1]
    return counted


def scored(outputs: PyTree, text: Text) -> Scored:
    """Return the loss of each token: ℓ_t = −log π(x_{t+1} | x_{≤t}), in float32.

    Of outputs that are logits `[B, T, V]`; a `Scored` passes through. Prompt and
    padding have loss 0, and no gradient reaches their logits; an answered token that
    the vocabulary lacks has the loss NaN.

    Raises:
      InputError: outputs of another kind or shape, or inputs that are no `Text`.

    >>> text = Text(jnp.array([[5, 2, 1]]), jnp.array([[False, False, True]]))
    >>> scored(jnp.zeros((1, 3, 8)), text).nll.tolist()  # log 8
    [[0.0, 2.0794]]
    """
    counted = answered(text)
    if isinstance(outputs, Scored):
        if outputs.nll.shape != counted.shape:
            raise InputError(
                f"nll of shape {outputs.nll.shape} for tokens of {text.tokens.shape}: "
                f"a model that scores gives {counted.shape}, [B, T − 1]"
            )
        return outputs
    shape = getattr(outputs, "shape", None)
    whole = shape is not None and shape[:-1] == text.tokens.shape and shape[-1] > 1
    if not whole or not jnp.issubdtype(outputs.dtype, jnp.floating):
        kind = type(outputs).__name__ if shape is None else f"of shape {shape}"
        raise InputError(
            f"the model's outputs are {kind} for tokens of {text.tokens.shape}: a "
            "language model gives logits [B, T, V] or ju.language.Scored; pick them by "
            "ju.with_outputs(model, lambda outputs: outputs[...])"
        )
    # padding may hold any token
    following = jnp.where(counted, text.tokens[..., 1:], 0)
    nll = cross_entropy(outputs[..., :-1, :], following)
    return Scored(jnp.where(counted, nll, 0.0), counted)


def text_losses(tokens: Scored, *, weights: Array | None = None) -> tuple[Array, Array]:
    """Return (S, n): the loss of each text and its number of answered tokens, `f32[B]`.

    S = Σ_t w_t ℓ_t over the answered tokens; the weights, `[B, T − 1]`, are 1 unless
    given.

    >>> nll, counted = jnp.array([[1.0, 3.0]]), jnp.array([[True, True]])
    >>> [part.tolist() for part in text_losses(Scored(nll, counted))]
    [[4.0], [2.0]]
    """
    counted = tokens.counted
    nll = jnp.where(counted, tokens.nll.astype(jnp.float32), 0.0)
    if weights is not None:
        nll = nll * jnp.where(counted, weights, 0.0)
    return nll.sum(axis=-1), jnp.sum(counted, axis=-1, dtype=jnp.float32)
