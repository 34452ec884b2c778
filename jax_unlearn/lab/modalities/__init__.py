"""The kinds of model: an entry each."""

from collections.abc import Mapping
from typing import Any

from jax_unlearn.errors import InputError
from jax_unlearn.lab.catalog import named, names_of, options_of, with_network
from jax_unlearn.lab.modalities.classification import CLASSIFICATION
from jax_unlearn.lab.modalities.diffusion import DIFFUSION
from jax_unlearn.lab.modalities.language import LANGUAGE
from jax_unlearn.lab.modality import Modality

__all__ = ["MODALITIES", "modality_named", "modality_of", "read_training"]

MODALITIES = (CLASSIFICATION, DIFFUSION, LANGUAGE)


def modality_named(name: str) -> Modality:
    """Return a kind of model by its name, or of a file: `FILE.py:NAME`."""
    known = {modality.name: modality for modality in MODALITIES}
    return named(name, known, Modality, "modality")._replace(name=name)


def modality_of(training: object) -> Modality:
    """Return the kind of model that a training setting is of."""
    for modality in MODALITIES:
        if isinstance(training, modality.training):
            return modality
    # settings of a modality of one's own say so by an attribute
    return modality_named(getattr(training, "modality", type(training).__name__))


def read_training(record: Mapping[str, Any], modality: Modality | None = None) -> Any:
    """Return the training setting of a record, of the kind that takes its fields."""
    for kind in MODALITIES if modality is None else (modality,):
        if set(record) <= names_of(kind.training):
            record = with_network(record)
            return options_of("training", record, kind.training)
    fields = ", ".join(sorted(map(str, record)))[:80]
    raise InputError(f"training of {fields!r} is of no kind of model known here")
