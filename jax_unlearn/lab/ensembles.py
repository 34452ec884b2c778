"""Ensembles of a plan: N originals, retrained and unlearned models of one request."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from jax_unlearn.data import Dataset
from jax_unlearn.drivers.series import locked
from jax_unlearn.errors import InputError
from jax_unlearn.lab.ensemble_files import PARTS, Files, Logits
from jax_unlearn.lab.ensemble_models import Maker
from jax_unlearn.lab.job import Progress, Trained, silent
from jax_unlearn.lab.plan import Plan
from jax_unlearn.lab.requests import Request, draw_cases
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import SECONDS, unfinished


class Ensembles(NamedTuple):
    """What N models of each role say of one request.

    Attributes:
      logits: by role ("original", "retrain", the labels of the methods), then by part
        ("forget", "retain", "unseen", "test"): `f32[N, n, K]`. Model i of a method was
        original i; retrained models pair with none.
      labels: true classes by part, `i32[n]`.
      request: the ids of the parts.
      seconds: by role, what making its models took, whenever that was.
    """

    logits: dict[str, Logits]
    labels: dict[str, np.ndarray]
    request: Request
    seconds: dict[str, float]


def run_ensembles(
    plan: Plan,
    dataset: Dataset,
    folder: Path,
    *,
    count: int,
    methods: dict[str, Unlearning],
    chunk: int = 16,
    how: str = "auto",
    mesh: Mesh | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    save_every: float = SECONDS,
) -> Ensembles:
    """Make N models of each role for one request, many at a time, and none twice.

    The request is that of the plan's first seed. Original i is trained on forget and
    retain samples with seed i (initialisation, order, augmentation) and unlearned by
    each method with seed i; N models of other seeds are trained on the retain samples.
    `folder/models/<role>/0007.npz` keeps the logits of model 7, and the arrays of an
    original, with the setting they came from. It is written whole when its chunk is
    made, and the chunk is saved while it is: an interrupted run goes on in it, bit for
    bit, and a call with more models or methods makes only those that are missing.

    Args:
      plan: request and training; its methods and other seeds are not read.
      dataset: its data.
      folder: where the models are kept.
      count: N.
      methods: settings by label.
      chunk: models in one program, as many as memory allows.
      how: as in `run_ensemble`; "auto" is decided by a few steps of training, once
        for the folder: `models/how.json`.
      mesh: devices to spread the models over, as in `run_ensemble`; a chunk that does
        not fill it is padded.
      progress: called as training and unlearning go on.
      say: told the cost before the work begins, and which files are damaged.
      save_every: least seconds between two saves of a chunk; 0 saves every step.

    Raises:
      InputError: another process runs in the folder, a number that is not positive,
        labels that name one folder, a request that depends on features, a folder of
        another setting, a model that diverged.
    """
    for name, value in (("count", count), ("chunk", chunk)):
        if value < 1:
            raise InputError(f"{name}={value} must be at least 1; try 16")
    if plan.by_distance:
        raise InputError(
            f"kind={plan.kind!r} follows the features of one model, and an ensemble "
            "shares one request; use random, class or long_tailed"
        )
    say = say or (lambda line: None)
    request = draw_cases(plan, dataset, plan.seeds[0])[0].request
    files = Files(Path(folder), plan, dataset, request, methods, say)
    with locked(folder):
        way = files.way(how)
        if mesh is not None and way == "loop" != how:
            way = "auto"  # the folder was begun on one device
        maker = Maker(plan, dataset, request, way, mesh, progress or silent)
        found = _made(files, maker, methods, (count, chunk), save_every, say)
    return Ensembles(
        {
            role: {p: np.stack([kept[i][0][p] for i in range(count)]) for p in PARTS}
            for role, kept in found.items()
        },
        maker.labels,
        request,
        {role: sum(s for _, s in kept.values()) for role, kept in found.items()},
    )


def _made(
    files: Files,
    maker: Maker,
    methods: dict[str, Unlearning],
    sizes: tuple[int, int],
    save_every: float,
    say: Callable[[str], None],
) -> dict[str, dict[int, tuple[Logits, float]]]:
    """Return logits and seconds of all models by role, those on disk and new ones."""
    count, chunk = sizes
    found: dict[str, dict[int, tuple[Logits, float]]] = {}
    for role in files.roles:
        read = {number: files.read(role, number) for number in range(count)}
        found[role] = {i: kept for i, kept in read.items() if kept is not None}
    missing = {
        role: [number for number in range(count) if number not in kept]
        for role, kept in found.items()
    }
    if not any(missing.values()):
        return found
    size = min(chunk, max(len(numbers) for numbers in missing.values()))
    asked = maker.how
    say(f"{count} models: {maker.estimate(missing, methods, size)}")
    if asked == "auto":
        files.keep_way(maker.how)
    for role, begin, numbers in _chunks(files, missing, count, chunk):
        start = time.perf_counter()
        told = files.told(role, numbers, maker.how)
        path = files.path(role, begin)
        with unfinished(path, told, seconds=save_every, say=say) as series:
            files.begin(role, begin, numbers)
            try:
                made = _make(files, maker, methods, role, numbers, series)
            except BaseException:
                if not series.paths():
                    files.forget(role, begin)
                raise
            logits = [
                maker.logits(role, number, model)
                for number, model in zip(numbers, made, strict=True)
            ]
            seconds = time.perf_counter() - start + series.spent
            share = seconds / len(numbers)
            for number, model, told in zip(numbers, made, logits, strict=True):
                if number not in found[role]:
                    files.write(role, number, model, told, share)
                    found[role][number] = told, share
    return found


def _make(files, maker, methods, role, numbers, series) -> list[Trained]:
    if role not in methods:
        return maker.train(role, numbers, series)
    originals = [files.original(i, maker.blank) for i in numbers]
    return maker.unlearn(role, methods[role], originals, numbers, series=series)


def _chunks(files: Files, missing: dict[str, list[int]], count: int, chunk: int):
    """Yield (role, begin, numbers), originals before what starts from them.

    Models that were being made together when a run ended are made together again.
    """
    for begin in range(0, count, chunk):
        for role, numbers in missing.items():
            now = [number for number in numbers if begin <= number < begin + chunk]
            before = files.together(role, begin)
            if set(before) & set(now):
                yield role, begin, before
                now = [number for number in now if number not in before]
            if now:
                yield role, begin, now
