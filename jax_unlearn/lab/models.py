"""Models on disk: a checkpoint with all that is needed to go on from it."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from msgspec import Meta

from jax_unlearn.data import Dataset, digest
from jax_unlearn.drivers import checkpoint
from jax_unlearn.errors import InputError
from jax_unlearn.lab import schema
from jax_unlearn.lab.networks import Network, build
from jax_unlearn.lab.settings import Training
from jax_unlearn.lab.stages import Trained
from jax_unlearn.lab.task import Origin
from jax_unlearn.types import Model

Size = Annotated[int, Meta(ge=0, lt=2**31)]


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
      model, network: its functions and their description.
      trained: parameters and state.
      ids: ids of the samples it is trained on, forgotten ones left out, `i64[n]`.
      unseen: ids held out of training, `i64[u]`.
      record: the whole record of the checkpoint.
    """

    model: Model
    network: Network
    trained: Trained
    ids: np.ndarray
    unseen: np.ndarray
    record: dict[str, Any]


def save_model(
    path: str | os.PathLike,
    trained: Trained,
    network: Network,
    dataset: Dataset,
    ids: np.ndarray,
    unseen: np.ndarray,
    record: dict[str, Any] | None = None,
) -> Path:
    """Write a model as a new checkpoint folder.

    Args:
      path: folder to make.
      trained: the model.
      network: its description.
      dataset: its data; stored by name and number of samples only.
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
    return checkpoint.save(
        path,
        tree,
        {
            "network": dataclasses.asdict(network),
            "dataset": {"name": dataset.name, "train": len(dataset.train.labels)},
            "num_ids": len(ids),
            "num_unseen": len(unseen),
            "ids_sha256": digest(ids),
            "seconds": trained.seconds,
            **(record or {}),
        },
    )


def load_model(path: str | os.PathLike, dataset: Dataset | None = None) -> Stored:
    """Read a model back, checked against the data it is to be used with.

    Args:
      path: checkpoint folder.
      dataset: if given, must have the image shape, the classes and the number of
        training samples the model knows.

    Raises:
      InputError: missing or damaged checkpoint, one of another model, or data that do
        not fit.
    """
    record = checkpoint.read_record(path)
    network, head = head_of(path, record, Network, "network", "jax-unlearn train")
    if dataset is not None:
        _check_fits(path, network, head.dataset.train, dataset)
    model = build(network)
    example = jax.ShapeDtypeStruct((2, *network.input_shape), np.uint8)
    params, state = jax.eval_shape(model.init, jax.random.key(0), example)
    template = {
        "params": params,
        "model_state": _bare(state),
        "ids": jax.ShapeDtypeStruct((head.num_ids,), np.int32),
        "unseen": jax.ShapeDtypeStruct((head.num_unseen,), np.int32),
    }
    # Fresh arrays, on no device in particular: what orbax returns is committed to one,
    # and every program would be compiled twice, with and without that.
    tree = jax.tree.map(
        lambda x: jnp.array(np.asarray(x)), checkpoint.load(path, template)
    )
    state = tree["model_state"] if jax.tree.leaves(state) else state
    trained = Trained(tree["params"], state, record.get("seconds", {}))
    ids, unseen = (np.asarray(tree[name], np.int64) for name in ("ids", "unseen"))
    return Stored(model, network, trained, ids, unseen, record)


def head_of(
    path: str | os.PathLike, record: dict[str, Any], kind: Any, name: str, command: str
) -> tuple[Any, Head]:
    """Return what has to be known before the arrays of a checkpoint are read.

    Args:
      path: of the checkpoint, for messages.
      record: of the checkpoint.
      kind: class with `from_record`.
      name: of the description in the record.
      command: which writes such checkpoints.

    Returns:
      The description of the network, and the sizes.

    Raises:
      InputError: a checkpoint of something else, or a record that cannot be used.
    """
    if name not in record:
        raise InputError(
            f"checkpoint {path} holds no model of `{command}` (no {name!r} in its "
            "record); give another checkpoint"
        )
    try:
        network = kind.from_record(record[name])
        remedy = schema.TRAIN_ANEW
        head = schema.read(Head, record, name="record", lenient=True, remedy=remedy)
    except InputError as error:
        raise InputError(f"checkpoint {path}: {error}") from error
    return network, head


def origin_of(stored: Stored) -> Origin | None:
    """Return how a model was trained; None where its record does not say.

    Args:
      stored: of `load_model`.
    """
    training, seed = stored.record.get("training"), stored.record.get("seed")
    if training is None or seed is None:
        return None
    try:
        return Origin(Training(**training), int(seed))
    except (TypeError, ValueError):
        return None  # of another version of the package


def _bare(model_state: Any) -> Any:
    """Return the state, or an empty dict where it holds no arrays."""
    return model_state if jax.tree.leaves(model_state) else {}


def _check_fits(path, network: Network, size: int, dataset: Dataset) -> None:
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
