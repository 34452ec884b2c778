"""The small functions of the report, each on a case that can be checked by hand."""

import re

import numpy as np
import pytest

from jax_unlearn.report import settings
from jax_unlearn.report.draw import (
    BLUE,
    Entry,
    _shorten,
    audit,
    drawing_of,
    experiment,
    flow,
    ladder,
    panels,
    style,
    under_legend,
    width_of,
)
from jax_unlearn.report.forms import AuditFigure, Roc
from jax_unlearn.report.generated import Amount
from jax_unlearn.report.pages import _count, _pairs, _typeset
from jax_unlearn.report.pages.audit import slugs
from jax_unlearn.report.pages.experiment import plain
from jax_unlearn.report.reading import PairedTest, methods_of, ordered_keys
from jax_unlearn.report.table import direction, generation_label, number, spread


def test_coordinates_are_rounded_to_hundredths():
    tag = re.search(".*", '<use x="1.23456">')
    assert tag is not None
    assert _shorten(tag) == '<use x="1.23">'


def test_a_legend_goes_on_in_the_next_line():
    lines = [line for _, line in flow(["a long label of a series"] * 5)]
    assert lines == [0, 0, 0, 1, 1]
    assert 0.15 < width_of("LTU") < 0.25


@style()
def test_panels_stand_under_their_legend():
    entries = [Entry("null", "red", "", ":")]
    assert len(under_legend(entries, 1.0, left=0.5, between=0.5)) == 2
    _, at, edges = ladder(["A", "B"], [Entry("x", "red", "o", "")], step=0.25)
    assert (at.tolist(), edges.tolist()) == ([0.125, 0.375], [0.25])


@style()
def test_a_drawing_stands_in_a_page():
    (axes,) = panels(1, log="y")
    axes.plot([1, 2], [1e-5, 1], color=BLUE)
    axes.set(xlabel="step")
    svg = drawing_of(axes.figure, name="f1", alt="<a line>").svg
    start = '<svg role="img" aria-label="&lt;a line&gt;" viewBox="0 0 252 162">'
    assert svg[: svg.index(">") + 1] == start
    assert all(text in svg for text in ("var(--blue)", ">step<", ">1e−5<"))


def test_looks_keep_red_for_the_original():
    swatches = [look.swatch for look in audit.looks(["ft", "original"]).values()]
    assert swatches == ["blue", "red dashed"]


def test_the_part_of_a_curve_that_is_drawn():
    roc = Roc(fpr=(0, 0.05, 0.2, 1), tpr=(0, 0.3, 0.5, 1))
    x, y = audit.on_axes(roc, 0.1)
    assert (x.tolist(), y.tolist()) == ([0.1, 0.2, 1.0], [0.3, 0.5, 1.0])
    roc = Roc(fpr=(0, 0.005, 0.2, 1), tpr=(0, 0.3, 0.5, 1))
    assert audit.rate_at(roc, 0.01) == 0.3


def test_shares_of_epsilons_by_bin():
    found = audit.shares([0.0, 0.1, 2.4, 50.0], np.array([0.0, 1.2, 2.4, 2.6]))
    assert found.tolist() == [50.0, 25.0, 25.0]


def test_ticks():
    assert audit._ticks(3.4) == [0.0, 1.0, 2.0, 3.0]
    assert experiment._rank_ticks(100) == [1, 20, 40, 60, 80, 100]


def test_places_in_a_strip():
    ends = {"null_low": 1.0, "null_high": 2.0, "verdict": "outside"}
    figure = AuditFigure(value=3.0, std=None, target=1.5, **ends)
    assert 'cx="92.0"' in audit.strip("level", figure)
    assert audit.place(1.5, 1.0, 2.0) == 56.0
    assert audit.place(7.0, 1.0, 1.0) > audit.STRIP[0]


def test_names_move_apart():
    places = experiment._apart(np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert np.linalg.norm(places[0] - places[1]) > 10


def test_numbers_of_an_experiment():
    assert experiment._density([1, 3]).tolist() == [0.5, 1.5]
    assert experiment.conflict_share([-0.5, 0.1, 0.2, 0.0]) == (0.25, 0.125)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (([3, 4], "classes"), "2 classes"),
        ((1000, "samples"), "1,000 samples"),
        ((None, "x"), ""),
        ((0.1, "held out"), "10 % held out"),
    ],
)
def test_counts(given, text):
    assert _count(*given) == text


def test_words_of_the_page():
    assert _pairs({"batch_size": 64, "width": 0}) == ["batch size 64"]
    assert _typeset("|p - p*| of 5 %") == "|p − p*| of 5\N{NO-BREAK SPACE}%"
    assert plain("softmax_mlp") == "softmax MLP"
    links = ["method-rl-falw", "method-rl-falw-2", "method-n"]
    assert slugs(["RL + FaLW", "RL/FaLW", "忘"]) == links


def test_references_come_before_methods():
    assert ordered_keys({"ft": 0, "original": 0, "retrain": 0}) == [
        *("retrain", "original", "ft")
    ]
    assert methods_of({"ft": 0, "original": 0}) == ["ft"]
    labels = [generation_label(key) for key in ("retrain", "ESD")]
    assert labels == ["Retrain", "ESD"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0005, "0.0005"),
        (False, "no"),
        ("random_label", "random label"),
        (["uniform", "hard", "hard"], "uniform + 2 × hard"),
    ],
)
def test_settings_as_text(value, text):
    assert settings.show(value) == text


def test_settings_of_records():
    told = settings.told({"method": "ssd", "epochs": 2, "options": {"selection": 3.0}})
    assert told == {"method": "ssd", "rho": 1.0, "selection": 3.0, "dampening": 1.0}
    assert settings.about({"method": "ssd"})["source"] == "arXiv 2308.07707"


@pytest.mark.parametrize(
    ("record", "known"),
    [
        ({"method": "ltu"}, True),
        ({"method": ["ltu"]}, False),
        ({"method": "mine.py:MINE"}, True),
        ({"method": "mine", "own": True}, True),
    ],
)
def test_methods_that_are_known(record, known):
    assert settings.is_known(record) == known


def test_numbers_of_tables():
    test = PairedTest(mean_difference=-2.0, t_p=0.01, permutation_p=0.1)
    assert direction(test) == "nearer"
    assert spread(Amount(mean=11.66, std=2.06), 1) == "11.7 ± 2.1"
    assert spread(Amount(mean=11.66), 1) == "11.7"
    assert number(-4.08, 1, sign=True) == "−4.1"
    assert (number(-0.04, 1, sign=True), number(2.0, 1)) == ("0.0", "2.0")
