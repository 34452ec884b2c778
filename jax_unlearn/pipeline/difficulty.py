"""How easily each forget sample would be predicted unseen: scores to rank them by.

All are of the original model; larger is easier. Rank correlation with what Retrain says
of the samples is in the recipe `proxies`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neighbors import NearestNeighbors

from jax_unlearn import losses, objectives
from jax_unlearn.pipeline.task import Task, as_floats
from jax_unlearn.run import predict
from jax_unlearn.types import Batch
from jax_unlearn.weights import gradient_norms

NEIGHBOURS = 10  # retain samples asked for their labels


def confidence(task: Task) -> np.ndarray:
    """Return the probability of the true class: LoReUn's loss, reversed."""
    return task.confidence(task.request.forget)


def el2n(task: Task) -> np.ndarray:
    """Return the error norm, reversed."""
    logits, labels = _logits(task)
    return -np.asarray(losses.el2n(logits, labels))


def margin(task: Task) -> np.ndarray:
    """Return the logit of the true class less the largest other one."""
    logits, labels = _logits(task)
    return np.asarray(losses.margin(logits, labels))


def gradient_norm(task: Task) -> np.ndarray:
    """Return the norm of each sample's gradient, reversed."""
    forget = task.request.forget
    inputs = as_floats(task.dataset.train.inputs[forget])
    batch = Batch(jnp.asarray(inputs), jnp.asarray(task.labels(forget)))
    loss = objectives.descent(task.model)._replace(train=False)
    norms = jax.jit(gradient_norms, static_argnums=0)(
        loss, task.original.params, task.original.model_state, batch
    )
    return -np.asarray(norms)


def neighbours(task: Task) -> np.ndarray:
    """Return the share of the nearest retain samples of the same class.

    Nearest in the features of the original model; equal shares are told apart by the
    confidence.
    """
    forget, retain = task.request.forget, task.request.retain
    at = task.original.params, task.original.model_state
    seen, kept = (
        predict(task.features, *at, task.dataset.train.inputs[ids]).astype(np.float64)
        for ids in (forget, retain)
    )
    count = min(NEIGHBOURS, len(retain))
    nearest = NearestNeighbors(n_neighbors=count).fit(kept)
    found = nearest.kneighbors(seen, return_distance=False)
    same = task.labels(retain)[found] == task.labels(forget)[:, None]
    return same.mean(axis=1) + confidence(task) / (2 * count)


RANKINGS: dict[str, Callable[[Task], np.ndarray]] = {
    "confidence": confidence,
    "el2n": el2n,
    "margin": margin,
    "gradient_norm": gradient_norm,
    "neighbours": neighbours,
}
"""By name: `Task -> [F]`, larger is easier."""


def _logits(task: Task) -> tuple[jax.Array, jax.Array]:
    forget = task.request.forget
    at = task.original.params, task.original.model_state
    logits = predict(task.model, *at, task.dataset.train.inputs[forget])
    return jnp.asarray(logits), jnp.asarray(task.labels(forget))
