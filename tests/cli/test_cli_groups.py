"""Figures by group of forget samples, as a user asks for them."""

import itertools
import json

import numpy as np
from small import refused, run
from test_cli_audit import arrays_file, planned, told

from jax_unlearn import report
from jax_unlearn.cli import main

__all__ = ["planned"]


def test_arrays_with_originals_are_told_by_memorisation(tmp_path, capsys):
    rng = np.random.default_rng(1)
    sizes = {"forget": 12, "retain": 20, "test": 15}
    own = {f"original/{k}": rng.normal(size=(4, n, 3)) for k, n in sizes.items()}
    file, out = arrays_file(tmp_path / "a.npz", **own), tmp_path / "audit.json"
    by = "--by", "memorisation", "confidence"
    run("audit", "--arrays", file, *by, "--out", out, "--resamples", "3")
    printed = capsys.readouterr().out
    assert "by memorisation: thirds of the forget samples" in printed
    assert "low (4)" in printed
    results = json.loads(out.read_text())
    first, second = results["groups"]
    assert [first["name"], second["name"]] == ["memorisation", "confidence"]
    assert list(first["audits"]) == ["low", "medium", "high"]
    assert first["audits"]["low"]["retrained"] == 2  # half divides, half is judged
    assert second["audits"]["low"]["retrained"] == 4
    assert sorted(itertools.chain(*first["members"].values())) == list(range(12))
    page = report.render(results)
    assert "<h2>By memorisation</h2>" in page
    assert "2 originals and 2 Retrains" in page


def test_arrays_without_originals_say_what_is_missing(tmp_path, capsys):
    file, out = arrays_file(tmp_path / "a.npz"), tmp_path / "audit.json"
    asked = "audit", "--arrays", file, "--out", out, "--by", "memorisation"
    assert "add their outputs as original/forget" in refused(capsys, asked)
    assert not out.exists()
    assert (
        "unknown by 'size'; known: confidence, memorisation, vulnerability"
        in refused(capsys, [*asked[:-1], "size"])
    )


def test_an_ensemble_divides_by_its_own_originals(planned, tmp_path, capsys):
    out = tmp_path / "ensemble"
    options = "--methods", "FT", "--resamples", "2", "--how", "loop", "--by"
    few = told(planned, out, "--models", "1", *options, "memorisation")
    assert "models=1: half of the models divide" in refused(capsys, few)
    assert not out.exists()
    main(told(planned, out, "--models", "2", *options, "memorisation"))
    results = json.loads((out / "results.json").read_text())
    figures = results["groups"][0]["audits"]["high"]["figures"]
    assert set(figures) == {"doing nothing", "FT"}
    assert "<h2>By memorisation</h2>" in (out / "report.html").read_text()
    assert "by 1 original and 1 Retrain" in capsys.readouterr().out


def test_single_models_are_told_by_a_proxy_and_pressed(job, tmp_path, capsys):
    out = tmp_path / "audit.json"
    asked = ["audit", "--data", job.data, "--original", job.original]
    asked += ["--forget", job.split, "--unlearned", job.unlearned, "--out", out]
    few = [*asked, "--retrained", job.retrained, job.null]
    assert "3 Retrains or more" in refused(capsys, [*few, "--by", "confidence"])
    line = refused(capsys, [*few, "--by", "memorisation"])
    assert "give --by confidence, or make more: jax-unlearn ensemble" in line
    again = [*asked, "--retrained", job.retrained, job.null, job.retrained]
    run(*again, "--by", "confidence", "--probes", "int4", "recover")
    printed = capsys.readouterr().out
    assert "by confidence: thirds of the forget samples by how unsure" in printed
    assert "forget right, int4 %" in printed
    assert "The target is Retrain's value after the same test" in printed
    results = json.loads(out.read_text())
    figure = results["probe_figures"]["0-unlearned"]["recover"]
    again = [results["probes"][key]["recover"] for key in ("retrain", "null")]
    assert min(again) <= figure["target"] <= max(again)  # of all three Retrains
    assert results["groups"][0]["audits"]["high"]["retrained"] == 3
    page = report.render(results)
    assert "Hidden memory" in page
    assert "<h2>By confidence</h2>" in page


def test_models_of_an_ensemble_are_pressed_as_they_are_made(planned, tmp_path, capsys):
    out = tmp_path / "ensemble"
    options = "--models", "3", "--methods", "FT", "--resamples", "2", "--how", "loop"
    asked = told(planned, out, *options)
    main(asked)
    assert (
        "int4" not in json.loads((out / "results.json").read_text())["audit"]["cards"]
    )
    logits = {path: np.load(path)["forget"] for path in out.rglob("models/*/*.npz")}
    capsys.readouterr()
    main([*asked, "--probes", "int4", "alignment"])  # made again, all but originals
    assert "forget right, int4 %" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    for path, before in logits.items():
        np.testing.assert_array_equal(np.load(path)["forget"], before)
    figures = results["audit"]["figures"]
    kept = []
    for path in sorted((out / "models" / "retrain").glob("*.npz")):
        record = json.loads(np.load(path)["record"].tobytes())
        kept.append(record["probes"]["int4"])
    assert len(kept) == 3
    for own in figures.values():
        assert own["int4"]["target"] == np.mean(kept)
        assert own["int4"]["verdict"] in ("inside", "outside")
    assert figures["doing nothing"]["alignment"]["value"] == 50.0  # no step, no trace
    assert figures["FT"]["alignment"]["value"] != 50.0
    page = report.render(results)
    assert "gradient alignment AUC" in page
    times = {path: path.stat().st_mtime_ns for path in out.rglob("models/*/*.npz")}
    main(asked)  # what is there is shown, and nothing is made again
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert json.loads((out / "results.json").read_text())["audit"] == results["audit"]
    line = refused(capsys, [*asked, "--probes", "int3"])
    assert "unknown probe 'int3'" in line
    joined = told(planned, tmp_path / "x", "--join", out, "--probes", "int8")
    line = refused(capsys, [*joined, *options[:4]])
    assert "give --probes int8 to the commands" in line
