"""Ideas to improve partial reset: tried on search seeds, the best tested on fresh ones.

A part is a request and a budget. First λ, κ and the largest rate of the plain method
are searched. Each idea is then tried with settings near the plain best: with its λ and
with a larger one, because most ideas promise to forget more of what is kept. The score
of a trial is the mean of Avg. Gap and |p − p*|, each divided by the null's. The best
trial of every idea that scores below the plain best is run again, beside the plain
method, on seeds that were not used for any choice: there it is confirmed or not.

All trials cost the same, counted in gradients of samples: an idea that reads more takes
fewer steps. What is computed of the original beforehand (a table of logits, a mask)
costs a pass and is not counted.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import Dataset, check_writable, read_json, write_atomic
from jax_unlearn.drivers.series import locked
from jax_unlearn.errors import NonFiniteError
from jax_unlearn.lab import Bench, Plan, Training
from jax_unlearn.lab.costs import TooLittle
from jax_unlearn.lab.modalities.classification.figures import measure, outputs_of
from jax_unlearn.lab.results import dataset_record, environment, to_json
from jax_unlearn.recipes.recipe import Asked, Recipe, declared, packaged, parts_of
from jax_unlearn.recipes.resets import IDEAS, PLAIN, Idea, setting_of

__all__ = ["IDEAS_DIGITS", "IDEAS_FASHION", "Trials", "around", "compared"]
__all__ += ["confirmed", "parts", "run_part", "summary", "tried", "write"]

SEARCH_SEEDS, FRESH_SEEDS = (100, 101, 102, 103), (300, 301, 302, 303, 304)
BUDGETS = (0.05, 0.1, 0.2)
REQUESTS = {"random10": ("random", 0.1), "gamma-1": ("long_tailed", 0.3)}
LONGER = (0.3, 0.5)  # where short Retrain was nearer, long-tailed: is it λ?
OF_LONGER = ("finer λ", "λ = 0: short Retrain")
LEVEL = 0.05
FIGURES = ("avg_gap", "deviation", "ua", "ra", "ta", "mia")


_GRID = [
    {"shrink": shrink, "perturb": perturb, "rate": rate}
    for rate in (1.0, 2.0)
    for shrink in (0.3, 0.45, 0.6, 0.75, 0.9)
    for perturb in (1.0, round(1 - shrink, 2))
]


class Trials:
    """Trials of a part, kept in a file after each seed."""

    def __init__(self, bench: Bench, path: Path):
        self.bench, self.path = bench, path
        self.found: dict[str, Any] = read_json(path) if path.exists() else {}
        self.case = functools.cache(self._case)

    def _case(self, seed: int) -> tuple[Any, Any, Callable[[Any], dict[str, float]]]:
        bench, case = self.bench, self.bench.case(seed)
        models = bench.references(case)
        dataset, forget = bench.dataset, case.request.forget

        def look(trained: Any) -> tuple[Any, np.ndarray]:
            outputs = outputs_of(bench.subject, trained)
            whole = measure(outputs, dataset, case.request, seed=seed)
            return whole, outputs.confidence(dataset, forget)

        goal, target = look(models.retrained)

        def figures(trained: Any) -> dict[str, float]:
            whole, own = look(trained)
            found = {"avg_gap": audit.avg_gap(whole, goal)}
            found["deviation"] = float(np.mean(np.abs(own - target)))
            return found | {k: float(getattr(whole, k)) for k in FIGURES[2:]}

        for key in ("null", "original", "retrained"):
            if str(seed) not in self.found.setdefault(key, {}):
                self.found[key][str(seed)] = figures(getattr(models, key))
        return case, models.original, figures

    def __call__(self, idea: str, options: Mapping[str, Any], seed: int) -> None:
        """Run a trial on a seed, unless the file has it; None where it diverges."""
        rows = self.found.setdefault("trials", {}).setdefault(idea, {})
        row = rows.setdefault(json.dumps(options, sort_keys=True), {})
        if str(seed) in row:
            return
        case, original, figures = self.case(seed)
        try:
            setting = setting_of(idea, options)
            made = self.bench.unlearn(idea, setting, case, original, keep=False)
            row[str(seed)] = figures(made.trained)
        except (NonFiniteError, TooLittle):
            row[str(seed)] = None
        write_atomic(self.path, to_json(self.found), overwrite=True)

    def values(self, idea: str, text: str, figure: str, seeds: Any) -> list[float]:
        """Return a figure of a trial, seed by seed; KeyError where one is missing."""
        row = self.found["trials"][idea][text]
        return [np.inf if (r := row[str(s)]) is None else r[figure] for s in seeds]

    def score(self, idea: str, text: str, seeds: Any) -> float:
        """Return the mean of both distances, in units of the null's."""
        null = self.found["null"]
        return float(
            np.mean(
                [
                    np.mean(self.values(idea, text, figure, seeds))
                    / np.mean([null[str(seed)][figure] for seed in seeds])
                    for figure in FIGURES[:2]
                ]
            )
        )

    def best(self, idea: str, seeds: Any) -> tuple[str, float]:
        """Return the best trial of an idea and its score."""
        rows = self.found["trials"][idea]
        full = [text for text in rows if all(str(seed) in rows[text] for seed in seeds)]
        scores = {text: self.score(idea, text, seeds) for text in full}
        text = min(scores, key=lambda one: scores[one])
        return text, scores[text]


def parts() -> dict[str, tuple[str, float]]:
    """Return request and budget by the name of a part, the largest budget first."""
    asked = [(one, b) for b in sorted(BUDGETS, reverse=True) for one in REQUESTS]
    asked += [("gamma-1", budget) for budget in LONGER]
    return {f"{request}-{100 * b:g}": (request, b) for request, b in asked}


def around(best: Mapping[str, Any], idea: Idea) -> Iterator[dict[str, Any]]:
    """Yield the options that an idea is tried with."""
    tied = abs(best["perturb"] + best["shrink"] - 1) < 1e-9  # κ = 1 − λ
    for larger in idea.larger:
        shrink = round(min(best["shrink"] + larger, 0.95), 2)
        own = {**best, "shrink": shrink}
        if tied:
            own["perturb"] = round(1 - shrink, 2)
        for changes in idea.tried:
            if tied and "shrink" in changes and "perturb" not in changes:
                changes = {**changes, "perturb": round(1 - changes["shrink"], 2)}
            yield {**own, **changes}


def run_part(
    trials: Trials, budget: float, say: Callable[[str], None], ideas: Iterable[str]
) -> None:
    """Search the plain method, try the ideas, and confirm on fresh seeds."""

    def tell(idea: str, seeds: Any) -> tuple[str, float]:
        text, score = trials.best(idea, seeds)
        say(f"  {idea}: {score:.2f} by {text}")
        return text, score

    for options in _GRID:
        for seed in SEARCH_SEEDS:
            trials(PLAIN, {"share": budget, **options}, seed)
    text, least = tell(PLAIN, SEARCH_SEEDS)
    best, better = json.loads(text), {PLAIN: text}
    ideas = OF_LONGER if budget in LONGER else ideas
    for name, idea in ((name, IDEAS[name]) for name in ideas):
        for options in around(best, idea):
            for seed in SEARCH_SEEDS:
                trials(name, options, seed)
        jax.clear_caches()  # programs take memory mappings, of which there are few
        text, score = tell(name, SEARCH_SEEDS)
        if score < least:
            better[name] = text
    for name, text in better.items():
        for seed in FRESH_SEEDS:
            trials(name, json.loads(text), seed)


def summary(trials: Trials) -> dict[str, Any]:
    """Return of a part's trials what its page tells; nothing of seeds not yet run."""
    rows: dict[str, Any] = {}
    for name in (PLAIN, *IDEAS):
        try:
            text, score = trials.best(name, SEARCH_SEEDS)
        except (KeyError, ValueError):
            continue
        if not np.isfinite(score):  # no step within the budget, or it diverges
            continue
        row: dict[str, Any] = {"options": json.loads(text), "score": score}
        row["trials"] = len(trials.found["trials"][name])
        for figure in FIGURES[:2]:
            row[figure] = trials.values(name, text, figure, SEARCH_SEEDS)
        try:
            fresh: dict[str, Any] = {
                figure: trials.values(name, text, figure, FRESH_SEEDS)
                for figure in FIGURES
            }
            row["fresh"] = {**fresh, "score": trials.score(name, text, FRESH_SEEDS)}
        except KeyError:
            row.pop("fresh", None)
        rows[name] = row
    told = {
        key: {
            which: {f: [own[str(s)][f] for s in seeds] for f in FIGURES}
            for which, seeds in (("search", SEARCH_SEEDS), ("fresh", FRESH_SEEDS))
            if all(str(s) in own for s in seeds)
        }
        for key in ("null", "original", "retrained")
        if (own := trials.found.get(key))
    }
    return {"rows": rows, **told}


def _run(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    """Run the parts asked for, by default all; write what there is after each."""
    study = packaged("recipes.toml")[recipe.name]["ideas"]
    training, known = Training(**study["training"]), parts()
    names = parts_of(asked, known)
    check_writable(folder / "results.json")
    with locked(folder):
        for name in names:
            request, budget = known[name]
            kind, fraction = REQUESTS[request]
            plan = Plan(
                title=f"{recipe.title}: {name}",
                kind=kind,
                fraction=fraction,
                gamma=1.0,
                unseen=study["unseen"],
                training=training,
                methods={},
                seeds=SEARCH_SEEDS,
            )
            asked.screen.say(name)
            bench = Bench(plan, dataset, folder=folder / "models" / request)
            trials = Trials(bench, folder / "trials" / f"{name}.json")
            run_part(trials, budget, asked.screen.say, study.get("tried", IDEAS))
            write(folder, dataset, training)
            asked.screen.say(f"wrote {folder / 'results.json'}")


def write(folder: Path, dataset: Dataset, training: Training) -> None:
    """Write the summary of all parts that have trials."""
    found = {
        name: summary(trials)
        for name in parts()
        if (path := folder / "trials" / f"{name}.json").exists()
        for trials in [Trials(cast(Any, None), path)]
    }
    text = to_json(
        {
            "format": 1,
            "training": vars(training),
            "dataset": dataset_record(dataset),
            "environment": environment(),
            "seeds": {"search": list(SEARCH_SEEDS), "fresh": list(FRESH_SEEDS)},
            "parts": found,
        }
    )
    write_atomic(folder / "results.json", text, overwrite=True)


def compared(part: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return, by idea, how a part's scores differ from the plain method's.

    "search" is the difference of the best trials' scores, "fresh" that of the same
    trials on fresh seeds with "p" paired over them, where they were run there.
    """
    found = {}
    base = part["rows"][PLAIN]
    for name, row in part["rows"].items():
        told: dict[str, Any] = {"search": row["score"] - base["score"]}
        if name != PLAIN and "fresh" in row and "fresh" in base:
            nulls = [np.mean(part["null"]["fresh"][f]) for f in FIGURES[:2]]
            pair = [
                np.mean(
                    [
                        np.array(one["fresh"][f]) / null
                        for f, null in zip(FIGURES[:2], nulls, strict=True)
                    ],
                    axis=0,
                )
                for one in (row, base)
            ]
            test = audit.paired_test(*pair)
            told |= {"fresh": test.mean_difference, "p": test.p}
        found[name] = told
    return found


def tried(found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return rows of a page: an idea, and what came of it in every part."""
    parts = [compared(part) for part in found["parts"].values()]

    def cell(one: Mapping[str, Any] | None) -> str:
        if one is None:
            return ""
        text = f"{one['search']:+.2f}"
        if "fresh" in one:
            text += f" → {one['fresh']:+.2f} (p {one['p']:.2f})"
            if one["p"] < LEVEL:
                text = f"**{text}**"
        return text.replace("-", "−")

    ran = [name for name in IDEAS if any(name in part for part in parts)]
    return [(name, [cell(part.get(name)) for part in parts]) for name in ran]


def confirmed(found: Mapping[str, Any], sign: int = -1) -> list[str]:
    """Return the ideas that fresh seeds say are clearly nearer (or, 1, farther)."""
    told = []
    for name, part in found["parts"].items():
        for idea, one in compared(part).items():
            if "p" in one and one["p"] < LEVEL and sign * one["fresh"] > 0:
                text = f"{idea} at {name} ({one['fresh']:+.2f}, p {one['p']:.2f})"
                told.append(text.replace("-0", "−0").replace("(-", "(−"))
    return told


IDEAS_DIGITS = declared("frontier-ideas", _run, options=("parts",), seeded=False)
IDEAS_FASHION = declared(
    "frontier-ideas-fashion", _run, options=("parts",), seeded=False
)
