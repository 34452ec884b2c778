"""One command for the whole job, and the journey of a company with a list."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
from small import NETWORK, USERS, record, refused, run, small_data

from jax_unlearn.cli import commands
from jax_unlearn.cli import forget as forgetting
from jax_unlearn.data import digest, load_manifest
from jax_unlearn.drivers import signals
from jax_unlearn.lab.store import load_model

FORGET = [*range(15, 20), *range(35, 40)]  # of u3 and u7


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder, its data and the words of a job on them."""
    folder = tmp_path_factory.mktemp("forget")
    data = small_data(folder / "data.npz", user_id_train=USERS)
    (folder / "del.csv").write_text("user_id,asked\nu3,Monday\nu7,Tuesday\n")
    split = ["--ids", folder / "del.csv", "--key-column", "user_id"]
    run("split", "--data", data, *split, "--out", folder / "split.json")
    given = ["--data", data, "--split", folder / "split.json", *NETWORK]
    run("train", *given, "--out", folder / "original")
    words = ["--data", data, "--checkpoint", folder / "original"]
    words += ["--request", folder / "del.csv", "--key-column", "user_id"]
    return folder, words


def test_a_request_is_served_and_goes_on(made, tmp_path, capsys):
    folder, words = made
    out = tmp_path / "served"
    run("forget", *words, "--out", out)
    printed = capsys.readouterr().out
    files = {"unlearned", "audit.json", "report.html", "record.json"}
    assert {path.name for path in out.iterdir()} == files
    told = record(out)
    assert told["unlearning"]["method"] == "auto"
    assert told["chosen"]["method"] == "partial_reset"
    assert told["chosen"] == record(out / "unlearned")["chosen"]
    for line in told["chosen"]["why"]:
        assert f"auto: {line}" in printed
    assert told["request"]["keys"] == ["u3", "u7"]
    assert told["forgotten_sha256"] == digest(FORGET)
    assert told["conclusion"].startswith("The model is ")
    assert "With no Retrains this is no comparison" in told["conclusion"]
    assert printed.rstrip().endswith(told["conclusion"])
    assert "Without any Retrain" in (out / "report.html").read_text()
    served = load_model(out / "unlearned")
    assert (
        served.ids.tolist() == load_manifest(folder / "split.json")[0].retain.tolist()
    )

    # the same again makes nothing; more Retrains are added to what is there
    assert "give --resume" in refused(capsys, ["forget", *words, "--out", out])
    before = (out / "unlearned" / "record.json").stat().st_mtime_ns
    run("forget", *words, "--out", out, "--resume")
    assert "is complete; nothing to resume" in capsys.readouterr().out
    run("forget", *words, "--out", out, "--resume", "--with-retrain", "3")
    assert (out / "unlearned" / "record.json").stat().st_mtime_ns == before
    told = record(out)
    assert "3 Retrains" in told["conclusion"]
    assert "No verdict" not in told["conclusion"]
    assert told["retrain_seeds"] == [1, 2, 3]
    for number in (1, 2, 3):
        retrained = load_model(out / f"retrained-{number}")
        assert retrained.ids.tolist() == served.ids.tolist()
        training = record(folder / "original")["training"]
        assert record(out / f"retrained-{number}")["training"] == training
    assert json.loads((out / "audit.json").read_text())["audit"]["retrained"] == 3

    # what was served is an original to the next request, and Retrains are taken back
    (tmp_path / "next.txt").write_text("u1\n")
    words = [*words[:2], "--checkpoint", out / "unlearned", *words[6:]]
    words += ["--request", tmp_path / "next.txt", "--out", tmp_path / "next"]
    run("forget", *words, "--budget", "0.5")
    assert record(tmp_path / "next")["unlearning"]["options"]["share"] == 0.5
    left = load_model(tmp_path / "next" / "unlearned").ids
    assert not np.isin(left, [*FORGET, *range(5, 10)]).any()


def test_a_folder_is_replaced_once_the_new_one_is_whole(made, tmp_path, capsys):
    folder, words = made
    words = [*words, "--out", tmp_path / "served"]
    run("forget", "finetune", *words, "--epochs", "1")
    before = record(tmp_path / "served")
    again = ["forget", "finetune", *words, "--overwrite"]
    assert "lower the learning rate" in refused(
        capsys, [*again, "--budget", "1", "--learning-rate", "1e30"]
    )
    assert record(tmp_path / "served") == before
    assert [path.name for path in tmp_path.iterdir()] == ["served"]
    run(*again, "--epochs", "2", "--with-retrain", "3")
    told = record(tmp_path / "served")
    assert told["unlearning"]["epochs"] == 2
    assert ".new" not in json.dumps(told)
    assert ".new" not in (tmp_path / "served" / "audit.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["served"]
    read = ["--retrained", tmp_path / "served" / "retrained-1"]
    assert "which is read" in refused(capsys, [*again, *read])
    other = [*again[:-3], "--out", folder / "original", "--overwrite"]
    assert "was not made by `forget`" in refused(capsys, other)


def test_a_killed_job_goes_on_bit_for_bit(made, tmp_path, monkeypatch):
    _, words = made
    words = [*words, "--method", "finetune", "--epochs", "2", "--save-every", "0"]
    run("forget", *words, "--out", tmp_path / "whole")
    stopping = forgetting.commands.reporting

    def stopped(*given):
        callback = stopping(*given)

        def at(step, state, info):
            if step == 3:
                raise signals.Stopped(15)
            return callback(step, state, info)

        return at

    monkeypatch.setattr(commands, "reporting", stopped)
    with pytest.raises(SystemExit):
        run("forget", *words, "--out", tmp_path / "killed")
    assert not (tmp_path / "killed" / "unlearned").exists()
    monkeypatch.undo()
    run("forget", *words, "--out", tmp_path / "killed", "--resume")
    first, second = (
        load_model(tmp_path / name / "unlearned").trained
        for name in ("whole", "killed")
    )
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_retrains_may_be_given(made, tmp_path):
    folder, words = made
    again = ["--retrain", "--original", folder / "original", *words[4:]]
    again = ["--forget" if w == "--request" else w for w in again]
    paths = [tmp_path / "again-1", tmp_path / "again-2"]
    for seed, path in enumerate(paths, 1):
        run("train", *words[:2], *again, "--seed", seed, "--out", path)
    given = ["--method", "finetune", "--epochs", "1", "--retrained", *paths]
    run("forget", *words, *given, "--out", tmp_path / "served")
    rows = json.loads((tmp_path / "served" / "audit.json").read_text())["rows"]
    assert list(rows) == ["retrain", "null", "original", "0-unlearned"]
    assert "With 2 Retrains" in record(tmp_path / "served")["conclusion"]


def test_a_class_is_a_request_too(made, tmp_path):
    words = made[1]
    words = [*words[:4], "--request", "2", "--out", tmp_path / "served"]
    run("forget", "finetune", *words, "--epochs", "1")
    told = record(tmp_path / "served")
    assert told["unlearning"]["method"] == "finetune"
    assert "of the samples of the forgotten classes right" in told["conclusion"]
    assert "request" not in told


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--with-retrain", "-1"], "--with-retrain=-1"),
        (["--budget", "0"], "budget=0.0"),
        (["--budget", "0.5", "--method", "ssd"], "ssd has no length"),
        (["--budget", "0.001", "--method", "finetune"], "give --budget 0.25 or more"),
        (["--retrained", "ORIGINAL"], "is no retraining"),
        (["--request", "nobody.txt"], "cannot read"),
        (
            ["--method", "finetune", "--budget", "1", "--learning-rate", "1e30"],
            "lower the learning rate",
        ),
        (["--method", "scrubb"], "did you mean 'scrub'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_jobs_that_are_refused_leave_nothing(made, tmp_path, capsys, options, line):
    folder, words = made
    options = [folder / "original" if w == "ORIGINAL" else w for w in options]
    said = refused(capsys, ["forget", *words, *options, "--out", tmp_path / "served"])
    assert line in said
    assert list(tmp_path.iterdir()) == []


def test_an_original_without_a_record_of_its_training(made, tmp_path, capsys):
    """Models from elsewhere take another method, and no Retrain is made of them."""
    folder, words = made
    path = tmp_path / "imported"
    shutil.copytree(folder / "original", path)
    known = record(path)
    for name in ("training", "seed"):
        del known[name]
    text = json.dumps(known, indent=1, sort_keys=True)
    (path / "record.json").write_text(text)
    digests = json.loads((path / "digests.json").read_text())
    digests["record.json"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "digests.json").write_text(json.dumps(digests))
    words = [path if w == folder / "original" else w for w in words]
    out = ["--out", tmp_path / "served"]
    line = refused(capsys, ["forget", *words, *out, "--with-retrain", "1"])
    assert "does not say how it was trained" in line
    line = refused(capsys, ["forget", *words, *out, "--budget", ".5"])
    assert "leave --budget out" in line
    run("forget", *words, *out, "--epochs", "2")
    told = record(tmp_path / "served")
    assert told["chosen"]["method"] == "scrub"
    assert "no record says how the original was trained" in told["chosen"]["why"][0]
    assert "--with-retrain" not in told["conclusion"]  # which is refused
    assert "--budget" not in told["conclusion"]
    assert "`train --retrain`" in told["conclusion"]
