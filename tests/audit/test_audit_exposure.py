"""The retain set's privacy: closed forms, a transcription, no leak where none is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import jax_unlearn as ju
from jax_unlearn.audit import _checks
from jax_unlearn.audit.auditor import audit
from jax_unlearn.audit.evidence import ModelOutputs, PartLabels
from jax_unlearn.audit.exposure import retain_exposure
from jax_unlearn.errors import InputError


def drawn(seed, shift, sizes=(4000, 4000), classes=1):
    rng = np.random.default_rng(seed)
    labels = [np.arange(n) % classes for n in sizes]
    scores = [rng.normal(0, 1, n) + 4 * y for n, y in zip(sizes, labels, strict=True)]
    return scores[0] + shift, scores[1], *labels


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("classes", [1, 3])
def test_shifted_gaussians_have_the_auc_of_the_closed_form(shift, classes):
    # classes lie 4 apart: an attack with one threshold for all would see 0.6 at most
    found = retain_exposure(*drawn(0, shift, classes=classes))
    assert found.auc == pytest.approx(stats.norm.cdf(shift / np.sqrt(2)), abs=0.02)
    rate = 100 * stats.norm.sf(stats.norm.isf(0.01) - shift)
    assert found.tpr_1.value == pytest.approx(rate, abs=2.5)
    assert found.tpr_1.trials == 4000


def test_the_likelihood_ratio_is_the_one_written_down():
    retain, never, y, z = drawn(1, 0.7, sizes=(60, 44), classes=2)
    halves = []
    for number, labels in enumerate((y, z)):
        noise = _checks.generator(5, number).random(len(labels))
        ranks = np.argsort(np.argsort(labels + 0.9 * noise))
        halves.append(ranks % 2)
    aucs = []
    for fold in (0, 1):
        fits = []
        for s, labels, half in ((retain, y, halves[0]), (never, z, halves[1])):
            own, k = s[half != fold], labels[half != fold]
            means = np.array([own[k == c].mean() for c in (0, 1)])
            fits.append((means, np.sqrt(np.mean((own - means[k]) ** 2))))
        (m_in, s_in), (m_out, s_out) = fits

        def ratio(s, k, m_in=m_in, s_in=s_in, m_out=m_out, s_out=s_out):
            inside = stats.norm.logpdf(s, m_in[k], s_in)
            return inside - stats.norm.logpdf(s, m_out[k], s_out)

        a, b = halves[0] == fold, halves[1] == fold
        pairs = ratio(retain[a], y[a])[:, None] - ratio(never[b], z[b])
        aucs.append(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    found = retain_exposure(retain, never, y, z, seed=5)
    assert found.auc == pytest.approx(np.mean(aucs), abs=1e-12)


@given(st.integers(0, 2**31), st.floats(-5, 5), st.floats(0.1, 10))
@settings(max_examples=15, deadline=None)
def test_a_common_shift_and_scale_change_nothing(seed, shift, scale):
    retain, never, y, z = drawn(seed, 0.5, sizes=(40, 30), classes=2)
    one = retain_exposure(retain, never, y, z)
    two = retain_exposure(scale * retain + shift, scale * never + shift, y, z)
    assert one.auc == pytest.approx(two.auc, abs=0.02)  # near ties may turn over
    assert 0 <= one.auc <= 1


def test_small_samples_of_one_distribution_are_even_in_the_mean():
    aucs = [retain_exposure(*drawn(seed, 0, (30, 20), 3)).auc for seed in range(150)]
    assert np.mean(aucs) == pytest.approx(0.5, abs=4 * np.std(aucs) / np.sqrt(150))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({0: [1.0] * 3, 2: [0] * 3}, r"len\(retain\)=3 is too few"),
        ({1: [np.nan] * 9, 3: [0] * 9}, r"never_seen\[0\]=nan"),
        ({2: np.zeros(5, int)}, r"retain_labels of type int64\[5\] must be"),
        ({3: np.zeros(20)}, r"never_seen_labels of type float64\[20\]"),
    ],
)
def test_what_cannot_be_attacked_is_named(changes, said):
    values = list(drawn(0, 0, (30, 20)))
    for place, value in changes.items():
        values[place] = value
    with pytest.raises(InputError, match=said):
        retain_exposure(*values)


LABELS = PartLabels(*(np.arange(n) % 2 for n in (12, 120, 120)))


def models(seed, count, retain):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(0, 1, (count, n, 2)) for n in (12, 120, 120)]
    parts[1][:, range(120), np.arange(120) % 2] += retain
    return ModelOutputs(*parts)


def test_an_audit_says_whether_unlearning_exposed_the_retain_set():
    methods = {
        "original": models(0, 3, 1.0),  # before: as exposed as under Retrain
        "memorises": models(1, 3, 3.0),
        "damages": models(2, 3, 0.0),
    }
    found = audit(methods, models(3, 8, 1.0), LABELS, metrics=["retain"])
    aucs = {name: own["retain_auc"] for name, own in found.figures.items()}
    assert [figure.verdict for figure in aucs.values()] == ["inside"] + 2 * ["outside"]
    target = aucs["original"].target
    assert aucs["damages"].value == pytest.approx(0.5, abs=0.06)
    assert aucs["memorises"].value > target + 0.15 > aucs["damages"].value + 0.3


def test_classes_that_go_and_unseen_samples_are_told_apart():
    # unseen samples of the class that goes are no match for the retain set
    truth = np.arange(120) % 2
    labels = PartLabels(np.ones(12, int), np.zeros(120, int), truth, np.ones(30, int))
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 1, (4, n, 2)) for n in (12, 120, 120, 30)]
    parts[3][:, :, 0] += 50  # never right of the class
    far = ModelOutputs(*parts)
    figure = audit(far, far, labels, metrics=["retain"]).figures["unlearned"]
    without = audit(
        far._replace(unseen=None), far._replace(unseen=None), labels, metrics=["retain"]
    ).figures["unlearned"]
    assert figure["retain_auc"] == without["retain_auc"]
    assert figure["retain_auc"].value == pytest.approx(0.5, abs=0.1)


def test_few_test_samples_leave_it_out():
    few = ModelOutputs(*(np.zeros((3, n, 2)) for n in (12, 12, 3)))
    labels = PartLabels(*(np.arange(n) % 2 for n in (12, 12, 3)))
    found = audit(few, few, labels, figures=[c for c in ju.audit.FIGURES if c.each])
    assert found.left_out["retain_auc"] == "needs 4 test samples; there are 3"
