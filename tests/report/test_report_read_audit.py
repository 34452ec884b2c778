"""A damaged record of an audit is named; whatever is accepted can be told."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_audit import made_audit
from made_results import made_results
from markupsafe import Markup
from test_report_read import changed, places

from jax_unlearn import recipes
from jax_unlearn.audit.auditor import audit as run_audit
from jax_unlearn.audit.auditor import to_record
from jax_unlearn.audit.evidence import ModelOutputs, PartLabels
from jax_unlearn.audit.figures import GROUPS
from jax_unlearn.errors import InputError
from jax_unlearn.report import Drawing, check_results, pages
from jax_unlearn.report.draw import audit as draw
from jax_unlearn.report.pages import audit

UA = ("figures", "FT", "ua")
ROC = ("details", "FT", "roc")


@pytest.fixture(scope="module")
def record():
    return made_audit()


def results_of(record):
    return {"format": 1, "audit": record}


def test_an_audit_alone_is_enough(record):
    check_results(results_of(record))
    check_results(results_of(made_audit(null=False)))
    check_results(results_of(made_audit(keys=["ua", "klom"])))
    check_results(results_of(record) | {"scatter": {}, "plan": {"title": "Alone"}})


def test_what_the_auditor_writes_is_accepted():
    rng = np.random.default_rng(0)
    truth = PartLabels(*(np.arange(12) % 3 for _ in range(3)))

    def models(count, shift):
        parts = [rng.normal(size=(count, 12, 3)) for _ in range(3)]
        parts[0][:, np.arange(12), truth.forget] += shift
        return ModelOutputs(*parts)

    found = run_audit({"FT": models(4, 3.0)}, models(8, 0.0), truth, resamples=3)
    record = json.loads(json.dumps(to_record(found)))
    checked = check_results(results_of(record))
    assert {"lira_auc", "epsilon", "klom"} <= set(record["figures"]["FT"])
    groups = ("rmia", "vulnerable", "protected", "difference")
    left_out = {key for group in groups for key in GROUPS[group]}
    assert set(record["left_out"]) == {"mia_loss"} | left_out
    (page,) = audit.content(checked.audit, {})["pages"]
    assert [drawing.title for drawing in page["drawings"]] == [
        "ROC curve of U-LiRA",
        "Epsilon of each sample",
    ]
    assert "an auditor with 4 models" in pages.render(results_of(record))


ADDED = {  # what is written where a name is not known: whole, but for its name
    ("figures", "null"): lambda record: record["figures"]["FT"],
    ("figures", "FT", "auc"): lambda record: record["figures"]["FT"]["ua"],
    ("details", "GA"): lambda record: record["details"]["FT"],
}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((), [], "audit=[] must be an object"),
        (("figures",), ..., "audit.figures is missing"),
        (("figures",), {}, "audit.figures={} must be an object of length >= 1"),
        (("figures", "FT"), {}, "audit.figures.FT={} must be an object of length >= 1"),
        (("figures", "FT"), 3, "audit.figures.FT=3 must be an object"),
        (("figures", "null"), ..., "audit.figures.null is no method"),
        (("figures", "FT", "auc"), ..., "figures.FT.auc is no figure of this library"),
        (UA, ..., "audit.figures.FT has other figures than Original"),
        (UA, 5.0, "audit.figures.FT.ua=5.0 must be an object"),
        ((*UA, "value"), ..., "audit.figures.FT.ua.value is missing"),
        (
            (*UA, "value"),
            float("inf"),
            "audit.figures.FT.ua.value=inf must be a number",
        ),
        ((*UA, "std"), -0.5, "ua.std=-0.5 must be a number >= 0"),
        ((*UA, "target"), None, "ua.target=None must be a number"),
        ((*UA, "verdict"), "maybe", "ua.verdict='maybe' must be one of "),
        ((*UA, "verdict"), "", "ua.verdict is empty beside a null's interval"),
        ((*UA, "null_low"), None, "ua.null_low is missing"),
        ((*UA, "null_low"), 99.0, "ua.null_low=99.0 lies above null_high="),
        ((*UA, "verdict"), "inside", "ua.verdict='inside' contradicts value="),
        ((*UA, "value"), 5.4, "ua.verdict='outside' contradicts value=5.4"),
        (("details", "FT"), ..., "audit.details.FT is missing"),
        (("details", "GA"), ..., "audit.details.GA belongs to no method"),
        (("details", "FT", "roc"), ..., "audit.details.FT.roc is missing"),
        ((*ROC, "fpr"), [0.5], "details.FT.roc.tpr has 62 points, fpr 1"),
        ((*ROC, "fpr"), [0.5, 0.2], "roc.fpr does not rise"),
        ((*ROC, "tpr"), [0.0, 1.5], "roc.tpr[1]=1.5 must be a number <= 1"),
        ((*ROC, "tpr"), [-0.1, 1.0], "roc.tpr[0]=-0.1 must be a number >= 0"),
        ((*ROC, "tpr"), [], "roc.tpr=[] must be a list of length >= 1"),
        ((*ROC, "tpr", 3), float("nan"), "roc.tpr[3]=nan must be a number"),
        (
            ("details", "null", "epsilon"),
            [],
            "null.epsilon=[] must be a list of length >= 1",
        ),
        (
            ("details", "FT", "epsilon", 1),
            -0.1,
            "FT.epsilon[1]=-0.1 must be a number >= 0",
        ),
        (("details", "FT", "epsilon"), [1.0], "FT.epsilon has 1 samples, forg"),
        (("details", "FT", "groups"), None, "FT.groups=None must be an object"),
        (
            ("details", "FT", "intervals", "lira_tpr_1"),
            [1.0, 2.0],
            "intervals.lira_tpr_1=[...] must be a list of length 3",
        ),
        (
            ("details", "FT", "intervals", "lira"),
            [1, 1, 1],
            "no figure of this library",
        ),
        (
            ("details", "FT", "groups", "body"),
            0.1,
            "groups.body='body' must be one of head, mid",
        ),
        (
            ("details", "FT", "groups", "head"),
            1.5,
            "groups.head=1.5 must be a number <= 1",
        ),
        (("models",), ..., "audit.models is missing"),
        (("models", "FT"), ..., "audit.models.FT is missing"),
        (("models", "FT"), 0, "models.FT=0 must be a whole number >= 1"),
        (
            ("retrained",),
            2.5,
            "audit.retrained=2.5 must be a whole number, not a number",
        ),
        (("half",), -1, "audit.half=-1 must be a whole number >= 0"),
        (("half",), True, "audit.half=True must be a whole number, not true or"),
        (("resamples",), 1, "audit.resamples=1 must be a whole number >= 2"),
        (("forgotten",), 0, "audit.forgotten=0 must be a whole number >= 1"),
        (("level",), 1.0, "audit.level=1.0 must be a number < 1"),
        (("left_out",), [], "audit.left_out=[] must be an object"),
        (("left_out", "auc"), "why", "left_out.auc is no figure of this library"),
        (("left_out", "mia_loss"), 3, "audit.left_out.mia_loss=3 must be text"),
    ],
)
def test_damage_is_named(record, path, value, said):
    value = ADDED[path](record) if path in ADDED else value
    with pytest.raises(InputError) as caught:
        check_results(changed(results_of(record), ("audit", *path), value))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_verdict_needs_an_interval(record):
    damaged = changed(results_of(record), ("audit", *UA, "null_low"), None)
    damaged = changed(damaged, ("audit", *UA, "null_high"), None)
    with pytest.raises(InputError, match="verdict='outside' without a null's interval"):
        check_results(damaged)


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("epsilon", 0.1, "inside"),  # a distance below the interval
        ("epsilon", 9.0, "outside"),
        ("tow", 0.999, "inside"),  # a closeness above it
        ("tow", 0.1, "outside"),
        ("rmia_auc", 0.1, "outside"),  # a level on either side
        ("rmia_auc", 0.9, "outside"),
    ],
)
def test_verdicts_follow_the_kind_of_the_figure(record, key, value, verdict):
    at = ("audit", "figures", "FT", key)
    told = changed(
        changed(results_of(record), (*at, "value"), value), (*at, "std"), None
    )
    check_results(changed(told, (*at, "verdict"), verdict))
    other = {"inside": "outside", "outside": "inside"}[verdict]
    with pytest.raises(InputError, match=f"verdict='{other}' contradicts"):
        check_results(changed(told, (*at, "verdict"), other))


def test_a_value_at_the_end_may_be_either(record):
    at = ("audit", "figures", "FT", "ua")
    low = record["figures"]["FT"]["ua"]["null_low"]
    told = changed(results_of(record), (*at, "value"), low - 1e-9)
    for verdict in ("inside", "outside"):
        check_results(changed(told, (*at, "verdict"), verdict))


def test_rows_are_checked_beside_an_audit(record):
    both = made_results(seeds=1) | {"audit": record}
    check_results(both)
    for path, value, said in (
        (("rows",), {}, "rows={} must be an object of length >= 1"),
        (("rows",), None, "rows=None must be an object"),
        (("rows", "m0", "label"), 3, "rows.m0.label=3 must be text"),
        (
            ("rows", "m0", "setting", "method"),
            "magic",
            "m0.setting.method='magic' is no",
        ),
        (
            ("rows", "m0", "setting", "method"),
            ["ltu"],
            "m0.setting.method=['ltu'] is no",
        ),
        (("rows", "m0", "setting", "method"), ..., "rows.m0.setting.method is missing"),
    ):
        with pytest.raises(InputError) as caught:
            check_results(changed(both, path, value))
        assert said in str(caught.value)
    with pytest.raises(InputError, match="rows is missing, and so is audit"):
        check_results(changed(results_of(record), ("audit",), None))


def test_what_is_accepted_can_be_told(monkeypatch):
    small = made_audit(
        {"FT": 3.0, "SSD": 0.5}, keys=["ua", "tow", "lira_auc", "epsilon"]
    )
    small["details"]["FT"]["groups"] = {"head": 0.1, "tail": -0.2}
    for name in ("roc_of_all", "roc_of_one", "epsilon_of_one"):  # they take time
        monkeypatch.setattr(draw, name, lambda *_: Drawing("", Markup("")))
    refused = accepted = 0
    for path in places(small):
        for junk in (..., None, "bad", -1, 1):
            damaged = changed(small, path, junk)
            try:
                check_results(results_of(damaged))
            except InputError:
                refused += 1
                continue
            accepted += 1
            pages.render(results_of(damaged))
    assert refused > 250
    assert accepted > 30


def test_audits_of_stored_studies_are_read():
    """Those written without drawings, too."""
    results = Path(recipes.__file__).parent / "results"
    found = {p.stem: json.loads(p.read_text()) for p in results.rglob("*.json")}
    audited = {name: own for name, own in found.items() if own.get("audit")}
    assert {"ensemble_digits", "lira_fashion"} <= audited.keys()
    for own in audited.values():
        assert check_results(own).audit.details
