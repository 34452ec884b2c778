"""Runs that live on the device: the data too, whole epochs and models one program.

The samples are an argument of the program, bytes where they are bytes; batches are rows
of ids, gathered inside. One `lax.scan` goes over the epochs and one over their steps,
`lax.map` over models, one after the other: `vmap` over models would make convolutions
grouped ones, slow in their gradients on every device. Augmentation and normalisation
are those of the model (`ju.data.with_preprocessing`), in the same program.

Shapes: S models, E epochs of T steps, N samples. What belongs to a model (its state,
feed and key) has a leading axis S, made by `ju.stack`.
"""

import contextvars
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import programs
from jax_unlearn.contracts import check_form
from jax_unlearn.data.batches import Schedule, without_inputs
from jax_unlearn.data.checks import positive_integer
from jax_unlearn.data.sources import Examples
from jax_unlearn.drivers.stacking import copied, form, models_in, stack
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.optimizers import skipped
from jax_unlearn.types import Array, Batch, UnlearnBatch, Unlearner, UnlearnState

__all__ = ["Listed", "Ready", "Report", "compiling", "listed", "place", "program"]
__all__ += ["run"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Listed:
    """The batches of a schedule, made by `listed`, as ids on the device.

    Attributes:
      table, row: by epoch and step `i32[E, T]`, which table and which row of it.
      tables: one for each form of batches, leaves `[rows, B]`: ids and masks.
    """

    table: Array
    row: Array
    tables: tuple[UnlearnBatch, ...]

    @property
    def steps(self) -> int:
        """Steps of an epoch, T."""
        return self.table.shape[-1]


class Report(NamedTuple):
    """Means over the steps of each epoch, `f32[S, E]`; 0 where no step had such a loss.

    Attributes:
      forget_loss, retain_loss: over the steps that had such a batch.
      update_norm: L2 norm of the update.
    """

    forget_loss: Array
    retain_loss: Array
    update_norm: Array


class Ready(NamedTuple):
    """A compiled program, and the seconds that tracing and compiling took."""

    call: jax.stages.Compiled
    traced: float
    compiled: float


def place(examples: Examples) -> Examples:
    """Return the samples on the device: inputs as they are, labels as `i32[N]`.

    >>> place(Examples(np.zeros((2, 1), np.uint8), np.arange(2))).labels.dtype
    dtype('int32')
    """
    labels = np.asarray(examples.labels)
    check_form(Batch(examples.inputs, labels))  # type: ignore
    if labels.dtype.kind not in "iu":
        raise InputError(f"labels of type {labels.dtype} must be integers, classes")
    inputs = jax.tree.map(jnp.asarray, examples.inputs)
    return Examples(inputs, jnp.asarray(examples.labels, jnp.int32))  # type: ignore


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
    places = []
    for step in range(schedule.start, schedule.steps):
        with without_inputs():
            batch = schedule[step]
        rows = UnlearnBatch(*(part and _listed(part, examples) for part in batch))
        structure, leaves = form(rows)
        own = tables.setdefault((structure, *leaves), [])
        if not own:
            _check_inputs(schedule[step], examples)
        places.append((list(tables).index((structure, *leaves)), len(own)))
        own.append(rows)
    table, row = jnp.array(places, jnp.int32).reshape(epochs, -1, 2).transpose(2, 0, 1)
    found = []
    for joined in map(stack, tables.values()):
        unseen = joined.reference
        if unseen is not None and (unseen.index == unseen.index[:1]).all():
            once = jax.tree.map(lambda leaf: leaf[:1], unseen)
            joined = joined._replace(reference=once)
        found.append(joined)
    return jax.tree.map(jnp.asarray, Listed(table, row, tuple(found)))


def run(
    unlearner: Unlearner,
    states: UnlearnState,
    examples: Examples,
    feeds: Listed,
    keys: Array,
    *,
    epochs: int,
) -> tuple[UnlearnState, Report]:
    """Run S models over E epochs each, one after the other; return states and losses.

    Model i gets what `ju.run` gives it on the batches of its feed, up to rounding: at
    each step the key `fold_in(keys[i], step)`. The epoch of a feed is that of the
    state's step, so that E epochs and E more are 2E. The caller's states are copied.

    Args:
      unlearner: from `ju.methods`, a card's job, or your own; what distinguishes the
        models must travel in their states.
      states: of `unlearner.init`, joined by `ju.stack`; after whole epochs.
      examples: from `place`.
      feeds: of `listed`, joined by `ju.stack`.
      keys: of the runs, `[S]`.
      epochs: E.

    Raises:
      InputError: S of the arguments disagree; states within an epoch; a feed that
        ends before.
      NonFiniteError: a loss or an update turned NaN or infinite; names model and epoch.

    Source: our choice.

    >>> import optax
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: jnp.float32(2), jnp.multiply)
    >>> alg = ju.methods.finetune(model, optax.sgd(1.0))
    >>> examples = place(Examples(np.eye(2, dtype=np.float32), np.arange(2)))
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> options = dict(batch_size=1, epochs=3)
    >>> schedule = ju.data.retain_only(examples, [0, 1], **options)
    >>> feeds = ju.stack([listed(schedule, examples, epochs=3)] * 2)
    >>> states = ju.stack([alg.init(jnp.float32(w), ()) for w in (0.0, 2.0)])
    >>> states, report = run(alg, states, examples, feeds, keys, epochs=3)
    >>> states.step.tolist(), report.retain_loss.shape
    ([6, 6], (2, 3))
    """
    count = models_in((states, feeds))
    if len(keys) != count:
        raise InputError(
            f"{len(keys)} keys for {count} models: give one of each, joined by ju.stack"
        )
    done = np.asarray(states.step)
    if (done % feeds.steps).any():
        raise InputError(
            f"states of {done.tolist()} steps are not all at the end of an epoch of "
            f"{feeds.steps}; go on by ju.run to there"
        )
    first = done // feeds.steps
    if first.max() + epochs > feeds.table.shape[-2]:
        raise InputError(
            f"epochs={epochs} after {first.max()} is more than the "
            f"{feeds.table.shape[-2]} epochs of the feed; list a longer schedule"
        )
    parts = [part.index for table in feeds.tables for part in table if part is not None]
    last, total = max(int(ids.max()) for ids in parts), len(examples.labels)  # type: ignore
    if last >= total:
        raise InputError(f"id {last} of the feed is not one of the {total} samples")
    states, report = program(unlearner, epochs=epochs)(
        copied(states, frozen=True), examples, feeds, keys
    )
    finite = np.isfinite(np.asarray(sum(report)))
    if not finite.all():
        which, epoch = (int(i) for i in np.argwhere(~finite)[0])
        epoch += int(first[which])
        raise NonFiniteError(
            f"the loss or the update of model {which} is not finite in epoch {epoch}",
            epoch * feeds.steps,
        )
    return states, report


def program(unlearner: Unlearner, *, epochs: int) -> programs.Program:
    """Return the compiled `(states, examples, feeds, keys) -> (states, Report)`.

    What `run` calls, without its checks: its `lower` compiles ahead, see `compiling`.
    It donates the states. One of each step and E is kept.

    Raises:
      InputError: `epochs` below 1.

    >>> import optax
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: jnp.float32(2), jnp.multiply)
    >>> alg = ju.methods.finetune(model, optax.sgd(1.0))
    >>> program(alg, epochs=2) is program(alg, epochs=2)
    True
    """
    if epochs < 1:
        raise InputError(f"epochs={epochs}: run 1 or more")
    return _program(unlearner.step, epochs)


@functools.lru_cache(maxsize=64)
def _program(step: Callable, epochs: int) -> programs.Program:
    def models(states, examples, feeds, keys):
        def one(each):
            state, feed, key = each
            advance = functools.partial(_epoch, step, examples, feed, key)
            return jax.lax.scan(advance, state, length=epochs)

        return jax.lax.map(one, (states, feeds, keys))

    return programs.jit(models, donate_argnums=0)


def _epoch(step, examples, feed, key, state, _) -> tuple[UnlearnState, Report]:
    """Run the steps of the epoch that the state is at."""
    number = state.step // feed.steps
    kinds, rows = feed.table[number], feed.row[number]

    def advance(table, state, row):
        batch = gather(table, row, examples)
        state, info = step(state, batch, jax.random.fold_in(key, state.step))
        found = Report(info.forget_loss, info.retain_loss, info.update_norm)
        if (left_out := skipped(state.opt_state)) is not None:  # counts as 0
            found = jax.tree.map(lambda x: jnp.where(left_out, 0.0, x), found)
        return state, found

    branches = [functools.partial(advance, table) for table in feed.tables]

    def body(state, at):
        return jax.lax.switch(at[0], branches, state, at[1])

    state, found = jax.lax.scan(body, state, (kinds, rows))

    def steps_with(place: int) -> Array:
        had = [table[place] is not None for table in feed.tables]
        return jnp.asarray(had, jnp.float32)[kinds].sum()

    counts = Report(steps_with(0), steps_with(1), jnp.float32(feed.steps))
    return state, jax.tree.map(lambda x, n: x.sum() / jnp.maximum(n, 1), found, counts)


def gather(table: UnlearnBatch, row: Any, examples: Examples) -> UnlearnBatch:
    """Return the batches of one row of a table, with inputs and labels."""

    def whole(batch: Batch | None) -> Batch | None:
        if batch is None:
            return None
        at = row if len(batch.index) > 1 else 0  # type: ignore
        index, mask = jax.tree.map(lambda leaf: leaf[at], (batch.index, batch.mask))
        inputs, labels = jax.tree.map(
            lambda leaf: jnp.take(leaf, index, axis=0, mode="clip"), tuple(examples)
        )
        return Batch(inputs, labels, index, mask)

    return UnlearnBatch(*map(whole, table))


def compiling(
    programs: Mapping[str, tuple[Any, tuple]], *, threads: int = 4
) -> dict[str, Future[Ready]]:
    """Trace and compile programs ahead, several at a time; return what is awaited.

    `result()` of one gives it, or raises what went wrong with it alone. Those named
    first are begun first, so that they can run while others are compiled.

    Args:
      programs: by name, a jitted function (`program`, `jax.jit`) and its arguments:
        arrays, or `jax.ShapeDtypeStruct`s in their place.
      threads: programs at a time. XLA compiles outside of Python's lock; tracing goes
        on one at a time.

    Source: our choice.

    >>> waiting = compiling({"double": (jax.jit(lambda x: 2 * x), (jnp.ones(2),))})
    >>> waiting["double"].result().call(jnp.ones(2)).tolist()
    [2.0, 2.0]
    """
    pool = ThreadPoolExecutor(threads)
    waiting = {}
    for name, asked in programs.items():
        own = functools.partial(_ready, *asked)  # with the options chosen here
        waiting[name] = pool.submit(contextvars.copy_context().run, own)
    pool.shutdown(wait=False)
    return waiting


def _ready(function: Any, args: tuple) -> Ready:
    begun = time.perf_counter()
    lowered = function.lower(*args)
    traced = time.perf_counter()
    compiled = lowered.compile()
    return Ready(compiled, traced - begun, time.perf_counter() - traced)


def _listed(part: Batch, examples: Examples) -> Batch:
    """Return the ids and the mask of a batch, without what they tell."""
    if part.index is None:
        raise InputError("a batch without index cannot be listed; see ju.data.take")
    index = np.asarray(part.index, np.int32)
    if not np.array_equal(np.asarray(examples.labels)[index], part.labels):
        raise InputError("labels of a batch are not those of the examples by its index")
    mask = None if part.mask is None else np.asarray(part.mask)
    return Batch(None, None, index, mask)  # type: ignore


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
