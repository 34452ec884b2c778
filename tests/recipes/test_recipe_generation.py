"""The recipe for an accelerator: its switches as they are, its sizes small."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from jax_unlearn.data import Dataset, Examples
from jax_unlearn.lab import Training
from jax_unlearn.lab.experiment import phases
from jax_unlearn.lab.modalities.diffusion import figures
from jax_unlearn.lab.modalities.diffusion.settings import Judging
from jax_unlearn.lab.requests import draw_cases
from jax_unlearn.recipes import pages
from jax_unlearn.recipes.generation import (
    GENERATION_CIFAR10,
    GENERATION_CIFAR10_FULL,
    GENERATION_DIGITS,
    GENERATION_FASHION,
    IMAGES_DIGITS,
    RATE,
    methods_of,
    planned,
)
from jax_unlearn.recipes.recipe import Asked, Screen


def images(count: int) -> Examples:
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return Examples(pixels, np.arange(count, dtype=np.int32) % 3)


DATA = Dataset("coloured noise", images(60), images(30), 3, ("a", "b", "c"))


def small(methods, **network):
    """Return the plan with its switches and without its size."""
    plan = planned(GENERATION_CIFAR10_FULL, classes=[1])
    network = {"widths": (4, 8, 8, 8), **network}
    training = dataclasses.replace(
        plan.training, timesteps=50, steps=2, batch_size=8, **network
    )
    made = methods_of(2, pixels=64, rate=RATE, batch=4)
    return dataclasses.replace(
        plan,
        training=training,
        judging=Judging(
            judge=Training(network="mlp", width=8, epochs=1),
            sampling=dataclasses.replace(plan.judging.sampling, sampling_steps=2),
            per_class=8,
            forget_images=8,
        ),
        methods={label: made[label] for label in methods},
        null=False,
    )


def check(methods, folder, **network):
    plan = small(methods, **network)
    assert plan.training.dtype == "bfloat16"
    assert len(plan.training.attention) == len(plan.training.widths)
    told, shown, phases_of = [], [], []

    @contextlib.contextmanager
    def progress(count):
        phases_of.append(count)
        yield lambda phase, done, total: told.append(phase) if done == 0 else None

    screen = Screen(progress, lambda line: None, shown.extend, lambda *_, **__: None)
    inputs = {"x_train": DATA.train.inputs, "x_test": DATA.test.inputs}
    labels = {"y_train": DATA.train.labels, "y_test": DATA.test.labels}
    np.savez(folder / "noise.npz", **inputs, **labels)
    recipe = dataclasses.replace(GENERATION_CIFAR10_FULL, study=plan)
    recipe.run(Asked(screen, data=folder / "noise.npz", out=folder))
    assert len(told) == phases(plan) == phases_of[0]
    (results,) = shown
    assert set(results["rows"]) == {"original", "retrain", *methods}
    for row in results["rows"].values():
        assert np.isfinite(row["frechet"]["mean"])
    assert (folder / "report.html").exists()
    assert (folder / "figure.svg").exists()
    found = json.loads((folder / "short.json").read_text())
    text = pages.page_of(recipe, found).text
    for method in methods:
        ua = found["rows"][method]["ua"]["mean"]
        assert f"| {method} | {ua:.1f}" in text


@pytest.mark.slow
@pytest.mark.parametrize("method", methods_of(1, pixels=64))
def test_every_method_of_the_full_recipe_runs(method, tmp_path):
    check([method], tmp_path)


def test_one_method_of_the_full_recipe_runs(tmp_path, monkeypatch):
    # One level, and parts of one size: most of the time is XLA, compiling them.
    monkeypatch.setattr(figures, "MEASURED", 2)
    check(["Relabel"], tmp_path, widths=(4,), attention=(1,), layers=1)


ALL = GENERATION_DIGITS, GENERATION_FASHION, GENERATION_CIFAR10, GENERATION_CIFAR10_FULL


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_published_units_are_ours(recipe):
    plan = recipe.study
    # (1 + w) ε_c − w ε_∅ with w = 2; α = 1e-3 of a sum over 32 x 32 x 3 pixels
    assert plan.judging.sampling.guidance_scale == 3.0
    for label, setting in plan.methods.items():
        relabels = label.startswith(("Relabel", "SalUn"))
        strength = setting.modality_options.retain_strength
        assert strength == pytest.approx(3.072 if relabels else 1.0)
        assert setting.modality_options.retain_unit == "mean"
    assert plan.methods["LTU"].joining == "one_way"
    assert plan.methods["SalUn"].joining == "none"


def test_single_images_fill_every_batch():
    """A short batch weighs as much as a full one: of two images, a Retrain learns less.

    With 194 images in batches of 64 it knew the retain set worse than the original did.
    """
    plan = IMAGES_DIGITS.study
    size, digits = plan.training.batch_size, IMAGES_DIGITS.data.load(None, "digits")
    for seed in plan.seeds:
        request = draw_cases(plan, digits, seed)[0].request
        assert (len(request.forget), len(request.retain)) == (16, 192)
        assert 16 % size == 192 % size == 0
    assert {setting.batch_size for setting in plan.methods.values()} == {size}


def test_single_images_have_a_study_and_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MEASURED", 2)
    monkeypatch.setattr(figures, "RETURNED", 2)
    whole = IMAGES_DIGITS.study
    assert (whole.classes, len(whole.seeds), whole.kind) == ((), 3, "random")
    assert set(whole.methods) >= {"SISS", "NegGrad+"}
    network = {"widths": (4,), "attention": (0,), "timesteps": 20}
    training = dataclasses.replace(whole.training, **network, steps=2, batch_size=8)
    judge = Training(network="mlp", width=8, epochs=1)
    sampling = dataclasses.replace(whole.judging.sampling, sampling_steps=2)
    told = {"judge": judge, "sampling": sampling, "per_class": 8, "forget_images": 8}
    plan = dataclasses.replace(
        whole,
        training=training,
        judging=Judging(**told),
        methods={"SISS": whole.methods["SISS"].but(steps=2, batch_size=4)},
        seeds=(0,),
    )
    seen, counted = [], []

    @contextlib.contextmanager
    def progress(count):
        counted.append(count)
        yield lambda phase, done, total: seen.append(phase) if done == 0 else None

    screen = Screen(progress, lambda line: None, lambda found: None, lambda *_, **__: 0)
    # of another name: the reading of the page is of all methods
    recipe = dataclasses.replace(IMAGES_DIGITS, study=plan, name="images-tiny")
    recipe.run(Asked(screen, out=tmp_path))
    assert counted == [len(seen)] == [phases(plan)]
    found = json.loads((tmp_path / "short.json").read_text())
    assert found["rows"]["retrain"]["nearer"]["mean"] == 50.0
    assert found["runs"][0]["class"] is None
    text = pages.page_of(recipe, found).text
    row = found["rows"]["SISS"]
    assert f"| SISS | {row['returned']['mean']:.3f}" in text
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert len(made) == 5  # the judge, the original, Retrain, the null and SISS
    again = dataclasses.replace(plan, seeds=(0, 1))  # goes on from what is kept
    dataclasses.replace(recipe, study=again).run(Asked(screen, out=tmp_path))
    assert made == {path: path.stat().st_mtime_ns for path in made}
    found = json.loads((tmp_path / "short.json").read_text())
    assert found["runs"][0]["rows"]["SISS"]["returned"] == row["returned"]["mean"]
