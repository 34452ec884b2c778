"""Parts of an ensemble, each a process or a machine of its own, and their union.

A part makes whole chunks: models that are made in one program get bits that depend on
how many they are, so that the union is what one run of the same chunks makes.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta

from jax_unlearn.data import read_json, write_atomic
from jax_unlearn.errors import InputError
from jax_unlearn.lab import schema

__all__ = ["CHUNK", "Complete", "EnsemblePart", "chunk_of", "keep", "missing_parts"]
__all__ += ["recorded"]

RECORD = "part.json"  # of a part that is complete, in its folder of `parts`
CHUNK = 16  # models in one program, where nothing else is asked for

Positive = Annotated[int, Meta(ge=1, lt=2**31)]


class EnsemblePart(NamedTuple):
    """The number-th of so many parts, counted from 1."""

    number: int
    parts: int

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"

    @classmethod
    def of(cls, text: str) -> "EnsemblePart":
        """Return the part that "3/8" names.

        >>> EnsemblePart.of("3/8")
        EnsemblePart(number=3, parts=8)
        >>> EnsemblePart.of("9/8")
        Traceback (most recent call last):
        jax_unlearn.errors.InputError: part='9/8': name one of the parts 1/8 to 8/8
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if found is None or not int(found[2]):
            raise InputError(f"part={text!r}: name the third of eight parts as 3/8")
        part = cls(int(found[1]), int(found[2]))
        if not 1 <= part.number <= part.parts:
            raise InputError(
                f"part={text!r}: name one of the parts 1/{part.parts} to "
                f"{part.parts}/{part.parts}"
            )
        return part

    def folder(self, out: Path) -> Path:
        """Return the folder of its lock and its record."""
        return out / "parts" / f"{self.number}-of-{self.parts}"

    def numbers(self, count: int, chunk: int) -> list[int]:
        """Return the numbers of its models: whole chunks that follow each other.

        >>> [EnsemblePart(i, 3).numbers(8, 2) for i in (1, 2, 3)]
        [[0, 1, 2, 3], [4, 5], [6, 7]]
        """
        chunks = -(-count // chunk)
        if chunks < self.parts:
            raise InputError(
                f"part={self}: {count} models in chunks of {chunk} make {chunks} parts "
                f"at most; ask for fewer parts"
                + ("" if chunk == 1 else f", or give --chunk {chunk_of(count, self)}")
            )
        own = np.array_split(np.arange(chunks), self.parts)[self.number - 1]
        return list(range(own[0] * chunk, min((own[-1] + 1) * chunk, count)))


def chunk_of(count: int, part: EnsemblePart | None) -> int:
    """Return how many models a program makes: a part's share, if that is fewer.

    >>> (
    ...     chunk_of(64, None),
    ...     chunk_of(64, EnsemblePart(1, 8)),
    ...     chunk_of(10, EnsemblePart(1, 8)),
    ... )
    (16, 8, 1)
    """
    if part is None:
        return CHUNK
    share = -(-count // part.parts)
    if -(-count // max(share, 1)) < part.parts:  # the last parts would have none
        share = count // part.parts
    return min(CHUNK, max(share, 1))


class Complete(NamedTuple):
    """What is written of a complete part: what all parts share, and how to call it."""

    parts: Positive
    models: Positive
    chunk: Positive
    how: str
    methods: list[str]
    words: list[str]  # of the command, but for its part and its folder

    def call(self, *words: object) -> str:
        """Return the command with some words more."""
        return shlex.join(["jax-unlearn", *self.words, *map(str, words)])

    def asked(self, *without: str) -> list[str]:
        """Return the words that name data and request, but for some options.

        >>> words = ["ensemble", "--data=a.npz", "--methods", "FT", "GA", "--how=map"]
        >>> Complete(2, 8, 4, "map", ["FT", "GA"], words).asked()
        ['--data=a.npz']
        """
        left, kept = [], False
        for word in self.words:
            if word.startswith("--"):
                name = word.partition("=")[0].removeprefix("--")
                kept = name not in (*self._fields, *without)
            left += [word] * kept
        return left


def keep(out: Path, part: EnsemblePart, complete: Complete) -> None:
    """Write that a part is complete."""
    text = json.dumps(complete._asdict())
    write_atomic(part.folder(out) / RECORD, text, overwrite=True)


def recorded(folders: Sequence[Path]) -> tuple[Complete | None, dict[int, Path]]:
    """Return what the parts in some folders share, and the folders of the complete.

    Raises:
      InputError: a folder that is missing, or parts of different ensembles.
    """
    shared, found = None, {}
    for folder in folders:
        if not (folder / "models").is_dir():
            raise InputError(
                f"{folder} holds no models; give folders of `jax-unlearn ensemble`"
            )
        for path in sorted((folder / "parts").glob(f"*/{RECORD}")):
            own = schema.read(Complete, read_json(path), name=str(path))
            same = shared is None or own[:5] == shared[:5]
            if not same:
                raise InputError(
                    f"{path} is a part of another ensemble than the part in "
                    f"{next(iter(found.values()))} (parts, models, chunk, how or "
                    "methods differ); leave one of them out"
                )
            shared = shared or own
            found[int(path.parent.name.partition("-")[0])] = folder
    return shared, found


def missing_parts(
    shared: Complete | None,
    found: Mapping[int, Path],
    missing: Mapping[str, Sequence[int]],
    folders: Sequence[Path],
) -> InputError:
    """Return the error that names what is missing, and the commands that make it."""
    numbers = sorted({number for own in missing.values() for number in own})
    if shared is None:
        return InputError(
            f"models {_listed(numbers)} of {', '.join(missing)} are missing; "
            "give the command with --out and without --join to make them"
        )
    if numbers[-1] >= shared.models:  # more were asked for than the parts have
        return InputError(
            f"models {_listed(numbers)} are not among the {shared.models} that "
            "the parts make; leave --models out"
        )
    commands, names = [], []
    for number in range(1, shared.parts + 1):
        part = EnsemblePart(number, shared.parts)
        if set(part.numbers(shared.models, shared.chunk)) & set(numbers):
            first = folders[0]
            usual = first if len(folders) == 1 else first.with_name(f"part-{number}")
            own = found.get(number, usual)
            commands.append(shared.call("--part", part, "--out", own))
            names.append(str(part))
    return InputError(
        f"part {', '.join(names)} missing (models {_listed(numbers)}); make "
        f"{'it' if len(names) == 1 else 'them'} by: {'; '.join(commands)}"
    )


def _listed(numbers: Sequence[int]) -> str:
    """Return numbers as one says them, ranges shortened."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)
