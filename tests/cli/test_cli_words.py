"""Words that the parser cannot read are refused in one line that names them."""

import sys

import pytest

from jax_unlearn.cli import main, messages


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --epochz 3", "--epochz: no option of train; did you mean --epochs?"),
        ("unlearn --split s", "--split: no option of unlearn;"),
        ("report a.json", "'a.json' belongs to no option of report; see `jax-unlearn"),
        ("train --epochs many", "--epochs: 'many' is no whole number; see"),
        ("train --learning-rate fast", "--learning-rate: 'fast' is no number; see"),
        ("split --seed", "--seed has no value; give one"),
        ("unlearn", "unlearn needs --checkpoint PATH, --forget STR; give them"),
        ("train --dataset digits --unseen-fraction 2", "--unseen-fraction=2.0 must be"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(words, said, capsys):
    errors = sys.stderr
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"jax-unlearn: {said}")
    assert told.count("\n") == 1
    assert sys.stderr is errors


def test_what_is_said_before_a_command_begins_is_kept(capsys):
    with messages.parsing_as_lines("train", ()):
        messages.warn("early")
        assert not capsys.readouterr().err
        messages.begin()
        messages.warn("late")
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == [
        "early",
        "late",
    ]


def test_help_is_shown_as_it_is(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["methods", "--help"])
    assert not ended.value.code
    shown = capsys.readouterr()
    assert "--json" in shown.out + shown.err
