"""Options from files: TOML by hand, and the record of a run."""

import dataclasses
import inspect
import json

import jax
import numpy as np
import pytest
from small import refused, unlearn

from jax_unlearn import cli
from jax_unlearn.cli import config, main
from jax_unlearn.cli.habits import option_names
from jax_unlearn.drivers.checkpoint import read_record
from jax_unlearn.lab.store import load_model


def test_the_record_of_a_run_makes_the_same_again(job, tmp_path, monkeypatch):
    words = unlearn(job, tmp_path / "a", "scrub", "--rewind", "--seed", "3")
    main(words)
    record = tmp_path / "a" / "record.json"
    main(["unlearn", "--config", str(record), "--out", str(tmp_path / "b")])
    main([f"--config={tmp_path / 'a'}", "--out", str(tmp_path / "c")])
    first, *others = (load_model(tmp_path / name) for name in "abc")
    assert first.record["options"]["rewind"] is True
    for other in others:
        for key in first.record.keys() - {"seconds", "cost"}:
            assert other.record[key] == first.record[key]
        costs = [one.record["cost"]["counted"] for one in (first, other)]
        assert costs[0] == costs[1]  # beside it the clock is read
        same = first.trained.params, other.trained.params
        jax.tree.map(np.testing.assert_array_equal, *same)
    # of a model that no command made: the setting and the seed are read
    bare = {k: v for k, v in first.record.items() if k not in ("options", "command")}
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    source = ["--data", str(job.data), "--checkpoint", str(job.original)]
    again = ["unlearn", *source, "--config", str(tmp_path / "bare.json")]
    main([*again, "--forget", str(job.split), "--out", str(tmp_path / "d")])
    found = read_record(tmp_path / "d")
    assert (found["unlearning"], found["seed"]) == (first.record["unlearning"], 3)


TOML = """
data = "{data}"

[train]
split = "{split}"
network = "mlp"
width = 8

[train.descent]
epochs = 2
batch-size = 32
learning_rate = 0.05

[unlearn]
method = "salun"
salient = true
"""


def test_a_table_is_a_heading_or_a_command_and_the_words_win(job, tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text(TOML.format(data=job.data, split=job.split))
    main(["train", "--config", str(file), "--epochs=1", "--out", str(tmp_path / "m")])
    record = read_record(tmp_path / "m")
    assert record["training"]["learning_rate"] == 0.05
    assert record["training"]["epochs"] == 1
    assert record["options"]["epochs"] == 1
    assert record["options"]["data"] == str(job.data)
    over = tmp_path / "over.toml"
    over.write_text("[train]\nepochs = 3\nwidth = 4\n")
    both = ["train", "--config", str(file), "--config", str(over), "--epochs", "1"]
    main([*both, "--out", str(tmp_path / "n")])
    training = read_record(tmp_path / "n")["training"]
    assert (training["epochs"], training["width"]) == (1, 4)
    off = unlearn(job, tmp_path / "u", "finetune", "--no-salient")
    main([*off, "--config", str(file)])
    told = read_record(tmp_path / "u")["unlearning"]
    assert (told["method"], told["salient"]) == ("finetune", False)


@dataclasses.dataclass
class Fast:
    fast: bool = True


def test_a_flag_that_is_on_is_put_off_by_a_file():
    """Such options have but one word, `--no-NAME`; words given by hand win."""

    def command(own: Fast, slow: bool = False) -> None: ...

    known = option_names(command)
    assert known == {"no-fast", "fast", "slow"}
    told = [{"fast": False, "slow": True}]
    assert config.switched(["--slow"], [], told, known) == ["--slow", "--no-fast"]
    assert config.switched(["--slow"], ["--fast"], told, known) == ["--slow"]
    two = [{"fast": True}, {"fast": False}]  # the file that was named last comes first
    assert config.switched(["--fast"], [], two, known) == []
    assert config.switched([], ["--no-fast"], two, known) == ["--no-fast"]


def test_every_command_takes_a_file(tmp_path, job, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["split", "--data", str(job.data), "--fraction", "0.2", "--seed", "5"])
    main(["split", "--config", "split.json", "--out", "again.json"])
    first, again = (
        json.loads((tmp_path / name).read_text())
        for name in ("split.json", "again.json")
    )
    assert again == first
    assert first["options"]["fraction"] == 0.2
    (tmp_path / "r.toml").write_text('name = "lttu"\n')
    assert "unknown recipe 'lttu'" in refused(capsys, ["recipe", "--config", "r.toml"])
    (tmp_path / "r.toml").write_text('name = "lttu"\nlist = true\n')
    main(["recipe", "--config", "r.toml"])
    assert "2 cores" in capsys.readouterr().out
    (tmp_path / "c.json").write_text('{"classes": [0, 1], "kind": "class"}')
    main(["split", "--data", str(job.data), "--config", "c.json", "--out", "c2.json"])
    assert json.loads((tmp_path / "c2.json").read_text())["classes"] == [0, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "epoch = 3", "'epoch' is no option here; did you mean epochs"),
        ("a.toml", "[step]\nlerning-rate = 3", "did you mean learning-rate"),
        ("a.json", '{"options": {"zzz": 1}}', "'zzz' is no option here; leave it"),
        ("a.json", '{"command": "train"}', "a.json is of `jax-unlearn train`; give"),
        ("a.toml", "rewind = true", "--rewind is read with --method scrub"),
        ("a.toml", "seed = 1\n[x]\nseed = 2", "gives 'seed' twice"),
        ("a.toml", "seed = 2020-01-01", "seed='2020-01-01' is no number, text or"),
        ("a.toml", "seed = ", "is not TOML"),
        ("a.json", "[1]", "must be an object"),
        ("a.yaml", "seed: 1", "is neither .json nor .toml"),
        ("a.toml", "keep = 2.0", "keep=2.0 must lie in (0, 1]"),
        ("a.toml", None, "No such file"),
    ],
)
def test_files_that_say_no_options(job, tmp_path, capsys, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    words = unlearn(job, tmp_path / "out", "--config", tmp_path / name)
    assert message in refused(capsys, words)
    assert not (tmp_path / "out").exists()
    assert "names no file" in refused(capsys, ["split", "--config"])


def test_words_and_options_are_merged():
    told = {"a-b": 1, "c": [1, -2], "d": True, "e": False, "f": None, "g": "x y"}
    words = config.merged(["--a_b=2", "--z"], told, "split", False)
    assert words == ["--c", "1", "-2", "--d", "--g=x y", "--a_b=2", "--z"]
    words = config.merged(["salun", "--z"], {"method": "ssd"}, "unlearn", True)
    assert words == ["salun", "--z"]
    assert config.merged([], {"name": "ltu"}, "recipe", False) == ["ltu"]


def test_the_tables_of_commands_are_those_of_all_commands():
    listed = cli._commands(["--help"], [])[1]
    assert set(cli.COMMANDS) == set(listed)
    for name, command in listed.items():
        asked = cli._commands([name], [])[1][name]
        for one in (command, asked):
            assert "habits" in inspect.signature(one).parameters
