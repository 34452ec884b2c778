"""The search of settings: equal trials for every method, on seeds kept for it."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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

_Row = tuple[Unlearning, dict[str, Any]]


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


def _best(rows: Sequence[_Row]) -> Unlearning:
    finite = [row for row in rows if row[1]["avg_gap"] is not None]
    return min(finite, key=lambda row: row[1]["avg_gap"])[0]


def _key(setting: Unlearning) -> str:
    return json.dumps(dataclasses.asdict(setting), sort_keys=True)


def trials(fixed: Mapping[str, Any], grid: Mapping[str, Any]) -> Iterator[Unlearning]:
    """Yield the settings of a grid.

    >>> [s.epochs for s in trials({"method": "salun"}, {"epochs": (2, 4)})]
    [2, 4]
    """
    for values in itertools.product(*grid.values()):
        yield Unlearning(**fixed, **dict(zip(grid, values, strict=True)))


def around(tried: Collection[float], best: float) -> tuple[float, float]:
    """Return the values to try next, under and over the best of those tried.

    The geometric mean with the next value there; past the last one, as far as the last
    step went, or a factor of three where there was none; to two digits.

    >>> around([0.001, 0.003, 0.01], 0.003)
    (0.0017, 0.0055)
    >>> around([0.001, 0.003, 0.01], 0.01)
    (0.0055, 0.033)
    """
    values = sorted(set(tried))
    under = [value for value in values if value < best]
    over = [value for value in values if value > best]
    far = 3.0 if not under + over else (over[0] if over else under[-1]) / best
    far = max(far, 1 / far)
    down = (best * under[-1]) ** 0.5 if under else best / far
    up = (best * over[0]) ** 0.5 if over else best * far
    return float(f"{down:.2g}"), float(f"{up:.2g}")


def search(
    plan: Plan,
    dataset: Dataset,
    grids: Grids,
    say: Callable[[str], None],
    *,
    rounds: int = 0,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Try every setting of every method on the plan's seeds and choose the best.

    The best has the smallest mean Avg. Gap; one that diverges on a seed is never
    chosen. In each of the rounds that follow, two more values of the first option of
    the grid are tried beside the best so far: no grid is chosen so well that its best
    never lies at its edge.

    Args:
      plan: with the search seeds; its methods are not read.
      dataset: its data.
      grids: what is tried.
      say: told a line for each trial.
      rounds: how often to look closer after the grid, two trials each.
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

    def row_of(label: str, setting: Unlearning, varied: Iterable[str]) -> _Row:
        row = finished.get(setting)
        if row is None:
            told = {name: getattr(setting, name) for name in varied}
            row = finished.put(setting, told | trial(label, setting))
        say(f"{label}: {row}")
        return setting, row

    settings, table = {}, {}
    for label, (fixed, grid) in grids.items():
        rows = [row_of(label, setting, grid) for setting in trials(fixed, grid)]
        first = next(iter(grid))
        for _ in range(rounds):
            best = _best(rows)
            tried = [getattr(setting, first) for setting, _ in rows]
            for value in around(tried, getattr(best, first)):
                other = dataclasses.replace(best, **{first: value})
                rows.append(row_of(label, other, grid))
        settings[label] = dataclasses.asdict(_best(rows))
        table[label] = [row for _, row in rows]
    return {
        "settings": settings,
        "trials": max(len(rows) for rows in table.values()),
        "search_seeds": list(plan.seeds),
        "training": vars(plan.training),
        "table": table,
        "environment": environment(),
    }
