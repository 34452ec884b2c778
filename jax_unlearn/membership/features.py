"""What a membership attack sees of a sample: functions of its logits and its label.

Shapes: logits `[..., K]` with K ≥ 2, labels of the true classes, integers `[...]`; else
InputError. Every function computes in float32, looks at one sample alone, is
differentiable in the logits, ignores a constant added to all of them, and stays finite,
with its gradient, for |logits| up to 1e6. Logarithms are natural. Loss, true-class
probability and margin are in `jax_unlearn.losses`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.losses import cross_entropy, margin, true_class_probability
from jax_unlearn.types import Array

__all__ = ["FeatureFn", "confidence_features", "entropy", "entropy_features"]
__all__ += ["logit_confidence", "logit_confidence_features", "modified_entropy"]
__all__ += ["sorted_softmax", "stack"]

FeatureFn = Callable[[Array, Array], Array]
"""`(logits [..., K], labels [...]) -> f32[...]`, or `f32[..., d]` for a set φ."""


def _prepare(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return (float32 logits, where each row has its own class)."""
    if logits.ndim < 1 or logits.shape[-1] < 2:
        raise InputError(
            f"logits.shape={logits.shape}: attacks need two classes or more in the "
            "last axis"
        )
    if labels.shape != logits.shape[:-1]:
        raise InputError(
            f"labels.shape={labels.shape} do not fit logits.shape={logits.shape}; "
            "give one label a row"
        )
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.bool_)
    return logits.astype(jnp.float32), own


def logit_confidence(logits: Array, labels: Array) -> Array:
    """Return log(p_y/(1 − p_y)) = logit_y − log Σ_{k≠y} exp(logit_k).

    Computed from the logits: no rounding to ±∞ where p_y rounds to 0 or 1. `f32[...]`,
    nearly Gaussian over models.

    Reference: Carlini et al. (LiRA), arXiv 2112.03570, section IV.

    >>> import jax.numpy as jnp
    >>> logit_confidence(jnp.array([[3.0, 1.0]]), jnp.array([0])).tolist()
    [2.0]
    """
    logits, own = _prepare(logits, labels)
    true = jnp.sum(jnp.where(own, logits, 0.0), axis=-1)
    return true - jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=-1)


def entropy(logits: Array, labels: Array | None = None) -> Array:
    """Return the entropy of the output, −Σ_k p_k log p_k, with 0 log 0 = 0.

    `f32[...]` in [0, log K]; it takes labels as every feature does, and ignores them.

    >>> import jax.numpy as jnp
    >>> entropy(jnp.zeros((1, 2))).tolist()  # log 2
    [0.6931]
    """
    del labels
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return jnp.sum(jnp.exp(log_probs) * -log_probs, axis=-1)


def modified_entropy(logits: Array, labels: Array) -> Array:
    """Return the entropy that knows the true class.

    −(1 − p_y) log p_y − Σ_{k≠y} p_k log(1 − p_k), `f32[...]`, at least 0: small if
    right and sure, large if wrong and sure. log(1 − p_k) is the log-sum-exp of the
    other classes where p_k may exceed 1/2, so no logarithm is floored.

    Reference: Song and Mittal, arXiv 2003.10595, equation 8.

    >>> import jax.numpy as jnp
    >>> probs = jnp.array([[0.7, 0.2, 0.1]])
    >>> modified_entropy(jnp.log(probs), jnp.array([0])).tolist()
    [0.1622]
    """
    logits, own = _prepare(logits, labels)
    log_probs = jax.nn.log_softmax(logits)
    probs = jnp.exp(log_probs)
    largest = jnp.argmax(logits, axis=-1)
    largest = jax.nn.one_hot(largest, logits.shape[-1], dtype=jnp.bool_)
    others = jnp.where(largest, -jnp.inf, log_probs)
    log_rest = jax.nn.logsumexp(others, axis=-1, keepdims=True)
    # Only the largest probability can exceed 1/2; log1p is exact for the others.
    log_small = jnp.log1p(-jnp.where(largest, 0.0, probs))
    log_one_minus = jnp.where(largest, log_rest, log_small)
    terms = jnp.where(own, jnp.exp(log_one_minus) * -log_probs, probs * -log_one_minus)
    return jnp.sum(terms, axis=-1)


def sorted_softmax(
    logits: Array, labels: Array | None = None, *, top: int = 3
) -> Array:
    """Return the `top` largest probabilities, in descending order.

    `f32[..., min(top, K)]`; it takes labels as every feature does, and ignores them.

    Raises:
      InputError: `top` below 1.

    Reference: Salem et al. (ML-Leaks), arXiv 1806.01246, section III (three).

    >>> import jax.numpy as jnp
    >>> sorted_softmax(jnp.log(jnp.array([[0.2, 0.7, 0.1]])), top=2).tolist()
    [[0.7, 0.2]]
    """
    del labels
    _validate.at_least("top", top, 1, "try 3")
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    return jax.lax.top_k(probs, min(top, logits.shape[-1]))[0]


def stack(*features: FeatureFn) -> FeatureFn:
    """Join features of one number a sample, `(logits, labels) -> f32[...]`, to a set φ.

    φ is `(logits, labels) -> f32[..., d]`, d features in the given order; it refuses
    logits of fewer than two classes.

    Raises:
      InputError: no feature.

    >>> import jax.numpy as jnp
    >>> phi = stack(margin, logit_confidence)
    >>> phi(jnp.array([[3.0, 1.0]]), jnp.array([0])).tolist()
    [[2.0, 2.0]]
    >>> confidence_features(jnp.zeros((1, 2)), jnp.array([0])).tolist()
    [[0.6931, 0.5, 0.0]]
    >>> entropy_features(jnp.zeros((1, 2)), jnp.array([0])).tolist()
    [[0.6931, 0.6931, 0.6931]]
    """
    if not features:
        raise InputError("features=(): give at least one, such as losses.margin")

    def phi(logits: Array, labels: Array) -> Array:
        logits, _ = _prepare(logits, labels)
        return jnp.stack([f(logits, labels) for f in features], axis=-1)

    return phi


confidence_features = stack(cross_entropy, true_class_probability, margin)
"""(loss, true-class probability, margin) of every sample, `f32[..., 3]`."""

entropy_features = stack(entropy, modified_entropy, cross_entropy)
"""(entropy, modified entropy, loss) of every sample, `f32[..., 3]`."""

logit_confidence_features = stack(logit_confidence)
"""The logit-scaled confidence as a set of one, `f32[..., 1]`."""
