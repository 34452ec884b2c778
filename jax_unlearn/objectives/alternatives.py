"""Objectives beside the true answer: others in its place, and attacks' judgements.

IdkNLL, DPO and AltPO prefer another answer; LTU's feedback is a membership attack.

See `ju.objectives.language` for what all objectives of language models share.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.contracts import counted
from jax_unlearn.errors import InputError
from jax_unlearn.language.equations import preference_loss
from jax_unlearn.language.text import Scored, Text, answered, text_losses
from jax_unlearn.membership.attacks import Attack, AttackParams, nonmember_loss
from jax_unlearn.objectives.base import Objective
from jax_unlearn.objectives.language import (
    REDUCTIONS,
    Teacher,
    reduced,
    reference_of,
    reference_table,
    score,
    scored_pass,
)
from jax_unlearn.tables import look_up, row_ids
from jax_unlearn.types import Array, Batch, Model

__all__ = ["Answers", "alternative", "dpo", "token_nonmember"]


class Answers(NamedTuple):
    """A text's own answer and another one, token by token, under the model.

    Attributes:
      nll, counted: as of `ju.language.Scored`, of the text itself.
      other: the same of the alternative.
      chosen: number of the alternative drawn for each text, `i32[B]`.
    """

    nll: Array
    counted: Array
    other: Scored
    chosen: Array


def alternative(
    model: Model, alternatives: Text, *, reduction: str = "sequence"
) -> Objective:
    """Return the loss of another answer in the true one's place (IdkNLL).

    Args:
      model: of logits or `Scored`.
      alternatives: texts by id, questions included, tokens `i32[N, T]`; or several for
        each, `i32[N, A, T]`, of which one is drawn a step.
      reduction: see `reduced`.

    The task loss is of the true answer, from a pass without gradient.

    Raises:
      InputError: an unknown reduction, alternatives of another shape; in the step, a
        batch without `index`.

    Reference: IDK of TOFU, arXiv 2401.06121, section 4.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> batch = Batch(text, jnp.array([0]), jnp.array([0]))
    >>> other = ju.language.Text(jnp.array([[2, 1, 0]]), jnp.array([[0, 1, 1]], bool))
    >>> alternative(model, other)(1.0, (), batch, jax.random.key(0))[0].tolist()
    [1.3863]
    """
    _validate.choice("reduction", reduction, *REDUCTIONS)

    def output_loss(outputs, batch, key, data):
        del key, data
        other = batch._replace(inputs=())  # segments are those of the true answers
        losses = reduced(outputs.other, other, reduction=reduction)
        return losses, reduced(outputs, batch)

    made = Objective(model, output_loss, _alternatives(alternatives))
    return made._replace(forward=_both(still=True), joint=reduction == "token")


def dpo(
    model: Model,
    reference: Array | Teacher,
    alternatives: Text,
    *,
    alternative_reference: Array | None = None,
    beta: float | Array = 0.1,
) -> Objective:
    """Return −(2/β) log σ(β[(S − S_o) − (S_w − S_w,o)]), w preferred (DPO).

    With refusals as alternatives it is IdkDPO, with the model's own plausible answers
    (5 a question, drawn at temperature 1) AltPO. Published: β of 0.1; AltPO's 0.05 to
    0.5. The factor 2/β is NPO's: TOFU's own code leaves it out.

    Args:
      model: of logits or `Scored`.
      reference: S_o, by id `f32[N]` or by a `Teacher`.
      alternatives: see `alternative`.
      alternative_reference: S_w,o where the reference is a table: `f32[N]`, or
        `f32[N, A]` of several alternatives.
      beta: β.

    Raises:
      InputError: β not positive, a table without the other, or of another shape.

    Reference: arXiv 2305.18290; against forget texts in TOFU, arXiv 2401.06121; AltPO:
    arXiv 2409.13474.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> batch = Batch(text, jnp.array([0]), jnp.array([0]))
    >>> objective = dpo(model, Teacher(1.0, ()), text, beta=2.0)
    >>> objective(1.0, (), batch, jax.random.key(0))[0].tolist()  # as before: log 2
    [0.6931]
    """
    _validate.positive("beta", beta, "try 0.1")
    rows, before = _alternatives(alternatives), reference_table(reference)
    other = ()  # a teacher judges both answers
    if isinstance(before, Teacher):
        pass
    elif alternative_reference is None:
        raise InputError(
            "alternative_reference=None beside a table of the true answers: give the "
            "original's losses of the alternatives too, or a Teacher for both"
        )
    else:
        other = jnp.asarray(alternative_reference, jnp.float32)
        if other.shape != rows.tokens.shape[:-1]:
            raise InputError(
                f"alternative_reference of shape {other.shape} for alternatives of "
                f"{rows.tokens.shape}: give one loss each, {rows.tokens.shape[:-1]}"
            )

    def output_loss(outputs, batch, key, data):
        rows, before, other = data
        total, _ = text_losses(outputs)
        preferred, _ = text_losses(outputs.other)
        told = {"preferred": preferred}
        if isinstance(before, Teacher):
            text = _rows(rows, batch, outputs.chosen)
            told["preferred_reference"] = reference_of(model, before, text, batch, key)
        else:
            own = look_up(other, row_ids(batch.index, "tables need"), counted(batch))
            if own.ndim > 1:
                own = jnp.take_along_axis(own, outputs.chosen[:, None], axis=1)[:, 0]
            told["preferred_reference"] = own
        original = reference_of(model, before, batch.inputs, batch, key)
        loss = preference_loss(total, original, beta=beta, **told)
        return loss, reduced(outputs, batch)

    made = Objective(model, output_loss, (rows, before, other))
    return made._replace(forward=_both(still=False))


class Compared(NamedTuple):
    """A text's tokens, and what attacks compare them with, None where not known.

    Attributes:
      nll, counted: as of `ju.language.Scored`.
      reference: ℓ̄ under a model without the texts, `f32[B]`.
      size: bytes of the text compressed by zlib, `f32[B]`.
    """

    nll: Array
    counted: Array
    reference: Array | None = None
    size: Array | None = None


def token_nonmember(
    model: Model,
    attack: Attack,
    attack_params: AttackParams,
    *,
    reference: Array | None = None,
    sizes: Array | None = None,
) -> Objective:
    """Return the loss of a text being taken for a member: log(1 + exp(score)).

    `ju.methods.ltu`'s feedback for language models: attacks of
    `ju.membership.token_attacks()`, trained on retain and unseen texts. The pass is in
    eval mode.

    Args:
      model: of logits or `Scored`.
      attack: features of a `Scored`.
      attack_params: what it has learned.
      reference: ℓ̄ by id under a model without the texts, `f32[N]`, where the attack was
        trained with it.
      sizes: bytes by id of the texts compressed by zlib, `f32[N]`, likewise.

    Source: LTU, arXiv 2407.10494; the form of the loss is our choice.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> attack = ju.membership.token_attacks()[0]
    >>> objective = token_nonmember(model, attack, attack.init(jax.random.key(0), 2))
    >>> objective(1.0, (), Batch(text, jnp.array([0])), jax.random.key(0))[0].tolist()
    [0.6931]
    """
    tables = tuple(
        None if table is None else jnp.asarray(table, jnp.float32)
        for table in (reference, sizes)
    )

    def forward(objective: Objective, at, batch: Batch, key: Array):
        tokens, after = score(objective, at, batch, key)

        def own(table: Array | None) -> Array | None:
            if table is None:
                return None
            index = row_ids(batch.index, "what an attack compares with needs")
            return look_up(table, index, counted(batch))

        return Compared(*tokens, *map(own, objective.data[1])), after

    def output_loss(outputs, batch, key, data):
        del key
        loss = nonmember_loss(attack, data[0], outputs, batch.labels)
        return loss, reduced(outputs, batch)

    made = Objective(model, output_loss, (attack_params, tables), train=False)
    return made._replace(forward=forward)


def _both(*, still: bool):
    """Return the pass over a text and an alternative of it; `still`: one gradient."""

    def forward(objective: Objective, at, batch: Batch, key: Array):
        own_key, other_key, draw_key = jax.random.split(key, 3)
        rows = objective.data if still else objective.data[0]
        sizes = rows.tokens.shape
        several = sizes[1] if len(sizes) == 3 else 1
        chosen = jax.random.randint(draw_key, batch.labels.shape[:1], 0, several)
        chosen = chosen.astype(jnp.int32)
        text, mode = _rows(rows, batch, chosen), {"train": objective.train}
        own, after = score(objective, at, batch, own_key)
        own = jax.lax.stop_gradient(own) if still else own
        at = at[0], after
        other, after = scored_pass(objective.model, at, text, other_key, **mode)
        return Answers(own.nll, own.counted, other, chosen), after

    return forward


def _rows(rows: Text, batch: Batch, chosen: Array) -> Text:
    """Return the alternatives of a batch, the chosen ones of several."""
    index = row_ids(batch.index, "alternatives need")
    index = jnp.where(counted(batch), index, 0)
    # an id beyond the table has a token that no vocabulary has, whose loss is NaN
    tokens = look_up(rows.tokens, index)

    def clipped(leaf: Array) -> Array:
        return jnp.take(leaf, index, axis=0, mode="clip")

    found = jax.tree.map(clipped, rows)._replace(tokens=tokens)
    if rows.tokens.ndim == 2:
        return found
    at = jnp.arange(index.shape[0])
    return jax.tree.map(lambda leaf: leaf[at, chosen], found)


def _alternatives(rows: Text) -> Text:
    """Return texts by id as arrays, if they are such."""
    shape = jnp.shape(rows.tokens) if isinstance(rows, Text) else ()
    if len(shape) not in (2, 3) or not all(shape):
        kind = f"of shape {shape}" if shape else type(rows).__name__
        raise InputError(
            f"alternatives are {kind}: give a ju.language.Text of tokens [N, T], or "
            "[N, A, T] of A for each"
        )
    answered(rows)
    return jax.tree.map(jnp.asarray, rows)
