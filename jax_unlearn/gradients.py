"""The one place where gradients are made and divided by the count."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import programs
from jax_unlearn.contracts import check_form, usable
from jax_unlearn.contracts import counted as counted
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import divided
from jax_unlearn.meta import MetaGradInfo as MetaGradInfo
from jax_unlearn.meta import meta_grad as meta_grad
from jax_unlearn.types import Array, Batch, LossFn, Params, PyTree

__all__ = ["MetaGradInfo", "WeightedGradInfo", "counted", "mean_gradient", "mean_loss"]
__all__ += ["meta_grad", "minimise", "over_batches", "sample_gradient"]
__all__ += ["uniform_weights", "weighted_grad", "weighted_loss"]


class WeightedGradInfo(NamedTuple):
    """What `weighted_grad` saw on its way.

    Attributes:
      losses: unweighted losses `f32[B]`.
      weights: weights used, 0 for masked samples, `f32[B]`.
      aux, carry: second results of `losses_fn` and of `weights_fn`.
    """

    losses: Array
    weights: Array
    aux: Any
    carry: Any


def weighted_grad(
    losses_fn: Callable[[Params], tuple[Array, Any]],
    params: Params,
    weights_fn: Callable[[Array, Any], tuple[Array, Any]],
    *,
    where: Array | None = None,
) -> tuple[Params, WeightedGradInfo]:
    """Return g = (1/n) Σ_i w_i ∇ℓ_i by one forward and one backward pass.

    The weights are the cotangent of the losses: they may depend on the very forward
    pass that is differentiated, are themselves not differentiated, and cost no second
    pass.

    Args:
      losses_fn: `params -> (losses [B], aux)`; finite for masked samples too.
      params: pytree of arrays.
      weights_fn: `(losses, aux) -> (weights [B], carry)`.
      where: `bool[B]`, samples that count; n is their number.

    Returns:
      Gradients like `params`, zero if no sample counts, None for leaves that are no
      floats; and `WeightedGradInfo`.

    Raises:
      ValueError: weights and losses of different shape.

    >>> x = jnp.array([1.0, 3.0])
    >>> def losses_fn(w):
    ...     return w * x, None
    >>> def weights_fn(losses, aux):
    ...     return jnp.array([2.0, 0.0]), None
    >>> print(weighted_grad(losses_fn, jnp.float32(1), weights_fn)[0])  # (2·1 + 0·3)/2
    1.0
    """
    part, whole = divided(params)
    losses, pullback, aux = jax.vjp(lambda p: losses_fn(whole(p)), part, has_aux=True)
    cotangent, info = _cotangent(losses, aux, weights_fn, where)
    (grads,) = pullback(cotangent.astype(losses.dtype))
    return grads, info


def weighted_loss(
    losses: Array,
    aux: Any,
    weights_fn: Callable[[Array, Any], tuple[Array, Any]],
    *,
    where: Array | None = None,
) -> tuple[Array, WeightedGradInfo]:
    """Return the scalar (1/n) Σ_i w_i ℓ_i, whose gradient is that of `weighted_grad`.

    For those who differentiate more than once; the weights are constants all the same.
    The arguments are those of `weighted_grad`, but for what `losses_fn` returned.

    Returns:
      Scalar `f32[]`, 0 if no sample counts, and `WeightedGradInfo`.

    Raises:
      ValueError: weights and losses of different shape.

    >>> print(weighted_loss(jnp.array([1.0, 3.0]), None, uniform_weights)[0])
    2.0
    """
    cotangent, info = _cotangent(losses, aux, weights_fn, where)
    return jnp.sum(cotangent * losses.astype(jnp.float32)), info


def uniform_weights(losses: Array, aux: Any) -> tuple[Array, None]:
    """Return weight 1 for every sample: the plain mean.

    >>> uniform_weights(jnp.array([1.0, 3.0]), None)[0].tolist()
    [1.0, 1.0]
    """
    del aux
    return jnp.ones_like(losses), None


def _cotangent(losses, aux, weights_fn, where):
    """Return (w/n, what was seen), both detached."""
    seen = jax.lax.stop_gradient((losses, aux))
    weights, carry = weights_fn(*seen)
    if weights.shape != losses.shape:
        raise ValueError(
            f"weights.shape={weights.shape} but losses.shape={losses.shape}: return "
            "one weight a sample"
        )
    weights, count = weights.astype(jnp.float32), jnp.float32(max(losses.shape[0], 1))
    if where is not None:
        weights = jnp.where(where, weights, 0.0)
        count = jnp.maximum(jnp.sum(where.astype(jnp.float32)), 1.0)
    cotangent = jax.lax.stop_gradient(weights / count)
    return cotangent, WeightedGradInfo(losses, weights, aux, carry)


def mean_loss(losses: Array, mask: Array | None) -> Array:
    """Return the mean of the counted losses, 0 if none counts.

    >>> print(mean_loss(jnp.array([1.0, 3.0]), jnp.array([True, False])))
    1.0
    """
    if mask is None:
        return jnp.mean(losses)
    total = jnp.sum(jnp.where(mask, losses, 0.0))
    return total / jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1.0)


def sample_gradient(loss_fn: LossFn) -> Callable[..., Params]:
    """Transform a loss in eval mode into the gradient of one sample.

    It is `(params, model_state, sample, key) -> gradient` with a `Batch` that lacks its
    leading axis: put it under `jax.vmap`.
    """

    def gradient(params, model_state, sample, key):
        alone = jax.tree.map(lambda leaf: leaf[None], sample)
        part, whole = divided(params)

        def loss(part):
            return loss_fn(whole(part), model_state, alone, key)[0][0]

        return jax.grad(loss)(part)

    return gradient


def over_batches(summed: Callable[..., Any]) -> Callable[..., PyTree]:
    """Turn (sum, count) of a batch into the mean over many, 0 where nothing counts.

    Compiled once per shape of batch; batch i uses `fold_in(key, i)`.
    """

    @programs.jit
    def parts(params, model_state, batch, key):
        return summed(params, model_state, usable(batch), key)

    def mean(params, model_state, batches, key):
        total, count = None, 0
        for number, batch in enumerate(batches):
            check_form(batch)
            own = jax.random.fold_in(key, number)
            new, size = parts(params, model_state, batch, own)
            total = new if total is None else _add(total, new)
            count = count + size
        if total is None:
            raise InputError("batches is empty: give at least one batch")
        if not all(map(bool, jax.tree.leaves(_finite(total)))):
            raise InputError(
                "the gradients over the batches are not finite: check inputs and "
                "labels by ju.check_batch(batch, num_classes=K), and the parameters"
            )
        return _scale(1.0 / max(int(count), 1), total)

    return mean


_add, _scale = jax.jit(optax.tree.add), jax.jit(optax.tree.scale)
_finite = jax.jit(lambda tree: jax.tree.map(lambda x: jnp.isfinite(x).all(), tree))


def minimise(
    loss: Callable[[Params], Array],
    start: Params,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    project: Callable[[Params], Params] = lambda point: point,
) -> Params:
    """Descend on a scalar loss, in one scan; each step ends with a projection."""

    def step(carry, _):
        point, opt_state = carry
        gradient = jax.grad(loss)(point)
        with jax.numpy_dtype_promotion("standard"):  # Adam computes float ** int
            updates, opt_state = optimizer.update(gradient, opt_state, point)
        return (project(optax.apply_updates(point, updates)), opt_state), None

    carry = start, optimizer.init(start)
    (point, _), _ = jax.lax.scan(step, carry, length=steps)
    return point


def mean_gradient(loss_fn: LossFn) -> Callable[..., PyTree]:
    """Transform a loss into its mean gradient over the samples of many batches.

    Returns `(params, model_state, batches, key) -> gradients`, float32, like `params`,
    compiled once, padding left out by the masks; InputError if there is no batch. Use
    eval mode so that batches do not interact.

    >>> from jax_unlearn.types import Aux
    >>> def loss_fn(w, state, batch, key):
    ...     losses = w * batch.inputs
    ...     return losses, Aux(losses, losses, state)
    >>> batches = [Batch(jnp.array([1.0, 3.0]), jnp.array([0, 0]))]
    >>> print(mean_gradient(loss_fn)(jnp.float32(1), (), batches, jax.random.key(0)))
    2.0
    """

    def summed(params, model_state, batch: Batch, key):
        part, whole = divided(params)

        def total(part):
            losses, _ = loss_fn(whole(part), model_state, batch, key)
            kept = losses if batch.mask is None else jnp.where(batch.mask, losses, 0.0)
            return jnp.sum(kept)

        grads = optax.tree.cast(jax.grad(total)(part), jnp.float32)
        return grads, jnp.sum(counted(batch))

    return over_batches(summed)
