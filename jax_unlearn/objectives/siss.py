"""SISS: forget single images of a diffusion model, two losses from one forward pass.

Shapes: B pairs of a retain image x and a forget image a, images `[B, H, W, C]`. A pair
shares its timestep and its noise; the network sees the noised x or the noised a.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from jax_unlearn import _validate
from jax_unlearn.contracts import counted, forward_pass
from jax_unlearn.diffusion.conditions import conditioned, drop_condition
from jax_unlearn.diffusion.denoising import noised, squared_error
from jax_unlearn.diffusion.process import (
    Process,
    coefficients,
    target,
    to_model_range,
)
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Batch, Model, ModelState, Params

__all__ = ["Pairs", "Subtracted", "importance_weights", "pairs"]


def importance_weights(nearer: Array, *, mixture: float) -> tuple[Array, Array]:
    """Return the weights w_x and w_a of samples of a mixture, `f32[B]` each.

    x_t comes from the forget image with probability λ, else from the retain image, so
    that w_x = q(x_t|x)/q_λ(x_t) = 1/((1 − λ) + λ e^{d_x − d_a}) and w_a = 1/((1 − λ)
    e^{d_a − d_x} + λ), d = ‖x_t − √ᾱ_t ·‖²/(2(1 − ᾱ_t)). They are at most 1/(1 − λ) and
    1/λ, and (1 − λ)·w_x + λ·w_a = 1.

    Args:
      nearer: d_x − d_a, `[B]`: above 0 where x_t is nearer to the forget image.
      mixture: λ, between 0 and 1.

    Reference: SISS, arXiv 2503.01034, equation 9.

    >>> print(*importance_weights(jnp.array([0.0, jnp.inf]), mixture=0.5))
    [1. 0.] [1. 2.]
    """
    keep, take = jnp.log1p(-jnp.float32(mixture)), jnp.log(jnp.float32(mixture))
    nearer = nearer.astype(jnp.float32)
    retain = jnp.exp(-jnp.logaddexp(keep, take + nearer))
    return retain, jnp.exp(-jnp.logaddexp(keep - nearer, take))


class Subtracted(NamedTuple):
    """What a pass over pairs gives.

    Attributes:
      retain: w_x ‖ε̂ − ε_x‖², mean over pixels, `f32[B]`.
      forget: w_a ‖ε̂ − ε_a‖², likewise; its gradient is to be subtracted.
      model_state: after the pass.
    """

    retain: Array
    forget: Array
    model_state: ModelState


class Pairs(NamedTuple):
    """The losses of SISS, see `pairs`."""

    model: Model
    process: Process
    mixture: float
    drop: float
    null: ArrayLike | None
    train: bool = True

    def __call__(
        self,
        params: Params,
        model_state: ModelState,
        forget: Batch,
        retain: Batch,
        key: Array,
    ) -> Subtracted:
        """Return the losses of the retain batch, its samples paired with forget ones.

        Forget samples that count take turns.
        """
        noise_key, mix_key, drop_key, apply_key = jax.random.split(key, 4)
        row = _in_turn(counted(forget), retain.labels.shape[0])
        other = jax.tree.map(lambda leaf: leaf[row], forget)
        seen = noised(self.process, retain, noise_key)
        x_t, times, _ = seen.inputs
        signal, spread = coefficients(self.process, times, x_t.ndim)
        (kept, own), (gone, others) = map(conditioned, (retain, other))
        kept, gone = to_model_range(kept), to_model_range(gone)
        if self.drop:  # a pair drops together
            told: Any = {"null": self.null, "rate": self.drop}
            own, others = (drop_condition(drop_key, c, **told) for c in (own, others))

        taken = jax.random.uniform(mix_key, times.shape) < self.mixture
        x_t = jnp.where(_like(taken, x_t), x_t + signal * (gone - kept), x_t)
        condition = jnp.where(_like(taken, own), others, own)
        # d_x − d_a as a product, which stays exact where both are large
        difference = signal * (gone - kept) * (2 * x_t - signal * (gone + kept))
        nearer = jnp.sum((difference / (2 * spread**2)).reshape(len(taken), -1), axis=1)
        # under another condition the other image has no density at all
        alike = jnp.all((own == others).reshape(len(taken), -1), axis=1)
        nearer = jnp.where(alike, nearer, jnp.where(taken, jnp.inf, -jnp.inf))
        w_retain, w_forget = importance_weights(nearer, mixture=self.mixture)

        apply: Any = self.model.apply
        mode = {"train": self.train, "key": apply_key}
        at = params, model_state
        prediction, new = forward_pass(apply, *at, (x_t, times, condition), **mode)

        def errors(image: Array) -> Array:
            noise = (x_t - signal * image) / spread
            return squared_error(prediction, target(self.process, image, noise, times))

        w_forget = jnp.where(jnp.any(counted(forget)), w_forget, 0.0)
        return Subtracted(w_retain * errors(kept), w_forget * errors(gone), new)


def pairs(
    model: Model,
    process: Process,
    *,
    mixture: float = 0.5,
    drop: float = 0.0,
    null: ArrayLike | None = None,
) -> Pairs:
    """Return the losses of SISS: of a retain and a forget image from one forward pass.

    x_t is √ᾱ_t a + √(1 − ᾱ_t) ε with probability λ, else √ᾱ_t x + √(1 − ᾱ_t) ε. With
    ε_x, ε_a the noises that lead from x and from a there, the losses are w_x ‖ε̂ − ε_x‖²
    and w_a ‖ε̂ − ε_a‖²; their means are those of all retain and all forget images, with
    less variance where images are alike. Both are means over pixels, sums as published.

    Published models have no condition, or one prompt for both images. With conditions
    the mixture is of (x_t, c): a pair of two different conditions shares nothing, its
    weights are 1/(1 − λ) and 0, or 0 and 1/λ.

    Args:
      model: of inputs (x_t, t, condition).
      process: noise schedule; with "v_prediction" v stands for ε.
      mixture: λ, the share of pairs of which the network sees the forget image.
      drop: share of the pairs that see the null condition, as in training.
      null: the null condition, of one sample; needed where `drop` is over 0.

    Returns:
      `Pairs`, called as `(params, model_state, forget, retain, key)`.

    Raises:
      InputError: λ not between 0 and 1, `drop` outside [0, 1) or without `null`.

    Reference: SISS, arXiv 2503.01034, section 4; conditions that differ: our choice.

    >>> from jax_unlearn.diffusion.process import from_betas
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     return params * inputs[0], state
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> one = Batch(jnp.zeros((1, 2, 2, 1)), jnp.array([0]))  # x = a: w = 1
    >>> losses = pairs(model, from_betas([0.36]))
    >>> found = losses(1 / 0.6, (), one, one, jax.random.key(0))  # x_t = 0.6 ε
    >>> found.retain.tolist(), found.forget.tolist()
    ([0.0], [0.0])
    """
    _validate.within("mixture", mixture, "(0, 1)", "published: 0.5")
    _validate.share("drop", drop, "usual is 0.1")
    if drop and null is None:
        raise InputError(
            f"drop={drop} needs the null condition; for zoo.UNet that is num_classes"
        )
    return Pairs(model, process, mixture, drop, null)


def _in_turn(counts: Array, size: int) -> Array:
    """Return `size` rows of those that count, one after the other, `i32[size]`."""
    order = jnp.argsort(~counts, stable=True)
    return order[jnp.arange(size) % jnp.maximum(jnp.sum(counts), 1)]


def _like(flags: Array, array: Array) -> Array:
    return flags.reshape(flags.shape + (1,) * (array.ndim - 1))
