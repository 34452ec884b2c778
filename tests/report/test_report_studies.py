"""The figures of a study: points where the numbers say, texts apart, mistakes named."""

import copy
import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from made_results import made_results

from jax_unlearn.errors import InputError
from jax_unlearn.report.draw import SIZE, standalone, width_of
from jax_unlearn.report.draw.studies import ablation_bars, near_far, rho_sweep

RHOS = (0.05, 0.1, 0.3, 0.5, 1.0)
LABELS = [f"{name}, ρ {rho}" for name in ("FT", "RL", "LTU") for rho in RHOS]
SERIES = {
    name: {rho: f"m{LABELS.index(f'{name}, ρ {rho}')}" for rho in RHOS}
    for name in ("FT", "RL", "LTU")
}
KEYS = {
    "LTU": "m10",
    "LTU, not harmonized": "m11",
    "LTU without its meta-test, at a learning rate of 0.003": "m12",
    "Nothing done": "original",
}
BLUE, PURPLE, AMBER = "var(--blue)", "var(--purple)", "var(--amber)"


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(0)
    made = made_results(seeds=2)
    for n in range(len(LABELS)):
        row = copy.deepcopy(made["rows"]["m0"])
        for distance in ("avg_gap", "deviation"):
            row[distance]["mean"] *= rng.uniform(0.2, 1.2)
        made["rows"][f"m{n}"] = row
    return made


@pytest.fixture(scope="module")
def far(results):
    changed = copy.deepcopy(results)
    for row in changed["rows"].values():
        for distance in ("avg_gap", "deviation"):
            row[distance]["mean"] *= 1.5
    return changed


def markers(drawing, colour):
    """Return where the points of a colour are drawn, `[n, 2]`: left panel, then right.

    The caps of error bars and the swatches of the legend are no points.
    """
    svg = str(drawing.svg)
    use = r'<use href="#([^"]*)" x="([\d.]+)" y="([\d.]+)" style="([^"]*)'
    caps = {
        name
        for name, path in re.findall(r'<path id="([^"]*)" d="([^"]*)"', svg)
        if len(re.findall(r"[-\d.]+", path)) <= 4
    }
    found = [
        (float(x), float(y))
        for name, x, y, look in re.findall(use, svg)
        if f"stroke: {colour}" in look and name not in caps
    ]
    return np.array([at for at in found if at[1] > 25])  # under the legend


def texts(drawing):
    """Return the texts of a drawing and their boxes: left, top, right, bottom."""
    found = []
    for element in ET.fromstring(standalone(drawing)).iter():
        if not element.tag.endswith("text"):
            continue
        text = element.text or ""
        x, y = float(element.get("x")), float(element.get("y"))
        anchor = re.search(r"text-anchor: (\w+)", element.get("style"))[1]
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
        width = 72 * width_of(text)
        box = [x - share * width, y - 0.8 * SIZE, x + (1 - share) * width, y + 1]
        if "rotate(-90" in element.get("transform", ""):
            box = [x - 0.8 * SIZE, y - width / 2, x + 1, y + width / 2]
        found.append((text, box))
    return found


def check_texts(drawing):
    """Refuse texts that touch one another or leave the drawing."""
    width, height = map(
        float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing.svg).groups()
    )
    placed = texts(drawing)
    for text, (left, top, right, bottom) in placed:
        assert left > -1, text
        assert top > -1, text
        assert right < width + 1, text
        assert bottom < height + 1, text
    for (one, a), (two, b) in itertools.combinations(placed, 2):
        apart = a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
        assert apart, (one, two)


def means(results, keys, distance):
    return [results["rows"][key][distance]["mean"] for key in keys]


def check_scale(places, values):
    """Check that places are a linear scale of the values, from zero."""
    slope, start = np.polyfit(values, places, 1)
    np.testing.assert_allclose(start + slope * np.array(values), places, atol=0.03)
    return start


def test_a_sweep_lies_where_its_numbers_say(results):
    drawing = rho_sweep(results, SERIES)
    starts = []
    for colour, keys in zip((BLUE, PURPLE, AMBER), SERIES.values(), strict=True):
        left, right = np.split(markers(drawing, colour), 2)
        for panel, distance in ((left, "avg_gap"), (right, "deviation")):
            values = means(results, keys.values(), distance)
            starts.append(check_scale(panel[:, 1], values))
            check_scale(panel[:, 0], np.log(RHOS))
    np.testing.assert_allclose(starts, starts[0], atol=0.3)  # zero is the axis
    said = re.search('aria-label="([^"]*)"', drawing.svg)[1]
    gap, deviation = (
        means(results, ["m10"], distance)[0] for distance in ("avg_gap", "deviation")
    )
    assert f"LTU at ρ 0.05: {gap:.2f} and {deviation:.3f}" in said
    assert "null, another Retrain: " in said
    check_texts(drawing)


def test_a_ladder_goes_down_in_the_order_of_its_labels(results):
    drawing = ablation_bars(results, KEYS)
    left, right = np.split(markers(drawing, BLUE), 2)
    for panel, distance in ((left, "avg_gap"), (right, "deviation")):
        check_scale(panel[:, 0], means(results, KEYS.values(), distance))
        assert (np.diff(panel[:, 1]) > 10).all()
    heights = {text: box[3] for text, box in texts(drawing)}
    for label, (_, y) in zip(("LTU", "LTU, not harmonized"), left, strict=False):
        assert abs(heights[label] - y) < 6
    check_texts(drawing)


def test_near_and_far_have_their_own_nulls(results, far):
    drawing = near_far(results, far, KEYS)
    for colour, side in ((BLUE, results), (PURPLE, far)):
        left, right = np.split(markers(drawing, colour), 2)
        for panel, distance in ((left, "avg_gap"), (right, "deviation")):
            check_scale(panel[:, 0], means(side, KEYS.values(), distance))
    pairs = markers(drawing, PURPLE)[:, 1] - markers(drawing, BLUE)[:, 1]
    np.testing.assert_allclose(pairs, 7.2, atol=0.02)
    upright = r'd="M ([\d.]+) [\d.]+ L \1 [^"]*" [^>]*dasharray[^>]*stroke: (var[^;"]*)'
    dotted = re.findall(upright, drawing.svg)
    at = {colour: float(x) for x, colour in reversed(dotted)}  # of the left panel
    axis, null = (means(side, ["null"], "avg_gap")[0] for side in (results, far))
    points = markers(drawing, BLUE)[:4, 0]
    slope, start = np.polyfit(means(results, KEYS.values(), "avg_gap"), points, 1)
    assert at[BLUE] == pytest.approx(start + slope * axis, abs=0.05)
    assert at[PURPLE] == pytest.approx(start + slope * null, abs=0.05)
    said = re.search('aria-label="([^"]*)"', drawing.svg)[1]
    assert f"null, far: {null:.2f}" in said
    check_texts(drawing)


def test_texts_keep_apart_in_hard_cases(results, far):
    crowd = {
        f"series {n} of a long name": {
            rho: "m1" for rho in (0.29, 0.3, 0.31, 0.32, 0.5, 0.55)
        }
        for n in range(9)
    }
    drawing = rho_sweep(results, crowd)
    check_texts(drawing)
    assert len(markers(drawing, BLUE)) == 2 * 2 * 6  # the first series and the sixth
    check_texts(rho_sweep(results, {"LTU": {0.3: "m1"}}))
    many = {f"LTU without part number {n} and so on ({n})": "m3" for n in range(20)}
    check_texts(ablation_bars(results, many))
    check_texts(ablation_bars(results, {"A": "m1"}))
    huge = copy.deepcopy(far)
    huge["rows"]["m10"]["avg_gap"]["mean"] = 83.25
    check_texts(near_far(results, huge, {"$a_b$ <one>": "m10", " ": "m11"}))


def test_one_seed_and_missing_bounds_are_drawn():
    single = made_results(seeds=1, null=False)
    drawing = ablation_bars(single, {"FT": "m0"})
    assert [text for text, _ in texts(drawing)][-1] == "original, nothing done"
    del single["rows"]["original"]
    for drawing in (
        ablation_bars(single, {"FT": "m0"}),
        rho_sweep(single, {"FT": {0.5: "m0"}}),
        near_far(single, single, {"FT": "m0"}),
    ):
        assert "another" not in drawing.svg
        assert len(markers(drawing, BLUE)) == 2
        check_texts(drawing)


def test_drawings_share_no_ids_and_do_not_change(results):
    one, two = (ablation_bars(results, KEYS, name=name) for name in ("a", "b"))
    ids = [set(re.findall(r'id="([^"]*)"', drawing.svg)) for drawing in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert ablation_bars(results, KEYS, name="a") == one


def test_a_drawing_of_its_own_needs_no_page(results):
    text = standalone(ablation_bars(results, KEYS))
    assert "var(" not in text
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda r: rho_sweep(r, {}), "series={} must name rows"),
        (lambda r: rho_sweep(r, {"LTU": {}}), "series={'LTU': {}} must name rows"),
        (lambda r: rho_sweep(r, {"LTU": {0.3: "x"}}), "series['LTU'][0.3]='x' is no"),
        (lambda r: rho_sweep(r, {"LTU": {0.0: "m1"}}), "series['LTU'] has rho=0.0"),
        (lambda r: ablation_bars(r, {}), "keys={} must name rows"),
        (lambda r: ablation_bars(r, {"A": "x"}), "keys['A']='x' is no row of results"),
        (
            lambda r: near_far(r, {"rows": {"retrain": {}}}, {"A": "m1"}),
            "keys['A']='m1' is no row of far_results",
        ),
        (
            lambda r: ablation_bars({"rows": {"m1": {}}}, {"A": "m1"}),
            "results has rows m1 and no retrain",
        ),
    ],
)
def test_mistakes_are_named(results, draw, said):
    with pytest.raises(InputError) as caught:
        draw(results)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
