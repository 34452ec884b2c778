"""Influence unlearning: one Newton-like step by the inverse of the empirical Fisher.

With F = λI + (1/n) Σ_i g_i g_iᵀ over single retain gradients, the step is θ + α·F⁻¹v.
Sherman and Morrison add the g_i one by one,

    F_i⁻¹v = F_{i-1}⁻¹v − (g_i·F_{i-1}⁻¹v)/(n + g_i·o_i)·o_i,   o_i = F_{i-1}⁻¹g_i,

where o_i must be made anew from g_i. The public code keeps one o, started at g_1 and
updated along itself: o never leaves the line of g_1, so that its result is v minus a
multiple of ONE sample's gradient. Both are here: form="published" and form="exact". Its
n is 1000 whatever is used (1,002 gradients at most): "recursion" has the number used.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import _validate, programs
from jax_unlearn.cards import (
    Card,
    Count,
    Job,
    Lab,
    NotNegative,
    Options,
    Positive,
    Variables,
)
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import counted, mean_gradient
from jax_unlearn.leaves import divided
from jax_unlearn.types import Array, Batch, LossFn, ModelState, Params, PyTree

__all__ = ["FORMS", "INFLUENCE", "Influence", "influence", "woodfisher"]

FORMS = ("published", "recursion", "exact")
BEYOND = 2  # gradients that the public loop uses after its n-th
_dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def woodfisher(
    v: Array,
    gradients: Array,
    *,
    damping: float | Array = 1.0,
    form: str = "published",
    samples: int = 1000,
) -> Array:
    """Apply to v the inverse of F = λI + (1/n) Σ g_i g_iᵀ, or what is published as it.

    form="exact": F⁻¹v = (v − Gᵀ(nλI + GGᵀ)⁻¹Gv)/λ, by Woodbury's identity.

    form="published": k = v/λ, o = g_1/λ, then for i = 2, …, N + 2, or until no more are
    there,

        k ← k − (k·g_i)/(N + o·g_i)·o,   o ← o − (o·g_i)/(N + o·g_i)·o,

    with N = `samples`, 1000 in the public code, however many gradients there are.
    form="recursion": the same over all n of them, N = n. Both are v/λ − c·g_1 for a
    number c, whatever the other gradients: not F⁻¹v unless all g_i are parallel. Where
    N + o·g_i = 0 the gradient is skipped.

    The rows of G, `f32[n, P]`, are the gradients g_i; the damping λ > 0 is 1 in the
    public code. The result is `f32[P]` as v; v/λ if n = 0.

    Raises:
      InputError: unknown form, damping not positive, samples below 1.
      ValueError: shapes other than `[P]` and `[n, P]`.

    Reference: Singh and Alistarh, arXiv 2004.14340 (WoodFisher); Jia et al., arXiv
    2304.04934 (IU), whose public code is the form "published".

    >>> v, gradients = jnp.array([1.0, 1.0]), jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> print(woodfisher(v, gradients, form="exact"))  # F = diag(2, 1)
    [0.5 1. ]
    >>> print(
    ...     woodfisher(v, gradients, form="recursion")
    ... )  # 1 - 1/(2 + 1): not the first
    [0.6667 1. ]
    >>> print(woodfisher(v, gradients, samples=9))  # 1 - 1/(9 + 1)
    [0.9 1. ]
    """
    _validate.one_of("form", form, FORMS)
    _validate.positive("damping", damping)
    _validate.at_least("samples", samples, 1)
    if gradients.ndim != 2 or v.shape != gradients.shape[1:]:
        raise ValueError(
            f"v.shape={v.shape} and gradients.shape={gradients.shape} must be [P] and "
            "[n, P]"
        )
    v, gradients = v.astype(jnp.float32), gradients.astype(jnp.float32)
    count, damping = gradients.shape[0], jnp.float32(damping)
    if count == 0:
        return v / damping
    if form == "published":
        gradients = gradients[: samples + BEYOND]
    along = _dot(gradients, v)
    if form != "exact":
        fixed = samples if form == "published" else count
        first = _published(along, _dot(gradients, gradients[0]), damping, fixed)
        return v / damping - first * gradients[0]
    gram = _dot(gradients, gradients.T)
    inner = gram + count * damping * jnp.eye(count, dtype=jnp.float32)
    return (v - _dot(jnp.linalg.solve(inner, along), gradients)) / damping


def influence(
    loss_fn: LossFn,
    params: Params,
    model_state: ModelState,
    *,
    forget: Iterable[Batch],
    retain: Iterable[Batch],
    key: Array,
    alpha: float = 1.0,
    samples: int = 1000,
    damping: float = 1.0,
    form: str = "published",
    iterations: int = 200,
    tolerance: float = 1e-4,
) -> Params:
    """Take the influence of the forget samples back (IU): θ + α·F⁻¹v.

    v = (1/M)[Σ_f ∇ℓ − (|D_f|/|D_r|) Σ_r ∇ℓ], M = |D_f| + |D_r|, and F⁻¹ as `woodfisher`
    has it. The form "published" is what tables of IU report; "exact" solves F·k = v by
    conjugate gradients. None stores gradients of single samples: products with all
    of them are derivatives of the batch's losses, two passes over the n samples in the
    published form, one an iteration in the exact one.

    Args:
      loss_fn: unreduced losses in eval mode:
        `objectives.descent(model)._replace(train=False)`; must admit forward-mode
        derivatives.
      params: pytree of arrays.
      model_state: of the model; not changed.
      forget: all forget samples, in batches.
      retain: all retain samples, in batches, shuffled: F is made of the first ones, and
        the published form subtracts a multiple of the very first.
      key: for losses that need one.
      alpha: α, searched per data set (SalUn: 1 to 20).
      samples: number n of retain samples in F, all if there are fewer; of the form
        "published" N, which stays the same then, and two samples more are used.
      damping: λ > 0; the public code has 1.
      form: "published", "recursion" or "exact".
      iterations: most iterations of the exact form.
      tolerance: of the exact form: stops when ‖v − F·k‖ ≤ tolerance·‖v‖.

    Raises:
      InputError: unknown form, damping not positive, samples below 1, no forget or
        retain samples, objective in train mode; tolerance not reached.

    Reference: Koh and Liang, arXiv 1703.04730; Izzo et al., arXiv 2002.10077; Jia et
    al., arXiv 2304.04934.

    >>> from jax_unlearn.types import Aux
    >>> def loss_fn(w, state, batch, key):
    ...     losses = w * batch.inputs
    ...     return losses, Aux(losses, losses, state)
    >>> forget = [Batch(jnp.array([3.0]), jnp.array([0]))]
    >>> retain = [Batch(jnp.array([1.0, 1.0]), jnp.array([0, 0]))]
    >>> w, key = jnp.float32(0.0), jax.random.key(0)
    >>> sets = dict(forget=forget, retain=retain, key=key)
    >>> print(influence(loss_fn, w, (), form="exact", **sets))  # (3 - 1)/3 / (1 + 1)
    0.3333
    """
    _validate.eval_mode(loss_fn)
    _validate.one_of("form", form, FORMS)
    _validate.positive("damping", damping)
    _validate.at_least("samples", samples, 1)
    _validate.at_least("iterations", iterations, 1)
    _validate.positive("tolerance", tolerance)
    forget, retain = list(forget), list(retain)
    sizes = [_count(forget), _count(retain)]
    if min(sizes) < 1:
        raise InputError(
            f"forget and retain hold {sizes[0]} and {sizes[1]} samples; give 1 or more"
        )
    gradient = mean_gradient(loss_fn)
    key_forget, key_retain, key_fisher = jax.random.split(key, 3)
    v = optax.tree.scale(
        sizes[0] / sum(sizes),
        optax.tree.sub(
            gradient(params, model_state, forget, key_forget),
            gradient(params, model_state, retain, key_retain),
        ),
    )
    used = _first(retain, samples + BEYOND if form == "published" else samples)
    keys = [jax.random.fold_in(key_fisher, number) for number in range(len(used))]
    part, whole = divided(params)
    center = optax.tree.cast(part, jnp.float32)
    along, back = _jacobian(loss_fn, params, model_state)

    if form != "exact":
        first = np.zeros(used[0].labels.shape, np.float32)
        first[int(np.argmax(np.asarray(used[0].mask)))] = 1.0
        direction = back(center, used[0], keys[0], jnp.asarray(first))

        def dots(u):
            parts = [
                np.asarray(along(center, b, k, u))[np.asarray(b.mask)]
                for b, k in zip(used, keys, strict=True)
            ]
            return np.concatenate(parts)

        fixed = samples if form == "published" else _count(used)
        along_both = jnp.asarray(dots(v)), jnp.asarray(dots(direction))
        c = _published(*along_both, damping, fixed)
        step = optax.tree.add_scale(optax.tree.scale(1 / damping, v), -c, direction)
    else:
        count = _count(used)

        def product(u):
            total = optax.tree.scale(damping * count, u)
            for batch, key in zip(used, keys, strict=True):
                new = back(center, batch, key, along(center, batch, key, u))
                total = optax.tree.add(total, new)
            return optax.tree.scale(1 / count, total)

        step = _conjugate_gradients(product, v, iterations, tolerance)
    moved = optax.tree.add_scale(center, alpha, step)
    return whole(optax.tree.cast_like(moved, part))


@jax.jit
def _published(
    v_along: Array, first_along: Array, damping: float | Array, count: int
) -> Array:
    """Return c of k = v/λ − c·g_1 from the products of v and g_1 with all g_i."""
    # o = r·g_1 throughout, so the recursion on vectors is one on c and r
    count, damping = jnp.float32(count), jnp.float32(damping)

    def body(carry, dots):
        c, r = carry
        v_dot, first_dot = dots
        below = count + r * first_dot
        share = jnp.where(below == 0, 0.0, r / jnp.where(below == 0, 1.0, below))
        k_dot = v_dot / damping - c * first_dot
        return (c + k_dot * share, r - r * first_dot * share), None

    start = jnp.float32(0), 1 / damping
    (c, _), _ = jax.lax.scan(body, start, (v_along[1:], first_along[1:]))
    return c


def _vdot(a: PyTree, b: PyTree) -> float:
    return float(jnp.asarray(optax.tree.vdot(a, b)))


def _count(batches: list[Batch]) -> int:
    return sum(int(np.sum(np.asarray(counted(batch)))) for batch in batches)


def _first(batches: list[Batch], samples: int) -> list[Batch]:
    """Return the batches of the first `samples` samples, with masks."""
    used, left = [], samples
    for batch in batches:
        mask = np.asarray(counted(batch))
        mask = mask & (np.cumsum(mask) <= left)
        if mask.any():
            used.append(batch._replace(mask=jnp.asarray(mask)))
            left -= int(mask.sum())
    return used


def _jacobian(loss_fn: LossFn, params: Params, model_state: ModelState):
    """Return the products with J = [g_i], masked rows 0: u -> J·u `[B]`, a -> Jᵀ·a."""

    def losses(variables, batch, key):
        params, model_state = variables
        part, whole = divided(params)

        def losses_fn(center):
            cast = whole(optax.tree.cast_like(center, part))
            return loss_fn(cast, model_state, batch, key)[0].astype(jnp.float32)

        return losses_fn

    @programs.jit
    def along(variables, center, batch, key, u):
        _, dots = jax.jvp(losses(variables, batch, key), (center,), (u,))
        return jnp.where(counted(batch), dots, 0.0)

    @programs.jit
    def back(variables, center, batch, key, a):
        _, pullback = jax.vjp(losses(variables, batch, key), center)
        return pullback(jnp.where(counted(batch), a, 0.0))[0]

    variables = params, model_state  # arguments, no constants of the programs
    return functools.partial(along, variables), functools.partial(back, variables)


def _conjugate_gradients(product, v: PyTree, iterations: int, tolerance: float):
    """Solve F·k = v for a symmetric F of positive eigenvalues; k = 0 if v = 0."""
    k, residual = optax.tree.zeros_like(v), v
    direction, size = residual, _vdot(residual, residual)
    target = tolerance**2 * size
    for _ in range(iterations):
        if size <= target:
            break
        image = product(direction)
        rate = size / _vdot(direction, image)
        k = optax.tree.add_scale(k, rate, direction)
        residual = optax.tree.add_scale(residual, -rate, image)
        before, size = size, _vdot(residual, residual)
        direction = optax.tree.add_scale(residual, size / before, direction)
    if not size <= target:
        raise InputError(
            f"iterations={iterations} left a residual of "
            f"{(size / target) ** 0.5 * tolerance:.2g} above tolerance={tolerance}; "
            "raise damping or iterations"
        )
    return k


@dataclasses.dataclass(frozen=True)
class Influence(Options):
    """Options of influence unlearning.

    Attributes:
      samples: largest number of gradients in the inverse Fisher matrix; for the form
        "published" the number it divides by, however many it reads.
      strength: factor of the step.
      form: "published", the recursion of the public code with its fixed number;
        "recursion" with the number of gradients that are read; or "exact".
      damping: damping of the Fisher matrix; 1 in the public code.
    """

    samples: Count = 1000
    strength: NotNegative = 1.0
    form: Literal["published", "recursion", "exact"] = "published"
    damping: Positive = 1.0


def _influence(lab: Lab, options: Influence) -> Job:
    def transform(params: Params, model_state: ModelState) -> Variables:
        moved = influence(
            lab.objective("evaluate"),
            params,
            model_state,
            forget=lab.batches("forget", seed=lab.seed),
            retain=lab.batches("retain", seed=lab.seed),
            key=jax.random.key(lab.seed),
            alpha=options.strength,
            samples=options.samples,
            form=options.form,
            damping=options.damping,
        )
        return moved, model_state

    return Job(None, None, transform=transform)


INFLUENCE = (
    Card.of(_influence, "IU", "Influence (IU, WoodFisher)", "arXiv 2304.04934")
    .but(cost="R + F + samples", kind="one-shot", roles=("evaluate",), weighs=False)
    .but(
        suits="Good for few samples and nearly convex models, as one Newton step. In "
        "deep networks its strength must be searched, and it does little for memorised "
        "samples."
    )
    .tries(strength=(1.0, 10.0, 100.0), form=("published", "exact"))
)
