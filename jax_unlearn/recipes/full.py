"""As much of the papers' comparison at full size as some minutes of a device allow.

`grids/full.toml` says what is done, in the order of its priority. Steps are timed
first; then a plan is printed, and the clock looked at between its pieces, each saved as
it ends: the same command goes on. Settings come from the search at small size by
`scaled`; the part "trials" looks, on seeds of its own, whether others are better.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import Dataset, fingerprint, read_json, write_atomic
from jax_unlearn.drivers import budget
from jax_unlearn.drivers.budget import Done, Piece
from jax_unlearn.drivers.series import locked
from jax_unlearn.errors import unknown_name
from jax_unlearn.lab import Plan, Training, Unlearning
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.catalog import load
from jax_unlearn.lab.device import Call, Device, DeviceMaker, samples_of
from jax_unlearn.lab.ensembles import audit_of, run_ensembles
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.results import environment, head, to_json
from jax_unlearn.recipes.recipe import Asked, Recipe, declared, packaged, shortened
from jax_unlearn.recipes.search import Yardstick
from jax_unlearn.recipes.tables import CIFAR10

MINUTES = 9.0
CHUNK = 8  # models of each kind that are made before these are audited


def scaled(setting: Unlearning, before: Training, after: Training) -> Unlearning:
    """Return a setting found beside one training as it is beside another.

    Its epochs, its rate and its batch keep their ratio to the training's; all else
    stays.

    >>> found = Unlearning.of(method="finetune", epochs=10, learning_rate=0.03)
    >>> scaled(found, Training(epochs=20), Training(epochs=30, batch_size=256)).epochs
    15
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
        self.told = packaged("grids/full.toml")["parts"][name]
        self.name, self.size, self.dataset, self.device = name, size, dataset, device
        self.training = training = Training(**size[self.told["network"]])
        methods = {}
        if "searched" in self.told:
            found = CIFAR10.study.found()[self.told["search"]]
            pair = Training(**found["training"]), training
            for label in self.told["searched"]:
                own = Unlearning.of(**found["settings"][label])
                methods[label] = scaled(own, *pair)
        for label, values in self.told["given"].items():
            methods[label] = Unlearning.of(batch_size=training.batch_size, **values)
        self.plan = Plan(
            title=f"{dataset.name}: {self.told.get('title', name)}",
            **{"gamma": 1.0, **self.told["request"]},
            unseen=size["unseen"],
            training=training,
            methods=methods,
            seeds=self.told.get("seeds", (0, 1)),
            note="Settings of the search at small size, scaled.",
        )
        self.folder = size["out"] / fingerprint(dataset)[:8] / name
        self.bench = Bench(self.plan, dataset, folder=self.folder, execute=device)
        self.case, self.rows = self.bench.case(self.plan.seeds[0]), size["rows"]
        self.results: dict[str, Any] = {}
        self.ahead: dict[str, list[Callable[..., Call]]] = {}  # compiled for a piece
        # figures are computed on the host, in order, while the device goes on
        self.host, self.waiting = ThreadPoolExecutor(1), []

    def trained(self, ids: np.ndarray, steps: int | None = None) -> Call:
        """Return the call of a training, or of its first steps."""
        job, key = self.bench.trainer.job(ids, seed=0)
        return self.device.call(job, None, key, steps=steps)

    def forgotten(self, label: str, steps: int | None = None) -> Call:
        """Return the same of a method, prepared on a model that was not trained."""
        start: Any = self.bench.trainer.job(self.case.request.retain, seed=0)[0].start
        params, state = start
        at = Trained(params, state, {})
        job = self.bench.prepared(self.plan.methods[label], self.case, at)
        return self.device.call(job, at[:2], jax.random.key(0), steps=steps)

    def row(self, label: str) -> Path:
        """Return the file of a speed on this device."""
        kind = slug(jax.devices()[0].device_kind)
        return self.size["out"] / "speed" / kind / f"{slug(label)}.json"

    def timed(self, label: str, call: Callable[..., Call]) -> dict[str, Any]:
        """Return the speed of a few steps, timed where this folder does not know it."""

        def make() -> dict[str, Any]:
            found = self.device.speed(call(steps=self.size["steps"]))
            return {"network": self.training.network, **found}

        self.rows[label] = kept(self.row(label), make)
        return self.rows[label]

    def trains(self) -> tuple[str, Callable[..., Call]]:
        """Return the call of the network's training, by the name of its row."""
        train = functools.partial(self.trained, self.case.request.retain)
        return f"training, {self.told['network']}", train

    def _speed(self) -> Iterator[tuple]:
        """Yield the steps that are timed beside those of training."""
        for label in self.told["given"]:
            call = functools.partial(self.forgotten, label)
            make = functools.partial(self.timed, label, call)
            ahead = functools.partial(call, steps=self.size["steps"])
            yield f"0/{label}", int(not self.row(label).exists()), make, [], [ahead]

    def pieces(self, speed: Any) -> Iterator[Piece]:
        """Yield the pieces; `speed` is the row of the network's training."""
        looked = (len(self.dataset.train.labels) + len(self.dataset.test.labels)) / 3
        compiling = speed["compile_seconds"]
        compiling /= self.size["threads"] if self.device.whole else 1
        for name, samples, make, needs, calls in getattr(
            self, f"_{self.told['kind']}"
        )():
            path = f"{self.name}/{name}"
            self.ahead[path] = calls if samples else []  # none of what is there
            seconds = (looked + samples) / speed["samples_per_second"]
            seconds += compiling * len(self.ahead[path])
            yield Piece(path, seconds, make, tuple(f"{self.name}/{n}" for n in needs))

    def measure(self, function: Callable[..., None], *given: Any) -> None:
        """Do it on the host, after all that was asked before."""
        self.waiting.append(self.host.submit(function, *given))

    def tell(self, **found: Any) -> None:
        """Let these be the results."""
        self.results = {**head(self.plan.record(), self.dataset), **found}

    def _table(self) -> Iterator[tuple]:
        """Yield every model of every seed, which is measured when it is there."""
        bench, epochs, seeds = self.bench, self.training.epochs, self.plan.seeds
        table, originals = bench.table(None), {}

        def add(key, label, trained, *told):
            table.add(key, label, trained, *told)
            if key not in ("retrain", "original"):  # before the null nothing compares
                self.tell(**table.summary())

        def original(case):
            originals[case.seed] = bench.original(case.seed)

        def retrain(case):
            retrained, before = bench.retrained(case), originals[case.seed]
            self.measure(table.start, case.request, retrained, case.seed)
            self.measure(add, "retrain", "Retrain", retrained)
            self.measure(add, "original", "Original (nothing done)", before)

        def null(case):
            self.measure(add, "null", "Null (Retrain, other seed)", bench.null(case))

        def unlearn(label, case):
            setting, before = self.plan.methods[label], originals[case.seed]
            made = bench.unlearn(label, setting, case, before)
            self.measure(add, slug(label), label, made.trained, setting, made.notes)

        for last, seed in zip((None, *seeds), seeds, strict=False):
            case = bench.case(seed)
            retain = case.request.retain
            both = np.union1d(case.request.forget, retain)
            first = "original", original, both, [], [self.trained]
            second = "Retrain", retrain, retain, [f"{seed}/original"], [self.trained]
            for name, make, ids, needs, calls in (
                *(first, second),
                ("null", null, retain, [f"{seed}/Retrain"], []),
            ):
                samples = 0 if bench.has(seed, name.lower()) else epochs * len(ids)
                calls = [functools.partial(call, ids) for call in calls if last is None]
                one = functools.partial(make, case)
                yield f"{seed}/{name}", samples, one, needs, calls
            for label, setting in self.plan.methods.items():
                needs = [f"{seed}/null", *([] if last is None else [f"{last}/{label}"])]
                samples = samples_of(setting, case.request, epochs)
                samples *= not bench.has(seed, slug(label))
                calls = [functools.partial(self.forgotten, label)]
                one = functools.partial(unlearn, label, case)
                own = calls if last is None else []
                yield f"{seed}/{label}", samples, one, needs, own

    def _models(self) -> Iterator[tuple]:
        """Yield some more models of every kind at a time, and an audit of all there."""
        request, methods = self.case.request, self.plan.methods
        sets = np.union1d(request.forget, request.retain), request.retain
        samples = self.training.epochs * sum(map(len, sets))
        for setting in methods.values():
            samples += samples_of(setting, request, self.training.epochs)
        calls = [functools.partial(self.trained, ids) for ids in sets]
        calls += [functools.partial(self.forgotten, label) for label in methods]
        last = self.folder / "models" / slug([*methods][-1])
        for count in range(CHUNK, self.size["models"] + 1, CHUNK):
            own = 0 if (last / f"{count - 1:04d}.npz").exists() else CHUNK * samples
            make = functools.partial(self._audited, count)
            yield f"0/{count} of each", own, make, [], calls if count == CHUNK else []

    def _audited(self, count: int) -> None:
        made = run_ensembles(
            self.plan,
            self.dataset,
            self.folder,
            count=count,
            methods=self.plan.methods,
            chunk=CHUNK,
            how="loop",
            maker=functools.partial(DeviceMaker, self.bench),
        )

        def look() -> None:
            self.tell(audit=audit.to_record(audit_of(made, self.training)[0]))

        self.measure(look)

    def _trials(self) -> Iterator[tuple]:
        """Yield on each seed the rates around that of every setting."""
        rows, yardsticks = self.results.setdefault("trials", []), {}
        epochs = self.training.epochs

        def yardstick(seed):
            yardsticks[seed] = Yardstick(self.bench, seed)

        def trial(setting, told):
            own = yardsticks[told["seed"]]
            given = told["method"], setting, own.case, own.original
            made = self.bench.unlearn(*given, keep=False)
            rows.append({**told, **own.distances(made.trained)})

        for seed in self.plan.seeds:
            request = self.bench.case(seed).request
            size = epochs * (len(request.forget) + 2 * len(request.retain))
            size *= not self.bench.has(seed, "retrain")
            make = functools.partial(yardstick, seed)
            yield f"{seed}/yardstick", size, make, [], []
            for factor in (1.0, *self.told["factors"]):
                for label, setting in self.plan.methods.items():
                    key = "rate" if "rate" in vars(setting.options) else "learning_rate"
                    rate = float(f"{factor * setting.flat()[key]:.3g}")
                    told = {"method": label, "seed": seed, key: rate}
                    if any(row.items() >= told.items() for row in rows):
                        continue
                    make = functools.partial(trial, setting.but(**{key: rate}), told)
                    samples = samples_of(setting, request, epochs)
                    name = f"{seed}/{label}, {key} {rate:g}"
                    yield name, samples, make, [f"{seed}/yardstick"], []


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Return what a file holds, made where there is none."""
    if not path.exists():
        write_atomic(path, to_json(make()), overwrite=True)
    return read_json(path)


def rate(row: Mapping[str, Any]) -> str:
    """Return the speed of steps in words.

    >>> rate({"samples_per_second": 41000.0, "share_of_peak": 0.4})
    '41,000 samples/s, 40.0% of the peak'
    """
    share = row["share_of_peak"]
    told = "" if share is None else f", {share:.1%} of the peak"
    return f"{row['samples_per_second']:,.0f} samples/s{told}"


def _run(recipe: Recipe, asked: Asked, every: list[Dataset], folder: Path) -> None:
    """Time the steps, print the plan, and do what fits."""
    begun, screen = time.monotonic(), asked.screen
    told = packaged("grids/full.toml")
    rows: dict[str, Any] = {}  # of the steps that are timed, by name
    size = {**told["sizes"][recipe.name], "out": folder, "rows": rows}
    data = {one.num_classes: one for one in every}
    devices = {
        classes: Device(one.train, threads=size["threads"])
        for classes, one in data.items()
    }
    parts: dict[str, Part] = {}
    for name in asked.parts or told["parts"]:
        if name not in told["parts"]:
            raise unknown_name("part", name, told["parts"])
        classes = told["parts"][name].get("classes", every[0].num_classes)
        if classes in data:
            parts[name] = Part(name, size, data[classes], devices[classes])
        else:
            screen.say(f"{name}: left out, no file with {classes} classes is given")
    path, clock = folder / "results.json", []
    before = read_json(path) if path.exists() else {}
    if "trials" in parts:
        parts["trials"].results = dict(before.get("trials", {}))
    with locked(folder):
        speed: dict[str, Any] = {"environment": environment(), "rows": rows}
        trains = {part.trains()[0]: part for part in reversed(parts.values())}
        calls = [
            part.device.ahead(functools.partial(part.trains()[1], steps=size["steps"]))
            for part in trains.values()
        ]
        for call in calls:  # steps are timed when nothing is compiled any more
            call.result()
        for label, part in trains.items():
            screen.say(f"{label}: {rate(part.timed(label, part.trains()[1]))}")

        def rivals(part: Part) -> None:
            def make() -> Any:
                return load(str(asked.rivals))(part.training, size["steps"])

            speed["rivals"] = kept(folder / "speed" / "rivals.json", make)

        pieces = []
        for name, part in parts.items():
            pieces += part.pieces(rows[part.trains()[0]])
            if name == "speed" and asked.rivals is not None:
                make = functools.partial(rivals, part)
                pieces.append(Piece("speed/0/rivals", size["rivals"], make))
        minutes = MINUTES if asked.minutes is None else asked.minutes
        left = 60 * minutes - (time.monotonic() - begun)
        plan = budget.foreseen(pieces, left)
        screen.say(f"{left:.0f} s are left of the {minutes:g} minutes. The plan:")
        for line in budget.lines(plan):
            screen.say(f"  {line}")
        begin = {done.piece.name: not done.reason for done in plan}
        timing = [name for name in begin if name.startswith("speed/")]

        def compile_ahead(names: Iterable[str]) -> None:
            for name in names:
                part = parts[name.partition("/")[0]]
                for call in part.ahead.get(name, ()):
                    if part.device.whole and begin[name]:
                        part.device.ahead(call)

        others = [name for name in begin if name not in timing]
        compile_ahead(timing or others)

        def save() -> None:
            found = {name: part.results for name, part in parts.items() if part.results}
            whole = {**before, **found, "speed": speed, "clock": clock}
            write_atomic(path, to_json(shortened(whole)), overwrite=True)

        def ended(done: Done) -> None:
            row = {"name": done.piece.name, "foreseen": done.piece.seconds}
            clock.append({**row, "seconds": done.seconds, "reason": done.reason})
            save()
            if not done.reason.startswith("needs"):
                told = f"{done.seconds:.1f} s"
                told += f", {rate(done.result)}" if done.result else ""
                screen.say(f"{row['name']}: {done.reason or told}")
            if timing and row["name"] == timing[-1]:  # others would disturb the times
                compile_ahead(others)

        budget.spend(pieces, left, told=ended)
        for device in devices.values():
            device.close()
        for name, part in parts.items():
            for one in part.waiting:
                if error := one.exception():
                    screen.say(f"{name}: not measured ({error})")
        save()
    tables = [part for part in parts.values() if part.told["kind"] == "table"]
    screen.show([part.results for part in tables if part.results])
    screen.say(f"results: {path}")


FULL_CIFAR10, FULL_CIFAR10_SMALL = (
    declared(name, _run, options=("parts", "minutes", "rivals"), several=True)
    for name in ("full-cifar10", "full-cifar10-small")
)
