"""EraseDiff: forget images of a diffusion model towards a noise of another kind."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jax_unlearn import _validate, harmonize, objectives
from jax_unlearn.cards import Card, Job, Lab, NotNegative, Options
from jax_unlearn.diffusion.process import Process
from jax_unlearn.errors import InputError
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.types import Array, Harmonizer, Model, PyTree, Unlearner

__all__ = ["ERASEDIFF", "EraseDiff", "constrained", "erasediff"]


class _Constrained(NamedTuple):
    """A harmonizer that equals those of the same margin: they share their programs."""

    margin: float | Array

    def __call__(self, g_forget: PyTree, g_retain: PyTree) -> PyTree:
        price = self.margin - harmonize.cosine(g_forget, g_retain)
        return harmonize.Sum(jnp.maximum(price, 0.0), 1.0)(g_forget, g_retain)


def constrained(margin: float | Array) -> Harmonizer:
    """Return G = g_r + λ·g_f, λ = max(0, η − cos φ), φ the angle between the two.

    Where the retain gradient already leads the forget loss down, by η or more, nothing
    is added; λ is at most 1 + η. 0 where a gradient is zero.

    Reference: EraseDiff, arXiv 2401.05779, by its code, which divides by both norms;
    the bilevel descent that it follows (BOME) by the square of the second.

    >>> print(constrained(0.5)(jnp.array([0.0, 2.0]), jnp.array([3.0, 0.0])))
    [3. 1.]
    """
    return _Constrained(margin)


def erasediff(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    process: Process,
    strength: float = 0.1,
    margin: float | None = None,
    model_state: str = "sequential",
) -> Unlearner:
    """Descend two losses: of retain images, and of forget images under uniform noise.

    A step descends along g_r + λ·g_f, the gradients of `ju.objectives.denoise` and of
    `denoise_uniform`. What the paper's bilevel problem subtracts from the second, the
    loss after K steps on it alone, is a constant of the step, of gradient 0. (In its
    code these steps leave a trace in Adam's moments; that is not repeated here.)

    Defaults of the code: λ 0.1, batches of 128, a clip after they are joined, eight
    passes over the forget images beside 4,500 retain images, K = 2; losses are sums
    over pixels there, means here.

    Args:
      model: of inputs (x_t, t, condition).
      optimizer: any optax transformation.
      process: noise schedule.
      strength: λ.
      margin: η; instead of a fixed λ that of `constrained`, 0.1 in the code.
      model_state: as of `assemble`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Raises:
      InputError: a negative strength or margin.

    Reference: Wu et al., arXiv 2401.05779, and its code for DDPM.

    >>> import jax, jax_unlearn as ju
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     return params * inputs[0], state
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> alg = erasediff(model, optax.sgd(0.1), process=ju.diffusion.cosine(9))
    >>> x = ju.Batch(jnp.zeros((64, 2, 2, 1)), jnp.zeros(64, int))
    >>> state = alg.init(0.0, ())
    >>> state, info = jax.jit(alg.step)(state, ju.UnlearnBatch(x, x), jax.random.key(0))
    >>> bool(info.forget_loss < info.retain_loss)  # E u² = 1/3, E ε² = 1
    True
    """
    return assemble(
        model,
        optimizer,
        forget=objectives.denoise_uniform(model, process),
        retain=objectives.denoise(model, process),
        harmonizer=_joining(strength, margin),
        model_state=model_state,
    )


def _joining(
    strength: float, margin: float | None, join: Harmonizer | None = None
) -> Harmonizer:
    """Return what joins the gradients: λ fixed, within another harmonizer, or found.

    With a margin the other one is a sum, of which the factors are taken.
    """
    _validate.not_negative("strength", strength, "published: 0.1")
    if margin is not None:
        _validate.not_negative("margin", margin, "published: 0.1")
        found = constrained(margin)
        if isinstance(join, harmonize.Sum) and join != harmonize.add():
            return harmonize.scaled(found, **join._asdict())
        return found
    return harmonize.scaled(join or harmonize.add(), forget=strength)


@dataclasses.dataclass(frozen=True)
class EraseDiff(Options):
    """Options of EraseDiff.

    Attributes:
      strength: factor of the forget gradient.
      margin: the factor is max(0, margin − cosine of the two gradients) instead; 0.1 in
        the published code.
    """

    strength: NotNegative = 0.1
    margin: NotNegative | None = None


def _erasediff(lab: Lab, options: EraseDiff) -> Job:
    told = lab.joint()
    join = _joining(options.strength, options.margin, told["harmonizer"])
    losses = {"forget": lab.objective("noise"), "retain": lab.objective("remember")}
    return Job.of(lab, "zipped", assemble, **losses, **{**told, "harmonizer": join})


def _check(setting: Any) -> None:
    other = "dual" if setting.dual else f"harmonizer={setting.joining!r}"
    joined = setting.dual or setting.joining != "none"
    if setting.options.margin is not None and joined:
        raise InputError(
            f"margin={setting.options.margin} says how the gradients are joined, and "
            f"so does {other}; leave one of them out"
        )


ERASEDIFF = (
    Card.of(_erasediff, "EraseDiff", source="arXiv 2401.05779")
    .but(cost="2·E·R", roles=("noise", "remember"), step_reads=(), joins=True)
    .but(check=_check)
    .but(
        suits="Good for a class of a diffusion model that may be drawn as noise "
        "afterwards, and not as another class: the other classes keep their quality."
    )
    .tries(learning_rate=(1e-4, 3e-4, 1e-3), strength=(0.1, 1.0))
)
