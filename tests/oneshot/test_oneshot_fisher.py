"""The diagonal Fisher information against closed forms, and the noise made of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oneshot_made import (
    EVAL,
    KEY,
    MODEL,
    accuracy,
    data,
    forget,
    loss,
    original,
    pieces,
    retain,
)
from toys import batch, batchnorm_net, softmax64, trees_close

import jax_unlearn as ju
from jax_unlearn.oneshot.fisher import fisher_information, fisher_noise

LINEAR = ju.from_stateless(lambda key, x: jnp.zeros((4, 3)), lambda w, x: x @ w)
LINEAR_LOSS = ju.objectives.descent(LINEAR)._replace(train=False)
SAMPLES = jax.tree.map(np.asarray, batch(0, 7))
W = jax.random.normal(jax.random.key(3), (4, 3))


def closed_form(samples, w):
    """Return the gradients x (p - y)^T of softmax regression, float64 [n, 4, 3]."""
    inputs = np.asarray(samples.inputs, np.float64)
    wrong = softmax64(inputs @ np.asarray(w, np.float64))
    wrong[np.arange(len(wrong)), np.asarray(samples.labels)] -= 1
    return inputs[:, :, None] * wrong[:, None, :]


def test_mean_of_squared_gradients_of_single_samples():
    traced = []

    def loss_fn(*args):
        traced.append(1)
        return LINEAR_LOSS(*args)

    got = fisher_information(loss_fn)(W, (), pieces(SAMPLES, 3), KEY)
    grads = closed_form(SAMPLES, W)
    np.testing.assert_allclose(got, (grads**2).mean(0), rtol=2e-5, atol=1e-7)
    assert got.dtype == jnp.float32
    assert len(traced) == 1  # the last batch is padded to the shape of the others
    wrong = grads.mean(0) ** 2  # squared after the mean
    assert np.abs(got - wrong).max() > 0.1


def test_per_batch_squares_the_mean_of_each_batch():
    got = fisher_information(LINEAR_LOSS, per="batch")(W, (), pieces(SAMPLES, 3), KEY)
    grads = closed_form(SAMPLES, W)
    cuts = [grads[:3], grads[3:6], grads[6:]]
    expected = np.mean([cut.mean(0) ** 2 for cut in cuts], axis=0)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-7)


def test_batches_of_one_make_both_the_same():
    single = pieces(SAMPLES, 1)
    both = [
        fisher_information(LINEAR_LOSS, per=per)(W, (), single, KEY)
        for per in ("sample", "batch")
    ]
    np.testing.assert_allclose(*both, rtol=1e-6)


def test_batchnorm_sees_single_samples_in_eval_mode_only():
    model = batchnorm_net()
    samples = jax.tree.map(np.asarray, batch(1, 6))
    params, state = model.init(jax.random.key(0), samples.inputs)
    train = ju.objectives.descent(model)
    loss_fn = train._replace(train=False)
    got = fisher_information(loss_fn)(params, state, [samples], KEY)

    @jax.jit
    def one(position):  # the whole batch goes through, one loss is differentiated
        return jax.grad(lambda p: loss_fn(p, state, samples, KEY)[0][position])(params)

    grads = [one(jnp.int32(position)) for position in range(6)]
    expected = jax.tree.map(
        lambda *g: np.mean(np.float32(g) ** 2, axis=0, dtype=np.float32), *grads
    )
    trees_close(got, expected, rtol=1e-4)
    with pytest.raises(ValueError, match="train=True"):
        fisher_information(train)


def test_padding_leaves_nothing_even_where_it_is_not_finite():
    def loss_fn(w, state, samples, key):
        losses = jnp.log(w * samples.inputs)
        return losses, None

    samples = ju.Batch(
        jnp.array([1.0, 0.0]), jnp.zeros(2, jnp.int32), mask=jnp.array([True, False])
    )
    w = jnp.float32(2)
    assert fisher_information(loss_fn)(w, (), [samples], KEY) == 0.25
    nobody = samples._replace(mask=jnp.zeros(2, bool))
    for per in ("sample", "batch"):
        information = fisher_information(loss_fn, per=per)
        finite = nobody._replace(inputs=jnp.ones(2))
        assert information(w, (), [finite], KEY) == 0.0


def test_every_sample_has_a_key_of_its_own():
    def loss_fn(w, state, samples, key):
        return w * jax.random.normal(key, samples.labels.shape), None

    samples = ju.Batch(jnp.zeros(4000), jnp.zeros(4000, jnp.int32))
    got = fisher_information(loss_fn)(jnp.float32(1), (), [samples], KEY)
    assert abs(float(got) - 1) < 0.1  # one shared draw z would give z squared


def test_low_precision_parameters():
    def loss_fn(w, state, samples, key):
        return w * samples.inputs, None

    samples = ju.Batch(jnp.array([1.0, 3.0], jnp.bfloat16), jnp.zeros(2, jnp.int32))
    for per, expected in (("sample", 5.0), ("batch", 4.0)):
        information = fisher_information(loss_fn, per=per)
        got = information(jnp.bfloat16(1), (), [samples], KEY)
        assert got.dtype == jnp.float32
        assert got == expected


def test_mistakes():
    with pytest.raises(ju.InputError, match="did you mean 'sample'"):
        fisher_information(LINEAR_LOSS, per="samples")
    with pytest.raises(ju.InputError, match="batches is empty"):
        fisher_information(LINEAR_LOSS)(W, (), [], KEY)
    params = {"w": jnp.ones(2)}
    with pytest.raises(ju.InputError, match="alpha=-1"):
        fisher_noise(params, params, KEY, alpha=-1)
    with pytest.raises(ju.InputError, match="largest=0"):
        fisher_noise(params, params, KEY, largest=0)
    with pytest.raises(ju.InputError, match="differ in structure"):
        fisher_noise(params, {"w": jnp.ones(3)}, KEY)


def test_noise_has_the_variance_of_the_equation():
    fisher = {"rare": jnp.zeros(20000), "some": jnp.full(20000, 0.5, jnp.float32)}
    params = jax.tree.map(lambda f: jnp.ones_like(f, jnp.bfloat16), fisher)
    params["some"] = params["some"].astype(jnp.float32)
    noisy = jax.jit(lambda key: fisher_noise(params, fisher, key, alpha=0.25))(KEY)
    assert {name: leaf.dtype for name, leaf in noisy.items()} == {
        "rare": jnp.bfloat16,
        "some": jnp.float32,
    }
    change = {name: np.float32(noisy[name]) - 1 for name in noisy}
    # F = 0: variance alpha * largest; else alpha / F. 20000 draws: std to 0.5 %
    np.testing.assert_allclose(change["rare"].std(), (0.25 * 1000) ** 0.5, rtol=0.03)
    np.testing.assert_allclose(change["some"].std(), (0.25 / 0.5) ** 0.5, rtol=0.03)
    for noise in change.values():
        assert abs(noise.mean()) < 0.03 * noise.std()
    assert abs(np.corrcoef(change["rare"], change["some"])[0, 1]) < 0.03
    still = fisher_noise(params, fisher, KEY, alpha=0.0)
    trees_close(still, params, rtol=0, atol=0)


def test_noise_forgets_and_spares_what_the_retain_set_needs():
    params = original()
    information = fisher_information(EVAL)
    fisher = information(params, (), pieces(retain(), 40), KEY)
    disturb = jax.jit(
        lambda fisher, key, alpha: fisher_noise(params, fisher, key, alpha=alpha)
    )
    noisy = disturb(fisher, KEY, 1e-3)
    assert accuracy(params, forget()) > 0.9
    assert accuracy(noisy, forget()) < 0.5
    assert loss(noisy, forget()) > loss(noisy, retain())
    spared, even = [], []
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(fisher)])
    same = np.mean(1 / np.maximum(flat, 1e-3))  # the same noise on the whole
    constant = jax.tree.map(lambda f: np.full(f.shape, 1 / same, f.dtype), fisher)
    for seed in range(5):
        key = jax.random.key(seed)  # the same draws in both
        spared.append(loss(disturb(fisher, key, 1e-4), retain()))
        even.append(loss(disturb(constant, key, 1e-4), retain()))
    assert np.all(np.array(spared) < np.array(even))
    assert np.mean(spared) < 0.85 * np.mean(even)


def test_information_grows_where_the_model_is_unsure():
    information = fisher_information(EVAL)
    fresh, _ = MODEL.init(jax.random.key(1), data().inputs)
    sizes = [
        sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(tree))
        for tree in (
            information(original(), (), pieces(data(), 40), KEY),
            information(fresh, (), pieces(data(), 40), KEY),
        )
    ]
    assert 0 < sizes[0] < 0.2 * sizes[1]
