"""Relearn time: how fast a model learns back what it was to forget."""

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
from jax_unlearn.audit.robustness import pieces, true_labels
from jax_unlearn.contracts import forward_pass
from jax_unlearn.drivers.loop import run
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.methods.finetune import finetune
from jax_unlearn.objectives.base import task_loss
from jax_unlearn.types import Array, Batch, Model, ModelState, Params, UnlearnBatch

__all__ = ["Relearn", "relearn_steps"]

EVALUATED = 1024  # largest number of samples a forward pass of the evaluation


class Relearn(NamedTuple):
    """Steps done, whether the loss came down, and the losses `f64[steps + 1]`.

    The first is the mean loss of the forget samples before all steps.
    """

    steps: int
    reached: bool
    losses: np.ndarray


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
    if isinstance(batches, Iterator):
        raise InputError(
            f"batches of type {type(batches).__name__} can be gone through only once; "
            "give a schedule or a list"
        )
    samples = _forget_samples(batches) if evaluate_on is None else evaluate_on
    mean_loss = _evaluation(model, (params, model_state), samples)
    losses = [mean_loss(params, model_state)]
    if not math.isfinite(losses[0]):
        raise InputError(
            f"the loss of the given model on the forget samples is {losses[0]}; find "
            "out where it diverged"
        )

    def fed() -> Iterator[UnlearnBatch]:
        while True:
            batch = None
            for batch in batches:
                if losses[-1] <= loss_below or len(losses) > limit:
                    return
                yield UnlearnBatch(retain=_forget_batch(batch))
            if batch is None:
                raise InputError("batches is empty; give at least one batch")

    def look(step, state, _) -> None:
        losses.append(mean_loss(state.params, state.model_state))
        if not math.isfinite(losses[-1]):
            raise NonFiniteError(
                f"the loss on the forget samples is not finite after step {step - 1}; "
                "lower the learning rate",
                step - 1,
            )

    learner = _learner(model, optimizer)
    state = learner.init(params, model_state)
    run(learner, state, fed(), key, callback=look, scan=1)
    return Relearn(
        steps=len(losses) - 1,
        reached=losses[-1] <= loss_below,
        losses=np.asarray(losses, np.float64),
    )


# One learner for all models compared, so that its step compiles once.
_learner = functools.lru_cache(maxsize=2)(finetune)


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


def _evaluation(model: Model, variables: tuple[Params, ModelState], samples: Batch):
    """Return `(params, model_state) -> mean loss` on samples put on the device once."""
    counted = _counted(samples)
    if not counted.any():
        raise InputError("evaluate_on holds no samples; give the forget set")
    y = true_labels(model, variables, samples.inputs, samples.labels)
    samples = _rows(samples._replace(labels=y), counted)
    total = counted.sum()
    parts = [_rows(samples, rows) for rows in pieces(total, EVALUATED)]
    parts = jax.tree.map(jnp.asarray, parts)

    def mean_loss(*variables) -> float:
        losses = [_losses(model.apply, variables, part) for part in parts]
        return float(np.concatenate(jax.device_get(losses))[:total].mean(dtype=float))

    return mean_loss


@programs.jit(static_argnums=0)
def _losses(apply, variables, batch):
    params, state = variables
    outputs, _ = forward_pass(apply, params, state, batch.inputs, train=False)
    return task_loss(outputs, batch)
