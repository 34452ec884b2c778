"""The diffusion process against independent formulas in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_unlearn import diffusion
from jax_unlearn.errors import InputError


def test_linear_is_that_of_ddpm():
    found = np.asarray(diffusion.linear(1000).alphas_cumprod)
    betas = [1e-4 + (0.02 - 1e-4) * t / 999 for t in range(1000)]
    level, expected = 1.0, []
    for beta in betas:
        level *= 1 - beta
        expected.append(level)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[-1] == pytest.approx(4.0358e-5, rel=1e-3)


def test_linear_is_as_noisy_at_the_end_for_other_lengths():
    for steps in (100, 200, 4000):
        last = float(diffusion.linear(steps).alphas_cumprod[-1])
        assert 1e-5 < last < 6e-5


def test_cosine_follows_the_squared_cosine_but_for_the_last_steps():
    found = np.asarray(diffusion.cosine(100).alphas_cumprod)
    t = np.arange(1, 101) / 100
    level = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    level /= np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(found[:-1], level[:-1], rtol=1e-4)
    assert 0 < found[-1] < 1e-4


@pytest.mark.parametrize("make", [diffusion.linear, diffusion.cosine])
def test_the_signal_falls(make):
    levels = np.asarray(make(300).alphas_cumprod)
    assert (np.diff(levels) < 0).all()
    assert levels[0] > 0.99


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 18), st.floats(-2, 2), st.floats(-3, 3))
def test_noising_and_its_inverses(step, image, noise):
    x, e = jnp.full((1, 1), image, jnp.float32), jnp.full((1, 1), noise, jnp.float32)
    t = jnp.array([step])
    for kind in ("epsilon", "v_prediction"):
        process = diffusion.cosine(20, prediction_type=kind)
        level = float(process.alphas_cumprod[step])
        x_t = diffusion.add_noise(process, x, e, t)
        expected = np.sqrt(level) * image + np.sqrt(1 - level) * noise
        np.testing.assert_allclose(float(x_t[0, 0]), expected, atol=1e-5)
        wanted = diffusion.target(process, x, e, t)
        found = diffusion.to_epsilon(process, wanted, x_t, t)
        np.testing.assert_allclose(found, e, atol=1e-5)
        back = diffusion.to_image(process, found, x_t, t)
        np.testing.assert_allclose(back, x, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: diffusion.linear(0), "num_train_timesteps=0 must be at least 1"),
        (lambda: diffusion.linear(10), "beta_end=0.02: need .* < 0.01"),
        (lambda: diffusion.linear(beta_start=0.0), "beta_start=0.0"),
        (lambda: diffusion.cosine(10, max_beta=1.0), "max_beta=1.0"),
        (lambda: diffusion.cosine(10, prediction_type="x"), "prediction_type='x'"),
        (lambda: diffusion.from_betas([0.5, 1.5]), "must be .* between 0 and 1"),
        (
            lambda: diffusion.check_timesteps(diffusion.cosine(10), [3, 10]),
            "timestep 10 is out of range: .* 0 to 9",
        ),
        (
            lambda: diffusion.check_timesteps(diffusion.cosine(10), [-1]),
            "timestep -1 is out of range",
        ),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_images_and_bytes():
    images = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    there = diffusion.to_model_range(images)
    assert there.dtype == jnp.float32
    np.testing.assert_array_equal(diffusion.to_pixels(there), images)
    np.testing.assert_array_equal(diffusion.to_model_range(there), there)
