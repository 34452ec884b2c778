"""Objectives: loss functions made of a model and a loss on its outputs."""

from collections.abc import Callable
from typing import NamedTuple

from jax_unlearn.types import Array, Aux, Batch, Model, ModelState, Params, PyTree

OutputLoss = Callable[[PyTree, Batch, Array, PyTree], tuple[Array, Array]]
"""`(outputs [B, ...], batch, key, data) -> (losses f32[B], task_losses f32[B])`."""


def plain(
    objective: "Objective",
    params: Params,
    model_state: ModelState,
    batch: Batch,
    key: Array,
) -> tuple[PyTree, ModelState]:
    """Return the model's outputs on the inputs of the batch, and its next state."""
    return objective.model.apply(
        params, model_state, batch.inputs, train=objective.train, key=key
    )


class Objective(NamedTuple):
    """A `LossFn` made of a forward pass and a loss on what it gives.

    Where the pass is the model's own on the batch's inputs, the loss can also be
    evaluated on outputs computed elsewhere: forget and retain samples can share one
    pass (`forward="merged"`). Calling it gives `(losses [B], Aux)`.

    Attributes:
      model: the network.
      output_loss: what is minimised, given the outputs.
      data: arrays the loss needs (teacher, target table, key of the fixed labels);
        unlearners carry them in their state.
      train: whether the forward pass is one of training.
      forward: `(objective, params, model_state, batch, key) -> (outputs,
        model_state)`; default `plain`.
    """

    model: Model
    output_loss: OutputLoss
    data: PyTree = ()
    train: bool = True
    forward: Callable[..., tuple[PyTree, ModelState]] = plain

    def __call__(
        self, params: Params, model_state: ModelState, batch: Batch, key: Array
    ) -> tuple[Array, Aux]:
        """Return (losses f32[B], Aux) of the batch."""
        outputs, model_state = self.forward(self, params, model_state, batch, key)
        losses, task_losses = self.output_loss(outputs, batch, key, self.data)
        return losses, Aux(outputs, task_losses, model_state)
