"""Exactly the share asked for is marked, and what is not marked does not move."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from toys import relaxed

from jax_unlearn import masks
from jax_unlearn.errors import InputError

OPTIMIZERS = {
    "momentum and decay": lambda: optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9)
    ),
    "adamw": lambda: relaxed(optax.adamw(0.1, weight_decay=0.1)),
    "clip": lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)),
}


def count(tree):
    return sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(tree))


# how many numbers, and of them in the first leaf; a program each
PARTS = ((1, 0), (1, 1), (2, 1), (7, 4), (40, 0), (40, 25))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 100),
    st.lists(st.integers(-2, 2), min_size=40, max_size=40),
    st.sampled_from(PARTS),
)
def test_exactly_the_share_is_marked_with_ties(percent, values, part):
    total, cut = part
    values = np.float32(values[:total])
    grads = {"a": values[:cut], "b": values[cut:]}
    grads = {name: jnp.asarray(part) for name, part in grads.items() if len(part)}
    mask = masks.gradient_saliency(grads, keep=percent / 100)
    wanted = -(-Fraction(percent, 100) * len(values) // 1)  # the ceiling
    assert count(mask) == wanted
    marked = np.concatenate([np.asarray(mask[name]) for name in sorted(mask)])
    sizes = np.abs(values)
    if not marked.all():
        assert sizes[marked].min() >= sizes[~marked].max()


def test_shares_that_floating_point_would_round_up():
    for percent, total in ((7, 100), (55, 100), (14, 50), (29, 1000)):
        mask = masks.gradient_saliency(jnp.arange(float(total)), keep=percent / 100)
        assert count(mask) == percent * total // 100


def test_largest_of_all_leaves_together_whatever_the_dtype():
    grads = {
        "big": jnp.array([[5.0, -6.0]], jnp.bfloat16),
        "small": jnp.array([0.1, -4.0, 0.2]),
    }
    mask = masks.gradient_saliency(grads, keep=0.6)
    np.testing.assert_array_equal(mask["big"], [[True, True]])
    np.testing.assert_array_equal(mask["small"], [False, True, False])
    assert {leaf.dtype for leaf in jax.tree.leaves(mask)} == {jnp.dtype(bool)}


@pytest.mark.parametrize("keep", [0, -0.1, 1.1, float("nan")])
def test_impossible_share(keep):
    with pytest.raises(InputError, match="keep="):
        masks.gradient_saliency(jnp.ones(3), keep=keep)


def test_fisher_ratio_against_division():
    rng = np.random.default_rng(0)
    forget, retain = rng.uniform(0.1, 1, (2, 50)).astype(np.float32)
    for threshold in (0.5, 1.0, 3.0):
        got = masks.fisher_ratio(
            {"w": jnp.asarray(forget)}, {"w": jnp.asarray(retain)}, threshold=threshold
        )
        np.testing.assert_array_equal(
            got["w"], forget.astype(float) / retain >= threshold
        )
    np.testing.assert_array_equal(
        masks.fisher_ratio(jnp.array([0.0, 0.0]), jnp.array([0.0, 1.0])), [True, False]
    )


PARAMS = {"w": jnp.array([1.0, -2.0, 3.0, -4.0]), "b": jnp.array([0.5, 0.5])}
MASK = {"w": jnp.array([True, False, True, False]), "b": jnp.array([False, True])}


def walk(optimizer, steps=5, seed=0):
    """Take steps along random gradients."""
    rng = np.random.default_rng(seed)

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        grads = jax.tree.map(
            lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params
        )
        params, state = step(params, state, grads)
    return params, state


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masked_weights_do_not_move(name):
    params, _ = walk(masks.masked(OPTIMIZERS[name](), MASK))
    for leaf, start, marked in zip(
        *(jax.tree.leaves(tree) for tree in (params, PARAMS, MASK)), strict=True
    ):
        moved = np.asarray(leaf != start)
        np.testing.assert_array_equal(moved, marked)


@pytest.mark.parametrize("name", ["momentum and decay", "adamw"])
def test_legacy_leaks(name):
    params, _ = walk(masks.masked(OPTIMIZERS[name](), MASK, legacy=True))
    assert jnp.all(params["w"] != PARAMS["w"])  # weight decay moved the masked ones
    assert jnp.all(params["b"] != PARAMS["b"])


def test_momentum_from_before_leaks_in_legacy_only():
    # momentum gathered before the mask came: the state of another optimizer
    optimizer = optax.sgd(1.0, momentum=0.9)
    _, state = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    for legacy in (True, False):
        wrapped = masks.masked(optimizer, MASK, legacy=legacy)
        start = wrapped.init(PARAMS)._replace(inner=state)
        updates, _ = wrapped.update(zero, start, PARAMS)
        assert bool(updates["w"][1] != 0) == legacy


def test_full_mask_is_the_optimizer_itself():
    full = jax.tree.map(lambda p: jnp.ones(p.shape, bool), PARAMS)
    got, _ = walk(masks.masked(relaxed(optax.adam(0.1)), full))
    expected, _ = walk(relaxed(optax.adam(0.1)))
    for name in PARAMS:
        # two programs: they may differ in the last place
        np.testing.assert_allclose(got[name], expected[name], rtol=3e-7)


def test_mask_travels_in_the_state():
    optimizer = masks.masked(optax.sgd(1.0), MASK)
    state = optimizer.init(PARAMS)
    other = state._replace(mask=jax.tree.map(jnp.logical_not, state.mask))
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    update = jax.jit(optimizer.update)
    first, _ = update(grads, state, PARAMS)
    second, _ = update(grads, other, PARAMS)
    np.testing.assert_array_equal(first["b"], [0.0, -1.0])
    np.testing.assert_array_equal(second["b"], [-1.0, 0.0])
    assert update._cache_size() == 1


@pytest.mark.parametrize(
    "mask", [{"w": MASK["w"]}, {"w": MASK["w"], "b": jnp.array([True])}]
)
def test_mask_of_another_model(mask):
    with pytest.raises(ValueError, match="mask from gradients of the same model"):
        masks.masked(optax.sgd(1.0), mask).init(PARAMS)


def test_apply_mask_hides_what_is_not_finite():
    tree = {"w": jnp.array([jnp.nan, 1.0], jnp.bfloat16)}
    got = masks.apply_mask(tree, {"w": jnp.array([False, True])})["w"]
    np.testing.assert_array_equal(got.astype(jnp.float32), [0.0, 1.0])
    assert got.dtype == jnp.bfloat16


def test_soft_threshold_equals_the_proximal_step():
    rate, threshold = 0.1, 0.05
    optimizer = masks.soft_threshold(optax.sgd(rate), threshold)
    got, _ = walk(optimizer, steps=4, seed=3)
    rng = np.random.default_rng(3)
    start = {name: np.asarray(PARAMS[name], np.float64) for name in sorted(PARAMS)}
    theta = dict(start)
    for _ in range(4):
        for name in theta:  # the same draws as in `walk`: leaves in sorted order
            moved = (
                theta[name] - rate * rng.normal(size=theta[name].shape) - start[name]
            )
            shrunk = np.sign(moved) * np.maximum(np.abs(moved) - threshold, 0)
            theta[name] = start[name] + shrunk
    for name in theta:
        np.testing.assert_allclose(got[name], theta[name], rtol=1e-6)


def test_soft_threshold_leaves_small_movers_in_place():
    optimizer = masks.soft_threshold(optax.sgd(1.0), 0.3)
    grads = {"w": jnp.array([1.0, 0.2, -0.2, -1.0]), "b": jnp.array([0.29, 0.31])}
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["w"], [-0.7, 0, 0, 0.7], atol=1e-6)
    np.testing.assert_allclose(updates["b"], [0, -0.01], atol=1e-6)


def test_soft_threshold_refuses():
    with pytest.raises(InputError, match="threshold=-1"):
        masks.soft_threshold(optax.sgd(1.0), -1)
    optimizer = masks.soft_threshold(optax.sgd(1.0), 0.1)
    with pytest.raises(ValueError, match="needs params"):
        optimizer.update(PARAMS, optimizer.init(PARAMS))


def test_soft_threshold_survives_donation_of_the_parameters():
    optimizer = masks.soft_threshold(optax.sgd(1.0), 0.1)
    params = jax.tree.map(lambda p: jnp.array(p, copy=True), PARAMS)
    state = optimizer.init(params)
    for leaf in jax.tree.leaves(params):
        leaf.delete()
    np.testing.assert_array_equal(state.origin["w"], PARAMS["w"])


def salun_soft64(start, gradient, *, share, epochs, size, rate, momentum, decay):
    """SalUn-soft as published, in float64: SGD, then the k-th smallest change pulls."""
    names, total = sorted(start), epochs * size
    theta = np.concatenate([np.float64(start[name]).ravel() for name in names])
    moved, still = np.zeros_like(theta), []
    for epoch in range(epochs):
        origin = theta.copy()
        for _ in range(size):
            moved = momentum * moved + gradient(theta) + decay * theta
            theta = theta - rate * moved
            k = int(share * ((total - (epoch * size + 1)) / total * theta.size))
            change = theta - origin
            bound = np.sort(np.abs(change))[k - 1] if k else 0.0
            pulled = np.where(change < -bound, theta + bound, origin)
            theta = np.where(change > bound, theta - bound, pulled)
            still.append(int((theta == origin).sum()))
    return theta, still


@pytest.mark.parametrize(("share", "epochs", "size"), [(0.5, 3, 4), (1.0, 2, 3)])
def test_falling_threshold_is_salun_soft_as_published(share, epochs, size):
    rng = np.random.default_rng(0)
    start = {"b": rng.normal(size=5), "w": rng.normal(size=(4, 5))}
    curvature, target = rng.uniform(0.1, 1, 25), rng.normal(size=25)
    told = {"rate": 0.1, "momentum": 0.9, "decay": 5e-4}
    expected, still = salun_soft64(
        start,
        lambda theta: curvature * (theta - target),
        **{"share": share, "epochs": epochs, "size": size, **told},
    )
    inner = optax.chain(
        optax.add_decayed_weights(told["decay"]), optax.sgd(told["rate"], 0.9)
    )
    optimizer = masks.falling_threshold(
        inner, share=share, steps=epochs * size, epoch_steps=size
    )
    params = {name: jnp.float32(value) for name, value in start.items()}
    state, found = optimizer.init(params), []

    @jax.jit
    def step(params, state):
        flat, unravel = ravel_pytree(params)
        grads = jnp.float32(curvature) * (flat - jnp.float32(target))
        updates, state = optimizer.update(unravel(grads), state, params)
        params = optax.apply_updates(params, updates)
        there = jax.tree.map(lambda p, o: jnp.sum(p == o), params, state.origin)
        return params, state, sum(jax.tree.leaves(there))

    for _ in range(epochs * size):
        params, state, count = step(params, state)
        found.append(int(count))
    got = np.float64(ravel_pytree(params)[0])
    first = np.concatenate([np.ravel(start[name]) for name in sorted(start)])
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected - first).max()
    assert found == still
    assert found[0] > found[-1]  # fewer and fewer stay


def test_falling_threshold_refuses():
    told = {"optimizer": optax.sgd(0.1), "steps": 3}
    for wrong in ({"share": 0.0}, {"steps": 0}, {"epoch_steps": 0}):
        ((name, value),) = wrong.items()
        with pytest.raises(InputError, match=f"{name}={value}"):
            masks.falling_threshold(**{**told, **wrong})
    optimizer = masks.falling_threshold(**told)
    with pytest.raises(ValueError, match="falling_threshold needs params"):
        optimizer.update(PARAMS, optimizer.init(PARAMS))
