"""A study of diffusion models at the smallest size: whole, resumed, refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from toys import three_digits, trees_close

from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Training, Unlearning, experiment
from jax_unlearn.lab.experiment import phases
from jax_unlearn.lab.modalities.diffusion import figures
from jax_unlearn.lab.modalities.diffusion.settings import (
    DiffusionTraining,
    Judging,
    Sampling,
)
from jax_unlearn.lab.store import unfinished
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.recipes import generation as recipes


def relabel(**options):
    return {"Relabel": Unlearning.of(modality="diffusion", **options)}


PLAN = Plan(
    title="tiny",
    kind="class",
    fraction=1.0,
    gamma=1.0,
    unseen=0.1,
    training=DiffusionTraining(
        widths=(4,), attention=(0,), timesteps=12, steps=3, batch_size=16
    ),
    methods=relabel(steps=2, batch_size=8),
    seeds=(0,),
    classes=(1,),
    null=False,
    judging=Judging(
        judge=Training(network="mlp", width=8, epochs=1),
        sampling=Sampling(sampling_steps=2),
        per_class=8,
        forget_images=10,
    ),
)


@pytest.fixture(scope="module")
def data():
    return three_digits(100, 40)


@pytest.fixture(scope="module")
def study(data, tmp_path_factory):
    """Return the folder of the study, what it returned, and the phases it told."""
    told, folder = [], tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "MEASURED", 2)  # parts of one size are one program
        return folder, experiment(PLAN, data, folder, progress=listener(told)), told


@pytest.fixture
def folder(study, tmp_path):
    """Return a copy of its folder, which a test may change."""
    return shutil.copytree(study[0], tmp_path / "s")


def listener(told):
    def progress(phase, done, total):
        if done == 0:
            told.append((phase, total))

    return progress


def test_a_study_is_whole_and_goes_on_where_it_stood(data, study, folder, tmp_path):
    _, first, phases_told = study
    told = []

    def again(plan):
        return experiment(plan, data, folder, progress=listener(told), resume=True)

    assert len(phases_told) == phases(PLAN)
    assert list(first["rows"]) == ["retrain", "original", "Relabel"]
    (run,) = first["runs"]
    assert run["class"] == 1
    for key, row in run["rows"].items():
        counts = np.array(row["confusion"]).sum(axis=1)
        assert counts.tolist() == [8, 10, 8], key
        assert np.isfinite(row["frechet"])
        assert row["seconds"]["run"] > 0
    assert run["rows"]["retrain"]["ua"] == first["rows"]["retrain"]["ua"]["mean"]
    assert first["rows"]["retrain"]["ua_gap"]["mean"] == 0
    assert run["rows"]["original"]["forget_error"] != run["rows"]["Relabel"]["ua"]
    made = {path: path.stat().st_mtime_ns for path in models_and_figures(tmp_path)}
    assert len(made) == 4 + 3  # a judge and three models; figures of the three
    second = again(PLAN)
    assert second["rows"] == first["rows"]
    assert second["runs"] == first["runs"]
    assert all(total == 1 for phase, total in told if phase != "judge")
    assert made == {
        path: path.stat().st_mtime_ns for path in models_and_figures(tmp_path)
    }
    other = dataclasses.replace(PLAN.judging, per_class=9)
    with pytest.raises(InputError, match="judging.per_class was 8, is 9.;"):
        again(dataclasses.replace(PLAN, judging=other))
    changed = dataclasses.replace(PLAN, methods=relabel(steps=3, batch_size=8))
    with pytest.raises(InputError, match="relabel was made with another setting"):
        again(changed)
    with pytest.raises(InputError, match="already holds files"):
        experiment(PLAN, data, folder)


def models_and_figures(folder):
    return [*folder.rglob("record.json"), *(folder / "s" / "figures").rglob("*.json")]


def test_a_diverging_method_has_no_row_in_any_run(data, study, folder):
    wild = {**PLAN.methods, "Wild": relabel(learning_rate=1e30)["Relabel"]}
    plan = dataclasses.replace(PLAN, methods=wild)
    results = experiment(plan, data, folder, resume=True)
    assert results["rows"].keys() == study[1]["rows"].keys()
    assert results["runs"] == study[1]["runs"]
    assert list(results["diverged"]) == ["Wild"]


def test_figures_are_read_again_and_not_redrawn(data, folder):
    for path in (folder / "figures").rglob("relabel.json"):
        kept = json.loads(path.read_text())
        kept["figures"]["ua"] = 12.5
        path.write_text(json.dumps(kept))
    again = experiment(PLAN, data, folder, resume=True)
    assert again["rows"]["Relabel"]["ua"]["mean"] == 12.5
    path.write_text("[]")
    with pytest.raises(InputError, match=r"relabel.json holds no figures"):
        experiment(PLAN, data, folder, resume=True)


def test_a_training_that_was_cut_goes_on(data, tmp_path):
    trainer = Trainer(subject_of(PLAN.training, data), PLAN.training)
    ids = np.arange(len(data.train.labels))
    whole = trainer(ids, seed=0)
    steps = []

    def cut(step, state, info):
        steps.append(step)
        if step == 2:
            raise KeyboardInterrupt

    def train(callback):
        with unfinished(tmp_path / "model", {}, seconds=0) as series:
            return trainer(ids, seed=0, callback=callback, series=series)

    with pytest.raises(KeyboardInterrupt):
        train(cut)
    again = train(lambda step, state, info: steps.append(step))
    assert steps == [1, 2, 2, 3]  # the second was not saved
    trees_close(again.params, whole.params, rtol=0, atol=0)


def test_bad_plans_are_named(data, tmp_path):
    with pytest.raises(InputError, match="class 7 has 0 of the 90 training"):
        experiment(dataclasses.replace(PLAN, classes=(7,)), data, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    with pytest.raises(InputError, match="per_class=3 must be at least 8"):
        dataclasses.replace(PLAN.judging, per_class=3)
    with pytest.raises(InputError, match="per_class=1 must be at least 2"):
        Judging(per_class=1, forget_images=1)
    with pytest.raises(InputError, match="classes=\\(\\)"):
        dataclasses.replace(PLAN, classes=())


def test_recipes_have_plans_and_say_what_data_they_read(tmp_path):
    for recipe in (
        recipes.GENERATION_DIGITS,
        recipes.GENERATION_FASHION,
        recipes.GENERATION_CIFAR10,
        recipes.GENERATION_CIFAR10_FULL,
    ):
        plan = recipes.planned(recipe, classes=[2], seeds=[5])
        assert (plan.classes, plan.seeds) == ((2,), (5,))
        assert {"Relabel", "SalUn", "SFRon", "LTU", "ESD"} <= set(plan.methods)
        assert len(recipes.planned(recipe).classes) >= 3
    fashion, own = recipes.GENERATION_FASHION, recipes.GENERATION_DIGITS
    assert own.data.load(None, own.name).name == "digits"
    with pytest.raises(InputError, match="'generation-fashion' needs --data FILE.npz"):
        fashion.data.load(None, fashion.name)
    with pytest.raises(InputError, match="generation-digits brings its own data"):
        own.data.load(tmp_path / "x.npz", own.name)
