"""What is kept is read, refused, gone on with or made; models come back unchanged."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import three_digits, trees_close

from jax_unlearn.data import Examples, digits, fingerprint
from jax_unlearn.drivers import checkpoint
from jax_unlearn.drivers.series import locked
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Training, Unlearning, store
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities.classification.networks import describe
from jax_unlearn.lab.modalities.diffusion.settings import DiffusionTraining
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.store import (
    identity,
    kept,
    load_model,
    origin_of,
    partial_of,
    same,
    save_model,
)
from jax_unlearn.lab.subject import subject_of

TOLD = {"seed": 0, "unlearning": Unlearning.of(method="ssd").record(), "ids": (1, 2)}


class Shelf:
    """What `kept` is given: a file of JSON, made by counting to three."""

    def __init__(self, path: Path):
        self.path, self.made, self.begun = path, 0, []

    def __call__(self, told=TOLD, *, stop=None, path=True, **options):
        def make(series):
            self.made += 1
            start = None if series is None else series.latest(jnp.int32(0))
            self.begun.append(0 if start is None else int(start))
            for step in range(self.begun[-1] + 1, 4):
                if series is not None:
                    series.callback(step, jnp.int32(step))
                if step == stop:
                    raise KeyboardInterrupt
            return "three"

        def write(path, made):
            path.write_text(json.dumps({**told, "notes": [made]}))

        def read(path):
            record = json.loads(path.read_text())
            return record, record["notes"][0]

        where = self.path if path else None
        return kept(where, told, make, read=read, write=write, **options)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "runs" / "model")


def test_what_is_kept_nowhere_is_made_each_time(shelf):
    assert [shelf(path=False), shelf(path=False)] == ["three"] * 2
    assert shelf.made == 2
    assert not shelf.path.parent.exists()


def test_what_the_same_record_made_is_read(shelf):
    assert shelf() == "three"
    assert shelf.path.exists()
    assert list(shelf.path.parent.iterdir()) == [shelf.path]  # nothing unfinished
    assert shelf() == "three"
    assert shelf({**TOLD, "ids": [1, 2]}) == "three"  # JSON has lists
    assert shelf.made == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"unlearning": Unlearning.of(method="ssd", selection=3.0).record()},
        {"more": 1},
    ],
    ids=str,
)
def test_what_another_record_made_is_refused(shelf, change):
    shelf()
    before = shelf.path.read_text()
    with pytest.raises(InputError, match="model was made with another setting, seed"):
        shelf({**TOLD, **change})
    assert shelf.made == 1
    assert shelf.path.read_text() == before


def test_what_was_being_made_is_gone_on_with(shelf):
    with pytest.raises(KeyboardInterrupt):
        shelf(stop=2, seconds=0)
    assert partial_of(shelf.path).exists()
    assert not shelf.path.exists()
    assert shelf(seconds=0) == "three"
    assert shelf.begun == [0, 2]
    assert list(shelf.path.parent.iterdir()) == [shelf.path]


def test_what_another_record_was_making_is_refused(shelf):
    with pytest.raises(KeyboardInterrupt):
        shelf(stop=2, seconds=0, run={"data": "these"})
    for told, run in (({**TOLD, "seed": 1}, "these"), (TOLD, "others")):
        with pytest.raises(InputError, match="another"):
            shelf(told, seconds=0, run={"data": run})
    with pytest.raises(InputError, match="interrupted run; give --resume"):
        shelf(resume=False, run={"data": "these"})
    assert not shelf.path.exists()
    assert shelf(run={"data": "these"}) == "three"
    assert shelf.begun[-1] == 2


def test_an_interruption_before_the_first_state_leaves_nothing(shelf):
    with pytest.raises(KeyboardInterrupt):
        shelf(stop=1, seconds=3600)
    assert list(shelf.path.parent.iterdir()) == []


def test_what_another_process_is_making_is_refused(shelf):
    with (
        locked(partial_of(shelf.path)),
        pytest.raises(InputError, match="in use by another run"),
    ):
        shelf()
    assert shelf.made == 0


def test_what_another_process_has_just_made_is_read(shelf, monkeypatch):
    hold = store.locked

    def late(folder):
        shelf.path.write_text(json.dumps({**TOLD, "notes": ["theirs"]}))
        return hold(folder)

    shelf.path.parent.mkdir()
    monkeypatch.setattr(store, "locked", late)
    assert shelf() == "theirs"
    assert shelf.made == 0
    assert not partial_of(shelf.path).exists()


def test_what_a_record_lacks_is_at_its_default():
    told = {"unlearning": Unlearning.of(method="scrub", clip=1.0).record()}
    bare = {"method": "scrub", "clip": 1.0}
    assert same({"unlearning": bare, "seed": 3}, told)
    assert same({"unlearning": {**bare, "options": {"rewind": False}}}, told)
    assert not same({"unlearning": {**bare, "options": {"forget_epochs": 3}}}, told)
    assert not same({"unlearning": {**bare, "speed": 3}}, told)
    assert not same({}, told)
    training = {"training": vars(Training(network="mlp"))}
    assert same({"training": {"network": "mlp"}}, training)
    assert not same({"training": {"network": "mlp", "epochs": 3}}, training)
    assert not same({"training": {"network": "mlp", "heads": 3}}, training)


TRAININGS = {
    "classification": Training(network="resnet8", width=4),
    "diffusion": DiffusionTraining(widths=(4,), attention=(0,), timesteps=12),
}


@pytest.fixture(scope="module", params=TRAININGS)
def model(request, tmp_path_factory):
    """Return a kind of model, a subject, its arrays, and where they are saved."""
    training = TRAININGS[request.param]
    subject = subject_of(training, three_digits(60, 20))
    two = jax.tree.map(lambda leaf: leaf[:2], subject.examples.inputs)
    params, state = jax.jit(subject.model.init)(jax.random.key(1), two)
    trained = Trained(params, state, {"run": 1.5})
    path = tmp_path_factory.mktemp("store") / request.param
    record = {"training": vars(training), "seed": 4, "notes": {"a": 1}}
    parts = {"ids": np.arange(50), "unseen": np.arange(50, 60)}
    save_model(path, trained, subject, **parts, record=record)
    return request.param, subject, trained, path


def test_a_model_comes_back_as_it_was(model):
    kind, subject, trained, path = model
    stored = load_model(path, subject.dataset, modality=kind)
    assert stored.modality is subject.modality
    assert stored.built.network == subject.network
    trees_close(stored.trained.params, trained.params, rtol=0, atol=0)
    trees_close(stored.trained.model_state, trained.model_state, rtol=0, atol=0)
    assert stored.trained.seconds == {"run": 1.5}
    np.testing.assert_array_equal(stored.ids, np.arange(50))
    np.testing.assert_array_equal(stored.unseen, np.arange(50, 60))
    assert stored.record["notes"] == {"a": 1}
    told = {"name": "three", "train": 60, "classes": ["a", "b", "c"]}
    told["sha256"] = fingerprint(subject.dataset, test=False)
    assert stored.record["dataset"] == told
    assert origin_of(stored) == Origin(TRAININGS[kind], 4, classes=3)
    again = stored.subject(subject.dataset)
    two = jax.tree.map(lambda leaf: leaf[:2], again.examples.inputs)
    if kind == "diffusion":  # a network of noised images, times and conditions
        two = two, jnp.ones(2, jnp.int32), again.examples.labels[:2]

    def outputs(model, at):
        return jax.jit(model.apply, static_argnames="train")(*at[:2], two, train=False)

    found, _ = outputs(again.model, stored.trained)
    expected, _ = outputs(subject.model, trained)
    np.testing.assert_array_equal(found, expected)


def test_a_model_of_another_kind_or_other_data_is_refused(model):
    kind, subject, _, path = model
    other = next(name for name in TRAININGS if name != kind)
    with pytest.raises(InputError, match=f"holds a {kind} model, not a {other} one"):
        load_model(path, modality=other)
    dataset = subject.dataset
    images = dataset._replace(
        train=Examples(dataset.train.inputs[:, :4], dataset.train.labels)
    )
    fewer = dataset._replace(train=Examples(*(leaf[:50] for leaf in dataset.train)))
    for data, words in (
        (images, r"reads images of shape \(8, 8, 1\), three has \(4, 8, 1\)"),
        (dataset._replace(num_classes=4), "knows 3 classes, three has 4"),
        (fewer, "a data set of 60 training samples, three has 50"),
    ):
        with pytest.raises(InputError, match=words):
            load_model(path, data)


def test_records_that_do_not_say_how_a_model_was_trained(model):
    stored = load_model(model[3])
    for record in ({}, {"seed": 1}, {"training": {"speed": 1}, "seed": 1}):
        assert origin_of(stored._replace(record=record)) is None


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    path = tmp_path / "state"
    checkpoint.save(path, {"params": jnp.zeros(2)}, {"seed": 0})
    with pytest.raises(InputError, match=r"no model .*\(no 'network' or 'generator'"):
        load_model(path)
    with pytest.raises(InputError, match="does not exist|no checkpoint"):
        load_model(tmp_path / "nothing")


def test_what_a_run_goes_on_with_is_of_its_own_samples(model):
    _, subject, _, _ = model
    ids, unseen = np.arange(50), np.arange(50, 60)
    own = identity(subject, ids, unseen)
    assert own == identity(subject, ids.copy(), unseen)
    labels = subject.dataset.train.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    train = subject.dataset.train._replace(labels=labels)
    others = subject._replace(dataset=subject.dataset._replace(train=train))
    for told in (
        identity(subject, ids[1:], unseen),
        identity(subject, ids, unseen[1:]),
        identity(others, ids, unseen),
    ):
        assert sum(told[name] != own[name] for name in own) == 1


def test_networks_of_earlier_versions_are_the_same():
    """What a description lacks that was not there yet has its default."""
    network = dataclasses.asdict(describe(Training(network="mlp"), digits()))
    earlier = {k: v for k, v in network.items() if k not in ("black", "sha256")}
    told = {"network": network}
    assert same({"network": json.loads(json.dumps(earlier))}, told)
    assert not same({"network": {**earlier, "width": 3}}, told)
