"""The help of every command has an example, and the examples work when pasted."""

import json
import re
import shlex
from pathlib import Path

import pytest

from jax_unlearn.cli import COMMANDS, choices, habits, main, recipe, sources
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS
from jax_unlearn.lab.modalities import MODALITIES, modality_named
from jax_unlearn.recipes import study

ROOT = Path(__file__).parents[2]
KINDS = {"jax_unlearn/diffusion": "diffusion", "jax_unlearn/language": "language"}

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


# An entry of the list of options that only goes on from the option's name.
FRAGMENT = re.compile(
    r"^│ (?:--|\[)\S.*?(?:  +|\n│ {9,})(?:of|to|by|at|from|with|in|on|likewise)\b.*",
    re.MULTILINE,
)


@pytest.fixture
def drawn(capsys, monkeypatch):
    """Return the help of a command as it is printed."""
    monkeypatch.setenv("COLUMNS", "100")

    def read(*words):
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert caught.value.code == 0
        return capsys.readouterr().out

    return read


@pytest.fixture
def shown(drawn):
    """Return the help of a command, and its examples as words."""

    def read(name):
        text = " ".join(drawn(name).replace("│", " ").split())
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


def helps():
    """Return words whose help shows every option: a card of each class of options."""
    yield from ([name] for name in COMMANDS)
    for kind in ("diffusion", "language"):
        yield from ([name, "--modality", kind] for name in ("train", "audit"))
    for card in {card.options: card for card in METHODS.values()}.values():
        kinds = (kind for kind in MODALITIES if set(card.roles) <= kind.roles)
        yield ["unlearn", card.name, "--modality", next(kinds).name]
    for card in {card.options: card for card in WEIGHTINGS.values()}.values():
        kind = ["--modality", "language"] if card.reads == "tokens" else []
        yield ["unlearn", "npo" if kind else "salun", "--weighting", card.name, *kind]


@pytest.mark.parametrize("words", list(helps()), ids=" ".join)
def test_what_an_option_is_is_said_in_a_whole_phrase(drawn, words):
    assert not FRAGMENT.findall(drawn(*words))


def test_a_phrase_that_goes_on_from_its_option_is_found():
    assert FRAGMENT.findall("│ --seed INT   of the draws. │")
    assert FRAGMENT.findall("│ --seeds [INT [INT ...]]   │\n│              to run. │")
    assert not FRAGMENT.findall("│ --seed INT   seed of the draws. │")


def test_the_examples_work_one_after_the_other(shown, tmp_path, monkeypatch):
    commands = [next(w for w in shown(name)[1] if w[0] == name) for name in SMALL]
    monkeypatch.chdir(tmp_path)
    for words in commands:
        main([*words, *SMALL[words[0]]])
    made = {path.name for path in tmp_path.iterdir()}
    assert {"original", "unlearned", "imported", "weights.safetensors"} <= made
    assert {"split.json", "audit.json", "report.html"} <= made


def test_the_examples_of_long_runs_begin(shown, tmp_path, monkeypatch):
    def begin(*given, **told):
        raise Read

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, "experiment", begin)
    monkeypatch.setattr(study, "experiment", begin)
    for name in ("demo", "recipe"):
        words = next(w for w in shown(name)[1] if w[0] == name)
        with pytest.raises(Read):
            main(words)


def test_the_list_of_commands_says_each_in_a_line(shown, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in COMMANDS:
        assert f"• {name} " in text
    assert "Example" not in text
    assert "commands:" in text
    assert "(required)" not in text  # without one, `demo` runs


class Read(Exception):
    """The words of a command were read, and it would begin."""


def pasted(page):
    """Return the commands of a page's blocks, as a shell reads them."""
    commands = []
    for block in re.findall(
        r"^```\w*\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE
    ):
        variables = dict(re.findall(r'^(\w+)="(.*)"$', block, flags=re.MULTILINE))
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("jax-unlearn"):
                for name, value in variables.items():
                    line = line.replace(f"${name}", value)
                commands.append(shlex.split(line)[1:])
    return commands


@pytest.mark.parametrize("room", [".", "jax_unlearn/cli", *KINDS], ids=str)
def test_the_commands_of_a_page_are_read_as_pasted(room, tmp_path, monkeypatch):
    def begin():
        raise Read

    monkeypatch.setattr(habits, "begin", begin)
    monkeypatch.chdir(tmp_path)
    # what the commands before would have made, as far as options follow from it
    for name in ("original", "model"):
        tmp_path.joinpath(name).mkdir()
        record = {"command": "train", "options": {}}
        tmp_path.joinpath(name, "record.json").write_text(json.dumps(record))
    kind = modality_named(KINDS.get(room, "classification"))
    monkeypatch.setattr(choices, "record_at", lambda path: {})
    monkeypatch.setattr(choices, "kind_of", lambda path, record: kind)
    monkeypatch.setattr(sources, "trained_like", lambda words: None)
    commands = pasted((ROOT / room / "README.md").read_text("utf-8"))
    assert len(commands) > 1
    for words in commands:
        with pytest.raises(Read):
            main(words)
