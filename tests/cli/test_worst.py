"""The worst request to a model: searched, kept, and used everywhere."""

import json

import numpy as np
import pytest
from small import refused, run, small_data
from toys import small_plan, three_digits

from jax_unlearn.data import load_manifest
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Training, Unlearning, experiment
from jax_unlearn.lab.requests import draw_request
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.lab.worst import Searched, _unlearned, worst_request

TRAINING = Training(network="mlp", width=8, epochs=4, batch_size=32)


@pytest.fixture(scope="module")
def given():
    dataset = three_digits(120, 30)
    subject, trained = subject_of(TRAINING, dataset), np.arange(100)
    original = Trainer(subject, TRAINING)(trained, seed=0)
    return Searched(
        subject, original, trained, np.arange(100, 120), Origin(TRAINING, 0)
    )


def test_the_worst_set_is_worse_than_random_ones(given):
    ids, note = worst_request(given, 10, rounds=6, seed=3)
    assert len(ids) == len(np.unique(ids)) == 10
    assert note["rounds"] == 6
    assert "6 times 2 epochs" in note["cost"]
    losses = _unlearned(given, None, 3)
    mine = losses(ids)[ids].mean()
    assert mine == pytest.approx(min(note["left"]), abs=1e-3)
    rng = np.random.default_rng(0)
    random = []
    for _ in range(4):
        drawn = np.sort(rng.permutation(100)[:10])
        random.append(losses(drawn)[drawn].mean())
    assert mine < min(random) / 2
    again, _ = worst_request(given, 10, rounds=6, seed=3)
    np.testing.assert_array_equal(again, ids)


def test_the_hard_set_is_what_others_do_not_teach(given):
    ids, note = worst_request(given, 10, kind="hard", rounds=4)
    worst, _ = worst_request(given, 10, rounds=4)
    assert min(note["left"]) < 0  # surer than models that never saw them
    assert len(np.intersect1d(ids, worst)) < 8
    assert "2 trainings of half the data" in note["cost"]
    unknown = given._replace(origin=None)
    with pytest.raises(InputError, match="give --kind worst"):
        worst_request(unknown, 10, kind="hard")


def test_a_search_that_was_stopped_goes_on(given, tmp_path):
    path, seen = tmp_path / "search.npz", []
    whole, note = worst_request(given, 10, rounds=4)

    def stop(label, done, total):
        seen.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worst_request(given, 10, rounds=4, path=path, progress=stop)
    assert path.exists()
    seen.clear()
    ids, after = worst_request(
        given, 10, rounds=4, path=path, progress=lambda *told: seen.append(told[1])
    )
    np.testing.assert_array_equal(ids, whole)
    assert after == note
    assert seen == [2, 3, 4]
    path.write_bytes(b"damaged")  # begins anew
    again, _ = worst_request(given, 10, rounds=4, path=path)
    np.testing.assert_array_equal(again, whole)


def test_a_method_may_be_what_the_search_unlearns_by(given):
    ascent = Unlearning.of(method="gradient_ascent", epochs=1, batch_size=16)
    ids, note = worst_request(given, 10, rounds=2, setting=ascent)
    assert len(ids) == 10
    assert note["setting"]["method"] == "gradient_ascent"


def test_an_experiment_draws_the_worst_of_each_original(tmp_path):
    training = Training(network="linear", epochs=1, batch_size=64)
    asked = {"kind": "worst", "fraction": 0.1, "null": False}
    plan = small_plan(title="worst", training=training, **asked)
    dataset = three_digits(100, 20)
    with pytest.raises(InputError, match="needs a model to search with"):
        draw_request(plan, dataset, 0)
    results = experiment(plan, dataset, tmp_path / "run")
    assert results["plan"]["kind"] == "worst"
    split, unseen = load_manifest(tmp_path / "run" / "splits" / "seed-1.json")
    assert split.manifest["kind"] == "worst"
    assert len(split.forget) == 8
    assert len(unseen) == 20
    searched = json.loads((tmp_path / "run" / "splits" / "seed-1.json").read_text())
    assert searched["search"]["rounds"] == 10


def test_a_split_of_the_worst_serves_the_other_commands(tmp_path, capsys):
    data, original = small_data(tmp_path / "data.npz"), tmp_path / "original"
    made = ["--network", "linear", "--epochs", 1, "--batch-size", 32]
    run("train", "--data", data, "--out", original, *made)
    asked = ["split", "--data", data, "--kind", "worst"]
    line = refused(capsys, asked)
    assert "give it: --original MODEL" in line
    out = tmp_path / "split.json"
    asked += ["--original", original, "--rounds", 2, "--out", out]
    assert "leave --classes out" in refused(capsys, [*asked, "--classes", 1])
    assert "--kind worst or hard" in refused(
        capsys, ["split", "--data", data, "--rounds", 2, "--out", out]
    )
    run(*asked)
    told = capsys.readouterr()
    assert "mean loss after unlearning:" in told.out + told.err
    split, unseen = load_manifest(out)
    assert split.manifest["kind"] == "worst"
    assert (len(split.forget), len(unseen)) == (9, 10)
    new = tmp_path / "new"
    method = ["--method", "finetune", "--epochs", 1, "--batch-size", 32]
    run(
        "unlearn",
        "--data",
        data,
        "--checkpoint",
        original,
        "--forget",
        out,
        *method,
        "--out",
        new,
    )
    assert (new / "record.json").exists()
