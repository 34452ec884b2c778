"""The help of every command has an example, and the examples work when pasted."""

import re
import shlex

import pytest

from jax_unlearn.cli import COMMANDS, main

# What makes those that run here small; the others are compared with their options.
SMALL = {
    "split": [],
    "train": ["--network", "linear", "--epochs", "1"],
    "unlearn": ["--epochs", "1"],
    "export": [],
    "import": ["--network", "linear"],
    "audit": [],
    "report": [],
    "methods": [],
}


@pytest.fixture
def shown(capsys, monkeypatch):
    """Return the help of a command, and its examples as words."""
    monkeypatch.setenv("COLUMNS", "100")

    def read(name):
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        told = text.split("options ─")[0]
        assert told.count("Example") == 1
        found = re.findall(r"`jax-unlearn ([^`]*)`", told.partition("Example")[2])
        return text, [shlex.split(words) for words in found]

    return read


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_of_its_options(shown, name):
    text, found = shown(name)
    assert "general options" in text
    (own,) = [words for words in found if words[0] == name]
    for word in own:
        if word.startswith("--"):
            assert f" {word} " in text.partition("general options")[0], word


def test_the_examples_work_one_after_the_other(shown, tmp_path, monkeypatch):
    commands = [next(w for w in shown(name)[1] if w[0] == name) for name in SMALL]
    monkeypatch.chdir(tmp_path)
    for words in commands:
        main([*words, *SMALL[words[0]]])
    made = {path.name for path in tmp_path.iterdir()}
    assert {"original", "unlearned", "imported", "weights.safetensors"} <= made
    assert {"split.json", "audit.json", "report.html"} <= made


def test_the_list_of_commands_says_each_in_a_line(shown, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in COMMANDS:
        assert f"• {name} " in text
    assert "Example" not in text
    assert "commands:" in text
    assert "(required)" not in text  # without one, `demo` runs
