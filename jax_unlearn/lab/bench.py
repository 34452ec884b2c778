"""Models of an experiment, made seed by seed, kept on disk, and not made twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.data import (
    Dataset,
    Split,
    by_distance,
    digest,
    fingerprint,
    forget_split,
    given_split,
    holdout,
    to_ids,
)
from jax_unlearn.drivers import checkpoint
from jax_unlearn.drivers.loop import predict
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.lab.models import load_model, save_model
from jax_unlearn.lab.networks import Network, build, describe
from jax_unlearn.lab.plan import NEIGHBOURS, Plan, slug
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.results import conflicts, weights_against_losses
from jax_unlearn.lab.settings import Training, Unlearning
from jax_unlearn.lab.stages import (
    Outputs,
    Request,
    Trained,
    Trainer,
    execute,
    outputs_of,
)
from jax_unlearn.lab.task import Origin
from jax_unlearn.lab.unfinished import SECONDS, Infos, unfinished
from jax_unlearn.types import Model

RETRAIN_SEED, NULL_SEED = 1000, 2000  # offsets: no two models of a seed share a key

Progress = Callable[[str, int, int], None]
"""`(phase, steps done, steps in all)`."""


class Models(NamedTuple):
    """The three references of a seed.

    Attributes:
      original: trained on everything.
      retrained: trained without the forget set.
      null: the same from another random start.
    """

    original: Trained
    retrained: Trained
    null: Trained


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


def draw_request(
    plan: Plan,
    dataset: Dataset,
    seed: int,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[Request, Split]:
    """Return the forget request of a seed and its split, in ids of the data set.

    Base model and request come from one split: no forget sample was held out.

    Args:
      plan: what is asked for.
      dataset: its data.
      seed: of the draws.
      features: `ids [n] -> [n, d]`, for the kinds "near" and "far".

    Raises:
      InputError: a request that the data cannot serve.
    """
    labels = dataset.train.labels
    trained, unseen = holdout(labels, count=plan.unseen, seed=seed)
    if plan.by_distance:
        if features is None:
            raise InputError(f"kind={plan.kind!r} needs the features of a model")
        chosen = by_distance(
            features(trained),
            labels[trained],
            count=round(plan.fraction * len(trained)),
            near=plan.kind == "near",
            neighbours=NEIGHBOURS,
        )
        split = given_split(
            labels[trained], chosen, kind=plan.kind, num_classes=dataset.num_classes
        )
    else:
        split = forget_split(
            labels[trained],
            kind=plan.kind,
            fraction=plan.fraction,
            gamma=plan.gamma,
            seed=seed,
            num_classes=dataset.num_classes,
        )
    split = to_ids(split, trained)
    return Request(split.forget, split.retain, unseen), split


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
        self.network: Network = describe(plan.training, dataset)
        self.model: Model = build(self.network)
        self.features = build(self.network, features=True)
        self._trainer = Trainer(self.model, plan.training)
        self._preparer = Preparer(self.model, dataset, self.features)
        self._progress = progress or (lambda phase, done, total: None)

    def original(self, seed: int) -> Trained:
        """Return the model trained on all but the unseen samples.

        Raises:
          InputError: training diverged.
        """
        trained, unseen = holdout(
            self.dataset.train.labels, count=self.plan.unseen, seed=seed
        )
        store = self.originals
        return self._train("original", "Original", trained, unseen, seed, 0, store)

    def request(self, seed: int) -> tuple[Request, Split]:
        """Return the request of a seed, as `draw_request`; trains what that needs."""
        if not self.plan.by_distance:
            return draw_request(self.plan, self.dataset, seed)
        original = self.original(seed)

        def features(ids: np.ndarray) -> np.ndarray:
            inputs = self.dataset.train.inputs[ids]
            return predict(self.features, original.params, original.model_state, inputs)

        return draw_request(self.plan, self.dataset, seed, features)

    def references(self, request: Request, seed: int) -> Models:
        """Return original, Retrain and null.

        Raises:
          InputError: training diverged.
        """
        null = "null (Retrain, other seed)"
        rest = request.retain, request.unseen, seed, NULL_SEED, self.folder
        return Models(
            self.original(seed),
            self.retrained(request, seed),
            self._train("null", null, *rest),
        )

    def retrained(self, request: Request, seed: int) -> Trained:
        """Return the model trained without the forget set.

        Raises:
          InputError: training diverged.
        """
        rest = request.retain, request.unseen, seed, RETRAIN_SEED, self.folder
        return self._train("retrain", "Retrain", *rest)

    def unlearn(
        self,
        label: str,
        setting: Unlearning,
        request: Request,
        original: Trained,
        *,
        seed: int,
        keep: bool = True,
    ) -> Unlearned:
        """Unlearn with one method.

        Args:
          label: what it is called; names its checkpoint.
          setting: how.
          request: whom to forget.
          original: where it starts.
          seed: of random labels and order.
          keep: whether to keep a checkpoint, if the bench keeps any.

        Raises:
          NonFiniteError: the loss diverged; names the step.
        """

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
                original.params,
                original.model_state,
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

        told = _told(setting, seed)
        path = self._path(self.folder if keep else None, seed, slug(label))
        return self._kept(path, label, told, request.retain, request.unseen, make)

    def check(self, label: str, setting: Unlearning, *, seed: int) -> None:
        """Refuse to unlearn so where a checkpoint of another setting is kept.

        Args:
          label: of the method.
          setting: how it would unlearn.
          seed: as in `unlearn`.

        Raises:
          InputError: there is such a checkpoint, or a damaged one.
        """
        path = self._path(self.folder, seed, slug(label))
        if path is not None and path.exists():
            told = json.loads(json.dumps(_told(setting, seed)))
            if not _means(checkpoint.read_record(path), told):
                raise _other(path)

    def outputs(self, trained: Trained) -> Outputs:
        """Run a model over the whole data set."""
        return outputs_of(self.model, trained, self.dataset)

    def _train(
        self,
        key: str,
        label: str,
        ids: np.ndarray,
        unseen: np.ndarray,
        seed: int,
        offset: int,
        store: Path | None,
    ) -> Trained:
        def make(series: Series | None) -> Unlearned:
            total = self._trainer.steps(len(ids))

            def callback(step, state, info):
                del state, info
                self._progress(label, step, total)

            self._progress(label, 0, total)
            try:
                trained = self._trainer(
                    self.dataset.train,
                    ids,
                    seed=seed + offset,
                    callback=callback,
                    series=series,
                )
            except NonFiniteError as error:
                raise InputError(
                    f"training {label} with "
                    f"learning_rate={self.plan.training.learning_rate}: {error}; "
                    "lower the learning rate"
                ) from error
            return Unlearned(trained, {})

        told = {"training": vars(self.plan.training), "seed": seed + offset}
        path = self._path(store, seed, key)
        return self._kept(path, label, told, ids, unseen, make).trained

    def _path(self, store: Path | None, seed: int, key: str) -> Path | None:
        return None if store is None else store / f"seed-{seed}" / key

    def _kept(
        self,
        path: Path | None,
        label: str,
        told: dict[str, Any],
        ids: np.ndarray,
        unseen: np.ndarray,
        make: Callable[[Series | None], Unlearned],
    ) -> Unlearned:
        """Return the model of a checkpoint if there is one, else make and keep it."""
        told = json.loads(json.dumps(told))
        if path is not None and path.exists():
            stored = load_model(path, self.dataset)
            if not (
                _means(stored.record, told)
                and stored.network == self.network
                and np.array_equal(stored.ids, np.sort(ids))
            ):
                raise _other(path)
            self._progress(label, 0, 1)
            self._progress(label, 1, 1)
            return Unlearned(stored.trained, stored.record.get("notes", {}))
        if path is None:
            return make(None)
        run = {**told, "ids": digest(ids), "unseen": digest(unseen)}
        run["data"] = fingerprint(self.dataset)
        with unfinished(path, run, seconds=self._save_every) as series:
            made = make(series)
            record = {**told, "notes": made.notes}
            save_model(
                path, made.trained, self.network, self.dataset, ids, unseen, record
            )
        return made


def _told(setting: Unlearning, seed: int) -> dict[str, Any]:
    return {"unlearning": vars(setting), "seed": seed}


def _other(path: Path) -> InputError:
    return InputError(
        f"checkpoint {path} was made with another setting, seed or request; choose "
        "another folder for this run"
    )


def _means(record: dict[str, Any], told: dict[str, Any]) -> bool:
    """Return whether a record says what was told; settings it lacks are defaults."""
    for name, wanted in told.items():
        found = record.get(name)
        if isinstance(wanted, dict) and isinstance(found, dict):
            kind = Unlearning if name == "unlearning" else Training
            try:
                if kind(**found) != kind(**wanted):
                    return False
            except (TypeError, InputError):
                return False  # of another version of the package
        elif found != wanted:
            return False
    return True
