"""A ledger of forget requests: append-only lines of JSON, each sealed by the next.

A line holds its number, when it was written, the SHA-256 of the line before, and what
was done. Nothing is rewritten: a line changed, lost or added in between breaks the seal
of the next one. It does not protect the last line, nor against whoever writes the whole
file anew.
"""

import datetime
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from jax_unlearn.errors import InputError

__all__ = ["append", "read"]

FIRST = "0" * 64  # what the first line has instead of the digest of one before
OWN = ("number", "time", "previous")


def append(path: str | os.PathLike[str], entry: dict[str, Any]) -> dict[str, Any]:
    """Write one more line, and return it, on the disk then."""
    taken = [name for name in OWN if name in entry]
    if taken:
        raise InputError(f"entry has {taken[0]!r}, which the ledger writes; rename it")
    lines = _lines(Path(path)) if Path(path).exists() else []
    _verified(Path(path), lines)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made = {
        "number": len(lines) + 1,
        "time": now,
        "previous": _digest(lines[-1]) if lines else FIRST,
        **entry,
    }
    text = json.dumps(made, sort_keys=True, allow_nan=False) + "\n"
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"cannot write ledger {path}: {error.strerror}; free some space or choose "
            "another folder"
        ) from error
    return made


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the entries of a ledger, all seals checked."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"ledger {path} does not exist; check the path")
    return _verified(file, _lines(file))


def _lines(path: Path) -> list[bytes]:
    """Return the lines; the last one must be whole."""
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        number = text.count(b"\n") + 1
        raise InputError(
            f"ledger {path}: line {number} was cut short while it was written; take it "
            "out, and do its request again"
        )
    return text.split(b"\n")[:-1]


def _verified(path: Path, lines: list[bytes]) -> list[dict[str, Any]]:
    entries, previous = [], FIRST
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            follows = entry["number"] == number and entry["previous"] == previous
        except (ValueError, KeyError, TypeError, RecursionError):
            follows, entry = False, None
        if not follows:
            raise InputError(
                f"ledger {path}: line {number} is not what was written there, or the "
                "one before it is not; take another copy"
            )
        entries.append(entry)
        previous = _digest(line)
    return entries


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
