"""Methods listed, audits of arrays and of ensembles, as a user runs them."""

import json
import re

import numpy as np
import pytest
from small import refused, small_data
from toys import small_plan

from jax_unlearn.audit.figures import FIGURES, GROUPS, KINDS
from jax_unlearn.cli import ensemble as cli_ensemble
from jax_unlearn.cli import main
from jax_unlearn.data import from_npz
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Training, Unlearning, catalog
from jax_unlearn.lab.arrays import load_outputs
from jax_unlearn.lab.results import dataset_record, to_json

SIZES = {"forget": 12, "retain": 20, "test": 15}
METHODS = {
    "FT": Unlearning.of(method="finetune", epochs=1, batch_size=64),
    "GA (one epoch)": Unlearning.of(method="gradient_ascent", epochs=1, batch_size=64),
}
TRAINING = Training(network="mlp", width=6, epochs=1, batch_size=64)
PLAN = small_plan(title="Small", training=TRAINING, methods=METHODS)


def arrays_file(path, **changes):
    """Write logits of 4 Retrains, of 2 models of one method and 2 of another."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        f"labels/{part}": np.arange(n) % 3 for part, n in SIZES.items()
    }
    for name, count, shift in (("retrained", 4, 0), ("near", 2, 0), ("off [x]", 2, 9)):
        for part, size in SIZES.items():
            logits = rng.normal(size=(count, size, 3))
            logits[:, range(size), np.arange(size) % 3] += 2 - shift * (part == "test")
            arrays[f"{name}/{part}"] = logits
    np.savez(path, **{**arrays, **changes})
    return path


def test_every_method_is_listed_with_its_cost_and_source(capsys):
    main(["methods"])
    printed = capsys.readouterr().out
    for name, card in catalog.METHODS.items():
        assert f"{name} " in printed
        assert card.source in printed
    assert "gradients of single samples" in printed


def test_an_audit_of_arrays(tmp_path, capsys):
    arrays, out = arrays_file(tmp_path / "outputs.npz"), tmp_path / "audit.json"
    told = ["--arrays", arrays, "--out", out, "--resamples", "3"]
    main([str(a) for a in ["audit", *told]])
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["plan"]["forget_counts"] == [4, 4, 4]
    audited = found["audit"]
    assert list(audited["figures"]) == ["near", "off [x]"]
    left_out = {"mia_loss", *GROUPS["rmia"], *GROUPS["u_lira"]}
    for group in ("vulnerable", "protected", "difference"):  # no originals are given
        left_out |= set(GROUPS[group])
    assert set(audited["left_out"]) == left_out
    for figures in audited["figures"].values():
        assert set(figures) == set(KINDS) - left_out
    assert audited["figures"]["near"]["ra"]["verdict"] == "inside"
    assert audited["figures"]["off [x]"]["ta"]["verdict"] == "outside"
    assert (audited["half"], audited["resamples"]) == (2, 3)
    for words in ("near 2, off [x] 2, Retrain 4", "UA %", "●", "○"):
        assert words in printed
    more = re.search(r"(\d+) more figures, (\d+) of \d+ values outside", printed)
    assert more is not None
    first = [card.key for card in FIGURES if card.headline]
    rest = [key for key in set(KINDS) - left_out if key not in first]
    assert int(more[1]) == len(rest)
    assert int(more[2]) == sum(
        figures[key]["verdict"] == "outside"
        for figures in audited["figures"].values()
        for key in rest
    )
    assert "\nKLoM (mean)" not in printed
    assert "each model comes from): vulnerable, protected, difference" in printed
    assert "needs outputs on unseen samples" in printed
    assert f"wrote {out}" in printed

    main([str(a) for a in ["audit", *told, "--all-figures", "--overwrite"]])
    printed = capsys.readouterr().out
    assert "\nKLoM (mean)" in printed
    assert "more figures" not in printed
    before = out.read_bytes()
    assert "exists; give --overwrite" in refused(capsys, ["audit", *told])
    assert out.read_bytes() == before
    chosen = ["--metrics", "klom", "deviation", "--overwrite"]
    main([str(a) for a in ["audit", *told, *chosen]])
    figures = json.loads(out.read_text())["audit"]["figures"]["near"]
    assert set(figures) == {"klom", "klom_95", "deviation"}
    assert figures["klom"] == audited["figures"]["near"]["klom"]

    page = tmp_path / "report.html"
    main(["report", "--results", str(out), "--out", str(page)])
    assert "off [x]" in page.read_text()


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"near/test": np.full((2, 15, 3), np.nan)}, [], "near.test[0, 0]=[nan"),
        ({"near/test": np.zeros((2, 14, 3))}, [], "labels.test.shape=(15,)"),
        ({"near/train": np.zeros(3)}, [], "holds 'near/train'"),
        ({"near/test": np.array([{}], object)}, [], "is no .npz file of arrays"),
        ({"labels/forget": np.linspace(0, 2, 12)}, [], "not an integer type"),
        ({}, ["--metrics", "u_lira"], "needs 4 unlearned models"),
        ({}, ["--metrics", "lira"], "did you mean 'u_lira'"),
        ({}, ["--kind", "probabilities"], "sums to"),
        ({}, ["--kind", "odds"], "choose 'logits' or 'probabilities'"),
        ({}, ["--resamples", "1"], "resamples=1"),
        ({}, ["--unlearned", "model"], "give one or the other"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list | dict) else "",
)
def test_arrays_that_cannot_be_audited(tmp_path, capsys, changes, options, words):
    path = arrays_file(tmp_path / "outputs.npz", **changes)
    out = tmp_path / "audit.json"
    told = ["audit", "--arrays", path, "--out", out, *options]
    assert words in refused(capsys, told)
    assert not out.exists()


def test_an_audit_of_nothing(tmp_path, capsys):
    out = ["--out", tmp_path / "audit.json"]
    line = refused(capsys, ["audit", *out])
    assert "give all three, or --arrays FILE.npz" in line
    some = ["audit", *out, "--original", "model", "--forget", "ids.json"]
    assert "no --unlearned" in refused(capsys, some)
    missing = ["audit", *out, "--arrays", tmp_path / "nowhere.npz"]
    assert "no such file" in refused(capsys, missing)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Return a data file and the folder of a run with nothing but its plan."""
    folder = tmp_path_factory.mktemp("run")
    data = small_data(folder / "data.npz")
    record = {
        "plan": PLAN.record(),
        "dataset": dataset_record(from_npz(data)),
    }
    (folder / "config.json").write_text(to_json(record))
    return data, folder


def told(planned, out, *options) -> list[str]:
    data, run = planned
    given = ["ensemble", "--data", data, "--run", run, "--out", out, *options]
    return [str(a) for a in given]


def test_an_ensemble_goes_on_where_it_stopped(planned, tmp_path, capsys):
    out = tmp_path / "out"
    more = ("--how", "loop", "--resamples", "2", "--chunk", "2")
    main(told(planned, out, "--models", "1", "--methods", "FT", *more))
    printed = capsys.readouterr().out
    assert "doing nothing 1, FT 1, Retrain 1" in printed
    first = json.loads((out / "results.json").read_text())["audit"]
    assert list(first["figures"]) == ["doing nothing", "FT"]
    assert first["half"] == 0
    kept = {path: path.stat().st_mtime_ns for path in (out / "models").rglob("*.npz")}
    assert len(kept) == 3

    main(told(planned, out, "--models", "2", *more))
    for path, time in kept.items():
        assert path.stat().st_mtime_ns == time
    assert len(list((out / "models").rglob("*.npz"))) == 4 * 2
    second = json.loads((out / "results.json").read_text())
    assert second["plan"]["title"] == "Small: 2 models"
    assert second["plan"]["forgotten"] == second["audit"]["forgotten"] == 16
    assert list(second["audit"]["figures"]) == ["doing nothing", *METHODS]
    assert second["audit"]["half"] == 1
    left_out = {*GROUPS["u_lira"], *GROUPS["forgetting"], *GROUPS["klom"]}
    left_out |= {*GROUPS["vulnerable"], *GROUPS["protected"]}
    assert second["audit"]["originals"] == 2
    told_apart = second["audit"]["figures"]["doing nothing"]["drop_auc"]
    assert told_apart["value"] == 0.5  # what did not change shows nothing
    assert set(second["audit"]["left_out"]) == left_out
    assert "GA (one epoch)" in (out / "report.html").read_text()

    # the arrays it leaves behind say the same to the other command
    outputs, retrained, _ = load_outputs(out / "outputs.npz")
    assert retrained.unseen.shape == (2, 20, 3)
    assert not np.array_equal(outputs["FT"].forget, outputs["doing nothing"].forget)
    again = tmp_path / "audit.json"
    arrays = ["--arrays", out / "outputs.npz", "--out", again, "--resamples", "2"]
    main([str(a) for a in ["audit", *arrays]])
    assert json.loads(again.read_text())["audit"] == second["audit"]


@pytest.mark.parametrize(
    ("options", "devices"),
    [
        (["--models", "16"], 8),
        (["--models", "16", "--how", "loop"], None),
        (["--models", "20"], None),
        (["--models", "8", "--chunk", "4"], None),
    ],
)
def test_an_ensemble_takes_the_devices_that_divide_it(
    planned, tmp_path, capsys, monkeypatch, options, devices
):
    seen = []

    def stop(*_, mesh, **__):
        seen.append(None if mesh is None else mesh.shape["ensemble"])
        raise InputError("seen")

    monkeypatch.setattr(cli_ensemble, "run_ensembles", stop)
    assert "seen" in refused(capsys, told(planned, tmp_path / "out", *options))
    assert seen == [devices]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "GA"], "unknown method 'GA'"),
        (["--models", "0"], "count=0 must be at least 1"),
        (["--chunk", "0"], "chunk=0 must be at least 1"),
    ],
    ids="-".join,
)
def test_ensembles_that_make_no_sense(planned, tmp_path, capsys, options, words):
    assert words in refused(capsys, told(planned, tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


def test_an_ensemble_of_other_data_or_of_no_run(planned, tmp_path, capsys):
    data, run = planned
    out = tmp_path / "out"
    other = small_data(tmp_path / "other.npz", y_train=np.arange(100) % 3)
    assert "not of these data" in refused(capsys, told((other, run), out))
    assert "config.json" in refused(capsys, told((data, tmp_path), out))
    line = refused(capsys, ["ensemble", "--data", data, "--out", out])
    assert "no --run: the models are those of the demo" in line
    empty = tmp_path / "empty"
    empty.mkdir()
    record = {"dataset": dataset_record(from_npz(data))}
    (empty / "config.json").write_text(to_json(record))
    assert "holds no plan" in refused(capsys, told((data, empty), out))
    (empty / "config.json").write_text("[1]")
    assert "not of these data" in refused(capsys, told((data, empty), out))
    assert not out.exists()


def test_probes_stand_beside_their_target(job, tmp_path, capsys):
    out = tmp_path / "audit.json"
    main(
        ["audit", "--data", str(job.data), "--original", str(job.original)]
        + ["--forget", str(job.split), "--unlearned", str(job.unlearned)]
        + ["--retrained", str(job.retrained), "--out", str(out)]
        + ["--probes", "relearn", "robustness"]
    )
    printed = capsys.readouterr().out
    assert "relearn steps" in printed
    assert "robust accuracy %" in printed
    probes = json.loads(out.read_text())["probes"]
    assert list(probes) == ["retrain", "original", "0-unlearned"]
    for found in probes.values():
        assert 0 < found["relearn"] <= 500  # two epochs leave something to learn
        assert 0 <= found["robustness"] <= 100


def test_an_unknown_probe_is_refused(job, tmp_path, capsys):
    told = ["audit", "--original", job.original, "--forget", job.split]
    told += ["--unlearned", job.unlearned, "--probes", "gus"]
    assert "probe" in refused(capsys, [*told, "--out", tmp_path / "audit.json"])


@pytest.mark.parametrize("given", [0, 1, 2])
def test_attacks_on_single_models_beside_few_retrains(job, tmp_path, capsys, given):
    out, again = tmp_path / "audit.json", [job.retrained, job.null][:given]
    told = ["audit", "--data", job.data, "--original", job.original]
    told += ["--forget", job.split, "--unlearned", job.unlearned, "--out", out]
    told += ["--retrained", *again] if again else []
    main([str(word) for word in told])
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    rows = ["retrain", "null"][:given] + ["original", "0-unlearned"]
    figures = found["alone"]["figures"]
    assert list(figures) == rows
    single = {*GROUPS["retain"], *GROUPS["difference"], *GROUPS["mia"]}
    for key, own in figures.items():
        distances = {"tow_mia"} if given and key != "retrain" else set()
        if given == 2 and key != "retrain":
            distances |= set(GROUPS["rmia"])
        assert set(own) == single | distances, key
    # the same figures as the library's own attack gives on the same outputs
    again = [str(job.retrained), str(job.null), str(job.retrained)]
    whole = ["audit", *told[1:9], "--retrained", *again, "--out", tmp_path / "a.json"]
    if given == 2:
        main([str(word) for word in whole])
        audited = json.loads((tmp_path / "a.json").read_text())["audit"]["figures"]
        for key in single:
            assert figures["0-unlearned"][key] == audited["0-unlearned"][key]["value"]
        capsys.readouterr()
    head = next(line for line in printed.splitlines() if line.startswith("attack "))
    assert "retain LiRA AUC" in head
    assert "difference attack AUC" in head
    words = " ".join(printed.split())
    assert "Each needs one unlearned model and its original" in words
    assert ("There is no target: a Retrain is" in words) == (given == 0)
    (line,) = [x for x in printed.splitlines() if x.startswith("More models give")]
    assert "u_lira from 4 and 8" in line
    assert "vulnerable, protected from 5 and 6" in line
    assert ("rmia" in line) == (given < 2)

    page = tmp_path / "page.html"
    main(["report", "--results", str(out), "--out", str(page)])
    text = page.read_text()
    assert "What attacks find on one model, or on two" in text
    value = figures["0-unlearned"]["difference_auc"]
    assert f"{value:.3f}" in text
    assert line.split(";")[0] in text
