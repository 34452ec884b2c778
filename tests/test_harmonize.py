"""Harmonized gradients against float64 numpy, and the promise they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_unlearn import harmonize
from jax_unlearn.errors import InputError

SHAPES = {"a": (3,), "b": {"c": (2, 2), "d": ()}}
EPS = {"float32": 1.2e-7, "bfloat16": 7.9e-3}


def flat(tree):
    return np.concatenate(
        [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    )


def project64(g, onto):
    dot, size = g @ onto, onto @ onto
    return g - dot / size * onto if dot < 0 and size > 0 else g


def is_shape(node):
    return isinstance(node, tuple)


entries = st.one_of(st.just(0.0), st.floats(-10, 10, width=32, allow_subnormal=False))


@st.composite
def gradients(draw, dtype=jnp.float32):
    """Pytrees with zeros, conflicts, and sizes from 1e-25 to 1e25."""

    def tree(scale):
        def leaf(shape):
            values = draw(st.lists(entries, min_size=4, max_size=4))
            count = int(np.prod(shape))
            # a power of two: scaling rounds nothing
            return jnp.asarray(
                np.ldexp(np.resize(np.float32(values), count), scale).reshape(shape),
                dtype,
            )

        return jax.tree.map(leaf, SHAPES, is_leaf=is_shape)

    powers = st.sampled_from([0, 0, 0, -80, 80])
    return tree(draw(powers)), tree(draw(powers))


ONE_WAY = jax.jit(harmonize.one_way())
PROJECT = jax.jit(harmonize.project)
TWO_WAY = jax.jit(harmonize.two_way())


def rounding(dtype, *vectors):
    """Bound the error of an inner product of vectors of that dtype."""
    sizes = [np.linalg.norm(v) for v in vectors]
    return 8 * EPS[jnp.dtype(dtype).name] * np.prod(sizes)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_way_never_works_against_retain(dtype):
    @settings(max_examples=150, deadline=None)
    @given(gradients(dtype))
    def check(pair):
        g_forget, g_retain = pair
        joined = ONE_WAY(g_forget, g_retain)
        forget, retain, got = flat(g_forget), flat(g_retain), flat(joined)
        assert np.all(np.isfinite(got))
        slack = rounding(dtype, retain, forget) + rounding(dtype, retain, retain)
        assert got @ retain >= retain @ retain - slack
        assert got @ retain >= -slack
        assert {leaf.dtype for leaf in jax.tree.leaves(joined)} == {jnp.dtype(dtype)}

    check()


@settings(max_examples=150, deadline=None)
@given(gradients())
def test_project_equals_float64(pair):
    g, onto = pair
    wide, wide_onto = flat(g), flat(onto)
    got = flat(PROJECT(g, onto))
    size = np.linalg.norm(wide)
    dot = wide @ wide_onto
    slack = 4e-7 * size  # the projection subtracts numbers of the size of g
    if abs(dot) > rounding(jnp.float32, wide, wide_onto):
        np.testing.assert_allclose(got, project64(wide, wide_onto), atol=slack, rtol=0)
    if dot >= 0:  # nothing to remove, to the bit
        near = abs(dot) <= rounding(jnp.float32, wide, wide_onto)
        np.testing.assert_allclose(got, wide, atol=slack if near else 0, rtol=0)


@settings(max_examples=100, deadline=None)
@given(gradients())
def test_project_is_idempotent_and_never_longer(pair):
    g, onto = pair
    once = PROJECT(g, onto)
    twice = PROJECT(once, onto)
    size = np.linalg.norm(flat(g))
    np.testing.assert_allclose(flat(twice), flat(once), atol=4e-7 * size, rtol=0)
    assert np.linalg.norm(flat(once)) <= size * (1 + 1e-6)


@settings(max_examples=100, deadline=None)
@given(gradients())
def test_two_way_equals_float64(pair):
    g_forget, g_retain = pair
    forget, retain = flat(g_forget), flat(g_retain)
    got = flat(TWO_WAY(g_forget, g_retain))
    expected = project64(forget, retain) + project64(retain, forget)
    size = np.linalg.norm(forget) + np.linalg.norm(retain)
    np.testing.assert_allclose(got, expected, atol=1e-6 * size, rtol=0)


def conflicting(seed=0):
    rng = np.random.default_rng(seed)

    def leaf(shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    g_retain = jax.tree.map(leaf, SHAPES, is_leaf=is_shape)
    noise = jax.tree.map(leaf, SHAPES, is_leaf=is_shape)
    return jax.tree.map(lambda n, r: n - 2 * r, noise, g_retain), g_retain


def test_priority_says_who_stands():
    g_forget, g_retain = conflicting()
    forget, retain = flat(g_forget), flat(g_retain)
    assert forget @ retain < 0
    stands = flat(harmonize.one_way("retain")(g_forget, g_retain))
    np.testing.assert_allclose(stands, retain + project64(forget, retain), atol=1e-5)
    np.testing.assert_allclose(stands @ retain, retain @ retain, rtol=1e-5)
    turned = flat(harmonize.one_way("forget")(g_forget, g_retain))
    np.testing.assert_allclose(turned, forget + project64(retain, forget), atol=1e-5)
    np.testing.assert_allclose(turned @ forget, forget @ forget, rtol=1e-5)


@pytest.mark.parametrize(
    "make", [harmonize.one_way, harmonize.two_way], ids=["one_way", "two_way"]
)
def test_per_leaf_looks_at_every_leaf_alone(make):
    g_retain = {"a": jnp.array([1.0, 0.0]), "b": jnp.array([3.0, 0.0])}
    g_forget = {"a": jnp.array([-1.0, 1.0]), "b": jnp.array([2.0, 1.0])}
    # over the whole pytree there is no conflict: −1 + 6 > 0
    whole = make()(g_forget, g_retain)
    np.testing.assert_array_equal(whole["a"], [0.0, 1.0])
    leaves = make(per_leaf=True)(g_forget, g_retain)
    np.testing.assert_array_equal(leaves["b"], [5.0, 1.0])
    # leaf a: forget (−1, 1) loses −1·(1, 0); two-way retain (1, 0) loses −½·(−1, 1)
    expected = [1.0, 1.0] if make is harmonize.one_way else [0.5, 1.5]
    np.testing.assert_allclose(leaves["a"], expected, rtol=1e-6)


def test_zero_gradients_conflict_with_nothing():
    g, zero = jnp.array([1.0, -2.0]), jnp.zeros(2)
    for join in (harmonize.one_way(), harmonize.one_way("forget"), harmonize.two_way()):
        np.testing.assert_array_equal(join(g, zero), g)
        np.testing.assert_array_equal(join(zero, g), g)
        np.testing.assert_array_equal(join(zero, zero), zero)
    assert harmonize.cosine(g, zero) == 0


def test_add_is_a_weighted_sum_that_keeps_dtypes():
    g_forget, g_retain = conflicting(1)
    got = harmonize.add(0.25, 3.0)(g_forget, g_retain)
    expected = 0.25 * flat(g_forget) + 3 * flat(g_retain)
    np.testing.assert_allclose(flat(got), expected, rtol=1e-6, atol=1e-6)
    half = jnp.ones(2, jnp.bfloat16)
    assert harmonize.add()(half, half).dtype == jnp.bfloat16


@pytest.mark.parametrize("power", [0, -80, 80])
def test_cosine(power):
    g_forget, g_retain = conflicting(2)
    forget, retain = flat(g_forget), flat(g_retain)
    scaled = jax.tree.map(lambda leaf: leaf * jnp.float32(2.0**power), g_forget)
    expected = forget @ retain / np.linalg.norm(forget) / np.linalg.norm(retain)
    np.testing.assert_allclose(harmonize.cosine(scaled, g_retain), expected, rtol=1e-5)


def test_unknown_priority():
    with pytest.raises(InputError, match="priority='both'"):
        harmonize.one_way("both")


def bargain64(forget, retain):
    """MUNBa's step from its description: the angle by arccos, ξ = 1e-8."""
    sizes = np.linalg.norm(forget), np.linalg.norm(retain)
    if not min(sizes):
        return retain + 0.1 * forget
    cosine = np.clip(forget @ retain / sizes[0] / sizes[1], -1, 1)
    factor = np.sqrt((1 - cosine) / (1 - cosine**2 + 1e-8))
    if factor <= 0:
        return retain + 0.1 * forget
    return factor * (forget / sizes[0] + retain / sizes[1])


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e15])
def test_bargain_in_float64(scale):
    rng = np.random.default_rng(0)
    step = jax.jit(harmonize.bargain())
    for _ in range(20):
        pair = [
            jax.tree.map(
                lambda shape: jnp.float32(rng.normal(size=shape)),
                SHAPES,
                is_leaf=is_shape,
            )
            for _ in "fr"
        ]
        pair[0] = jax.tree.map(lambda leaf: leaf * jnp.float32(scale), pair[0])
        expected = bargain64(*map(flat, pair))
        np.testing.assert_allclose(flat(step(*pair)), expected, rtol=2e-4, atol=2e-5)
        # neither gains by its size
        louder = jax.tree.map(lambda leaf: 8 * leaf, pair[1])
        np.testing.assert_allclose(
            flat(step(pair[0], louder)), flat(step(*pair)), rtol=1e-4, atol=1e-5
        )


def test_bargain_without_two_gradients_and_leaf_by_leaf():
    one = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([1.0])}
    none = jax.tree.map(jnp.zeros_like, one)
    both = harmonize.bargain()
    np.testing.assert_allclose(flat(both(none, one)), flat(one), rtol=1e-6)
    np.testing.assert_allclose(flat(both(one, none)), 0.1 * flat(one), rtol=1e-6)
    assert (flat(both(none, none)) == 0).all()
    other = {"a": jnp.array([-4.0, 3.0]), "b": jnp.array([2.0])}
    apart = harmonize.bargain(per_leaf=True)(one, other)
    for name in one:
        alone = bargain64(*(np.asarray(g[name], np.float64) for g in (one, other)))
        np.testing.assert_allclose(apart[name], alone, rtol=1e-4)
