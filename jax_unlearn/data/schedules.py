"""Which samples each unlearning step sees.

All schedules shuffle alike: the passes over a set depend on the set, the batch size and
the seed only.
"""

import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.data.batches import (
    FORGET,
    RETAIN,
    Reference,
    Schedule,
    positive,
    reference_batches,
    stream,
)
from jax_unlearn.data.sources import Examples
from jax_unlearn.errors import InputError
from jax_unlearn.types import UnlearnBatch


def forget_only(
    examples: Examples,
    forget_ids: ArrayLike,
    *,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    reference: Reference = None,
    reference_size: int | None = None,
) -> Schedule[UnlearnBatch]:
    """Return steps with a forget batch only: `epochs` shuffled passes.

    Args:
      examples: the training samples.
      forget_ids: `[F]`.
      batch_size: samples a batch.
      epochs: passes over the forget set.
      seed: a non-negative integer.
      reference: the unseen set, as ids or as a Batch, given with every step.
      reference_size: give that many random ones of the reference ids instead.

    Returns:
      Schedule of UnlearnBatches.

    Raises:
      InputError: as `supervised`.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = forget_only(examples, [1, 2], batch_size=1, epochs=3)
    >>> len(schedule), schedule[0].retain
    (6, None)
    """
    steps, forget = stream(
        examples, "forget_ids", forget_ids, batch_size, seed, use=FORGET
    )
    attach = reference_batches(examples, reference, reference_size, seed)
    return Schedule(
        lambda step: UnlearnBatch(forget(step), None, attach(step)),
        steps * positive("epochs", epochs),
    )


def retain_only(
    examples: Examples,
    retain_ids: ArrayLike,
    *,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    reference: Reference = None,
    reference_size: int | None = None,
) -> Schedule[UnlearnBatch]:
    """Return steps with a retain batch only: `epochs` shuffled passes.

    Args:
      examples: the training samples.
      retain_ids: `[R]`.
      batch_size: samples a batch.
      epochs: passes over the retain set.
      seed: a non-negative integer.
      reference: as in `forget_only`.
      reference_size: as in `forget_only`.

    Returns:
      Schedule of UnlearnBatches.

    Raises:
      InputError: as `supervised`.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = retain_only(examples, [1, 2], batch_size=2, epochs=3)
    >>> len(schedule), schedule[0].forget
    (3, None)
    """
    steps, retain = stream(
        examples, "retain_ids", retain_ids, batch_size, seed, use=RETAIN
    )
    attach = reference_batches(examples, reference, reference_size, seed)
    return Schedule(
        lambda step: UnlearnBatch(None, retain(step), attach(step)),
        steps * positive("epochs", epochs),
    )


def sequential(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    *,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    reference: Reference = None,
    reference_size: int | None = None,
) -> Schedule[UnlearnBatch]:
    """Return epochs of all forget batches, then all retain batches.

    Args:
      examples: the training samples.
      forget_ids: `[F]`.
      retain_ids: `[R]`.
      batch_size: samples a batch.
      epochs: passes over both sets.
      seed: a non-negative integer.
      reference: as in `forget_only`.
      reference_size: as in `forget_only`.

    Returns:
      Schedule of UnlearnBatches, each with a forget or a retain batch.

    Raises:
      InputError: as `supervised`.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = sequential(examples, [0], range(1, 9), batch_size=4, epochs=2)
    >>> ["retain" if step.forget is None else "forget" for step in schedule]
    ['forget', 'retain', 'retain', 'forget', 'retain', 'retain']
    """
    first, forget = stream(
        examples, "forget_ids", forget_ids, batch_size, seed, use=FORGET
    )
    second, retain = stream(
        examples, "retain_ids", retain_ids, batch_size, seed, use=RETAIN
    )
    attach = reference_batches(examples, reference, reference_size, seed)

    def batch(step: int) -> UnlearnBatch:
        epoch, place = divmod(step, first + second)
        if place < first:
            return UnlearnBatch(forget(epoch * first + place), None, attach(step))
        place -= first
        return UnlearnBatch(None, retain(epoch * second + place), attach(step))

    return Schedule(batch, (first + second) * positive("epochs", epochs))


def zipped(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    *,
    batch_size: int,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    reference: Reference = None,
    reference_size: int | None = None,
) -> Schedule[UnlearnBatch]:
    """Return steps with a forget and a retain batch each.

    An epoch is a pass over the retain set; the forget set is passed over as often as
    that takes, shuffled anew each time.

    Args:
      examples: the training samples.
      forget_ids: `[F]`.
      retain_ids: `[R]`.
      batch_size: samples of each of the two batches.
      epochs: passes over the retain set, or
      steps: number of steps; give one of the two.
      seed: a non-negative integer.
      reference: as in `forget_only`.
      reference_size: as in `forget_only`.

    Returns:
      Schedule of UnlearnBatches.

    Raises:
      InputError: as `supervised`.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = zipped(examples, [0], range(1, 9), batch_size=4, epochs=1)
    >>> [(len(s.forget.labels), len(s.retain.labels)) for s in schedule]
    [(1, 4), (1, 4)]
    """
    return every_k(
        examples,
        forget_ids,
        retain_ids,
        batch_size=batch_size,
        k=1,
        epochs=epochs,
        steps=steps,
        seed=seed,
        reference=reference,
        reference_size=reference_size,
    )


def every_k(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    *,
    batch_size: int,
    k: int,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    reference: Reference = None,
    reference_size: int | None = None,
) -> Schedule[UnlearnBatch]:
    """Return steps that all retain, and of which each k-th, from the first on, forgets.

    Args:
      examples: the training samples.
      forget_ids: `[F]`.
      retain_ids: `[R]`.
      batch_size: samples of each batch.
      k: one step in `k` has a forget batch, the steps 0, k, 2k, ...
      epochs: passes over the retain set, or
      steps: number of steps; give one of the two.
      seed: a non-negative integer.
      reference: as in `forget_only`.
      reference_size: as in `forget_only`.

    Returns:
      Schedule of UnlearnBatches.

    Raises:
      InputError: as `supervised`.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = every_k(examples, [0], range(1, 9), batch_size=2, k=3, epochs=1)
    >>> [step.forget is not None for step in schedule]
    [True, False, False, True]
    """
    positive("k", k)
    _, forget = stream(examples, "forget_ids", forget_ids, batch_size, seed, use=FORGET)
    epoch, retain = stream(
        examples, "retain_ids", retain_ids, batch_size, seed, use=RETAIN
    )
    attach = reference_batches(examples, reference, reference_size, seed)

    def batch(step: int) -> UnlearnBatch:
        forgets = forget(step // k) if step % k == 0 else None
        return UnlearnBatch(forgets, retain(step), attach(step))

    return Schedule(batch, step_count(epoch, epochs, steps))


def merged(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    *,
    batch_size: int,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    reference: Reference = None,
    reference_size: int | None = None,
) -> Schedule[UnlearnBatch]:
    r"""Return batches of the union, each with the same number of forget samples.

    .. math::
        B_f = \max(1, \text{round}(B F / (F + R))), \quad B_r = B - B_f

    The stratified form of a shuffled union: the forget part of a batch has the share
    of the forget set, not a random number of samples. An epoch is a pass over the
    retain set.

    Args:
      examples: the training samples.
      forget_ids: `[F]`.
      retain_ids: `[R]`.
      batch_size: samples of both parts together, B >= 2.
      epochs: passes over the retain set, or
      steps: number of steps; give one of the two.
      seed: a non-negative integer.
      reference: as in `forget_only`.
      reference_size: as in `forget_only`.

    Returns:
      Schedule of UnlearnBatches.

    Raises:
      InputError: as `supervised`.

    Source: our choice; the papers shuffle the union.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = merged(examples, [0, 1, 2], range(3, 9), batch_size=3, epochs=1)
    >>> [(len(s.forget.labels), len(s.retain.labels)) for s in schedule]
    [(1, 2), (1, 2), (1, 2)]
    """
    forget_size, retain_size = _merged_sizes(
        np.size(forget_ids), np.size(retain_ids), batch_size
    )
    _, forget = stream(
        examples, "forget_ids", forget_ids, forget_size, seed, use=FORGET
    )
    epoch, retain = stream(
        examples, "retain_ids", retain_ids, retain_size, seed, use=RETAIN
    )
    attach = reference_batches(examples, reference, reference_size, seed)
    return Schedule(
        lambda step: UnlearnBatch(forget(step), retain(step), attach(step)),
        step_count(epoch, epochs, steps),
    )


def _merged_sizes(forget: int, retain: int, batch_size: int) -> tuple[int, int]:
    """Return the forget and the retain part of a batch of the union."""
    if not (forget and retain):
        raise InputError(
            f"{forget} forget_ids and {retain} retain_ids: both sets need a sample"
        )
    size = min(positive("batch_size", batch_size), forget + retain)
    if size < 2:
        raise InputError(f"batch_size={batch_size} must be at least 2 to hold both")
    part = round(size * forget / (forget + retain))
    part = min(max(part, 1), size - 1)
    return part, size - part


def step_count(epoch: int, epochs: int | None, steps: int | None) -> int:
    """Return the number of steps, given as epochs or as steps."""
    if (epochs is None) == (steps is None):
        raise InputError(f"epochs={epochs}, steps={steps}: give exactly one")
    if epochs is not None:
        return epoch * positive("epochs", epochs)
    return positive("steps", steps)
