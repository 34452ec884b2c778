"""λ of every leaf of a partial reset, learned by a meta-gradient before it."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import data as datas
from jax_unlearn import programs
from jax_unlearn.gradients import mean_loss, meta_grad
from jax_unlearn.methods.ltu import Ltu
from jax_unlearn.types import PyTree

__all__ = ["COST", "STEPS", "learned"]

STEPS = 4  # of λ
COST = 5  # batches of a step: the support's gradient, its Hessian twice, two queries
MOST = 0.98  # the largest λ


def learned(
    lab: Any, fresh: PyTree, *, shrink: float, perturb: float, rate: float
) -> tuple[list[float], int]:
    """Return λ of every leaf, and how many batches were spent on it.

    θ(λ) = λ θ_o + κ θ_fresh is taken one virtual step on retain samples; there, other
    retain samples are to be known and forget samples to be told from no unseen one by
    LTU's attacks. The gradient of both goes through the step, to θ(λ), and so to λ,
    which moves by its sign (the losses of leaves are of no common scale).
    """
    asked = Ltu(query_size=16, allow_weak=True)
    audits = lab.membership(asked).audits
    remember = lab.objective("remember")
    state, old = lab.original[1], lab.original[0]
    sizes = {"batch_size": lab.training.batch_size, "steps": 2 * STEPS}
    retain = datas.retain_only(lab.examples, lab.ids("retain"), seed=lab.seed, **sizes)
    forget = datas.forget_only(lab.examples, lab.ids("forget"), seed=lab.seed, **sizes)
    inner = optax.sgd(lab.training.learning_rate)
    value = functools.partial(jax.tree.map, lambda a, b: jnp.vdot(a, b))

    @programs.jit
    def slopes(kept: PyTree, first: Any, second: Any, own: Any) -> PyTree:
        start = jax.tree.map(lambda k, a, b: k * a + perturb * b, kept, old, fresh)
        key = jax.random.key(lab.seed)

        def loss(objective: Any, params: PyTree, batch: Any) -> Any:
            losses, _ = objective(params, state, batch, key)
            return mean_loss(losses, batch.mask)

        def query(params: PyTree) -> Any:
            told = [loss(judge, params, own) for judge in audits]
            mean = jnp.mean(jnp.stack(told))
            return jnp.stack([loss(remember, params, second), mean]), None

        def support(params: PyTree) -> Any:
            return loss(remember, params, first), None

        gradient, _ = meta_grad(support, query, start, inner=inner)
        return value(gradient, old)

    kept = jax.tree.map(lambda _: jnp.float32(shrink), old)
    for step in range(STEPS):
        given = (
            retain[2 * step].retain,
            retain[2 * step + 1].retain,
            forget[step].forget,
        )
        moves = slopes(kept, *cast(Any, given))
        kept = jax.tree.map(
            lambda k, g: jnp.clip(k - rate * jnp.sign(g), 0.0, MOST), kept, moves
        )
    leaves = [float(np.asarray(one)) for one in jax.tree.leaves(kept)]
    return leaves, COST * STEPS
