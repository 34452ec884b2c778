"""The main job: original, Retrain, null and every method over seeds, measured alike."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from jax_unlearn.data import Dataset, read_json, save_manifest, write_atomic
from jax_unlearn.drivers.locks import LOCK, locked
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.lab.bench import Bench, Models, Progress, draw_request
from jax_unlearn.lab.plan import Plan, slug
from jax_unlearn.lab.prepare import check_unseen
from jax_unlearn.lab.results import Table, dataset_record, environment, to_json
from jax_unlearn.lab.stages import Request
from jax_unlearn.lab.unfinished import SECONDS


def experiment(
    plan: Plan,
    dataset: Dataset,
    folder: str | os.PathLike,
    *,
    progress: Progress | None = None,
    resume: bool = False,
    originals: str | os.PathLike | None = None,
    save_every: float = SECONDS,
) -> dict[str, Any]:
    """Run a plan and write its folder: configuration, splits, checkpoints, results.

    Args:
      plan: the experiment.
      dataset: its data.
      folder: made if missing; must hold no run, unless it is resumed.
      progress: called as the phases go on.
      resume: go on with the run in the folder: models found there are not made again,
        methods and seeds may be added. `results.json` is written after every seed.
      originals: folder of another run, whose original models are used.
      save_every: least seconds between two saves of a model in the making, which a
        resumed run goes on from; 0 saves every step.

    Returns:
      What `results.json` holds.

    Raises:
      InputError: a folder that holds something else or that another process is
        running in, a request the data cannot serve,
        or a loss that is not finite (names method, step and last good checkpoint).
    """
    folder = Path(folder)
    if (
        not resume
        and folder.exists()
        and (not folder.is_dir() or any(f.name != LOCK for f in folder.iterdir()))
    ):
        raise InputError(
            f"out={folder} already holds files; resume it, or choose another folder"
        )
    if not plan.by_distance:
        for seed in plan.seeds:  # what cannot be served is refused before any work
            request, _ = draw_request(plan, dataset, seed)
            for setting in plan.methods.values():
                check_unseen(dataset, request, setting)
    bench = Bench(
        plan,
        dataset,
        progress,
        folder=folder / "checkpoints",
        originals=None if originals is None else Path(originals) / "checkpoints",
        save_every=save_every,
    )
    head = _head(plan, dataset)
    table = Table(dataset)
    results: dict[str, Any] = {}
    with locked(folder):
        _check_resumed(folder, head)
        for seed in plan.seeds:  # before the plan there is written over
            for label, setting in plan.methods.items():
                bench.check(label, setting, seed=seed)
        write_atomic(folder / "config.json", to_json(head), overwrite=resume)
        for seed in plan.seeds:
            _one_seed(bench, table, folder, seed)
            text = to_json({**head, **table.summary()})
            results = json.loads(text)
            if resume or seed == plan.seeds[-1]:
                write_atomic(folder / "results.json", text, overwrite=resume)
    return results


def _one_seed(bench: Bench, table: Table, folder: Path, seed: int) -> None:
    """Make, keep and measure all models of a seed."""
    request, split = bench.request(seed)
    save_manifest(
        folder / "splits" / f"seed-{seed}.json",
        split,
        unseen=request.unseen,
        overwrite=True,
    )
    models = references(bench, table, request, seed)
    for label, setting in bench.plan.methods.items():
        try:
            done = bench.unlearn(label, setting, request, models.original, seed=seed)
        except NonFiniteError as error:
            raise InputError(
                f"{label} (seed {seed}, learning_rate={setting.learning_rate}): "
                f"{error}; lower the learning rate; last good checkpoint: "
                f"{bench.originals}/seed-{seed}/original"
            ) from error
        outputs = bench.outputs(done.trained)
        seconds = done.trained.seconds
        table.add(slug(label), label, outputs, seconds, setting, done.notes)


def references(bench: Bench, table: Table, request: Request, seed: int) -> Models:
    """Begin a seed of a table with Retrain, the null and the original; return them.

    Args:
      bench: makes them.
      table: gets a row of each.
      request: whom Retrain and the null have never seen.
      seed: of the models, and of the table's attack.

    Raises:
      InputError: training diverged.
    """
    models = bench.references(request, seed)
    target = bench.outputs(models.retrained)
    table.start(request, target, seed)
    table.add("retrain", "Retrain", target, models.retrained.seconds)
    for key, label, trained in (
        ("null", "Null (Retrain, other seed)", models.null),
        ("original", "Original (nothing done)", models.original),
    ):
        table.add(key, label, bench.outputs(trained), trained.seconds)
    return models


def _head(plan: Plan, dataset: Dataset) -> dict[str, Any]:
    return {
        "format": 1,
        "plan": dataclasses.asdict(plan),
        "dataset": dataset_record(dataset),
        "environment": environment(),
    }


def _check_resumed(folder: Path, head: dict[str, Any]) -> None:
    """Refuse to go on with a run of other data or another request."""
    path = folder / "config.json"
    if not path.exists():
        return
    found, wanted = read_json(path), json.loads(to_json(head))
    fixed = ("kind", "fraction", "gamma", "unseen", "training")
    record = found if isinstance(found, dict) else {}
    plan = record.get("plan")
    same = record.get("dataset") == wanted["dataset"] and (
        isinstance(plan, dict)
        and all(plan.get(name) == wanted["plan"][name] for name in fixed)
    )
    if not same:
        raise InputError(
            f"out={folder} holds a run of other data, training or request; choose "
            "another folder"
        )
