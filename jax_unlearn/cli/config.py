"""Options from a file: what `--config FILE` holds becomes words of the command line."""

import datetime
import difflib
from collections import ChainMap
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jax_unlearn.cli.sources import reading_of
from jax_unlearn.errors import InputError
from jax_unlearn.lab import schema
from jax_unlearn.lab.settings import Unlearning

__all__ = ["check_known", "made_by", "merged", "options_in", "switched", "taken"]

FLAG = "--config"
OPTIONS, COMMAND = "options", "command"  # keys of what a record says of its making
_MADE = ("unlearning", "training")  # keys of records of models without options
_PLACED = {"recipe": "name"}  # options that are words without a flag


def taken(words: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Return the words without `--config FILE`, and the files."""
    left, files = [], []
    each = iter(words)
    for word in each:
        name, equals, value = word.partition("=")
        if name != FLAG:
            left.append(word)
            continue
        value = value if equals else next(each, "")
        if not value or value.startswith("--"):
            raise InputError("--config names no file; give --config FILE.toml or .json")
        files.append(Path(value))
    return left, files


def made_by(files: Iterable[Path]) -> str | None:
    """Return the command that the last file names, as records do."""
    named = [content.get(COMMAND) for content in map(_content, files)]
    return next((name for name in reversed(named) if isinstance(name, str)), None)


def options_in(file: Path, command: str, commands: Iterable[str]) -> dict[str, Any]:
    """Return the options of a command that a file holds, by their names.

    A table of a command's name is read for that command alone; all other tables are
    headings. A record holds its options under "options".
    """
    content = _content(file)
    made = content.get(COMMAND)
    if isinstance(made, str) and made != command:
        raise InputError(
            f"config={file} is of `jax-unlearn {made}`; give it to that command, or "
            f"write the options of {command} to a file of their own"
        )
    if isinstance(content.get(OPTIONS), Mapping):
        content = content[OPTIONS]
    elif any(isinstance(content.get(name), Mapping) for name in _MADE):
        content = _implied(content)
    elif isinstance(made, str):
        content = {key: value for key, value in content.items() if key != COMMAND}
    found: dict[str, Any] = {}
    others = set(commands) - {command}

    def flatten(table: Mapping[str, Any], top: bool) -> None:
        for key, value in table.items():
            if isinstance(value, Mapping):
                if not (top and key in others):
                    flatten(value, False)
                continue
            name = key.replace("_", "-")
            if name in found:
                raise InputError(f"config={file} gives {name!r} twice; leave one out")
            found[name] = _checked(file, name, value)

    flatten(content, True)
    return found


def merged(
    words: Sequence[str], options: Mapping[str, Any], command: str, placed: bool
) -> list[str]:
    """Return the words with those of the options that they do not give themselves.

    `placed` says whether a first word without a flag names the command's method.
    """
    flags = {word.partition("=")[0].replace("_", "-") for word in words if word[:2]}
    first = words[:1] if words and not words[0].startswith("-") else []
    place = "method" if placed else _PLACED.get(command)
    added: list[str] = []
    for name, value in options.items():
        given = {f"--{name}", f"--no-{name}"} & flags or (name == place and first)
        if given or value is None or value is False:
            continue
        if name == place == _PLACED.get(command):
            first = [str(value)]
        elif value is True:
            added.append(f"--{name}")
        elif isinstance(value, list):
            added += [f"--{name}", *map(str, value)]
        else:
            added.append(f"--{name}={value}")
    off = {f"--no-{name}" for name, value in options.items() if isinstance(value, bool)}
    rest = [word for word in words[len(first) if words[:1] == first else 0 :]]
    return [*first, *added, *(word for word in rest if word not in off)]


def switched(
    words: Sequence[str],
    given: Sequence[str],
    stated: Iterable[Mapping[str, Any]],
    known: Container[str],
) -> list[str]:
    """Return the words with what files say of flags that are on by default.

    Such a flag NAME has but one word, `--no-NAME`; what was `given` by hand wins, then
    the file that stands first in `stated`.
    """
    flags = {word.partition("=")[0].replace("_", "-") for word in given}
    off, on = [], set()
    for name, value in ChainMap(*map(dict, stated)).items():
        if isinstance(value, bool) and f"no-{name}" in known:
            on.add(f"--{name}")
            if f"--no-{name}" in flags or not (value or f"--{name}" in flags):
                off.append(f"--no-{name}")
    return [*(word for word in words if word not in on), *off]


def check_known(file: Path, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are no options of a command, with the nearest ones."""
    known = sorted(known)
    for name in names:
        if name in known or name.removeprefix("no-") in known:
            continue
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "leave it out"
        raise InputError(f"config={file}: {name!r} is no option here; {hint}")


def _content(file: Path) -> Mapping[str, Any]:
    if file.is_dir() and (file / "record.json").is_file():
        file = file / "record.json"
    return schema.read_file(dict[str, Any], file)


def _implied(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the record of a model says, which no command made."""
    found = reading_of(record)
    found |= {"seed": record["seed"]} if "seed" in record else {}
    if isinstance(unlearning := record.get("unlearning"), Mapping):
        flat = Unlearning.read(unlearning).flat().items()
        return found | {k: list(v) if isinstance(v, tuple) else v for k, v in flat}
    return found | dict(record["training"])


def _checked(file: Path, name: str, value: Any) -> Any:
    """Return a value that words can say."""
    for entry in value if isinstance(value, list) else (value,):
        if isinstance(entry, list | Mapping | datetime.date | datetime.time):
            raise InputError(
                f"config={file}: {name}={str(entry)[:40]!r} is no number, text or "
                "true; write it as on the command line"
            )
    return value
