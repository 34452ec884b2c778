"""Margins are those that attacks are trained on, from logits or probabilities."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_unlearn.audit.features import margins, margins_from_probs
from jax_unlearn.errors import InputError
from jax_unlearn.membership.features import logit_confidence


def test_margins_are_the_ones_attacks_are_trained_on():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 20, (3, 5, 7, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 7)
    expected = logit_confidence(
        jnp.asarray(logits), jnp.broadcast_to(jnp.asarray(labels), (3, 5, 7))
    )
    got = margins(logits, labels)
    assert got.shape == (3, 5, 7)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(margins(logits[1, 2], labels), got[1, 2])
    np.testing.assert_allclose(margins(logits + 1e4, labels), got, atol=0.01)


def test_logits_far_apart_do_not_saturate():
    got = margins([[1000.0, 0.0, 0.0], [-1000.0, 0.0, -np.inf]], [0, 0])
    np.testing.assert_allclose(got, [1000 - np.log(2), -1000], rtol=1e-12)


def test_margins_from_probabilities_agrees_with_logits():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 4, (6, 9, 5)), rng.integers(0, 5, 9)
    probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    got = margins_from_probs(probs, labels)
    np.testing.assert_allclose(got, margins(logits, labels), rtol=1e-9)
    # 1 - p_y is 0 in float32; the other probabilities still tell the models apart.
    sure = np.array([[1.0, 1e-12], [1.0, 1e-20]], np.float32)
    got = margins_from_probs(sure, [0, 0])
    np.testing.assert_allclose(got, np.log([1e12, 1e20]), rtol=1e-6)
    assert abs(margins_from_probs([[0.0, 1.0]], [0])[0] + 69.08) < 0.01


def test_rows_that_are_no_probabilities_are_refused():
    with pytest.raises(InputError, match="no probabilities"):
        margins_from_probs([[3.0, 1.0]], [0])
