"""Membership attacks on texts: the higher the score, the surer a member.

Each gives one score a text, of the losses of its tokens (`Ragged`), and needs no
unlearning: `attack_auc` tells members from others by any of them. Of an unlearned model
its target is Retrain's AUC, which is not 0.5: forgotten and unseen texts differ by
themselves (in MUSE 0.47 to 0.56).
"""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn import _validate
from jax_unlearn.audit.language.tokens import Ragged, mean_nll, ragged
from jax_unlearn.audit.rates import roc_auc
from jax_unlearn.errors import InputError

__all__ = ["attack_auc", "gradient_norm_score", "loss_score", "min_k"]
__all__ += ["min_k_plus_plus", "privleak", "recall", "reference_score"]
__all__ += ["token_moments", "zlib_ratio"]

FLOOR = 1e-6  # of a variance: a token of which the model is certain


def loss_score(nll: Ragged) -> NDArray[np.float64]:
    """Return −ℓ̄ (LOSS), `f64[N]`.

    Reference: Yeom et al., arXiv 1709.01604.

    >>> loss_score([[1.0, 3.0]])
    array([-2.])
    """
    return -mean_nll(nll)


def min_k(nll: Ragged, *, k: float = 0.4) -> NDArray[np.float64]:
    """Return the mean log-probability of the least likely tokens (Min-K %), `f64[N]`.

    Of max(1, ⌊k·n⌋) tokens, so that a text of one token has its log-probability; one
    public code gives such a text 0, the surest member.

    Raises:
      InputError: k outside (0, 1].

    Reference: arXiv 2310.16789; k as in MUSE, arXiv 2407.06460.

    >>> min_k([[1.0, 3.0, 2.0], [5.0]], k=0.67)
    array([-2.5, -5. ])
    """
    return np.array([_lowest(-row, k) for row in ragged(nll)])


def min_k_plus_plus(
    nll: Ragged, mean: Ragged, std: Ragged, *, k: float = 0.4
) -> NDArray[np.float64]:
    """Return Min-K % of (log p_t − μ_t)/σ_t (Min-K %++), `f64[N]`.

    μ_t and σ_t are the mean and the spread of log p over the vocabulary under p itself,
    token by token: `token_moments` of logits.

    Raises:
      InputError: k outside (0, 1], or moments of other tokens.

    Reference: arXiv 2404.02936.

    >>> min_k_plus_plus([[1.0, 3.0]], [[-2.0, -2.0]], [[1.0, 0.5]], k=0.5)
    array([-2.])
    """
    found = []
    parts = ragged(nll), ragged(mean, "mean"), ragged(std, "std")
    if len({tuple(map(len, part)) for part in parts}) > 1:
        raise InputError("nll, mean and std differ in their tokens; give them alike")
    for row, center, spread in zip(*parts, strict=True):
        if (spread <= 0).any():
            raise InputError(f"std holds {spread.min():g}; give those of token_moments")
        found.append(_lowest((-row - center) / spread, k))
    return np.array(found)


def token_moments(logits: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (μ, σ) of log p over the vocabulary under p, of logits `[..., V]`.

    μ = Σ p log p and σ² = Σ p log²p − μ², at least 1e-6, in float32 whatever the
    logits' dtype: in bfloat16 σ² comes out off by percents.

    Reference: Min-K %++, arXiv 2404.02936.

    >>> mean, std = token_moments(np.log(np.array([[0.8, 0.2]])))
    >>> mean.round(4).tolist(), std.round(4).tolist()
    ([-0.5004], [0.5545])
    """
    z = np.asarray(logits).astype(np.float32)
    z = z - z.max(axis=-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    p = np.exp(log_p)
    mean = (p * np.where(p > 0, log_p, 0)).sum(axis=-1)
    # about the mean: the difference of two large numbers would lose the small one
    apart = np.where(p > 0, log_p - mean[..., None], 0)
    variance = (p * np.square(apart)).sum(axis=-1)
    return mean, np.sqrt(np.maximum(variance, np.float32(FLOOR)))


def zlib_ratio(nll: Ragged, texts: Sequence[str]) -> NDArray[np.float64]:
    """Return −ℓ̄/(bytes of the text compressed by zlib), `f64[N]`.

    Raises:
      InputError: as many texts as losses are asked for.

    Reference: Carlini et al., arXiv 2012.07805.

    >>> zlib_ratio([[4.0]], ["aaaa"]).round(4)  # 12 bytes
    array([-0.3333])
    """
    loss = mean_nll(nll)
    if len(texts) != len(loss):
        raise InputError(f"{len(texts)} texts for {len(loss)} losses; give one each")
    sizes = [len(zlib.compress(text.encode())) for text in texts]
    return -loss / np.array(sizes)


def reference_score(nll: Ragged, reference: Ragged) -> NDArray[np.float64]:
    """Return ℓ̄_ref − ℓ̄: how much likelier than under a model without the texts.

    Raises:
      InputError: another number of texts.

    Reference: Carlini et al., arXiv 2012.07805.

    >>> reference_score([[1.0]], [[3.0]])
    array([2.])
    """
    own, other = mean_nll(nll), mean_nll(reference)
    return _same(own, other, "reference") - own


def recall(conditioned: Ragged, nll: Ragged) -> NDArray[np.float64]:
    """Return log π(y | P)/log π(y), P some unseen texts before y (ReCaLL), `f64[N]`.

    A member loses more by a foreign prefix, so the ratio is larger. 1 where both are
    certain.

    Raises:
      InputError: another number of texts.

    Reference: arXiv 2406.15968.

    >>> recall([[3.0]], [[1.5]])
    array([2.])
    """
    own, before = mean_nll(nll), mean_nll(conditioned)
    _same(own, before, "conditioned")
    return np.where(own > 0, before / np.where(own > 0, own, 1.0), 1.0)


def gradient_norm_score(norms: ArrayLike) -> NDArray[np.float64]:
    """Return −‖∇_θ ℓ̄‖₂ (GradNorm), `f64[N]`, of `ju.weights.gradient_norms`.

    One norm of all parameters, in eval mode; one public code averages the norms of
    tensors in train mode.

    Reference: arXiv 2402.17012.

    >>> gradient_norm_score([2.0])
    array([-2.])
    """
    values = np.asarray(norms, np.float64)
    if values.ndim != 1 or not values.size or not (values >= 0).all():
        raise InputError("norms must be one number of 0 or more a text, [N]")
    return -values


def attack_auc(members: ArrayLike, others: ArrayLike) -> float:
    """Return P(score of a member > score of another), ties by half, 0 to 1.

    Members are the forget texts, the others unseen ones.

    >>> attack_auc([2.0, 1.0], [1.0, 0.0])
    0.875
    """
    first, second = (np.asarray(v, np.float64) for v in (members, others))
    return float(roc_auc(first, second))


def privleak(auc: float, target: float | None = None) -> float:
    """Return (a − a_r)/a_r·100, a = 1 − AUC of Min-40 % (MUSE's PrivLeak), percent.

    0 where the model is attacked as Retrain is, whose AUC is the target; without it
    a_r = 0.5. It has no upper bound: a Retrain that is attacked well makes a_r small.
    So look at AUC − AUC_r too.

    Raises:
      InputError: numbers outside [0, 1], a target of 1, which leaves no a_r.

    Reference: MUSE, arXiv 2407.06460.

    >>> privleak(0.6, 0.6), privleak(0.75)
    (0.0, -50.0)
    """
    _validate.within("auc", auc, "[0, 1]")
    goal = 0.5
    if target is not None:
        _validate.within("target", target, "[0, 1]")
        goal = 1 - target
    if goal <= 0:
        raise InputError(
            "target=1.0: Retrain's texts are told apart without fail, so there is no "
            "ratio; look at the difference of the AUCs"
        )
    return float(((1 - auc) - goal) / goal * 100)


def _lowest(values: NDArray[np.float64], k: float) -> float:
    """Return the mean of the lowest share of values, of one at least."""
    if not 0 < k <= 1:
        raise InputError(f"k={k} must lie in (0, 1]; try 0.4")
    # k·n of floats may fall short of a whole number
    count = max(1, int(np.floor(k * len(values) + 1e-9)))
    return float(np.sort(values)[:count].mean())


def _same(own: Any, other: Any, name: str) -> Any:
    if len(own) != len(other):
        raise InputError(f"{name} has {len(other)} texts, nll {len(own)}; give as many")
    return other
