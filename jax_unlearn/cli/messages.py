"""Messages in the words of the command line, and in signs that any terminal has."""

import ast
import codecs
import contextlib
import difflib
import io
import re
import sys
import unicodedata
import warnings
from collections.abc import Collection, Container, Iterator
from typing import Any, TextIO, cast

from jax_unlearn.errors import InputError

__all__ = ["SIGNS", "begin", "headed", "parsing_as_lines", "refused", "spoken"]
__all__ += ["warn", "warnings_as_lines", "write_everywhere"]

_GIVEN = re.compile(
    r"""(?<![\w.\-/'"=])          # no attribute, no part of a path or an option
    ([a-z][a-z0-9_]*)=
    (True\b|False\b|None\b|\((?:[^()]*)\)|\[(?:[^\[\]]*)\])?""",
    re.VERBOSE,
)
_ELSE = {
    "name": "dataset",
    "num_train_timesteps": "timesteps",
    "block_out_channels": "widths",
}
"""Options whose settings have another name in the library."""


def spoken(text: str, options: Container[str]) -> str:
    """Return a message whose `name=value` is `--name=value` where it is an option.

    >>> spoken("give download=True, or data_dir=None", {"download", "data-dir"})
    'give --download, or no --data-dir'
    >>> spoken("learning_rate=0.0 must be positive; a.seed=1", {"learning-rate"})
    '--learning-rate=0.0 must be positive; a.seed=1'
    >>> spoken("forget=('0', '3'): nothing is left", {"forget"})
    '--forget 0 3: nothing is left'
    """

    def option(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        flag = _ELSE.get(name, name).replace("_", "-")
        if flag not in options:
            return found[0]
        if value is None:
            return f"--{flag}="
        if value == "True":
            return f"--{flag}"
        entries = _entries(value)
        if entries is None:
            return f"--{flag}={value}"
        return " ".join((f"--{flag}", *entries)) if entries else f"no --{flag}"

    return _GIVEN.sub(option, text)


def warn(text: object) -> None:
    """Write a warning as one line to the errors."""
    print(_line(text), file=sys.stderr)


@contextlib.contextmanager
def warnings_as_lines(options: Container[str]) -> Iterator[None]:
    """Let Python's warnings, of the library or below it, look like those of `warn`."""
    before = warnings.formatwarning

    def formatted(message: Warning | str, *place: object) -> str:
        return f"{_line(spoken(str(message), options))}\n"

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = before


class _Headed:
    """A stream on which the list of commands has a heading of its own."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(text.replace("(required)", "commands: "))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def headed() -> Iterator[None]:
    """Put a heading where the parser calls a command required: none is, for `demo`."""
    with contextlib.redirect_stdout(cast(TextIO, _Headed(sys.stdout))):
        yield


class _Held(io.StringIO):
    """What is said to the errors before a command begins, and where it is to go."""

    def __init__(self, errors: TextIO):
        super().__init__()
        self.to = errors


def begin() -> None:
    """Let go of what was held back: the words were read, the command begins."""
    if isinstance(held := sys.stderr, _Held):
        sys.stderr = held.to
        sys.stderr.write(held.getvalue())


@contextlib.contextmanager
def parsing_as_lines(command: str, options: Collection[str]) -> Iterator[None]:
    """Let what the parser refuses be an `InputError`: one line, like every other."""
    held = sys.stderr = _Held(sys.stderr)
    try:
        yield
    except SystemExit as end:
        if end.code != 2 or sys.stderr is not held:
            raise
        told = held.getvalue()
        held.truncate(0)
        raise InputError(refused(told, command, options)) from None
    finally:
        begin()


def refused(box: str, command: str, options: Collection[str]) -> str:
    r"""Return in a line what the parser says in a box of several.

    >>> box = "Unrecognized options \n -- \n Unrecognized options: --epoch, 3 \n --"
    >>> refused(box, "train", {"epochs", "seed"})
    '--epoch: no option of train; did you mean --epochs?'
    """
    lines = [line.strip("│╭╰╮╯─ ") for line in box.splitlines()]
    lines = ["" if not line.strip("-") else line for line in lines]
    title, *body = [line for line in lines if line] if box.strip() else [""]
    text = " ".join(body)
    more = f"see `jax-unlearn {command} --help`"
    if "Unrecognized options:" in text:  # what is missing is told beside it
        word = text.partition("Unrecognized options: ")[2].split(",")[0].split(" ")[0]
        if not word.startswith("-"):
            return f"{word!r} belongs to no option of {command}; {more}"
        near = difflib.get_close_matches(word.strip("-").split("=")[0], options, n=1)
        hint = f"did you mean --{near[0]}?" if near else more
        return f"{word}: no option of {command}; {hint}"
    if flag := re.search("argument '?(--[a-z-]+)", text):
        return f"{flag[1]} has no value; give one, {more}"
    if title.startswith("Required"):
        # not a line of help that happens to begin with the name of another option
        asked = [line for line in body if re.match(r"--[\w-]+(?: [A-Z\[{]|$)", line)]
        return (
            f"{command} needs {', '.join(asked)}; give {'them' if asked[1:] else 'it'}"
        )
    found = re.search(r"Error parsing (--[\w-]+): (.*?)(?: Argument helptext:|$)", text)
    if found:
        said = re.sub(
            "could not convert string to float: (.*)", r"\1 is no number", found[2]
        )
        whole = r"invalid literal for int\(\) with base 10: (.*)"
        said = re.sub(whole, r"\1 is no whole number", said)
        return f"{found[1]}: {said}; {more}"
    return text.partition(" For full helptext")[0] or more


def _line(text: object) -> str:
    return f"jax-unlearn: warning: {' '.join(str(text).split())}"


def _entries(value: str) -> list[str] | None:
    """Return what a list or a tuple holds, none of False; None if it cannot be read."""
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return None
    return [str(entry) for entry in found] if isinstance(found, list | tuple) else []


SIGNS = dict(zip("·•–—−×●○←→≤≥⁄Δ", "**---x*o<><>/D", strict=True)) | {"±": "+-"}
"""What stands for signs that an encoding lacks: mostly one, which keeps tables even."""


def write_everywhere() -> None:
    """Let standard output and errors write what their encoding lacks in plain signs."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what stands for a sign that cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign, end = error.object[error.start], error.start + 1
    if "\udc80" <= sign <= "\udcff":  # a byte of a file's name
        return bytes([ord(sign) - 0xDC00]), end
    parts = unicodedata.normalize("NFKD", sign)
    text = "".join(SIGNS.get(c, c) for c in parts if not unicodedata.combining(c))
    if not text.isascii():
        words = unicodedata.name(text[0], "").lower().split()
        text = words[-1] if "greek" in words else "?"
    return text, end
