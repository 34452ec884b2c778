"""The LTU study: its plans, its data, its search's grids."""

import numpy as np
import pytest

from jax_unlearn.data import (
    digits,
    merged,
    queried,
    queries,
    retain_only,
    subset,
)
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning, draw_request
from jax_unlearn.lab.modalities import read_training
from jax_unlearn.lab.prepare import accessible
from jax_unlearn.recipes import ltu
from jax_unlearn.recipes.search import trials

COMPARED = ("FT", "RL", "SalUn", "RL + LoReUn", "RL + FaLW", "LTU")
RECIPES = pytest.mark.parametrize(
    "study", [ltu.LTU_DIGITS.study, ltu.LTU_CIFAR10.study], ids=lambda s: s.name
)


@RECIPES
def test_every_method_has_as_many_trials_and_only_rho_of_the_retain_set(study):
    grids = study.parts["main"].grid
    assert tuple(grids) == COMPARED
    tried = {label: list(trials(grid)) for label, grid in grids.items()}
    assert len({len(settings) for settings in tried.values()}) == 1
    assert {s.rho for settings in tried.values() for s in settings} == {ltu.RHO}


@RECIPES
def test_the_study_reports_on_seeds_it_did_not_search_with_stored_settings(study):
    found = study.found()["main"]
    assert found["search_seeds"] == list(study.search_seeds)
    assert not set(study.seeds) & set(study.search_seeds)
    assert len(study.seeds) >= 3
    assert read_training(found["training"]) == study.training
    for label, values in study.parts["main"].grid.items():
        rows = found["table"][label]
        grid = [name for name, tried in values.items() if isinstance(tried, tuple)]
        assert [{k: row[k] for k in grid} for row in rows] == [
            {k: s.flat()[k] for k in grid} for s in trials(values)
        ]
        chosen = Unlearning.of(**found["settings"][label]).flat()
        best = min(
            (row for row in rows if row["avg_gap"] is not None),
            key=lambda row: row["avg_gap"],
        )
        assert {k: chosen[k] for k in grid} == {k: best[k] for k in grid}


def test_every_variant_takes_one_part_away():
    base = Unlearning.of(method="ltu", rho=0.3, learning_rate=0.5)
    made = ltu.variants({"LTU": base})
    assert len(made) == 9
    del made["LTU"]
    for label, changed in made.items():
        values = changed.flat()
        different = {k for k, value in base.flat().items() if values[k] != value}
        assert len(different) == 1, label


def test_rho_changes_the_data_and_hardly_the_number_of_steps():
    data = digits()
    plan = ltu.LTU_DIGITS.study.plan("main", seeds=(0, 1))
    asked, _ = draw_request(plan, data, 0)
    for label in ("FT", "RL", "LTU"):
        lengths = []
        for rho in ltu.RHOS:
            setting = plan.methods[ltu._at(label, rho)]
            assert setting.rho == rho
            retain = accessible(data, asked, rho, 0).retain
            epoch = ltu.steps_per_epoch(600, 180, setting)
            sets = data.train, asked.forget, retain
            if label == "FT":
                schedule = retain_only(*sets[::2], batch_size=64, epochs=1)
            elif label == "RL":
                schedule = merged(*sets, batch_size=64, epochs=1)
            else:
                schedule = queried(
                    *sets,
                    [queries.uniform(len(retain))] * 5,
                    batch_size=64,
                    query_size=16,
                    epochs=1,
                )
            assert epoch == len(schedule)
            lengths.append(setting.epochs * epoch)
        assert max(lengths) <= 1.2 * min(lengths)


def test_near_and_far_compare_the_methods_of_the_table():
    for part in ("near", "far"):
        plan = ltu.LTU_DIGITS.study.plan(part)
        assert tuple(plan.methods) == COMPARED
        assert plan.by_distance
    with pytest.raises(InputError, match="unknown part 'middle'"):
        ltu.LTU_DIGITS.study.plan("middle")


def test_a_study_says_which_data_it_needs(tmp_path):
    with pytest.raises(InputError, match="needs --data"):
        ltu.LTU_CIFAR10.data.load(None, "ltu-cifar10")
    with pytest.raises(InputError, match="brings its own data"):
        ltu.LTU_DIGITS.data.load(tmp_path / "x.npz", "ltu-digits")


def test_a_subset_keeps_the_proportions_and_the_order():
    full = digits()
    small = subset(full, train=200, test=100)
    shares = np.bincount(full.train.labels) / 5
    counts = np.bincount(small.train.labels)
    assert np.all(np.abs(counts - shares) < 1)
    assert len(small.test.labels) == 100
    rows = [
        np.flatnonzero((full.train.inputs == x).all((1, 2, 3)))[0]
        for x in small.train.inputs[:9]
    ]
    assert np.all(np.diff(rows) > 0)
    with pytest.raises(InputError, match="train=5000: digits has 1000"):
        subset(full, train=5000, test=0)
