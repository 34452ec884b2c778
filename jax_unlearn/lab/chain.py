"""Forget requests one after another on the same model, entered in a ledger."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_unlearn.data import digest
from jax_unlearn.drivers.locks import locked
from jax_unlearn.errors import InputError
from jax_unlearn.lab import ledger
from jax_unlearn.lab.bench import Progress
from jax_unlearn.lab.models import load_model, save_model
from jax_unlearn.lab.networks import Network
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.stages import Request, Trained, execute
from jax_unlearn.lab.task import Origin
from jax_unlearn.lab.unfinished import SECONDS, unfinished

LEDGER = "ledger.jsonl"


def chain(
    preparer: Preparer,
    network: Network,
    setting: Unlearning,
    original: Trained,
    ids: np.ndarray,
    requests: Sequence[np.ndarray],
    unseen: np.ndarray,
    *,
    folder: str | os.PathLike[str],
    seed: int = 0,
    origin: Origin | None = None,
    progress: Progress | None = None,
    save_every: float = SECONDS,
) -> Iterator[Trained]:
    """Serve requests in turn, each from the model that the one before it left.

    What an earlier request forgot is in no later one's retain set. Every model is kept,
    and a chain that was stopped goes on where it was; more requests may be given then.

    Args:
      preparer: of the network and its data.
      network: its description, for the checkpoints.
      setting: how each request is served.
      original: the trained model.
      ids: what it was trained on, `i64[n]`.
      requests: ids to forget, one array a request.
      unseen: ids held out of training.
      folder: gets `ledger.jsonl`, a line a request, and a checkpoint of each model,
        `request-1` and so on.
      seed: of the first request; each later one has the next.
      origin: how the original was trained, for methods that need to know.
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
    _check(ids, requests)
    with locked(Path(folder)):
        yield from _served(
            preparer,
            network,
            setting,
            original,
            np.sort(ids),
            requests,
            unseen,
            Path(folder),
            seed,
            origin,
            progress or (lambda phase, done, total: None),
            save_every,
        )


def _served(
    preparer: Preparer,
    network: Network,
    setting: Unlearning,
    current: Trained,
    left: np.ndarray,
    requests: Sequence[np.ndarray],
    unseen: np.ndarray,
    folder: Path,
    seed: int,
    origin: Origin | None,
    progress: Progress,
    save_every: float,
) -> Iterator[Trained]:
    path = folder / LEDGER
    entries = ledger.read(path) if path.exists() else []
    if len(entries) > len(requests):
        raise InputError(
            f"{path} has {len(entries)} entries, there are {len(requests)} requests; "
            "give those served before too, in their order"
        )
    before = _identity(current)
    for number, forget in enumerate(requests, start=1):
        left = np.setdiff1d(left, forget)
        request = Request(np.sort(forget), left, unseen)
        told = {
            "unlearning": json.loads(json.dumps(vars(setting))),
            "seed": seed + number - 1,
            "forgotten_sha256": digest(request.forget),
            "before": before,
        }
        made = folder / f"request-{number}"
        if made.exists():
            stored = load_model(made, preparer.dataset)
            if any(stored.record.get(name) != value for name, value in told.items()):
                raise InputError(
                    f"{made} was made with another model, setting, seed or request; "
                    "choose another folder"
                )
            done = stored.trained
            progress(made.name, 0, 1)
            progress(made.name, 1, 1)
        elif number <= len(entries):
            raise InputError(
                f"{path} has request {number}, but its model {made} is gone; put it "
                "back, or begin in another folder"
            )
        else:
            given = setting, request, current
            with unfinished(made, told, seconds=save_every) as series:
                job = preparer(*given, seed=told["seed"], origin=origin)
                total = job.steps
                progress(made.name, 0, total)
                done = execute(
                    job,
                    current.params,
                    current.model_state,
                    jax.random.key(told["seed"]),
                    callback=lambda step, state, info, name=made.name, total=total: (
                        progress(name, step, total)
                    ),
                    series=series,
                )
                at = network, preparer.dataset, left, unseen
                save_model(made, done, *at, {**told, "forgotten": len(forget)})
        after = _identity(done)
        entry = {
            "method": setting.method,
            "weighting": setting.weighting,
            "seed": told["seed"],
            "forgotten": len(forget),
            "forgotten_sha256": told["forgotten_sha256"],
            "left": len(left),
            "before": before,
            "after": after,
        }
        if number > len(entries):
            ledger.append(path, entry)
        elif any(entries[number - 1].get(k) != v for k, v in entry.items()):
            raise InputError(
                f"{path}, line {number}, is not about {made}; take another copy of one "
                "of them, or begin in another folder"
            )
        current, before = done, after
        yield done


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
