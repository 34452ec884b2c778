"""Features, margins and confusion against loops, scikit-learn and attacks' own."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

from jax_unlearn import audit
from jax_unlearn.audit.features import interclass_confusion, margins, margins_from_probs
from jax_unlearn.data import confuse_classes
from jax_unlearn.errors import InputError
from jax_unlearn.membership.features import logit_confidence


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


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_share_matches_the_confusion_matrix(seed, rows):
    rng = np.random.default_rng(seed)
    outputs, labels = rng.normal(size=(rows, 4)), rng.integers(0, 4, rows)
    labels[0] = 3
    matrix = confusion_matrix(labels, outputs.argmax(axis=1), labels=range(4))
    expected = 100 * (matrix[1, 3] + matrix[3, 1]) / (matrix[1].sum() + matrix[3].sum())
    value = interclass_confusion(outputs, labels, (1, 3))
    assert abs(value - expected) < 1e-9
    assert interclass_confusion(outputs, labels, (3, 1)) == value


def test_errors_that_are_not_of_the_pair_do_not_count():
    one_hot = np.eye(3)
    assert interclass_confusion(one_hot[[2, 2, 1, 0]], [0, 1, 2, 2], (0, 1)) == 0
    assert interclass_confusion(one_hot[[1, 0, 0]], [0, 1, 1], (0, 1)) == 100
    assert interclass_confusion(one_hot[[1, 0, 1, 2]], [0, 0, 1, 1], (0, 1)) == 25


def test_a_model_that_remembers_exchanged_labels_is_found_out():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    labels = np.repeat([0, 1, 2], 60)
    inputs = centres[labels] + 0.5 * rng.normal(size=(180, 2))
    ids = np.concatenate([np.arange(0, 30), np.arange(60, 90)])
    confused = confuse_classes(labels, ids, pair=(0, 1))
    kept = np.setdiff1d(np.arange(180), ids)
    unseen = centres[labels] + 0.5 * rng.normal(size=(180, 2))
    poisoned = KNeighborsClassifier(1).fit(inputs, confused)
    retrained = KNeighborsClassifier(1).fit(inputs[kept], labels[kept])

    def confusion(model, samples, true):
        return interclass_confusion(model.predict_proba(samples), true, (0, 1))

    assert confusion(poisoned, inputs[ids], labels[ids]) == 100
    assert confusion(retrained, inputs[ids], labels[ids]) == 0
    assert confusion(poisoned, unseen, labels) > 30
    assert confusion(retrained, unseen, labels) == 0


@pytest.mark.parametrize(
    ("labels", "pair", "message"),
    [
        ([0, 1], (0, 0), "names one class twice"),
        ([0, 1], (0, 3), r"pair\[1\]=3 is outside 0..2"),
        ([0, 1], (-1, 0), r"pair\[0\]=-1 is outside"),
        ([0, 1], (0, 1, 2), "must be two class numbers"),
        ([0, 1], (0.0, 1.0), "must be two class numbers"),
        ([0, 0], (1, 2), "has no sample among the 2 labels"),
        ([0, 5], (0, 1), r"labels\[1\]=5 is outside"),
        ([0], (0, 1), "one label a sample"),
    ],
)
def test_unusable_pairs_are_refused(labels, pair, message):
    with pytest.raises(InputError, match=message):
        interclass_confusion(np.eye(3)[:2], labels, pair)


def test_outputs_of_a_diverged_model_are_refused():
    with pytest.raises(InputError, match=r"outputs\[1\].*diverged"):
        interclass_confusion([[0.0, 1.0], [np.nan, 0.0]], [0, 1], (0, 1))
