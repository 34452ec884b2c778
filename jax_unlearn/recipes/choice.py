"""How well λ of partial reset can be chosen without a Retrain.

On seeds that were not used to search settings, partial reset runs with every λ of a
grid, at three budgets, for two kinds of request. Each rule chooses a λ by what a user
can measure without a Retrain. How far its choice is from Retrain is then measured
beside one. κ is 1 − λ, as in `auto`. For every kind of request the study also counts
how often `auto` recognises the kind.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn.data import Dataset, check_writable
from jax_unlearn.drivers.loop import predict
from jax_unlearn.lab import Bench, Plan, Training, Unlearning, experiment
from jax_unlearn.lab.choose import PART, recognised
from jax_unlearn.lab.experiment import phases
from jax_unlearn.lab.job import Trained, probabilities
from jax_unlearn.membership.quality import auc_standard_error
from jax_unlearn.methods.auto import MARGIN, RETAINED, TOP, shrinkage
from jax_unlearn.objectives.endpoint import density_ratio
from jax_unlearn.recipes.defaults import REQUESTS, drawn
from jax_unlearn.recipes.frontier import DIGITS, title_of
from jax_unlearn.recipes.recipe import (
    Asked,
    Recipe,
    Results,
    declared,
    keep,
    packaged,
    seed_by_seed,
    spreads,
)
from jax_unlearn.recipes.search import Yardstick

__all__ = ["BUDGETS", "CHOICE_DIGITS", "GRID", "KINDS", "RULES", "Look", "Run"]
__all__ += ["by_accuracy", "by_attack", "chosen", "kinds", "nearest", "plans", "scarce"]

_TOLD = packaged("recipes.toml")["choice-digits"]
BUDGETS = (0.1, 0.2, 0.4)
GRID = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
RHO = 0.1  # share of the retain set that may be read, where it is scarce
SCARCE = ("FT", "NegGrad+", "SCRUB", "SalUn", "RL + MUNBa", "CT", "MSG", "DELETE", "BS")
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))  # pixels, of augmentations
KINDS = "kinds"  # of the results: what each request was taken for
CHANCE = 1.0  # standard errors of an AUC within which nothing is told

Run = Mapping[str, Any]
"""What is seen of a model of one λ, and how far from Retrain it is."""


def plans(seeds: tuple[int, ...] | None = None) -> dict[str, Plan]:
    """Return the plan of each kind of request."""
    requests = {name: REQUESTS[name] for name in ("long-tailed", "random")}
    return drawn(_TOLD["plan"], seeds, requests)


class Look:
    """What a user can see of a model: accuracies, and what attacks tell."""

    def __init__(self, yardstick: Yardstick):
        self._subject = yardstick.bench.subject
        self._request, self._train = yardstick.request, self._subject.dataset.train

    def __call__(self, trained: Trained, shadow: Trained) -> dict[str, float]:
        """Return it; the shadow is a model that saw neither forget nor unseen."""
        forget, unseen = self._request.forget, self._request.unseen
        labels = self._train.labels[forget], self._train.labels[unseen]
        own, others = (self._logit(trained, ids) for ids in (forget, unseen))
        ease = [_share(self._logit(shadow, ids)) for ids in (forget, unseen)]
        mine, theirs = (
            self._logit(trained, ids, SHIFTS) - self._logit(shadow, ids, SHIFTS)
            for ids in (forget, unseen)
        )
        return {
            "accuracy": self._right(trained, unseen),
            "retained": self._right(trained, self._request.retain),
            "plain": _excess(own, others, *labels),
            "matched": _excess(own, others, *labels, ease=ease),
            "augmented": _excess(mine, theirs, *labels),
        }

    def _right(self, trained: Trained, ids: np.ndarray) -> float:
        found = self._probabilities(trained, self._train.inputs[ids])
        return float(np.mean(found.argmax(axis=1) == self._train.labels[ids]))

    def _logit(
        self, trained: Trained, ids: np.ndarray, shifts: Sequence[Any] = SHIFTS[:1]
    ) -> np.ndarray:
        """Return the true class' log odds, a mean over shifted images."""
        labels, found = self._train.labels[ids], []
        for shift in shifts:
            inputs = np.roll(self._train.inputs[ids], shift, axis=(1, 2))
            own = self._probabilities(trained, inputs)[np.arange(len(ids)), labels]
            own = np.clip(own, 1e-12, 1 - 1e-12)
            found.append(np.log(own) - np.log1p(-own))
        return np.mean(found, axis=0)

    def _probabilities(self, trained: Trained, inputs: np.ndarray) -> np.ndarray:
        return probabilities(self._subject.model, trained, inputs)


def _share(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _excess(
    own: np.ndarray,
    others: np.ndarray,
    labels: np.ndarray,
    other_labels: np.ndarray,
    *,
    ease: Sequence[np.ndarray] | None = None,
) -> float:
    """Return by how many standard errors scores tell samples apart, class by class."""
    told, error = 0.0, 0.0
    for number in np.unique(labels):
        mine, same = labels == number, other_labels == number
        same = same if same.any() else np.ones_like(same)
        weights = np.ones(same.sum())
        if ease is not None:
            weights = density_ratio(ease[0][mine], ease[1][same])
        above = own[mine][:, None] > others[same][None]
        equal = own[mine][:, None] == others[same][None]
        area = np.average((above + 0.5 * equal).mean(axis=0), weights=weights)
        effective = weights.sum() ** 2 / np.square(weights).sum()
        share = mine.mean()
        told += share * (area - 0.5)
        error += (share * auc_standard_error(0.5, int(mine.sum()), effective)) ** 2
    return float(told / np.sqrt(error))


def _first(runs: Sequence[Run], right: Callable[[Run], bool], otherwise: int) -> int:
    return next((n for n, run in enumerate(runs) if right(run)), otherwise)


def by_accuracy(runs: Sequence[Run], original: float) -> int:
    """Return the smallest λ that loses no accuracy, as `auto` judges attempts."""
    best = max(run["accuracy"] for run in runs)

    def right(run: Run) -> bool:
        loses = best - run["accuracy"] > MARGIN
        return not loses and original - run["retained"] <= RETAINED

    return _first(runs, right, len(runs) - 1)


def by_attack(runs: Sequence[Run], attack: str) -> int:
    """Return the largest λ whose forget samples an attack tells from none."""
    inside = [n for n, run in enumerate(runs) if run[attack] <= CHANCE]
    return max(inside, default=0)


def nearest(shrink: float) -> int:
    """Return the place of the λ of the grid that is nearest."""
    return int(np.argmin([abs(one - shrink) for one in GRID]))


RULES = {
    "budget": "λ by the budget and by what the original memorised",
    "fixed": "λ of 0.3 at every budget",
    "accuracy": "smallest λ that loses no accuracy, all λ tried at full length",
    "halves": "the same, two attempts within the budget",
    "quarters": "the same, four attempts within the budget",
    "plain": "largest λ whose forget samples are no surer than unseen ones",
    "matched": "the same, unseen samples weighted to be as easy",
    "augmented": "the same, by augmentations, beside a shadow model",
    "retrain": "the least Avg. Gap, which Retrain alone can tell",
}
"""How λ is chosen, by name."""


def chosen(
    runs: Mapping[float, Sequence[Run]], budget: float, gap: float, retained: float
) -> dict[str, tuple[Run, float] | None]:
    """Return the run that each rule chooses at a budget, and what it costs.

    A rule of attempts within the budget has runs of that share of it, if there are.
    """
    own, every = runs[budget], budget * len(GRID)
    found: dict[str, tuple[Run, float] | None] = {
        "budget": (own[nearest(shrinkage(budget, gap=gap, tied=True))], budget),
        "fixed": (own[nearest(0.3)], budget),
        "accuracy": (own[by_accuracy(own, retained)], every),
    }
    for name, count in (("halves", 2), ("quarters", 4)):
        share = next((b for b in runs if abs(b * count - budget) < 1e-9), None)
        found[name] = None
        if share is not None:
            first = shrinkage(share, gap=gap, tied=True)
            found[name] = _bisected(runs[share], count, retained, first), budget
    for name in ("plain", "matched", "augmented"):
        found[name] = own[by_attack(own, name)], every
    found["retrain"] = min(own, key=lambda run: run["avg_gap"]), every
    return found


def _bisected(runs: Sequence[Run], attempts: int, retained: float, first: float) -> Run:
    """Return the run at which `auto` ends, its λ rounded to the grid."""
    from jax_unlearn.methods.auto import auto

    def look(run: Run) -> tuple[float, float]:
        return run["accuracy"], run["retained"] - retained

    def train(shrink: float, share: float) -> Run:
        del share
        return runs[nearest(float(shrink))]

    given = {"budget": 1.0, "accuracy": look, "attempts": attempts, "first": first}
    return auto(np.float32(1.0), np.float32(0.0), train, **given).made


def _one(bench: Bench, seed: int) -> dict[str, Any]:
    """Return what is seen and measured of a seed: runs by budget, and references."""
    yardstick = Yardstick(bench, seed)
    look, case, original = Look(yardstick), yardstick.case, yardstick.original
    runs: dict[float, list[Run]] = {}
    for budget in BUDGETS:
        models = []
        for shrink in GRID:
            told = {"method": "partial_reset", "share": budget, "shrink": shrink}
            told["perturb"] = None
            given = f"{budget:g} {shrink:g}", Unlearning.of(**told), case, original
            models.append(bench.unlearn(*given, keep=False).trained)
        runs[budget] = [
            {"shrink": shrink, **yardstick.distances(one), **look(one, models[0])}
            for shrink, one in zip(GRID, models, strict=True)
        ]
        shadow = models[0]  # of λ = 0: it saw neither
    null = bench.null(case)
    first = look(original, shadow)
    gap = first["retained"] - first["accuracy"]
    rules: dict[str, Any] = {}
    for budget in BUDGETS:
        best = min(run["avg_gap"] for run in runs[budget])
        goal = next(r["shrink"] for r in runs[budget] if r["avg_gap"] == best)
        for name, found in chosen(runs, budget, gap, first["retained"]).items():
            if found is None:
                continue
            run, cost = found
            rules.setdefault(f"{budget:g}", {})[name] = {
                "shrink": run["shrink"],
                "avg_gap": run["avg_gap"],
                "deviation": run["deviation"],
                "same": float(run["shrink"] == goal),
                "near": float(run["avg_gap"] - best <= NEAR),
                "cost": cost,
            }
    return {
        "runs": {f"{budget:g}": own for budget, own in runs.items()},
        "rules": rules,
        "null": yardstick.distances(null),
        "original": yardstick.distances(original),
        "gap": gap,
    }


NEAR = 1.0  # points of Avg. Gap from the best λ's: about what two Retrains differ by


def _told(bench: Bench, seed: int) -> str:
    """Return what kind a seed's request is taken for."""
    subject, inputs = bench.subject, bench.dataset.train.inputs
    at = bench.original(seed)[:2]

    def features(ids: np.ndarray) -> np.ndarray:
        return predict(subject.built.features, *at, inputs[ids])

    request = bench.case(seed).request
    return recognised(request, bench.dataset.train.labels, features)[0]


def kinds(seeds: tuple[int, ...] | None = None) -> dict[str, Plan]:
    """Return the plans of the requests of the frontier, on seeds of their own."""
    parts = {part.rpartition("-")[0]: one for part, one in DIGITS.study.parts.items()}
    requests = {k: (title_of(k), one.kind, one.fraction) for k, one in parts.items()}
    return drawn(_TOLD["plan"], seeds, requests)


def _gather(found: list[Any]) -> dict[str, Any]:
    """Return spreads over seeds, and all runs."""
    whole = spreads(found)
    return {"grid": whole.pop("runs"), **whole}


def scarce(seeds: tuple[int, ...] | None = None) -> Plan:
    """Return the plan of methods that may read a tenth of the retain set alone.

    The request is 10 % at random, the settings those that the frontier's search found
    for it at a fifth of Retrain's cost; partial reset goes through its whole length.
    """
    told, found = _TOLD["plan"], DIGITS.study.found()["random10-20"]["settings"]
    methods = {k: {**found[k], "rho": RHO} for k in SCARCE}
    reset = {"method": "partial_reset", "share": 1.0, "shrink": TOP, "rho": RHO}
    return Plan(
        title=f"Digits: 10 %, at random, a share of {RHO:g} of the retain set",
        kind="random",
        fraction=0.1,
        gamma=1.0,
        unseen=told["unseen"],
        training=Training(**told["training"]),
        methods={
            k: Unlearning.of(**own)
            for k, own in {**methods, "Partial reset": reset}.items()
        },
        seeds=told["scarce_seeds"] if seeds is None else seeds,
        note="The settings are those of the recipe frontier-digits.",
    )


def _run(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    """Measure every kind of request, seed by seed."""
    check_writable(folder / "results.json")
    results: dict[str, Results] = {}
    asked_for = plans(asked.seeds)
    steps = 3 + len(BUDGETS) * len(GRID)
    count = sum(steps * len(plan.seeds) for plan in asked_for.values())
    few, requests = scarce(asked.seeds), kinds(asked.seeds)
    count += 2 * sum(len(plan.seeds) for plan in requests.values())
    with asked.screen.progress(count + phases(few)) as progress:
        for part, plan in asked_for.items():
            bench = Bench(plan, dataset, progress)
            path = folder / part / "choice.json"
            one = functools.partial(_one, bench)
            results[part] = seed_by_seed(plan, path, one, _gather)
        told = {"progress": progress, "resume": True}
        results[PART] = experiment(few, dataset, folder / PART, **told)
        taken = {}
        for name, plan in requests.items():
            path = folder / KINDS / f"{name}.json"
            one = functools.partial(_told, Bench(plan, dataset, progress))
            taken[name] = seed_by_seed(plan, path, one, lambda found: {"taken": found})
        results[KINDS] = taken
    keep(asked.screen, folder / "results.json", results)


CHOICE_DIGITS = declared("choice-digits", _run)
