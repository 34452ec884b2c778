"""How easily each forget sample would be predicted unseen: scores to rank them by.

Larger is easier. All are of the original model; `reference` also asks one that saw none
of the samples. Rank correlation with what Retrain says of them is in the recipe
`proxies`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.neighbors import NearestNeighbors

from jax_unlearn import losses, objectives, programs
from jax_unlearn.drivers.loop import predict
from jax_unlearn.lab.task import Task, as_floats
from jax_unlearn.types import Batch
from jax_unlearn.weights import gradient_norms

NEIGHBOURS = 10  # retain samples asked for their labels
TREES, LEAF = 200, 2  # of the reference model, and least samples in a leaf


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
    norms = programs.jit(gradient_norms, static_argnums=0)(
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


class Ranking(NamedTuple):
    """What transport is told of the samples.

    Attributes:
      scores: of the forget samples, larger is easier, `[F]`.
      ease: of forget and unseen samples for a model that saw neither, where there is
        one.
    """

    scores: np.ndarray
    ease: tuple[np.ndarray, np.ndarray] | None = None


def reference(task: Task) -> Ranking:
    """Ask randomised trees grown on the raw retain samples, which saw neither set.

    The score is the sum of two ranks in the class: by the confidence of the original,
    which remembers the forget samples, and by that of the trees, which do not.
    """
    retain, forget = task.request.retain, task.request.forget

    def flat(ids: np.ndarray) -> np.ndarray:
        return as_floats(task.dataset.train.inputs[ids]).reshape(len(ids), -1)

    trees = ExtraTreesClassifier(
        TREES, min_samples_leaf=LEAF, random_state=task.seed
    ).fit(flat(retain), task.labels(retain))

    def true(ids: np.ndarray) -> np.ndarray:
        said = np.zeros((len(ids), task.dataset.num_classes))  # an unmet class: 0
        said[:, trees.classes_] = trees.predict_proba(flat(ids))
        return said[np.arange(len(ids)), task.labels(ids)]

    ease, labels, own = true(forget), task.labels(forget), confidence(task)
    scores = np.empty(len(forget))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        scores[members] = rankdata(own[members]) + rankdata(ease[members])
    return Ranking(scores, (ease, true(task.request.unseen)))


def _alone(score: Callable[[Task], np.ndarray]) -> Callable[[Task], Ranking]:
    return lambda task: Ranking(score(task))


RANKINGS: dict[str, Callable[[Task], Ranking]] = {
    "confidence": _alone(confidence),
    "el2n": _alone(el2n),
    "margin": _alone(margin),
    "gradient_norm": _alone(gradient_norm),
    "neighbours": _alone(neighbours),
    "reference": reference,
}
"""By name."""


def _logits(task: Task) -> tuple[jax.Array, jax.Array]:
    forget = task.request.forget
    at = task.original.params, task.original.model_state
    logits = predict(task.model, *at, task.dataset.train.inputs[forget])
    return jnp.asarray(logits), jnp.asarray(task.labels(forget))
