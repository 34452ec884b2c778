"""Settings, records and results are read by one schema, and refused in one line."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pytest

from jax_unlearn.errors import InputError
from jax_unlearn.lab import schema


class Point(NamedTuple):
    x: schema.Finite
    y: float = 0.5


@dataclasses.dataclass(frozen=True)
class Clip:
    norm: schema.Positive


@dataclasses.dataclass(frozen=True)
class Noise:
    scale: schema.NotNegative = 1.0


class Curve(msgspec.Struct, frozen=True):
    points: Annotated[list[Point], msgspec.Meta(min_length=1)]
    klass: int = msgspec.field(name="class", default=0)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the tests read."""

    method: Literal["salun", "scrub"]
    steps: Annotated[int, msgspec.Meta(ge=1)] = 5
    rates: tuple[float, ...] = (0.1,)
    shape: tuple[int, int] | None = None
    rest: Clip | Noise | None = None
    curves: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
    notes: dict[str, Any] | None = None
    parts: dict[Literal["head", "tail"], float] | None = None
    flag: bool = False

    def __post_init__(self):
        if self.steps == 13:
            raise InputError("steps=13 brings bad luck; try 12")
        if self.steps == 31:
            raise schema.FieldError("steps=31 is 13 read backwards; try 12")


def read(value, **options):
    return schema.read(Setting, value, name="setting", **options)


WHOLE = {
    "method": "salun",
    "steps": 7,
    "rates": [1, 0.5],
    "shape": [2, 3],
    "rest": {"scale": 2},
    "curves": {"a": {"points": [{"x": 1.0}, {"x": 2, "y": 3}], "class": 4}},
    "notes": {"any": [None]},
    "flag": True,
}


def test_values_become_what_the_class_says():
    setting = read(WHOLE)
    assert setting == Setting(
        "salun",
        7,
        (1.0, 0.5),
        (2, 3),
        Noise(2.0),
        {"a": Curve([Point(1.0), Point(2.0, 3.0)], 4)},
        {"any": [None]},
        flag=True,
    )
    assert read({"method": "scrub"}) == Setting("scrub")
    assert read(setting) is setting
    assert read({"method": "scrub", "rest": {"norm": 1}}).rest == Clip(1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ([], "setting=[] must be an object, not a list"),
        ({"method": ...}, "setting.method is missing"),
        (
            {"method": "salum"},
            "setting.method='salum' must be one of salun, scrub; did ",
        ),
        ({"method": 3}, "setting.method=3 must be text, not a whole number"),
        ({"steps": 0}, "setting.steps=0 must be a whole number >= 1"),
        ({"steps": 2.5}, "setting.steps=2.5 must be a whole number, not a number"),
        ({"steps": True}, "setting.steps=True must be a whole number, not true or"),
        ({"steps": 13}, "setting: steps=13 brings bad luck; try 12"),
        ({"steps": 31}, "setting.steps=31 is 13 read backwards; try 12"),
        ({"parts": {"head": "x"}}, "setting.parts.head='x' must be a number, not text"),
        (
            {"parts": {"hed": 1}},
            "setting.parts.hed='hed' must be one of head, tail; did",
        ),
        ({"stepz": 3}, "setting.stepz is unknown; did you mean 'steps'?"),
        ({"a\nb" * 40: 3}, "is unknown; leave it out"),
        (
            {"rates": [0.1, "a\nb"]},
            "setting.rates[1]='a\\nb' must be a number, not text",
        ),
        ({"rates": 3}, "setting.rates=3 must be a list, not a whole number"),
        ({"shape": [1]}, "setting.shape=[...] must be a list of length 2, not 1"),
        ({"rest": {"norm": -1}}, "setting.rest.norm=-1 must be a number > 0"),
        ({"rest": {"scale": -1}}, "setting.rest.scale=-1 must be a number >= 0"),
        ({"rest": 3}, "setting.rest=3 must be an object, not a whole number"),
        ({"curves": {"b": {"points": []}}}, "curves.b.points=[] must be a list of len"),
        (
            {"curves": {"b": {"points": [{}]}}},
            "setting.curves.b.points[0].x is missing",
        ),
        (
            {"curves": {"b": {"points": [{"x": math.inf}]}}},
            "setting.curves.b.points[0].x=inf must be a number that is finite",
        ),
        (
            {"curves": {"b": {"points": [{"x": math.nan}]}}},
            "setting.curves.b.points[0].x=nan must be a number that is finite",
        ),
        (
            {"curves": {"b": {"points": [{"x": 10**5000}]}}},
            "points[0].x=(a number of thousands of digits) must be",
        ),
        ({"notes": [1]}, "setting.notes=[...] must be an object, not a list"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(change, said):
    value = change
    if isinstance(change, dict):
        value = {k: v for k, v in (WHOLE | change).items() if v is not ...}
    with pytest.raises(InputError) as caught:
        read(value)
    assert said in str(caught.value)
    assert str(caught.value).startswith("setting")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    with pytest.raises(InputError, match="; train it anew$"):
        read(value, remedy="train it anew")


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    x: int = 0


def test_unknown_fields_are_passed_over_where_asked():
    with pytest.raises(InputError, match="strict.y is unknown; leave it out"):
        schema.read(Strict, {"y": 1}, name="strict", lenient=True)
    more = {**WHOLE, "newer": 1, "rest": {"scale": 2, "newer": 1}}
    assert read(more, lenient=True) == read(WHOLE)
    with pytest.raises(InputError, match="setting.steps='7' must be a whole number"):
        read({**more, "steps": "7"}, lenient=True)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.toml", "a =", "is not TOML"),
        ("a.toml", b"\xff", "is not TOML"),
        ("a.toml", "steps = 3", "a.toml: method is missing"),
        (
            "a.json",
            '{"method": "salun", "steps": 13}',
            "a.json: content: steps=13 brings bad",
        ),
        ("a.json", '{"method": "salun", "steps": 31}', "a.json: steps=31 is 13 read"),
        ("a.json", "[]", "a.json: content=[] must be an object"),
        ("a.yaml", "", "is neither .json nor .toml"),
        ("none.toml", None, "cannot read path="),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, text, said):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        schema.read_file(Setting, path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_toml_and_json_say_the_same(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(WHOLE | {"notes": {}}))
    (tmp_path / "a.toml").write_text(
        'method = "salun"\nsteps = 7\nrates = [1, 0.5]\nshape = [2, 3]\nflag = true\n'
        "[rest]\nscale = 2\n[notes]\n[curves.a]\nclass = 4\n"
        "points = [{x = 1.0}, {x = 2, y = 3}]\n"
    )
    one, other = (
        schema.read_file(Setting, tmp_path / f"a.{s}") for s in ("json", "toml")
    )
    assert one == other == read(WHOLE | {"notes": {}})
