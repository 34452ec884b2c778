"""FaLW: weights by how far a sample's confidence stands from that of unseen data."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jax_unlearn import _validate
from jax_unlearn.cards import Count, Lab, NotNegative, Options, Share, WeightingCard
from jax_unlearn.errors import InputError
from jax_unlearn.losses import true_class_probability
from jax_unlearn.types import Array, PyTree, Sample, Weighting

__all__ = ["FALW", "ClassStats", "Estimator", "Falw", "anchored", "class_balance"]
__all__ += ["class_stats", "confidence", "every", "exact", "falw", "falw_weights"]
__all__ += ["reference_stats", "shrink", "streaming"]

_MIN_STD = 1e-8  # Algorithm 1's floor: a class of one sample has no spread


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
    return ClassStats(mean, jnp.maximum(jnp.sqrt(variance), _MIN_STD), count)


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
    return ClassStats(mean, jnp.maximum(jnp.sqrt(variance), _MIN_STD), count)


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


class Estimator(NamedTuple):
    """Where FaLW's class moments come from.

    Attributes:
      init: `(num_classes) -> state`.
      update: `(reference, state) -> (ClassStats, state)`, as of a `Weighting`.
      joint: whether the moments are those of batches, not of one whole set.
    """

    init: Callable[[int], PyTree]
    update: Callable[[Callable[[], Sample] | None, PyTree], tuple[ClassStats, PyTree]]
    joint: bool = False


def falw(
    class_counts: Array,
    *,
    tau: float = 0.15,
    estimator: Estimator | None = None,
    shrinkage: float = 0.0,
) -> Weighting:
    """Weight forget samples by FaLW, whatever the base objective.

    The counts and τ are those of `class_balance`; class moments come from the
    estimator, by default `exact()`, Algorithm 1's, and `shrinkage` is the pseudo-count
    of `shrink`, 0 in the paper. Reads logits `[B, K]` (or losses, see `confidence`) and
    needs a reference batch unless anchored.

    Raises:
      InputError: τ or shrinkage negative, counts negative or all zero.

    Reference: FaLW, arXiv 2601.18650, Algorithm 1.

    >>> stats = ClassStats(jnp.zeros(2), jnp.ones(2), jnp.ones(2))
    >>> w = falw(jnp.array([1, 1]), tau=0.0, estimator=anchored(stats))
    >>> s = Sample(jnp.zeros(1), jnp.zeros((1, 2)), jnp.array([0]))  # p = 0.5
    >>> w.update(s, w.init())[0].tolist()  # 1 + tanh(0.5)
    [1.4621]
    """
    _validate.not_negative("tau", tau, "try 0.15")
    _validate.not_negative("shrinkage", shrinkage, "try 0.0")
    if not isinstance(class_counts, Tracer):
        counts = np.asarray(class_counts)
        if counts.ndim != 1 or counts.min(initial=0) < 0 or counts.sum() == 0:
            raise InputError(
                f"class_counts={counts.tolist()}: give the number of forget samples "
                "of each class, [K], not all 0"
            )
    source = exact() if estimator is None else estimator

    def init():
        balance = class_balance(class_counts, tau=tau)
        return balance, source.init(balance.shape[0])

    def update(sample: Sample, state, *, reference=None):
        balance, memory = state
        stats, memory = source.update(reference, memory)
        if not isinstance(shrinkage, int | float) or shrinkage > 0:
            stats = shrink(stats, pseudo_count=shrinkage)
        weights = falw_weights(confidence(sample), sample.labels, stats, balance)
        return weights, (balance, memory)

    return Weighting(init, update, source.joint)


def confidence(sample: Sample) -> Array:
    """Return how sure the model is of each sample: p = softmax(outputs)_y = e^{−ℓ}.

    Where the outputs are no logits `[B, K]` (of diffusion models, for instance) p is
    e^{−ℓ} of the task loss ℓ, `f32[B]`, which for logits is the same.

    Source: FaLW, arXiv 2601.18650, for logits; otherwise our choice.

    >>> confidence(Sample(jnp.zeros(1), None, jnp.array([0]))).tolist()
    [1.0]
    """
    outputs = sample.outputs
    if isinstance(outputs, jax.Array) and outputs.ndim == 2:
        return true_class_probability(outputs, sample.labels)
    return jnp.exp(-sample.losses.astype(jnp.float32))


def reference_stats(reference: Sample, num_classes: int) -> ClassStats:
    """Return the class moments of a reference batch."""
    probs = confidence(reference)
    return class_stats(probs, reference.labels, num_classes, where=reference.mask)


def exact() -> Estimator:
    """Take the moments of the reference batch, anew whenever one is given.

    With the whole unseen set this is Algorithm 1. A step without reference uses the
    last moments (none yet: every weight is 1).

    >>> e = exact()
    >>> e.update(None, e.init(2))[0].count.tolist()
    [0.0, 0.0]
    """
    return every(1)


def every(steps: int) -> Estimator:
    """Take the moments of the reference batch at every `steps`-th step only.

    The forward pass over the reference is skipped in between, inside the compiled step.

    Raises:
      InputError: `steps` below 1.

    Source: our choice.

    >>> e = every(2)
    >>> s = Sample(jnp.zeros(1), jnp.zeros((1, 2)), jnp.array([1]))
    >>> stats, state = e.update(lambda: s, e.init(2))
    >>> stats.mean.tolist()
    [0.0, 0.5]
    """
    _validate.at_least("steps", steps, 1, "1 takes the moments at every step")

    def init(num_classes: int):
        zeros = jnp.zeros(num_classes, jnp.float32)
        return ClassStats(zeros, jnp.ones_like(zeros), zeros), jnp.int32(0)

    def update(reference, state):
        old, step = state
        if reference is None:
            return old, (old, step + 1)

        def fresh():
            return reference_stats(reference(), old.mean.shape[0])

        due = step % steps == 0
        stats = fresh() if steps == 1 else jax.lax.cond(due, fresh, lambda: old)
        return stats, (stats, step + 1)

    return Estimator(init, update)


def streaming(*, decay: float = 0.9) -> Estimator:
    """Keep running moments of small reference batches, class by class.

    For a class that occurs in the batch, with batch mean m and variance v:
    n ← d·n + (1−d), s = (1−d)/n, σ² ← (1−s)·(σ² + s·(m−μ)²) + s·v, μ ← μ + s·(m−μ).
    These are the moments of samples weighted by d^age; the division by n corrects the
    bias of the zero start. Absent classes keep theirs.

    Raises:
      InputError: decay, d, outside [0, 1).

    Source: our choice.

    >>> e = streaming(decay=0.9)
    >>> s = Sample(jnp.zeros(1), jnp.zeros((1, 2)), jnp.array([1]))
    >>> e.update(lambda: s, e.init(2))[0].mean.tolist()  # unbiased after one step
    [0.0, 0.5]
    """
    _validate.share("decay", decay, "try 0.9")

    def init(num_classes: int):
        return tuple(jnp.zeros(num_classes, jnp.float32) for _ in range(4))

    def update(reference, state):
        mean, variance, norm, count = state
        if reference is not None:
            batch = reference_stats(reference(), norm.shape[0])
            present = batch.count > 0
            count = jnp.where(present, decay * count + batch.count, count)
            norm = jnp.where(present, decay * norm + (1 - decay), norm)
            share = jnp.where(present, (1 - decay) / jnp.where(present, norm, 1.0), 0.0)
            offset = batch.mean - mean
            spread = variance + share * jnp.square(offset)
            variance = (1 - share) * spread + share * jnp.square(batch.std)
            mean = mean + share * offset
        std = jnp.maximum(jnp.sqrt(variance), _MIN_STD)
        return ClassStats(mean, std, count), (mean, variance, norm, count)

    return Estimator(init, update, joint=True)


def anchored(stats: ClassStats) -> Estimator:
    """Keep the moments given, those under the original model: no cost a step.

    Source: our choice; the endpoint cannot sink with the model.

    >>> stats = ClassStats(jnp.zeros(2), jnp.ones(2), jnp.ones(2))
    >>> e = anchored(stats)
    >>> e.update(None, e.init(2))[0].std.tolist()
    [1.0, 1.0]
    """

    def init(num_classes: int):
        if stats.mean.shape[0] != num_classes:
            raise InputError(
                f"anchored stats of {stats.mean.shape[0]} classes for "
                f"{num_classes} class_counts; give both the same number of classes"
            )
        return ClassStats(*(jnp.asarray(v, jnp.float32) for v in stats))

    return Estimator(init, lambda reference, state: (state, state))


@dataclasses.dataclass(frozen=True)
class Falw(Options):
    """Options of FaLW.

    Attributes:
      tau: exponent of the class balance.
      estimator: where the class moments come from: the whole unseen set at every step
        ("exact") or at some ("every"), batches of it with a memory ("streaming"), or
        the original model once ("anchored").
      every: steps between two estimates, for "every".
      decay: memory of "streaming".
    """

    tau: NotNegative = 0.15
    estimator: Literal["exact", "every", "streaming", "anchored"] = "exact"
    every: Count = 4
    decay: Share = 0.9

    def told(self) -> dict[str, object]:
        """Return what the estimator reads."""
        own = {"every": ("every",), "streaming": ("decay",)}.get(self.estimator, ())
        return {name: getattr(self, name) for name in ("tau", "estimator", *own)}


def _falw(lab: Lab, options: Falw) -> Weighting:
    counts = jnp.bincount(jnp.asarray(lab.labels("forget")), length=lab.num_classes)

    def original() -> Estimator:
        true, labels = lab.confidence("unseen"), jnp.asarray(lab.labels("unseen"))
        return anchored(class_stats(jnp.asarray(true), labels, lab.num_classes))

    made = {
        "exact": exact,
        "every": lambda: every(options.every),
        "streaming": lambda: streaming(decay=options.decay),
        "anchored": original,
    }
    return falw(counts, tau=options.tau, estimator=made[options.estimator]())


def _reference(options: Falw) -> str:
    return {"anchored": "", "streaming": "batches"}.get(options.estimator, "whole")


FALW = (
    WeightingCard.of(_falw, "FaLW", source="arXiv 2601.18650")
    .but(title="by the distance from unseen data's confidence, class-balanced")
    .but(compares="unseen classes", reference=_reference, shared=True)
    .tries(tau=(0.0, 0.15, 0.5))
)
