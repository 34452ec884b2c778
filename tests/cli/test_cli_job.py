"""The job on files, step by step, as a user runs it."""

import json
import re

import jax
import numpy as np
import pytest
from small import NETWORK, refused, small_data

from jax_unlearn.cli import main
from jax_unlearn.data import digest, from_npz, load_manifest
from jax_unlearn.lab.store import load_model


def test_unlearning_moves_the_model_and_records_what_was_done(job):
    dataset = from_npz(job.data)
    before, after = (load_model(p, dataset) for p in (job.original, job.unlearned))
    moved = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()),
        before.trained.params,
        after.trained.params,
    )
    assert all(value > 0 for value in jax.tree.leaves(moved))
    record = json.loads((job.unlearned / "record.json").read_text())
    split, unseen = load_manifest(job.split)
    assert record["unlearning"]["method"] == "random_label"
    assert record["unlearning"]["weighting"] == "loreun"
    assert record["unlearning"]["learning_rate"] == 0.1
    assert record["seed"] == 0
    assert record["forgotten_sha256"] == digest(split.forget)
    assert record["environment"]["versions"]["jax"] == jax.__version__
    np.testing.assert_array_equal(after.ids, split.retain)
    np.testing.assert_array_equal(after.unseen, unseen)


def test_what_costs_more_than_training_anew_is_told(job, tmp_path, capsys):
    given = ["--data", str(job.data), "--checkpoint", str(job.original)]
    given += ["--forget", str(job.split), "--method", "random_label"]
    main(["unlearn", *given, "--epochs", "30", "--out", str(tmp_path / "dear")])
    told = capsys.readouterr()
    assert "% of training anew on the samples that stay" in told.err
    assert f"--original {job.original} --retrain --forget {job.split}`" in told.err
    budget = re.findall(r"give (--budget) ([\d.]+) as its length", told.err)
    main(["unlearn", *given, *budget[0], "--out", str(tmp_path / "cheap")])
    assert "train anew" not in capsys.readouterr().err


def test_retrain_never_saw_the_forget_set(job):
    split, unseen = load_manifest(job.split)
    retrained = load_model(job.retrained)
    np.testing.assert_array_equal(retrained.ids, split.retain)
    assert not np.intersect1d(load_model(job.original).ids, unseen).size


def test_the_same_seed_gives_the_same_bits(job, tmp_path):
    arguments = ["unlearn", "--data", str(job.data), "--checkpoint", str(job.original)]
    arguments += ["--forget", str(job.split), "--epochs", "1", "--weighting", "loreun"]
    arguments += ["--learning-rate", "0.1", "--out", str(tmp_path / "again")]
    main(arguments)
    first, second = (load_model(p).trained for p in (job.unlearned, tmp_path / "again"))
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


@pytest.mark.parametrize("suffix", ["csv", "json", "npy"])
def test_ids_come_from_csv_json_and_npy(job, tmp_path, suffix):
    ids = load_manifest(job.split)[0].forget[:5]
    path = tmp_path / f"ids.{suffix}"
    if suffix == "csv":
        path.write_text("id\n" + "\n".join(map(str, ids)))
    elif suffix == "json":
        path.write_text(json.dumps(ids.tolist()))
    else:
        np.save(path, ids)
    main(
        ["unlearn", "--data", str(job.data), "--checkpoint", str(job.original)]
        + ["--forget", str(path), "--out", str(tmp_path / "out"), "--epochs", "1"]
        + ["--method", "finetune"]
    )
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["forgotten_sha256"] == digest(ids)


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "salun", "--keep", "0.3"],
        ["--method", "salun_soft"],
        ["--method", "gradient_ascent", "--clip", "1", "--freeze-statistics"],
        ["--method", "neggrad_plus", "--schedule", "zipped", "--harmonizer", "one_way"],
        ["--method", "l1_sparse"],
        ["--method", "endpoint_transport", "--schedule", "sequential"],
        ["--weighting", "falw", "--estimator", "streaming"],
        ["--weighting", "falw", "--estimator", "every", "--every", "2"],
        ["--weighting", "falw", "--estimator", "anchored"],
        ["--weighting", "loreun_static", "--relative", "--temperature", "0.5"],
        ["--weighting", "sfron"],
        ["--weighting", "el2n", "--normalize", "none"],
        ["--weighting", "margin"],
    ],
    ids=lambda options: "-".join(o.strip("-") for o in options[:4]),
)
def test_every_method_and_weighting_runs_from_the_command_line(job, tmp_path, options):
    main(
        ["unlearn", "--data", str(job.data), "--checkpoint", str(job.original)]
        + ["--forget", str(job.split), "--out", str(tmp_path / "out"), "--epochs", "1"]
        + options
    )
    before, after = (load_model(p).trained for p in (job.original, tmp_path / "out"))
    same = jax.tree.map(
        lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)),
        before.params,
        after.params,
    )
    assert not all(jax.tree.leaves(same))


def test_audit_and_report(job, tmp_path, capsys):
    out, page = tmp_path / "audit.json", tmp_path / "report.html"
    main(
        ["audit", "--data", str(job.data), "--original", str(job.original)]
        + ["--forget", str(job.split), "--unlearned", str(job.unlearned)]
        + ["--retrained", str(job.retrained), "--null", str(job.null)]
        + ["--out", str(out)]
    )
    printed = capsys.readouterr().out
    assert "Retrain" in printed
    assert "target" in printed
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == ["retrain", "null", "original", "0-unlearned"]
    assert rows["retrain"]["avg_gap"]["mean"] == 0
    assert rows["0-unlearned"]["avg_gap"]["mean"] > 0
    main(["report", "--results", str(out), "--out", str(page)])
    assert "unlearned" in page.read_text()


def test_a_certificate_is_printed_kept_and_on_the_page(job, tmp_path, capsys):
    how = ["--data", str(job.data), "--method", "certified", "--epsilon", "3"]
    how += ["--noise-steps", "1", "--epochs", "2", "--batch-size", "32"]
    original, out = ["--checkpoint", str(job.original)], tmp_path / "out"
    whom, audited = ["--forget", str(job.split)], tmp_path / "audit.json"
    main(["unlearn", *how, *original, *whom, "--out", str(out)])
    printed = capsys.readouterr().out
    found = json.loads((out / "record.json").read_text())["certificate"]
    assert 0 < found["epsilon"] <= 3
    assert "certificate: (ε = 3, δ = 1e-05)" in printed
    assert all(line in printed for line in found["says"])
    main(
        ["audit", "--data", str(job.data), "--original", str(job.original), *whom]
        + ["--unlearned", str(out), str(job.unlearned), "--out", str(audited)]
    )
    rows = json.loads(audited.read_text())["rows"]
    assert rows["0-out"]["certificate"] == found["says"]
    assert "certificate" not in rows["1-unlearned"]
    page = tmp_path / "report.html"
    main(["report", "--results", str(audited), "--out", str(page)])
    assert page.read_text().count("certificate: (ε = 3, δ = 1e-05)") == 1
    ids = load_model(job.original).ids.tolist()
    for name, own in (("a.json", ids[:3]), ("b.json", ids[3:5])):
        (tmp_path / name).write_text(json.dumps(own))
    asked = [str(tmp_path / name) for name in ("a.json", "b.json")]
    chain = tmp_path / "chain"
    capsys.readouterr()
    main(["chain", *how, *original, "--requests", *asked, "--out", str(chain)])
    assert capsys.readouterr().out.count(found["says"][0]) == 2
    lines = (chain / "ledger.jsonl").read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        entry = json.loads(line)["certificate"]
        stored = json.loads((chain / f"request-{number}" / "record.json").read_text())
        assert entry == stored["certificate"]
        assert entry["says"] == found["says"]


def test_audit_without_retrain_says_that_there_is_no_target(job, tmp_path, capsys):
    main(
        ["audit", "--data", str(job.data), "--original", str(job.original)]
        + ["--forget", str(job.split), "--unlearned", str(job.unlearned)]
        + ["--out", str(tmp_path / "audit.json")]
    )
    printed = capsys.readouterr().out
    assert "There is no target" in printed
    assert "unlearned is " in printed
    found = json.loads((tmp_path / "audit.json").read_text())
    assert "avg_gap" not in found["rows"]["original"]
    assert set(found["unseen"]["models"]) == {"original", "0-unlearned"}
    page = [
        "--results",
        str(tmp_path / "audit.json"),
        "--out",
        str(tmp_path / "p.html"),
    ]
    main(["report", *page])
    assert "Without any Retrain" in (tmp_path / "p.html").read_text()


def test_three_retrains_are_audited_together(job, tmp_path, capsys):
    again = [str(job.retrained), str(job.null), str(job.retrained)]
    main(
        ["audit", "--data", str(job.data), "--original", str(job.original)]
        + ["--forget", str(job.split), "--unlearned", str(job.unlearned)]
        + ["--retrained", *again, "--out", str(tmp_path / "audit.json")]
    )
    assert "Retrain 3" in capsys.readouterr().out
    found = json.loads((tmp_path / "audit.json").read_text())
    assert list(found["rows"]) == ["retrain", "null", "original", "0-unlearned"]
    assert set(found["audit"]["figures"]) == {"original", "0-unlearned"}
    assert "unseen" not in found


def test_a_second_request_goes_on_from_the_first(job, tmp_path):
    retained = load_model(job.unlearned).ids
    (tmp_path / "more.json").write_text(json.dumps(retained[:3].tolist()))
    main(
        ["unlearn", "--data", str(job.data), "--checkpoint", str(job.unlearned)]
        + ["--forget", str(tmp_path / "more.json"), "--out", str(tmp_path / "second")]
        + ["--epochs", "1"]
    )
    np.testing.assert_array_equal(load_model(tmp_path / "second").ids, retained[3:])


def test_a_class_is_forgotten_by_its_name(tmp_path, capsys):
    names = np.array(["circle", "line", "swan"])
    data = small_data(tmp_path / "data.npz", class_names=names)
    labels, source = from_npz(data).train.labels, ["--data", str(data)]
    original, unlearned = tmp_path / "original", tmp_path / "unlearned"
    retrained = tmp_path / "retrained"
    main(["train", *source, *NETWORK, "--out", str(original)])
    main(["train", *source, *NETWORK, "--forget", "swan", "--out", str(retrained)])
    asked = ["--checkpoint", str(original), "--forget", "swan", "--epochs", "1"]
    main(["unlearn", "finetune", *source, *asked, "--out", str(unlearned)])
    stored, trained = load_model(unlearned), load_model(original).ids
    np.testing.assert_array_equal(stored.ids, trained[labels[trained] != 2])
    np.testing.assert_array_equal(load_model(retrained).ids, stored.ids)
    assert stored.record["forgotten_as"] == "swan"
    assert stored.record["forgotten"] == (labels[trained] == 2).sum()
    main(
        ["audit", *source, "--original", str(original), "--forget", "swan"]
        + ["--unlearned", str(unlearned), "--retrained", str(retrained)]
        + ["--out", str(tmp_path / "audit.json")]
    )
    plan = json.loads((tmp_path / "audit.json").read_text())["plan"]
    assert plan["forget_counts"] == [0, 0, int(stored.record["forgotten"])]
    line = refused(capsys, ["unlearn", *source, *asked[:2], "--forget", "swn"])
    assert "unknown class 'swn'; did you mean 'swan'" in line


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for name in ("demo", "split", "train", "unlearn", "audit", "report", "tune"):
        assert name in printed
