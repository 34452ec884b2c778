"""The chooser and the study of choices: rows, rules, and where they are shown."""

import json
from pathlib import Path

import numpy as np
import pytest

from jax_unlearn.cli import recipe
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.choose import (
    ALONE,
    EARLIER,
    HAVE,
    NOTHING,
    RECORD,
    UNSEEN,
    UNTRAINED,
)
from jax_unlearn.recipes import choice, chooser, pages
from jax_unlearn.recipes.recipe import HERE

README = Path(__file__).parents[2] / "README.md"
SEEDS = np.arange(5)


def seen(method, *distances, **setting):
    told = Unlearning.of(method=method, **setting)
    own = np.resize(distances, 5) + 0.01 * SEEDS
    return chooser.Seen(told.card.label, told, own)


def test_the_package_has_what_the_stored_results_say():
    stored = {stem: pages.stored(stem) for stem in chooser.SOURCES}
    rows = chooser.rows_of(stored)
    again = "write it by `jax-unlearn recipe --table --out jax_unlearn/recipes/results`"
    assert HERE.joinpath("chooser.json").read_text() == chooser.text_of(rows), again
    text = README.read_text()
    assert chooser.between(text, rows) == text, again


def test_partial_reset_stays_where_nothing_is_clearly_nearer():
    reset = seen("partial_reset", 1.0, 1.4, 0.8)
    close, clear = seen("finetune", 0.9, 1.4, 0.8), seen("scrub", 0.5)
    assert chooser.nearest([reset, close], RECORD) is reset
    assert chooser.nearest([reset, close, clear], RECORD) is clear
    assert chooser.nearest([close, clear], RECORD) is clear
    assert chooser.nearest([], RECORD) is None


@pytest.mark.parametrize(
    ("have", "method"),
    [
        (RECORD, "finetune"),
        (UNSEEN, "regun"),
        (EARLIER, "rewind"),
        (UNTRAINED, "finetune"),
        (ALONE, "gradient_ascent"),
    ],
)
def test_what_one_has_decides_what_is_possible(have, method):
    rows = [seen("finetune", 3.0), seen("gradient_ascent", 4.0)]
    rows += [seen("regun", 2.0), seen("rewind", 1.0), seen("short_retrain", 5.0)]
    assert chooser.nearest(rows, have).setting.method == method


def test_a_weighting_that_compares_needs_unseen_samples():
    falw = Unlearning.of(method="random_label", weighting="falw")
    assert chooser.possible(falw, UNSEEN)
    assert not chooser.possible(falw, RECORD)


def stored(**gaps):
    """Return the results of a frontier: Avg. Gap by method and percent."""
    found, gaps = {}, {"GA": dict.fromkeys((1, 2, 20), 8.9)} | gaps
    for percent in (1, 2, 20):
        told = {"budget": percent / 100, "learning_rate": 0.3}
        settings = {
            "FT": Unlearning.of(method="finetune", **told),
            "GA": Unlearning.of(method="gradient_ascent", **told),
            "Partial reset": Unlearning.of(method="partial_reset", **told),
        }
        rows = {"null": figures("Null", 1.0), "original": figures("Original", 9.0)}
        rows |= {label: figures(label, gaps[label[:2]][percent]) for label in settings}
        methods = {label: one.record() for label, one in settings.items()}
        plan = {"methods": methods, "training": {"learning_rate": 0.2}}
        found[f"near-{percent}"] = {"rows": rows, "plan": plan}
    return {"frontier_digits": found}


def figures(label, gap):
    own = gap + 0.01 * np.random.default_rng(len(label)).normal(size=5)
    spread = {"mean": float(own.mean()), "per_seed": own.tolist()}
    return {"label": label, "avg_gap": spread, "deviation": spread}


def test_rows_and_table_follow_the_results():
    gaps = {"FT": {1: 3.0, 2: 3.0, 20: 3.0}, "Pa": {1: 8.0, 2: 8.0, 20: 1.0}}
    rows = chooser.rows_of(stored(**gaps))
    own = {row.budget: row for row in rows if row.have == RECORD}
    assert [own[b].method for b in (0.01, 0.02, 0.2)] == [
        *("finetune", "finetune", "partial_reset")
    ]
    assert own[0.01].setting == {"learning_rate": 0.3}
    assert own[0.01].rate == 0.2
    assert own[0.2].setting == {}
    assert own[0.2].distance == pytest.approx(1.0, abs=0.02)
    text = chooser.markdown(rows)
    assert "| 10 %, like others | 1 to 2 %: FT; 20 %: Partial reset |" in text
    marked = f"a\n{chooser.BEGIN}\nold\n{chooser.END}\nb\n"
    assert chooser.between(marked, rows).count("FT; 20 %") == text.count("FT; 20 %")
    assert "old" not in chooser.between(marked, rows)
    assert chooser.between("no marks", rows) == "no marks"


def test_with_the_forget_set_alone_nothing_is_run_that_is_worse_than_nothing():
    others = {1: 3.0, 2: 3.0, 20: 12.0}
    found = stored(FT=others, Pa=others, GA={1: 4.0, 2: 9.5, 20: 8.0})
    rows = chooser.rows_of(found)
    alone = {row.budget: row for row in rows if row.have == ALONE}
    assert [alone[b].label for b in (0.01, 0.02, 0.2)] == ["GA", NOTHING, "GA"]
    assert alone[0.02].method == ""
    assert alone[0.02].distance == pytest.approx(9.0, abs=0.02)
    text = chooser.markdown(rows)
    assert "| 1 %: GA; 2 %: nothing; 20 %: GA |" in text
    assert '"nothing": ' in text
    assert NOTHING not in {row.label for row in rows if row.have != ALONE}


def test_the_list_of_methods_shows_the_chooser(capsys):
    found = recipe.methods()
    shown = " ".join(capsys.readouterr().out.split())
    assert "What to run, by what is to be forgotten and what you have" in shown
    for row in found["chooser"]:
        assert row["label"].split()[0] in shown
        assert row["have"] in HAVE
    json.dumps(found)


def run(shrink, gap, accuracy, retained=1.0, **told):
    attacks = dict.fromkeys(("plain", "matched", "augmented"), 0.0) | told
    figures = {"avg_gap": gap, "deviation": gap / 10, "accuracy": accuracy}
    return {"shrink": shrink, **figures, "retained": retained, **attacks}


def test_rules_see_what_a_user_can_see():
    accuracies = (0.8, 0.85, 0.9, 0.94, 0.95, 0.95, 0.95)
    gaps = (9.0, 7.0, 5.0, 2.0, 1.0, 3.0, 4.0)
    own = [run(*one) for one in zip(choice.GRID, gaps, accuracies, strict=True)]
    own[6] |= {"plain": 2.0}
    runs = {budget: own for budget in choice.BUDGETS}
    found = choice.chosen(runs, 0.2, gap=0.03, retained=1.0)
    assert {name: one[0]["shrink"] for name, one in found.items() if one} == {
        "budget": 0.45,
        "fixed": 0.3,
        "accuracy": 0.45,
        "halves": 0.6,  # of 10 % each
        "plain": 0.75,
        "matched": 0.9,
        "augmented": 0.9,
        "retrain": 0.6,
    }
    assert found["quarters"] is None  # nothing ran at 5 %
    assert found["budget"][1] == found["halves"][1] == 0.2
    assert found["accuracy"][1] == pytest.approx(0.2 * len(choice.GRID))


def test_a_group_that_is_surer_is_told_apart():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    own, others = rng.normal(size=80), rng.normal(size=80)
    assert abs(choice._excess(own, others, labels, labels)) < 2
    assert choice._excess(own + 1, others, labels, labels) > 4
    ease = rng.uniform(size=80), rng.uniform(size=80)
    assert choice._excess(own + 1, others, labels, labels, ease=ease) > 3


def test_every_request_is_told_right_on_seeds_that_no_threshold_was_set_on():
    taken = pages.stored("choice_digits")[choice.KINDS]
    assert taken.keys() == choice.kinds().keys()
    assert {name: {*own["taken"]} for name, own in taken.items()} == {
        name: {name} for name in taken
    }
