"""Objectives of language models: what is minimised on texts, token by token.

Shapes: B batch, T tokens; S = Σ_t ℓ_t is the loss of a text, n its answered tokens and
ℓ̄ = S/n. The batch's `inputs` are a `ju.language.Text`; the model gives logits
`[B, T, V]` or `ju.language.Scored`. What weightings see is ℓ̄ (`task_losses`) and, as
`outputs`, the loss of every token, from the very pass that is differentiated. Prompt
and padding count nowhere: no gradient reaches their logits.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.contracts import counted, forward_pass
from jax_unlearn.language.text import Scored, answered, scored, text_losses
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import Array, Batch, Model

__all__ = ["TokenWeight", "next_token", "next_token_ascent", "reduced"]

TokenWeight = Callable[[Array, Array], Array]
"""`(nll f32[B, T−1], counted bool[B, T−1]) -> weights f32[B, T−1]`, not
differentiated: `ju.weights.wga`, `ju.weights.satimp`, `ju.weights.loreun_tokens`."""

REDUCTIONS = ("sequence", "sum", "token")


def reduced(
    tokens: Scored,
    batch: Batch,
    *,
    reduction: str = "sequence",
    token_weight: TokenWeight | None = None,
) -> Array:
    """Return one loss a text, `f32[B]`, of the losses of its tokens.

    "sequence": ℓ̄ = S/n; "sum": S; "token": S·B/Σn, whose mean over the batch is the
    mean over all its tokens, so that long texts weigh more (as in the usual trainers).
    A text without an answered token counts 0.

    >>> nll = Scored(
    ...     jnp.array([[1.0, 3.0], [5.0, 0.0]]), jnp.array([[1, 1], [1, 0]], bool)
    ... )
    >>> batch = Batch((), jnp.zeros(2, int))
    >>> [
    ...     reduced(nll, batch, reduction=r).tolist()
    ...     for r in ("sequence", "sum", "token")
    ... ]
    [[2.0, 5.0], [4.0, 5.0], [2.6667, 3.3333]]
    """
    weights = None
    if token_weight is not None:
        nll = jax.lax.stop_gradient(tokens.nll)
        weights = jax.lax.stop_gradient(token_weight(nll, tokens.counted))
    total, number = text_losses(tokens, weights=weights)
    if reduction == "sum":
        return total
    if reduction == "sequence":
        return total / jnp.maximum(number, 1.0)
    counts = counted(batch).astype(jnp.float32)
    return total * jnp.sum(counts) / jnp.maximum(jnp.sum(counts * number), 1.0)


def score(objective: Objective, at, batch: Batch, key: Array):
    """Return (Scored, model state): the `forward` of objectives on answered tokens."""
    answered(batch.inputs)  # refuses other inputs before the model meets them
    mode = {"train": objective.train, "key": key}
    outputs, model_state = forward_pass(
        objective.model.apply, *at, batch.inputs, **mode
    )
    return scored(outputs, batch.inputs), model_state


def next_token(
    model: Model,
    *,
    reduction: str = "sequence",
    token_weight: TokenWeight | None = None,
) -> Objective:
    """Return the loss of the next token, −log π(y | x): training, and retain.

    Args:
      model: of logits or `Scored`.
      reduction: of the tokens of a text, see `reduced`.
      token_weight: weights of the tokens, from their own losses, not differentiated.

    Raises:
      InputError: an unknown reduction.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> batch = Batch(text, jnp.array([0]))
    >>> next_token(model)(1.0, (), batch, jax.random.key(0))[0].tolist()  # log 4
    [1.3863]
    """
    _validate.choice("reduction", reduction, *REDUCTIONS)

    def output_loss(outputs, batch, key, data):
        del key, data
        told = {"reduction": reduction, "token_weight": token_weight}
        return reduced(outputs, batch, **told), reduced(outputs, batch)

    joint = reduction == "token"
    return Objective(model, output_loss, forward=score, joint=joint)


def next_token_ascent(
    model: Model,
    *,
    reduction: str = "sequence",
    token_weight: TokenWeight | None = None,
) -> Objective:
    """Return the negated loss of the next token: minimising it ascends (GA, GradDiff).

    The arguments are those of `next_token`. Published, as "token": GradDiff adds
    `next_token` on retain texts, both with factor 1. With `ju.weights.wga(beta=1.0)` as
    `token_weight` it is WGA, with `ju.weights.satimp` SatImp.

    Reference: GA and GradDiff as in TOFU, arXiv 2401.06121; WGA: arXiv 2502.19301.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> batch = Batch(text, jnp.array([0]))
    >>> next_token_ascent(model)(1.0, (), batch, jax.random.key(0))[0].tolist()
    [-1.3863]
    """
    return next_token(model, reduction=reduction, token_weight=token_weight).negated()
