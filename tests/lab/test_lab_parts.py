"""The small functions of the lab, each on a case that can be checked by hand."""

import dataclasses
import re
from typing import Annotated, Literal, NamedTuple

import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from jax_unlearn import membership
from jax_unlearn.data import digits
from jax_unlearn.errors import InputError
from jax_unlearn.lab import (
    Training,
    Unlearning,
    catalog,
    ledger,
    modality,
    plan,
    schema,
)
from jax_unlearn.lab.ensemble_models import span
from jax_unlearn.lab.modalities import modality_named
from jax_unlearn.lab.modalities.classification import networks
from jax_unlearn.lab.modalities.diffusion import figures
from jax_unlearn.lab.modalities.diffusion import networks as generators
from jax_unlearn.lab.modalities.diffusion.settings import DiffusionTraining
from jax_unlearn.lab.modality import optimizer_of
from jax_unlearn.lab.requests import class_id
from jax_unlearn.lab.store import same
from jax_unlearn.methods.ltu import Ltu


def test_weak_attacks_are_warned_of():
    weak = {"logistic": {"auc": 0.5, "better_than_chance": False}}
    assert modality.weak_attacks({"attacks": weak}) == [
        "attack 'logistic' is no better than chance (AUC 0.500): it gives no feedback"
    ]


def test_repeated_names_are_counted():
    known = {"logistic": membership.logistic}
    options = Ltu(attacks=("logistic", "logistic"))
    found = modality.chosen(None, options, attacks=known)[0]
    assert [attack.name for attack in found] == ["logistic", "logistic 2"]


def test_cards_and_kinds_by_name():
    assert catalog.method_card("scrub").options(rewind=True).forget_epochs == 2
    assert modality_named("classification").key == "network"


def test_files_that_a_record_names_are_not_run():
    with pytest.raises(InputError) as caught:
        catalog.check_named("theirs.py:CARD")
    assert str(caught.value) == (
        "'theirs.py:CARD' is named by a record, not by you: its file is not run; name "
        "it yourself, or set JAX_UNLEARN_RUN_FILES=1 to run such files"
    )


def test_the_optimizer_takes_the_learning_rate():
    optimizer = optimizer_of(Unlearning(learning_rate=1.0, weight_decay=0.0))
    found, _ = optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)))
    np.testing.assert_array_equal(np.asarray(found), [-1.0])


def test_times_as_one_says_them():
    assert [span(s) for s in (0.3, 90, 4000)] == ["0.3 s", "1.5 min", "1.1 h"]


def test_a_line_of_the_ledger_is_returned(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, {"forgotten": 20})
    assert ledger.append(path, {"forgotten": 5})["number"] == 2
    assert [entry["forgotten"] for entry in ledger.read(path)] == [20, 5]


def test_labels_as_folders():
    labels = "RL + FaLW (exact)", "../../x", ".."
    assert [plan.slug(label) for label in labels] == ["rl-falw-exact", "x", ""]
    said = (
        "method 'f-t' needs a folder of its own, and 'f-t' is empty or taken; "
        "give it another label"
    )
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        plan.slugs(["FT", "f t", "f-t"])


def test_classes_by_name_and_number():
    assert class_id("cat", ["dog", "cat"]) == 1
    assert class_id("0", ["dog", "cat"]) == 0


@dataclasses.dataclass(frozen=True)
class Step:
    optimizer: Literal["sgd", "adam"] = "sgd"
    batch_size: Annotated[int, msgspec.Meta(ge=1)] = 64


@dataclasses.dataclass
class Interval:
    low: float
    high: float

    def __post_init__(self):
        if self.low > self.high:
            raise schema.FieldError(f"low={self.low:g} lies above high={self.high:g}")


class Point(NamedTuple):
    x: float
    y: float = 0.0


def test_a_step_is_read():
    found = schema.read(Step, {"batch_size": 8}, name="step")
    assert repr(found) == "Step(optimizer='sgd', batch_size=8)"


@pytest.mark.parametrize(
    ("kind", "value", "name", "said"),
    [
        (
            Step,
            {"batch_size": "8"},
            "step",
            "step.batch_size='8' must be a whole number, not text",
        ),
        (
            Step,
            {"optimiser": "adam"},
            "step",
            "step.optimiser is unknown; did you mean 'optimizer'?",
        ),
        (
            Interval,
            {"low": 2, "high": 1},
            "figure.null",
            "figure.null.low=2 lies above high=1",
        ),
    ],
)
def test_what_is_refused_of_a_value(kind, value, name, said):
    with pytest.raises(InputError) as caught:
        schema.read(kind, value, name=name)
    assert str(caught.value) == said


def test_settings_are_read_from_toml_and_from_nothing_else(tmp_path):
    path = tmp_path / "ids.toml"
    path.write_text("forget = [3, 5]")
    assert schema.read_file(dict[str, tuple[int, ...]], path) == {"forget": (3, 5)}
    with pytest.raises(InputError) as caught:
        schema.read_file(dict, "settings.yaml")
    assert str(caught.value) == (
        "path=settings.yaml is neither .json nor .toml; write it as one of them"
    )


def test_another_seed_is_another_record():
    assert not same({"seed": 0, "unlearning": {"method": "ssd"}}, {"seed": 1})


def test_classifiers_are_built_once():
    network = networks.describe(Training(), digits())
    assert network.input_shape == (8, 8, 1)
    assert networks.build(network) is networks.build(network)


def test_generators_are_built_as_described():
    training = DiffusionTraining(widths=(8,))
    network = generators.describe(training, digits())
    assert network.image_shape == (8, 8, 1)
    generator = generators.build(network)
    assert generator.null == 10
    assert generator.process.num_train_timesteps == 1000


def test_a_training_of_no_steps_is_refused():
    with pytest.raises(InputError) as caught:
        DiffusionTraining(steps=0)
    assert str(caught.value) == "steps=0 must be at least 1; try 2000"


def test_images_as_png():
    assert figures.png_bytes(np.zeros((1, 1, 4, 4, 3), np.uint8))[1:4] == b"PNG"
    assert figures.to_png(np.zeros((2, 3, 4, 4, 1), np.uint8))[:10] == "iVBORw0KGg"
