"""Making the models of an ensemble, several at a time, and foreseeing the cost."""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jax_unlearn.cards import Job, Transform
from jax_unlearn.data import Schedule
from jax_unlearn.drivers import ensemble, signals
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import Diverged
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.job import Candidates, Progress, Trained, blamed, checked
from jax_unlearn.lab.probes import pressed
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.rewinds import Origin, Replayed, epoch_of
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.types import Array, ModelState, Params, UnlearnBatch, UnlearnState

__all__ = ["PARTS", "RETRAIN_SEED", "Logits", "Maker", "span"]

ORIGINAL, RETRAIN = "original", "retrain"
PARTS = ("forget", "retain", "unseen", "test")
RETRAIN_SEED = 1_000_000  # offset: no retrained model has the seed of an original

Logits = dict[str, np.ndarray]
"""By part."""

Item = TypeVar("Item")
Start = tuple[Params, ModelState]


class Maker:
    """Train and unlearn several models of one plan and request in one program."""

    def __init__(
        self,
        bench: Bench,
        request: Request,
        how: str,
        mesh: Mesh | None,
        progress: Progress,
    ):
        # as in `run_ensemble`, or "alone": one after another, as the bench runs jobs;
        # with "auto", `estimate` decides how
        self.how, self._mesh, self._progress = how, mesh, progress
        self._bench, self._setting, self._request = bench, bench.plan.training, request
        self._trainer, self._preparer = bench.trainer, bench.preparer
        self._subject = subject = bench.subject
        parts = [subject.examples.at(ids) for ids in request]
        test = subject.dataset.test
        if len(test.labels):
            test = subject.modality.samples(subject.built, test)
        else:  # texts have none
            test = parts[2] if len(request.unseen) else parts[1]
        self._observed = dict(zip(PARTS, [*parts, test], strict=True))

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """What the models are right to say of each part, `i32[n]`."""
        targets = self._subject.modality.targets
        return {part: targets(examples) for part, examples in self._observed.items()}

    @functools.cached_property
    def blank(self) -> Trained:
        """A model at a random start."""
        return _started(self._training(RETRAIN, 0)[0])

    def train(
        self, role: str, numbers: Sequence[int], series: Series | None = None
    ) -> list[Trained]:
        """Train originals or retrained models, whose numbers are their seeds."""
        jobs, keys = zip(*(self._training(role, i) for i in numbers), strict=True)
        with _blamed(role, self._setting, numbers):
            return self._together(role, jobs, keys, series)

    def unlearn(
        self,
        label: str,
        setting: Unlearning,
        originals: Sequence[Trained],
        numbers: Sequence[int],
        *,
        series: Series | None = None,
    ) -> list[Trained]:
        """Unlearn originals by one method, prepared for each; numbers are seeds."""
        pairs = zip(originals, numbers, strict=True)
        jobs = [self._job(setting, original, number) for original, number in pairs]
        found: list[Trained] = []
        if jobs[0].transform is not None:
            for job, original in zip(jobs, originals, strict=True):
                self._progress(label, len(found), len(jobs))
                params, state = cast(Transform, job.transform)(*original[:2])
                found.append(Trained(params, state, {}))
            self._progress(label, len(jobs), len(jobs))
            return found
        # where none is shared, each has a step, and so a program, of its own
        size, series = (len(jobs), series) if setting.shares else (1, None)
        for begin in range(0, len(jobs), size):
            part = slice(begin, begin + size)
            own = zip(jobs[part], numbers[part], strict=True)
            keys = [j.key if j.key is not None else jax.random.key(n) for j, n in own]
            with _blamed(label, setting, numbers[part]):
                found += self._together(label, jobs[part], keys, series)
        return found

    def logits(self, role: str, number: int, trained: Trained) -> Logits:
        """Return what a model says of the parts of the request and of the test set."""
        parts, subject = self._observed.values(), self._subject
        everything = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        logits = subject.modality.observe(subject, trained[:2], everything)
        if not np.isfinite(logits).all():
            raise Diverged(
                f"the outputs of {role}, model {number}, are not finite: it diverged; "
                "lower the learning rate or the strength"
            )
        ends = np.cumsum([len(examples.labels) for examples in parts])
        return dict(zip(PARTS, np.split(logits, ends[:-1]), strict=True))

    def probes(
        self, names: Sequence[str], trained: Trained, original: Trained
    ) -> dict[str, float]:
        """Return what probes find of a model, all models treated alike."""
        given, seed = (trained, self._request, names), self._bench.plan.seeds[0]
        return pressed(self._subject, *given, original=original, seed=seed)

    def estimate(
        self, missing: dict[str, list[int]], methods: dict[str, Unlearning], size: int
    ) -> str:
        """Measure a few steps, decide how to run, and say what everything will cost."""
        if self.how == "alone":
            return "one after another"
        trainings = [self._training(ORIGINAL, i) for i in range(size)]
        jobs, keys = zip(*trainings, strict=True)
        every = ensemble.HOWS if self._mesh is None else ("vmap", "map")
        ways = every if self.how == "auto" else (self.how,)
        seconds = self._measured(jobs, keys, ways)
        self.how = min(ways, key=lambda way: seconds[way])
        retain = len(self._request.retain)
        steps = len(missing[ORIGINAL]) * jobs[0].steps
        steps += len(missing[RETRAIN]) * self._trainer.steps(retain)
        training, unlearning = steps * seconds[self.how], 0.0
        unknown = ["probes"] if self._bench.plan.probes else []
        for label, setting in methods.items():
            if not missing[label]:
                continue
            # what needs a trained model to be prepared is named, not measured
            if setting.card.compares or setting.card.kind == "one-shot":
                unknown.append(label)
                continue
            for _ in range(2):  # the first time compiles
                job = self._job(setting, self.blank, 0)
            keys = [jax.random.key(0)] * size
            step = self._measured([job] * size, keys, (self.how,))[self.how]
            unlearning += len(missing[label]) * (job.prepare_seconds + job.steps * step)
        told = (
            f"about {span(training + unlearning)} (training {span(training)}, "
            f"unlearning {span(unlearning)}) with {self.how}, {size} at a time"
        )
        return told + (f"; not counted: {', '.join(unknown)}" if unknown else "")

    def _measured(self, jobs, keys, ways: Sequence[str]) -> dict[str, float]:
        """Return seconds a step of one model, by way."""
        unlearner, states, schedules, joined = self._joined(jobs, keys)
        last = jobs[0].steps - 1
        marks = sorted({0, last // 2, last})  # they show all forms of batches
        heads = [[schedule[step] for step in marks] for schedule in schedules]
        options = {"hows": ways, "mesh": self._mesh, "repeats": 2}
        seconds = ensemble.step_seconds(unlearner, states, heads, joined, **options)
        return {way: value / len(jobs) for way, value in seconds.items()}

    def _training(self, role: str, number: int) -> tuple[Job, Array]:
        ids, seed = self._request.retain, RETRAIN_SEED + number
        if role == ORIGINAL:
            ids, seed = np.union1d(ids, self._request.forget), number
        return self._trainer.job(ids, seed=seed)

    def _job(self, setting: Unlearning, original: Trained, number: int) -> Job:
        given, origin = (setting, self._request), self._origin(number)
        job = self._preparer(*given, original, seed=number, origin=origin)
        return job._replace(start=job.start or original[:2])

    def _origin(self, number: int) -> Origin:
        """Return how a model's original was trained."""
        made = functools.partial(self._training, ORIGINAL, number)
        samples = len(self._request.retain) + len(self._request.forget)
        sizes = self._trainer.steps(samples), epoch_of(self._setting, samples)
        states = Replayed(made, *sizes)
        told = {"earlier": states, "classes": self._subject.dataset.num_classes}
        return Origin(self._setting, number, **told)

    def _joined(self, jobs: Sequence[Job], keys: Sequence[Array]):
        """Return what `run_ensemble` takes, filled up for the mesh."""
        filled = self._filled(jobs)
        unlearners, schedules = zip(*map(checked, filled), strict=True)
        starts = [
            unlearner.init(*cast(Start, job.start))
            for unlearner, job in zip(unlearners, filled, strict=True)
        ]
        return (
            unlearners[0],
            ensemble.stack(starts),
            schedules,
            ensemble.stack(self._filled(keys)),
        )

    def _together(
        self, label: str, jobs: Sequence[Job], keys, series: Series | None
    ) -> list[Trained]:
        """Run jobs of one program, and rewind those that ask for it."""
        if self.how == "alone":
            pairs = zip(jobs, keys, strict=True)
            return [self._bench.execute(job, None, key) for job, key in pairs]
        unlearner, states, schedules, keys = self._joined(jobs, keys)
        first = jobs[0]
        candidates = Candidates(jax.tree.structure([_started(job) for job in jobs]))
        if series is not None:
            states = candidates.gone_on(series, states)
        begin = int(states.step[0])
        ends = (first.steps,) if first.rewind is None else first.rewind.ends
        with signals.held() if series is not None else contextlib.nullcontext():
            for end in ends[len(candidates.found) :]:
                while begin < end:
                    parts = self._parts(label, schedules, (begin, end), series)
                    states = ensemble.run_ensemble(
                        unlearner, states, parts, keys, how=self.how, mesh=self._mesh
                    )
                    begin = int(states.step[0])
                    if series is not None:
                        series.callback(begin, states)
                candidates.found.append(_models(states, len(jobs), first.finish))
        self._progress(label, first.steps, first.steps)
        return [
            own[-1 if job.rewind is None else job.rewind.choose([m[:2] for m in own])]
            for job, own in zip(jobs, zip(*candidates.found, strict=True), strict=True)
        ]

    def _parts(
        self,
        label: str,
        schedules: Sequence[Schedule[UnlearnBatch]],
        between: tuple[int, int],
        series: Series | None,
    ) -> list[Iterator[UnlearnBatch]]:
        """Return the batches from a step to another, or until it is time to save."""
        begin, end = between  # all end with the first, asked first for a step's batch

        def batches(number: int) -> Iterator[UnlearnBatch]:
            nonlocal end
            for step in itertools.count(begin):
                if not number and step > begin and series is not None and series.due():
                    end = step
                if step >= end:
                    return
                if not number:
                    self._progress(label, step, schedules[0].steps)
                yield schedules[number][step]

        return [batches(number) for number in range(len(schedules))]

    def _filled(self, items: Sequence[Item]) -> list[Item]:
        """Repeat the last of the models until every device has as many."""
        width = 1 if self._mesh is None else self._mesh.shape.get(ensemble.AXIS, 1)
        return [*items, *[items[-1]] * (-len(items) % width)]


def span(seconds: float) -> str:
    """Return a time as one says it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _models(states: UnlearnState, count: int, finish: Any) -> list[Trained]:
    """Part the first of the models: arrays on no device in particular."""
    both = (states.params, states.model_state) if finish is None else finish(states)
    host: Any = jax.device_get(both)
    models = [
        jax.tree.map(jnp.asarray, model) for model in ensemble.unstack(host)[:count]
    ]
    return [Trained(params, state, {}) for params, state in models]


def _started(job: Job) -> Trained:
    return Trained(*cast(Start, job.start), {})


def _blamed(role: str, setting: Any, numbers: Sequence[int]):
    among = f", models {list(numbers)}, counted from 0"
    return blamed(role, setting.learning_rate, among=among)
