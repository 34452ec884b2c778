"""Harmonizers: combine forget and retain gradients, removing conflicts.

A harmonizer is `(g_forget, g_retain) -> g` on pytrees; inner products and norms are
taken in float32 over the whole pytree (or leaf by leaf), leaves keep their dtype.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate
from jax_unlearn.types import Array, Harmonizer, PyTree

__all__ = ["Separate", "Separately", "add", "bargain", "cosine", "one_way", "project"]
__all__ += ["scaled", "separate", "two_way"]


def project(g: PyTree, onto: PyTree) -> PyTree:
    """Remove from g what conflicts with another gradient, if anything does.

    With g·o < 0: g − (g·o/‖o‖²)·o, which is orthogonal to o; otherwise g itself. A zero
    `onto` conflicts with nothing. Both are scaled to largest entry 1 first, so that no
    product over- or underflows however large or small the gradients are. Both are
    pytrees of the same structure and shapes; the result has the dtypes of g.

    Reference: Yu et al. (PCGrad), arXiv 2001.06782, used by LTU, arXiv 2407.10494.

    >>> print(project(jnp.array([1.0, -1.0]), jnp.array([0.0, 2.0])))
    [1. 0.]
    >>> print(project(jnp.array([1.0, 1.0]), jnp.array([0.0, 2.0])))
    [1. 1.]
    """
    reach, unit = _scaled(g)
    _, direction = _scaled(onto)
    dot = optax.tree.vdot(unit, direction)
    norm_sq = jnp.maximum(optax.tree.vdot(direction, direction), 1.0)  # 0 if onto is 0
    share = jnp.minimum(dot / norm_sq, 0.0)

    def moved(leaf, a, b):
        across = (reach * (a - share * b)).astype(leaf.dtype)
        return jnp.where(share < 0, across, leaf)

    return jax.tree.map(moved, g, unit, direction)


def cosine(a: PyTree, b: PyTree) -> Array:
    """Return the cosine of the angle between two gradients, 0 if one is zero.

    >>> print(cosine(jnp.array([1.0, 0.0]), jnp.array([-2.0, 0.0])))
    -1.0
    """
    (_, a), (_, b) = _scaled(a), _scaled(b)
    norms = optax.tree.norm(a) * optax.tree.norm(b)
    dot = optax.tree.vdot(a, b)
    return jnp.where(norms > 0, dot / jnp.where(norms > 0, norms, 1.0), 0.0)


def one_way(priority: str = "retain", *, per_leaf: bool = False) -> Harmonizer:
    """Let one gradient stand and remove from the other what conflicts with it.

    priority "retain": G = g_r + project(g_f, g_r), so that G·g_r ≥ ‖g_r‖²; "forget":
    g_f stands. `per_leaf` looks for conflicts leaf by leaf, not over the whole pytree.

    Raises:
      InputError: unknown priority.

    Reference: LTU, arXiv 2407.10494; the direction of the projection is our choice.

    >>> print(one_way()(jnp.array([1.0, -1.0]), jnp.array([0.0, 2.0])))
    [1. 2.]
    """
    _validate.choice("priority", priority, "retain", "forget")

    def harmonize(g_forget: PyTree, g_retain: PyTree) -> PyTree:
        both = (g_retain, g_forget)
        stays, gives = both if priority == "retain" else both[::-1]
        return optax.tree.add(stays, _project(gives, stays, per_leaf))

    return harmonize


def two_way(*, per_leaf: bool = False) -> Harmonizer:
    """Remove from each gradient what conflicts with the other, then add (PCGrad).

    G = project(g_f, g_r) + project(g_r, g_f), `per_leaf` as in `one_way`.

    Reference: Yu et al., arXiv 2001.06782, algorithm 1 for two tasks.

    >>> print(two_way()(jnp.array([1.0, -1.0]), jnp.array([0.0, 2.0])))
    [2. 1.]
    """

    def harmonize(g_forget: PyTree, g_retain: PyTree) -> PyTree:
        return optax.tree.add(
            _project(g_forget, g_retain, per_leaf),
            _project(g_retain, g_forget, per_leaf),
        )

    return harmonize


def bargain(*, per_leaf: bool = False) -> Harmonizer:
    """Let the two gradients bargain over the step (MUNBa).

    G = α_r·g_r + α_f·g_f with α_i = ‖g_i‖⁻¹·√((1 − cos φ)/(sin² φ + ξ)), φ the angle
    between them, ξ = 1e-8: the Nash solution, in which neither gains by its size.
    Since (1 − cos φ)/sin² φ = 1/(1 + cos φ), opposed gradients grow; clip the result to
    norm 1, as published. Where a gradient is zero: g_r + 0.1·g_f, as published for
    coefficients that are not positive. `per_leaf` as in `one_way`.

    Reference: Wu and Harandi, arXiv 2411.15537.

    >>> print(bargain()(jnp.array([3.0, 0.0]), jnp.array([0.0, 2.0])))
    [1. 1.]
    """

    def joined(g_forget: PyTree, g_retain: PyTree) -> PyTree:
        (reach_f, forget), (reach_r, retain) = _scaled(g_forget), _scaled(g_retain)
        norms = optax.tree.norm(forget), optax.tree.norm(retain)
        cos = cosine(g_forget, g_retain)
        share = jnp.sqrt((1.0 - cos) / ((1.0 - cos) * (1.0 + cos) + 1e-8))
        good = (norms[0] > 0) & (norms[1] > 0) & (share > 0)
        one = jnp.float32(1)
        alpha_f = jnp.where(good, share / jnp.where(good, norms[0], one), 0.1 * reach_f)
        alpha_r = jnp.where(good, share / jnp.where(good, norms[1], one), reach_r)

        def mixed(leaf, f, r):
            return (alpha_f * f + alpha_r * r).astype(leaf.dtype)

        return jax.tree.map(mixed, g_retain, forget, retain)

    def harmonize(g_forget: PyTree, g_retain: PyTree) -> PyTree:
        if per_leaf:
            return jax.tree.map(joined, g_forget, g_retain)
        return joined(g_forget, g_retain)

    return harmonize


class Sum(NamedTuple):
    """What `add` returns: alone among harmonizers the same for a batch as for parts."""

    forget: float | Array
    retain: float | Array

    def __call__(self, g_forget: PyTree, g_retain: PyTree) -> PyTree:
        """Return the sum of the gradients times the factors."""
        return optax.tree.add(
            optax.tree.scale(self.forget, g_forget),
            optax.tree.scale(self.retain, g_retain),
        )


def add(forget: float = 1.0, retain: float = 1.0) -> Harmonizer:
    """Add the gradients with fixed factors: G = forget·g_f + retain·g_r.

    >>> print(add(0.5, 1.0)(jnp.array([1.0, -1.0]), jnp.array([0.0, 2.0])))
    [0.5 1.5]
    """
    return Sum(forget, retain)


class Separate(NamedTuple):
    """The two gradients of a step, not joined; None where the step has none of them."""

    forget: PyTree | None
    retain: PyTree | None


class Separately(NamedTuple):
    """A harmonizer that joins nothing: `Separate(forget·g_f, retain·g_r)`."""

    forget: float | Array = 1.0
    retain: float | Array = 1.0

    def __call__(self, g_forget: PyTree | None, g_retain: PyTree | None) -> PyTree:
        """Return both gradients; what is None stays None."""
        pair = zip(self, (g_forget, g_retain), strict=True)
        return Separate(*(g if g is None else optax.tree.scale(c, g) for c, g in pair))


separate = Separately()
"""Each gradient goes to an optimizer of its own, see `jax_unlearn.optimizers.dual`."""


def scaled(
    join: Harmonizer, *, forget: float | Array = 1.0, retain: float | Array = 1.0
) -> Harmonizer:
    """Multiply the gradients by factors before they are joined.

    >>> print(scaled(add(), forget=0.5)(jnp.array([1.0, -1.0]), jnp.array([0.0, 2.0])))
    [0.5 1.5]
    """
    if isinstance(join, Sum | Separately):
        return type(join)(forget * join.forget, retain * join.retain)
    return lambda g_forget, g_retain: join(
        optax.tree.scale(forget, g_forget), optax.tree.scale(retain, g_retain)
    )


def _project(g: PyTree, onto: PyTree, per_leaf: bool) -> PyTree:
    return jax.tree.map(project, g, onto) if per_leaf else project(g, onto)


def _scaled(tree: PyTree) -> tuple[Array, PyTree]:
    """Return the largest size of an entry, and the tree divided by it, in float32."""
    tree = optax.tree.cast(tree, jnp.float32)
    sizes = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(tree)]
    largest = functools.reduce(jnp.maximum, sizes, jnp.float32(0))
    divisor = jnp.where(largest > 0, largest, 1.0)
    return largest, jax.tree.map(lambda leaf: leaf / divisor, tree)
