"""FaLW's equations, estimators and cost against float64 numpy and counted passes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import batch, close, mlp, softmax64

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.weights import (
    ClassStats,
    anchored,
    class_balance,
    class_stats,
    every,
    exact,
    falw,
    falw_weights,
    shrink,
    streaming,
)

CLASSES = 4


def stats64(probs, labels, classes=CLASSES, where=None):
    where = np.ones(len(labels), bool) if where is None else where
    mean, std, count = np.zeros(classes), np.full(classes, 1e-8), np.zeros(classes)
    for k in range(classes):
        own = np.asarray(probs, np.float64)[(labels == k) & where]
        count[k] = len(own)
        if len(own):
            mean[k], std[k] = own.mean(), max(own.std(), 1e-8)
    return mean, std, count


def weights64(probs, labels, stats, balance):
    mean, std, count = stats
    weights = np.ones(len(labels))
    for i, (p, k) in enumerate(zip(np.asarray(probs, np.float64), labels, strict=True)):
        if count[k]:
            z = (p - mean[k]) / std[k]
            weights[i] += np.sign(z) * np.tanh(abs(z)) ** (1 / balance[k])
    return weights


def draw(seed, size, classes=CLASSES):
    rng = np.random.default_rng(seed)
    return rng.random(size).astype(np.float32), rng.integers(0, classes, size)


CONSTANTS = {0.5: 1.214, 0.8: 1.381, 1.0: 1.462, 1.2: 1.526, 2.0: 1.680}


@pytest.mark.parametrize(("balance", "weight"), CONSTANTS.items())
def test_published_constants(balance, weight):
    stats = ClassStats(jnp.array([0.5]), jnp.array([0.2]), jnp.array([9.0]))
    probs = jnp.array([0.6, 0.4])  # z = 0.5 and −0.5
    labels = jnp.zeros(2, jnp.int32)
    got = falw_weights(probs, labels, stats, jnp.array([balance]))
    np.testing.assert_allclose(got, [weight, 2 - weight], atol=5e-4)


def test_tau_zero_is_one_plus_tanh():
    z = np.linspace(-3, 3, 13)
    stats = ClassStats(*(jnp.full(3, v) for v in (0.5, 0.1, 9.0)))
    balance = class_balance(jnp.array([7, 1, 0]), tau=0.0)
    np.testing.assert_array_equal(balance, [1, 1, 1])
    got = falw_weights(
        jnp.float32(0.5 + 0.1 * z), jnp.zeros(13, jnp.int32), stats, balance
    )
    close(got, 1 + np.tanh(z), scale=10)  # p − μ cancels, then is divided by 0.1


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6),
    st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3),
    st.lists(st.sampled_from([1e-8, 1e-4, 0.1, 0.5]), min_size=3, max_size=3),
    st.lists(st.sampled_from([0.1, 0.5, 1.0, 1.2, 2.0, 10.0]), min_size=3, max_size=3),
)
def test_weights_lie_between_zero_and_two(probs, mean, std, balance):
    stats = ClassStats(jnp.float32(mean), jnp.float32(std), jnp.array([5.0, 1.0, 0.0]))
    labels = np.array([0, 0, 1, 1, 2, 2])
    got = np.asarray(
        WEIGH(jnp.float32(probs), labels, stats, jnp.float32(balance)), np.float64
    )
    assert np.all((got >= 0) & (got <= 2))
    np.testing.assert_array_equal(got[4:], 1)  # class 2 was never seen
    side = np.sign(np.float32(probs) - np.float32(mean)[labels])[:4]
    assert np.all((got[:4] - 1) * side >= 0)


WEIGH = jax.jit(falw_weights)


def test_weights_equal_float64():
    for seed in range(10):
        unseen, unseen_labels = draw(seed, 40, CLASSES - 1)  # the last class is absent
        probs, labels = draw(seed + 100, 30)
        stats = class_stats(jnp.asarray(unseen), jnp.asarray(unseen_labels), CLASSES)
        balance = np.array([0.5, 1.0, 1.2, 2.0])
        got = WEIGH(jnp.asarray(probs), labels, stats, jnp.float32(balance))
        expected = weights64(probs, labels, stats64(unseen, unseen_labels), balance)
        smooth = np.abs(expected - 1) > 1e-2  # for B > 1 the slope at z = 0 is infinite
        assert smooth.sum() > 10
        # z = (p − μ)/σ with σ near 0.3 magnifies the rounding of p and μ
        close(got[smooth], expected[smooth], scale=4)


def test_a_sample_at_the_mean_weighs_one():
    stats = ClassStats(*(jnp.array([v]) for v in (0.25, 0.1, 9.0)))
    for balance in (0.5, 1.0, 2.0):
        got = falw_weights(
            jnp.array([0.25]), jnp.array([0]), stats, jnp.array([balance])
        )
        assert got[0] == 1.0


def test_class_of_one_unseen_sample_pushes_to_the_ends():
    stats = class_stats(jnp.array([0.5]), jnp.array([0]), 1)
    assert stats.std[0] == np.float32(1e-8)
    got = falw_weights(
        jnp.array([0.6, 0.5, 0.4]), jnp.zeros(3, jnp.int32), stats, jnp.ones(1)
    )
    np.testing.assert_array_equal(got, [2, 1, 0])


def test_class_stats_equal_float64():
    function = jax.jit(class_stats, static_argnums=2)
    for seed in range(10):
        probs, labels = draw(seed, 50)
        where = np.random.default_rng(seed + 50).random(50) < 0.5
        for mask in (None, where):
            got = function(jnp.asarray(probs), labels, CLASSES, where=mask)
            for value, expected in zip(
                got, stats64(probs, labels, where=mask), strict=True
            ):
                close(value, expected)


def test_class_stats_of_absent_and_padded_classes():
    stats = class_stats(
        jnp.array([0.5, 0.9]),
        jnp.array([1, -1]),
        3,
        where=jnp.array([True, False]),
    )
    np.testing.assert_array_equal(stats.count, [0, 1, 0])
    np.testing.assert_array_equal(stats.mean, [0, 0.5, 0])
    np.testing.assert_array_equal(stats.std, np.full(3, 1e-8, np.float32))


def test_class_stats_keep_small_spreads():
    # a confident class: E[p²] − μ² would lose the spread to rounding
    probs = np.float32(0.9999 + 1e-5 * np.array([-1.0, 1.0]))
    stats = class_stats(jnp.asarray(probs), jnp.zeros(2, jnp.int32), 1)
    np.testing.assert_allclose(stats.std, probs.astype(float).std(), rtol=1e-2)


@pytest.mark.parametrize("tau", [0.0, 0.15, 1.0, 2.0])
def test_class_balance_equals_float64(tau):
    for seed in range(5):
        counts = np.random.default_rng(seed).integers(0, 50, 10)
        counts[0] = 0
        ratio = counts.sum() / (10 * np.maximum(counts, 1).astype(float))
        expected = np.where(counts > 0, ratio**tau, 1)
        close(class_balance(counts, tau=tau), expected, scale=expected.max())


def test_class_balance_favours_the_tail():
    balance = class_balance(jnp.array([100, 10, 1]), tau=0.15)
    assert balance[0] < 1 < balance[1] < balance[2]


def test_shrink_equals_float64():
    for seed in range(5):
        probs, labels = draw(seed, 20, CLASSES - 1)
        mean, std, count = stats64(probs, labels)
        stats = ClassStats(*(jnp.float32(v) for v in (mean, std, count)))
        for kappa in (0.5, 3.0, 50.0):
            pooled_mean, pooled_std = probs.astype(float).mean(), probs.std()
            share = count / (count + kappa)
            variance = share * std**2 + (1 - share) * pooled_std**2
            got = shrink(stats, pseudo_count=kappa)
            close(got.mean, share * mean + (1 - share) * pooled_mean)
            close(got.std, np.sqrt(variance), scale=3)
            np.testing.assert_array_equal(got.count, stats.count)
        same = shrink(stats, pseudo_count=0.0)
        present = count > 0
        close(np.asarray(same.mean)[present], mean[present])
        close(np.asarray(same.std)[present], std[present], scale=3)


def test_shrink_of_light_moments_stays_between_the_classes():
    # less than one sample in all (decayed): the pooled mean is still a mean
    stats = ClassStats(jnp.array([0.2, 0.8]), jnp.full(2, 0.1), jnp.full(2, 0.1))
    np.testing.assert_allclose(shrink(stats, pseudo_count=1e6).mean, [0.5, 0.5], 1e-4)


def unseen(seed, size=30, classes=CLASSES, mask=None):
    """Return a reference `Sample` and its true-class probabilities in float64."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(size, CLASSES)).astype(np.float32)
    labels = rng.integers(0, classes, size).astype(np.int32)
    sample = ju.Sample(
        jnp.zeros(size), jnp.asarray(logits), jnp.asarray(labels), None, mask
    )
    return sample, softmax64(logits)[np.arange(size), labels], labels


def test_exact_takes_the_moments_of_each_reference():
    estimator = exact()
    state = estimator.init(CLASSES)
    for seed in range(3):
        sample, probs, labels = unseen(seed)
        stats, state = estimator.update(lambda sample=sample: sample, state)
        for value, expected in zip(stats, stats64(probs, labels), strict=True):
            close(value, expected, scale=3)
    again, _ = estimator.update(None, state)  # a step without reference keeps them
    np.testing.assert_array_equal(again.mean, stats.mean)


def test_every_equals_exact_on_refresh_steps():
    slow, fast = every(3), exact()
    states = slow.init(CLASSES), fast.init(CLASSES)

    @jax.jit
    def step(reference, states):
        first, one = slow.update(lambda: reference, states[0])
        second, two = fast.update(lambda: reference, states[1])
        return first, second, (one, two)

    kept = None
    for t in range(7):
        sample, _, _ = unseen(t)
        got, expected, states = step(sample, states)
        if t % 3 == 0:
            kept = expected
        for value, wanted in zip(got, kept, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)
        assert (t % 3 == 0) or not np.allclose(got.mean, expected.mean)


@pytest.mark.parametrize(("k", "passes"), [(1, 7), (3, 3), (10, 1)])
def test_every_skips_the_reference_pass(k, passes):
    runs = []
    inner = mlp(classes=CLASSES)

    def apply(params, model_state, inputs, *, train, key=None):
        if not train:  # only the reference is run in eval mode
            jax.debug.callback(lambda: runs.append(1))
        return inner.apply(params, model_state, inputs, train=train)

    model = ju.Model(inner.init, apply)
    weighting = falw(jnp.array([3, 2, 2, 1]), estimator=every(k))
    alg = ju.methods.random_label(
        model, optax.sgd(0.1), num_classes=CLASSES, weighting=weighting
    )
    params, model_state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    step = ju.UnlearnBatch(*(batch(seed, 8, classes=CLASSES) for seed in range(3)))
    ju.run(alg, alg.init(params, model_state), [step] * 7, jax.random.key(1))
    jax.effects_barrier()
    assert len(runs) == passes


def test_anchored_and_uniform_never_run_the_reference():
    def forbidden():
        raise AssertionError("the reference was run")

    stats = ClassStats(
        jnp.full(CLASSES, 0.5), jnp.full(CLASSES, 0.1), jnp.ones(CLASSES)
    )
    estimator = anchored(stats)
    state = estimator.init(CLASSES)
    for _ in range(3):
        got, state = estimator.update(forbidden, state)
        for value, expected in zip(got, stats, strict=True):
            np.testing.assert_array_equal(value, expected)
    sample, _, _ = unseen(0)
    for weighting in (
        ju.weights.uniform(),
        ju.weights.loreun(temperature=1.0),
        falw(jnp.ones(CLASSES, jnp.int32), estimator=estimator),
    ):
        weighting.update(sample, weighting.init(), reference=forbidden)


def test_streaming_equals_class_stats_after_one_full_batch():
    for mask in (None, jnp.arange(30) < 20):
        sample, probs, labels = unseen(1, classes=CLASSES - 1, mask=mask)
        expected = class_stats(
            jnp.float32(probs), jnp.asarray(labels), CLASSES, where=mask
        )
        for decay in (0.0, 0.5, 0.99):
            estimator = streaming(decay=decay)
            got, _ = estimator.update(lambda s=sample: s, estimator.init(CLASSES))
            close(got.mean, expected.mean)
            close(got.std, expected.std)
            np.testing.assert_array_equal(got.count, expected.count)


def test_streaming_equals_decayed_moments():
    decay = 0.8
    estimator = streaming(decay=decay)
    state = estimator.init(CLASSES)
    sums = np.zeros((4, CLASSES))  # decayed m, m², one, samples: only when present
    update = jax.jit(lambda sample, state: estimator.update(lambda: sample, state))
    for t in range(12):
        sample, probs, labels = unseen(t, size=5)
        got, state = update(sample, state)
        mean, std, count = stats64(probs, labels)
        fresh = np.stack([mean, std**2 + mean**2, np.ones(CLASSES)]) * (1 - decay)
        fresh = np.concatenate([fresh, count[None]])
        sums = np.where(count > 0, decay * sums + fresh, sums)
        weight = np.maximum(sums[2], 1e-12)
        variance = sums[1] / weight - (sums[0] / weight) ** 2
        close(got.mean, sums[0] / weight, scale=3)
        close(np.square(got.std), np.where(sums[2] > 0, variance, 0), scale=3)
        np.testing.assert_allclose(got.count, sums[3], rtol=1e-6)
    kept, _ = estimator.update(None, state)
    np.testing.assert_array_equal(kept.mean, got.mean)


def test_streaming_keeps_small_spreads():
    estimator = streaming(decay=0.9)
    state = estimator.init(1)
    logits = jnp.array([[9.0, 0.0], [9.2, 0.0], [9.4, 0.0]])  # p = 0.9999
    sample = ju.Sample(jnp.zeros(3), logits, jnp.zeros(3, jnp.int32))
    state = estimator.init(2)
    for _ in range(5):
        got, state = estimator.update(lambda: sample, state)
    spread = softmax64(logits)[:, 0].std()
    assert spread < 3e-5
    np.testing.assert_allclose(got.std[0], spread, rtol=2e-2)


def test_streaming_is_unbiased():
    # batches of 4 from a fixed population of 200, 3 steps, 4000 repetitions
    population, probs, labels = unseen(9, size=200, classes=2)
    expected = stats64(probs, labels)[0][:2]
    estimator = streaming(decay=0.9)

    def repetition(key):
        state = estimator.init(CLASSES)
        for step in range(3):
            rows = jax.random.randint(jax.random.fold_in(key, step), (4,), 0, 200)
            sample = population._replace(
                losses=jnp.zeros(4),
                outputs=population.outputs[rows],
                labels=population.labels[rows],
            )
            stats, state = estimator.update(lambda sample=sample: sample, state)
        return stats.mean[:2], stats.count[:2] > 0

    keys = jax.random.split(jax.random.key(0), 4000)
    means, seen = map(np.asarray, jax.jit(jax.vmap(repetition))(keys))
    for k in range(2):
        drawn = means[seen[:, k], k]
        error = drawn.std() / len(drawn) ** 0.5
        assert abs(drawn.mean() - expected[k]) < 4 * error
        assert (
            error < 0.01
        )  # a zero start kept uncorrected would be off by 0.1 and more


def test_weighting_joins_moments_balance_and_logits():
    counts = np.array([5, 2, 1, 0])
    weighting = falw(jnp.asarray(counts), tau=0.3)
    reference, probs, labels = unseen(2)
    forget, own, own_labels = unseen(3)
    compiled = jax.jit(
        lambda sample, state, unseen: weighting.update(
            sample, state, reference=lambda: unseen
        )
    )
    got, state = compiled(forget, weighting.init(), reference)
    ratio = counts.sum() / (CLASSES * np.maximum(counts, 1).astype(float))
    balance = np.where(counts > 0, ratio**0.3, 1)
    expected = weights64(own, own_labels, stats64(probs, labels), balance)
    smooth = np.abs(expected - 1) > 1e-2
    close(got[smooth], expected[smooth], scale=10)
    same, _ = weighting.update(forget, weighting.init(), reference=lambda: reference)
    np.testing.assert_allclose(same, got, rtol=1e-5, atol=1e-5)
    # and without reference: the moments are kept
    kept, _ = weighting.update(forget, state)
    np.testing.assert_allclose(kept, got, rtol=1e-5, atol=1e-5)
    blank, _ = weighting.update(forget, weighting.init())
    np.testing.assert_array_equal(blank, np.ones(30))


def test_shrinkage_acts():
    reference, probs, labels = unseen(4, size=12)
    forget, own, own_labels = unseen(5)
    counts = jnp.ones(CLASSES, jnp.int32)
    heavy = falw(counts, tau=0.0, shrinkage=1e6)
    got, _ = heavy.update(forget, heavy.init(), reference=lambda: reference)
    pooled = np.full(CLASSES, probs.mean()), np.full(CLASSES, probs.std())
    count = stats64(probs, labels)[2]
    expected = weights64(own, own_labels, (*pooled, count), np.ones(CLASSES))
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": -0.1}, "tau=-0.1"),
        ({"shrinkage": -1.0}, "shrinkage=-1.0"),
    ],
)
def test_impossible_settings(options, message):
    with pytest.raises(InputError, match=message):
        falw(jnp.array([1, 2]), **options)


def test_shapes_are_checked():
    stats = ClassStats(*jnp.ones((3, 2)))
    labels = jnp.zeros(4, jnp.int32)
    with pytest.raises(AssertionError, match="shape"):
        falw_weights(jnp.ones(1), labels, stats, jnp.ones(2))
    with pytest.raises(AssertionError, match="shape"):
        falw_weights(jnp.ones(4), labels, stats, jnp.ones(1))
    with pytest.raises(AssertionError, match="shape"):
        class_stats(jnp.ones(1), labels, 2)


@pytest.mark.parametrize("counts", [[0, 0], [-1, 2], [[1, 2]], []])
def test_impossible_counts(counts):
    with pytest.raises(InputError, match="class_counts="):
        falw(np.array(counts, int))


def test_impossible_estimators():
    with pytest.raises(InputError, match="steps=0"):
        every(0)
    with pytest.raises(InputError, match=r"decay=1\.0"):
        streaming(decay=1.0)
    stats = ClassStats(jnp.zeros(2), jnp.ones(2), jnp.ones(2))
    with pytest.raises(InputError, match="anchored stats of 2 classes for 3"):
        falw(jnp.array([1, 1, 1]), estimator=anchored(stats)).init()
