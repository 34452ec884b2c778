"""RMIA against the double loop of its definition, and sets of known distance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_unlearn.audit.rates import roc_auc, tpr_at_fpr
from jax_unlearn.audit.rmia import rmia, rmia_attack
from jax_unlearn.errors import InputError

OPTIONS = [{}, {"a": 0.0, "gamma": 1.0}, {"a": 1.0, "gamma": 1.2}]


def sets(seed, n, m, models=3, memorised=0.0):
    """Probabilities rounded to make ties; references follow the same difficulty."""
    rng = np.random.default_rng(seed)

    def one(size, lift):
        logit = rng.normal(0.5, 1.5, size)
        noise = rng.normal(0, 0.7, (models + 1, size))
        noise[0] += lift
        p = np.round(1 / (1 + np.exp(-(logit + noise))), 2)
        return p[0], p[1:]

    return *one(n, memorised), *one(m, 0.0)


def ratio(target, reference, a, i):
    out = sum(model[i] for model in reference) / len(reference)
    return target[i] / max(((1 + a) * out + (1 - a)) / 2, 1e-30)


def score(r, others, gamma):
    return sum(r > gamma * z for z in others) / len(others)


def ratios(arrays, a):
    x, x_ref, z, z_ref = arrays
    return (
        [ratio(x, x_ref, a, i) for i in range(len(x))],
        [ratio(z, z_ref, a, i) for i in range(len(z))],
    )


@pytest.mark.parametrize("options", OPTIONS)
def test_score_is_the_double_loop(options):
    arrays = sets(0, 40, 30)
    a, gamma = options.get("a", 0.3), options.get("gamma", 2.0)
    forget, others = ratios(arrays, a)
    expected = [score(r, others, gamma) for r in forget]
    assert len(set(expected)) > 3
    np.testing.assert_array_equal(rmia(*arrays, **options), expected)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("n", "m"), [(25, 12), (4, 2), (1, 30)])
def test_attack_is_the_loop_over_pairs_without_the_scored_sample(options, n, m):
    arrays = sets(n, n, m)
    a, gamma = options.get("a", 0.3), options.get("gamma", 2.0)
    forget, unseen = ratios(arrays, a)
    got = rmia_attack(*arrays, **options)
    wins, unseen_scores = 0.0, []
    for j, z in enumerate(unseen):
        others = unseen[:j] + unseen[j + 1 :]
        unseen_scores.append(score(z, others, gamma))
        for x in forget:
            s = score(x, others, gamma)
            wins += (s > unseen_scores[-1]) + 0.5 * (s == unseen_scores[-1])
    np.testing.assert_allclose(got.auc, wins / (n * m), rtol=1e-12)
    np.testing.assert_array_equal(got.unseen_scores, unseen_scores)
    np.testing.assert_array_equal(got.forget_scores, rmia(*arrays, **options))
    for rate, fpr in ((got.tpr_1, 0.01), (got.tpr_01, 0.001)):
        assert rate == tpr_at_fpr(got.forget_scores, unseen_scores, fpr=fpr)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_one_distribution_gives_one_half_at_small_populations(gamma):
    pairs, shares = [], []
    for seed in range(250):
        got = rmia_attack(*sets(seed, 20, 15), a=1.0, gamma=gamma)
        pairs.append(got.auc)
        shares.append(roc_auc(got.forget_scores, got.unseen_scores))
    error = np.std(pairs) / np.sqrt(len(pairs))
    assert error < 0.01
    assert abs(np.mean(pairs) - 0.5) < 4 * error
    if gamma == 2.0:  # what the pairs are for
        assert np.mean(shares) < 0.5 - 4 * error


def test_memorised_samples_are_found_and_overforgotten_ones_too():
    found = rmia_attack(*sets(0, 300, 300, memorised=3.0))
    assert found.auc_low > 0.65
    assert found.tpr_1.value > 2
    over = rmia_attack(*sets(0, 300, 300, memorised=-3.0))
    assert over.auc_high < 0.3
    # Twice as sure as expected of every forget sample, exactly as expected of others.
    x, z = np.full(6, 0.8), np.linspace(0.1, 0.4, 5)
    perfect = rmia_attack(x, [x / 2 - 0.01], z, [z], a=1.0)
    assert (perfect.auc, perfect.auc_low, perfect.auc_high) == (1, 1, 1)
    assert perfect.tpr_1.value == 100
    assert perfect.unseen_scores.tolist() == [0] * 5


def test_references_calibrate_for_difficulty():
    # Hard forget samples: the model is as unsure of them as the references are.
    rng = np.random.default_rng(0)
    hard, easy = rng.uniform(0.1, 0.3, 200), rng.uniform(0.7, 0.9, 200)

    def noisy(p):
        return p * rng.uniform(0.9, 1.1, (1, 200))

    assert roc_auc(hard, easy) == 0
    got = rmia_attack(
        noisy(hard)[0], noisy(hard), noisy(easy)[0], noisy(easy), a=1.0, gamma=1.0
    )
    assert abs(got.auc - 0.5) < 0.08


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 12))
def test_invariants(seed, n, m):
    x, x_ref, z, z_ref = sets(seed, n, m)
    rng = np.random.default_rng(seed)
    got = rmia_attack(x, x_ref, z, z_ref)
    i, j, k = rng.permutation(n), rng.permutation(m), rng.permutation(len(x_ref))
    turned = rmia_attack(x[i], x_ref[k][:, i], z[j], z_ref[k][:, j])
    np.testing.assert_allclose(turned.auc, got.auc, rtol=1e-12)
    assert turned.tpr_1 == got.tpr_1
    scores = rmia(x, x_ref, z, z_ref)
    assert np.all((scores >= 0) & (scores <= 1))
    surer = rmia(np.minimum(x + 0.1, 1), x_ref, z, z_ref)
    assert np.all(surer >= scores)
    strict = rmia(x, x_ref, z, z_ref, gamma=2.5)
    assert np.all(strict <= scores)
    halves = rmia(x / 2, x_ref, z / 2, z_ref)
    np.testing.assert_array_equal(halves, scores)
    assert 0 <= got.auc_low <= got.auc_high <= 1


def test_probabilities_of_zero():
    zero, half = [0.0, 0.0], [0.5, 0.5]
    assert rmia(half, [half], zero, [half]).tolist() == [1, 1]
    assert rmia(zero, [half], zero, [half]).tolist() == [0, 0]
    # a = 1 and references that give no chance: p counts as 1e-30.
    assert rmia(half, [zero], half, [half], a=1.0).tolist() == [1, 1]
    assert rmia_attack(zero, [zero], zero, [zero], a=1.0).auc == 0.5


def test_interval_of_the_attack():
    arrays = sets(3, 60, 80, memorised=0.5)
    got = rmia_attack(*arrays)
    assert got.auc_low < got.auc < got.auc_high
    assert rmia_attack(*arrays, seed=1).auc_low != got.auc_low
    assert rmia_attack(*arrays)[:5] == got[:5]
    narrow = rmia_attack(*arrays, level=0.5)
    assert got.auc_low < narrow.auc_low < narrow.auc_high < got.auc_high
    # About the normal interval of a two-sample rank statistic (Hanley and McNeil).
    q1, q2 = got.auc / (2 - got.auc), 2 * got.auc**2 / (1 + got.auc)
    variance = got.auc * (1 - got.auc) + 59 * (q1 - got.auc**2) + 79 * (q2 - got.auc**2)
    expected = 2 * 1.96 * np.sqrt(variance / 4800)
    assert 0.7 < (got.auc_high - got.auc_low) / expected < 1.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": 1.5}, r"a=1.5 is outside 0..1"),
        ({"gamma": 0.5}, "gamma=0.5 must be at least 1"),
        ({"gamma": np.nan}, "gamma=nan must be"),
        ({0: [0.5, np.nan]}, r"target_forget\[1\]=nan"),
        ({0: [5.0, 1.0]}, r"target_forget\[0\]=5.0 is outside"),
        ({1: [0.5, 0.5]}, r"reference_forget.shape=\(2,\) must have 2 axes"),
        ({1: [[0.5, -0.5]]}, r"reference_forget\[0, 1\]=-0.5 is outside"),
        ({1: [[0.5]]}, r"reference_forget.shape=\(1, 1\) does not fit"),
        ({1: [[0.5, 0.5]]}, "has 1 models and reference_.* 3; give the same"),
        ({2: []}, r"is empty"),
        ({3: np.zeros((3, 0))}, r"shape=\(3, 0\) is empty"),
    ],
)
def test_unusable_input_is_refused(change, message):
    arrays = list(sets(0, 2, 4))
    options = {key: value for key, value in change.items() if isinstance(key, str)}
    for key, value in change.items():
        if isinstance(key, int):
            arrays[key] = value
    for attack in (rmia, rmia_attack):
        with pytest.raises(InputError, match=message):
            attack(*arrays, **options)


def test_attack_refuses_a_population_of_one():
    with pytest.raises(
        InputError, match=r"len\(target_unseen\)=1 leaves no population"
    ):
        rmia_attack(*sets(0, 2, 1))
    with pytest.raises(InputError, match="level=2"):
        rmia_attack(*sets(0, 2, 2), level=2)
