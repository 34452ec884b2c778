"""SISS: single training images of a diffusion model are forgotten."""

import dataclasses
from functools import partial
from typing import Annotated, cast

import jax
import jax.numpy as jnp
import optax
from numpy.typing import ArrayLike

from jax_unlearn import _validate, harmonize, objectives
from jax_unlearn.cards import Card, Job, Lab, NotNegative, Options, Positive
from jax_unlearn.diffusion.process import Process
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import mean_loss
from jax_unlearn.leaves import divided
from jax_unlearn.methods.step import Pass, stepping
from jax_unlearn.objectives.siss import Pairs
from jax_unlearn.types import Array, Model, PyTree, Unlearner
from jax_unlearn.weights.combine import uniform

__all__ = ["SISS", "Siss", "siss", "subtract"]


def subtract(
    g_forget: PyTree,
    g_retain: PyTree,
    *,
    strength: float | Array = 0.1,
    norm: float | Array | None = None,
) -> tuple[PyTree, Array]:
    """Return g_x − s·g_a and s, the forget gradient scaled to a share of the other.

    s = `strength`·‖g_x‖/‖g_a‖, or `norm`/‖g_a‖ if that is given; 0 where g_a is.

    Reference: SISS, arXiv 2503.01034, section 4, and its code, which fixes the norm.

    >>> found, factor = subtract(jnp.array([0.0, 2.0]), jnp.array([10.0, 0.0]))
    >>> print(found, factor)  # a norm of 0.1·10
    [10. -1.] 0.5
    """
    sizes = [
        optax.tree.norm(optax.tree.cast(g, jnp.float32)) for g in (g_forget, g_retain)
    ]
    wanted = strength * sizes[1] if norm is None else jnp.float32(norm)
    there = sizes[0] > 0
    factor = jnp.where(there, wanted / jnp.where(there, sizes[0], 1.0), 0.0)

    def less(r, f):
        return (r - factor * f.astype(jnp.float32)).astype(r.dtype)

    return jax.tree.map(less, g_retain, g_forget), factor


def siss(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    process: Process,
    mixture: float = 0.5,
    strength: float = 0.1,
    norm: float | None = None,
    drop: float = 0.0,
    null: ArrayLike | None = None,
    model_state: str = "sequential",
) -> Unlearner:
    """Forget single images of a diffusion model (SISS), one forward pass a step.

    A step descends along g_x − s·g_a, the gradients of the two losses of
    `ju.objectives.pairs` over a retain batch, each sample paired with a forget one; s
    makes the norm of the second a share of the first's, see `subtract`. What is paired
    shares timestep and noise; a single forget image is paired with all of the batch.

    Published: AdamW of lr 5e-5, batch 64, 300 steps (MNIST with a T-shirt), or 5e-6,
    batch 64, 60 steps (CelebA-HQ); λ 0.5, gradients clipped to norm 1 after they are
    joined, `norm` 5 and 500 of sums over pixels, "10 % of the retain gradient's norm".

    Args:
      model: of inputs (x_t, t, condition).
      optimizer: any optax transformation.
      process: noise schedule.
      mixture: λ, the share of pairs of which the network sees the forget image.
      strength: norm of the forget gradient as a share of the retain gradient's.
      norm: norm of the forget gradient in every step instead, of means over pixels.
      drop: share of the pairs that see the null condition, as in training.
      null: the null condition; needed where `drop` is over 0.
      model_state: "sequential" or "retain": of the one pass; "frozen": in eval mode.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`, as from
      `ju.data.zipped`. Of its `UnlearnInfo` the losses are the two weighted ones, and
      `conflict` the cosine of their gradients.

    Raises:
      InputError: as `ju.objectives.pairs`; a negative strength or norm; in the step,
        a batch is missing.

    Reference: Alberti et al., arXiv 2503.01034; that the norm follows the retain
    gradient's is our choice.

    >>> import jax_unlearn as ju
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     return params * inputs[0], state
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> alg = siss(model, optax.sgd(0.1), process=ju.diffusion.cosine(9))
    >>> forget = ju.Batch(jnp.ones((1, 2, 2, 1)), jnp.array([0]))
    >>> retain = ju.Batch(jnp.zeros((4, 2, 2, 1)), jnp.zeros(4, int))
    >>> batch = ju.UnlearnBatch(forget, retain)
    >>> state, info = jax.jit(alg.step)(alg.init(1.0, ()), batch, jax.random.key(0))
    >>> bool(info.forget_loss > 0)
    True
    """
    losses = objectives.pairs(model, process, mixture=mixture, drop=drop, null=null)
    told = {"strength": strength, "norm": norm, "model_state": model_state}
    return _subtracting(losses, optimizer, **told)


def _subtracting(
    losses: Pairs,
    optimizer: optax.GradientTransformation,
    *,
    strength: float,
    norm: float | None,
    model_state: str,
) -> Unlearner:
    _validate.not_negative("strength", strength, "published: 0.1")
    if norm is not None:
        _validate.positive("norm", norm)
    if model_state == "frozen":
        losses = losses._replace(train=False)

    def passed(state, batch, key):
        forget, retain = batch.forget, batch.retain
        if forget is None or retain is None:
            raise InputError(
                "siss reads a forget and a retain batch each step; use ju.data.zipped"
            )
        part, whole = divided(state.params)

        def both(part):
            found = losses(whole(part), state.model_state, forget, retain, key)
            own = found.forget, found.retain
            return tuple(mean_loss(each, retain.mask) for each in own), found

        means, pullback, found = jax.vjp(both, part, has_aux=True)
        one, none = jnp.float32(1), jnp.float32(0)
        (g_forget,), (g_retain,) = pullback((one, none)), pullback((none, one))
        grads, factor = subtract(g_forget, g_retain, strength=strength, norm=norm)
        factor = jax.lax.stop_gradient(factor)
        return Pass(
            grads,
            found.model_state,
            state.weight_state,
            forget_loss=means[0],
            retain_loss=means[1],
            conflict=harmonize.cosine(g_forget, g_retain),
            shares=(-factor, 1.0),
        )

    return stepping(
        passed,
        optimizer,
        joint=True,
        weighting=uniform(),
        data=(),
        model_state=model_state,
    )


@dataclasses.dataclass(frozen=True)
class Siss(Options):
    """Options of SISS.

    Attributes:
      mixture: share of the pairs of which the network reads the forget image.
      strength: norm of the forget gradient as a share of the retain gradient's.
      forget_norm: that norm in every step instead, of means over pixels; 5 in the
        published code, of sums over 28 x 28, is 5/784 here.
    """

    mixture: Annotated[float, partial(_validate.within, interval="(0, 1)")] = 0.5
    strength: NotNegative = 0.1
    forget_norm: Positive | None = None


def _siss(lab: Lab, options: Siss) -> Job:
    losses = cast(Pairs, lab.objective("pairs", mixture=options.mixture))
    unlearner = _subtracting(
        losses,
        lab.optimizer(),
        strength=options.strength,
        norm=options.forget_norm,
        model_state=lab.model_state,
    )
    return Job(unlearner, lab.schedule("zipped"))


SISS = (
    Card.of(_siss, "SISS", "Subtracted scores (SISS)", "arXiv 2503.01034")
    .but(cost="5/3·E·R", roles=("pairs",), weighs=False, step_reads=())
    .but(
        suits="Good for single images that a diffusion model reproduces, not for "
        "classes. Take a small rate, and as many steps as an audit says: too few leave "
        "most of the memory."
    )
    .tries(learning_rate=(5e-5, 2e-4, 1e-3), strength=(0.1, 0.3))
)
