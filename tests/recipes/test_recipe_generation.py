"""The recipe for an accelerator: its switches as they are, its sizes small."""

import dataclasses

import numpy as np
import pytest

from jax_unlearn.data import Dataset, Examples
from jax_unlearn.lab import Training, experiment
from jax_unlearn.lab.experiment import phases
from jax_unlearn.lab.modalities.diffusion.settings import Judging
from jax_unlearn.recipes.generation import (
    GENERATION_CIFAR10_FULL,
    RATE,
    methods_of,
    planned,
)


def images(count: int) -> Examples:
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return Examples(pixels, np.arange(count, dtype=np.int32) % 3)


DATA = Dataset("coloured noise", images(60), images(30), 3, ("a", "b", "c"))


def small(methods):
    """Return the plan with its switches and without its size."""
    plan = planned(GENERATION_CIFAR10_FULL, classes=[1])
    training = dataclasses.replace(
        plan.training, widths=(4, 8, 8, 8), timesteps=50, steps=2, batch_size=8
    )
    made = methods_of(2, rate=RATE, batch=4)
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


def check(methods, folder):
    plan = small(methods)
    assert plan.training.dtype == "bfloat16"
    assert len(plan.training.attention) == len(plan.training.widths)
    told = []
    results = experiment(
        plan,
        DATA,
        folder,
        progress=lambda phase, done, total: told.append(phase) if done == 0 else None,
    )
    assert len(told) == phases(plan)
    assert set(results["rows"]) == {"original", "retrain", *methods}
    for row in results["rows"].values():
        assert np.isfinite(row["frechet"]["mean"])


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in methods_of(1) if m != "Relabel"])
def test_every_method_of_the_full_recipe_runs(method, tmp_path):
    check([method], tmp_path)


def test_one_method_of_the_full_recipe_runs(tmp_path):
    check(["Relabel"], tmp_path)
