"""One backward pass equals the weighted sum of per-example gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import batch, batchnorm_net, trees_close

import jax_unlearn as ju
from jax_unlearn.gradients import mean_gradient, weighted_grad

SIZE = 6
MODEL = batchnorm_net()
PARAMS, STATE = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 4)))
STATE = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.3), STATE)
EVAL_LOSS = ju.objectives.descent(MODEL)._replace(train=False)
SAMPLES = batch(0, SIZE)


def losses_of(params, samples=SAMPLES):
    return EVAL_LOSS(params, STATE, samples, jax.random.key(0))


@jax.jit
def per_example_sum(params, weights):
    """Return Σ w_i ∇ℓ_i; single examples are allowed in eval mode only."""

    def one(params, inputs, label):
        return losses_of(params, ju.Batch(inputs[None], label[None]))[0][0]

    gradients = jax.vmap(jax.grad(one), in_axes=(None, 0, 0))(
        params, SAMPLES.inputs, SAMPLES.labels
    )
    return jax.tree.map(lambda g: jnp.tensordot(weights, g, axes=1), gradients)


@jax.jit
def by_vjp(params, weights, where):
    return weighted_grad(losses_of, params, lambda *_: (weights, None), where=where)


weights_strategy = st.lists(
    st.floats(0, 2, width=32, allow_subnormal=False), min_size=SIZE, max_size=SIZE
)
mask_strategy = st.lists(st.booleans(), min_size=SIZE, max_size=SIZE)


@settings(max_examples=50, deadline=None)
@given(weights_strategy, mask_strategy)
def test_equals_the_sum_of_per_example_gradients(weights, mask):
    weights, mask = np.float32(weights), np.array(mask)
    grads, info = by_vjp(PARAMS, weights, mask)
    kept = np.where(mask, weights, 0).astype(np.float32)
    total = per_example_sum(PARAMS, kept)
    count = float(max(mask.sum(), 1))
    # entries are sums of up to six terms of size one: 1e-6 absolute
    mean = jax.tree.map(lambda g: np.asarray(g) / np.float32(count), total)
    trees_close(grads, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(info.weights, kept)
    if not mask.any():
        assert all(not leaf.any() for leaf in jax.tree.leaves(grads))


def test_without_mask_divides_by_the_batch():
    weights = jnp.arange(SIZE, dtype=jnp.float32)
    grads, info = jax.jit(
        lambda p: weighted_grad(
            losses_of, p, lambda *_: (weights, "x") and (weights, 7)
        )
    )(PARAMS)
    expected = jax.tree.map(lambda g: g / SIZE, per_example_sum(PARAMS, weights))
    trees_close(grads, expected, rtol=1e-5, atol=1e-6)
    assert info.carry == 7
    losses = jax.jit(lambda p: losses_of(p)[0])(PARAMS)
    np.testing.assert_allclose(info.losses, losses, rtol=1e-5)


def test_weights_depend_on_the_losses_but_are_not_differentiated():
    def weights_fn(losses, aux):
        return losses * losses, None

    @jax.jit
    def both(params):
        losses = losses_of(params)[0]

        def through(params):
            values = losses_of(params)[0]
            return jnp.mean(values * values * values)

        return (
            weighted_grad(losses_of, params, weights_fn)[0],
            losses * losses,
            jax.grad(through)(params),
        )

    got, weights, wrong = both(PARAMS)
    expected = jax.tree.map(lambda g: g / SIZE, per_example_sum(PARAMS, weights))
    trees_close(got, expected, rtol=1e-5, atol=1e-6)
    # had the weights been differentiated the result would be three times as large
    assert float(jnp.abs(wrong["w"] - got["w"]).max()) > 0.1


def test_one_forward_pass():
    calls = []

    def counted(params):
        calls.append(1)
        return losses_of(params)

    jax.jit(
        lambda p: weighted_grad(
            counted, p, lambda losses, aux: (jnp.ones_like(losses), None)
        )[0]
    )(PARAMS)
    assert len(calls) == 1


def test_low_precision_parameters_keep_their_dtype():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    inputs = SAMPLES.inputs.astype(jnp.bfloat16)

    def losses_fn(params):
        hidden = jax.nn.relu(inputs @ params["w"]) @ params["v"]
        return jnp.mean(hidden, axis=-1), None  # bf16 losses

    grads, info = jax.jit(
        lambda p: weighted_grad(losses_fn, p, lambda *_: (jnp.ones(SIZE), None))
    )(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}
    assert info.losses.dtype == jnp.bfloat16
    assert info.weights.dtype == jnp.float32


def test_masked_samples_with_huge_losses_leave_nothing():
    def losses_fn(w):
        return w * jnp.array([1.0, 1e30]), None

    where = jnp.array([True, False])
    grads, _ = weighted_grad(
        losses_fn, jnp.float32(1), lambda *_: (jnp.ones(2), None), where=where
    )
    assert grads == 1.0


def test_wrong_number_of_weights():
    with pytest.raises(ValueError, match=r"weights.shape=\(3,\)"):
        weighted_grad(losses_of, PARAMS, lambda *_: (jnp.ones(3), None))


def padded(samples, size):
    """Fill a batch up with copies of its first sample, masked out."""
    count = samples.labels.shape[0]
    rows = np.r_[np.arange(count), np.zeros(size - count, int)]
    full = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], samples)
    return full._replace(mask=np.arange(size) < count)


def test_mean_gradient_over_ragged_batches():
    traced = []

    def loss_fn(params, state, samples, key):
        traced.append(1)
        return EVAL_LOSS(params, state, samples, key)

    rows = [slice(0, 4), slice(4, 6)]
    parts = [
        padded(jax.tree.map(lambda leaf, r=r: np.asarray(leaf)[r], SAMPLES), 4)
        for r in rows
    ]
    gradient = mean_gradient(loss_fn)
    got = gradient(PARAMS, STATE, parts, jax.random.key(0))
    expected = per_example_sum(PARAMS, jnp.full(SIZE, 1 / SIZE, jnp.float32))
    trees_close(got, expected, rtol=1e-5, atol=1e-6)
    assert len(traced) == 1


def test_mean_gradient_is_float32_and_needs_a_batch():
    def loss_fn(w, state, samples, key):
        losses = (w * samples.inputs).astype(jnp.float32)
        return losses, None

    samples = ju.Batch(jnp.array([1.0, 3.0], jnp.bfloat16), jnp.array([0, 0]))
    got = mean_gradient(loss_fn)(jnp.bfloat16(1), (), [samples], jax.random.key(0))
    assert got.dtype == jnp.float32
    assert got == 2.0
    nobody = samples._replace(mask=jnp.zeros(2, bool))
    none = mean_gradient(loss_fn)(jnp.bfloat16(1), (), [nobody], jax.random.key(0))
    assert none == 0.0
    with pytest.raises(ValueError, match="batches is empty"):
        mean_gradient(loss_fn)(jnp.bfloat16(1), (), [], jax.random.key(0))
