"""Features of membership attacks: against float64, the audit, and at the extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp
from toys import close, softmax64

from jax_unlearn import membership
from jax_unlearn.audit import features as audit_features
from jax_unlearn.errors import InputError
from jax_unlearn.losses import cross_entropy, margin, true_class_probability

SETS = {
    "confidence": membership.confidence_features,
    "entropy": membership.entropy_features,
    "logit_confidence": membership.logit_confidence_features,
    "sorted_softmax": membership.sorted_softmax,
}


def every(logits, labels):
    """Return the features of all sets side by side."""
    return jnp.concatenate([phi(logits, labels) for phi in SETS.values()], axis=-1)


COMPILED = jax.jit(every)


def draw(seed, size=20, classes=5, scale=3.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=scale, size=(size, classes)).astype(np.float32)
    return logits, rng.integers(0, classes, size).astype(np.int32)


def confidence64(logits, labels):
    rows = np.arange(len(labels))
    rest = logits.astype(np.float64)
    own = rest[rows, labels].copy()
    rest[rows, labels] = -np.inf
    return own - logsumexp(rest, axis=1)


def modified64(logits, labels):
    """By the definition, every log(1 − p_k) as a log-sum of the other classes."""
    logs = log_softmax(logits.astype(np.float64), axis=1)
    total = np.zeros(len(labels))
    for k in range(logits.shape[1]):
        rest = logsumexp(np.delete(logs, k, axis=1), axis=1)
        own = -np.exp(rest) * logs[:, k]
        total += np.where(labels == k, own, -np.exp(logs[:, k]) * rest)
    return total


@jax.jit
def singles(logits, labels):
    """Return every feature that is one number a sample."""
    named = {
        "loss": cross_entropy,
        "probability": true_class_probability,
        "logit_confidence": membership.logit_confidence,
        "entropy": membership.entropy,
        "modified_entropy": membership.modified_entropy,
    }
    return {name: f(logits, labels) for name, f in named.items()}


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_features_equal_float64(scale):
    logits, labels = draw(0, scale=scale)
    size = max(1.0, np.abs(logits).max())
    got = singles(logits, labels)
    close(got["logit_confidence"], confidence64(logits, labels), scale=size)
    close(got["modified_entropy"], modified64(logits, labels), scale=size)
    probs = softmax64(logits)
    entropy = -(probs * log_softmax(logits.astype(np.float64), 1)).sum(1)
    close(got["entropy"], entropy, scale=size)
    largest = -np.sort(-probs, axis=1)
    close(membership.sorted_softmax(logits, top=5), largest, scale=size)
    close(membership.sorted_softmax(logits), largest[:, :3], scale=size)


def test_the_audit_computes_the_same_from_probabilities():
    logits, labels = draw(1)
    probs = softmax64(logits)
    size = np.abs(logits).max()
    got = singles(logits, labels)
    for name, theirs in [
        ("loss", audit_features.true_class_loss(probs, labels)),
        ("probability", audit_features.true_class_confidence(probs, labels)),
        ("modified_entropy", audit_features.modified_entropy(probs, labels)),
        ("entropy", audit_features.entropy(probs)),
    ]:
        close(got[name], theirs, scale=size)


def test_modified_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]))
    got = membership.modified_entropy(logits, jnp.array([0, 2]))
    right = -(0.3 * np.log(0.7) + 0.2 * np.log(0.8) + 0.1 * np.log(0.9))
    wrong = -(0.9 * np.log(0.1) + 0.7 * np.log(0.3) + 0.2 * np.log(0.8))
    close(got, [right, wrong])
    assert round(right, 3) == 0.162


@jax.jit
def derivatives(logits, labels):
    return jax.jacrev(every)(logits, labels), jax.hessian(every)(logits, labels)


@pytest.mark.parametrize("size", [1e4, 1e6])
def test_saturated_logits_give_exact_finite_values_and_gradients(size):
    logits = jnp.array([[size, 0.0, -size]] * 3, jnp.float32)
    labels = jnp.arange(3)
    got = singles(logits, labels)
    close(got["logit_confidence"], [size, -size, -2 * size])
    # Sure and wrong: (1 − p_y)(−log p_y) + p_0 (−log(1 − p_0)).
    close(got["modified_entropy"], [0.0, 2 * size, 3 * size])
    close(got["entropy"], [0.0] * 3)
    for derivative in derivatives(logits, labels):
        assert np.isfinite(derivative).all()
    slope = jax.grad(lambda x: membership.logit_confidence(x, labels).sum())(logits)
    np.testing.assert_allclose(slope, [[1, -1, 0], [-1, 1, 0], [-1, 0, 1]])


def test_one_sample_at_a_time_is_the_batch():
    logits, labels = (jnp.asarray(x) for x in draw(2))
    single = jax.jit(jax.vmap(every))(logits, labels)
    assert single.shape == (20, 3 + 3 + 1 + 3)
    np.testing.assert_allclose(single, COMPILED(logits, labels), rtol=1e-6, atol=1e-6)


def test_bfloat16_logits_give_float32_features_of_the_same_values():
    logits, labels = (jnp.asarray(x) for x in draw(3))
    half = logits.astype(jnp.bfloat16)
    got = COMPILED(half, labels)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, COMPILED(half.astype(jnp.float32), labels))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50))
def test_invariances(seed, shift):
    logits, labels = draw(seed)
    rng = np.random.default_rng(seed)
    rows, classes = rng.permutation(20), rng.permutation(5)
    relabelled = np.argsort(classes)[labels].astype(np.int32)
    base = np.asarray(COMPILED(jnp.asarray(logits), jnp.asarray(labels)))
    moved = COMPILED(jnp.asarray(logits) + jnp.float32(shift), jnp.asarray(labels))
    np.testing.assert_allclose(moved, base, rtol=1e-4, atol=1e-4)
    order = COMPILED(jnp.asarray(logits[rows]), jnp.asarray(labels[rows]))
    np.testing.assert_allclose(order, base[rows], rtol=1e-6, atol=1e-6)
    renamed = COMPILED(jnp.asarray(logits[:, classes]), jnp.asarray(relabelled))
    np.testing.assert_allclose(renamed, base, rtol=1e-5, atol=2e-5)


def test_sets_hold_what_they_say():
    logits, labels = (jnp.asarray(x) for x in draw(4))
    got, one = COMPILED(logits, labels), singles(logits, labels)
    expected = [
        *(one["loss"], one["probability"], margin(logits, labels)),
        *(one["entropy"], one["modified_entropy"], one["loss"]),
        one["logit_confidence"],
    ]
    np.testing.assert_allclose(got[:, :7].T, expected, rtol=1e-6, atol=1e-6)


def test_sorted_softmax_keeps_all_of_few_classes():
    assert membership.sorted_softmax(jnp.zeros((4, 2))).shape == (4, 2)


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"logits.shape=\(2, 1\)"):
        membership.confidence_features(jnp.zeros((2, 1)), jnp.zeros(2, jnp.int32))
    with pytest.raises(InputError, match=r"labels.shape=\(3,\) do not fit"):
        membership.logit_confidence(jnp.zeros((2, 4)), jnp.zeros(3, jnp.int32))
    with pytest.raises(InputError, match="top=0"):
        membership.sorted_softmax(jnp.zeros((2, 4)), top=0)
    with pytest.raises(InputError, match="give at least one"):
        membership.stack()
