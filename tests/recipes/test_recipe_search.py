"""The search of settings: it goes on where it stopped, and looks closer at its best."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import three_digits

from jax_unlearn.data import Dataset
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Training, Unlearning
from jax_unlearn.lab.results import to_json
from jax_unlearn.recipes import RECIPES, pages
from jax_unlearn.recipes.search import Final, _searched, around, search, told
from jax_unlearn.recipes.study import Study


def tiny() -> tuple[Plan, Dataset]:
    training = Training(network="mlp", width=8, epochs=2, batch_size=40)
    plan = Plan("tiny", "random", 0.2, 1.0, 30, training, {}, (7, 8))
    return plan, three_digits(120, 40)


def test_a_search_goes_on_where_it_stopped(tmp_path):
    plan, data = tiny()
    grids = {
        "GA": {
            "method": "gradient_ascent",
            "epochs": 1,
            "learning_rate": (1e-3, 1e30),
        }
    }
    first, again = [], []
    found = search(plan, data, grids, first.append, folder=tmp_path)
    assert found["settings"]["GA"]["learning_rate"] == 1e-3
    assert found["table"]["GA"][1]["avg_gap"] is None  # diverged: never chosen
    kept = tmp_path / "trials.json"
    stored = json.loads(kept.read_text())
    marked = next(key for key in stored["trials"] if '"learning_rate": 0.001' in key)
    stored["trials"][marked]["avg_gap"] = -1.0
    kept.write_text(json.dumps(stored))
    wider = {"GA": {**grids["GA"], "learning_rate": (1e-3, 1e30, 1e-4)}}
    more = search(plan, data, wider, again.append, folder=tmp_path)
    assert more["table"]["GA"][0]["avg_gap"] == -1.0  # read, not made again
    assert more["table"]["GA"][2]["avg_gap"] > 0
    with pytest.raises(InputError, match="trials of another plan"):
        search(
            dataclasses.replace(plan, title="another"),
            data,
            grids,
            again.append,
            folder=tmp_path,
        )


def test_a_search_looks_closer_around_the_best():
    plan, data = tiny()
    tried = {"learning_rate": (1e-4, 1e-3), "epochs": (1, 2)}
    grids = {"GA": {"method": "gradient_ascent", **tried}}
    told = []
    found = search(plan, data, grids, told.append, rounds=2)
    rows = found["table"]["GA"]
    assert found["trials"] == len(rows) == len(told) == 8
    seen = rows[:4]
    for one, two in (rows[4:6], rows[6:8]):
        best = min(seen, key=lambda row: row["avg_gap"])
        rates = [row["learning_rate"] for row in seen]
        pair = one["learning_rate"], two["learning_rate"]
        assert pair == around(rates, best["learning_rate"])
        assert one["epochs"] == two["epochs"] == best["epochs"]
        seen = [*seen, one, two]
    best = min(rows, key=lambda row: row["avg_gap"])
    assert found["settings"]["GA"]["learning_rate"] == best["learning_rate"]


def test_the_best_trials_are_tried_on_other_seeds(tmp_path):
    plan, data = tiny()
    grids = {
        "GA": {
            "method": "gradient_ascent",
            "epochs": 1,
            "learning_rate": (1e-4, 1e-3, 1e-2, 1e30),
        }
    }
    final = Final(2, (9, 11))
    told, again = [], []
    found = search(plan, data, grids, told.append, final=final, folder=tmp_path)
    rows = found["table"]["GA"]
    assert len(told) == 4 + 2
    assert found["final"] == {"trials": 2, "seeds": (9, 11)}
    tried = [row for row in rows if "all_seeds" in row]
    alone = sorted(row["avg_gap"] for row in rows[:3])
    assert sorted(row["avg_gap"] for row in tried) == alone[:2]
    one = search(dataclasses.replace(plan, seeds=(9, 11)), data, grids, again.append)
    for row in tried:
        by_rate = {r["learning_rate"]: r["avg_gap"] for r in one["table"]["GA"]}
        mean = (row["avg_gap"] + by_rate[row["learning_rate"]]) / 2
        assert row["all_seeds"] == pytest.approx(mean)
    best = min(tried, key=lambda row: row["all_seeds"])
    assert found["settings"]["GA"]["learning_rate"] == best["learning_rate"]
    third = search(plan, data, grids, again.append, final=final, folder=tmp_path)
    assert third["table"] == found["table"]  # read, not made again


def test_what_was_searched_by_the_same_grid_is_not_searched_again():
    plan, data = tiny()
    rates = {"learning_rate": (1e-4, 1e-3)}
    grids = {
        "GA": {"method": "gradient_ascent", "epochs": 1, **rates},
        "RL": {"method": "random_label", "epochs": 1, **rates},
        "FT": {"method": "finetune", "epochs": 1, "learning_rate": (1e-3,)},
    }
    first = search(plan, data, {k: grids[k] for k in ("RL", "GA")}, lambda line: None)
    first = json.loads(to_json(first))
    wanted = {
        "FT": grids["FT"],  # new
        "GA": {**grids["GA"], "momentum": 0.5},  # else fixed
        "RL": grids["RL"],
    }
    told, saved = [], []
    again = {"before": first, "save": saved.append}
    found = search(plan, data, wanted, told.append, **again)
    assert [line.split(":")[0] for line in told] == ["FT", "GA", "GA"]
    assert found["table"]["RL"] == first["table"]["RL"]
    assert found["settings"]["RL"] == first["settings"]["RL"]
    assert found["settings"]["GA"]["momentum"] == 0.5
    # the order is the grids', and a stop loses nothing that was known
    assert [list(one["settings"]) for one in saved] == [["FT", "RL"], [*wanted]]
    told.clear()
    search(plan, data, {"RL": grids["RL"]}, told.append, rounds=1, before=first)
    assert len(told) == 4  # as many rounds are asked of every method
    told.clear()
    other = dataclasses.replace(plan, fraction=0.3)
    search(other, data, {"RL": grids["RL"]}, told.append, before=first)
    assert len(told) == 2
    told.clear()
    renamed = {"RL": {**first["settings"]["RL"], "learning_rate": 0.5}}  # not tried
    search(
        plan,
        data,
        {"RL": grids["RL"]},
        told.append,
        before=first | {"settings": renamed},
    )
    assert len(told) == 2
    told.clear()
    earlier = {k: v for k, v in first.items() if k != "plan"}
    search(plan, data, {"RL": grids["RL"]}, told.append, before=earlier)
    assert len(told) == 2  # it does not say what it was of


def test_a_method_that_always_diverges_is_named():
    plan, data = tiny()
    grids = {"GA": {"method": "gradient_ascent", "learning_rate": (1e30, 1e31)}}
    with pytest.raises(InputError, match="GA: no setting stays finite"):
        search(plan, data, grids, lambda line: None)


STORED = [
    (recipe.study, part)
    for recipe in RECIPES
    if isinstance(recipe.study, Study) and pages.stored(recipe.stem)
    for part in recipe.study.found()
]


@pytest.mark.parametrize(("study", "part"), STORED)
def test_stored_settings_are_those_of_the_stored_results(study, part):
    """Settings say what differs from the defaults; results hold every value.

    A method that was searched and has no row yet is one of today's grid.
    """
    found, asked = study.found()[part], study.parts[part]
    results = pages.stored(study.name.replace("-", "_")).get(part)
    used = {} if results is None else results["plan"]["methods"]
    for label, values in found["settings"].items():
        setting = Unlearning.of(**values)
        assert told(setting) == values
        if label in used:
            assert setting == Unlearning.read(used[label]), label
        else:
            assert _searched(found, label, asked.grid[label], study.rounds), label


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8, unique=True), st.data())
def test_the_next_values_lie_on_both_sides_of_the_best(tried, data):
    best = data.draw(st.sampled_from(tried))
    low, high = around(tried, best)
    near = 1.06  # two digits
    assert low <= best * near
    assert best <= high * near
    for other in tried:
        if other < best:
            assert low * near >= other
        if other > best:
            assert high <= other * near
    if len(tried) == 1:
        assert high / low == pytest.approx(9, rel=0.2)
