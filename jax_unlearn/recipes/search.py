"""The search of settings: equal trials for every method, on seeds kept for it.

Cards and `grids/` say what is tried, `settings/` what was found.
"""

import functools
import itertools
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.data import Dataset, fingerprint, read_json, write_atomic
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.lab import Bench, Plan, Unlearning
from jax_unlearn.lab.costs import TooLittle
from jax_unlearn.lab.results import environment, to_json
from jax_unlearn.lab.space import grid_of as grid_of
from jax_unlearn.lab.space import told as told
from jax_unlearn.lab.store import same
from jax_unlearn.lab.surrogates import Distance

__all__ = ["Final", "Grids", "Row", "Trials", "Yardstick", "around", "grid_of"]
__all__ += ["search", "text_of", "told", "trials"]

Grids = Mapping[str, Mapping[str, Any]]
"""By method: flat values of its settings; a tuple holds the values that are tried."""

MOST = {"shrink": 1.0}
"""Largest values of what is searched: with λ over 1 nothing would be reset."""

Row = dict[str, Any]
"""A trial: the values tried, "avg_gap" and "deviation"; None where it diverged, or was
given a budget in which it cannot take a step."""


class Final(NamedTuple):
    """How many of a method's best trials are tried again, and on which other seeds."""

    trials: int
    seeds: tuple[int, ...]


class Yardstick:
    """A request of one seed, and how far models of it are from Retrain."""

    def __init__(self, bench: Bench, seed: int):
        self.bench, self.seed = bench, seed
        self.case = bench.case(seed)
        self.request = self.case.request
        self.original = bench.original(seed)
        given = bench.subject, self.request, bench.retrained(self.case), seed
        self.distances = Distance(*given)


class Trials:
    """Trials on several seeds, kept in a file; a seed is prepared when first asked."""

    def __init__(self, bench: Bench):
        self._bench, folder = bench, bench.folder
        self.yardstick = functools.cache(functools.partial(Yardstick, bench))
        record = bench.plan.record() | {"dataset": fingerprint(bench.dataset)}
        asked = json.loads(to_json(record))
        self.asked = asked
        self._found = {"plan": asked, "trials": {}}
        self._path = None if folder is None else folder / "trials.json"
        if self._path is not None and self._path.exists():
            found = read_json(self._path)
            trials = found.get("trials") if isinstance(found, dict) else None
            if not isinstance(trials, dict) or not same(found.get("plan", {}), asked):
                raise InputError(
                    f"{self._path} holds trials of another plan; choose another folder"
                )
            self._found = found

    def __call__(self, label: str, setting: Unlearning, seeds: Sequence[int]) -> Row:
        """Return mean Avg. Gap and deviation, None where a seed diverges."""
        key = self._key(setting, seeds)
        if key not in self._found["trials"]:
            self._found["trials"][key] = self._row(label, setting, seeds)
            if self._path is not None:
                write_atomic(self._path, to_json(self._found), overwrite=True)
        row = self._found["trials"][key]
        return {name: row[name] for name in ("avg_gap", "deviation")}

    def known(self, setting: Unlearning, seeds: Sequence[int]) -> bool:
        """Return whether the file has a trial."""
        return self._key(setting, seeds) in self._found["trials"]

    def _key(self, setting: Unlearning, seeds: Sequence[int]) -> str:
        others = tuple(seeds) != self._bench.plan.seeds
        told = json.dumps(setting.flat(), sort_keys=True)
        return f"{told} on {list(seeds)}" if others else told

    def _row(self, label: str, setting: Unlearning, seeds: Sequence[int]) -> Row:
        found = []
        for case in map(self.yardstick, seeds):
            asked = label, setting, case.case, case.original
            try:
                made = self._bench.unlearn(*asked, keep=False)
            except (NonFiniteError, TooLittle):
                return {"avg_gap": None, "deviation": None}
            found.append(case.distances(made.trained))
        return {name: float(np.mean([f[name] for f in found])) for name in found[0]}


def search(
    plan: Plan,
    dataset: Dataset,
    grids: Grids,
    say: Callable[[str], None],
    *,
    rounds: int = 0,
    final: Final | None = None,
    folder: Path | None = None,
    models: Path | None = None,
    before: Mapping[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """Try every setting of every method and choose that of the least mean Avg. Gap.

    What an earlier search of the same plan and grid found, `before`, is not searched
    again; `save` is called after each method that is. `models` is the folder of another
    search of the same request, whose originals and Retrains are used. A method none of
    whose trials fits into its budget is left out.
    """
    bench = Bench(plan, dataset, folder=folder, originals=models, retrains=models)
    trial = Trials(bench)
    given = {"plan": trial.asked, "final": final and final._asdict()}
    both = {
        label: (before["settings"][label], before["table"][label])
        for label, grid in grids.items()
        if before and _alike(before, given) and _searched(before, label, grid, rounds)
    }

    left_out = [label for label in (before or {}).get("left_out", ()) if label in grids]

    def found() -> dict[str, Any]:
        done = {label: both[label] for label in grids if label in both}
        return {
            "settings": {label: setting for label, (setting, _) in done.items()},
            "trials": max((len(rows) for _, rows in done.values()), default=0),
            **({"left_out": left_out} if left_out else {}),
            "search_seeds": list(plan.seeds),
            **given,
            "training": vars(plan.training),
            "table": {label: rows for label, (_, rows) in done.items()},
            "environment": environment(),
        }

    for label, grid in grids.items():
        if label in both or label in left_out:
            continue
        best = _best_of(label, grid, trial, plan, say, rounds, final)
        if best is None:
            left_out.append(label)
        else:
            both[label] = best
        save(found())
    return found()


def _best_of(
    label: str,
    grid: Mapping[str, Any],
    trial: Trials,
    plan: Plan,
    say: Callable[[str], None],
    rounds: int,
    final: Final | None,
) -> tuple[dict[str, Any], list[Row]] | None:
    """Return the best setting of one method, and its trials.

    None where it has a budget and no trial fits in.
    """
    varied = _varied(grid)

    def row_of(setting: Unlearning, seeds: Sequence[int] = plan.seeds):
        flat = setting.flat()
        row = {name: flat[name] for name in varied} | trial(label, setting, seeds)
        say(f"{label}: {row}")
        return setting, row

    rows = [row_of(setting) for setting in trials(grid)]
    if "budget" in grid and all(row["avg_gap"] is None for _, row in rows):
        return None
    # no grid is chosen so well that its best never lies at its edge
    for name in [name for name in varied if _measures(grid[name])][:1] * rounds:
        best, _ = _ranked(label, rows)[0]
        tried = [row[name] for _, row in rows]
        for value in around(tried, best.flat()[name], MOST.get(name, math.inf)):
            rows.append(row_of(best.but(**{name: value})))
    ranked = _ranked(label, rows)
    if final is not None:  # few seeds flatter some trial by chance
        shares = len(plan.seeds), len(final.seeds)
        for setting, row in ranked[: final.trials]:
            again = row_of(setting, final.seeds)[1]["avg_gap"]
            both = row["avg_gap"], again
            mean = None if again is None else np.average(both, weights=shares)
            row["all_seeds"] = None if mean is None else float(mean)
        ranked = _ranked(label, ranked[: final.trials], "all_seeds")
    return told(ranked[0][0]), [row for _, row in rows]


def _alike(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two searches were of one request and equally thorough."""
    one, other = (json.loads(to_json(dict(found))) for found in (before, now))
    plans = [found.get("plan", {}) | {"title": ""} for found in (one, other)]
    return plans[0] == plans[1] and one.get("final") == other["final"]


def _searched(
    before: Mapping[str, Any], label: str, grid: Mapping[str, Any], rounds: int
) -> bool:
    """Return whether a search was of that grid, with as many rounds after it."""
    if label not in before["settings"]:
        return False
    varied, asked = _varied(grid), list(trials(grid))
    rows = [tuple(row.get(k) for k in varied) for row in before["table"][label]]
    first = [tuple(one.flat()[k] for k in varied) for one in asked]
    closer = 2 * rounds if any(_measures(grid[name]) for name in varied) else 0
    best = Unlearning.of(**before["settings"][label])
    fixed = asked[0].but(**{name: best.flat()[name] for name in varied})
    same = rows[: len(first)] == first and len(rows) == len(first) + closer
    # else what a value means has changed since
    own = tuple(best.flat()[k] for k in varied) in rows
    return fixed == best and same and own


def trials(grid: Mapping[str, Any]) -> Iterator[Unlearning]:
    """Yield the settings of a grid."""
    tried = [v if isinstance(v, tuple) else (v,) for v in grid.values()]
    for values in itertools.product(*tried):
        yield Unlearning.of(**dict(zip(grid, values, strict=True)))


def _varied(grid: Mapping[str, Any]) -> list[str]:
    return [name for name, values in grid.items() if isinstance(values, tuple)]


def _measures(values: Sequence[Any]) -> bool:
    return all(isinstance(value, float) and value > 0 for value in values)


def _ranked(
    label: str, rows: Iterable[tuple[Unlearning, Row]], by: str = "avg_gap"
) -> list[tuple[Unlearning, Row]]:
    """Return the rows that did not diverge, the best first."""
    finite = [row for row in rows if row[1][by] is not None]
    if not finite:
        raise InputError(f"{label}: no setting stays finite; search smaller rates")
    return sorted(finite, key=lambda row: row[1][by])


def around(
    tried: Collection[float], best: float, most: float = math.inf
) -> tuple[float, float]:
    """Return the values to try next, under and over the best of those tried."""
    values = sorted(set(tried))
    under = [value for value in values if value < best]
    over = [value for value in values if value > best]
    far = 3.0 if not under + over else (over[0] if over else under[-1]) / best
    far = max(far, 1 / far)
    down = (best * under[-1]) ** 0.5 if under else best / far
    up = (best * over[0]) ** 0.5 if over else min(best * far, (best * most) ** 0.5)
    return float(f"{down:.2g}"), float(f"{up:.2g}")


def text_of(found: Mapping[str, Any]) -> str:
    """Return what a search found as JSON, a trial a line."""
    flat = r"\{[^{}\[\]]+\}"
    return re.sub(flat, lambda row: re.sub(r"\n\s*", " ", row[0]), to_json(found))
