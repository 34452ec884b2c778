"""Masters of float32: steps that bfloat16 would lose add up as they do in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import relaxed

import jax_unlearn as ju
from jax_unlearn.language import Text, decoder
from jax_unlearn.optimizers import applied
from jax_unlearn.zoo import DecoderConfig

KEY, LOW = jax.random.key(0), jnp.bfloat16
MODEL = decoder(DecoderConfig(24, width=16, layers=1, heads=2, hidden=20))
TOKENS = jnp.asarray(np.arange(24).reshape(4, 6) % 11, jnp.int32)
BATCH = ju.Batch(Text(TOKENS, jnp.ones((4, 6), bool)), jnp.zeros(4, jnp.int32))
STEPS = 30


@functools.cache
def trained(kind):
    """Train from one start with weights of float32, bfloat16, or these and masters."""
    params, state = jax.jit(MODEL.init)(KEY, None)
    params = jax.tree.map(lambda x: x.astype(LOW), params)
    if kind == "float32":
        params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    optimizer = relaxed(optax.adam(2e-5))
    optimizer = ju.memory.master(optimizer) if kind == "masters" else optimizer
    loss = ju.objectives.next_token(MODEL)
    alg = ju.methods.assemble(MODEL, optimizer, retain=loss)
    begin = alg.init(params, state)
    return params, ju.run(alg, begin, [ju.UnlearnBatch(retain=BATCH)] * STEPS, KEY)


def flat(tree):
    leaves = [np.asarray(x, np.float32).ravel() for x in jax.tree.leaves(tree)]
    return np.concatenate(leaves)


def test_training_is_that_of_float32():
    (before, exact), (_, found) = trained("float32"), trained("masters")
    moved = flat(exact.params) - flat(before)
    assert np.abs(moved).max() > 1e-4
    error = flat(found.opt_state.masters) - flat(exact.params)
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(moved)
    # what the model computes with are the masters, rounded
    assert {x.dtype for x in jax.tree.leaves(found.params)} == {jnp.dtype(LOW)}
    rounded = jax.tree.map(lambda x: x.astype(LOW), found.opt_state.masters)
    jax.tree.map(np.testing.assert_array_equal, rounded, found.params)


def test_without_masters_most_steps_are_lost():
    (before, exact), (_, plain) = trained("float32"), trained("bfloat16")
    moved = flat(exact.params) - flat(before)
    error = flat(plain.params) - flat(exact.params)
    kept = flat(plain.params) == flat(before)
    assert kept.mean() > 0.5
    assert np.linalg.norm(error) > 0.5 * np.linalg.norm(moved)


def test_leaves_of_float32_and_integers_have_no_copy():
    params = {"low": jnp.ones(2, LOW), "wide": jnp.ones(2), "none": None}
    optimizer = ju.memory.master(optax.sgd(1e-3, momentum=0.9))
    state = optimizer.init(params)
    assert state.masters["wide"] is None
    assert state.masters["low"].dtype == jnp.float32
    gradient = {"low": jnp.ones(2, LOW), "wide": jnp.ones(2), "none": None}
    updates, state = optimizer.update(gradient, state, params)
    after = applied(params, updates)
    np.testing.assert_allclose(after["wide"], 0.999)
    np.testing.assert_array_equal(after["low"], params["low"])
    np.testing.assert_allclose(state.masters["low"], 0.999)


def test_a_weight_that_something_else_moved_is_taken_as_it_is():
    optimizer = ju.memory.master(optax.sgd(1e-3))
    params = jnp.ones(2, LOW)
    _, state = optimizer.update(jnp.ones(2, LOW), optimizer.init(params), params)
    moved = jnp.array([1.0, 0.5], LOW)
    _, state = optimizer.update(jnp.ones(2, LOW), state, moved)
    np.testing.assert_allclose(state.masters, [0.998, 0.499])


def test_a_mask_holds_weights_whatever_their_masters_say():
    mask = jnp.array([True, False])
    optimizer = ju.masks.masked(ju.memory.master(optax.sgd(0.01)), mask)
    params = jnp.ones(2, LOW)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jnp.ones(2, LOW), state, params)
        params = applied(params, updates)
    np.testing.assert_array_equal(params, jnp.array([0.97, 1.0], LOW))


def test_it_needs_the_parameters():
    optimizer = ju.memory.master(optax.sgd(1.0))
    with pytest.raises(ju.InputError, match="params=None; give"):
        optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)))
