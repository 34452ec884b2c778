"""What a checkpoint's record tells: how its model was trained, which data it fits."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from jax_unlearn.data import Dataset, fingerprint
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modalities import read_training
from jax_unlearn.lab.modality import Modality

__all__ = ["Head", "Size", "TrainedOn", "check_alike", "check_fits", "passed_on"]
__all__ += ["trained_on", "training_in", "training_of"]


def training_in(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what of a record says the training, its own or its original's, if any."""
    for told in (record, record.get("origin")):
        if isinstance(told, Mapping) and isinstance(told.get("training"), Mapping):
            return told
    return None


def passed_on(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of an unlearned model says of its original's training."""
    told = training_in(record)
    if told is None:
        return {}
    names = ("training", "seed", "imported")
    return {"origin": {name: told[name] for name in names if name in told}}


def training_of(record: Mapping[str, Any], kind: Modality) -> Any:
    """Return how a record's model was trained, its network's file found again."""
    training = (training_in(record) or {})["training"]
    if ".py:" in str(training.get("network")):
        network = kind.network.from_record(record[kind.key])
        training = {**training, "network": network.name}
    return read_training(training, kind)


Size = Annotated[int, Meta(ge=0, lt=2**31)]


class TrainedOn(NamedTuple):
    """What a checkpoint's record says of the data set: its training samples."""

    train: Size
    classes: tuple[str, ...] | None = None  # earlier versions do not say them
    sha256: str | None = None


class Head(NamedTuple):
    """What a checkpoint's record says of the arrays beside the parameters."""

    num_ids: Size
    num_unseen: Size
    dataset: TrainedOn


def trained_on(dataset: Dataset) -> dict[str, Any]:
    """Return what a checkpoint says of its data: names, sizes, and what was done."""
    return {
        "name": dataset.name,
        "train": len(dataset.train.labels),
        "classes": list(dataset.class_names),
        "sha256": fingerprint(dataset, test=False),
        **({"notes": list(dataset.notes)} if dataset.notes else {}),
    }


def check_alike(path: str | os.PathLike, network: Any, like: Any) -> None:
    """Refuse a model that reads its data otherwise than one that it stands beside."""
    if unlike := getattr(network, "unlike", None):
        if flaw := unlike(like):
            raise InputError(
                f"checkpoint {path} has {flaw[0]} than the original, so the two cannot "
                f"be compared; {flaw[1]}"
            )
        return
    own = getattr(like, "sha256", "") and {"name": "sha256"}
    for field in ("name", "width", "mean", "std"):
        at = dict(own or {}).get(field, field)
        found, wanted = (getattr(which, at, None) for which in (network, like))
        if found != wanted:
            flag = "network" if field == "name" else field
            values = wanted if isinstance(wanted, tuple) else (wanted,)
            shown = getattr(like, field) if field == "name" else ""
            told = shown or " ".join(f"{value:.9g}" for value in values)
            raise InputError(
                f"checkpoint {path} has another {flag} than the original, so the two "
                f"cannot be compared; train it with --{flag} {told}"
            )


def check_fits(
    path: str | os.PathLike, network: Any, told: TrainedOn, dataset: Dataset
) -> None:
    """Refuse data that a model was not trained on."""
    name, shape = dataset.name, tuple(dataset.train.inputs.shape[1:])
    samples, flaw = len(dataset.train.labels), ""
    what, group, groups = "images", "class", "classes"
    if hasattr(network, "tokenizer"):
        what, group, groups = "texts", "topic", "topics"
    elif len(network.input_shape) == 1:
        what = "rows"
    if shape != network.input_shape:
        flaw = f"reads {what} of shape {network.input_shape}, {name} has {shape}"
    elif dataset.num_classes != network.num_classes:
        flaw = f"knows {network.num_classes} {groups}, {name} has {dataset.num_classes}"
    elif samples != told.train:
        flaw = (
            f"was trained on a data set of {told.train} training samples, {name} has "
            f"{samples}: ids would not match"
        )
    elif told.classes not in (None, tuple(dataset.class_names)):
        pairs = zip(told.classes or (), dataset.class_names, strict=True)
        before, now = next(pair for pair in pairs if pair[0] != pair[1])
        flaw = f"knows the {group} {before!r} where {name} has {now!r}"
    elif told.sha256 not in (None, fingerprint(dataset, test=False)):
        flaw = (
            f"was trained on other data of this size than {name}: an input or a label "
            "differs, or their order"
        )
    if flaw:
        raise InputError(f"checkpoint {path} {flaw}; give the data it was trained on")
