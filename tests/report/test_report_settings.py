"""Settings are told of the methods that read them, and once where several share."""

import dataclasses
from types import SimpleNamespace

import pytest
from made_results import made_results

from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS
from jax_unlearn.report import check_results, settings

FT = Unlearning.of(method="finetune", learning_rate=0.05)
LTU = {"method": "ltu", "rho": 0.3}


def told(**methods):
    """Return the last column by label, and the shared sentences."""
    rows = {
        label: SimpleNamespace(label=label, setting=setting.record())
        for label, setting in methods.items()
    }
    rows = {"retrain": SimpleNamespace(label="Retrain", setting=None), **rows}
    _, lines = settings.settings_table(rows)
    return {line[0]: line[-1] for line in lines}, settings.shared_settings(rows)


def test_settings_are_those_the_method_reads():
    methods = {"RL + FaLW": Unlearning.of(weighting="falw"), "FT": FT}
    results = made_results(seeds=1, methods=methods)
    heads, rows = settings.settings_table(check_results(results).rows)
    assert heads[:2] == ["Model", "method"]
    assert rows[0][-1] == "tau 0.15, estimator exact"
    assert rows[1][heads.index("learning rate")] == "0.05"
    assert rows[1][-1] == "–"


def test_without_ltu_there_is_one_shared_sentence():
    _, shared = told(RL=Unlearning.of(weighting="falw"), FT=FT)
    assert shared == [
        "The same for all methods: harmonizer none, schedule merged, momentum 0.9, "
        "weight decay 0.0005, clip 0, freeze statistics no."
    ]


def test_guards_are_told_where_there_are_some():
    guarded = Unlearning.of(method="finetune", learning_rate=0.05, guard_utility=90.0)
    rest, _ = told(A=guarded, B=FT)
    assert rest["A"] == "guard utility 90, guard every 10, guard roll back no"
    assert rest["B"] == "–"


def test_a_single_method_shares_nothing():
    rest, shared = told(LTU=Unlearning.of(**LTU))
    assert shared == []
    assert rest["LTU"] == (
        "harmonizer one way, rho 0.3, momentum 0.9, weight decay 0.0005, clip 0, "
        "freeze statistics yes, strategies uniform + class skewed + feature cluster + "
        "hard + nearest, query size 32, attacks logistic + softmax mlp + entropy mlp + "
        "gaussian ratio, shadows 0, inner rate 0.003"
    )


def test_ltu_has_settings_of_its_own():
    rest, shared = told(
        FT=FT,
        RL=Unlearning.of(),
        LTU=Unlearning.of(**LTU),
        plain=Unlearning.of(**LTU, harmonizer="none", first_order=True, remat=True),
        masked=Unlearning.of(**LTU, attacks=["logistic"] * 2, salient=True),
        leaf=Unlearning.of(**LTU, per_leaf=True, strategies=("uniform",)),
    )
    assert rest == {
        "FT": "–",
        "RL": "–",
        "LTU": "–",
        "plain": "harmonizer none, remat yes, first order yes",
        "masked": "salient yes, keep 0.5, attacks 2 × logistic",
        "leaf": "per leaf yes, strategies uniform",
    }
    assert shared == [
        "The same for all methods: momentum 0.9, weight decay 0.0005, clip 0.",
        "The same for all but ltu: harmonizer none, schedule merged, rho 1, freeze "
        "statistics no.",
        "The same for all of ltu: rho 0.3, freeze statistics yes, query size 32, "
        "shadows 0, inner rate 0.003.",
        "In rows of ltu that do not say otherwise: harmonizer one way, strategies "
        "uniform + class skewed + feature cluster + hard + nearest, attacks logistic + "
        "softmax mlp + entropy mlp + gaussian ratio.",
    ]


@pytest.mark.parametrize("harmonizer", ["one_way", "two_way"])
def test_zipped_methods_are_harmonized_as_they_say(harmonizer):
    zipped = {"schedule": "zipped", "harmonizer": harmonizer}
    rest, _ = told(A=Unlearning.of(**zipped, per_leaf=True), B=Unlearning.of())
    words = harmonizer.replace("_", " ")
    assert rest["A"] == f"harmonizer {words}, per leaf yes, schedule zipped"
    assert rest["B"] == "harmonizer none, schedule merged"


def test_a_rho_that_varies_is_told_of_every_method():
    rest, shared = told(
        A=Unlearning.of(rho=0.3), B=Unlearning.of(rho=0.5), C=Unlearning.of()
    )
    assert rest == {"A": "rho 0.3", "B": "rho 0.5", "C": "rho 1"}
    assert "rho" not in shared[0]


def test_a_rho_that_all_share_is_told_once():
    rest, shared = told(
        FT=Unlearning.of(method="finetune", rho=0.3), RL=Unlearning.of(rho=0.3)
    )
    assert "rho 0.3" in shared[0]
    assert "rho" not in " ".join(rest.values())


def test_a_method_of_many_settings_is_told_apart_whatever_it_is_called(monkeypatch):
    monkeypatch.setattr(settings, "APART", 4)
    _, shared = told(
        FT=FT,
        A=Unlearning.of(method="scrub", teacher_temperature=4.0),
        B=Unlearning.of(method="scrub", teacher_temperature=4.0, forget_epochs=3),
    )
    assert shared[-1] == (
        "The same for all of scrub: teacher temperature 4, distill share 0.001, task "
        "share 0.99."
    )


def test_every_setting_that_depends_is_a_setting():
    known = set(Unlearning.of().flat())
    for card in METHODS.values():
        known |= {field.name for field in dataclasses.fields(card.options)}
    for card in WEIGHTINGS.values():
        known |= {field.name for field in dataclasses.fields(card.options)}
    assert set(settings.COMMON) | settings.OPTIONS <= known
    assert {"tau", "forget_epochs", "keep", "temperature"} <= settings.OPTIONS
    assert not {"rewind", "epochs", "learning_rate"} & settings.OPTIONS


def test_a_setting_of_a_card_that_is_not_at_hand_is_told_as_it_stands():
    record = {**Unlearning.of(weighting="falw").record(), "method": "theirs.py:CARD"}
    record["options"] = {"push": 0.5}
    found = settings.told(record)
    assert (found["method"], found["push"], found["tau"]) == (
        "theirs.py:CARD",
        0.5,
        0.15,
    )
    assert "not at hand" in settings.about(record)["source"]
