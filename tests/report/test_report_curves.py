"""The drawings of an audit lie where its numbers say, and inside their frames."""

import copy
import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_audit import made_audit
from test_report_studies import check_texts

from jax_unlearn.audit.figures import KINDS
from jax_unlearn.report import check_results
from jax_unlearn.report.draw import audit as curves
from jax_unlearn.report.forms import AuditFigure, Roc

NAMES = {"Original": "Original", "FT": "FT", "SSD": "SSD"}


@pytest.fixture(scope="module")
def record():
    return made_audit()


def typed(record):
    return check_results({"format": 1, "audit": record}).audit


def frame(drawing):
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing.svg)
    return float(box[1]), float(box[2])


def paths(drawing, colour):
    """Return the points of each path of a colour, `[n, 2]`."""
    found = re.findall(rf'd="(M [^"]*)"[^>]*stroke: var\({colour}\)', drawing.svg)
    lines = [np.array(re.findall(r"[-\d.]+", path), float) for path in found]
    return [line.reshape(-1, 2) for line in lines if len(line) >= 4]


def check_inside(drawing):
    """Refuse anything that leaves the drawing."""
    width, height = frame(drawing)
    for path in re.findall(r'<path d="(M [^"]*)"', drawing.svg):
        points = np.array(re.findall(r"[-\d.]+", path), float).reshape(-1, 2)
        assert (points >= -0.01).all(), path[:60]
        assert (points <= [width + 0.01, height + 0.01]).all(), path[:60]
    check_texts(drawing)


def test_a_roc_curve_lies_where_its_rates_say(record):
    changed = copy.deepcopy(record)
    roc = {"fpr": [0.0, 0.01, 0.1, 1.0], "tpr": [0.0, 0.1, 1.0, 1.0]}
    changed["details"]["FT"]["roc"] = roc
    drawing = curves.roc_of_one(typed(changed), "FT", "FT", "a")
    told = re.findall(r"at ([\d.]+) % false.*?FT ([\d.]+) %", drawing.svg)
    rates = {float(x): float(y) for x, y in told}  # as a pointer is told them
    assert len(rates) > 15
    for x, y in rates.items():
        assert y == (0 if x < 1 else 10 if x < 10 else 100)
    (line,) = paths(drawing, "--blue")
    (guess,) = (
        p
        for p in paths(drawing, "--muted")
        if len(p) == 2 and p[0, 0] != p[1, 0] and p[0, 1] != p[1, 1]
    )
    low = 1 / (16 * 40)
    scale = (guess[1] - guess[0]) / -np.log10(low)
    at = np.unique(np.log10(low) + (line - guess[0]) / scale, axis=0)
    wanted = [[-2, -1], [-1, -1], [-1, 0], [0, 0]]
    np.testing.assert_allclose(at, wanted, atol=0.02)
    said = re.search('aria-label="([^"]*)"', drawing.svg)[1]
    assert "FT 10.0 %" in said
    assert "null " in said


def test_all_methods_share_one_drawing(record):
    drawing = curves.roc_of_all(typed(record), NAMES)
    check_inside(drawing)
    assert len(paths(drawing, "--red")) == 0  # "Original" is no key of a row
    assert len(paths(drawing, "--blue")) == 1
    assert len(paths(drawing, "--purple")) == 1
    assert len(paths(drawing, "--amber")) == 1
    assert len(paths(drawing, "--green")) == 1
    named = made_audit({"original": 9.0, "FT": 4.0})
    names = {"original": "Nothing done", "FT": "FT"}
    drawing = curves.roc_of_all(typed(named), names)
    assert len(paths(drawing, "--red")) == 1
    assert "Nothing done" in re.search('aria-label="([^"]*)"', drawing.svg)[1]


def test_methods_look_different():
    found = curves.looks([f"m{n}" for n in range(16)])
    assert len(set(found.values())) == 16
    assert len({look.swatch for look in found.values()}) == 16


def test_epsilons_share_their_bins(record):
    record = typed(record)
    drawings = [curves.epsilon_of_one(record, n, n, f"e{n}") for n in NAMES]
    ticks = [re.findall(r"<text[^>]*>([^<]*)<", d.svg) for d in drawings]
    assert ticks[0] == ticks[1] == ticks[2]
    for drawing in drawings:
        check_inside(drawing)
        assert "∞" not in drawing.svg
    edges = curves.epsilon_bins(record)
    for detail in record.details.values():
        heights = curves.shares(detail.epsilon, edges)
        assert heights.sum() == pytest.approx(100)
        assert heights[-1] == 0
    assert edges[-2] == max(max(d.epsilon) for d in record.details.values())


def test_a_histogram_is_as_high_as_its_shares(record):
    changed = copy.deepcopy(record)
    for name in ("Original", "SSD"):
        changed["details"][name]["epsilon"] = None
    changed["details"]["FT"]["epsilon"] = [0.1] * 30 + [2.4] * 10
    changed["details"]["null"]["epsilon"] = [1.0] * 40
    drawing = curves.epsilon_of_one(typed(changed), "FT", "FT", "e")
    (line,), (null,) = paths(drawing, "--blue"), paths(drawing, "--green")
    high = line[:, 1].max() - line[:, 1]
    bars = [a for a, b in itertools.pairwise(high) if a == b > 0]
    unit = (null[:, 1].max() - null[:, 1].min()) / 100
    assert np.array(bars) / unit == pytest.approx([75, 25], rel=0.01)
    told = re.findall("(?<=samples, this method )[^ ]*", drawing.svg)
    assert [text for text in told if text != "0.0"] == ["75.0", "25.0"]
    assert drawing.svg.count("null 100.0 %") == 1


def test_samples_always_told_apart_stand_apart():
    made = made_audit({"FT": 3.0}, separated=4)
    record = typed(made)
    drawing = curves.epsilon_of_one(record, "FT", "FT", "e")
    check_inside(drawing)
    assert "∞" in drawing.svg
    heights = curves.shares(record.details["FT"].epsilon, curves.epsilon_bins(record))
    assert heights[-1] == 10.0
    every = copy.deepcopy(made)
    for detail in every["details"].values():
        detail["epsilon"] = [50.0] * 40
    check_inside(curves.epsilon_of_one(typed(every), "FT", "FT", "e"))


def test_hard_cases_stay_inside():
    record = made_audit({"FT": 1.0})
    for fpr, tpr in (
        ([0.0, 1.0], [0.0, 1.0]),
        ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0]),
        ([0.0, 1.0, 1.0], [0.0, 0.0, 1.0]),
        ([0.5], [0.5]),
        ([1.0], [0.0]),
    ):
        record["details"]["FT"]["roc"] = {"fpr": fpr, "tpr": tpr}
        for half in (1, 16, 512):
            record["half"] = half
            check_inside(curves.roc_of_one(typed(record), "FT", "FT", "r"))
    for value in (0.0, 0.3, 3.9, 12.0, 49.0):
        record["details"]["FT"]["epsilon"] = [value] * 40
        check_inside(curves.epsilon_of_one(typed(record), "FT", "FT", "e"))


def test_without_curves_nothing_is_drawn():
    record = typed(made_audit({"FT": 1.0}, keys=["ua"]))
    assert curves.roc_of_all(record, {"FT": "FT"}) is None


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
    st.sampled_from([1e-3, 0.02, 0.1]),
)
def test_what_is_drawn_rises_within_the_axes(points, low):
    fpr, tpr = (sorted(values) for values in zip(*points, strict=True))
    x, y = curves.on_axes(Roc(fpr=tuple(fpr), tpr=tuple(tpr)), low)
    assert ((x >= low) & (x <= 1) & (y >= low) & (y <= 1)).all()
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    if y.size:
        assert y[-1] == tpr[-1]
        assert x[-1] == 1.0


@pytest.mark.parametrize("key", ["ua", "epsilon", "tow"])
def test_a_strip_shows_the_side_of_a_value(key):
    kind = KINDS[key].kind
    ends = {"std": None, "target": 1.5, "null_low": 1.0, "null_high": 2.0}
    for value, x in ((1.5, "56.0"), (1.0, "44.0"), (2.5, "80.0"), (0.5, "32.0")):
        above, below = value > 2, value < 1
        outside = {"level": above or below, "distance": above, "closeness": below}[kind]
        verdict = "outside" if outside else "inside"
        svg = curves.strip(kind, AuditFigure(value=value, verdict=verdict, **ends))
        colour = {"inside": "--green", "outside": "--red"}[verdict]
        assert f'cx="{x}"' in svg
        assert f'stroke="var({colour})"' in svg
    band = re.findall(r'<rect x="([\d.]+)" y="2" width="([\d.]+)"', svg)
    wanted = {"level": ("44", "24"), "distance": ("0", "68"), "closeness": ("44", "68")}
    assert band == [wanted[kind], ("44", "24")]


@given(st.floats(-1e6, 1e6), st.floats(-10, 10), st.floats(0, 10))
def test_a_strip_stays_inside_its_frame(value, low, width):
    ends = {"null_low": low, "null_high": low + width, "verdict": "inside"}
    svg = curves.strip("level", AuditFigure(value=value, std=None, target=low, **ends))
    circle = re.search(r'cx="([-\d.]+)"', svg)
    if circle:
        assert 4 <= float(circle[1]) <= 108
    else:
        numbers = re.search(r'd="M ([\d.]+) [\d.]+ L ([\d.]+)', svg)
        assert all(0 <= float(number) <= 112 for number in numbers.groups())
        assert (float(numbers[1]) > 56) == (value > low + width / 2)


def test_no_interval_no_strip():
    ends = {"null_low": None, "null_high": None, "verdict": ""}
    figure = AuditFigure(value=1.0, std=None, target=1.0, **ends)
    assert curves.strip("level", figure) == ""
