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
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import programs
from jax_unlearn.data.sources import Examples
from jax_unlearn.drivers.feeds import Drawn as Drawn
from jax_unlearn.drivers.feeds import Feed as Feed
from jax_unlearn.drivers.feeds import Listed as Listed
from jax_unlearn.drivers.feeds import batches as batches
from jax_unlearn.drivers.feeds import drawn as drawn
from jax_unlearn.drivers.feeds import gather, rows_of
from jax_unlearn.drivers.feeds import listed as listed
from jax_unlearn.drivers.stacking import copied, models_in
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.types import Array, Model, Unlearner, UnlearnState

__all__ = ["Drawn", "Feed", "Listed", "Ready", "Report", "batches", "compiled_together"]
__all__ += ["compiling", "drawn", "listed", "outputs", "place", "program", "run"]
__all__ += ["starts"]


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
    inputs = jax.tree.map(jnp.asarray, examples.inputs)
    return Examples(inputs, jnp.asarray(examples.labels, jnp.int32))  # type: ignore


def starts(
    unlearner: Unlearner, model: Model, keys: Array, examples: Examples
) -> UnlearnState:
    """Return the states of S fresh models, one a key of `[S]`.

    >>> import optax
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: jax.random.normal(key), jnp.multiply)
    >>> alg = ju.methods.finetune(model, optax.sgd(1.0))
    >>> examples = place(Examples(np.eye(2, dtype=np.float32), np.arange(2)))
    >>> starts(
    ...     alg, model, jax.random.split(jax.random.key(0), 3), examples
    ... ).params.shape
    (3,)
    """
    two = jax.tree.map(lambda leaf: leaf[:2], examples.inputs)
    return _starts(unlearner.init, model.init)(keys, two)


@functools.lru_cache(maxsize=64)
def _starts(begin: Callable, fresh: Callable) -> Callable:
    return jax.jit(
        lambda keys, two: jax.lax.map(lambda key: begin(*fresh(key, two)), keys)
    )


def run(
    unlearner: Unlearner,
    states: UnlearnState,
    examples: Examples,
    feeds: Feed,
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
      states: of `unlearner.init`, joined by `ju.stack`, or of `starts`; after whole
        epochs.
      examples: from `place`.
      feeds: of `drawn` or `listed`, joined by `ju.stack`.
      keys: of the runs, `[S]`.
      epochs: E.

    Raises:
      InputError: S of the arguments disagree; states within an epoch; a listed feed
        that ends before.
      NonFiniteError: a loss or an update turned NaN or infinite; names model and epoch.

    Source: our choice.

    >>> import optax
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: jnp.float32(2), jnp.multiply)
    >>> alg = ju.methods.finetune(model, optax.sgd(1.0))
    >>> examples = place(Examples(np.eye(2, dtype=np.float32), np.arange(2)))
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> feeds = ju.stack([drawn(retain=[0, 1], batch_size=1)] * 2)
    >>> states = starts(alg, model, keys, examples)
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
    if feeds.epochs is not None and first.max() + epochs > feeds.epochs:
        raise InputError(
            f"epochs={epochs} after {first.max()} is more than the {feeds.epochs} "
            "epochs of the feed; list a longer schedule"
        )
    last, total = max(int(ids.max()) for ids in feeds.ids), len(examples.labels)
    if last >= total:
        raise InputError(f"id {last} of the feed is not one of the {total} samples")
    states, report = program(unlearner, epochs=epochs)(
        copied(states), examples, feeds, keys
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

    What `run` calls, without its checks: its `lower` compiles ahead, see
    `compiled_together`. It donates the states. One of each step and E is kept.

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
    form, where, tables = feed.epoch(state.step // feed.steps)

    def advance(table, state, row):
        batch = gather(table, row, examples)
        state, info = step(state, batch, jax.random.fold_in(key, state.step))
        return state, Report(info.forget_loss, info.retain_loss, info.update_norm)

    branches = [functools.partial(advance, table) for table in tables]

    def body(state, at):
        kind, row = at
        if len(branches) == 1:  # no condition for the device to look at
            return branches[0](state, row)
        return jax.lax.switch(kind, branches, state, row)

    state, found = jax.lax.scan(body, state, (form, where))

    def steps_with(place: int) -> Array:
        had = [table[place] is not None for table in tables]
        return jnp.asarray(had, jnp.float32)[form].sum()

    counts = Report(steps_with(0), steps_with(1), jnp.float32(feed.steps))
    return state, jax.tree.map(lambda x, n: x.sum() / jnp.maximum(n, 1), found, counts)


@functools.lru_cache(maxsize=64)
def outputs(model: Model, *, batch_size: int = 1000) -> programs.Program:
    """Return the compiled outputs of S models for samples on the device, in eval mode.

    `(params [S, …], model_state [S, …], inputs [N, …], ids i32[n]) -> [S, n, …]`,
    `batch_size` samples a pass, the last one filled up.

    Raises:
      InputError: `batch_size` below 1.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: jnp.float32(2), jnp.multiply)
    >>> inputs, ids = jnp.arange(4.0), jnp.array([3, 0, 1])
    >>> outputs(model, batch_size=2)(jnp.array([1.0, 2.0]), (), inputs, ids).tolist()
    [[3.0, 0.0, 1.0], [6.0, 0.0, 2.0]]
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: give 1 or more")

    def models(params, model_state, inputs, ids):
        rows = rows_of(ids, min(batch_size, len(ids)))

        def one(variables):
            params, state = variables

            def forward(row):
                part = jax.tree.map(lambda leaf: leaf[row], inputs)
                return model.apply(params, state, part, train=False)[0]

            found = jax.lax.map(forward, rows)
            return found.reshape(-1, *found.shape[2:])[: len(ids)]

        return jax.lax.map(one, (params, model_state))

    return programs.jit(models)


def compiling(
    programs: Mapping[str, tuple[Any, tuple]], *, threads: int = 4
) -> dict[str, Future[Ready]]:
    """Trace and compile programs ahead, several at a time; return what is awaited.

    `result()` of one gives it, or raises what went wrong with it alone. Those named
    first are begun first, so that they can run while others are compiled.

    Args:
      programs: by name, a jitted function (`program`, `outputs`, `jax.jit`) and its
        arguments: arrays, or `jax.ShapeDtypeStruct`s in their place.
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


def compiled_together(
    programs: Mapping[str, tuple[Any, tuple]], *, threads: int = 4
) -> dict[str, Ready]:
    """Return programs compiled ahead, several at a time: `compiling`, all awaited.

    >>> ready = compiled_together({"sum": (jax.jit(jnp.sum), (jnp.ones(3),))})
    >>> float(ready["sum"].call(jnp.ones(3))), ready["sum"].compiled > 0
    (3.0, True)
    """
    waiting = compiling(programs, threads=threads)
    return {name: future.result() for name, future in waiting.items()}


def _ready(function: Any, args: tuple) -> Ready:
    begun = time.perf_counter()
    lowered = function.lower(*args)
    traced = time.perf_counter()
    compiled = lowered.compile()
    return Ready(compiled, traced - begun, time.perf_counter() - traced)
