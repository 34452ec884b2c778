"""What all commands have: `--config`, `--json`, and a record of their options."""

import contextlib
import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from jax_unlearn.cli.config import COMMAND, OPTIONS, merged
from jax_unlearn.cli.messages import begin
from jax_unlearn.lab.results import to_json

__all__ = ["Habits", "asked_options", "asked_words", "option_names", "with_habits"]


@dataclasses.dataclass(frozen=True)
class Habits:
    """What every command is told.

    Attributes:
      config: file of options by their names (.toml or .json), or the record.json of a
        run, to make the same again. Options of the command line win.
      json: write one JSON object to standard output, and all else to standard error.
    """

    config: Path | None = None
    json: bool = False


_RUNNING = ("out", "overwrite", "resume", "save-every", "log", "config", "json")
"""Options that say how a run goes, not what it makes."""

_HINT = tyro.conf.arg(  # defaults that only say that an option is not given
    help_behavior_hint=lambda text: (
        "" if text in ("None", "False", "", "''") else f"(default: {text})"
    )
)
_GENERAL = tyro.conf.arg(name="general", help="Options that every command has.")
_ASKED: ContextVar[dict[str, Any] | None] = ContextVar("asked", default=None)


def asked_options() -> dict[str, Any]:
    """Return what a record says of the command that made it: `--config` reads it."""
    return dict(_ASKED.get() or {})


def asked_words(*without: str) -> list[str]:
    """Return the words of the command that runs, but for some options."""
    told = asked_options()
    options = told.get(OPTIONS, {})
    left = {k: v for k, v in options.items() if v != [] and k not in without}
    return [told[COMMAND], *merged([], left, told[COMMAND], placed=False)]


def with_habits(
    name: str, command: Callable[..., Any], *, brief: bool = False
) -> Callable[..., None]:
    """Return a command that is told the habits too, and keeps them from the other.

    `brief` keeps of its docstring the first line, for the list of all commands.
    """
    signature = inspect.signature(command)
    kinds = _hinted(get_type_hints(command, include_extras=True))

    @functools.wraps(command)
    def run(habits: Habits, **given: Any) -> None:
        begin()
        leaves = [
            leaf
            for key, value in given.items()
            for leaf in _leaves(key, kinds.get(key, Any), value)
        ]
        options = {
            key: _plain(value)
            for key, value in leaves
            if value is not None and key not in _RUNNING
        }
        told = {"command": name, "options": options}
        token = _ASKED.set(told)
        try:
            if not habits.json:
                command(**given)
                return
            with contextlib.redirect_stdout(sys.stderr):
                found = command(**given)
            print(to_json({**told, **(found or {})}), end="")
        finally:
            _ASKED.reset(token)

    told = command.__doc__ or ""
    run.__doc__ = told.partition("\n")[0] if brief else _unbroken(told)
    own = inspect.Parameter(
        "habits",
        inspect.Parameter.KEYWORD_ONLY,
        default=Habits(),
        annotation=_hinted({"": Annotated[Habits, _GENERAL]})[""],
    )
    every = [*signature.parameters.values(), own]
    run.__signature__ = signature.replace(parameters=every)  # type: ignore
    if hasattr(run, "__wrapped__"):
        del run.__wrapped__  # the parser would read the annotations there
    run.__annotations__ = {**kinds, "habits": own.annotation}
    return run


def _unbroken(text: str) -> str:
    r"""Return a docstring, each paragraph and each argument on a line; help wraps it.

    >>> _unbroken("One\ntwo.\n\nArgs:\n  a: three\n    .npz")
    'One two.\n\nArgs:\n  a: three .npz'
    """
    return re.sub(r"(?<=\S)\n(?:(?=\S)| {4,})", " ", inspect.cleandoc(text))


def _hinted(kinds: dict[str, Any]) -> dict[str, Any]:
    """Return types of options, those inside dataclasses too, that `--help` explains."""
    made = {}
    for name, kind in kinds.items():
        plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        if dataclasses.is_dataclass(plain):
            plain.__annotations__ = _hinted(get_type_hints(plain, include_extras=True))
        elif _HINT not in getattr(kind, "__metadata__", ()):
            kind = Annotated[kind, _HINT]
        made[name] = kind
    return made


def option_names(command: Callable[..., Any]) -> set[str]:
    """Return the names of a command's options as the command line has them.

    A flag that is on by default is there by its name and by the word that puts it off.
    """
    kinds = get_type_hints(command, include_extras=True)
    found = set()
    for name in inspect.signature(command).parameters:
        leaves = _leaves(name, kinds.get(name, Any), False)
        found |= {form for o, _ in leaves for form in (o, o.removeprefix("no-"))}
    return found


def _leaves(name: str, kind: Any, value: Any = None) -> Iterator[tuple[str, Any]]:
    """Yield the options that a parameter stands for, with their values."""
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        named = [note.name for note in notes if getattr(note, "name", None)]
        name = named[0] if named else name
        yield from _leaves(name, kind, value)
    elif dataclasses.is_dataclass(kind):
        kinds = get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            own = value if value is False else getattr(value, field.name, None)
            if own is False and field.default is True:  # the flag that says so
                yield f"no-{field.name}".replace("_", "-"), True
                continue
            yield from _leaves(field.name, kinds[field.name], own)
    else:
        yield name.replace("_", "-"), value


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, bool | int | float | str) else str(value)
