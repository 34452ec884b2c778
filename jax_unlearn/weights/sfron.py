"""SFRon's adaptive weights, the nearest relative of LoReUn."""

import dataclasses

import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.cards import Lab, NotNegative, Options, WeightingCard
from jax_unlearn.types import Array, Weighting
from jax_unlearn.weights.combine import stateless
from jax_unlearn.weights.loreun import Softmin

__all__ = ["SFRON", "SfronWeights", "sfron", "sfron_weights"]


def sfron_weights(
    losses: Array, *, power: float | Array, where: Array | None = None
) -> Array:
    """Return w_i = n·ℓ_i^{−λ}/Σ_j ℓ_j^{−λ}.

    Losses, `[B]`, are not negative; those under 1e-8 count as 1e-8. The `power` is
    λ ≥ 0; 0 is uniform. Weights, `f32[B]`, are of mean 1 over the samples that `where`,
    `bool[B]`, marks, and 0 for the others.

    Reference: SFRon, Huang et al., arXiv 2409.19732; λ = 0.5 on CIFAR-10.

    >>> sfron_weights(jnp.array([1.0, 9.0]), power=0.5).tolist()
    [1.5, 0.5]
    """
    scores = jnp.log(jnp.maximum(losses.astype(jnp.float32), 1e-8))
    return Softmin(1.0)(power * scores, where)


def sfron(power: float | Array = 0.5) -> Weighting:
    """Weight forget samples by the inverse power λ ≥ 0 of their current loss.

    Raises:
      InputError: negative power.

    >>> from jax_unlearn.types import Sample
    >>> w = sfron(0.5)
    >>> s = Sample(jnp.array([1.0, 9.0]), None, jnp.array([0, 1]))
    >>> w.update(s, w.init())[0].tolist()
    [1.5, 0.5]
    """
    _validate.not_negative("power", power, "try 0.5")

    def weigh(sample):
        return sfron_weights(sample.losses, power=power, where=sample.mask)

    return stateless(weigh, joint=True)


@dataclasses.dataclass(frozen=True)
class SfronWeights(Options):
    """Options of SFRon's weights.

    Attributes:
      power: λ of ℓ^(−λ).
    """

    power: NotNegative = 0.5


def _sfron(lab: Lab, options: SfronWeights) -> Weighting:
    del lab
    return sfron(options.power)


SFRON = WeightingCard.of(
    _sfron, "SFRon", "by an inverse power of the current loss"
).but(source="arXiv 2409.19732", shared=True)
