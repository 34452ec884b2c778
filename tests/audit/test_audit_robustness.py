"""PGD against the exact optimum of linear models, in its ball, at any confidence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toys import batchnorm_net, mlp

import jax_unlearn as ju
from jax_unlearn.audit.robustness import pgd, robust_accuracy
from jax_unlearn.errors import InputError
from jax_unlearn.losses import cross_entropy
from jax_unlearn.membership.features import logit_confidence

FEATURES = 5
LINEAR = ju.from_stateless(lambda key, x: jnp.zeros((FEATURES, 2)), lambda w, x: x @ w)
MLP = mlp(width=8)
MLP_PARAMS, _ = MLP.init(jax.random.key(1), jnp.zeros((1, FEATURES)))


def images(seed, size=11):
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(0, 1, (size, FEATURES)).astype(np.float32)
    return inputs, rng.integers(0, 2, size).astype(np.int32)


def weights(seed):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(FEATURES, 2)), jnp.float32)


def worst(w, inputs, labels, bound, low, high):
    """Return the best attack on a linear model: every input to its worst end."""
    w, x = np.asarray(w, np.float64), np.asarray(inputs, np.float64)
    direction = np.sign(w[:, labels] - w[:, 1 - labels]).T
    return np.clip(x - bound * direction, low, high)


@pytest.mark.parametrize("start", [None, 3])
@pytest.mark.parametrize("limits", [(0.0, 1.0), (-np.inf, np.inf)])
def test_pgd_finds_the_optimum_of_a_linear_model(start, limits):
    (inputs, labels), w, bound = images(0), weights(1), 0.2
    key = None if start is None else jax.random.key(start)
    found = pgd(
        LINEAR, w, (), inputs, labels, bound=bound, low=limits[0], high=limits[1],
        key=key,
    )  # fmt: skip
    expected = worst(w, inputs, labels, bound, *limits)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if np.isinf(limits[0]):  # the margin falls by ε‖w_y − w_other‖₁
        w64 = np.asarray(w, np.float64)
        fall = bound * np.abs(w64[:, 0] - w64[:, 1]).sum()
        before, after = (
            logit_confidence(inputs @ w, labels),
            logit_confidence(found @ w, labels),
        )
        np.testing.assert_allclose(before - after, fall, atol=1e-5)


@pytest.mark.parametrize("bound", [0.0, 0.05, 0.3])
def test_robust_accuracy_of_a_linear_model(bound):
    (inputs, labels), w = images(2, size=200), weights(3)
    logits = worst(w, inputs, labels, bound, 0, 1) @ np.asarray(w, np.float64)
    expected = 100 * np.mean(logits.argmax(1) == labels)
    value = robust_accuracy(LINEAR, w, (), inputs, labels, bound=bound)
    assert value == pytest.approx(expected, abs=1e-9)
    if bound == 0:
        assert value == ju.audit.accuracy(inputs @ np.asarray(w), labels)
    else:
        assert 0 < value < ju.audit.accuracy(inputs @ np.asarray(w), labels)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1000),
    st.floats(0, 2),
    st.integers(1, 6),
    st.none() | st.floats(1e-3, 5),
    st.booleans(),
)
def test_pgd_stays_in_the_ball_and_in_the_range(seed, bound, steps, step, random):
    inputs, labels = images(seed)
    found = pgd(
        MLP, MLP_PARAMS, (), inputs, labels, bound=bound, steps=steps, step_size=step,
        key=jax.random.key(seed) if random else None,
    )  # fmt: skip
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.abs(found.astype(np.float64) - inputs).max() <= bound * (1 + 1e-6) + 1e-7
    if bound == 0:
        np.testing.assert_array_equal(found, inputs)


def test_one_step_is_fgsm():
    inputs, labels = images(4)

    def loss(x):
        return jnp.sum(cross_entropy(MLP.apply(MLP_PARAMS, (), x, train=False)[0], y))

    y = jnp.asarray(labels)
    expected = np.clip(inputs + 0.1 * np.sign(jax.jit(jax.grad(loss))(inputs)), 0, 1)
    found = pgd(MLP, MLP_PARAMS, (), inputs, labels, bound=0.1, steps=1)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_more_steps_attack_better_and_hurt():
    inputs, labels = images(5, size=60)
    clean = ju.predict(MLP, MLP_PARAMS, (), inputs)
    labels = clean.argmax(1).astype(np.int32)
    mean_loss = jax.jit(lambda logits: jnp.mean(cross_entropy(logits, labels)))

    def loss(steps):
        x = pgd(MLP, MLP_PARAMS, (), inputs, labels, bound=0.3, steps=steps)
        return float(mean_loss(ju.predict(MLP, MLP_PARAMS, (), x)))

    plain = float(mean_loss(clean))
    assert plain + 0.05 < loss(1) <= loss(10) + 1e-4
    values = [
        robust_accuracy(MLP, MLP_PARAMS, (), inputs, labels, bound=b)
        for b in (0.0, 0.1, 0.3)
    ]
    assert values[0] == 100 > values[1] > values[2]


def test_sure_models_are_attacked_all_the_same():
    # Logits of a few thousand: the float32 gradient of the cross-entropy is exactly 0
    # on every sample the model gets right, and an attack that follows it stands still.
    (inputs, _), w = images(6), np.float32(3000) * np.asarray(weights(7))
    labels = (inputs @ np.asarray(w)).argmax(1).astype(np.int32)

    def loss(x):
        return jnp.sum(cross_entropy(x @ w, jnp.asarray(labels)))

    assert not np.asarray(jax.jit(jax.grad(loss))(inputs)).any()
    found = pgd(LINEAR, w, (), inputs, labels, bound=0.2)
    expected = worst(w, inputs, labels, 0.2, 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_margin_is_the_log_odds_of_the_true_class():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(20, 4)) * 5, rng.integers(0, 4, 20)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = p[np.arange(20), labels]
    found = logit_confidence(
        jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.int32)
    )
    np.testing.assert_allclose(found, np.log(p / (1 - p)), rtol=1e-5, atol=1e-5)


def test_random_starts_fill_the_ball_and_differ_between_samples():
    inputs = np.full((200, FEATURES), 0.5, np.float32)
    flat = jnp.zeros((FEATURES, 2))  # no gradient: the start stays
    labels = np.zeros(200, np.int32)
    found = [
        pgd(LINEAR, flat, (), inputs, labels, bound=0.1, key=jax.random.key(k)) - 0.5
        for k in (0, 1)
    ]
    assert stats.kstest(found[0].ravel(), "uniform", (-0.1, 0.2)).pvalue > 1e-3
    assert np.abs(found[0] - found[1]).max() > 0.1
    still = pgd(LINEAR, flat, (), inputs, labels, bound=0.1)
    np.testing.assert_array_equal(still, inputs)


def test_samples_do_not_depend_on_the_batch():
    # In train mode BatchNorm would join them; random starts belong to the sample.
    net = batchnorm_net(classes=2)
    inputs, labels = images(8)
    params, state = net.init(jax.random.key(0), inputs)
    state = {"mean": state["mean"] + 0.3, "var": 2 * state["var"]}
    given = (net, params, state, inputs, labels)
    key = jax.random.key(2)
    whole = pgd(*given, bound=0.1, steps=3, key=key)
    cut = pgd(*given, bound=0.1, steps=3, key=key, batch_size=4)
    np.testing.assert_allclose(cut, whole, atol=1e-6)
    assert np.abs(whole - pgd(*given, bound=0.1, steps=3)).max() > 1e-3
    values = [
        robust_accuracy(*given, bound=0.1, steps=3, batch_size=b) for b in (4, 11)
    ]
    assert values[0] == values[1]


def test_a_wrong_sample_that_the_attack_puts_right_is_wrong():
    # Margin cos(30(x − 0.5)): from 2 rad the attack jumps over the valley to 5 rad.
    def apply(w, x):
        return w * jnp.concatenate([jnp.cos(30 * (x - 0.5)), jnp.zeros_like(x)], axis=1)

    wave = ju.from_stateless(lambda key, x: jnp.float32(1), apply)
    inputs, one = np.array([[0.5 + 2 / 30]], np.float32), jnp.float32(1)
    found = pgd(wave, one, (), inputs, [0], bound=0.1, steps=1)
    assert apply(1.0, found).argmax() == 0 != apply(1.0, inputs).argmax()
    assert robust_accuracy(wave, one, (), inputs, [0], bound=0.1, steps=1) == 0


IMAGES, LABELS = images(9)


@pytest.mark.parametrize(
    ("inputs", "labels", "options", "message"),
    [
        ((255 * IMAGES).astype(np.uint8), LABELS, {}, "uint8.*inputs / 255"),
        (255 * IMAGES, LABELS, {}, "outside low=0.0, high=1.0"),
        (IMAGES - 1, LABELS, {}, "outside low=0.0"),
        (np.full_like(IMAGES, np.nan), LABELS, {}, "NaN"),
        ({"x": IMAGES}, LABELS, {}, "one floating array"),
        (IMAGES[:0], LABELS[:0], {}, "empty"),
        (IMAGES, LABELS + 1, {}, "outside 0..1"),
        (IMAGES, LABELS[:-1], {}, "one label a sample"),
        (IMAGES, LABELS.astype(np.float32), {}, "class numbers"),
        (IMAGES, LABELS, {"bound": -0.1}, "bound=-0.1"),
        (IMAGES, LABELS, {"bound": np.nan}, "bound=nan"),
        (IMAGES, LABELS, {"steps": 0}, "steps=0"),
        (IMAGES, LABELS, {"step_size": 0.0}, "step_size=0.0"),
        (IMAGES, LABELS, {"low": 1.0}, "low=1.0 must be below"),
        (IMAGES, LABELS, {"batch_size": 0}, "batch_size=0"),
    ],
)
@pytest.mark.parametrize("function", [pgd, robust_accuracy])
def test_mistakes_are_named(function, inputs, labels, options, message):
    with pytest.raises(InputError, match=message):
        function(LINEAR, weights(0), (), inputs, labels, **options)


def test_models_that_are_no_classifiers_or_diverged_are_refused():
    single = jnp.zeros((FEATURES, 1))
    with pytest.raises(InputError, match=r"shape \(1, 1\)"):
        pgd(LINEAR, single, (), IMAGES, LABELS)
    with pytest.raises(InputError, match="not finite"):
        robust_accuracy(LINEAR, weights(0) * np.nan, (), IMAGES, LABELS)
