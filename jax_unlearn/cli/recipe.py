"""The recipes by name: studies that take longer than the default job."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from jax_unlearn.cli.console import Reporter, open_console, print_legend, print_results
from jax_unlearn.data import Dataset, digits, write_atomic
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.pipeline import Plan, experiment
from jax_unlearn.pipeline.results import shortened, to_json

RECIPES = {
    "field-digits": "all methods on digits: long-tailed, a class, a linear network",
    "ltu-digits": "LTU: table at ρ = 0.3, ablations, ρ sweep, near and far; digits",
    "ltu-cifar10": "the same on 2,500 images of CIFAR-10 (--data), small ResNet; hours",
}


def recipe(
    name: tyro.conf.Positional[str | None] = None,
    data: Path | None = None,
    out: Path | None = None,
    seeds: tuple[int, ...] | None = None,
    parts: tuple[str, ...] | None = None,
    tune: bool = False,
) -> None:
    """Run a recipe, or go on with it: what its folder holds is not made again.

    Args:
      name: of the recipe; none lists them.
      data: .npz file, where the recipe does not bring its own data.
      out: folder of the run; default runs/NAME.
      seeds: default those of the recipe.
      parts: of the recipe; default all. ltu: main (the table with ablations and ρ),
        near and far (forget sets); field: field, class, linear.
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
    chosen = _field(data) if name == "field-digits" else _ltu(name, data)
    folder = Path("runs") / name if out is None else out
    if tune:
        if seeds is not None:
            raise InputError(f"seeds={seeds}: the search has seeds of its own")
        found = chosen.search(
            lambda line: console.print(line, markup=False, soft_wrap=True),
            folder / "search",
        )
        path = folder / "settings.json"
        write_atomic(path, to_json(found), overwrite=True)
        console.print(f"wrote {path}", markup=False)
        return
    wanted = chosen.parts if parts is None else parts
    plans = [chosen.plan(part, seeds) for part in wanted]
    phases = sum(len(plan.seeds) * (3 + len(plan.methods)) for plan in plans)
    with Reporter(console, phases) as progress:
        found = {
            part: experiment(
                plan,
                chosen.dataset,
                folder / part,
                progress=progress,
                resume=True,
                originals=folder / chosen.parts[0] if chosen.one_original else None,
            )
            for part, plan in zip(wanted, plans, strict=True)
        }
    _show(console, found, folder, chosen.figures)


class _Recipe(NamedTuple):
    """What the command needs to know of a recipe.

    Attributes:
      dataset: its data.
      parts: by name, the first one first.
      plan: `(part, seeds) -> Plan`.
      search: `(say, folder) -> settings`.
      figures: `(results by part) -> drawings`.
      one_original: whether the parts share the original models of the first.
    """

    dataset: Dataset
    parts: Sequence[str]
    plan: Callable[[str, Sequence[int] | None], Plan]
    search: Callable[[Callable[[str], None], Path], dict[str, Any]]
    figures: Callable[[dict[str, Any]], dict[str, Any]]
    one_original: bool


def _field(data: Path | None) -> _Recipe:
    from jax_unlearn.recipes import field

    if data is not None:
        raise InputError(f"data={data}: field-digits brings its own data")
    return _Recipe(
        digits(),
        field.PARTS,
        lambda part, seeds: field.field_plan(part, seeds=seeds or field.SEEDS),
        lambda say, folder: field.search_field(say, folder=folder),
        lambda found: {},
        one_original=False,
    )


def _ltu(name: str, data: Path | None) -> _Recipe:
    from jax_unlearn.recipes import ltu

    study = name.removeprefix("ltu-")
    dataset = ltu.load(ltu.study_named(study), data)
    return _Recipe(
        dataset,
        ltu.PARTS,
        lambda part, seeds: ltu.ltu_plan(study, part, seeds=seeds),
        lambda say, folder: ltu.search_ltu(study, dataset, say, folder=folder),
        ltu.figures,
        one_original=True,
    )


def _show(
    console: Any,
    found: dict[str, dict[str, Any]],
    folder: Path,
    figures: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Print the tables and write the pages, the figures and the short results."""
    from jax_unlearn import report as reports

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
