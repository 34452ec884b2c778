"""Put a forget loss, a retain loss, a weighting and an optimizer together."""

import math
from typing import cast

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import harmonize
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import uniform_weights, weighted_grad
from jax_unlearn.methods.step import (
    Pass,
    mean_loss,
    stepping,
    weights_of,
    with_data,
)
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import (
    Array,
    Aux,
    Batch,
    Harmonizer,
    LossFn,
    Model,
    ModelState,
    Params,
    UnlearnBatch,
    Unlearner,
    UnlearnState,
    Weighting,
)
from jax_unlearn.weights.combine import uniform


def assemble(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    forget: LossFn | None = None,
    retain: LossFn | None = None,
    weighting: Weighting | None = None,
    harmonizer: Harmonizer | None = None,
    model_state: str = "sequential",
    forward: str = "separate",
) -> Unlearner:
    """Make an `Unlearner` of parts; every method of the library is one such call.

    A step descends along H(g_f, g_r), with g_f = (1/n_f) Σ w_i ∇ℓ_f,i over the forget
    batch and g_r = (1/n_r) Σ ∇ℓ_r,i over the retain batch. A batch that is None, or a
    loss that is None, leaves its gradient out.

    Args:
      model: the network; used for reference batches and merged passes.
      optimizer: any optax transformation.
      forget: loss on forget samples.
      retain: loss on retain samples.
      weighting: weights of the forget samples; default uniform.
      harmonizer: joins the two gradients; default their plain sum.
      model_state: what the step does to BatchNorm statistics. "sequential": the forget
        pass updates them, then the retain pass; "retain": only the retain pass;
        "frozen": nobody, and the objectives run in eval mode.
      forward: "separate": one pass a batch; "merged": both batches in one pass with
        joint BatchNorm statistics and one mean over all samples, (Σ w_i ∇ℓ_f,i +
        Σ ∇ℓ_r,i)/(n_f + n_r), as in FaLW's Algorithm 1.

    Returns:
      An `Unlearner`; its `init` copies the parameters and the objectives' arrays.

    Raises:
      InputError: no loss at all, unknown option, or a merged pass of losses that are
        not `Objective`s, with a harmonizer or with `model_state="retain"`.

    >>> from jax_unlearn import objectives
    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = assemble(model, optax.sgd(1.0), forget=objectives.ascent(model))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> forget = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state, info = alg.step(state, UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − p_1, p_1 = 1/(1 + e²)
    1.8808
    """
    if forget is None and retain is None:
        raise InputError("forget=None, retain=None: give at least one loss")
    if model_state not in ("sequential", "retain", "frozen"):
        raise InputError(
            f"model_state={model_state!r}: choose 'sequential', 'retain' or 'frozen'"
        )
    if forward not in ("separate", "merged"):
        raise InputError(f"forward={forward!r}: choose 'separate' or 'merged'")
    if forward == "merged":
        if not (isinstance(forget, Objective) and isinstance(retain, Objective)):
            raise InputError(
                "forward='merged' needs forget and retain made by ju.objectives; use "
                "forward='separate' for other losses"
            )
        if forget.forward is not None or retain.forward is not None:
            raise InputError(
                "forward='merged' needs the model's own pass on the inputs; use "
                "forward='separate' for objectives that change them, such as denoise"
            )
        if harmonizer is not None:
            raise InputError(
                "forward='merged' makes one gradient, so harmonizer has no two to "
                "join; use forward='separate'"
            )
        if model_state == "retain":
            raise InputError(
                "forward='merged' has joint BatchNorm statistics, which "
                "model_state='retain' forbids; use forward='separate'"
            )
    if model_state == "frozen":
        forget, retain = _eval_mode(forget), _eval_mode(retain)
    weigh = uniform() if weighting is None else weighting
    join = harmonize.add() if harmonizer is None else harmonizer

    def separate(state: UnlearnState, batch: UnlearnBatch, key: Array) -> Pass:
        forget_key, retain_key = jax.random.split(key)
        forget_loss, retain_loss = with_data((forget, retain), state.objective_state)
        passed = Pass(None, state.model_state, state.weight_state)
        g_forget = g_retain = None
        if forget_loss is not None and batch.forget is not None:
            losses_fn = _losses_fn(
                forget_loss, passed.model_state, batch.forget, forget_key
            )
            g_forget, info = weighted_grad(
                losses_fn,
                state.params,
                weights_of(model, weigh, state, batch, forget_loss),
                where=batch.forget.mask,
            )
            passed = passed._replace(
                weight_state=info.carry,
                weights=info.weights,
                task_losses=info.aux.task_losses,
                forget_loss=mean_loss(info.losses, batch.forget.mask),
            )
            if model_state == "sequential":
                passed = passed._replace(model_state=info.aux.model_state)
        if retain_loss is not None and batch.retain is not None:
            losses_fn = _losses_fn(
                retain_loss, passed.model_state, batch.retain, retain_key
            )
            g_retain, info = weighted_grad(
                losses_fn, state.params, uniform_weights, where=batch.retain.mask
            )
            passed = passed._replace(
                model_state=info.aux.model_state,
                retain_loss=mean_loss(info.losses, batch.retain.mask),
            )
        if g_forget is None or g_retain is None:
            grads = g_forget if g_retain is None else g_retain
            if grads is None:
                raise InputError(
                    "the step has no batch for any of its losses; fill "
                    "UnlearnBatch.forget or UnlearnBatch.retain"
                )
            zero = optax.tree.zeros_like(grads)
            pair = (grads, zero) if g_retain is None else (zero, grads)
            return passed._replace(grads=join(*pair))
        return passed._replace(
            grads=join(g_forget, g_retain),
            conflict=harmonize.cosine(g_forget, g_retain),
        )

    def merged(state: UnlearnState, batch: UnlearnBatch, key: Array) -> Pass:
        losses = with_data((forget, retain), state.objective_state)
        pair = cast(tuple[Batch, Batch], (batch.forget, batch.retain))
        sizes = (pair[0].labels.shape[0], pair[1].labels.shape[0])
        where = _join(_counted(pair[0]), _counted(pair[1]))
        weights_fn = weights_of(model, weigh, state, batch)

        def losses_fn(params: Params):
            return _joint_losses(losses, params, state.model_state, pair, key)

        def joint_weights(losses: Array, aux: tuple[Aux, ModelState]):
            first, second = _part(losses, sizes)
            weights, carry = weights_fn(first, aux[0])
            return _join(weights, jnp.ones_like(second)), carry

        grads, info = weighted_grad(losses_fn, state.params, joint_weights, where=where)
        forget_losses, retain_losses = _part(info.losses, sizes)
        return Pass(
            grads,
            info.aux[1],
            info.carry,
            _part(info.weights, sizes)[0],
            info.aux[0].task_losses,
            mean_loss(forget_losses, pair[0].mask),
            mean_loss(retain_losses, pair[1].mask),
        )

    def passed(state: UnlearnState, batch: UnlearnBatch, key: Array) -> Pass:
        both = batch.forget is not None and batch.retain is not None
        return (merged if forward == "merged" and both else separate)(state, batch, key)

    return stepping(
        passed,
        optimizer,
        weighting=weigh,
        data=tuple(getattr(loss, "data", ()) for loss in (forget, retain)),
        frozen=model_state == "frozen",
    )


def _eval_mode(loss: LossFn | None) -> LossFn | None:
    return loss._replace(train=False) if isinstance(loss, Objective) else loss


def _losses_fn(loss: LossFn, model_state: ModelState, batch: Batch, key: Array):
    def losses_fn(params: Params):
        return loss(params, model_state, batch, key)

    return losses_fn


def _joint_losses(losses, params, model_state, pair, key):
    """Return the losses of both batches from one forward pass."""
    forget, retain = losses
    sizes = (pair[0].labels.shape[0], pair[1].labels.shape[0])
    forget_key, retain_key, apply_key = jax.random.split(key, 3)
    inputs = jax.tree.map(_join, pair[0].inputs, pair[1].inputs)
    outputs, model_state = forget.model.apply(
        params, model_state, inputs, train=forget.train, key=apply_key
    )
    first = jax.tree.map(lambda leaf: _part(leaf, sizes)[0], outputs)
    second = jax.tree.map(lambda leaf: _part(leaf, sizes)[1], outputs)
    forget_losses, task_losses = forget.output_loss(
        first, pair[0], forget_key, forget.data
    )
    retain_losses, _ = retain.output_loss(second, pair[1], retain_key, retain.data)
    aux = Aux(first, task_losses, model_state)
    return _join(forget_losses, retain_losses), (aux, model_state)


def _join(first: Array, second: Array) -> Array:
    """Return the rows of both, in turns of the smallest whole ratio.

    One after the other would send rows from device to device where both batches are
    spread: in turns, each device joins its own.
    """
    turns = max(math.gcd(len(first), len(second)), 1)
    parts = [rows.reshape(turns, -1, *rows.shape[1:]) for rows in (first, second)]
    return jnp.concatenate(parts, axis=1).reshape(-1, *first.shape[1:])


def _part(rows: Array, sizes: tuple[int, int]) -> tuple[Array, Array]:
    """Undo `_join` of arrays of these sizes."""
    turns = max(math.gcd(*sizes), 1)
    own = sizes[0] // turns
    grouped = rows.reshape(turns, -1, *rows.shape[1:])
    first, second = grouped[:, :own], grouped[:, own:]
    shape = (-1, *rows.shape[1:])
    return first.reshape(shape), second.reshape(shape)


def _counted(batch: Batch) -> Array:
    if batch.mask is None:
        return jnp.ones(batch.labels.shape, jnp.bool_)
    return batch.mask
