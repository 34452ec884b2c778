"""The search of settings: equal trials for every method, on seeds kept for it."""

import dataclasses
import importlib.resources
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import Dataset, fingerprint, read_json, write_atomic
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.lab import Bench, Plan, Unlearning
from jax_unlearn.lab.results import environment, to_json
from jax_unlearn.lab.stages import measure

Grids = Mapping[str, tuple[dict[str, Any], dict[str, Sequence[Any]]]]
"""By method: what is fixed, and the values tried of what is not."""

_Row = tuple[Unlearning, dict[str, Any]]


class _Finished:
    """The trials of a search, kept in a file as they are done."""

    def __init__(self, plan: Plan, dataset: Dataset, folder: Path | None):
        asked = dataclasses.asdict(plan) | {"dataset": fingerprint(dataset)}
        self._path = None if folder is None else folder / "trials.json"
        self._found: dict[str, Any] = {"plan": json.loads(to_json(asked)), "trials": {}}
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

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the row of a finished trial."""
        return self._found["trials"].get(key)

    def put(self, key: str, row: dict[str, Any]) -> dict[str, Any]:
        """Keep and return a row."""
        self._found["trials"][key] = row
        if self._path is not None:
            write_atomic(self._path, to_json(self._found), overwrite=True)
        return row


def _ranked(label: str, rows: Iterable[_Row], by: str = "avg_gap") -> list[_Row]:
    """Return the rows that did not diverge, the best first."""
    finite = [row for row in rows if row[1][by] is not None]
    if not finite:
        raise InputError(f"{label}: no setting stays finite; search smaller rates")
    return sorted(finite, key=lambda row: row[1][by])


def _key(setting: Unlearning, seeds: Sequence[int] = ()) -> str:
    """Return the key of a trial on the plan's seeds, or on others."""
    key = json.dumps(setting.flat(), sort_keys=True)
    return key if not seeds else f"{key} on {list(seeds)}"


def trials(fixed: Mapping[str, Any], grid: Mapping[str, Any]) -> Iterator[Unlearning]:
    """Yield the settings of a grid.

    >>> [s.epochs for s in trials({"method": "salun"}, {"epochs": (2, 4)})]
    [2, 4]
    """
    for values in itertools.product(*grid.values()):
        yield Unlearning.of(**fixed, **dict(zip(grid, values, strict=True)))


def told(setting: Unlearning) -> dict[str, Any]:
    """Return what has to be said of a setting: the rest has its default.

    >>> told(Unlearning.of(method="salun", epochs=4))
    {'method': 'salun', 'weighting': 'uniform', 'epochs': 4}
    """
    values = setting.flat()
    named = {name: values[name] for name in ("method", "weighting")}
    usual = Unlearning.of(**named).flat()
    return named | {k: value for k, value in values.items() if usual[k] != value}


def text_of(found: Mapping[str, Any]) -> str:
    """Return what a search found as JSON, a trial a line.

    >>> print(text_of({"FT": [{"epochs": 2, "avg_gap": 3.5}]}).replace(" ", ""))
    {
    "FT":[
    {"epochs":2,"avg_gap":3.5}
    ]
    }
    """
    flat = r"\{[^{}\[\]]+\}"
    return re.sub(flat, lambda row: re.sub(r"\n\s*", " ", row[0]), to_json(found))


def stored(name: str) -> dict[str, Any]:
    """Return what a search found, as the package keeps it: by part of the recipe."""
    kept = importlib.resources.files("jax_unlearn.recipes").joinpath("settings")
    return json.loads(kept.joinpath(f"{name}.json").read_text())


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


class Final(NamedTuple):
    """A second look at the best trials of a method.

    Attributes:
      trials: how many of them.
      seeds: on which they are tried again, others than those of the plan.
    """

    trials: int
    seeds: tuple[int, ...]


class _Trials:
    """Runs of one setting on several seeds; a seed is prepared when first asked for."""

    def __init__(self, plan: Plan, dataset: Dataset, folder: Path | None):
        self._bench = Bench(plan, dataset, folder=folder)
        self._dataset = dataset
        self._cases: dict[int, Any] = {}

    def _case(self, seed: int) -> Any:
        if seed not in self._cases:
            request, _ = self._bench.request(seed)
            original = self._bench.original(seed)
            target = self._bench.outputs(self._bench.retrained(request, seed))
            goal = measure(target, self._dataset, request, seed=seed)
            self._cases[seed] = request, original, target, goal
        return self._cases[seed]

    def __call__(
        self, label: str, setting: Unlearning, seeds: Sequence[int]
    ) -> dict[str, Any]:
        """Return mean Avg. Gap and deviation, None where a seed diverges."""
        gaps, deviations = [], []
        for seed in seeds:
            request, original, target, goal = self._case(seed)
            try:
                made = self._bench.unlearn(
                    label, setting, request, original, seed=seed, keep=False
                )
            except NonFiniteError:
                return {"avg_gap": None, "deviation": None}
            outputs = self._bench.outputs(made.trained)
            metrics = measure(outputs, self._dataset, request, seed=seed)
            gaps.append(audit.avg_gap(metrics, goal))
            deviations.append(
                audit.per_sample_deviation(
                    outputs.confidence(self._dataset, request.forget),
                    target.confidence(self._dataset, request.forget),
                )
            )
        return {
            "avg_gap": float(np.mean(gaps)),
            "deviation": float(np.mean(deviations)),
        }


def search(
    plan: Plan,
    dataset: Dataset,
    grids: Grids,
    say: Callable[[str], None],
    *,
    rounds: int = 0,
    final: Final | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Try every setting of every method on the plan's seeds and choose the best.

    The best has the smallest mean Avg. Gap; one that diverges on a seed is never
    chosen. In each of the rounds that follow, two more values of the first option of
    the grid are tried beside the best so far: no grid is chosen so well that its best
    never lies at its edge. Few seeds flatter some trial by chance, so that the best
    may be tried once more on others, and the mean over all seeds decides among them.

    Args:
      plan: with the search seeds; its methods are not read.
      dataset: its data.
      grids: what is tried.
      say: told a line for each trial.
      rounds: how often to look closer after the grid, two trials each.
      final: the second look, if there is one.
      folder: where the trained models and the finished trials are kept, so that a
        search goes on where it stopped; None keeps nothing.

    Returns:
      JSON-able: "settings" by method, "table" of all trials, seeds, environment.

    Raises:
      InputError: the folder holds trials of another plan; a method always diverges.
    """
    finished = _Finished(plan, dataset, folder)
    trial = _Trials(plan, dataset, folder)

    def row_of(
        label: str, setting: Unlearning, varied: Iterable[str], seeds: Sequence[int]
    ) -> dict[str, Any]:
        key = _key(setting, () if seeds is plan.seeds else seeds)
        row = finished.get(key)
        if row is None:
            values = setting.flat()
            tried = {name: values[name] for name in varied}
            row = finished.put(key, tried | trial(label, setting, seeds))
        say(f"{label}: {row}")
        return dict(row)

    settings, table = {}, {}
    for label, (fixed, grid) in grids.items():
        rows = [
            (setting, row_of(label, setting, grid, plan.seeds))
            for setting in trials(fixed, grid)
        ]
        first = next(iter(grid))
        for _ in range(rounds):
            best, _ = _ranked(label, rows)[0]
            tried = [setting.flat()[first] for setting, _ in rows]
            for value in around(tried, best.flat()[first]):
                other = best.but(**{first: value})
                rows.append((other, row_of(label, other, grid, plan.seeds)))
        best = _ranked(label, rows)
        if final is not None:
            shares = len(plan.seeds), len(final.seeds)
            for setting, row in best[: final.trials]:
                again = row_of(label, setting, grid, final.seeds)["avg_gap"]
                row["all_seeds"] = None
                if again is not None:
                    mean = np.average((row["avg_gap"], again), weights=shares)
                    row["all_seeds"] = float(mean)
            best = _ranked(label, best[: final.trials], "all_seeds")
        settings[label] = told(best[0][0])
        table[label] = [row for _, row in rows]
    return {
        "settings": settings,
        "trials": max(len(rows) for rows in table.values()),
        "search_seeds": list(plan.seeds),
        "final": None if final is None else final._asdict(),
        "training": vars(plan.training),
        "table": table,
        "environment": environment(),
    }
