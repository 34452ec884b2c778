"""Which samples each unlearning step sees: two streams of batches, and a pattern.

A stream is one shuffled pass over a set after another; a pattern says which batch of
the forget stream and which of the retain stream a step takes. All schedules shuffle
alike: the passes over a set depend on the set, the batch size and the seed only. All
take the arguments of `combined`, whatever else they are told.

Shapes: F forget samples, R retain samples.
"""

import bisect
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable
from typing import NamedTuple, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.data import batches
from jax_unlearn.data.batches import AnyBatch, Passes, Reference, Schedule
from jax_unlearn.data.checks import positive_integer
from jax_unlearn.data.sources import Examples
from jax_unlearn.errors import InputError
from jax_unlearn.types import UnlearnBatch

__all__ = ["Options", "Pattern", "Phased", "Plan", "Shared", "combined", "every_k"]
__all__ += [
    "fcs_schedule",
    "forget_only",
    "merged",
    "phases",
    "retain_only",
    "scrub_schedule",
]
__all__ += ["sequential", "shares", "together", "zipped"]

Pattern = Callable[[int], tuple[int | None, int | None]]
"""`step -> (number of its forget batch, of its retain batch)`, None for no batch."""

Plan = Callable[[int, int], tuple[Callable[[int], int], Pattern]]
"""`(batches of a forget pass, of a retain pass) -> (epochs -> steps, pattern)`."""


class Shared(TypedDict, total=False):
    """What every schedule takes by keyword, as documented in `combined`."""

    forget_batch_size: int | None
    epochs: int | None
    steps: int | None
    seed: int
    reference: Reference
    reference_size: int | None


class Options(Shared):
    """The same with the size of the batches, which has no default."""

    batch_size: int


class Phased(NamedTuple):
    """A schedule and the numbers of steps done after each of its epochs, rising."""

    schedule: Schedule[UnlearnBatch]
    ends: tuple[int, ...]

    def epochs(self) -> tuple[Schedule[UnlearnBatch], ...]:
        """Return each epoch as a schedule of its own: run one, keep its state, go on.

        The step keys of `ju.run` come from the step of the state, so the epochs run in
        turn are the run of the whole schedule.
        """
        replace = functools.partial(dataclasses.replace, self.schedule)
        pairs = itertools.pairwise((0, *self.ends))
        return tuple(replace(start=start, steps=end) for start, end in pairs)


def combined(
    examples: Examples,
    forget_ids: ArrayLike | Passes | None,
    retain_ids: ArrayLike | Passes | None,
    plan: Plan,
    *,
    batch_size: int,
    forget_batch_size: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    reference: Reference = None,
    reference_size: int | None = None,
) -> Phased:
    """Return the schedule of a plan, and where its epochs end; all others are plans.

    Without ids `[F]` steps only retain, without ids `[R]` they only forget; either may
    be batches made otherwise, whose passes have the length 0 where there is no set. A
    batch has `batch_size` samples, one to forget `forget_batch_size` if told. Either
    `epochs`, as the plan counts them, or `steps` is given. With every step comes
    `reference`, the unseen set (a Batch, or ids: all, or `reference_size` random ones).

    Raises:
      InputError: an empty set, ids out of range, named twice or in both sets, or a
        number that is not positive.
    """

    def passes(ids: ArrayLike | Passes | None, size: int, use: int) -> Passes | None:
        if ids is None or isinstance(ids, Passes):
            return ids
        return batches.stream(examples, ids, size, seed, use=use)

    sets = [i for i in (forget_ids, retain_ids) if not isinstance(i, Passes | None)]
    flat = np.concatenate([np.ravel(ids) for ids in sets] or [[]])
    if any(np.asarray(ids).dtype == bool for ids in sets):
        raise InputError("ids are bools: give positions, np.flatnonzero(ids)")
    ids, counts = np.unique(flat, return_counts=True)
    if len(again := ids[counts > 1]):  # both forgotten and kept, or doubly
        raise InputError(
            f"forget_ids and retain_ids: {len(again)} ids come more than once, the "
            f"first {again[0]}; name each sample once, in one of the two"
        )
    if forget_batch_size is not None:
        positive_integer("forget_batch_size", forget_batch_size)
    streams = (
        passes(forget_ids, forget_batch_size or batch_size, batches.FORGET),
        passes(retain_ids, batch_size, batches.RETAIN),
    )
    references = batches.reference_batches(examples, reference, reference_size, seed)
    end, pattern = plan(*(own.length if own else 0 for own in streams))

    def batch(step: int) -> UnlearnBatch:
        pairs = zip(streams, pattern(step), strict=True)
        parts = [None if n is None or own is None else own.batch(n) for own, n in pairs]
        return UnlearnBatch(parts[0], parts[1], references(step))

    if (epochs is None) == (steps is None):
        raise InputError(f"epochs={epochs}, steps={steps}: give exactly one")
    if epochs is None:
        ends = (positive_integer("steps", steps),)
    else:
        ends = tuple(map(end, range(1, positive_integer("epochs", epochs) + 1)))
    return Phased(Schedule(batch, ends[-1]), ends)


def forget_only(
    examples: Examples, forget_ids: ArrayLike | Passes, **options: Unpack[Options]
) -> Schedule[UnlearnBatch]:
    """Return steps with a forget batch only; an epoch is a pass over the forget set.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = forget_only(examples, [1, 2], batch_size=1, epochs=3)
    >>> len(schedule), schedule[0].retain
    (6, None)
    """
    return combined(examples, forget_ids, None, _in_turn(), **options).schedule


def retain_only(
    examples: Examples, retain_ids: ArrayLike, **options: Unpack[Options]
) -> Schedule[UnlearnBatch]:
    """Return steps with a retain batch only; an epoch is a pass over the retain set.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = retain_only(examples, range(9), batch_size=4, epochs=1)
    >>> [step.forget for step in schedule]
    [None, None, None]
    """
    return combined(examples, None, retain_ids, _in_turn(), **options).schedule


def sequential(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    **options: Unpack[Options],
) -> Schedule[UnlearnBatch]:
    """Return epochs of all forget batches, then all retain batches.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = sequential(examples, [0], range(1, 9), batch_size=4, epochs=2)
    >>> ["retain" if step.forget is None else "forget" for step in schedule]
    ['forget', 'retain', 'retain', 'forget', 'retain', 'retain']
    """
    return combined(examples, forget_ids, retain_ids, _in_turn(), **options).schedule


def scrub_schedule(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    *,
    forget_epochs: int,
    **options: Unpack[Options],
) -> Phased:
    """Return SCRUB's epochs: the first ones forget, then retain; later ones retain.

    The first `forget_epochs` (published 2, `msteps`) begin with a pass over the forget
    set. After the end of each epoch `ju.methods.rewind` wants a checkpoint. Published
    besides: `batch_size` 128 (CIFAR-10), `forget_batch_size` 32, `epochs` 3.

    Raises:
      InputError: as `combined`, or more `forget_epochs` than epochs.

    Reference: Kurmanji et al., arXiv 2302.09880.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> options = dict(batch_size=4, epochs=3, forget_epochs=2)
    >>> schedule, ends = scrub_schedule(examples, [0], range(1, 9), **options)
    >>> "".join("r" if step.forget is None else "f" for step in schedule), ends
    ('frrfrrrr', (3, 6, 8))
    """
    epochs = options.get("epochs")
    if epochs and epochs < positive_integer("forget_epochs", forget_epochs):
        raise InputError(
            f"forget_epochs={forget_epochs} is more than epochs={epochs}; each forget "
            "pass begins an epoch"
        )
    return combined(
        examples, forget_ids, retain_ids, _in_turn(forget_epochs), **options
    )


def fcs_schedule(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    **options: Unpack[Options],
) -> Phased:
    """Return FCS's rounds: a forget pass, then epochs of contrast and of retaining.

    An epoch pairs forget with retain batches until either set is through, and then
    passes over the retain set; the pairs take retain batches from a pass of their own.

    Source: first place of the NeurIPS 2023 unlearning challenge.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule, ends = fcs_schedule(
    ...     examples, [0], range(1, 9), batch_size=4, epochs=2
    ... )
    >>> ["".join("fr"[i] for i in (0, 1) if step[i]) for step in schedule], ends
    (['f', 'fr', 'r', 'r', 'fr', 'r', 'r'], (4, 7))
    """

    def plan(first: int, second: int):
        pairs = min(first, second)

        def pattern(step: int) -> tuple[int | None, int | None]:
            if step < first:
                return step, None
            epoch, place = divmod(step - first, pairs + second)
            if place < pairs:
                return (epoch + 1) * first + place, 2 * epoch * second + place
            return None, (2 * epoch + 1) * second + place - pairs

        return lambda n: first + n * (pairs + second), pattern

    return combined(examples, forget_ids, retain_ids, plan, **options)


def every_k(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    *,
    k: int,
    **options: Unpack[Options],
) -> Schedule[UnlearnBatch]:
    """Return steps that all retain, and of which the steps 0, k, 2k, … forget too.

    An epoch is a pass over the retain set; the forget set is passed over as often as
    that takes, shuffled anew each time.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = every_k(examples, [0], range(1, 9), batch_size=2, k=3, epochs=1)
    >>> [step.forget is not None for step in schedule]
    [True, False, False, True]
    """
    plan = together(positive_integer("k", k))
    return combined(examples, forget_ids, retain_ids, plan, **options).schedule


def zipped(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    **options: Unpack[Options],
) -> Schedule[UnlearnBatch]:
    """Return steps with a forget and a retain batch each: `every_k` with k = 1.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = zipped(examples, [0], range(1, 9), batch_size=4, epochs=1)
    >>> [(len(s.forget.labels), len(s.retain.labels)) for s in schedule]
    [(1, 4), (1, 4)]
    """
    return combined(examples, forget_ids, retain_ids, together(), **options).schedule


def merged(
    examples: Examples,
    forget_ids: ArrayLike,
    retain_ids: ArrayLike,
    *,
    batch_size: int,
    **options: Unpack[Shared],
) -> Schedule[UnlearnBatch]:
    r"""Return batches of the union, each with the same number of forget samples.

    .. math::
        B_f = \max(1, \text{round}(B F / (F + R))), \quad B_r = B - B_f

    The stratified form of a shuffled union: the forget part of a batch has the share
    of the forget set, not a random number of samples. An epoch is a pass over the
    retain set. `batch_size` counts the samples of both parts together, B >= 2.

    Source: our choice; the papers shuffle the union.

    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> schedule = merged(examples, [0, 1, 2], range(3, 9), batch_size=3, epochs=1)
    >>> [(len(s.forget.labels), len(s.retain.labels)) for s in schedule]
    [(1, 2), (1, 2), (1, 2)]
    """
    forget, retain = np.size(forget_ids), np.size(retain_ids)
    if not (forget and retain):
        raise InputError(
            f"{forget} forget_ids and {retain} retain_ids: both sets need a sample"
        )
    sizes = shares(batch_size, forget, retain)
    return zipped(examples, forget_ids, retain_ids, **sizes, **options)


def shares(batch_size: int, forget: int, retain: int) -> dict[str, int]:
    """Return how many samples of each set a batch of `merged` has, as schedules do."""
    size = min(positive_integer("batch_size", batch_size), forget + retain)
    if size < 2:
        raise InputError(
            f"batch_size={batch_size} must be at least 2, for a sample of both sets"
        )
    part = min(max(round(size * forget / (forget + retain)), 1), size - 1)
    return {"forget_batch_size": part, "batch_size": size - part}


def phases(*schedules: Schedule[AnyBatch]) -> Schedule[AnyBatch]:
    """Return schedules one after the other; of one made by `from_step`, what is left.

    Schedules of one seed shuffle a set alike: give a later phase over the same set a
    seed of its own for new orders.

    Raises:
      InputError: no schedule.

    Source: our choice; UNSIR's impair and repair are the model.

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


def _in_turn(forget_epochs: int = sys.maxsize) -> Plan:
    """Return the plan of a forget pass, in the first epochs, before a retain pass."""

    def plan(first: int, second: int):
        def pattern(step: int) -> tuple[int | None, int | None]:
            epoch, place = divmod(step, first + second)
            if epoch < forget_epochs and place < first:
                return epoch * first + place, None
            # All steps before this one retained, but those of the forget passes.
            return None, step - first * min(epoch + 1, forget_epochs)

        return lambda n: first * min(n, forget_epochs) + second * n, pattern

    return plan


def together(k: int = 1) -> Plan:
    """Return the plan of a retain batch in each step, a forget batch in every k-th."""

    def plan(first: int, second: int):
        del first
        return lambda n: second * n, lambda n: (None if n % k else n // k, n)

    return plan
