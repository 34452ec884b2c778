"""Requests as they arrive, by every command: files of positions, files of keys."""

import json

import numpy as np
import pytest
from small import NETWORK, USERS, record, refused, run, small_data

from jax_unlearn.data import digest, load_manifest
from jax_unlearn.lab.store import load_model

KEY = ["--key-column", "user_id"]
SHORT = ["--method", "finetune", "--epochs", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with data of users, a deletion list, its split and original."""
    folder = tmp_path_factory.mktemp("requests")
    data = ["--data", small_data(folder / "data.npz", user_id_train=USERS)]
    (folder / "del.csv").write_text("user_id,asked\nu3,Monday\nu7,Tuesday\n")
    split = ["--ids", folder / "del.csv", *KEY, "--unseen-fraction", "0.2"]
    run("split", *data, *split, "--out", folder / "split.json")
    given = [*data, "--split", folder / "split.json", *NETWORK]
    run("train", *given, "--out", folder / "original")
    return folder, data


FORGET = [*range(15, 20), *range(35, 40)]  # of u3 and u7


def test_a_list_becomes_a_split_that_names_it(made):
    folder, _ = made
    split, unseen = load_manifest(folder / "split.json")
    assert split.forget.tolist() == FORGET
    assert len(unseen) == 20
    assert not np.intersect1d(unseen, FORGET).size
    assert split.manifest["kind"] == "given"
    assert split.manifest["request"]["keys"] == ["u3", "u7"]
    assert split.manifest["request"]["file"] == "del.csv"
    assert load_model(folder / "original").unseen.tolist() == unseen.tolist()


def test_unlearning_by_key_and_its_audit_name_the_request(made, tmp_path, capsys):
    folder, data = made
    asked = ["--forget", folder / "del.csv", *KEY]
    given = ["--checkpoint", folder / "original", "--out", tmp_path / "out"]
    run("unlearn", *data, *given, *asked, *SHORT)
    told = record(tmp_path / "out")
    assert told["forgotten_sha256"] == digest(FORGET)
    assert told["request"]["key_column"] == "user_id"
    assert told["request"]["count"] == 2
    audit = ["--original", folder / "original", "--unlearned", tmp_path / "out"]
    run("audit", *data, *audit, *asked, "--out", tmp_path / "audit.json")
    plan = json.loads((tmp_path / "audit.json").read_text())["plan"]
    assert plan["request"]["keys"] == ["u3", "u7"]
    assert "2 keys of column user_id, listed in del.csv" in plan["note"]
    page = ["--results", tmp_path / "audit.json", "--out", tmp_path / "report.html"]
    run("report", *page)
    assert "listed in del.csv" in (tmp_path / "report.html").read_text()


def test_of_a_share_of_0_nothing_is_held_out(made, tmp_path, capsys):
    (folder, data), none = made, ["--unseen-fraction", "0"]
    for words in (["--fraction", "0.2"], ["--ids", folder / "del.csv", *KEY]):
        out = ["--overwrite", "--out", tmp_path / "split.json"]
        run("split", *data, *none, *words, *out)
        parts, unseen = load_manifest(tmp_path / "split.json")
        assert (len(parts.forget) + len(parts.retain), len(unseen)) == (100, 0)
    run("train", *data, *none, *NETWORK, "--out", tmp_path / "whole")
    assert record(tmp_path / "whole")["num_unseen"] == 0
    words = ["unlearn", "random_label", "--weighting", "falw", "--forget", "1", *data]
    words += ["--checkpoint", tmp_path / "whole", "--out", tmp_path / "x"]
    assert "compares with unseen samples" in refused(capsys, words)


def test_retrain_as_the_original_was_trained(made, tmp_path):
    folder, data = made
    asked = ["--retrain", "--forget", folder / "del.csv", *KEY, "--seed", "1"]
    like = ["--original", folder / "original", "--out", tmp_path / "out"]
    run("train", *data, *asked, *like, "--learning-rate", "0.05")
    first, again = record(folder / "original"), record(tmp_path / "out")
    assert again["training"] == {**first["training"], "learning_rate": 0.05}
    assert again["requests"][0]["keys"] == ["u3", "u7"]
    split, unseen = load_manifest(folder / "split.json")
    retrained = load_model(tmp_path / "out")
    assert retrained.ids.tolist() == split.retain.tolist()
    assert retrained.unseen.tolist() == unseen.tolist()


def test_lists_and_classes_are_left_out_together(made, tmp_path, capsys):
    folder, data = made
    labels = np.load(folder / "data.npz")["y_train"]
    (tmp_path / "ids.txt").write_text("0\n1\n")
    asked = ["--forget", tmp_path / "ids.txt", "2", "--out", tmp_path / "out"]
    run("train", *data, *NETWORK, *asked)
    ids = load_model(tmp_path / "out").ids
    assert not np.isin(ids, [0, 1]).any()
    assert 2 not in labels[ids]
    assert len(ids) > 50
    told = ["--original", folder / "original", "--retrained", tmp_path / "out"]
    told += ["--unlearned", folder / "original", "--forget", "2"]
    run("audit", *data, *told, "--out", tmp_path / "audit.json")
    assert "it is the Retrain of a larger request" in capsys.readouterr().out


def test_samples_of_a_key_that_were_held_out_are_left_alone(made, tmp_path):
    folder, data = made
    original = load_model(folder / "original")
    user = USERS[original.unseen[0]]
    others = [int(i) for i in np.flatnonzero(user == USERS) if i in original.ids]
    (tmp_path / "keys.txt").write_text(f"{user}\n")
    given = ["--checkpoint", folder / "original", "--out", tmp_path / "out"]
    asked = ["--forget", tmp_path / "keys.txt", *KEY]
    run("unlearn", *data, *given, *asked, *SHORT)
    told = record(tmp_path / "out")
    assert told["forgotten_sha256"] == digest(others)
    assert told["request"]["not_trained"] == 5 - len(others)


def test_a_chain_of_keys_is_in_its_ledger(made, tmp_path, capsys):
    folder, data = made
    requests = [tmp_path / "a.txt", tmp_path / "b.jsonl"]
    requests[0].write_text("u3\n")
    requests[1].write_text('{"user_id": "u7"}\n')
    given = ["--checkpoint", folder / "original", "--out", tmp_path / "chain"]
    chain = ["chain", *data, *KEY, *given, *SHORT, "--requests"]
    run(*chain, *requests)
    lines = (tmp_path / "chain" / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["request"]["keys"] for line in lines] == [["u3"], ["u7"]]
    assert record(tmp_path / "chain" / "request-2")["request"]["file"] == "b.jsonl"
    run(*chain, *requests)  # what is served stays as it is
    assert (tmp_path / "chain" / "ledger.jsonl").read_text().splitlines() == lines
    twice = refused(capsys, [*chain, requests[0], requests[0]])
    assert "15, 16, 17, 18, 19 is asked for twice" in twice


def test_an_ensemble_like_the_original_forgets_a_list(made, tmp_path, capsys):
    folder, data = made
    asked = ["--original", folder / "original", "--forget", folder / "del.csv", *KEY]
    few = ["--models", "2", "--how", "loop", "--resamples", "2", "--out", tmp_path]
    run("ensemble", *data, *asked, *few, "--methods", "finetune", "partial_reset")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["plan"]["given"] == FORGET
    assert results["audit"]["forgotten"] == 10
    methods = ["doing nothing", "finetune", "partial_reset"]
    assert list(results["audit"]["figures"]) == methods
    with np.load(tmp_path / "outputs.npz") as arrays:
        labels = np.load(folder / "data.npz")["y_train"]
        np.testing.assert_array_equal(arrays["labels/forget"], labels[FORGET])
        assert len(arrays["labels/unseen"]) == 20
    alone = ["ensemble", *data, "--original", folder / "original"]
    assert "give an original and --forget" in refused(capsys, alone)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["split", "--ids", "del.csv"], "2 columns ('user_id', 'asked')"),
        (["split", "--ids", "del.csv", "--key-column", "user"], "mean 'user_id'"),
        (["split", "--ids", "del.csv", *KEY, "--kind", "class"], "leave out --kind"),
        (["split", "--ids", "all.txt", *KEY], "names all 100"),
        (["split", "--ids", "none.txt", *KEY], "none of 2 keys of none.txt"),
        (["train", "--retrain"], "give --split FILE.json or --forget FILE"),
        (["train", "--retrain", "--split", "del.csv"], "give it as --forget del.csv"),
        (["train", "--retrain", "--split", "ids.json"], "give it as --forget ids.json"),
        (["train", "--forget", "no.csv"], "cannot read path=no.csv"),
        (["unlearn", "--forget", "del.csv"], "2 columns"),
        (["unlearn", "--forget", "u3", *KEY], "list keys of column 'user_id' in a"),
        (["split", "--ids", "latin.csv", *KEY], "save it as UTF-8"),
        (["split", "--ids", "head.csv", *KEY], "text such as 'x2', the column"),
        (["unlearn", "--forget", "unseen.txt"], "held out as unseen"),
        (["unlearn", "--forget", "held.txt", *KEY], "none of the 1 samples"),
        (["unlearn", "--forget", "some.txt", *KEY], "1 of 2 keys of some.txt"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_requests_that_are_refused(made, tmp_path, capsys, monkeypatch, words, line):
    folder, data = made
    monkeypatch.chdir(tmp_path)
    unseen = load_model(folder / "original").unseen
    (tmp_path / "del.csv").write_text((folder / "del.csv").read_text())
    (tmp_path / "all.txt").write_text("\n".join(sorted(set(USERS))))
    (tmp_path / "none.txt").write_text("x1\nx2\n")
    (tmp_path / "some.txt").write_text("x1\nu3\n")
    (tmp_path / "ids.json").write_text("[1, 2]")
    (tmp_path / "latin.csv").write_text("M\xfcller\n", encoding="latin-1")
    (tmp_path / "head.csv").write_text("mail\nx1\nx2\n")
    (tmp_path / "unseen.txt").write_text(f"{unseen[0]}\n")
    small = small_data(tmp_path / "own.npz", one_train=np.arange(100))
    (tmp_path / "held.txt").write_text(f"{unseen[0]}\n")
    if "held.txt" in words:  # a key of one sample, which no model was trained on
        data, words = ["--data", small], ["one" if w == KEY[1] else w for w in words]
    more = [] if words[0] != "unlearn" else ["--checkpoint", folder / "original"]
    before = sorted(path.name for path in tmp_path.iterdir())
    said = refused(capsys, [words[0], *data, *more, *words[1:], "--out", "out"])
    assert line in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before
