"""Difficulty scores as weightings, and gradient norms example by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import batch, batchnorm_net, close, softmax64

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.weights import by_score, el2n, gradient_norms, margin

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=2, size=(6, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, 6)
MASK = np.array([True, True, False, True, True, True])
SAMPLE = ju.Sample(
    jnp.zeros(6), jnp.asarray(LOGITS), jnp.asarray(LABELS), None, jnp.asarray(MASK)
)


def softmin64(scores, temperature, normalize="mean_one"):
    raw = np.where(MASK, np.exp(-scores / temperature), 0)
    return raw if normalize == "none" else MASK.sum() * raw / raw.sum()


def margin64():
    rest = LOGITS.astype(float)
    own = rest[np.arange(6), LABELS]
    rest[np.arange(6), LABELS] = -np.inf
    return own - rest.max(1)


def el2n64():
    error = softmax64(LOGITS)
    error[np.arange(6), LABELS] -= 1
    return np.linalg.norm(error, axis=1)


@pytest.mark.parametrize("normalize", ["mean_one", "none"])
def test_el2n_and_margin_weightings_equal_float64(normalize):
    for make, score in ((el2n, el2n64()), (margin, -margin64())):
        weighting = make(temperature=3.0, normalize=normalize)
        got, _ = jax.jit(weighting.update)(SAMPLE, weighting.init())
        expected = softmin64(score, 3.0, normalize)
        close(got, expected, scale=expected.max() * 3)


def test_sure_samples_get_more_weight():
    sure = ju.Sample(
        jnp.zeros(2), jnp.array([[9.0, 0.0], [0.0, 9.0]]), jnp.array([0, 0])
    )
    for make in (el2n, margin):
        weighting = make(temperature=1.0)
        weights, _ = weighting.update(sure, weighting.init())
        assert weights[0] > weights[1]


def test_by_score_of_the_loss_is_loreun():
    sample = SAMPLE._replace(losses=jnp.linspace(0, 2, 6))
    first, second = (
        by_score(lambda s: s.losses, temperature=0.5, relative=True),
        ju.weights.loreun(temperature=0.5, relative=True),
    )
    np.testing.assert_array_equal(
        first.update(sample, first.init())[0], second.update(sample, second.init())[0]
    )


@pytest.mark.parametrize("chunk", [1, 4, 32])
def test_gradient_norms_equal_single_gradients(chunk):
    model = batchnorm_net()
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    samples = batch(1, 6)
    loss_fn = ju.objectives.descent(model)._replace(train=False)
    got = jax.jit(lambda p: gradient_norms(loss_fn, p, state, samples, chunk=chunk))(
        params
    )

    @jax.jit
    def gradient(params, one):
        return jax.grad(lambda p: loss_fn(p, state, one, jax.random.key(5))[0][0])(
            params
        )

    for i in range(6):
        one = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], samples)
        leaves = jax.tree.leaves(gradient(params, one))
        expected = np.sqrt(sum(np.sum(np.float64(leaf) ** 2) for leaf in leaves))
        np.testing.assert_allclose(got[i], expected, rtol=1e-5)


def test_gradient_norms_feed_a_table():
    table = jnp.array([9.0, 0.0, 2.0])
    weighting = ju.weights.by_table(table, temperature=1.0)
    sample = ju.Sample(jnp.zeros(2), None, jnp.zeros(2, jnp.int32), jnp.array([2, 1]))
    weights, _ = weighting.update(sample, weighting.init())
    close(weights, 2 * np.exp([-2.0, 0.0]) / (1 + np.exp(-2)))


def test_gradient_norms_refuse_train_mode():
    model = batchnorm_net()
    with pytest.raises(InputError, match=r"loss_fn\.train=True"):
        gradient_norms(ju.objectives.descent(model), {}, {}, batch(0, 2))
