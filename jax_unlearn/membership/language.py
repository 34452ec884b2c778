"""What membership attacks see of a text: the losses of its answered tokens.

Each takes the `ju.language.Scored` of texts (or what has its fields) where features of
classifiers take logits, and differentiates: attacks of `ju.membership` serve texts by
`attack._replace(features=...)`, all three by `token_attacks()`.
"""

from typing import Any

import jax.numpy as jnp

from jax_unlearn.membership.attacks import Attack, gaussian_ratio, logistic, softmax_mlp
from jax_unlearn.types import Array

__all__ = ["likelihood_features", "odds_features", "quantile_features", "token_attacks"]

QUANTILES = 9
LOWEST = 0.4  # share of the least likely tokens, as in MUSE
TINY = 1e-6


def likelihood_features(tokens: Any, labels: Array | None = None) -> Array:
    """Return (ℓ̄, mean loss of the 40 % least likely tokens), `f32[B, 2]`, or four.

    Two more where the tokens know a `reference` (ℓ̄ under a model without the texts)
    and a `size` (bytes of the text compressed by zlib), `f32[B]` each: ℓ̄ − ℓ̄_ref and
    ℓ̄/size.

    Source: our choice, of the scores of `ju.audit.language`.

    >>> from jax_unlearn.language import Scored
    >>> nll = jnp.array([[1.0, 3.0, 0.0]])
    >>> likelihood_features(Scored(nll, nll > 0)).tolist()
    [[2.0, 3.0]]
    """
    del labels
    ordered, number = _ordered(tokens)
    mean = ordered.sum(axis=-1) / jnp.maximum(number, 1.0)
    kept = jnp.maximum(jnp.floor(LOWEST * number + 1e-4), 1.0)
    place = jnp.arange(ordered.shape[-1], dtype=jnp.float32)
    first = jnp.broadcast_to(place, ordered.shape) < kept[..., None]
    hardest = jnp.where(first, ordered, 0.0).sum(axis=-1) / kept
    found = [mean, hardest]
    if getattr(tokens, "reference", None) is not None:
        found.append(mean - tokens.reference)
    if getattr(tokens, "size", None) is not None:
        found.append(mean / tokens.size)
    return jnp.stack(found, axis=-1)


def quantile_features(tokens: Any, labels: Array | None = None) -> Array:
    """Return nine quantiles of a text's token losses, from largest, `f32[B, 9]`.

    Between tokens they are interpolated; the gradient is that of the sorted losses.

    Source: our choice.

    >>> from jax_unlearn.language import Scored
    >>> nll = jnp.array([[1.0, 3.0]])
    >>> quantile_features(Scored(nll, nll > 0))[0, ::4].tolist()
    [3.0, 2.0, 1.0]
    """
    del labels
    ordered, number = _ordered(tokens)
    share = jnp.linspace(0.0, 1.0, QUANTILES, dtype=jnp.float32)
    last = jnp.maximum(number - 1.0, 0.0)
    at = last[..., None] * jnp.broadcast_to(share, (*number.shape, QUANTILES))
    low = jnp.floor(at).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.maximum(last, 0.0).astype(jnp.int32)[..., None])
    rest = at - low.astype(jnp.float32)
    below, above = (jnp.take_along_axis(ordered, i, axis=-1) for i in (low, high))
    return (1.0 - rest) * below + rest * above


def odds_features(tokens: Any, labels: Array | None = None) -> Array:
    """Return the logit of p = e^{−ℓ̄}, `f32[B, 1]`: log p − log(1 − p).

    p is at most 1 − 1e-6, whose logit is 13.8.

    Reference: the scaling of LiRA, arXiv 2112.03570, of the mean by token.

    >>> from jax_unlearn.language import Scored
    >>> nll = jnp.log(jnp.array([[2.0]]))
    >>> odds_features(Scored(nll, nll > 0)).tolist()
    [[0.0]]
    """
    del labels
    ordered, number = _ordered(tokens)
    mean = ordered.sum(axis=-1) / jnp.maximum(number, 1.0)
    mean = jnp.maximum(mean, TINY)
    return (-mean - jnp.log(-jnp.expm1(-mean)))[..., None]


def token_attacks() -> tuple[Attack, ...]:
    """Return three attacks on texts: logistic, a network on quantiles, Gaussian ratio.

    >>> [attack.name for attack in token_attacks()]
    ['logistic', 'quantile_mlp', 'gaussian_ratio']
    """
    return (
        logistic()._replace(features=likelihood_features),
        softmax_mlp()._replace(name="quantile_mlp", features=quantile_features),
        gaussian_ratio(equal_variance=True)._replace(features=odds_features),
    )


def _ordered(tokens: Any) -> tuple[Array, Array]:
    """Return the losses of each text from the largest, 0 after the last, and n."""
    counted = tokens.counted
    nll = jnp.where(counted, tokens.nll.astype(jnp.float32), -jnp.inf)
    ordered = -jnp.sort(-nll, axis=-1)
    ordered = jnp.where(jnp.isfinite(ordered), ordered, 0.0)
    return ordered, jnp.sum(counted, axis=-1, dtype=jnp.float32)
