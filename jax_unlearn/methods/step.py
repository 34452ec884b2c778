"""What all methods share: from the gradient of a step to an `Unlearner`."""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jax_unlearn.losses import cross_entropy
from jax_unlearn.objectives.base import Objective
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
)


class Pass(NamedTuple):
    """The joint gradient of a step and its by-products.

    Attributes:
      grads: pytree like the parameters.
      model_state: after the passes of the step.
      weight_state: of the weighting, likewise.
      weights, task_losses, forget_loss, retain_loss, conflict: as in `UnlearnInfo`.
    """

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
    frozen: bool = False,
) -> Unlearner:
    """Make an `Unlearner` of the function that returns a step's gradient.

    Args:
      passed: `(state, batch, key) -> Pass`.
      optimizer: any optax transformation, fed with the gradient.
      weighting: its state is carried.
      data: arrays of the objectives, carried as `objective_state`.
      frozen: leave the model state as it is.

    Returns:
      An `Unlearner`; its `init` copies the parameters and the arrays.
    """

    def init(params: Params, model_state: ModelState) -> UnlearnState:
        params, model_state = _copy((params, model_state))
        return UnlearnState(
            params,
            model_state,
            _copy(optimizer.init(params)),
            _copy(weighting.init()),
            _copy(data),
            jnp.int32(0),
        )

    def step(
        state: UnlearnState, batch: UnlearnBatch, key: Array
    ) -> tuple[UnlearnState, UnlearnInfo]:
        found = passed(state, batch, key)
        updates, opt_state = optimizer.update(
            found.grads, state.opt_state, state.params
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
            cast(PyTree, optax.apply_updates(state.params, updates)),
            state.model_state if frozen else found.model_state,
            opt_state,
            found.weight_state,
            state.objective_state,
            state.step + 1,
        )
        return new, info

    return Unlearner(init, step)


def weights_of(
    model: Model,
    weighting: Weighting,
    state: UnlearnState,
    batch: UnlearnBatch,
    loss: LossFn | None = None,
) -> Callable[[Array, Aux], tuple[Array, PyTree]]:
    """Return the weights function of the step's forget batch.

    Args:
      model: run over the reference batch if the weighting asks for it.
      weighting: of the forget samples.
      state: before the step.
      batch: with a forget batch.
      loss: of the forget batch; an objective with a pass of its own makes that pass
        over the reference batch too.

    Returns:
      `(losses [B], aux) -> (weights [B], weight state)`, for `weighted_grad`.
    """
    forget_batch, unseen = cast(Batch, batch.forget), batch.reference

    def reference() -> Sample:
        return _reference_sample(model, state, cast(Batch, unseen), loss)

    def weights_fn(losses: Array, aux: Aux) -> tuple[Array, PyTree]:
        del losses
        sample = Sample(
            aux.task_losses,
            aux.outputs,
            forget_batch.labels,
            forget_batch.index,
            forget_batch.mask,
        )
        return weighting.update(
            sample,
            state.weight_state,
            reference=None if unseen is None else reference,
        )

    return weights_fn


def with_data(losses, data):
    """Give objectives their arrays from the state; other losses pass through.

    Args:
      losses: objectives, other loss functions, or None.
      data: the arrays of each, `()` where there are none.

    Returns:
      Tuple of losses.
    """
    return tuple(
        loss._replace(data=own) if isinstance(loss, Objective) else loss
        for loss, own in zip(losses, data, strict=True)
    )


def mean_loss(losses: Array, mask: Array | None) -> Array:
    """Return the mean of the counted losses, 0 if none counts.

    >>> print(mean_loss(jnp.array([1.0, 3.0]), jnp.array([True, False])))
    1.0
    """
    if mask is None:
        return jnp.mean(losses)
    total = jnp.sum(jnp.where(mask, losses, 0.0))
    return total / jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1.0)


def _copy(tree: PyTree) -> PyTree:
    """Copy every array, so that donating the state harms nobody else's."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)


def _reference_sample(
    model: Model, state: UnlearnState, batch: Batch, loss: LossFn | None
) -> Sample:
    """Run the current model over unseen samples in eval mode."""
    if isinstance(loss, Objective) and loss.forward is not None:
        key = jax.random.fold_in(jax.random.key(0), state.step)
        _, aux = loss._replace(train=False)(state.params, state.model_state, batch, key)
        return Sample(
            aux.task_losses, aux.outputs, batch.labels, batch.index, batch.mask
        )
    outputs, _ = model.apply(state.params, state.model_state, batch.inputs, train=False)
    losses = cross_entropy(outputs, batch.labels)
    return Sample(losses, outputs, batch.labels, batch.index, batch.mask)


def real_index(batch: Batch | None) -> Array | None:
    """Return the ids of the samples, −1 for padding."""
    if batch is None or batch.index is None or batch.mask is None:
        return None if batch is None else batch.index
    return jnp.where(batch.mask, batch.index, -1)
