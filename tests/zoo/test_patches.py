"""The whitened network: its kernel, what it sees, types, training in bfloat16."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jax_unlearn as ju
from jax_unlearn import zoo
from jax_unlearn.data import Examples
from jax_unlearn.zoo.patches import dirac

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(20, 9, 9, 2)).astype(np.float32).cumsum(axis=2) / 3


def make(rngs):
    options = {"in_channels": 2, "dtype": jnp.bfloat16, "rngs": rngs}
    return zoo.WhitenedCNN(3, widths=(6,), **options)


MODEL = ju.from_nnx(make)


def patches64():
    """Return the 2x2 patches of all images, row by row, in float64."""
    rows = [
        IMAGES[:, y : y + 2, x : x + 2].reshape(len(IMAGES), -1)
        for y in range(8)
        for x in range(8)
    ]
    return np.concatenate(rows).astype(np.float64)


def test_whitening_is_the_eigen_decomposition_of_numpy():
    patches = patches64()
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    expected = vectors / np.sqrt(values + 5e-4)
    kernel = np.asarray(zoo.whitening(jnp.asarray(IMAGES)))
    assert kernel.shape == (2, 2, 2, 16)
    np.testing.assert_array_equal(kernel[..., 8:], -kernel[..., :8])
    found = kernel.reshape(8, 16)[:, :8]
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, rtol=1e-3, atol=1e-4)
    white = patches @ found  # of variance λ / (λ + ε) and no covariance
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(8), atol=0.05)


def test_whitening_of_the_retain_set_does_not_see_the_forget_set():
    retain, other = IMAGES[:15], IMAGES.copy()
    other[15:] = 100
    kernel = zoo.whitening(jnp.asarray(retain))
    np.testing.assert_array_equal(kernel, zoo.whitening(jnp.asarray(other[:15])))
    assert not np.allclose(kernel, zoo.whitening(jnp.asarray(other)), atol=1e-2)


def test_the_kernel_is_state_and_is_used():
    params, state = jax.jit(MODEL.init)(jax.random.key(0), None)
    assert state["whitening"].shape == (2, 2, 2, 16)
    kernel = zoo.whitening(jnp.asarray(IMAGES))
    ours = zoo.whitened(state, kernel)
    x = jnp.asarray(IMAGES[:4])
    before, _ = MODEL.apply(params, state, x, train=False)
    after, same = MODEL.apply(params, ours, x, train=False)
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(same["whitening"], kernel)
    stacked = zoo.whitened(ju.stack([state, state]), kernel)
    np.testing.assert_array_equal(stacked["whitening"][1], kernel)
    with pytest.raises(ju.InputError, match=r"whose kernel is \(2, 2, 2, 16\)"):
        zoo.whitened(state, kernel[..., :8])
    with pytest.raises(ju.InputError, match="state of a WhitenedCNN"):
        zoo.whitened({}, kernel)


def test_features_are_the_maxima_of_the_maps():
    network = make(nnx.Rngs(0))
    maps = network.maps(jnp.asarray(IMAGES), train=False)
    found = network.features(jnp.asarray(IMAGES), train=False)
    assert maps.shape[1] > 1
    np.testing.assert_array_equal(found, np.float32(maps).max(axis=(1, 2)))


def test_dirac_passes_the_channels_on():
    kernel = dirac(jax.random.key(0), (3, 3, 2, 5))
    x = jnp.asarray(IMAGES)
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(y[..., :2], x, rtol=1e-6)
    assert np.abs(kernel[..., 2:]).max() <= 1 / np.sqrt(18)


def test_it_learns_in_bfloat16_with_float32_masters():
    """Norms, statistics, parameters and momentum stay in float32; steps move all."""
    labels = np.arange(len(IMAGES), dtype=np.int32) % 3
    shade = np.float32([0, 2, -2])[labels]  # tells the classes
    host = Examples(IMAGES + shade[:, None, None, None], labels)
    examples = ju.resident.place(host)
    training = ju.speed.whitened(batch_size=10, learning_rate=1500.0, bias_rate=4.0)
    schedule = ju.data.retain_only(host, range(20), batch_size=10, epochs=8)
    feed = ju.resident.listed(schedule, host, epochs=8)
    alg = training.unlearner(MODEL, 8 * feed.steps)
    keys = jax.random.split(jax.random.key(0), 1)
    start = jax.lax.map(lambda key: alg.init(*MODEL.init(key, None)), keys)
    kernel = zoo.whitening(jnp.asarray(host.inputs))
    start = start._replace(model_state=zoo.whitened(start.model_state, kernel))
    states, report = ju.resident.run(
        alg, start, examples, ju.stack([feed]), keys, epochs=8
    )
    kinds = {leaf.dtype for leaf in jax.tree.leaves(states[:3])}
    assert kinds <= {jnp.dtype("float32"), jnp.dtype("int32")}
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), states.params, start.params)
    assert jax.tree.all(moved)
    np.testing.assert_array_equal(states.model_state["whitening"][0], kernel)
    assert report.retain_loss[0, -1] < report.retain_loss[0, 0] - 0.05


def test_convolutions_are_in_bfloat16_and_logits_in_float32():
    params, state = jax.eval_shape(MODEL.init, jax.random.key(0), None)
    forward = functools.partial(MODEL.apply, train=True)
    text = jax.jit(forward).lower(params, state, jnp.asarray(IMAGES)).as_text()
    convolutions = re.findall(r"stablehlo.convolution.*", text)
    assert len(convolutions) == 3
    assert all("f32" not in line for line in convolutions)
    logits, _ = jax.eval_shape(forward, params, state, jnp.asarray(IMAGES))
    assert logits.dtype == jnp.float32
