"""Training rows in which several texts stand, and the weights training begins from."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_unlearn.cards import Variables
from jax_unlearn.data import Schedule
from jax_unlearn.data.batches import without_inputs
from jax_unlearn.drivers import checkpoint
from jax_unlearn.errors import InputError
from jax_unlearn.language.packing import pack, repacked, rows_of, usual_rows
from jax_unlearn.language.text import Text
from jax_unlearn.types import Batch, Model, UnlearnBatch

__all__ = ["digest_of", "economical", "fitting", "packed", "weights_of"]


def packed(
    schedule: Schedule[UnlearnBatch], text: Text, length: int
) -> Schedule[UnlearnBatch]:
    """Return the retain batches of a schedule, their texts packed into rows.

    All steps have as many rows as the fullest needs, so that one program serves them.
    The mean over the tokens of a step is the same as without.
    """
    longest = np.asarray(text.tokens).shape[1]
    if not length or length < longest:
        return schedule
    lengths = np.asarray(text.real).sum(axis=1)

    @functools.lru_cache(maxsize=1)
    def rows() -> int:
        most = 1
        with without_inputs():
            for step in range(schedule.steps):
                batch = _retain(schedule.batch(step))
                own = lengths[np.asarray(batch.index)[np.asarray(batch.mask)]]
                most = max(most, 1 + int(rows_of(own, length).max(initial=0)))
        return most

    def batch(step: int) -> UnlearnBatch:
        found = schedule.batch(step)
        retain = _retain(found)
        real = np.asarray(retain.mask)
        given = jax.tree.map(lambda leaf: np.asarray(leaf)[real], retain.inputs)
        made = pack(given, length=length, rows=rows())
        used = (np.asarray(made.segments) > 0).any(axis=1)
        labels = np.zeros(np.shape(used), np.int32)
        return found._replace(retain=Batch(made, labels, None, used))  # type: ignore

    return dataclasses.replace(schedule, batch=batch)


def _retain(batch: UnlearnBatch) -> Batch:
    if batch.retain is None or batch.retain.index is None:
        raise ValueError("only batches of ids can be packed")
    return batch.retain


def _rows(subject: Any, length: int) -> Any:
    """Return how many rows of a length mostly hold so many texts of the data."""
    sizes = np.minimum(np.asarray(subject.examples.inputs.real).sum(axis=1), length)
    return functools.cache(lambda texts: usual_rows(sizes, texts, length=length))


def economical(subject: Any, setting: Any, model: Model) -> Model:
    """Return the model that packs the texts of a step, if a setting asks for that."""
    length = setting.modality_options.packed_into
    if not length:
        return model
    return repacked(model, _rows(subject, length), length=length)


def fitting(
    subject: Any, setting: Any, schedule: Schedule[UnlearnBatch]
) -> Schedule[UnlearnBatch]:
    """Return a schedule for the model of `economical`.

    Batches that fill more rows than usual are told apart by segments, to be scored as
    they come.
    """
    if not (length := setting.modality_options.packed_into):
        return schedule
    rows = _rows(subject, length)

    def fits(part: Batch | None) -> Batch | None:
        if part is None or not isinstance(part.inputs, Text):
            return part
        text = part.inputs
        if text.segments is not None or text.real is None:
            return part
        real = np.asarray(text.real)
        sizes = real.sum(axis=1)
        most = rows(len(sizes))
        if sizes.max() <= length and rows_of(sizes, length).max() < most:
            return part
        whole: Any = text._replace(segments=real.astype(np.int32))
        return part._replace(inputs=whole)

    def batch(step: int) -> UnlearnBatch:
        return UnlearnBatch(*map(fits, schedule.batch(step)))

    return dataclasses.replace(schedule, batch=batch)


def digest_of(path: str) -> str:
    """Return the digest of the model in a checkpoint or a Hugging Face folder."""
    if (Path(path) / "record.json").is_file():
        return checkpoint.identity(path)
    from jax_unlearn.lab.modalities.language.foreign import network_in

    return network_in(path)[1]


def weights_of(path: str, network: Any) -> Variables:
    """Return the parameters of a checkpoint or of a Hugging Face folder."""
    if (Path(path) / "record.json").is_file():
        if checkpoint.identity(path) != network.sha256:
            raise InputError(
                f"start={path} is not the model that this training began from; put "
                "that one back"
            )
        from jax_unlearn.lab.store import load_model

        return load_model(path).trained[:2]
    from jax_unlearn.lab.modalities.language.foreign import weights_in

    return weights_in(path, network.sha256)
