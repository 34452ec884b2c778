"""The demo, the recipes, and the list of methods with what the studies say of them."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console
from rich.markup import escape

from jax_unlearn import report as reports
from jax_unlearn.cli import console as consoles
from jax_unlearn.cli import sources
from jax_unlearn.cli.audit import Probes
from jax_unlearn.cli.ensemble import audited
from jax_unlearn.data import digits
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab import choose, experiment
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS
from jax_unlearn.lab.modalities import MODALITIES
from jax_unlearn.lab.store import SECONDS
from jax_unlearn.recipes import RECIPES, pages
from jax_unlearn.recipes.digits import digits_plan
from jax_unlearn.recipes.recipe import Asked, Results, Screen

__all__ = ["demo", "methods", "recipe", "screen_of"]


def demo(
    out: Path | None = None,
    seeds: tuple[int, ...] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    save_every: float = SECONDS,
    probes: Probes = (),
) -> dict[str, Any]:
    """Forget a long-tailed request on digits by twelve methods; compare with Retrain.

    Example: `jax-unlearn demo --seeds 0 1 --out runs/two-seeds`

    Args:
      out: folder of the run. Default: runs/digits, or the first of runs/digits-2,
        runs/digits-3, … that does not exist.
      seeds: seeds to run, two or more; each draws a split and trains its own models.
        Default: 0 to 4.
      overwrite: replace the run that is in the folder.
      resume: go on with a run that was stopped, in the folder --out (default
        runs/digits).
      save_every: least seconds between two saves from which a killed run goes on; 0
        saves every step.
      probes: further tests of every model; `jax-unlearn audit --help` explains each.
    """
    console = consoles.open_console()
    plan = digits_plan() if seeds is None else digits_plan(seeds=seeds)
    plan = dataclasses.replace(plan, probes=probes)
    if resume and overwrite:
        raise InputError("resume=True goes on with a run: leave --overwrite out")
    folder = out or Path("runs/digits")
    if not resume:
        folder = out or sources.free_path(folder)
        sources.clear_run(folder, overwrite=overwrite)
    console.print(
        f"{plan.title}: {len(plan.methods)} methods, {len(plan.seeds)} seeds, on "
        f"{jax.devices()[0].device_kind}; writing {folder}",
        markup=False,
    )
    phases = len(plan.seeds) * (3 + len(plan.methods))
    run = functools.partial(experiment, plan, digits(), folder, resume=resume)
    with consoles.Reporter(console, phases) as progress:
        results = run(progress=progress, save_every=save_every)
    with consoles.status(console, "drawing the report"):
        page = reports.write(results, folder / "report.html", overwrite=resume)
    consoles.print_results(console, results)
    consoles.print_probes(console, results)
    consoles.print_legend(console, results)
    consoles.say(console, f"report: {page}")
    return {"out": str(folder), **results}


def recipe(
    name: tyro.conf.Positional[str | None] = None,
    data: tuple[Path, ...] | None = None,
    out: Path | None = None,
    seeds: tuple[int, ...] | None = None,
    parts: tuple[str, ...] | None = None,
    classes: tuple[int, ...] | None = None,
    tune: bool = False,
    minutes: float | None = None,
    rivals: str | None = None,
    show: Annotated[bool, tyro.conf.arg(name="list")] = False,
    table: bool = False,
) -> dict[str, Any]:
    """Run a recipe, or go on with it: what its folder holds is not made again.

    Example: `jax-unlearn recipe demo-digits`

    Args:
      name: name of the recipe. Without a name the recipes are listed.
      data: .npz file with the data, for recipes that do not bring their own. Several
        files are joined to one data set.
      out: folder of the run. Default: runs/NAME.
      seeds: seeds to run. Default: those of the recipe.
      parts: parts of the recipe to run, such as random10 and gamma-1 of the tables, or
        random10-20 of a frontier (10 % at random, at 20 % of Retrain's cost). Default:
        all. A name that is unknown is answered by the list of parts.
      classes: for the generation recipes: classes to forget, one at a time.
      tune: search the settings on the recipe's search seeds instead, for all parts or
        for those of --parts, and write them to OUT/settings.json after every method.
        Searches that were made before are not repeated. A recipe that has no settings
        yet searches them first.
      minutes: for the recipes full-…: minutes that it may take. The most important
        parts that fit are run. Default: 9.
      rivals: for the recipes full-…: FILE.py:NAME of a function that times the same
        steps in another library, such as tests/benchmarks/torch_device.py:rivals.
      show: list the recipes and how long each takes, and do nothing else.
      table: write the pages of all stored results, with their figures, to the folder
        --out (default results), and do nothing else.
    """
    shown: list[Results] = []
    screen = screen_of(consoles.open_console(), shown)
    asked = Asked(screen, data, out, seeds, parts, classes, tune or None)
    asked = asked._replace(minutes=minutes, rivals=rivals)
    known = {one.name: one for one in RECIPES}
    if table:
        for option, value in {"name": name, **asked._asdict()}.items():
            if option in ("name", "data", "seeds", "parts") and value is not None:
                raise InputError(
                    f"{option}={value}: --table has no such option; leave it out"
                )
        written = pages.write(RECIPES, out or Path("results"))
        for path in written:
            screen.say(f"wrote {path}")
        return {"pages": [str(path) for path in written]}
    if name is None or show:
        wide = max(len(one.name) for one in RECIPES)
        screen.say(f"{'recipe':<{wide}} {'2 cores':<8} {'accelerator':<13} what")
        for one in RECIPES:
            costs = f"{one.cpu:<8} {one.accelerator:<13}"
            screen.say(f"{one.name:<{wide}} {costs} {one.what}")
        fields = ("name", "what", "cpu", "accelerator")
        listed = [{field: getattr(one, field) for field in fields} for one in RECIPES]
        return {"recipes": listed}
    if name not in known:
        raise unknown_name("recipe", name, known)
    known[name].run(asked)
    return {"out": str(out or Path("runs") / name), "results": shown}


def screen_of(console: Console, shown: list[Results] | None = None) -> Screen:
    """Return what shows on a console how a recipe goes; what is shown is kept too."""
    kept = [] if shown is None else shown

    def show(found: Sequence[Results]) -> None:
        kept.extend(found)
        printers = {
            "generation": consoles.print_generation,
            "language": consoles.print_language,
        }
        for results in found:
            console.print(results["plan"]["title"], style="bold", markup=False)
            kind = str(results.get("kind"))
            printers.get(kind, consoles.print_results)(console, dict(results))
            for why in results.get("diverged", {}).values():
                consoles.say(console, f"no row, because it diverged: {why}")
        tables = [one for one in found if one.get("kind") not in printers]
        if tables:
            consoles.print_legend(console, tables[-1])

    return Screen(
        progress=functools.partial(consoles.Reporter, console),
        say=functools.partial(consoles.say, console),
        show=show,
        ensembles=functools.partial(audited, console),
    )


METHODS_LEGEND = (
    "Cost in gradients of single samples: E epochs, F forget and R retain samples (of "
    "the share that may be read, --rho), T passes of its training, K classes; a "
    "forward pass alone counts a third. 'original': the original model goes on being "
    "asked, as a teacher or for a mask; 'training': its training must be known. "
    "Weights (--weighting): LoReUn, FaLW and others."
)


def methods() -> dict[str, Any]:
    """List the methods: what each needs, costs and is good for, and its source.

    Example: `jax-unlearn methods`
    """
    kinds = {
        name: [m.name for m in MODALITIES if set(card.roles) <= m.roles]
        for name, card in METHODS.items()
    }
    rows = [
        (
            f"{name}\n[dim]{escape(card.title)}, {card.kind}[/]",
            ", ".join(card.reads),
            "yes" if card.weighs else "–",
            ", ".join(kinds[name]),
            escape(card.cost),
            card.source,
        )
        for name, card in METHODS.items()
    ]
    console = consoles.open_console()
    listed = functools.partial(consoles.table_of, justify="left", overflow="fold")
    heads = ("method", "needs", "weights", "models", "cost", "source")
    console.print(listed(heads, rows))
    rows = [(name, escape(card.suits)) for name, card in METHODS.items()]
    console.print(listed(("method", "what it is good for, what to expect"), rows))
    console.print(METHODS_LEGEND, style="dim", markup=False)
    found = choose.rows()
    heads, cells = choose.table(found)
    console.print("\nWhat to run, by what is to be forgotten and what you have")
    cells = [[escape(cell.replace("; ", "\n")) for cell in row] for row in cells]
    console.print(listed(heads, cells))
    console.print(
        f"{choose.LEGEND} `--method auto` takes them.", style="dim", markup=False
    )
    plain = ("title", "label", "kind", "reads", "cost", "source", "weighs", "suits")
    return {
        "methods": {
            name: {field: getattr(card, field) for field in plain}
            | {"models": kinds[name]}
            for name, card in METHODS.items()
        },
        "chooser": [row._asdict() for row in found],
        "weightings": {n: {"title": c.title} for n, c in WEIGHTINGS.items()},
    }
