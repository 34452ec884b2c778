"""Models of an experiment, made seed by seed, kept on disk, and not made twice."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.data import Dataset, digest
from jax_unlearn.drivers import checkpoint
from jax_unlearn.drivers.loop import predict
from jax_unlearn.drivers.series import Series
from jax_unlearn.lab.context import Origin
from jax_unlearn.lab.job import Progress, Trained, blamed, execute, silent
from jax_unlearn.lab.notes import Infos, conflicts, weights_against_losses
from jax_unlearn.lab.plan import Plan, slug
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.requests import Case, draw_cases, held_out
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import (
    SECONDS,
    identity,
    kept,
    load_model,
    refused,
    same,
    save_model,
)
from jax_unlearn.lab.subject import Subject, subject_of
from jax_unlearn.lab.training import Trainer

RETRAIN_SEED, NULL_SEED = 1000, 2000  # offsets: no two models of a seed share a key


class Models(NamedTuple):
    """The three references of a seed.

    Attributes:
      original: trained on everything.
      retrained: trained without the forget set.
      null: the same from another random start, where the plan asks for one.
    """

    original: Trained
    retrained: Trained
    null: Trained | None


class Unlearned(NamedTuple):
    """A model that forgot, and what was noted on the way.

    Attributes:
      trained: the model.
      notes: JSON-able: "scatter" (losses and weights, where there were weights),
        "conflict" (cosine of the two gradients by step, where there were two), and
        what the preparation found out.
    """

    trained: Trained
    notes: dict[str, Any]


class Bench:
    """Models of a plan, made seed by seed; programs are compiled once for all seeds.

    Args:
      plan: the experiment.
      dataset: its data.
      progress: called as training and unlearning go on.
      folder: where checkpoints are kept, a folder a seed; what is found there is
        loaded, not made again. None keeps nothing.
      originals: such a folder of another plan, whose original models are used where it
        has them.
      save_every: least seconds between two saves of a model in the making, which a
        killed run goes on from; 0 saves every step.
    """

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        progress: Progress | None = None,
        *,
        folder: Path | None = None,
        originals: Path | None = None,
        save_every: float = SECONDS,
    ):
        self.plan = plan
        self.dataset = dataset
        self.folder = folder
        self._save_every = save_every
        self.originals = folder if originals is None else originals
        self.subject: Subject = subject_of(plan.training, dataset)
        self._trainer = Trainer(self.subject, plan.training)
        self._preparer = Preparer(self.subject)
        self._progress = progress or silent

    def original(self, seed: int) -> Trained:
        """Return the model trained on all but the unseen samples.

        Raises:
          InputError: training diverged.
        """
        trained, unseen = held_out(self.plan, self.dataset, seed)
        model = _Role("original", "Original", seed, 0, self.originals)
        return self._train(model, trained, unseen)

    def cases(self, seed: int) -> list[Case]:
        """Return the requests of a seed, as `draw_cases`; trains what that needs."""
        if not self.plan.by_distance:
            return draw_cases(self.plan, self.dataset, seed)
        original = self.original(seed)

        def features(ids: np.ndarray) -> np.ndarray:
            at = original.params, original.model_state
            inputs = self.dataset.train.inputs[ids]
            return predict(self.subject.built.features, *at, inputs)

        return draw_cases(self.plan, self.dataset, seed, features)

    def case(self, seed: int) -> Case:
        """Return the first request of a seed, which mostly is the only one."""
        return self.cases(seed)[0]

    def references(self, case: Case) -> Models:
        """Return original, Retrain and null.

        Raises:
          InputError: training diverged.
        """
        original, retrained = self.original(case.seed), self.retrained(case)
        if not self.plan.null:
            return Models(original, retrained, None)
        label = "null (Retrain, other seed)"
        role = _Role("null", label, case.seed, NULL_SEED, self.folder, case.part)
        null = self._train(role, case.request.retain, case.request.unseen)
        return Models(original, retrained, null)

    def retrained(self, case: Case) -> Trained:
        """Return the model trained without the forget set.

        Raises:
          InputError: training diverged.
        """
        store = self.folder
        role = _Role("retrain", "Retrain", case.seed, RETRAIN_SEED, store, case.part)
        return self._train(role, case.request.retain, case.request.unseen)

    def table(self, folder: Path | None) -> Any:
        """Return what collects the figures of this kind of model.

        Args:
          folder: of the run, where models that help to measure are kept.
        """
        make = self.subject.modality.table
        return make(self.subject, self.plan.judging, folder, self._progress)

    def unlearn(
        self,
        label: str,
        setting: Unlearning,
        case: Case,
        original: Trained,
        *,
        keep: bool = True,
    ) -> Unlearned:
        """Unlearn with one method.

        Args:
          label: what it is called; names its checkpoint.
          setting: how.
          case: whom to forget.
          original: where it starts.
          keep: whether to keep a checkpoint, if the bench keeps any.

        Raises:
          NonFiniteError: the loss diverged; names the step.
        """
        seed, request = case.seed, case.request

        def make(series: Series | None) -> Unlearned:
            origin = Origin(self.plan.training, seed)
            job = self._preparer(setting, request, original, seed=seed, origin=origin)
            infos = Infos()
            if series is not None:
                series.carry("infos", infos)
            total = job.steps

            def callback(step, state, info):
                infos(step, state, info)
                self._progress(label, step, total)

            self._progress(label, 0, total)
            trained = execute(
                job,
                (original.params, original.model_state),
                jax.random.key(seed),
                callback=callback,
                series=series,
            )
            notes = dict(job.details)
            if trained.stopped is not None:
                notes["stopped"] = trained.stopped
            if job.transform is not None:
                self._progress(label, total, total)
            if setting.weighting != "uniform":
                notes["scatter"] = weights_against_losses(infos.found)
            if angles := conflicts(infos.found):
                notes["conflict"] = angles
            return Unlearned(trained, notes)

        store = self.folder if keep else None
        path = self._path(store, seed, case.part, slug(label))
        made = label, _told(setting, seed), request.retain, request.unseen
        return self._kept(path, *made, make=make)

    def check(self, seed: int) -> None:
        """Refuse to go on where a checkpoint of another setting is kept.

        Args:
          seed: whose checkpoints are looked at.

        Raises:
          InputError: there is such a checkpoint, or a damaged one.
        """
        parts = [f"class{number}" for number in self.plan.classes] or [""]
        for part, (label, setting) in itertools.product(
            parts, self.plan.methods.items()
        ):
            path = self._path(self.folder, seed, part, slug(label))
            if path is None or not path.exists():
                continue
            if not same(checkpoint.read_record(path), _told(setting, seed)):
                raise refused(path)

    def _train(self, role: "_Role", ids: np.ndarray, unseen: np.ndarray) -> Trained:
        def make(series: Series | None) -> Unlearned:
            total = self._trainer.steps(len(ids))

            def callback(step, state, info):
                del state, info
                self._progress(role.label, step, total)

            self._progress(role.label, 0, total)
            with blamed(f"training {role.label}", self.plan.training.learning_rate):
                trained = self._trainer(
                    ids,
                    seed=role.seed + role.offset,
                    callback=callback,
                    series=series,
                )
            return Unlearned(trained, {})

        told = {"training": vars(self.plan.training), "seed": role.seed + role.offset}
        path = self._path(role.store, role.seed, role.part, role.key)
        return self._kept(path, role.label, told, ids, unseen, make=make).trained

    def _path(self, store: Path | None, seed: int, part: str, key: str) -> Path | None:
        return None if store is None else store / f"seed-{seed}" / part / key

    def _kept(
        self,
        path: Path | None,
        label: str,
        told: Mapping[str, Any],
        ids: np.ndarray,
        unseen: np.ndarray,
        *,
        make: Callable[[Series | None], Unlearned],
    ) -> Unlearned:
        """Return the model of a checkpoint if there is one, else make and keep it."""
        subject = self.subject

        def read(path: Path) -> tuple[Mapping[str, Any], Unlearned]:
            stored = load_model(path, self.dataset)
            self._progress(label, 0, 1)
            self._progress(label, 1, 1)
            made = Unlearned(stored.trained, stored.record.get("notes", {}))
            return stored.record, made

        def write(path: Path, made: Unlearned) -> None:
            record = {**told, "notes": made.notes}
            parts = {"ids": ids, "unseen": unseen}
            save_model(path, made.trained, subject, record=record, **parts)

        network = dataclasses.asdict(subject.network)
        return kept(
            path,
            {**told, "ids_sha256": digest(ids), subject.modality.key: network},
            make,
            read=read,
            write=write,
            run=identity(subject, ids, unseen),
            seconds=self._save_every,
        )


class _Role(NamedTuple):
    """A model that is trained: the original, Retrain or the null of a seed."""

    key: str
    label: str
    seed: int
    offset: int  # of the training's seed
    store: Path | None
    part: str = ""


def _told(setting: Unlearning, seed: int) -> dict[str, Any]:
    return {"unlearning": setting.record(), "seed": seed}
