"""What a budget buys, which method is recommended, and what an audit means."""

import numpy as np
import pytest

from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.costs import met
from jax_unlearn.lab.modalities import modality_named
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.service import conclusion, recommended

KIND = modality_named("classification")
DIFFUSION = modality_named("diffusion")
# Retrain: 10 epochs over 160 samples in batches of 50: 1600 gradients of samples
ORIGIN = Origin(Training(epochs=10, batch_size=50), 0)
ASKED = Request(np.arange(40), np.arange(40, 200), np.zeros(0, np.int64))


@pytest.mark.parametrize(
    ("setting", "budget", "found"),
    [
        ({"method": "partial_reset"}, 0.2, {"share": 0.2}),
        ({"method": "finetune"}, 0.5, {"epochs": 5}),  # of 160
        ({"method": "finetune", "rho": 0.5}, 0.5, {"epochs": 10}),
        ({"method": "finetune", "batch_size": 20}, 0.04, {"steps": 3}),  # of 20
        ({"method": "random_label"}, 0.5, {"epochs": 4}),  # of 200
        ({"method": "gradient_ascent"}, 0.1, {"epochs": 4}),  # of 40
        # a batch of 40 of each set a step: 4 steps an epoch
        (
            {"method": "random_label", "schedule": "zipped", "batch_size": 40},
            0.5,
            {"steps": 10},  # two epochs and a half
        ),
        ({"method": "salun"}, 0.5, {"steps": 15}),  # of 50, 40 for the mask
        ({"method": "scrub", "forget_epochs": 2}, 0.5, {"epochs": 3}),
    ],
)
def test_a_budget_is_a_share_of_the_gradients(setting, budget, found):
    setting = Unlearning.of(**setting)
    given = met(setting.but(budget=budget), ORIGIN, ASKED, KIND).flat()
    assert {name: given[name] for name in found} == found


def test_a_budget_of_diffusion_models_is_of_steps():
    training = DIFFUSION.training(steps=100, batch_size=50)
    setting = Unlearning.of(modality="diffusion", batch_size=50)
    found = met(setting.but(budget=0.4), Origin(training, 0), ASKED, DIFFUSION)
    assert found.steps == 16  # of twice 50 images; Retrain has 100, on 160


@pytest.mark.parametrize("method", ["finetune", "scrub", "salun", "sfron"])
@pytest.mark.parametrize("budget", [0.0001, 0.001, 0.0123])
def test_the_least_budget_that_is_named_will_do(method, budget):
    setting = Unlearning.of(method=method)
    with pytest.raises(InputError, match="give --budget") as caught:
        met(setting.but(budget=budget), ORIGIN, ASKED, KIND)
    least = float(str(caught.value).partition("--budget ")[2].split()[0])
    met(setting.but(budget=least), ORIGIN, ASKED, KIND)


def test_what_has_no_length_is_refused():
    for method in ("ssd", "fisher_forgetting"):
        with pytest.raises(InputError, match="has no length"):
            met(Unlearning.of(method=method).but(budget=0.5), ORIGIN, ASKED, KIND)
    with pytest.raises(InputError, match="no record"):
        met(Unlearning.of(method="finetune").but(budget=0.5), None, ASKED, KIND)


def test_the_method_follows_from_what_is_known():
    known = {"training": {"epochs": 3}, "seed": 0}
    assert recommended(KIND, known) == "partial_reset"
    assert recommended(KIND, {"origin": known}) == "partial_reset"
    assert recommended(KIND, {}) == "scrub"
    assert recommended(DIFFUSION, known) == "random_label"


def one(auc=None, right=None, test=90.0):
    return {"auc": auc, "right": right, "test": test}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (one(0.9), one(0.5), "it has forgotten them: serve served/m"),
        (one(0.9), one(0.8), "has not forgotten them: do not serve it"),
        (one(0.9), one(0.2), "forgot too much"),
        (one(0.5), one(0.5), "there was nothing to forget"),
        (one(None, 100.0), one(None, 1.0), "it has forgotten them"),
        (one(None, 100.0), one(None, 20.0), "has not forgotten them"),
    ],
)
def test_without_retrains_the_sentence_says_what_to_do(before, after, words):
    found = {"of": "unseen", "samples": {"forget": 9, "unseen": 9}}
    found |= {"low": 0.4, "high": 0.6, "models": {"original": before, "m": after}}
    said = conclusion({"unseen": found}, "m", "served/m", retrains=1, seconds=30.0)
    assert words in said
    assert "With 1 Retrain this is no comparison" in said
    assert "2 more make one" in said
    assert "about 60 s)" in said
