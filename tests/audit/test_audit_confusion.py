"""Interclass confusion against a confusion matrix, and on a model that remembers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

from jax_unlearn.audit.features import interclass_confusion
from jax_unlearn.data import confuse_classes
from jax_unlearn.errors import InputError


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
