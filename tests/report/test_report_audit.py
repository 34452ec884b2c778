"""The pages of an audit: every number beside its target, links, settings, words."""

import re
from types import SimpleNamespace

import pytest
from made_audit import made_audit
from made_results import made_results
from test_report_page import NO_DRAWINGS, Page, check_alone, squeezed

from jax_unlearn.audit.figures import FIGURES, GROUPS, KINDS, headlines
from jax_unlearn.audit.records import visible
from jax_unlearn.lab import Unlearning
from jax_unlearn.report import check_results, render
from jax_unlearn.report.pages import _typeset as typeset
from jax_unlearn.report.pages import audit, experiment

METHODS = {"FT": Unlearning.of(method="finetune"), "SSD": Unlearning.of(method="ssd")}
SIGNS = {"inside": "●", "outside": "○"}


@pytest.fixture(scope="module")
def record():
    return made_audit(separated=2)


@pytest.fixture(scope="module")
def source(record):
    return render({"format": 1, "audit": record})


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def plain(value, key, digits=None):
    digits = KINDS[key].digits if digits is None else digits
    text = f"{value:.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def digits_of(figure, key):
    """Return as many digits as show that a value outside lies there."""
    return visible(SimpleNamespace(**figure), KINDS[key].digits)


def shown(figure, key):
    digits = digits_of(figure, key)
    text = plain(figure["value"], key, digits)
    std = figure["std"]
    return text if std is None else f"{text} ± {plain(std, key, digits)}"


def interval(figure, key):
    ends = (figure["null_low"], figure["null_high"])
    return f"[{', '.join(plain(end, key, digits_of(figure, key)) for end in ends)}]"


FIRST = [card.key for card in headlines(FIGURES)]
SHOWN = [
    FIRST,
    *([key for key in keys if key not in FIRST] for keys in GROUPS.values()),
]
SHOWN = [keys for keys in SHOWN if keys]


def test_few_figures_come_first_and_the_others_wait_behind_them(source):
    assert len(FIRST) == 9
    one = source[source.index('id="audit"') : source.index('id="limits"')]
    first, behind = one.split("<details>")
    assert f"{len(KINDS) - 9} more figures" in behind
    for key in KINDS:
        place = behind if key not in FIRST else first
        assert typeset(KINDS[key].label) in place, key
    assert "</details>" in behind
    assert "details::details-content" in source  # all of them are printed
    small = made_audit({"FT": 1.0}, keys=["ua", "klom"])
    assert "<details>" not in render({"format": 1, "audit": small})


def test_the_groups_hold_every_figure():
    keys = [key for group in GROUPS.values() for key in group]
    assert sorted(keys) == sorted(KINDS)
    assert set(audit.TITLES) == set(GROUPS)


def test_every_number_of_the_overview_is_there(record, source):
    overview = source[source.index('<section id="audit">') :]
    page = Page(overview[: overview.index("</section>") + 10])
    cells = iter(squeezed(page.text["td"]))
    names = list(record["figures"])
    for group in SHOWN:
        for _ in [None, *names]:
            assert next(cells) == ""  # beside the title of the group
        for key in group:
            first = record["figures"][names[0]][key]
            kind = KINDS[key]
            whose = "Retrain" if kind.kind == "level" and kind.models == 1 else "null"
            assert next(cells) == plain(first["target"], key) + whose
            for name in names:
                figure = record["figures"][name][key]
                verdict = figure["verdict"]
                assert next(cells) == (
                    f"{shown(figure, key)}{interval(figure, key)} {SIGNS[verdict]} "
                    f"{verdict} the null's interval"
                )


def test_marks_are_those_of_the_main_table(source):
    for verdict, sign in SIGNS.items():
        mark = f'<span class="mark" aria-hidden="true">{sign}</span>'
        assert re.search(f'<td class="{verdict}">[^●○]*{mark}', source)
        assert not re.search(f'<td class="{verdict}">[^●○]*[●○](?<!{sign})', source)


def test_no_number_is_called_better(source):
    words = re.sub(r"<[^>]*>", " ", source[source.index("<body") :])
    assert not re.findall(r"[↑↓▲▼]|\bbest\b(?! attack)|\bworse|\bwinner", words)
    better = [
        words[m.start() - 30 : m.end() + 30] for m in re.finditer("better", words)
    ]
    told = ("No figure is better for being higher", "from retrained ones, better than")
    assert all(any(text in " ".join(b.split()) for text in told) for b in better)


def test_each_method_has_a_page_and_a_link(record, source, page):
    contents = source[source.index("<nav") : source.index("</nav>") + 6]
    links = [v for v in Page(contents).values("href") if v.startswith("#method")]
    assert links == ["#method-original", "#method-ft", "#method-ssd"]
    sections = [a for tag, a in page.attributes if tag == "section" and "class" in a]
    assert [a["id"] for a in sections if a["class"] == "page"] == [v[1:] for v in links]
    assert page.text["h2"][-3:] == list(record["figures"])
    printed = source[source.index("@media print") :]
    assert "section.page { break-before: page;" in printed[: printed.index("</style>")]
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for value in page.values("href"):
        assert value[1:] in ids


def test_the_page_of_a_method_tells_every_figure(record, source):
    start = source.index('id="method-ft"')
    part = source[start : source.index("</section>", start)]
    rows = re.findall(r'<tr>\n<th scope="row">(.*?)</tr>', part, re.DOTALL)
    figures = record["figures"]["FT"]
    keys = [key for group in SHOWN for key in group]
    for row, key in zip(rows, keys, strict=False):
        figure = figures[key]
        text = " ".join(re.sub(r"<[^>]*>", " ", row).split()).replace("&#39;", "'")
        kind = KINDS[key]
        wanted = " ".join(
            (
                typeset(kind.label),
                typeset(kind.meaning),
                shown(figure, key),
                SIGNS[figure["verdict"]],
                figure["verdict"],
                plain(figure["target"], key),
                "Retrain" if kind.kind == "level" and kind.models == 1 else "null",
                interval(figure, key),
            )
        )
        assert text == " ".join(wanted.split())
        assert '<svg viewBox="0 0 112 14" aria-hidden="true">' in row
    thirds = record["details"]["FT"]["groups"]
    for value in thirds.values():
        assert f"<td>{value:+.3f}</td>".replace("-", "−") in part
    assert "8.70 [8.10, 9.40]" in part  # the interval of an attack itself
    assert len(rows) == len(figures)


def test_nothing_is_fetched_or_run(source, page):
    assert "img" not in page.tags
    check_alone(source, page)
    ids = page.values("id")
    for name in re.findall(r"url\(([^)]*)\)", source):
        assert name[0] == "#"
        assert name[1:] in ids


def test_an_audit_alone_has_only_its_own_sections(page):
    assert page.text["h1"] == ["Unlearning audit"]
    heads = [text.strip() for text in page.text["h2"]]
    assert heads[:-3] == [
        "1 of 3 methods cannot be told from retraining",
        "What to do next",
        "Results",
        "All figures of the audit",
        "How well the models can be told from Retrain",
        "What these numbers can and cannot prove",
    ]
    drawings = [a for tag, a in page.attributes if tag == "svg" and "role" in a]
    assert len(drawings) == 1 + 2 * 3
    assert all(len(a["aria-label"]) > 20 for a in drawings)


def test_rows_and_audit_stand_on_one_page(monkeypatch):
    monkeypatch.setattr(experiment, "drawings", lambda results: NO_DRAWINGS)
    results = made_results(seeds=1, methods=METHODS)
    both = render(
        results
        | {
            "audit": made_audit(
                {"m0": 4.0, "SSD": 0.3, "new": 1.0}, keys=["ua", "klom"]
            )
        }
    )
    page = Page(both)
    heads = page.text["h2"]
    assert heads[2:6] == [
        "Results",
        "In words",
        "How to read this",
        "All figures of the audit",
    ]
    assert heads[-4:] == ["Where the numbers come from", "FT", "SSD", "new"]
    assert "#results" in page.values("href")
    assert "#sources" in page.values("href")
    assert heads.count("FT") == 1
    source = render(results)
    alone = Page(source)
    assert alone.text["h2"][2:] == heads[2:5] + ["Where the numbers come from"]
    assert "nav" not in alone.tags
    assert 'class="page"' not in source


def test_settings_are_found_by_key_and_by_label():
    results = made_results(seeds=1, methods=METHODS)
    results["audit"] = made_audit(
        {"m0": 1.0, "SSD": 1.0, "other": 1.0, "original": 9.0}
    )
    rows = check_results(results).rows
    found = audit.method_settings(rows, "m0")
    assert found["method"] == "finetune: Fine-tune (FT)"
    assert found["epochs"] == "5"
    assert found["reads"] == "retain"
    dampened = audit.method_settings(rows, "SSD")
    assert dampened["source"] == "arXiv 2308.07707"
    assert "selection 10" in dampened["also"]
    assert "epochs" not in dampened
    assert audit.method_settings(rows, "other") == {}
    assert audit.method_settings(rows, "original") == {}
    assert audit.method_settings({}, "m0") == {}
    pages = audit.content(check_results(results).audit, rows)["pages"]
    assert [page["label"] for page in pages] == [
        "FT",
        "SSD",
        "other",
        "Original (nothing done)",
    ]


def test_names_of_users_are_escaped():
    nasty = '<script>alert("1")</script> & $a_b$ {{ x }} 忘却'
    made = made_audit({nasty: 3.0, "FT": 1.0}, keys=["ua", "lira_auc", "epsilon"])
    made["left_out"]["klom"] = nasty
    page = Page(render({"format": 1, "audit": made}))
    assert page.tags.count("script") == 1
    assert nasty in page.text["h2"]
    assert any(nasty in text for text in page.text["th"])
    assert any(nasty in value for value in page.values("aria-label"))
    assert f"KLoM (mean): {nasty}" in page.text["li"]


def test_like_names_have_pages_of_their_own():
    found = audit.slugs(["a b", "a/b", "a-b-2", "", "忘"])
    assert found[:2] == ["method-a-b", "method-a-b-2"]
    assert len(set(found)) == 5
    assert all(re.fullmatch(r"method-[a-z0-9-]+", slug) for slug in found)


def test_what_was_left_out_is_told_with_its_reason(record):
    made = made_audit({"FT": 1.0}, keys=["ua", "klom"])
    made["left_out"] = {
        "rmia_auc": "needs outputs on unseen samples",
        "klom_95": "needs 4 models",
        "mia_loss": "needs outputs on unseen samples",
    }
    text = render({"format": 1, "audit": made})
    told = [
        (
            typeset("RMIA AUC; MIA (loss, accuracy) %"),
            "needs outputs on unseen samples",
        ),
        (typeset("KLoM (95 % of samples)"), "needs 4 models"),
    ]
    assert re.findall("<strong>(.*):</strong> (.*)</li>", text) == told
    assert "What was left out" not in render({"format": 1, "audit": record})


def test_one_retrain_has_no_null_and_no_verdict():
    keys = ["ua", "ra", "ta", "mia", "avg_gap", "tow", "deviation"]
    made = made_audit({"FT": 2.0}, keys=keys, null=False)
    text = render({"format": 1, "audit": made})
    page = Page(text)
    assert not set("●○") & set(text)
    assert "svg" not in page.tags
    assert page.text["th"].count("verdict") == 0
    cells = squeezed(page.text["td"])
    assert "0.00if alike" in cells
    assert "1.000if alike" in cells
    assert any(t.startswith("There is no null.") for t in page.text["li"])
