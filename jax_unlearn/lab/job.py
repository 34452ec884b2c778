"""Jobs run to their end, timed, saved on the way, and gone on from."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jax_unlearn.cards import Job, Transform, Variables
from jax_unlearn.data import Schedule
from jax_unlearn.drivers import signals
from jax_unlearn.drivers.guards import first_of
from jax_unlearn.drivers.loop import Callback, predict, run
from jax_unlearn.drivers.series import Arrays, Series
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.types import (
    Array,
    Model,
    ModelState,
    Params,
    UnlearnBatch,
    Unlearner,
    UnlearnState,
)

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
    """Say what diverged, with which learning rate, and where to go on from.

    Raises:
      InputError: the body raised `NonFiniteError`.
    """
    try:
        yield
    except NonFiniteError as error:
        last = "" if checkpoint is None else f"; last good checkpoint: {checkpoint}"
        raise InputError(
            f"{what} with learning_rate={learning_rate}{among}: {error}; lower the "
            f"learning rate{last}"
        ) from error


class Trained(NamedTuple):
    """A model and what it took.

    Attributes:
      params, model_state: the model.
      seconds: of its stages: "compile", "prepare", "run" (device-synchronised).
      stopped: by a guard: "step" and "reason"; None where the run came to its end.
    """

    params: Params
    model_state: ModelState
    seconds: dict[str, float]
    stopped: dict[str, Any] | None = None


class Candidates:
    """States after some of the steps, of which one is kept: `Rewind`'s.

    Args:
      structure: of each.
    """

    def __init__(self, structure: Any):
        self.found: list[Any] = []
        self._structure = structure

    def arrays(self) -> Arrays:
        """Return the leaves by number of candidate and leaf."""
        return {
            f"{number}/{at}": np.asarray(leaf)
            for number, candidate in enumerate(self.found)
            for at, leaf in enumerate(jax.tree.leaves(candidate))
        }

    def restore(self, arrays: Arrays) -> None:
        """Undo `arrays`."""
        width = self._structure.num_leaves
        leaves = [jax.numpy.array(leaf) for leaf in arrays.values()]
        self.found = [
            jax.tree.unflatten(self._structure, leaves[begin : begin + width])
            for begin in range(0, len(leaves), width)
        ]


def execute(
    job: Job,
    at: Variables | None,
    key: Array,
    *,
    callback: Callback | None = None,
    series: Series | None = None,
) -> Trained:
    """Run a job, its compilation timed apart.

    Args:
      job: from `prepare`.
      at: parameters and state where it starts, unless the job has a start of its own.
      key: of the run.
      callback: as in `run`; a transformation does not call it.
      series: where the run is saved as it goes on, and gone on from; a transformation
        is made anew.

    Raises:
      NonFiniteError: a loss turned NaN or infinite; names the step.
    """
    if job.transform is not None:
        return _transformed(job, cast(Variables, at))
    unlearner, schedule = checked(job)
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


def checked(job: Job) -> tuple[Unlearner, Schedule[UnlearnBatch]]:
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
    """Run to the end, or to where the callback ends it.

    Return the last state's model, or the one chosen of those kept.
    """
    unlearner, schedule = checked(job)
    finish = job.finish or (lambda state: (state.params, state.model_state))
    candidates = Candidates(jax.tree.structure((state.params, state.model_state)))
    begin = 0
    if series is not None:
        series.carry("candidates", candidates)
        saved = series.latest(state)
        if saved is not None:
            state, begin = saved, int(saved.step)
        callback = saving(callback, series)
    ends = (schedule.steps,) if job.rewind is None else job.rewind.ends
    for end in ends[len(candidates.found) :]:
        part = dataclasses.replace(schedule, start=begin, steps=end)
        state = run(unlearner, state, part, key, callback=callback)
        candidates.found.append(finish(state))
        begin = end
    if job.rewind is None:
        return candidates.found[-1]
    return candidates.found[job.rewind.choose(candidates.found)]


def saving(callback: Callback | None, series: Series) -> Callback:
    """Return the callback that saves where nothing ended the run.

    Args:
      callback: called first; may end the run.
      series: where the states are saved.
    """

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
    leaves = [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(found[0])]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise NonFiniteError("the parameters are not finite after the step", 1)
    return Trained(found[0], found[1], seconds)


def probabilities(model: Model, trained: Trained, inputs: np.ndarray) -> np.ndarray:
    """Return softmax outputs in float64 on the host, `[N, K]`.

    Raises:
      InputError: the model's outputs are not finite.
    """
    logits = predict(model, trained.params, trained.model_state, inputs)
    logits = logits.astype(np.float64)
    if not np.isfinite(logits).all():
        raise InputError("the model's outputs are not finite: its training diverged")
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
