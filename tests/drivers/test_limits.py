"""Costs of a program: operations and bytes, by hand; peaks of devices."""

import jax
import jax.numpy as jnp
import pytest

import jax_unlearn as ju
from jax_unlearn.drivers.limits import PEAKS, Cost, Peak, cost_of


def of(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def conv(x, kernel, stride=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=numbers
    )


def test_a_matrix_product_by_hand():
    found = cost_of(jnp.matmul, of(3, 5), of(5, 7))
    ends = 4 * (3 * 5 + 5 * 7 + 3 * 7)
    assert found == Cost(2 * 3 * 5 * 7, 2 * ends)  # by the product, and as arguments


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_gradients_cost_alike(stride):
    x, kernel = of(4, 8, 8, 3), of(3, 3, 3, 16)
    side = 8 // stride
    forward = 2 * 4 * side * side * 16 * 3 * 3 * 3
    assert cost_of(lambda x, k: conv(x, k, stride), x, kernel).flops == forward

    def loss(x, kernel):
        return conv(x, kernel, stride).sum()

    both = cost_of(jax.grad(loss, argnums=(0, 1)), x, kernel).flops
    assert both == 3 * forward  # itself, gradients of images and of kernels


def test_the_padding_around_a_small_image_is_not_counted():
    # as the gradient of a kernel's gradient has it: a kernel larger than the image
    found = cost_of(conv, of(1, 3, 3, 2), of(32, 32, 2, 5))
    assert found.flops == 2 * (3 * 3 * 5) * (3 * 3 * 2)


def test_half_the_bytes_in_half_precision():
    whole = cost_of(jnp.matmul, of(8, 8), of(8, 8))
    half = cost_of(jnp.matmul, *[of(8, 8, dtype=jnp.bfloat16)] * 2)
    assert half == Cost(whole.flops, whole.bytes / 2)


def test_of_branches_the_dearest_counts_and_compiled_functions_are_looked_into():
    def f(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x @ (x @ x), x)

    assert cost_of(jax.jit(f), of(4, 4)).flops == 2 * 2 * 4**3


def test_a_scan_counts_as_often_as_it_repeats():
    def f(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, length=3)[0]

    assert cost_of(f, of(4, 4)).flops == 3 * 2 * 4**3


def test_a_training_step_of_resnet18_is_three_forward_passes():
    model = ju.from_nnx(lambda rngs: ju.zoo.ResNet18(10, width=8, rngs=rngs))
    start = jax.eval_shape(model.init, jax.random.key(0), None)
    x = of(2, 32, 32, 3)
    forward = cost_of(lambda *given: model.apply(*given, train=False)[0], *start, x)

    def loss(params, state, x):
        return model.apply(params, state, x, train=True)[0].sum()

    step = cost_of(jax.grad(loss), *start, x)
    # no gradient of the images is taken at the first layer
    assert 2.9 < step.flops / forward.flops < 3


def test_peaks_are_of_one_unit_and_say_whose_they_are():
    for peak in PEAKS.values():
        assert 5e13 < peak.flops < 1e15
        assert 1e11 < peak.bandwidth < 1e13
        assert peak.source
    assert PEAKS["TPU v5 lite"].flops == 197e12
    assert PEAKS.get("cpu") is None
    least = Cost(4e12, 1e9).seconds(Peak(2e12, 1e9, "made up"))
    assert least == {"operations": 2.0, "bytes": 1.0}
