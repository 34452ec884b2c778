"""Errors a user can mend: one line that names the value and the remedy."""

import difflib
import numbers
from collections.abc import Iterable
from typing import Any

__all__ = ["MANY", "MAX_SEED", "Diverged", "InputError", "NonFiniteError", "OtherRun"]
__all__ += ["check_seed", "one_line", "unknown_name"]

MAX_SEED = 2**31 - 1  # what jax, NumPy and scikit-learn all take
MANY = 12  # names, more than a line can list beside a suggestion


class InputError(ValueError):
    """Input that cannot be used; the message names the value and the remedy.

    The command line prints it as one line and exits with status 2.

    >>> raise InputError("temperature=0 must be positive; try 1.0")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: temperature=0 must be positive; try 1.0
    """


class OtherRun(InputError):
    """What stands at a path was made with another setting, seed, request or data."""


class Diverged(InputError):
    """A model that was asked for turned NaN or infinite; the message says how."""


class NonFiniteError(ArithmeticError):
    """A loss or a parameter turned NaN or infinite, first at `step`, from 0 on."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


def one_line(error: Exception, most: int = 200) -> str:
    """Return what an error says on one line, cut short, or its type if nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for an unknown name, with the nearest known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    listed = f"known: {', '.join(names)}"
    if not near:
        return InputError(f"unknown {kind} {name!r}; {listed}")
    hint = " or ".join(repr(n) for n in near)
    rest = listed if len(names) <= MANY else f"({len(names)} are known)"
    return InputError(f"unknown {kind} {name!r}; did you mean {hint}? {rest}")


def check_seed(seed: Any, name: str = "seed") -> int:
    """Return a seed that every library takes; refuse any other, called `name`."""
    whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not whole or not 0 <= int(seed) <= MAX_SEED:
        raise InputError(
            f"{name}={str(seed)[:40]} must be a whole number from 0 to {MAX_SEED}; "
            "try 0"
        )
    return int(seed)
