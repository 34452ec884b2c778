"""Language models: the next token as the task, texts as samples, topics as classes."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jax_unlearn import methods, objectives
from jax_unlearn.cards import Variables
from jax_unlearn.data import Schedule
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modalities.language import (
    division,
    measured,
    networks,
    packing,
    probes,
    roles,
    settings,
)
from jax_unlearn.lab.modality import Modality, adam
from jax_unlearn.types import Array, PyTree, UnlearnBatch, Unlearner, UnlearnState

__all__ = ["FIGURES", "LANGUAGE", "rising_and_falling"]

FIGURES = ("mia_loss", "deviation", "u_lira", "rmia", "forgetting", "klom", "retain")
FIGURES += ("difference",)
"""Figures of an audit, or groups of them, that losses of texts can serve."""


def rising_and_falling(
    peak: float, steps: int, warmup: float
) -> optax.GradientTransformation:
    """Return the scaling by a rate that rises, then falls along a cosine to 0."""
    rates = optax.warmup_cosine_decay_schedule(
        0.0 if warmup else peak, peak, round(warmup * steps), max(steps, 1)
    )
    # strict dtype promotion forbids a schedule of an integer
    return optax.scale_by_learning_rate(lambda step: rates(jax.numpy.float32(step)))


def _optimize(
    built: networks.LanguageModel, training: settings.LanguageTraining, steps: int
) -> Unlearner:
    """Return training by AdamW, the mean over the tokens of a step."""
    clip = [optax.clip_by_global_norm(training.clip)] if training.clip > 0 else []
    decay = optax.add_decayed_weights(training.weight_decay)
    rate = rising_and_falling(training.learning_rate, max(steps, 1), training.warmup)
    optimizer = optax.chain(*clip, adam(), decay, rate)
    parts = division.adapted(training)
    model = networks.scored(built.network, True) if training.remat else built.model
    model = model if parts is None else parts.model(model)
    loss = objectives.next_token(model, reduction="token")
    made = methods.assemble(model, optimizer, retain=loss)
    if parts is None:
        return made
    return made._replace(init=lambda *at: made.init(*parts.divide(*at)))


def _finished(state: UnlearnState) -> Variables:
    """Return the model of a training's end, its adapters added to its weights."""
    return division.whole_of(state.params, state.model_state)


def _concerned(subject: Any, ids: np.ndarray, text: str) -> Any:
    """Return the texts that hold a piece of text, and that, if it is no topic."""
    dataset = subject.dataset
    if text in dataset.class_names or Path(text).exists() or Path(text).suffix:
        return None
    if text.isdigit():  # the number of a topic
        return None
    rows = dataset.train.inputs[ids]
    inside = np.array([text in q or text in a for q, a in rows.tolist()], bool)
    if not inside.any():
        raise InputError(
            f"forget={text!r}: no file, no topic, and in none of the {len(ids)} texts "
            "the model was trained on; name a topic, some text as it is written there, "
            "or a file of ids"
        )
    return ids[inside], text


def _start(subject: Any, training: Any, key: Array, two: PyTree) -> Variables:
    """Return the weights that training begins from."""
    if not training.start:
        return jax.jit(subject.model.init)(key, two)
    return packing.weights_of(training.start, subject.network)


def _beside(training: settings.LanguageTraining, path: Any) -> Any:
    """Return the setting by which another model is trained with the same tokenizer."""
    if training.start or training.tokenizer:
        return training
    return dataclasses.replace(training, tokenizer=str(path))


def _warns(subject: Any, ids: np.ndarray) -> list[str]:
    """Return what a tokenizer knows of the texts to forget."""
    texts = networks.texts_of(subject.dataset, ids)
    if not (count := subject.network.tokenizer.saw(texts)):
        return []
    return [
        f"the tokenizer was trained on {count} of the {len(texts)} texts to forget: "
        "its pieces may tell of them; train the original with --split, whose request "
        "its tokenizer does not see, or on a base (--start)"
    ]


def _laid_out(
    subject: Any, training: Any, schedule: Schedule[UnlearnBatch]
) -> Schedule[UnlearnBatch]:
    """Return the batches of a training with several texts a row."""
    return packing.packed(schedule, subject.examples.inputs, training.packed)


def _table(subject: Any, judging: Any, folder: Any, progress: Any) -> Any:
    from jax_unlearn.lab.modalities.language.figures import TextTable

    del judging, folder, progress
    return TextTable(subject)


LANGUAGE = Modality(
    name="language",
    key=networks.KEY,
    training=settings.LanguageTraining,
    network=networks.LanguageNetwork,
    describe=networks.describe,
    build=networks.build,
    optimize=_optimize,
    steps=lambda training, samples: (
        training.epochs * -(-samples // min(training.batch_size, samples))
    ),
    roles=roles.ROLES,
    objective=roles.objective,
    membership=roles.learn,
    loss_table=measured.loss_table,
    table=_table,
    observe=measured.observed,
    targets=lambda examples: np.zeros(len(examples.labels), np.int32),
    metrics=FIGURES,
    probes=probes.PROBES,
    samples=networks.LanguageModel.samples,
    concerned=_concerned,
    texts=True,
    stateful=False,
    options=settings.Language,
    defaults=settings.DEFAULTS,
    start=_start,
    beside=_beside,
    warns=_warns,
    layout=_laid_out,
    economical=packing.economical,
    fitting=packing.fitting,
    division=division.division,
    finish=_finished,
)
