"""Forget samples beside unseen ones: areas, chance and words, by hand."""

import numpy as np
import pytest

from jax_unlearn.data import Dataset, Examples
from jax_unlearn.lab import Request
from jax_unlearn.lab.modalities.classification.beside import (
    against_unseen,
    beside_all,
    said_beside,
    stands,
)
from jax_unlearn.lab.modalities.classification.figures import Outputs

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 1])
TEST = np.array([0, 1, 1])
DATA = Dataset(
    "toy",
    Examples(np.zeros((10, 1, 1, 1), np.uint8), LABELS.astype(np.int32)),
    Examples(np.zeros((3, 1, 1, 1), np.uint8), TEST.astype(np.int32)),
    2,
    ("a", "b"),
)


def outputs(sure, test=(0.9, 0.9, 0.2)) -> Outputs:
    """Return outputs by the probability of each sample's true class."""

    def of(values, labels):
        probs = np.tile(1 - np.asarray(values)[:, None], (1, 2))
        probs[np.arange(len(labels)), labels] = values
        return probs

    return Outputs(of(sure, LABELS), of(test, TEST))


def request(forget, unseen) -> Request:
    retain = np.setdiff1d(np.arange(10), [*forget, *unseen])
    return Request(np.array(forget), retain, np.array(unseen, int))


def test_classes_are_compared_with_their_own():
    # class 0: .9, .3 against .5 (one of two above); class 1: .8 against .2, .8
    sure = np.array([0.9, 0.3, 0.5, 0.5, 0.8, 0.5, 0.2, 0.8, 0.5, 0.5])
    asked = request([0, 1, 4], [2, 6, 7])
    found = against_unseen(DATA, asked, {"new": outputs(sure)})
    assert found["of"] == "unseen"
    assert found["samples"] == {"forget": 3, "unseen": 3}
    one = found["models"]["new"]
    assert one["auc"] == pytest.approx(2 / 3 * 0.5 + 1 / 3 * 0.75)
    assert one["right"] is None
    assert one["test"] == pytest.approx(200 / 3)
    # the rank-sum test of 2 beside 1 and of 1 beside 2 samples: (N + M + 1) / (12 N M)
    error = np.sqrt((4 / 9 + 1 / 9) * 4 / 24)
    assert found["high"] == pytest.approx(min(0.5 + 1.96 * error, 1), abs=1e-6)
    assert stands(found, "new") == "like"
    assert "is no surer of the 3 forget samples" in said_beside(found, "new")


def test_test_samples_stand_in_where_nothing_was_held_out():
    sure = np.full(10, 0.95)
    found = against_unseen(DATA, request([0, 4], []), {"new": outputs(sure)})
    assert found["of"] == "test"
    assert found["models"]["new"]["auc"] == 1.0
    assert "test samples that it never saw" in said_beside(found, "new")


def test_a_class_that_goes_is_judged_by_what_is_right():
    sure = np.array([0.9, 0.2, 0.2, 0.2, 0.8, 0.5, 0.2, 0.8, 0.2, 0.5])
    found = against_unseen(DATA, request([0, 1, 2, 3, 8], [4]), {"new": outputs(sure)})
    assert found["low"] is None
    one = found["models"]["new"]
    assert one["auc"] is None
    assert one["right"] == pytest.approx(20.0)
    assert one["test"] == 50.0  # of the class that stays
    assert stands(found, "new") == "remembered"
    assert "gets 20.0 % of the samples of the forgotten classes right" in said_beside(
        found, "new"
    )


@pytest.mark.parametrize(
    ("sure", "stand", "words"),
    [(0.99, "remembered", "still surer"), (0.01, "over", "less sure")],
)
def test_what_stands_out_is_said(sure, stand, words):
    labels = np.zeros(200, np.int32)
    train = Examples(np.zeros((200, 1, 1, 1), np.uint8), labels)
    data = DATA._replace(train=train)
    probs = np.random.default_rng(0).uniform(0.1, 0.9, 200)
    probs[:50] = sure
    given = Outputs(np.stack([probs, 1 - probs], 1), outputs(np.ones(10)).test)
    asked = Request(np.arange(50), np.arange(50, 100), np.arange(100, 200))
    found = against_unseen(data, asked, {"new": given})
    assert stands(found, "new") == stand
    assert words in said_beside(found, "new")


def test_three_retrains_make_an_audit_with_intervals():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.1, 0.9, 10)  # retrainings that are alike: else all is inside
    drawn = [outputs(sure + rng.uniform(-0.02, 0.02, 10)) for _ in range(4)]
    asked = request([0, 1, 4], [2, 6])
    found, _ = beside_all(DATA, asked, {"new": drawn[0]}, drawn[1:])
    assert (found.retrained, found.models) == (3, {"new": 1})
    assert found.figures["new"]["ua"].null_low is not None
