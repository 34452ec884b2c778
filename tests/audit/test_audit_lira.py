"""U-LiRA against a loop over samples and models, and ensembles of known distance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from jax_unlearn.audit.lira import (
    _resampled_auc,
    u_lira,
)
from jax_unlearn.audit.rates import roc_auc, tpr_at_fpr
from jax_unlearn.errors import InputError


def ensembles(seed, n, m, samples, shift=0.0, scale=1.0):
    """Confidences of samples with different means and deviations."""
    rng = np.random.default_rng(seed)
    mean, std = rng.normal(0, 3, samples), rng.uniform(0.5, 2, samples)
    return (
        mean + std * (shift + scale * rng.normal(size=(n, samples))),
        mean + std * rng.normal(size=(m, samples)),
    )


def area(positive, negative):
    truth = np.repeat([1, 0], [positive.size, negative.size])
    return roc_auc_score(truth, np.concatenate([positive.ravel(), negative.ravel()]))


def by_loop(unlearned, retrained, folds, fix_variance, seed):
    """Accuracy, AUC and pooled scores, one sample, fold and model at a time."""

    def deal(n):
        return np.random.default_rng(seed).permutation(np.arange(n) % folds)

    fold_u, fold_r = deal(len(unlearned)), deal(len(retrained))
    scores = [np.zeros_like(unlearned), np.zeros_like(retrained)]
    for fold in range(folds):
        fits = []
        for kind, held in ((unlearned, fold_u), (retrained, fold_r)):
            fit = [kind[held != fold, f] for f in range(kind.shape[1])]
            stds = np.array([np.std(s, ddof=1) for s in fit])
            if fix_variance:
                stds[:] = np.sqrt(np.mean(stds**2))
            fits.append([(np.mean(s), d) for s, d in zip(fit, stds, strict=True)])
        for out, kind, held in zip(
            scores, (unlearned, retrained), (fold_u, fold_r), strict=True
        ):
            for i in np.flatnonzero(held == fold):
                for f in range(kind.shape[1]):
                    out[i, f] = norm.logpdf(kind[i, f], *fits[0][f])
                    out[i, f] -= norm.logpdf(kind[i, f], *fits[1][f])
    held = [(scores[0][fold_u == k], scores[1][fold_r == k]) for k in range(folds)]
    accuracy = np.mean(
        [50 * ((p > 0).mean(axis=0) + (n < 0).mean(axis=0)) for p, n in held], axis=0
    )
    auc = np.mean([area(p, n) for p, n in held])
    samples = range(unlearned.shape[1])
    sample_auc = [np.mean([area(p[:, f], n[:, f]) for p, n in held]) for f in samples]
    return accuracy, auc, sample_auc, scores


@pytest.mark.parametrize(("n", "m", "folds"), [(6, 6, 2), (9, 7, 3), (8, 13, 4)])
@pytest.mark.parametrize("fix_variance", [False, True])
def test_u_lira_is_the_loop_over_samples_and_models(n, m, folds, fix_variance):
    u, r = ensembles(1, n, m, 5, shift=0.7, scale=0.8)
    got = u_lira(u, r, folds=folds, fix_variance=fix_variance, seed=3)
    accuracy, auc, sample_auc, scores = by_loop(u, r, folds, fix_variance, 3)
    np.testing.assert_allclose(got.per_example_accuracy, accuracy, rtol=1e-12)
    np.testing.assert_allclose(got.accuracy, accuracy.mean(), rtol=1e-12)
    np.testing.assert_allclose(got.per_example_auc, sample_auc, rtol=1e-12)
    np.testing.assert_allclose(got.auc, auc, rtol=1e-12)
    positive, negative = (s.ravel() for s in scores)
    assert got.tpr_1 == tpr_at_fpr(positive, negative, fpr=0.01)
    assert got.tpr_01 == tpr_at_fpr(positive, negative, fpr=0.001)
    assert got.tpr_1.trials == n * 5
    pooled = np.trapezoid(got.roc.tpr, got.roc.fpr)
    np.testing.assert_allclose(pooled, area(positive, negative), rtol=1e-9)
    assert got.models == (n, m)


@pytest.mark.parametrize("fix_variance", [False, True])
def test_one_distribution_gives_a_coin_toss_even_for_four_models(fix_variance):
    accuracies, aucs, pooled, in_sample = [], [], [], []
    for seed in range(6):
        u, r = ensembles(seed, 4, 4, 250)
        result = u_lira(u, r, fix_variance=fix_variance, seed=seed)
        accuracies.append(result.per_example_accuracy / 100)
        aucs.append(result.per_example_auc)
        pooled.append(result.auc)
        means, stds = zip(*((s.mean(0), s.std(0, ddof=1)) for s in (u, r)), strict=True)
        ratios = [
            norm.logpdf(s, means[0], stds[0]) - norm.logpdf(s, means[1], stds[1])
            for s in (u, r)
        ]
        in_sample.append(roc_auc(ratios[0].ravel(), ratios[1].ravel()))
    for values in (np.concatenate(accuracies), np.concatenate(aucs)):
        error = values.std() / np.sqrt(values.size)
        assert error < 0.01
        assert abs(values.mean() - 0.5) < 4 * error
    assert abs(np.mean(pooled) - 0.5) < 0.025
    assert np.mean(in_sample) > 0.65


def test_models_that_vary_as_a_whole_do_not_bias_the_null():
    # All samples move together: one AUC over four folds comes out near 0.46, the mean
    # of the folds' AUCs at 0.5.
    within, pooled = [], []
    for seed in range(200):
        u, r = np.random.default_rng(seed).normal(size=(2, 8, 1))
        result = u_lira(u + [0.0, 5.0], r + [0.0, 5.0], folds=4, seed=seed)
        within.append(result.auc)
        pooled.append(np.trapezoid(result.roc.tpr, result.roc.fpr))
    assert abs(np.mean(within) - 0.5) < 4 * np.std(within) / np.sqrt(200)
    short = np.subtract(within, pooled)
    assert short.mean() > 3 * short.std() / np.sqrt(200)


def test_the_same_models_twice_are_not_told_apart():
    u, _ = ensembles(0, 10, 10, 30)
    for folds in (2, 5):
        got = u_lira(u, u, folds=folds, seed=4)
        assert (got.accuracy, got.accuracy_low, got.accuracy_high) == (50, 50, 50)
        assert (got.auc, got.auc_low, got.auc_high) == (0.5, 0.5, 0.5)
        assert got.tpr_1.value == got.tpr_01.value == 0
        np.testing.assert_array_equal(got.per_example_accuracy, 50)


@pytest.mark.parametrize("distance", [0.5, 2.0])
@pytest.mark.parametrize("n", [400, 200])
def test_two_gaussians_of_known_distance(distance, n):
    u, r = ensembles(0, n, 400, 20, shift=distance)
    got = u_lira(u, r)
    assert abs(got.auc - norm.cdf(distance / np.sqrt(2))) < 0.02
    assert abs(got.accuracy - 100 * norm.cdf(distance / 2)) < 2
    assert abs(got.tpr_1.value - 100 * norm.sf(norm.isf(0.01) - distance)) < 4
    assert abs(np.mean(got.per_example_auc) - got.auc) < 0.02
    assert got.auc_low <= got.auc <= got.auc_high
    assert got.accuracy_low <= got.accuracy <= got.accuracy_high


def test_a_difference_of_spread_alone_is_found():
    u, r = ensembles(0, 400, 400, 20, scale=3.0)
    # The optimal rule calls |z| > c unlearned, c² = 2 log 3 / (1 - 1/9).
    c = np.sqrt(2 * np.log(3) / (1 - 1 / 9))
    expected = 50 * (2 * norm.sf(c / 3) + 1 - 2 * norm.sf(c))
    assert abs(u_lira(u, r).accuracy - expected) < 2
    assert abs(u_lira(u, r, fix_variance=True).accuracy - expected) < 6


def test_finds_what_a_population_attack_averages_away():
    # Half of the samples are under-forgotten, half over-forgotten by as much.
    u, r = ensembles(0, 32, 32, 40)
    shift = np.repeat([2.0, -2.0], 20)
    std = r.std(axis=0)
    u = u + shift * std
    assert abs(roc_auc(u.ravel(), r.ravel()) - 0.5) < 0.05
    got = u_lira(u, r)
    assert got.auc > 0.85
    assert got.accuracy > 75
    only = u_lira(np.where(shift > 0, u, r), r)
    assert only.per_example_accuracy[:20].min() > 70
    np.testing.assert_array_equal(only.per_example_accuracy[20:], 50)
    assert only.accuracy_high - only.accuracy_low > 5


def test_samples_on_which_models_agree_stay_finite():
    u, r = ensembles(0, 6, 8, 3)
    u[:, 0] = r[:, 0] = 4.0
    u[:, 1], r[:, 1] = 4.0, 4.5
    got = u_lira(u, r)
    assert got.per_example_accuracy[:2].tolist() == [50, 100]
    assert got.per_example_auc[:2].tolist() == [0.5, 1]
    assert np.all(np.isfinite(got.roc.thresholds[:-1]))
    alike = u_lira(np.zeros((4, 2)), np.zeros((4, 2)))
    assert (alike.auc, alike.accuracy) == (0.5, 50)
    apart = u_lira(np.zeros((4, 2)), np.ones((4, 2)))
    assert (apart.auc, apart.accuracy, apart.tpr_1.value) == (1, 100, 100)
    assert (apart.auc_low, apart.accuracy_low) == (1, 100)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 7]), st.booleans())
def test_invariants(seed, n, fix_variance):
    u, r = ensembles(seed, n, n, 6, shift=0.5)

    def figures(result):
        return result.auc, result.accuracy

    def attack(a, b):
        return u_lira(a, b, fix_variance=fix_variance, seed=seed)

    got = attack(u, r)
    np.testing.assert_allclose(figures(attack(r, u)), figures(got), rtol=1e-9)
    np.testing.assert_allclose(figures(attack(-u, -r)), figures(got), rtol=1e-9)
    moved = attack(4 * u + 8, 4 * r + 8)
    np.testing.assert_allclose(figures(moved), figures(got), rtol=1e-9)
    order = np.random.default_rng(seed).permutation(6)
    turned = attack(u[:, order], r[:, order])
    np.testing.assert_allclose(turned.per_example_auc, got.per_example_auc[order])
    np.testing.assert_allclose(
        turned.per_example_accuracy, got.per_example_accuracy[order]
    )
    assert 0 <= got.auc_low <= got.auc_high <= 1
    assert 0 <= got.accuracy_low <= got.accuracy_high <= 100


def test_the_interval_bootstraps_samples():
    rng = np.random.default_rng(0)
    positive = rng.integers(0, 40, (7, 9)).astype(float)
    negative = rng.integers(-5, 35, (8, 9)).astype(float)
    counts = rng.multinomial(9, np.full(9, 1 / 9), size=20).astype(float)
    exact = _resampled_auc(positive, negative, counts)
    for row, value in zip(counts.astype(int), exact, strict=True):
        drawn = np.repeat(np.arange(9), row)
        expected = roc_auc(positive[:, drawn].ravel(), negative[:, drawn].ravel())
        assert abs(value - expected) < 1e-12
    # More distinct scores than bins: nearly so.
    positive, negative = rng.normal(0.5, 1, (200, 20)), rng.normal(0, 1, (200, 20))
    whole = _resampled_auc(positive, negative, np.ones((1, 20)))[0]
    assert abs(whole - roc_auc(positive.ravel(), negative.ravel())) < 0.0005
    assert _resampled_auc(positive + 99, negative, np.ones((1, 20)))[0] == 1
    # Fewer samples, a wider interval; another seed, another draw.
    few, many = ensembles(0, 8, 8, 5, 0.5), ensembles(0, 8, 8, 500, 0.5)
    widths = [g.auc_high - g.auc_low for g in (u_lira(*few), u_lira(*many))]
    assert widths[0] > 4 * widths[1]
    narrow = u_lira(*many, level=0.5)
    assert 0 < narrow.auc_high - narrow.auc_low < widths[1] / 2
    # Without intervals all else is the same.
    whole, without = u_lira(*few), u_lira(*few, level=None)
    assert np.isnan([without.accuracy_low, without.auc_low, without.auc_high]).all()
    assert (without.accuracy, without.auc) == (whole.accuracy, whole.auc)
    np.testing.assert_array_equal(without.per_example_auc, whole.per_example_auc)
    assert without.tpr_1 == whole.tpr_1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u: u_lira(u[:3], u), "unlearned.*holds 3 models; give at least 4"),
        (lambda u: u_lira(u, u[:3]), "retrained.*holds 3 models; give at least 4"),
        (lambda u: u_lira(u, u, folds=4), "unlearned.*holds 6 models.*least 8"),
        (lambda u: u_lira(u, u, folds=1), "folds=1 hold nothing out"),
        (lambda u: u_lira(u, u[:, :2]), r"retrained.shape=\(6, 2\) have different"),
        (lambda u: u_lira(u[:, 0], u), r"unlearned.shape=\(6,\) must have 2 axes"),
        (lambda u: u_lira(u[:, :0], u), r"unlearned.shape=\(6, 0\) is empty"),
        (lambda u: u_lira(u, u, level=95), "level=95"),
        (
            lambda u: u_lira(u, np.where(u == u[2, 1], np.nan, u)),
            r"retrained\[2, 1\]=nan \(1 of 18",
        ),
    ],
)
def test_unusable_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(ensembles(0, 6, 6, 3)[0])
