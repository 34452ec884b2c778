"""GUS: N(0, 1) where the noise is unknown, far from it where it was memorised."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toys import batchnorm_net, mlp, softmax64

import jax_unlearn as ju
from jax_unlearn.audit.poisoning import gaussian_score, gus, poison
from jax_unlearn.errors import InputError
from jax_unlearn.losses import cross_entropy

FEATURES = 6
MLP = mlp(width=8)
PARAMS, _ = MLP.init(jax.random.key(1), jnp.zeros((1, FEATURES)))
LINEAR = ju.from_stateless(lambda key, x: jnp.zeros((FEATURES, 3)), lambda w, x: x @ w)


def samples(seed, size, features=FEATURES):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(size, features)).astype(np.float32)
    return inputs, rng.integers(0, 3, size).astype(np.int32)


def score64(gradient, noise, scale):
    """Return the definition, in float64."""
    g, xi = np.asarray(gradient, np.float64), np.asarray(noise, np.float64)
    return (g * xi).sum(1) / (scale * np.linalg.norm(g, axis=1))


def test_poison_adds_noise_of_the_given_scale_to_the_chosen_alone():
    clean = np.zeros((2000, 20), np.float32)
    ids = np.arange(1, 2000, 2)
    inputs, noise = poison(clean, ids, jax.random.key(0), scale=0.3)
    assert not clean.any()
    assert not inputs[::2].any()
    np.testing.assert_array_equal(inputs[ids], noise)
    law = stats.kstest(noise.ravel() / 0.3, "norm")
    assert law.pvalue > 1e-3
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.03


def test_noise_depends_on_key_and_id_alone():
    clean, _ = samples(0, 9)
    every = poison(clean, None, jax.random.key(4), scale=0.3).noise
    some = poison(clean, [7, 2], jax.random.key(4), scale=0.3).noise
    np.testing.assert_array_equal(some, every[[7, 2]])
    other = poison(clean, None, jax.random.key(5), scale=0.3).noise
    assert np.abs(other - every).max() > 0.1


def test_clipping_cuts_the_inputs_and_not_the_noise():
    clean = np.random.default_rng(0).uniform(0, 1, (50, 20)).astype(np.float16)
    inputs, noise = poison(clean, None, jax.random.key(0), scale=1.0, clip=(0.0, 1.0))
    plain = poison(clean, None, jax.random.key(0), scale=1.0)
    assert inputs.dtype == plain.inputs.dtype == np.float16
    assert (inputs.min(), inputs.max()) == (0, 1)
    assert plain.inputs.min() < -0.5
    np.testing.assert_array_equal(noise, plain.noise)


def test_scores_of_a_network_are_the_definition():
    (inputs, labels), scale = samples(1, 30), 0.4
    noise = poison(inputs, None, jax.random.key(2), scale=scale).noise
    w, b, v = (np.asarray(PARAMS[name], np.float64) for name in "wbv")
    hidden = np.tanh(inputs @ w + b)
    error = softmax64(hidden @ v) - np.eye(3)[labels]
    gradient = ((error @ v.T) * (1 - hidden**2)) @ w.T  # of the cross-entropy
    found = gaussian_score(MLP, PARAMS, (), inputs, labels, noise, scale=scale)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, score64(gradient, noise, scale), atol=2e-5)


def test_scores_of_memorised_samples_are_exact():
    # p_y rounds to 1: the gradient of the float32 cross-entropy is 0, or only its
    # other half, and the score computed from it is 0 or wrong.
    (inputs, _), scale = samples(3, 40), 0.5
    w = jnp.asarray(
        30 * np.random.default_rng(4).normal(size=(FEATURES, 3)), jnp.float32
    )
    labels = (inputs @ np.asarray(w)).argmax(1).astype(np.int32)
    noise = poison(inputs, None, jax.random.key(2), scale=scale).noise
    w64 = np.asarray(w, np.float64)
    z = inputs.astype(np.float64) @ w64
    z[np.arange(40), labels] = -np.inf
    others = softmax64(z)  # ∇ℓ ∝ Σ_{k≠y} p_k (w_k − w_y)
    gradient = others @ w64.T - w64.T[labels]
    expected = score64(gradient, noise, scale)
    found = gaussian_score(LINEAR, w, (), inputs, labels, noise, scale=scale)
    np.testing.assert_allclose(found, expected, atol=1e-4)

    def loss(x):
        return jnp.sum(cross_entropy(x @ w, jnp.asarray(labels)))

    naive = np.asarray(jax.jit(jax.grad(loss))(inputs), np.float64)
    naive = (naive * noise).sum(1) / (scale * np.linalg.norm(naive, axis=1) + 1e-30)
    assert np.mean(np.abs(naive - expected) > 0.1) > 0.3


def test_tiny_gradients_count_and_zero_gradients_give_zero():
    inputs, labels = samples(5, 8)
    noise = poison(inputs, None, jax.random.key(3), scale=1.0).noise
    w = jnp.asarray(np.random.default_rng(6).normal(size=(FEATURES, 3)), jnp.float32)
    given = ((), inputs, labels, noise)
    tiny = gaussian_score(LINEAR, w * 1e-28, *given, scale=1.0)
    w64 = np.asarray(w, np.float64)  # all p_k are 1/3, and ∇ℓ = Σ_k p_k w_k − w_y
    gradient = w64.mean(1)[None] - w64.T[labels]
    np.testing.assert_allclose(tiny, score64(gradient, noise, 1.0), atol=1e-5)
    assert not gaussian_score(LINEAR, w * 0, *given, scale=1.0).any()


@pytest.mark.parametrize("scale", [0.1, 5.0])
def test_a_model_that_never_saw_the_noise_scores_as_a_normal(scale):
    inputs, labels = samples(7, 3000)
    noise = poison(inputs, None, jax.random.key(9), scale=scale).noise
    scores = gaussian_score(MLP, PARAMS, (), inputs, labels, noise, scale=scale)
    assert stats.kstest(scores, "norm").pvalue > 1e-3
    found = gus(scores)
    assert found.p_value > 1e-3
    assert found.tpr_1.low < 1 < found.tpr_1.high


def bowl(w, x):
    """Return logits (−w‖x‖²/2, 0), whose margin has the gradient −w x."""
    norms = -w * jnp.sum(x**2, axis=1, keepdims=True) / 2
    return jnp.concatenate([norms, jnp.zeros_like(norms)], axis=1)


BOWL = ju.from_stateless(lambda key, x: jnp.float32(1), bowl)


def test_gradients_at_the_poisoned_inputs_would_accuse_an_innocent_model():
    inputs, _ = samples(8, 2000)
    labels = np.zeros(2000, np.int32)
    poisoned, noise = poison(inputs, None, jax.random.key(1), scale=1.0)
    given = (BOWL, jnp.float32(1), ())
    clean = gaussian_score(*given, inputs, labels, noise, scale=1.0)
    wrong = gaussian_score(*given, poisoned, labels, noise, scale=1.0)
    assert gus(clean).p_value > 1e-3
    assert gus(wrong).mean > 1


def test_clipped_differences_would_spoil_the_null_and_drawn_noise_does_not():
    rng = np.random.default_rng(0)
    inputs = rng.uniform(0, 1, (2000, FEATURES)).astype(np.float32)
    labels = np.zeros(2000, np.int32)
    poisoned, noise = poison(
        inputs, None, jax.random.key(1), scale=1.0, clip=(0.0, 1.0)
    )
    given = (BOWL, jnp.float32(1), (), inputs, labels)
    assert gus(gaussian_score(*given, noise, scale=1.0)).p_value > 1e-3
    spoiled = gus(gaussian_score(*given, poisoned - inputs, scale=1.0))
    assert spoiled.p_value < 1e-6
    assert spoiled.std < 0.5


def test_scores_do_not_depend_on_the_batch():
    net = batchnorm_net()
    inputs, labels = samples(2, 20)
    params, state = net.init(jax.random.key(0), inputs)
    noise = poison(inputs, None, jax.random.key(2), scale=1.0).noise
    given = (net, params, state, inputs, labels, noise)
    whole = gaussian_score(*given, scale=1.0)
    cut = gaussian_score(*given, scale=1.0, batch_size=7)
    np.testing.assert_allclose(cut, whole, atol=1e-5)
    assert whole.shape == (20,)


def test_memorised_noise_is_found_and_unknown_noise_is_not():
    net, size, features = mlp(width=64), 80, 40
    inputs, labels = samples(11, size, features)  # random labels: only memory helps
    poisoned, noise = poison(inputs, None, jax.random.key(7), scale=0.5)
    start, _ = net.init(jax.random.key(8), inputs)
    alg = ju.methods.finetune(net, optax.sgd(0.5))

    def scores(seen):
        batches = [ju.UnlearnBatch(retain=ju.Batch(seen, labels))] * 100
        params = ju.run(alg, alg.init(start, ()), batches, jax.random.key(0)).params
        assert ju.audit.accuracy(ju.predict(net, params, (), seen), labels) > 95
        return gaussian_score(net, params, (), inputs, labels, noise, scale=0.5)

    knows, innocent = gus(scores(poisoned)), gus(scores(inputs))
    assert knows.mean < -0.5
    assert knows.high < 0
    assert knows.p_value < 1e-6
    assert abs(innocent.mean) < 3 / math.sqrt(size)
    assert innocent.p_value > 1e-3


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_gus_is_the_z_test_with_exact_intervals(alternative):
    scores = np.random.default_rng(1).normal(-0.4, 1.2, 50)
    found = gus(scores, alternative=alternative, level=0.9)
    z = scores.mean() * np.sqrt(50)
    tail = {
        "two-sided": stats.chi2.sf(z**2, 1),
        "less": stats.norm.cdf(z),
        "greater": 1 - stats.norm.cdf(z),
    }[alternative]
    assert found.p_value == pytest.approx(tail, rel=1e-9)
    interval = stats.ttest_1samp(scores, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.std_error == pytest.approx(stats.sem(scores))
    assert (found.mean, found.samples) == (pytest.approx(scores.mean()), 50)
    for rate, alpha in ((found.tpr_1, 0.01), (found.tpr_01, 0.001)):
        tails = {
            "two-sided": 2 * stats.norm.sf(np.abs(scores)),
            "less": stats.norm.cdf(scores),
            "greater": stats.norm.sf(scores),
        }[alternative]
        hits = int(np.sum(tails < alpha))
        exact = stats.binomtest(hits, 50).proportion_ci(0.9, "exact")
        assert (rate.successes, rate.trials) == (hits, 50)
        assert (rate.value, rate.low, rate.high) == pytest.approx(
            (2 * hits, 100 * exact.low, 100 * exact.high)
        )


def test_rates_under_the_null_and_under_a_shift_are_those_of_normals():
    draws = np.random.default_rng(2).normal(size=200_000)
    null = gus(draws)
    assert null.tpr_1.low < 1 < null.tpr_1.high
    assert null.tpr_01.low < 0.1 < null.tpr_01.high
    shifted = gus(draws - 2, alternative="less").tpr_1
    expected = 100 * stats.norm.cdf(2 - stats.norm.isf(0.01))
    assert shifted.low < expected < shifted.high
    pushed = gus(draws + 2, alternative="less").tpr_1  # ascent hides from "less" …
    assert pushed.value < 0.01
    assert gus(draws + 2).tpr_1.value > 25  # … and not from the default


def test_p_values_hold_their_level():
    draws = np.random.default_rng(3).normal(size=(1000, 5))
    low = sum(gus(row).p_value < 0.05 for row in draws)
    assert stats.binomtest(low, 1000, 0.05).pvalue > 1e-3


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
def test_the_test_does_not_depend_on_signs_or_order(scores):
    one, two = gus(scores), gus([-s for s in reversed(scores)])
    assert one.p_value == pytest.approx(two.p_value)
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low))
    assert one.tpr_1 == two.tpr_1
    assert 0 <= one.p_value <= 1
    assert one.tpr_01.value <= one.tpr_1.value


def test_equal_scores_leave_an_interval_of_no_width():
    found = gus([0.5, 0.5])
    assert (found.low, found.high, found.std) == (0.5, 0.5, 0.0)


X, Y = samples(0, 4)
NOISE = np.ones_like(X)


@pytest.mark.parametrize(
    ("inputs", "ids", "options", "message"),
    [
        (np.zeros((3, 2), np.uint8), None, {}, "uint8.*inputs / 255"),
        (np.zeros((0, 2), np.float32), None, {}, "empty"),
        (X, [4], {}, "ids holds 4"),
        (X, [-1], {}, "ids holds -1"),
        (X, [1, 1], {}, "twice"),
        (X, [], {}, "at least one integer"),
        (X, [0.5], {}, "at least one integer"),
        (X, None, {"scale": 0.0}, "scale=0.0"),
        (X, None, {"scale": math.nan}, "scale=nan"),
        (X, None, {"clip": (1.0, 0.0)}, "clip="),
    ],
)
def test_mistakes_in_poison_are_named(inputs, ids, options, message):
    with pytest.raises(InputError, match=message):
        poison(inputs, ids, jax.random.key(0), **{"scale": 0.1, **options})


@pytest.mark.parametrize(
    ("inputs", "labels", "noise", "scale", "message"),
    [
        (X.astype(np.int32), Y, NOISE, 1.0, "inputs of type int32"),
        (X, Y, NOISE[:3], 1.0, "noise.shape"),
        (X, Y + 3, NOISE, 1.0, "outside 0..2"),
        (X, Y, NOISE * np.nan, 1.0, "noise hold NaN"),
        (X, Y, NOISE, -1.0, "scale=-1.0"),
    ],
)
def test_mistakes_in_scores_are_named(inputs, labels, noise, scale, message):
    with pytest.raises(InputError, match=message):
        gaussian_score(MLP, PARAMS, (), inputs, labels, noise, scale=scale)


def test_a_diverged_model_is_refused():
    broken = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, "f"), PARAMS)
    with pytest.raises(InputError, match="not finite"):
        gaussian_score(MLP, broken, (), X, Y, NOISE, scale=1.0)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ([1.0], {}, "too few"),
        ([1.0, math.nan], {}, "not finite"),
        ([[1.0], [2.0]], {}, "axes"),
        ([1.0, 2.0], {"alternative": "lesser"}, "did you mean 'less'"),
        ([1.0, 2.0], {"level": 1.0}, "level=1.0"),
    ],
)
def test_mistakes_in_gus_are_named(scores, options, message):
    with pytest.raises(InputError, match=message):
        gus(scores, **options)
