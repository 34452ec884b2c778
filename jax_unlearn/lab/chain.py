"""Forget requests one after another on the same model, entered in a ledger."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.data import digest
from jax_unlearn.drivers.series import Series, locked
from jax_unlearn.errors import InputError
from jax_unlearn.lab import ledger
from jax_unlearn.lab.context import Origin
from jax_unlearn.lab.job import Progress, Trained, execute, silent
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import SECONDS, kept, load_model, save_model
from jax_unlearn.lab.subject import Subject

LEDGER = "ledger.jsonl"


class Chain(NamedTuple):
    """A model whose requests are served one after another.

    Attributes:
      subject: its network and data.
      original: the trained model.
      ids: what it was trained on, `i64[n]`.
      unseen: ids held out of training.
      origin: how it was trained, for methods that need to know.
    """

    subject: Subject
    original: Trained
    ids: np.ndarray
    unseen: np.ndarray
    origin: Origin | None = None


def chain(
    start: Chain,
    setting: Unlearning,
    requests: Sequence[np.ndarray],
    *,
    folder: str | os.PathLike[str],
    seed: int = 0,
    preparer: Preparer | None = None,
    progress: Progress | None = None,
    save_every: float = SECONDS,
) -> Iterator[Trained]:
    """Serve requests in turn, each from the model that the one before it left.

    What an earlier request forgot is in no later one's retain set. Every model is kept,
    and a chain that was stopped goes on where it was; more requests may be given then.

    Args:
      start: the model and what it was trained on.
      setting: how each request is served.
      requests: ids to forget, one array a request.
      folder: gets `ledger.jsonl`, a line a request, and a checkpoint of each model,
        `request-1` and so on.
      seed: of the first request; each later one has the next.
      preparer: of the subject, to share compiled steps between chains.
      progress: called as the requests are served.
      save_every: least seconds between two saves within a request; 0 saves every step.

    Yields:
      The model after each request.

    Raises:
      InputError: an id asked for twice, or that the model was not trained on; a folder
        of another chain, or one whose ledger and models do not agree; another process
        serves it.

    Source: our choice.
    """
    _check(start.ids, requests)
    folder = Path(folder)
    server = _Server(
        start.subject,
        setting,
        preparer or Preparer(start.subject),
        start.origin,
        progress or silent,
        save_every,
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
            request = Request(np.sort(forget), left, start.unseen)
            made = folder / f"request-{number}"
            if number <= len(entries) and not made.exists():
                raise InputError(
                    f"{path} has request {number}, but its model {made} is gone; put "
                    "it back, or begin in another folder"
                )
            done, told = server.serve(made, current, request, seed + number - 1)
            entry = {
                "method": setting.method,
                "weighting": setting.weighting,
                "seed": told["seed"],
                "forgotten": len(forget),
                "forgotten_sha256": told["forgotten_sha256"],
                "left": len(left),
                "before": told["before"],
                "after": _identity(done),
            }
            if number > len(entries):
                ledger.append(path, entry)
            elif any(entries[number - 1].get(k) != v for k, v in entry.items()):
                raise InputError(
                    f"{path}, line {number}, is not about {made}; take another copy "
                    "of one of them, or begin in another folder"
                )
            current = done
            yield done


class _Server(NamedTuple):
    """What all requests of a chain are served with."""

    subject: Subject
    setting: Unlearning
    preparer: Preparer
    origin: Origin | None
    progress: Progress
    save_every: float

    def serve(
        self, path: Path, current: Trained, request: Request, seed: int
    ) -> tuple[Trained, dict[str, Any]]:
        """Return the model after a request, made or read, and its record."""
        told = {
            "unlearning": self.setting.record(),
            "seed": seed,
            "forgotten_sha256": digest(request.forget),
            "before": _identity(current),
        }

        def make(series: Series | None) -> Trained:
            given = self.setting, request, current
            job = self.preparer(*given, seed=seed, origin=self.origin)
            total = job.steps
            self.progress(path.name, 0, total)
            return execute(
                job,
                (current.params, current.model_state),
                jax.random.key(seed),
                callback=lambda step, state, info: self.progress(
                    path.name, step, total
                ),
                series=series,
            )

        def read(path: Path) -> tuple[dict[str, Any], Trained]:
            stored = load_model(path, self.subject.dataset)
            self.progress(path.name, 0, 1)
            self.progress(path.name, 1, 1)
            return stored.record, stored.trained

        def write(path: Path, done: Trained) -> None:
            record = {**told, "forgotten": len(request.forget)}
            parts = {"ids": request.retain, "unseen": request.unseen}
            save_model(path, done, self.subject, record=record, **parts)

        done = kept(path, told, make, read=read, write=write, seconds=self.save_every)
        return done, told


def _check(ids: np.ndarray, requests: Sequence[np.ndarray]) -> None:
    if not requests or not all(len(forget) for forget in requests):
        raise InputError("requests: give one or more, each with an id or more")
    asked = np.concatenate(requests)
    values, counts = np.unique(asked, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"id {values[counts > 1][0]} is asked for twice; leave it out the second "
            "time: it is forgotten already"
        )
    strange = np.setdiff1d(asked, ids)
    if len(strange):
        raise InputError(
            f"id {strange[0]} is not among the {len(ids)} the model was trained on; "
            "leave it out"
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
