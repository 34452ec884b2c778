"""A study: requests on one data set, with settings searched on other seeds."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jax_unlearn.data import Dataset, check_writable, read_json, write_atomic
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab import Plan, Training, Unlearning, experiment
from jax_unlearn.lab.experiment import phases
from jax_unlearn.recipes.recipe import (
    HERE,
    Asked,
    Recipe,
    declared,
    packaged,
    parts_of,
    publish,
)
from jax_unlearn.recipes.search import Final, Grids, search, text_of

__all__ = ["Part", "Settings", "Study", "run_study", "studied"]

Settings = dict[str, Unlearning]
"""By label, in the order of the rows."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One request, and what is asked of it."""

    title: str  # of its table; "": that of the study
    kind: str  # of the request, as in `Plan`, like the next two
    fraction: float
    gamma: float = 1.0
    grid: Grids = dataclasses.field(default_factory=dict)  # of its own search
    settings: str = ""  # the part whose search its settings come from, without its own
    methods: tuple[str, ...] = ()  # labels of its rows; default those of its grid
    more: tuple[Callable[[Settings], Settings], ...] = ()  # add rows, in this order
    seeds: tuple[int, ...] = ()  # default those of the study, like the training
    training: Training | None = None
    printed: str = ""  # the paper's table beside it, of `published.toml`

    def but(self, **changes: Any) -> "Part":
        """Return the part with changes."""
        return dataclasses.replace(self, **changes)

    def like(self, settings: str, methods: Sequence[str], **changes: Any) -> "Part":
        """Return a part of the same kind, with settings of another part's search."""
        own = {"grid": {}, "more": (), "printed": "", **changes}
        return self.but(settings=settings, methods=tuple(methods), **own)


@dataclasses.dataclass(frozen=True)
class Study:
    """Requests on one data set; the first part's original models serve all."""

    name: str  # of the recipe
    title: str  # of its tables
    unseen: int  # training samples held out of all training
    training: Training
    parts: Mapping[str, Part]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    search_seeds: tuple[int, ...] = (100, 101)
    rounds: int = 0  # of a search after its grid, two trials each
    final: Final | None = None
    note: str = ""  # what else is said of the settings

    def plan(
        self,
        part: str,
        *,
        seeds: Sequence[int] | None = None,
        folder: Path | None = None,
        whole: bool = True,
    ) -> Plan:
        """Return the plan of a part, with the settings that `found` finds.

        Rows that it has none of are refused, or left out where `whole` is False.
        """
        if part not in self.parts:
            raise unknown_name("part", part, self.parts)
        asked = self.parts[part]
        found = self.found(folder).get(asked.settings or part, {"settings": {}})
        out = found.get("left_out", ())  # of methods that the budget leaves no step
        labels = [x for x in asked.methods or asked.grid if x not in out]
        missing = [label for label in labels if label not in found["settings"]]
        if missing and (whole or missing == [*labels]):
            raise self._unsearched(f"of {missing[0]!r} where {part} asks for it")
        known = [label for label in labels if label not in missing]
        methods = {k: Unlearning.of(**found["settings"][k]) for k in known}
        for more in asked.more:
            methods = more(methods)
        own = f" of {asked.settings}" if asked.settings else ""
        note = (
            f"Each method has the settings{own} with the smallest mean Avg. Gap of "
            f"{found['trials']} trials on search seeds {found['search_seeds']}"
        )
        if final := found.get("final"):
            note += f"; the best {final['trials']} also ran on {final['seeds']}"
        chosen = asked.seeds or self.seeds if seeds is None else tuple(seeds)
        return self._plan(asked, methods, chosen, f"{note}{self.note}.")

    def search(
        self,
        dataset: Dataset,
        say: Callable[[str], None],
        *,
        folder: Path | None = None,
        parts: Sequence[str] = (),
        before: Mapping[str, Any] | None = None,
        save: Callable[[dict[str, Any]], None] = lambda found: None,
    ) -> dict[str, Any]:
        """Return what a `search` finds of parts with a grid of their own, by part.

        By default of all of them. What `before`, such a return, has of the same grids
        is kept; `save` is called with all there is after each method.
        """
        found = dict(before or {})

        def keep(name: str, own: dict[str, Any]) -> None:
            found[name] = own
            save({part: found[part] for part in self.parts if part in found})

        for name in parts or self.parts:
            if (part := self.parts[name]).grid:
                found[name] = search(
                    self._plan(part, {}, self.search_seeds),
                    dataset,
                    part.grid,
                    say,
                    rounds=self.rounds,
                    final=self.final,
                    folder=None if folder is None else folder / name,
                    models=None if folder is None else folder / self.first(name),
                    before=found.get(name),
                    save=functools.partial(keep, name),
                )
                _release()
        return {part: found[part] for part in self.parts if part in found}

    def first(self, name: str) -> str:
        """Return the first part of the same request, whose models serve all."""
        told = "kind", "fraction", "gamma", "training"
        of = [getattr(self.parts[name], field) for field in told]
        return next(
            other
            for other, part in self.parts.items()
            if [getattr(part, field) for field in told] == of
        )

    def unsearched(self, parts: Sequence[str], folder: Path | None) -> tuple[str, ...]:
        """Return the parts of whose searches these parts lack settings."""
        kept, lacking = self.kept(folder) or {}, []
        for name in parts:
            part = self.parts[name]
            own = part.settings or name
            found = kept.get(own, {})
            known = {*found.get("settings", ()), *found.get("left_out", ())}
            if not known >= {*(part.methods or part.grid)}:
                lacking.append(own)
        return tuple(dict.fromkeys(lacking))

    def found(self, folder: Path | None = None) -> dict[str, Any]:
        """Return what a search found, by part: in a run's folder, or the package."""
        found = self.kept(folder)
        if found is None:
            raise self._unsearched("yet")
        return found

    def kept(self, folder: Path | None) -> dict[str, Any] | None:
        """Return the file that `found` reads, None where there is none."""
        file = HERE.joinpath("settings", f"{self.name.replace('-', '_')}.json")
        if folder is not None and (folder / "settings.json").exists():
            return read_json(folder / "settings.json")
        return json.loads(file.read_text("utf-8")) if file.is_file() else None

    def _unsearched(self, what: str) -> InputError:
        return InputError(
            f"{self.name} has no settings {what}; search them first: "
            f"jax-unlearn recipe {self.name} --tune"
        )

    def _plan(
        self, part: Part, methods: Settings, seeds: tuple[int, ...], note: str = ""
    ) -> Plan:
        return Plan(
            title=f"{self.title}: {part.title}" if part.title else self.title,
            kind=part.kind,
            fraction=part.fraction,
            gamma=part.gamma,
            unseen=self.unseen,
            training=part.training or self.training,
            methods=methods,
            seeds=seeds,
            note=note,
        )


def studied(name: str, parts: Mapping[str, Part], **values: Any) -> Recipe:
    """Return the recipe of a study of which `recipes.toml` says the rest."""
    told = packaged("recipes.toml")[name]
    own = {"title": told["title"], **told["study"]}
    own["training"] = Training(**own["training"])
    if "final" in own:
        own["final"] = Final(*own["final"])
    study = Study(name, parts=parts, **own)
    return declared(name, run_study, study=study, options=("parts", "tune"), **values)


def run_study(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    """Search the settings that a study lacks, or is to search; run its parts."""
    study, screen = recipe.study, asked.screen
    check_writable(folder / "settings.json")
    if asked.tune and asked.seeds is not None:
        raise InputError(
            f"seeds={asked.seeds}: a search has seeds of its own; leave it out"
        )
    parts = parts_of(asked, study.parts)
    own = tuple(dict.fromkeys(study.parts[part].settings or part for part in parts))
    path = folder / "settings.json"

    def save(found: dict[str, Any]) -> None:
        write_atomic(path, text_of(found), overwrite=True)

    if lacking := own if asked.tune else study.unsearched(parts, folder):
        known = {"before": study.kept(folder), "parts": lacking, "save": save}
        save(study.search(dataset, screen.say, folder=folder / "search", **known))
        screen.say(f"wrote {path}")
    if asked.tune:
        return
    plans = {part: study.plan(part, seeds=asked.seeds, folder=folder) for part in parts}
    results = {}
    with screen.progress(sum(map(phases, plans.values()))) as progress:
        for part, plan in plans.items():
            shared = plan.training == study.training
            results[part] = experiment(
                plan,
                dataset,
                folder / part,
                progress=progress,
                resume=True,
                originals=folder / next(iter(study.parts)) if shared else None,
                retrains=folder / study.first(part),
            )
            _release()
    publish(recipe, screen, folder, results)


def _release() -> None:
    # a program takes memory mappings, of which Linux grants a process 65,530
    jax.clear_caches()
