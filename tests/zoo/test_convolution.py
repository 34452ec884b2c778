"""The convolution for CPUs is XLA's, to rounding, however it is differentiated."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from toys import apart, size_of

import jax_unlearn as ju
from jax_unlearn.zoo import convolution
from jax_unlearn.zoo.layers import conv, halve

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
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, side, side, 3))
    weights = rng.normal(size=(kernel, kernel, 3, 4)) / kernel
    return jnp.asarray(images, jnp.float32), jnp.asarray(weights, jnp.float32)


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
        size = np.abs(b).max()
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

    compiled = jax.jit(both, static_argnums=0)
    near(compiled(ours), compiled(theirs))


def test_it_can_be_differentiated_twice_each_way(monkeypatch):
    ours, _ = pair(monkeypatch, 3, 1, 32)
    given = arrays(3, 4, 3)
    function = jax.jit(lambda x, k: jnp.tanh(ours(x, k)))
    check_grads(function, given, order=2, rtol=2e-2, atol=2e-2)


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
    many = np.stack([weights, 2 * np.asarray(weights)])

    def gradients(function):
        one = jax.grad(lambda k: jnp.sum(jnp.sin(function(x, k))))
        return jax.jit(jax.vmap(one))(many)

    near(gradients(ours), gradients(theirs))


@pytest.mark.parametrize("network", ["ResNet18", "VGG16", "SmallCNN"])
def test_networks_take_it(network):
    side = 32 if network == "VGG16" else 8
    x = arrays(3, side, 1)[0]

    def made(**options):
        return ju.from_nnx(
            lambda rngs: getattr(ju.zoo, network)(
                4, width=2, in_channels=3, rngs=rngs, **options
            )
        )

    start = jax.jit(made().init)(jax.random.key(0), None)

    def gradients(model):
        def total(params, state):
            outputs, new = model.apply(params, state, x, train=True)
            return jnp.sum(jnp.square(outputs)), (outputs, new)

        return jax.jit(jax.value_and_grad(total, has_aux=True))(*start)

    (value, (outputs, state)), grads = gradients(made(convolution=ju.zoo.in_parts))
    (value_, (outputs_, state_)), grads_ = gradients(made())
    near((value, outputs, state), (value_, outputs_, state_), scale=1e-3)
    assert apart(grads, grads_) < 1e-3 * size_of(grads_)


def convolutions(channels, devices=1, **options):
    """Return how many the gradient of a layer's kernel has, by what decides."""
    graph, state = nnx.split(conv(channels, channels, rngs=nnx.Rngs(0), **options))
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    x = jax.device_put(
        jnp.ones((24, 14, 14, channels)), NamedSharding(mesh, PartitionSpec("data"))
    )

    def total(state, x):
        return jnp.sum(nnx.merge(graph, state)(x) ** 2)

    found = {}
    for choice in ju.programs.CHOICES:
        with ju.programs.using(choice):
            program = ju.programs.jit(jax.grad(total)).lower(state, x)
        found[choice] = program.as_text().count("stablehlo.convolution")
    return found


def test_wide_ones_of_the_networks_are_in_parts_where_the_rule_says(monkeypatch):
    monkeypatch.setattr(convolution, "PIXELS", 8 * 14 * 14)
    one = {"rule": 2, "xla": 2, "reductions": 2}
    assert convolutions(16) == one | {"rule": 1 + 3}  # the forward pass, three parts
    assert convolutions(16, convolution=ju.zoo.in_parts) == dict.fromkeys(one, 4)
    assert convolutions(8) == one
    assert convolutions(16, devices=2) == one
    assert convolutions(32, feature_group_count=2) == one
    assert convolutions(16, kernel_dilation=2) == one


def test_outside_the_programs_of_the_library_nothing_is_in_parts(monkeypatch):
    monkeypatch.setattr(convolution, "PIXELS", 1)
    layer = conv(16, 16, rngs=nnx.Rngs(0))
    gradient = jax.grad(lambda x: jnp.sum(layer(x)))
    assert (
        str(jax.make_jaxpr(gradient)(jnp.ones((24, 14, 14, 16)))).count("custom") == 0
    )


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
