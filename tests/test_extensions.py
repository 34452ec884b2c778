"""How to add to the library: each thing in one file, then served everywhere.

What a user adds in a file of their own and names by path is what the library adds in a
file of its room and an entry of a tuple; `tests/README.md` says which. Here each is
added and runs through the command line, an experiment, a search, an ensemble and a
report.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from toys import small_plan

from jax_unlearn.cli import main
from jax_unlearn.data import Dataset
from jax_unlearn.drivers.checkpoint import read_record
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Training, Unlearning, experiment
from jax_unlearn.lab.catalog import load
from jax_unlearn.lab.modalities import modality_named
from jax_unlearn.lab.store import load_model

MINE = '''
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jax_unlearn as ju
from jax_unlearn.audit import FigureCard
from jax_unlearn.cards import Card, Job, WeightingCard
from jax_unlearn.data import Dataset, Examples, digits
from jax_unlearn.types import Weighting


# --- a method ------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Shove:
    """Options of the method.

    Attributes:
      push: how far the forget gradient pushes.
    """

    push: float = 0.5

    def __post_init__(self):
        if not self.push > 0:
            raise ju.InputError(f"push={self.push} must be positive; try 0.5")


def build(lab, options):
    unlearner = ju.methods.assemble(
        lab.model,
        lab.optimizer(),
        forget=lab.objective("ascend"),
        retain=lab.objective("remember"),
        weighting=lab.weighting(),
        harmonizer=ju.harmonize.add(forget=options.push),
    )
    return Job(unlearner, lab.schedule("zipped"))


METHOD = Card(
    name="shove",
    label="Shove",
    title="Shove the forget samples away",
    build=build,
    reads=("forget", "retain"),
    cost="E·(R + F)",
    options=Shove,
    roles=("ascend", "remember"),
    search={"learning_rate": (0.01, 0.1), "push": (0.1,)},
)


# --- a weighting ---------------------------------------------------------------------
def halves(lab, options):
    def update(sample, state, *, reference=None):
        return jnp.where(sample.losses < jnp.median(sample.losses), 2.0, 0.0), state

    return Weighting(lambda: (), update)


WEIGHTING = WeightingCard(
    name="halves",
    label="halves",
    title="the half of smaller losses alone",
    build=halves,
)

# --- a figure ------------------------------------------------------------------------
FIGURE = FigureCard(
    key="sure",
    label="sure forget samples %",
    digits=1,
    kind="level",
    meaning="forget samples with a confidence over 0.5",
    group="own",
    alone=lambda models, seed: 100 * (models.confidence["forget"] > 0.5).mean(axis=1),
)


# --- a data set ----------------------------------------------------------------------
def three_digits():
    full = digits()

    def some(part, count):
        keep = np.flatnonzero(part.labels < 3)[:count]
        return Examples(part.inputs[keep], part.labels[keep])

    train, test = some(full.train, 90), some(full.test, 40)
    return Dataset("three", train, test, 3, ("a", "b", "c"))
'''

MODALITY = '''
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jax_unlearn as ju
from jax_unlearn.lab.modality import Modality
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import Model

PATH = __file__ + ":MODALITY"


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a regression of the label on the pixels is trained.

    Attributes:
      epochs: passes over the samples.
      batch_size: samples a step.
      learning_rate: of SGD.
    """

    epochs: int = 2
    batch_size: int = 30
    learning_rate: float = 0.1
    modality = PATH  # where this kind of model is defined


@dataclasses.dataclass(frozen=True)
class Regression:
    """A linear regression on pixels."""

    input_shape: tuple[int, ...]
    num_classes: int

    @classmethod
    def from_record(cls, record):
        return cls(tuple(record["input_shape"]), record["num_classes"])


class Built(NamedTuple):
    model: Model
    network: Regression


def build(network):
    pixels = int(np.prod(network.input_shape))

    def init(key, inputs):
        return {"w": jnp.zeros((pixels, 1), jnp.float32)}, ()

    def apply(params, state, inputs, *, train, key=None):
        flat = jnp.asarray(inputs, jnp.float32).reshape(len(inputs), -1) / 255
        return flat @ params["w"], state

    return Built(Model(init, apply), network)


def squares(model, sign=1.0):
    def loss(outputs, batch, key, data):
        wrong = jnp.square(outputs[:, 0] - batch.labels.astype(jnp.float32))
        return sign * wrong, wrong

    return Objective(model, loss)


def objective(lab, role, **options):
    return squares(lab.model, -1.0 if role == "ascend" else 1.0)


class Table:
    def __init__(self, subject):
        self.subject, self.rows = subject, {}

    def start(self, request, target, seed):
        self.request = request

    def add(self, key, label, trained, setting=None, notes=None, *, keep=None):
        train = self.subject.dataset.train
        inputs = train.inputs[self.request.forget]
        at = trained.params, trained.model_state
        said = ju.predict(self.subject.model, *at, inputs)[:, 0]
        error = float(np.square(said - train.labels[self.request.forget]).mean())
        self.rows.setdefault(key, []).append(error)

    def summary(self):
        return {"kind": "regression", "rows": self.rows}


MODALITY = Modality(
    name="regression",
    key="regression",
    training=Fit,
    network=Regression,
    describe=lambda training, dataset: Regression(
        tuple(int(n) for n in dataset.train.inputs.shape[1:]), dataset.num_classes
    ),
    build=build,
    optimize=lambda built, training, steps: ju.methods.assemble(
        built.model, optax.sgd(training.learning_rate), retain=squares(built.model)
    ),
    steps=lambda training, samples: (
        training.epochs * -(-samples // training.batch_size)
    ),
    roles=frozenset(("remember", "ascend")),
    objective=objective,
    membership=None,
    loss_table=None,
    table=lambda subject, judging, folder, progress: Table(subject),
    observe=lambda subject, at, examples: (
        ju.predict(subject.model, *at, examples.inputs)
    ),
    targets=lambda examples: examples.labels,
    example=lambda network: jax.ShapeDtypeStruct((2, *network.input_shape), np.uint8),
    defaults={"schedule": "zipped"},
)
'''


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Path:
    """Write the file that a user would; return its path."""
    path = tmp_path_factory.mktemp("mine") / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture(scope="module")
def data(mine) -> Dataset:
    return load(f"{mine}:three_digits")()


def plan(mine, **methods) -> Plan:
    quick = {"epochs": 1, "batch_size": 60, "learning_rate": 0.1}
    own = Unlearning.of(
        method=f"{mine}:METHOD", weighting=f"{mine}:WEIGHTING", push=0.3, **quick
    )
    training = Training(network="linear", epochs=1, batch_size=60)
    methods = {"Shove": own, **methods}
    return small_plan(title="Mine", training=training, methods=methods)


def test_a_method_a_weighting_and_a_data_set_of_a_file_on_the_command_line(
    mine, tmp_path, capsys
):
    source = ["--dataset", f"{mine}:three_digits"]
    network = ["--network", "linear", "--epochs", "1", "--batch-size", "60"]
    main(["train", *source, *network, "--out", str(tmp_path / "original")])
    asked = ["unlearn", f"{mine}:METHOD", *source, "--forget", "b", "--epochs", "1"]
    asked += ["--checkpoint", str(tmp_path / "original"), "--batch-size", "60"]
    asked += ["--weighting", f"{mine}:WEIGHTING", "--push", "0.2"]
    main([*asked, "--out", str(tmp_path / "shoved")])
    record = read_record(tmp_path / "shoved")["unlearning"]
    assert record["method"] == f"{mine}:METHOD"
    assert record["options"] == {"push": 0.2}
    before, after = (load_model(tmp_path / n).trained for n in ("original", "shoved"))
    pairs = zip(*(jax.tree.leaves(one.params) for one in (before, after)), strict=True)
    assert any(not np.allclose(*pair) for pair in pairs)
    with pytest.raises(SystemExit):
        main([*asked[:-1], "-1", "--out", str(tmp_path / "x")])
    assert "push=-1.0 must be positive; try 0.5" in capsys.readouterr().err


def test_they_run_through_experiment_report_and_ensemble(mine, data, tmp_path, capsys):
    from jax_unlearn import report
    from jax_unlearn.cli.console import open_console
    from jax_unlearn.cli.ensemble import audited

    asked = plan(mine)
    results = experiment(asked, data, tmp_path / "run")
    assert results["rows"]["shove"]["setting"]["options"] == {"push": 0.3}
    page = report.write(results, tmp_path / "report.html").read_text()
    assert "Shove" in page
    assert "push 0.3" in page
    again = experiment(asked, data, tmp_path / "run", resume=True)  # nothing is new
    assert again["rows"]["shove"]["metrics"] == results["rows"]["shove"]["metrics"]
    audited(
        open_console(), asked, data, tmp_path / "many", methods=("Shove",), models=2
    )
    many = json.loads((tmp_path / "many" / "results.json").read_text())
    assert "Shove" in many["audit"]["figures"]

    out = tmp_path / "audit.json"
    arrays = ["--arrays", str(tmp_path / "many" / "outputs.npz"), "--out", str(out)]
    main(["audit", *arrays, "--metrics", f"{mine}:FIGURE", "--resamples", "2"])
    assert "sure forget samples %" in " ".join(capsys.readouterr().out.split())
    figures = json.loads(out.read_text())["audit"]["figures"]
    assert set(figures["Shove"]) == {"sure"}
    page = report.write(report.load_results(out), tmp_path / "audit.html")
    assert "sure forget samples" in page.read_text()


def test_a_search_tries_a_method_of_a_file(mine, data, tmp_path):
    from jax_unlearn.recipes.search import search

    card = load(f"{mine}:METHOD")
    grids = {"Shove": {"method": f"{mine}:METHOD", "epochs": 1, **card.search}}
    found = search(plan(mine), data, grids, lambda line: None)
    tried = [row["learning_rate"] for row in found["table"]["Shove"]]
    assert tried == [0.01, 0.1]
    assert Unlearning.of(**found["settings"]["Shove"]).options.push == 0.1


def test_a_card_is_given_to_the_same_functions_in_python(mine, data, tmp_path):
    card = load(f"{mine}:METHOD")
    own = Unlearning.of(method=card, epochs=1, batch_size=60, push=0.3)
    results = experiment(plan(mine, Own=own), data, tmp_path / "run")
    assert results["rows"]["own"]["setting"]["method"] == "shove"
    again = experiment(plan(mine, Own=own), data, tmp_path / "run", resume=True)
    assert again["rows"]["own"]["metrics"] == results["rows"]["own"]["metrics"]


def test_a_modality_of_a_file_trains_unlearns_and_compares(mine, data, tmp_path):
    path = tmp_path / "regression.py"
    path.write_text(MODALITY)
    name = f"{path}:MODALITY"
    kind = modality_named(name)
    source = ["--dataset", f"{mine}:three_digits"]
    main(["train", *source, "--modality", name, "--out", str(tmp_path / "original")])
    told = ["--checkpoint", str(tmp_path / "original"), "--forget", "b"]
    more = ["--epochs", "1", "--out", str(tmp_path / "forgot")]
    main(["unlearn", "neggrad_plus", *source, *told, *more])
    stored = load_model(tmp_path / "forgot")
    assert stored.modality.name == name
    ascent = {"method": "gradient_ascent", "epochs": 1, "learning_rate": 0.1}
    methods = {"GA": Unlearning.of(modality=name, **ascent)}
    asked = small_plan(title="Regression", training=kind.training(), methods=methods)
    rows = experiment(asked, data, tmp_path / "run")["rows"]
    assert set(rows) == {"retrain", "null", "original", "ga"}
    assert np.mean(rows["ga"]) > np.mean(rows["original"])


def test_a_record_does_not_run_the_file_it_names(tmp_path):
    theirs = tmp_path / "theirs.py"
    theirs.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nMINE = 1\n")
    record = {"method": f"{theirs}:MINE", "options": {}}
    with pytest.raises(InputError, match="named by a record, not by you"):
        Unlearning.read(record)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="is a int, no"):
        Unlearning.of(method=f"{theirs}:MINE")  # the user names it
    assert (tmp_path / "ran").exists()
