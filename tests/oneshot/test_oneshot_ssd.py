"""Selective synaptic dampening: its invariants, its equation, what it forgets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oneshot_made import EVAL, KEY, accuracy, data, forget, original, pieces, retain
from toys import trees_close

from jax_unlearn.errors import InputError
from jax_unlearn.oneshot.fisher import fisher_information
from jax_unlearn.oneshot.ssd import ssd, ssd_selected

SIZE = 6


def vectors(low, high):
    number = st.floats(low, high, width=32, allow_subnormal=False)
    return st.lists(number, min_size=SIZE, max_size=SIZE).map(np.float32)


IMPORTANCE = st.one_of(vectors(0, 100), vectors(0, 1), st.just(np.zeros(SIZE, "f4")))


@settings(max_examples=80, deadline=None)
@given(
    vectors(-5, 5),
    IMPORTANCE,
    IMPORTANCE,
    st.floats(0, 20),
    st.floats(0, 3),
)
def test_invariants(theta, every, some, alpha, dampening):
    got = np.asarray(ssd(theta, every, some, alpha=alpha, dampening=dampening))
    marked = np.asarray(ssd_selected(every, some, alpha=alpha))
    assert np.all(np.isfinite(got))
    assert np.all(np.abs(got) <= np.abs(theta))
    assert np.all(got * theta >= 0)
    np.testing.assert_array_equal(got[~marked], theta[~marked])
    np.testing.assert_array_equal(marked, (some > np.float32(alpha) * every))
    ratio = np.float64(dampening) * every[marked] / np.float64(some[marked])
    expected = theta[marked] * np.minimum(ratio, 1)
    product, tiny = dampening * np.float64(every[marked]), np.finfo(np.float32).tiny
    whole = (product == 0) | (product >= tiny)  # else float32 may take it for zero
    told = {"rtol": 1e-5, "atol": 1e-30}
    np.testing.assert_allclose(got[marked][whole], expected[whole], **told)
    none = np.asarray(ssd(theta, every, some, alpha=alpha, dampening=0.0))
    assert not none[marked].any()
    weaker = np.asarray(ssd(theta, every, some, alpha=alpha, dampening=dampening / 2))
    assert np.all(np.abs(weaker) <= np.abs(got))
    fewer = np.asarray(ssd_selected(every, some, alpha=2 * alpha))
    assert not np.any(fewer & ~marked)


def test_a_product_too_small_for_float32_may_count_as_zero():
    tiny = np.finfo(np.float32).tiny
    given = np.float32([1.0]), np.float32([tiny]), np.float32([2.0**-52])
    (got,) = np.asarray(ssd(*given, alpha=0.0, dampening=0.5))
    assert 0 <= got <= tiny / 2.0**-52


def test_zero_importances():
    theta = jnp.array([3.0, 3.0, 3.0])
    every, some = jnp.array([0.0, 0.0, 1.0]), jnp.array([0.0, 1.0, 0.0])
    # nothing needs it at all; forget alone needs it; forget does not need it
    assert ssd(theta, every, some).tolist() == [3.0, 0.0, 3.0]
    assert ssd(theta, every, some, alpha=0.0).tolist() == [3.0, 0.0, 3.0]


def test_pytrees_keep_their_dtypes_and_jit_agrees():
    params = {"a": jnp.ones((2, 2), jnp.bfloat16), "b": (jnp.array([2.0]),)}
    every = jax.tree.map(lambda p: jnp.ones(p.shape), params)
    some = jax.tree.map(lambda p: jnp.full(p.shape, 16.0), params)
    got = ssd(params, every, some)
    expected = jax.tree.map(lambda p: (p / 16).astype(p.dtype), params)
    trees_close(got, expected)
    jitted = jax.jit(
        lambda alpha, d: ssd(params, every, some, alpha=alpha, dampening=d)
    )
    trees_close(jitted(10.0, 1.0), got)


def test_the_importance_is_that_of_all_samples_not_of_the_rest():
    """With I_r in place of I_D weights would be dampened twice as hard."""
    theta, forgotten, rest = jnp.float32(1), jnp.float32(8), jnp.float32(0)
    every = (forgotten + rest) / 2  # half of the samples are forgotten
    assert ssd(theta, every, forgotten, alpha=1.0) == 0.5


def test_mistakes():
    one = jnp.ones(2)
    with pytest.raises(InputError, match="alpha=-1"):
        ssd(one, one, one, alpha=-1.0)
    with pytest.raises(InputError, match="dampening=nan"):
        ssd(one, one, one, dampening=float("nan"))
    with pytest.raises(InputError, match="forget_importance and the parameters"):
        ssd(one, one, jnp.ones(3))
    with pytest.raises(InputError, match="importance and the parameters"):
        ssd(one, {"w": one}, one)


@pytest.mark.parametrize(
    ("per", "alpha", "dampening"), [("sample", 2, 0.2), ("batch", 4, 1)]
)
def test_it_forgets_the_class_and_keeps_the_others(per, alpha, dampening):
    params = original()
    information = fisher_information(EVAL, per=per)
    every, some = (
        information(params, (), pieces(part(), 8), KEY) for part in (data, forget)
    )
    after = ssd(params, every, some, alpha=alpha, dampening=dampening)
    lost = accuracy(params, forget()) - accuracy(after, forget())
    price = accuracy(params, retain()) - accuracy(after, retain())
    assert lost > 0.35
    assert price < 0.6 * lost
    moved = jax.tree.map(lambda a, b: np.asarray(a != b), after, params)
    marked = ssd_selected(every, some, alpha=alpha)
    for name in params:
        np.testing.assert_array_equal(moved[name], marked[name])
