"""How easily each forget sample would be predicted unseen: scores to rank them by.

Larger is easier. All are of the original model; `reference` also asks one that saw none
of the samples. Rank correlation with what Retrain says of them is in the recipe
`proxies`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import losses, objectives, programs
from jax_unlearn.cards import Ranked
from jax_unlearn.data import as_floats
from jax_unlearn.types import Batch
from jax_unlearn.weights import gradient_norms

__all__ = ["RANKINGS", "confidence", "el2n", "gradient_norm", "margin", "neighbours"]
__all__ += ["reference"]

NEIGHBOURS = 10  # retain samples asked for their labels
TREES, LEAF = 200, 2  # of the reference model, and least samples in a leaf


def confidence(lab: Any) -> Ranked:
    """Return the probability of the true class: LoReUn's loss, reversed."""
    return Ranked(lab.confidence("forget"))


def el2n(lab: Any) -> Ranked:
    """Return the error norm, reversed."""
    return Ranked(-np.asarray(losses.el2n(*_logits(lab))))


def margin(lab: Any) -> Ranked:
    """Return the logit of the true class less the largest other one."""
    return Ranked(np.asarray(losses.margin(*_logits(lab))))


def gradient_norm(lab: Any) -> Ranked:
    """Return the norm of each sample's gradient, reversed."""
    inputs = as_floats(lab.examples.inputs[lab.request.forget])
    batch = Batch(jnp.asarray(inputs), jnp.asarray(lab.labels("forget")))
    loss = objectives.descent(lab.model)._replace(train=False)
    norms = programs.jit(gradient_norms, static_argnums=0)(loss, *lab.original, batch)
    return Ranked(-np.asarray(norms))


def neighbours(lab: Any) -> Ranked:
    """Return the share of a class among the retain samples of the nearest features."""
    from sklearn.neighbors import NearestNeighbors

    forget, retain = lab.request.forget, lab.request.retain
    seen, kept = (lab.features(ids).astype(np.float64) for ids in (forget, retain))
    count = min(NEIGHBOURS, len(retain))
    nearest = NearestNeighbors(n_neighbors=count).fit(kept)
    found = nearest.kneighbors(seen, return_distance=False)
    same = lab.labels("retain")[found] == lab.labels("forget")[:, None]
    # equal shares are told apart by the confidence
    return Ranked(same.mean(axis=1) + lab.confidence("forget") / (2 * count))


def reference(lab: Any) -> Ranked:
    """Return the sum of two ranks in the class: by the original and by other trees."""
    from scipy.stats import rankdata
    from sklearn.ensemble import ExtraTreesClassifier

    retain, forget = lab.request.retain, lab.request.forget

    def flat(ids: np.ndarray) -> np.ndarray:
        return as_floats(lab.examples.inputs[ids]).reshape(len(ids), -1)

    trees = ExtraTreesClassifier(
        TREES, min_samples_leaf=LEAF, random_state=lab.seed
    ).fit(flat(retain), lab.examples.labels[retain])

    def true(ids: np.ndarray) -> np.ndarray:
        said = np.zeros((len(ids), lab.num_classes))  # an unmet class: 0
        said[:, trees.classes_] = trees.predict_proba(flat(ids))
        return said[np.arange(len(ids)), lab.examples.labels[ids]]

    ease, labels, own = true(forget), lab.labels("forget"), lab.confidence("forget")
    scores = np.empty(len(forget))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # the original remembers the forget samples, the trees saw neither set
        scores[members] = rankdata(own[members]) + rankdata(ease[members])
    return Ranked(scores, (ease, true(lab.request.unseen)))


ALL = (confidence, el2n, margin, gradient_norm, neighbours, reference)
RANKINGS: dict[str, Callable[[Any], Ranked]] = {one.__name__: one for one in ALL}
"""By name."""


def _logits(lab: Any) -> tuple[jax.Array, jax.Array]:
    logits = lab.predict(lab.request.forget)
    return jnp.asarray(logits), jnp.asarray(lab.labels("forget"))
