"""The search of settings: equal trials for every method, on seeds kept for it."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import Dataset
from jax_unlearn.errors import NonFiniteError
from jax_unlearn.pipeline import Bench, Plan, Unlearning
from jax_unlearn.pipeline.results import environment
from jax_unlearn.pipeline.stages import measure

Grids = Mapping[str, tuple[dict[str, Any], dict[str, Sequence[Any]]]]
"""By method: what is fixed, and the values tried of what is not."""


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
      folder: where the trained models are kept, to be found again; None keeps nothing.

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
                done = bench.unlearn(
                    label, setting, request, original, seed=seed, keep=False
                )
            except NonFiniteError:
                return {"avg_gap": None, "deviation": None}  # diverged: never chosen
            outputs = bench.outputs(done.trained)
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

    settings, table = {}, {}
    for label, (fixed, grid) in grids.items():
        rows = []
        for setting in trials(fixed, grid):
            varied = {name: getattr(setting, name) for name in grid}
            row = varied | trial(label, setting)
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
