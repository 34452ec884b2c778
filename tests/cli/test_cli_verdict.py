"""Verdicts: none from fewer than three Retrains, and what to do is said and works."""

import json
import re
import shlex

import pytest

from jax_unlearn import report
from jax_unlearn.cli import main
from jax_unlearn.drivers.checkpoint import read_record
from jax_unlearn.lab.advice import lasting


@pytest.fixture
def audited(job, tmp_path, capsys, monkeypatch):
    """Return what an audit prints, and its file."""
    monkeypatch.chdir(tmp_path)

    def run(*options):
        capsys.readouterr()
        words = ["audit", "--data", job.data, "--original", job.original]
        words += ["--forget", job.split, "--unlearned", job.unlearned, *options]
        main([str(word) for word in words])
        return capsys.readouterr().out, json.loads(
            (tmp_path / "audit.json").read_text()
        )

    return run


def commands(printed):
    lines = [line.strip() for line in printed.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("jax-unlearn ")]


@pytest.mark.parametrize("given", [0, 1, 2])
def test_too_few_retrains_make_no_verdict_but_say_what_one_costs(
    job, audited, capsys, tmp_path, given
):
    known = [str(job.retrained), str(job.null)][:given]
    printed, results = audited(*(["--retrained", *known] if known else []))
    assert not re.search("[●○]|inside|outside", printed)
    assert f"No verdict: {given or 'no'} Retrain" in printed
    like = read_record(job.retrained if given else job.original)
    each = sum(like["seconds"].values())
    assert f"cost{'s' * (given == 2)} about {lasting((3 - given) * each)}" in printed
    page = report.render(results)
    assert not re.search("[●○]", page)
    assert "No verdict: " in page
    # the commands that it names make the Retrains, and the audit of three
    made = commands(printed)
    assert [words[0] for words in made] == ["train"] * (3 - given) + ["audit"]
    for words in made:
        main(words)
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "audit.json").read_text())
    assert results["audit"]["retrained"] == 3
    assert "No verdict" not in printed
    seeds = {
        read_record(words[words.index("--out") + 1])["seed"] for words in made[:-1]
    }
    assert len(seeds) == 3 - given
    assert not seeds & {read_record(path)["seed"] for path in (job.original, *known)}


def test_three_retrains_end_in_a_sentence_to_act_on(job, audited, tmp_path):
    third = tmp_path / "third"
    main(["train", "--config", str(job.null), "--seed", "7", "--out", str(third)])
    many = ["--retrained", job.retrained, third, "--null", job.null]
    printed, results = audited(*many)
    figures = results["audit"]["figures"]
    key = next(key for key in figures if key != "original")
    outside = [k for k, f in figures[key].items() if f["verdict"] == "outside"]
    judged = [k for k, f in figures[key].items() if f["verdict"]]
    (said,) = [line for line in results["advice"] if line.startswith("unlearned: ")]
    if outside:
        assert f"({len(outside)} of {len(judged)} figures)" in said
        assert f"or serve {job.retrained}" in said
    else:
        assert f"in any of {len(judged)} figures" in said
    assert said in " ".join(printed.split())
    signs = {"inside": "●", "outside": "○"}
    legend = printed[printed.index("In brackets:") :]
    for verdict, sign in signs.items():
        made = any(
            f["verdict"] == verdict for own in figures.values() for f in own.values()
        )
        assert (f"{sign} {verdict}" in legend) == made
    for own in figures.values():
        for name, figure in own.items():
            if figure["null_low"] is not None and name in ("ua", "ra", "ta", "mia"):
                assert 0 <= figure["null_low"] <= figure["null_high"] <= 100
    page = report.render(results)
    assert "What to do next" in page


def test_verdicts_of_two_seeds_in_older_files_are_not_shown():
    spread = {"per_seed": [5.0, 7.0], "mean": 6.0, "std": 2**0.5}
    metrics = dict.fromkeys(("ua", "fa", "ra", "ta", "mia"), spread)
    seconds = dict.fromkeys(("prepare", "compile", "run"), spread)
    counts = {key: [3, 4] for key in ("forget", "unseen", "retain")}
    row = {"metrics": metrics, "seconds": seconds, "histograms": counts}
    row |= dict.fromkeys(("avg_gap", "tow", "deviation"), spread)
    row |= {"groups": {}, "by_rank": [0.1]}
    test = {"mean_difference": -1.0, "permutation_p": 0.5, "t_p": 0.001}
    beside = {"null_low": -130.0, "null_high": 130.0, "verdict": "inside"}
    comparison = {
        **{"seeds": 2, "level": 0.95, "against_nothing": test},
        "metrics": dict.fromkeys(("ua", "ra", "ta", "mia"), beside),
    }
    made = {**row, "label": "FT", "comparison": comparison, "deviation_test": test}
    rows = {
        "retrain": {**row, "label": "Retrain"},
        "null": {**row, "label": "Null"},
        "ft": made,
    }
    for seeds in (2, 3):
        comparison["seeds"] = seeds
        table = report.main_table({"rows": rows})
        marks = {cell.mark for line in table.rows for cell in line}
        details = " ".join(cell.detail for line in table.rows for cell in line)
        page = report.render({"format": 1, "rows": rows})
        shown = seeds == 3
        assert marks == ({"", "inside"} if shown else {""})
        assert ("nearer" in details) == shown
        assert ("±100.0" in details) == shown
        assert "130" not in details
        assert ("●" in page) == shown
        assert "○" not in page  # explained only where it occurs
        assert ("No verdict." in page) == (not shown)
