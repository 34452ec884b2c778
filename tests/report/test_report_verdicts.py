"""The plain words of an audit say what the figures say, and promise nothing."""

import copy
import dataclasses
import html
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_audit import figure, made_audit
from markupsafe import Markup
from test_report_page import Page

from jax_unlearn.audit.figures import KINDS
from jax_unlearn.errors import InputError
from jax_unlearn.report import Drawing, check_results, render
from jax_unlearn.report.draw import audit as draw
from jax_unlearn.report.pages import audit, environment
from jax_unlearn.report.reading import Results

SPACE = "\N{NO-BREAK SPACE}"
PROMISES = r"\bforgotten\b|\bsafe|\bguarantee|\berased|\bcompliant|\bproven\b"

KEYS = list(KINDS)[:20]  # those that many models alone make


@pytest.fixture(scope="module")
def inside():
    record = made_audit({"FT": 0.0, "SSD": 0.0}, keys=KEYS)
    figures = record["figures"].values()
    assert all(f["verdict"] == "inside" for of in figures for f in of.values())
    return record


def with_outside(record, *keys, up=True):
    """Return the record with figures of FT a whole interval off their targets."""
    changed = copy.deepcopy(record)
    for key in keys:
        found = changed["figures"]["FT"][key]
        width = found["null_high"] - found["null_low"]
        sign = -1 if KINDS[key].kind == "closeness" or not up else 1
        found |= {"value": found["target"] + sign * width, "verdict": "outside"}
    return changed


def typed(record):
    found = check_results({"format": 1, "audit": record})
    assert isinstance(found, Results)
    assert found.audit is not None
    return found.audit


def plain(markup):
    """Return the text of markup."""
    text = re.sub("<[^>]*>", " ", str(markup)).replace("&nbsp;", " ")
    return " ".join(html.unescape(text).replace(SPACE, " ").split())


def told(record):
    """Return what the page of a method says of it."""
    template = environment().get_template("verdicts.html").module
    return plain(template.verdict(typed(record), audit.verdict(typed(record), "FT")))


def listed(record):
    """Return the entries of the lists of the page that belong to no method."""
    with pytest.MonkeyPatch.context() as patch:  # drawings take time
        for name in ("roc_of_all", "roc_of_one", "epsilon_of_one"):
            patch.setattr(draw, name, lambda *_: Drawing("", Markup("")))
        page = Page(render({"format": 1, "audit": record}))
    return [plain(text) for text in page.text["li"]]


def test_all_inside_is_no_proof(inside):
    assert told(inside) == (
        "All 20 figures lie inside what retraining with another seed gives. "
        "In plain words: with this many models, none of these figures tells this "
        "method from training again without the samples. "
        "That is no proof that no trace is left: other attacks, or more models, may "
        "find one."
    )


def test_traces_are_said_first(inside):
    changed = with_outside(inside, "ua", "lira_auc", "klom")
    assert told(changed) == (
        "Of 20 figures 17 lie inside what retraining with another seed gives. Outside: "
        "UA % (6.5; target 5.4); U-LiRA AUC (0.517; target 0.502); KLoM (mean) (3.360; "
        "target 3.120). In plain words: an auditor with 16 models of either kind can "
        "still tell those of this method from retrained ones, better than retrained "
        "ones from each other, and so that these samples were once trained on; on "
        "these samples the models answer otherwise than models that never saw them. "
        "By chance alone about 1.0 of 20 figures would lie outside."
    )


@pytest.mark.parametrize(
    ("key", "up", "said"),
    [
        ("mia_loss", True, "a membership attack on a single model answers otherwise"),
        ("rmia_auc", False, "a membership attack on a single model answers otherwise"),
        ("deviation", True, "on these samples the models answer otherwise"),
        ("ta", True, "are right more often than Retrain"),
        ("ra", False, "are right less often than Retrain"),
        ("avg_gap", True, "the accuracies are farther from Retrain's than those of"),
        ("forgetting_f", True, "an auditor with 16 models of either kind can still"),
    ],
)
def test_one_outside_may_be_chance(inside, key, up, said):
    text = told(with_outside(inside, key, up=up))
    assert "Of 20 figures 19 lie inside" in text
    assert said in text[text.index("In plain words: ") :]
    assert ";" not in text[text.index("In plain words: ") :]
    assert text.endswith(
        "So few may be chance: about 1.0 of 20 figures would lie outside even of "
        "another Retrain."
    )


def test_a_card_says_what_its_figure_tells(inside):
    assert all(card.tells for card in KINDS.values())
    with pytest.raises(InputError, match="unknown tells 'trace'"):
        dataclasses.replace(KINDS["klom"], tells="trace")
    record = with_outside(inside, "klom")
    plain = {key: card.plain() for key, card in KINDS.items()}
    assert told(record | {"cards": plain}) == told(record)  # as an audit writes it
    plain["own"] = KINDS["klom"].plain() | {"label": "own figure"}
    for figures in record["figures"].values():
        figures["own"] = figures.pop("klom")
    said = told(record | {"cards": plain})
    assert "by own figure the models are not as other Retrains are" in said
    assert "an auditor with" not in said


def test_many_outside_are_counted_not_listed(inside):
    keys = [key for key in KEYS if key not in ("ua", "tow")]
    text = told(with_outside(inside, *keys))
    assert "2 lie inside" in text
    assert "Outside are the 18 marked ○ below." in text
    assert "right more often than Retrain" in text
    text = told(with_outside(inside, *KEYS))
    assert text.startswith("None of 20 figures lies inside")
    assert "marked" not in text


def test_accuracies_may_differ_both_ways(inside):
    changed = with_outside(with_outside(inside, "ra"), "ta", up=False)
    assert "they are right more or less often than Retrain" in told(changed)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("drop_auc", "learns {} about which samples were removed than a Retrain"),
        ("retain_auc", "samples that stay can be told from new ones {} easily"),
    ],
)
def test_attacks_on_pairs_and_on_the_retain_set_say_which_way(key, words):
    record = made_audit({"FT": 0.0}, keys=["ua", key])
    assert words.format("more") in told(with_outside(record, key))
    assert words.format("less") in told(with_outside(record, key, up=False))


def test_the_claim_that_is_made_and_the_one_that_is_not(inside):
    said = " ".join(listed(inside))
    assert "One claim is made, another cannot be." in said
    assert "are or are not told from 32 Retrains" in said
    assert "arXiv 2510.16629" in said
    assert "originals, not one" not in said  # how many is not known
    several = " ".join(listed(inside | {"originals": 16}))
    assert "the models here come from 16 originals, not one" in several
    one = " ".join(listed(inside | {"originals": 1}))
    assert "All models here come from one original" in one


def test_without_ensemble_attacks_it_says_little():
    record = made_audit({"FT": 0.0}, keys=["ua", "ra"], half=2)
    assert told(record).endswith(
        "No attack that compares many models was tried, so this says little: see what "
        "was left out, and why."
    )
    record = made_audit({"FT": 0.0}, keys=["ua"], half=2)
    assert told(record).startswith("The one figure lies inside what retraining")
    assert "The one figure does not lie inside" in told(with_outside(record, "ua"))


def test_one_retrain_gives_no_verdict():
    record = made_audit({"FT": 2.0}, keys=["ua"], null=False)
    assert told(record).startswith("Nothing can be called inside or outside")
    assert "how far it is from that model, figure by figure." in listed(record)


def test_the_limits_count_what_chance_puts_outside(inside):
    said = " ".join(listed(inside))
    assert "Each of 20 figures is judged at a level of 95 %" in said
    assert "about 1.0 of them" in said
    assert "epsilon of about 1.6" in said
    assert "F of about 0.17" in said
    assert "KLoM of a few models is large" in said
    assert "Clopper" in said
    assert "means or medians over 40 samples" in said
    for heading in ("Inside is not equal.", "This is no legal finding."):
        assert any(text.startswith(heading) for text in listed(inside))
    strict = inside | {"level": 0.9}
    assert "about 2.0 of them" in " ".join(listed(strict))


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from(list(KINDS)), st.floats(0, 9), min_size=1),
    st.integers(0, 2**32 - 1),
)
def test_no_verdict_promises_anything(strengths, seed):
    rng = np.random.default_rng(seed)
    record = made_audit({"FT": 0.0}, keys=["ua"])
    record["figures"]["FT"] = {k: figure(k, s, rng) for k, s in strengths.items()}
    said = told(record)
    assert 2 <= len(re.findall(r"(?<!Avg)[.](?= |$)", said)) <= 4
    assert not re.findall(PROMISES, said.lower())
    outside = [f for f in record["figures"]["FT"].values() if f["verdict"] == "outside"]
    assert ("In plain words: with this many" in said) == (not outside)
    assert "- " not in said


def test_what_lies_outside_by_a_little_is_not_rounded_inside(inside):
    """A value of 99.78 beside [99.81, 99.99] is no 99.8 beside [99.8, 100.0]."""
    record = copy.deepcopy(inside)
    ends = {"null_low": 99.81, "null_high": 99.99, "target": 99.82}
    changed = {**ends, "value": 99.78, "std": None, "verdict": "outside"}
    record["figures"]["FT"]["ra"] |= changed
    page = plain(render({"format": 1, "audit": record}))
    assert "FT by RA % −0.04" in page
    assert "99.78 [99.81, 99.99]" in page
    assert "RA % (99.78; target 99.82)" in page
