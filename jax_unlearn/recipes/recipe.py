"""What a recipe is: its name, its cost, its data, and the function that runs it.

The rest of the module is what these functions share: results seed by seed, figures.
"""

import dataclasses
import functools
import importlib.resources
import json
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from jax_unlearn.data import Dataset, digits, joined, load, shrink, subset, write_atomic
from jax_unlearn.drivers.series import locked
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab import Plan
from jax_unlearn.lab.job import Progress
from jax_unlearn.lab.results import environment, spread, to_json

__all__ = ["HERE", "Asked", "Data", "Drawings", "Recipe", "Results", "Screen"]
__all__ += ["declared", "keep", "packaged", "parts_of", "publish", "seed_by_seed"]
__all__ += ["shortened", "spreads", "stored"]

if TYPE_CHECKING:
    from jax_unlearn.report import Drawing

Results = Mapping[str, Any]
"""What a recipe's file of results holds; of a study, results by part."""

Drawings: TypeAlias = "dict[str, Drawing]"
"""What a recipe draws of its results, by name."""

HERE = importlib.resources.files("jax_unlearn.recipes")


@functools.cache
def packaged(path: str) -> dict[str, Any]:
    """Return what a TOML file of this folder holds, with tuples for lists."""

    def frozen(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: frozen(one) for name, one in value.items()}
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return frozen(tomllib.loads(HERE.joinpath(path).read_text("utf-8")))


class Screen(NamedTuple):
    """What shows how a recipe goes."""

    progress: Callable[[int], AbstractContextManager[Progress]]  # of so many phases
    say: Callable[[str], None]  # prints a line
    show: Callable[[Sequence[Results]], None]  # prints the tables of some results
    ensembles: Callable[..., Any]  # audits many models of `(plan, dataset, out)`


class Asked(NamedTuple):
    """What a run is asked for; None leaves the choice to the recipe."""

    screen: Screen
    data: Path | tuple[Path, ...] | None = None
    out: Path | None = None
    seeds: tuple[int, ...] | None = None
    parts: tuple[str, ...] | None = None
    classes: tuple[int, ...] | None = None
    tune: bool | None = None
    minutes: float | None = None
    rivals: str | None = None


class Data(NamedTuple):
    """Which data a recipe reads."""

    train: int = 0  # samples taken of a file; 0 takes all
    test: int = 0
    shrink: int = 1  # how many times smaller the images are made
    given: bool = True  # in a file; else the data are scikit-learn's digits
    texts: bool = False  # questions and answers, not images

    def load(self, files: Path | Sequence[Path] | None, name: str) -> Dataset:
        """Return the data of the files; refuse what is missing or not needed."""
        datasets = self.every(files, name)
        if len(datasets) > 1:
            classes = " and ".join(str(one.num_classes) for one in datasets)
            raise InputError(
                f"data: files of {classes} classes; {name} reads one data set, give "
                "its parts alone"
            )
        return datasets[0]

    def every(self, files: Path | Sequence[Path] | None, name: str) -> list[Dataset]:
        """Return a data set for each number of classes; files of as many are joined.

        Texts are not joined: a data set a file, in their order.
        """
        files = (files,) if isinstance(files, Path) else files
        if not self.given:
            if files:
                raise InputError(f"data={files[0]}: {name} brings its own data")
            return [digits()]
        if not files:
            form = "FILE.npz with x_train, y_train, x_test, y_test"
            form = "FILE.json of TOFU's questions and answers" if self.texts else form
            raise InputError(f"data=None: {name!r} needs --data {form}")
        if self.texts:
            return [load(file) for file in files]
        found: dict[int, list[Dataset]] = {}
        for dataset in map(load, files):
            found.setdefault(dataset.num_classes, []).append(dataset)
        datasets = [joined(found[classes]) for classes in sorted(found)]
        if self.train:
            sizes = {"train": self.train, "test": self.test}
            datasets = [subset(dataset, **sizes) for dataset in datasets]
        if self.shrink == 1:
            return datasets
        return [shrink(dataset, self.shrink) for dataset in datasets]


DIGITS = Data(given=False)
OPTIONS = ("parts", "classes", "tune", "minutes", "rivals")  # of some recipes alone


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One runnable study."""

    name: str  # on the command line; its results and its page are named after it
    title: str  # of its page
    what: str  # it does, in a few words
    start: Callable[["Recipe", Asked, Any, Path], None]  # runs it in a folder
    cpu: str  # how long it takes on two cores
    accelerator: str = "not measured"
    data: Data = DIGITS
    options: tuple[str, ...] = ()  # of `OPTIONS`
    seeded: bool = True  # whether it may be told seeds
    several: bool = False  # whether `start` is given a list of data sets
    study: Any = None  # what `start` runs; or another recipe, whose models it looks at
    figures: Callable[[Results], Drawings] = lambda found: {}
    page: str = "tables"  # template of its page
    stored: Callable[[Any], Any] = lambda found: shortened(found)  # in its file

    @property
    def stem(self) -> str:
        """Name of its files."""
        return self.name.replace("-", "_")

    def run(self, asked: Asked) -> None:
        """Run it, or go on with it: what its folder holds is not made again."""
        for option in {*OPTIONS} - {*self.options}:
            if (value := getattr(asked, option)) is not None:
                raise InputError(
                    f"{option}={value}: {self.name} has no such option; leave it out"
                )
        if asked.seeds is not None and not self.seeded:
            raise InputError(
                f"seeds={asked.seeds}: {self.name} has its own; leave it out"
            )
        models = self.study if isinstance(self.study, Recipe) else self
        folder = Path("runs") / models.name if asked.out is None else asked.out
        load = self.data.every if self.several else self.data.load
        self.start(self, asked, load(asked.data, self.name), folder)


def declared(name: str, start: Any, **values: Any) -> Recipe:
    """Return the recipe of which `recipes.toml` says the rest."""
    told = packaged("recipes.toml")[name]
    told = {
        key: value
        for key, value in told.items()
        if key not in ("study", "plan", "ideas")
    }
    if "data" in told:
        told["data"] = Data(**told["data"])
    return Recipe(name=name, start=start, **told, **values)


def parts_of(asked: Asked, known: Collection[str]) -> tuple[str, ...]:
    """Return the names of the parts that are asked for, by default all."""
    names = tuple(known) if asked.parts is None else asked.parts
    if not names or len(set(names)) < len(names):
        raise InputError(f"parts={names}: name one or more, none of them twice")
    for name in names:
        if name not in known:
            raise unknown_name("part", name, known)
    return names


def stored(stem: str) -> dict[str, Any]:
    """Return the results of a recipe that the repository holds; empty if none."""
    file = HERE.joinpath("results", f"{stem}.json")
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def publish(
    recipe: Recipe, screen: Screen, folder: Path, found: Mapping[str, Results]
) -> None:
    """Print tables; write reports, figures, results: by part, "" for the run's own."""
    from jax_unlearn import report as reports

    screen.show(list(found.values()))
    for part, results in found.items():
        page = folder / part / "report.html"
        screen.say(f"report: {reports.write(dict(results), page, overwrite=True)}")
    own = found.get("", found)
    for name, drawing in recipe.figures(own).items():
        text = reports.standalone(drawing)
        path = write_atomic(folder / f"{name}.svg", text, overwrite=True)
        screen.say(f"figure: {path}")
    path = folder / ("short.json" if "" in found else "results.json")
    keep(screen, path, recipe.stored(own))


def keep(screen: Screen, path: Path, results: Results) -> None:
    """Write results as they are stored, see `shortened`."""
    text = json.dumps(results, allow_nan=False) + "\n"
    screen.say(f"results: {write_atomic(path, text, overwrite=True)}")


def shortened(value: Any) -> Any:
    """Return results without what is only drawn: histograms, point clouds, images."""
    if isinstance(value, list):
        return [shortened(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {
        name: {} if name in ("scatter", "grids") else shortened(one)
        for name, one in value.items()
        if name not in ("histograms", "confusion")
    }


def seed_by_seed(
    plan: Plan,
    path: Path,
    one: Callable[[int], Any],
    gather: Callable[[list[Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Measure every seed of a plan; `gather` and write all there is after each."""
    found: list[Any] = []
    results: dict[str, Any] = {}
    with locked(path.parent):
        for seed in plan.seeds:
            found.append(one(seed))
            results = {
                "format": 1,
                "plan": plan.title,
                "seeds": list(plan.seeds[: len(found)]),
                "environment": environment(),
                **gather(found),
            }
            write_atomic(path, to_json(results), overwrite=True)
    return results


def spreads(found: Sequence[Any]) -> Any:
    """Return `spread` of every number of nested dictionaries and lists, one a seed."""
    if isinstance(found[0], Mapping):
        return {name: spreads([one[name] for one in found]) for name in found[0]}
    if isinstance(found[0], list):
        return [spreads(same) for same in zip(*found, strict=True)]
    return spread(found)
