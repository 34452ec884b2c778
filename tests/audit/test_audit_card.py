"""A figure of one's own, in this file alone: in the audit, its record, tables, a page.

How to add a figure. To the library: a `FigureCard` beside the function that computes
it (`alone` for what each model has, `against` for two sets of models), and its name in
`FIGURES` of `audit/figures.py`, at the place where it is to be shown; its group comes
with it, and `tells` says what the page makes of it. One's own: a card as below, in
`ju.audit.audit(figures=(*FIGURES, MINE))`, or asked for by `metrics=[..., MINE]`. The
page tells a group by its name unless `TITLES` of `report/pages/audit.py` has a heading
for it.
"""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

import jax_unlearn as ju
from jax_unlearn import report
from jax_unlearn.audit import FIGURES, GROUPS, KINDS, FigureCard, ModelOutputs
from jax_unlearn.audit.figures import cards_of, chosen
from jax_unlearn.audit.lira import LIRA_AUC
from jax_unlearn.cli.attacks import print_audit
from jax_unlearn.errors import InputError
from jax_unlearn.lab.results import to_json

SURE = FigureCard(
    key="sure",
    label="sure [x] %",
    digits=2,
    kind="level",
    meaning="forget samples with a confidence over 0.5",
    group="own",
    alone=lambda models, seed: 100 * (models.confidence["forget"] > 0.5).mean(axis=1),
)
SPREAD = FigureCard(
    key="spread",
    label="odds of the spreads",
    digits=3,
    kind="closeness",
    meaning="how alike the spreads of the margins are",
    group="own",
    models=4,
    against=lambda models, others, seed: (models.margins.std(), others.margins.std()),
    read=lambda pair: min(pair) / max(pair),
    bounds=(0, 1),
)
FARTHER = FigureCard(
    key="farther",
    label="gap in SURE",
    digits=1,
    kind="distance",
    meaning="distance of the shares of sure samples, model by model",
    group="own",
    levels=(SURE,),
    against=lambda models, others, seed: np.abs(
        models.levels["sure"] - others.levels["sure"]
    ).mean(),
)
LABELS = ju.audit.PartLabels(*(np.arange(n) % 3 for n in (30, 24, 24)))


def outputs(seed, count, shift=0.0) -> ModelOutputs:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(count, n, 3)) for n in (30, 24, 24)]
    for part in parts:
        part[:, range(part.shape[1]), np.arange(part.shape[1]) % 3] += 1.5
    parts[0][:, range(30), np.arange(30) % 3] += shift
    return ModelOutputs(*parts)


ORIGINAL = {*GROUPS["vulnerable"], *GROUPS["protected"], *GROUPS["difference"]}
OURS, THEIRS = outputs(0, 4, shift=-6.0), outputs(1, 8)


@pytest.fixture(scope="module")
def found():
    figures = (*FIGURES, SURE, SPREAD, FARTHER)
    return ju.audit.audit({"FT": OURS}, THEIRS, LABELS, figures=figures, resamples=3)


def sure(given) -> np.ndarray:
    p = np.exp(given.forget) / np.exp(given.forget).sum(axis=2, keepdims=True)
    return 100 * (p[:, range(30), np.arange(30) % 3] > 0.5).mean(axis=1)


def test_a_level_of_ones_own_stands_beside_retrains(found):
    assert list(found.figures["FT"])[-3:] == ["sure", "spread", "farther"]
    unseen = {"mia_loss", *GROUPS["rmia"]}
    assert set(found.left_out) == unseen | ORIGINAL
    figure = found.figures["FT"]["sure"]
    assert figure.value == pytest.approx(sure(OURS).mean())
    assert figure.std == pytest.approx(sure(OURS).std(ddof=1))
    assert figure.target == pytest.approx(sure(THEIRS).mean())
    assert figure.verdict == "outside"


def test_a_figure_of_two_sets_is_read_beside_the_null(found):
    figure = found.figures["FT"]["spread"]
    assert 0 < figure.null_low <= figure.target <= figure.null_high <= 1
    assert figure.std is None
    assert figure.verdict == ("outside" if figure.value < figure.null_low else "inside")
    far = found.figures["FT"]["farther"]
    assert far.verdict == "outside"
    assert far.value > far.null_high


def test_it_is_in_the_record_and_on_the_terminal(found):
    record = json.loads(to_json(ju.audit.to_record(found)))
    assert record["cards"]["sure"] == SURE.plain()
    assert set(record["cards"]) == {*KINDS, "sure", "spread", "farther"}
    read = cards_of(record)
    # functions and bounds are of the card, not of its record
    functions = {"against": None, "read": float, "bounds": (-np.inf, np.inf)}
    assert read["sure"].each
    assert read["spread"] == dataclasses.replace(SPREAD, **functions)
    console = Console(width=200, record=True)
    print_audit(console, found)
    printed = console.export_text()
    for card in (SURE, SPREAD, FARTHER):
        assert card.label in printed
    assert f"{found.figures['FT']['spread'].value:.3f}" in printed
    assert "| sure [x] % |" in ju.audit.audit_table(found, "FT")


def test_it_is_on_the_page_which_knows_the_record_alone(found):
    record = json.loads(to_json(ju.audit.to_record(found)))
    page = report.render({"format": 1, "audit": record})
    for card in (SURE, SPREAD, FARTHER):
        assert card.label.replace(" %", "\N{NO-BREAK SPACE}%") in page
        assert card.meaning in page
    assert "gap in SURE" in page[page.index("In plain words") :]
    del record["cards"]["spread"]
    with pytest.raises(InputError, match=r"FT\.spread is no figure of this library"):
        report.check_results({"format": 1, "audit": record})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("kind", "rate", "cards.sure.kind='rate' must be one of"),
        ("label", 3, "cards.sure.label=3 must be text"),
        ("digits", -1, "cards.sure.digits=-1"),
        ("models", 0, "cards.sure.models=0"),
        ("alone", "os.system", "cards.sure.alone is unknown"),
    ],
)
def test_a_damaged_card_is_named(found, name, value, said):
    record = json.loads(to_json(ju.audit.to_record(found)))
    record["cards"]["sure"][name] = value
    with pytest.raises(InputError, match=said):
        report.check_results({"format": 1, "audit": record})


def test_it_is_asked_for_beside_groups():
    asked = ["deviation", FARTHER]
    found = ju.audit.audit(OURS, THEIRS, LABELS, metrics=asked, resamples=2)
    assert list(found.figures["unlearned"]) == ["deviation", "farther"]
    own = (*FIGURES, SURE, SPREAD)
    found = ju.audit.audit(OURS, THEIRS, LABELS, metrics=["own"], figures=own)
    assert list(found.figures["unlearned"]) == ["sure", "spread"]
    with pytest.raises(InputError, match="unknown metric 'own'"):
        ju.audit.audit(OURS, THEIRS, LABELS, metrics=["own"])
    with pytest.raises(InputError, match="metrics='spread': .*needs 2 unlearned"):
        ju.audit.audit(outputs(0, 1), THEIRS, LABELS, metrics=[SPREAD])


def test_what_several_figures_share_is_computed_once():
    calls = []

    def both(models, others, seed):
        calls.append(models.models)
        return 1.0, 2.0

    cards = [
        dataclasses.replace(
            SPREAD, key=f"part{i}", against=both, read=lambda r, i=i: r[i]
        )
        for i in range(2)
    ]
    found = ju.audit.audit(OURS, THEIRS, LABELS, metrics=cards, resamples=5)
    assert calls == [4] * 2 * 5  # the null's divisions and the method's
    assert [f.value for f in found.figures["unlearned"].values()] == [1.0, 2.0]
    shared = {}
    for card in (card for card in FIGURES if not card.within):
        shared.setdefault(card.against, []).append(card.key)
    for group in ("u_lira", "rmia", "forgetting", "klom"):
        assert list(GROUPS[group]) in shared.values()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "rate"}, "unknown kind 'rate'; known: closeness, distance, level"),
        ({"models": 2}, "figure 'sure' of kind='level', models=2: a level"),
        ({"kind": "distance"}, "figure 'sure' of kind='distance', models=1"),
        ({"against": lambda a, b, seed: 0.0}, "any other figure `against`"),
    ],
)
def test_cards_that_contradict_themselves(changes, said):
    with pytest.raises(InputError, match=said):
        dataclasses.replace(SURE, **changes)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (dataclasses.replace(SURE, key="ua"), "two figures have the key 'ua'"),
        (dataclasses.replace(SURE, alone=None), "'sure' gives neither `alone` nor"),
        (
            dataclasses.replace(SURE, alone=lambda models, seed: 1.0),
            "figure 'sure' of 8 models is 1.0; let `alone`",
        ),
        (
            dataclasses.replace(SURE, alone=lambda models, seed: np.full(8, np.nan)),
            r"figure 'sure' of 8 models is \[nan, nan",
        ),
        (
            dataclasses.replace(SPREAD, read=lambda pair: np.inf),
            "figure 'spread' is inf; let `against`",
        ),
    ],
)
def test_cards_that_cannot_be_used(card, said):
    with pytest.raises(InputError, match=said):
        ju.audit.audit(OURS, THEIRS, LABELS, metrics=[card], resamples=2)


def test_every_card_of_the_library_is_whole():
    assert len(KINDS) == len(FIGURES)
    parts = ("forget", "retain", "test", "unseen", "original")
    sizes: dict[str, int] = dict.fromkeys(parts, 10)
    cards, left_out = chosen(None, FIGURES, 4, sizes, 4)
    assert list(cards.values()) == list(FIGURES)
    assert left_out == {}
    for card in FIGURES:
        assert (card.alone is None) != (card.against is None)
        assert card.each == (card.alone is not None)
        assert card.meaning[0] != " "
    assert LIRA_AUC.models == 8
