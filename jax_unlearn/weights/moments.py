"""FaLW's equations: moments of a confidence by class, class balance, weights."""

from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array

__all__ = ["MIN_STD", "ClassStats", "class_balance", "class_stats", "falw_weights"]
__all__ += ["length_groups", "shrink"]

MIN_STD = 1e-8  # Algorithm 1's floor: a class of one sample has no spread


class ClassStats(NamedTuple):
    """Moments of the true-class probability of unseen samples, by class.

    Attributes:
      mean: μ_c, `f32[K]`; 0 for absent classes.
      std: σ_c, population form, at least 1e-8, `f32[K]`.
      count: samples (of streaming moments, those in memory), `f32[K]`; 0 = absent.
    """

    mean: Array
    std: Array
    count: Array


def class_stats(
    probs_true: Array, labels: Array, num_classes: int, *, where: Array | None = None
) -> ClassStats:
    """Return mean and population standard deviation of the confidence by class.

    Of true-class probabilities `[N]` and classes, integers `[N]`, those samples count
    that `where`, `bool[N]`, marks.

    Reference: FaLW, arXiv 2601.18650, Algorithm 1 (the floor 1e-8 included).

    >>> stats = class_stats(jnp.array([0.2, 0.4, 0.9]), jnp.array([0, 0, 2]), 3)
    >>> print(stats.mean, stats.std.round(4), stats.count)  # 1e-8 shows as 0
    [0.3 0.  0.9] [0.1 0.  0. ] [2. 0. 1.]
    """
    chex.assert_equal_shape([probs_true, labels])
    probs = probs_true.astype(jnp.float32)
    counted = jnp.ones(probs.shape, jnp.bool_) if where is None else where

    def by_class(values: Array) -> Array:
        values = jnp.where(counted, values, 0.0)
        return jnp.zeros(num_classes, jnp.float32).at[labels].add(values)

    count = by_class(jnp.ones_like(probs))
    share = jnp.maximum(count, 1.0)
    mean = by_class(probs) / share
    variance = by_class(jnp.square(probs - mean[labels])) / share
    return ClassStats(mean, jnp.maximum(jnp.sqrt(variance), MIN_STD), count)


def shrink(stats: ClassStats, *, pseudo_count: float | Array) -> ClassStats:
    """Pull the moments of small classes toward those of all classes together.

    With s = n_c/(n_c + κ): μ_c ← s·μ_c + (1−s)·μ and likewise the variances, μ and σ²
    the count-weighted moments of the pooled samples. κ = 0 changes nothing.

    Source: our choice.

    >>> stats = ClassStats(jnp.array([0.2, 0.8]), jnp.full(2, 0.1), jnp.ones(2))
    >>> shrink(stats, pseudo_count=1.0).mean.tolist()  # half way to 0.5
    [0.35, 0.65]
    """
    count = stats.count
    total = jnp.sum(count)
    total = jnp.where(total > 0, total, 1.0)
    pooled_mean = jnp.sum(count * stats.mean) / total
    offset = jnp.square(stats.mean - pooled_mean)
    pooled_var = jnp.sum(count * (jnp.square(stats.std) + offset)) / total
    share = count / jnp.maximum(count + pseudo_count, 1e-8)
    mean = share * stats.mean + (1 - share) * pooled_mean
    variance = share * jnp.square(stats.std) + (1 - share) * pooled_var
    return ClassStats(mean, jnp.maximum(jnp.sqrt(variance), MIN_STD), count)


def class_balance(counts: Array, *, tau: float | Array) -> Array:
    """Return the balance factor B_k = (N_f/(C·N_{f,k}))^τ.

    The `counts`, `[K]`, are N_{f,k}, forget samples by class, and C = K. B, `f32[K]`,
    is 1 for classes without forget samples; τ = 0 switches the factor off (B = 1).

    Reference: FaLW, arXiv 2601.18650, equation 6; τ tuned in [0.1, 0.2].

    >>> class_balance(jnp.array([30, 10, 0, 0]), tau=1.0).tolist()
    [0.3333, 1.0, 1.0, 1.0]
    """
    counts = jnp.asarray(counts).astype(jnp.float32)
    ratio = jnp.sum(counts) / (counts.shape[0] * jnp.maximum(counts, 1.0))
    return jnp.where(counts > 0, ratio ** jnp.asarray(tau, jnp.float32), 1.0)


def falw_weights(
    probs_true: Array, labels: Array, stats: ClassStats, balance: Array
) -> Array:
    """Return w_i = 1 + sign(z_i)·tanh(|z_i|)^{1/B_i}, z_i = (p_i − μ_c)/σ_c.

    w → 2 for a sample still far more confident than unseen data, 1 at their mean, → 0
    far below. For B > 1 the slope at z = 0 is infinite: never differentiate it.

    p_i, `[B]`, are the true-class probabilities of samples of the classes c, integers
    `[B]`; the moments are of unseen data, the balance is B_k, `[K]`. Weights, `f32[B]`,
    are in [0, 2]; 1 for classes absent from `stats` (count 0).

    Reference: FaLW, arXiv 2601.18650, equations 5 to 7.

    >>> stats = ClassStats(jnp.array([0.5]), jnp.array([0.2]), jnp.array([10.0]))
    >>> p = jnp.array([0.6, 0.5, 0.4])  # z = 0.5, 0, −0.5
    >>> falw_weights(p, jnp.array([0, 0, 0]), stats, jnp.array([1.0])).tolist()
    [1.462, 1.0, 0.538]
    """
    chex.assert_equal_shape([probs_true, labels])
    chex.assert_equal_shape([stats.mean, stats.std, stats.count, balance])
    z = (probs_true.astype(jnp.float32) - stats.mean[labels]) / stats.std[labels]
    strength = jnp.tanh(jnp.abs(z)) ** (1.0 / balance[labels])
    return jnp.where(stats.count[labels] > 0, 1.0 + jnp.sign(z) * strength, 1.0)


def length_groups(text: Any) -> np.ndarray:
    """Return the third of the answers' numbers of tokens each text is in, `i32[N]`.

    The groups are 0 to 2, each text in one by its own number alone.

    Raises:
      InputError: inputs that are no texts.

    Source: our choice.
    """
    if not hasattr(text, "targets"):
        raise InputError(
            "groups='length': these samples are no texts and have no length; give "
            "--groups classes or pooled"
        )
    sizes = np.asarray(text.targets).sum(axis=1)
    return np.searchsorted(np.quantile(sizes, (1 / 3, 2 / 3)), sizes).astype(np.int32)
