"""Checks of what a user chose: one function a rule, one line that names the value.

A concrete number is checked, and NaN breaks every rule; a tracer is not looked at, so
that whole runs can be vmapped over hyper-parameters.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp

from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.types import LossFn, PyTree


def positive(name: str, value: Any, remedy: str = "") -> None:
    """Refuse a number that is not positive and finite."""
    _require(name, value, lambda v: 0 < v < math.inf, "be positive and finite", remedy)


def not_negative(name: str, value: Any, remedy: str = "") -> None:
    """Refuse a number that is negative or infinite."""
    rule = "not be negative or infinite"
    _require(name, value, lambda v: 0 <= v < math.inf, rule, remedy)


def at_least(name: str, value: Any, low: float, remedy: str = "") -> None:
    """Refuse a number below the lowest that makes sense."""
    _require(name, value, lambda v: v >= low, f"be at least {low}", remedy)


def within(name: str, value: Any, interval: str, remedy: str = "") -> None:
    """Refuse a number outside an interval; "[0, 1)" leaves its upper bound out."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))

    def inside(v: Any) -> bool:
        above = low < v if interval[0] == "(" else low <= v
        return above and (v < high if interval[-1] == ")" else v <= high)

    _require(name, value, inside, f"lie in {interval}", remedy)


def fraction(name: str, value: Any, remedy: str = "") -> None:
    """Refuse a number outside (0, 1]."""
    within(name, value, "(0, 1]", remedy)


def share(name: str, value: Any, remedy: str = "") -> None:
    """Refuse a number outside [0, 1)."""
    within(name, value, "[0, 1)", remedy)


def one_of(kind: str, name: Any, names: Iterable[str]) -> None:
    """Refuse a name that is none of those known, with the nearest ones."""
    names = tuple(names)
    if name not in names:
        raise unknown_name(kind, str(name), names)


def choice(name: str, value: Any, *choices: str) -> None:
    """Refuse an option that is none of two or three."""
    if value not in choices:
        *first, last = map(repr, choices)
        raise InputError(f"{name}={value!r}: choose {', '.join(first)} or {last}")


def eval_mode(loss_fn: LossFn) -> None:
    """Refuse an objective in train mode, where samples depend on their batch."""
    if getattr(loss_fn, "train", False):
        raise InputError(
            "loss_fn.train=True: gradients of single samples need eval mode; give "
            "loss_fn._replace(train=False)"
        )


def same_shapes(name: str, tree: PyTree, params: PyTree, remedy: str = "") -> None:
    """Refuse a pytree that is not shaped like the parameters."""
    remedy = remedy or "compute it for the same model"
    if jax.tree.map(jnp.shape, tree) != jax.tree.map(jnp.shape, params):
        raise InputError(
            f"{name} and the parameters differ in structure or shapes; {remedy}"
        )


def fields(record: Any) -> None:
    """Refuse a value, other than None, that breaks the rule of its field's type."""
    kinds = _hints(type(record))
    for field in dataclasses.fields(record):
        remedy = "" if field.default is None else f"try {field.default}"
        _check(field.name, getattr(record, field.name), kinds[field.name], remedy)


_hints = functools.cache(functools.partial(get_type_hints, include_extras=True))


def _check(name: str, value: Any, kind: Any, remedy: str) -> None:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        one_of(name, value, parts)
    elif origin is Annotated:
        kind.__metadata__[0](name, value, remedy=remedy)
    elif origin is tuple:
        for entry in value:
            _check(name, entry, parts[0], remedy)
    elif value is not None:
        for part in parts:
            _check(name, value, part, remedy)


def _require(name: str, value: Any, rule: Any, words: str, remedy: str) -> None:
    if isinstance(value, numbers.Real) and not rule(value):
        end = f"; {remedy}" if remedy else ""
        raise InputError(f"{name}={value} must {words}{end}")
