"""Denoising errors against closed forms; conditions; the moving average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussian_data import MEAN, STD, best_model

from jax_unlearn import diffusion
from jax_unlearn.errors import InputError
from jax_unlearn.types import Batch, Model

KEY = jax.random.key(3)


def gaussian_images(count, pixels=256):
    rng = np.random.default_rng(0)
    images = MEAN + STD * rng.standard_normal((count, pixels, 1, 1))
    return images.astype(np.float32)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_error_of_the_best_denoiser_is_known_at_every_t(kind):
    process = diffusion.cosine(10, prediction_type=kind)
    data = Batch(gaussian_images(64), np.zeros(64, np.int32))
    table = diffusion.denoising_errors(
        best_model(process),
        jnp.float32(0),
        (),
        data,
        KEY,
        process=process,
        draws=10,
    )
    np.testing.assert_array_equal(table.timesteps, np.tile(np.arange(10), (64, 1)))
    level = np.asarray(process.alphas_cumprod, np.float64)
    # Var(ε | x_t) = ᾱ s²/(ᾱ s² + 1 − ᾱ); an error of v is that of ε over ᾱ
    known = level * STD**2 / (level * STD**2 + 1 - level)
    known = known if kind == "epsilon" else known / level
    found = table.errors.mean(axis=0)
    np.testing.assert_allclose(found, known, rtol=5 * np.sqrt(2 / (64 * 256)))


def test_draws_lie_in_their_parts_and_fill_them():
    process = diffusion.cosine(20)
    batch = Batch(jnp.zeros((500, 1, 1, 1)), jnp.arange(500, dtype=jnp.int32))
    seen = diffusion.noised(process, batch, KEY, draws=4)
    times = np.asarray(seen.inputs[1]).reshape(4, 500)
    for part in range(4):
        values, counts = np.unique(times[part], return_counts=True)
        np.testing.assert_array_equal(values, np.arange(5 * part, 5 * part + 5))
        assert counts.min() > 60
    np.testing.assert_array_equal(seen.labels, np.tile(np.arange(500), 4))


def test_noise_is_standard_and_pairs_with_its_target():
    process = diffusion.cosine(20)
    batch = Batch(jnp.zeros((4000, 1, 1, 1)), jnp.zeros(4000, jnp.int32))
    seen = diffusion.noised(process, batch, KEY)
    x, times, _ = seen.inputs
    level = np.asarray(process.alphas_cumprod)[times]
    np.testing.assert_allclose(
        np.ravel(x), np.sqrt(1 - level) * np.ravel(seen.target), atol=1e-6
    )
    assert float(seen.target.std()) == pytest.approx(1.0, abs=0.05)


def test_scaling_makes_the_mean_of_every_bin_one():
    rng = np.random.default_rng(0)
    times = rng.integers(0, 100, 600)
    errors = (1.0 + times) * rng.uniform(0.5, 1.5, 600)
    scale = diffusion.timestep_scale(errors, times, bins=5, num_train_timesteps=100)
    means = [errors[times // 20 == b].mean() for b in range(5)]
    np.testing.assert_allclose(scale, means, rtol=1e-5)
    found = diffusion.scaled(
        jnp.asarray(errors, jnp.float32), jnp.asarray(times, jnp.int32), scale, 100
    )
    for b in range(5):
        assert float(found[times // 20 == b].mean()) == pytest.approx(1.0, rel=1e-5)


def test_an_empty_bin_takes_the_mean_of_all():
    scale = diffusion.timestep_scale([2.0, 4.0], [0, 0], bins=2, num_train_timesteps=4)
    assert scale.tolist() == [3.0, 3.0]


def test_both_ways_of_treating_t_rank_samples_better_than_raw_errors():
    # sample i is harder by a factor 1 + i/40 at every t; t itself matters more
    rng = np.random.default_rng(0)
    factor = 1 + np.arange(40) / 40

    def curve(t):
        return np.exp(-t / 25)

    t_one, t_many = rng.integers(0, 100, (40, 1)), rng.integers(0, 25, (40, 4))
    t_many = t_many + 25 * np.arange(4)
    raw, many = factor[:, None] * curve(t_one), factor[:, None] * curve(t_many)
    all_t = rng.integers(0, 100, 5000)
    scale = diffusion.timestep_scale(
        curve(all_t), all_t, bins=10, num_train_timesteps=100
    )
    binned = diffusion.scaled(
        jnp.asarray(raw.ravel(), jnp.float32),
        jnp.asarray(t_one.ravel(), jnp.int32),
        scale,
        100,
    )

    def rank(values):
        order = np.argsort(np.argsort(values))
        return np.corrcoef(order, np.arange(40))[0, 1]

    by = {"raw": rank(raw[:, 0]), "draws": rank(many.mean(1)), "bins": rank(binned)}
    assert by["bins"] > by["raw"] + 0.3
    assert by["draws"] > by["raw"] + 0.1


def test_tables_keep_the_order_whatever_the_batches():
    def apply(params, state, inputs, *, train, key=None):
        return inputs[2].astype(jnp.float32)[:, None, None, None] + 0 * inputs[0], state

    model = Model(lambda key, inputs: ((), ()), apply)
    data = Batch(np.zeros((7, 8, 8, 1), np.float32), np.arange(7, dtype=np.int32))
    table = diffusion.denoising_errors(
        model,
        (),
        (),
        data,
        KEY,
        process=diffusion.cosine(10),
        draws=2,
        batch_size=3,
    )
    np.testing.assert_allclose(
        table.errors.mean(axis=1), 1 + np.arange(7.0) ** 2, rtol=0.25
    )


def test_random_other_is_uniform_over_the_others():
    labels = jnp.repeat(jnp.arange(3, dtype=jnp.int32), 1000)
    found = diffusion.random_other(3)(KEY, None, labels)
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (np.asarray(labels), np.asarray(found)), 1)
    assert (np.diag(counts) == 0).all()
    assert counts[~np.eye(3, dtype=bool)].min() > 420


def test_conditions_are_dropped_at_their_rate():
    tokens = jnp.ones((2000, 3), jnp.int32)
    found = diffusion.drop_condition(KEY, tokens, null=[7, 8, 9], rate=0.25)
    gone = np.asarray((found == jnp.array([[7, 8, 9]])).all(axis=1))
    assert 0.2 < gone.mean() < 0.3
    np.testing.assert_array_equal(np.asarray(found)[~gone], 1)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_the_average_of_parameters_is_that_of_a_loop(decay):
    optimizer = optax.chain(optax.sgd(1.0), diffusion.ema_params(decay))
    params = {"w": jnp.array([1.0, -2.0])}
    state, rng = optimizer.init(params), np.random.default_rng(0)
    mean = np.asarray(params["w"], np.float64)
    for step in range(20):
        grads = {"w": jnp.asarray(rng.standard_normal(2), jnp.float32)}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        rate = min(decay, (1 + step) / (10 + step))
        mean = rate * mean + (1 - rate) * np.asarray(params["w"], np.float64)
    np.testing.assert_allclose(diffusion.ema_of(state)["w"], mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: diffusion.random_other(1), "num_classes=1: another class"),
        (lambda: diffusion.next_class(1), "num_classes=1: another class"),
        (lambda: diffusion.check_classes([0, 5], 5), "class 5 is unknown"),
        (lambda: diffusion.check_classes([0.5], 5), "integers"),
        (
            lambda: diffusion.anchor([1, 2])(KEY, jnp.zeros((2, 3), jnp.int32), None),
            r"condition of shape \(2,\)",
        ),
        (lambda: diffusion.ema_params(1.0), r"decay=1.0 must lie in \[0, 1\)"),
        (
            lambda: diffusion.noised(
                diffusion.cosine(4),
                Batch(jnp.zeros((1, 1)), jnp.zeros(1)),
                KEY,
                draws=5,
            ),
            "draws=5 must lie between 1 and num_train_timesteps=4",
        ),
        (
            lambda: diffusion.timestep_scale([1.0], [0], bins=9, num_train_timesteps=4),
            "bins=9 must lie between 1 and",
        ),
        (
            lambda: diffusion.timestep_scale([], [], bins=1, num_train_timesteps=4),
            "1 or more",
        ),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
