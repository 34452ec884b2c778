"""A study of diffusion models at the smallest size: whole, resumed, refused."""

import dataclasses

import numpy as np
import pytest
from toys import trees_close

from jax_unlearn.data import Dataset, Examples, digits
from jax_unlearn.errors import InputError
from jax_unlearn.lab.generation import (
    GenerationPlan,
    GeneratorTrainer,
    GeneratorTraining,
    GeneratorUnlearning,
    Sampling,
    build,
    describe,
    phases,
    study,
)
from jax_unlearn.lab.settings import Training
from jax_unlearn.lab.unfinished import unfinished
from jax_unlearn.recipes import generation as recipes

PLAN = GenerationPlan(
    title="tiny",
    training=GeneratorTraining(
        widths=(4,), attention=(0,), timesteps=12, steps=3, batch_size=16
    ),
    judge=Training(network="mlp", width=8, epochs=1),
    sampling=Sampling(sampling_steps=2),
    methods={"Relabel": GeneratorUnlearning(steps=2, batch_size=8)},
    classes=(1,),
    per_class=8,
    forget_images=10,
    null=False,
)


@pytest.fixture(scope="module")
def data():
    full = digits()

    def some(part, count):
        keep = np.flatnonzero(part.labels < 3)[:count]
        return Examples(part.inputs[keep], part.labels[keep])

    parts = some(full.train, 100), some(full.test, 40)
    return Dataset("three", *parts, 3, ("a", "b", "c"))


def test_a_study_is_whole_and_goes_on_where_it_stood(data, tmp_path):
    told = []

    def progress(phase, done, total):
        if done == 0:
            told.append((phase, total))

    first = study(PLAN, data, tmp_path / "s", progress=progress)
    assert len(told) == phases(PLAN)
    assert list(first["rows"]) == ["original", "retrain", "Relabel"]
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
    made = {path for path in (tmp_path / "s").rglob("*") if path.is_dir()}
    told.clear()
    second = study(PLAN, data, tmp_path / "s", progress=progress)
    assert second["rows"] == first["rows"]
    assert all(total == 1 for phase, total in told if phase != "judge")
    assert {path for path in (tmp_path / "s").rglob("*") if path.is_dir()} == made
    other = dataclasses.replace(PLAN, per_class=9)
    with pytest.raises(InputError, match="holds another study: its per_class is 8"):
        study(other, data, tmp_path / "s", progress=progress)
    changed = {"Relabel": GeneratorUnlearning(steps=3)}
    with pytest.raises(InputError, match="holds 'Relabel' with other settings"):
        study(
            dataclasses.replace(PLAN, methods=changed),
            data,
            tmp_path / "s",
            progress=progress,
        )


def test_a_training_that_was_cut_goes_on(data, tmp_path):
    trainer = GeneratorTrainer(build(describe(PLAN.training, data)), PLAN.training)
    ids = np.arange(len(data.train.labels))
    whole = trainer(data.train, ids, seed=0)
    steps = []

    def cut(step, state, info):
        steps.append(step)
        if step == 2:
            raise KeyboardInterrupt

    def train(callback):
        with unfinished(tmp_path / "model", {}, seconds=0) as series:
            told = {"callback": callback, "series": series}
            return trainer(data.train, ids, seed=0, **told)

    with pytest.raises(KeyboardInterrupt):
        train(cut)
    again = train(lambda step, state, info: steps.append(step))
    assert steps == [1, 2, 2, 3]  # the second was not saved
    trees_close(again.params, whole.params, rtol=0, atol=0)


def test_bad_plans_are_named(data, tmp_path):
    with pytest.raises(InputError, match="class 7 has no training images"):
        study(
            dataclasses.replace(PLAN, classes=(7,)),
            data,
            tmp_path / "s",
            progress=lambda *_: None,
        )
    assert not (tmp_path / "s").exists()
    with pytest.raises(InputError, match="per_class=3 must be at least 8"):
        dataclasses.replace(PLAN, per_class=3)
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
