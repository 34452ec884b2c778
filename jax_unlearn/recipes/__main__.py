"""Run a recipe by `python -m jax_unlearn.recipes NAME`, without the command line.

It needs neither tyro nor tensorflow-datasets. The options are those of
`jax-unlearn recipe`; results are written to files.
"""

import argparse
import contextlib
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax_unlearn.errors import InputError, NonFiniteError, unknown_name
from jax_unlearn.lab.job import silent
from jax_unlearn.recipes import RECIPES
from jax_unlearn.recipes.recipe import Asked, Screen


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a recipe that needs no ensembles of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    for option, kind in (("data", Path), ("seeds", int), ("parts", str)):
        parser.add_argument(f"--{option}", type=kind, nargs="+")
    for option, kind in (("out", Path), ("minutes", float), ("rivals", str)):
        parser.add_argument(f"--{option}", type=kind)
    told = vars(parser.parse_args(arguments)).items()
    asked: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told}
    recipes = {one.name: one for one in RECIPES}
    if (name := asked.pop("name")) not in recipes:
        raise unknown_name("recipe", name, recipes)

    def refuse(*_: object, **__: object) -> None:
        raise InputError(f"{name} needs the whole of it: jax-unlearn recipe {name}")

    say = functools.partial(print, flush=True)
    quiet = lambda count: contextlib.nullcontext(silent)  # noqa: E731
    screen = Screen(quiet, say, lambda found: None, refuse)
    recipes[name].run(Asked(screen, **asked))


if __name__ == "__main__":
    try:
        main()
    except (InputError, NonFiniteError) as error:
        print(f"jax_unlearn.recipes: {error}", file=sys.stderr)
        sys.exit(2)
