"""Labels across the boundary: by hand, never the true class, no batch effects."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import batch, batchnorm_net, close, softmax64

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.objectives.boundary import boundary_labels, fixed_label

CLASSES, SIZE = 4, 40
LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
W = jax.random.normal(jax.random.key(0), (5, CLASSES))
SAMPLES = batch(0, SIZE, features=5, classes=CLASSES)
KEY = jax.random.key(1)


def labels64(bound):
    """Return the labels of the linear model in float64, and the neighbours' logits."""
    x, w = np.asarray(SAMPLES.inputs, np.float64), np.asarray(W, np.float64)
    y = np.asarray(SAMPLES.labels)
    gradient = (softmax64(x @ w) - np.eye(CLASSES)[y]) @ w.T
    logits = (x + bound * np.sign(gradient)) @ w
    wrong = np.where(np.eye(CLASSES, dtype=bool)[y], -np.inf, logits)
    return wrong.argmax(1), logits


@functools.partial(jax.jit, static_argnums=0)
def found(model, params, state, inputs, labels, bound):
    return boundary_labels(model, params, state, inputs, labels, bound=bound)


@pytest.mark.parametrize("bound", [0.1, 0.7])
def test_linear_model_by_hand(bound):
    expected, _ = labels64(bound)
    got = found(LINEAR, W, (), SAMPLES.inputs, SAMPLES.labels, bound)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == jnp.int32
    # another size of step, or none, gives other labels: the step is taken
    assert (labels64(0.0)[0] != labels64(0.7)[0]).any()


def test_a_neighbour_still_of_the_true_class_gets_a_wrong_label():
    labels, logits = labels64(1e-3)
    true = np.asarray(SAMPLES.labels)
    inside = logits.argmax(1) == true  # the step does not cross the boundary
    assert inside.any()
    got = found(LINEAR, W, (), SAMPLES.inputs, SAMPLES.labels, 1e-3)
    assert not (np.asarray(got) == true).any()
    np.testing.assert_array_equal(np.asarray(got)[inside], labels[inside])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 10, width=32), st.floats(0, 100, width=32))
def test_never_the_true_class(seed, bound, scale):
    samples = batch(seed, SIZE, features=5, classes=CLASSES)
    w = jnp.float32(scale) * W
    got = found(LINEAR, w, (), samples.inputs, samples.labels, bound)
    assert not bool(jnp.any(got == samples.labels))
    assert bool(jnp.all((got >= 0) & (got < CLASSES)))


def test_a_label_does_not_depend_on_the_batch():
    net = batchnorm_net(CLASSES)
    params, state = jax.jit(net.init)(KEY, SAMPLES.inputs)
    state = {"mean": state["mean"] + 0.3, "var": state["var"] * 2}
    whole = found(net, params, state, SAMPLES.inputs, SAMPLES.labels, 0.3)
    alone = jax.vmap(lambda x, y: found(net, params, state, x[None], y[None], 0.3)[0])(
        SAMPLES.inputs, SAMPLES.labels
    )
    np.testing.assert_array_equal(whole, alone)
    assert len(np.unique(whole)) > 1


def test_inputs_may_be_a_tree_and_of_low_precision():
    model = ju.from_stateless(lambda key, x: None, lambda w, x: (x["a"] + x["b"]) @ w)
    w, x = W.astype(jnp.bfloat16), SAMPLES.inputs.astype(jnp.bfloat16)
    parts = {"a": x, "b": jnp.zeros_like(x)}
    got = found(model, w, (), parts, SAMPLES.labels, jnp.float32(0.1))
    assert not bool(jnp.any(got == SAMPLES.labels))


def test_mistakes():
    pixels = jnp.zeros((2, 5), jnp.uint8)
    with pytest.raises(InputError, match=r"uint8 .*convert pixels to floats in 0\.\.1"):
        boundary_labels(LINEAR, W, (), pixels, jnp.array([0, 1]))
    with pytest.raises(InputError, match="bound=-0.1"):
        boundary_labels(LINEAR, W, (), pixels, jnp.array([0, 1]), bound=-0.1)
    with pytest.raises(InputError, match="has 1 outputs"):
        boundary_labels(LINEAR, W[:, :1], (), jnp.zeros((2, 5)), jnp.array([0, 0]))
    for table in (jnp.zeros(3), jnp.zeros((3, 2), jnp.int32)):
        with pytest.raises(InputError, match="one integer class"):
            fixed_label(LINEAR, table)
    objective = fixed_label(LINEAR, jnp.zeros(SIZE, jnp.int32))
    with pytest.raises(InputError, match="batch.index=None"):
        objective(W, (), SAMPLES._replace(index=None), KEY)


def test_fixed_labels_are_looked_up_by_index_and_travel_as_data():
    rng = np.random.default_rng(0)
    table = rng.integers(0, CLASSES, 100)
    objective = fixed_label(LINEAR, jnp.asarray(table, jnp.int32))
    samples = SAMPLES._replace(index=jnp.asarray(rng.permutation(100)[:SIZE]))
    losses, aux = jax.jit(objective.__call__)(W, (), samples, KEY)
    log_p = np.log(softmax64(SAMPLES.inputs @ W))
    rows = np.arange(SIZE)
    close(losses, -log_p[rows, table[np.asarray(samples.index)]], scale=10)
    close(aux.task_losses, -log_p[rows, SAMPLES.labels], scale=10)
    np.testing.assert_array_equal(objective.data, table)
    other = objective._replace(data=jnp.full(100, 2))
    close(other(W, (), samples, KEY)[0], -log_p[:, 2], scale=10)
