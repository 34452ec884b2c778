"""Classifiers: labels as targets, logits as outputs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import methods, objectives
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modalities.classification import networks
from jax_unlearn.lab.modalities.classification.measured import RANKINGS, learn
from jax_unlearn.lab.modalities.classification.probes import PROBES
from jax_unlearn.lab.modality import Modality, descent, falling_rate
from jax_unlearn.types import Array, LossFn, Unlearner

__all__ = ["CLASSIFICATION"]


@functools.lru_cache(maxsize=16)  # equal trainings share their compiled steps
def _optimize(
    built: networks.Classifier, training: networks.Training, steps: int
) -> Unlearner:
    """Return training by SGD, its rate falling along a cosine to 0."""
    rate = falling_rate(training.learning_rate, max(steps, 1))
    optimizer = optax.chain(*descent(training), rate)
    return methods.finetune(built.model, optimizer, fewest=0)


def _objective(lab: Any, role: str, **options: Any) -> LossFn:
    made = {
        "remember": lambda: objectives.descent(lab.model),
        "evaluate": lambda: objectives.descent(lab.model)._replace(train=False),
        "ascend": lambda: objectives.ascent(lab.model),
        "relabel": lambda: objectives.random_label(
            lab.model, num_classes=lab.num_classes, seed=lab.seed, **options
        ),
    }
    if role not in made:
        raise InputError(f"role={role!r}: classifiers have {', '.join(made)}")
    return made[role]()


def _loss_table(lab: Any) -> Array:
    true = lab.confidence("forget")
    losses = -np.log(np.maximum(true, 1e-38)).astype(np.float32)
    size = len(lab.examples.labels)
    return jnp.asarray(objectives.target_table(lab.ids("forget"), losses, size))


def _table(subject: Any, judging: Any, folder: Any, progress: Any) -> Any:
    from jax_unlearn.lab.modalities.classification.figures import Table

    del judging, folder, progress
    return Table(subject)


CLASSIFICATION = Modality(
    name="classification",
    key="network",
    training=networks.Training,
    network=networks.Network,
    describe=networks.describe,
    build=lambda network: networks.Classifier(
        networks.build(network), networks.build(network, features=True), network
    ),
    optimize=_optimize,
    steps=lambda training, samples: (
        training.epochs * -(-samples // min(training.batch_size, samples))
    ),
    roles=frozenset(
        ("remember", "evaluate", "ascend", "relabel", "nonmember", "logits", "features")
    ),
    objective=_objective,
    membership=learn,
    loss_table=_loss_table,
    table=_table,
    observe=lambda subject, at, examples: predict(
        subject.model, at[0], at[1], examples.inputs
    ).astype(np.float32),
    targets=lambda examples: examples.labels,
    probes=PROBES,
    difficulty=lambda lab, ranking: RANKINGS[ranking](lab),
    example=lambda network: jax.ShapeDtypeStruct((2, *network.input_shape), np.uint8),
)
