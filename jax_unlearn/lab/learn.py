"""What LTU learns before it unlearns: membership models, and its queries' sources."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import membership
from jax_unlearn.data import Strategy, queries, query_gaps
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError
from jax_unlearn.lab.task import Task
from jax_unlearn.losses import true_class_probability
from jax_unlearn.membership import Attack, AttackParams, Observed
from jax_unlearn.types import Model

CLUSTERS = 8  # of the strategy "feature_cluster"
SHADOW_EPOCHS, SHADOW_RATE = 20, 0.05  # how shadow models are trained; our choice


class Learned(NamedTuple):
    """What LTU needs beside the model.

    Attributes:
      strategies: one a query batch.
      query_size: samples of each query.
      attacks: the membership models.
      attack_params: what they have learned, by name.
      details: JSON-able: "attacks" by name (held-out AUC, its error, whether that is
        better than chance) and "gaps" by strategy, the distribution distance of its
        queries to the forget set.
    """

    strategies: tuple[Strategy, ...]
    query_size: int
    attacks: tuple[Attack, ...]
    attack_params: dict[str, AttackParams]
    details: dict[str, Any]


def learn(task: Task) -> Learned:
    """Train the membership models of LTU and set up its queries.

    Args:
      task: with unseen samples in its request; `seed` is that of the attacks' divisions
        and starts, and of the clusters.

    Raises:
      InputError: no attack that is better than chance, or a strategy the accessible
        retain samples cannot serve.
    """
    request, dataset, setting = task.request, task.dataset, task.setting
    retain, forget = np.sort(request.retain), np.sort(request.forget)
    labels = dataset.train.labels
    ids = np.concatenate([retain, request.unseen, forget])
    ends = np.cumsum([len(retain), len(request.unseen)])
    at = task.original.params, task.original.model_state

    def parts_of(outputs: Model) -> list[np.ndarray]:
        """Run the original model over the three sets at once: one program."""
        inputs = dataset.train.inputs[ids]
        return np.split(predict(outputs, *at, inputs, batch_size=256), ends)

    logits, seen = parts_of(task.model), parts_of(task.features)
    members = Observed(jnp.asarray(logits[0]), jnp.asarray(labels[retain]))
    nonmembers = Observed(jnp.asarray(logits[1]), jnp.asarray(labels[request.unseen]))
    kept = np.asarray(true_class_probability(members.logits, members.labels))
    kept_features, forget_features = seen[0], seen[2]
    size = min(setting.query_size, len(retain))
    strategies = _strategies(
        setting.strategies,
        labels[retain],
        kept_features,
        kept,
        forget_features,
        task.seed,
    )
    gaps = query_gaps(
        strategies,
        kept_features,
        labels[retain],
        forget_features,
        labels[forget],
        num_classes=dataset.num_classes,
        query_size=min(size, len(forget) - 2),
        seed=task.seed,
    )
    key = jax.random.key(task.seed)
    attacks = _attacks(setting.attacks)
    watched = members, nonmembers
    if setting.shadows:
        pool = np.union1d(retain, request.unseen)
        watched = _shadowed(task, pool, key)
    params, infos = membership.train_attacks(
        attacks, *watched, jax.random.fold_in(key, 1)
    )
    if setting.shadows:  # judged where they will be used: on the model itself
        infos = {
            attack.name: membership.assess(
                attack, params[attack.name], members, nonmembers, infos[attack.name]
            )
            for attack in attacks
        }
    details = {
        "attacks": {
            name: {
                "auc": float(info.auc),
                "standard_error": float(info.standard_error),
                "better_than_chance": bool(membership.better_than_chance(info)),
            }
            for name, info in infos.items()
        },
        "gaps": {name: gap._asdict() for name, gap in gaps.items()},
    }
    feedback = any(a["better_than_chance"] for a in details["attacks"].values())
    if not (feedback or setting.allow_weak):
        areas = ", ".join(f"{n} {float(info.auc):.3f}" for n, info in infos.items())
        raise InputError(
            f"attacks={setting.attacks}: none is better than chance (held-out AUC: "
            f"{areas}), so ltu has no feedback; hold out more unseen samples, raise "
            "rho, or give --allow-weak to go on all the same"
        )
    return Learned(strategies, size, attacks, params, details)


def weak_attacks(details: Mapping[str, Any]) -> list[str]:
    """Return a warning for every attack that is no better than chance.

    >>> weak_attacks(
    ...     {"attacks": {"logistic": {"auc": 0.5, "better_than_chance": False}}}
    ... )
    ["attack 'logistic' is no better than chance (AUC 0.500): it gives no feedback"]
    """
    return [
        f"attack {name!r} is no better than chance (AUC {found['auc']:.3f}): "
        "it gives no feedback"
        for name, found in details.get("attacks", {}).items()
        if not found["better_than_chance"]
    ]


def _strategies(
    names: Sequence[str],
    labels: np.ndarray,
    features: np.ndarray,
    confidence: np.ndarray,
    forget_features: np.ndarray,
    seed: int,
) -> tuple[Strategy, ...]:
    """Return the strategies by name, repeated ones numbered."""
    made = []
    for number, name in enumerate(names):
        if name == "uniform":
            strategy = queries.uniform(len(labels))
        elif name == "class_skewed":
            strategy = queries.class_skewed(labels)
        elif name == "feature_cluster":
            strategy = queries.feature_cluster(
                features, clusters=min(CLUSTERS, len(labels)), seed=seed
            )
        elif name == "hard":
            strategy = queries.hard(confidence)
        else:
            strategy = queries.nearest(features, forget_features)
        made.append(strategy._replace(name=_numbered(names, number)))
    return tuple(made)


def _attacks(names: Sequence[str]) -> tuple[Attack, ...]:
    """Return the attacks by name, repeated ones numbered."""
    known = {attack.name: attack for attack in membership.default_attacks()}
    return tuple(
        known[name]._replace(name=_numbered(names, number))
        for number, name in enumerate(names)
    )


def _numbered(names: Sequence[str], number: int) -> str:
    """Return a name, with its count from the second time on.

    >>> [_numbered(["hard", "hard"], number) for number in (0, 1)]
    ['hard', 'hard 2']
    """
    earlier = list(names[:number]).count(names[number])
    return f"{names[number]} {earlier + 1}" if earlier else names[number]


def _shadowed(task: Task, ids: np.ndarray, key: jax.Array) -> tuple[Observed, Observed]:
    """Return what shadow models say of their members and of the others."""
    inputs, labels = jax.tree.map(lambda array: array[ids], tuple(task.dataset.train))
    setting = task.setting
    batch_size = min(setting.batch_size, len(ids) // 2)
    steps = max(SHADOW_EPOCHS * len(ids) // 2 // batch_size, 1)
    cosine = optax.cosine_decay_schedule(SHADOW_RATE, steps)
    shadows = membership.train_shadows(
        task.model,
        optax.sgd(lambda step: cosine(jnp.float32(step)), momentum=0.9),
        inputs,
        labels,
        key,
        count=setting.shadows,
        steps=steps,
        batch_size=batch_size,
    )
    return membership.shadow_observations(task.model, shadows, inputs, labels)
