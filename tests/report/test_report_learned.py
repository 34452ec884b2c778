"""What LTU learned, and how its gradients disagreed, as the page tells it."""

import copy
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import made_results
from test_report_page import NO_DRAWINGS, Page, squeezed, typed

from jax_unlearn.lab import Unlearning
from jax_unlearn.report import render
from jax_unlearn.report.draw import experiment as panels
from jax_unlearn.report.pages import experiment

LTU = {"method": "ltu", "rho": 0.3, "epochs": 2}
METHODS = {
    "FT": Unlearning.of(method="finetune"),
    "LTU": Unlearning.of(**LTU),
    "LTU, first order": Unlearning.of(**LTU, first_order=True),
    "LTU, only <logistic>": Unlearning.of(**LTU, attacks=("logistic", "logistic")),
    "LTU, hard queries": Unlearning.of(**LTU, strategies=("hard", "hard")),
}
SECTION = "What LTU learned before it unlearned"
CONFLICT = "Do forgetting and remembering disagree?"


@pytest.fixture(scope="module")
def results():
    return made_results(seeds=2, methods=METHODS)


def only_conflict(results):
    return NO_DRAWINGS | {"conflict": panels.conflict_by_step(results)}


def content(results):
    return experiment.content(typed(results))


def cells(tables):
    return [row for _, rows in tables for row in rows]


def conflict_by_step(results):
    return panels.conflict_by_step(typed(results))


def caption(results):
    """Return the paragraph beside the drawings of the conflict."""
    paragraphs = squeezed(Page(render(results)).text["p"])
    (found,) = (text for text in paragraphs if text.startswith("The cosine"))
    return found


def warnings(results):
    paragraphs = squeezed(Page(render(results)).text["p"])
    start = "Warning. "
    return [text.removeprefix(start) for text in paragraphs if text.startswith(start)]


@pytest.fixture(scope="module", autouse=True)
def without_other_figures():
    """Leave out what other tests look at: it takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "drawings", only_conflict)
        yield


@pytest.fixture(scope="module")
def page(results):
    return Page(render(results))


def test_what_several_learned_alike_is_told_once(results):
    told = content(results)
    assert [labels for labels, _ in told["attacks"]] == [
        ["LTU", "LTU, first order", "LTU, hard queries"],
        ["LTU, only <logistic>"],
    ]
    assert [labels for labels, _ in told["gaps"]] == [
        ["LTU", "LTU, first order", "LTU, only <logistic>"],
        ["LTU, hard queries"],
    ]
    captions = re.findall("<caption>(.*)</caption>", render(results))
    same = "the same for: LTU, first order; LTU, hard queries"
    assert captions[0] == f'LTU<span class="detail">{same}</span>'
    assert captions[1] == "LTU, only &lt;logistic&gt;"
    rows = told["attacks"][0][1]
    error = results["rows"]["m1"]["learned"]["attacks"]["logistic"]["standard_error"]
    names = [texts[0] for _, texts in rows]
    assert names == ["logistic", "softmax MLP", "entropy MLP", "gaussian ratio"]
    assert rows[0] == (
        "bad",
        ["logistic", f"0.565 ± {error:.3f}", "50 % of seeds"],
    )
    assert rows[3][1][2] == "100 % of seeds"
    assert rows[3][0] == ""


def test_the_null_of_the_gaps_comes_last(results):
    changed = copy.deepcopy(results)
    row = changed["rows"]["m1"]["learned"]
    row["gaps"] = dict(reversed(row["gaps"].items()))
    _, rows = content(changed)["gaps"][0]
    labels = "forget samples against each other"
    assert rows[-1] == ("reference", [labels, "0.280", "0.0004"])
    assert [texts[0] for _, texts in rows[:2]] == ["nearest", "hard"]
    features = row["gaps"]["nearest"]["features"]
    assert rows[0][1][1:] == ["0.700", f"{features:.4f}"]


def test_an_attack_that_gives_no_feedback_is_warned_of(results):
    assert warnings(results) == [
        "logistic does not beat chance in 50 % of the seeds: it gives no feedback "
        "there (LTU; LTU, first order; LTU, hard queries).",
        "logistic does not beat chance in 50 % of the seeds: it gives no feedback "
        "there (LTU, only <logistic>).",
    ]
    good = copy.deepcopy(results)
    for row in good["rows"].values():
        if "learned" in row:
            row["learned"]["attacks"]["logistic"]["better_than_chance"] = 1.0
    assert warnings(good) == []
    assert 'class="warning"' not in render(good)
    assert all(not tone for tone, _ in cells(content(good)["attacks"]))


def test_the_page_tells_it_in_order(results, page):
    heads = page.text["h2"]
    assert heads[-3:] == [SECTION, CONFLICT, "Where the numbers come from"]
    assert ("div", {"class": "warning", "role": "note", "aria-label": "Warning"}) in (
        page.attributes
    )
    shown = squeezed(page.text["td"])
    told = content(results)
    rows = cells([*told["attacks"], *told["gaps"]])
    wanted = [text for _, texts in rows for text in texts[1:]]
    start = shown.index(wanted[0])
    assert shown[start : start + len(wanted)] == wanted


def test_without_ltu_the_page_says_nothing_of_it(results):
    older = copy.deepcopy(results)
    del older["conflict"]
    for row in older["rows"].values():
        row.pop("learned", None)
    page = Page(render(older))
    assert SECTION not in page.text["h2"]
    assert CONFLICT not in page.text["h2"]
    assert conflict_by_step(older) == []
    assert Page(render(older | {"conflict": {}})).text == page.text


def test_a_conflict_without_attacks_is_drawn(results):
    changed = copy.deepcopy(results)
    changed["conflict"] = {"m0": [0.5, -0.25]}
    for row in changed["rows"].values():
        row.pop("learned", None)
    page = Page(render(changed))
    assert CONFLICT in page.text["h2"]
    assert SECTION not in page.text["h2"]
    assert page.text["figcaption"][-1] == (
        "FTconflict in 50 % of 2 steps, 12.5 % of ‖g_f‖ removed"
    )


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_what_a_projection_removes(cosines):
    often, removed = panels.conflict_share(cosines)
    # A unit g_f at each angle, projected off g_r = (1, 0) where they conflict.
    lengths = [
        np.hypot(c - max(c, 0.0), 0.0) if c < 0 else 0.0 for c in map(float, cosines)
    ]
    assert removed == pytest.approx(np.mean(lengths), abs=1e-12)
    assert often == sum(c < 0 for c in cosines) / len(cosines)


def test_the_caption_counts_what_is_drawn(results):
    changed = results | {"conflict": {"m1": [-0.5, 0.5], "m2": [0.1, 0.1, 0.1, -0.4]}}
    said = caption(changed)
    assert "In these runs they conflict in 25 to 50 % of the steps" in said
    assert "removes 10.0 to 25.0 % of ‖g_f‖ in the mean" in said
    assert "Drawn are" not in said
    said = caption(results | {"conflict": {"m1": [-0.5, 0.5]}})
    assert "They conflict in 50 % of the steps" in said
    assert "25.0 % of ‖g_f‖" in said


def test_of_many_methods_the_first_are_drawn(results):
    rows = results["rows"] | {f"n{k}": results["rows"]["m1"] for k in range(15)}
    angles = {f"n{k}": [0.5, -0.5] for k in range(15)}
    many = {"format": 1, "rows": rows, "conflict": angles}
    assert len(conflict_by_step(many)) == panels.CONFLICTS == 12
    assert caption(many).endswith("Drawn are the first 12 of 15 methods.")
    # What is not drawn is not counted either.
    many["conflict"]["n14"] = [-1.0]
    assert "conflict in 50 % of the steps" in caption(many)


def test_the_shade_is_the_area_below_zero(results):
    cosines = [0.4, -0.4, -0.2, 0.2, 0.0, -0.3, -0.3]
    (drawing,) = conflict_by_step(results | {"conflict": {"m1": cosines}})
    curve = re.findall(r'd="(M [^"]*)" [^>]*stroke: var\(--blue\)', drawing.svg)[0]
    points = np.array(re.findall(r"[-\d.]+", curve), float).reshape(-1, 2)
    heights = (points[:, 1] - points[4, 1]) / (points[1, 1] - points[0, 1])
    np.testing.assert_allclose(-0.8 * heights, cosines, atol=2e-3)
    corners = []
    for path in re.findall(r'd="(M [^"]*) z " [^>]*fill: var\(--red\)', drawing.svg):
        places = (
            np.array(re.findall(r"[-\d.]+", path), float).reshape(-1, 2) - points[4]
        )
        steps, below = (places / (points[1] - points[0]) * [1, -0.8] + [5, 0]).T
        corners.append(
            sorted({*zip(steps.round(2), below.round(2) + 0.0, strict=True)})
        )
    assert corners == [
        [(1.5, 0), (2, -0.4), (2, 0), (3, -0.2), (3, 0), (3.5, 0)],
        [(5, 0), (6, -0.3), (6, 0), (7, -0.3), (7, 0)],
    ]


def test_long_runs_become_rasters(results):
    long = {"m1": [0.1, -0.1] * 400}
    (drawing,) = conflict_by_step(results | {"conflict": long})
    assert "data:image/png;base64," in drawing.svg
    assert len(drawing.svg) < 60_000
    assert "50 % of 800 steps" in drawing.detail
