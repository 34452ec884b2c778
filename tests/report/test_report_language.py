"""The page of language models: the same card, table and audit as of the others."""

import pytest
from made_audit import made_audit
from test_report_page import Page, check_alone

from jax_unlearn.report import render
from jax_unlearn.report.language import FIGURES


def made_row(label, forget, distance):
    figures = {"forget_probability": forget, "deviation": distance, "auc_loss": 0.6}
    spread = {name: {"mean": value, "std": None} for name, value in figures.items()}
    return {"label": label, "figures": spread, "seconds": {"mean": 1.0}}


@pytest.fixture
def results():
    rows = {
        "retrain": made_row("Retrain", 0.2, 0.0),
        "null": made_row("Null", 0.21, 0.05),
        "original": made_row("Original (nothing done)", 0.9, 0.7),
        "0-far": made_row("far", 0.6, 0.4),
        "1-near": made_row("near", 0.22, 0.1),
    }
    texts = {"forget": 4, "retain": 9}
    return {"kind": "language", "format": 1, "rows": rows, "texts": texts}


def heads(source):
    return [" ".join(text.split()) for text in Page(source).text["h2"]]


def test_an_audit_of_texts_has_the_headline_card_and_its_sections(results):
    figures = {"original": 9.0, "0-far": 9.0, "1-near": 0.0}
    audited = results | {"audit": made_audit(figures, keys=["ua", "deviation"])}
    source = render(audited)
    check_alone(source, Page(source))
    found = heads(source)
    assert found[:3] == [
        "1 of 2 methods cannot be told from retraining",
        "What to do next",
        "Results",
    ]
    assert "What these numbers can and cannot prove" in found
    links = {a["href"] for tag, a in Page(source).attributes if tag == "a"}
    names = {a["id"] for tag, a in Page(source).attributes if "id" in a}
    assert {f"#{name}" for name in names} >= links
    assert {"#method-near", "#method-far"} <= links
    assert "the same training without the texts to forget" in source
    table = source[source.index('<table class="main"') :]
    assert table.index(">near<") < table.index(">far<")  # nearest to Retrain first


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ((), "No verdict: it takes 3 Retrains to know"),
        (("retrain", "null"), "No verdict: there is no Retrain to compare with"),
    ],
)
def test_without_an_audit_there_is_no_verdict(results, missing, said):
    for key in missing:
        del results["rows"][key]
    source = render(results)
    assert heads(source)[0].startswith(said)
    assert "What these numbers" not in source
    below = source[source.index('<dl class="glossary"') :]
    for name in ("forget_probability", "deviation", "auc_loss"):
        assert f"<dt>{FIGURES[name][0]}</dt>" in below
