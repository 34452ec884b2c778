"""The ledger says what was done, and shows when it was touched."""

import hashlib
import json

import pytest

from jax_unlearn.errors import InputError
from jax_unlearn.lab import ledger


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "ledger.jsonl"
    for count in (5, 7, 9):
        ledger.append(path, {"forgotten": count})
    return path


def test_lines_are_sealed_by_the_next(path):
    lines = path.read_bytes().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["forgotten"] for entry in entries] == [5, 7, 9]
    assert [entry["number"] for entry in entries] == [1, 2, 3]
    assert entries[2]["previous"] == hashlib.sha256(lines[1]).hexdigest()
    assert ledger.read(path) == entries


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda rows: [rows[0].replace(b"5", b"6", 1), *rows[1:]], 2),
        (lambda rows: [rows[0], rows[2]], 2),
        (lambda rows: rows[1:], 1),
        (lambda rows: [rows[1], rows[0], rows[2]], 1),
        (lambda rows: [*rows[:2], b"[]"], 3),
        (lambda rows: [*rows[:2], b"{"], 3),
        (lambda rows: [*rows, rows[2]], 4),
    ],
)
def test_the_first_broken_line_is_named(path, change, line):
    rows = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(change(rows)) + b"\n")
    with pytest.raises(InputError, match=f"line {line} "):
        ledger.read(path)
    kept = path.read_bytes()
    with pytest.raises(InputError, match=f"line {line} "):
        ledger.append(path, {"forgotten": 1})
    assert path.read_bytes() == kept


def test_a_line_cut_short_is_told(path):
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="line 3 was cut short"):
        ledger.read(path)


def test_what_cannot_be_written_or_read(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        ledger.read(tmp_path / "none")
    with pytest.raises(InputError, match="'number'"):
        ledger.append(tmp_path / "l", {"number": 3})
    with pytest.raises(InputError, match="cannot write"):
        ledger.append(tmp_path / "no" / "l", {"a": 1})
