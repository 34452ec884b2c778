"""The same pixels in any range give the same models, attacks and figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_unlearn import data
from jax_unlearn.data import Examples, PixelRange, digits, pixel_range, subset
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Training, Unlearning
from jax_unlearn.lab.job import execute
from jax_unlearn.lab.modalities.classification.figures import measure, outputs_of
from jax_unlearn.lab.modalities.diffusion.settings import DiffusionTraining
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.probes import pressed
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.subject import Trainer, subject_of

MEAN, STD = np.float32([0.4]), np.float32([0.3])
SCALES = {
    "bytes": lambda pixels: pixels,
    "0..1": lambda pixels: pixels.astype(np.float32) / 255,
    "0..255": lambda pixels: pixels.astype(np.float32),
    "-1..1": lambda pixels: pixels.astype(np.float32) / np.float32(127.5) - 1,
    "standardised": lambda pixels: (pixels.astype(np.float32) / 255 - MEAN) / STD,
}
MEASURED = ("bytes", "0..255", "standardised")
RANGES = {
    "bytes": (0, 1),
    "0..1": (0, 1),
    "0..255": (0, 255),
    "-1..1": (-1, 1),
    "standardised": (-0.4 / 0.3, 0.6 / 0.3),
}


@pytest.fixture(scope="module")
def small():
    return subset(digits(), train=200, test=100)


def scaled(dataset, how):
    parts = [Examples(SCALES[how](p.inputs), p.labels) for p in dataset[1:3]]
    return dataset._replace(train=parts[0], test=parts[1])


@pytest.fixture(scope="module")
def figures(small):
    """What is measured of the same pixels by scale: RA, TA, robust accuracy."""
    found = {}
    for how in MEASURED:
        dataset = scaled(small, how)
        training = Training(network="linear", epochs=6, batch_size=20)
        subject = subject_of(training, dataset)
        labels = dataset.train.labels
        ids = np.arange(len(labels))
        request = Request(ids[labels == 3], ids[labels != 3], ids[:0])
        trained = Trainer(subject, training)(ids, seed=0)
        own = {}
        for method in ("unsir", "boundary_shrink"):
            setting = Unlearning(method=method, epochs=2, learning_rate=0.02)
            job = Preparer(subject)(setting, request, trained, seed=0)
            after = execute(job, trained[:2], jax.random.key(0))
            metrics = measure(outputs_of(subject, after), dataset, request)
            own[method] = metrics.ra, metrics.ta
        own["robust"] = pressed(subject, trained, request, ["robustness"])["robustness"]
        own["trained"] = measure(outputs_of(subject, trained), dataset, request).ta
        found[how] = own
    return found


@pytest.mark.parametrize("how", MEASURED[1:])
def test_the_same_pixels_give_the_same_figures(figures, how):
    for name, expected in figures["bytes"].items():
        np.testing.assert_allclose(figures[how][name], expected, atol=2.0)
    assert 5 < figures[how]["robust"] < figures[how]["trained"]
    assert figures[how]["unsir"][0] > 60


@pytest.mark.parametrize("how", SCALES)
def test_ranges_are_found(small, how):
    scale = scaled(small, how).range
    assert len(scale.low) == len(scale.high) == 1
    np.testing.assert_allclose([scale.low[0], scale.high[0]], RANGES[how], rtol=1e-5)
    pixels = SCALES[how](small.train.inputs)
    unit = scale.unit(pixels)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, small.train.inputs / 255, atol=1e-6)
    np.testing.assert_allclose(scale.own(unit, pixels.dtype), pixels, atol=1e-4)


def test_channels_have_their_own_ranges():
    pixels = np.array([[-3.0, 5.0, 7.0], [1.0, 9.0, 7.0]], np.float32)
    scale = pixel_range(pixels.reshape(2, 1, 1, 3))
    assert scale == PixelRange((-3.0, 5.0, 7.0), (1.0, 9.0, 8.0))
    assert scale.unit(pixels).tolist() == [[0, 0, 0], [1, 1, 0]]


def test_crops_are_filled_up_with_black():
    images = np.full((8, 3, 3, 2), 5, np.float32)
    crop = data.random_crop(2, fill=(-1.0, 7.0))
    made = np.asarray(crop(jax.random.key(0), jnp.asarray(images)))
    assert set(np.unique(made[..., 0])) == {-1.0, 5.0}
    assert set(np.unique(made[..., 1])) == {5.0, 7.0}
    plain = data.random_crop(2)(jax.random.key(0), jnp.asarray(images))
    np.testing.assert_array_equal(np.asarray(plain) == 5, made == 5)
    byte = data.random_crop(1, fill=3)(jax.random.key(0), jnp.zeros((2, 3, 3, 1), "u1"))
    assert byte.dtype == jnp.uint8


@pytest.mark.parametrize("how", SCALES)
def test_diffusion_models_read_bytes(small, how):
    training = DiffusionTraining(widths=(8,), layers=1, attention=(0,), steps=1)
    subject = subject_of(training, scaled(small, how))
    np.testing.assert_array_equal(subject.examples.inputs, small.train.inputs)
    np.testing.assert_array_equal(subject.dataset.test.inputs, small.test.inputs)


def test_tables_are_for_networks_without_convolutions():
    rows = np.random.default_rng(0).normal(size=(20, 3))
    table = data.assembled("t", (rows, np.arange(20) % 2))
    assert subject_of(Training(epochs=1), table).network.name == "mlp"
    assert subject_of(Training(network="linear"), table).network.name == "linear"
    for wrong in ({"network": "resnet18"}, {"augment": "flip"}):
        with pytest.raises(InputError, match="is for images, and t is a table"):
            subject_of(Training(**wrong), table)
    with pytest.raises(InputError, match="reads images, and t is a table"):
        subject_of(DiffusionTraining(), table)


def test_images_of_floats_are_made_smaller(small):
    halves = [data.shrink(scaled(small, how), 2) for how in ("bytes", "0..255")]
    close = halves[0].train.inputs - halves[1].train.inputs
    assert np.abs(close).max() <= 0.5
    assert halves[1].train.inputs.dtype == np.float32
