"""Drivers: run an unlearner over batches, by a Python loop or by scan."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import programs, types
from jax_unlearn.averages import with_average
from jax_unlearn.contracts import (
    check_form,
    forward_pass,
    known_labels,
    known_reference,
)
from jax_unlearn.drivers import sharding
from jax_unlearn.drivers.stacking import copied, form
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.leaves import apart, put_back
from jax_unlearn.optimizers import skipped
from jax_unlearn.types import UnlearnBatch, Unlearner, UnlearnInfo, UnlearnState

__all__ = ["Callback", "predict", "run", "scan_steps"]

Callback = Callable[[int, UnlearnState, UnlearnInfo], UnlearnState | None]
"""`(steps done, state, info of the last step)`; the state is gone after the call.

What it returns, if not None, ends the run and is its result: the state itself, to stop
there, or an earlier one that the callback has kept a copy of, to roll back.
"""


def run(
    unlearner: Unlearner,
    state: UnlearnState,
    batches: Iterable[UnlearnBatch],
    key: types.Array,
    *,
    callback: Callback | None = None,
    scan: int | None = None,
    check_every: int = 50,
    ema: float | None = None,
) -> UnlearnState:
    """Run an unlearner over batches; return the state after the last.

    Every step is compiled once per batch structure and uses the key
    `fold_in(key, state.step)`, so a run resumed from a state with the batches that are
    left is the uninterrupted run. The caller's state is copied, never donated; what is
    frozen in it (`ju.trainable`) is neither.

    Args:
      unlearner: from `ju.methods` or your own.
      state: from `unlearner.init`.
      batches: any iterable; a `ju.data` schedule, for example.
      key: of the whole run.
      callback: called after each step, or after each chunk under scan; may end the
        run with another state, see `Callback`.
      scan: steps compiled into one program; default 1 on CPU (a convolution inside a
        loop is slow there), 32 on accelerators. A chunk ends early where the structure
        or the shapes of the batches change.
      check_every: how often, in steps, losses and updates are looked at.
      ema: decay of a moving average of the parameters, which follows every step,
        chunks or not, and goes on with a state that has one: see `ju.averaged`.
        `ju.ema_of(state)` reads it.

    Raises:
      InputError: `scan` below 1; `ema` outside [0, 1).
      NonFiniteError: a loss or an update turned NaN or infinite; names the step and
        its classes. A step that the optimizer itself left out, by
        `optax.apply_if_finite`, is none.

    >>> import optax
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = ju.methods.gradient_ascent(model, optax.sgd(1.0))
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> batches = [ju.UnlearnBatch(forget)] * 2
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> print(ju.run(alg, state, batches, jax.random.key(0)).step)
    2
    """
    chunk = (1 if jax.default_backend() == "cpu" else 32) if scan is None else scan
    if chunk < 1:
        raise InputError(f"scan={scan}: compile 1 or more steps into one program")
    unlearner, state = with_average(unlearner, state, ema)
    step = sharding.in_place(unlearner.step, state)
    first = int(state.step)
    state, frozen = apart(copied(state))
    losses: list[types.Array] = []
    labels: list[list[types.Array]] = []
    seen = checked = 0

    def check() -> None:
        values = [np.reshape(loss, -1) for loss in sharding.fetch(losses)]
        finite = np.isfinite(np.concatenate(values))
        if not finite.all():
            at = int(np.argmin(finite))
            broken, classes = first + seen - len(finite) + at, _classes(labels[at])
            raise NonFiniteError(
                f"the loss or the update{classes} is not finite at step {broken}",
                broken,
            )
        losses.clear()
        labels.clear()

    for group in _chunks(map(_formed, batches), chunk):
        # steps are traced at the first batch: no later one is fetched for its labels
        with contextlib.nullcontext() if seen else known_reference(group[0]):
            if len(group) == 1:
                state, info, loss = _step(step, state, frozen, group[0], key)
            else:
                stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *group)
                state, info, loss = _scan(step, state, frozen, stacked, key)
        seen += len(group)
        losses.append(loss)
        labels += [[part.labels for part in batch[:2] if part] for batch in group]
        if callback is not None:
            whole = put_back(state, frozen)
            ended = callback(first + seen, whole, info)
            if ended is whole:
                break
            if ended is not None:
                return ended  # rolled back: what came after it does not count
        if seen - checked >= check_every:
            check()
            checked = seen
    if losses:
        check()
    return put_back(state, frozen)


def scan_steps(
    unlearner: Unlearner,
    state: UnlearnState,
    batches: UnlearnBatch,
    key: types.Array,
    *,
    ema: float | None = None,
) -> tuple[UnlearnState, UnlearnInfo]:
    """Run T steps as one `lax.scan`: the same steps as `run`, in one program.

    Not compiled here: call it inside `jax.jit`, `jax.vmap` over seeds or settings, …
    The leaves of the batches have a leading axis T, those of the infos returned too.
    `ema` is that of `run`. Nothing here looks at losses, as `run` does: what is not
    finite stands in the infos.

    Raises:
      InputError: a label that is no class of the model, where the batches have values:
        not as arguments of `jax.jit`, for which `ju.check_batch` is.

    >>> import optax
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = ju.methods.gradient_ascent(model, optax.sgd(1.0))
    >>> forget = ju.Batch(jnp.array([[[1.0, 0.0]]] * 3), jnp.array([[0]] * 3))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, infos = scan_steps(alg, state, UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.step, infos.forget_loss.shape)
    3 (3,)
    """
    check_form(jax.tree.map(_first, batches))
    unlearner, state = with_average(unlearner, state, ema)
    rest, frozen = apart(state)  # not carried: a loop would hold it twice

    def body(rest: UnlearnState, batch: UnlearnBatch):
        own = jax.random.fold_in(key, rest.step)
        new, info = unlearner.step(put_back(rest, frozen), batch, own)
        return apart(new)[0], info

    with known_labels(batches), known_reference(batches):
        rest, infos = jax.lax.scan(body, rest, batches)
    return put_back(rest, frozen), infos


def predict(
    model: types.Model,
    params: types.Params,
    model_state: types.ModelState,
    inputs: types.PyTree,
    *,
    batch_size: int = 1024,
) -> np.ndarray:
    """Return the outputs `[N, ...]` of the model in eval mode, on the host.

    The inputs are a pytree of arrays `[N, ...]`; at most `batch_size` samples make a
    pass, and the last pass is padded.

    Raises:
      InputError: no samples, or `batch_size` below 1.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> predict(model, jnp.float32(2.0), (), np.ones((3, 1), np.float32), batch_size=2)
    array([[2.],
           [2.],
           [2.]], dtype=float32)
    """
    total = jax.tree.leaves(inputs)[0].shape[0]
    if total < 1 or batch_size < 1:
        raise InputError(
            f"inputs hold {total} samples, batch_size={batch_size}: give 1 or more"
        )
    parts = []
    for rows in programs.pieces(total, min(batch_size, total)):
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], inputs)
        parts.append(_forward(model.apply, params, model_state, part))

    def joined(*leaves: np.ndarray) -> np.ndarray:
        return np.concatenate(leaves)[:total]

    return jax.tree.map(joined, *sharding.fetch(parts))


def _chunks(batches: Iterable[UnlearnBatch], size: int) -> Iterator[list[UnlearnBatch]]:
    """Group consecutive batches of equal structure and shapes, `size` at most."""
    if size == 1:
        yield from ([batch] for batch in batches)
        return
    for _, alike in itertools.groupby(batches, key=form):
        while group := list(itertools.islice(alike, size)):
            yield group


def _formed(batch: UnlearnBatch) -> UnlearnBatch:
    """Return the batch, if its form is right: on the host the message is ours."""
    check_form(batch)
    return batch


def _first(leaf: Any) -> Any:
    """Return the form of a leaf of the first step, or a leaf that has no steps."""
    shape = getattr(leaf, "shape", None)
    return SimpleNamespace(shape=shape[1:], dtype=leaf.dtype) if shape else leaf


def _classes(labels: Sequence[types.Array]) -> str:
    """Say which classes a step had: one that the model lacks has no loss."""
    known = [part for part in labels if jnp.issubdtype(part.dtype, jnp.integer)]
    if not known:
        return ""
    found = np.concatenate([np.ravel(part) for part in sharding.fetch(known)])
    low, high = found.min(), found.max()
    return f", of labels {low} to {high} (K classes are 0 to K - 1),"


@programs.jit(static_argnums=0, donate_argnums=1)
def _step(step, state, frozen, batch, key):
    own = jax.random.fold_in(key, state.step)
    return _watched(*step(put_back(state, frozen), batch, own))


@programs.jit(static_argnums=0, donate_argnums=1)
def _scan(step, state, frozen, batches, key):
    def body(rest, batch):
        own = jax.random.fold_in(key, rest.step)
        rest, *seen = _watched(*step(put_back(rest, frozen), batch, own))
        return rest, seen

    state, (infos, losses) = jax.lax.scan(body, state, batches)
    return state, infos, losses


def _watched(state, info):
    """Add what is not finite as soon as anything is: an operation less for the host."""
    return apart(state)[0], info, watched(state, info)


def watched(state: UnlearnState, info: UnlearnInfo) -> types.Array:
    """Return a number that is not finite where a step went wrong.

    A step that the optimizer left out for what was not finite has not.
    """
    total = info.forget_loss + info.retain_loss + info.update_norm
    left_out = skipped(state.opt_state)
    return total if left_out is None else jnp.where(left_out, info.update_norm, total)


@programs.jit(static_argnums=0)
def _forward(apply, params, model_state, inputs):
    return forward_pass(apply, params, model_state, inputs, train=False)[0]
