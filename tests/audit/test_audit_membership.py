"""Membership attacks against scikit-learn used directly, and in closed cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.svm import SVC

from jax_unlearn import audit
from jax_unlearn.errors import InputError


def confidences(seed, retain=60, test=60, forget=40):
    rng = np.random.default_rng(seed)
    return rng.beta(6, 1.2, retain), rng.beta(3, 1.5, test), rng.beta(4, 1.2, forget)


def two_columns(p):
    return np.stack([p, 1 - p], axis=1)


def few(function):
    return settings(max_examples=10, deadline=None)(function)


@pytest.mark.parametrize("seed", range(5))
def test_svc_efficacy_is_the_share_of_non_members_of_the_svc(seed):
    retain, test, forget = confidences(seed)
    attack = SVC(C=3, kernel="rbf", gamma="auto")
    members = np.concatenate([np.ones(60), np.zeros(60)])
    attack.fit(np.concatenate([retain, test]).reshape(-1, 1), members)
    expected = 100 * np.mean(attack.predict(forget.reshape(-1, 1)) == 0)
    assert 0 < expected < 100
    assert audit.svc_mia_efficacy(retain, test, forget) == expected


def test_svc_efficacy_of_memorised_and_of_unseen_forget_samples():
    rng = np.random.default_rng(0)
    retain, test = rng.uniform(0.98, 1, 200), rng.uniform(0.2, 0.9, 80)
    assert audit.svc_mia_efficacy(retain, test, rng.uniform(0.98, 1, 50)) == 0
    assert audit.svc_mia_efficacy(retain, test, rng.uniform(0.2, 0.7, 50)) == 100


@few
@given(st.integers(0, 10_000), st.integers(30, 90), st.integers(30, 90))
def test_svc_efficacy_does_not_depend_on_sample_order(seed, retain, test):
    sets = confidences(seed, retain, test)
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(s) for s in sets]
    value = audit.svc_mia_efficacy(*sets, seed=seed)
    assert audit.svc_mia_efficacy(*shuffled, seed=seed) == value
    assert 0 <= value <= 100


def test_svc_efficacy_cuts_the_larger_set():
    # One distribution, 400 of one side and 20 of the other: uncut, the attack gives
    # every sample to the larger side (0 or 100).
    p = np.random.default_rng(3).beta(3, 2, (20, 520))
    few_unseen = [audit.svc_mia_efficacy(q[:400], q[400:420], q[420:]) for q in p]
    few_members = [audit.svc_mia_efficacy(q[400:420], q[:400], q[420:]) for q in p]
    assert 25 < np.mean(few_unseen) < 75
    assert 25 < np.mean(few_members) < 75


def test_svc_efficacy_with_one_value_only_is_a_coin_toss():
    assert audit.svc_mia_efficacy([0.5] * 9, [0.5] * 7, [0.2, 0.9]) == 50


def test_entropy_rate_is_the_share_of_members_of_the_regression():
    # The confidence stays above one half, where the entropy falls as it rises.
    retain, test, forget = (two_columns(0.5 + p / 2) for p in confidences(1, 90, 50))
    attack = LogisticRegression(class_weight="balanced")
    features = np.concatenate([audit.entropy(retain), audit.entropy(test)])[:, None]
    attack.fit(features, np.concatenate([np.ones(90), np.zeros(50)]))
    predicted = np.asarray(attack.predict(audit.entropy(forget)[:, None]))
    expected = 100 * predicted.mean()
    assert 0 < expected < 100
    assert audit.entropy_mia_member_rate(retain, test, forget) == expected


def test_entropy_rate_points_the_other_way_than_svc_efficacy():
    rng = np.random.default_rng(0)
    sure, unsure = rng.uniform(0.97, 1, 100), rng.uniform(0.5, 0.8, 100)
    remembered = rng.uniform(0.97, 1, 30)
    assert audit.svc_mia_efficacy(sure, unsure, remembered) == 0
    rate = audit.entropy_mia_member_rate(*map(two_columns, (sure, unsure, remembered)))
    assert rate == 100
    constant = two_columns(np.full(20, 0.7))
    assert audit.entropy_mia_member_rate(constant, constant, constant) == 50


def test_standardizing_uncovers_members_among_tiny_values():
    rng = np.random.default_rng(0)
    forget, unseen = rng.uniform(0, 1e-6, 200), rng.uniform(2e-6, 3e-6, 200)
    assert audit.loss_mia_accuracy(forget, unseen) == 50
    assert audit.loss_mia_accuracy(forget, unseen, standardize=True) > 99
    sets = [two_columns(1 - p) for p in (forget, unseen, forget)]
    assert audit.entropy_mia_member_rate(*sets) == 50
    assert audit.entropy_mia_member_rate(*sets, standardize=True) > 99


@pytest.mark.parametrize("seed", range(3))
def test_loss_accuracy_is_the_cross_validated_one_of_the_regression(seed):
    rng = np.random.default_rng(seed)
    forget, unseen = np.sort(rng.exponential(size=40)), np.sort(rng.exponential(2, 40))
    scores = cross_val_score(
        LogisticRegression(),
        np.concatenate([forget, unseen])[:, None],
        np.concatenate([np.ones(40), np.zeros(40)]),
        cv=StratifiedShuffleSplit(n_splits=10, random_state=seed),
        scoring="accuracy",
    )
    got = audit.loss_mia_accuracy(forget, unseen, seed=seed)
    assert abs(got - 100 * scores.mean()) < 1e-9


def test_loss_accuracy_of_equal_and_of_separate_distributions():
    rng = np.random.default_rng(0)
    forget, unseen = rng.exponential(size=(2, 2000))
    assert abs(audit.loss_mia_accuracy(forget, unseen) - 50) < 4
    assert audit.loss_mia_accuracy(forget, unseen + 50) == 100
    assert audit.loss_mia_accuracy(np.zeros(25), np.zeros(400)) == 50


def test_loss_accuracy_of_two_shifted_normals():
    # The best threshold between N(0,1) and N(2,1) is right with probability Phi(1).
    rng = np.random.default_rng(0)
    value = audit.loss_mia_accuracy(rng.normal(0, 1, 2000), rng.normal(2, 1, 9000))
    assert abs(value - 84.13) < 3


@few
@given(st.integers(0, 10_000), st.integers(10, 40), st.integers(10, 40))
def test_loss_accuracy_does_not_depend_on_sample_order(seed, forget, unseen):
    rng = np.random.default_rng(seed)
    f, u = rng.exponential(size=forget), rng.exponential(2, unseen)
    value = audit.loss_mia_accuracy(f, u, splits=3, seed=seed)
    again = audit.loss_mia_accuracy(
        rng.permutation(f), rng.permutation(u), splits=3, seed=seed
    )
    assert value == again
    assert 0 <= value <= 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: audit.svc_mia_efficacy([], [0.5], [0.5]), "retain_conf.*empty"),
        (lambda: audit.svc_mia_efficacy([0.5], [], [0.5]), "test_conf.*empty"),
        (lambda: audit.svc_mia_efficacy([0.5], [0.5], []), "forget_conf.*empty"),
        (lambda: audit.svc_mia_efficacy([5.0], [0.5], [0.5]), r"conf\[0\]=5.*outside"),
        (lambda: audit.svc_mia_efficacy([0.5], [np.nan], [0.5]), "nan.*not finite"),
        (lambda: audit.loss_mia_accuracy([1.0] * 9, [1.0] * 30), "at least 10"),
        (lambda: audit.loss_mia_accuracy([1.0] * 30, [1.0] * 9), "unseen_losses"),
        (lambda: audit.loss_mia_accuracy([np.inf] * 30, [1.0] * 30), "not finite"),
        (lambda: audit.loss_mia_accuracy([1.0] * 30, [1.0] * 30, splits=0), "splits=0"),
        (
            lambda: audit.entropy_mia_member_rate([[1, 0]], [[3, 4]], [[1, 0]]),
            "test_probs.*softmax",
        ),
    ],
)
def test_unusable_sets_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
