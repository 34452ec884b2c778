"""How a model was trained, by its record: its own training, or its original's."""

from collections.abc import Mapping
from typing import Any

from jax_unlearn.lab.modalities import read_training
from jax_unlearn.lab.modality import Modality

__all__ = ["passed_on", "training_in", "training_of"]


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
