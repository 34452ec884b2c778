"""The main job: original, Retrain, null and every method over seeds, measured alike."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.data import (
    Dataset,
    forget_split,
    holdout,
    save_manifest,
    to_ids,
    write_atomic,
)
from jax_unlearn.data.splits import Split
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.pipeline.models import save_model
from jax_unlearn.pipeline.networks import Network, build, describe
from jax_unlearn.pipeline.prepare import Preparer, check_unseen
from jax_unlearn.pipeline.results import (
    Table,
    dataset_record,
    environment,
    to_json,
    weights_against_losses,
)
from jax_unlearn.pipeline.settings import Training, Unlearning
from jax_unlearn.pipeline.stages import (
    Outputs,
    Request,
    Trained,
    Trainer,
    execute,
    outputs_of,
)
from jax_unlearn.types import Model, UnlearnInfo

RETRAIN_SEED, NULL_SEED = 1000, 2000  # offsets: no two models of a seed share a key

Progress = Callable[[str, int, int], None]
"""`(phase, steps done, steps in all)`."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A whole experiment.

    Attributes:
      title: what it is called.
      kind: of the forget request: "random", "class" or "long_tailed".
      fraction: share of the training samples to forget.
      gamma: imbalance of a long-tailed request.
      unseen: number of samples held out of all training.
      training: how original and Retrain are trained.
      methods: settings by the label shown in the table.
      seeds: of split, initialisation, order and labels.
      note: where the settings come from, for the report.
    """

    title: str
    kind: str
    fraction: float
    gamma: float
    unseen: int
    training: Training
    methods: dict[str, Unlearning]
    seeds: tuple[int, ...]
    note: str = ""

    def __post_init__(self):
        if len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(
                f"seeds={list(self.seeds)}: give at least two different ones, for the "
                "spread over seeds is what the null is read from"
            )


class Models(NamedTuple):
    """The three references of a seed, and what they say.

    Attributes:
      original: trained on everything.
      retrained: trained without the forget set.
      null: the same from another random start.
    """

    original: Any
    retrained: Any
    null: Any


def draw_request(plan: Plan, dataset: Dataset, seed: int) -> tuple[Request, Split]:
    """Return the forget request of a seed and its split, in ids of the data set.

    Base model and request come from one split: no forget sample was held out.

    Raises:
      InputError: a request that the data cannot serve.
    """
    labels = dataset.train.labels
    trained, unseen = holdout(labels, count=plan.unseen, seed=seed)
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
    """

    def __init__(self, plan: Plan, dataset: Dataset, progress: Progress | None = None):
        self.plan = plan
        self.dataset = dataset
        self.network: Network = describe(plan.training, dataset)
        self.model: Model = build(self.network)
        self._trainer = Trainer(self.model, plan.training)
        self._preparer = Preparer(self.model, dataset)
        self._progress = progress or (lambda phase, done, total: None)

    def references(self, request: Request, seed: int) -> Models:
        """Train original, Retrain and null.

        Raises:
          InputError: training diverged.
        """
        everything = np.union1d(request.forget, request.retain)
        return Models(
            self._train("Original", everything, seed),
            self._train("Retrain", request.retain, seed + RETRAIN_SEED),
            self._train("null (Retrain, other seed)", request.retain, seed + NULL_SEED),
        )

    def unlearn(
        self,
        label: str,
        setting: Unlearning,
        request: Request,
        original: Trained,
        *,
        seed: int,
        infos: list[UnlearnInfo] | None = None,
    ) -> Trained:
        """Unlearn with one method; `infos` collects what the steps report.

        Raises:
          NonFiniteError: the loss diverged; names the step.
        """
        job = self._preparer(setting, request, original, seed=seed)
        total = len(job.schedule)

        def callback(step, state, info):
            del state
            if infos is not None:
                infos.append(info)
            self._progress(label, step, total)

        self._progress(label, 0, total)
        return execute(
            job,
            original.params,
            original.model_state,
            jax.random.key(seed),
            callback=callback,
        )

    def outputs(self, trained: Trained) -> Outputs:
        """Run a model over the whole data set."""
        return outputs_of(self.model, trained, self.dataset)

    def _train(self, label: str, ids: np.ndarray, seed: int) -> Trained:
        total = self._trainer.steps(len(ids))

        def callback(step, state, info):
            del state, info
            self._progress(label, step, total)

        self._progress(label, 0, total)
        try:
            return self._trainer(self.dataset.train, ids, seed=seed, callback=callback)
        except NonFiniteError as error:
            raise InputError(
                f"training {label} with "
                f"learning_rate={self.plan.training.learning_rate}: {error}; "
                "lower the learning rate"
            ) from error


def experiment(
    plan: Plan,
    dataset: Dataset,
    folder: str | os.PathLike,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a plan and write its folder: configuration, splits, checkpoints, results.

    Args:
      plan: the experiment.
      dataset: its data.
      folder: made if missing; must hold no run.
      progress: called as the phases go on.

    Returns:
      What `results.json` holds.

    Raises:
      InputError: a folder that holds something, a request the data cannot serve, or a
        loss that is not finite (names method, step and last good checkpoint).
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"out={folder} already holds files; choose another folder")
    requests = {seed: draw_request(plan, dataset, seed) for seed in plan.seeds}
    if any(setting.needs_unseen for setting in plan.methods.values()):
        for request, _ in requests.values():
            check_unseen(dataset, request)
    bench = Bench(plan, dataset, progress)
    head = _head(plan, dataset)
    write_atomic(folder / "config.json", to_json(head))
    table = Table(dataset)
    scatter = {}
    for number, (seed, (request, split)) in enumerate(requests.items()):
        save_manifest(
            folder / "splits" / f"seed-{seed}.json", split, unseen=request.unseen
        )
        store = folder / "checkpoints" / f"seed-{seed}"
        everything = np.union1d(request.forget, request.retain)
        models = bench.references(request, seed)
        target = bench.outputs(models.retrained)
        table.start(request, target, seed)

        def keep(
            key,
            label,
            trained,
            ids,
            setting=None,
            *,
            request=request,
            store=store,
            models=models,
            target=target,
        ):
            known = trained is models.retrained
            outputs = target if known else bench.outputs(trained)
            table.add(key, label, outputs, trained.seconds, setting)
            network, unseen = bench.network, request.unseen
            save_model(store / key, trained, network, dataset, ids, unseen)

        keep("retrain", "Retrain", models.retrained, request.retain)
        keep("null", "Null (Retrain, other seed)", models.null, request.retain)
        keep("original", "Original (nothing done)", models.original, everything)
        for label, setting in plan.methods.items():
            infos: list[UnlearnInfo] = []
            try:
                unlearned = bench.unlearn(
                    label, setting, request, models.original, seed=seed, infos=infos
                )
            except NonFiniteError as error:
                raise InputError(
                    f"{label} (seed {seed}, learning_rate={setting.learning_rate}): "
                    f"{error}; lower the learning rate; last good checkpoint: "
                    f"{store / 'original'}"
                ) from error
            keep(_slug(label), label, unlearned, request.retain, setting)
            if number == 0 and setting.weighting != "uniform":
                scatter[_slug(label)] = weights_against_losses(infos)
    text = to_json({**head, "rows": table.summary(), "scatter": scatter})
    write_atomic(folder / "results.json", text)
    return json.loads(text)


def _head(plan: Plan, dataset: Dataset) -> dict[str, Any]:
    return {
        "format": 1,
        "plan": dataclasses.asdict(plan),
        "dataset": dataset_record(dataset),
        "environment": environment(),
    }


def _slug(label: str) -> str:
    kept = "".join(c.lower() if c.isalnum() else "-" for c in label)
    return "-".join(part for part in kept.split("-") if part)
