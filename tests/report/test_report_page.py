"""The page stands alone, shows what the table says, and escapes what users write."""

import ast
import base64
import collections
import copy
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from cycler import cycler
from made_results import made_results

import jax_unlearn.report
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.report import check_results, main_table, render, write
from jax_unlearn.report.draw import experiment as panels
from jax_unlearn.report.pages import experiment
from jax_unlearn.report.reading import Results
from jax_unlearn.report.table import ordered

VOID = {"meta", "br", "img"}
NO_DRAWINGS = dict.fromkeys(("gap", "deviation", "confidence", "weights", "conflict"))
METHODS = {
    "RL + FaLW": Unlearning.of(weighting="falw"),
    "FT": Unlearning.of(method="finetune", learning_rate=0.05),
}


class Page(HTMLParser):
    """Collect elements and text; refuse tags that do not close as they open."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes = [], [], []
        self.text = collections.defaultdict(list)
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h1", "h2", "th", "td", "p", "figcaption", "li", "dd"):
            self.text[tag].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in self.open:
            if self.text[tag]:
                self.text[tag][-1] += data

    def values(self, *names):
        return [a[n] for _, a in self.attributes for n in names if n in a]


@pytest.fixture(scope="module")
def results():
    return made_results(methods=METHODS)


@pytest.fixture(scope="module")
def source(results):
    return render(results)


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def squeezed(texts):
    return [" ".join(text.split()) for text in texts]


def first(page, start, tag="p"):
    """Return the first text of a tag that starts so."""
    return next(text for text in page.text[tag] if text.strip().startswith(start))


def typed(results) -> Results:
    found = check_results(results)
    assert isinstance(found, Results)
    return found


def summary(results):
    """Return the paragraphs of the summary, on a page without drawings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "drawings", lambda results: NO_DRAWINGS)
        source = render(results)
    start = source.index('<section class="summary"')
    paragraphs = Page(source[start : source.index("</section>", start) + 10]).text["p"]
    return [re.sub("[ \n]+", " ", text).strip() for text in paragraphs]


def check_alone(source, page):
    """Refuse a page that fetches, runs more than its own script, or is large."""
    assert not {"link", "iframe", "object", "base"} & set(page.tags)
    assert not [n for _, a in page.attributes for n in a if n.startswith("on")]
    assert not re.findall(
        r"https?:|@import|@font-face|fetch\(|XMLHttp|import\(", source
    )
    assert [a for tag, a in page.attributes if tag == "script"] == [{}]
    (script,) = re.findall("<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (a["content"] for _, a in page.attributes if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy
    assert len(source.encode()) < 1_000_000


def test_nothing_is_fetched_or_run(source, page):
    check_alone(source, page)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for value in page.values("href", "src", "xlink:href"):
        assert value.startswith("data:image/png;base64,") or value[1:] in ids
    for name in re.findall(r"url\(([^)]*)\)", source):
        assert name[0] == "#"
        assert name[1:] in ids


def test_the_table_is_the_main_table(results, source):
    table = ordered(main_table(results), "Avg. Gap").table
    assert table.keys == ["retrain", "null", "original", "m1", "m0"]
    parts = re.findall(r'<table class="main".*?</table>', source, re.DOTALL)
    heads = [Page(part).text["th"] for part in parts]
    first = ["Model", "UA %", "TA %", "Avg. Gap", "Cost %"]
    assert heads[0][: len(first)] == first
    folded = [name for name in table.columns if name not in first[1:]]
    assert heads[1][: len(folded)] == folded
    for part, columns in zip(parts, (first, folded), strict=True):
        shown = iter(squeezed(Page(part).text["td"]))
        for row in table.rows:
            for name in columns[1:]:
                cell, text = row[table.columns.index(name)], next(shown)
                assert text.startswith(cell.value)
                for part in cell.detail.split(", "):
                    assert part in text
                if cell.mark:
                    sign = {"inside": "●", "outside": "○"}[cell.mark]
                    assert text.endswith(f"{sign} {cell.mark} the null's interval")
                else:
                    assert not set("●○") & set(text)
        assert next(shown, None) is None


def test_every_drawing_says_what_it_shows(results, page):
    drawings = [a for tag, a in page.attributes if tag == "svg"]
    # distances; deviation and confidence a method and two references; one weighting
    assert len(drawings) == 1 + 2 + 4 + 1
    assert all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in drawings)
    titles = ["RL + FaLW", "FT"]
    assert page.text["figcaption"] == [
        *titles,
        "Retrain",
        "Original (nothing done)",
        *titles,
        "RL + FaLW",
    ]
    groups = results["rows"]["m0"]["groups"]
    head = f"head {groups['head']['mean']:+.3f}".replace("-", "−")
    assert head in drawings[1]["aria-label"]


def test_drawings_follow_the_numbers(results):
    changed = copy.deepcopy(results)
    changed["rows"]["m1"]["by_rank"][0] -= 0.01
    changed["rows"]["m1"]["histograms"]["forget"][3] += 20
    changed["rows"]["m1"]["avg_gap"]["mean"] -= 1.0
    changed["scatter"]["m0"]["last_weights"][0] += 1.0
    for draw, same in (
        (panels.deviation_by_class, [True, False]),
        (panels.confidences, [True, True, True, False]),
        (panels.weights_against_losses, [False]),
    ):
        pairs = zip(draw(typed(results)), draw(typed(changed)), strict=True)
        assert [a.svg == b.svg for a, b in pairs] == same
    one, two = map(panels.gap_against_deviation, map(typed, (results, changed)))
    assert one != two


def test_a_line_of_the_deviation_lies_where_its_numbers_say(results):
    rows = copy.deepcopy(results["rows"])
    for row in rows.values():
        row["by_rank"] = [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
        row["groups"] = {}
    (drawing, _) = panels.deviation_by_class(typed(results | {"rows": rows}))
    line = re.findall(r'd="(M [^"]*)" [^>]*stroke: var\(--blue\)', drawing.svg)[0]
    points = np.array(re.findall(r"[-\d.]+", line), float).reshape(-1, 2)
    np.testing.assert_allclose(np.diff(points[:, 0]), points[1, 0] - points[0, 0], 0.01)
    heights = (points[0, 1] - points[:, 1]) / (points[0, 1] - points[2, 1])
    np.testing.assert_allclose(heights, rows["m0"]["by_rank"], atol=1e-3)


def test_the_same_results_give_the_same_page(results, source):
    user: Any = {"font.size": 30, "axes.prop_cycle": cycler(color=["red"])}
    with matplotlib.rc_context(user):
        before = dict(matplotlib.rcParams)
        assert render(results) == source
        assert dict(matplotlib.rcParams) == before


def test_texts_of_users_are_escaped(results):
    nasty = '<script>alert("1")</script> & $a_b$ {{ x }} 忘却'
    changed = copy.deepcopy(results)
    changed["rows"]["m0"]["label"] = nasty
    changed["plan"] |= {"title": nasty, "note": nasty}
    changed["dataset"]["name"] = nasty
    changed["environment"]["device"] = nasty
    page = Page(render(changed))
    assert page.tags.count("script") == 1
    assert page.text["h1"] == [nasty]
    assert nasty in page.text["th"]
    assert page.text["figcaption"].count(nasty) == 3
    assert nasty in page.text["p"]
    assert any(nasty in value for value in page.values("aria-label"))


def test_without_retrain_it_says_that_there_is_no_target():
    page = Page(render(made_results(seeds=1, retrain=False, null=False)))
    after = page.text["h2"].index("Results")
    assert first(page, "Of the 200")
    assert first(page, "Retrain would be the same training")
    assert first(page, "Without Retrain no figure has a target.")
    assert first(page, "There is no target here.", "li")
    assert [text.strip() for text in page.text["h2"][:after]] == [
        "No verdict: there is no Retrain to compare with",
        "What to do next",
    ]
    assert page.text["h2"][after:] == [
        "Results",
        "In words",
        "How to read this",
        "Confidence in the true class",
        "Where the numbers come from",
    ]
    assert not [text for text in page.text["dd"] if "Retrain" in text]


def test_one_seed_claims_no_spread_and_no_test():
    page = Page(render(made_results(seeds=1, null=False)))
    said = " ".join(" ".join(texts) for texts in page.text.values())
    assert "There is one seed" in said
    assert "There is no null." in said
    assert "±" not in said
    assert "clearly" not in said


@pytest.mark.parametrize(
    "case",
    [
        {"seeds": 2, "forgotten": [3]},
        {"seeds": 2, "forgotten": [0, 3], "null": False},
        {"seeds": 2, "methods": {}},
        {"seeds": 2, "classes": 100},
    ],
    ids=["one class", "two classes", "no method", "many classes"],
)
def test_unusual_results_are_drawn(case):
    page = Page(render(made_results(**case)))
    methods = case.get("methods", {"FT": None})
    assert len([t for t in page.text["th"] if t in methods]) == 3 * len(methods)


@pytest.mark.parametrize(("count", "room"), [(9, 1.0), (12, 1.4), (30, 1.4)])
def test_numbers_of_many_methods_do_not_cover_each_other(results, count, room):
    rng = np.random.default_rng(3)
    rows = {key: results["rows"][key] for key in ("retrain", "null", "original")}
    for n in range(count):
        rows[f"m{n}"] = row = copy.deepcopy(results["rows"]["m1"])
        for distance in ("avg_gap", "deviation"):
            end = 0.6 * rows["original"][distance]["mean"]
            row[distance]["mean"] = end + 0.4 * end * (n / count + rng.random() / 4)
    drawing = panels.gap_against_deviation(typed({"format": 1, "rows": rows}))
    numbers = re.findall(
        r'<text [^>]*weight: 700[^>]* x="([-\d.]+)" y="([-\d.]+)"[^>]*>(\w+)<',
        drawing.svg,
    )
    at = {name: (float(x), float(y)) for x, y, name in numbers}
    assert set(at) == {"R", "N", "O", *(str(n) for n in range(1, count + 1))}
    places = np.array(list(at.values())) / [room, 1.0]
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    assert apart[np.triu_indices(len(places), 1)].min() > 8


def test_plan_dataset_environment_and_scatter_may_be_missing(results):
    page = Page(render({"format": 1, "rows": results["rows"]}))
    assert page.text["h1"] == ["Unlearning audit"]
    assert "Weight against loss" not in page.text["h2"]
    assert first(page, "Of the 200 samples that the original model")


def with_tests(results, **figures):
    """Return the results with (difference, p) of the Avg. Gap and of |p − p*|."""
    changed = copy.deepcopy(results)
    for key, (gap, gap_p, deviation, deviation_p) in figures.items():
        row = changed["rows"][key]
        row["comparison"]["against_nothing"] |= {"mean_difference": gap, "t_p": gap_p}
        row["deviation_test"] |= {"mean_difference": deviation, "t_p": deviation_p}
    return changed


def test_the_summary_tells_gain_from_harm(results):
    told = summary(
        with_tests(results, m0=(-3, 0.01, 0.2, 0.01), m1=(-3, 0.2, 0.1, 0.5))
    )
    assert told[1] == (
        "Against doing nothing, by tests over the seeds: by Avg. Gap, RL + FaLW came "
        "clearly nearer to Retrain than doing nothing; for FT no difference is clear. "
        "Sample by sample, by |p − p*|, no method came clearly nearer to Retrain than "
        "doing nothing; RL + FaLW did harm, ending clearly farther from it; for FT no "
        "difference is clear."
    )
    told = summary(with_tests(results, m0=(-3, 0.01, 1, 0.06), m1=(-2, 0.01, -1, 0.5)))
    assert "RL + FaLW and FT came clearly nearer" in told[1]
    assert "no method ends clearly nearer" in told[1]


def test_the_summary_counts_what_was_asked(results):
    asked = summary(results)[0]
    assert asked.startswith(
        "Of the 200 samples of made that the original model was trained on, 66 "
        "(33.0\N{NO-BREAK SPACE}%) were to be forgotten, drawn long-tailed over the "
        "classes (imbalance γ = 1.5)"
    )
    given = results | {"plan": {"kind": "given", "forget_counts": [3, 0, 2]}}
    assert "a given list that touches 2 of 3 classes" in summary(given)[0]


@pytest.mark.parametrize(
    ("kind", "said"), [("near", "nearest to"), ("far", "farthest from")]
)
def test_the_summary_says_how_near_and_far_were_chosen(results, kind, said):
    asked = summary(results | {"plan": {"kind": kind}})[0]
    assert (
        "were to be forgotten, of each class those whose features under the original "
        f"model lie {said} their nearest other training samples. Everything" in asked
    )


def test_a_page_is_not_overwritten_unasked(tmp_path, results, monkeypatch):
    monkeypatch.setattr(experiment, "drawings", lambda results: NO_DRAWINGS)
    path = write(results, tmp_path / "new" / "report.html")
    first = path.read_text(encoding="utf-8")
    assert first.startswith("<!doctype html>")
    with pytest.raises(InputError, match="exists"):
        write(results, path)
    changed = results | {"plan": results["plan"] | {"title": "Second"}}
    write(changed, path, overwrite=True)
    assert path.read_text(encoding="utf-8") != first


def test_heavy_libraries_wait_for_the_first_drawing():
    for file in Path(jax_unlearn.report.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "pyplot" not in text.replace("that pyplot does not know", "")
        for node in ast.parse(text).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            module = getattr(node, "module", None) or ""
            assert not any(n.startswith("matplotlib") for n in [module, *names])
