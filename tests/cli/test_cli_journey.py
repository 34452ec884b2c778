"""A company with a list and a network of PyTorch's names, by the commands, on files."""

import json

import numpy as np
import pytest
import safetensors.numpy
from small import run, small_data

from jax_unlearn.lab.store import load_model
from jax_unlearn.zoo.weights import to_torch

KIND = ["--network", "resnet8", "--width", "4"]
LENGTH = ["--epochs", "2", "--batch-size", "32"]


@pytest.fixture
def company(tmp_path, monkeypatch):
    """Return a folder with what the company has, which the commands run in."""
    folder = tmp_path / "company"
    folder.mkdir()
    monkeypatch.chdir(folder)
    users = np.array([f"{n // 4:03d}" for n in range(100)])
    small_data(folder / "data.npz", user_id_train=users)
    (folder / "deletions.csv").write_text(
        "date,user_id,reason\n2026-11-02,003,asked\n2026-11-03,017,asked\n"
    )
    run("train", "--data", "data.npz", *KIND, *LENGTH, "--out", "elsewhere")
    trained = load_model(folder / "elsewhere")
    names = to_torch(trained.trained.params, trained.trained.model_state)
    assert "layer1.0.conv1.weight" in names
    safetensors.numpy.save_file(names, folder / "resnet.safetensors")
    (folder / "trained_on.txt").write_text("\n".join(map(str, trained.ids)))
    mean, std = trained.built.network.mean, trained.built.network.std
    return folder, ["--mean", *mean, "--std", *std], users, trained


def test_from_a_deletion_list_to_a_model_to_serve(company, capsys):
    folder, moments, users, trained = company
    given = ["--data", "data.npz", *KIND, *LENGTH, *moments]
    params = ["--params", "resnet.safetensors", "--trained-on", "trained_on.txt"]
    run("import", *given, *params, "--out", "original")

    asked = ["--data", "data.npz", "--key-column", "user_id", "--seed", "3"]
    served = ["--checkpoint", "original", "--request", "deletions.csv"]
    run("forget", *asked, *served, "--out", "served")
    told = json.loads((folder / "served" / "record.json").read_text())
    assert told["request"]["keys"] == ["003", "017"]
    assert told["chosen"]["method"] == "partial_reset"  # of the stated training
    assert capsys.readouterr().out.rstrip().endswith(told["conclusion"])
    gone = np.flatnonzero(np.isin(users, ["003", "017"]))
    left = load_model(folder / "served" / "unlearned").ids
    np.testing.assert_array_equal(left, np.setdiff1d(trained.ids, gone))

    beside = ["--original", "original", "--unlearned", "served/unlearned"]
    again = [*asked, *beside, "--forget", "deletions.csv"]
    run("audit", *again, "--out", "again.json")
    found = json.loads((folder / "again.json").read_text())
    first = json.loads((folder / "served" / "audit.json").read_text())
    assert found["rows"] == first["rows"]
    assert found["unseen"] == first["unseen"]
    run("report", "--results", "again.json", "--out", "page.html")
    assert (
        "2 keys of column user_id, listed in deletions.csv"
        in (folder / "page.html").read_text()
    )


def test_a_model_trained_on_all_is_audited_beside_test_samples(company, capsys):
    folder, moments, _, _ = company
    given = ["--data", "data.npz", *KIND, *LENGTH, *moments]
    run("import", *given, "--params", "resnet.safetensors", "--out", "original")
    words = ["--data", "data.npz", "--key-column", "user_id", "--out", "served"]
    words += ["--checkpoint", "original", "--request", "deletions.csv"]
    run("forget", *words, "--method", "finetune", "--epochs", "1")
    audit = json.loads((folder / "served" / "audit.json").read_text())
    assert audit["unseen"]["of"] == "test"
    told = json.loads((folder / "served" / "record.json").read_text())["conclusion"]
    assert "test samples that it never saw" in told
    page = (folder / "served" / "report.html").read_text()
    assert "test samples that it never saw" in page
