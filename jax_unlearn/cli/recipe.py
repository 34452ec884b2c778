"""The recipes by name: studies that take longer than the default job."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from jax_unlearn.cli.console import (
    Reporter,
    open_console,
    print_generation,
    print_legend,
    print_results,
)
from jax_unlearn.data import Dataset, check_writable, digits, write_atomic
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.pipeline import Plan, experiment
from jax_unlearn.pipeline.results import shortened, to_json

RECIPES = {
    "chain-digits": "ten forget requests one after another, a ledger; digits",
    "field-digits": "all methods on digits: long-tailed, a class, a linear network",
    "ltu-digits": "LTU: table at ρ = 0.3, ablations, ρ sweep, near and far; digits",
    "generation-digits": "forget a class of a diffusion model, 8 methods; digits",
    "generation-fashion": "the same on Fashion-MNIST at 14 x 14 (--data)",
    "generation-cifar10": "the same on CIFAR-10 at 16 x 16 (--data); an hour or more",
    "generation-cifar10-full": "CIFAR-10 at full size (--data), for an accelerator",
    "ltu-cifar10": "the same on 2,500 images of CIFAR-10 (--data), small ResNet; hours",
}


def recipe(
    name: tyro.conf.Positional[str | None] = None,
    data: Path | None = None,
    out: Path | None = None,
    seeds: tuple[int, ...] | None = None,
    parts: tuple[str, ...] | None = None,
    classes: tuple[int, ...] | None = None,
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
      classes: of a generation recipe, to forget one at a time.
      tune: search the settings instead, on the recipe's search seeds; writes them to
        OUT/settings.json.
    """
    console = open_console()
    if name is None:
        for known, what in RECIPES.items():
            console.print(f"{known:<24} {what}", markup=False, soft_wrap=True)
        return
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    if name.startswith("generation-"):
        _has_no("a generation recipe", parts=parts, tune=tune or None)
        _generation(console, name, data, out, seeds, classes)
        return
    if classes is not None:
        raise InputError(f"classes={classes}: only generation recipes have classes")
    if name == "chain-digits":
        _chain(console, data, out, seeds, parts, tune)
        return
    chosen = _field(data) if name == "field-digits" else _ltu(name, data)
    folder = Path("runs") / name if out is None else out
    check_writable(folder / "settings.json")
    if tune:
        if seeds is not None:
            raise InputError(f"seeds={seeds}: the search has seeds of its own")
        if parts is not None:
            raise InputError(f"parts={parts}: the search is of all parts; leave it out")
        found = chosen.search(
            lambda line: console.print(line, markup=False, soft_wrap=True),
            folder / "search",
        )
        path = folder / "settings.json"
        write_atomic(path, to_json(found), overwrite=True)
        console.print(f"wrote {path}", markup=False)
        return
    wanted = chosen.parts if parts is None else parts
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(f"parts={parts}: name one or more, none of them twice")
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


def _chain(
    console: Any,
    data: Path | None,
    out: Path | None,
    seeds: Sequence[int] | None,
    parts: Sequence[str] | None,
    tune: bool,
) -> None:
    """Run ten requests one after another; print the table, write the results."""
    from jax_unlearn.recipes import chain

    _has_no("chain-digits", data=data, parts=parts, tune=tune or None)
    plan = chain.chain_plan(seeds=chain.SEEDS if seeds is None else seeds)
    folder = Path("runs") / "chain-digits" if out is None else out
    check_writable(folder / "results.json")
    phases = len(plan.seeds) * (3 + len(plan.methods))
    with Reporter(console, phases) as progress:
        results = chain.chain_study(plan, folder, progress=progress)
    console.print(plan.title, style="bold", markup=False)
    print_results(console, results)
    print_legend(console)
    text = to_json(shortened(results))
    path = write_atomic(folder / "short.json", text, overwrite=True)
    console.print(f"short results: {path}", markup=False, soft_wrap=True)


def _has_no(recipe: str, **given: Any) -> None:
    for option, value in given.items():
        if value is not None:
            raise InputError(
                f"{option}={value}: {recipe} has no such option; leave it out"
            )


def _generation(
    console: Any,
    name: str,
    data: Path | None,
    out: Path | None,
    seeds: Sequence[int] | None,
    classes: Sequence[int] | None,
) -> None:
    """Run a study of diffusion models; write its page, its figure, its results."""
    from jax_unlearn import report as reports
    from jax_unlearn.pipeline.generation import phases, study
    from jax_unlearn.pipeline.generation.results import short
    from jax_unlearn.recipes.generation import generation_plan, load

    kind = name.removeprefix("generation-")
    plan = generation_plan(kind, seeds=seeds, classes=classes)
    dataset = load(kind, data)
    folder = Path("runs") / name if out is None else out
    with Reporter(console, phases(plan)) as progress:
        results = study(plan, dataset, folder, progress=progress)
    console.print(plan.title, style="bold", markup=False)
    print_generation(console, results)
    page = reports.write(results, folder / "report.html", overwrite=True)
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    drawing = reports.standalone(reports.generation_figure(results))
    path = write_atomic(folder / "figure.svg", drawing, overwrite=True)
    console.print(f"figure: {path}", markup=False, soft_wrap=True)
    text = json.dumps(short(results), allow_nan=False) + "\n"
    path = write_atomic(folder / "short.json", text, overwrite=True)
    console.print(f"results without images: {path}", markup=False, soft_wrap=True)


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
        lambda part, seeds: field.field_plan(
            part, seeds=field.SEEDS if seeds is None else seeds
        ),
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
