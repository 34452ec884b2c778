"""Objectives that read more of a language model than the losses of its tokens.

Logits of the whole vocabulary (KL-min, UNDIAL, CE-U, ME, PDU), or hidden states (RMU).
Every one is a mean over the answered tokens: public codes of KL-min and UNDIAL average
prompt and padding too, where the label −100 lowers token V − 100; no gradient reaches
their logits here. See `ju.objectives.language` for what all of them share.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.contracts import forward_pass
from jax_unlearn.errors import InputError
from jax_unlearn.language import equations
from jax_unlearn.language.text import Scored, Text, answered, scored
from jax_unlearn.losses import distillation
from jax_unlearn.objectives.base import Objective
from jax_unlearn.objectives.language import REDUCTIONS, Teacher, reduced, scored_pass
from jax_unlearn.types import Array, Batch, Model, PyTree

__all__ = ["Judged", "ceu", "hold_hidden", "kl_to_teacher", "max_entropy"]
__all__ += ["pdu_forget", "rmu", "undial"]


class Judged(NamedTuple):
    """The tokens of texts, and what else an objective reads of the model.

    Attributes:
      nll, counted: as of `ju.language.Scored`.
      seen: logits `[B, T, V]`, or hidden states `[B, T, D]`.
    """

    nll: Array
    counted: Array
    seen: Array


def kl_to_teacher(
    model: Model, teacher: Teacher, *, reduction: str = "sequence"
) -> Objective:
    """Return KL(π_o ‖ π_θ) by token: the retain loss of KL-min.

    The teacher, `ju.objectives.Teacher(params, model_state)`, is the original (with
    adapters, the same base and adapters of zero). Beside `next_token_ascent` on the
    forget texts it is KL-min.

    Raises:
      InputError: an unknown reduction; in the step, a model without logits.

    Reference: KL minimisation of TOFU, arXiv 2401.06121, section 4.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> objective = kl_to_teacher(model, ju.objectives.Teacher(5.0, ()))
    >>> objective(1.0, (), Batch(text, jnp.array([0])), jax.random.key(0))[0].tolist()
    [0.0]
    """

    def by_token(logits, batch, data):
        return distillation(logits, _logits(model, data, batch.inputs))

    return _on_logits(model, by_token, teacher, reduction=reduction)


def undial(
    model: Model,
    teacher: Teacher,
    *,
    strength: float | Array = 10.0,
    reduction: str = "sequence",
) -> Objective:
    """Return the cross-entropy to softmax(z_o − β·1_y): the answer, taken back.

    Published: β, the strength, of 10, learning rate 1e-4, no retain loss.

    Raises:
      InputError: β negative, an unknown reduction; in the step, a model without logits.

    Reference: UNDIAL, arXiv 2402.10052.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 2))
    ... )
    >>> text = ju.language.Text(jnp.array([[0, 1]]), jnp.array([[False, True]]))
    >>> objective = undial(model, ju.objectives.Teacher(1.0, ()))
    >>> objective(1.0, (), Batch(text, jnp.array([0])), jax.random.key(0))[0].tolist()
    [0.6931]
    """
    _validate.not_negative("strength", strength, "try 10")

    def by_token(logits, batch, data):
        before = _logits(model, data, batch.inputs)
        tokens = _following(batch.inputs)
        return equations.undial_loss(logits, before, tokens, strength=strength)

    return _on_logits(model, by_token, teacher, reduction=reduction)


def ceu(model: Model, *, skip: int = 1, reduction: str = "sequence") -> Objective:
    """Return the cross-entropy to the model's prediction without the true token (CE-U).

    The first `skip` answer tokens are left out: 1 in the public code.

    Raises:
      InputError: `skip` negative, an unknown reduction; in the step, a model without
        logits.

    Reference: CE-U, arXiv 2503.01224.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> batch = Batch(text, jnp.array([0]))
    >>> ceu(model, skip=0)(1.0, (), batch, jax.random.key(0))[0].tolist()  # log 4
    [1.3863]
    """
    _validate.at_least("skip", skip, 0, "try 1")

    def by_token(logits, batch, data):
        del data
        return equations.ceu_loss(logits, _following(batch.inputs))

    return _on_logits(model, by_token, (), reduction=reduction, skip=skip)


def max_entropy(model: Model, *, reduction: str = "sequence") -> Objective:
    """Return KL(U ‖ π) by token: towards a uniform prediction (ME).

    Raises:
      InputError: an unknown reduction; in the step, a model without logits.

    Reference: arXiv 2410.08109, on answered tokens.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> batch = Batch(text, jnp.array([0]))
    >>> max_entropy(model)(1.0, (), batch, jax.random.key(0))[0].tolist()
    [0.0]
    """
    return _on_logits(
        model, lambda logits, *_: equations.entropy_gap(logits), (), reduction=reduction
    )


def pdu_forget(model: Model, *, reduction: str = "sequence") -> Objective:
    """Return (max z − mean z)² by token: the forget loss of `ju.methods.pdu`.

    The public code takes logits of all positions, or a mask that is not shifted and so
    drops the first answer token; these are the answered tokens.

    Raises:
      InputError: an unknown reduction; in the step, a model without logits.

    Reference: PDU, arXiv 2506.05314.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> batch = Batch(text, jnp.array([0]))
    >>> pdu_forget(model)(1.0, (), batch, jax.random.key(0))[0].tolist()
    [0.0]
    """
    return _on_logits(
        model, lambda logits, *_: equations.flatness(logits), (), reduction=reduction
    )


def rmu(
    model: Model,
    hidden: Model,
    *,
    coefficient: float | Array = 2.0,
    key: Array | None = None,
    reduction: str = "sequence",
) -> Objective:
    """Return ‖h_L − c·u‖²/D by token: hidden states led to one random direction (RMU).

    u is drawn once, uniform in [0, 1)^D, and divided by its norm. Beside `hold_hidden`
    on the retain texts it is RMU; published: layer 7 and c of 2 (TOFU), or c of 6.5,
    the retain loss times 1200, and the layers 5 to 7 trained alone (WMDP). One public
    code counts padding, another divides `[B]` by `[B, 1]`: here it is a mean over the
    positions that predict an answer.

    Args:
      model: of logits or `Scored`, for the loss that weightings look at.
      hidden: of the states of layer L, `[B, T, D]`, with the same parameters:
        `ju.language.decoder(config, outputs="hidden", layer=7)`.
      coefficient: c.
      key: of u; default of seed 0.
      reduction: see `reduced`.

    Raises:
      InputError: c not positive, an unknown reduction; in the step, outputs of `hidden`
        that are no states.

    Reference: RMU, arXiv 2403.03218.

    >>> import jax_unlearn as ju
    >>> hidden = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 1))
    ... )
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> batch = Batch(text, jnp.array([0]))
    >>> rmu(model, hidden)(0.5, (), batch, jax.random.key(0))[0].tolist()  # (½ − 2)²
    [2.25]
    """
    _validate.positive("coefficient", coefficient, "try 2")
    key = jax.random.key(0) if key is None else key

    def by_token(states, batch, data):
        del batch
        direction = jax.random.uniform(data, states.shape[-1:], jnp.float32)
        aim = coefficient * direction / jnp.linalg.norm(direction)
        return equations.steering_loss(states, jnp.broadcast_to(aim, states.shape))

    return _on_states(model, hidden, by_token, key, reduction=reduction)


def hold_hidden(
    model: Model, hidden: Model, teacher: Teacher, *, reduction: str = "sequence"
) -> Objective:
    """Return ‖h_L − h_L,o‖²/D by token: the retain loss of RMU.

    The arguments are those of `rmu`; the teacher is the original.

    Raises:
      InputError: as `rmu`.

    Reference: RMU, arXiv 2403.03218.

    >>> import jax_unlearn as ju
    >>> hidden = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = ju.language.Text(jnp.array([[2, 3]]), jnp.array([[False, True]]))
    >>> objective = hold_hidden(hidden, hidden, ju.objectives.Teacher(1.0, ()))
    >>> objective(3.0, (), Batch(text, jnp.array([0])), jax.random.key(0))[0].tolist()
    [4.0]
    """

    def by_token(states, batch, data):
        before, _ = forward_pass(
            hidden.apply, data[0], data[1], batch.inputs, train=False
        )
        before = jax.lax.stop_gradient(before)[:, :-1]
        return equations.steering_loss(states, before)

    return _on_states(model, hidden, by_token, teacher, reduction=reduction)


ByToken = Callable[[Array, Batch, PyTree], Array]
"""`(what is seen [B, T−1, ...], batch, data) -> f32[B, T−1]`."""


def _on_logits(
    model: Model, by_token: ByToken, data: PyTree, *, reduction: str, skip: int = 0
) -> Objective:
    """Return the objective of a loss on the logits of each answered token."""

    def forward(objective: Objective, at, batch: Batch, key: Array):
        answered(batch.inputs)
        mode = {"train": objective.train, "key": key}
        logits, after = forward_pass(
            objective.model.apply, at[0], at[1], batch.inputs, **mode
        )
        _check_logits(logits)
        return Judged(*scored(logits, batch.inputs), logits), after

    return _objective(model, by_token, data, reduction, skip)._replace(forward=forward)


def _on_states(
    model: Model, hidden: Model, by_token: ByToken, data: PyTree, *, reduction: str
) -> Objective:
    """Return the objective of a loss on the states that predict answered tokens."""

    def forward(objective: Objective, at, batch: Batch, key: Array):
        # what weightings look at needs no gradient
        fixed = jax.lax.stop_gradient(at[0]), at[1]
        tokens, _ = scored_pass(objective.model, fixed, batch.inputs, key, train=False)
        mode = {"train": objective.train, "key": key}
        states, after = forward_pass(hidden.apply, at[0], at[1], batch.inputs, **mode)
        shape = getattr(states, "shape", None)
        if shape is None or shape[:-1] != batch.inputs.tokens.shape:
            kind = type(states).__name__ if shape is None else f"of shape {shape}"
            raise InputError(
                f"the outputs of hidden are {kind}: give states [B, T, D], "
                "ju.language.decoder(config, outputs='hidden', layer=7)"
            )
        return Judged(*tokens, states), after

    return _objective(model, by_token, data, reduction, 0)._replace(forward=forward)


def _objective(
    model: Model, by_token: ByToken, data: PyTree, reduction: str, skip: int
) -> Objective:
    _validate.choice("reduction", reduction, *REDUCTIONS)

    def output_loss(outputs, batch, key, data):
        del key
        own = outputs.counted
        if skip:
            own = own & (jnp.cumsum(own, axis=-1) > skip)
        # the last position predicts nothing
        found = by_token(outputs.seen[:, :-1], batch, data)
        tokens = Scored(jnp.where(own, found, 0.0), own)
        losses = reduced(tokens, batch, reduction=reduction)
        return losses, reduced(outputs, batch)

    return Objective(model, output_loss, data, joint=reduction == "token")


def _logits(model: Model, teacher: Teacher, text: Text) -> Array:
    """Return the teacher's logits at the positions that predict, detached."""
    logits, _ = forward_pass(model.apply, *teacher, text, train=False)
    _check_logits(logits)
    return jax.lax.stop_gradient(logits)[:, :-1]


def _following(text: Text) -> Array:
    """Return the answered tokens, 0 elsewhere."""
    return jnp.where(answered(text), text.tokens[:, 1:], 0)


def _check_logits(outputs: PyTree) -> None:
    if isinstance(outputs, Scored):
        raise InputError(
            "this objective needs logits [B, T, V], and the model gives Scored; make "
            "it by ju.language.decoder(config, outputs='logits')"
        )
