"""Models of an experiment, made seed by seed, kept on disk, and not made twice."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.cards import Job
from jax_unlearn.data import Dataset
from jax_unlearn.drivers.guards import first_of
from jax_unlearn.drivers.loop import predict
from jax_unlearn.drivers.series import Series
from jax_unlearn.lab import job as jobs
from jax_unlearn.lab.costs import beside
from jax_unlearn.lab.job import Progress, Trained
from jax_unlearn.lab.plan import Plan, slug
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.requests import Case, Request, draw_cases, held_out
from jax_unlearn.lab.rewinds import Origin, Replayed, epoch_of
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import SECONDS, check_kept, kept_model
from jax_unlearn.lab.subject import Subject, Trainer, subject_of
from jax_unlearn.lab.worst import SEARCH, Searched, worst_request

__all__ = ["Bench", "Models", "Unlearned"]

ORIGINS = 4  # seeds whose states made again are held: a search's take turns
RETRAIN_SEED, NULL_SEED = 1000, 2000  # offsets: no two models of a seed share a key


class Models(NamedTuple):
    """The references of a seed; no null where the plan asks for none."""

    original: Trained
    retrained: Trained
    null: Trained | None


class Unlearned(NamedTuple):
    """A model that forgot, and JSON-able notes: of `Infos` and of the preparation."""

    trained: Trained
    notes: dict[str, Any]


class Bench:
    """Models of a plan, made seed by seed; programs are compiled once for all seeds.

    Checkpoints are kept in the folder, one a seed, and loaded where they are there, not
    made again; None keeps nothing. `originals` is such a folder of another plan, whose
    original models are used where it has them, and `retrains` one of another plan of
    the same request, for Retrain and null. `save_every` are the least seconds
    between two saves of a model in the making, which a killed run goes on from; 0 saves
    every step. `execute` runs the jobs, by default one step after another.

    Raises:
      InputError: in all that makes models, where training diverges.
    """

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        progress: Progress | None = None,
        *,
        folder: Path | None = None,
        originals: Path | None = None,
        retrains: Path | None = None,
        save_every: float = SECONDS,
        execute: Callable[..., Trained] = jobs.execute,
    ):
        self.plan = plan
        self.dataset = dataset
        self.folder = folder
        self.originals = folder if originals is None else originals
        self.retrains = folder if retrains is None else retrains
        self.subject: Subject = subject_of(plan.training, dataset)
        self.trainer = Trainer(self.subject, plan.training, execute)
        self.execute = execute
        self.preparer = Preparer(self.subject)
        self._progress = progress or jobs.silent
        self._save_every = save_every
        self._origins: dict[int, Origin] = {}

    def original(self, seed: int) -> Trained:
        """Return the model trained on all but the unseen samples."""
        trained, unseen = held_out(self.plan, self.dataset, seed)
        nothing = Request(trained[:0], trained, unseen)
        return self._train("original", "Original", Case(seed, "", nothing))

    def cases(self, seed: int) -> list[Case]:
        """Return the requests of a seed, as `draw_cases`; trains what that needs."""
        if not self.plan.by_model:
            return draw_cases(self.plan, self.dataset, seed)
        original = self.original(seed)

        def features(ids: np.ndarray) -> np.ndarray:
            inputs = self.dataset.train.inputs[ids]
            return predict(self.subject.built.features, *original[:2], inputs)

        def search(trained: np.ndarray, unseen: np.ndarray, count: int) -> Any:
            origin, store = Origin(self.plan.training, seed), self.folder
            given = Searched(self.subject, original, trained, unseen, origin)
            path = None if store is None else store / f"seed-{seed}" / SEARCH
            how = {"seed": seed, "path": path, "progress": self._progress}
            return worst_request(given, count, kind=self.plan.kind, **how)

        return draw_cases(self.plan, self.dataset, seed, features, search)

    def case(self, seed: int) -> Case:
        """Return the first request of a seed, which mostly is the only one."""
        return self.cases(seed)[0]

    def references(self, case: Case) -> Models:
        """Return original, Retrain and null."""
        original, retrained = self.original(case.seed), self.retrained(case)
        return Models(original, retrained, self.null(case) if self.plan.null else None)

    def retrained(self, case: Case) -> Trained:
        """Return the model trained without the forget set."""
        return self._train("retrain", "Retrain", case, offset=RETRAIN_SEED)

    def null(self, case: Case) -> Trained:
        """Return another such model, of another seed."""
        return self._train("null", "null (Retrain, other seed)", case, offset=NULL_SEED)

    def has(self, seed: int, key: str) -> bool:
        """Return whether a seed's model is kept, by the name of its folder."""
        store = self._store(key)
        return store is not None and (store / f"seed-{seed}" / key).exists()

    def table(self, folder: Path | None) -> Any:
        """Return what collects the figures of this kind of model."""
        make = self.subject.modality.table
        table = make(self.subject, self.plan.judging, folder, self._progress)
        if self.plan.probes:
            table.probes = self.plan.probes
        return table

    def origin(self, seed: int) -> Origin:
        """Return how the original was trained; its earlier states are made again."""
        if seed not in self._origins:
            ids, _ = held_out(self.plan, self.dataset, seed)
            training = self.plan.training
            made = functools.partial(self.trainer.job, ids, seed=seed)
            sizes = self.trainer.steps(len(ids)), epoch_of(training, len(ids))
            states = Replayed(made, *sizes)
            held = dict([*self._origins.items()][1 - ORIGINS :])
            told = {"earlier": states, "classes": self.dataset.num_classes}
            self._origins = {**held, seed: Origin(training, seed, **told)}
        return self._origins[seed]

    def cost(self, setting: Unlearning, case: Case) -> float | None:
        """Return a method's cost as a share of Retrain's, counted; None: not known."""
        origin = self.origin(case.seed)
        return beside(setting, origin, case.request, self.subject.modality)

    def prepared(self, setting: Unlearning, case: Case, original: Trained) -> Job:
        """Return what makes a model forget, not run yet."""
        seed, origin = case.seed, self.origin(case.seed)
        return self.preparer(setting, case.request, original, seed=seed, origin=origin)

    def unlearn(
        self,
        label: str,
        setting: Unlearning,
        case: Case,
        original: Trained,
        *,
        keep: bool = True,
    ) -> Unlearned:
        """Unlearn with one method, whose label names its checkpoint, if one is kept.

        Raises:
          NonFiniteError: the loss diverged; names the step.
        """
        seed = case.seed

        def make(series: Series | None) -> tuple[Trained, dict[str, Any]]:
            job = self.prepared(setting, case, original)
            infos = jobs.Infos()
            if series is not None:
                series.carry("infos", infos)
            report = jobs.reporting(self._progress, label, job.steps)
            key, options = jax.random.key(seed), {"callback": first_of(infos, report)}
            trained = self.execute(job, original[:2], key, series=series, **options)
            if job.transform is not None:
                self._progress(label, job.steps, job.steps)
            notes = infos.notes(weighted=setting.weighting != "uniform")
            notes = {**job.details, **notes}
            if trained.stopped is not None:
                notes["stopped"] = trained.stopped
            return trained, {"notes": notes}

        told, store = _told(setting, seed), self.folder if keep else None
        path = self._path(store, case.seed, case.part, slug(label))
        return self._kept(path, label, case, told, make)

    def check(self, seed: int) -> None:
        """Refuse to go on where a checkpoint of another setting is kept."""
        for part in [f"class{number}" for number in self.plan.classes] or [""]:
            for label, setting in self.plan.methods.items():
                path = self._path(self.folder, seed, part, slug(label))
                if path is not None:
                    check_kept(path, _told(setting, seed))

    def _train(self, key: str, label: str, case: Case, *, offset: int = 0) -> Trained:
        """Return the model trained on what a request leaves."""
        ids, seed = case.request.retain, case.seed + offset
        training = self.plan.training

        def make(series: Series | None) -> tuple[Trained, dict[str, Any]]:
            steps = self.trainer.steps(len(ids))
            report = jobs.reporting(self._progress, label, steps)
            with jobs.blamed(f"training {label}", training.learning_rate):
                options = {"callback": report, "series": series}
                return self.trainer(ids, seed=seed, **options), {"notes": {}}

        told = {"training": vars(training), "seed": seed}
        path = self._path(self._store(key), case.seed, case.part, key)
        return self._kept(path, label, case, told, make).trained

    def _store(self, key: str) -> Path | None:
        """Return where models of a key are kept."""
        stores = dict.fromkeys(("retrain", "null"), self.retrains)
        return {**stores, "original": self.originals}.get(key, self.folder)

    def _path(self, store: Path | None, seed: int, part: str, key: str) -> Path | None:
        return None if store is None else store / f"seed-{seed}" / part / key

    def _kept(
        self,
        path: Path | None,
        label: str,
        case: Case,
        told: Mapping[str, Any],
        make: Callable[[Series | None], tuple[Trained, dict[str, Any]]],
    ) -> Unlearned:
        """Return the model of a checkpoint if there is one, else make and keep it."""
        subject, request = self.subject, case.request
        trained, record = kept_model(
            path,
            {**told, subject.modality.key: dataclasses.asdict(subject.network)},
            make,
            subject=subject,
            ids=request.retain,
            unseen=request.unseen,
            seconds=self._save_every,
            report=functools.partial(self._progress, label),
        )
        return Unlearned(trained, record.get("notes", {}))


def _told(setting: Unlearning, seed: int) -> dict[str, Any]:
    return {"unlearning": setting.record(), "seed": seed}
