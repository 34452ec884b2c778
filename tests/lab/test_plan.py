"""A plan read back from the configuration of a run, and what is refused."""

import copy
import dataclasses
import json

import pytest

from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Training, Unlearning
from jax_unlearn.lab.catalog import METHODS
from jax_unlearn.lab.modalities.classification import CLASSIFICATION
from jax_unlearn.lab.plan import plan_of
from jax_unlearn.recipes.digits import digits_plan

PLAN = Plan(
    title="small",
    kind="class",
    fraction=1.0,
    gamma=0.5,
    unseen=40,
    training=Training(network="mlp", width=6, momentum=0.0),
    methods={
        # "retrain" is the name of the reference's folder
        **{
            n: Unlearning.of(method=n)
            for n, card in METHODS.items()
            if n != "retrain" and set(card.roles) <= CLASSIFICATION.roles
        },
        "retrained": Unlearning.of(method="retrain"),
        "LTU, two attacks": Unlearning.of(
            method="ltu", attacks=("logistic", "gaussian_ratio"), strategies=("hard",)
        ),
        "falw": Unlearning.of(weighting="falw"),
        "SCRUB+R": Unlearning.of(method="scrub", rewind=True, teacher_temperature=2.5),
    },
    seeds=(4, 2, 7),
    note="by hand",
)


@pytest.mark.parametrize("plan", [PLAN, digits_plan()], ids=["all methods", "demo"])
def test_a_plan_goes_through_json(plan):
    record = {"plan": plan.record(), "format": 1}
    assert plan_of(record, name="run") == plan
    assert plan_of(json.loads(json.dumps(record)), name="run") == plan


def test_settings_that_a_record_lacks_are_defaults():
    record = copy.deepcopy(PLAN.record())
    del record["note"], record["training"]["epochs"]
    del record["methods"]["finetune"]["clip"]
    del record["methods"]["fisher_forgetting"]["options"]["noise"]
    del record["methods"]["falw"]["weighting_options"]["tau"]
    del record["methods"]["ssd"]["weighting_options"], record["methods"]["ssd"]["rho"]
    found = plan_of({"plan": record}, name="run")
    assert found == dataclasses.replace(PLAN, note="")


def altered(change) -> dict:
    record = copy.deepcopy(PLAN.record())
    change(record)
    return {"plan": record}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, "KeyError"),
        ([], "TypeError"),
        (None, "TypeError"),
        ({"plan": "demo"}, "ValueError"),
        ({"plan": None}, "TypeError"),
        ({"plan": {}}, "training"),
        (altered(lambda r: r.pop("seeds")), "seeds"),
        (altered(lambda r: r.pop("kind")), "kind"),
        (altered(lambda r: r.update(speed=1)), "speed"),
        (altered(lambda r: r.update(methods=["finetune"])), "AttributeError"),
        (altered(lambda r: r["training"].update(heads=2)), "heads"),
        (altered(lambda r: r["training"].update(epochs=0)), "epochs=0"),
        (altered(lambda r: r["methods"]["ssd"].update(method="sdd")), "sdd"),
        (altered(lambda r: r["methods"]["ssd"].update(speed=1)), "speed"),
        (altered(lambda r: r.update(seeds=[1])), "two different"),
    ],
    ids=range(15),
)
def test_what_holds_no_plan_is_refused_in_one_line(record, words):
    with pytest.raises(InputError, match=words) as caught:
        plan_of(record, name="run=here")
    message = str(caught.value)
    assert message.startswith("run=here holds no plan of this version")
    assert "\n" not in message


@pytest.mark.parametrize(
    "labels",
    [("..",), (".",), ("",), ("/",), ("null",), ("RL", "r l", "R-L"), ("retrain",)],
)
def test_labels_that_name_no_folder_of_their_own(labels):
    methods = dict.fromkeys(labels, Unlearning.of())
    with pytest.raises(InputError, match="needs a folder of its own"):
        dataclasses.replace(PLAN, methods=methods)
