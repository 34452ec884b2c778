"""The main job: original, Retrain, null and every method over seeds, measured alike."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import jax

from jax_unlearn import data
from jax_unlearn.drivers.series import LOCK, locked
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.lab.bench import Bench, Models
from jax_unlearn.lab.costs import met
from jax_unlearn.lab.job import Progress, blamed
from jax_unlearn.lab.modalities import modality_of, read_training
from jax_unlearn.lab.plan import Plan, slug
from jax_unlearn.lab.refusals import check_unseen
from jax_unlearn.lab.requests import Case, draw_cases
from jax_unlearn.lab.results import LABELS, difference, head, to_json
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.store import SECONDS

__all__ = ["experiment", "phases", "references"]


def experiment(
    plan: Plan,
    dataset: data.Dataset,
    folder: str | os.PathLike,
    *,
    progress: Progress | None = None,
    resume: bool = False,
    originals: str | os.PathLike | None = None,
    retrains: str | os.PathLike | None = None,
    save_every: float = SECONDS,
) -> dict[str, Any]:
    """Run a plan and write its folder: configuration, splits, checkpoints, results.

    The folder is made if missing, and must hold no run, unless that is resumed: models
    found there are not made again, methods and seeds may be added, and `results.json`,
    which is returned, is written after every seed. `originals` is the folder of another
    run, whose original models are used, `retrains` of one of the same request, for
    Retrain and null; `save_every` is as in `Bench`. A method that diverges on any seed
    has no row; "diverged" says where it did, by label, and so does the plan's note.

    Raises:
      InputError: a folder that holds something else or that another process is
        running in, a request the data cannot serve, or a loss that is not finite: in
        training, or of every method (names method, step and last good checkpoint).
    """
    folder = Path(folder)
    files = [folder] if folder.exists() else []
    if folder.is_dir():
        files = [file for file in folder.iterdir() if file.name != LOCK]
    if files and not resume:
        raise InputError(
            f"out={folder} already holds files; give --resume to go on with them, or "
            "choose another folder"
        )
    data.check_writable(folder / "results.json")
    if not plan.by_model:
        for seed in plan.seeds:  # what cannot be served is refused before any work
            for case in draw_cases(plan, dataset, seed):
                for setting in plan.methods.values():
                    check_unseen(dataset, case.request, setting)
                    kind, classes = modality_of(plan.training), dataset.num_classes
                    origin = Origin(plan.training, seed, classes=classes)
                    met(setting, origin, case.request, kind)
    runs = {"folder": folder, "originals": Path(originals or folder)}
    runs["retrains"] = Path(retrains or folder)
    where: dict[str, Any] = {name: run / "checkpoints" for name, run in runs.items()}
    bench = Bench(plan, dataset, progress, save_every=save_every, **where)
    told = head(plan.record(), dataset)
    results: dict[str, Any] = {}
    diverged: dict[str, str] = {}
    with locked(folder):
        _check_resumed(folder, told)
        for seed in plan.seeds:  # before the plan there is written over
            bench.check(seed)
        data.write_atomic(folder / "config.json", to_json(told), overwrite=resume)
        table = bench.table(folder)
        for seed in plan.seeds:
            for case in bench.cases(seed):
                _one_case(bench, table, folder, case, diverged)
            text = to_json(_told(told, diverged) | table.summary())
            results = json.loads(text)
            if resume or seed == plan.seeds[-1]:
                data.write_atomic(folder / "results.json", text, overwrite=resume)
    return results


def phases(plan: Plan) -> int:
    """Return how many phases an experiment reports."""
    made = 1 + plan.null + len(plan.methods)  # Retrain, null, methods
    if plan.judging is None and not plan.classes:
        return len(plan.seeds) * (1 + made)
    # the judge, and for each class every model is made and looked at, the original too
    return 1 + len(plan.seeds) * max(len(plan.classes), 1) * 2 * (1 + made)


def _told(head: dict[str, Any], diverged: dict[str, str]) -> dict[str, Any]:
    """Return what results begin with, and why rows are missing, if any are."""
    if not diverged:
        return head
    plan = head["plan"]
    note = [plan["note"]] if plan.get("note") else []
    note += [f"No row, because it diverged: {why}." for why in diverged.values()]
    return {**head, "plan": {**plan, "note": " ".join(note)}, "diverged": diverged}


def _one_case(
    bench: Bench, table: Any, folder: Path, case: Case, diverged: dict[str, str]
) -> None:
    """Make, keep and measure all models of a request; add to what diverged."""
    if case.split is not None:
        path = folder / "splits" / f"seed-{case.seed}.json"
        data.save_manifest(path, case.split, unseen=case.request.unseen, overwrite=True)
    original = references(bench, table, case).original
    for label, setting in bench.plan.methods.items():
        if label in diverged:
            continue
        last = Path(f"{bench.originals}/seed-{case.seed}/original")
        what = f"{label} (seed {case.seed})", setting.learning_rate
        try:
            done = bench.unlearn(label, setting, case, original)
        except NonFiniteError as error:
            diverged[label] = f"{what[0]} with learning_rate={what[1]:g}, {error}"
            table.drop(label)
            if len(diverged) == len(bench.plan.methods):  # no table without a row
                with blamed(*what, last):
                    raise
            continue
        keep = _figures(bench, case, slug(label))
        notes = {**done.notes, "cost": bench.cost(setting, case)}
        table.add(slug(label), label, done.trained, setting, notes, keep=keep)
    if case.part:  # a compiled step a method and class: in the end no memory is left
        jax.clear_caches()


def references(bench: Bench, table: Any, case: Case) -> Models:
    """Begin a request's rows with Retrain, the null and the original; return them."""
    models = bench.references(case)
    table.start(case.request, models.retrained, case.seed)
    if bench.plan.probes:
        table.original = models.original
    trained = models.retrained, models.null, models.original
    for (key, label), model in zip(LABELS.items(), trained, strict=True):
        if model is not None:
            table.add(key, label, model, keep=_figures(bench, case, key))
    return models


def _figures(bench: Bench, case: Case, key: str) -> Path | None:
    """Return where what is seen of a model is kept, where that takes long."""
    if bench.folder is None:
        return None
    figures = bench.folder.parent / "figures"
    return figures / f"seed-{case.seed}" / case.part / f"{key}.json"


def _check_resumed(folder: Path, told: dict[str, Any]) -> None:
    """Refuse to go on with a run of other data or another request."""
    path = folder / "config.json"
    if not path.exists():
        return
    found, wanted = _fixed(data.read_json(path)), _fixed(json.loads(to_json(told)))
    if found != wanted:
        raise InputError(
            f"out={folder} holds a run of other data, training or request (its "
            f"{difference(found, wanted)}); choose another folder"
        )


def _fixed(record: Any) -> dict[str, Any]:
    """Return what a run that is gone on with must agree in."""
    record = record if isinstance(record, dict) else {}
    plan = record.get("plan")
    names = ("kind", "fraction", "gamma", "unseen", "training", "judging")
    told = {name: plan.get(name) if isinstance(plan, dict) else None for name in names}
    training = told["training"]
    if isinstance(training, dict):
        with contextlib.suppress(InputError, TypeError):  # of a kind not known here
            # fields that a training did not have then are at their defaults
            told["training"] = vars(read_training(training))
    return {"dataset": record.get("dataset"), **told}
