"""Put a forget loss, a retain loss, a weighting and an optimizer together."""

import math
from typing import TypedDict, cast

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate, harmonize
from jax_unlearn.contracts import forward_pass
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import counted, mean_loss, uniform_weights, weighted_grad
from jax_unlearn.methods.step import (
    FEWEST,
    Pass,
    Weigher,
    forget_gradient,
    next_state,
    steady,
    stepping,
    weights_of,
    with_data,
)
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import (
    Array,
    Aux,
    Harmonizer,
    LossFn,
    Model,
    Unlearner,
    Weighting,
)
from jax_unlearn.weights.combine import uniform

__all__ = ["Assembly", "assemble", "separate_pass"]


_LINEAR = harmonize.Sum, harmonize.Separately


class Assembly(TypedDict, total=False):
    """What most methods hand on to `assemble`, which says what it means."""

    weighting: Weighting | None
    harmonizer: Harmonizer | None
    model_state: str
    forward: str
    fewest: int


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
    fewest: int = FEWEST,
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

      fewest: a pass of fewer samples takes no BatchNorm statistics: it runs in eval
        mode, and a warning says so. Those of one sample, taken 30 times, are no longer
        those of the data. 0 takes them all the same. Padding counts where it has ids.
        Requests of 4 to 15 samples still lose some points by their statistics: give
        `model_state="frozen"`, as the command line does by itself.

    Returns:
      An `Unlearner`; its `init` copies the parameters and the objectives' arrays.

    Raises:
      InputError: no loss at all, unknown option, or a merged pass of losses that are
        not `Objective`s, with a harmonizer or with `model_state="retain"`.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = assemble(model, optax.sgd(1.0), forget=ju.objectives.ascent(model))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − p_1, p_1 = 1/(1 + e²)
    1.8808
    """
    if forget is None and retain is None:
        raise InputError("forget=None, retain=None: give at least one loss")
    _validate.choice("forward", forward, "separate", "merged")
    if forward == "merged":
        _check_merged(forget, retain, harmonizer, model_state)
    if model_state == "frozen":
        forget, retain = _eval_mode(forget), _eval_mode(retain)
    weigher = Weigher(model, weighting or uniform())
    join = harmonizer or harmonize.add()

    def passed(state, batch, key):
        losses = tuple(map(with_data, (forget, retain), state.objective_state))
        both = batch.forget is not None and batch.retain is not None
        if forward == "merged" and both:
            told = {"key": key, "fewest": fewest}
            return _merged(losses, weigher, state, batch, **told)
        told = {"harmonizer": join, "mode": model_state, "fewest": fewest}
        return separate_pass(losses, weigher, state, batch, key=key, **told)

    losses = [loss for loss in (forget, retain) if loss is not None]
    joined = len(losses) == 2 and not isinstance(join, _LINEAR)
    joint = joined or any(getattr(loss, "joint", False) for loss in losses)
    return stepping(
        passed,
        optimizer,
        joint=joint or weigher.weighting.joint,
        weighting=weigher.weighting,
        data=tuple(getattr(loss, "data", ()) for loss in (forget, retain)),
        model_state=model_state,
    )


def separate_pass(
    losses, weigher, state, batch, *, key, harmonizer, mode, fewest
) -> Pass:
    """Return the joint gradient of one pass a batch."""
    forget_key, retain_key = jax.random.split(key)
    forget, retain = losses
    passed = Pass(None, state.model_state, state.weight_state)
    g_forget = g_retain = None
    if forget is not None and batch.forget is not None:
        at = state.model_state
        loss = steady(forget, at, batch.forget, fewest=fewest)
        g_forget, info = forget_gradient(weigher, loss, state, batch, key=forget_key)
        passed = passed._replace(
            weight_state=info.carry,
            weights=info.weights,
            task_losses=info.aux.task_losses,
            forget_loss=mean_loss(info.losses, batch.forget.mask),
            losses=info.losses,
        )
        if mode == "sequential":
            after = next_state(at, info.aux.model_state, batch.forget, fewest)
            passed = passed._replace(model_state=after)
    if retain is not None and (kept := batch.retain) is not None:
        at = passed.model_state
        loss = steady(retain, at, kept, fewest=fewest)
        g_retain, info = weighted_grad(
            lambda params: loss(params, at, kept, retain_key),
            state.params,
            uniform_weights,
            where=kept.mask,
        )
        passed = passed._replace(
            model_state=next_state(at, info.aux.model_state, kept, fewest),
            retain_loss=mean_loss(info.losses, kept.mask),
        )
    if g_forget is None and g_retain is None:
        raise InputError(
            "the step has no batch for any of its losses; fill UnlearnBatch.forget or "
            "UnlearnBatch.retain"
        )
    if g_forget is not None and g_retain is not None:
        passed = passed._replace(conflict=harmonize.cosine(g_forget, g_retain))
    if isinstance(harmonizer, harmonize.Separately):
        return passed._replace(grads=harmonizer(g_forget, g_retain))
    pair = (
        optax.tree.zeros_like(g_retain) if g_forget is None else g_forget,
        optax.tree.zeros_like(g_forget) if g_retain is None else g_retain,
    )
    return passed._replace(grads=harmonizer(*pair))


def _merged(losses, weigher: Weigher, state, batch, *, key: Array, fewest: int) -> Pass:
    """Return the joint gradient of one forward pass over both batches."""
    forget, retain = losses
    pair = (batch.forget, batch.retain)
    trains = steady(forget, state.model_state, *pair, fewest=fewest)
    forget = cast(Objective, trains)
    sizes = (pair[0].labels.shape[0], pair[1].labels.shape[0])
    weights_fn = weights_of(weigher, forget, state, batch)
    forget_key, retain_key, apply_key = jax.random.split(key, 3)
    inputs = jax.tree.map(_join, pair[0].inputs, pair[1].inputs)

    def losses_fn(params):
        at, mode = (params, state.model_state), {"train": forget.train}
        outputs, model_state = forward_pass(
            forget.model.apply, *at, inputs, key=apply_key, **mode
        )
        first, second = (
            jax.tree.map(lambda leaf, own=own: _part(leaf, sizes)[own], outputs)
            for own in (0, 1)
        )
        losses, task_losses = forget.output_loss(
            first, pair[0], forget_key, forget.data
        )
        others, _ = retain.output_loss(second, pair[1], retain_key, retain.data)
        return _join(losses, others), Aux(first, task_losses, model_state)

    def joint_weights(losses, aux):
        first, second = _part(losses, sizes)
        weights, carry = weights_fn(first, aux)
        return _join(weights, jnp.ones_like(second)), carry

    where = _join(counted(pair[0]), counted(pair[1]))
    grads, info = weighted_grad(losses_fn, state.params, joint_weights, where=where)
    forget_losses, retain_losses = _part(info.losses, sizes)
    return Pass(
        grads,
        info.aux.model_state,
        info.carry,
        _part(info.weights, sizes)[0],
        info.aux.task_losses,
        mean_loss(forget_losses, pair[0].mask),
        mean_loss(retain_losses, pair[1].mask),
        losses=forget_losses,
        shares=_shares(where, counted(pair[0])),
    )


def _shares(where: Array, forget: Array) -> tuple[Array, Array]:
    """Return which parts of a mean over both batches are those of each."""
    first = jnp.sum(forget) / jnp.maximum(jnp.sum(where), 1)
    return first, 1 - first


def _check_merged(forget, retain, harmonizer, model_state: str) -> None:
    """Refuse what one pass over both batches cannot do."""
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
            "forward='merged' makes one gradient, so harmonizer has no two to join; "
            "use forward='separate'"
        )
    if model_state == "retain":
        raise InputError(
            "forward='merged' has joint BatchNorm statistics, which "
            "model_state='retain' forbids; use forward='separate'"
        )


def _eval_mode(loss: LossFn | None) -> LossFn | None:
    return loss._replace(train=False) if isinstance(loss, Objective) else loss


def _join(first: Array, second: Array) -> Array:
    """Return the rows of both in turns, so that each device joins rows of its own."""
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
