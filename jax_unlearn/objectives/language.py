"""Objectives of language models: what is minimised on texts, token by token.

Shapes: B batch, T tokens; S = Σ_t ℓ_t is the loss of a text, n its answered tokens and
ℓ̄ = S/n. The batch's `inputs` are a `ju.language.Text`; the model gives logits
`[B, T, V]` or `ju.language.Scored`. What weightings see is ℓ̄ (`task_losses`) and, as
`outputs`, the loss of every token, from the very pass that is differentiated. Prompt
and padding count nowhere: no gradient reaches their logits.

A reference is what the original says: S_o by id of the text, `f32[N]`
(`ju.language.reference_nll`), or a `Teacher`, the original's variables, which runs
beside the model and takes its memory once more. Both give the same steps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.contracts import counted, forward_pass
from jax_unlearn.errors import InputError
from jax_unlearn.language.equations import preference_loss, simnpo_loss
from jax_unlearn.language.text import Scored, Text, answered, scored, text_losses
from jax_unlearn.objectives.base import Objective
from jax_unlearn.tables import check_table, look_up, row_ids
from jax_unlearn.types import Array, Batch, Model, ModelState, Params, PyTree
from jax_unlearn.weights.language import TokenWeight

__all__ = ["Teacher", "marked", "next_token", "next_token_ascent", "npo"]
__all__ += ["reduced", "reference_of", "reference_table", "score", "scored_pass"]
__all__ += ["simnpo"]

REDUCTIONS = ("sequence", "sum", "token")


class Teacher(NamedTuple):
    """Parameters and state of the original model, frozen, in eval mode."""

    params: Params
    model_state: ModelState


def reduced(
    tokens: PyTree,
    batch: Batch,
    *,
    reduction: str = "sequence",
    token_weight: TokenWeight | None = None,
) -> Array:
    """Return one loss a text, `f32[B]`, of the losses of its tokens.

    "sequence": ℓ̄ = S/n; "sum": S; "token": S·B/Σn, whose mean over the batch is the
    mean over all its tokens, so that long texts weigh more (as in the usual trainers).
    A text without an answered token counts 0. Of rows in which several texts stand
    (`segments`) the mean over the rows is that over the texts, one by one.

    >>> nll = jnp.array([[1.0, 3.0], [5.0, 0.0]])
    >>> tokens, batch = Scored(nll, nll > 0), Batch((), jnp.zeros(2, int))
    >>> [reduced(tokens, batch, reduction=name).tolist() for name in REDUCTIONS]
    [[2.0, 5.0], [4.0, 5.0], [2.6667, 3.3333]]
    """
    tokens, weights = Scored(tokens.nll, tokens.counted), None
    if token_weight is not None:
        weights = _weights(tokens, token_weight)
    segments = getattr(batch.inputs, "segments", None)
    shares = None if segments is None else _shares(tokens.counted, segments)
    if shares is not None and reduction == "sequence":
        weights = shares if weights is None else weights * shares
    total, number = text_losses(tokens, weights=weights)
    if shares is None and reduction == "sum":
        return total
    if shares is None and reduction == "sequence":
        return total / jnp.maximum(number, 1.0)
    if shares is not None and reduction != "token":
        number = jnp.sum(shares, axis=-1)  # of texts in the row
    counts = counted(batch).astype(jnp.float32)
    return total * jnp.sum(counts) / jnp.maximum(jnp.sum(counts * number), 1.0)


def _shares(counts: Array, segments: Array) -> Array:
    """Return 1/n of its own text for each answered token, `f32[B, T−1]`."""
    rows, length = segments.shape
    own = segments[:, 1:] + (length + 1) * jnp.arange(rows)[:, None]
    given = jnp.ravel(counts.astype(jnp.float32)), jnp.ravel(own)
    number = jax.ops.segment_sum(*given, num_segments=rows * (length + 1))
    return counts.astype(jnp.float32) / jnp.maximum(number[own], 1.0)


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
    `token_weight` it is WGA, with `ju.weights.satimp()` SatImp.

    Reference: GA and GradDiff as in TOFU, arXiv 2401.06121; WGA: arXiv 2502.19301;
    SatImp: arXiv 2505.11953.

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


def npo(
    model: Model,
    reference: Array | Teacher,
    *,
    beta: float | Array = 0.1,
    token_weight: TokenWeight | None = None,
) -> Objective:
    """Return −(2/β) log σ(β(S − S_o)): an ascent that ends (NPO).

    S is the loss of the answer's own tokens; MUSE's code compares raw logits of the
    whole vocabulary instead, which is no likelihood. Published: β of 0.1.

    Args:
      model: of logits or `Scored`.
      reference: S_o, by id `f32[N]` or by a `Teacher`.
      beta: β; towards 0 it is ascent.
      token_weight: weights of the tokens in the gradient, not in the loss.

    Raises:
      InputError: β not positive, a table that is not `[N]`; in the step, a table and a
        batch without `index`. An id outside the table gives NaN, which `run` reports.

    Reference: arXiv 2404.05868.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> batch = Batch(text, jnp.array([0]), jnp.array([0]))
    >>> objective = npo(model, jnp.log(jnp.array([4.0])), beta=2.0)
    >>> objective(1.0, (), batch, jax.random.key(0))[0].tolist()  # as before: log 2
    [0.6931]
    """
    _validate.positive("beta", beta, "try 0.1")

    def output_loss(outputs, batch, key, data):
        total, _ = text_losses(marked(outputs, token_weight))
        before = reference_of(model, data, batch.inputs, batch, key)
        return preference_loss(total, before, beta=beta), reduced(outputs, batch)

    return Objective(model, output_loss, reference_table(reference), forward=score)


def simnpo(
    model: Model,
    *,
    beta: float | Array = 4.5,
    delta: float | Array = 0.0,
    token_weight: TokenWeight | None = None,
) -> Objective:
    """Return −(2/β) log σ(β(ℓ̄ − δ)): NPO by token, without the original (SimNPO).

    Published: β of 2.5 to 4.5, γ = δ·β of 0, the loss multiplied by 0.125 beside the
    retain loss. The paper writes the margin −γ beside β·ℓ̄, its code −δ inside, as here.
    Two benchmarks' copies of it take raw logits of the whole vocabulary; these are the
    answer's own.

    Raises:
      InputError: β not positive.

    Reference: arXiv 2410.07163.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> objective = simnpo(model, beta=2.0, delta=jnp.log(4.0))
    >>> objective(1.0, (), Batch(text, jnp.array([0])), jax.random.key(0))[0].tolist()
    [0.6931]
    """
    _validate.positive("beta", beta, "try 4.5")

    def output_loss(outputs, batch, key, data):
        del key, data
        mean = reduced(marked(outputs, token_weight), batch)
        return simnpo_loss(mean, beta=beta, delta=delta), reduced(outputs, batch)

    return Objective(model, output_loss, forward=score)


def score(objective: Objective, at, batch: Batch, key: Array):
    """Return (Scored, model state): the `forward` of objectives on answered tokens."""
    return scored_pass(objective.model, at, batch.inputs, key, train=objective.train)


def reference_of(
    model: Model, reference: Array | Teacher, text: Text, batch: Batch, key: Array
) -> Array:
    """Return S_o of a batch, `f32[B]`: from the table, or by the teacher's pass."""
    if not isinstance(reference, Teacher):
        index = row_ids(batch.index, "a table of the original's losses needs")
        return look_up(reference, index, counted(batch))
    tokens, _ = scored_pass(model, reference, text, key, train=False)
    return jax.lax.stop_gradient(text_losses(tokens)[0])


def scored_pass(model: Model, at, text: Text, key: Array, *, train: bool):
    """Return (Scored, model state) of a forward pass over texts."""
    answered(text)  # refuses other inputs before the model meets them
    mode: dict[str, Any] = {"train": train, "key": key} if train else {"train": False}
    outputs, model_state = forward_pass(model.apply, at[0], at[1], text, **mode)
    return scored(outputs, text), model_state


def reference_table(given: Array | Teacher) -> Array | Teacher:
    """Return a table `f32[N]` or a teacher, if it is one of them."""
    if isinstance(given, Teacher):
        return given
    if isinstance(given, tuple | dict):
        raise InputError(
            f"reference is a {type(given).__name__}: give a table f32[N], or "
            "ju.objectives.Teacher(params, model_state)"
        )
    table = jnp.asarray(given, jnp.float32)
    check_table("reference", table, "[N]")
    return table


def _weights(tokens: Scored, token_weight: TokenWeight) -> Array:
    """Return the weights of tokens, which no gradient passes."""
    nll = jax.lax.stop_gradient(tokens.nll)
    return jax.lax.stop_gradient(token_weight(nll, tokens.counted))


def marked(tokens: Scored, token_weight: TokenWeight | None) -> Scored:
    """Return the same losses, whose gradients are weighted by token."""
    if token_weight is None:
        return tokens
    nll = jax.lax.stop_gradient(tokens.nll)
    weighted = nll + _weights(tokens, token_weight) * (tokens.nll - nll)
    return tokens._replace(nll=weighted)
