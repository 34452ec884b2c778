"""The comparison at full size, as far as some minutes of an accelerator allow.

`grids/full.toml` lists the pieces of work by priority. Steps are timed first, then a
plan is printed. The time is checked between pieces, and each is saved when it ends: the
same command goes on from there. `scaled` takes the settings from the search at small
size; the part "trials" tests, on seeds of its own, whether others are better.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import Dataset, fingerprint, read_json, write_atomic
from jax_unlearn.drivers import budget
from jax_unlearn.drivers.budget import Done, Piece
from jax_unlearn.drivers.series import locked
from jax_unlearn.lab import Plan, Training, Unlearning
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.catalog import load
from jax_unlearn.lab.costs import count_of
from jax_unlearn.lab.device import Call, Device
from jax_unlearn.lab.ensembles import audit_of, run_ensembles
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.requests import Case
from jax_unlearn.lab.results import environment, head, to_json
from jax_unlearn.recipes.recipe import (
    Asked,
    Recipe,
    declared,
    packaged,
    parts_of,
    shortened,
)
from jax_unlearn.recipes.search import Trials
from jax_unlearn.recipes.tables import CIFAR10

__all__ = ["Part", "kept", "rate", "scaled"]

MINUTES = 9.0
CHUNK = 8  # models of each kind that are made before these are audited
FIRST = "original, Retrain and null"  # a piece of a seed
TRAININGS = "original", "retrain"


def scaled(setting: Unlearning, before: Training, after: Training) -> Unlearning:
    """Return a setting found beside one training as it is beside another.

    Its epochs, its rate and its batch keep their ratio to the training's.
    """
    rate = setting.learning_rate * after.learning_rate / before.learning_rate
    return setting.but(
        epochs=max(round(setting.epochs * after.epochs / before.epochs), 1),
        learning_rate=float(f"{rate:.3g}"),
        batch_size=max(setting.batch_size * after.batch_size // before.batch_size, 1),
    )


class Part:
    """A part of the study: its models, and its pieces with what is foreseen of them."""

    def __init__(self, name: str, size: Any, dataset: Dataset, device: Device):
        told = packaged("grids/full.toml")["parts"][name]
        self.name, self.told, self.size = name, told, size
        self.dataset, self.device = dataset, device
        self.training = training = Training(**size[told["network"]])
        found, methods = CIFAR10.study.found().get(told.get("search")), {}
        for label in told.get("searched", ()):
            own = Unlearning.of(**found["settings"][label])
            methods[label] = scaled(own, Training(**found["training"]), training)
        for label, values in told["given"].items():
            methods[label] = Unlearning.of(batch_size=training.batch_size, **values)
        self.plan = Plan(
            title=f"{dataset.name}: {told.get('title', name)}",
            **{"gamma": 1.0, **told["request"]},
            unseen=size["unseen"],
            training=training,
            methods=methods,
            seeds=told.get("seeds", (0, 1)),
            note="The settings were searched at small size and scaled.",
        )
        self.folder = size["out"] / fingerprint(dataset)[:8] / name
        self.bench = Bench(self.plan, dataset, folder=self.folder, execute=device)
        self.case = self.bench.case(self.plan.seeds[0])
        self.trains = f"training, {told['network']}"  # name of a timed row
        self.pieces: Callable[[], Iterator[Piece]] = getattr(self, f"_{told['kind']}")
        self.results: dict[str, Any] = {}
        # figures are computed on the host, in order, while the device goes on
        self.host, self.waiting = ThreadPoolExecutor(1), []

    def call(self, label: str, steps: int | None = None) -> Call:
        """Return the call of a model of the first seed, or of its first steps."""
        forget, retain = self.case.request[:2]
        ids = np.union1d(forget, retain) if label == "original" else retain
        job, key = self.bench.trainer.job(ids, seed=0)
        params, state = cast(Any, job.start)
        at = Trained(params, state, {})  # not trained at all
        if label in self.plan.methods:
            job = self.bench.prepared(self.plan.methods[label], self.case, at)
        return self.device.call(job, at[:2], key, steps=steps)

    def ahead(self, label: str, steps: int | None = None) -> Future[Call]:
        """Prepare and compile a call in a thread."""
        return self.device.ahead(functools.partial(self.call, label, steps))

    def row(self, label: str) -> Path:
        """Return the file of a speed on this device."""
        kind = slug(jax.devices()[0].device_kind)
        return self.size["out"] / "speed" / kind / f"{slug(label)}.json"

    def timed(self, label: str) -> dict[str, Any]:
        """Return the speed of a few steps, timed where this folder does not know it."""

        def make() -> dict[str, Any]:
            found = self.device.speed(self.call(label, self.size["steps"]))
            return {"network": self.training.network, **found}

        row = self.size["rows"][label] = kept(self.row(label), make)
        return row

    def piece(
        self,
        name: str,
        samples: float,
        make: Callable[[], Any],
        *,
        needs: Iterable[str] = (),
        calls: Iterable[str] = (),
    ) -> Piece:
        """Return a piece; `calls` are labels of what it compiles if anything is new."""
        device, speed = self.device, self.size["rows"][self.trains]
        looked = (len(self.dataset.train.labels) + len(self.dataset.test.labels)) / 3
        seconds = (looked + samples) / speed["samples_per_second"]
        steps = self.size["steps"] if self.told["kind"] == "speed" else None
        ahead = [functools.partial(self.ahead, one, steps) for one in calls if samples]
        compiling = speed["compile_seconds"] * len(ahead)
        return Piece(
            f"{self.name}/{name}",
            seconds + compiling / (self.size["threads"] if device.whole else 1),
            make,
            tuple(f"{self.name}/{need}" for need in needs),
            tuple(ahead) if device.whole else (),
        )

    def samples(self, case: Case, *labels: str) -> float:
        """Return the samples that models of a seed take, those that are there none."""
        methods, epochs = self.plan.methods, self.training.epochs
        forget, retain, _ = map(len, case.request)
        found: dict[str, float] = {"original": epochs * (forget + retain)}
        for label in labels:
            if label in methods:
                count = count_of(methods[label], case.request, epochs)
                found[label] = count.of(methods[label])
        new = [one for one in labels if not self.bench.has(case.seed, slug(one))]
        return sum(found.get(label, epochs * retain) for label in new)

    def measure(self, function: Callable[..., None], *given: Any) -> None:
        """Do it on the host, after all that was asked before."""
        self.waiting.append(self.host.submit(function, *given))

    def tell(self, **found: Any) -> None:
        """Let these be the results."""
        self.results = {**head(self.plan.record(), self.dataset), **found}

    def _speed(self) -> Iterator[Piece]:
        """Yield the steps that are timed beside those of training."""
        for label in self.told["given"]:
            make = functools.partial(self.timed, label)
            samples = int(not self.row(label).exists())
            yield self.piece(f"0/{label}", samples, make, calls=[label])

    def _table(self) -> Iterator[Piece]:
        """Yield the models of every seed, which are measured when they are there."""
        bench, table, originals = self.bench, self.bench.table(None), {}

        def add(key, label, trained, *told):
            table.add(key, label, trained, *told)
            self.tell(**table.summary())

        def first(case):
            original, retrained, null = bench.references(case)
            originals[case.seed] = original
            self.measure(table.start, case.request, retrained, case.seed)
            self.measure(table.add, "retrain", "Retrain", retrained)
            self.measure(table.add, "original", "Original (nothing done)", original)
            # before the null nothing compares
            self.measure(add, "null", "Null (Retrain, other seed)", null)

        def unlearn(label, case):
            setting, before = self.plan.methods[label], originals[case.seed]
            made = bench.unlearn(label, setting, case, before)
            self.measure(add, slug(label), label, made.trained, setting, made.notes)

        last: list[int] = []  # a seed, whose programs serve the others
        for seed in self.plan.seeds:
            case = bench.case(seed)
            samples = self.samples(case, *TRAININGS, "null")
            make, calls = functools.partial(first, case), () if last else TRAININGS
            yield self.piece(f"{seed}/{FIRST}", samples, make, calls=calls)
            for label in self.plan.methods:
                needs = [f"{seed}/{FIRST}", *(f"{one}/{label}" for one in last)]
                options = {"needs": needs, "calls": () if last else (label,)}
                make = functools.partial(unlearn, label, case)
                samples = self.samples(case, label)
                yield self.piece(f"{seed}/{label}", samples, make, **options)
            last = [seed]

    def _models(self) -> Iterator[Piece]:
        """Yield some more models of every kind at a time, and an audit of all there."""
        every = [*TRAININGS, *self.plan.methods]
        samples = CHUNK * self.samples(self.case, *every)
        last = self.folder / "models" / slug(every[-1])
        for count in range(CHUNK, self.size["models"] + 1, CHUNK):
            own = 0 if (last / f"{count - 1:04d}.npz").exists() else samples
            calls = every if count == CHUNK else []
            make = functools.partial(self._audited, count)
            yield self.piece(f"0/{count} of each", own, make, calls=calls)

    def _audited(self, count: int) -> None:
        """Make so many models of every kind, and audit them."""
        options = {"count": count, "chunk": CHUNK, "methods": self.plan.methods}
        given = self.plan, self.dataset, self.folder
        made = run_ensembles(*given, how="alone", bench=self.bench, **options)

        def look() -> None:
            self.tell(audit=audit.to_record(audit_of(made, self.training)[0]))

        self.measure(look)

    def _trials(self) -> Iterator[Piece]:
        """Yield on each seed the rates around that of every setting."""
        trial, rows = Trials(self.bench), []

        def tried(label, setting, key, seed):
            row = {"method": label, "seed": seed, key: setting.flat()[key]}
            rows.append({**row, **trial(label, setting, [seed])})
            self.results = {"trials": rows}

        for seed in self.plan.seeds:
            case, first = self.bench.case(seed), f"{seed}/original and Retrain"
            make = functools.partial(trial.yardstick, seed)
            yield self.piece(first, self.samples(case, *TRAININGS), make)
            for factor in (1.0, *self.told["factors"]):
                for label, setting in self.plan.methods.items():
                    key = "rate" if "rate" in vars(setting.options) else "learning_rate"
                    rate = float(f"{factor * setting.flat()[key]:.3g}")
                    chosen = setting.but(**{key: rate})
                    make = functools.partial(tried, label, chosen, key, seed)
                    if trial.known(chosen, [seed]):
                        make()
                        continue
                    name = f"{seed}/{label}, {key} {rate:g}"
                    samples = self.samples(case, label)
                    yield self.piece(name, samples, make, needs=[first])


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Return what a file holds, made where there is none."""
    if not path.exists():
        write_atomic(path, to_json(make()), overwrite=True)
    return read_json(path)


def rate(row: Mapping[str, Any]) -> str:
    """Return the speed of steps in words."""
    share = row["share_of_peak"]
    told = "" if share is None else f", {share:.1%} of the peak"
    return f"{row['samples_per_second']:,.0f} samples/s{told}"


def _parts(asked: Asked, size: Any, every: list[Dataset]) -> dict[str, Part]:
    """Return the parts that are asked for and whose data are given."""
    told = packaged("grids/full.toml")["parts"]
    data = {
        one.num_classes: (one, Device(one.train, threads=size["threads"]))
        for one in every
    }
    parts = {}
    for name in parts_of(asked, told):
        classes = told[name].get("classes", every[0].num_classes)
        if classes in data:
            parts[name] = Part(name, size, *data[classes])
        else:
            line = f"{name}: left out, no file with {classes} classes is given"
            asked.screen.say(line)
    return parts


def _run(recipe: Recipe, asked: Asked, every: list[Dataset], folder: Path) -> None:
    """Time the steps, print the plan, and do what fits."""
    begun, screen = time.monotonic(), asked.screen
    rows: dict[str, Any] = {}  # of the steps that are timed, by name
    size = packaged("grids/full.toml")["sizes"][recipe.name]
    size = {**size, "out": folder, "rows": rows}
    parts = _parts(asked, size, every)
    speed: dict[str, Any] = {"environment": environment(), "rows": rows}
    path, clock = folder / "results.json", []
    with locked(folder):
        before = read_json(path) if path.exists() else {}
        trains = {part.trains: part for part in reversed(parts.values())}
        new = [pair for pair in trains.items() if not pair[1].row(pair[0]).exists()]
        for call in [part.ahead(name, size["steps"]) for name, part in new]:
            call.result()  # steps are timed when nothing is compiled any more
        for name, part in trains.items():
            screen.say(f"{name}: {rate(part.timed(name))}")
        pieces: list[Piece] = []
        for name, part in parts.items():
            pieces += part.pieces()
            if name == "speed" and asked.rivals is not None:
                time_them = load(asked.rivals)
                make = functools.partial(time_them, part.training, size["steps"])
                make = functools.partial(kept, folder / "speed" / "rivals.json", make)
                pieces.append(Piece("speed/0/rivals", size["rivals"], make))
        minutes = MINUTES if asked.minutes is None else asked.minutes
        left = max(60 * minutes - (time.monotonic() - begun), 0.0)
        plan = budget.foreseen(pieces, left)
        screen.say(
            f"{left:.0f} s are left of the {minutes:g} minutes. The plan by seed:"
        )
        for line in budget.lines(plan):
            screen.say(f"  {line}")
        timing = [one.name for one in pieces if one.name.startswith("speed/")]

        def compile_ahead(timed: bool) -> None:
            for done in plan:
                if not done.reason and (done.piece.name in timing) == timed:
                    for begin in done.piece.ahead:
                        begin()

        compile_ahead(bool(timing))

        def save() -> None:
            found = {name: part.results for name, part in parts.items() if part.results}
            whole = {**before, **found, "speed": speed, "clock": clock}
            write_atomic(path, to_json(shortened(whole)), overwrite=True)

        def ended(done: Done) -> None:
            row = {"name": done.piece.name, "foreseen": done.piece.seconds}
            clock.append({**row, "seconds": done.seconds, "reason": done.reason})
            told = f"{done.seconds:.1f} s"
            if done.reason:
                told = f"not done ({done.reason})"
            elif row["name"] == "speed/0/rivals":
                speed["rivals"] = done.result
            elif isinstance(done.result, Mapping):
                told += f", {rate(done.result)}"
            save()
            if not done.reason.startswith("needs"):
                screen.say(f"{row['name']}: {told}")
            if timing and row["name"] == timing[-1]:  # others would disturb the times
                compile_ahead(False)

        budget.spend(pieces, left, told=ended)
        for part in parts.values():
            part.device.close()
            for one in part.waiting:
                if error := one.exception():
                    screen.say(f"{part.name}: not measured ({error})")
        save()
    tables = [part for part in parts.values() if part.told["kind"] == "table"]
    screen.show([part.results for part in tables if part.results])
    screen.say(f"results: {path}")


FULL_CIFAR10, FULL_CIFAR10_SMALL = (
    declared(name, _run, options=("parts", "minutes", "rivals"), several=True)
    for name in ("full-cifar10", "full-cifar10-small")
)
