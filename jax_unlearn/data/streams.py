"""Batches read ahead of their use, and labels in one pass, by the threads of grain.

The schedules of `ju.data` work on the samples of `from_source`; `streamed` reads their
batches ahead, in their order: a streamed run is the run in memory.

Shapes: N records.
"""

import numbers
from collections.abc import Mapping
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from jax_unlearn.data.batches import AnyBatch, Schedule, positive
from jax_unlearn.data.records import Source, check_source, field
from jax_unlearn.errors import InputError


class Stream(Generic[AnyBatch]):
    """Iterator of batches that are read ahead; made by `streamed`.

    Its state is the number of batches that were taken from it. What is read ahead
    does not count.
    """

    def __init__(self, schedule: Schedule[AnyBatch], *, threads: int, prefetch: int):
        self._schedule = schedule
        self._options = {"num_threads": threads, "prefetch_buffer_size": prefetch}
        self._batches: Any = None
        self._open(schedule.start)

    def __len__(self) -> int:
        """Return how many batches are left."""
        return self._schedule.steps - self._step

    def __iter__(self) -> "Stream[AnyBatch]":
        return self

    def __next__(self) -> AnyBatch:
        if len(self) == 0:
            raise StopIteration
        try:
            batch = next(self._batches)
        except BaseException:  # of a reading thread, or ^C: the batch is not lost
            self._open(self._step)
            raise
        self._step += 1
        return batch

    def get_state(self, done: int | None = None) -> dict[str, int]:
        """Return where the stream stands, for the record of a checkpoint.

        Args:
          done: batches of the schedule that were used, where these are fewer than
            were taken. `ju.run` with `scan` above 1 may have taken one batch more
            than the steps it tells its callback.

        Returns:
          JSON-able state.

        Raises:
          InputError: more done than taken.
        """
        step = self._step if done is None else done
        if not 0 <= step <= self._step:
            raise InputError(
                f"done={done} must be 0 to {self._step}, the batches taken so far; "
                "leave it out to mean all of them"
            )
        return {"step": int(step), "steps": self._schedule.steps}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Go to where a stream of the same schedule stood.

        Args:
          state: of `get_state`.

        Raises:
          InputError: a state of something else.
        """
        steps = self._schedule.steps
        if not isinstance(state, Mapping) or set(state) != {"step", "steps"}:
            raise InputError(f"state={state!r} is not what get_state returned")
        step = state["step"]
        if state["steps"] != steps or not _whole(step) or not 0 <= step <= steps:
            raise InputError(
                f"state={dict(state)} is not of this schedule of {steps} steps; make "
                "it from the same ids, batch size, epochs and seed"
            )
        self._open(int(step))

    def _open(self, step: int) -> None:
        """Read from a step on, and no more of what was to be read."""
        grain = _grain()
        if self._batches is not None:
            self._batches.close()
        steps = grain.MapDataset.range(step, self._schedule.steps)
        batches = steps.map(self._schedule.batch)
        options = grain.ReadOptions(**self._options)
        self._step = step
        self._batches = iter(batches.to_iter_dataset(options))


def read_labels(
    source: Source, *, key: str = "label", threads: int = 4, prefetch: int = 64
) -> NDArray[np.int32]:
    """Return the labels of all records, one pass that holds no image.

    Keep them (`np.save`): `forget_split` and `from_source` need them. A source that
    leaves the images coded is faster: of TFDS,
    `tfds.data_source(name, split="train", decoders={"image":
    tfds.decode.SkipDecoding()})`.

    Args:
      source: random access to N records that are dicts.
      key: where the label of a record is.
      threads: how many read at once.
      prefetch: records read ahead.

    Returns:
      Labels `i32[N]`.

    Raises:
      InputError: grain is missing; a source without length or positions, or empty;
        a record without the key, or whose label is no whole number from 0 on.

    Source: our choice.

    >>> read_labels([{"label": 2}, {"label": 0}])
    array([2, 0], dtype=int32)
    """
    grain = _grain()
    count = check_source(source)
    options = grain.ReadOptions(*_read_ahead(threads, prefetch))

    def label(position: int) -> int:
        value = field(source[position], key)
        number = np.asarray(value)
        if number.shape or number.dtype.kind not in "iu" or not 0 <= number < 2**31:
            raise InputError(
                f"record {position} has {key}={value!r}; a class is a whole number "
                "from 0 on"
            )
        return int(number)

    labels = grain.MapDataset.range(count).map(label).to_iter_dataset(options)
    return np.fromiter(labels, np.int32, count)


def streamed(
    schedule: Schedule[AnyBatch], *, threads: int = 4, prefetch: int = 8
) -> Stream[AnyBatch]:
    """Return the batches of a schedule, read ahead of their use.

    The batches and their order are those of the schedule. At most `prefetch` batches
    wait in memory, besides the one in use. JAX too runs ahead of its steps and keeps
    their batches; where memory is short, `ju.run(…, check_every=1)` waits for each.

    An iterator: it is passed over once.

    To resume, put `get_state()` in the record of a checkpoint and give it to
    `set_state` of a stream of the same schedule; or stream `schedule.from_step(step)`.

    On several hosts give each its share of both sets, `ids[host::hosts]`, a batch
    size divided by the hosts, and the same number of `steps`.

    Args:
      schedule: of samples made by `from_source`; any other works too.
      threads: batches read at once.
      prefetch: batches read ahead, at least `threads`.

    Returns:
      Stream.

    Raises:
      InputError: grain is missing, no schedule, a number that is not positive, or
        more threads than batches read ahead.

    Source: our choice; the threads are those of grain.

    >>> from jax_unlearn.data.records import from_source
    >>> from jax_unlearn.data.schedules import zipped
    >>> records = [{"image": np.full((2, 2, 1), n, np.uint8)} for n in range(9)]
    >>> examples = from_source(records, labels=np.zeros(9, int))
    >>> schedule = zipped(examples, [0], range(1, 9), batch_size=4, epochs=2)
    >>> stream = streamed(schedule)
    >>> next(stream).retain.inputs.shape, len(stream), stream.get_state()
    ((4, 2, 2, 1), 3, {'step': 1, 'steps': 4})
    """
    if not isinstance(schedule, Schedule):
        raise InputError(
            f"schedule of type {type(schedule).__name__} must be one of ju.data, such "
            "as zipped(from_source(…), …)"
        )
    threads, prefetch = _read_ahead(threads, prefetch)
    return Stream(schedule, threads=threads, prefetch=prefetch)


def _grain() -> Any:
    """Return grain, or say how to get it."""
    try:
        import grain
    except ImportError as error:
        raise InputError(
            "streaming needs the package grain; pip install 'jax-unlearn[streams]'"
        ) from error
    return grain


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _read_ahead(threads: int, prefetch: int) -> tuple[int, int]:
    if positive("threads", threads) > positive("prefetch", prefetch):
        raise InputError(
            f"prefetch={prefetch} leaves some of threads={threads} without work; "
            f"raise it to {threads} or more"
        )
    return threads, prefetch
