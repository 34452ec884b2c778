"""Labels across the nearest decision boundary, and the loss on fixed labels."""

import jax
import jax.numpy as jnp

from jax_unlearn import _validate, losses
from jax_unlearn.contracts import check_classes, counted, forward_pass
from jax_unlearn.errors import InputError
from jax_unlearn.objectives.base import Objective, on_logits
from jax_unlearn.tables import look_up, row_ids
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree

__all__ = ["boundary_labels", "fixed_label"]


def boundary_labels(
    model: Model,
    params: Params,
    model_state: ModelState,
    inputs: PyTree,
    labels: Array,
    *,
    bound: float | Array = 0.1,
) -> Array:
    """Return the wrong class that a step across the boundary comes nearest to.

    x' = x + ε·sign(∂CE(f(x), y)/∂x), label = argmax_{k≠y} f(x')_k, in eval mode, under
    the parameters given: those of the original model. A sample's label does not depend
    on its batch. x' is not clipped; public code clips it to 0..1.

    Inputs are a pytree of floats `[B, ...]`, the labels true classes, `i32[B]`; ε ≥ 0,
    the `bound`, is in units of the inputs, published 0.1 for pixels in 0..1. Returns
    classes `i32[B]`, never the true one, for `target_table`.

    Raises:
      InputError: inputs that are not floats; fewer than two classes; negative bound.

    Reference: Chen et al., arXiv 2303.11570. Public code admits the true class; that it
    is left out is the paper's "nearest but incorrect".

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
    >>> w = jnp.array([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]])
    >>> x = jnp.array([[1.0, 0.9], [0.9, 1.0]])
    >>> print(boundary_labels(model, w, (), x, jnp.array([0, 1])))
    [1 0]
    """
    _validate.not_negative("bound", bound, "try 0.1")
    for leaf in jax.tree.leaves(inputs):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise InputError(
                f"inputs.dtype={leaf.dtype} cannot be moved by a gradient: convert "
                "pixels to floats in 0..1"
            )

    def total(inputs: PyTree) -> Array:
        at = params, model_state
        logits, _ = forward_pass(model.apply, *at, inputs, train=False)
        return jnp.sum(losses.cross_entropy(logits, labels))

    def move(x: Array, gradient: Array) -> Array:
        return x + jnp.asarray(bound, x.dtype) * jnp.sign(gradient).astype(x.dtype)

    neighbours = jax.tree.map(move, inputs, jax.grad(total)(inputs))
    at = params, model_state
    logits, _ = forward_pass(model.apply, *at, neighbours, train=False)
    check_classes(labels, max(logits.shape[-1], 2))
    if logits.shape[-1] < 2:
        raise InputError(
            f"the model has {logits.shape[-1]} outputs: a wrong class needs 2 or more"
        )
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.bool_)
    wrong = jnp.where(own, -jnp.inf, logits.astype(jnp.float32))
    return jnp.argmax(wrong, axis=-1).astype(jnp.int32)


def fixed_label(model: Model, table: Array) -> Objective:
    """Return the cross-entropy to a class fixed by sample: ℓ_i = −log p_{t_i}(x_i).

    Entry i of the table `i32[N]` is for the sample of index i; see `boundary_labels`.

    Raises:
      InputError: table that is not one integer a sample; batch without `index`. An
        id outside the table gives NaN, which `run` reports.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([3]))
    >>> objective = fixed_label(model, jnp.array([0, 0, 0, 1]))
    >>> losses, aux = objective(2.0, (), batch, jax.random.key(0))
    >>> print(losses, aux.task_losses)  # the task is still the true label
    [2.1269] [0.1269]
    """
    table = jnp.asarray(table)
    if table.ndim != 1 or not jnp.issubdtype(table.dtype, jnp.integer):
        raise InputError(
            f"labels of shape {table.shape} and dtype {table.dtype}: give a table of "
            "one integer class for every sample id"
        )

    def loss(logits, batch, key, data):
        del key
        index = row_ids(batch.index, "fixed labels need")
        labels = look_up(data, index, counted(batch))
        return losses.cross_entropy(logits, labels)

    return on_logits(model, loss, table.astype(jnp.int32))
