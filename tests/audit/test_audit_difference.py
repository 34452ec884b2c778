"""The difference attack: features by hand, closed forms, Retrain as its target."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from jax_unlearn.audit import _checks
from jax_unlearn.audit.auditor import audit
from jax_unlearn.audit.difference import Pair, difference_attack, difference_features
from jax_unlearn.audit.evidence import ModelOutputs, PartLabels
from jax_unlearn.errors import InputError


def pair(seed, count, drop=0.0, classes=3):
    """Return a pair whose log-odds fall by N(drop, 1)."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % classes
    odds = rng.normal(2, 1, count)
    fallen = odds - rng.normal(drop, 1, count)

    def probabilities(odds):
        p = np.repeat((special.expit(-odds) / (classes - 1))[:, None], classes, axis=1)
        p[range(count), labels] = special.expit(odds)
        return p

    return Pair(probabilities(odds), probabilities(fallen), labels)


def test_the_features_are_those_by_hand():
    given = Pair([[0.2, 0.5, 0.1, 0.2]], [[0.4, 0.3, 0.2, 0.1]], [2])
    first, then = np.array([0.5, 0.2, 0.2]), np.array([0.3, 0.4, 0.1])
    odds = special.logit([0.1, 0.2])
    distance = np.sqrt(0.2**2 + 0.2**2 + 0.1**2 + 0.1**2)
    expected = [*first, *then, *(first - then), distance, *odds, odds[0] - odds[1]]
    np.testing.assert_allclose(difference_features(given)[0], expected, atol=1e-12)


@pytest.mark.parametrize("drop", [0.0, 1.0, 2.0])
def test_the_drop_has_the_auc_of_the_closed_form(drop):
    found = difference_attack(pair(0, 3000, drop), pair(1, 3000))
    area = stats.norm.cdf(drop / np.sqrt(2))
    assert found.drop_auc == pytest.approx(area, abs=0.02)
    # what is learned knows no less: the drop is one of its features
    assert found.auc == pytest.approx(area, abs=0.03)
    rate = 100 * stats.norm.sf(stats.norm.isf(0.01) - drop)
    assert found.tpr_1.value == pytest.approx(rate, abs=4)


def test_the_learned_attack_is_a_penalised_logistic_regression():
    forget, others = pair(2, 40, 1.0), pair(3, 30)
    x = [difference_features(given) for given in (forget, others)]
    halves = [
        _checks.generator(7, n).permutation(np.arange(len(side)) % 2)
        for n, side in enumerate(x)
    ]
    aucs = []
    for fold in (0, 1):
        fit = [side[half != fold] for side, half in zip(x, halves, strict=True)]
        both = np.concatenate(fit)
        scale = np.where(both.std(axis=0) > 1e-9, both.std(axis=0), 1.0)
        z = (both - both.mean(axis=0)) / scale
        y = np.repeat([1.0, -1.0], [len(side) for side in fit])
        cost = np.where(y > 0, len(y) / 2 / len(fit[0]), len(y) / 2 / len(fit[1]))

        def loss(w, z=z, y=y, cost=cost):
            return w[1:] @ w[1:] / 2 + cost @ np.logaddexp(0, -y * (z @ w[1:] + w[0]))

        best = optimize.minimize(loss, np.zeros(1 + z.shape[1]), tol=1e-10).x
        held = [
            (side[half == fold] - both.mean(axis=0)) / scale @ best[1:]
            for side, half in zip(x, halves, strict=True)
        ]
        wins = held[0][:, None] - held[1]
        aucs.append(np.mean((wins > 0) + 0.5 * (wins == 0)))
    found = difference_attack(forget, others, seed=7)
    assert found.auc == pytest.approx(np.mean(aucs), abs=0.005)


@given(st.integers(0, 2**31), st.permutations(range(3)))
@settings(max_examples=15, deadline=None)
def test_names_of_classes_and_the_order_of_samples_do_not_matter(seed, names):
    one = pair(seed, 24, 1.0)
    p, q, y = (np.asarray(part) for part in one)
    back = np.argsort(names)
    two = Pair(p[:, back], q[:, back], np.asarray(names)[y])
    # equal posteriors are ordered by class; none are equal but the others' beside them
    a, b = difference_features(one), difference_features(two)
    np.testing.assert_allclose(a, b, atol=1e-9)
    rows = np.random.default_rng(seed).permutation(24)
    turned = difference_features(Pair(p[rows], q[rows], y[rows]))
    np.testing.assert_array_equal(turned, a[rows])


def test_pairs_of_one_distribution_are_even_in_the_mean():
    found = [difference_attack(pair(s, 24), pair(999 + s, 24)) for s in range(60)]
    for values in ([f.auc for f in found], [f.drop_auc for f in found]):
        assert np.mean(values) == pytest.approx(0.5, abs=4 * np.std(values) / 60**0.5)


@pytest.mark.parametrize(
    ("forget", "others", "said"),
    [
        (pair(0, 3), pair(0, 9), "forget holds 3 samples, too few"),
        (pair(0, 9), pair(0, 2), "others holds 2 samples, too few"),
        (pair(0, 9), pair(0, 9, classes=2), "forget and others have other classes"),
        (pair(0, 9)._replace(after=np.eye(3)), pair(0, 9), "before.shape="),
        (pair(0, 9)._replace(before=np.ones((9, 3))), pair(0, 9), "before"),
        (pair(0, 9)._replace(labels=[5] * 9), pair(0, 9), r"labels\[0\]=5 is outside"),
    ],
)
def test_pairs_that_cannot_be_attacked_are_named(forget, others, said):
    with pytest.raises(InputError, match=said):
        difference_attack(forget, others)


SIZES = {"forget": 60, "retain": 60, "test": 40, "unseen": 60}
LABELS = PartLabels(*(np.arange(n) % 2 for n in SIZES.values()))


def outputs(seed, count, *, forget, retain=3.0):
    """Return models that are so sure of forget and retain samples."""
    rng = np.random.default_rng(seed)
    shift = {"forget": forget, "retain": retain, "test": 0.0, "unseen": 0.0}
    parts = []
    for part, n in SIZES.items():
        array = rng.normal(0, 0.7, (count, n, 2))
        array[:, range(n), np.arange(n) % 2] += shift[part]
        parts.append(array)
    return ModelOutputs(*parts)


METHODS = {
    "original": outputs(0, 3, forget=3.0),
    "exact": outputs(1, 3, forget=0.0),
    "halfway": outputs(2, 3, forget=1.7),
    "pushed": outputs(4, 3, forget=-3.0),
}
RETRAINED = outputs(3, 6, forget=0.0)


@pytest.fixture(scope="module")
def found():
    asked = ["difference"]
    return audit(METHODS, RETRAINED, LABELS, metrics=asked, originals="original")


def test_retrain_is_the_target_which_tells_much(found):
    told = {name: own["drop_auc"] for name, own in found.figures.items()}
    target = told["exact"].target
    assert target > 0.9  # removal itself shows
    assert told["original"].value == 0.5
    verdicts = {name: figure.verdict for name, figure in told.items()}
    assert verdicts == {
        **{"original": "outside", "exact": "inside"},
        **{"halfway": "outside", "pushed": "outside"},
    }
    assert told["halfway"].value < target < told["pushed"].value
    beside = found.figures["exact"]["difference_retain_auc"]
    assert beside.verdict == "inside"
    assert beside.value > 0.9


def test_the_audit_pairs_model_by_model(found):
    value = found.figures["halfway"]["drop_auc"].value
    aucs = []
    for i in range(3):
        fell = []
        for part in ("forget", "unseen"):
            y = np.arange(SIZES[part]) % 2
            pairs = [getattr(METHODS[m], part)[i] for m in ("original", "halfway")]
            odds = [z[range(len(y)), y] - z[range(len(y)), 1 - y] for z in pairs]
            fell.append(odds[0] - odds[1])
        aucs.append(np.mean(fell[0][:, None] > fell[1]))
    assert value == pytest.approx(np.mean(aucs), abs=1e-9)


def test_one_pair_beside_one_retrain_has_a_target_and_no_verdict():
    def one(given):
        return ModelOutputs(*(part[0] for part in given))

    methods = {"halfway": one(METHODS["halfway"])}
    before, target = one(METHODS["original"]), one(RETRAINED)
    asked = {"metrics": ["difference"], "originals": before}
    figures = audit(methods, target, LABELS, **asked).figures["halfway"]
    assert figures["drop_auc"].target > figures["drop_auc"].value > 0.5
    assert {figure.verdict for figure in figures.values()} == {""}


def test_one_original_may_stand_before_many_models_and_others_may_not():
    first = ModelOutputs(*(part[:1] for part in METHODS["original"]))
    asked = {"metrics": ["difference"], "originals": first}
    found = audit(METHODS["exact"], RETRAINED, LABELS, **asked)
    assert found.figures["unlearned"]["drop_auc"].value > 0.9
    two = ModelOutputs(*(part[:2] for part in METHODS["original"]))
    with pytest.raises(InputError, match="unlearned has 3 models and originals 2: mod"):
        audit(METHODS["exact"], RETRAINED, LABELS, originals=two)
    with pytest.raises(InputError, match="unknown method 'orignal'; did you mean"):
        audit(METHODS, RETRAINED, LABELS, originals="orignal")
    with pytest.raises(InputError, match="needs outputs of the original"):
        audit(METHODS, RETRAINED, LABELS, metrics=["difference"])


def test_a_request_of_three_samples_leaves_it_out():
    def few(given):
        return given._replace(forget=given.forget[:, :3])

    own = {name: few(given) for name, given in METHODS.items()}
    labels = LABELS._replace(forget=LABELS.forget[:3])
    found = audit(own, few(RETRAINED), labels, originals="original", resamples=2)
    reason = "needs 4 forget samples; there are 3"
    assert found.left_out["difference_auc"] == found.left_out["drop_auc"] == reason
    assert "retain_auc" in found.figures["exact"]
