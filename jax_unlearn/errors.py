"""Errors a user can mend: one line that names the value and the remedy."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used; the message names the value and the remedy.

    The command line prints it as one line and exits with status 2.

    >>> raise InputError("temperature=0 must be positive; try 1.0")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: temperature=0 must be positive; try 1.0
    """


class NonFiniteError(ArithmeticError):
    """A loss or a parameter turned NaN or infinite while a model was trained.

    Attributes:
      step: number of the first step whose loss is not finite, counted from 0.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for an unknown name, with the nearest known ones.

    >>> print(unknown_name("method", "salum", ["salun", "finetune"]))
    unknown method 'salum'; did you mean 'salun'? known: finetune, salun
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = " or ".join(repr(n) for n in near)
    hint = f"; did you mean {hint}?" if near else ";"
    return InputError(f"unknown {kind} {name!r}{hint} known: {', '.join(names)}")
