"""Labels exchanged between two classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_unlearn.data import confuse_classes, forget_split
from jax_unlearn.errors import InputError


@given(
    st.integers(0, 10_000),
    st.sampled_from([np.uint8, np.int32, np.int64]),
    st.floats(0.2, 1.0),
)
def test_exactly_the_samples_named_change_class(seed, dtype, fraction):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[1, 3, 0], rng.integers(0, 5, 60)]).astype(dtype)
    split = forget_split(
        labels, kind="class", classes=(1, 3), fraction=fraction, seed=seed
    )
    before = labels.copy()
    confused = confuse_classes(labels, rng.permutation(split.forget), (3, 1))
    np.testing.assert_array_equal(labels, before)
    assert confused.dtype == dtype
    for i in range(len(labels)):
        expected = labels[i]
        if i in split.forget:
            expected = {1: 3, 3: 1}[int(labels[i])]
        assert confused[i] == expected
    again = confuse_classes(confused, split.forget, (1, 3))
    np.testing.assert_array_equal(again, labels)


def test_read_only_labels_are_copied():
    labels = np.array([0, 1, 2, 0])
    labels.setflags(write=False)
    assert confuse_classes(labels, [0], (0, 1)).tolist() == [1, 1, 2, 0]


@pytest.mark.parametrize(
    ("labels", "ids", "pair", "message"),
    [
        ([0, 1, 2], [0, 2], (0, 1), r"ids holds 2, of class 2 \(1 of 2"),
        ([0, 1, 2], [0, 3], (0, 1), r"ids\[1\]=3 is out of range"),
        ([0, 1, 2], [0, 0], (0, 1), "repeats"),
        ([0, 1, 2], [], (0, 1), "ids is empty"),
        ([0, 1, 2], [True, False, False], (0, 1), "True is not"),
        ([0, 1, 2], [0], (0, 0), "names one class twice"),
        ([0, 1, 2], [0], (0, 7), r"class 7 has no samples; choose among \[0, 1, 2\]"),
        ([0, 1, 2], [0], (0,), "must be two class numbers"),
        ([0, 1, 2], [0], (0.0, 1.0), "must be two class numbers"),
        ([0.0, 1.0], [0], (0, 1), "must be integers"),
        ([0, -1], [0], (0, 1), r"labels\[1\]=-1"),
        ([[0, 1]], [0], (0, 1), "must be a list"),
    ],
)
def test_mistakes_are_named(labels, ids, pair, message):
    with pytest.raises(InputError, match=message) as caught:
        confuse_classes(labels, ids, pair)
    assert "\n" not in str(caught.value)
