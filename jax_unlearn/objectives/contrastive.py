"""Losses of FCS: no class at all, and no nearer to one retain sample than to others."""

import jax
import jax.numpy as jnp

from jax_unlearn import _validate, losses
from jax_unlearn.objectives.base import Objective, on_logits
from jax_unlearn.types import Array, Model

__all__ = ["contrast", "uniform"]


def uniform(model: Model) -> Objective:
    """Return KL(u ‖ p), u = 1/K the uniform distribution: ℓ = −log K − Σ_k log p_k/K.

    No label is used.

    Reference: the first stage of the winner of the NeurIPS 2023 unlearning challenge.

    >>> from jax_unlearn.adapters import from_stateless
    >>> from jax_unlearn.types import Batch
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.array([0, 0]))
    >>> uniform(model)(2.0, (), batch, jax.random.key(0))[0].tolist()
    [0.0, 0.4338]
    """

    def loss(logits, batch, key, data):
        del batch, key, data
        classes = logits.shape[-1]
        flat = jnp.full(logits.shape, 1 / classes, jnp.float32)
        return losses.soft_cross_entropy(logits, flat) - jnp.log(jnp.float32(classes))

    return on_logits(model, loss)


def contrast(
    forget: Array, retain: Array, where: Array | None = None, *, temperature: float
) -> Array:
    """Return how unequally near forget outputs are to retain outputs, `f32[B]` (FCS).

    ℓ_i = −(1/R) Σ_j log softmax_j(z_i·z_j/t), least, log R, where the dot product of a
    forget sample's outputs z_i with those of all R retain samples is the same.

    Outputs are `[B, K]` and `[R, K]`; t > 0 is the temperature, published 1.15; retain
    rows that `where`, `bool[R]`, does not mark do not count.

    Raises:
      InputError: t that is not positive.

    Reference: the second stage of the winner of the NeurIPS 2023 unlearning challenge.

    >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> contrast(jnp.array([[3.0, 3.0], [1.0, 0.0]]), z, temperature=1.0).tolist()
    [0.6931, 0.8133]
    """
    _validate.positive("temperature", temperature, "published: 1.15")
    forget, retain = (jnp.asarray(z, jnp.float32) for z in (forget, retain))
    real = jnp.ones(retain.shape[0], jnp.bool_) if where is None else where
    near = jnp.where(real[None], forget @ retain.T / temperature, -jnp.inf)
    spread = jnp.where(real[None], jax.nn.log_softmax(near, axis=-1), 0.0)
    count = jnp.maximum(jnp.sum(real.astype(jnp.float32)), 1.0)
    return -jnp.sum(spread, axis=-1) / count
