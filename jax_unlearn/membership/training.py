"""Training of membership attacks on samples a model has and has not seen.

Shapes: N members, M non-members, d features, S models. Members were trained on by the
model whose outputs are attacked (a part of the accessible retain samples), non-members
were not.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import minimise
from jax_unlearn.membership.attacks import Attack, AttackParams, standardise
from jax_unlearn.membership.quality import AttackInfo, auc, auc_standard_error
from jax_unlearn.types import Array

__all__ = ["Observed", "assess", "train_attack", "train_attacks", "train_shadow_attack"]


class Observed(NamedTuple):
    """Outputs of a model on some samples: logits `[N, K]`, true classes `i32[N]`.

    Of language models a `ju.language.Scored` in place of the logits.
    """

    logits: Array
    labels: Array


def train_attack(
    attack: Attack,
    features_members: Array,
    features_nonmembers: Array,
    key: Array,
    *,
    steps: int = 500,
    learning_rate: float | Array = 1e-2,
    weight_decay: float | Array = 1e-3,
    held_out: float = 0.5,
) -> tuple[AttackParams, AttackInfo]:
    """Train an attack on a part of the samples and test it on those held out.

    Minimises ½ mean_members log(1 + e^{−s}) + ½ mean_nonmembers log(1 + e^s), s the
    score, with AdamW on all training samples at once, biases not decayed, in one
    compiled scan; an attack with a closed form is fitted instead. Works under vmap. The
    features are `attack.features` of samples trained on, `[N, d]`, and never trained
    on, `[M, d]`; the key is that of the division and the initialisation; `held_out`, in
    (0, 1), is the share of each group that only measures, at least one sample, with at
    least one left for training.

    Raises:
      InputError: fewer than two samples of a group, features that do not fit, a
        hyper-parameter out of range.

    Source: our choice.

    >>> import jax
    >>> from jax_unlearn.membership import gaussian_ratio
    >>> a, b = jnp.array([[3.0], [4.0], [5.0], [4.0]]), jnp.array([[0.0], [1.0], [0.5]])
    >>> params, info = train_attack(gaussian_ratio(), a, b, jax.random.key(0))
    >>> print(info.auc, info.members, info.nonmembers)
    1.0 2 1
    """
    members = jnp.asarray(features_members)
    nonmembers = jnp.asarray(features_nonmembers)
    if members.ndim != 2 or nonmembers.ndim != 2:
        raise InputError(
            f"features_members.shape={members.shape}, features_nonmembers.shape="
            f"{nonmembers.shape}: give [samples, features]"
        )
    _check_counts(members, nonmembers)
    if members.shape[1] != nonmembers.shape[1]:
        raise InputError(
            f"features_members has d={members.shape[1]} features, features_nonmembers "
            f"d={nonmembers.shape[1]}: use the same feature set for both"
        )
    _validate.at_least("steps", steps, 1, "try 500")
    _validate.positive("learning_rate", learning_rate, "try 0.01")
    _validate.not_negative("weight_decay", weight_decay, "try 0.001")
    _validate.within("held_out", held_out, "(0, 1)", "try 0.5")
    return _train(
        (attack.init, attack.score, attack.fit),
        members,
        nonmembers,
        key,
        learning_rate=jnp.asarray(learning_rate, jnp.float32),
        weight_decay=jnp.asarray(weight_decay, jnp.float32),
        steps=steps,
        held_out=held_out,
    )


def train_attacks(
    attacks: Sequence[Attack],
    members: Observed,
    nonmembers: Observed,
    key: Array,
    **setting: Any,
) -> tuple[dict[str, AttackParams], dict[str, AttackInfo]]:
    """Train several attacks on the same outputs; return parameters and infos by name.

    Each on its own features of samples trained on and of samples never trained on, with
    the options of `train_attack`; attack i uses `fold_in(key, i)`: another division and
    another start.

    Raises:
      InputError: no attack, a name twice, no unseen samples, or as `train_attack`.

    >>> import jax
    >>> from jax_unlearn.membership import logistic
    >>> y = jnp.zeros(4, jnp.int32)
    >>> sure, not_sure = jnp.eye(2)[y] * 5.0, jnp.eye(2)[y]
    >>> params, infos = train_attacks(
    ...     [logistic()], Observed(sure, y), Observed(not_sure, y), jax.random.key(0)
    ... )
    >>> print(infos["logistic"].auc)
    1.0
    """
    names = [attack.name for attack in attacks]
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"attacks={names}: give one or more, each with its own name "
            "(attack._replace(name=...))"
        )
    _check_counts(*(jax.tree.leaves(o.logits)[0] for o in (members, nonmembers)))
    params, infos = {}, {}
    for i, attack in enumerate(attacks):
        features, own = jax.jit(attack.features), jax.random.fold_in(key, i)
        params[attack.name], infos[attack.name] = train_attack(
            attack, features(*members), features(*nonmembers), own, **setting
        )
    return params, infos


def assess(
    attack: Attack,
    params: AttackParams,
    members: Observed,
    nonmembers: Observed,
    trained: AttackInfo,
) -> AttackInfo:
    """Return how well a trained attack does on samples of another model.

    All samples, those it was trained on and those it was not, count as held out.

    Raises:
      InputError: no samples of a group.

    >>> import jax
    >>> from jax_unlearn.membership import logistic
    >>> y = jnp.zeros(4, jnp.int32)
    >>> sure, unsure = Observed(jnp.eye(2)[y] * 5.0, y), Observed(jnp.eye(2)[y], y)
    >>> key = jax.random.key(0)
    >>> params, infos = train_attacks([logistic()], sure, unsure, key)
    >>> found = params["logistic"], sure, unsure, infos["logistic"]
    >>> print(assess(logistic(), *found).members)
    4
    """
    _check_counts(*(jax.tree.leaves(o.logits)[0] for o in (members, nonmembers)))
    inside = attack.score(params, attack.features(*members))
    outside = attack.score(params, attack.features(*nonmembers))
    return _quality(inside, outside, trained.train_loss)


def train_shadow_attack(
    attack: Attack,
    features_members: Array,
    features_nonmembers: Array,
    key: Array,
    **setting: Any,
) -> tuple[AttackParams, AttackInfo]:
    """Train one attack for each of S models, as one vmapped program.

    Model s uses key s of `split(key, S)`: the result is that of `train_attack` model by
    model, every leaf with a leading axis S, and so are the options. The features are
    `[S, N, d]` and `[S, M, d]`; to pool the models instead, reshape them to `[S·N, d]`.

    Raises:
      InputError: leading axes that differ or are empty, or as `train_attack`.

    >>> import jax
    >>> from jax_unlearn.membership import gaussian_ratio
    >>> a, b = jnp.array([[[3.0], [4.0]]] * 5), jnp.array([[[0.0], [1.0]]] * 5)
    >>> params, info = train_shadow_attack(gaussian_ratio(), a, b, jax.random.key(0))
    >>> info.auc.tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    members = jnp.asarray(features_members)
    nonmembers = jnp.asarray(features_nonmembers)
    shapes = members.shape, nonmembers.shape
    if any(len(s) != 3 or s[0] < 1 for s in shapes) or shapes[0][0] != shapes[1][0]:
        raise InputError(
            f"features_members.shape={shapes[0]}, features_nonmembers.shape="
            f"{shapes[1]}: give [models, samples, features] of the same models"
        )
    train = functools.partial(train_attack, attack, **setting)
    return jax.vmap(train)(members, nonmembers, jax.random.split(key, shapes[0][0]))


@functools.partial(jax.jit, static_argnames=("functions", "steps", "held_out"))
def _train(
    functions: tuple[Callable, Callable, Callable | None],
    members: Array,
    nonmembers: Array,
    key: Array,
    *,
    learning_rate: Array,
    weight_decay: Array,
    steps: int,
    held_out: float,
) -> tuple[AttackParams, AttackInfo]:
    init, score, fit = functions  # not the name and the features: they change nothing
    member_key, nonmember_key, init_key = jax.random.split(key, 3)
    members, members_out = _divide(members, member_key, held_out)
    nonmembers, nonmembers_out = _divide(nonmembers, nonmember_key, held_out)
    both = jnp.concatenate([members, nonmembers])
    mean, std = jnp.mean(both, axis=0), jnp.std(both, axis=0)
    # A std of rounding error only, or of 0, becomes 1.
    std = jnp.where(std > 1e-6 * jnp.abs(mean), std, jnp.float32(1))
    params = init(init_key, members.shape[1])._replace(mean=mean, std=std)

    def loss(net) -> Array:
        trained = params._replace(net=net)
        return _balanced_loss(score(trained, members), score(trained, nonmembers))

    if fit is not None:
        net = fit(standardise(params, members), standardise(params, nonmembers))
    else:
        weights = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
        optimizer = optax.adamw(learning_rate, weight_decay=weight_decay, mask=weights)
        net = minimise(loss, params.net, optimizer, steps=steps)
    trained = params._replace(net=net)
    inside, outside = score(trained, members_out), score(trained, nonmembers_out)
    return trained, _quality(inside, outside, loss(net))


def _balanced_loss(inside: Array, outside: Array) -> Array:
    """Return the cross-entropy of scores, both groups weighing the same."""
    total = jnp.mean(jax.nn.softplus(-inside)) + jnp.mean(jax.nn.softplus(outside))
    return total / 2


def _quality(inside: Array, outside: Array, train_loss: Array) -> AttackInfo:
    """Return how well held-out scores tell members from non-members."""
    n, m, area = len(inside), len(outside), auc(inside, outside)
    error, loss = auc_standard_error(area, n, m), _balanced_loss(inside, outside)
    return AttackInfo(area, error, train_loss, loss, jnp.int32(n), jnp.int32(m))


def _divide(x: Array, key: Array, held_out: float) -> tuple[Array, Array]:
    """Return (training rows, held-out rows), at least one each."""
    x = jax.random.permutation(key, x.astype(jnp.float32))
    out = min(max(int(held_out * len(x)), 1), len(x) - 1)
    return x[out:], x[:out]


def _check_counts(members: Array, nonmembers: Array) -> None:
    n, m = len(members), len(nonmembers)
    if m < 1:
        raise InputError(
            "nonmembers=0: attacks need unseen samples, on which the model was not "
            "trained; keep some aside"
        )
    if min(n, m) < 2:
        raise InputError(
            f"members={n}, nonmembers={m}: give 2 or more of each, to train and to test"
        )
