"""The whole job on a diffusion model: forget one class after another, and compare.

For every seed and every class in turn: the original, Retrain (never saw the class),
the null (Retrain of another seed), and each method from the original. Every model is
kept as it is made, and saved while it is, so that a study goes on where it was cut off.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_unlearn.data import (
    Dataset,
    check_writable,
    digest,
    fingerprint,
    holdout,
    read_json,
    write_atomic,
)
from jax_unlearn.drivers.loop import Callback
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab.generation.grids import COLUMNS
from jax_unlearn.lab.generation.judge import (
    Judge,
    floor_of,
    look,
    train_judge,
)
from jax_unlearn.lab.generation.methods import prepare
from jax_unlearn.lab.generation.models import (
    Generator,
    build,
    describe,
    load_generator,
    save_generator,
)
from jax_unlearn.lab.generation.results import gathered
from jax_unlearn.lab.generation.settings import (
    GeneratorTraining,
    GeneratorUnlearning,
    Sampling,
)
from jax_unlearn.lab.generation.train import GeneratorTrainer
from jax_unlearn.lab.plan import check_labels
from jax_unlearn.lab.results import to_json
from jax_unlearn.lab.settings import Training
from jax_unlearn.lab.stages import Request, Trained, execute
from jax_unlearn.lab.unfinished import SECONDS, unfinished

NULL_SEED = 1000  # added to the seed for the second Retrain

Progress = Callable[[str, int, int], None]
"""`(phase, done, total)`; 0 begins a phase."""


@dataclasses.dataclass(frozen=True)
class GenerationPlan:
    """What a study is made of.

    Attributes:
      title: of the report.
      training: of the diffusion models.
      judge: of the classifier that looks at their images.
      sampling: of all images.
      methods: by label.
      classes: to forget, one at a time.
      seeds: of models, methods and images.
      per_class: images drawn of each class, from each model.
      forget_images: images drawn of the forgotten class.
      unseen_fraction: share of the training images held out.
      null: whether a second Retrain is trained.
      note: where the settings are from.
    """

    title: str
    training: GeneratorTraining
    judge: Training
    sampling: Sampling
    methods: Mapping[str, GeneratorUnlearning]
    classes: tuple[int, ...]
    seeds: tuple[int, ...] = (0,)
    per_class: int = 50
    forget_images: int = 100
    unseen_fraction: float = 0.1
    null: bool = True
    note: str = ""

    def __post_init__(self):
        for name in ("per_class", "forget_images"):
            if getattr(self, name) < COLUMNS:
                raise InputError(
                    f"{name}={getattr(self, name)} must be at least {COLUMNS}"
                )
        check_labels({label: label for label in self.methods})
        for seed in self.seeds:
            check_seed(seed)
        if not self.classes or not self.seeds:
            raise InputError(
                f"classes={self.classes}, seeds={self.seeds}: give 1 or more of each"
            )


def phases(plan: GenerationPlan) -> int:
    """Return how many phases a study reports."""
    models = 1 + len(plan.classes) * (1 + plan.null + len(plan.methods))
    audits = len(plan.classes) * (2 + plan.null + len(plan.methods))
    return 1 + len(plan.seeds) * (models + audits)


def study(
    plan: GenerationPlan,
    dataset: Dataset,
    folder: Path,
    *,
    progress: Progress,
    save_every: float = SECONDS,
) -> dict[str, Any]:
    """Run a study, or go on with it, and return its results.

    Args:
      plan: what to do.
      dataset: of `uint8` images.
      folder: where every model and its figures are kept.
      progress: told what is done.
      save_every: least seconds between two saves of a model in the making; 0 saves
        every step.

    Returns:
      Results, JSON-able; also written to `results.json` in the folder.

    Raises:
      InputError: a class the data do not have, or another plan's folder.
    """
    for c in plan.classes:
        if not (dataset.train.labels == c).any():
            raise InputError(
                f"class {c} has no training images in {dataset.name}; it has "
                f"num_classes={dataset.num_classes}"
            )
    check_writable(folder / "results.json")
    folder.mkdir(parents=True, exist_ok=True)
    _same_plan(plan, folder)
    judge_steps = plan.judge.epochs * -(
        -len(dataset.train.labels) // plan.judge.batch_size
    )
    progress("judge", 0, judge_steps)
    judge = train_judge(
        dataset,
        plan.judge,
        seed=0,
        folder=folder / "judge",
        callback=lambda step, state, info: progress("judge", step, judge_steps),
    )
    trainer = GeneratorTrainer(build(describe(plan.training, dataset)), plan.training)
    runs = []
    for seed in plan.seeds:
        own = folder / f"seed{seed}"
        runs += _Run(plan, dataset, own, seed, judge, trainer, save_every)(progress)
    floors = [floor_of(judge, dataset, c, plan.per_class) for c in plan.classes]
    floor = {"frechet": float(np.mean([found["frechet"] for found in floors]))}
    results = gathered(plan_record(plan), dataset, judge, floor, runs)
    write_atomic(folder / "results.json", to_json(results), overwrite=True)
    return results


class _Run:
    """One seed of a study: an original, and each class forgotten from it."""

    def __init__(self, plan, dataset, folder, seed, judge, trainer, save_every):
        self.plan: GenerationPlan = plan
        self.dataset: Dataset = dataset
        self.folder: Path = folder
        self.seed: int = seed
        self.judge: Judge = judge
        self.trainer: GeneratorTrainer = trainer
        self.generator: Generator = trainer.generator
        self.save_every: float = save_every
        self.trained, self.unseen = holdout(
            dataset.train.labels, fraction=plan.unseen_fraction, seed=seed
        )

    def __call__(self, progress: Progress) -> list[dict[str, Any]]:
        model = self._model("original", self.trained, self._train(self.trained, 0))
        original, _ = model(progress)
        return [self._forget(c, original, progress) for c in self.plan.classes]

    def _forget(
        self, forgotten: int, original: Trained, progress: Progress
    ) -> dict[str, Any]:
        """Return the rows of one forgotten class."""
        labels = self.dataset.train.labels
        inside = labels[self.trained] == forgotten
        request = Request(self.trained[inside], self.trained[~inside], self.unseen)
        name = f"class{forgotten}"
        rows, grids = {}, {}

        def add(key: str, found: tuple[Trained, dict[str, Any]]) -> None:
            trained, details = found
            rows[key], grids[key] = self._figures(
                f"{name}/{key}", trained, forgotten, request, progress
            )
            if details:
                rows[key]["details"] = details

        add("original", (original, {}))
        seeds = {"retrain": 0, **({"null": NULL_SEED} if self.plan.null else {})}
        for key, shift in seeds.items():
            model = self._model(
                f"{name}/{key}", request.retain, self._train(request.retain, shift)
            )
            add(key, model(progress))
        for label, setting in self.plan.methods.items():
            model = self._model(
                f"{name}/{label}",
                request.retain,
                self._unlearn(setting, request, original),
                setting,
            )
            add(label, model(progress))
        jax.clear_caches()  # a compiled step a method: in the end no memory is left
        return {
            "seed": self.seed,
            "class": forgotten,
            "forget_images": len(request.forget),
            "rows": rows,
            "grids": grids,
        }

    def _model(
        self,
        name: str,
        ids: np.ndarray,
        make: Callable[[Callback, Series], tuple[Trained, dict[str, Any]]],
        setting: GeneratorUnlearning | None = None,
    ):
        """Return a function that reads the model, or makes and keeps it.

        `setting` is that of the method; None trains.
        """
        path = self.folder / name / "model"
        total = (setting or self.plan.training).steps

        def ready(progress: Progress) -> tuple[Trained, dict[str, Any]]:
            if path.exists():
                progress(name, 0, 1)
                stored = load_generator(path, self.dataset)
                return stored.trained, stored.record.get("details", {})
            told = {
                "name": name,
                "seed": self.seed,
                "ids": digest(ids),
                "data": fingerprint(self.dataset),
                "training": vars(self.plan.training),
                "method": None if setting is None else vars(setting),
            }
            told = json.loads(json.dumps(told))
            with unfinished(path, told, seconds=self.save_every) as series:
                progress(name, 0, total)
                trained, details = make(
                    lambda step, state, info: progress(name, step, total), series
                )
                save_generator(
                    path,
                    trained,
                    self.generator.network,
                    self.dataset,
                    ids,
                    self.unseen,
                    {"details": details},
                )
            return trained, details

        return ready

    def _train(self, ids: np.ndarray, shift: int):
        def make(callback, series):
            seed = self.seed + shift
            told = {"seed": seed, "callback": callback, "series": series}
            return self.trainer(self.dataset.train, ids, **told), {}

        return make

    def _unlearn(
        self, setting: GeneratorUnlearning, request: Request, original: Trained
    ):
        def make(callback, series):
            job = prepare(
                self.generator,
                original,
                self.dataset.train,
                request,
                setting,
                seed=self.seed,
            )
            key = jax.random.key(self.seed)
            at = original.params, original.model_state
            trained = execute(job, *at, key, callback=callback, series=series)
            return trained, dict(job.details)

        return make

    def _figures(
        self,
        name: str,
        trained: Trained,
        forgotten: int,
        request: Request,
        progress: Progress,
    ) -> tuple[dict[str, Any], str]:
        """Return the figures of a model and its grid, or read them."""
        path = self.folder / name / "figures.json"
        if path.exists():
            kept = read_json(path)
            if not isinstance(kept, dict) or not {"figures", "grid"} <= set(kept):
                raise InputError(f"path={path} holds no figures; delete it to go on")
            progress(f"{name}: images", 0, 1)
            return kept["figures"], kept["grid"]
        plan, total = self.plan, self.plan.sampling.sampling_steps
        progress(f"{name}: images", 0, total)
        figures, grid = look(
            self.generator,
            trained,
            self.judge,
            self.dataset,
            request,
            forgotten,
            plan.sampling,
            counts=(plan.forget_images, plan.per_class),
            seed=self.seed,
            progress=lambda done, steps: progress(
                f"{name}: images", max(1, done * total // steps), total
            ),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"figures": figures, "grid": grid}, allow_nan=False)
        write_atomic(path, text + "\n", overwrite=True)
        return figures, grid


def plan_record(plan: GenerationPlan) -> dict[str, Any]:
    """Return the plan as JSON-able values."""
    return json.loads(json.dumps(dataclasses.asdict(plan)))


def _same_plan(plan: GenerationPlan, folder: Path) -> None:
    """Keep the plan beside its models; refuse a folder of another one.

    Classes, seeds, methods and the note may differ: what is new is added.
    """
    record = plan_record(plan)
    fixed = {
        name: record[name]
        for name in ("training", "judge", "sampling", "per_class", "forget_images")
    }
    fixed["unseen_fraction"] = plan.unseen_fraction
    path, known = folder / "plan.json", dict[str, Any]()
    if path.exists():
        known = read_json(path)
        if not isinstance(known, dict) or not all(
            isinstance(known.get(name), dict) for name in ("fixed", "methods")
        ):
            raise InputError(f"path={path} is no plan; choose another folder")
        if known["fixed"] != fixed:
            both = {**known["fixed"], **fixed}
            different = next(k for k in both if known["fixed"].get(k) != fixed.get(k))
            raise InputError(
                f"{folder} holds another study: its {different} is "
                f"{known['fixed'].get(different)}, not {fixed.get(different)}; choose "
                "another folder"
            )
    methods = {**known.get("methods", {})}
    for label, setting in record["methods"].items():
        if methods.setdefault(label, setting) != setting:
            raise InputError(
                f"{folder} holds {label!r} with other settings; choose another folder, "
                "or another label"
            )
    text = to_json({"fixed": fixed, "methods": methods})
    write_atomic(path, text, overwrite=True)
