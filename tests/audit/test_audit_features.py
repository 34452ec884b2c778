"""Features against loops in plain Python, and the checks all audits share."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_unlearn import audit
from jax_unlearn.errors import InputError


def random_probs(seed, rows, classes, sharpness=3.0):
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(rows, classes))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True), rng.integers(0, classes, rows)


def loop_modified_entropy(row, label):
    total = -(1 - row[label]) * math.log(row[label])
    for k, p in enumerate(row):
        if k != label:
            total -= p * math.log(1 - p)
    return total


def test_modified_entropy_of_the_two_rows_that_public_code_gets_wrong():
    probs, labels = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]), np.array([0, 1])
    # The public fault, rebuilt: log p for log(1 - p), and every label of the batch
    # applied to every row.
    flipped = probs.copy()
    flipped[:, labels] = 1 - probs[:, labels]
    faulty = -(flipped * np.log(probs)).sum(axis=1)
    np.testing.assert_allclose(faulty, [1.625, 2.347], atol=5e-4)
    ours = audit.modified_entropy(probs, labels)
    np.testing.assert_allclose(ours, [0.162, 0.066], atol=5e-4)
    by_hand = [
        -0.3 * math.log(0.7) - 0.2 * math.log(0.8) - 0.1 * math.log(0.9),
        -0.2 * math.log(0.8) - 0.2 * math.log(0.9),
    ]
    np.testing.assert_allclose(ours, by_hand, rtol=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 7))
def test_features_match_loops(seed, rows, classes):
    probs, labels = random_probs(seed, rows, classes)
    m_entropy = [
        loop_modified_entropy(p, y) for p, y in zip(probs, labels, strict=True)
    ]
    np.testing.assert_allclose(
        audit.modified_entropy(probs, labels), m_entropy, rtol=1e-9, atol=1e-12
    )
    entropy = [-sum(v * math.log(v) for v in p) for p in probs]
    np.testing.assert_allclose(audit.entropy(probs), entropy, rtol=1e-9, atol=1e-12)
    own = [p[y] for p, y in zip(probs, labels, strict=True)]
    np.testing.assert_array_equal(audit.true_class_confidence(probs, labels), own)
    np.testing.assert_allclose(
        audit.true_class_loss(probs, labels), [-math.log(v) for v in own], rtol=1e-12
    )


@given(st.integers(0, 10_000))
def test_a_row_has_the_same_value_in_any_batch(seed):
    probs, labels = random_probs(seed, 9, 4)
    order = np.random.default_rng(seed).permutation(9)
    for feature in (audit.modified_entropy, audit.true_class_loss):
        whole = feature(probs, labels)
        alone = [feature(probs[i : i + 1], labels[i : i + 1])[0] for i in range(9)]
        np.testing.assert_array_equal(whole, alone)
        np.testing.assert_array_equal(
            feature(probs[order], labels[order]), whole[order]
        )
    whole = audit.entropy(probs)
    np.testing.assert_array_equal(audit.entropy(probs[order]), whole[order])


def test_certain_outputs_stay_finite():
    probs = np.eye(3)
    floor = -math.log(1e-30)
    np.testing.assert_array_equal(audit.entropy(probs), 0)
    np.testing.assert_array_equal(audit.modified_entropy(probs, [0, 1, 2]), 0)
    np.testing.assert_allclose(
        audit.modified_entropy(probs, [1, 2, 0]), 2 * floor, rtol=1e-12
    )
    np.testing.assert_allclose(audit.true_class_loss(probs, [1, 2, 0]), floor)
    np.testing.assert_allclose(audit.entropy(np.full((1, 8), 1 / 8)), math.log(8))


def test_float32_arrays_of_jax_are_taken():
    probs, labels = random_probs(0, 6, 5)
    ours = audit.modified_entropy(jnp.asarray(probs, "float32"), jnp.asarray(labels))
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, audit.modified_entropy(probs, labels), rtol=1e-4)


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        ([[0.5, np.nan]], [0], r"probs\[0\]=.*nan.*diverged"),
        ([[2.0, 3.0]], [0], r"probs\[0\] sums to 5.*softmax"),
        ([[0.5, 0.5], [-0.5, 1.5]], [0, 0], r"probs\[1\].*minimum -0.5"),
        ([[0.5, 0.5]], [2], r"labels\[0\]=2 is outside 0..1"),
        ([[0.5, 0.5]], [-1], r"labels\[0\]=-1 is outside 0..1"),
        ([[0.5, 0.5]], [0, 1], r"labels.shape=\(2,\) must be \(1,\)"),
        ([[0.5, 0.5]], [0.0], r"labels.dtype=float64"),
        ([[1.0]], [0], r"under 2 classes.*1 - p and p"),
        ([0.5, 0.5], [0], r"probs.shape=\(2,\) must have 2 axes"),
        (np.zeros((0, 3)), [], r"probs.shape=\(0, 3\) is empty"),
        ([[0.5, 0.5], [1.0]], [0, 1], r"probs of type list is no array"),
    ],
)
def test_what_is_no_prediction_is_refused(probs, labels, message):
    for feature in (audit.true_class_confidence, audit.modified_entropy):
        with pytest.raises(InputError, match=message):
            feature(probs, labels)
