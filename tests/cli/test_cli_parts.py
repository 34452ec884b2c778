"""The small functions of the commands, each on a case that can be checked by hand."""

from pathlib import Path

from jax_unlearn.cli.choices import chosen
from jax_unlearn.cli.console import _blocks
from jax_unlearn.cli.messages import _plain
from jax_unlearn.cli.sources import free_path


def test_the_method_is_named_by_its_option():
    words, choice = chosen(["unlearn", "scrub", "--rewind"])
    assert words == ["unlearn", "--rewind", "--method", "scrub"]
    assert (choice.method, choice.modality.name) == ("scrub", "classification")


def test_signs_that_an_encoding_lacks():
    errors = [UnicodeEncodeError("ascii", sign, 0, 1, "") for sign in "é·²ρ…木"]
    plain = [_plain(error)[0] for error in errors]
    assert plain == ["e", "*", "2", "rho", "...", "?"]


def test_columns_are_packed_into_blocks():
    assert _blocks([10, 20, 20, 20], 60) == [[0, 1, 2], [0, 3]]
    assert _blocks([10, 20, 20, 20], 60, 2) == [[0, 1, 2], [0, 1, 3]]


def test_a_path_that_is_free_is_taken():
    assert free_path(Path("surely/not/there")) == Path("surely/not/there")
