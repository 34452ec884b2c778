"""The recipes by name: studies that take longer than the default job."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import tyro

from jax_unlearn.cli.console import (
    Reporter,
    open_console,
    print_generation,
    print_legend,
    print_results,
)
from jax_unlearn.cli.ensemble import audited
from jax_unlearn.data import Dataset, check_writable, digits, write_atomic
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab import Plan, experiment
from jax_unlearn.lab.results import shortened, to_json
from jax_unlearn.recipes.search import text_of


class Known(NamedTuple):
    """What the list says of a recipe.

    Attributes:
      what: it does.
      cpu: how long it takes on two cores.
      accelerator: how long on one, where that was measured or is what it is for.
    """

    what: str
    cpu: str
    accelerator: str = "not measured"


RECIPES = {
    "chain-digits": Known("ten forget requests one after another, a ledger", "2 min"),
    "field-digits": Known(
        "all methods: long-tailed, a class, a linear network", "10 min"
    ),
    "ltu-digits": Known("LTU: table, ablations, ρ sweep, near and far", "30 min"),
    "ltu-cifar10": Known("the same on 2,500 images of CIFAR-10, small ResNet", "2 h"),
    "generation-digits": Known("forget a class of a diffusion model", "15 min"),
    "generation-fashion": Known("the same on Fashion-MNIST at 14 x 14", "40 min"),
    "generation-cifar10": Known("the same on CIFAR-10 at 16 x 16", "1 h"),
    "generation-cifar10-full": Known("CIFAR-10 at full size", "weeks"),
    "tables-fashion": Known("the papers' tables, Fashion-MNIST subset", "2 h"),
    "tables-cifar10": Known("the same on a CIFAR-10 subset", "3 h"),
    "tables-cifar10-full": Known("all of CIFAR-10, ResNet-18, 182 epochs", "weeks"),
    "tables-cifar10-vgg": Known("the same with VGG-16, long-tailed", "weeks"),
    "tables-cifar100-full": Known("long-tailed, CIFAR-100, ResNet-18", "weeks"),
    "tables-tiny-imagenet-full": Known("long-tailed, Tiny-ImageNet, VGG-16", "weeks"),
    "proxies-fashion": Known("is the loss a proxy of difficulty; PGD", "5 min"),
    "proxies-cifar10": Known("the same on the CIFAR-10 subset", "15 min"),
    "lira-fashion": Known("U-LiRA and KLoM with 32 models each", "30 min"),
    "learned-fashion": Known("LoReUn's temperature and weights, learned", "10 min"),
    "learned-cifar10": Known("the same on the CIFAR-10 subset", "1 h"),
}


def recipe(
    name: tyro.conf.Positional[str | None] = None,
    data: Path | None = None,
    out: Path | None = None,
    seeds: tuple[int, ...] | None = None,
    parts: tuple[str, ...] | None = None,
    classes: tuple[int, ...] | None = None,
    tune: bool = False,
    show: Annotated[bool, tyro.conf.arg(name="list")] = False,
    table: bool = False,
) -> None:
    """Run a recipe, or go on with it: what its folder holds is not made again.

    Args:
      name: of the recipe; none lists them.
      data: .npz file, where the recipe does not bring its own data.
      out: folder of the run; default runs/NAME.
      seeds: default those of the recipe.
      parts: of the recipe; default all. ltu: main (the table with ablations and ρ),
        near and far (forget sets); field: field, class, linear; tables: random10,
        gamma-1 and others.
      classes: of a generation recipe, to forget one at a time.
      tune: search the settings instead, on the recipe's search seeds; writes them to
        OUT/settings.json. A recipe that comes without settings searches them first.
      show: list the recipes with what they cost, and do nothing else.
      table: write the page of all stored results to OUT (default results.md) instead,
        the figures beside it.
    """
    console = open_console()
    if table:
        _has_no("--table", name=name, data=data, seeds=seeds, parts=parts)
        _table(console, Path("results.md") if out is None else out)
        return
    if name is None or show:
        _list(console)
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
    family = name.partition("-")[0]
    if family in ("proxies", "learned", "lira"):
        _has_no(name, parts=parts, tune=tune or None)
        _look(console, name, data, out, seeds)
        return
    folder = Path("runs") / name if out is None else out
    make = {"field": _field, "ltu": _ltu, "tables": _tables}[family]
    chosen = make(name, data, folder)
    check_writable(folder / "settings.json")
    if tune:
        if seeds is not None:
            raise InputError(f"seeds={seeds}: the search has seeds of its own")
        if parts is not None:
            raise InputError(f"parts={parts}: the search is of all parts; leave it out")
    if tune or not chosen.settled:
        found = chosen.search(
            lambda line: console.print(line, markup=False, soft_wrap=True),
            folder / "search",
        )
        path = folder / "settings.json"
        write_atomic(path, text_of(found), overwrite=True)
        console.print(f"wrote {path}", markup=False)
    if tune:
        return
    wanted = chosen.parts if parts is None else parts
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(f"parts={parts}: name one or more, none of them twice")
    plans = [chosen.plan(part, seeds) for part in wanted]
    phases = sum(len(plan.seeds) * (3 + len(plan.methods)) for plan in plans)
    with Reporter(console, phases) as progress:
        found = {}
        for part, plan in zip(wanted, plans, strict=True):
            found[part] = experiment(
                plan,
                chosen.dataset,
                folder / part,
                progress=progress,
                resume=True,
                originals=folder / chosen.parts[0] if chosen.one_original else None,
            )
            # a program takes memory mappings, of which Linux grants a process 65,530
            jax.clear_caches()
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
    from jax_unlearn.lab.generation import phases, study
    from jax_unlearn.lab.generation.results import short
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
      settled: whether settings are known; else they are searched first.
    """

    dataset: Dataset
    parts: Sequence[str]
    plan: Callable[[str, Sequence[int] | None], Plan]
    search: Callable[[Callable[[str], None], Path], dict[str, Any]]
    figures: Callable[[dict[str, Any]], dict[str, Any]]
    one_original: bool
    settled: bool = True


def _field(name: str, data: Path | None, folder: Path) -> _Recipe:
    del folder
    from jax_unlearn.recipes import field

    if data is not None:
        raise InputError(f"data={data}: {name} brings its own data")
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


def _ltu(name: str, data: Path | None, folder: Path) -> _Recipe:
    del folder
    from jax_unlearn.recipes import ltu

    study = name.removeprefix("ltu-")
    dataset = ltu.load(study, data)
    return _Recipe(
        dataset,
        ltu.PARTS,
        lambda part, seeds: ltu.ltu_plan(study, part, seeds=seeds),
        lambda say, folder: ltu.search_ltu(study, dataset, say, folder=folder),
        ltu.figures,
        one_original=True,
    )


def _tables(name: str, data: Path | None, folder: Path) -> _Recipe:
    from jax_unlearn.recipes import studies, tables

    study = name.removeprefix("tables-")
    dataset = studies.load(study, data)
    return _Recipe(
        dataset,
        tuple(studies.STUDIES[study].parts),
        lambda part, seeds: tables.tables_plan(study, part, seeds=seeds, folder=folder),
        lambda say, folder: tables.search_tables(study, dataset, say, folder=folder),
        lambda found: {},
        one_original=True,
        settled=tables.has_settings(study, folder),
    )


def _look(
    console: Any,
    name: str,
    data: Path | None,
    out: Path | None,
    seeds: Sequence[int] | None,
) -> None:
    """Look at the tables' first part: its models, its originals, many of its kind."""
    from jax_unlearn.recipes import compared, learned, proxies, studies, tables

    family, _, study = name.partition("-")
    dataset = studies.load(study, data)
    folder = Path("runs") / f"tables-{study}" if out is None else out
    plan = tables.tables_plan(study, "random10", seeds=seeds, folder=folder)
    folder = folder / "random10"
    if family == "lira":
        asked = {"methods": compared.ATTACKED, "models": compared.MODELS}
        audited(console, plan, dataset, folder / "lira", **asked)
        return
    if family == "learned":

        def say(line: str) -> None:
            console.print(line, markup=False, soft_wrap=True)

        learned.learned_study(plan, dataset, folder, say=say)
    else:
        phases = len(plan.seeds) * (3 + len(proxies.UNLEARNED))
        with Reporter(console, phases) as progress:
            proxies.proxies_study(plan, dataset, folder, progress=progress)
    path = folder / f"{family}.json"
    console.print(f"results: {path}", markup=False, soft_wrap=True)


def _list(console: Any) -> None:
    """Print the recipes with what they cost."""
    wide = max(map(len, RECIPES))
    console.print(
        f"{'recipe':<{wide}} {'2 cores':<8} {'accelerator':<13} what", markup=False
    )
    for name, known in RECIPES.items():
        line = f"{name:<{wide}} {known.cpu:<8} {known.accelerator:<13} {known.what}"
        console.print(line, markup=False, soft_wrap=True)


def _table(console: Any, out: Path) -> None:
    """Write the page of all stored results."""
    from jax_unlearn.recipes import page

    for path in page.write(out):
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


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
