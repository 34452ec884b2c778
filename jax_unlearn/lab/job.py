"""Jobs run to their end, timed, saved on the way, and gone on from."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jax_unlearn import types
from jax_unlearn.cards import Job, Transform, Variables
from jax_unlearn.data import Schedule
from jax_unlearn.drivers import signals
from jax_unlearn.drivers.guards import first_of
from jax_unlearn.drivers.loop import Callback, predict, run
from jax_unlearn.drivers.series import Arrays, Series
from jax_unlearn.errors import Diverged, InputError, NonFiniteError
from jax_unlearn.leaves import divided
from jax_unlearn.types import Array, Model, PyTree, UnlearnBatch, UnlearnState

__all__ = ["Candidates", "Infos", "Progress", "Trained", "blamed", "checked", "execute"]
__all__ += ["probabilities", "reporting", "silent"]

SCATTER = 1500  # points of the weight-against-loss figure at most
FIELDS = ("weights", "task_losses", "index", "conflict")

Progress = Callable[[str, int, int], None]
"""`(phase, steps done, steps in all)`."""


def silent(phase: str, done: int, total: int) -> None:
    """Report no progress."""
    del phase, done, total


def reporting(progress: Progress, phase: str, total: int) -> Callback:
    """Report the beginning of a phase, and return the callback for its steps."""
    progress(phase, 0, total)
    return lambda step, state, info: progress(phase, step, total)


@contextlib.contextmanager
def blamed(
    what: str, learning_rate: float, checkpoint: Path | None = None, *, among: str = ""
) -> Iterator[None]:
    """Say what diverged, with which learning rate, and where to go on from."""
    try:
        yield
    except NonFiniteError as error:
        last = "" if checkpoint is None else f"; last good checkpoint: {checkpoint}"
        raise Diverged(
            f"{what} with learning_rate={learning_rate}{among}: {error}; lower the "
            f"learning rate{last}"
        ) from error


class Trained(NamedTuple):
    """A model, and the seconds of its stages: "compile", "prepare", "run"."""

    params: PyTree
    model_state: PyTree
    seconds: dict[str, float]
    stopped: dict[str, Any] | None = None  # "step" and "reason" of a guard


class Candidates:
    """States of one structure after some of the steps, of which one is kept."""

    def __init__(self, structure: Any):
        self.found: list[Any] = []
        self._structure = structure

    def arrays(self) -> Arrays:
        """Return the leaves by number of candidate and leaf."""
        leaves = enumerate(jax.tree.leaves(self.found))
        return {str(number): np.asarray(leaf) for number, leaf in leaves}

    def restore(self, arrays: Arrays) -> None:
        """Undo `arrays`."""
        width = self._structure.num_leaves
        leaves = [jax.numpy.array(leaf) for leaf in arrays.values()]
        self.found = [
            jax.tree.unflatten(self._structure, leaves[begin : begin + width])
            for begin in range(0, len(leaves), width)
        ]

    def gone_on(self, series: Series, state: Any) -> Any:
        """Return what a series holds of a run, or else its start; save with it."""
        series.carry("candidates", self)
        saved = series.latest(state)
        return state if saved is None else saved


class Infos:
    """What the notes of a run are made of, step by step; a callback of `run`."""

    def __init__(self):
        self.found: list[types.UnlearnInfo] = []

    def __call__(self, step: int, state: UnlearnState, info: types.UnlearnInfo) -> None:
        """Keep the info of a step."""
        del step, state
        self.found.append(info)

    def arrays(self) -> Arrays:
        """Return the fields joined, with the lengths of their parts."""
        arrays = {}
        for field in FIELDS:
            values = [getattr(info, field) for info in self.found]
            sizes = [-1 if value is None else np.size(value) for value in values]
            arrays[f"{field}/sizes"] = np.array(sizes, np.int32)
            held = [np.ravel(np.asarray(v)) for v in values if v is not None]
            if held:
                arrays[f"{field}/values"] = np.concatenate(held)
        return arrays

    def restore(self, arrays: Arrays) -> None:
        """Undo `arrays`; fields that no note needs are zero."""
        zero, parts = np.zeros((), np.float32), []
        for field in FIELDS:
            sizes = arrays.get(f"{field}/sizes", np.zeros(0, np.int32))
            values = arrays.get(f"{field}/values", np.zeros(0, np.float32))
            own = np.split(values, np.cumsum(np.maximum(sizes, 0)))
            pairs = zip(sizes, own, strict=False)  # the last one is what is left: none
            parts.append([None if size < 0 else part for size, part in pairs])
        self.found = [
            types.UnlearnInfo(zero, zero, *fields, zero)  # type: ignore[arg-type]
            for fields in zip(*parts, strict=True)
        ]

    def notes(self, *, weighted: bool) -> dict[str, Any]:
        """Return JSON-able notes of the steps, rounded."""
        weighted = weighted and bool(self.found)  # a run on the device shows no steps
        notes: dict[str, Any] = {"scatter": self._scatter()} if weighted else {}
        conflicts = [info.conflict for info in self.found]
        angles = [float(c) for angle in conflicts for c in np.ravel(np.asarray(angle))]
        if any(angles):
            notes["conflict"] = [round(c, 5) for c in angles]
        return notes

    def _scatter(self) -> dict[str, list[float]]:
        infos = [info for info in self.found if info.weights is not None]
        part, points = max(len(infos) // 4, 1), {}
        for name, chosen in (("first", infos[:part]), ("last", infos[-part:])):
            real = np.concatenate([np.asarray(i.index) for i in chosen]) >= 0
            for field in ("task_losses", "weights"):
                values = np.concatenate([np.asarray(getattr(i, field)) for i in chosen])
                found = [round(float(v), 5) for v in values[real][:SCATTER]]
                points[f"{name}_{field.removeprefix('task_')}"] = found
        return points


def execute(
    job: Job,
    at: Variables | None,
    key: Array,
    *,
    callback: Callback | None = None,
    series: Series | None = None,
) -> Trained:
    """Run a job, its compilation timed apart; `NonFiniteError` names the step."""
    if job.transform is not None:
        return _transformed(job, cast(Variables, at))
    unlearner, schedule = checked(job)
    key = key if job.key is None else job.key
    state = unlearner.init(*cast(Variables, job.start or at))
    start = time.perf_counter()
    for first in _forms(schedule):
        jax.block_until_ready(run(unlearner, state, [first], key, check_every=2))
    compiled = time.perf_counter()
    with signals.held() if series is not None else contextlib.nullcontext():
        guards = [] if job.guards is None else list(job.guards(state))
        if guards:
            callback = first_of(*guards, *(() if callback is None else (callback,)))
        if series is not None:
            for number, guard in enumerate(guards):
                series.carry(f"guard-{number}", guard)
        found = _run_to_end(job, state, key, callback=callback, series=series)
        jax.block_until_ready(found)
    done = time.perf_counter()
    before = 0.0 if series is None else series.spent
    seconds = {
        "prepare": job.prepare_seconds,
        "compile": compiled - start,
        "run": before + done - compiled,
    }
    acted = [guard for guard in guards if guard.reason is not None]
    told = [{"step": guard.step, "reason": guard.reason} for guard in acted]
    return Trained(*found, seconds, told[0] if told else None)


def checked(job: Job) -> tuple[types.Unlearner, Schedule[UnlearnBatch]]:
    """Return unlearner and schedule of a job that is no transformation."""
    if job.unlearner is None or job.schedule is None:
        raise ValueError("a job without a transform needs unlearner and schedule")
    return job.unlearner, job.schedule


def _run_to_end(
    job: Job,
    state: UnlearnState,
    key: Array,
    *,
    callback: Callback | None,
    series: Series | None,
) -> Variables:
    """Return the last state's model, or the one chosen of those kept."""
    unlearner, schedule = checked(job)
    finish = job.finish or (lambda state: (state.params, state.model_state))
    candidates = Candidates(jax.tree.structure(jax.eval_shape(finish, state)))
    if series is not None:
        state = candidates.gone_on(series, state)
        callback = _saving(callback, series)
    ends = (schedule.steps,) if job.rewind is None else job.rewind.ends
    for end in ends[len(candidates.found) :]:
        for stop in sorted({*job.marks, end}):
            if not int(state.step) < stop <= end:
                continue
            part = dataclasses.replace(schedule, start=int(state.step), steps=stop)
            state = run(unlearner, state, part, key, callback=callback)
            if int(state.step) != stop:  # the callback ended the run
                break
        candidates.found.append(finish(state))
    if job.rewind is None:
        return candidates.found[-1]
    return candidates.found[job.rewind.choose(candidates.found)]


def _saving(callback: Callback | None, series: Series) -> Callback:
    """Return the callback that saves what has not ended."""

    def both(done, state, info):
        ended = None if callback is None else callback(done, state, info)
        return series.callback(done, state) if ended is None else ended

    return both


def _transformed(job: Job, at: Variables) -> Trained:
    """Transform twice: what the first time takes longer is compilation."""
    transform = cast(Transform, job.transform)
    times = [time.perf_counter()]
    for _ in range(2):
        found = jax.block_until_ready(transform(*at))
        times.append(time.perf_counter())
    first, second = np.diff(times)
    seconds = {
        "prepare": job.prepare_seconds,
        "compile": max(float(first - second), 0.0),
        "run": float(second),
    }
    moved = jax.tree.leaves(divided(found[0])[0])
    leaves = [np.asarray(leaf, np.float32) for leaf in moved]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise NonFiniteError("the parameters are not finite after the step", 1)
    return Trained(found[0], found[1], seconds)


def probabilities(model: Model, trained: Trained, inputs: np.ndarray) -> np.ndarray:
    """Return softmax outputs in float64 on the host, `[N, K]`."""
    logits = predict(model, trained.params, trained.model_state, inputs)
    logits = logits.astype(np.float64)
    if not np.isfinite(logits).all():
        raise InputError(
            "the model's outputs are not finite: its training diverged; lower the "
            "learning rate"
        )
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _forms(schedule: Schedule[UnlearnBatch]) -> Iterator[UnlearnBatch]:
    """Yield a batch of every structure: the ends and the middle show all."""
    last, seen = len(schedule) - 1, set()
    for step in sorted({0, last // 2, last}):
        batch = schedule[step]
        form = jax.tree.map(np.shape, batch)
        if str(form) not in seen:
            seen.add(str(form))
            yield batch
