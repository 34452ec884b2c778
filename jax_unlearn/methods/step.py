"""What all methods share: from the gradient of a step to an `Unlearner`."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate
from jax_unlearn.contracts import forward_pass, usable
from jax_unlearn.gradients import WeightedGradInfo, weighted_grad
from jax_unlearn.leaves import divided
from jax_unlearn.objectives.base import Objective, task_loss
from jax_unlearn.types import (
    Array,
    Aux,
    Batch,
    LossFn,
    Model,
    ModelState,
    Params,
    PyTree,
    Sample,
    UnlearnBatch,
    Unlearner,
    UnlearnInfo,
    UnlearnState,
    Weighting,
    copied,
)

__all__ = [
    "Pass",
    "Weigher",
    "annealed",
    "copied",
    "forget_gradient",
    "real_index",
    "stepping",
]
__all__ += ["weights_of", "with_data"]


class Pass(NamedTuple):
    """The joint gradient of a step, the states after it, and parts of `UnlearnInfo`."""

    grads: PyTree
    model_state: ModelState
    weight_state: PyTree
    weights: Array | None = None
    task_losses: Array | None = None
    forget_loss: Array | float = 0.0
    retain_loss: Array | float = 0.0
    conflict: Array | float = 0.0


def stepping(
    passed: Callable[[UnlearnState, UnlearnBatch, Array], Pass],
    optimizer: optax.GradientTransformation,
    *,
    weighting: Weighting,
    data: PyTree,
    model_state: str,
) -> Unlearner:
    """Make an `Unlearner` of a step's gradient; `data` becomes `objective_state`."""
    _validate.choice("model_state", model_state, "sequential", "retain", "frozen")
    frozen = model_state == "frozen"
    minimiser = optax.with_extra_args_support(optimizer)

    def init(params, model_state):
        params, model_state = copied((params, model_state))
        return UnlearnState(
            params,
            model_state,
            copied(optimizer.init(divided(params)[0])),
            copied(weighting.init()),
            copied(data),
            jnp.int32(0),
        )

    def step(state, batch, key):
        batch = usable(batch)
        found = passed(state, batch, key)
        # Of those that ask for it, such as a plateau's: the loss as it was looked at.
        value = jnp.float32(found.forget_loss + found.retain_loss)
        part, whole = divided(state.params)
        updates, opt_state = minimiser.update(
            found.grads, state.opt_state, part, value=value, grad=found.grads
        )
        info = UnlearnInfo(
            jnp.asarray(found.forget_loss, jnp.float32),
            jnp.asarray(found.retain_loss, jnp.float32),
            found.weights,
            found.task_losses,
            None if found.weights is None else real_index(batch.forget),
            jnp.asarray(found.conflict, jnp.float32),
            optax.tree.norm(optax.tree.cast(updates, jnp.float32)),
        )
        new = UnlearnState(
            whole(optax.apply_updates(part, updates)),
            state.model_state if frozen else found.model_state,
            opt_state,
            found.weight_state,
            state.objective_state,
            state.step + 1,
        )
        return new, info

    return Unlearner(init, step)


def annealed(
    optimizer: optax.GradientTransformation, factors: optax.Schedule
) -> optax.GradientTransformation:
    """Let the rate of an optimizer follow a schedule of factors by the step."""
    # strict dtype promotion forbids a schedule of an integer
    falling = optax.scale_by_schedule(lambda step: factors(jnp.float32(step)))
    return optax.chain(optimizer, falling)


class Weigher(NamedTuple):
    """The weighting of a method, and the model it may run over unseen samples."""

    model: Model
    weighting: Weighting


def forget_gradient(
    weigher: Weigher, loss: LossFn, state: UnlearnState, batch: UnlearnBatch, *, key
) -> tuple[Params, WeightedGradInfo]:
    """Return the weighted gradient of the step's forget batch; see `weighted_grad`."""
    forget = cast(Batch, batch.forget)

    def losses_fn(params: Params):
        return loss(params, state.model_state, forget, key)

    weights_fn = weights_of(weigher, loss, state, batch)
    return weighted_grad(losses_fn, state.params, weights_fn, where=forget.mask)


def weights_of(
    weigher: Weigher, loss: LossFn, state: UnlearnState, batch: UnlearnBatch
) -> Callable[[Array, Aux], tuple[Array, PyTree]]:
    """Return the weights function of the step's forget batch, for `weighted_grad`."""
    forget_batch, unseen = cast(Batch, batch.forget), batch.reference
    at = state.params, state.model_state

    def reference() -> Sample:
        other = cast(Batch, unseen)
        if isinstance(loss, Objective) and loss.forward is not None:
            key = jax.random.fold_in(jax.random.key(0), state.step)
            _, aux = loss._replace(train=False)(*at, other, key)
            return Sample(aux.task_losses, aux.outputs, *other[1:])
        apply = weigher.model.apply
        outputs, _ = forward_pass(apply, *at, other.inputs, train=False)
        return Sample(task_loss(outputs, other), outputs, *other[1:])

    def weights_fn(losses, aux):
        del losses
        sample = Sample(aux.task_losses, aux.outputs, *forget_batch[1:])
        given = None if unseen is None else reference
        return weigher.weighting.update(sample, state.weight_state, reference=given)

    return weights_fn


def with_data(loss: Any, data: PyTree) -> Any:
    """Give an objective its arrays from the state; any other loss passes through."""
    return loss._replace(data=data) if isinstance(loss, Objective) else loss


def real_index(batch: Batch | None) -> Array | None:
    """Return the ids of the samples, −1 for padding."""
    if batch is None or batch.index is None or batch.mask is None:
        return None if batch is None else batch.index
    return jnp.where(batch.mask, batch.index, -1)
