"""Relearning: how fast a model learns back what it was to forget."""

import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import _validate, programs
from jax_unlearn.audit import _checks
from jax_unlearn.audit.robustness import true_labels
from jax_unlearn.contracts import forward_pass
from jax_unlearn.drivers.loop import run
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.language.text import Text, scored
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.methods.finetune import finetune
from jax_unlearn.objectives.base import task_loss
from jax_unlearn.objectives.language import next_token, reduced
from jax_unlearn.types import (
    Array,
    Batch,
    Model,
    ModelState,
    Params,
    UnlearnBatch,
    Unlearner,
)

__all__ = ["Recovery", "Relearn", "recovery", "relearn_steps"]

EVALUATED = 1024  # largest number of samples a forward pass of the evaluation


class Relearn(NamedTuple):
    """Steps done, whether the loss came down, and the losses `f64[steps + 1]`.

    The first is the mean loss of the forget samples before all steps.
    """

    steps: int
    reached: bool
    losses: np.ndarray


class Recovery(NamedTuple):
    """What a model makes of the held-out forget samples as it is fine-tuned on others.

    Attributes:
      steps: after which it was looked at, 0 first, `i64[m]`.
      right: percent of the held-out samples that it is right of, `f64[m]`; of texts,
        100·e^{−ℓ̄} in the mean.
      losses: their mean cross-entropy, of texts by token, `f64[m]`.
    """

    steps: np.ndarray
    right: np.ndarray
    losses: np.ndarray

    @property
    def regained(self) -> float:
        """Percentage points from before the first step to after the last."""
        return float(self.right[-1] - self.right[0])


def recovery(
    model: Model,
    params: Params,
    model_state: ModelState,
    batches: Iterable[UnlearnBatch | Batch],
    held_out: Batch,
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    steps: int = 20,
    every: int = 1,
) -> Recovery:
    """Fine-tune on a few samples; see how fast the *other* forget samples come back.

    `batches` hold a few of the forget samples, or samples that are like the retain set
    (a schedule or a list, gone through as often as needed); `held_out` the forget
    samples that are none of them. What a model never knew it cannot get back so: then
    the held-out samples gain only what the few teach of their like, which is what
    Retrain gains. Target: Retrain's value after as many steps, by the same call with
    equal batches, optimizer and key; null: that of a second Retrain. Above them, what
    was forgotten lay hidden. It takes one unlearned model and two Retrains, three for
    an interval. It is looked at before the first step, after every `every` steps and
    after the last.

    The model gives logits `[B, K]`, or, of batches whose inputs are a
    `ju.language.Text`, what `ju.objectives.next_token` takes (published for texts: m of
    them in batches of 4, 50 to 150 steps of lr 1e-5). Its parameters and state are
    copied, the optimizer starts afresh, and training is that of `relearn_steps`.

    Raises:
      InputError: as `relearn_steps`; no held-out samples, steps or every below 1.
      NonFiniteError: a loss or an update turned NaN or infinite.

    Source: Hu et al., arXiv 2406.13356, of language models (a little related data
    brings back much of what they forgot); for classifiers our choice.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 0.0, lambda w, x: w * x)
    >>> few = [Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))]
    >>> other = Batch(jnp.array([[0.0, 2.0]]), jnp.array([1]))
    >>> given = jnp.float32(-1), (), few, other, optax.sgd(2.0), jax.random.key(0)
    >>> found = recovery(model, *given, steps=2)
    >>> found.steps.tolist(), found.right.tolist()
    ([0, 1, 2], [0.0, 100.0, 100.0])
    """
    _checks.whole("steps", steps, 1, "try 20")
    _checks.whole("every", every, 1, "try 1")
    look = _evaluation(model, (params, model_state), held_out, name="held_out")
    marks, found = [0], [_first(look(params, model_state))]

    def fed() -> Iterator[UnlearnBatch]:
        for step, batch in enumerate(_cycled(batches)):
            if step >= steps:
                return
            yield UnlearnBatch(retain=_forget_batch(batch))

    def watch(step, state, _) -> None:
        if step % every and step < steps:
            return
        marks.append(step)
        found.append(look(state.params, state.model_state))
        if not math.isfinite(found[-1][0]):
            raise NonFiniteError(
                f"the loss on the held-out samples is not finite after step {step - 1};"
                " lower the learning rate",
                step - 1,
            )

    learner = _learner(model, optimizer, isinstance(held_out.inputs, Text))
    run(learner, learner.init(params, model_state), fed(), key, callback=watch, scan=1)
    losses, right = np.asarray(found, np.float64).T
    return Recovery(np.asarray(marks), 100 * right, losses)


def relearn_steps(
    model: Model,
    params: Params,
    model_state: ModelState,
    batches: Iterable[UnlearnBatch | Batch],
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    loss_below: float,
    limit: int = 1000,
    evaluate_on: Batch | None = None,
) -> Relearn:
    """Count the training steps on D_f until its mean loss is at most `loss_below`.

    Fine-tuning minimises the cross-entropy on the forget batches, in train mode; after
    every step their mean cross-entropy is taken in eval mode. Few steps mean that the
    model still held what it seemed to have lost. Target: Retrain's number, the same
    call on Retrain with equal batches, optimizer, key and `loss_below`; the number of a
    second Retrain is the null. More than Retrain is no better than fewer: it betrays
    the forget set too. 0 steps say that the loss was low enough to begin with,
    `reached=False` that the limit of steps stopped the run.

    The model gives logits `[B, K]`; its parameters and state are copied, the optimizer
    starts afresh. `batches` is a schedule or a list of the forget samples, gone through
    as often as needed: `forget_only` or `retain_only` of the forget ids, or plain
    Batches. `loss_below` is, for example, the loss of the original model. The loss is
    taken on `evaluate_on`, by default all samples of one pass over `batches`, each id
    once where they carry ids; a random part of D_f makes it cheap.

    Raises:
      InputError: batches that are empty, used up, or hold both forget and retain
        samples; labels that do not fit; a number out of range.
      NonFiniteError: a loss or an update turned NaN or infinite.

    Source: Golatkar et al., arXiv 1911.04933; Tarun et al., arXiv 2111.08947 (the loss
    to come down to and the count of steps: our choice).

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 0.0, lambda w, x: w * x)
    >>> batches = [Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))]
    >>> start, sgd, key = jnp.float32(0), optax.sgd(1.0), jax.random.key(0)
    >>> found = relearn_steps(model, start, (), batches, sgd, key, loss_below=0.4)
    >>> found.steps, found.reached, found.losses.round(3).tolist()  # w: 0, .5, .878
    (2, True, [0.693, 0.474, 0.348])
    """
    _checks.whole("limit", limit, 1, "try 1000")
    remedy = "give the loss of the original model on the forget set"
    _validate.not_negative("loss_below", loss_below, remedy)
    _check_repeatable(batches)
    samples = _forget_samples(batches) if evaluate_on is None else evaluate_on
    look_at = _evaluation(model, (params, model_state), samples)
    losses = [_first(look_at(params, model_state))[0]]

    def fed() -> Iterator[UnlearnBatch]:
        for batch in _cycled(batches):
            if losses[-1] <= loss_below or len(losses) > limit:
                return
            yield UnlearnBatch(retain=_forget_batch(batch))

    def look(step, state, _) -> None:
        losses.append(look_at(state.params, state.model_state)[0])
        if not math.isfinite(losses[-1]):
            raise NonFiniteError(
                f"the loss on the forget samples is not finite after step {step - 1}; "
                "lower the learning rate",
                step - 1,
            )

    learner = _learner(model, optimizer, isinstance(samples.inputs, Text))
    state = learner.init(params, model_state)
    run(learner, state, fed(), key, callback=look, scan=1)
    return Relearn(
        steps=len(losses) - 1,
        reached=losses[-1] <= loss_below,
        losses=np.asarray(losses, np.float64),
    )


@functools.lru_cache(maxsize=2)
def _learner(
    model: Model, optimizer: optax.GradientTransformation, texts: bool
) -> Unlearner:
    """Return one learner for all models compared, so that its step compiles once."""
    if texts:
        return assemble(model, optimizer, retain=next_token(model))
    return finetune(model, optimizer)


def _first(found: tuple[float, float]) -> tuple[float, float]:
    """Return what a model has before all steps, if its loss is finite."""
    if not math.isfinite(found[0]):
        raise InputError(
            f"the loss of the given model on the forget samples is {found[0]}; find "
            "out where it diverged"
        )
    return found


def _check_repeatable(batches: Any) -> None:
    if isinstance(batches, Iterator):
        raise InputError(
            f"batches of type {type(batches).__name__} can be gone through only once; "
            "give a schedule or a list"
        )


def _cycled(batches: Iterable[UnlearnBatch | Batch]) -> Iterator[Any]:
    """Yield the batches, pass after pass."""
    _check_repeatable(batches)
    while True:
        batch = None
        for batch in batches:
            yield batch
        if batch is None:
            raise InputError("batches is empty; give at least one batch")


def _forget_batch(given: Any) -> Batch:
    """Return the one batch of forget samples in what a schedule gives."""
    if isinstance(given, UnlearnBatch):
        parts = [part for part in (given.forget, given.retain) if part is not None]
        if len(parts) != 1:
            raise InputError(
                f"a step has {len(parts)} of the batches forget and retain; relearning "
                "needs the forget samples alone: use forget_only"
            )
        return parts[0]
    if not isinstance(given, Batch):
        kind = type(given).__name__
        raise InputError(f"batches hold a {kind}; give UnlearnBatches or Batches")
    return given


def _forget_samples(batches: Iterable[UnlearnBatch | Batch]) -> Batch:
    """Return the samples of one pass over the batches, each id once."""
    parts, seen = [], set()
    for batch in map(_forget_batch, batches):
        keep = _counted(batch)
        if batch.index is not None:
            for row, id_ in enumerate(np.asarray(batch.index).tolist()):
                keep[row] &= id_ not in seen
                seen |= {id_} if keep[row] else set()
        parts += [_rows(batch, keep)] * bool(keep.any())
    if not parts:
        raise InputError("batches hold no samples; give the forget set")
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _counted(batch: Batch) -> np.ndarray:
    given = batch.mask is not None
    return np.array(batch.mask) if given else np.ones(np.shape(batch.labels), np.bool_)


def _rows(batch: Batch, rows: np.ndarray) -> Batch:
    """Return some of the samples, on the host, without ids and mask."""
    pair = batch.inputs, batch.labels
    return Batch(*jax.tree.map(lambda leaf: np.asarray(leaf)[rows], pair))


def _evaluation(
    model: Model,
    variables: tuple[Params, ModelState],
    samples: Batch,
    name: str = "evaluate_on",
):
    """Return `(params, model_state) -> (mean loss, share right)` on some samples.

    They are put on the device once.
    """
    counted = _counted(samples)
    if not counted.any():
        raise InputError(f"{name} holds no samples; give the forget set")
    if not isinstance(samples.inputs, Text):
        y = true_labels(model, variables, samples.inputs, samples.labels)
        samples = samples._replace(labels=y)
    samples = _rows(samples, counted)
    total = counted.sum()
    passes = programs.pieces(total, min(EVALUATED, total))
    parts = [_rows(samples, rows) for rows in passes]
    parts = jax.tree.map(jnp.asarray, parts)

    def look(*variables) -> tuple[float, float]:
        found = jax.device_get([_losses(model.apply, variables, p) for p in parts])
        losses, right = (
            np.concatenate(one)[:total] for one in zip(*found, strict=True)
        )
        return float(losses.mean(dtype=float)), float(right.mean())

    return look


@programs.jit(static_argnums=0)
def _losses(apply, variables, batch):
    params, state = variables
    outputs, _ = forward_pass(apply, params, state, batch.inputs, train=False)
    if isinstance(batch.inputs, Text):
        loss = reduced(scored(outputs, batch.inputs), batch)
        return loss, jnp.exp(-loss)
    return task_loss(outputs, batch), outputs.argmax(axis=-1) == batch.labels
