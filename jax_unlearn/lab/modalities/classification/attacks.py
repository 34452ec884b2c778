"""What LTU learns before it unlearns: membership models, and its queries' sources."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import membership, objectives
from jax_unlearn.cards import Learned, Variables
from jax_unlearn.data import queries, query_gaps
from jax_unlearn.drivers.loop import predict
from jax_unlearn.lab.attacks import checked_attacks, chosen
from jax_unlearn.lab.modality import falling_rate
from jax_unlearn.losses import true_class_probability
from jax_unlearn.membership import Observed
from jax_unlearn.methods.ltu import ATTACKS, Ltu
from jax_unlearn.types import Model

__all__ = ["learn"]

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
    inputs, labels = jax.tree.map(lambda array: array[ids], tuple(lab.examples))
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
