"""RULI's split: who is vulnerable, by held-out models, and what it makes visible."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_unlearn.audit.auditor import audit, to_record
from jax_unlearn.audit.evidence import ModelOutputs, PartLabels
from jax_unlearn.audit.lira import u_lira
from jax_unlearn.audit.vulnerable import SPLIT, held_out_split, ruli_split
from jax_unlearn.errors import InputError
from jax_unlearn.lab.results import to_json
from jax_unlearn.report.reading import check_results

F, VULNERABLE = 45, 15


def ensembles(seed, count, shift):
    """Return margins whose first third is `shift` higher."""
    margins = np.random.default_rng(seed).normal(size=(count, F))
    margins[:, :VULNERABLE] += shift
    return margins


def test_the_samples_that_originals_expose_are_vulnerable():
    found = ruli_split(ensembles(0, 6, 6.0), ensembles(1, 6, 0.0))
    assert found.vulnerable.tolist() == list(range(VULNERABLE))
    assert set(found.protected) <= set(range(VULNERABLE, F))
    assert len(found.protected) == VULNERABLE
    assert found.models == 6
    exact = u_lira(ensembles(0, 6, 6.0), ensembles(1, 6, 0.0), fix_variance=True)
    np.testing.assert_array_equal(found.auc, exact.per_example_auc)


@given(
    st.integers(0, 2**31),
    st.integers(2, 12),
    st.floats(0.01, 0.5),
    st.integers(4, 7),
)
@settings(max_examples=20, deadline=None)
def test_the_groups_are_disjoint_and_ordered(seed, samples, share, count):
    rng = np.random.default_rng(seed)
    u, r = rng.normal(size=(2, count, samples))
    found = ruli_split(u, r, share=share)
    size = max(int(share * samples), 1)
    assert len(found.vulnerable) == len(found.protected) == size
    assert not set(found.vulnerable) & set(found.protected)
    assert found.auc[found.vulnerable].min() >= found.auc[found.protected].max()
    for group in (found.vulnerable, found.protected):
        assert np.all(np.diff(group) > 0)


@pytest.mark.parametrize(
    ("u", "r", "options", "said"),
    [
        ((3, 5), (3, 5), {}, "holds 3 models; give at least 4"),
        ((4, 5), (5, 5), {}, "give as many of either"),
        ((4, 1), (4, 1), {}, "2 samples or more to divide"),
        ((4, 5), (4, 6), {}, "different numbers of samples"),
        ((4, 5), (4, 5), {"share": 0.7}, "share=0.7"),
        ((4, 5), (4, 5), {"share": 0}, "share=0"),
    ],
)
def test_what_cannot_be_divided_is_named(u, r, options, said):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=said):
        ruli_split(rng.normal(size=u), rng.normal(size=r), **options)


LABELS = PartLabels(*(np.arange(n) % 2 for n in (F, 20, 20)))


def models(seed, count, shift):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(0, 0.7, (count, n, 2)) for n in (F, 20, 20)]
    parts[0][:, range(VULNERABLE), np.arange(VULNERABLE) % 2] += shift
    return ModelOutputs(*parts)


METHODS = {
    "original": models(0, 12, 4.0),
    "leaves a trace": models(1, 12, 1.2),
    "exact": models(2, 12, 0.0),
}
RETRAINED = models(3, 12, 0.0)


@pytest.fixture(scope="module")
def found():
    asked = ["u_lira", "vulnerable", "protected"]
    told = {"metrics": asked, "originals": "original", "resamples": 6}
    return audit(METHODS, RETRAINED, LABELS, **told)


def test_a_trace_that_the_mean_hides_shows_among_the_vulnerable(found):
    own = {
        name: {k: f.value for k, f in v.items()} for name, v in found.figures.items()
    }
    trace = own["leaves a trace"]
    assert trace["vulnerable_lira_auc"] > trace["lira_auc"] + 0.05
    assert trace["protected_lira_auc"] == pytest.approx(0.5, abs=0.1)
    verdicts = found.figures["leaves a trace"]
    assert verdicts["vulnerable_lira_auc"].verdict == "outside"
    assert verdicts["protected_lira_auc"].verdict == "inside"
    assert found.figures["exact"]["vulnerable_lira_auc"].verdict == "inside"
    assert list(found.figures["exact"])[4:] == [card.key for card in SPLIT]


def test_the_models_that_divide_are_not_judged(found):
    assert found.split is not None
    held = found.split.models
    assert held == 4
    rows = found.split.vulnerable
    y = np.arange(F)[rows] % 2
    for name, outputs in METHODS.items():
        picked = outputs.forget[held:][:, rows]
        wrong = 100 * (picked.argmax(axis=2) != y).mean()
        assert found.figures[name]["vulnerable_ua"].value == pytest.approx(wrong)
    # whatever those say that are judged, the split stays
    told = {"metrics": ["vulnerable"], "originals": "original", "resamples": 2}
    other = {
        name: ModelOutputs(*(np.concatenate([p[:4], 9 * p[4:]]) for p in own[:3]))
        for name, own in METHODS.items()
    }
    again = audit(other, RETRAINED, LABELS, **told).split
    assert again is not None
    np.testing.assert_array_equal(again.vulnerable, rows)
    # and were it made on them, chance would look like a trace
    even = models(9, 8, 0.0).forget, models(10, 8, 0.0).forget
    odds = [z[..., range(F), np.arange(F) % 2] * 2 - z.sum(axis=2) for z in even]
    chosen = ruli_split(*odds).vulnerable
    assert u_lira(*(side[:, chosen] for side in odds)).auc > 0.6
    fresh = models(11, 8, 0.0).forget, models(12, 8, 0.0).forget
    held_out = [z[..., range(F), np.arange(F) % 2] * 2 - z.sum(axis=2) for z in fresh]
    assert u_lira(*(side[:, chosen] for side in held_out)).auc == pytest.approx(
        0.5, abs=0.09
    )


def test_it_is_in_the_record_and_read_again(found):
    record = json.loads(to_json(to_record(found)))
    assert record["split"]["vulnerable"] == found.split.vulnerable.tolist()
    assert len(record["split"]["auc"]) == F
    read = check_results({"format": 1, "audit": record})
    assert read.audit.split.models == 4
    del record["split"]  # as earlier versions wrote them
    assert check_results({"format": 1, "audit": record}).audit.split is None
    record["split"] = {"vulnerable": [1], "protected": [1], "auc": [0.5] * F}
    with pytest.raises(InputError, match="split"):
        check_results({"format": 1, "audit": record})


def test_too_few_models_say_what_is_needed():
    def first(given, count):
        return ModelOutputs(*(part[:count] for part in given[:3]))

    few = {name: first(given, 6) for name, given in METHODS.items()}
    told = {"originals": "original", "resamples": 2}
    found = audit(few, first(RETRAINED, 8), LABELS, **told)
    assert found.left_out["vulnerable_lira_auc"] == (
        "needs 8 originals and unlearned models and 12 Retrains or more, 4 of either "
        "to divide the samples; 2 can be compared beside those"
    )
    assert "vulnerable_klom" in found.figures["exact"]
    three = {name: first(given, 3) for name, given in METHODS.items()}
    found = audit(three, first(RETRAINED, 3), LABELS, **told)
    assert found.split is None
    assert "vulnerable_ua" in found.left_out
    assert held_out_split(None, None, 0) is None
