"""Damaged results are named; whatever is accepted can be drawn."""

import copy
import json

import pytest
from made_results import made_results

from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.report import check_results, load_results, main_table, pages
from jax_unlearn.report.pages import experiment

NO_DRAWINGS = dict.fromkeys(("gap", "deviation", "confidence", "weights", "conflict"))


@pytest.fixture(scope="module")
def results():
    methods = {
        "RL": Unlearning.of(weighting="falw"),
        "FT": Unlearning.of(method="finetune"),
        "LTU": Unlearning.of(method="ltu", rho=0.3, epochs=1, weighting="falw"),
    }
    return made_results(seeds=2, methods=methods)


def test_a_file_comes_back_as_written(tmp_path, results):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    assert load_results(path) == results


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "content=[] must be an object, not a list"),
        ("{}", "format is missing"),
        ('{"format": 2, "rows": {}}', "format=2 must be 1"),
        ('{"format": 1}', "rows is missing"),
        ('{"format": 1, "rows": {"ft": 3}}', "rows.ft=3 must be an object"),
    ],
)
def test_foreign_files_are_named(tmp_path, text, said):
    path = tmp_path / "foreign.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_results(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot read path="):
        load_results(tmp_path / "none.json")


def changed(results, path, value):
    """Return the results with one place changed, the rest shared; Ellipsis deletes."""
    damaged = place = copy.copy(results)
    for key in path[:-1]:
        place[key] = copy.copy(place[key])
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return damaged


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("label",), 3, "rows.m0.label=3 must be text"),
        (("metrics", "mia"), ..., "rows.m0.metrics.mia is missing"),
        (
            ("metrics", "ua", "mean"),
            "7",
            "rows.m0.metrics.ua.mean='7' must be a number",
        ),
        (
            ("metrics", "ua", "mean"),
            float("nan"),
            "metrics.ua.mean=nan must be a number",
        ),
        (
            ("metrics", "ra", "std"),
            -1.0,
            "rows.m0.metrics.ra.std=-1.0 must be a number >= 0",
        ),
        (("seconds", "run", "per_seed"), [1.0], "run.per_seed has 1 seeds, others 2"),
        (
            ("histograms", "forget"),
            [0, 0],
            "rows.m0.histograms.forget counts no sample",
        ),
        (("tow",), ..., "rows.m0.tow is missing"),
        (("by_rank",), [None], "rows.m0.by_rank holds no number"),
        (("by_rank",), [0.5], "by_rank is of different lengths [1, 6]"),
        (
            ("comparison", "metrics", "ta", "verdict"),
            "maybe",
            "rows.m0.comparison.metrics.ta.verdict='maybe' must be one of inside, out",
        ),
        (
            ("comparison", "against_nothing", "t_p"),
            "0.1",
            "rows.m0.comparison.against_nothing.t_p='0.1' must be a number",
        ),
    ],
)
def test_damage_in_a_row_is_named(results, path, value, said):
    with pytest.raises(InputError) as caught:
        check_results(changed(results, ("rows", "m0", *path), value))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("plan", "seeds"), "0", "plan.seeds='0' must be a list"),
        (("plan", "training"), [1], "plan.training=[...] must be an object"),
        (("scatter", "m9"), ("scatter", "m0"), "scatter.m9 belongs to no row"),
        (("scatter", "m0", "last_weights"), [1.0], "scatter.m0.last_weights has"),
        (("plan",), "demo", "plan='demo' must be an object"),
        (("conflict",), [0.5], "conflict=[...] must be an object"),
        (("conflict", "m9"), [0.5], "conflict.m9 belongs to no row"),
        (("conflict", "m2"), [], "conflict.m2=[] must be a list of length >= 1"),
        (("conflict", "m2"), [0.5, None], "conflict.m2[1]=None must be a number"),
        (
            ("conflict", "m2"),
            [0.5, -1.01],
            "conflict.m2[1]=-1.01 must be a number >= -1",
        ),
    ],
)
def test_damage_elsewhere_is_named(results, path, value, said):
    if isinstance(value, tuple):  # what stands elsewhere
        value = results[value[0]][value[1]]
    with pytest.raises(InputError) as caught:
        check_results(changed(results, path, value))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((), [], "learned=[] must be an object"),
        (("attacks",), ..., "learned.attacks is missing"),
        (("attacks",), {}, "learned.attacks={} must be an object of length >= 1"),
        (
            ("attacks", "logistic"),
            0.6,
            "learned.attacks.logistic=0.6 must be an object",
        ),
        (("attacks", "logistic", "auc"), ..., "logistic.auc is missing"),
        (("attacks", "logistic", "auc"), 1.5, "logistic.auc=1.5 must be a number <= 1"),
        (
            ("attacks", "logistic", "standard_error"),
            -0.1,
            "standard_error=-0.1 must be a number >= 0",
        ),
        (
            ("attacks", "logistic", "better_than_chance"),
            True,
            "chance=True must be a num",
        ),
        (
            ("attacks", "logistic", "better_than_chance"),
            50,
            "better_than_chance=50 must be a number <= 1",
        ),
        (("gaps",), ..., "learned.gaps is missing"),
        (("gaps", "support"), ..., "learned.gaps.support is missing"),
        (
            ("gaps", "hard", "labels"),
            -0.1,
            "gaps.hard.labels=-0.1 must be a number >= 0",
        ),
        (("gaps", "hard", "features"), "0", "gaps.hard.features='0' must be a number"),
        (("gaps", "hard", "features"), 2.5, "features=2.5 must be a number <= 2"),
    ],
)
def test_damage_in_what_was_learned_is_named(results, path, value, said):
    with pytest.raises(InputError) as caught:
        check_results(changed(results, ("rows", "m2", "learned", *path), value))
    assert "rows.m2.learned" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rounding_is_no_damage(results):
    auc = ("rows", "m2", "learned", "attacks", "logistic", "auc")
    check_results(changed(results, auc, 1.00000012))
    check_results(changed(results, ("conflict", "m2"), [-1.00000012]))


def test_older_files_lack_what_ltu_learned(results):
    older = changed(copy.deepcopy(results), ("conflict",), ...)
    older = changed(older, ("rows", "m2", "learned"), ...)
    check_results(older)
    check_results(older | {"conflict": {}})


def places(value, at=()):
    """Yield the path of everything in the results, of lists the first entry."""
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*at, 0))


def test_what_is_accepted_can_be_told(results, monkeypatch):
    monkeypatch.setattr(experiment, "drawings", lambda results: NO_DRAWINGS)
    small = results | {
        "rows": {key: results["rows"][key] for key in ("retrain", "m2")},
        "scatter": {},
    }
    refused = accepted = 0
    for path in places(small):
        for junk in (..., None, "bad", -1):
            damaged = changed(small, path, junk)
            try:
                checked = check_results(damaged)
            except InputError:
                refused += 1
                continue
            accepted += 1
            main_table(damaged)
            pages.render(checked)  # else it would check them again
    assert refused > 250
    assert accepted > 100
