"""Meta-gradients: how a virtual step on one loss changes others, and how to mend it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import divided
from jax_unlearn.types import Array, Params

__all__ = ["MetaGradInfo", "meta_grad"]


class MetaGradInfo(NamedTuple):
    """What `meta_grad` saw on its way.

    Attributes:
      support_loss: L_s(θ), a scalar.
      query_losses: L_qi(θ') after the virtual steps, `[N]`.
      support_aux: second result of `support_loss` at θ, of the first virtual step.
      query_aux: second result of `query_losses` at θ'.
    """

    support_loss: Array
    query_losses: Array
    support_aux: Any
    query_aux: Any


def meta_grad(
    support_loss: Callable[[Params], tuple[Array, Any]],
    query_losses: Callable[[Params], tuple[Array, Any]],
    params: Params,
    *,
    inner: optax.GradientTransformation,
    inner_steps: int = 1,
    first_order: bool = False,
    remat: bool = False,
) -> tuple[Params, MetaGradInfo]:
    """Return g = d/dθ [ L_s(θ) + Σ_i L_qi(θ') ], θ' = θ + inner.update(∇L_s(θ)).

    θ' is a virtual step, taken from a fresh state of `inner` and thrown away. With SGD
    of rate α, g = ∇L_s(θ) + (I − αH) Σ_i ∇L_qi(θ'), H the Hessian of L_s at θ.

    The queries are one function that returns a vector: `jax.vmap` over stacked batches
    of one shape makes them one program, each with BatchNorm statistics of its own;
    `jnp.stack([query(params) for query in queries])` takes any. Both losses close over
    the incoming model state: virtual steps read it and never advance it.

    Cost, with K inner steps and N queries: K + N gradients and, in second order, one
    Hessian-vector product (twice the operations of a gradient) an inner step.

    Args:
      support_loss: `params -> (scalar, aux)`, twice differentiable.
      query_losses: `params -> (losses [N], aux)`.
      params: pytree of arrays; the gradient of those that are no floats is None.
      inner: any optax transformation. Adam and others with a square root need
        `eps_root > 0`: with `eps_root=0` the second-order result is NaN wherever an
        entry of ∇L_s is exactly 0. It should not be tiny either: at such an entry the
        Hessian-vector product is multiplied by about α/√eps_root.
      inner_steps: number of virtual steps K, unrolled; each takes the gradient of
        `support_loss` where the last one ended.
      first_order: take every inner gradient for a constant. What `inner` itself does
        with the parameters (weight decay) is still differentiated.
      remat: compute each Hessian-vector product anew, forward over reverse, after the
        backward pass of the queries, instead of keeping what it needs from the
        inner step, for one more support gradient an inner step: the activations of
        support and queries are never held together. Nothing changes in first order.
        It takes H for symmetric, which it is unless `support_loss` has a custom
        derivative that is not its derivative (straight-through, gradient reversal).

    Returns:
      Gradients like `params`, same dtypes, and `MetaGradInfo`.

    Raises:
      InputError: inner_steps < 1, a support loss that is no scalar, query losses that
        are no vector.

    Reference: LTU, arXiv 2407.10494; several steps and general `inner`: our choice.

    >>> def support_loss(w):
    ...     return w**2 / 2, None
    >>> def query_losses(w):
    ...     return jnp.stack([(w - 3) ** 2 / 2, w]), None
    >>> w, inner = jnp.float32(2), optax.sgd(0.5)
    >>> grads, info = meta_grad(support_loss, query_losses, w, inner=inner)
    >>> print(info.query_losses)  # at w' = 2 − 0.5·2 = 1
    [2. 1.]
    >>> print(grads)  # 2 + (1 − 0.5)·((1 − 3) + 1)
    1.5
    """
    _validate.at_least("inner_steps", inner_steps, 1)
    part, whole = divided(params)
    support = _checked(lambda part: support_loss(whole(part)))
    evaluate = jax.value_and_grad(support, has_aux=True)
    if remat and not first_order:
        evaluate = _recomputed(evaluate)

    def queries(params: Params):
        first, virtual, state = None, params, inner.init(params)
        for _ in range(inner_steps):
            seen = evaluate(jax.lax.stop_gradient(virtual) if first_order else virtual)
            first = seen if first is None else first
            updates, state = inner.update(seen[1], state, virtual)
            virtual = optax.apply_updates(virtual, updates)
        losses, aux = query_losses(whole(virtual))
        if losses.ndim != 1:
            raise InputError(
                f"query_losses has shape {losses.shape}: return one loss a query, [N]"
            )
        return jnp.sum(losses), (first, losses, aux)

    through, (first, losses, query_aux) = jax.grad(queries, has_aux=True)(part)
    (loss, support_aux), direct = first
    grads = optax.tree.add(direct, through)
    return grads, MetaGradInfo(loss, losses, support_aux, query_aux)


def _checked(support_loss):
    """Refuse a support loss that is no scalar."""

    def checked(params: Params):
        loss, aux = support_loss(params)
        if loss.shape != ():
            raise InputError(
                f"support_loss has shape {loss.shape}: return a scalar, the mean over "
                "the samples"
            )
        return loss, aux

    return checked


def _recomputed(evaluate):
    """Give the gradient a backward pass that needs nothing but the parameters."""

    def gradient(params: Params):
        return evaluate(params)[1]

    def forward(params: Params):
        return evaluate(params), params

    def backward(params: Params, cotangents):
        direction = cotangents[1]  # losses and aux are only reported: they have none
        _, product = jax.jvp(gradient, (_after(params, direction),), (direction,))
        return (product,)

    recomputed = jax.custom_vjp(evaluate)
    recomputed.defvjp(forward, backward)
    return recomputed


def _after(params: Params, direction: Params) -> Params:
    """Return params, but known to the compiler only when `direction` is."""
    # Else it would share the forward pass with the inner step and hold its activations
    # all the while; XLA:CPU drops an optimization barrier before it orders operations.
    return jax.tree.map(lambda p, d: jnp.where(jnp.isnan(d), d, p), params, direction)
