"""Ensembles of a plan: N originals, retrained and unlearned models of one request.

A file a model, `models/<role>/0007.npz`, without pickles: the logits by part,
`f32[n, K]`; of an original its arrays too; and a JSON record as bytes, with what
probes found of the model, for which its parameters are needed.
"""

import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jax_unlearn import audit, data
from jax_unlearn._validate import at_least
from jax_unlearn.audit import ModelOutputs, PartLabels
from jax_unlearn.data.files import read_npz
from jax_unlearn.drivers.series import locked
from jax_unlearn.errors import Diverged, InputError
from jax_unlearn.lab.arrays import NOTHING as NOTHING
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.ensemble_models import (
    ORIGINAL,
    PARTS,
    RETRAIN,
    Logits,
    Maker,
)
from jax_unlearn.lab.job import Progress, Trained, silent
from jax_unlearn.lab.modalities import modality_of
from jax_unlearn.lab.parts import EnsemblePart, missing_parts, recorded
from jax_unlearn.lab.plan import Plan, slugs
from jax_unlearn.lab.probes import with_probes
from jax_unlearn.lab.requests import Request, draw_cases
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import SECONDS, stored, together, unfinished

__all__ = ["NOTHING", "Audited", "Ensembles", "Files", "Kept", "audit_of", "figures_of"]
__all__ += ["join", "run_ensembles"]


class Kept(NamedTuple):
    """What is read of a model: its logits, the seconds it took, what probes found."""

    logits: Logits
    seconds: float
    probes: dict[str, float]


Audited = tuple[dict[str, ModelOutputs], ModelOutputs, PartLabels]
"""Outputs by method, of the Retrains, and the labels; "doing nothing" is a method."""


class Ensembles(NamedTuple):
    """What N models of each role say of one request, and what making them took."""

    logits: dict[str, Logits]  # `f32[N, n, K]` by role, where labels are methods' roles
    labels: dict[str, np.ndarray]  # `i32[n]` by part
    request: Request
    seconds: dict[str, float]
    probes: dict[str, dict[str, np.ndarray]] = {}  # noqa: RUF012 - by role, name: `f64[N]`


def run_ensembles(
    plan: Plan,
    dataset: data.Dataset,
    folder: Path,
    *,
    count: int,
    methods: dict[str, Unlearning],
    chunk: int = 16,  # models in one program: as many as memory allows
    how: str = "auto",  # a few steps decide, once for the folder; see `run_ensemble`
    mesh: Mesh | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,  # told the cost, and damaged files
    save_every: float = SECONDS,  # 0 saves a chunk at every step
    bench: Bench | None = None,
    part: EnsemblePart | None = None,  # makes and returns its models alone
    diverged: dict[str, str] | None = None,  # told why methods are left out, by label
) -> Ensembles:
    """Make N models of each role for one request, many at a time, and none twice.

    Model i has seed i, of originals and of methods. An interrupted run goes on in its
    chunk, bit for bit; with more models or methods, only missing ones are made; models
    made without a probe of the plan's are made again for it, but for originals. Parts
    may be made at once in one folder; `join` returns the models of all of them. A model
    that diverges is refused, unless `diverged` is there to be told of its method, which
    then is no role of what is returned.

    Raises:
      Diverged: names the model and the step.
    """
    for name, value in (("count", count), ("chunk", chunk)):
        at_least(name, value, 1, "try 16")
    if plan.by_model:
        what = "the features of one model" if plan.by_distance else "one model"
        raise InputError(
            f"kind={plan.kind!r} follows {what}, and an ensemble shares one request; "
            "use random, class or long_tailed, or give the split of such a request by "
            "--forget"
        )
    own = range(count) if part is None else part.numbers(count, chunk)
    say = say or (lambda line: None)
    request = draw_cases(plan, dataset, plan.seeds[0])[0].request
    files = Files(Path(folder), plan, dataset, request, methods, say)
    decided = Path(folder) / "models" / "how.json"
    with locked(folder if part is None else part.folder(Path(folder))):
        way = how
        if how == "auto" and decided.exists():
            way = str(data.read_json(decided))
            if mesh is not None and way == "loop":
                way = "auto"  # the folder was begun on one device
        bench = bench or Bench(plan, dataset)
        makes = Maker(bench, request, way, mesh, progress or silent)
        found = {role: files.found(role, own) for role in files.roles}
        missing = files.missing(found, own)
        if any(missing.values()):
            size = min(chunk, max(map(len, missing.values())))
            named = f"{len(own)} model{'s' * (len(own) != 1)}"
            # originals that lack probes alone are read, not trained
            trained = [i for i in missing[ORIGINAL] if i not in found[ORIGINAL]]
            costly = {**missing, ORIGINAL: trained}
            say(f"{named}: {makes.estimate(costly, methods, size)}")
            if way == "auto":
                data.write_atomic(decided, json.dumps(makes.how), overwrite=True)
        for role, begin, numbers in _chunks(files, missing, count, chunk):
            if role not in found:
                continue
            options = {"there": found[role], "seconds": save_every}
            try:
                found[role] |= files.complete(makes, role, begin, numbers, **options)
            except Diverged as error:
                if diverged is None or role not in methods:
                    raise
                diverged[role] = str(error)
                say(f"no row, because it diverged: {error}")
                del found[role]
    return _stacked(found, own, makes, request)


def join(
    plan: Plan,
    dataset: data.Dataset,
    folders: Sequence[Path],
    *,
    count: int,
    methods: dict[str, Unlearning],
    say: Callable[[str], None],
) -> Ensembles:
    """Return the models that the parts in some folders made.

    Raises:
      InputError: names the parts that are missing, and the commands that make them.
    """
    request = draw_cases(plan, dataset, plan.seeds[0])[0].request
    found: dict[str, dict[int, Kept]] = {}
    for folder in folders:
        files = Files(folder, plan, dataset, request, methods, say)
        for role in files.roles:
            made = found.setdefault(role, {})
            more = files.missing({role: made}, range(count))[role]
            made |= files.found(role, more)
    every = {role: [i for i in range(count) if i not in found[role]] for role in found}
    if missing := {role: own for role, own in every.items() if own}:
        raise missing_parts(*recorded(folders), missing, folders)
    if any(files.missing(found, range(count)).values()):
        raise InputError(
            f"probes={list(plan.probes)} are put to models when they are made, and "
            f"these were made without; give --probes {' '.join(plan.probes)} to the "
            "commands of the parts once more"
        )
    makes = Maker(Bench(plan, dataset), request, "alone", None, silent)
    return _stacked(found, range(count), makes, request)


def _stacked(
    found: Mapping[str, Mapping[int, Kept]],
    numbers: Sequence[int],
    makes: Maker,
    request: Request,
) -> Ensembles:
    """Return the models of some numbers, in their order."""
    own = {role: [made[i] for i in numbers] for role, made in found.items()}
    every = [model.probes for models in own.values() for model in models]
    names = [name for name in every[0] if all(name in probes for probes in every)]
    return Ensembles(
        {
            role: {p: np.stack([model.logits[p] for model in models]) for p in PARTS}
            for role, models in own.items()
        },
        makes.labels,
        request,
        {role: sum(model.seconds for model in models) for role, models in own.items()},
        {
            role: {name: np.array([m.probes[name] for m in models]) for name in names}
            for role, models in own.items()
        },
    )


def audit_of(
    made: Ensembles,
    training: Any,
    *,
    resamples: int = 20,
    catalogue: Sequence[audit.FigureCard] = audit.FIGURES,
) -> tuple[audit.Audit, Audited]:
    """Audit models that were made; return that, and what was audited."""
    outputs = {role: ModelOutputs(**logits) for role, logits in made.logits.items()}
    outputs = {NOTHING: outputs.pop(ORIGINAL)} | outputs
    given = outputs, outputs.pop(RETRAIN), PartLabels(**made.labels)
    figures = figures_of(training, catalogue)
    told = {"figures": figures, "originals": NOTHING, "resamples": resamples}
    found, probes = audit.audit(*given, **told), dict(made.probes)
    if probes:
        probes[NOTHING] = probes.pop(ORIGINAL)
        known = modality_of(training).probes
        found = with_probes(found, probes, probes[RETRAIN], known)
    return found, given


def figures_of(
    training: Any, catalogue: Sequence[audit.FigureCard]
) -> list[audit.FigureCard]:
    """Return the figures of a catalogue that a kind of model has.

    >>> from jax_unlearn.lab.modalities import modality_named
    >>> training = modality_named("diffusion").training()
    >>> [card.key for card in figures_of(training, audit.OF_GROUPS)][:2]
    ['deviation', 'lira_auc']
    """
    names = modality_of(training).metrics
    return [c for c in catalogue if names is None or {c.key, c.group} & {*names}]


def _chunks(
    files: "Files", missing: dict[str, list[int]], count: int, chunk: int
) -> Iterator[tuple[str, int, list[int]]]:
    """Yield (role, begin, numbers), originals before what starts from them."""
    for begin in range(0, count, chunk):
        for role, numbers in missing.items():
            now = [number for number in numbers if begin <= number < begin + chunk]
            # models that were made together are again: as many of them fix the bits
            before = together(files.path(role, begin))
            if set(before) & set(now):
                yield role, begin, before
                now = [number for number in now if number not in before]
            if now:
                yield role, begin, now


class Files:
    """The models of one request on disk, by role."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        dataset: data.Dataset,
        request: Request,
        methods: dict[str, Unlearning],
        say: Callable[[str], None],
    ):
        self.roles = {ORIGINAL: ORIGINAL, RETRAIN: RETRAIN, **slugs(methods)}
        self._folder, self._methods, self._say = folder, methods, say
        known = modality_of(plan.training).probes
        self._probes = {name: known[name].figures for name in plan.probes}
        self._told = {
            "format": 1,
            "data": data.fingerprint(dataset),
            "request": [data.digest(ids) for ids in request],
            "training": vars(plan.training),
        }

    def path(self, role: str, number: int) -> Path:
        """Return the file of a model."""
        return self._folder / "models" / self.roles[role] / f"{number:04d}.npz"

    def told(self, role: str, number: int) -> dict[str, Any]:
        """Return the record that decides what a model is."""
        told = {**self._told, "role": self.roles[role], "seed": number}
        if role in self._methods:
            told["unlearning"] = self._methods[role].record()
        return told

    def read(self, role: str, number: int) -> Kept | None:
        """Return what is read of a model; None where it must be made."""
        told = self.told(role, number)
        return stored(self.path(role, number), told, _read, say=self._say)

    def found(self, role: str, numbers: Iterable[int]) -> dict[int, Kept]:
        """Return what is there of some models of a role, by number."""
        read = {number: self.read(role, number) for number in numbers}
        return {n: m for n, m in read.items() if m}

    def missing(
        self, found: Mapping[str, Mapping[int, Kept]], numbers: Sequence[int]
    ) -> dict[str, list[int]]:
        """Return the numbers of models not there with all probes, by role."""
        return {
            role: [i for i in numbers if i not in made or self._lacks(made[i])]
            for role, made in found.items()
        }

    def _lacks(self, kept: Kept) -> list[str]:
        """Return the probes that a model was not put to."""
        return [
            name
            for name, figures in self._probes.items()
            if any(card.key not in kept.probes for card in figures)
        ]

    def write(self, role: str, number: int, model: Trained, kept: Kept) -> None:
        """Write what is kept of a model."""
        record = {"told": self.told(role, number), "seconds": kept.seconds}
        record |= {"probes": kept.probes} if kept.probes else {}
        text = np.frombuffer(json.dumps(record).encode(), np.uint8)
        arrays = dict(kept.logits)
        if role == ORIGINAL:
            leaves = enumerate(jax.tree.leaves(model[:2]))
            arrays |= {f"array-{i}": np.asarray(leaf) for i, leaf in leaves}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, record=text, **arrays)
        data.write_atomic(self.path(role, number), buffer.getvalue(), overwrite=True)

    def original(self, number: int, like: Trained) -> Trained:
        """Return an original that is there whole, of the network of another model."""
        _, arrays = _unpack(data.read_file(self.path(ORIGINAL, number)))
        structure = jax.tree.structure(like[:2])
        leaves = [arrays[f"array-{i}"] for i in range(structure.num_leaves)]
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        params, state = jax.tree.unflatten(structure, leaves)
        return Trained(params, state, {})

    def complete(
        self,
        maker: Maker,
        role: str,
        begin: int,
        numbers: Sequence[int],
        *,
        there: Mapping[int, Kept],
        seconds: float,
    ) -> dict[int, Kept]:
        """Make models together, and write those that are not there."""
        told = self.told(role, numbers[0])
        told |= {"numbers": list(numbers), "how": maker.how}
        options, start = {"seconds": seconds, "say": self._say}, time.perf_counter()
        with unfinished(self.path(role, begin), told, **options) as series:
            if role in self._methods:
                before = [self.original(i, maker.blank) for i in numbers]
                given = role, self._methods[role], before, numbers
                models = maker.unlearn(*given, series=series)
            elif role == ORIGINAL and there.keys() >= {*numbers}:  # they lack probes
                models = [self.original(i, maker.blank) for i in numbers]
            else:
                models = maker.train(role, numbers, series)
            pairs = list(zip(numbers, models, strict=True))
            logits = {i: maker.logits(role, i, model) for i, model in pairs}
            share = (time.perf_counter() - start + series.spent) / len(numbers)
            found = {}
            for i, model in pairs:
                found[i] = there.get(i) or Kept(logits[i], share, {})
                if more := self._lacks(found[i]):
                    own = role == ORIGINAL
                    before = model if own else self.original(i, maker.blank)
                    probes = found[i].probes | maker.probes(more, model, before)
                    found[i] = found[i]._replace(probes=probes)
                elif i in there:
                    continue
                self.write(role, i, model, found[i])
        return found


def _read(path: Path) -> tuple[Mapping[str, Any], Kept]:
    record, arrays = _unpack(data.read_file(path))
    logits = {part: arrays[part] for part in PARTS}
    kept = logits, float(record["seconds"]), record.get("probes", {})
    return record["told"], Kept(*kept)


def _unpack(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return record and arrays, the checksum of each looked at."""
    arrays = read_npz(io.BytesIO(content))
    record = json.loads(arrays.pop("record").tobytes())
    if not isinstance(record, dict) or not isinstance(record.get("told"), dict):
        raise ValueError("its record tells nothing")
    return record, arrays
