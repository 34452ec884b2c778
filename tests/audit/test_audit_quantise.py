"""Rounded parameters against a float64 quantiser, and what they bring back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_unlearn import audit
from jax_unlearn.errors import InputError


def quantised64(weights, bits, block=None):
    """Round group by group in float64, one weight at a time."""
    levels = 2 ** (bits - 1) - 1
    flat = np.asarray(weights, np.float64).ravel()
    places = np.arange(flat.size)
    groups = places // block if block else places % np.shape(weights)[-1]
    found = np.zeros_like(flat)
    for group in np.unique(groups):
        inside = groups == group
        most = max(abs(value) for value in flat[inside])
        for i in np.flatnonzero(inside):
            found[i] = most * round(levels * flat[i] / most) / levels if most else 0
    return found.reshape(np.shape(weights))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("by", ["block", "channel"])
def test_every_weight_is_rounded_as_in_float64(bits, by):
    weights = np.random.default_rng(0).normal(size=(3, 5, 13, 7)).astype(np.float32)
    weights[..., 2] = 0
    found = audit.quantised({"w": jnp.asarray(weights)}, bits=bits, by=by)["w"]
    wanted = quantised64(weights, bits, 64 if by == "block" else None)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
    assert np.all(np.asarray(found)[..., 2] == 0)


@given(st.integers(2, 8), st.integers(1, 9), st.integers(0, 99))
def test_rounding_twice_changes_nothing_and_the_error_is_half_a_step(bits, block, seed):
    weights = np.random.default_rng(seed).normal(size=(4, 6)).astype(np.float32)
    once = audit.quantised(weights, bits=bits, block=block)
    twice = audit.quantised(once, bits=bits, block=block)
    np.testing.assert_allclose(twice, once, rtol=1e-6)
    step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    assert np.abs(np.asarray(once) - weights).max() <= step / 2 * (1 + 1e-5)


def test_only_weights_of_two_axes_are_rounded_and_dtypes_stay():
    params = {
        "kernel": jnp.full((2, 2), 0.3, jnp.bfloat16),
        "bias": jnp.array([0.123], jnp.float32),
        "steps": jnp.ones((2, 2), jnp.int32),
    }
    found = audit.quantised(params, bits=4)
    assert jax.tree.map(lambda a: a.dtype, found) == jax.tree.map(
        lambda a: a.dtype, params
    )
    np.testing.assert_array_equal(found["bias"], params["bias"])
    np.testing.assert_array_equal(found["steps"], params["steps"])


def test_four_bits_bring_back_what_many_small_changes_hide():
    """62 changes of a tenth of a step undo a margin of one step, and round away."""
    x, grid = np.ones((1, 64), np.float32), np.full((64, 2), 3 / 7, np.float32)
    original = grid.copy()
    original[0, 1] = 2 / 7  # the sample is told by one weight
    retrain = grid.copy()
    retrain[0, 0] = 2 / 7
    other = retrain.copy()
    other[1, 0] = 2 / 7
    for model in (original, retrain, other):
        model[1] = [1.0, 1.0]  # the largest weight: 7 of its steps
    hidden = original.copy()
    hidden[2:, 0] -= 0.1 / 7
    right = {}
    for name, w in {"u": hidden, "r": retrain, "n": other}.items():
        for bits in (32, 8, 4):
            params = w if bits == 32 else audit.quantised(w, bits=bits, by="channel")
            right[name, bits] = bool((x @ np.asarray(params)).argmax() == 0)
    assert right == {
        **{("u", 32): False, ("u", 8): False, ("u", 4): True},
        **{(name, bits): False for name in "rn" for bits in (32, 8, 4)},
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bits": 1}, "bits=1 must be a whole number from 2"),
        ({"bits": 32}, "try 8 or 4"),
        ({"block": 0}, "block=0"),
        ({"by": "row"}, "block"),
        ({"params": {"w": jnp.array([[1.0, jnp.nan]])}}, r"\['w'\] hold NaN"),
    ],
)
def test_what_cannot_be_rounded_is_refused(change, words):
    options = {"params": {"w": jnp.ones((2, 2))}, **change}
    with pytest.raises(InputError, match=words):
        audit.quantised(options.pop("params"), **options)
