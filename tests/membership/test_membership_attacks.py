"""Attack models and the loss they give back, against closed forms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.stats import norm

from jax_unlearn import membership
from jax_unlearn.errors import InputError
from jax_unlearn.membership.attacks import VARIANCE_FLOOR

ATTACKS = membership.default_attacks()
NAMES = [attack.name for attack in ATTACKS]


def trained_like(attack, classes=4, seed=0):
    """Return parameters that are not the zero start, every leaf strongly typed."""
    logits = jnp.zeros((1, classes))
    d = attack.features(logits, jnp.zeros(1, jnp.int32)).shape[-1]
    params = attack.init(jax.random.key(seed), d)
    if attack.name == "gaussian_ratio":
        one = jnp.ones(1, jnp.float32)
        return params._replace(
            net=membership.Gaussians(one, 0.5 * one, -one, 2.0 * one)
        )
    leaves, structure = jax.tree.flatten(params.net)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [
        leaf + 0.3 * jax.random.normal(k, leaf.shape)
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return params._replace(
        mean=params.mean + 0.2, std=2.0 * params.std, net=structure.unflatten(moved)
    )


@pytest.mark.parametrize("attack", ATTACKS, ids=NAMES)
def test_attacks_start_undecided_and_strongly_typed(attack):
    params = attack.init(jax.random.key(0), 3)
    features = jax.random.normal(jax.random.key(1), (5, 3))
    np.testing.assert_array_equal(attack.score(params, features), np.zeros(5))
    for leaf in jax.tree.leaves(params):
        assert leaf.dtype == jnp.float32
        assert not leaf.weak_type


def test_equal_options_are_equal_attacks():
    assert membership.default_attacks() == ATTACKS
    assert membership.softmax_mlp(top=2) != membership.softmax_mlp(top=3)
    assert membership.entropy_mlp(hidden=(4,)) != membership.entropy_mlp()
    assert membership.gaussian_ratio(equal_variance=True) != ATTACKS[3]


def test_logistic_is_a_scalar_product():
    attack = membership.logistic()
    params = trained_like(attack)
    features = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    (layer,) = params.net
    standard = (features - np.asarray(params.mean)) / np.asarray(params.std)
    expected = standard @ np.asarray(layer.weight)[:, 0] + float(layer.bias[0])
    np.testing.assert_allclose(
        attack.score(params, jnp.asarray(features)), expected, rtol=1e-5, atol=1e-6
    )


def test_gaussian_ratio_is_that_of_scipy():
    attack = membership.gaussian_ratio()
    rng = np.random.default_rng(1)
    members = rng.normal(3, 2, (50, 1)).astype(np.float32)
    others = rng.normal(-1, 0.7, (80, 1)).astype(np.float32)
    params = attack.init(jax.random.key(0), 1)
    params = params._replace(net=attack.fit(jnp.asarray(members), jnp.asarray(others)))
    x = np.linspace(-4, 8, 25)
    inside = norm(members.mean(dtype=np.float64), members.std(dtype=np.float64))
    outside = norm(others.mean(dtype=np.float64), others.std(dtype=np.float64))
    np.testing.assert_allclose(
        attack.score(params, jnp.asarray(x[:, None], jnp.float32)),
        inside.logpdf(x) - outside.logpdf(x),
        rtol=1e-4,
        atol=1e-4,
    )


def test_equal_variances_make_the_ratio_linear():
    attack = membership.gaussian_ratio(equal_variance=True)
    net = attack.fit(jnp.array([[1.0], [5.0]]), jnp.array([[-1.0], [1.0]]))
    assert net.member_var.tolist() == net.nonmember_var.tolist() == [2.5]
    params = attack.init(jax.random.key(0), 1)._replace(net=net)
    scores = attack.score(params, jnp.array([[0.0], [1.0], [2.0], [50.0]]))
    # (x(μ_in − μ_out) − (μ_in² − μ_out²)/2)/σ² = (3x − 4.5)/2.5
    np.testing.assert_allclose(scores, [-1.8, -0.6, 0.6, 58.2], rtol=1e-5)


def test_variance_floor_keeps_the_ratio_finite():
    attack = membership.gaussian_ratio()
    same = jnp.full((4, 1), 1.0, jnp.float32)
    net = attack.fit(same, -same)
    np.testing.assert_allclose(net.member_var, [VARIANCE_FLOOR])
    params = attack.init(jax.random.key(0), 1)._replace(net=net)
    scores = attack.score(params, jnp.array([[1.0], [-1.0], [0.0]]))
    np.testing.assert_allclose(scores, [2e4, -2e4, 0.0], rtol=1e-5)


def losses_of(params, logits, labels):
    """Return the losses under every attack, `[4, B]`."""
    pairs = zip(ATTACKS, params, strict=True)
    return jnp.stack(
        [membership.nonmember_loss(a, p, logits, labels) for a, p in pairs]
    )


PARAMS = [trained_like(attack) for attack in ATTACKS]
COMPILED = jax.jit(losses_of)


def test_nonmember_loss_is_the_cross_entropy_with_zero():
    logits = 2.0 * jax.random.normal(jax.random.key(3), (9, 4))
    labels = jnp.arange(9) % 4
    losses = COMPILED(PARAMS, logits, labels)
    assert losses.dtype == jnp.float32
    for attack, params, loss in zip(ATTACKS, PARAMS, losses, strict=True):
        score = attack.score(params, jax.jit(attack.features)(logits, labels))
        member = 1 / (1 + np.exp(-np.asarray(score, np.float64)))
        assert np.ptp(member) > 0.01
        np.testing.assert_allclose(loss, -np.log1p(-member), rtol=1e-5, atol=1e-6)


def test_nonmember_loss_is_differentiable_to_second_order():
    # Distinct probabilities: the sorted softmax has kinks where two are equal.
    logits = jnp.array([[0.3, -0.8, 1.1, 0.0], [2.0, 0.5, -0.4, 1.0]])
    losses = jax.jit(lambda x: losses_of(PARAMS, x, jnp.array([2, 1])))
    check_grads(losses, (logits,), 2, modes=["rev"], rtol=2e-2, atol=2e-2, eps=1e-2)


def test_all_gradient_flows_into_the_logits_and_none_into_the_attack():
    @jax.jit
    def slopes(params, logits):
        return jax.jacrev(losses_of, argnums=(0, 1))(params, logits, jnp.arange(4))

    of_params, of_logits = slopes(PARAMS, jnp.eye(4))
    assert all(not leaf.any() for leaf in jax.tree.leaves(of_params))
    assert (np.abs(of_logits).max(axis=(1, 2, 3)) > 1e-3).all()


def test_nonmember_loss_at_saturated_logits_is_finite():
    logits = jnp.array([[1e4, 0.0, 0.0, -1e4]] * 4, jnp.bfloat16)

    @jax.jit
    def both(x):
        losses = losses_of(PARAMS, x, jnp.arange(4))
        return losses, jax.jacrev(losses_of, argnums=1)(PARAMS, x, jnp.arange(4))

    losses, slopes = both(logits)
    assert losses.dtype == jnp.float32
    assert slopes.dtype == jnp.bfloat16
    assert np.isfinite(losses).all()
    assert np.isfinite(slopes.astype(jnp.float32)).all()


def test_nonmember_loss_of_one_sample_is_its_part_of_the_batch():
    logits = 2.0 * jax.random.normal(jax.random.key(4), (9, 4))
    labels = jnp.arange(9) % 4
    single = jax.jit(jax.vmap(losses_of, in_axes=(None, 0, 0), out_axes=1))
    np.testing.assert_allclose(
        single(PARAMS, logits, labels),
        COMPILED(PARAMS, logits, labels),
        rtol=1e-5,
        atol=1e-6,
    )


def test_other_parameters_do_not_retrace():
    attack = membership.entropy_mlp()
    loss = jax.jit(
        chex.assert_max_traces(
            lambda p, x, y: membership.nonmember_loss(attack, p, x, y), 1
        )
    )
    logits, labels = jnp.eye(4), jnp.arange(4)
    first = loss(trained_like(attack, seed=0), logits, labels)
    second = loss(trained_like(attack, seed=5), logits, labels)
    assert np.abs(first - second).max() > 1e-3


def test_bad_widths_are_named():
    with pytest.raises(InputError, match=r"hidden=\(\)"):
        membership.softmax_mlp(hidden=())
    with pytest.raises(InputError, match=r"hidden=\(8, 0\)"):
        membership.entropy_mlp(hidden=(8, 0))
    with pytest.raises(InputError, match="top=0"):
        membership.softmax_mlp(top=0)
