"""The tables of the three papers on real data: settings searched, plans made of them.

Every method of a part has equal trials on seeds kept for the search: six of a grid and
two around its best for each round of the study; where the study has a final, the best
few are tried on more seeds. All parts share the original models.
"""

import importlib.resources
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jax_unlearn.data import Dataset, read_json
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab import Plan, Unlearning
from jax_unlearn.recipes.compared import (
    WITH_LOREUN,
    grids,
    ranked,
    referenced,
    unbalanced,
    variants,
)
from jax_unlearn.recipes.inputs import study_named
from jax_unlearn.recipes.search import search
from jax_unlearn.recipes.studies import STUDIES, Study


def search_tables(
    name: str,
    dataset: Dataset,
    say: Callable[[str], None],
    *,
    folder: Path | None = None,
    parts: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Search the settings of a study, part by part; see `search`.

    Args:
      name: of the study.
      dataset: its data.
      say: told a line for each trial.
      folder: where trained models and finished trials are kept.
      parts: those to search; default all that have settings of their own.

    Raises:
      InputError: no such study, or a part without a search.
    """
    study = study_named(name, STUDIES)
    own = [part for part, asked in study.parts.items() if asked.settings == part]
    for part in parts or ():
        if part not in own:
            raise unknown_name("part with a search", part, own)
    found = {}
    for part in parts or own:
        found[part] = search(
            _plan(study, part, {}, study.search_seeds),
            dataset,
            grids(study.parts[part].methods),
            say,
            rounds=study.rounds,
            final=study.final,
            folder=None if folder is None else folder / part,
        )
        jax.clear_caches()  # a program takes memory mappings, of which few are granted
    return found


def has_settings(name: str, folder: Path) -> bool:
    """Return whether `found_settings` finds some."""
    return (folder / "settings.json").exists() or _packaged(name).is_file()


def _packaged(name: str) -> Any:
    kept = importlib.resources.files("jax_unlearn.recipes")
    return kept.joinpath("settings", f"tables_{name}.json")


def found_settings(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Return what the searches of a study found, by part.

    Args:
      name: of the study.
      folder: of a run; what a search wrote to `settings.json` there comes first.

    Raises:
      InputError: nothing was searched, there or when the package was made.
    """
    own = None if folder is None else folder / "settings.json"
    if own is not None and own.exists():
        return read_json(own)
    stored = _packaged(name)
    if not stored.is_file():
        raise InputError(
            f"tables-{name} has no settings yet; search them first: "
            f"jax-unlearn recipe tables-{name} --tune"
        )
    return json.loads(stored.read_text())


def tables_plan(
    name: str,
    part: str,
    *,
    seeds: Sequence[int] | None = None,
    folder: Path | None = None,
) -> Plan:
    """Return one of the plans of a study.

    Args:
      name: of the study.
      part: of it.
      seeds: default those of the part.
      folder: of a run, as in `found_settings`.

    Raises:
      InputError: no such study or part, or no settings for it.
    """
    study = study_named(name, STUDIES)
    if part not in study.parts:
        raise unknown_name("part", part, study.parts)
    asked = study.parts[part]
    found = found_settings(name, folder)[asked.settings]
    methods = {
        label: Unlearning.of(**found["settings"][label]) for label in asked.methods
    }
    if part == "random10" and set(WITH_LOREUN) <= set(methods):
        methods |= variants(methods)
    if "RL + FaLW (exact)" in methods:
        methods |= unbalanced(methods)
    if asked.headline:
        methods |= ranked(methods)
    if asked.seeds:
        methods |= referenced(methods)
    own = "" if asked.settings == part else f" of {asked.settings}"
    note = (
        f"Settings{own} chosen by the smallest mean Avg. Gap of {found['trials']} "
        f"trials a method on search seeds {found['search_seeds']}"
    )
    if final := found.get("final"):
        note += f", the best {final['trials']} on {final['seeds']} too"
    usual = study.seeds if asked.headline else asked.seeds or study.seeds[:3]
    chosen = usual if seeds is None else tuple(seeds)
    return _plan(study, part, methods, chosen, f"{note}.")


def _plan(
    study: Study,
    part: str,
    methods: dict[str, Unlearning],
    seeds: tuple[int, ...],
    note: str = "",
) -> Plan:
    asked = study.parts[part]
    return Plan(
        title=f"{study.title}: {asked.title}",
        kind=asked.kind,
        fraction=asked.fraction,
        gamma=asked.gamma,
        unseen=study.unseen,
        training=study.training,
        methods=methods,
        seeds=seeds,
        note=note,
    )
