"""Parts of the room that are not exported."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jax_unlearn.errors import InputError
from jax_unlearn.zoo import layers
from jax_unlearn.zoo.convolution import convolve


def test_convolve_sums_over_the_window():
    x, kernel = jnp.arange(4.0).reshape(1, 4, 1, 1), jnp.ones((3, 1, 1, 1))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    y = convolve(x, kernel, (1, 1), [(1, 1), (0, 0)], **options)
    assert y.ravel().tolist() == [1.0, 3.0, 6.0, 5.0]


def test_kaiming_has_the_spread_of_its_fan_out():
    kernel = layers.kaiming(jax.random.key(0), (3, 3, 4, 800))
    assert f"{kernel.std():.3f}" == "0.017"  # √(2 / 7200)


def test_halve_leaves_out_an_odd_row_and_column():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    assert layers.halve(x).tolist() == [[[[4.0]]]]


def test_refuses_no_classes_and_other_channels():
    with pytest.raises(InputError, match="^num_classes=0 must be at least 1; try 10"):
        layers.classifier(4, 0, rngs=nnx.Rngs(0))
    with pytest.raises(InputError) as refused:
        layers.check_images(jnp.ones((2, 8, 8, 1)), 3)
    told = "x.shape=(2, 8, 8, 1) must be [B, H, W, 3]; pass NHWC images or set"
    assert str(refused.value) == f"{told} in_channels"
