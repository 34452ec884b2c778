"""Memorisation and the figures by group of forget samples."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jax_unlearn import audit
from jax_unlearn.audit import Division, ModelOutputs, PartLabels
from jax_unlearn.errors import InputError

F = 60
HARD = np.arange(F) < F // 3  # what only models that saw it are sure of


def _labels():
    return PartLabels(*(np.arange(n) % 2 for n in (F, 40, 40)))


def _models(rng, labels, count, forget, shift=0.3):
    """Outputs whose margin of the true class is given, one a forget sample."""
    sides = []
    for y, margin in zip(labels[:3], (forget, 3.0, 2.0), strict=True):
        noisy = margin + rng.normal(0, 0.5, (count, len(y)))
        noisy += rng.normal(0, shift, (count, 1))  # of a model as a whole
        sides.append(np.stack([noisy * (y == k) for k in (0, 1)], axis=-1))
    return ModelOutputs(*sides)


@pytest.fixture(scope="module")
def world():
    rng, labels = np.random.default_rng(0), _labels()
    never = np.where(HARD, -2.0, 2.0)
    return {
        "labels": labels,
        "original": _models(rng, labels, 16, np.full(F, 3.0)),
        "retrained": _models(rng, labels, 16, never),
        "honest": _models(rng, labels, 16, never),
        "half": _models(rng, labels, 16, np.where(HARD, 0.5, 2.0)),
    }


def test_memorisation_is_the_difference_of_two_means():
    rng = np.random.default_rng(1)
    right, inside = rng.random((9, 7)), rng.random((9, 7)) < 0.5
    inside[0], inside[1] = True, False
    wanted = [
        np.mean([right[m, i] for m in range(9) if inside[m, i]])
        - np.mean([right[m, i] for m in range(9) if not inside[m, i]])
        for i in range(7)
    ]
    assert_allclose(audit.memorisation(right, inside), wanted, rtol=1e-12)


def test_memorisation_of_a_nearest_neighbour_rule():
    """Closed form: 1-NN is right of an isolated sample only if it was trained on it."""
    x = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 5.2, 0.15])
    y = np.array([0, 0, 0, 1, 1, 1, 1])  # the last is mislabelled
    rng = np.random.default_rng(0)
    inside = rng.random((400, 7)) < 0.7
    right = np.array(
        [
            [y[own][np.argmin(np.abs(x[own] - x[i]))] == y[i] for i in range(7)]
            for own in map(np.flatnonzero, inside)
        ]
    )
    scores = audit.memorisation(right, inside)
    assert scores[-1] > 0.9
    assert np.argmax(scores) == 6
    assert np.all(np.abs(scores[3:6]) < 0.2)


def test_memorisation_refuses_samples_without_both_kinds_of_model():
    with pytest.raises(InputError, match=r"inside.sum\(0\)\[1\]=0 .* with and without"):
        audit.memorisation([[1, 1], [0, 1]], [[True, False], [False, False]])
    with pytest.raises(InputError, match="some that were not"):
        audit.memorisation([[1], [0]], [[True], [True]])
    with pytest.raises(InputError, match="one bool for each"):
        audit.memorisation([[1], [0]], [[1], [0]])


def test_the_proxy_is_what_the_model_is_not_sure_of():
    probs = np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.7, 0.3], [0.2, 0.8]]])
    assert_allclose(audit.memorisation_proxy(probs[0], [0, 0]), [0.1, 0.4])
    assert_allclose(audit.memorisation_proxy(probs, [0, 0]), [0.2, 0.6])


def test_bins_are_thirds_by_rank_and_ties_go_by_the_second_score():
    scores, second = np.array([0.0, 0, 0, 0, 0, 1, 1]), np.arange(7)[::-1] * 0.1
    bins = audit.memorisation_bins(scores, ties=second)
    assert [int(inside.sum()) for inside in bins.values()] == [3, 2, 2]
    assert_array_equal(np.flatnonzero(bins["low"]), [2, 3, 4])
    assert_array_equal(np.flatnonzero(bins["high"]), [5, 6])
    assert_array_equal(np.sum(list(bins.values()), axis=0), np.ones(7))
    few = audit.memorisation_bins([0.3])
    assert [int(inside.sum()) for inside in few.values()] == [1, 0, 0]


def test_models_divide_the_samples_by_what_they_memorise(world):
    found = audit.audit_by_group(
        {"honest": world["honest"], "half": world["half"]},
        world["retrained"],
        world["labels"],
        audit.by_memorisation,
        original=world["original"],
    )
    assert list(found.audits) == ["low", "medium", "high"]
    assert found.division.models == 8  # half of the models; the others are judged
    assert_array_equal(found.division.groups["high"], HARD)
    high, low = (found.audits[name].figures for name in ("high", "low"))
    assert high["half"]["deviation"].verdict == "outside"
    assert low["half"]["deviation"].verdict == "inside"
    assert high["half"]["lira_auc"].verdict == "outside"
    assert high["half"]["lira_auc"].value > low["half"]["lira_auc"].value + 0.2
    for figures in (high, low):  # another Retrain is no outlier of any group
        assert figures["honest"]["deviation"].verdict == "inside"
        assert figures["honest"]["ua"].verdict == "inside"
    assert found.audits["high"].retrained == 8
    table = audit.group_table(found, "half").splitlines()
    assert table[0] == "| figure | low (20) | medium (20) | high (20) |"
    record = json.loads(json.dumps(audit.groups_record(found)))
    assert record["members"]["high"] == np.flatnonzero(HARD).tolist()
    assert record["audits"]["high"]["figures"]["half"]["deviation"]["value"] > 0


def test_models_divide_the_samples_by_what_they_expose(world):
    given = {"half": world["half"]}, world["retrained"], world["labels"]
    (found,) = audit.divided(["vulnerability"], given, world["original"], resamples=3)
    assert list(found["audits"]) == ["protected", "between", "vulnerable"]
    assert found["models"] == 8
    vulnerable = found["members"]["vulnerable"]
    assert sorted(vulnerable) == np.flatnonzero(HARD).tolist()
    probs = [
        audit.evidence.evidence("m", m, given[2]).margins[:8]
        for m in (world["original"], world["retrained"])
    ]
    exact = audit.ruli_split(*probs)  # one division, whoever asks for it
    assert exact.vulnerable.tolist() == vulnerable
    own = found["audits"]["vulnerable"]["figures"]["half"]["lira_auc"]
    assert own["verdict"] == "outside"
    few = [ModelOutputs(*(part[:6] for part in m[:3])) for m in (given[0]["half"],) * 2]
    with pytest.raises(InputError, match="takes 8 originals and Retrains"):
        audit.divided(["vulnerability"], (given[0], few[0], given[2]), few[1])


def test_dividing_and_judging_by_the_same_models_would_be_unfair():
    """Of pure noise, even an equal model would be an outlier."""
    rng, labels = np.random.default_rng(3), _labels()
    given = [_models(rng, labels, 12, np.zeros(F), 0.0) for _ in range(3)]
    original, retrained, again = given
    apart = audit.audit_by_group(
        again, retrained, labels, audit.by_memorisation, original=original
    )
    probs = [audit.evidence.evidence("m", m, labels) for m in (original, retrained)]
    same = audit.by_memorisation(*(p.probs["forget"] for p in probs), labels.forget)
    unfair = audit.audit_by_group(again, retrained, labels, same)

    def gaps(found):
        figures = [a.figures["unlearned"]["ua"] for a in found.audits.values()]
        return max(abs(figure.value - figure.target) for figure in figures)

    assert gaps(apart) < 10 < gaps(unfair)


def test_groups_that_are_known_use_all_models(world):
    known = Division("half", "by hand", {"hard": HARD, "none": HARD & ~HARD}, HARD * 1)
    args = world["half"], world["retrained"], world["labels"]
    found = audit.audit_by_group(*args, known)
    assert list(found.audits) == ["hard"]  # a group without samples is left out
    own = ModelOutputs(*(part[..., HARD, :] for part in args[0][:1]), *args[0][1:3])
    again = ModelOutputs(args[1].forget[..., HARD, :], *args[1][1:3])
    labels = args[2]._replace(forget=args[2].forget[HARD])
    wanted = audit.audit(own, again, labels, figures=audit.OF_GROUPS)
    assert found.audits["hard"].figures == wanted.figures


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"original": None}, "give the originals' outputs too"),
        ({"division": Division("d", "", {"a": HARD[:5]}, HARD)}, "one bool for each"),
        ({"division": Division("d", "", {"a": HARD, "b": HARD}, HARD)}, "each sample"),
        ({"division": Division("d", "", {"a": HARD & ~HARD}, HARD)}, "no group with"),
    ],
)
def test_what_cannot_be_divided_is_refused(world, change, words):
    given = {"division": audit.by_memorisation, "original": world["original"]} | change
    division = given.pop("division")
    args = world["half"], world["retrained"], world["labels"], division
    with pytest.raises(InputError, match=words):
        audit.audit_by_group(*args, **given)
