"""The main job: original, Retrain, null and every method over seeds, measured alike."""

import json
import os
from pathlib import Path
from typing import Any

import jax

from jax_unlearn.data import (
    Dataset,
    check_writable,
    read_json,
    save_manifest,
    write_atomic,
)
from jax_unlearn.drivers.series import LOCK, locked
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.lab.bench import Bench, Models, Progress
from jax_unlearn.lab.plan import Plan, slug
from jax_unlearn.lab.prepare import check_unseen
from jax_unlearn.lab.requests import Case, draw_cases
from jax_unlearn.lab.results import dataset_record, environment, to_json
from jax_unlearn.lab.store import SECONDS


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
    check_writable(folder / "results.json")
    if not plan.by_distance:
        for seed in plan.seeds:  # what cannot be served is refused before any work
            for case in draw_cases(plan, dataset, seed):
                for setting in plan.methods.values():
                    check_unseen(dataset, case.request, setting)
    bench = Bench(
        plan,
        dataset,
        progress,
        folder=folder / "checkpoints",
        originals=None if originals is None else Path(originals) / "checkpoints",
        save_every=save_every,
    )
    head = _head(plan, dataset)
    results: dict[str, Any] = {}
    with locked(folder):
        _check_resumed(folder, head)
        for seed in plan.seeds:  # before the plan there is written over
            bench.check(seed)
        write_atomic(folder / "config.json", to_json(head), overwrite=resume)
        table = bench.table(folder)
        for seed in plan.seeds:
            for case in bench.cases(seed):
                _one_case(bench, table, folder, case)
            text = to_json({**head, **table.summary()})
            results = json.loads(text)
            if resume or seed == plan.seeds[-1]:
                write_atomic(folder / "results.json", text, overwrite=resume)
    return results


def phases(plan: Plan) -> int:
    """Return how many phases an experiment reports."""
    made = 1 + plan.null + len(plan.methods)  # Retrain, null, methods
    if not plan.classes:
        return len(plan.seeds) * (1 + made)
    # the judge, and for each class every model is made and looked at, the original too
    return 1 + len(plan.seeds) * len(plan.classes) * 2 * (1 + made)


def _one_case(bench: Bench, table: Any, folder: Path, case: Case) -> None:
    """Make, keep and measure all models of a request."""
    if case.split is not None:
        save_manifest(
            folder / "splits" / f"seed-{case.seed}.json",
            case.split,
            unseen=case.request.unseen,
            overwrite=True,
        )
    original = references(bench, table, case).original
    for label, setting in bench.plan.methods.items():
        try:
            done = bench.unlearn(label, setting, case, original)
        except NonFiniteError as error:
            raise InputError(
                f"{label} (seed {case.seed}, learning_rate={setting.learning_rate}): "
                f"{error}; lower the learning rate; last good checkpoint: "
                f"{bench.originals}/seed-{case.seed}/original"
            ) from error
        keep = _figures(folder, case, slug(label))
        table.add(slug(label), label, done.trained, setting, done.notes, keep=keep)
    if case.part:  # a compiled step a method and class: in the end no memory is left
        jax.clear_caches()


def references(bench: Bench, table: Any, case: Case) -> Models:
    """Begin a request's rows with Retrain, the null and the original; return them.

    Args:
      bench: makes them.
      table: gets a row of each.
      case: the request, which Retrain and the null have never seen.

    Raises:
      InputError: training diverged.
    """
    models = bench.references(case)
    table.start(case.request, models.retrained, case.seed)
    for key, label, trained in (
        ("retrain", "Retrain", models.retrained),
        ("null", "Null (Retrain, other seed)", models.null),
        ("original", "Original (nothing done)", models.original),
    ):
        if trained is not None:
            keep = (
                None
                if bench.folder is None
                else _figures(bench.folder.parent, case, key)
            )
            table.add(key, label, trained, keep=keep)
    return models


def _figures(folder: Path, case: Case, key: str) -> Path:
    """Return where what is seen of a model is kept, where that takes long."""
    return folder / "figures" / f"seed-{case.seed}" / case.part / f"{key}.json"


def _head(plan: Plan, dataset: Dataset) -> dict[str, Any]:
    return {
        "format": 1,
        "plan": plan.record(),
        "dataset": dataset_record(dataset),
        "environment": environment(),
    }


def _check_resumed(folder: Path, head: dict[str, Any]) -> None:
    """Refuse to go on with a run of other data or another request."""
    path = folder / "config.json"
    if not path.exists():
        return
    found, wanted = read_json(path), json.loads(to_json(head))
    fixed = ("kind", "fraction", "gamma", "unseen", "training", "judging")
    record = found if isinstance(found, dict) else {}
    plan = record.get("plan")
    plan = plan if isinstance(plan, dict) else {}
    pairs = [("dataset", record.get("dataset"), wanted["dataset"])]
    pairs += [(name, plan.get(name), wanted["plan"].get(name)) for name in fixed]
    for name, before, now in pairs:
        if before != now:
            raise InputError(
                f"out={folder} holds a run of other data, training or request (its "
                f"{_difference(name, before, now)}); choose another folder"
            )


def _difference(name: str, before: Any, now: Any) -> str:
    """Return the first value of a record that is another now, by its dotted path."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now:
            if before.get(key) != now[key]:
                return _difference(f"{name}.{key}", before.get(key), now[key])
    return f"{name} is {str(before)[:40]}"
