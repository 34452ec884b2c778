"""The page of language models: the same card, table and audit as of the others."""

import statistics

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


def made_seeds(label, **figures):
    told = {"deviation": [0.1] * 3, "auc_loss": [0.5, 0.6, 0.7], **figures}
    row = made_row(label, 0.0, 0.0)
    for name, values in told.items():
        mean, std = statistics.mean(values), statistics.stdev(values)
        row["figures"][name] = {"mean": mean, "std": std, "per_seed": values}
    return row


@pytest.fixture
def seeds(results):
    """An experiment over three seeds, whose null's interval is ± .0248."""
    forget, retain = [0.2, 0.2, 0.2], [0.8, 0.8, 0.8]
    null = {"forget_probability": [0.2, 0.21, 0.19], "retain_probability": retain}
    near = {"forget_probability": [0.22] * 3, "retain_probability": retain}
    far = {"forget_probability": [0.23] * 3, "retain_probability": retain}
    ruined = {"forget_probability": forget, "retain_probability": [0.1] * 3}
    hurt = {"forget_probability": forget, "retain_probability": [0.7] * 3}
    retrain = {"forget_probability": forget, "retain_probability": retain}
    done = {"forget_probability": [0.9] * 3, "retain_probability": retain}
    results["rows"] = {
        "retrain": made_seeds("Retrain", **retrain),
        "null": made_seeds("Null", **null),
        "original": made_seeds("Original", **done),
        "ruined": made_seeds("ruined", deviation=[0.0] * 3, **ruined),
        "hurt": made_seeds("hurt", **hurt),
        "far": made_seeds("far", **far),
        "near": made_seeds("near", **near),
    }
    return results


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


def test_an_experiment_of_three_seeds_has_verdicts(seeds):
    source = render(seeds)
    assert heads(source)[0] == "1 of 4 methods cannot be told from retraining"
    card = " ".join(source[: source.index('id="results"')].split())
    assert "3 models of each method were compared with 3 Retrains" in card
    assert "Take <strong>near</strong>" in card
    assert card.index(">hurt<") < card.index(">ruined<")  # the least damaged first
    assert "far</strong> by" in card
    assert "p forget</abbr>&nbsp;+0.030" in card
    assert "Less sure of texts than other Retrains" in card
    assert "0.000 (±0.025)" in source  # 4.303 · 0.01 / √3
    assert "inside, " in source[source.index('id="results"') :]


def test_of_ruined_models_the_least_damaged_is_the_next_to_try(seeds):
    for key in ("near", "far"):
        del seeds["rows"][key]
    seeds["rows"]["ruined"]["figures"]["other_perplexity"] = {"mean": 3.2e9}
    source = render(seeds)
    assert heads(source)[0] == "None of 2 methods ends where retraining does"
    assert "Least damaged is <strong>hurt</strong>" in source
    assert "3.2e+09" in source


def test_a_method_that_is_not_tested_has_no_verdict(seeds):
    for figure in seeds["rows"]["near"]["figures"].values():
        figure.pop("per_seed", None)
    source = render(seeds)
    assert heads(source)[0] == "None of 4 methods ends where retraining does"
    assert "1 without a verdict" in source


def test_two_seeds_give_no_verdict(seeds):
    for row in seeds["rows"].values():
        for figure in row["figures"].values():
            if "per_seed" in figure:
                figure["per_seed"] = figure["per_seed"][:2]
    source = render(seeds)
    assert heads(source)[0].startswith("No verdict: it takes 3 Retrains to know")
    assert "inside, " not in source[source.index('id="results"') :]
