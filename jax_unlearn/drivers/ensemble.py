"""Drivers of ensembles: N models trained or unlearned alike, as one program.

Shapes: N models, each leaf of a stacked pytree `[N, ...]`. Audits that compare
distributions (U-LiRA, KLoM, epsilon-forgetting) need many models of one request; small
models leave most of an accelerator idle, and most of a CPU's time to the dispatch.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jax_unlearn import programs, types
from jax_unlearn.contracts import check_form
from jax_unlearn.drivers.loop import watched
from jax_unlearn.drivers.sharding import automatic
from jax_unlearn.drivers.stacking import copied
from jax_unlearn.drivers.stacking import models_in as models_in
from jax_unlearn.drivers.stacking import stack as stack
from jax_unlearn.drivers.stacking import unstack as unstack
from jax_unlearn.errors import InputError, NonFiniteError, unknown_name
from jax_unlearn.types import UnlearnBatch, Unlearner, UnlearnInfo, UnlearnState

__all__ = ["AXIS", "HOWS", "EnsembleCallback", "local_mesh", "models_in"]
__all__ += ["run_ensemble", "stack", "step_seconds", "unstack"]

AXIS = "ensemble"
HOWS = ("vmap", "map", "loop")


class _Way(NamedTuple):
    """What a program of an ensemble depends on: the step, how it is run, and where."""

    step: Callable
    how: str
    mesh: Mesh | None = None


EnsembleCallback = Callable[[int, UnlearnState, UnlearnInfo], None]
"""`(steps done, states, infos of the last step)`, stacked; gone after the call."""


def run_ensemble(
    unlearner: Unlearner,
    states: UnlearnState,
    schedules: Sequence[Iterable[UnlearnBatch]],
    keys: types.Array,
    *,
    how: str = "auto",
    mesh: Mesh | None = None,
    check_every: int = 50,
    callback: EnsembleCallback | None = None,
) -> UnlearnState:
    """Run an unlearner on N models, each over its own batches; return their states.

    Model i gets what `run(unlearner, states[i], schedules[i], keys[i])` gives it, up to
    rounding: the same batches and, at each step, the key `fold_in(keys[i], step)`. The
    batches of a step are stacked on the host when it is their turn, so that no more
    than one step of them is held. The caller's states are copied, never donated; those
    returned are stacked.

    Args:
      unlearner: from `ju.methods` or your own; its step serves all models, so what
        distinguishes them must travel in their states.
      states: of `unlearner.init`, one a model, joined by `stack`.
      schedules: N iterables of equal length, of batches of equal form at each step;
        `ju.data` schedules, for example.
      keys: of the whole run, one a model, `[N]`.
      how: "vmap": one vectorised program; "map": one program, model after model inside
        it; "loop": a program for one model, called N times a step; "auto": what is
        fastest in the first two steps. On CPUs, vmap suits matrix products, and makes
        of convolutions grouped ones, slow there.
      mesh: devices to spread the models over, along an axis "ensemble" whose size
        divides N; each device runs its own models, none talks to another.
      check_every: how often, in steps, losses and updates are looked at.
      callback: called after each step.

    Raises:
      InputError: unknown `how`; N of the arguments disagree; schedules of different
        length or batches of different form; a mesh that does not fit.
      NonFiniteError: a loss or an update turned NaN or infinite; names the model and
        the step.

    >>> import optax, jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = ju.methods.gradient_ascent(model, optax.sgd(1.0))
    >>> states = stack([alg.init(jnp.float32(w), ()) for w in (0.0, 2.0)])
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> schedules = [[ju.UnlearnBatch(forget)] * 3] * 2
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> states = run_ensemble(alg, states, schedules, keys, how="vmap")
    >>> states.step.tolist(), states.params.shape
    ([3, 3], (2,))
    """
    _check(states, schedules, keys)
    mesh = _check_way(how, mesh, len(keys))
    steps = _steps(schedules)
    if how == "auto":
        head = list(itertools.islice(steps, 2))
        steps = itertools.chain(head, steps)
        ways = [_Way(unlearner.step, name, mesh) for name in HOWS]
        ways = [way for way in ways if mesh is None or way.how != "loop"]
        times = [_seconds(way, states, head, keys) for way in ways] if head else [0.0]
        way = ways[int(np.argmin(times))]
    else:
        way = _Way(unlearner.step, how, mesh)
    first = np.asarray(states.step)
    carried, own = _begin(way, states, keys)
    losses: list[Any] = []
    seen = 0

    def check() -> None:
        finite = np.isfinite(np.asarray(jax.device_get(losses)))
        if not finite.all():
            row, which = (int(i) for i in np.argwhere(~finite)[0])
            step = int(first[which]) + seen - len(losses) + row
            raise NonFiniteError(
                f"the loss or the update of model {which} is not finite at step {step}",
                step,
            )
        losses.clear()

    for batches in steps:
        carried, infos = _advance(way, carried, batches, own)
        seen += 1
        losses.append(_loss(carried, infos))
        if len(losses) >= check_every:
            check()
        if callback is not None:
            callback(int(first[0]) + seen, _joined(carried), _joined(infos))
    if losses:
        check()
    return _joined(carried)


def step_seconds(
    unlearner: Unlearner,
    states: UnlearnState,
    schedules: Sequence[Iterable[UnlearnBatch]],
    keys: types.Array,
    *,
    hows: Sequence[str] = HOWS,
    mesh: Mesh | None = None,
    repeats: int = 3,
) -> dict[str, float]:
    """Measure a step of all N models each way, compilation left out.

    Every batch given is a step that is measured, so give a few, of all forms: the
    programs compiled here are those that `run_ensemble` runs. Its arguments are taken
    alike; states are copied. Each step is measured `repeats` times, the fastest counts;
    the mean over the batches given, in seconds, is returned by way ("vmap", "map",
    "loop").

    Raises:
      InputError: as `run_ensemble`; no batches, or `repeats` below 1.

    >>> import optax, jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = ju.methods.gradient_ascent(model, optax.sgd(1.0))
    >>> states = stack([alg.init(jnp.float32(2.0), ())] * 2)
    >>> batch = ju.UnlearnBatch(ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0])))
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> found = step_seconds(alg, states, [[batch]] * 2, keys, hows=["vmap", "loop"])
    >>> sorted(found), found["vmap"] > 0
    (['loop', 'vmap'], True)
    """
    _check(states, schedules, keys)
    ways = [_Way(unlearner.step, h, _check_way(h, mesh, len(keys))) for h in hows]
    steps = list(_steps(schedules))
    if not steps or repeats < 1:
        raise InputError(
            f"{len(steps)} steps measured repeats={repeats} times: give 1 or more"
        )
    return {
        way.how: _seconds(way, states, steps, keys, repeats=repeats) for way in ways
    }


def local_mesh(count: int) -> Mesh | None:
    """Return a mesh of this process's devices, None if N models make it uneven."""
    devices = jax.local_devices()
    if len(devices) == 1 or count % len(devices):
        return None
    return Mesh(np.array(devices), (AXIS,))


def _check(states: UnlearnState, schedules: Sequence, keys: types.Array) -> None:
    count = models_in(states)
    if not count == len(schedules) == len(keys):
        raise InputError(
            f"{count} states, {len(schedules)} schedules, {len(keys)} keys: give one "
            "of each for every model"
        )


def _check_way(how: str, mesh: Mesh | None, count: int) -> Mesh | None:
    """Return the mesh to use, if it suits the way and the number of models."""
    if how not in ("auto", *HOWS):
        raise unknown_name("how", how, ("auto", *HOWS))
    if mesh is None:
        return None
    if AXIS not in mesh.axis_names or how == "loop":
        raise InputError(
            f"how={how!r} on a mesh of axes {mesh.axis_names}: name an axis {AXIS!r} "
            "and use vmap or map"
        )
    if count % mesh.shape[AXIS]:
        raise InputError(
            f"{count} models on {mesh.shape[AXIS]} devices: give a multiple, or a mesh "
            "of fewer devices"
        )
    return automatic(mesh)


def _steps(
    schedules: Sequence[Iterable[UnlearnBatch]],
) -> Iterator[tuple[UnlearnBatch, ...]]:
    """Yield the batches of all models, step by step."""
    for step, batches in enumerate(itertools.zip_longest(*schedules)):
        if None in batches:
            raise InputError(
                f"schedule {batches.index(None)} has {step} steps, others have more; "
                "give schedules of one length"
            )
        for batch in batches:
            check_form(batch)
        yield batches


def _seconds(way: _Way, states, steps, keys, *, repeats: int = 2) -> float:
    """Return the seconds of a step of all models, the mean over the steps given."""
    carried, own = _begin(way, states, keys)
    times = np.full((len(steps), 1 + repeats), np.inf)
    for place, batches in enumerate(steps):
        for turn in range(1 + repeats):
            start = time.perf_counter()
            carried, _ = _advance(way, carried, batches, own)
            jax.block_until_ready(carried)
            times[place, turn] = time.perf_counter() - start
    return float(times[:, 1:].min(axis=1).mean())


def _begin(way: _Way, states, keys):
    """Return copies that may be donated, and the keys, as `_advance` wants them."""
    states = copied(states, frozen=True)
    if way.how == "loop":
        return unstack(states), unstack(keys)
    return _put(states, way.mesh), _put(keys, way.mesh)


def _advance(way: _Way, carried, batches, keys):
    """Return states and infos after a step: stacked, or lists under "loop"."""
    if way.how == "loop":
        each = zip(carried, batches, keys, strict=True)
        pairs = [_step(way, *one) for one in each]
        return [state for state, _ in pairs], [info for _, info in pairs]
    return _step(way, carried, _put(stack(batches), way.mesh), keys)


def _joined(carried):
    return stack(carried) if isinstance(carried, list) else carried


def _put(tree: types.PyTree, mesh: Mesh | None) -> types.PyTree:
    if mesh is None:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def _loss(states: Any, infos: UnlearnInfo | list[UnlearnInfo]) -> Any:
    if isinstance(infos, list):
        return list(map(watched, states, infos))
    return watched(states, infos)


@programs.jit(static_argnums=0, donate_argnums=1)
def _step(way: _Way, states, batches, keys):
    def one(state, batch, key):
        return way.step(state, batch, jax.random.fold_in(key, state.step))

    def many(*stacked):
        if way.how == "vmap":
            with programs.parts(False):  # grouped convolutions are slower in parts
                return jax.vmap(one)(*stacked)
        return jax.lax.map(lambda each: one(*each), stacked)

    if way.how == "loop":
        return one(states, batches, keys)
    if way.mesh is None:
        return many(states, batches, keys)
    own = PartitionSpec(AXIS)
    spread = jax.shard_map(
        many, mesh=way.mesh, in_specs=own, out_specs=own, check_vma=False
    )
    return spread(states, batches, keys)
