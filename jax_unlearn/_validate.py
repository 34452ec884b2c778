"""Checks of numbers and names that a user chose: one function a rule.

A concrete number is checked; a tracer is not, so that whole runs can be vmapped over
hyper-parameters.
"""

import math
import numbers
from collections.abc import Iterable
from typing import Any

from jax_unlearn.errors import InputError, unknown_name


def positive(name: str, value: Any, remedy: str = "") -> None:
    """Refuse a number that is not positive and finite.

    >>> positive("temperature", 0, "try 1.0")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: temperature=0 must be positive and finite; try 1.0
    """
    _require(name, value, lambda v: 0 < v < math.inf, "positive and finite", remedy)


def not_negative(name: str, value: Any, remedy: str = "") -> None:
    """Refuse a number that is negative or infinite."""
    rule = "0 or more, and finite"
    _require(name, value, lambda v: 0 <= v < math.inf, rule, remedy)


def at_least(name: str, value: Any, low: float, remedy: str = "") -> None:
    """Refuse a number below the lowest that makes sense.

    >>> at_least("epochs", 0, 1)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: epochs=0 must be at least 1
    """
    _require(name, value, lambda v: v >= low, f"at least {low}", remedy)


def fraction(name: str, value: Any, remedy: str = "") -> None:
    """Refuse a number outside (0, 1]."""
    if isinstance(value, numbers.Real) and not 0 < float(value) <= 1:
        raise InputError(f"{name}={value} must lie in (0, 1]{_after(remedy)}")


def share(name: str, value: Any, remedy: str = "") -> None:
    """Refuse a number outside [0, 1)."""
    if isinstance(value, numbers.Real) and not 0 <= float(value) < 1:
        raise InputError(f"{name}={value} must lie in [0, 1){_after(remedy)}")


def one_of(kind: str, name: Any, names: Iterable[str]) -> None:
    """Refuse a name that is none of those known, with the nearest ones.

    >>> one_of("schedule", "zip", ("merged", "zipped"))
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: unknown schedule 'zip'; did you mean 'zipped'? \
known: merged, zipped
    """
    names = tuple(names)
    if name not in names:
        raise unknown_name(kind, str(name), names)


def _require(name: str, value: Any, rule: Any, words: str, remedy: str) -> None:
    if isinstance(value, numbers.Real) and not rule(value):
        raise InputError(f"{name}={value} must be {words}{_after(remedy)}")


def _after(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""
