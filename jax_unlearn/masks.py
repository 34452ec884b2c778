"""Which weights may move: saliency masks, and optimizers that respect them."""

import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jax_unlearn import _validate
from jax_unlearn.leaves import alike, divided
from jax_unlearn.optimizers import accumulates
from jax_unlearn.types import Array, Params, PyTree

__all__ = ["FallingThresholdState", "MaskedState", "SoftThresholdState", "apply_mask"]
__all__ += ["check_mask", "falling_threshold", "fisher_ratio", "gradient_saliency"]
__all__ += ["masked", "soft_threshold"]


def gradient_saliency(grads: PyTree, *, keep: float) -> PyTree:
    """Mark the weights of the largest gradients: m = 1(|g| in the top fraction r).

    The gradients are those of the forget loss under the original model. The fraction r,
    `keep`, is of all weights together; ties are broken by position, so that exactly
    ⌈r·n⌉ of the n entries of the mask, a pytree of bool, are True.

    Raises:
      InputError: keep outside (0, 1].

    Reference: SalUn, Fan et al., arXiv 2310.12508, equation 3 (r = 0.5 there).

    >>> print(gradient_saliency(jnp.array([3.0, -5.0, 0.0, 0.0]), keep=0.5))
    [ True  True False False]
    """
    _validate.fraction("keep", keep, "SalUn uses 0.5")
    grads, _ = divided(grads)
    size = sum(leaf.size for leaf in jax.tree.leaves(grads))
    marked = math.ceil(round(keep * size, 6))  # 0.07·100 is 7.000000000000001
    return _largest(grads, marked)


@jax.jit
def _largest(grads, marked):
    """Mark so many of the largest: a program a form, whatever their number."""
    sizes = jax.tree.map(lambda g: jnp.abs(g.astype(jnp.float32)), grads)
    flat, unravel = ravel_pytree(sizes)
    first = (jnp.arange(flat.size) < marked).astype(jnp.float32)
    order = jnp.argsort(-flat, stable=True)
    mask = jnp.zeros_like(flat).at[order].set(first)
    return jax.tree.map(lambda m: m > 0.5, unravel(mask))


def fisher_ratio(
    fisher_forget: PyTree, fisher_retain: PyTree, *, threshold: float = 1.0
) -> PyTree:
    """Mark, by bools, what matters more to forget than to retain: F_f/F_r ≥ t.

    Written as F_f ≥ t·F_r, so that 0/0 marks the weight (SFRon's epsilon does too). F
    are pytrees of squared gradients, t ≥ 0 is the threshold.

    Reference: SFRon, Huang et al., arXiv 2409.19732.

    >>> print(fisher_ratio(jnp.array([2.0, 1.0]), jnp.array([1.0, 2.0])))
    [ True False]
    """
    return jax.tree.map(lambda f, r: f >= threshold * r, fisher_forget, fisher_retain)


class MaskedState(NamedTuple):
    """State of `masked`: the mask travels as data, not inside the program."""

    mask: PyTree
    inner: PyTree


def masked(
    optimizer: optax.GradientTransformation, mask: PyTree, *, legacy: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Let an optimizer move only the marked weights.

    The mask, a pytree of bool like the parameters, acts before and after the optimizer:
    momentum, weight decay and Adam's normalisation cannot move a weight whose gradient
    alone was zeroed. With `legacy` it masks the gradient only, as public SalUn code did
    until 2026: decay and old momentum leak. For comparison, not for use.

    Raises:
      InputError: at `init`, if mask and parameters differ in structure or shapes.

    Source: SalUn, arXiv 2310.12508, with the leak mended.

    >>> optimizer = masked(optax.sgd(1.0), jnp.array([True, False]))
    >>> params = jnp.array([1.0, 1.0])
    >>> updates, _ = optimizer.update(jnp.ones(2), optimizer.init(params), params)
    >>> print(updates)
    [-1.  0.]
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params):
        own = check_mask(mask, params)
        return MaskedState(jax.tree.map(jnp.asarray, own), inner.init(params))

    def update(updates, state, params=None, **extra_args):
        updates = apply_mask(updates, state.mask)
        updates, new = inner.update(updates, state.inner, params, **extra_args)
        updates = updates if legacy else apply_mask(updates, state.mask)
        return updates, MaskedState(state.mask, new)

    return optax.GradientTransformationExtraArgs(init, update)


def check_mask(mask: PyTree, params: Params) -> PyTree:
    """Return the mask of the leaves that move; refuse one of other shapes."""
    remedy = "build the mask from gradients of the same model"
    part, _ = divided(params)
    mask = alike(mask, part)
    _validate.same_shapes("the mask", mask, part, remedy)
    return mask


def apply_mask(tree: PyTree, mask: PyTree) -> PyTree:
    """Zero what is not marked.

    >>> print(apply_mask(jnp.array([1.0, jnp.nan]), jnp.array([True, False])))
    [1. 0.]
    """
    return jax.tree.map(lambda g, m: jnp.where(m, g, jnp.zeros_like(g)), tree, mask)


class SoftThresholdState(NamedTuple):
    """State of `soft_threshold`: the parameters at `init`, and the optimizer's."""

    origin: Params
    inner: PyTree


def soft_threshold(
    optimizer: optax.GradientTransformation, threshold: float | Array
) -> optax.GradientTransformationExtraArgs:
    """Pull every weight back to where it began unless it moves far.

    After each step δ = θ − θ_o becomes sign(δ)·max(|δ| − t, 0): the proximal step of an
    ℓ1 penalty on the change, which leaves most weights untouched without a mask. The
    threshold t ≥ 0 is of a step (learning rate times penalty) and stays the same; the
    published one is that of `falling_threshold`. `update` needs `params`.

    Raises:
      InputError: negative threshold.

    Source: SalUn, arXiv 2310.12508, section 4 (soft-thresholding variant); that t and
    θ_o stay is our choice.

    >>> optimizer = soft_threshold(optax.sgd(1.0), 0.3)
    >>> params = jnp.zeros(2)
    >>> grads = jnp.array([-1.0, -0.2])
    >>> updates, _ = optimizer.update(grads, optimizer.init(params), params)
    >>> print(updates)
    [0.7 0. ]
    """
    _validate.not_negative("threshold", threshold, "0 switches off")
    inner = optax.with_extra_args_support(optimizer)

    def init(params):
        return SoftThresholdState(*_origin(inner, params, "soft_threshold"))

    def update(updates, state, params=None, **extra_args):
        told = updates, state.inner, params, extra_args
        moved, new = _moved(inner, told, "soft_threshold")
        updates = _pulled(moved, params, state.origin, threshold)
        return updates, SoftThresholdState(state.origin, new)

    return optax.GradientTransformationExtraArgs(init, update)


class FallingThresholdState(NamedTuple):
    """State of `falling_threshold`.

    Attributes:
      origin: the parameters at the start of the epoch.
      held: k of each epoch, `i32[epochs]`.
      epoch_steps: of an epoch.
      count: steps done.
      inner: the optimizer's state.
    """

    origin: Params
    held: Array
    epoch_steps: Array
    count: Array
    inner: PyTree


def falling_threshold(
    optimizer: optax.GradientTransformation,
    *,
    share: float = 0.5,
    steps: int,
    epoch_steps: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Pull weights back by the k-th smallest change, k falling: SalUn-soft.

    After each step of epoch e, δ = θ − θ_e becomes sign(δ)·max(|δ| − t, 0), with θ_e
    the parameters at the start of the epoch and t the k-th smallest of all |δ|, so that
    k weights or more stay where they were. Of n weights and T steps, S an epoch, k =
    ⌊share·n·(T − eS − 1)/T⌋; where that is 0, t is 0. `update` needs `params`.

    Args:
      optimizer: any optax transformation.
      share: of the weights that stay at first.
      steps: T, of the run.
      epoch_steps: S; default all steps are one epoch.

    Raises:
      InputError: share outside (0, 1], no steps.

    Reference: SalUn, Fan et al., arXiv 2310.12508, section 4, as its code has it for
    CIFAR; there k falls within an epoch for SVHN alone.

    >>> optimizer = falling_threshold(optax.sgd(1.0), share=0.75, steps=4)
    >>> params, grads = jnp.zeros(4), jnp.array([-1.0, -0.2, 0.1, 0.6])
    >>> updates, _ = optimizer.update(grads, optimizer.init(params), params)
    >>> print(updates)  # k = 0.75·4·(4 − 1)/4 = 2.25: the second smallest is 0.2
    [ 0.8  0.   0.  -0.4]
    """
    _validate.fraction("share", share, "SalUn uses 0.5")
    _validate.at_least("steps", steps, 1)
    size = steps if epoch_steps is None else epoch_steps
    _validate.at_least("epoch_steps", size, 1)
    inner = optax.with_extra_args_support(optimizer)

    def init(params):
        origin, state = _origin(inner, params, "falling_threshold")
        weights = sum(leaf.size for leaf in jax.tree.leaves(params))
        left = [(steps - done - 1) / steps for done in range(0, steps, size)]
        held = jnp.array([int(share * (part * weights)) for part in left], jnp.int32)
        return FallingThresholdState(origin, held, jnp.int32(size), jnp.int32(0), state)

    def update(updates, state, params=None, **extra_args):
        told = updates, state.inner, params, extra_args
        moved, new = _moved(inner, told, "falling_threshold")
        epoch, place = state.count // state.epoch_steps, state.count % state.epoch_steps

        def begun(before, now):
            return jnp.where(place == 0, now, before)

        origin = jax.tree.map(begun, state.origin, params)
        change, _ = ravel_pytree(
            optax.tree.cast(optax.tree.sub(moved, origin), jnp.float32)
        )
        held = state.held[jnp.minimum(epoch, len(state.held) - 1)]
        smallest = jnp.sort(jnp.abs(change))[jnp.maximum(held - 1, 0)]
        threshold = jnp.where(held > 0, smallest, 0)
        updates = _pulled(moved, params, origin, threshold)
        carried = state._replace(origin=origin, count=state.count + 1, inner=new)
        return updates, carried

    return optax.GradientTransformationExtraArgs(init, update)


def _origin(inner, params: Params, name: str) -> tuple[Params, PyTree]:
    """Return a copy of the parameters and the optimizer's state; warn of parts."""
    origin = jax.tree.map(lambda p: jnp.array(p, copy=True), params)
    state = inner.init(params)
    if accumulates(state):
        warnings.warn(
            f"{name} around optax.MultiSteps shrinks at every part of a batch: put it "
            f"inside, MultiSteps({name}(...)), or give the method "
            "ju.memory.microbatched(model, size)",
            stacklevel=3,
        )
    return origin, state


def _moved(inner, told: tuple, name: str) -> tuple[Params, PyTree]:
    """Return where the optimizer alone would go, and its state."""
    updates, state, params, extra_args = told
    if params is None:
        raise ValueError(f"{name} needs params: update(g, state, params)")
    updates, new = inner.update(updates, state, params, **extra_args)
    return optax.tree.add(params, updates), new


def _pulled(moved: Params, params: Params, origin: Params, threshold) -> PyTree:
    """Return the updates that end |δ| − t from the origin, δ the move without t."""

    def pulled(moved, param, origin):
        change = moved - origin
        size = jnp.maximum(jnp.abs(change) - jnp.asarray(threshold, change.dtype), 0)
        return (origin + jnp.sign(change) * size - param).astype(param.dtype)

    return jax.tree.map(pulled, moved, params, origin)
