"""Rates and ROC curves against scipy, scikit-learn and two Gaussians."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from jax_unlearn.audit.rates import (
    bootstrap_interval,
    clopper_pearson,
    roc_auc,
    roc_curve,
    tpr_at_fpr,
)
from jax_unlearn.errors import InputError

# Few distinct values, so that ties within and between the kinds are common.
scores = st.lists(st.integers(-4, 4), min_size=1, max_size=30).map(
    lambda values: np.array(values, float)
)


@pytest.mark.parametrize(("s", "t"), [(0, 1), (1, 1), (0, 30), (7, 30), (30, 30)])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_clopper_pearson_is_scipys_exact_interval(s, t, level):
    reference = stats.binomtest(s, t).proportion_ci(level, method="exact")
    expected = (100 * reference.low, 100 * reference.high)
    np.testing.assert_allclose(
        clopper_pearson(s, t, level=level), expected, rtol=1e-9, atol=1e-12
    )


def test_clopper_pearson_holds_the_truth_as_often_as_it_says():
    t = 25
    intervals = np.array([clopper_pearson(s, t, level=0.9) for s in range(t + 1)])
    for p in np.linspace(0.01, 0.99, 99):
        inside = (intervals[:, 0] <= 100 * p) & (100 * p <= intervals[:, 1])
        covered = stats.binom.pmf(np.arange(t + 1), t, p)[inside].sum()
        assert 0.9 <= covered <= 1 + 1e-12


def test_bootstrap_interval_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.gamma(2.0, 1.0, 80), rng.gamma(2.0, 1.0, 40)
    reference = stats.bootstrap(
        (x, y),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        confidence_level=0.9,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    got = bootstrap_interval(
        lambda a, b: a.mean() - b.mean(), x, y, level=0.9, resamples=4000
    )
    np.testing.assert_allclose(got, reference, atol=0.04)
    # Resampled independently, the difference varies as much as both means together.
    spread = np.sqrt(x.var() / 80 + y.var() / 40) * stats.norm.ppf([0.05, 0.95])
    np.testing.assert_allclose(np.array(got) - x.mean() + y.mean(), spread, atol=0.05)


def test_bootstrap_keeps_rows_together_and_is_seeded():
    rows = np.random.default_rng(0).normal(size=(30, 2))
    rows[:, 1] = -rows[:, 0]
    low, high = bootstrap_interval(lambda a: a.sum(), rows)
    assert abs(low) < 1e-12
    assert abs(high) < 1e-12
    draws = [bootstrap_interval(np.mean, rows[:, 0], seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    narrow = bootstrap_interval(np.mean, rows[:, 0], level=0.5)
    assert draws[0][0] < narrow[0] < narrow[1] < draws[0][1]


@given(scores, scores)
def test_curve_and_area_are_scikit_learns(positive, negative):
    truth = np.repeat([1, 0], [len(positive), len(negative)])
    both = np.concatenate([positive, negative])
    fpr, tpr, _ = metrics.roc_curve(truth, both, drop_intermediate=False)
    got = roc_curve(positive, negative)
    np.testing.assert_allclose(got.fpr, fpr, atol=1e-12)
    np.testing.assert_allclose(got.tpr, tpr, atol=1e-12)
    area = roc_auc(positive, negative)
    np.testing.assert_allclose(area, metrics.roc_auc_score(truth, both), atol=1e-12)
    np.testing.assert_allclose(np.trapezoid(got.tpr, got.fpr), area, atol=1e-12)


@given(scores, scores)
def test_curve_holds_the_share_above_each_threshold(positive, negative):
    got = roc_curve(positive, negative)
    assert (got.fpr[0], got.tpr[0], got.fpr[-1], got.tpr[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(got.thresholds) < 0)
    assert np.all(np.diff(got.fpr) + np.diff(got.tpr) > 0)
    for fpr, tpr, threshold in zip(*got, strict=True):
        assert abs(fpr - np.mean(negative > threshold)) < 1e-12
        assert abs(tpr - np.mean(positive > threshold)) < 1e-12


@given(scores, scores, st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 1.0]))
def test_invariants_of_area_and_rate(positive, negative, fpr):
    area = roc_auc(positive, negative)
    rate = tpr_at_fpr(positive, negative, fpr=fpr)
    for f in (np.exp, lambda s: 3 * s - 7, np.cbrt):
        assert roc_auc(f(positive), f(negative)) == area
        assert tpr_at_fpr(f(positive), f(negative), fpr=fpr) == rate
    assert abs(roc_auc(negative, positive) + area - 1) < 1e-12
    assert abs(roc_auc(-negative, -positive) - area) < 1e-12
    assert tpr_at_fpr(positive, negative, fpr=min(1.0, fpr + 0.2)).value >= rate.value


@given(scores, scores, st.sampled_from([0.0, 0.01, 0.1, 0.29, 0.5, 1.0]))
def test_rate_is_the_best_of_all_allowed_thresholds(positive, negative, fpr):
    best = 0
    for threshold in (*positive, *negative, -np.inf):
        if np.sum(negative > threshold) <= fpr * len(negative) + 1e-9:
            best = max(best, int(np.sum(positive > threshold)))
    rate = tpr_at_fpr(positive, negative, fpr=fpr, level=0.8)
    assert (rate.successes, rate.trials) == (best, len(positive))
    assert rate.value == 100 * best / len(positive)
    assert rate[1:3] == clopper_pearson(best, len(positive), level=0.8)
    assert rate.low <= rate.value <= rate.high


def test_too_few_negatives_mean_false_positive_rate_zero():
    negative = np.arange(50.0)
    positive = [48.5, 49.0, 49.5, 60.0]
    assert tpr_at_fpr(positive, negative, fpr=0.01).successes == 2
    assert tpr_at_fpr(positive, negative, fpr=0.02).successes == 4
    assert tpr_at_fpr([1.0] * 9, [1.0] * 9, fpr=0.5).value == 0


def test_fractions_of_the_negatives_are_counted_without_rounding():
    # 0.29 · 100 < 29 in floating point; the 30th largest negative is 70.
    assert tpr_at_fpr([70.5], np.arange(100.0), fpr=0.29).successes == 1
    assert tpr_at_fpr([70.0], np.arange(100.0), fpr=0.29).successes == 0


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.5])
def test_two_gaussians(distance):
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(distance, 1, 40_000), rng.normal(0, 1, 40_000)
    area = stats.norm.cdf(distance / np.sqrt(2))
    assert abs(roc_auc(positive, negative) - area) < 0.01
    for fpr, tolerance in ((0.01, 1.5), (0.1, 1.5)):
        expected = 100 * stats.norm.sf(stats.norm.isf(fpr) - distance)
        rate = tpr_at_fpr(positive, negative, fpr=fpr)
        assert abs(rate.value - expected) < tolerance
        assert rate.high - rate.low < 1.5
    curve = roc_curve(positive, negative)
    at = np.linspace(0.05, 0.95, 7)
    expected = stats.norm.sf(stats.norm.isf(at) - distance)
    np.testing.assert_allclose(np.interp(at, curve.fpr, curve.tpr), expected, atol=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_bootstrapped_area_holds_the_area(seed):
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(0.5, 1, 40), rng.normal(0, 1, 60)
    low, high = bootstrap_interval(roc_auc, positive, negative, resamples=200)
    assert 0 <= low < roc_auc(positive, negative) < high <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clopper_pearson(0, 0), "trials=0 give no rate"),
        (lambda: clopper_pearson(3, 2), r"successes=3 is outside 0..2"),
        (lambda: clopper_pearson(1, 2, level=95), "level=95 must lie"),
        (lambda: bootstrap_interval(np.mean), r"samples=\(\)"),
        (lambda: bootstrap_interval(np.mean, []), r"samples\[0\].shape=\(0,\)"),
        (lambda: bootstrap_interval(np.mean, 3.0), r"samples\[0\].shape=\(\)"),
        (lambda: bootstrap_interval(np.mean, [1.0], resamples=0), "resamples=0"),
        (
            lambda: bootstrap_interval(np.mean, [np.nan]),
            r"statistic\[0\]=nan on 1000 of 1000",
        ),
        (lambda: bootstrap_interval(np.mean, [1.0], level=1.0), "level=1.0"),
        (lambda: roc_curve([np.nan], [0.0]), r"positive\[0\]=nan"),
        (lambda: roc_auc([1.0], []), r"negative.shape=\(0,\) is empty"),
        (lambda: tpr_at_fpr([1.0], [0.0], fpr=1.5), r"fpr=1.5 is outside 0..1"),
        (lambda: tpr_at_fpr([1.0], [0.0], fpr=0.1, level=0.0), "level=0.0"),
    ],
)
def test_unusable_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
