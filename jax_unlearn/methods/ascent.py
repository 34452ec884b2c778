"""Methods that lead away: up the loss of the forget set, or by negative guidance."""

import dataclasses
from functools import partial
from typing import Annotated, Unpack

import optax

from jax_unlearn import _validate, harmonize, objectives
from jax_unlearn.cards import Card, Job, Lab, NotNegative, Options
from jax_unlearn.methods.assemble import Assembly, assemble
from jax_unlearn.types import LossFn, Model, Unlearner

__all__ = ["ESD", "GRADIENT_ASCENT", "NEGGRAD_PLUS", "Esd", "NegGradPlus"]
__all__ += ["gradient_ascent", "neggrad_plus"]


def gradient_ascent(
    model: Model, optimizer: optax.GradientTransformation, **options: Unpack[Assembly]
) -> Unlearner:
    """Ascend (GA): minimise −(1/n) Σ w_i CE over D_f, the retain set unused.

    The arguments are those of `assemble`, of which the unlearner reads
    `UnlearnBatch.forget`. Published: lr 1e-4 to 1e-3, 5 epochs; the stabler form clips
    the gradient (0.1) and sets `model_state="frozen"`.

    Reference: Thudi et al., arXiv 2109.13398; Graves et al., arXiv 2010.10981.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = gradient_ascent(model, optax.sgd(1.0))
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params, info.forget_loss)  # 2 − p_1, and −CE
    1.8808 -0.1269
    """
    return assemble(model, optimizer, forget=objectives.ascent(model), **options)


def neggrad_plus(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    alpha: float = 0.95,
    forget: LossFn | None = None,
    retain: LossFn | None = None,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Descend on retain while ascending on forget: α·CE(D_r) − (1−α)·CE(D_f).

    The arguments are those of `assemble`; the losses are −CE and CE unless given, and
    the harmonizer joins gradients already multiplied by 1−α and α. Published: α of 0.95
    (or 0.9999), lr 0.01, 5 epochs.

    Raises:
      InputError: alpha outside [0, 1].

    Reference: Kurmanji et al., arXiv 2302.09880.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = neggrad_plus(model, optax.sgd(1.0), alpha=0.75)
    >>> x = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = jax.jit(alg.step)(state, ju.UnlearnBatch(x, x), jax.random.key(0))
    >>> print(state.params)  # 2 + (0.75 − 0.25)·p_1
    2.0596
    """
    _validate.within("alpha", alpha, "[0, 1]", "try 0.95")
    join = options.get("harmonizer") or harmonize.add()
    options["harmonizer"] = harmonize.scaled(join, forget=1.0 - alpha, retain=alpha)
    return assemble(
        model,
        optimizer,
        forget=objectives.ascent(model) if forget is None else forget,
        retain=objectives.descent(model) if retain is None else retain,
        **options,
    )


@dataclasses.dataclass(frozen=True)
class NegGradPlus(Options):
    """Options of NegGrad+.

    Attributes:
      alpha: share of the retain loss.
    """

    alpha: Annotated[float, partial(_validate.within, interval="[0, 1]")] = 0.95


@dataclasses.dataclass(frozen=True)
class Esd(Options):
    """Options of ESD.

    Attributes:
      guidance: η, how far past the unconditioned prediction the target lies.
    """

    guidance: NotNegative = 1.0


def _gradient_ascent(lab: Lab, _: Options) -> Job:
    told = {"weighting": lab.weighting(), "model_state": lab.model_state}
    return Job.of(lab, "forget", assemble, forget=lab.objective("ascend"), **told)


def _neggrad_plus(lab: Lab, options: NegGradPlus) -> Job:
    losses = {"forget": lab.objective("ascend"), "retain": lab.objective("remember")}
    told = {"alpha": options.alpha, **lab.joint()}
    return Job.of(lab, "both", neggrad_plus, **losses, **told)


def _esd(lab: Lab, options: Esd) -> Job:
    guide = lab.objective("guide", strength=options.guidance)
    told = {"retain": lab.objective("remember"), **lab.joint()}
    return Job.of(lab, "both", assemble, forget=guide, **told)


GRADIENT_ASCENT = (
    Card.of(_gradient_ascent, "GA", "Gradient ascent (GA)", "arXiv 2109.13398")
    .but(reads=("forget",), cost="E·F", roles=("ascend",), step_reads=())
    .but(
        suits="Good for a few samples without access to the retain set. Nothing bounds "
        "the ascent: take small rates and few epochs, or the model is ruined."
    )
    .tries(learning_rate=(0.0001, 0.0003, 0.001), epochs=(3, 8))
)

NEGGRAD_PLUS = (
    Card.of(_neggrad_plus, "NegGrad+", source="arXiv 2302.09880")
    .but(cost="E·(R + F)", roles=("ascend", "remember"), schedule=True, step_reads=())
    .but(
        suits="Good for a first try where both sets may be read: descent on the retain "
        "set limits the damage of the ascent. A larger alpha is safer and forgets "
        "less."
    )
    .tries(learning_rate=(0.003, 0.01, 0.03), alpha=(0.95, 0.99), epochs=(3,))
)

ESD = (
    Card.of(_esd, "ESD", "Negative guidance (ESD)", "arXiv 2303.07345")
    .but(reads=("forget", "retain", "original"), cost="5/3·E·F + E·R")
    .but(roles=("guide", "remember"), schedule=True, step_reads=())
    .but(
        suits="Good for one condition of a diffusion model, a class or a word: it "
        "guides the model away from it and changes the rest of the network little."
    )
)
