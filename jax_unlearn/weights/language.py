"""Weights of texts and of tokens: NPO, SimNPO and WGA are all of LoReUn's family.

Ascending on the loss S of a text, its weight says what NPO's loss says otherwise: the
smaller S, the more weight. So shape (NPO's sigmoid, SimNPO's, an exponential),
granularity (text, token) and reference (the original's loss, none) are three choices.

Weightings of texts read a `ju.language.Scored` in `Sample.outputs`, which the
objectives of language models leave there. Weights of tokens, `(nll f32[B, T−1], counted
bool[B, T−1]) -> f32[B, T−1]`, are given to an objective, `next_token_ascent(model,
token_weight=...)`, which does not differentiate them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.cards import Lab, Options, Positive, WeightingCard
from jax_unlearn.errors import InputError
from jax_unlearn.language.text import Scored, text_losses
from jax_unlearn.tables import check_table, look_up, row_ids
from jax_unlearn.types import Array, Sample, Weighting
from jax_unlearn.weights.combine import stateless, uniform
from jax_unlearn.weights.loreun import Loreun, Softmin

__all__ = ["BY_LENGTH", "LOREUN_TOKENS", "NPO", "SIMNPO", "WGA", "TokenWeight"]
__all__ += ["by_length", "loreun_tokens", "npo", "npo_weights", "satimp", "simnpo"]
__all__ += ["wga"]

TokenWeight = Callable[[Array, Array], Array]
"""`(nll f32[B, T−1], counted bool[B, T−1]) -> weights f32[B, T−1]`."""


def npo_weights(loss: Array, reference: Array, *, beta: float | Array) -> Array:
    """Return w = 2σ(−β(S − S_o)): 1 at the original, → 0 as the text is forgotten.

    The gradient of NPO is that of an ascent on S so weighted; with ℓ̄ for S and δ for
    S_o, SimNPO's. Shapes `[...]`.

    Reference: the gradient in NPO, arXiv 2404.05868, section 3.

    >>> npo_weights(jnp.array([1.0, 9.0]), jnp.array([1.0, 1.0]), beta=0.5).tolist()
    [1.0, 0.036]
    """
    gap = loss.astype(jnp.float32) - reference
    return 2.0 * jax.nn.sigmoid(-jnp.asarray(beta, jnp.float32) * gap)


def npo(reference: Array, *, beta: float | Array = 0.1) -> Weighting:
    """Weight texts as NPO does: w = 2σ(−β(S − S_o)), of an ascent on S.

    The reference is S_o by id of the text, `f32[N]`: `ju.language.reference_nll`; it
    becomes the state. With `next_token_ascent(model, reduction="sum")` it is NPO.

    Raises:
      InputError: β not positive, a table that is not `[N]`; in the step, a batch
        without `index`, or outputs that are no `Scored`.

    >>> tokens = Scored(jnp.array([[3.0, 1.0]]), jnp.array([[True, True]]))
    >>> sample = Sample(jnp.array([2.0]), tokens, jnp.array([0]), jnp.array([1]))
    >>> w = npo(jnp.array([0.0, 4.0]))  # the original's loss, S_o = S
    >>> w.update(sample, w.init())[0].tolist()
    [1.0]
    """
    _validate.positive("beta", beta, "try 0.1")
    table = jnp.asarray(reference, jnp.float32)
    check_table("reference", table, "[N]")

    def update(sample: Sample, state, *, reference=None):
        del reference
        index = row_ids(sample.index, "the reference of NPO needs")
        before = look_up(state, index, sample.mask)
        return npo_weights(_sums(sample)[0], before, beta=beta), state

    return Weighting(lambda: table, update)


def simnpo(*, beta: float | Array = 4.5, delta: float | Array = 0.0) -> Weighting:
    """Weight texts as SimNPO does: w = 2σ(−β(ℓ̄ − δ)), of an ascent on ℓ̄.

    Raises:
      InputError: β not positive.

    Reference: SimNPO, arXiv 2410.07163.

    >>> w = simnpo(beta=1.0, delta=2.0)
    >>> w.update(Sample(jnp.array([2.0]), None, jnp.array([0])), w.init())[0].tolist()
    [1.0]
    """
    _validate.positive("beta", beta, "try 4.5")
    delta = jnp.asarray(delta, jnp.float32)
    return stateless(lambda sample: npo_weights(sample.losses, delta, beta=beta))


def by_length() -> Weighting:
    """Weight texts by their answered tokens: w_i = n_i·B/Σn, of mean one.

    Means by text so become the mean over all tokens: chain it to weights of texts where
    the reduction "token" is wanted.

    Source: our choice.

    >>> counted = jnp.array([[True, True, True], [True, False, False]])
    >>> tokens = Scored(jnp.zeros((2, 3)), counted)
    >>> w = by_length()
    >>> w.update(Sample(jnp.zeros(2), tokens, jnp.zeros(2, int)), w.init())[0].tolist()
    [1.5, 0.5]
    """

    def weigh(sample: Sample) -> Array:
        number = _sums(sample)[1]
        if sample.mask is not None:
            number = jnp.where(sample.mask, number, 0.0)
            samples = jnp.sum(sample.mask).astype(jnp.float32)
        else:
            samples = jnp.float32(number.shape[0])
        return number * samples / jnp.maximum(jnp.sum(number), 1.0)

    return stateless(weigh, joint=True)


def wga(*, beta: float | Array = 1.0) -> TokenWeight:
    """Weight tokens by p^β, p their probability (WGA).

    That is LoReUn by token, with `normalize="none"` and τ = 1/β.

    Raises:
      InputError: β negative.

    Reference: WGA, arXiv 2502.19301.

    >>> nll = -jnp.log(jnp.array([[0.5, 0.25]]))
    >>> wga(beta=2.0)(nll, jnp.ones((1, 2), bool)).tolist()
    [[0.25, 0.0625]]
    """
    _validate.not_negative("beta", beta, "try 1")

    def weigh(nll: Array, counted: Array) -> Array:
        power = jnp.exp(-jnp.asarray(beta, jnp.float32) * nll)
        return jnp.where(counted, power, 0.0)

    return weigh


def satimp(*, saturation: float | Array = 5.0, importance: float | Array = 1.0):
    """Weight tokens by p^β₁(1 − p)^β₂: neither those forgotten nor those too sure.

    Raises:
      InputError: an exponent below 0.

    Reference: SatImp, arXiv 2505.11953.

    >>> nll = -jnp.log(jnp.array([[0.5, 1.0]]))
    >>> satimp(saturation=1.0)(nll, jnp.ones((1, 2), bool)).tolist()
    [[0.25, 0.0]]
    """
    _validate.not_negative("importance", importance, "try 1")
    saturate = wga(beta=saturation)

    def weigh(nll: Array, counted: Array) -> Array:
        missing = -jnp.expm1(-nll)
        return saturate(nll, counted) * missing ** jnp.asarray(importance, jnp.float32)

    return weigh


def loreun_tokens(temperature: float | Array = 1.0, **options: Any) -> TokenWeight:
    """Weight tokens by their loss, w_t ∝ exp(−ℓ_t/τ), of mean one within each text.

    So the length of a text cannot leak in. The arguments are those of
    `ju.weights.loreun`, `relative` by the spread within the text; `normalize="none"` is
    `wga(beta=1/temperature)`.

    Raises:
      InputError: as `ju.weights.loreun`.

    Source: LoReUn, arXiv 2507.22499, by token: our choice.

    >>> nll = jnp.log(jnp.array([[1.0, 3.0, 1.0]]))
    >>> loreun_tokens()(nll, jnp.array([[True, True, False]])).tolist()
    [[1.5, 0.5, 0.0]]
    """
    return jax.vmap(Softmin(temperature, **options))


def _sums(sample: Sample) -> tuple[Array, Array]:
    """Return (S, n) of each text, if the outputs say so."""
    outputs = sample.outputs
    if not (hasattr(outputs, "nll") and hasattr(outputs, "counted")):
        raise InputError(
            f"the outputs are {type(outputs).__name__}: this weighting reads the losses"
            " of tokens; use an objective of language models, such as "
            "ju.objectives.next_token_ascent"
        )
    return text_losses(Scored(outputs.nll, outputs.counted))


@dataclasses.dataclass(frozen=True)
class Sigmoid(Options):
    """Options of NPO's and SimNPO's weights.

    Attributes:
      sharpness: β, how fast the weight falls as the text is forgotten. Default: as
        published, 0.1 for NPO, by text, and 4.5 for SimNPO, by token.
    """

    sharpness: Positive | None = None


@dataclasses.dataclass(frozen=True)
class Power(Options):
    """Options of WGA's weights.

    Attributes:
      token_power: β, the power of a token's probability.
    """

    token_power: Positive = 1.0


def _npo_weights(lab: Lab, options: Sigmoid) -> Weighting:
    return npo(lab.loss_table(total=True), beta=options.sharpness or 0.1)


def _simnpo_weights(_: Lab, options: Sigmoid) -> Weighting:
    return simnpo(beta=options.sharpness or 4.5)


def _by_length(lab: Lab, _: Options) -> Weighting:
    del lab
    return by_length()


def _loreun_tokens(lab: Lab, options: Loreun) -> Weighting:
    del lab, options  # the weights are in the objective
    return uniform()


def _wga_weights(lab: Lab, options: Power) -> Weighting:
    del lab, options
    return uniform()


NPO = (
    WeightingCard.of(_npo_weights, "NPO's", source="arXiv 2404.05868")
    .but(title="by NPO's sigmoid of the loss above the original's", reads="tokens")
    .but(shared=True)
    .tries(sharpness=(0.05, 0.1, 0.5))
)

SIMNPO = (
    WeightingCard.of(_simnpo_weights, "SimNPO's", source="arXiv 2410.07163")
    .but(title="by SimNPO's sigmoid of the loss by token", reads="tokens", shared=True)
    .tries(sharpness=(2.5, 4.5))
)

BY_LENGTH = WeightingCard.of(_by_length, "by length").but(
    title="by the number of tokens", reads="tokens", shared=True
)

LOREUN_TOKENS = (
    WeightingCard.of(_loreun_tokens, "LoReUn (tokens)", source="arXiv 2507.22499")
    .but(title="by the loss of each token, mean one within a text", reads="tokens")
    .but(tokens=lambda options: loreun_tokens(**vars(options)), shared=True)
    .tries(temperature=(0.1, 0.3, 1.0, 3.0), relative=(True,))
)

WGA = (
    WeightingCard.of(_wga_weights, "WGA's", source="arXiv 2502.19301")
    .but(title="by a power of each token's probability", reads="tokens", shared=True)
    .but(tokens=lambda options: wga(beta=options.token_power))
    .tries(token_power=(0.5, 1.0, 2.0))
)
