"""What a reader does with a page: sort, pick, read it on a telephone and by keyboard.

The first tests look at the markup; the last one asks a browser, where there is one.
"""

import html
import json
import re
import shutil
import subprocess

import pytest
from made_audit import made_audit
from made_results import made_results
from test_report_page import Page, check_alone, typed

from jax_unlearn.lab import Unlearning
from jax_unlearn.report import render
from jax_unlearn.report.draw import experiment as panels
from jax_unlearn.report.pages import environment, headline

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
METHODS = {
    "FT": Unlearning.of(method="finetune"),
    "RL": Unlearning.of(),
    "RL + <FaLW>": Unlearning.of(weighting="falw"),
}


@pytest.fixture(scope="module")
def results():
    made = made_results(methods=METHODS)
    made["audit"] = made_audit({f"m{n}": 3.0 * n for n in range(3)}, keys=["ua", "ta"])
    return made


@pytest.fixture(scope="module")
def source(results):
    return render(results)


def test_a_page_says_its_verdict_then_what_to_do_then_the_numbers(source):
    page = Page(source)
    check_alone(source, page)
    heads = [" ".join(text.split()) for text in page.text["h2"]]
    assert heads[1:3] == ["What to do next", "Results"]
    order = ['id="verdict"', 'class="tiles"', "What to do next", '<table class="main"']
    places = [source.index(text, source.index("<body")) for text in order]
    assert places == sorted(places)


def test_tables_sort_folds_open_and_pickers_name_what_they_show(source):
    page = Page(source)
    sorts = [a for tag, a in page.attributes if tag == "table" and "data-sorts" in a]
    assert len(sorts) == 2  # the first columns, and those behind a fold
    tables = re.findall(r"<table[^>]*data-sorts.*?</table>", source, re.DOTALL)
    assert [text.count('aria-sort="ascending"') for text in tables] == [1, 0]
    for text in tables:
        made = Page(text)
        scopes = [a["scope"] for tag, a in made.attributes if tag == "th"]
        assert set(scopes) == {"col", "row"}
        rows = re.findall(r"<tr>.*?</tr>", text.split("<tbody>")[-1], re.DOTALL)
        assert len(rows) == len(METHODS)
    rows = re.findall(r"<tr>.*?</tr>", tables[0].split("<tbody>")[-1], re.DOTALL)
    gaps = [re.findall(r'data-by="([^"]*)"', row)[2] for row in rows]
    assert gaps == sorted(gaps, key=float)
    assert "<details" in source[: source.index(tables[1])]
    named = {a["data-of"] for _, a in page.attributes if "data-of" in a}
    assert named == set(METHODS)
    options = [a["value"] for tag, a in page.attributes if tag == "option"]
    assert set(options) == named | {""}
    assert all(a["hidden"] is None for tag, a in page.attributes if tag == "label")
    assert all("aria-label" in a for tag, a in page.attributes if tag == "select")
    ids = page.values("id")
    assert {v[1:] for v in page.values("href") if v[0] == "#"} <= set(ids)
    assert len(ids) == len(set(ids))


def luminance(colour):
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def test_words_can_be_read_on_both_grounds(source):
    light, dark = re.findall(r":root \{(.*?)\}", source, re.DOTALL)[:2]
    for part in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", part))
        inks = ("ink", "muted", "blue", "red", "green", "told")
        pairs = [("page", ink) for ink in inks] + [("raised", ink) for ink in inks[:3]]
        for ground, ink in pairs:
            a, b = sorted((luminance(colours[ink]), luminance(colours[ground])))
            assert (b + 0.05) / (a + 0.05) >= 4.5, (ink, ground)


@pytest.mark.parametrize(
    ("gaps", "state"),
    [
        ({}, "alike"),
        ({"ua": 9.0}, "told"),
        ({"ua": -9.0, "ra": 2.0}, "told"),
        ({"ra": -0.5}, "told"),
        ({"ta": -1.5}, "damaged"),
        ({"ra": -2.0, "mia": 4.0}, "damaged"),
    ],
)
def test_a_state_follows_from_what_lies_outside(results, gaps, state):
    rows = json.loads(json.dumps(results["rows"]))
    target, row = rows["retrain"]["metrics"], rows["m0"]
    for name, made in row["comparison"]["metrics"].items():
        made["verdict"] = "outside" if name in gaps else "inside"
        row["metrics"][name]["mean"] = target[name]["mean"] + gaps.get(name, 0.0)
    found = headline.of_rows(typed({"format": 1, "rows": rows}).rows, 3)
    (one,) = [one for one in found.every if one.key == "m0"]
    assert one.state == state
    assert {figure.name.lower() for figure in one.outside} == set(gaps)


def test_nothing_done_that_is_not_told_is_warned_of():
    template = environment().get_template("headline.html")
    for strength, warned in ((0.0, True), (9.0, False)):
        record = typed(
            {"format": 1, "audit": made_audit({"original": strength, "FT": 0.0})}
        ).audit
        labels = {"original": "Original", "FT": "FT"}
        found = headline.of_audit(record, labels, ("a", "b"))
        said = template.render(
            headline=found, audit=None, rows={}, results={"advice": ()}
        )
        assert ("doing nothing is not told" in said) == warned
        assert "FT cannot be told" in " ".join(said.split())


def test_classes_are_named_on_the_axis_where_they_are_known():
    made, counts = made_results(seeds=2), [30, 2, 9, 1, 8, 4]
    made["forget_counts"] = [counts, [n + 2 for n in counts]]
    (drawing,) = panels.deviation_by_class(typed(made))
    assert "class 0 (31)" in drawing.svg  # the mean over the seeds
    assert "<title>class class 2, 10 to forget: FT " in drawing.svg
    made["forget_counts"][1] = counts[::-1]  # other classes at each rank
    (drawing,) = panels.deviation_by_class(typed(made))
    assert re.search(">1<.*30<", drawing.svg)
    who = "rank 1 (class class 0 or class 5, by seed), 30 to forget: FT "
    assert f"<title>{who}" in drawing.svg
    made["forget_counts"] = []  # of an earlier version
    (drawing,) = panels.deviation_by_class(typed(made))
    assert "class 0" not in drawing.svg
    assert "<title>rank 1: FT " in drawing.svg
    del made["forget_counts"]  # as an audit of an earlier version has them
    made["plan"]["forget_counts"] = counts
    (drawing,) = panels.deviation_by_class(typed(made))
    assert "class 0 (30)" in drawing.svg


def test_drawings_tell_their_numbers():
    methods = METHODS | {"LTU": Unlearning.of(method="ltu", epochs=3)}
    made = typed(made_results(seeds=1, methods=methods))
    gap = panels.gap_against_deviation(made).svg
    row = made.rows["m0"]
    assert row.avg_gap
    assert row.deviation
    told = f"FT {row.avg_gap.mean:.2f} and {row.deviation.mean:.3f}"
    assert f"<title>{told}</title>" in gap
    assert gap.count('class="hit"') == len(made.rows)
    (weights,) = panels.weights_against_losses(made)
    points = (made.scatter or {})["m2"]
    counts = re.findall(r"first quarter: (\d+) samples", weights.svg)
    assert sum(map(int, counts)) == len(points.first_losses)
    (conflict,) = panels.conflict_by_step(made)
    first = (made.conflict or {})["m3"][0]
    said = f"{first:+.2f}".replace("-", "−")
    assert f"<title>step 1: cosine {said}</title>" in conflict.svg


def test_a_page_of_many_methods_stays_small(results):
    made = typed(results)
    rows = dict(made.rows) | {f"n{k}": made.rows["m1"] for k in range(60)}
    assert len(panels.methods_drawn(rows)) == panels.DRAWN
    drawings = [*panels.deviation_by_class(made), *panels.confidences(made)]
    each = max(len(drawing.svg.encode()) for drawing in drawings)
    assert 2 * each * panels.DRAWN < 900_000


PROBE = """
const read = () => [...page.querySelector("table[data-sorts]").tBodies[1].rows]
  .map(row => row.cells[0].firstChild.textContent);
const sorted = () => [...page.querySelectorAll("table[data-sorts]")[0]
  .querySelectorAll("th[aria-sort]")].map(h => h.innerText.trim() + h.ariaSort);
const shown = () => [...page.querySelectorAll("[data-of]")]
  .filter(figure => !figure.hidden).map(figure => figure.dataset.of);
const said = {before: read(), rows: [], sorted: [], shown: [shown()]};
const heads = [...page.querySelectorAll("table[data-sorts] th button")];
page.querySelectorAll("details").forEach(part => { part.open = true; });
said.focus = heads.map(head => { head.focus(); return page.activeElement === head; });
for (const head of [heads[1], heads[1], heads[0]]) {
  head.click();
  said.rows.push(read());
  said.sorted.push(sorted());
}
const [first, ...others] = page.querySelectorAll(".picker select");
for (const label of ["RL", ""]) {
  first.value = label;
  first.dispatchEvent(new Event("change"));
  said.shown.push(shown());
}
said.pickers = others.map(other => other.value);
const strip = page.querySelector(".hit");
strip.dispatchEvent(new MouseEvent("click", {bubbles: true}));
said.tip = strip.closest("figure").querySelector(".tip").textContent;
said.width = page.scrollingElement.scrollWidth;
"""


def browser():
    """Return a browser on this machine, or skip."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)}")
    return found


@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_sorts_picks_and_needs_no_more_width(source, tmp_path, width):
    frame = f'<iframe width="{width}" height="900" srcdoc="{html.escape(source)}">'
    run = (
        "document.querySelector('iframe').onload = event => {"
        f"const page = event.target.contentDocument; {PROBE}"
        "document.body.replaceChildren(JSON.stringify(said)); }"
    )
    place = tmp_path / "frame.html"
    text = f"<body>{frame}</iframe><script>{run}</script>"
    place.write_text(f'<!doctype html><meta charset="utf-8">{text}', encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", place.as_uri()]
    made = subprocess.run(
        [browser(), *words], capture_output=True, text=True, timeout=120, check=False
    )
    said = re.search(r"<body>(\{.*\})</body>", made.stdout)
    assert said, made.stderr[-500:]
    found = json.loads(html.unescape(said[1]))
    table = re.search(r"<table[^>]*data-sorts.*?</table>", source, re.DOTALL)[0]
    rows = re.findall(r"<tr>.*?</tr>", table.split("<tbody>")[-1], re.DOTALL)
    by = {  # UA, the first figure, by its distance from Retrain's
        html.unescape(re.search(r'scope="row">([^<]*)', row)[1]): float(
            re.search(r'data-by="([^"]*)"', row)[1]
        )
        for row in rows
    }
    assert found["before"] == list(by)
    assert found["rows"][0] == sorted(by, key=by.get)
    assert found["rows"][1] == sorted(by, key=lambda name: -by[name])
    assert found["rows"][2] == sorted(by)
    sorts = [["UA %ascending"], ["UA %descending"], ["Modelascending"]]
    assert [[" ".join(t.split()) for t in own] for own in found["sorted"]] == sorts
    assert all(found["focus"])
    sections = len(found["pickers"]) + 1
    assert sections == 2  # one weighting alone has no picker
    first = set(found["shown"][0])
    assert first == {"FT", "RL", "RL + <FaLW>"} & first
    assert set(found["shown"][1]) == {"RL", "RL + <FaLW>"}  # its weights are alone
    assert set(found["shown"][2]) == set(METHODS)
    assert set(found["pickers"]) == {""}
    assert found["tip"]
    assert found["width"] <= width
