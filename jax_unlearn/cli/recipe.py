"""The recipes by name: studies that take longer than the default job."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from jax_unlearn.cli import console as consoles
from jax_unlearn.cli.ensemble import audited
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.recipes.recipe import Asked, Recipe, Results, Screen


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

    screen = screen_of(consoles.open_console())
    asked = Asked(screen, data, out, seeds, parts, classes, tune or None)
    known = {one.name: one for one in RECIPES}
    if table:
        _write_pages(RECIPES, name, asked)
    elif name is None or show:
        _list(RECIPES, screen)
    elif name not in known:
        raise unknown_name("recipe", name, known)
    else:
        known[name].run(asked)


def screen_of(console: Console) -> Screen:
    """Return what shows on a console how a recipe goes."""

    def show(found: Sequence[Results]) -> None:
        drawn = [results.get("kind") == "generation" for results in found]
        for results, images in zip(found, drawn, strict=True):
            console.print(results["plan"]["title"], style="bold", markup=False)
            printed = consoles.print_generation if images else consoles.print_results
            printed(console, dict(results))
        if not all(drawn):
            consoles.print_legend(console)

    return Screen(
        progress=functools.partial(consoles.Reporter, console),
        say=functools.partial(consoles.say, console),
        show=show,
        ensembles=functools.partial(audited, console),
    )


def _list(recipes: Sequence[Recipe], screen: Screen) -> None:
    """Print the recipes with what they cost."""
    wide = max(len(one.name) for one in recipes)
    screen.say(f"{'recipe':<{wide}} {'2 cores':<8} {'accelerator':<13} what")
    for one in recipes:
        screen.say(f"{one.name:<{wide}} {one.cpu:<8} {one.accelerator:<13} {one.what}")


def _write_pages(recipes: Sequence[Recipe], name: str | None, asked: Asked) -> None:
    """Write the pages of all stored results."""
    from jax_unlearn.recipes import pages

    for option, value in {"name": name, **asked._asdict()}.items():
        if option in ("name", "data", "seeds", "parts") and value is not None:
            raise InputError(
                f"{option}={value}: --table has no such option; leave it out"
            )
    for path in pages.write(recipes, asked.out or Path("results")):
        asked.screen.say(f"wrote {path}")
