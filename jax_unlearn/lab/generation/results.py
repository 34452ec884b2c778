"""Results of generation: rows over all runs, JSON-able, as reports read them."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn.audit import load_inception
from jax_unlearn.data import Dataset
from jax_unlearn.errors import InputError
from jax_unlearn.lab.generation.judge import (
    Fid,
    Judge,
    floor_of,
    look,
    train_judge,
)
from jax_unlearn.lab.generation.models import Stored
from jax_unlearn.lab.generation.settings import Sampling
from jax_unlearn.lab.results import dataset_record, environment
from jax_unlearn.lab.settings import Training
from jax_unlearn.lab.stages import Request

FORMAT = 1
FIGURES = (
    "ua",
    "retained_accuracy",
    "frechet",
    "fid",
    "forget_error",
    "unseen_error",
    "retain_error",
)
TARGETED = ("ua", "retained_accuracy", "frechet", "fid")


def gathered(
    plan: Mapping[str, Any],
    dataset: Dataset,
    judge: Judge,
    floor: Mapping[str, float],
    runs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the results of runs that have the same rows.

    Args:
      plan: JSON-able, with a "title".
      dataset: real images.
      judge: of all images.
      floor: distances of as many real images, by name.
      runs: each with "seed", "class", "rows" and "grids".
    """
    rows = {}
    for key in runs[0]["rows"]:
        found = [run["rows"][key] for run in runs]
        row = {
            name: _spread([r[name] for r in found])
            for name in FIGURES
            if all(name in r for r in found)
        }
        if all("retrain" in run["rows"] for run in runs):
            for name in (n for n in TARGETED if n in row):
                targets = [run["rows"]["retrain"][name] for run in runs]
                gaps = [abs(r[name] - t) for r, t in zip(found, targets, strict=True)]
                row[f"{name}_gap"] = _spread(gaps)
        times = [r["seconds"] for r in found]
        row["seconds"] = _spread([t.get("prepare", 0) + t.get("run", 0) for t in times])
        rows[key] = row
    return {
        "kind": "generation",
        "format": FORMAT,
        "plan": dict(plan),
        "dataset": dataset_record(dataset),
        "environment": environment(),
        "judge": {"accuracy": judge.accuracy, "by_class": judge.by_class},
        "floor": dict(floor),
        "rows": rows,
        "runs": [dict(run) for run in runs],
    }


def audit_models(
    stored: Mapping[str, Stored],
    dataset: Dataset,
    setting: Training,
    sampling: Sampling,
    *,
    forget: int,
    per_class: int,
    seed: int,
    progress: Any,
    inception: Path | None = None,
) -> dict[str, Any]:
    """Return the results of models on disk, by label.

    Args:
      stored: models by label; "original", and perhaps "retrain" and "null".
      dataset: real images.
      setting: how the judge is trained.
      sampling: how images are drawn.
      forget: the class that was to be forgotten.
      per_class: images of each class.
      seed: of all noise.
      progress: told (phase, done, total).
      inception: file of weights, as `audit.load_inception` reads it, for FID; None
        leaves it out.

    Raises:
      InputError: fewer than two images of each class, or weights of another network.
    """
    if per_class < 2:
        raise InputError(
            f"per_class={per_class} must be at least 2: a distance needs a spread; "
            "try 50"
        )
    weights = None if inception is None else load_inception(inception)
    steps = setting.epochs * -(-len(dataset.train.labels) // setting.batch_size)
    progress("judge", 0, steps)
    judge = train_judge(
        dataset,
        setting,
        seed=0,
        callback=lambda step, state, info: progress("judge", step, steps),
    )
    ids = stored["original"].ids
    inside = dataset.train.labels[ids] == forget
    request = Request(ids[inside], ids[~inside], stored["original"].unseen)
    rows, grids = {}, {}
    fid = None
    if weights is not None:
        progress("FID: real images", 0, 1)
        fid = Fid(
            weights,
            dataset.test,
            [forget],
            progress=lambda done, total: progress("FID: real images", done, total),
        )
    total = sampling.sampling_steps
    for label, model in stored.items():
        progress(f"{label}: images", 0, total)
        rows[label], grids[label] = look(
            model.generator,
            model.trained,
            judge,
            dataset,
            request,
            forget,
            sampling,
            counts=(per_class, per_class),
            seed=seed,
            fid=fid,
            progress=lambda done, all_, label=label: progress(
                f"{label}: images", max(1, done * total // all_), total
            ),
        )
        if "attacks" in model.record:
            rows[label]["details"] = {"attacks": model.record["attacks"]}
    run = {
        "seed": seed,
        "class": forget,
        "forget_images": len(request.forget),
        "rows": rows,
        "grids": grids,
    }
    plan = {
        "title": f"{dataset.name}: forget {dataset.class_names[forget]!r}",
        "sampling": vars(sampling),
        "judge": vars(setting),
        "per_class": per_class,
        "inception": None if inception is None else _file_record(inception),
        "methods": {
            label: model.record["unlearning"]
            for label, model in stored.items()
            if "unlearning" in model.record
        },
    }
    floor = floor_of(judge, dataset, forget, per_class, fid)
    return gathered(plan, dataset, judge, floor, [run])


def short(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results without images, as they are kept beside a recipe."""
    runs = [
        {
            **run,
            "grids": {},
            "rows": {
                key: {n: v for n, v in row.items() if n != "confusion"}
                for key, row in run["rows"].items()
            },
        }
        for run in results["runs"]
    ]
    return {**results, "runs": runs}


def _file_record(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": sha256(path.read_bytes()).hexdigest()}


def _spread(values: list[float]) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "per_run": list(values)}
