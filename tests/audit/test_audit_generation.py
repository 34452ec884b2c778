"""Figures of generated images against closed forms and scipy."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_unlearn import audit
from jax_unlearn.errors import InputError


def moments(seed, size=5, count=40, scale=1.0):
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((size, size))
    return audit.feature_moments(scale * rng.standard_normal((count, size)) @ mix)


def test_moments_are_those_of_numpy():
    values = np.random.default_rng(0).standard_normal((20, 3))
    found = audit.feature_moments(values.astype(np.float32))
    np.testing.assert_allclose(found.mean, values.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.cov, np.cov(values.T), atol=1e-5)
    assert found.count == 20


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_agrees_with_the_matrix_square_root(seed):
    a, b = moments(seed), moments(seed + 10, scale=2.0)
    root = scipy.linalg.sqrtm(a.cov @ b.cov).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.cov + b.cov - 2 * root)
    assert audit.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert audit.frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)
    assert audit.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 5), min_size=2, max_size=4), st.floats(-3, 3))
def test_diagonal_covariances_have_a_closed_form(variances, shift):
    first = np.array(variances)
    second = first[::-1]
    a = audit.Moments(np.zeros(len(first)), np.diag(first), 9)
    b = audit.Moments(np.full(len(first), shift), np.diag(second), 9)
    expected = len(first) * shift**2
    expected += ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    assert audit.frechet_distance(a, b) == pytest.approx(expected, abs=1e-6)


def test_fewer_images_than_features_do_no_harm():
    a, b = moments(0, size=30, count=5), moments(1, size=30, count=5)
    assert np.isfinite(audit.frechet_distance(a, b))


def test_classes_left_out_do_not_count():
    rng = np.random.default_rng(0)
    values, labels = rng.standard_normal((60, 4)), np.repeat([0, 1, 2], 20)
    changed = values.copy()
    changed[labels == 2] += 100.0
    found = [
        audit.class_frechet(v, labels, values, labels, exclude=[2])
        for v in (values, changed)
    ]
    assert found[0] == found[1] == pytest.approx(0, abs=1e-9)
    assert audit.class_frechet(changed, labels, values, labels) > 100


def test_shares_are_counted():
    asked = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    seen = np.array([0, 1, 1, 2, 1, 0, 2, 2, 2, 1])
    found = audit.generation_metrics(seen, asked, forget=[0], num_classes=4)
    assert found.ua == 75.0
    assert found.retained_accuracy == pytest.approx(100 * 4 / 6)
    np.testing.assert_allclose(found.by_class[:3], [25, 50, 75])
    assert np.isnan(found.by_class[3])
    assert found.confusion.sum() == 10
    assert found.confusion[0].tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: audit.feature_moments([[1.0]]),
            "number of images=1 must be at least 2",
        ),
        (
            lambda: audit.feature_moments([[1.0], [np.nan]]),
            r"features\[1, 0\]=nan \(1 of 2 values not finite\)",
        ),
        (
            lambda: audit.frechet_distance(moments(0, 3), moments(0, 4)),
            "take both from the same network",
        ),
        (
            lambda: audit.generation_metrics([0], [0, 1], forget=[0], num_classes=2),
            "give one label a sample",
        ),
        (
            lambda: audit.generation_metrics([0, 1], [0, 1], forget=[5], num_classes=2),
            r"forget\[0\]=5 is outside 0..1",
        ),
        (
            lambda: audit.generation_metrics([1, 1], [1, 1], forget=[0], num_classes=2),
            "no image of a forgotten class",
        ),
        (
            lambda: audit.generation_metrics([0, 0], [0, 0], forget=[0], num_classes=2),
            "no image of another class",
        ),
        (
            lambda: audit.class_frechet(
                np.ones((3, 2)), [0, 0, 0], np.ones((3, 2)), [0, 0, 0], exclude=[0]
            ),
            "generated: 0 images beside",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
