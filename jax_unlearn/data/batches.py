"""Batches cut from arrays by index matrices, as pure functions of the step.

Shapes: T steps, B batch, F samples of a set. A batch is decided by the
seed and the step alone, so that a run resumes at any step without replaying the earlier
ones. Arrays are gathered on the host; putting them on a device is left to whoever runs
the steps.
"""

import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.checks import check_seed, positions, positive_integer
from jax_unlearn.data.sources import Examples
from jax_unlearn.errors import InputError
from jax_unlearn.types import Batch, UnlearnBatch

__all__ = ["AnyBatch", "Passes", "Reference", "Schedule", "epoch_indices"]
__all__ += ["reference_batches", "stream", "supervised", "take", "without_inputs"]

AnyBatch = TypeVar("AnyBatch", Batch, UnlearnBatch)
Reference = Batch | ArrayLike | None

# One random stream for each use: every schedule shuffles a set alike.
FORGET, RETAIN, REFERENCE, TRAIN, QUERY = range(5)
NAMES = ("forget_ids", "retain_ids", "reference", "ids")  # in messages, by use

_bare = contextvars.ContextVar("bare", default=False)


class Passes(NamedTuple):
    """Batches by number, without end, and how many of them make a pass over a set."""

    length: int
    batch: Callable[[int], Batch]


@dataclasses.dataclass(frozen=True)
class Schedule(Generic[AnyBatch]):
    """A known number of batches, from any step on.

    `batch` gives that of a step, a pure function of `0 <= step < steps`. Iteration
    begins with the step `start`; `len` counts from there.

    >>> schedule = Schedule(lambda step: Batch(step, step), steps=5)
    >>> [batch.inputs for batch in schedule.from_step(3)], len(schedule.from_step(3))
    ([3, 4], 2)
    """

    batch: Callable[[int], AnyBatch]
    steps: int
    start: int = 0

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[AnyBatch]:
        return (self.batch(step) for step in range(self.start, self.steps))

    def __getitem__(self, step: int) -> AnyBatch:
        """Return the batch of a step, counted from the beginning of the run."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step={step} must be 0 to {self.steps - 1}")
        return self.batch(step)

    def from_step(self, step: int) -> "Schedule[AnyBatch]":
        """Return the rest of the schedule, from `step` of the whole run on."""
        if not 0 <= step <= self.steps:
            raise InputError(
                f"step={step} must be 0 to {self.steps}; the schedule has no more"
            )
        return dataclasses.replace(self, start=step)


def epoch_indices(
    ids: ArrayLike, batch_size: int, *, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return (index i64[T, B], mask bool[T, B]) of one shuffled pass over a set `[F]`.

    `B = min(batch_size, F)`, `T = ceil(F / B)`; every id has True exactly once. The
    last batch is filled up with other samples of the set, masked out, so that BatchNorm
    sees real images in it; a set smaller than the batch size makes smaller batches. The
    mean loss of a short batch counts as much as that of a full one: where a pass is a
    few batches, take a size that leaves no short one.

    Raises:
      InputError: no ids, or `batch_size` under 1.

    >>> index, mask = epoch_indices([4, 5, 6], 2, rng=np.random.default_rng(0))
    >>> index.shape, mask.tolist(), sorted(index[mask].tolist())
    ((2, 2), [[True, True], [True, False]], [4, 5, 6])
    """
    array = np.asarray(ids, np.int64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"ids of shape {array.shape} must be a list of samples: [F]")
    size = min(positive_integer("batch_size", batch_size), len(array))
    steps = -(-len(array) // size)
    index = np.resize(rng.permutation(array), (steps, size))
    return index, np.arange(steps * size).reshape(steps, size) < len(array)


def take(examples: Examples, index: ArrayLike, mask: ArrayLike | None = None) -> Batch:
    """Return the batch of some ids `[B]`: host arrays, with `index` i32 and a mask.

    The examples are inputs `[N, ...]` (an array or a pytree of them) and labels `[N]`;
    ids `[T, B]` give the batches of many steps at once. The mask, shaped like the ids,
    is False for padding.

    >>> examples = Examples(np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32))
    >>> take(examples, [2, 0]).labels
    array([2, 0], dtype=int32)
    """
    rows: Any = np.asarray(index)
    real: Any = np.ones(rows.shape, np.bool_) if mask is None else np.asarray(mask)
    inputs = None if _bare.get() else examples.inputs
    inputs, labels = jax.tree.map(lambda array: array[rows], (inputs, examples.labels))
    return Batch(inputs, labels, rows.astype(np.int32), real)


@contextmanager
def without_inputs() -> Iterator[None]:
    """Let `take` gather no inputs inside, for those who only read ids and labels."""
    token = _bare.set(True)
    try:
        yield
    finally:
        _bare.reset(token)


def supervised(
    examples: Examples, ids: ArrayLike, *, batch_size: int, epochs: int, seed: int = 0
) -> Schedule[Batch]:
    """Return batches for training: `epochs` shuffled passes over `[F]` of ⌈F/B⌉ steps.

    Raises:
      InputError: an empty set, ids out of range, or a number that is not positive.

    >>> examples = Examples(np.zeros((5, 1), np.float32), np.zeros(5, np.int32))
    >>> len(supervised(examples, range(5), batch_size=2, epochs=3))
    9
    """
    steps, batch = stream(examples, ids, batch_size, seed, use=TRAIN)
    return Schedule(batch, steps * positive_integer("epochs", epochs))


def stream(
    examples: Examples, ids: ArrayLike, batch_size: int, seed: int, *, use: int
) -> Passes:
    """Return pass after pass over the ids `[F]`, shuffled by seed, use and number."""
    array = positions(NAMES[use], ids, len(examples.labels))
    size = min(positive_integer("batch_size", batch_size), len(array))
    steps = -(-len(array) // size)
    check_seed(seed)

    @functools.lru_cache(maxsize=2)
    def epoch(number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        rng = np.random.default_rng([seed, use, number])
        return epoch_indices(array, size, rng=rng)

    def batch(number: int) -> Batch:
        passed, place = divmod(number, steps)
        index, mask = epoch(passed)
        return take(examples, index[place], mask[place])

    return Passes(steps, batch)


def reference_batches(
    examples: Examples, reference: Reference, size: int | None, seed: int
) -> Callable[[int], Batch | None]:
    """Return `step -> reference batch`: the Batch given, all ids, or random ones."""
    if reference is None or isinstance(reference, Batch):
        if size is not None:
            raise InputError(f"reference_size={size} needs reference to be ids")
        return lambda step: reference
    array = positions("reference", reference, len(examples.labels))
    if size is None:
        whole = take(examples, array)
        return lambda step: whole
    if positive_integer("reference_size", size) > len(array):
        raise InputError(
            f"reference_size={size} is more than the {len(array)} reference ids; "
            "leave it out to use all of them"
        )
    check_seed(seed)

    def batch(step: int) -> Batch:
        rng = np.random.default_rng([seed, REFERENCE, step])
        return take(examples, rng.choice(array, size, replace=False))

    return batch
