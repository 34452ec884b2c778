"""Schedules of several phases: one after another, and SCRUB's epochs."""

import bisect
import dataclasses
import itertools
from typing import NamedTuple

from numpy.typing import ArrayLike

from jax_unlearn.data.batches import (
    FORGET,
    RETAIN,
    AnyBatch,
    Reference,
    Schedule,
    positive,
    reference_batches,
    stream,
)
from jax_unlearn.data.sources import Examples
from jax_unlearn.errors import InputError
from jax_unlearn.types import UnlearnBatch


class Phased(NamedTuple):
    """A schedule and where its epochs end.

    Attributes:
      schedule: all steps.
      ends: number of steps done after each epoch, rising, the last one all.
    """

    schedule: Schedule[UnlearnBatch]
    ends: tuple[int, ...]

    def epochs(self) -> tuple[Schedule[UnlearnBatch], ...]:
        """Return each epoch as a schedule of its own: run one, keep its state, go on.

        The step keys of `ju.run` come from the step of the state, so the epochs run in
        turn are the run of the whole schedule.
        """
        pairs = itertools.pairwise((0, *self.ends))
        return tuple(
            dataclasses.replace(self.schedule, start=start, steps=end)
            for start, end in pairs
        )


def phases(*schedules: Schedule[AnyBatch]) -> Schedule[AnyBatch]:
    """Return schedules one after the other.

    Schedules of one seed shuffle a set alike: give a later phase over the same set a
    seed of its own for new orders.

    Args:
      *schedules: at least one; of a schedule made by `from_step`, what is left.

    Returns:
      Schedule of all their steps.

    Raises:
      InputError: no schedule.

    Source: our choice; UNSIR's impair and repair are the model.

    >>> import numpy as np
    >>> from jax_unlearn.data.schedules import retain_only, zipped
    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> retain = range(1, 9)
    >>> impair = zipped(examples, [0], retain, batch_size=4, epochs=1)
    >>> repair = retain_only(examples, retain, batch_size=4, epochs=2, seed=1)
    >>> [step.forget is not None for step in phases(impair, repair)]
    [True, True, False, False, False, False]
    """
    if not schedules:
        raise InputError("schedules=(): give at least one schedule")
    ends = tuple(itertools.accumulate(len(schedule) for schedule in schedules))

    def batch(step: int) -> AnyBatch:
        phase = bisect.bisect_right(ends, step)
        schedule = schedules[phase]
        return schedule[schedule.steps - (ends[phase] - step)]

    return Schedule(batch, ends[-1])


def scrub_schedule(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    *,
    batch_size: int,
    epochs: int,
    forget_epochs: int,
    forget_batch_size: int | None = None,
    seed: int = 0,
    reference: Reference = None,
    reference_size: int | None = None,
) -> Phased:
    """Return SCRUB's epochs: the first ones forget, then retain; later ones retain.

    With all epochs as `forget_epochs` it is `sequential`.

    Args:
      examples: the training samples.
      forget_ids: `[F]`.
      retain_ids: `[R]`.
      batch_size: samples of a retain batch; published 128 (CIFAR-10).
      epochs: passes over the retain set; published 3.
      forget_epochs: how many epochs, from the first on, begin with a pass over the
        forget set; published 2 (`msteps`).
      forget_batch_size: samples of a forget batch, default `batch_size`; published 32.
      seed: a non-negative integer.
      reference: as in `forget_only`.
      reference_size: as in `forget_only`.

    Returns:
      The schedule, each step with a forget or a retain batch, and the ends of its
      epochs, after each of which `ju.methods.rewind` wants a checkpoint.

    Raises:
      InputError: as `supervised`, or more `forget_epochs` than epochs.

    Reference: Kurmanji et al., arXiv 2302.09880.

    >>> import numpy as np
    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> options = dict(batch_size=4, epochs=3, forget_epochs=2)
    >>> schedule, ends = scrub_schedule(examples, [0], range(1, 9), **options)
    >>> "".join("r" if step.forget is None else "f" for step in schedule), ends
    ('frrfrrrr', (3, 6, 8))
    """
    if positive("forget_epochs", forget_epochs) > positive("epochs", epochs):
        raise InputError(
            f"forget_epochs={forget_epochs} is more than epochs={epochs}; each forget "
            "pass begins an epoch"
        )
    size = batch_size
    if forget_batch_size is not None:
        size = positive("forget_batch_size", forget_batch_size)
    first, forget = stream(examples, "forget_ids", forget_ids, size, seed, use=FORGET)
    second, retain = stream(
        examples, "retain_ids", retain_ids, batch_size, seed, use=RETAIN
    )
    attach = reference_batches(examples, reference, reference_size, seed)
    ends = tuple(
        min(epoch, forget_epochs) * first + epoch * second
        for epoch in range(1, epochs + 1)
    )

    def batch(step: int) -> UnlearnBatch:
        epoch = bisect.bisect_right(ends, step)
        back = ends[epoch] - step  # steps to the end of the epoch, at least 1
        if back > second:
            number = (epoch + 1) * first - (back - second)
            return UnlearnBatch(forget(number), None, attach(step))
        return UnlearnBatch(None, retain((epoch + 1) * second - back), attach(step))

    return Phased(Schedule(batch, ends[-1]), ends)
