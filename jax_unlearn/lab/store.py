"""Models on disk: kept once made, gone on from where they were being made."""

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.data import Dataset, digest, fingerprint, read_json, write_atomic
from jax_unlearn.drivers import checkpoint
from jax_unlearn.drivers.series import LOCK, Series, locked
from jax_unlearn.errors import InputError, OtherRun
from jax_unlearn.lab import schema
from jax_unlearn.lab.catalog import check_named
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities import MODALITIES, modality_named, read_training
from jax_unlearn.lab.modalities.language import foreign
from jax_unlearn.lab.modality import Modality
from jax_unlearn.lab.origins import (
    Head,
    check_alike,
    check_fits,
    trained_on,
    training_in,
    training_of,
)
from jax_unlearn.lab.rewinds import Kept, Origin
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Subject, described

__all__ = ["SECONDS", "Head", "Stored", "beside", "check_kept", "identity", "kept"]
__all__ += ["kept_model", "kind_of", "load_model", "origin_of", "partial_of"]
__all__ += ["replace_folder", "replacement_of", "same", "save_model", "stored"]
__all__ += ["together", "trained_on", "unfinished"]

SECONDS = 30.0  # between two saves: far more than a save takes
DONE = "done"  # models of jobs that a run in the making had to run first
NUMBERS = "numbers.json"  # of what is made together, beside the states of its run

Made = TypeVar("Made")
Say = Callable[[str], None]


def kept(
    path: Path | None,
    told: Mapping[str, Any],
    make: Callable[[Series | None], Made],
    *,
    read: Callable[[Path], tuple[Mapping[str, Any], Made]],
    write: Callable[[Path, Made], Any],
    run: Mapping[str, Any] | None = None,  # what a run to go on with agrees in too
    seconds: float = SECONDS,
    resume: bool = True,
) -> Made:
    """Return what the same record made at a path, or make it, or go on, and keep it."""
    if path is None:
        return make(None)
    if not path.exists():
        whole = {**told, **(run or {})}
        with unfinished(path, whole, seconds=seconds, resume=resume) as series:
            if not path.exists():  # another process may have ended just now
                made = make(series)
                write(path, made)
                return made
    return cast(Made, stored(path, told, read))


def stored(
    path: Path,
    told: Mapping[str, Any],
    read: Callable[[Path], tuple[Mapping[str, Any], Made]],
    *,
    say: Say | None = None,  # told of what is damaged, which is then made again
) -> Made | None:
    """Return what stands at a path; None where it is to be made."""
    if not path.exists():
        return None
    try:
        record, made = read(path)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if say is None:
            raise
        say(f"{path} is damaged ({error}): making the model again")
        return None
    if not same(record, told):
        raise OtherRun(
            f"{path} was made with another setting, seed, request or data set; choose "
            "another folder for this run"
        )
    return made


def kept_model(
    path: Path | None,
    told: Mapping[str, Any],
    make: Callable[[Series | None], tuple[Trained, Mapping[str, Any]]],
    *,
    subject: Subject,
    ids: np.ndarray,
    unseen: np.ndarray,
    run: Mapping[str, Any] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> tuple[Trained, Mapping[str, Any]]:
    """Return a model and its record, from its checkpoint if there is one."""

    def read(path: Path) -> tuple[Any, tuple[Trained, Mapping[str, Any]]]:
        found = load_model(path, subject.dataset)
        report(0, 1)
        report(1, 1)
        return found.record, (found.trained, found.record)

    def write(path: Path, made: tuple[Trained, Mapping[str, Any]]) -> None:
        record = {**told, **made[1]}
        save_model(path, made[0], subject, ids=ids, unseen=unseen, record=record)

    return kept(
        path,
        {**told, "ids_sha256": digest(ids)},
        make,
        read=read,
        write=write,
        run={**identity(subject, ids, unseen), **(run or {})},
        **options,
    )


def check_kept(path: Path, told: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that another record made, if there is one."""
    stored(path, told, lambda path: (checkpoint.read_record(path), None))


def same(record: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Return whether a record says what is told; what it lacks is at its default."""
    read_back = json.loads(json.dumps(dict(told)))  # lists for tuples
    for name, wanted in read_back.items():
        found = record.get(name)
        if found == wanted:
            continue
        read = _SETTINGS.get(name)
        if read is None or not isinstance(found, dict) or not isinstance(wanted, dict):
            return False
        try:
            if read(found) != read(wanted):
                return False
        except (TypeError, InputError):
            return False  # of another version of the package
    return True


_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "unlearning": Unlearning.read,
    "training": read_training,
    # fields that a network did not have then are at their defaults
    **{
        kind.key: functools.partial(schema.read, kind.network, name=kind.key)
        for kind in MODALITIES
    },
}


def partial_of(path: Path) -> Path:
    """Return the folder beside a checkpoint that holds it while it is being made."""
    return path.with_name(f"{path.name}.partial")


def beside(path: Path) -> Path:
    """Return where what is to replace a checkpoint is made."""
    return path.with_name(f"{path.name}.new")


def replacement_of(path: Path, *, goes_on: bool) -> Path:
    """Return where what is to replace a checkpoint is made; the path if there is none.

    What an earlier try left there is removed, unless this one goes on with it.
    """
    if not path.exists():
        if not goes_on:
            shutil.rmtree(partial_of(path), ignore_errors=True)
        return path
    if not (path / "record.json").is_file():
        raise InputError(
            f"out={path} is no checkpoint (no record.json): it is not overwritten; "
            "choose another --out"
        )
    place = beside(path)
    if not goes_on:
        for left in (place, partial_of(place)):
            shutil.rmtree(left, ignore_errors=True)
    return place


def replace_folder(old: Path, new: Path) -> None:
    """Put a folder, or nothing, in the place of another, which stays until then."""
    aside = old.with_name(f"{old.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    for path, to in ((old, aside), (new, old)):
        if path.exists():
            os.replace(path, to)
    shutil.rmtree(aside, ignore_errors=True)


def together(path: Path) -> list[int]:
    """Return the numbers of what was being made together, to stand at a path and on."""
    file = partial_of(path) / NUMBERS
    return [int(number) for number in read_json(file)] if file.exists() else []


@contextmanager
def unfinished(
    path: Path,
    told: Mapping[str, Any],
    *,
    seconds: float = SECONDS,
    resume: bool = True,
    say: Say | None = None,
) -> Iterator[Series]:
    """Give the series of what is being made; it goes when the body ends well."""
    folder = partial_of(path)
    with locked(folder):
        series = Series(folder, dict(told), seconds=seconds, say=say)
        if not resume and (series.paths() or [*folder.glob(f"{DONE}-*")]):
            raise InputError(
                f"{folder} holds an interrupted run; give --resume to go on with it, "
                "or remove it"
            )
        if "numbers" in told and not series.paths():
            write_atomic(folder / NUMBERS, json.dumps(told["numbers"]), overwrite=True)
        try:
            yield series
        except BaseException:
            if {file.name for file in folder.iterdir()} <= {LOCK, NUMBERS}:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


class Stored(NamedTuple):
    """A model read from disk, with the whole record of its checkpoint."""

    modality: Modality
    built: Any
    trained: Trained
    ids: np.ndarray  # it is trained on, forgotten ones left out
    unseen: np.ndarray  # held out of training
    record: dict[str, Any]
    path: Path  # of the checkpoint

    def subject(self, dataset: Dataset) -> Subject:
        """Return the network with data that fit it."""
        return described(self.modality, self.built.network, dataset)


def save_model(
    path: str | os.PathLike,
    trained: Trained,
    subject: Subject,
    *,
    ids: np.ndarray,
    unseen: np.ndarray,
    record: Mapping[str, Any] | None = None,  # more to tell, JSON-able
) -> Path:
    """Write a model as a new checkpoint folder."""
    dataset, kind = subject.dataset, subject.modality
    own = {"modality": kind.name} if kind not in MODALITIES else {}
    tree = _tree(kind, trained.params, trained.model_state)
    parts = {"ids": np.asarray(ids, np.int32), "unseen": np.asarray(unseen, np.int32)}
    tree |= {n: array for n, array in parts.items() if array.size}  # orbax has no empty
    return checkpoint.save(
        path,
        tree,
        {
            **own,
            kind.key: dataclasses.asdict(subject.network),
            "dataset": trained_on(dataset),
            "num_ids": len(ids),
            "num_unseen": len(unseen),
            "ids_sha256": digest(ids),
            "seconds": trained.seconds,
            **(record or {}),
        },
    )


def _tree(kind: Modality, params: Any, state: Any) -> dict[str, Any]:
    """Return the arrays of a model; a state without any is an empty dict."""
    state = {"model_state": state if jax.tree.leaves(state) else {}}
    return {"params": params, **(state if kind.stateful else {})}


def load_model(
    path: str | os.PathLike,
    dataset: Dataset | None = None,
    *,
    modality: str | None = None,
    like: Any = None,  # network of a model that it is compared with
) -> Stored:
    """Read a model back, checked against the data it is to be used with.

    A Hugging Face folder is a model that was trained on all of the data.
    """
    record = foreign.record_at(path)
    kind = kind_of(path, record)
    if modality not in (None, kind.name):
        raise InputError(
            f"checkpoint {path} holds a {kind.name} model, not a {modality} one; give "
            "another checkpoint"
        )
    if foreign.is_foreign(path):
        network, at, record = foreign.model_in(path, dataset)
        if like is not None:
            check_alike(path, network, like)
        ids = np.arange(0 if dataset is None else len(dataset.train.labels))
        given = kind.build(network), Trained(*at, {}), ids, ids[:0], record
        return Stored(kind, *given, Path(path))
    try:
        remedy = schema.TRAIN_ANEW
        typed = functools.partial(
            schema.read, kind.network, name=kind.key, remedy=remedy
        )
        network = getattr(kind.network, "from_record", typed)(record[kind.key])
        head = schema.read(Head, record, name="record", lenient=True, remedy=remedy)
    except InputError as error:
        raise InputError(f"checkpoint {path}: {error}") from error
    if dataset is not None:
        check_fits(path, network, head.dataset, kind.reads(dataset))
    if like is not None:
        check_alike(path, network, like)
    built = kind.build(network)
    example = kind.example(network)
    params, state = jax.eval_shape(built.model.init, jax.random.key(0), example)
    template = _tree(kind, params, state)
    for name, size in (("ids", head.num_ids), ("unseen", head.num_unseen)):
        if size:
            template[name] = jax.ShapeDtypeStruct((size,), np.int32)
    # Fresh arrays, on no device in particular: what orbax returns is committed to one,
    # and every program would be compiled twice, with and without that.
    tree = jax.tree.map(
        lambda x: jnp.array(np.asarray(x)), checkpoint.load(path, template)
    )
    state = tree["model_state"] if jax.tree.leaves(state) else state
    trained = Trained(tree["params"], state, record.get("seconds", {}))
    held = (tree.get(name, np.zeros(0)) for name in ("ids", "unseen"))
    ids, unseen = (np.asarray(array, np.int64) for array in held)
    return Stored(kind, built, trained, ids, unseen, record, Path(path))


def kind_of(path: str | os.PathLike, record: Mapping[str, Any]) -> Modality:
    """Return the kind of model that a checkpoint's record describes."""
    if isinstance(record.get("modality"), str):
        check_named(record["modality"])
        return modality_named(record["modality"])
    for modality in MODALITIES:
        if modality.key in record:
            return modality
    keys = " or ".join(repr(modality.key) for modality in MODALITIES)
    raise InputError(
        f"checkpoint {path} holds no model of `jax-unlearn train` (no {keys} in its "
        "record); give another checkpoint"
    )


def origin_of(stored: Stored, *, retraced: bool = False) -> Origin | None:
    """Return how a model was trained; None where its record does not say.

    A model that was unlearned has the training of its original, whose steps cannot be
    retraced to it.
    """
    told = training_in(stored.record)
    if told is None or told.get("seed") is None:
        return None
    if retraced and told is not stored.record:
        return None
    try:
        training = training_of(stored.record, stored.modality)
        training = stored.modality.beside(training, stored.path)
        own = told is stored.record
        states = Kept.beside(stored.path, stored.record) if own else None
        classes = getattr(stored.built.network, "num_classes", 1)
        return Origin(training, int(told["seed"]), "imported" in told, states, classes)
    except (TypeError, ValueError):
        return None  # of another version of the package


def identity(subject: Subject, ids: np.ndarray, unseen: np.ndarray) -> dict[str, str]:
    """Return digests of what a model in the making is made of."""
    data = fingerprint(subject.dataset)
    file = getattr(subject.network, "sha256", "")
    own = {"network": file} if file else {}
    return {"ids": digest(ids), "unseen": digest(unseen), "data": data, **own}
