"""What all commands share: JSON, scores at the end, logs of steps, replacing."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small import NETWORK, refused, unlearn

from jax_unlearn.cli import main
from jax_unlearn.data import from_npz
from jax_unlearn.drivers.checkpoint import read_record
from jax_unlearn.lab import store
from jax_unlearn.lab.catalog import METHODS
from jax_unlearn.lab.job import probabilities
from jax_unlearn.lab.store import load_model


def train(job, out, *options):
    words = ["train", "--data", str(job.data), "--split", str(job.split), *NETWORK]
    return [*words, "--out", str(out), *options]


@pytest.fixture
def spoken(capsys):
    """Return the one object that a command writes, and what people are told."""

    def run(*words):
        capsys.readouterr()
        main([*map(str, words), "--json"])
        said = capsys.readouterr()
        return json.loads(said.out), said.err

    return run


def accuracy(model, data, part, ids=slice(None)):
    """Return the accuracy in percent, and the mean loss, in NumPy alone."""
    subject = model.subject(data)
    probs = probabilities(subject.model, model.trained, part.inputs[ids])
    labels = part.labels[ids]
    right = np.mean(probs.argmax(axis=1) == labels)
    return 100 * right, -np.log(probs[np.arange(len(labels)), labels]).mean()


def test_train_and_unlearn_say_accuracy_and_loss(job, tmp_path, spoken):
    data = from_npz(job.data)
    found, said = spoken(*train(job, tmp_path / "m"))
    model = load_model(tmp_path / "m", data)
    assert found["command"] == "train"
    assert found["options"]["network"] == "mlp"
    assert found["samples"] == len(model.ids)
    for part, place in (("train", (data.train, model.ids)), ("test", (data.test,))):
        told = found["scores"][part]
        values = told["accuracy"], told["loss"]
        np.testing.assert_allclose(values, accuracy(model, data, *place), rtol=1e-5)
    row = next(line for line in said.splitlines() if line.startswith("accuracy %"))
    assert row.split()[2] == f"{found['scores']['train']['accuracy']:.1f}"
    found, said = spoken(*unlearn(job, tmp_path / "u", "--learning-rate", "0.3"))
    forget = json.loads(job.split.read_text())["forget"]
    for name, path in (("before", job.original), ("after", tmp_path / "u")):
        told = found["scores"][name]["forget"]
        want = accuracy(load_model(path, data), data, data.train, np.array(forget))
        np.testing.assert_allclose((told["accuracy"], told["loss"]), want, rtol=1e-5)
    assert found["scores"]["before"] != found["scores"]["after"]
    assert "before → after" in said
    assert found["forgotten"] == len(forget)


def test_every_command_writes_one_object(job, tmp_path, spoken, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, said = spoken("split", "--data", job.data, "--fraction", "0.2")
    forget = json.loads(Path("split.json").read_text())["forget"]
    assert found["samples"]["forget"] == len(forget)
    assert "wrote split.json" in said
    models = ["--original", job.original, "--unlearned", job.unlearned]
    known = ["--forget", job.split, "--retrained", job.retrained, "--null", job.null]
    found, _ = spoken("audit", "--data", job.data, *models, *known)
    rows = json.loads((tmp_path / "audit.json").read_text())["rows"]
    assert found["rows"] == rows
    assert found["out"] == "audit.json"
    assert spoken("report")[0]["out"] == "report.html"
    assert set(spoken("methods")[0]["methods"]) == set(METHODS)
    names = [one["name"] for one in spoken("recipe", "--list")[0]["recipes"]]
    assert "demo-digits" in names
    words = ["--data", job.data, "--checkpoint", job.original, "--out", "chain"]
    trained = load_model(job.original).ids.tolist()
    for name, own in (("a.json", trained[:3]), ("b.json", trained[3:5])):
        (tmp_path / name).write_text(json.dumps(own))
    found, _ = spoken(
        "chain", *words, "--epochs", "1", "--requests", "a.json", "b.json"
    )
    assert [entry["forgotten"] for entry in found["requests"]] == [3, 2]


def test_what_is_refused_writes_no_object(job, tmp_path, capsys):
    line = refused(capsys, [*unlearn(job, tmp_path / "u", "--keep", "2"), "--json"])
    assert "must lie in" in line
    assert capsys.readouterr().out == ""


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_log_has_a_row_a_step(job, tmp_path, capsys):
    main(train(job, tmp_path / "m", "--log", "csv"))
    rows = rows_of(tmp_path / "m.log.csv")
    trained = len(load_model(tmp_path / "m").ids)
    assert [int(row["step"]) for row in rows] == [*range(1, 2 * -(-trained // 32) + 1)]
    losses = [float(row["loss"]) for row in rows]
    # each batch before its step: near log 3 at the start, better in the second epoch
    assert 0.9 < losses[0] < 1.5
    assert np.mean(losses[3:5]) < np.mean(losses[:2])
    words = unlearn(job, tmp_path / "u", "salun", "--weighting", "loreun")
    main([*words, "--log=csv", "--schedule", "zipped", "--batch-size", "8"])
    rows = rows_of(tmp_path / "u.log.csv")
    assert {"forget_loss", "retain_loss", "weights_mean", "conflict"} <= set(rows[0])
    assert np.allclose([float(row["weights_mean"]) for row in rows], 1, atol=1e-5)
    assert all(float(row["forget_loss"]) > 0 for row in rows)
    # one that stands there is another run's
    shutil.rmtree(tmp_path / "u")
    again = [*words, "--log", "csv"]
    line = refused(capsys, again)
    assert "u.log.csv exists" in line
    assert not (tmp_path / "u").exists()
    main([*again, "--overwrite"])
    assert rows_of(tmp_path / "u.log.csv") != rows
    line = refused(capsys, [*unlearn(job, tmp_path / "s", "ssd"), "--log", "csv"])
    assert "ssd takes no steps to log" in line
    line = refused(capsys, unlearn(job, tmp_path / "s", "--log", "wandb"))
    assert "log='wandb': choose 'csv' or 'tensorboard'" in line


def test_a_log_for_tensorboard(job, tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboardX")
    main(train(job, tmp_path / "m", "--log", "tensorboard"))
    (events,) = (tmp_path / "m.logs").iterdir()
    assert b"update_norm" in events.read_bytes()
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    line = refused(capsys, train(job, tmp_path / "n", "--log", "tensorboard"))
    assert "pip install tensorboardX" in line
    assert not (tmp_path / "n").exists()


def test_a_checkpoint_is_replaced_once_the_new_one_is_whole(job, tmp_path, capsys):
    out = tmp_path / "m"
    main(train(job, out))
    before = read_record(out)
    assert "--overwrite" in refused(capsys, train(job, out, "--seed", "4"))
    # a training that fails leaves the old one
    failed = train(job, out, "--overwrite", "--learning-rate", "1e30", "--seed", "4")
    refused(capsys, failed)
    assert read_record(out) == before
    main(train(job, out, "--overwrite", "--seed", "4"))
    assert read_record(out)["seed"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    # one that was stopped is gone on with, in the place of the old
    main(train(job, out, "--overwrite", "--resume", "--seed", "5"))
    assert read_record(out)["seed"] == 5
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine")
    line = refused(capsys, train(job, foreign, "--overwrite"))
    assert "is no checkpoint" in line
    assert (foreign / "mine.txt").read_text() == "mine"


def test_what_an_earlier_try_left_is_no_part_of_a_new_one(job, tmp_path):
    out = tmp_path / "m"
    main(train(job, out))
    left = store.partial_of(out.with_name("m.new"))
    left.mkdir()
    (left / "rubbish").write_text("")
    main(train(job, out, "--overwrite", "--seed", "6"))
    assert read_record(out)["seed"] == 6
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
