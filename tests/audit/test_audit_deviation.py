"""Deviation from Retrain by sample, class and group, against loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_unlearn import audit
from jax_unlearn.errors import InputError

unit = st.floats(0, 1)
pairs = st.lists(st.tuples(unit, unit), min_size=1, max_size=30)


@given(pairs)
def test_deviation_is_antisymmetric_and_its_mean_size_a_distance(values):
    p, q = np.array(values).T
    deviation = audit.unlearning_deviation(p, q)
    np.testing.assert_array_equal(deviation, -audit.unlearning_deviation(q, p))
    size = audit.per_sample_deviation(p, q)
    assert size == audit.per_sample_deviation(q, p)
    assert abs(deviation.mean()) <= size + 1e-12
    assert 0 <= size <= 1
    assert audit.per_sample_deviation(p, p) == 0


def test_errors_of_opposite_sign_cancel_in_the_mean_only():
    p, q = np.array([1.0, 0.0, 1.0, 0.0]), np.full(4, 0.5)
    assert audit.unlearning_deviation(p, q).mean() == 0
    assert audit.per_sample_deviation(p, q) == 0.5


@given(pairs, st.floats(0, 1))
def test_counts_add_up_and_match_a_loop(values, tolerance):
    p, q = np.array(values).T
    counts = audit.deviation_counts(
        audit.unlearning_deviation(p, q), tolerance=tolerance
    )
    under = sum(a - b > tolerance for a, b in values)
    over = sum(b - a > tolerance for a, b in values)
    assert counts == (under, len(values) - under - over, over)


@given(st.integers(0, 10_000))
def test_class_means_match_a_loop(seed):
    rng = np.random.default_rng(seed)
    deviation, labels = rng.uniform(-1, 1, 20), rng.integers(0, 6, 20)
    got = audit.deviation_by_class(deviation, labels, 8)
    for k in range(8):
        members = deviation[labels == k]
        assert got.count[k] == len(members)
        if len(members):
            assert abs(got.mean[k] - members.mean()) < 1e-12
        else:
            assert np.isnan(got.mean[k])


@given(st.integers(0, 10_000))
def test_groups_are_thirds_of_the_classes_that_have_forget_samples(seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[1, 4, 6], rng.integers(0, 9, 40)])
    deviation = rng.uniform(-1, 1, labels.size)
    counts = np.bincount(labels, minlength=12)
    groups = audit.deviation_by_group(deviation, labels, counts)
    assert list(groups) == ["head", "mid", "tail"]
    order = [c for group in groups.values() for c in group.classes]
    expected = sorted(np.flatnonzero(counts), key=lambda c: (-counts[c], c))
    assert order == expected
    sizes = [len(group.classes) for group in groups.values()]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    for group in groups.values():
        members = deviation[[label in group.classes for label in labels]]
        assert group.count == len(members)
        assert abs(group.mean - members.mean()) < 1e-12
    total = sum(group.mean * group.count for group in groups.values())
    assert abs(total - deviation.sum()) < 1e-9


def test_a_group_without_samples_has_no_mean():
    groups = audit.deviation_by_group([0.5], [0], [9, 5, 1])
    assert groups["head"] == ([0], 0.5, 1)
    assert np.isnan(groups["tail"].mean)
    assert groups["tail"].count == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: audit.unlearning_deviation([0.5], [0.5, 0.1]), r"len\(conf\)=1"),
        (lambda: audit.unlearning_deviation([], []), "conf.*empty"),
        (lambda: audit.unlearning_deviation([1.5], [0.5]), r"conf\[0\]=1.5.*outside"),
        (lambda: audit.per_sample_deviation([0.5], [-0.5]), "retrained_conf"),
        (lambda: audit.deviation_counts([0.5], tolerance=-1), "tolerance=-1"),
        (lambda: audit.deviation_counts([0.5], tolerance=np.nan), "tolerance=nan"),
        (lambda: audit.deviation_by_class([0.5], [3], 3), r"labels\[0\]=3"),
        (lambda: audit.deviation_by_group([0.5], [1], [3, 0, 2, 1]), "forget_counts 0"),
        (lambda: audit.deviation_by_group([0.5], [0], [3, 0, 2]), "names 2 classes"),
        (lambda: audit.deviation_by_group([0.5], [0], [3.5, 1, 2]), "whole number"),
        (lambda: audit.deviation_by_group([0.5], [0], [3, -1, 2]), "whole number"),
    ],
)
def test_unusable_deviations_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
