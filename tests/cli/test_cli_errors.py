"""Bad input: one line naming value and remedy, status 2, nothing written."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from small import NETWORK, refused, small_data

import jax_unlearn as ju
from jax_unlearn.cli import main
from jax_unlearn.data import load_manifest
from jax_unlearn.lab.store import load_model


def unlearn(job, forget, out, *options):
    return [
        *("unlearn", "--data", job.data, "--checkpoint", job.original),
        *("--forget", forget, "--out", out, "--epochs", "1", *options),
    ]


def ids_file(tmp_path, ids):
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(ids))
    return path


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], "empty"),
        ([1.5], "1.5"),
        (["seven"], "seven"),
        ([True], "True"),
        ([-1], "-1"),
        ([100], "100"),
    ],
)
def test_ids_that_name_no_sample(job, tmp_path, capsys, ids, words):
    out = tmp_path / "out"
    line = refused(capsys, unlearn(job, ids_file(tmp_path, ids), out))
    assert words in line
    assert not out.exists()


def test_ids_repeated_held_out_or_all(job, tmp_path, capsys):
    original, out = load_model(job.original), tmp_path / "out"
    first, unseen = int(original.ids[0]), int(original.unseen[0])
    twice = ids_file(tmp_path, [first, first])
    assert "repeats" in refused(capsys, unlearn(job, twice, out))
    held_out = ids_file(tmp_path, [unseen])
    line = refused(capsys, unlearn(job, held_out, out))
    assert f"={unseen} " in line
    assert "not among" in line
    everything = ids_file(tmp_path, original.ids.tolist())
    assert "names all" in refused(capsys, unlearn(job, everything, out))
    assert not out.exists()


def test_ids_from_a_pickle_or_an_unknown_suffix(job, tmp_path, capsys):
    np.save(tmp_path / "ids.npy", np.array([{"a": 1}], dtype=object))
    line = refused(capsys, unlearn(job, tmp_path / "ids.npy", tmp_path / "out"))
    assert "ids.npy" in line
    assert ".txt" in refused(capsys, unlearn(job, "ids.txt", tmp_path / "out"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_train": np.linspace(0, 2, 100)}, "float"),
        ({"y_train": np.full(100, -1)}, "-1"),
        ({"y_train": np.zeros(99, np.int32)}, "99"),
        ({"x_train": np.full((100, 8, 8, 1), np.nan, np.float32)}, "nan"),
        ({"x_test": np.full((60, 8, 8, 1), np.inf, np.float32)}, "inf"),
        ({"x_train": np.array([{}] * 100, dtype=object)}, "x_train"),
    ],
    ids=["float labels", "labels out of range", "lengths", "nan", "inf", "pickle"],
)
def test_data_that_cannot_be_used(tmp_path, capsys, changes, words):
    data, out = small_data(tmp_path / "bad.npz", **changes), tmp_path / "split.json"
    line = refused(capsys, ["split", "--data", data, "--out", out])
    assert words in line.lower() or words in line
    assert not out.exists()


def test_a_forget_class_without_unseen_samples(job, tmp_path, capsys):
    labels = np.array([0] * 48 + [1] * 48 + [2] * 4, np.int32)
    data = small_data(tmp_path / "rare.npz", y_train=labels)
    source = ["--data", data]
    main(
        [str(a) for a in ["train", *source, *NETWORK, "--out", tmp_path / "model"]]
        + ["--unseen-fraction", "0.05"]
    )
    model = load_model(tmp_path / "model")
    assert not np.any(labels[model.unseen] == 2)
    ids = ids_file(tmp_path, [int(i) for i in model.ids if labels[i] == 2][:2])
    arguments = ["unlearn", *source, "--checkpoint", tmp_path / "model"]
    arguments += ["--forget", ids, "--out", tmp_path / "out", "--weighting", "falw"]
    assert "class 2" in refused(capsys, arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weighting", "loreun", "--temperature", "0"], "temperature=0"),
        (["--weighting", "loreun", "--temperature", "-1"], "temperature=-1"),
        (["--weighting", "falw", "--tau", "-0.5"], "tau=-0.5"),
        (["--keep", "0"], "keep=0"),
        (["--learning-rate", "0"], "--learning-rate=0"),
        (["--learning-rate", "nan"], "--learning-rate=nan"),
        (["--epochs", "0"], "epochs=0"),
        (["--method", "salum"], "did you mean 'salun'"),
        (["--weighting", "lorun"], "did you mean 'loreun'"),
        (["--method", "finetune", "--weighting", "loreun"], "finetune"),
        (["--harmonizer", "one_way"], "zipped"),
    ],
    ids=lambda v: "".join(v) if isinstance(v, list) else "",
)
def test_settings_out_of_range(job, tmp_path, capsys, options, words):
    line = refused(capsys, unlearn(job, job.split, tmp_path / "out", *options))
    assert words in line
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_parse(job, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["unlearn", "--epochs", "many"])
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert "did you mean 'split'" in refused(capsys, ["splt"])


def test_a_request_that_cannot_be_met(job, tmp_path, capsys):
    arguments = ["split", "--data", job.data, "--out", tmp_path / "split.json"]
    arguments += ["--kind", "long_tailed", "--fraction", "0.95", "--gamma", "2"]
    line = refused(capsys, arguments)
    assert "0.9" in line
    assert not (tmp_path / "split.json").exists()


@pytest.mark.parametrize("kind", ["random", "worst", "class"])
def test_an_imbalance_that_nothing_reads_is_refused(job, tmp_path, capsys, kind):
    arguments = ["split", "--data", job.data, "--out", tmp_path / "s.json"]
    line = refused(capsys, [*arguments, "--kind", kind, "--gamma", "2"])
    assert "--gamma=2 is the imbalance of" in line
    assert f"'{kind}'; give --kind long_tailed, or leave --gamma out" in line


def test_data_of_another_shape_or_other_classes(job, tmp_path, capsys):
    wide = small_data(
        tmp_path / "wide.npz",
        x_train=np.zeros((100, 9, 9, 1), np.uint8),
        x_test=np.zeros((60, 9, 9, 1), np.uint8),
    )
    line = refused(capsys, unlearn(job._replace(data=wide), job.split, tmp_path / "o"))
    assert "(9, 9, 1)" in line
    names = np.array(["a", "b", "c", "d"])
    more = small_data(tmp_path / "more.npz", class_names=names)
    line = refused(capsys, unlearn(job._replace(data=more), job.split, tmp_path / "o"))
    assert "4" in line
    assert "3 classes" in line


def test_checkpoints_missing_damaged_or_foreign(job, tmp_path, capsys):
    def line(path):
        other = job._replace(original=path)
        return refused(capsys, unlearn(other, job.split, tmp_path / "out"))

    assert "does not exist" in line(tmp_path / "nowhere")
    for number, name in enumerate(("record.json", "arrays")):
        broken = tmp_path / f"broken-{number}"
        shutil.copytree(job.original, broken)
        target = broken / name
        if target.is_dir():
            target = max(
                (f for f in target.rglob("*") if f.is_file()),
                key=lambda f: f.stat().st_size,
            )
        target.write_bytes(target.read_bytes()[:-20])
        text = line(broken)
        assert "damaged" in text or "lost" in text
    (tmp_path / "empty").mkdir()
    assert "no checkpoint" in line(tmp_path / "empty")
    assert not (tmp_path / "out").exists()


def test_names_that_do_not_exist(capsys, tmp_path):
    line = refused(capsys, ["split", "--dataset", "cifr10", "--data-dir", tmp_path])
    assert "cifar10" in line
    line = refused(capsys, ["train", "--dataset", "digits", "--network", "resnet9"])
    assert "did you mean" in line
    assert "--dataset" in refused(capsys, ["split"])


def test_what_exists_is_not_overwritten(job, tmp_path, capsys):
    kept = job.split.read_bytes()
    arguments = ["split", "--data", job.data, "--out", job.split]
    assert "exists" in refused(capsys, arguments)
    assert job.split.read_bytes() == kept
    assert "exists" in refused(capsys, unlearn(job, job.split, job.unlearned))
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("mine")
    assert "already holds" in refused(capsys, ["--out", run])
    assert "is not overwritten" in refused(capsys, ["--out", run, "--overwrite"])
    assert (run / "mine.txt").read_text() == "mine"


def test_a_loss_that_turns_non_finite(job, tmp_path, capsys):
    arguments = unlearn(
        *(job, job.split, tmp_path / "out"),
        *("--method", "gradient_ascent", "--learning-rate", "1e30"),
    )
    line = refused(capsys, [*arguments, "--epochs", "2"])
    assert "gradient_ascent" in line
    assert "at step" in line
    assert str(job.original) in line
    assert not (tmp_path / "out").exists()


def test_an_audit_against_a_model_that_is_no_retraining(job, tmp_path, capsys):
    arguments = ["audit", "--data", job.data, "--original", job.original]
    arguments += ["--forget", job.split, "--unlearned", job.unlearned]
    arguments += ["--out", tmp_path / "audit.json"]
    for wrong in (job.original, job.unlearned):
        line = refused(capsys, [*arguments, "--retrained", wrong])
        assert "no retraining" in line
    assert "--retrained" in refused(capsys, [*arguments, "--null", job.null])
    assert not (tmp_path / "audit.json").exists()


def test_a_split_of_other_data(job, tmp_path, capsys):
    labels = np.roll(small_labels(job), 1)
    other = small_data(tmp_path / "other.npz", y_train=labels)
    arguments = ["train", "--data", other, "--split", job.split, *NETWORK]
    line = refused(capsys, [*arguments, "--out", tmp_path / "model"])
    assert "other labels" in line
    altered = json.loads(job.split.read_text())
    altered["retain"].append(altered["forget"][0])
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(altered))
    arguments = ["train", "--data", job.data, "--split", path, *NETWORK]
    assert "altered.json" in refused(capsys, [*arguments, "--out", tmp_path / "model"])


def small_labels(job):
    with np.load(job.data) as data:
        return data["y_train"]


def test_the_manifest_is_the_one_the_models_know(job):
    split, _ = load_manifest(job.split)
    both = np.union1d(split.forget, split.retain)
    np.testing.assert_array_equal(load_model(job.original).ids, both)


def test_a_reader_that_closes_early_ends_it_quietly():
    command = [sys.executable, "-m", "jax_unlearn", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        ended = subprocess.run(
            command, stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"jax-unlearn {ju.__version__}\n"
