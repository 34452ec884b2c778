"""Probes of classifiers in the lab: of audits, and of experiments over seeds."""

import json

import jax
import numpy as np
import optax
import pytest
from toys import three_digits

from jax_unlearn import report
from jax_unlearn.audit import Audit
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Training, Unlearning, experiment
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities.classification import CLASSIFICATION
from jax_unlearn.lab.modalities.classification.probes import PROBES
from jax_unlearn.lab.modalities.diffusion.networks import DiffusionTraining
from jax_unlearn.lab.modalities.language import LANGUAGE
from jax_unlearn.lab.probes import (
    judged,
    of_figures,
    over_seeds,
    pressed,
    with_probes,
)
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.subject import subject_of

TRAINING = Training(network="linear", epochs=2, batch_size=32)
ALL = ("recover", "recover-retain", "int8", "int4")


def plan(**changes) -> Plan:
    settings = {
        "title": "small",
        "kind": "random",
        "fraction": 0.2,
        "gamma": 1.0,
        "unseen": 20,
        "training": TRAINING,
        "methods": {"FT": Unlearning.of(method="finetune", epochs=1, batch_size=32)},
        "seeds": (0, 1, 2),
    }
    return Plan(**{**settings, **changes})


@pytest.fixture(scope="module")
def dataset():
    return three_digits(100, 30)


def test_an_experiment_puts_every_model_to_the_probes(dataset, tmp_path):
    results = experiment(plan(probes=("recover", "int4")), dataset, tmp_path / "run")
    keys = ["retrain", "null", "original", "ft"]
    assert list(results["probes"]) == keys
    assert set(results["probe_figures"]) == {"original", "ft"}
    figure = results["probe_figures"]["ft"]["int4"]
    assert figure["target"] == results["probes"]["retrain"]["int4"]
    assert figure["verdict"] in ("inside", "outside")
    page = report.render(json.loads(json.dumps(results)))
    assert "Hidden memory" in page
    assert "with 4 bits" in page
    again = json.loads((tmp_path / "run" / "config.json").read_text())
    assert again["plan"]["probes"] == ["recover", "int4"]


def test_rounded_weights_are_looked_at_and_the_model_is_left_alone(dataset):
    subject = subject_of(TRAINING, dataset)
    params, state = subject.model.init(jax.random.key(0), dataset.train.inputs[:2])
    before = jax.tree.map(np.array, params)
    request = Request(np.arange(10), np.arange(10, 90), np.arange(90, 100))
    found = pressed(subject, Trained(params, state, {}), request, ALL)
    assert set(found) == set(ALL)
    assert all(0 <= value <= 100 for value in found.values())
    jax.tree.map(np.testing.assert_array_equal, params, before)
    again = pressed(subject, Trained(params, state, {}), request, ALL)
    assert again == found


def test_gradients_along_the_step_from_the_original(dataset, tmp_path):
    made = experiment(
        plan(probes=("alignment",), seeds=(0, 1)), dataset, tmp_path / "run"
    )
    assert made["probes"]["original"]["alignment"] == 50.0  # no step, no trace
    assert all(0 <= own["alignment"] <= 100 for own in made["probes"].values())
    assert made["probes"]["retrain"]["alignment"] != 50.0
    subject = subject_of(TRAINING, dataset)
    params, state = subject.model.init(jax.random.key(0), dataset.train.inputs[:2])
    start = Trained(params, state, {})
    request = Request(np.arange(10), np.arange(10, 90), np.arange(90, 100))
    forget = dataset.train.inputs[:10], dataset.train.labels[:10]

    def loss(params):
        logits, _ = subject.model.apply(params, state, forget[0], train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, forget[1])
        return losses.mean()

    ascent = jax.tree.map(lambda p, g: p + 0.1 * g, params, jax.grad(loss)(params))
    gone = start._replace(params=ascent)
    found = pressed(subject, gone, request, ["alignment"], original=start)
    assert found["alignment"] > 60
    with pytest.raises(InputError, match="probe='alignment' looks at what changed"):
        pressed(subject, gone, request, ["alignment"])


def test_probes_of_texts_are_figures_of_many_models_too():
    names = list(of_figures(LANGUAGE.probes))
    assert names == ["relearn_10", "relearn_50", "int8", "int4"]
    assert list(of_figures(CLASSIFICATION.probes)) == list(PROBES)
    told = {"details": {}, "models": {"npo": 1}, "retrained": 3, "half": 0}
    told |= {"resamples": 20, "level": 0.95, "forgotten": 12, "left_out": {}}
    found = Audit(figures={"npo": {}}, cards={}, **told)
    again = {name: np.array([0.1, 0.2, 0.3]) for name in names}
    own = {"npo": {name: np.array([0.9]) for name in names}}
    made = with_probes(found, own, again, LANGUAGE.probes)
    figure = made.figures["npo"]["relearn_50"]
    assert (figure.value, figure.target) == (0.9, pytest.approx(0.2))
    assert figure.verdict == "outside"
    assert made.cards["relearn_50"].digits == 3


def test_single_models_stand_beside_all_retrains():
    found = {"retrain": {"int8": 40.0}, "null": {"int8": 50.0}, "new": {"int8": 69.0}}
    figure = judged(found, [{"int8": 45.0}], 20, PROBES)["new"]["int8"]
    assert figure["target"] == 45
    # s = 5 of three, t(2) = 4.303, √(1 + 1/3)
    high = 45 + 4.3027 * 5 * (4 / 3) ** 0.5
    assert figure["null_high"] == pytest.approx(high, rel=1e-4)
    assert figure["verdict"] == "inside"
    assert judged(found, [], 20, PROBES)["new"]["int8"]["verdict"] == ""  # of two, none
    # Retrains that agree by chance: at least the spread of rounding, 5/√12 percent
    alike = {key: {"int8": 40.0} for key in ("retrain", "null")} | {"new": found["new"]}
    figure = judged(alike, [{"int8": 40.0}], 20, PROBES)["new"]["int8"]
    low = 40 - 4.3027 * 5 / 12**0.5 * (4 / 3) ** 0.5
    assert figure["null_low"] == pytest.approx(low, rel=1e-4)
    assert judged({"new": found["new"]}, [], 20, PROBES) == {}


def test_figures_over_seeds_need_a_null_and_three_seeds():
    values = {"retrain": (40, 42, 44), "null": (42, 41, 45), "ft": (80, 81, 82)}
    rows = {key: [{"int4": v} for v in own] for key, own in values.items()}
    figure = over_seeds(rows)["probe_figures"]["ft"]["int4"]
    assert (figure["value"], figure["target"]) == (81, 42)
    # differences 2, -1, 1 of the null: s = √(7/3), t(2) = 4.303
    assert figure["null_high"] - 42 == pytest.approx(4.3027 * (7 / 3 / 3) ** 0.5, 1e-4)
    assert figure["verdict"] == "outside"
    two = over_seeds({key: own[:2] for key, own in rows.items()})
    assert two["probe_figures"]["ft"]["int4"]["verdict"] == ""
    alone = over_seeds({k: own for k, own in rows.items() if k != "null"})
    assert alone["probe_figures"]["ft"]["int4"]["null_low"] is None
    assert over_seeds({"ft": rows["ft"]})["probe_figures"] == {}


def test_probes_that_cannot_be_are_refused(dataset):
    with pytest.raises(InputError, match="unknown probe 'int3'"):
        plan(probes=("int3",))
    with pytest.raises(InputError, match="diffusion models have none"):
        plan(probes=("int4",), training=DiffusionTraining(), methods={})
    subject = subject_of(TRAINING, dataset)
    params, state = subject.model.init(jax.random.key(0), dataset.train.inputs[:2])
    one = Request(np.arange(1), np.arange(1, 90), np.arange(90, 100))
    with pytest.raises(InputError, match="there is 1; use int8, int4 or relearn"):
        pressed(subject, Trained(params, state, {}), one, ["recover"])
