"""FaLW: weights by how far a sample's confidence stands from that of unseen data."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jax_unlearn import _validate
from jax_unlearn.cards import Count, Lab, NotNegative, Options, Share, WeightingCard
from jax_unlearn.contracts import reference_classes
from jax_unlearn.errors import InputError
from jax_unlearn.losses import true_class_probability
from jax_unlearn.tables import look_up, row_ids
from jax_unlearn.types import Array, PyTree, Sample, Weighting
from jax_unlearn.weights.moments import (
    MIN_STD,
    ClassStats,
    class_balance,
    class_stats,
    falw_weights,
    length_groups,
    shrink,
)

__all__ = ["FALW", "ClassStats", "Estimator", "Falw", "anchored", "class_balance"]
__all__ += ["class_stats", "confidence", "every", "exact", "falw", "falw_weights"]
__all__ += ["reference_stats", "shrink", "streaming"]


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
    groups: Array | Literal["pooled"] | None = None,
    statistic: Literal["confidence", "nll"] = "confidence",
) -> Weighting:
    """Weight forget samples by FaLW, whatever the base objective.

    The counts and τ are those of `class_balance`; class moments come from the
    estimator, by default `exact()`, Algorithm 1's, and `shrinkage` is the pseudo-count
    of `shrink`, 0 in the paper. Reads logits `[B, K]` (or losses, see `confidence`) and
    needs a reference batch unless anchored.

    A class without reference samples has no moments, and weight 1: where no class of
    the forget samples occurs in the reference every weight is 1, and a warning says so
    (of whole reference sets under `ju.run`, or of `anchored` moments). So it is with a
    class forgotten whole, and with authors of texts. `groups` are another division for
    the moments, while the balance stays by class: "pooled", one group of all, or a
    group by id of the sample, `i32[N]` from 0, such as thirds of the length.
    `statistic="nll"` measures z on −ℓ instead of p = e^{−ℓ}, which a model that knows
    the texts by heart holds near 1.

    Raises:
      InputError: τ or shrinkage negative, counts negative or all zero, an unknown
        statistic, groups that are no table.

    Reference: FaLW, arXiv 2601.18650, Algorithm 1.

    >>> stats = ClassStats(jnp.zeros(2), jnp.ones(2), jnp.ones(2))
    >>> w = falw(jnp.array([1, 1]), tau=0.0, estimator=anchored(stats))
    >>> s = Sample(jnp.zeros(1), jnp.zeros((1, 2)), jnp.array([0]))  # p = 0.5
    >>> w.update(s, w.init())[0].tolist()  # 1 + tanh(0.5)
    [1.4621]
    """
    _validate.not_negative("tau", tau, "try 0.15")
    _validate.not_negative("shrinkage", shrinkage, "try 0.0")
    _validate.choice("statistic", statistic, "confidence", "nll")
    if not isinstance(class_counts, Tracer):
        counts = np.asarray(class_counts)
        if counts.ndim != 1 or counts.min(initial=0) < 0 or counts.sum() == 0:
            raise InputError(
                f"class_counts={counts.tolist()}: give the number of forget samples "
                "of each class, [K], not all 0"
            )
    source = exact() if estimator is None else estimator

    number, table, grouped = _groups(groups)
    forgotten = None  # classes that must have moments, where they are known
    if not grouped and not isinstance(class_counts, Tracer):
        forgotten = np.flatnonzero(np.asarray(class_counts) > 0)

    def seen(sample: Sample) -> Sample:
        """Return a sample as the moments see it: its group, and the statistic."""
        if statistic == "nll":
            sample = sample._replace(outputs=_Told(-sample.losses))
        if not grouped:
            return sample
        if table is None:
            return sample._replace(labels=jnp.zeros_like(sample.labels))
        index = row_ids(sample.index, "groups of FaLW need")
        return sample._replace(labels=look_up(table, index, sample.mask))

    def init():
        balance = class_balance(class_counts, tau=tau)
        memory = source.init(number if grouped else balance.shape[0])
        fixed = isinstance(memory, ClassStats)  # anchored moments
        if fixed and forgotten is not None and not isinstance(memory.count, Tracer):
            _warn_unlike(forgotten, np.flatnonzero(np.asarray(memory.count) > 0))
        return balance, memory

    def update(sample: Sample, state, *, reference=None):
        balance, memory = state
        if forgotten is not None and not source.joint and reference is not None:
            _warn_unlike(forgotten, reference_classes())
        given = None if reference is None else lambda: seen(reference())
        stats, memory = source.update(given, memory)
        if not isinstance(shrinkage, int | float) or shrinkage > 0:
            stats = shrink(stats, pseudo_count=shrinkage)
        own = seen(sample)
        if grouped:  # a row a sample, since balance and moments count other things
            stats = ClassStats(*(leaf[own.labels] for leaf in stats))
            rows = jnp.arange(own.labels.shape[0])
            balanced = balance[sample.labels]
            return falw_weights(confidence(own), rows, stats, balanced), (
                balance,
                memory,
            )
        weights = falw_weights(confidence(own), sample.labels, stats, balance)
        return weights, (balance, memory)

    return Weighting(init, update, source.joint)


class _Told(NamedTuple):
    """Outputs that are the statistic itself."""

    values: Array


def _groups(groups: Any) -> tuple[int, Array | None, bool]:
    """Return (number of groups, group by sample id, whether there are any)."""
    if groups is None:
        return 0, None, False
    if isinstance(groups, str):
        _validate.choice("groups", groups, "pooled")
        return 1, None, True
    table = np.asarray(groups)
    if table.ndim != 1 or not table.size or table.dtype.kind not in "iu":
        raise InputError(
            f"groups of shape {table.shape} and type {table.dtype} must be integers "
            "[N], one for each sample id, or 'pooled'"
        )
    if table.min() < 0:
        raise InputError(f"groups hold {table.min()}; number them from 0")
    return int(table.max()) + 1, jnp.asarray(table, jnp.int32), True


def _warn_unlike(forget: np.ndarray, reference: np.ndarray | None) -> None:
    """Warn where no class of the forget samples has moments."""
    if reference is None or np.isin(forget, reference).any():
        return
    warnings.warn(
        "FaLW: no class of the forget samples occurs among the reference samples, so "
        "every weight is 1; give unseen samples of those classes, or groups='pooled'",
        stacklevel=2,
    )


def confidence(sample: Sample) -> Array:
    """Return how sure the model is of each sample: p = softmax(outputs)_y = e^{−ℓ}.

    Where the outputs are no logits `[B, K]` (of diffusion models, for instance) p is
    e^{−ℓ} of the task loss ℓ, `f32[B]`, which for logits is the same.

    Source: FaLW, arXiv 2601.18650, for logits; otherwise our choice.

    >>> confidence(Sample(jnp.zeros(1), None, jnp.array([0]))).tolist()
    [1.0]
    """
    outputs = sample.outputs
    if isinstance(outputs, _Told):
        return outputs.values.astype(jnp.float32)
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
        std = jnp.maximum(jnp.sqrt(variance), MIN_STD)
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
      every: number of steps between two estimates, for "every".
      decay: decay of the memory, for "streaming".
      groups: moments by class, or of all unseen samples together ("pooled"), which
        need be of no forgotten class; of texts also by thirds of their answers'
        numbers of tokens ("length"), since short answers are surer.
      statistic: what is compared with unseen samples: the confidence, or the loss.
    """

    tau: NotNegative = 0.15
    estimator: Literal["exact", "every", "streaming", "anchored"] = "exact"
    every: Count = 4
    decay: Share = 0.9
    groups: Literal["classes", "pooled", "length"] = "classes"
    statistic: Literal["confidence", "nll"] = "confidence"

    @property
    def compares(self) -> str:
        """What the moments are of."""
        return "unseen classes" if self.groups == "classes" else "unseen"

    def told(self) -> dict[str, object]:
        """Return what the estimator reads."""
        own = {"every": ("every",), "streaming": ("decay",)}.get(self.estimator, ())
        names = ["tau", "estimator", *own]
        for name in ("groups", "statistic"):  # said where they are others than usual
            if getattr(self, name) != getattr(Falw, name):
                names.append(name)
        return {name: getattr(self, name) for name in names}


def _falw(lab: Lab, options: Falw) -> Weighting:
    counts = jnp.bincount(jnp.asarray(lab.labels("forget")), length=lab.num_classes)
    number, table = lab.num_classes, None  # of the groups, and each sample's
    if options.groups == "pooled":
        number = 1
    elif options.groups == "length":
        number, table = 3, jnp.asarray(length_groups(lab.examples.inputs))

    def original() -> Estimator:
        given = jnp.asarray(lab.confidence("unseen"))
        given = jnp.log(given) if options.statistic == "nll" else given
        labels = jnp.asarray(lab.labels("unseen"))
        if table is not None:
            labels = table[jnp.asarray(lab.ids("unseen"))]
        elif number == 1:
            labels = jnp.zeros_like(labels)
        return anchored(class_stats(given, labels, number))

    made = {
        "exact": exact,
        "every": lambda: every(options.every),
        "streaming": lambda: streaming(decay=options.decay),
        "anchored": original,
    }
    return falw(
        counts,
        tau=options.tau,
        estimator=made[options.estimator](),
        groups="pooled" if options.groups == "pooled" else table,
        statistic=options.statistic,
    )


def _reference(options: Falw) -> str:
    return {"anchored": "", "streaming": "batches"}.get(options.estimator, "whole")


FALW = (
    WeightingCard.of(_falw, "FaLW", source="arXiv 2601.18650")
    .but(title="by the distance from unseen data's confidence, class-balanced")
    .but(compares="unseen classes", reference=_reference, shared=True)
    .tries(tau=(0.0, 0.15, 0.5))
)
