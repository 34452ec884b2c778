"""The convolution for CPUs is XLA's, to rounding, however it is differentiated."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

import jax_unlearn as ju
from jax_unlearn.zoo import convolution
from jax_unlearn.zoo.layers import XLA, conv, halve

AXES = ("NHWC", "HWIO", "NHWC")
CASES = {  # batch, side, kernel, stride, pixels a part
    "several parts, the last one short": (5, 8, 3, 1, 128),
    "a stride of two": (4, 8, 3, 2, 128),
    "one pixel": (4, 6, 1, 2, 36),
    "one part": (2, 8, 3, 1, 4096),
    "a part is never empty": (3, 8, 3, 1, 1),
    "smaller than the kernel": (4, 2, 3, 1, 4),
    "smaller than the kernel, a stride of two": (4, 2, 3, 2, 4),
    "a wide kernel": (2, 5, 7, 2, 25),
}


def arrays(batch, side, kernel, seed=0):
    """Return images and a kernel."""
    first, second = jax.random.split(jax.random.key(seed))
    images = jax.random.normal(first, (batch, side, side, 3))
    return images, jax.random.normal(second, (kernel, kernel, 3, 4)) / kernel


def pair(monkeypatch, kernel, stride, pixels):
    """Return both convolutions as functions of images and kernel."""
    monkeypatch.setattr(convolution, "PIXELS", pixels)
    options: dict[str, Any] = {"dimension_numbers": AXES}
    window = ((stride, stride), [(kernel // 2, kernel // 2)] * 2)

    def ours(x, weights):
        return ju.zoo.in_parts(x, weights, *window, **options)

    def theirs(x, weights):
        return jax.lax.conv_general_dilated(x, weights, *window, **options)

    return ours, theirs


def near(actual, expected, scale=1e-5):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        size = float(jnp.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=scale, atol=scale * size)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_xla(case, monkeypatch):
    batch, side, kernel, stride, pixels = CASES[case]
    given = arrays(batch, side, kernel)
    ours, theirs = pair(monkeypatch, kernel, stride, pixels)

    def both(function):
        y, pullback = jax.vjp(function, *given)
        pushed = jax.jvp(function, given, arrays(batch, side, kernel, seed=1))[1]
        return y, pullback(jnp.cos(y)), pushed

    near(jax.jit(both, static_argnums=0)(ours), both(theirs))


def test_it_can_be_differentiated_twice_each_way(monkeypatch):
    ours, _ = pair(monkeypatch, 3, 1, 32)
    given = arrays(3, 4, 3)
    check_grads(lambda x, k: jnp.tanh(ours(x, k)), given, order=2, rtol=2e-2, atol=2e-2)


def test_the_gradient_of_the_images_alone_takes_no_parts(monkeypatch):
    ours, theirs = pair(monkeypatch, 3, 1, 32)
    x, weights = arrays(4, 4, 3)

    def operations(function):
        jaxpr = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(function(x, weights) ** 2)))
        return str(jaxpr(x)).count("conv_general_dilated[")

    assert operations(ours) == operations(theirs)


def test_a_convolution_of_many_kernels_at_once(monkeypatch):
    ours, theirs = pair(monkeypatch, 3, 1, 32)
    x, weights = arrays(4, 4, 3)
    many = jnp.stack([weights, 2 * weights])

    def gradients(function):
        return jax.vmap(jax.grad(lambda k: jnp.sum(jnp.sin(function(x, k)))))(many)

    near(gradients(ours), gradients(theirs))


@pytest.mark.parametrize("network", ["ResNet18", "VGG16", "SmallCNN"])
def test_networks_take_it(network):
    side = 32 if network == "VGG16" else 8
    x = jax.random.normal(jax.random.key(1), (3, side, side, 3))

    def gradients(**options):
        model = ju.from_nnx(
            lambda rngs: getattr(ju.zoo, network)(
                4, width=2, in_channels=3, rngs=rngs, **options
            )
        )

        def total(params, state):
            outputs, new = model.apply(params, state, x, train=True)
            return jnp.sum(jnp.square(outputs)), (outputs, new)

        start = model.init(jax.random.key(0), None)
        return jax.jit(jax.value_and_grad(total, has_aux=True))(*start)

    (value, (outputs, state)), grads = gradients(convolution=ju.zoo.in_parts)
    (value_, (outputs_, state_)), grads_ = gradients()
    near((value, outputs, state), (value_, outputs_, state_), scale=1e-3)
    flat, flat_ = (
        jnp.concatenate([*map(jnp.ravel, jax.tree.leaves(g))]) for g in (grads, grads_)
    )
    assert jnp.linalg.norm(flat - flat_) < 1e-3 * jnp.linalg.norm(flat_)


PLAIN = {"several parts, the last one short", "a stride of two"}


@pytest.mark.parametrize("case", sorted(PLAIN))
def test_products_of_many_models_are_their_convolutions(case, monkeypatch):
    monkeypatch.setattr(convolution, "LEAST", 0)
    batch, side, kernel, stride, _ = CASES[case]
    x, weights = arrays(batch, side, kernel)
    many = jnp.stack([x, 2 * x]), jnp.stack([weights, weights - 1])
    window = ((stride, stride), [(kernel // 2, kernel // 2)] * 2)

    def convolved(x, weights):
        return convolution.convolve(x, weights, *window, dimension_numbers=AXES)

    def gradients(*given):
        y, pullback = jax.vjp(convolved, *given)
        return y, pullback(jnp.cos(y))

    with ju.programs.products():
        actual = jax.vmap(gradients)(*many)
    near(actual, jax.vmap(gradients)(*many))


def test_products_can_be_differentiated_twice_each_way(monkeypatch):
    monkeypatch.setattr(convolution, "LEAST", 0)

    def convolved(x, weights):
        options: dict[str, Any] = {"dimension_numbers": AXES}
        pad = [(1, 1), (1, 1)]
        return jnp.tanh(convolution.convolve(x, weights, (2, 2), pad, **options))

    with ju.programs.products():
        check_grads(convolved, arrays(2, 4, 3), order=2, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "options", [{"feature_group_count": 3}, {"rhs_dilation": (2, 2)}]
)
def test_products_leave_groups_and_dilations_to_xla(options, monkeypatch):
    monkeypatch.setattr(convolution, "LEAST", 0)
    x, weights = arrays(2, 5, 3)
    if "feature_group_count" in options:
        weights = weights[:, :, :1, :3]
    window = ((1, 1), [(1, 1), (1, 1)])
    options |= {"dimension_numbers": AXES}
    with ju.programs.products():
        actual = convolution.convolve(x, weights, *window, **options)
    expected = jax.lax.conv_general_dilated(x, weights, *window, **options)
    assert jnp.array_equal(actual, expected)


@pytest.mark.parametrize(("side", "own"), [(32, False), (14, True)])
def test_small_convolutions_of_many_models_are_grouped(side, own):
    def operations(convolution, inside):
        layer = conv(8, 8, convolution=convolution, rngs=nnx.Rngs(0))
        with contextlib.ExitStack() as stack:
            if inside:
                stack.enter_context(ju.programs.products())
            jaxpr = jax.make_jaxpr(layer)(jnp.ones((2, side, side, 8)))
        return "conv_general_dilated[" in str(jaxpr)

    for each in (XLA, ju.zoo.in_parts):
        assert operations(each, inside=False)
        assert operations(each, inside=True) == own


def test_layers_hand_it_on():
    layer = conv(3, 4, convolution=ju.zoo.in_parts, rngs=nnx.Rngs(0))
    assert layer.conv_general_dilated is ju.zoo.in_parts


@pytest.mark.parametrize("side", [4, 5])
def test_halving_is_max_pooling(side):
    x = jax.random.normal(jax.random.key(0), (2, side, side, 3))

    def pool(x):
        return nnx.max_pool(x, (2, 2), strides=(2, 2))

    def gradient(function):
        return jax.grad(lambda x: jnp.sum(jnp.sin(function(x))))(x)

    assert jnp.array_equal(halve(x), pool(x))
    assert jnp.array_equal(gradient(halve), gradient(pool))
