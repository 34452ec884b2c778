"""Samples of a random-access source, never all in memory; batches read ahead.

`from_source` gives samples that are read when they are indexed, so the schedules of
`ju.data` work on them; `streamed` reads their batches ahead, by the threads of grain,
in their order: a streamed run is the run in memory.

Shapes: N records.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.batches import AnyBatch, Schedule
from jax_unlearn.data.checks import check_labels, is_whole, positive_integer
from jax_unlearn.data.sources import Examples
from jax_unlearn.errors import InputError
from jax_unlearn.types import PyTree

__all__ = ["LazyInputs", "Source", "Stream", "from_source", "read_labels", "streamed"]


class Source(Protocol):
    """Records by their position: `tfds.data_source`, a list, or your own class."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class LazyInputs:
    """The decoded inputs of a source, of which only the rows asked for are read."""

    source: Source
    decode: Callable[[Any], PyTree]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, ...)`, of the first leaf; reads the first record."""
        return (len(self), *jax.tree.leaves(self[0])[0].shape)

    def __getitem__(self, rows: ArrayLike | slice) -> PyTree:
        """Read the records of some rows; arrays `[*rows.shape, ...]`."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        array = np.asarray(rows)
        if array.dtype.kind not in "iu" or array.size == 0:
            raise IndexError(f"rows={rows} must be at least one whole number")
        if array.min() < 0 or array.max() >= len(self):
            raise IndexError(f"rows={rows} must be 0 to {len(self) - 1}")
        wanted = array.ravel().tolist()
        many = getattr(self.source, "__getitems__", None)
        records = many(wanted) if many else [self.source[row] for row in wanted]
        decoded = map(self.decode, records)
        inputs = [_numbers(*pair) for pair in zip(wanted, decoded, strict=True)]
        forms = [_form(one) for one in inputs]
        for row, form in zip(wanted, forms, strict=True):
            if form != forms[0]:
                raise InputError(
                    f"record {row} decodes to {form[1]}, record {wanted[0]} to "
                    f"{forms[0][1]}; decode must give all one shape and type"
                )

        def join(*leaves: NDArray[Any]) -> NDArray[Any]:
            return np.stack(leaves).reshape(array.shape + leaves[0].shape)

        return jax.tree.map(join, *inputs)

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise InputError(
            f"the {len(self)} streamed records are not to be held in memory at once; "
            "index the rows that are needed: inputs[ids]"
        )


def from_source(
    source: Source, labels: ArrayLike, *, decode: Callable[[Any], PyTree] | None = None
) -> Examples:
    """Return the records of a source as samples whose inputs stay where they are.

    For the schedules, for `take` and for `ju.run.predict`: they read what they index.
    The id of a sample is its position in the source, such as
    `tfds.data_source(name, split="train")`; its class stands in the labels `[N]`, of
    `read_labels`. `decode`, called in the reading threads, gives the inputs of one
    record, by default `record["image"]`. All records must give one shape: resize in it,
    if need be. Several threads read at once; `source.__getitems__(list)`, if it is
    there, is called for all the records of a batch together.

    Raises:
      InputError: a source without length or positions, or labels that are not one a
        record; when a batch is read, records without `image`, of unequal shapes, or
        of no numbers.

    >>> records = [{"image": np.full((2, 2, 1), n, np.uint8)} for n in range(9)]
    >>> examples = from_source(records, labels=np.arange(9) % 3)
    >>> examples.inputs[[7, 2]].max(axis=(1, 2, 3))
    array([7, 2], dtype=uint8)
    """
    count = _check_source(source)
    classes, _ = check_labels(labels)
    if len(classes) != count:
        raise InputError(
            f"{len(classes)} labels for a source of {count} records; take those of "
            "read_labels(source)"
        )
    inputs: Any = LazyInputs(source, decode or (lambda one: _field(one, "image")))
    return Examples(inputs, classes.astype(np.int32))


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
        """Return where the stream stands, JSON-able, for the record of a checkpoint.

        `done` counts the batches of the schedule that were used, where these are fewer
        than were taken: `ju.run` with `scan` above 1 may have taken one batch more than
        the steps it tells its callback.

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
        """Go to where a stream of the same schedule stood, by its `get_state`.

        Raises:
          InputError: a state of something else.
        """
        steps = self._schedule.steps
        if not isinstance(state, Mapping) or set(state) != {"step", "steps"}:
            raise InputError(f"state={state!r} is not what get_state returned")
        step = state["step"]
        if state["steps"] != steps or not is_whole(step) or not 0 <= step <= steps:
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
    """Return the labels of all records, `i32[N]`, in one pass that holds no image.

    Keep them (`np.save`): `forget_split` and `from_source` need them. The records are
    dicts with the label under `key`. A source that leaves the images coded is faster:
    of TFDS, `tfds.data_source(name, split="train", decoders={"image":
    tfds.decode.SkipDecoding()})`. `threads` and `prefetch` as in `streamed`.

    Raises:
      InputError: grain is missing; a source without length or positions, or empty;
        a record without the key, or whose label is no whole number from 0 on.

    >>> read_labels([{"label": 2}, {"label": 0}])
    array([2, 0], dtype=int32)
    """
    grain = _grain()
    count = _check_source(source)
    options = grain.ReadOptions(*_read_ahead(threads, prefetch))

    def label(position: int) -> int:
        value = _field(source[position], key)
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

    The batches and their order are those of the schedule. `threads` of them are read at
    once, and at most `prefetch` wait in memory, besides the one in use. JAX too runs
    ahead of its steps and keeps their batches; where memory is short,
    `ju.run(…, check_every=1)` waits for each.

    An iterator: it is passed over once. To resume, put `get_state()` in the record of a
    checkpoint and give it to `set_state` of a stream of the same schedule; or stream
    `schedule.from_step(step)`.

    On several hosts give each its share of both sets, `ids[host::hosts]`, a batch
    size divided by the hosts, and the same number of `steps`.

    Raises:
      InputError: grain is missing, no schedule, a number that is not positive, or
        more threads than batches read ahead.

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


def _read_ahead(threads: int, prefetch: int) -> tuple[int, int]:
    if positive_integer("threads", threads) > positive_integer("prefetch", prefetch):
        raise InputError(
            f"prefetch={prefetch} leaves some of threads={threads} without work; "
            f"raise it to {threads} or more"
        )
    return threads, prefetch


def _check_source(source: Any) -> int:
    """Return the number of records."""
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise InputError(
            f"source of type {type(source).__name__} has no length or no positions; "
            "give one with __len__ and __getitem__, such as tfds.data_source(…)"
        )
    if len(source) == 0:
        raise InputError("source holds no records; check its split")
    return len(source)


def _field(record: Any, key: str) -> Any:
    """Return a value of a record that is a dict."""
    if not isinstance(record, Mapping) or key not in record:
        held = ", ".join(map(str, record)) if isinstance(record, Mapping) else record
        raise InputError(
            f"a record holds no {key!r} but {str(held)[:60]}; give decode=…, or the "
            "key of the labels"
        )
    return record[key]


def _numbers(row: int, decoded: PyTree) -> PyTree:
    """Return decoded inputs as arrays of the types that JAX has."""

    def narrow(leaf: Any) -> NDArray[Any]:
        array = np.asarray(leaf)
        if array.dtype != bool and not jnp.issubdtype(array.dtype, np.number):
            raise InputError(
                f"record {row} decodes to {str(leaf)[:40]!r} of type {array.dtype}; "
                "decode must return arrays of numbers"
            )
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)

    arrays = jax.tree.map(narrow, decoded)
    if not jax.tree.leaves(arrays):
        raise InputError(f"record {row} decodes to {decoded!r}; return an array")
    return arrays


def _form(inputs: PyTree) -> tuple[Any, list[tuple[tuple[int, ...], str]]]:
    leaves, structure = jax.tree.flatten(inputs)
    return structure, [(leaf.shape, str(leaf.dtype)) for leaf in leaves]
