"""What all methods share: from the gradient of a step to an `Unlearner`."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate
from jax_unlearn.contracts import forward_pass, usable
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import WeightedGradInfo, mean_loss, weighted_grad
from jax_unlearn.leaves import apart, divided
from jax_unlearn.objectives.base import Objective, task_loss
from jax_unlearn.optimizers import accumulates, applied, skipped
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

__all__ = ["FEWEST", "Pass", "Weigher", "annealed", "copied", "enough"]
__all__ += ["equal_parts", "forget_gradient", "kept", "mean_state", "next_state"]
__all__ += ["real_index", "statistics"]
__all__ += ["steady", "stepping"]
__all__ += ["weights_of", "with_data"]


FEWEST = 4  # below, over ten points are lost: tests/benchmarks/bench_statistics.py
"""Samples of a pass below which its BatchNorm statistics are not taken."""

ACCUMULATED = (
    "optax.MultiSteps adds up gradients of parts, but this step depends on its batch "
    "as a whole (by weights, harmonizer, target or a look ahead): the result is not "
    "that of one large batch"
)
SHARDED = (
    "inside shard_map a step sees the samples of one device alone, but this one "
    "depends on its batch as a whole (by weights, harmonizer, target or a look ahead): "
    "place it by jax.device_put and a NamedSharding, under `jax.jit`"
)
WHOLE = (
    "for a whole batch in little memory give the method ju.memory.microbatched(model, "
    "size)"
)


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
    losses: Array | None = None
    shares: tuple[Array | float, Array | float] = (1.0, 1.0)

    def value(self, batch: UnlearnBatch, weights: Array | None) -> Array:
        """Return the loss that the step descends on, the weights as they are given."""
        forget = self.forget_loss
        if self.losses is not None and weights is not None:
            mask = cast(Batch, batch.forget).mask
            forget = mean_loss(weights * self.losses.astype(jnp.float32), mask)
        first, second = self.shares
        return jnp.float32(first * forget + second * self.retain_loss)


def stepping(
    passed: Callable[[UnlearnState, UnlearnBatch, Array], Pass],
    optimizer: optax.GradientTransformation,
    *,
    weighting: Weighting,
    data: PyTree,
    model_state: str,
    joint: bool,
) -> Unlearner:
    """Make an `Unlearner` of a step's gradient; `data` becomes `objective_state`.

    `joint`: the gradient of a batch is not the mean of those of its parts.
    """
    _validate.choice("model_state", model_state, "sequential", "retain", "frozen")
    frozen = model_state == "frozen"
    minimiser = optax.with_extra_args_support(optimizer)

    def init(params, model_state):
        params, model_state = copied((params, model_state))
        opt_state = copied(optimizer.init(divided(params)[0]))
        if joint and accumulates(opt_state):
            warnings.warn(f"{ACCUMULATED}; {WHOLE}", stacklevel=2)
        return UnlearnState(
            params,
            model_state,
            opt_state,
            copied(weighting.init()),
            copied(data),
            jnp.int32(0),
        )

    def step(state, batch, key):
        batch = usable(batch)
        axes = set(jax.sharding.get_abstract_mesh().manual_axes) - {"ensemble"}
        if joint and axes:
            warnings.warn(f"{SHARDED}; {WHOLE}", stacklevel=2)
        found = passed(state, batch, key)
        part, whole = divided(state.params)
        fixed = None if found.weights is None else jax.lax.stop_gradient(found.weights)

        def value_fn(part: PyTree) -> Array:
            moved = passed(state._replace(params=whole(part)), batch, key)
            return moved.value(batch, fixed)

        # For optimizers that ask: plateau's, those that search along a line.
        value = found.value(batch, fixed)
        told = {"value": value, "grad": found.grads, "value_fn": value_fn}
        updates, opt_state = minimiser.update(
            found.grads, state.opt_state, part, **told
        )
        if (left_out := skipped(opt_state)) is not None:  # what it saw is not carried
            before = state.model_state, state.weight_state
            after = found.model_state, found.weight_state
            after = kept(left_out, before, after)
            found = found._replace(model_state=after[0], weight_state=after[1])
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
            whole(applied(part, updates)),
            state.model_state if frozen else found.model_state,
            opt_state,
            found.weight_state,
            state.objective_state,
            state.step + 1,
            state.ema,
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


def kept(left_out: Array, before: PyTree, after: PyTree) -> PyTree:
    """Return what was before, if a step was left out."""

    def chosen(old, new):
        return new if new is old else jnp.where(left_out, old, new)

    return jax.tree.map(chosen, before, after)


def steady(
    loss: LossFn, model_state: ModelState, *batches: Batch, fewest: int
) -> LossFn:
    """Return the loss of a pass; in eval mode where it has too few samples."""
    if not isinstance(loss, Objective) or not loss.train:
        return loss
    train = enough(model_state, *batches, fewest=fewest)
    return loss if train else loss._replace(train=False)


def enough(model_state: ModelState, *batches: Batch, fewest: int = FEWEST) -> bool:
    """Return whether a pass may take statistics, if there are any; warn if not."""
    rows = sum(batch.labels.shape[0] for batch in batches)
    if rows >= fewest or not statistics(model_state):
        return True
    warnings.warn(
        f"a pass over {rows} samples has too few for BatchNorm statistics (fewer than "
        f"{fewest}): they are not updated; give larger batches, or fewest=0 to the "
        "method, which updates them all the same",
        stacklevel=2,
    )
    return False


def next_state(before: ModelState, after: ModelState, batch: Batch, fewest: int) -> Any:
    """Return the model state after a pass, unless it had too few samples.

    Padding that has ids is of real samples, which statistics may see; without ids it
    may be anything, and the samples that count are counted.
    """
    if not statistics(before):
        return after
    if batch.labels.shape[0] < fewest:
        return before
    if batch.mask is None or batch.index is not None or not fewest:
        return after
    return kept(jnp.sum(batch.mask) < fewest, before, after)


def equal_parts(retain: Batch, parts: int) -> Batch:
    """Return the batch with a leading axis of equal parts."""
    size = retain.labels.shape[0]
    if size % parts or not size:
        raise InputError(
            f"{size} retain samples in the batch are not queries={parts} equal parts; "
            "use ju.data.queried with as many strategies"
        )
    return jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), retain)


def mean_state(first: Any, others: Any, count: int) -> Any:
    """Return the mean of the states of all passes; what has no mean, of the last."""

    def mean(stacked, *support):
        if not jnp.issubdtype(stacked.dtype, jnp.floating):
            return stacked[-1]
        total = sum(support, jnp.sum(stacked, axis=0))
        return (total / (count + len(support))).astype(stacked.dtype)

    trees = (others,) if first is None else (others, first)
    return jax.tree.map(mean, *trees)


def statistics(model_state: ModelState) -> bool:
    """Return whether a model state holds what training passes estimate."""
    leaves = jax.tree.leaves(apart(model_state)[0])
    return any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)


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
        if jnp.ndim(outputs) > 2 and jnp.ndim(other.labels) == 1:
            raise InputError(
                f"the reference batch has outputs of shape {outputs.shape} and one "
                "label a sample, so its losses are not known: give texts as "
                "ju.language.Text to an objective that scores their tokens, such as "
                "ju.objectives.next_token_ascent"
            )
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
