"""What the checks of results share: a flaw names the key it was found at."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

ROUNDING = 1e-6  # by which a mean of floats may leave its range


class Flaw(Exception):
    """What is wrong, beginning with the key."""


def get(holder: Mapping, name: str, at: str) -> Any:
    """Return an entry, a flaw where it is missing.

    >>> get({"ua": 1.0}, "ua", "rows.m0")
    1.0
    """
    if name not in holder:
        raise Flaw(f"{at}.{name} is missing" if at else f"{name} is missing")
    return holder[name]


def mapping(value: Any, at: str) -> Mapping[str, Any]:
    """Return a JSON object, a flaw where it is none.

    >>> mapping({}, "rows")
    {}
    """
    if not isinstance(value, Mapping):
        raise Flaw(f"{at} is no JSON object")
    return value


def check_number(
    holder: Mapping,
    name: str,
    at: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
) -> float:
    """Return a finite number between two bounds, a flaw where it is none.

    >>> check_number({"auc": 0.5}, "auc", "attacks", low=0, high=1)
    0.5
    """
    value = get(holder, name, at)
    if not _is_number(value):
        raise Flaw(f"{at}.{name}={value!r} is no number")
    if not low - ROUNDING <= value <= high + ROUNDING:
        raise Flaw(f"{at}.{name}={value} lies outside [{low}, {high}]")
    return value


def check_count(holder: Mapping, name: str, at: str, *, least: int) -> int:
    """Return a whole number, a flaw where it is none or too small.

    >>> check_count({"half": 4}, "half", "audit", least=0)
    4
    """
    value = get(holder, name, at)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise Flaw(f"{at}.{name}={value!r} is no whole number from {least} on")
    return value


def numbers(values: Any) -> Sequence[float] | None:
    """Return a non-empty list of finite numbers, or None.

    >>> numbers([1, 2.5]), numbers([]), numbers([True])
    ([1, 2.5], None, None)
    """
    if not isinstance(values, list) or not values:
        return None
    return values if all(_is_number(v) for v in values) else None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # of integers too; NaN is not
