"""Selective synaptic dampening: shrink the weights that matter to forget samples."""

import dataclasses

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.cards import Card, Job, Lab, Options, Positive
from jax_unlearn.leaves import alike, divided
from jax_unlearn.types import Array, Params, PyTree

__all__ = ["SSD", "Ssd", "ssd", "ssd_selected"]


def ssd_selected(
    importance: PyTree, forget_importance: PyTree, *, alpha: float | Array = 10.0
) -> PyTree:
    """Mark the weights of much more importance to D_f than to all of D: I_f > α·I_D.

    A weight with I_f = 0 is never marked, not even where I_D = 0. The arguments are
    those of `ssd`, the result is a pytree of bool.

    Raises:
      InputError: negative alpha; pytrees of different shapes.

    Reference: SSD, Foster et al., arXiv 2308.07707.

    >>> print(ssd_selected(jnp.array([1.0, 1.0, 0.0]), jnp.array([20.0, 9.0, 0.0])))
    [ True False False]
    """
    _validate.at_least("alpha", alpha, 0)
    _validate.same_shapes("importance", importance, forget_importance)
    return _marked(importance, forget_importance, jnp.float32(alpha))


def ssd(
    params: Params,
    importance: PyTree,
    forget_importance: PyTree,
    *,
    alpha: float | Array = 10.0,
    dampening: float | Array = 1.0,
) -> Params:
    """Dampen the marked weights: θ·min(λ·I_D/I_f, 1) where I_f > α·I_D.

    No weight grows, none changes its sign, the others stay as they are. A marked weight
    of no importance to D (I_D = 0) becomes 0.

    I_D ≥ 0 is the importance on ALL training samples, I_f ≥ 0 that on forget samples,
    pytrees like `params`; λ ≥ 0 is the dampening. Published: for both
    `fisher_information(loss_fn, per="batch")` with the same batch size, α = 10
    (ResNet-18), λ = 1.

    Raises:
      InputError: negative alpha or dampening; importances not shaped like `params`.

    Reference: SSD, Foster et al., arXiv 2308.07707.

    >>> importance, forget = jnp.array([1.0, 1.0]), jnp.array([20.0, 2.0])
    >>> print(ssd(jnp.array([4.0, 4.0]), importance, forget))  # 4·1/20
    [0.2 4. ]
    """
    _validate.at_least("dampening", dampening, 0)
    part, whole = divided(params)
    importances = alike(importance, part), alike(forget_importance, part)
    _validate.same_shapes("forget_importance", importances[1], part)
    marked = ssd_selected(*importances, alpha=alpha)
    return whole(_dampened(part, *importances, marked, jnp.float32(dampening)))


@jax.jit
def _marked(importance: PyTree, forget_importance: PyTree, bound: Array) -> PyTree:
    def marked(every, forget):
        every, forget = every.astype(jnp.float32), forget.astype(jnp.float32)
        return (forget > bound * every) & (forget > 0)

    return jax.tree.map(marked, importance, forget_importance)


@jax.jit
def _dampened(
    params: Params,
    importance: PyTree,
    forget_importance: PyTree,
    marked: PyTree,
    strength: Array,
) -> Params:
    def dampen(param, every, forget, marked):
        every, forget = every.astype(jnp.float32), forget.astype(jnp.float32)
        ratio = jnp.minimum(strength * every, forget) / jnp.where(marked, forget, 1.0)
        shrunk = param.astype(jnp.float32) * ratio
        return jnp.where(marked, shrunk.astype(param.dtype), param)

    return jax.tree.map(dampen, params, importance, forget_importance, marked)


@dataclasses.dataclass(frozen=True)
class Ssd(Options):
    """Options of selective synaptic dampening.

    Attributes:
      selection: a weight is dampened if it is this many times more important to the
        forget set than to all samples.
      dampening: factor of the ratio by which weights are dampened.
    """

    selection: Positive = 10.0
    dampening: Positive = 1.0


def _ssd(lab: Lab, options: Ssd) -> Job:
    def move(params: Params) -> Params:
        important = [lab.fisher(part, per="batch") for part in ("trained", "forget")]
        factors = {"alpha": options.selection, "dampening": options.dampening}
        return ssd(params, *important, **factors)

    return Job.once(move)


SSD = (
    Card.of(_ssd, "SSD", "Selective synaptic dampening (SSD)", "arXiv 2308.07707")
    .but(cost="R + 2·F", kind="one-shot", roles=("evaluate",), weighs=False)
    .but(
        suits="Good for whole classes in seconds, without training: it dampens the "
        "weights that matter to them alone. Random samples share their weights with "
        "all others, so expect little effect, or damage."
    )
    .tries(selection=(1.0, 3.0, 10.0), dampening=(0.3, 1.0))
)
