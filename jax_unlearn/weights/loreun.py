"""LoReUn: weights that grow as the loss falls, for easy samples are hard to forget.

SFRon's, an inverse power of the loss, are its nearest relative.
"""

import dataclasses
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.cards import Lab, NotNegative, Options, Positive, WeightingCard
from jax_unlearn.tables import check_table, look_up, row_ids
from jax_unlearn.types import Array, Sample, Weighting
from jax_unlearn.weights.combine import stateless

__all__ = ["LOREUN", "LOREUN_STATIC", "SFRON", "Loreun", "SfronWeights", "Softmin"]
__all__ += ["by_table", "loreun", "loreun_static", "loreun_weights", "sfron"]
__all__ += ["sfron_weights", "softmin_weights"]


@dataclasses.dataclass(frozen=True)
class Softmin:
    """How scores become weights: exp(−score/τ), the smaller the score the more.

    `normalize="mean_one"`: w_i = n·softmax(−s/τ)_i over the n counted samples, which
    neither under- nor overflows and sums to n. `normalize="none"`: w_i = exp(−s_i/τ).

    Attributes:
      temperature: τ > 0; large is uniform, small picks the smallest score.
      normalize: "mean_one" or "none".
      relative: measure τ in standard deviations of the counted scores; equal scores
        then have equal weights.

    >>> Softmin(1.0)(jnp.log(jnp.array([1.0, 3.0]))).tolist()
    [1.5, 0.5]
    """

    temperature: float | Array
    normalize: str = "mean_one"
    relative: bool = False

    def __post_init__(self):
        _validate.positive("temperature", self.temperature, "try 1.0")
        _validate.choice("normalize", self.normalize, "mean_one", "none")

    @property
    def joint(self) -> bool:
        """Whether a weight depends on the other scores of the batch."""
        return self.normalize == "mean_one" or self.relative

    def __call__(self, scores: Array, where: Array | None = None) -> Array:
        """Return weights `f32[B]` of scores `[B]`, 0 where a sample does not count."""
        scores = scores.astype(jnp.float32)
        counted = jnp.ones(scores.shape, jnp.bool_) if where is None else where
        chex.assert_equal_shape([scores, counted])
        tau = jnp.asarray(self.temperature, jnp.float32)
        if self.relative:
            spread = jnp.std(scores, where=counted)
            tau = jnp.where(spread > 0, tau * spread, jnp.float32(1))
        if self.normalize == "none":
            return jnp.where(counted, jnp.exp(-scores / tau), 0.0)
        smallest = jnp.min(scores, where=counted, initial=jnp.inf)
        share = jax.nn.softmax((smallest - scores) / tau, where=counted)
        weights = jnp.sum(counted.astype(jnp.float32)) * share
        return jnp.where(counted, weights, 0.0)


def softmin_weights(
    scores: Array,
    *,
    temperature: float | Array,
    where: Array | None = None,
    normalize: str = "mean_one",
    relative: bool = False,
) -> Array:
    """Weight samples by exp(−score/τ): the smaller the score, the more weight.

    Scores, `[B]`, are finite; samples that `where`, `bool[B]`, does not mark get weight
    0, all if none is marked. The other arguments are those of `Softmin`.

    Raises:
      InputError: unknown `normalize`; a temperature that is a number and not positive.

    Source: our choice of the formula; LoReUn (arXiv 2507.22499) fixes the direction.

    >>> softmin_weights(jnp.log(jnp.array([1.0, 3.0])), temperature=1.0).tolist()
    [1.5, 0.5]
    """
    return Softmin(temperature, normalize, relative)(scores, where)


def loreun_weights(
    losses: Array,
    *,
    temperature: float | Array,
    where: Array | None = None,
    normalize: str = "mean_one",
    relative: bool = False,
) -> Array:
    """Weight forget samples by their loss: w_i ∝ exp(−ℓ_i/τ).

    A small loss means hard to forget and gets more weight (two public codes of this
    name for language models give more to a large one). `mean_one`: w_i =
    n·exp(−ℓ_i/τ)/Σ_j exp(−ℓ_j/τ). `none`: w_i = exp(−ℓ_i/τ) ≤ 1, so that the pressure
    decays as samples are forgotten.

    The losses, `[B]`, are on the true target: cross-entropy, denoising error, … The
    other arguments and the weights are those of `softmin_weights`; overfitted nets, of
    losses of 1e-3…5e-2, want a low temperature, or `relative`.

    Raises:
      InputError: as `softmin_weights`.

    Reference: LoReUn, arXiv 2507.22499; the exponential is from secondary sources, the
    normalisations are our choice.

    >>> losses = jnp.log(jnp.array([1.0, 3.0]))
    >>> loreun_weights(losses, temperature=1.0).tolist()
    [1.5, 0.5]
    >>> loreun_weights(losses, temperature=1.0, normalize="none").tolist()
    [1.0, 0.3333]
    """
    return Softmin(temperature, normalize, relative)(losses, where)


def loreun(*, temperature: float | Array, **options: Any) -> Weighting:
    """Weight by the loss under the current parameters (dynamic LoReUn).

    The losses are those of the forward pass that is differentiated: no extra cost. The
    arguments are those of `Softmin`, errors included.

    >>> w = loreun(temperature=1.0)
    >>> s = Sample(jnp.log(jnp.array([1.0, 3.0])), None, jnp.array([0, 1]))
    >>> w.update(s, w.init())[0].tolist()
    [1.5, 0.5]
    """
    softmin = Softmin(temperature, **options)
    told = {"joint": softmin.joint}
    return stateless(lambda sample: softmin(sample.losses, sample.mask), **told)


def by_table(scores: Array, *, temperature: float | Array, **options: Any) -> Weighting:
    """Weight by fixed scores, one per sample of the data set: w_i ∝ exp(−s_i/τ).

    The scores are a table `[N]` by sample id, small = hard to forget, which becomes the
    state; the other arguments are those of `Softmin`, over each batch.

    Raises:
      InputError: as `softmin_weights`; a table that is not `[N]`; a batch without
        `index`. An id outside the table gives NaN, which `run` reports.

    >>> w = by_table(jnp.log(jnp.array([9.0, 1.0, 3.0])), temperature=1.0)
    >>> s = Sample(jnp.zeros(2), None, jnp.array([0, 0]), index=jnp.array([1, 2]))
    >>> w.update(s, w.init())[0].tolist()
    [1.5, 0.5]
    """
    softmin = Softmin(temperature, **options)
    table = jnp.asarray(scores, jnp.float32)
    check_table("scores", table, "[N]")

    def update(sample: Sample, state, *, reference=None):
        del reference
        index = row_ids(sample.index, "static weights need", " or use dynamic weights")
        return softmin(look_up(state, index), sample.mask), state

    return Weighting(lambda: table, update, softmin.joint)


def loreun_static(
    reference_losses: Array, *, temperature: float | Array, **options: Any
) -> Weighting:
    """Weight by the loss under the original model, computed once (static LoReUn).

    The losses `[N]`, by sample id and of eval mode, are the scores of `by_table`.

    Reference: LoReUn, arXiv 2507.22499 (static variant).

    >>> w = loreun_static(jnp.log(jnp.array([9.0, 1.0, 3.0])), temperature=1.0)
    >>> s = Sample(jnp.zeros(2), None, jnp.array([0, 0]), index=jnp.array([1, 2]))
    >>> w.update(s, w.init())[0].tolist()
    [1.5, 0.5]
    """
    return by_table(reference_losses, temperature=temperature, **options)


@dataclasses.dataclass(frozen=True)
class Loreun(Options):
    """Options of LoReUn, and of the weightings by other scores.

    Attributes:
      temperature: temperature τ; a large one gives uniform weights, a small one all
        weight to the smallest score.
      relative: measure τ in standard deviations of the scores.
      normalize: "mean_one" divides the weights by their mean, "none" does not.
    """

    temperature: Positive = 1.0
    relative: bool = False
    normalize: Literal["mean_one", "none"] = "mean_one"


def _loreun(lab: Lab, options: Loreun) -> Weighting:
    del lab
    return loreun(**vars(options))


LOREUN = (
    WeightingCard.of(_loreun, "LoReUn (dynamic)", source="arXiv 2507.22499")
    .but(title="by the current loss: small loss, more weight", shared=True)
    .tries(temperature=(0.1, 0.3, 1.0, 3.0, 10.0), relative=(True,))
)

LOREUN_STATIC = LOREUN.but(
    name="loreun_static",
    label="LoReUn (static)",
    title="by the loss under the original model",
    build=lambda lab, options: loreun_static(lab.loss_table(), **vars(options)),
)


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
      power: exponent λ of the weights ℓ^(−λ).
    """

    power: NotNegative = 0.5


def _sfron(lab: Lab, options: SfronWeights) -> Weighting:
    del lab
    return sfron(options.power)


SFRON = WeightingCard.of(
    _sfron, "SFRon", "by an inverse power of the current loss"
).but(source="arXiv 2409.19732", shared=True)
