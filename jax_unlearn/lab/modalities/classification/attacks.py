"""What LTU learns before it unlearns: membership models, and its queries' sources."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import membership, objectives
from jax_unlearn.cards import Learned, Variables
from jax_unlearn.data import queries, query_gaps
from jax_unlearn.drivers.loop import predict
from jax_unlearn.lab.attacks import checked_attacks, numbered
from jax_unlearn.lab.modality import falling_rate
from jax_unlearn.losses import true_class_probability
from jax_unlearn.membership import Observed
from jax_unlearn.methods.ltu import Ltu
from jax_unlearn.types import Model

CLUSTERS = 8  # of the strategy "feature_cluster"
SHADOW_EPOCHS, SHADOW_RATE = 20, 0.05  # how shadow models are trained; our choice


def learn(lab: Any, options: Ltu) -> Learned:
    """Train the membership models of LTU and set up its queries.

    Args:
      lab: with unseen samples in its request; `seed` is that of the attacks' divisions
        and starts, and of the clusters.
      options: of LTU.

    Raises:
      InputError: no attack that is better than chance, or a strategy the accessible
        retain samples cannot serve.
    """
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
    kept = np.asarray(true_class_probability(members.logits, members.labels))
    kept_features, forget_features = seen[0], seen[2]
    size = min(options.query_size, len(retain))
    sources = {
        "uniform": lambda: queries.uniform(len(retain)),
        "class_skewed": lambda: queries.class_skewed(labels[retain]),
        "feature_cluster": lambda: queries.feature_cluster(
            kept_features, clusters=min(CLUSTERS, len(retain)), seed=lab.seed
        ),
        "hard": lambda: queries.hard(kept),
        "nearest": lambda: queries.nearest(kept_features, forget_features),
    }
    strategies = tuple(
        sources[name]()._replace(name=numbered(options.strategies, number))
        for number, name in enumerate(options.strategies)
    )
    gaps = query_gaps(
        strategies,
        kept_features,
        labels[retain],
        support_features=forget_features,
        support_labels=labels[forget],
        num_classes=lab.num_classes,
        query_size=min(size, len(forget) - 2),
        seed=lab.seed,
    )
    key = jax.random.key(lab.seed)
    known = {attack.name: attack for attack in membership.default_attacks()}
    attacks = tuple(
        known[name]._replace(name=numbered(options.attacks, number))
        for number, name in enumerate(options.attacks)
    )
    watched = members, nonmembers
    if options.shadows:
        pool = np.union1d(retain, request.unseen)
        watched = _shadowed(lab, options.shadows, pool, key)
    params, infos = membership.train_attacks(
        attacks, *watched, jax.random.fold_in(key, 1)
    )
    if options.shadows:  # judged where they will be used: on the model itself
        infos = {
            attack.name: membership.assess(
                attack, params[attack.name], members, nonmembers, infos[attack.name]
            )
            for attack in attacks
        }
    details = checked_attacks(infos, options)
    details["gaps"] = {name: gap._asdict() for name, gap in gaps.items()}
    audits = tuple(
        objectives.nonmember(lab.model, attack, params[attack.name])
        for attack in attacks
    )
    return Learned(strategies, size, audits, details)


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
