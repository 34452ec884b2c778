"""The search of settings: equal trials for every method, on seeds kept for it."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import Dataset, fingerprint, read_json, write_atomic
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.pipeline import Bench, Plan, Unlearning
from jax_unlearn.pipeline.results import environment, to_json
from jax_unlearn.pipeline.stages import measure

Grids = Mapping[str, tuple[dict[str, Any], dict[str, Sequence[Any]]]]
"""By method: what is fixed, and the values tried of what is not."""


class _Finished:
    """The trials of a search, kept in a file as they are done."""

    def __init__(self, plan: Plan, dataset: Dataset, folder: Path | None):
        told = dataclasses.asdict(plan) | {"dataset": fingerprint(dataset)}
        self._path = None if folder is None else folder / "trials.json"
        self._found: dict[str, Any] = {"plan": json.loads(to_json(told)), "trials": {}}
        if self._path is None or not self._path.exists():
            return
        found = read_json(self._path)
        if (
            not isinstance(found, dict)
            or found.get("plan") != self._found["plan"]
            or not isinstance(found.get("trials"), dict)
        ):
            raise InputError(
                f"{self._path} holds trials of another plan; choose another folder"
            )
        self._found = found

    def get(self, setting: Unlearning) -> dict[str, Any] | None:
        """Return the row of a finished trial."""
        return self._found["trials"].get(_key(setting))

    def put(self, setting: Unlearning, row: dict[str, Any]) -> dict[str, Any]:
        """Keep and return a row."""
        self._found["trials"][_key(setting)] = row
        if self._path is not None:
            write_atomic(self._path, to_json(self._found), overwrite=True)
        return row


def _key(setting: Unlearning) -> str:
    return json.dumps(dataclasses.asdict(setting), sort_keys=True)


def trials(fixed: Mapping[str, Any], grid: Mapping[str, Any]) -> Iterator[Unlearning]:
    """Yield the settings of a grid.

    >>> [s.epochs for s in trials({"method": "salun"}, {"epochs": (2, 4)})]
    [2, 4]
    """
    for values in itertools.product(*grid.values()):
        yield Unlearning(**fixed, **dict(zip(grid, values, strict=True)))


def search(
    plan: Plan,
    dataset: Dataset,
    grids: Grids,
    say: Callable[[str], None],
    *,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Try every setting of every method on the plan's seeds and choose the best.

    The best has the smallest mean Avg. Gap; one that diverges on a seed is never
    chosen.

    Args:
      plan: with the search seeds; its methods are not read.
      dataset: its data.
      grids: what is tried.
      say: told a line for each trial.
      folder: where the trained models and the finished trials are kept, so that a
        search goes on where it stopped; None keeps nothing.

    Returns:
      JSON-able: "settings" by method, "table" of all trials, seeds, environment.
    """
    bench = Bench(plan, dataset, folder=folder)
    cases = []
    for seed in plan.seeds:
        request, _ = bench.request(seed)
        original = bench.original(seed)
        target = bench.outputs(bench.retrained(request, seed))
        goal = measure(target, dataset, request, seed=seed)
        cases.append((seed, request, original, target, goal))

    def trial(label: str, setting: Unlearning) -> dict[str, Any]:
        gaps, deviations = [], []
        for seed, request, original, target, goal in cases:
            try:
                made = bench.unlearn(
                    label, setting, request, original, seed=seed, keep=False
                )
            except NonFiniteError:
                return {"avg_gap": None, "deviation": None}  # diverged: never chosen
            outputs = bench.outputs(made.trained)
            metrics = measure(outputs, dataset, request, seed=seed)
            gaps.append(audit.avg_gap(metrics, goal))
            deviations.append(
                audit.per_sample_deviation(
                    outputs.confidence(dataset, request.forget),
                    target.confidence(dataset, request.forget),
                )
            )
        return {
            "avg_gap": float(np.mean(gaps)),
            "deviation": float(np.mean(deviations)),
        }

    finished = _Finished(plan, dataset, folder)
    settings, table = {}, {}
    for label, (fixed, grid) in grids.items():
        rows = []
        for setting in trials(fixed, grid):
            varied = {name: getattr(setting, name) for name in grid}
            row = finished.get(setting)
            if row is None:
                row = finished.put(setting, varied | trial(label, setting))
            rows.append((row["avg_gap"], setting, row))
            say(f"{label}: {row}")
        finite = [row for row in rows if row[0] is not None]
        settings[label] = dataclasses.asdict(min(finite, key=lambda row: row[0])[1])
        table[label] = [row for _, _, row in rows]
    return {
        "settings": settings,
        "trials": max(len(rows) for rows in table.values()),
        "search_seeds": list(plan.seeds),
        "training": vars(plan.training),
        "table": table,
        "environment": environment(),
    }
