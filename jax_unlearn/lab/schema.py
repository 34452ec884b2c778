"""One schema for settings, records and results: typed classes, which files fill.

A class says what a file may hold: a frozen dataclass, a `NamedTuple` or a
`msgspec.Struct`, its fields typed with numbers, text, `Literal`, tuples, mappings,
classes of the same kind, and unions of them. What a type cannot say, `__post_init__`
checks. The same class then reads JSON, TOML and flat values.
"""

import dataclasses
import difflib
import functools
import inspect
import os
import re
import sys
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec

from jax_unlearn.data import files
from jax_unlearn.errors import InputError

__all__ = ["ROUNDING", "TRAIN_ANEW", "WORDS", "Cosine", "FieldError", "Finite"]
__all__ += ["NotNegative", "Percent", "Positive", "Share", "Whole"]
__all__ += ["read", "read_file"]

Kind = TypeVar("Kind")

TRAIN_ANEW = "train it anew with this version"  # remedy for a checkpoint's record
LARGEST = sys.float_info.max
ROUNDING = 1e-6  # by which a mean of floats may leave its range
LONGEST = 40  # characters of a value, or of a key, in a message

Finite = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]
Share = Annotated[float, msgspec.Meta(ge=-ROUNDING, le=1 + ROUNDING)]
Cosine = Annotated[float, msgspec.Meta(ge=-1 - ROUNDING, le=1 + ROUNDING)]
Percent = Annotated[float, msgspec.Meta(ge=-ROUNDING, le=100 + ROUNDING)]
Whole = Annotated[int, msgspec.Meta(ge=0)]


def read(
    kind: type[Kind],
    value: Any,
    *,
    name: str,
    lenient: bool = False,  # passes over unknown fields, as other versions have them
    remedy: str = "",  # by which messages end
) -> Kind:
    """Return a value of a class, made of what JSON or TOML holds; messages name it."""
    try:
        return _read(kind, value, "", lenient)
    except _Flaw as flaw:
        said = flaw.path + flaw.text
        if name.endswith(":"):  # of a file: the path begins with the field
            said = f" {said[1:] if said[0] == '.' else f'content{said}'}"
        raise InputError(f"{name}{said}{remedy and f'; {remedy}'}") from flaw


def read_file(
    kind: type[Kind],
    path: str | os.PathLike[str],
    *,
    lenient: bool = False,
    remedy: str = "",
) -> Kind:
    """Return a value of a class, read from a `.json` or `.toml` file; see `read`."""
    suffix = Path(path).suffix
    if suffix not in (".json", ".toml"):
        raise InputError(
            f"path={path} is neither .json nor .toml; write it as one of them"
        )
    if suffix == ".json":
        value = files.read_json(path)
    else:
        with files.read_as(path, "TOML", "write the file anew"):
            value = tomllib.loads(files.read_file(path).decode())
    return read(kind, value, name=f"path={path}:", lenient=lenient, remedy=remedy)


class FieldError(InputError):
    """What `__post_init__` raises of one field, beginning with the field's name."""


class _Flaw(Exception):
    """What is wrong, where, and whether the fields were those of the class."""

    def __init__(self, path: str, text: str, fits: bool = True):
        super().__init__(path, text)
        self.path, self.text, self.fits = path, text, fits


class _Field(NamedTuple):
    """One field of a class."""

    name: str  # in Python
    key: str  # in a file
    kind: Any
    required: bool


def _read(kind: Any, value: Any, at: str, lenient: bool) -> Any:
    if not _has_parts(kind):
        return _convert(kind, value, at)
    bare = kind.__origin__ if typing.get_origin(kind) is Annotated else kind
    origin, inner = typing.get_origin(bare), typing.get_args(bare)
    if _is_union(bare):
        return _read_union(inner, value, at, lenient)
    if _has_fields(bare):
        return value if isinstance(value, bare) else _make(bare, value, at, lenient)
    # The container first, with anything inside: its type and length.
    keys = (str,) if _is_mapping(origin) else ()
    anything = (*keys, *(i if i is ... else Any for i in inner[len(keys) :]))
    shell, notes = origin[anything], getattr(kind, "__metadata__", ())  # type: ignore
    value = _convert(Annotated[shell, *notes] if notes else shell, value, at)
    if keys:
        return {
            _convert(inner[0], key, at + _key(key)): _read(
                inner[1], entry, at + _key(key), lenient
            )
            for key, entry in value.items()
        }
    each = len(inner) > 1 and inner[-1] is not ...
    kinds = inner if each else inner[:1] * len(value)
    return type(value)(
        _read(k, v, f"{at}[{n}]", lenient)
        for n, (k, v) in enumerate(zip(kinds, value, strict=True))
    )


def _read_union(members: tuple, value: Any, at: str, lenient: bool) -> Any:
    """Return the first that fits; where none does, the nearest one's flaw is told."""
    if value is None and type(None) in members:
        return None
    flaws = []
    for member in members:
        try:
            return _read(member, value, at, lenient)
        except _Flaw as flaw:
            flaws.append(flaw)
    flaws = [f for f, m in zip(flaws, members, strict=True) if m is not type(None)]
    raise max(flaws, key=lambda f: (f.path != at, f.fits, len(f.path)))


def _make(kind: Any, value: Any, at: str, lenient: bool) -> Any:
    """Return an instance of a class with fields."""
    value = _convert(dict[str, Any], value, at)
    fields = {field.key: field for field in _fields(kind)}
    config = getattr(kind, "__struct_config__", None)
    if config is not None and config.forbid_unknown_fields:
        lenient = False
    for key in value if not lenient else ():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "leave it out"
            raise _Flaw(at + _key(key), f" is unknown; {hint}", fits=False)
    given = {}
    for key, field in fields.items():
        if key in value:
            given[field.name] = _read(field.kind, value[key], at + _key(key), lenient)
        elif field.required:
            raise _Flaw(at + _key(key), " is missing", fits=False)
    try:
        return kind(**given)
    except InputError as error:
        joint = "." if isinstance(error, FieldError) else ": "
        raise _Flaw(at, f"{joint}{error}") from error


def _convert(kind: Any, value: Any, at: str) -> Any:
    """Return a number, text, or a container of them, as msgspec takes it."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
    for index in re.findall(r"\d+", place):  # of the entry of a list
        at, value = f"{at}[{index}]", value[int(index)]
    if said.startswith("Invalid enum"):
        names = _names(kind)
        near = difflib.get_close_matches(str(value), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        said = f"{'one of ' * (len(names) > 1)}{', '.join(names)}{hint}"
    said = said.removeprefix("Expected ").replace("Number out of range", "finite")
    said = re.sub(r"[<>]= -?1\.79\d+e\+308", "that is finite", said)
    said = re.sub(NUMBER, lambda found: f"{round(float(found[0]), 5) + 0.0:g}", said)
    said = re.sub(r"\b[a-z]+\b", lambda found: WORDS.get(found[0], found[0]), said)
    said = said.replace("`", "").replace(" | ", " or ").replace(", got ", ", not ")
    raise _Flaw(at, f"={_short(value)} must be {said}")


NUMBER = r"-?\d+\.?\d*(e[+-]?\d+)?"
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
"""What messages call the types of JSON."""


def _names(kind: Any) -> list[str]:
    """Return what the `Literal` in a type allows."""
    if typing.get_origin(kind) is Literal:
        return [str(name) for name in typing.get_args(kind)]
    return [name for inner in typing.get_args(kind) for name in _names(inner)]


def _short(value: Any) -> str:
    """Return a value as text, one short line."""
    if isinstance(value, Mapping | list | tuple) and value:
        return "{...}" if isinstance(value, Mapping) else "[...]"
    try:
        return _cut(repr(value))
    except ValueError:  # an integer of thousands of digits
        return "(a number of thousands of digits)"


def _key(key: Any) -> str:
    return "." + _cut(" ".join(str(key).split()))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


@functools.cache
def _has_fields(kind: Any) -> bool:
    if not isinstance(kind, type):
        return False
    plain = dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)
    return plain or (issubclass(kind, tuple) and hasattr(kind, "_fields"))


@functools.cache  # asked of every number in a file
def _has_parts(kind: Any) -> bool:
    """Whether a type holds objects, so that it is read part by part."""
    whole = _has_fields(kind) or _is_mapping(typing.get_origin(kind))
    return whole or any(map(_has_parts, typing.get_args(kind)))


@functools.cache
def _fields(kind: Any) -> tuple[_Field, ...]:
    if issubclass(kind, msgspec.Struct):
        return tuple(
            _Field(field.name, field.encode_name, field.type, field.required)
            for field in msgspec.structs.fields(kind)
        )
    hints = typing.get_type_hints(kind, include_extras=True)
    return tuple(
        _Field(name, name, hints[name], given.default is given.empty)
        for name, given in inspect.signature(kind).parameters.items()
    )
