"""The recipes by name: studies that take longer than the default job."""

import json
from pathlib import Path
from typing import Any

import tyro

from jax_unlearn.cli.console import Reporter, open_console, print_legend, print_results
from jax_unlearn.data import write_atomic
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.pipeline.results import to_json

RECIPES = {
    "ltu-digits": "LTU: table at ρ = 0.3, ablations, ρ sweep, near and far; digits",
    "ltu-cifar10": "the same on 2,500 images of CIFAR-10 (--data), small ResNet; hours",
}


def recipe(
    name: tyro.conf.Positional[str | None] = None,
    data: Path | None = None,
    out: Path | None = None,
    seeds: tuple[int, ...] | None = None,
    parts: tuple[str, ...] = ("main", "near", "far"),
    tune: bool = False,
) -> None:
    """Run a recipe, or go on with it: what its folder holds is not made again.

    Args:
      name: of the recipe; none lists them.
      data: .npz file, where the recipe does not bring its own data.
      out: folder of the run; default runs/NAME.
      seeds: default those of the recipe.
      parts: of the study: the table with ablations and ρ, near and far forget sets.
      tune: search the settings instead, on the recipe's search seeds; writes them to
        OUT/settings.json.
    """
    console = open_console()
    if name is None:
        for known, what in RECIPES.items():
            console.print(f"{known:<12} {what}", markup=False, soft_wrap=True)
        return
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    from jax_unlearn.recipes import ltu

    study = name.removeprefix("ltu-")
    dataset = ltu.load(ltu.study_named(study), data)
    folder = Path("runs") / name if out is None else out
    if tune:
        if seeds is not None:
            raise InputError(f"seeds={seeds}: the search has seeds of its own")
        found = ltu.search_ltu(
            study,
            dataset,
            lambda line: console.print(line, markup=False, soft_wrap=True),
            folder=folder / "search",
        )
        path = folder / "settings.json"
        write_atomic(path, to_json(found), overwrite=True)
        console.print(f"wrote {path}", markup=False)
        return
    plans = [ltu.ltu_plan(study, part, seeds=seeds) for part in parts]
    phases = sum(len(plan.seeds) * (3 + len(plan.methods)) for plan in plans)
    with Reporter(console, phases) as progress:
        found = ltu.run_ltu(
            study, dataset, folder, seeds=seeds, parts=parts, progress=progress
        )
    _show(console, found, folder)


def _show(console: Any, found: dict[str, dict[str, Any]], folder: Path) -> None:
    """Print the tables and write the pages, the figures and the short results."""
    from jax_unlearn import report as reports
    from jax_unlearn.recipes.ltu import figures, shortened

    for part, results in found.items():
        console.print(results["plan"]["title"], style="bold", markup=False)
        print_results(console, results)
        page = reports.write(results, folder / part / "report.html", overwrite=True)
        console.print(f"report: {page}", markup=False, soft_wrap=True)
    print_legend(console)
    for name, drawing in figures(found).items():
        text = reports.standalone(drawing)
        path = write_atomic(folder / f"{name}.svg", text, overwrite=True)
        console.print(f"figure: {path}", markup=False, soft_wrap=True)
    short = {part: shortened(results) for part, results in found.items()}
    text = json.dumps(short, allow_nan=False) + "\n"
    path = write_atomic(folder / "results.json", text, overwrite=True)
    console.print(f"results: {path}", markup=False, soft_wrap=True)
