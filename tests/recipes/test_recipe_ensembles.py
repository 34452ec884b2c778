"""Many models along the frontier: which are made, and what their traces say."""

import numpy as np
import pytest

from jax_unlearn.lab.ensembles import Ensembles
from jax_unlearn.lab.requests import Request
from jax_unlearn.recipes import frontier, pages
from jax_unlearn.recipes import frontier_ensembles as many

N = 8


def test_the_methods_are_those_of_the_stored_frontier():
    found = pages.stored("frontier_digits")
    told = many.methods_of(found, "random10")
    for budget in many.BUDGETS:
        best = many.best_of(found[f"random10-{100 * budget:g}"])
        assert {many.named(label, budget) for label in best} <= told.keys()
    short = [name for name in told if name.startswith("Short Retrain,")]
    assert len(short) == 7  # a curve of accuracies to compare with
    assert told["FT, 20 %"].budget == 0.2


@pytest.mark.parametrize("recipe", many.ENSEMBLES, ids=lambda recipe: recipe.name)
def test_every_data_set_has_the_methods_that_its_frontier_has(recipe):
    assert recipe.data == recipe.study.data
    found = pages.stored(recipe.study.stem)
    budgets = frontier.by_request(found)["random10"].keys() & {*many.BUDGETS}
    told = many.methods_of(found, "random10")
    for label in (frontier.TRANSPORT, frontier.CONVEX, "FT"):
        assert {many.named(label, budget) for budget in budgets} <= told.keys()


@pytest.fixture(scope="module")
def made():
    """Logits of two classes: what a model knows better stands out by its margin."""
    draws = np.random.default_rng(0)
    sizes = {"forget": 40, "retain": 60, "unseen": 40, "test": 50}
    shifts = {
        "original": {"forget": 3.0, "retain": 3.0},
        "retrain": {"retain": 3.0},
        "Short Retrain, 5 %": {"forget": -2.0, "unseen": -2.0, "retain": 1.0},
        "FT, 5 %": {"forget": 2.0, "retain": 3.0},
    }

    def logits(part: str, shift: float) -> np.ndarray:
        margin = 1.5 + shift + draws.normal(size=(N, sizes[part]))
        return np.stack([margin, np.zeros_like(margin)], axis=-1).astype(np.float32)

    outputs = {
        role: {part: logits(part, told.get(part, 0.0)) for part in sizes}
        for role, told in shifts.items()
    }
    labels = {part: np.zeros(size, np.int32) for part, size in sizes.items()}
    request = Request(*(np.arange(sizes[part]) for part in list(sizes)[:3]))
    back = {
        "original": 90.0,
        "retrain": 50.0,
        "Short Retrain, 5 %": 50.0,
        "FT, 5 %": 80,
    }
    probes = {
        role: {key: value + draws.normal(size=N) for key in many.PROBES}
        for role, value in back.items()
    }
    return Ensembles(outputs, labels, request, dict.fromkeys(shifts, 1.0), probes)


def test_memory_is_told_from_training_too_little(made):
    from jax_unlearn.lab import Training

    results = many.measured(made, Training(), resamples=2)
    assert results["attacked"]["null"]["models"] == N // 2
    assert results["attacked"]["doing nothing"]["bias"] > 0
    found = {one.label: one for one in many.traces(results, 0.05)}
    memory, little = found["FT"], found["Short Retrain"]
    assert memory.bias > 0 > little.bias
    assert memory.share < 0.3  # unseen samples are as Retrain knows them
    assert little.share > 0.7
    assert little.short == pytest.approx(little.found)
    assert many.traces(results, 0.2) == []
    for label, verdict in (("FT", "outside"), ("Short Retrain", "inside")):
        told = results["audit"]["figures"][f"{label}, 5 %"]
        assert {told[key]["verdict"] for key in many.PROBES} == {verdict}
