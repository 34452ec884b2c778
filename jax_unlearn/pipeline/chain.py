"""Forget requests one after another on the same model, entered in a ledger."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jax_unlearn.data import digest
from jax_unlearn.errors import InputError
from jax_unlearn.pipeline import ledger
from jax_unlearn.pipeline.prepare import Preparer
from jax_unlearn.pipeline.settings import Unlearning
from jax_unlearn.pipeline.stages import Request, Trained, execute


def chain(
    preparer: Preparer,
    setting: Unlearning,
    original: Trained,
    ids: np.ndarray,
    requests: Sequence[np.ndarray],
    unseen: np.ndarray,
    *,
    path: str | os.PathLike[str],
    seed: int = 0,
) -> list[Trained]:
    """Serve requests in turn, each from the model that the one before it left.

    What an earlier request forgot is in no later one's retain set.

    Args:
      preparer: of the network and its data.
      setting: how each request is served.
      original: the trained model.
      ids: what it was trained on, `i64[n]`.
      requests: ids to forget, one array a request.
      unseen: ids held out of training.
      path: ledger that gets a line a request.
      seed: of the first request; each later one has the next.

    Returns:
      The model after each request.

    Raises:
      InputError: an id asked for twice, or that the model was not trained on.

    Source: our choice.
    """
    _check(ids, requests)
    left, current, models = np.sort(ids), original, []
    before = _identity(original)
    for number, forget in enumerate(requests):
        left = np.setdiff1d(left, forget)
        request = Request(np.sort(forget), left, unseen)
        job = preparer(setting, request, current, seed=seed + number)
        at = current.params, current.model_state
        done = execute(job, *at, jax.random.key(seed + number))
        after = _identity(done)
        ledger.append(
            Path(path),
            {
                "method": setting.method,
                "weighting": setting.weighting,
                "seed": seed + number,
                "forgotten": len(forget),
                "forgotten_sha256": digest(request.forget),
                "left": len(left),
                "before": before,
                "after": after,
            },
        )
        current, before = done, after
        models.append(done)
    return models


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
    leaves = jax.tree_util.tree_leaves_with_path((trained.params, trained.model_state))
    for path, leaf in leaves:
        array = np.asarray(leaf)
        told = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} "
        found.update(told.encode())
        found.update(array.tobytes())
    return found.hexdigest()
