"""Models on disk: kept once made, gone on from where they were being made."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from msgspec import Meta

from jax_unlearn.data import Dataset, digest, fingerprint
from jax_unlearn.drivers import checkpoint
from jax_unlearn.drivers.series import LOCK, Series, locked
from jax_unlearn.errors import InputError
from jax_unlearn.lab import schema
from jax_unlearn.lab.catalog import check_named
from jax_unlearn.lab.context import Origin
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities import MODALITIES, modality_named, read_training
from jax_unlearn.lab.modality import Modality
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Subject, described

SECONDS = 30.0  # between two saves: far more than a save takes

Made = TypeVar("Made")
Size = Annotated[int, Meta(ge=0, lt=2**31)]


def kept(
    path: Path | None,
    told: Mapping[str, Any],
    make: Callable[[Series | None], Made],
    *,
    read: Callable[[Path], tuple[Mapping[str, Any], Made]],
    write: Callable[[Path, Made], Any],
    run: Mapping[str, Any] | None = None,
    seconds: float = SECONDS,
    resume: bool = True,
) -> Made:
    """Return what stands at a path, or make it and keep it there.

    The one rule of everything that is kept: what was made by the same record is read;
    by another, refused; what was being made is gone on with.

    Args:
      path: where it is kept; None keeps nothing.
      told: record that decides what it is, JSON-able.
      make: makes it, saving states in the series on the way.
      read: `path -> (record, what stands there)`.
      write: `(path, what was made)`.
      run: more that a run to go on with must agree in.
      seconds: least time between two saves of a run in the making.
      resume: whether a run in the making may be gone on with.

    Raises:
      InputError: it was made by another record, another process is making it, or what
        stands there is damaged.
    """
    if path is None:
        return make(None)
    if not path.exists():
        whole = _plain({**told, **(run or {})})
        with unfinished(path, whole, seconds=seconds, resume=resume) as series:
            if not path.exists():  # another process may have ended just now
                made = make(series)
                write(path, made)
                return made
    record, made = read(path)
    if not same(record, told):
        raise refused(path)
    return made


def refused(path: Path) -> InputError:
    """Return the error for what another record made."""
    return InputError(
        f"{path} was made with another setting, seed, request or data set; choose "
        "another folder for this run"
    )


def same(record: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Return whether a record says what is told; settings it lacks are defaults.

    Args:
      record: what a file holds, perhaps of an earlier version.
      told: what it must say; more may stand in the record.

    >>> same({"seed": 0, "unlearning": {"method": "ssd"}}, {"seed": 1})
    False
    """
    for name, wanted in _plain(told).items():
        found = record.get(name)
        if found == wanted:
            continue
        if name in _SETTINGS and isinstance(found, dict) and isinstance(wanted, dict):
            try:
                if _SETTINGS[name](found) != _SETTINGS[name](wanted):
                    return False
            except (TypeError, InputError):
                return False  # of another version of the package
        else:
            return False
    return True


_SETTINGS = {"unlearning": Unlearning.read, "training": read_training}


def partial_of(path: Path) -> Path:
    """Return the folder beside a checkpoint that holds it while it is being made.

    >>> partial_of(Path("runs/original")).as_posix()
    'runs/original.partial'
    """
    return path.with_name(f"{path.name}.partial")


@contextmanager
def unfinished(
    path: Path,
    told: dict[str, Any],
    *,
    seconds: float = SECONDS,
    resume: bool = True,
    say: Callable[[str], None] | None = None,
) -> Iterator[Series]:
    """Give the series of a model in the making; it goes when the body ends well.

    Args:
      path: checkpoint that the body makes.
      told: as of `Series`.
      seconds: as of `Series`.
      resume: whether states found there may be gone on from.
      say: as of `Series`.

    Raises:
      InputError: another process makes the same model; a folder that cannot be
        written to; states are there and are not to be gone on from.
    """
    folder = partial_of(path)
    with locked(folder):
        series = Series(folder, told, seconds=seconds, say=say)
        if not resume and series.paths():
            raise InputError(
                f"{folder} holds an interrupted run; give --resume to go on with it, "
                "or remove it"
            )
        try:
            yield series
        except BaseException:
            if all(file.name == LOCK for file in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


class TrainedOn(NamedTuple):
    """What a checkpoint's record says of the data set.

    Attributes:
      train: training samples of the data set.
    """

    train: Size


class Head(NamedTuple):
    """What a checkpoint's record says of the arrays beside the parameters.

    Attributes:
      num_ids, num_unseen: numbers of samples trained on, and held out.
      dataset: what they are numbered in.
    """

    num_ids: Size
    num_unseen: Size
    dataset: TrainedOn


class Stored(NamedTuple):
    """A model read from disk.

    Attributes:
      modality, built: the kind of model, and the network as it builds it.
      trained: parameters and state.
      ids: ids of the samples it is trained on, forgotten ones left out, `i64[n]`.
      unseen: ids held out of training, `i64[u]`.
      record: the whole record of the checkpoint.
    """

    modality: Modality
    built: Any
    trained: Trained
    ids: np.ndarray
    unseen: np.ndarray
    record: dict[str, Any]

    @property
    def network(self) -> Any:
        """The network's description."""
        return self.built.network

    def subject(self, dataset: Dataset) -> Subject:
        """Return the network with data that fit it."""
        return described(self.modality, self.network, dataset)


def save_model(
    path: str | os.PathLike,
    trained: Trained,
    subject: Subject,
    *,
    ids: np.ndarray,
    unseen: np.ndarray,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model as a new checkpoint folder.

    Args:
      path: folder to make.
      trained: the model.
      subject: its network and data; of the data, name and number of samples are kept.
      ids: what it is trained on, the forgotten samples left out.
      unseen: what was held out.
      record: more to tell, JSON-able.

    Raises:
      InputError: the folder exists or cannot be written.
    """
    tree = {
        "params": trained.params,
        "model_state": _bare(trained.model_state),
        "ids": np.asarray(ids, np.int32),
        "unseen": np.asarray(unseen, np.int32),
    }
    if not subject.modality.stateful:
        del tree["model_state"]
    dataset, kind = subject.dataset, subject.modality
    own = {"modality": kind.name} if kind not in MODALITIES else {}
    return checkpoint.save(
        path,
        tree,
        {
            **own,
            kind.key: dataclasses.asdict(subject.network),
            "dataset": {"name": dataset.name, "train": len(dataset.train.labels)},
            "num_ids": len(ids),
            "num_unseen": len(unseen),
            "ids_sha256": digest(ids),
            "seconds": trained.seconds,
            **(record or {}),
        },
    )


def load_model(
    path: str | os.PathLike,
    dataset: Dataset | None = None,
    *,
    modality: str | None = None,
) -> Stored:
    """Read a model back, checked against the data it is to be used with.

    Args:
      path: checkpoint folder.
      dataset: if given, must have the image shape, the classes and the number of
        training samples the model knows.
      modality: kind of model that is asked for; default any.

    Raises:
      InputError: missing or damaged checkpoint, one of another model, or data that do
        not fit.
    """
    record = checkpoint.read_record(path)
    kind = kind_of(path, record)
    if modality not in (None, kind.name):
        raise InputError(
            f"checkpoint {path} holds a {kind.name} model, not a {modality} one; give "
            "another checkpoint"
        )
    try:
        network = kind.network.from_record(record[kind.key])
        remedy = schema.TRAIN_ANEW
        head = schema.read(Head, record, name="record", lenient=True, remedy=remedy)
    except InputError as error:
        raise InputError(f"checkpoint {path}: {error}") from error
    if dataset is not None:
        _check_fits(path, network, head.dataset.train, dataset)
    built = kind.build(network)
    example = kind.example(network)
    params, state = jax.eval_shape(built.model.init, jax.random.key(0), example)
    template = {
        "params": params,
        "model_state": _bare(state),
        "ids": jax.ShapeDtypeStruct((head.num_ids,), np.int32),
        "unseen": jax.ShapeDtypeStruct((head.num_unseen,), np.int32),
    }
    if not kind.stateful:
        del template["model_state"]
    # Fresh arrays, on no device in particular: what orbax returns is committed to one,
    # and every program would be compiled twice, with and without that.
    tree = jax.tree.map(
        lambda x: jnp.array(np.asarray(x)), checkpoint.load(path, template)
    )
    state = tree["model_state"] if jax.tree.leaves(state) else state
    trained = Trained(tree["params"], state, record.get("seconds", {}))
    ids, unseen = (np.asarray(tree[name], np.int64) for name in ("ids", "unseen"))
    return Stored(kind, built, trained, ids, unseen, record)


def kind_of(path: str | os.PathLike, record: Mapping[str, Any]) -> Modality:
    """Return the kind of model that a checkpoint's record describes.

    Raises:
      InputError: none that is known here.
    """
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


def origin_of(stored: Stored) -> Origin | None:
    """Return how a model was trained; None where its record does not say.

    Args:
      stored: of `load_model`.
    """
    training, seed = stored.record.get("training"), stored.record.get("seed")
    if training is None or seed is None:
        return None
    try:
        return Origin(read_training(training, stored.modality), int(seed))
    except (TypeError, ValueError):
        return None  # of another version of the package


def identity(subject: Subject, ids: np.ndarray, unseen: np.ndarray) -> dict[str, str]:
    """Return digests of what a model in the making is made of."""
    return {
        "ids": digest(ids),
        "unseen": digest(unseen),
        "data": fingerprint(subject.dataset),
    }


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as JSON reads it: lists for tuples."""
    return json.loads(json.dumps(dict(value)))


def _bare(model_state: Any) -> Any:
    """Return the state, or an empty dict where it holds no arrays."""
    return model_state if jax.tree.leaves(model_state) else {}


def _check_fits(path, network: Any, size: int, dataset: Dataset) -> None:
    shape = tuple(dataset.train.inputs.shape[1:])
    if shape != network.input_shape:
        raise InputError(
            f"checkpoint {path} reads images of shape {network.input_shape}, "
            f"{dataset.name} has {shape}; give the data it was trained on"
        )
    if dataset.num_classes != network.num_classes:
        raise InputError(
            f"checkpoint {path} knows {network.num_classes} classes, "
            f"{dataset.name} has {dataset.num_classes}; give the data it was trained on"
        )
    if len(dataset.train.labels) != size:
        raise InputError(
            f"checkpoint {path} was trained on a data set of {size} training samples, "
            f"{dataset.name} has {len(dataset.train.labels)}: ids would not match; "
            "give the data it was trained on"
        )
