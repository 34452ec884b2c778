"""Weights cost no second pass: operations counted by the compiler."""

import jax
import jax.numpy as jnp
import optax
import pytest

import jax_unlearn as ju

CLASSES, SIZE, WIDTH = 10, 16, 8


def convnet():
    """Return a small convolutional network of two layers."""

    def init(key, inputs):
        first, second, third = jax.random.split(key, 3)
        params = {
            "a": jax.random.normal(first, (3, 3, 3, WIDTH)) / 5,
            "b": jax.random.normal(second, (3, 3, WIDTH, 2 * WIDTH)) / 8,
            "c": jax.random.normal(third, (2 * WIDTH, CLASSES)) / 4,
        }
        return params

    def apply(params, x):
        for name in ("a", "b"):
            x = jax.lax.conv_general_dilated(
                x,
                params[name],
                (2, 2),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = jax.nn.relu(x)
        return jnp.mean(x, axis=(1, 2)) @ params["c"]

    return ju.from_stateless(init, apply)


def flops(weighting, forward):
    model = convnet()
    images = jnp.zeros((SIZE, 16, 16, 3))
    part = ju.Batch(images, jnp.zeros(SIZE, jnp.int32), jnp.arange(SIZE))
    alg = ju.methods.random_label(
        model,
        optax.sgd(0.1, momentum=0.9),
        num_classes=CLASSES,
        weighting=weighting,
        forward=forward,
    )
    params = jax.eval_shape(model.init, jax.random.key(0), images)
    state = jax.eval_shape(alg.init, *params)
    batch = ju.UnlearnBatch(part, part, part)
    compiled = jax.jit(alg.step).lower(state, batch, jax.random.key(0)).compile()
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return cost["flops"]


def weightings():
    counts = jnp.full(CLASSES, 10)
    stats = ju.weights.ClassStats(
        jnp.full(CLASSES, 0.5), jnp.full(CLASSES, 0.1), jnp.full(CLASSES, 10.0)
    )
    return {
        "loreun": ju.weights.loreun(temperature=1.0),
        "anchored": ju.weights.falw(counts, estimator=ju.weights.anchored(stats)),
        "exact": ju.weights.falw(counts),
    }


@pytest.mark.parametrize("forward", ["separate", "merged"])
def test_weighted_step_costs_at_most_one_percent_more(forward):
    plain = flops(None, forward)
    assert plain > 1e6  # the count is of the network
    ratio = {name: flops(w, forward) / plain for name, w in weightings().items()}
    assert ratio["loreun"] <= 1.01
    assert ratio["anchored"] <= 1.01
    # a pass over the reference is seen by this count: a third of a pass and more
    assert ratio["exact"] > 1.1
