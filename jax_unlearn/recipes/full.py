"""As much of the papers' comparison at full size as some minutes of a device allow.

`grids/full.toml` says what is done, in the order of its priority. Steps are timed
first; then a plan is printed, and the clock looked at between its pieces, each saved as
it ends: the same command goes on. Settings come from the search at small size by
`scaled`; the part "trials" looks, on seeds of its own, whether others are better.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
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

    def __init__(
        self, name: str, size: Any, dataset: Dataset, device: Device, folder: Path
    ):
        # what is measured on the host, in order, while the device goes on
        self.host, self.measured = ThreadPoolExecutor(1), []
        self.told = packaged("grids/full.toml")["parts"][name]
        self.name, self.size, self.device, self.folder = name, size, device, folder
        self.training = Training(**size[self.told["network"]])
        methods = {}
        if "searched" in self.told:
            found = CIFAR10.study.found()[self.told["search"]]
            pair = Training(**found["training"]), self.training
            for label in self.told["searched"]:
                own = Unlearning.of(**found["settings"][label])
                methods[label] = scaled(own, *pair)
        for label, values in self.told["given"].items():
            values = {"batch_size": self.training.batch_size, **values}
            methods[label] = Unlearning.of(**values)
        self.plan = Plan(
            title=f"{dataset.name}: {self.told.get('title', name)}",
            **{"gamma": 1.0, **self.told["request"]},
            unseen=size["unseen"],
            training=self.training,
            methods=methods,
            seeds=self.told.get("seeds", (0, 1)),
            note="Settings of the search at small size, scaled.",
        )
        self.bench = Bench(self.plan, dataset, folder=folder, execute=device)
        self.results: dict[str, Any] = {}
        self.ahead: dict[str, list[Callable[[], Call]]] = {}  # compiled for a piece

    @functools.cached_property
    def blank(self) -> Trained:
        """A model that was not trained, to prepare and to compile with."""
        ids = self.bench.case(self.plan.seeds[0]).request.retain
        return Trained(*self.bench.trainer.job(ids, seed=0)[0].start, {})

    def trained(self, ids: np.ndarray, steps: int | None = None) -> Call:
        """Return the call of a training, or of its first steps."""
        job, key = self.bench.trainer.job(ids, seed=0)
        return self.device.call(job, None, key, steps=steps)

    def forgotten(self, label: str, steps: int | None = None) -> Call:
        """Return the same of a method, prepared on the blank model."""
        case, at = self.bench.case(self.plan.seeds[0]), self.blank
        job = self.bench.prepared(self.plan.methods[label], case, at)
        return self.device.call(job, at[:2], jax.random.key(0), steps=steps)

    def timed(self) -> dict[str, Callable[[], Call]]:
        """Return what a few steps are timed of: the training, and methods if asked."""
        steps = self.size["steps"]
        ids = self.bench.case(self.plan.seeds[0]).request.retain
        methods = self.told["given"] if self.told["kind"] == "speed" else ()
        train = functools.partial(self.trained, ids, steps)
        return {f"training, {self.told['network']}": train} | {
            label: functools.partial(self.forgotten, label, steps) for label in methods
        }

    def pieces(self, speed: Any) -> Iterator[Piece]:
        """Yield the pieces; `speed` is the row of the network's training."""
        data, first = self.bench.dataset, self.plan.seeds[0]
        looked = (len(data.train.labels) + len(data.test.labels)) / 3
        threads = self.size["threads"] if self.device.whole else 1
        compiling = speed["compile_seconds"] / threads

        def piece(seed, name, samples, make, *needs, calls=(), there=False) -> Piece:
            path = f"{self.name}/{seed}/{name}"
            seconds = (looked + samples * (not there)) / speed["samples_per_second"]
            if calls and seed == first and not there:
                self.ahead[path] = list(calls)
                seconds += compiling * len(calls)
            needed = tuple(f"{self.name}/{one}" for one in needs)
            return Piece(path, seconds, make, needed)

        kinds = {"table": self._table, "models": self._models, "trials": self._trials}
        if self.told["kind"] in kinds:
            yield from kinds[self.told["kind"]](piece)

    def measure(self, function: Callable[..., None], *given: Any) -> None:
        """Do it after all that was asked before, while the device goes on."""
        self.measured.append(self.host.submit(function, *given))

    def _table(self, piece: Any) -> Iterator[Piece]:
        """Yield every model of every seed, which is measured when it is there."""
        bench, epochs, last = self.bench, self.training.epochs, None
        table, originals = bench.table(None), {}

        def add(key: str, label: str, trained: Trained, *told: Any) -> None:
            table.add(key, label, trained, *told)
            if key not in ("retrain", "original"):  # before the null nothing compares
                record = head(self.plan.record(), bench.dataset)
                self.results = {**record, **table.summary()}

        def original(case):
            originals[case.seed] = bench.original(case.seed)

        def retrain(case):
            retrained = bench.retrained(case)
            self.measure(table.start, case.request, retrained, case.seed)
            self.measure(add, "retrain", "Retrain", retrained)
            label = "Original (nothing done)"
            self.measure(add, "original", label, originals[case.seed])

        def null(case):
            self.measure(add, "null", "Null (Retrain, other seed)", bench.null(case))

        def unlearn(label, setting, case):
            made = bench.unlearn(label, setting, case, originals[case.seed])
            self.measure(add, slug(label), label, made.trained, setting, made.notes)

        for seed in self.plan.seeds:
            case = bench.case(seed)
            retain = case.request.retain
            both = np.union1d(case.request.forget, retain)
            for name, ids, make, needs in (
                ("original", both, original, ()),
                ("Retrain", retain, retrain, (f"{seed}/original",)),
                ("null", retain, null, (f"{seed}/Retrain",)),
            ):
                calls = [functools.partial(self.trained, ids)] * (make is not null)
                there, one = (
                    bench.has(seed, name.lower()),
                    functools.partial(make, case),
                )
                told = seed, name, epochs * len(ids), one, *needs
                yield piece(*told, calls=calls, there=there)
            for label, setting in self.plan.methods.items():
                samples = samples_of(setting, case.request, epochs)
                make = functools.partial(unlearn, label, setting, case)
                needs = f"{seed}/null", *([] if last is None else [f"{last}/{label}"])
                calls = [functools.partial(self.forgotten, label)]
                there = bench.has(seed, slug(label))
                yield piece(
                    seed, label, samples, make, *needs, calls=calls, there=there
                )
            last = seed

    def _models(self, piece: Any) -> Iterator[Piece]:
        """Yield some more models of every kind at a time, and an audit of all there."""
        epochs, methods, seed = (
            self.training.epochs,
            self.plan.methods,
            self.plan.seeds[0],
        )
        request = self.bench.case(seed).request
        both = np.union1d(request.forget, request.retain)
        samples = epochs * (len(both) + len(request.retain))
        samples += sum(samples_of(one, request, epochs) for one in methods.values())
        calls = [functools.partial(self.trained, ids) for ids in (both, request.retain)]
        calls += [functools.partial(self.forgotten, label) for label in methods]
        for count in range(CHUNK, self.size["models"] + 1, CHUNK):
            make = functools.partial(self._audit, count)
            last = (
                self.folder / "models" / slug([*methods][-1]) / f"{count - 1:04d}.npz"
            )
            own = calls if count == CHUNK else ()
            told = seed, f"{count} of each", CHUNK * samples, make
            yield piece(*told, calls=own, there=last.exists())

    def _audit(self, count: int) -> None:
        maker = functools.partial(DeviceMaker, self.bench)
        given = self.plan, self.bench.dataset, self.folder
        options = {"count": count, "methods": self.plan.methods, "how": "loop"}
        made = run_ensembles(*given, maker=maker, chunk=CHUNK, **options)

        def look() -> None:
            found = audit.to_record(audit_of(made, self.training)[0])
            record = head(self.plan.record(), self.bench.dataset)
            self.results = {**record, "audit": found}

        self.measure(look)

    def _trials(self, piece: Any) -> Iterator[Piece]:
        """Yield on each seed the rates around that of every setting."""
        rows, yardsticks = self.results.setdefault("trials", []), {}
        epochs = self.training.epochs

        def yardstick(seed):
            yardsticks[seed] = Yardstick(self.bench, seed)

        def trial(label, setting, told):
            own = yardsticks[told["seed"]]
            given = label, setting, own.case, own.original
            made = self.bench.unlearn(*given, keep=False)
            rows.append({"method": label, **told, **own.distances(made.trained)})

        for seed in self.plan.seeds:
            request = self.bench.case(seed).request
            size = len(request.forget) + 2 * len(request.retain)
            make = functools.partial(yardstick, seed)
            there = self.bench.has(seed, "retrain")
            yield piece(seed, "yardstick", epochs * size, make, there=there)
            for factor in (1.0, *self.told["factors"]):
                for label, setting in self.plan.methods.items():
                    key = "rate" if "rate" in vars(setting.options) else "learning_rate"
                    rate = float(f"{factor * setting.flat()[key]:.3g}")
                    told = {"seed": seed, key: rate}
                    if any(
                        row.items() >= {"method": label, **told}.items() for row in rows
                    ):
                        continue
                    make = functools.partial(
                        trial, label, setting.but(**{key: rate}), told
                    )
                    samples = samples_of(setting, request, epochs)
                    name = f"{label}, {key} {rate:g}"
                    yield piece(seed, name, samples, make, f"{seed}/yardstick")


def speeds(parts: dict[str, Part], folder: Path, say: Callable[[str], None]) -> Any:
    """Return the measured speed of steps by name, of this device and this folder."""
    device, rows, waiting = slug(jax.devices()[0].device_kind), {}, {}
    for part in parts.values():
        for label, make in part.timed().items():
            path = folder / "speed" / device / f"{slug(label)}.json"
            if path.exists():
                rows[label] = read_json(path)
            elif label not in waiting:
                waiting[label] = path, part, part.device.ahead(make)
    calls = {
        label: (*told, asked.result()) for label, (*told, asked) in waiting.items()
    }
    for label, (path, part, call) in calls.items():
        rows[label] = {"network": part.training.network, **part.device.speed(call)}
        write_atomic(path, to_json(rows[label]), overwrite=True)
    for label, row in rows.items():
        share = row["share_of_peak"]
        told = "" if share is None else f", {share:.1%} of the peak"
        say(f"{label}: {row['samples_per_second']:,.0f} samples/s{told}")
    return rows


def _run(recipe: Recipe, asked: Asked, every: list[Dataset], folder: Path) -> None:
    begun, screen = time.monotonic(), asked.screen
    told = packaged("grids/full.toml")
    size = told["sizes"][recipe.name]
    names = tuple(told["parts"]) if asked.parts is None else asked.parts
    parts: dict[str, Part] = {}
    devices = {
        one.num_classes: Device(one.train, threads=size["threads"]) for one in every
    }
    with locked(folder):
        for name in names:
            if name not in told["parts"]:
                raise unknown_name("part", name, told["parts"])
            classes = told["parts"][name].get("classes", every[0].num_classes)
            if classes not in devices:
                screen.say(f"{name}: left out, no file with {classes} classes is given")
                continue
            data = next(one for one in every if one.num_classes == classes)
            own = folder / fingerprint(data)[:8] / name  # more of the data: others
            parts[name] = Part(name, size, data, devices[classes], own)
        path = folder / "results.json"
        before = read_json(path) if path.exists() else {}
        if "trials" in parts:
            parts["trials"].results = dict(before.get("trials", {}))
        speed = {
            "environment": environment(),
            "rows": speeds(parts, folder, screen.say),
        }
        pieces = [
            piece
            for part in parts.values()
            for piece in part.pieces(speed["rows"][f"training, {part.told['network']}"])
        ]
        if asked.rivals is not None and "speed" in parts:
            rivals = functools.partial(
                _rivals, asked.rivals, parts["speed"], speed, folder
            )
            pieces.insert(0, Piece("speed/rivals", size["rivals"], rivals))
        minutes = MINUTES if asked.minutes is None else asked.minutes
        left = 60 * minutes - (time.monotonic() - begun)
        plan = budget.foreseen(pieces, left)
        for done in plan:
            part = parts[done.piece.name.partition("/")[0]]
            for make in part.ahead.get(done.piece.name, ()):
                if part.device.whole and not done.reason:
                    part.device.ahead(make)
        screen.say(f"{left:.0f} s are left of the {minutes:g} minutes. The plan:")
        for line in told_plan(plan):
            screen.say(line)
        clock: list[dict[str, Any]] = []

        def save() -> None:
            found = {name: part.results for name, part in parts.items() if part.results}
            own = {"speed": speed, "clock": clock}
            text = to_json(shortened({**before, **found, **own}))
            write_atomic(path, text, overwrite=True)

        def told_of(done: Done) -> None:
            piece, seconds, _, reason = done
            row = {"name": piece.name, "foreseen": piece.seconds, "seconds": seconds}
            clock.append({**row, "reason": reason})
            save()
            if not reason.startswith("needs"):
                screen.say(f"{piece.name}: {reason or f'{seconds:.1f} s'}")

        budget.spend(pieces, left, told=told_of)
        for part in parts.values():
            for one in part.measured:
                if error := one.exception():
                    screen.say(f"{part.name}: not measured ({error})")
        save()
    screen.show(
        [
            p.results
            for p in parts.values()
            if "rows" in p.results and p.told["kind"] == "table"
        ]
    )
    screen.say(f"results: {path}")


def told_plan(plan: Sequence[Done]) -> Iterator[str]:
    """Yield a line on each seed of a part: what fits, in seconds, and what does not.

    >>> pieces = [Piece("a/0/FT", 3, print), Piece("a/0/RL", 9, print)]
    >>> list(told_plan(budget.foreseen(pieces, 5)))
    ['  a/0: 3 s (FT 3); left out: RL 9']
    """
    groups: dict[str, list[Done]] = {}
    for done in plan:
        groups.setdefault(done.piece.name.rpartition("/")[0], []).append(done)
    for name, own in groups.items():
        inside, outside = (
            [d.piece for d in own if bool(d.reason) == out] for out in (False, True)
        )
        told = [
            ", ".join(f"{p.name.rpartition('/')[2]} {p.seconds:.0f}" for p in some)
            for some in (inside, outside)
        ]
        fits = f"{sum(p.seconds for p in inside):.0f} s ({told[0]})" if inside else ""
        rest = f"left out: {told[1]}" if outside else ""
        yield f"  {name}: {'; '.join(filter(None, (fits, rest)))}"


def _rivals(named: str, part: Part, speed: dict[str, Any], folder: Path) -> None:
    """Time what a file of the user's times of the same steps, PyTorch's for example."""
    device = slug(jax.devices()[0].device_kind)
    path = folder / "speed" / f"rivals-{device}.json"
    if not path.exists():
        found = load(named)(part.training, part.size["steps"])
        write_atomic(path, to_json(found), overwrite=True)
    speed["rivals"] = read_json(path)


FULL_CIFAR10, FULL_CIFAR10_SMALL = (
    declared(name, _run, options=("parts", "minutes", "rivals"), several=True)
    for name in ("full-cifar10", "full-cifar10-small")
)
