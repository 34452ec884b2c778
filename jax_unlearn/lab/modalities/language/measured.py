"""What is measured on a language model: losses of texts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.cards import Variables
from jax_unlearn.data import Examples
from jax_unlearn.drivers.loop import predict
from jax_unlearn.language.text import Scored
from jax_unlearn.types import Array, Model

BATCH = 32  # texts scored at a time


def scores_of(
    model: Model, at: Variables, examples: Examples, batch: int = BATCH
) -> Scored:
    """Return the losses of the tokens of some texts, on the host."""
    return predict(model, *at, examples.inputs, batch_size=batch)  # type: ignore


def mean_losses(found: Scored) -> np.ndarray:
    """Return ℓ̄ of each text, `f64[n]`."""
    counted = np.asarray(found.counted)
    total = np.where(counted, np.asarray(found.nll, np.float64), 0.0).sum(axis=1)
    return total / np.maximum(counted.sum(axis=1), 1)


def observed(subject: Any, at: Variables, examples: Examples) -> np.ndarray:
    """Return logit p of each text against 0, p = e^{−ℓ̄}, `f32[n, 2]`."""
    loss = mean_losses(scores_of(subject.model, at, examples))
    loss = np.maximum(loss, 1e-7)
    logit = -loss - np.log(-np.expm1(-loss))
    return np.stack([logit, np.zeros_like(logit)], axis=1).astype(np.float32)


def loss_table(lab: Any) -> Array:
    """Return the original's ℓ̄ by text, 0 beyond the forget set."""
    forget = lab.ids("forget")
    inputs = jax.tree.map(lambda leaf: leaf[forget], lab.examples.inputs)
    part = Examples(inputs, lab.examples.labels[forget])
    means = np.zeros(len(lab.examples.labels), np.float32)
    means[forget] = mean_losses(scores_of(lab.subject.model, lab.original, part))
    return jnp.asarray(means)
