"""A study: requests on one data set, with settings searched on other seeds."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jax_unlearn.data import Dataset, check_writable, read_json, write_atomic
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab import Plan, Training, Unlearning, experiment
from jax_unlearn.lab.experiment import phases
from jax_unlearn.recipes.recipe import HERE, Asked, Recipe, declared, packaged, publish
from jax_unlearn.recipes.search import Final, Grids, search, text_of

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
    ) -> Plan:
        """Return the plan of a part, with the settings that `found` finds."""
        if part not in self.parts:
            raise unknown_name("part", part, self.parts)
        asked = self.parts[part]
        found = self.found(folder)[asked.settings or part]
        methods = {
            label: Unlearning.of(**found["settings"][label])
            for label in asked.methods or asked.grid
        }
        for more in asked.more:
            methods = more(methods)
        own = f" of {asked.settings}" if asked.settings else ""
        note = (
            f"Settings{own} chosen by the smallest mean Avg. Gap of {found['trials']} "
            f"trials a method on search seeds {found['search_seeds']}"
        )
        if final := found.get("final"):
            note += f", the best {final['trials']} on {final['seeds']} too"
        chosen = asked.seeds or self.seeds if seeds is None else tuple(seeds)
        return self._plan(asked, methods, chosen, f"{note}{self.note}.")

    def search(
        self,
        dataset: Dataset,
        say: Callable[[str], None],
        *,
        folder: Path | None = None,
    ) -> dict[str, Any]:
        """Return what a `search` of each part with a grid of its own finds, by part."""
        found = {}
        for name, part in self.parts.items():
            if part.grid:
                found[name] = search(
                    self._plan(part, {}, self.search_seeds),
                    dataset,
                    part.grid,
                    say,
                    rounds=self.rounds,
                    final=self.final,
                    folder=None if folder is None else folder / name,
                )
                _release()
        return found

    def found(self, folder: Path | None = None) -> dict[str, Any]:
        """Return what a search found, by part: in a run's folder, or the package."""
        found = self.kept(folder)
        if found is None:
            raise InputError(
                f"{self.name} has no settings yet; search them first: "
                f"jax-unlearn recipe {self.name} --tune"
            )
        # searches of a single part were once written without its name
        return {next(iter(self.parts)): found} if "settings" in found else found

    def kept(self, folder: Path | None) -> dict[str, Any] | None:
        """Return the file that `found` reads, None where there is none."""
        if folder is not None and (folder / "settings.json").exists():
            return read_json(folder / "settings.json")
        kept = HERE.joinpath("settings", f"{self.name.replace('-', '_')}.json")
        return json.loads(kept.read_text("utf-8")) if kept.is_file() else None

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
    """Search the settings of a study where there are none; run its parts."""
    study, screen = recipe.study, asked.screen
    check_writable(folder / "settings.json")
    for option in ("seeds", "parts") if asked.tune else ():
        if (value := getattr(asked, option)) is not None:
            raise InputError(
                f"{option}={value}: a search is of all parts, on seeds of its own; "
                "leave it out"
            )
    if asked.tune or study.kept(folder) is None:
        found = study.search(dataset, screen.say, folder=folder / "search")
        path = write_atomic(folder / "settings.json", text_of(found), overwrite=True)
        screen.say(f"wrote {path}")
    if asked.tune:
        return
    parts = tuple(study.parts) if asked.parts is None else asked.parts
    if not parts or len(set(parts)) < len(parts):
        raise InputError(f"parts={parts}: name one or more, none of them twice")
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
            )
            _release()
    publish(recipe, screen, folder, results)


def _release() -> None:
    # a program takes memory mappings, of which Linux grants a process 65,530
    jax.clear_caches()
