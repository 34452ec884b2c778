"""What is measured of an original classifier: difficulty of samples, attacks, queries.

Of difficulties, scores to rank forget samples by, larger is easier; `reference` also
asks a model that saw none of the samples. Rank correlation with what Retrain says of
them is in the recipe `proxies`. Attacks and queries are what LTU learns first.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import losses, membership, objectives, programs
from jax_unlearn.cards import Learned, Ranked, Variables
from jax_unlearn.data import as_floats, queries, query_gaps
from jax_unlearn.drivers.loop import predict
from jax_unlearn.lab.modality import checked_attacks, chosen, falling_rate
from jax_unlearn.losses import true_class_probability
from jax_unlearn.membership import Observed
from jax_unlearn.methods.ltu import ATTACKS, Ltu
from jax_unlearn.types import Batch, Model
from jax_unlearn.weights import gradient_norms

__all__ = ["RANKINGS", "confidence", "el2n", "gradient_norm", "learn", "margin"]
__all__ += ["neighbours", "reference"]

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


CLUSTERS = 8  # of the strategy "feature_cluster"
SHADOW_EPOCHS, SHADOW_RATE = 20, 0.05  # how shadow models are trained; our choice


def learn(lab: Any, options: Ltu) -> Learned:
    """Train the membership models of LTU and set up its queries."""
    request, labels = lab.request, lab.examples.labels
    retain, forget = np.sort(request.retain), np.sort(request.forget)
    ids = np.concatenate([retain, request.unseen, forget])
    ends = np.cumsum([len(retain), len(request.unseen)])

    def parts_of(outputs: Model) -> list[np.ndarray]:
        """Run the original model over the three sets at once: one program."""
        at: Variables = lab.original
        inputs = lab.examples.inputs[ids]
        return np.split(predict(outputs, *at, inputs, batch_size=256), ends)

    logits, seen = parts_of(lab.model), parts_of(lab.featured)
    members = Observed(jnp.asarray(logits[0]), jnp.asarray(labels[retain]))
    nonmembers = Observed(jnp.asarray(logits[1]), jnp.asarray(labels[request.unseen]))
    near = {"clusters": min(CLUSTERS, len(retain)), "seed": lab.seed}
    attacks, strategies = chosen(
        lab,
        options,
        attacks={name: getattr(membership, name) for name in ATTACKS},
        strategies={
            "uniform": partial(queries.uniform, len(retain)),
            "class_skewed": partial(queries.class_skewed, labels[retain]),
            "feature_cluster": partial(queries.feature_cluster, seen[0], **near),
            "hard": lambda: queries.hard(np.asarray(true_class_probability(*members))),
            "nearest": partial(queries.nearest, seen[0], seen[2]),
        },
    )
    size = min(options.query_size, len(retain))
    gaps = query_gaps(
        strategies,
        seen[0],
        labels[retain],
        support_features=seen[2],
        support_labels=labels[forget],
        num_classes=lab.num_classes,
        query_size=min(size, len(forget) - 2),
        seed=lab.seed,
    )
    key, watched = jax.random.key(lab.seed), (members, nonmembers)
    if options.shadows:
        pool = np.union1d(retain, request.unseen)
        watched = _shadowed(lab, options.shadows, pool, key)
    key = jax.random.fold_in(key, 1)
    params, infos = membership.train_attacks(attacks, *watched, key)
    if options.shadows:  # judged where they will be used: on the model itself
        for a in attacks:
            given = params[a.name], members, nonmembers, infos[a.name]
            infos[a.name] = membership.assess(a, *given)
    details = checked_attacks(infos, options)
    details["gaps"] = {name: gap._asdict() for name, gap in gaps.items()}
    audits = tuple(
        objectives.nonmember(lab.model, attack, params[attack.name])
        for attack in attacks
    )
    return Learned(tuple(strategies), size, audits, details)


def _shadowed(
    lab: Any, count: int, ids: np.ndarray, key: jax.Array
) -> tuple[Observed, Observed]:
    """Return what shadow models say of their members and of the others."""
    inputs, labels = lab.examples.at(ids)
    batch_size = min(lab.setting.batch_size, len(ids) // 2)
    steps = max(SHADOW_EPOCHS * len(ids) // 2 // batch_size, 1)
    shadows = membership.train_shadows(
        lab.model,
        optax.chain(optax.trace(0.9), falling_rate(SHADOW_RATE, steps)),
        inputs,
        labels,
        key,
        count=count,
        steps=steps,
        batch_size=batch_size,
    )
    return membership.shadow_observations(lab.model, shadows, inputs, labels)
