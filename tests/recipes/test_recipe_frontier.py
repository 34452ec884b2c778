"""The frontier's parts, tables and figure; and what a study shares and leaves out."""

import json
from typing import Any

import numpy as np
import pytest

from jax_unlearn.data import digits
from jax_unlearn.lab import Training, experiment
from jax_unlearn.lab.results import spread
from jax_unlearn.recipes import frontier
from jax_unlearn.recipes.search import trials
from jax_unlearn.recipes.study import Part, Study

TRAINING = Training(network="linear", epochs=4, batch_size=64)


def row(label: str, gap: float, deviation=0.1, **more):
    metrics = {name: spread([50.0, 50.0]) for name in ("ua", "ra", "ta", "mia")}
    seconds = {name: spread([0.1, 0.1]) for name in ("prepare", "compile", "run")}
    figures = {"avg_gap": spread([gap, gap]), "tow": spread([0.9, 0.9])}
    figures |= {"deviation": spread([deviation, deviation + 0.01])}
    return {"label": label, "metrics": metrics, "seconds": seconds, **figures, **more}


def results(**gaps):
    rows = {
        "retrain": row("Retrain", 0.0),
        "null": row("Null", 1.0),
        "original": row("Original", 12.0),
        **{key: row(label, gap) for key, (label, gap) in gaps.items()},
    }
    return {"rows": rows}


FOUND: dict[float, Any] = {
    0.1: results(ft=("FT", 8.0), ga=("GA", 6.0), reset=("Partial reset", 3.0)),
    0.2: results(ft=("FT", 0.9), reset=("Partial reset", 2.0)),
}


def test_every_method_has_as_many_trials_at_every_budget():
    parts = frontier.parts()
    assert len(parts) == 6 * len(frontier.BUDGETS)
    for name, part in parts.items():
        share = float(name.rpartition("-")[2]) / 100
        if part.settings:
            assert part.settings.rpartition("-")[2] == name.rpartition("-")[2]
            assert not part.grid
            continue
        for label, grid in part.grid.items():
            asked = list(trials(grid))
            assert {one.budget for one in asked} == {share}
            assert len(asked) == (1 if label == "R2D" else 6)  # its budget says it all


def test_a_page_shows_the_least_and_what_is_inside_the_null():
    rows = dict(frontier.rows_of(FOUND))
    assert rows["FT"] == ["8.00 / **0.105** ●", "**0.90** ● / **0.105** ●"]
    assert rows["GA"] == ["6.00 / **0.105** ●", ""]  # no step fits its budget
    assert list(rows)[:2] == ["Null", "Original"]
    told = frontier.crossing(FOUND)
    assert told[0.1]["field"] == ("GA", 6.0)
    assert told[0.1]["Partial reset"] == 3.0
    assert told[0.1]["Short Retrain"] is None
    assert frontier.limit_of(FOUND[0.1], "avg_gap") == 1.0
    assert frontier.inside_both(FOUND[0.1]) == []
    assert frontier.inside_both(FOUND[0.2]) == ["FT"]


def test_results_are_ordered_by_request_and_budget():
    found = {"gamma-1-20": "a", "gamma-1-5": "b", "near-20": "c"}
    assert frontier.by_request(found) == {
        "gamma-1": {0.2: "a", 0.05: "b"},
        "near": {0.2: "c"},
    }
    assert frontier.title_of("near") == "10 %, near"


@pytest.fixture
def study():
    def grid(**values):
        return {"method": "scrub", "forget_epochs": (1,), **values}

    little = {"SCRUB": grid(budget=0.01), "GA": {"method": "gradient_ascent"}}
    enough = {"SCRUB": grid(budget=0.9)}
    parts = {
        "little": Part("little", "random", 0.1, grid=little),
        "enough": Part("enough", "random", 0.1, grid=enough),
    }
    return Study("s", "S", 120, TRAINING, parts, seeds=(0, 1), search_seeds=(5, 6))


def test_a_method_without_a_step_has_no_row_and_models_are_made_once(study, tmp_path):
    data, said = digits(), []
    found = study.search(data, said.append, folder=tmp_path / "search")
    assert found["little"]["left_out"] == ["SCRUB"]
    assert set(found["little"]["settings"]) == {"GA"}
    assert "left_out" not in found["enough"]
    # the second part reads the first one's originals and Retrains
    assert not list((tmp_path / "search" / "enough").glob("seed-*/retrain"))
    assert len(list((tmp_path / "search" / "little").glob("seed-*/retrain"))) == 2
    again = study.search(data, said.append, before=found)
    assert again["little"]["left_out"] == ["SCRUB"]
    (tmp_path / "settings.json").write_text(json.dumps(found))
    assert study.unsearched(("little", "enough"), tmp_path) == ()
    plans = {part: study.plan(part, folder=tmp_path) for part in study.parts}
    assert list(plans["little"].methods) == ["GA"]
    assert study.first("enough") == "little"
    first = experiment(plans["little"], data, tmp_path / "little")
    shared = {"originals": tmp_path / "little", "retrains": tmp_path / "little"}
    second = experiment(plans["enough"], data, tmp_path / "enough", **shared)
    made = tmp_path / "enough" / "checkpoints" / "seed-0"
    assert {path.name for path in made.iterdir()} == {"scrub"}
    np.testing.assert_array_equal(
        first["rows"]["null"]["avg_gap"]["per_seed"],
        second["rows"]["null"]["avg_gap"]["per_seed"],
    )
