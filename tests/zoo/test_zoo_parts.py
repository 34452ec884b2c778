"""Parts of the room that are not exported."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_unlearn import zoo
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


def test_bottleneck_has_its_stride_in_the_middle():
    block = zoo.Bottleneck(8, 16, stride=2, rngs=nnx.Rngs(0))
    strides = [getattr(block, f"block{i}").conv.strides for i in (1, 2, 3)]
    assert strides == [1, 2, 1]
    assert block.block2.conv.in_features == 4
    assert not block.block3.relu


def test_averages_of_windows():
    x = jnp.arange(25.0).reshape(1, 5, 5, 1)
    found = layers.averaged(x, 2)[0, :, :, 0]  # rows 0..2 and 2..4, columns alike
    np.testing.assert_allclose(found, [[6, 8], [16, 18]], rtol=1e-6)
    same = layers.averaged(x[:, :1, :2], 3)[0, :, :, 0]  # fewer pixels than windows
    np.testing.assert_allclose(same, [[0, 0.5, 1]] * 3, rtol=1e-6)
