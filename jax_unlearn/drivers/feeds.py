"""Which samples each step of a resident run reads, as arrays on the device.

Shapes: T steps an epoch, B batch, N samples. A feed gives, for an epoch, the tables of
its batches, one for each form of them (leaves `[rows, B]`: ids and masks, no inputs
yet); and by step which table, and which row of it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn import _validate
from jax_unlearn.data.batches import FORGET, REFERENCE, RETAIN, Schedule, without_inputs
from jax_unlearn.data.checks import check_seed, positive_integer
from jax_unlearn.data.sources import Examples
from jax_unlearn.drivers.stacking import form
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Batch, UnlearnBatch

__all__ = [
    "ORDER",
    "Drawn",
    "Feed",
    "Listed",
    "batches",
    "drawn",
    "gather",
    "listed",
    "rows_of",
]

Epoch = tuple[Array, Array, tuple[UnlearnBatch, ...]]
"""(table of each step `[T]`, its row there `[T]`, the tables)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Listed:
    """The batches of a schedule, made by `listed`; table and row are `[epochs, T]`."""

    table: Array
    row: Array
    tables: tuple[UnlearnBatch, ...]

    @property
    def steps(self) -> int:
        """Steps of an epoch, T."""
        return self.table.shape[-1]

    @property
    def epochs(self) -> int:
        """How many epochs there are."""
        return self.table.shape[-2]

    @property
    def ids(self) -> list[Array]:
        """Arrays of all the ids that are read."""
        return [b.index for t in self.tables for b in t if b is not None]  # type: ignore

    def epoch(self, number: Array) -> Epoch:
        """Return the batches of an epoch."""
        return self.table[number], self.row[number], self.tables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
    """Batches shuffled on the device, made by `drawn`: sets of ids, and a key.

    The sizes are those of the forget, retain and reference batches.
    """

    forget: Array | None
    retain: Array | None
    reference: Array | None
    key: Array
    sizes: tuple[int, int, int] = dataclasses.field(metadata={"static": True})
    in_turn: bool = dataclasses.field(metadata={"static": True})
    epochs = None  # without end

    @property
    def ids(self) -> list[Array]:
        """Arrays of all the ids that are read."""
        sets = self.forget, self.retain, self.reference
        return [ids for ids in sets if ids is not None]

    @property
    def steps(self) -> int:
        """Steps of an epoch, T."""
        return sum(self._counts)

    @property
    def _counts(self) -> list[int]:
        """Return the steps that read each table."""
        pairs = zip((self.forget, self.retain), self.sizes, strict=False)
        forget, retain = (_length(ids, size) for ids, size in pairs)
        return [forget, retain] if self.in_turn else [retain or forget]

    def epoch(self, number: Array) -> Epoch:
        """Draw the batches of an epoch."""
        counts, steps = self._counts, self.steps
        each = counts if self.in_turn else 2 * counts
        keys = [jax.random.fold_in(self.key, use) for use in range(REFERENCE + 1)]
        forget, retain = (
            _drawn(keys[use], ids, self.sizes[use], number, each[use])
            for use, ids in ((FORGET, self.forget), (RETAIN, self.retain))
        )
        unseen = self._unseen(keys[REFERENCE], number * steps)
        tables = UnlearnBatch(forget, None, unseen), UnlearnBatch(None, retain, unseen)
        if not self.in_turn:
            tables = (UnlearnBatch(forget, retain, unseen),)
        table = np.repeat(np.arange(len(tables)), counts)
        row = np.concatenate([np.arange(n) for n in counts])
        return jnp.asarray(table, jnp.int32), jnp.asarray(row, jnp.int32), tables

    def _unseen(self, key: Array, first: Array) -> Batch | None:
        ids, size = self.reference, self.sizes[REFERENCE]
        if ids is None or size == ids.shape[0]:
            return None if ids is None else _rows(ids[None])

        def draw(step: Array) -> Array:
            return jax.random.permutation(jax.random.fold_in(key, step), ids)[:size]

        steps = first + jnp.arange(self.steps, dtype=jnp.int32)
        return _rows(jax.vmap(draw)(steps))


Feed = Listed | Drawn

ORDER = jax.jit(lambda feed, number: feed.epoch(number))
"""`feed.epoch(number)`, compiled for those who look at it from outside."""


def listed(
    schedule: Schedule[UnlearnBatch], examples: Examples, *, epochs: int = 1
) -> Listed:
    """Return the batches of a schedule as ids on the device: those of `ju.run`.

    Any schedule of rows of the examples: of `ju.data`, or of a card's job. A reference
    batch that all steps share is held once.

    Args:
      schedule: T·E steps, of any forms.
      examples: those it was made of; few of their inputs are read.
      epochs: E, the equal parts by which a run may stop and reports its losses.

    Raises:
      InputError: steps that are no multiple of `epochs`; batches that are not rows of
        the examples (noise, changed labels), or lack `index`.

    Source: our choice.

    >>> import jax_unlearn as ju
    >>> examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    >>> options = dict(batch_size=4, epochs=3)
    >>> schedule = ju.data.sequential(examples, [0], range(1, 9), **options)
    >>> feed = listed(schedule, examples, epochs=3)
    >>> feed.steps, feed.table[0].tolist()  # a forget pass, then two retain batches
    (3, [0, 1, 1])
    """
    if len(schedule) % positive_integer("epochs", epochs):
        raise InputError(
            f"{len(schedule)} steps are no multiple of epochs={epochs}; give epochs=1"
        )
    tables: dict[Any, list[UnlearnBatch]] = {}
    places, new = [], []
    with without_inputs():
        for step in schedule:
            rows = UnlearnBatch(*(part and _listed(part, examples) for part in step))
            structure, leaves = form(rows)
            own = tables.setdefault((structure, *leaves), [])
            if not own:
                new.append(schedule.start + len(places))
            places.append((list(tables).index((structure, *leaves)), len(own)))
            own.append(rows)
    for step in new:
        _check_inputs(schedule[step], examples)
    table, row = jnp.array(places, jnp.int32).reshape(epochs, -1, 2).transpose(2, 0, 1)
    joined = (
        jax.tree.map(lambda *each: np.stack(each), *own) for own in tables.values()
    )
    found = tuple(each._replace(reference=_once(each.reference)) for each in joined)
    return jax.tree.map(jnp.asarray, Listed(table, row, found))


def drawn(
    forget: ArrayLike | None = None,
    retain: ArrayLike | None = None,
    *,
    batch_size: int,
    forget_batch_size: int | None = None,
    order: str = "zipped",
    reference: ArrayLike | None = None,
    reference_size: int | None = None,
    seed: int = 0,
) -> Drawn:
    """Return batches that the program draws itself, each pass in an order of its own.

    The schedules of `ju.data`, without a host; the orders are others. An epoch is a
    pass over the retain samples, or over the forget samples where there are no others.

    Args:
      forget: ids of the forget samples, which may be sets of their own in each model.
      retain: ids of the retain samples.
      batch_size: B; smaller sets make smaller batches. The last batch of a pass is
        filled up with other samples of the set, masked out.
      forget_batch_size: of the forget samples, where it is another.
      order: "zipped": both batches in each step, over the forget set as often as it
        takes; "sequential": a forget pass, then a retain pass.
      reference: ids of the unseen set, given with every step.
      reference_size: give that many random ones of them instead.
      seed: of the shuffles.

    Raises:
      InputError: no set, an empty one, negative ids, a number that is not positive, or
        an unknown order.

    Source: our choice.

    >>> feed = drawn([0, 1], range(2, 9), batch_size=4)
    >>> _, _, (table,) = feed.epoch(jnp.int32(0))
    >>> sorted(table.retain.index[table.retain.mask].tolist()), table.forget.index.shape
    ([2, 3, 4, 5, 6, 7, 8], (2, 2))
    """
    _validate.choice("order", order, "zipped", "sequential")
    check_seed(seed)
    wanted = forget_batch_size or batch_size, batch_size, reference_size or 2**31
    names = ("forget_batch_size", "batch_size", "reference_size")
    sets, sizes = [], []
    for ids, size, name in zip((forget, retain, reference), wanted, names, strict=True):
        array = None if ids is None else np.asarray(ids)
        if array is not None and (array.ndim != 1 or not array.size or array.min() < 0):
            raise InputError(f"ids of shape {array.shape}: give a list of sample ids")
        sets.append(None if array is None else jnp.asarray(array, jnp.int32))
        size = positive_integer(name, size)
        sizes.append(size if array is None else min(size, array.size))
    if forget is None and retain is None:
        raise InputError("forget=None, retain=None: give ids of at least one set")
    in_turn = order == "sequential" and forget is not None and retain is not None
    return Drawn(*sets, jax.random.key(seed), tuple(sizes), in_turn)  # type: ignore


def batches(
    feed: Feed, examples: Examples, *, epochs: int, start: int = 0
) -> Iterator[UnlearnBatch]:
    """Yield the batches of one model's feed, inputs and all, for `ju.run`.

    >>> examples = Examples(np.arange(3), np.zeros(3, np.int32))
    >>> feed = drawn(retain=[0, 1], batch_size=2)
    >>> [sorted(b.retain.inputs.tolist()) for b in batches(feed, examples, epochs=2)]
    [[0, 1], [0, 1]]
    """
    for number in range(start, start + epochs):
        table, rows, tables = ORDER(feed, jnp.int32(number))
        for which, row in zip(table.tolist(), rows.tolist(), strict=True):
            yield gather(tables[which], row, examples)


def gather(table: UnlearnBatch, row: Any, examples: Examples) -> UnlearnBatch:
    """Return the batches of one row of a table, with inputs and labels.

    >>> table = UnlearnBatch(retain=Batch(None, None, jnp.array([[0], [2]])))
    >>> examples = Examples(jnp.arange(3) * 10, jnp.arange(3))
    >>> gather(table, 1, examples).retain.inputs.tolist()
    [20]
    """

    def whole(batch: Batch | None) -> Batch | None:
        if batch is None:
            return None
        index, mask = jax.tree.map(
            lambda leaf: leaf[row if leaf.shape[0] > 1 else 0],
            (batch.index, batch.mask),
        )
        inputs, labels = jax.tree.map(
            lambda leaf: jnp.take(leaf, index, axis=0, mode="clip"), tuple(examples)
        )
        return Batch(inputs, labels, index, mask)

    return UnlearnBatch(*map(whole, table))


def rows_of(ids: Array, size: int) -> Array:
    """Return the ids as rows `[⌈n / size⌉, size]`, the last filled up from the first.

    >>> rows_of(jnp.array([5, 6, 7]), 2).tolist()
    [[5, 6], [7, 5]]
    """
    return jnp.resize(ids, (_length(ids, size), size))


def _rows(index: Any, mask: Any = None) -> Batch:
    """Return batches that lack inputs and labels until they are gathered."""
    return Batch(None, None, index, mask)  # type: ignore


def _length(ids: Array | None, size: int) -> int:
    """Return the batches of a pass, 0 where there is no set."""
    return 0 if ids is None else -(-ids.shape[-1] // size)


def _drawn(
    key: Array, ids: Array | None, size: int, epoch: Array, steps: int
) -> Batch | None:
    """Return the batches of an epoch's steps, of pass after pass over the ids."""
    if ids is None:
        return None
    length = _length(ids, size)
    passes = 1 if steps == length else (steps + length - 2) // length + 1
    first = epoch * steps
    numbers = first // length + jnp.arange(passes, dtype=jnp.int32)

    def shuffle(number: Array) -> Array:
        order = jax.random.permutation(jax.random.fold_in(key, number), ids)
        return rows_of(order, size)

    real = np.arange(length * size).reshape(length, size) < ids.shape[0]
    tables = jax.vmap(shuffle)(numbers).reshape(-1, size), np.tile(real, (passes, 1))
    index, mask = (
        jax.lax.dynamic_slice_in_dim(jnp.asarray(each), first % length, steps)
        for each in tables
    )
    return _rows(index, mask)


def _listed(part: Batch, examples: Examples) -> Batch:
    """Return the ids and the mask of a batch, without what they tell."""
    if part.index is None:
        raise InputError("a batch without index cannot be listed; see ju.data.take")
    index = np.asarray(part.index, np.int32)
    if not np.array_equal(np.asarray(examples.labels)[index], part.labels):
        raise InputError("labels of a batch are not those of the examples by its index")
    return _rows(index, None if part.mask is None else np.asarray(part.mask))


def _check_inputs(step: UnlearnBatch, examples: Examples) -> None:
    """Refuse inputs that are not the examples' own."""
    for part in step:
        if part is None:
            continue
        own = jax.tree.map(lambda leaf, i=part.index: leaf[i], examples.inputs)
        if not jax.tree.all(jax.tree.map(np.array_equal, own, part.inputs)):
            raise InputError(
                "inputs of a batch are not those of the examples by its index; a "
                "method that makes inputs (noise) runs by ju.run"
            )


def _once(reference: Batch | None) -> Batch | None:
    """Return the one row of a table whose rows are all alike."""
    if reference is None or not (reference.index == reference.index[:1]).all():  # type: ignore
        return reference
    return jax.tree.map(lambda leaf: leaf[:1], reference)
