"""The recipes by name: studies that take longer than the default job."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from jax_unlearn.cli.console import (
    Reporter,
    open_console,
    print_generation,
    print_legend,
    print_results,
)
from jax_unlearn.cli.ensemble import audited
from jax_unlearn.data import Dataset
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab import Plan
from jax_unlearn.recipes.recipe import Asked, Recipe, Results


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
      table: write the pages of all stored results to the folder OUT (default results)
        instead, their figures beside them.
    """
    from jax_unlearn.recipes import RECIPES

    screen = ConsoleScreen()
    asked = Asked(screen, data, out, seeds, parts, classes, tune or None)
    if table:
        _write_pages(RECIPES, name, asked)
        return
    known = {one.name: one for one in RECIPES}
    if name is None or show:
        _list(RECIPES, screen)
        return
    if name not in known:
        raise unknown_name("recipe", name, known)
    known[name].run(asked)


class ConsoleScreen:
    """What a running recipe shows, on the terminal or in a file."""

    def __init__(self):
        self._console = open_console()

    def progress(self, phases: int) -> Reporter:
        """Return what follows so many phases."""
        return Reporter(self._console, phases)

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, soft_wrap=True)

    def show(self, results: Results) -> None:
        """Print the table of results."""
        self._console.print(results["plan"]["title"], style="bold", markup=False)
        generated = results.get("kind") == "generation"
        (print_generation if generated else print_results)(self._console, dict(results))

    def legend(self) -> None:
        """Say how to read the tables."""
        print_legend(self._console)

    def ensembles(self, plan: Plan, dataset: Dataset, out: Path, **asked: Any) -> None:
        """Make many models of a plan, audit and print them."""
        audited(self._console, plan, dataset, out, **asked)


def _list(recipes: tuple[Recipe, ...], screen: ConsoleScreen) -> None:
    """Print the recipes with what they cost."""
    wide = max(len(one.name) for one in recipes)
    screen.say(f"{'recipe':<{wide}} {'2 cores':<8} {'accelerator':<13} what")
    for one in recipes:
        screen.say(f"{one.name:<{wide}} {one.cpu:<8} {one.accelerator:<13} {one.what}")


def _write_pages(recipes: tuple[Recipe, ...], name: str | None, asked: Asked) -> None:
    """Write the pages of all stored results."""
    from jax_unlearn.recipes import pages

    given = {"name": name, "data": asked.data, "seeds": asked.seeds}
    for option, value in {**given, "parts": asked.parts}.items():
        if value is not None:
            raise InputError(
                f"{option}={value}: --table has no such option; leave it out"
            )
    out = Path("results") if asked.out is None else asked.out
    for path in pages.write(recipes, out):
        asked.screen.say(f"wrote {path}")
