"""SFRon's adaptive weights, the nearest relative of LoReUn."""

import jax.numpy as jnp

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Sample, Weighting
from jax_unlearn.weights.loreun import softmin_weights


def sfron_weights(
    losses: Array, *, power: float | Array, where: Array | None = None
) -> Array:
    """Return w_i = n·ℓ_i^{−λ}/Σ_j ℓ_j^{−λ}.

    Args:
      losses: `[B]`, not negative; values under 1e-8 count as 1e-8.
      power: λ ≥ 0; 0 is uniform.
      where: `bool[B]`, samples that count; the others get weight 0.

    Returns:
      Weights `f32[B]` of mean 1 over the counted samples.

    Reference: SFRon, Huang et al., arXiv 2409.19732; λ = 0.5 on CIFAR-10.

    >>> sfron_weights(jnp.array([1.0, 9.0]), power=0.5).tolist()
    [1.5, 0.5]
    """
    scores = jnp.log(jnp.maximum(losses.astype(jnp.float32), 1e-8))
    return softmin_weights(power * scores, temperature=1.0, where=where)


def sfron(power: float | Array = 0.5) -> Weighting:
    """Weight forget samples by the inverse power of their current loss.

    Args:
      power: λ ≥ 0.

    Returns:
      A `Weighting` without state.

    Raises:
      InputError: negative power.

    >>> w = sfron(0.5)
    >>> s = Sample(jnp.array([1.0, 9.0]), None, jnp.array([0, 1]))
    >>> w.update(s, w.init())[0].tolist()
    [1.5, 0.5]
    """
    if isinstance(power, int | float) and not power >= 0:
        raise InputError(f"power={power} must not be negative; try 0.5")

    def update(sample: Sample, state, *, reference=None):
        del reference
        return sfron_weights(sample.losses, power=power, where=sample.mask), state

    return Weighting(lambda: (), update)
