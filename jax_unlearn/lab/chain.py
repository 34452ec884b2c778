"""Forget requests one after another on the same model, entered in a ledger."""

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.data import digest
from jax_unlearn.data.checks import few
from jax_unlearn.drivers.series import Series, locked
from jax_unlearn.errors import InputError
from jax_unlearn.lab import ledger
from jax_unlearn.lab.job import Progress, Trained, execute, reporting, silent
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import SECONDS, kept_model
from jax_unlearn.lab.subject import Subject

__all__ = ["LEDGER", "Chain", "chain"]

LEDGER = "ledger.jsonl"


class Chain(NamedTuple):
    """A model whose requests are served one after another."""

    subject: Subject
    original: Trained
    ids: np.ndarray  # what it was trained on
    unseen: np.ndarray  # held out of training
    origin: Origin | None = None
    reading: Mapping[str, Any] = {}  # how its data are read, for the records


def chain(
    start: Chain,
    setting: Unlearning,
    requests: Sequence[np.ndarray],
    *,
    folder: str | os.PathLike[str],
    seed: int = 0,  # of the first request; each later one has the next
    preparer: Preparer | None = None,  # shares compiled steps between chains
    progress: Progress | None = None,
    save_every: float = SECONDS,
    records: Sequence[Mapping[str, Any]] = (),  # of the lists that named the requests
) -> Iterator[Trained]:
    """Serve requests in turn, each from the model that the one before it left.

    The folder gets the ledger, a line a request, and a checkpoint of each model; a
    chain that was stopped goes on in it, with more requests if they are given then.
    """
    _check(start.ids, requests)
    folder, progress = Path(folder), progress or silent
    subject, prepare = start.subject, preparer or Preparer(start.subject)

    def serve(
        path: Path, current: Trained, request: Request, told: Any, named: dict[str, Any]
    ) -> tuple[Trained, Mapping[str, Any]]:
        """Return the model after a request, made or read, and its record."""
        seed, origin = told["seed"], start.origin

        def make(series: Series | None) -> tuple[Trained, dict[str, Any]]:
            job = prepare(setting, request, current, seed=seed, origin=origin)
            report = reporting(progress, path.name, job.steps)
            key, options = jax.random.key(seed), {"callback": report, "series": series}
            made = execute(job, current[:2], key, **options)
            said = {"forgotten": len(request.forget), **named, **start.reading}
            return made, {**said, **job.details}

        return kept_model(
            path,
            {"unlearning": setting.record(), **told},
            make,
            subject=subject,
            ids=request.retain,
            unseen=request.unseen,
            seconds=save_every,
            report=functools.partial(progress, path.name),
        )

    with locked(folder):
        path = folder / LEDGER
        entries = ledger.read(path) if path.exists() else []
        if len(entries) > len(requests):
            raise InputError(
                f"{path} has {len(entries)} entries, there are {len(requests)} "
                "requests; give those served before too, in their order"
            )
        current, left = start.original, np.sort(start.ids)
        for number, forget in enumerate(requests, start=1):
            left = np.setdiff1d(left, forget)
            model = folder / f"request-{number}"
            if number <= len(entries) and not model.exists():
                raise InputError(
                    f"{path} has request {number}, but its model {model} is gone; put "
                    "it back, or begin in another folder"
                )
            told = {
                "seed": seed + number - 1,
                "forgotten_sha256": digest(np.sort(forget)),
                "before": _identity(current),
            }
            request = Request(np.sort(forget), left, start.unseen)
            record = records[number - 1] if records else {}
            named = {"request": dict(record)} if record else {}
            current, made = serve(model, current, request, told, named)
            proof = {k: made[k] for k in ("certificate", "chosen") if k in made}
            entry = {
                **told,
                "method": setting.method,
                "weighting": setting.weighting,
                "forgotten": len(forget),
                "left": len(left),
                "after": _identity(current),
            }
            if number > len(entries):
                ledger.append(path, {**entry, **named, **proof})
            elif any(entries[number - 1].get(k) != v for k, v in entry.items()):
                raise InputError(
                    f"{path}, line {number}, is not about {model}; take another copy "
                    "of one of them, or begin in another folder"
                )
            yield current


def _check(ids: np.ndarray, requests: Sequence[np.ndarray]) -> None:
    if not requests or not all(len(forget) for forget in requests):
        raise InputError("requests: give one or more, each with an id or more")
    asked = np.concatenate(requests)
    values, counts = np.unique(asked, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"id {few(values[counts > 1].tolist())} is asked for twice; leave it out "
            "the second time: it is forgotten already"
        )
    strange = np.setdiff1d(asked, ids)
    if len(strange):
        raise InputError(
            f"id {few(strange.tolist())} is not among the {len(ids)} the model was "
            "trained on; leave it out"
        )


def _identity(trained: Trained) -> str:
    """Return the SHA-256 of the parameters and the state."""
    found = hashlib.sha256()
    leaves: Any = jax.tree_util.tree_leaves_with_path(
        (trained.params, trained.model_state)
    )
    for path, leaf in leaves:
        array = np.asarray(leaf)
        told = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} "
        found.update(told.encode())
        found.update(array.tobytes())
    return found.hexdigest()
