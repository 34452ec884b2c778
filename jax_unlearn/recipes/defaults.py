"""Methods with their default settings, without a search.

Who has one request and one model cannot search settings: `jax-unlearn forget` uses
methods in this way. Every method runs with its defaults on the originals of the recipe
demo-digits, for three kinds of request: 30 % long-tailed, 10 % at random, and a class.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax_unlearn.data import Dataset, check_writable
from jax_unlearn.lab import Plan, Training, Unlearning, experiment
from jax_unlearn.lab.catalog import METHODS
from jax_unlearn.lab.experiment import phases
from jax_unlearn.recipes.recipe import Asked, Recipe, declared, packaged, publish

__all__ = ["DEFAULTS_DIGITS", "REQUESTS", "drawn", "plans"]

_TOLD = packaged("recipes.toml")["defaults-digits"]
REQUESTS = {
    "long-tailed": ("30 %, long-tailed", "long_tailed", 0.3),
    "random": ("10 %, at random", "random", 0.1),
    "class": ("a class", "class", 1.0),
}
"""The kinds of request: title, kind and share, by name."""

# none that compares with unseen samples of every class, or serves some requests alone
_METHODS = (
    *("partial_reset", "short_retrain", "finetune", "l1_sparse", "gradient_ascent"),
    *("random_label", "salun", "neggrad_plus", "sfron", "scrub", "bad_teacher"),
)


def plans(seeds: tuple[int, ...] | None = None) -> dict[str, Plan]:
    """Return the plan of each kind of request, by default with seeds 0 to 4."""
    methods = {METHODS[m].label: Unlearning.of(method=m) for m in _METHODS}
    note = "No settings were searched: each method has its defaults."
    return drawn(_TOLD["plan"], seeds, methods=methods, note=note)


def drawn(
    told: Mapping[str, Any],
    seeds: tuple[int, ...] | None,
    requests: Mapping[str, tuple[str, str, float]] = REQUESTS,
    **more: Any,
) -> dict[str, Plan]:
    """Return a plan on digits for each of some kinds of request; without methods."""
    options: dict[str, Any] = {"methods": {}, **more}
    return {
        part: Plan(
            title=f"Digits: {title}",
            kind=kind,
            fraction=fraction,
            gamma=1.0,
            unseen=told["unseen"],
            training=Training(**told["training"]),
            seeds=told["seeds"] if seeds is None else seeds,
            **options,
        )
        for part, (title, kind, fraction) in requests.items()
    }


def _run(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    """Run every kind of request, the originals those of the first."""
    check_writable(folder / "results.json")
    asked_for, results = plans(asked.seeds), {}
    with asked.screen.progress(sum(map(phases, asked_for.values()))) as progress:
        for part, plan in asked_for.items():
            first = folder / next(iter(asked_for))
            options = {"progress": progress, "resume": True, "originals": first}
            results[part] = experiment(plan, dataset, folder / part, **options)
    publish(recipe, asked.screen, folder, results)


DEFAULTS_DIGITS = declared("defaults-digits", _run)
