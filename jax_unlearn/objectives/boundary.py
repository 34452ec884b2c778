"""Labels and inputs across the nearest decision boundary, the loss on fixed labels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_unlearn import _validate, losses
from jax_unlearn.contracts import check_classes, counted, forward_pass
from jax_unlearn.errors import InputError
from jax_unlearn.membership.features import logit_confidence
from jax_unlearn.objectives.base import Objective, on_logits
from jax_unlearn.tables import look_up, row_ids
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree

__all__ = ["DOUBLINGS", "Neighbours", "boundary_labels", "boundary_neighbours"]
__all__ += ["fixed_label", "margin_gradient", "neighbours_step"]

DOUBLINGS = 16
"""How often the search for neighbours doubles its radius, at most: our choice."""


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
    _check_floats(inputs)

    def total(inputs: PyTree) -> Array:
        at = params, model_state
        logits, _ = forward_pass(model.apply, *at, inputs, train=False)
        return jnp.sum(losses.cross_entropy(logits, labels))

    def move(x: Array, gradient: Array) -> Array:
        return x + jnp.asarray(bound, x.dtype) * jnp.sign(gradient).astype(x.dtype)

    neighbours = jax.tree.map(move, inputs, jax.grad(total)(inputs))
    at = params, model_state
    logits, _ = forward_pass(model.apply, *at, neighbours, train=False)
    return _nearest_wrong(logits, labels)


class Neighbours(NamedTuple):
    """Inputs across the boundary `f32[B, ...]`, their wrong classes `i32[B]`.

    `crossed`, `bool[B]`, says which the network gives that class, and not the true one.
    """

    inputs: Array
    labels: Array
    crossed: Array


def boundary_neighbours(
    model: Model,
    params: Params,
    model_state: ModelState,
    inputs: Array,
    labels: Array,
    *,
    radius: float | Array = 0.04,
    steps: int = 50,
    doublings: int = DOUBLINGS,
    low: float = 0.0,
    high: float = 1.0,
) -> Neighbours:
    """Return for each sample an input nearby that the model takes for another class.

    Steps of the L2 length ε/10 along ∇CE(f(x'), y), each followed by a projection onto
    ‖x' − x‖₂ ≤ ε and low ≤ x' ≤ high, until the class changes; where it has not after
    `steps` of them, ε doubles and the steps go on from there, `doublings` times at
    most. In eval mode, under the parameters given: those of the original model. What is
    wrong already stays where it is. A sample's neighbour does not depend on its batch.

    Inputs are one floating array `[B, ...]` within `low..high` (infinite for no limit),
    the labels true classes, `i32[B]`; the first ε is `radius` > 0, in units of the
    inputs. The class of a neighbour is the model's; of a sample that never crosses, the
    most probable wrong one where it ended (our choice: the published search has no
    end). The direction is that of −∇m, see `margin_gradient`.

    Raises:
      InputError: inputs that are not floats; fewer than two classes; numbers out of
        range.

    Reference: AMUN, arXiv 2503.00917, algorithm 1: 50 steps of ε/10 for pixels in 0..1,
    the first ε 0.04; ε goes on from where it is as in the authors' code.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: None, lambda w, x: w * x)
    >>> x, y = jnp.array([[0.52, 0.48], [0.1, 0.9]]), jnp.array([0, 0])
    >>> found = boundary_neighbours(model, jnp.float32(1), (), x, y)
    >>> print(found.inputs[0].round(4), found.labels)  # after eight steps of ε/10
    [0.4974 0.5026] [1 1]
    """
    _validate.positive("radius", radius, "published: 0.04")
    _validate.at_least("steps", steps, 1, "published: 50")
    _validate.at_least("doublings", doublings, 0, "try 16")
    if not low < high:
        raise InputError(f"low={low}, high={high}: low must be less than high")
    _check_floats(inputs)
    first = jnp.asarray(inputs, jnp.float32)
    at = params, model_state

    def advance(found: Neighbours, gradient: Array, ball: Any):
        given = first, labels, ball
        return neighbours_step(model, at, given, found, gradient, low=low, high=high)

    def step(carry):
        count, found, gradient = carry
        ball = radius * 2.0 ** (count // steps).astype(jnp.float32)
        return count + 1, *advance(found, gradient, ball)

    def unfinished(carry):
        count, found, _ = carry
        return ~jnp.all(found.crossed) & (count < steps * (doublings + 1))

    there = Neighbours(first, labels, jnp.ones(len(first), jnp.bool_))
    start = jnp.int32(0), *advance(there, jnp.zeros_like(first), radius)
    return jax.lax.while_loop(unfinished, step, start)[1]


def neighbours_step(
    model: Model,
    variables: Any,
    given: tuple[Array, Array, float | Array],
    found: Neighbours,
    gradient: Array,
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> tuple[Neighbours, Array]:
    """Return neighbours a step of `boundary_neighbours` on, and ∇m at them.

    What has crossed stays and is looked at anew. `given` is where the search began
    `f32[B, ...]`, the true classes and ε; `gradient` is ∇m at the inputs of `found`.

    Reference: as `boundary_neighbours`.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: None, lambda w, x: w * x)
    >>> x, y = jnp.array([[0.52, 0.48]]), jnp.array([0])
    >>> found = Neighbours(x, y, jnp.array([False]))
    >>> at, gradient = (jnp.float32(1), ()), jnp.array([[1.0, -1.0]])
    >>> found, _ = neighbours_step(model, at, (x, y, 0.04), found, gradient)
    >>> print(found.inputs.round(4), found.crossed)  # ε/10 = 0.004 of length
    [[0.5172 0.4828]] [False]
    """
    (first, labels, radius), (x, _, crossed) = given, found
    moved = _moved(x, first, gradient, radius)
    stay = jnp.expand_dims(crossed, tuple(range(1, x.ndim)))
    x = jnp.where(stay, x, jnp.clip(moved, low, high))
    gradient, logits = margin_gradient(model.apply, variables, x, labels)
    crossed = jnp.argmax(logits, axis=-1) != labels
    return Neighbours(x, _nearest_wrong(logits, labels), crossed), gradient


def _moved(x: Array, first: Array, gradient: Array, radius: float | Array) -> Array:
    """Return x after ε/10 along −∇m, within ε of where it began."""
    axes = tuple(range(1, x.ndim))

    def size(move: Array) -> Array:
        return jnp.sqrt(jnp.sum(jnp.square(move), axis=axes, keepdims=True))

    largest = jnp.max(jnp.abs(gradient), axis=axes, keepdims=True)
    # squares of very small gradients would underflow
    rise = -gradient / jnp.where(largest > 0, largest, 1.0)
    length = size(rise)
    away = x + radius / 10 * rise / jnp.where(length > 0, length, 1.0) - first
    far = size(away)
    return first + away * jnp.minimum(1.0, radius / jnp.where(far > 0, far, radius))


def margin_gradient(
    apply: Any, variables: Any, inputs: Array, labels: Array
) -> tuple[Array, Array]:
    """Return ∇_x m of every sample, `f32[B, ...]`, and the logits, in eval mode.

    m = log(p_y/(1 − p_y)) falls where ℓ = log(1 + e^−m) rises; its gradient does not
    vanish in float32 where the model is sure (p_y rounds to 1 from m = 17 on).
    """
    params, model_state = variables

    def total(x: Array) -> tuple[Array, Array]:
        logits, _ = forward_pass(apply, params, model_state, x, train=False)
        return jnp.sum(logit_confidence(logits, labels)), logits

    # in eval mode samples do not meet: the gradient of the sum is that of each
    return jax.grad(total, has_aux=True)(inputs)


def _check_floats(inputs: PyTree) -> None:
    """Refuse inputs that no gradient moves."""
    for leaf in jax.tree.leaves(inputs):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise InputError(
                f"inputs.dtype={leaf.dtype} cannot be moved by a gradient: convert "
                "pixels to floats in 0..1"
            )


def _nearest_wrong(logits: Array, labels: Array) -> Array:
    """Return the most probable class that is not the true one, `i32[B]`."""
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
