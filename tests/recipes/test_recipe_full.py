"""The recipe for accelerators at the smallest size: its plan, its clock, its JSON."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jax_unlearn.data import digits
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Training, Unlearning
from jax_unlearn.recipes import __main__ as entry
from jax_unlearn.recipes import full, pages
from jax_unlearn.recipes.recipe import packaged

TOLD = packaged("grids/full.toml")
TINY = {"network": "linear", "epochs": 2, "batch_size": 32, "learning_rate": 0.1}


@pytest.fixture
def tiny(monkeypatch):
    """Make networks linear, and leave few methods."""
    told = copy.deepcopy(TOLD)
    size = {"unseen": 60, "steps": 1, "threads": 1, "models": 4, "rivals": 1}
    told["sizes"]["full-cifar10-small"] = size | dict.fromkeys(
        ("large", "deep", "little"), TINY
    )
    for part in told["parts"].values():
        part["given"] = {"RL": {"method": "random_label", "epochs": 1}}
        if "searched" in part:
            part["searched"] = ("FT",)
        if "factors" in part:
            part["factors"] = (3.0,)
    monkeypatch.setattr(full, "packaged", lambda path: told)
    monkeypatch.setattr(full, "CHUNK", 2)
    small = full.FULL_CIFAR10_SMALL.data._replace(train=0)
    monkeypatch.setitem(full.FULL_CIFAR10_SMALL.__dict__, "data", small)
    return told


@pytest.fixture
def halves(tmp_path):
    """Write digits in two files."""
    train, test = digits()[1:3]
    paths = []
    for number in range(2):
        own = slice(200 * number, 200 * (number + 1))
        path = tmp_path / f"half{number}.npz"
        np.savez(
            path,
            x_train=train.inputs[own],
            y_train=train.labels[own],
            x_test=test.inputs[:80],
            y_test=test.labels[:80],
        )
        paths.append(str(path))
    return paths


def run(tmp_path, files, *options):
    """Run the small recipe as a stranger does; return its results."""
    out = tmp_path / "run"
    given = ["full-cifar10-small", "--data", *files, "--out", str(out)]
    entry.main([*given, *options])
    return json.loads((out / "results.json").read_text())


def test_the_table_is_made_piece_by_piece_and_not_twice(
    tiny, halves, tmp_path, capsys, monkeypatch
):
    options = "--parts", "speed", "random10"
    # no time: training is timed, for the plan, and nothing else is done
    found = run(tmp_path, halves[:1], *options, "--minutes", "0")
    assert set(found) == {"speed", "clock"}
    assert set(found["speed"]["rows"]) == {"training, large"}
    assert all(row["reason"] for row in found["clock"])
    assert "left out" in capsys.readouterr().out
    # half of the data: the steps
    found = run(tmp_path, halves[:1], "--parts", "speed", "--minutes", "5")
    assert set(found["speed"]["rows"]) == {"training, large", "RL"}

    monkeypatch.setattr(full.Device, "speed", None)  # is not timed again
    found = run(tmp_path, halves, *options, "--minutes", "5")
    assert found["random10"]["dataset"]["train"] == 400
    assert found["random10"]["dataset"]["test"] == 80
    rows = found["random10"]["rows"]
    assert set(rows) == {"retrain", "null", "original", "ft", "rl"}
    for row in rows.values():
        assert len(row["avg_gap"]["per_seed"]) == 2
    assert not any(row["reason"] for row in found["clock"])
    assert "histograms" not in rows["ft"]
    assert rows["ft"]["setting"]["batch_size"] == 32
    said = capsys.readouterr().out
    assert "random10/0:" in said
    assert "random10/1/RL: " in said

    page = pages.page_of(full.FULL_CIFAR10_SMALL, found).text
    device = found["speed"]["environment"]["device"]
    assert f"on {device} (" in page
    gap = rows["rl"]["avg_gap"]
    assert f"| RL | {rows['rl']['metrics']['ua']['mean']:.1f}" in page
    assert f"{gap['mean']:.2f} ± {gap['std']:.2f}" in page

    monkeypatch.setattr("jax_unlearn.lab.device.execute", None)  # all are there
    again = run(tmp_path, halves, *options, "--minutes", "5")
    assert again["random10"]["rows"].keys() == rows.keys()
    for key, row in again["random10"]["rows"].items():
        assert row["metrics"] == rows[key]["metrics"]
    foreseen = [sum(r["foreseen"] for r in one["clock"]) for one in (again, found)]
    assert foreseen[0] < foreseen[1]


@pytest.mark.slow
def test_every_part_runs_and_goes_on(tiny, halves, tmp_path, capsys):
    found = run(tmp_path, halves, "--minutes", "20")
    assert "cifar100: left out, no file with 100 classes" in capsys.readouterr().out
    assert {"random10", "gamma-1", "models", "trials", "speed", "clock"} == set(found)
    assert [r for r in found["clock"] if r["reason"]] == []
    audit = found["models"]["audit"]
    assert audit["retrained"] == 4
    assert set(audit["figures"]) == {"doing nothing", "FT", "RL"}
    trials = found["trials"]["trials"]
    assert {row["seed"] for row in trials} == {100, 101}
    assert len(trials) == 8  # two seeds, two methods, two rates
    assert "many models" in pages.page_of(full.FULL_CIFAR10_SMALL, found).text
    again = run(tmp_path, halves, "--minutes", "20")
    assert again["trials"] == found["trials"]
    assert again["models"]["audit"] == audit


def test_the_rivals_of_a_file_stand_beside_the_steps(tiny, halves, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def rivals(training, steps):\n"
        "    rows = {'RL': {'mine': {'samples_per_second': 8.0}}}\n"
        "    return {'torch': '9', 'device': training.network, 'rows': rows}\n"
    )
    options = "--parts", "speed", "--rivals", f"{file}:rivals"
    found = run(tmp_path, halves, *options)
    assert found["speed"]["rivals"]["device"] == "linear"
    page = pages.page_of(full.FULL_CIFAR10_SMALL, found).text
    faster = found["speed"]["rows"]["RL"]["samples_per_second"] / 8
    assert f"| RL | mine | 8 | {faster:.2f} |" in page


def test_parts_and_files_that_do_not_fit_are_refused(tiny, halves, tmp_path):
    with pytest.raises(InputError, match="speeed"):
        run(tmp_path, halves, "--parts", "speeed")
    with pytest.raises(InputError, match="fulll"):
        entry.main(["fulll"])


def test_files_of_two_data_sets_are_for_this_recipe_alone(halves, tmp_path):
    path = tmp_path / "two.npz"
    with np.load(halves[0]) as found:
        np.savez(path, **{k: v % 2 if "y_" in k else v for k, v in found.items()})
    files = [*map(Path, halves), path]
    two, ten = full.FULL_CIFAR10.data.every(files, "full-cifar10")
    assert two.num_classes == 2
    assert len(ten.train.labels) == 400
    with pytest.raises(InputError, match="2 and 10 classes"):
        full.FULL_CIFAR10.data.load(files, "tables-cifar10")


def test_the_full_size_is_what_the_papers_have():
    size = TOLD["sizes"]["full-cifar10"]
    assert size["large"]["network"] == "resnet18"
    assert size["deep"]["network"] == "vgg16"
    assert 32 <= size["models"] <= 64
    assert list(TOLD["parts"]) == [
        *("speed", "random10", "speed-ltu", "gamma-1", "models", "cifar100", "trials")
    ]


def test_the_entry_needs_neither_tyro_nor_tensorflow_datasets():
    code = (
        "import sys\n"
        "for name in ('tyro', 'tensorflow_datasets', 'jinja2', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "import jax_unlearn.recipes.__main__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_setting_keeps_its_ratios_to_the_training():
    found = Unlearning.of(method="finetune", epochs=10, learning_rate=0.03)
    given = Training(epochs=20, batch_size=128), Training(epochs=30, batch_size=256)
    made = full.scaled(found, *given)
    assert made.epochs == 15
    assert made.batch_size == 2 * found.batch_size


def test_a_speed_is_told_in_words():
    row = {"samples_per_second": 41000.0, "share_of_peak": 0.4}
    assert full.rate(row) == "41,000 samples/s, 40.0% of the peak"


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    path = tmp_path / "odd.npz"
    np.savez(path, images=np.zeros(2))
    command = [sys.executable, "-m", "jax_unlearn.recipes", "full-cifar10-small"]
    command += ["--data", str(path), "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("jax_unlearn.recipes: path=")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
