"""Differentiable membership attacks: features in, logit of membership out.

Shapes: B samples, d features. An attack is a description; what it has learned are its
parameters, a pytree to carry in a state and to pass as an argument. Attacks built with
the same options compare equal, so that one compiled program serves both.

The logistic attack and the equal-variance ratio rise with the confidence. The others
may take the surest samples for non-members, since unseen samples spread both ways: they
tell members better, but part of their feedback raises the confidence.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.membership.features import (
    FeatureFn,
    confidence_features,
    entropy_features,
    logit_confidence_features,
    sorted_softmax,
)
from jax_unlearn.types import Array, PyTree

__all__ = ["VARIANCE_FLOOR", "Attack", "AttackParams", "Dense", "Gaussians"]
__all__ += ["default_attacks", "entropy_mlp", "gaussian_ratio", "logistic"]
__all__ += ["nonmember_loss", "softmax_mlp", "standardise"]

VARIANCE_FLOOR = 1e-4
"""Least variance of a Gaussian, in variances of the training feature (our choice): of
groups whose features coincide, ratio and gradient stay finite."""


class AttackParams(NamedTuple):
    """Moments of the training features `f32[d]`, and what scores (x − mean)/std.

    The std is 1 for a constant feature.
    """

    mean: Array
    std: Array
    net: PyTree


class Dense(NamedTuple):
    """One layer of an attack: weight `f32[inputs, outputs]`, bias `f32[outputs]`."""

    weight: Array
    bias: Array


class Gaussians(NamedTuple):
    """A Gaussian a group and a standardised feature, independent, `f32[d]` each."""

    member_mean: Array
    member_var: Array
    nonmember_mean: Array
    nonmember_var: Array


class Attack(NamedTuple):
    """A membership attack as pure functions.

    Attributes:
      name: for reports; `attack._replace(name=...)` renames.
      features: `(logits [B, K], labels [B]) -> f32[B, d]`, what it looks at.
      init: `(key, d) -> AttackParams`.
      score: `(params, features [B, d]) -> f32[B]`, the logit of membership.
      fit: `(members [N, d], nonmembers [M, d]) -> net` on standardised features where
        a closed form replaces training; None otherwise.
    """

    name: str
    features: FeatureFn
    init: Callable[[Array, int], AttackParams]
    score: Callable[[AttackParams, Array], Array]
    fit: Callable[[Array, Array], PyTree] | None = None


def logistic() -> Attack:
    """Return logistic regression on (loss, true-class probability, margin).

    score = w·z + b on the standardised features z; starts at 0.

    Source: our choice of features.

    >>> import jax
    >>> attack = logistic()
    >>> params = attack.init(jax.random.key(0), 3)
    >>> attack.score(params, jnp.ones((2, 3))).tolist()
    [0.0, 0.0]
    """
    return Attack("logistic", confidence_features, _layers(()), _network_score)


def softmax_mlp(*, top: int = 3, hidden: Sequence[int] = (32,)) -> Attack:
    """Return a multi-layer perceptron on the sorted softmax; it does not see labels.

    It sees the `top` largest probabilities. Hidden units, in one layer or more of
    widths `hidden`, are x·sigmoid(x): smooth, for LTU differentiates twice.

    Raises:
      InputError: `top` or a width below 1; no hidden layer.

    Reference: Salem et al. (ML-Leaks), arXiv 1806.01246; widths our choice.

    >>> softmax_mlp(hidden=(8, 4)) == softmax_mlp(hidden=[8, 4])
    True
    """
    _validate.at_least("top", top, 1, "try 3")
    return Attack("softmax_mlp", _sorted(top), _layers(_widths(hidden)), _network_score)


def entropy_mlp(*, hidden: Sequence[int] = (16, 16)) -> Attack:
    """Return a multi-layer perceptron on (entropy, modified entropy, loss).

    Units, `hidden` and errors are those of `softmax_mlp`.

    Source: our choice; the features are those of Song and Mittal, arXiv 2003.10595.

    >>> import jax
    >>> params = entropy_mlp(hidden=(4,)).init(jax.random.key(0), 3)
    >>> [layer.weight.shape for layer in params.net]
    [(3, 4), (4, 1)]
    """
    init = _layers(_widths(hidden))
    return Attack("entropy_mlp", entropy_features, init, _network_score)


def gaussian_ratio(*, equal_variance: bool = False) -> Attack:
    """Return the Gaussian likelihood ratio on the logit-scaled confidence.

    score = log N(z; μ_in, σ²_in) − log N(z; μ_out, σ²_out); the means and variances of
    both groups are fitted in closed form, variances of at least `VARIANCE_FLOOR`. LiRA
    fits them for every sample over shadow models, this attack once for all samples.
    With `equal_variance`, the mean of the two, the score is linear in the confidence;
    with two it is a parabola: beyond its vertex more confidence lowers the score of
    members, and a model trained against it may go that way.

    Reference: Carlini et al. (LiRA), arXiv 2112.03570, section V; one fit for all
    samples and the floor are our choice.

    >>> attack = gaussian_ratio()
    >>> net = attack.fit(jnp.array([[1.0], [3.0]]), jnp.array([[-1.0], [1.0]]))
    >>> params = AttackParams(jnp.zeros(1), jnp.ones(1), net)  # N(2, 1) against N(0, 1)
    >>> attack.score(params, jnp.array([[1.0], [2.0]])).tolist()
    [0.0, 2.0]
    """
    return Attack(
        "gaussian_ratio",
        logit_confidence_features,
        _gaussian_init,
        _gaussian_score,
        _fit_equal if equal_variance else _fit_gaussians,
    )


def default_attacks() -> tuple[Attack, ...]:
    """Return the four attacks of different features and form with their defaults.

    >>> [attack.name for attack in default_attacks()]
    ['logistic', 'softmax_mlp', 'entropy_mlp', 'gaussian_ratio']
    """
    return logistic(), softmax_mlp(), entropy_mlp(), gaussian_ratio()


def standardise(params: AttackParams, features: Array) -> Array:
    """Return (x − mean)/std `f32[..., d]`, the moments those of the training."""
    x = features.astype(jnp.float32)
    mean, std = (jnp.broadcast_to(v, x.shape) for v in (params.mean, params.std))
    return (x - mean) / std


def nonmember_loss(
    attack: Attack, params: AttackParams, logits: Array, labels: Array
) -> Array:
    """Return BCE(θ_A(φ(f(x), y)), non-member) = log(1 + exp(score)) of every sample.

    `f32[B]`, log 2 where the attack is undecided; it falls as the attack takes the
    samples for non-members. The attack θ_A with its features φ is fixed: no gradient
    flows into its parameters, all flows into the logits f(x) `[B, K]` of the model
    under unlearning. Carry the parameters in the state of whatever uses them.

    Raises:
      InputError: shapes that do not fit.

    Source: LTU (arXiv 2407.10494) for the idea; the form of the loss is our choice.

    >>> import jax
    >>> attack = logistic()
    >>> params = attack.init(jax.random.key(0), 3)
    >>> logits = jnp.array([[2.0, 0.0]])
    >>> nonmember_loss(attack, params, logits, jnp.array([0])).tolist()  # log 2
    [0.6931]
    """
    params = jax.lax.stop_gradient(params)
    return jax.nn.softplus(attack.score(params, attack.features(logits, labels)))


def _widths(hidden: Sequence[int]) -> tuple[int, ...]:
    if not hidden or min(hidden) < 1:
        raise InputError(f"hidden={tuple(hidden)}: give widths of 1 or more, as (32,)")
    return tuple(hidden)


@functools.cache
def _sorted(top: int) -> FeatureFn:
    return functools.partial(sorted_softmax, top=top)


@functools.cache
def _layers(hidden: tuple[int, ...]) -> Callable[[Array, int], AttackParams]:
    """Return the init of dense layers: weights N(0, 1/inputs), the last ones 0."""

    def init(key: Array, d: int) -> AttackParams:
        sizes = (d, *hidden)
        keys = jax.random.split(key, len(hidden) + 1)
        net = []
        for k, i, o in zip(keys, sizes, sizes[1:], strict=False):
            weight = jax.random.normal(k, (i, o), jnp.float32)
            weight = weight / jnp.sqrt(jnp.float32(i))
            net.append(Dense(weight, jnp.zeros(o, jnp.float32)))
        # The last layer starts at 0, so that every attack starts undecided.
        last = Dense(jnp.zeros((sizes[-1], 1), jnp.float32), jnp.zeros(1, jnp.float32))
        return AttackParams(*_unit(d), (*net, last))

    return init


def _network_score(params: AttackParams, features: Array) -> Array:
    x = standardise(params, features)
    for i, layer in enumerate(params.net):
        x = x if i == 0 else jax.nn.silu(x)
        x = x @ layer.weight
        x = x + jnp.broadcast_to(layer.bias, x.shape)
    return x[..., 0]


def _gaussian_init(key: Array, d: int) -> AttackParams:
    del key
    mean, std = _unit(d)
    return AttackParams(mean, std, Gaussians(mean, std, mean, std))


def _gaussian_score(params: AttackParams, features: Array) -> Array:
    x = standardise(params, features)
    g = params.net

    def log_density(mean: Array, var: Array) -> Array:
        mean, var = jnp.broadcast_to(mean, x.shape), jnp.broadcast_to(var, x.shape)
        return -0.5 * (jnp.square(x - mean) / var + jnp.log(var))

    ratio = log_density(g.member_mean, g.member_var)
    ratio -= log_density(g.nonmember_mean, g.nonmember_var)
    return jnp.sum(ratio, axis=-1)


def _fit_gaussians(members: Array, nonmembers: Array) -> Gaussians:
    def moments(x: Array) -> tuple[Array, Array]:
        return jnp.mean(x, axis=0), jnp.maximum(jnp.var(x, axis=0), VARIANCE_FLOOR)

    return Gaussians(*moments(members), *moments(nonmembers))


def _fit_equal(members: Array, nonmembers: Array) -> Gaussians:
    fitted = _fit_gaussians(members, nonmembers)
    var = (fitted.member_var + fitted.nonmember_var) / 2
    return fitted._replace(member_var=var, nonmember_var=var)


def _unit(d: int) -> tuple[Array, Array]:
    return jnp.zeros(d, jnp.float32), jnp.ones(d, jnp.float32)
