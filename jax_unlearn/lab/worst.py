"""The worst request to a model: searched by unlearning, kept round by round."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jax_unlearn import data, methods
from jax_unlearn.cards import Job
from jax_unlearn.data.files import read_npz
from jax_unlearn.data.worst import Search, worst_case
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import Progress, Trained, execute, silent
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Subject, Trainer, sample_losses

__all__ = ["SEARCH", "Searched", "cost", "worst_request"]

ROUNDS, EPOCHS, RATE, BATCH = 10, 2, 1e-3, 128
"""Of the search; epochs and rate of sign-SGD are those of the published example."""

SEARCH = "worst-request.npz"  # file of a search beside the models of a seed
FOLDS = 2  # models that did not see a sample, for the kind "hard"; our choice
FOLD_SEED = 3000  # offset: no model of a fold has the seed of another


class Searched(NamedTuple):
    """What a search is of: the model, its samples and how it was trained.

    Attributes:
      subject: network and data.
      original: the model that the request is made to.
      trained: ids of its training samples, sorted.
      unseen: ids held out.
      origin: how it was trained; None where nobody knows.
    """

    subject: Subject
    original: Trained
    trained: np.ndarray
    unseen: np.ndarray
    origin: Origin | None


def cost(kind: str, rounds: int, setting: Unlearning | None) -> str:
    """Return what a search costs, in words."""
    how = f"{EPOCHS} epochs of sign-SGD" if setting is None else setting.card.title
    folds = f", and {FOLDS} trainings of half the data" if kind == "hard" else ""
    return f"{rounds} times {how} on what stays{folds}"


def worst_request(
    given: Searched,
    count: int,
    *,
    kind: str = "worst",
    rounds: int = ROUNDS,
    setting: Unlearning | None = None,
    seed: int = 0,
    path: Path | None = None,
    progress: Progress = silent,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the ids of which unlearning leaves the most, and what a manifest says.

    Unlearned is by a setting, or by sign-SGD on what stays; "worst" takes those of
    least loss then, "hard" those of least loss beside models that never saw them
    (trained on the other half of the samples). With a path what was found is kept after
    every round, and the same search goes on from there.
    """
    subject, trained = given.subject, given.trained
    if "logits" not in subject.modality.roles:
        raise InputError(
            f"kind={kind!r}: the search looks at the losses of classifiers, and this "
            f"is a {subject.modality.name} model; choose random, class or long_tailed"
        )
    if not 0 < count < len(trained):
        raise InputError(
            f"kind={kind!r} forgets {count} of {len(trained)} samples; both sets need "
            "at least one: change --fraction"
        )
    told = {
        "kind": kind,
        "data": data.fingerprint(subject.dataset),
        "trained": data.digest(trained),
        "model": _digest(given.original),
        "count": count,
        "seed": seed,
        "setting": None if setting is None else setting.record(),
    }
    found, reference = _read(path, told)
    losses = _unlearned(given, setting, seed)
    if kind == "hard" and reference is None:
        reference = _held_out(given, seed, progress)
        _write(path, told, None, reference)
    label = f"searching the {kind} request"
    done = 0 if found is None else len(found.left)
    progress(label, min(done, rounds), rounds)

    def each(found: Search) -> None:
        _write(path, told, found, reference)
        progress(label, len(found.left), rounds)

    options = {"seed": seed, "reference": reference, "found": found, "each": each}
    sizes = {"samples": len(trained), "count": count, "rounds": rounds}
    found = worst_case(losses, **sizes, **options)
    note = {
        "rounds": len(found.left),
        "left": np.round(found.left, 4).tolist(),
        "model": told["model"],
        "setting": told["setting"],
        "cost": cost(kind, rounds, setting),
    }
    return trained[found.best], note


def _unlearned(
    given: Searched, setting: Unlearning | None, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Return `positions -> losses of all training samples` after unlearning these."""
    subject, trained, original = given.subject, given.trained, given.original
    finetune = methods.finetune(subject.model, optax.sign_sgd(RATE))
    preparer = Preparer(subject)

    def losses(chosen: np.ndarray) -> np.ndarray:
        forget = trained[chosen]
        request = Request(forget, np.setdiff1d(trained, forget), given.unseen)
        if setting is None:
            size = min(BATCH, len(request.retain))
            how = {"batch_size": size, "epochs": EPOCHS, "seed": seed}
            schedule = data.retain_only(subject.examples, request.retain, **how)
            job = Job(finetune, schedule)
        else:
            how = {"seed": seed, "origin": given.origin}
            job = preparer(setting, request, original, **how)
        model = execute(job, original[:2], jax.random.key(seed))
        return sample_losses(subject, model, trained)

    return losses


def _held_out(given: Searched, seed: int, progress: Progress) -> np.ndarray:
    """Return the loss of each training sample under a model that did not see it."""
    if given.origin is None:
        raise InputError(
            "kind='hard' trains models as the original was, and its record does not "
            "say how; give --kind worst, or a model of `jax-unlearn train`"
        )
    trained, losses = given.trained, np.zeros(len(given.trained))
    trainer = Trainer(given.subject, given.origin.training)
    fold = np.random.default_rng(seed).permutation(np.arange(len(trained)) % FOLDS)
    for number in range(FOLDS):
        progress("training on folds", number, FOLDS)
        out = fold == number
        model = trainer(trained[~out], seed=seed + FOLD_SEED + number)
        losses[out] = sample_losses(given.subject, model, trained[out])
    progress("training on folds", FOLDS, FOLDS)
    return losses


def _digest(model: Trained) -> str:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(model[:2])]
    return data.digest(np.concatenate([_words(leaf) for leaf in leaves]))


def _words(leaf: np.ndarray) -> np.ndarray:
    return np.frombuffer(np.ascontiguousarray(leaf).tobytes(), np.uint8)


def _write(path: Path | None, told: Any, found: Search | None, reference: Any) -> None:
    """Keep what was found so far."""
    if path is None:
        return
    arrays = {"told": np.frombuffer(json.dumps(told).encode(), np.uint8)}
    arrays |= {} if found is None else found._asdict()
    arrays |= {} if reference is None else {"reference": reference}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    data.write_atomic(path, buffer.getvalue(), overwrite=True)


def _read(path: Path | None, told: Any) -> tuple[Search | None, np.ndarray | None]:
    """Return what the same search found so far; of another search, nothing."""
    with contextlib.suppress(ValueError, OSError, KeyError):
        arrays = {} if path is None or not path.exists() else read_npz(path)
        if json.loads(arrays["told"].tobytes()) == json.loads(json.dumps(told)):
            whole = all(name in arrays for name in Search._fields)
            found = (
                Search(*(arrays[name] for name in Search._fields)) if whole else None
            )
            return found, arrays.get("reference")
    return None, None
