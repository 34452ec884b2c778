"""Earlier states of an original's training: kept as it goes on, or made again.

A rewound training goes on from one of them on other samples. The whole state is kept,
the optimizer's too, so that on the original's own samples it ends at the original, bit
for bit.
"""

import dataclasses
import functools
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jax_unlearn.cards import Job, Variables
from jax_unlearn.drivers.loop import Callback, run
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import checked
from jax_unlearn.types import Array, PyTree, UnlearnState

STEPS = re.compile(r"step-(\d{10})")


class Earlier(Protocol):
    """The states of a training after some of its steps."""

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        ...

    @property
    def epoch(self) -> int:
        """Steps of one pass."""
        ...

    @property
    def seconds(self) -> float:
        """Time spent on making states again that a kept one would spare."""
        ...

    def step(self, to: float) -> int:
        """Return the step of the state that is meant; refuse where there is none."""
        ...

    def at(self, step: int, template: UnlearnState) -> UnlearnState:
        """Return the state after so many steps, like the template."""
        ...


class Origin(NamedTuple):
    """How a model was trained, for methods that go through its training again."""

    training: Any
    seed: int
    imported: bool = False  # trained elsewhere; `training` is for what begins anew
    earlier: Earlier | None = None  # states of that training
    classes: int = 1  # K, for costs that go through them


def steps_of(to: float, total: int, epoch: int) -> int:
    """Return a place in a training in steps: epochs, or a share of it where below 1.

    >>> steps_of(3, 400, 10), steps_of(0.5, 400, 10)
    (30, 200)
    """
    step = round(to * (epoch if to >= 1 else total))
    if step >= total:
        raise InputError(
            f"rewind_to={to:g}: the training of the original has {total / epoch:g} "
            "epochs, and none would be left; give fewer, or a share of them below 1"
        )
    return step


class Kept(NamedTuple):
    """States on disk, one a folder, beside the model that they led to."""

    folder: Path
    of: Mapping[str, Any]  # what the record of that model says of its training
    total: int
    epoch: int
    steps: tuple[int, ...]
    seconds: float = 0.0

    @classmethod
    def beside(cls, path: Path, record: Mapping[str, Any]) -> "Kept | None":
        """Return the states that `train --keep-every` kept of a checkpoint, if any."""
        told = record.get("kept")
        if not isinstance(told, Mapping):
            return None
        numbers = {key: int(told[key]) for key in ("steps", "epoch")}
        folder = folder_of(path)
        found = [STEPS.fullmatch(one.name) for one in folder.glob("step-*")]
        steps = tuple(sorted(int(match[1]) for match in found if match))
        run = identity_of(record)
        return cls(folder, run, numbers["steps"], numbers["epoch"], steps)

    def step(self, to: float) -> int:
        """Return the step of the state of an epoch, or the nearest one to a share."""
        wanted = steps_of(to, self.total, self.epoch)
        if not self.steps:
            raise InputError(
                f"rewind_to={to:g}: {self.folder} holds no states; put the folder back "
                "beside its model, or train again with --keep-every"
            )
        if to >= 1 and wanted not in self.steps:
            there = ", ".join(f"{step / self.epoch:g}" for step in self.steps)
            raise InputError(
                f"rewind_to={to:g}: kept are the states after epochs {there}; give one "
                "of these, 0, or train again with another --keep-every"
            )
        return min(self.steps, key=lambda step: abs(step - wanted))

    def at(self, step: int, template: UnlearnState) -> UnlearnState:
        """Return a state, read back."""
        return Series(self.folder, dict(self.of)).at(step, template)


class Replayed:
    """States made again from the start, as the original was trained.

    Bit for bit on a machine like the one it was trained on; where rounding differs,
    they are those of another training with the same seed.
    """

    def __init__(self, make: Callable[[], tuple[Job, Array]], total: int, epoch: int):
        self.total, self.epoch, self.seconds = total, epoch, 0.0
        self._make = functools.cache(make)
        self._states: dict[int, UnlearnState] = {}

    def step(self, to: float) -> int:
        """Return the step of a place."""
        return steps_of(to, self.total, self.epoch)

    def at(self, step: int, template: UnlearnState) -> UnlearnState:
        """Return a state; the steps up to it are made once."""
        if step not in self._states:
            begun = time.perf_counter()
            job, key = self._make()
            unlearner, schedule = checked(job)
            last = max((known for known in self._states if known < step), default=0)
            state = self._states.get(last)
            if state is None:
                assert job.start is not None
                state = unlearner.init(*job.start)
            part = dataclasses.replace(schedule, start=last, steps=step)
            state = run(unlearner, state, part, key)
            self._states[step] = jax.block_until_ready(state)
            self.seconds += time.perf_counter() - begun
        return self._states[step]


class Given(NamedTuple):
    """Parameters of an earlier moment, without an optimizer's state: it begins anew."""

    variables: Variables
    total: int
    epoch: int
    seconds: float = 0.0

    def step(self, to: float) -> int:
        """Return the step of a place."""
        return steps_of(to, self.total, self.epoch)

    def at(self, step: int, template: UnlearnState) -> UnlearnState:
        """Return the parameters with what else a state holds at the start."""
        params, model_state = self.variables
        return template._replace(params=params, model_state=model_state)


def folder_of(path: Path) -> Path:
    """Return the folder of the earlier states of a checkpoint, beside it."""
    return path.with_name(f"{path.name}.earlier")


def identity_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what states and the model that they led to agree in."""
    return {name: record[name] for name in ("training", "seed", "ids_sha256")}


def keeping(
    callback: Callback, folder: Path, run: Mapping[str, Any], marks: tuple[int, ...]
) -> Callback:
    """Return a callback that keeps the states after some steps in a folder."""
    series = Series(folder, identity_of(run), keep=len(marks))

    def both(step: int, state: Any, info: Any) -> Any:
        if step in marks:
            series.save(step, state)
        return callback(step, state, info)

    return both


def gone_on(job: Job, key: Array, to: float, earlier: Earlier) -> tuple[Job, int]:
    """Return a training that begins with an earlier state, and how far that was.

    The place of the state in its own training is that in the new one, whose learning
    rate falls from there on as it would have.
    """
    unlearner, schedule = checked(job)
    assert job.start is not None
    template = unlearner.init(*job.start)
    step = earlier.step(to)
    begin = round(step * schedule.steps / earlier.total)
    if not 0 < begin < schedule.steps:
        return job._replace(key=key), 0
    found = earlier.at(step, template)
    state = found._replace(
        step=jnp.full_like(template.step, begin),
        opt_state=_counted(found.opt_state, begin),
    )
    unlearner = unlearner._replace(init=lambda params, model_state: state)
    start = state.params, state.model_state
    return job._replace(unlearner=unlearner, start=start, key=key), begin


def _counted(opt_state: PyTree, steps: int) -> PyTree:
    """Return an optimizer's state that counts so many steps, as its schedule reads."""

    def leaf(path: Any, value: Any) -> Any:
        counts = path and getattr(path[-1], "name", "") == "count"
        return jnp.full_like(value, steps) if counts else value

    return jax.tree_util.tree_map_with_path(leaf, opt_state)


def marks_of(every: int, total: int, epoch: int) -> tuple[int, ...]:
    """Return the steps after which a state is kept, every so many epochs."""
    marks = tuple(range(every * epoch, total, every * epoch)) if every > 0 else ()
    if not marks:
        raise InputError(
            f"keep_every={every}: training has {total / epoch:g} epochs; give at least "
            "1, and fewer than these"
        )
    return marks


def epoch_of(training: Any, samples: int) -> int:
    """Return how many steps a pass over so many samples takes."""
    return -(-samples // min(training.batch_size, samples))


__all__ = ["Earlier", "Given", "Kept", "Replayed", "epoch_of", "folder_of"]
__all__ += ["gone_on", "identity_of", "keeping", "marks_of", "steps_of"]
