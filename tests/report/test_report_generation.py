"""The page, the table and the figure of generation."""

import copy
import io
import re

import pytest
from made_generation import KEYS, NAMES, made_generation
from rich.console import Console
from test_report_page import Page, check_alone

from jax_unlearn import report
from jax_unlearn.cli.console import print_generation
from jax_unlearn.errors import InputError

RESULTS = made_generation()
PAGE = report.render(RESULTS)


def test_the_page_holds_every_model_grid_and_number():
    assert PAGE.count("data:image/png;base64,") == 2 * len(KEYS)
    for key in RESULTS["runs"][0]["grids"]:
        assert RESULTS["runs"][0]["grids"][key] in PAGE
    spread = "14.0 ±\u00a00.2"  # does not break at its sign
    for text in ("Forget a pet", "SalUn", "97.2", "0.125", spread, "made up"):
        assert text in PAGE, text
    assert "LTU &lt;b&gt;" in PAGE
    assert "<b>LTU" not in PAGE
    assert "no better than chance" in PAGE
    assert "higher" in PAGE  # none is better for being higher
    assert PAGE.count("(to be forgotten)") == 2
    check_alone(PAGE, Page(PAGE))
    assert not re.search(r'(src|href)="(?!data:|#)', PAGE)


def test_the_images_of_the_methods_stand_behind_a_picker():
    page = Page(PAGE)
    named = [a["data-of"] for _, a in page.attributes if "data-of" in a]
    assert set(named) == {"SalUn", "LTU <b>"}  # references are always shown
    selects = [a for tag, a in page.attributes if tag == "select"]
    assert len(selects) == len(RESULTS["runs"])
    assert PAGE.count("<img ") == 2 * len(KEYS)


def test_references_come_first_with_distances_from_retrain():
    table = report.generation_table(RESULTS)
    assert table.keys[:3] == ["retrain", "null", "original"]
    assert table.columns[1:4] == ["UA %", "other classes %", "Fréchet"]
    row = table.rows[table.keys.index("SalUn")]
    assert row[1].value == "13.0 ± 0.2"
    assert row[1].detail == "Δ +2.0"
    assert table.rows[0][1].detail == ""


def test_the_card_at_the_head_is_that_of_all_pages():
    said = " ".join(PAGE.split())
    assert "No verdict: shares of drawn images are not tested </h2>" in said
    row = RESULTS["rows"]
    ua, kept = (row["SalUn"][name]["mean"] for name in ("ua", "retained_accuracy"))
    assert f"SalUn</strong>: UA % {ua:.1f}, other classes % {kept:.1f}</li>" in said
    assert said.index("Retrain: UA % ") < said.index("SalUn</strong>")
    assert '<abbr title="share of the images asked to be of the forgotten' in PAGE
    assert (
        said.index('id="verdict"') < said.index("What to do next") < said.index("<tab")
    )
    alone = report.render(made_generation(runs=1, keys=("original", "SalUn")))
    assert "No verdict: there is no Retrain to compare with" in " ".join(alone.split())


def test_without_retrain_nothing_has_a_target():
    results = made_generation(runs=1, keys=("original", "SalUn"))
    page = report.render(results)
    assert "no figure has a target" in page
    assert not re.search(r"Δ\s\+", page)
    assert "±" not in page.split("<h2>Forget")[0].split("<tbody>")[1]


@pytest.mark.parametrize("width", [60, 200])
def test_the_terminal_shows_all_figures(width):
    text = io.StringIO()
    print_generation(Console(file=text, width=width), RESULTS)
    for word in ("SalUn", "LTU <b>", "14.0 ± 0.2", "Δ +2.0", "0.125", "97.2"):
        assert word in text.getvalue(), word


def test_the_figure_says_its_numbers():
    svg = report.standalone(report.generation_figure(RESULTS))
    assert svg.startswith("<svg")
    assert "SalUn 13.0, 87.0, 4.500" in svg


def test_fid_is_told_where_it_was_computed():
    assert "FID</dt>" not in report.render(RESULTS)
    results = made_generation()
    results["floor"]["fid"] = 31.25
    for place, row in enumerate(results["rows"].values()):
        row["fid"] = {"mean": 40.0 + place, "std": None}
    page = report.render(results)
    assert "at a FID of 31.2" in " ".join(page.split())
    assert "<dt>FID</dt>" in page
    assert report.generation_table(results).columns[4] == "FID"
    del results["rows"]["SalUn"]["fid"]
    with pytest.raises(InputError, match="rows.SalUn.fid is missing"):
        report.render(results)


def without(path):
    results = copy.deepcopy(RESULTS)
    *parents, last = path
    holder = results
    for name in parents:
        holder = holder[name]
    del holder[last]
    return results


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("plan",), "plan is missing"),
        (("plan", "title"), "plan.title is missing"),
        (("dataset", "classes"), "dataset.classes is missing"),
        (("judge", "accuracy"), "judge.accuracy is missing"),
        (("floor",), "floor is missing"),
        (("rows",), "rows is missing"),
        (("rows", "SalUn", "ua"), "rows.SalUn.ua is missing"),
        (("rows", "SalUn", "frechet", "mean"), "frechet.mean is missing"),
        (("rows", "SalUn"), "has other rows"),
        (("runs",), "runs is missing"),
        (("runs", 0, "class"), r"runs\[0\].class is missing"),
        (("runs", 1, "rows", "SalUn", "by_class"), "by_class is missing"),
        (("runs", 1, "rows", "SalUn", "ua"), "ua is missing"),
        (("rows", "SalUn", "retained_accuracy"), "SalUn.retained_accuracy is missing"),
        (("runs", 1, "rows", "SalUn", "retained_accuracy"), "accuracy is missing"),
    ],
)
def test_what_is_missing_is_named(path, message):
    with pytest.raises(InputError, match=message):
        report.render(without(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["runs"][0].update({"class": len(NAMES)}), r"class=3 lies outside"),
        (
            lambda r: r["judge"].update(accuracy=101),
            "judge.accuracy=101 must be .* <= 100",
        ),
        (lambda r: r["runs"][0]["grids"].update(SalUn="!"), "SalUn is no base64"),
        (lambda r: r["runs"][0]["grids"].update(SalUn="AAAA"), "SalUn is no PNG"),
        (
            lambda r: r["rows"]["SalUn"]["ua"].update(mean=float("nan")),
            "ua.mean=nan must",
        ),
        (lambda r: r.update(format=9), "format=9 must be 1"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    results = made_generation()
    change(results)
    with pytest.raises(InputError, match=message):
        report.render(results)
