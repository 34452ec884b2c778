"""Objectives: loss functions made of a model and a loss on its outputs."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jax_unlearn.contracts import check_known, counted, forward_pass, usable
from jax_unlearn.errors import InputError
from jax_unlearn.losses import cross_entropy
from jax_unlearn.tables import NO_CLASS
from jax_unlearn.types import Array, Aux, Batch, Model, ModelState, Params, PyTree

__all__ = ["Objective", "OutputLoss", "on_logits", "per_sample", "task_loss"]

OutputLoss = Callable[[PyTree, Batch, Array, PyTree], tuple[Array, Array]]
"""`(outputs [B, ...], batch, key, data) -> (losses f32[B], task_losses f32[B])`."""


class Objective(NamedTuple):
    """A `LossFn` made of a forward pass and a loss on what it gives.

    Where the pass is the model's own on the batch's inputs, forget and retain samples
    can share one (`forward="merged"`). Calling it gives `(losses [B], Aux)`.

    Attributes:
      model: the network.
      output_loss: what is minimised, given the outputs.
      data: arrays the loss needs (teacher, target table, key of the fixed labels);
        unlearners carry them in their state.
      train: whether the forward pass is one of training.
      forward: `(objective, (params, model_state), batch, key) -> (outputs,
        model_state)`; None for the model's own pass on the inputs.
      joint: whether a loss depends on the other samples of its batch.
    """

    model: Model
    output_loss: OutputLoss
    data: PyTree = ()
    train: bool = True
    forward: Callable[..., tuple[PyTree, ModelState]] | None = None
    joint: bool = False

    def outputs(
        self, params: Params, model_state: ModelState, batch: Batch, key: Array
    ) -> tuple[PyTree, ModelState]:
        """Return (outputs [B, ...], the next model state) of the batch."""
        batch = usable(batch)
        if self.forward is not None:
            return self.forward(self, (params, model_state), batch, key)
        at, mode = (params, model_state), {"train": self.train, "key": key}
        return forward_pass(self.model.apply, *at, batch.inputs, **mode)

    def __call__(
        self, params: Params, model_state: ModelState, batch: Batch, key: Array
    ) -> tuple[Array, Aux]:
        """Return (losses f32[B], Aux) of the batch."""
        outputs, model_state = self.outputs(params, model_state, batch, key)
        losses, task_losses = self.output_loss(outputs, batch, key, self.data)
        return losses, Aux(outputs, task_losses, model_state)

    def negated(self) -> "Objective":
        """Return the objective that climbs where this one descends."""

        def output_loss(outputs, batch, key, data):
            losses, task_losses = self.output_loss(outputs, batch, key, data)
            return -losses, task_losses

        return self._replace(output_loss=output_loss)


def on_logits(
    model: Model,
    loss: Callable[[Array, Batch, Array, PyTree], Array],
    data: PyTree = (),
    *,
    train: bool = True,
) -> Objective:
    """Return the objective of a loss on logits whose task stays the true label."""

    def output_loss(outputs, batch, key, data):
        task_losses, labels = task_loss(outputs, batch), _classes(outputs, batch)
        batch = batch._replace(labels=labels)
        return per_sample(loss(outputs, batch, key, data)), task_losses

    return Objective(model, output_loss, data, train)


def per_sample(losses: Array) -> Array:
    """Return one loss a sample, `[B]`: the mean over the axes of its own."""
    return losses.mean(axis=tuple(range(1, losses.ndim))) if losses.ndim > 1 else losses


def task_loss(outputs: PyTree, batch: Batch) -> Array:
    """Return the cross-entropy on the true labels, `f32[B]`; outside 0..K - 1, NaN.

    Raises:
      InputError: outputs that are not logits, or labels that do not fit them.
    """
    _check_logits(outputs, batch.labels)
    return per_sample(cross_entropy(outputs, _classes(outputs, batch)))


def _classes(outputs: Array, batch: Batch) -> Array:
    """Return the labels; `NO_CLASS` where a sample that counts has no class."""
    check_known(outputs.shape[-1])
    # A negative label would count from the last class; padding may hold any.
    labels = batch.labels
    counts = jnp.expand_dims(counted(batch), range(1, labels.ndim))
    valid = (labels >= 0) & (labels < outputs.shape[-1])
    instead = jnp.where(counts, NO_CLASS, 0).astype(labels.dtype)
    return jnp.where(valid, labels, jnp.broadcast_to(instead, labels.shape))


def _check_logits(outputs: PyTree, labels: Array) -> None:
    """Refuse what is not logits `[..., K]` of integer labels `[...]`."""
    shape, dtype = getattr(outputs, "shape", None), getattr(outputs, "dtype", None)
    wanted = "give logits [B, K], one column a class"
    if shape is None:
        raise InputError(
            f"the model's outputs are {type(outputs).__name__}: {wanted}; pick them by "
            "ju.with_outputs(model, lambda outputs: outputs[...])"
        )
    if not shape or shape[-1] < 2 or shape == jnp.shape(labels) != ():
        raise InputError(
            f"the model's outputs are of shape {shape}, the labels of "
            f"{jnp.shape(labels)}: {wanted} (for one sigmoid logit z: 0 and z, "
            "ju.with_outputs(model, ju.two_classes)), and classes [B] (of one-hot "
            "rows: labels.argmax(-1))"
        )
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"the model's outputs are of type {dtype}: {wanted}, floats")
    integers = jnp.issubdtype(labels.dtype, jnp.integer)
    if jnp.shape(labels) != shape[:-1] or not integers:
        raise InputError(
            f"labels of shape {jnp.shape(labels)} and type {labels.dtype} do not fit "
            f"logits of shape {shape}: give classes as integers of shape {shape[:-1]}"
        )
