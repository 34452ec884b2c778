import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_unlearn.data import (
    channel_stats,
    compose,
    random_crop,
    random_flip,
    with_preprocessing,
)
from jax_unlearn.errors import InputError
from jax_unlearn.types import Model

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 6, 5, 3), np.uint8)


def _echo():
    """A model that returns its inputs, and as state the data of its key."""

    def init(key, inputs):
        return {"like": inputs}, {"key": jax.random.key_data(key)}

    def apply(params, model_state, inputs, *, train, key=None):
        del params
        if train and key is not None:
            model_state = {"key": jax.random.key_data(key)}
        return inputs, model_state

    return Model(init, apply)


@pytest.mark.parametrize("chunk", [1, 5, 4096])
def test_channel_stats_of_bytes_and_floats(chunk):
    scaled = IMAGES.astype(np.float64) / 255
    for images in (IMAGES, scaled):
        mean, std = channel_stats(images, chunk=chunk)
        np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-12)
    # float32 images far from zero: the sums stay in float64.
    mean, std = channel_stats(scaled.astype(np.float32) + np.float32(1000), chunk=chunk)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-3)


def test_channel_stats_of_a_constant_channel_and_of_nothing():
    mean, std = channel_stats(np.full((2, 3, 3, 1), 51, np.uint8))
    np.testing.assert_allclose(mean, [0.2])
    assert std.tolist() == [1.0]
    with pytest.raises(InputError, match="not empty"):
        channel_stats(IMAGES[:0])


def test_pixels_are_normalised_inside_jit():
    mean, std = channel_stats(IMAGES)
    model = with_preprocessing(_echo(), mean=mean, std=std)
    forward = jax.jit(model.apply, static_argnames="train")
    key = jax.random.key(0)
    params, state = model.init(key, IMAGES)
    outputs, _ = forward(params, state, IMAGES, train=True, key=key)
    assert outputs.dtype == jnp.float32
    expected = (IMAGES / 255 - mean) / std
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(params["like"], expected, atol=1e-5)
    np.testing.assert_allclose(np.asarray(outputs).mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(outputs).std((0, 1, 2)), 1, atol=1e-5)
    # Bytes go into the compiled program; nobody scaled them before.
    lowered = forward.lower(params, state, IMAGES, train=True, key=key)
    assert "16x6x5x3xui8" in lowered.as_text()


def test_floats_are_taken_as_scaled_and_have_gradients():
    model = with_preprocessing(_echo(), mean=[0.5] * 3, std=[0.25, 0.5, 1.0])
    scaled = jnp.asarray(IMAGES / 255, jnp.float32)
    from_floats, _ = model.apply({}, {}, scaled, train=False)
    from_bytes, _ = model.apply({}, {}, IMAGES, train=False)
    np.testing.assert_allclose(from_floats, from_bytes, atol=1e-6)
    gradient = jax.grad(lambda x: model.apply({}, {}, x, train=False)[0].sum())(scaled)
    np.testing.assert_allclose(
        gradient, np.broadcast_to([4.0, 2.0, 1.0], gradient.shape), rtol=1e-6
    )


def test_augmentation_needs_training_and_a_key():
    seen = []

    def augment(key, images):
        seen.append(jax.random.key_data(key))
        return 255 - images

    model = with_preprocessing(_echo(), mean=[0.0] * 3, std=[1.0] * 3, augment=augment)
    plain = IMAGES / 255
    key = jax.random.key(7)
    for train, given in ((False, key), (False, None), (True, None)):
        outputs, _ = model.apply({}, {"key": 0}, IMAGES, train=train, key=given)
        np.testing.assert_allclose(outputs, plain, atol=1e-6)
    assert not seen
    outputs, state = model.apply({}, {"key": 0}, IMAGES, train=True, key=key)
    np.testing.assert_allclose(outputs, 1 - plain, atol=1e-6)
    raw = jax.random.key_data(key).tolist()
    used = [seen[0].tolist(), state["key"].tolist()]
    assert raw not in used
    assert used[0] != used[1]


def test_without_augmentation_the_network_gets_the_key_itself():
    model = with_preprocessing(_echo(), mean=[0.0] * 3, std=[1.0] * 3)
    key = jax.random.key(7)
    _, state = model.apply({}, {}, IMAGES, train=True, key=key)
    np.testing.assert_array_equal(state["key"], jax.random.key_data(key))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([0.5], [0.1, 0.1]),
        (0.5, 0.1),
        ([0.5], [0.0]),
        ([0.5], [-1.0]),
        ([np.nan], [1.0]),
        ([0.5], [np.inf]),
    ],
)
def test_statistics_that_cannot_be(mean, std):
    with pytest.raises(InputError, match="mean"):
        with_preprocessing(_echo(), mean=mean, std=std)


def test_another_number_of_channels_is_not_broadcast():
    model = with_preprocessing(_echo(), mean=[0.5], std=[0.5])
    with pytest.raises(InputError, match="1 channels of mean and std"):
        model.apply({}, {}, IMAGES, train=False)


def test_a_flip_mirrors_about_half_of_the_images():
    images = jnp.asarray(np.resize(IMAGES, (400, 6, 5, 3)))
    flipped = np.asarray(jax.jit(random_flip)(jax.random.key(0), images))
    assert flipped.dtype == np.uint8
    same = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == np.asarray(images)[:, :, ::-1]).all((1, 2, 3))
    assert np.all(same ^ mirrored)
    assert 150 < mirrored.sum() < 250  # binomial(400, 1/2): standard deviation 10


def test_a_crop_is_a_window_of_the_padded_image():
    padding = 2
    images = jnp.asarray(np.resize(IMAGES, (300, 6, 5, 3)))
    crop = jax.jit(random_crop(padding))
    cropped = np.asarray(crop(jax.random.key(1), images))
    assert cropped.dtype == np.uint8
    padded = np.pad(images, [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)])
    shifts = []
    for one, image in zip(padded, cropped, strict=True):
        matches = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if np.array_equal(one[row : row + 6, column : column + 5], image)
        ]
        assert len(matches) == 1
        shifts.extend(matches)
    assert len(set(shifts)) == 25  # all shifts, rows and columns apart


def test_a_crop_without_padding_changes_nothing():
    images = jnp.asarray(IMAGES)
    cropped = random_crop(0)(jax.random.key(0), images)
    np.testing.assert_array_equal(cropped, images)
    with pytest.raises(InputError, match="padding=-1"):
        random_crop(-1)


def test_compose_gives_each_its_own_key_in_order():
    keys = []

    def note(name):
        def augment(key, images):
            keys.append((name, tuple(jax.random.key_data(key).tolist())))
            return images + 1

        return augment

    images = jnp.zeros((1, 1, 1, 1))
    result = compose(note("a"), note("b"), note("c"))(jax.random.key(0), images)
    assert result.item() == 3.0
    assert [name for name, _ in keys] == ["a", "b", "c"]
    assert len({key for _, key in keys}) == 3
    assert compose()(jax.random.key(0), images) is images
