"""Checks of what a user hands to an audit; each returns float64 or integer arrays.

Every failure is an `InputError` of one line that names the value and the remedy.
"""

import numbers
from typing import Any

import numpy as np

from jax_unlearn.errors import InputError, check_seed

SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may sum from 1 (float32 stays within 1e-5)."""


def generator(seed: int, *more: int) -> np.random.Generator:
    """Return NumPy's generator of a seed, and of further numbers beside it."""
    checked = check_seed(seed)
    return np.random.default_rng([checked, *more] if more else checked)


def real(name: str, values: Any, wanted: str) -> np.ndarray:
    """Return `values` as a float64 array; complex numbers and texts are refused."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "cUSmM":
            raise TypeError(f"numbers of type {array.dtype}")
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} of type {type(values).__name__} is no array of numbers; give "
            f"{wanted}"
        ) from error


def floats(name: str, values: Any, ndim: int) -> np.ndarray:
    """Return `values` as a float64 array of `ndim` axes with at least one row."""
    array = real(name, values, "a rectangular array")
    if array.ndim != ndim:
        raise InputError(f"{name}.shape={array.shape} must have {ndim} axes; reshape")
    if array.shape[0] == 0:
        raise InputError(f"{name}.shape={array.shape} is empty; give at least 1 sample")
    return array


def vector(name: str, values: Any) -> np.ndarray:
    """Return finite numbers `[N]`, N >= 1."""
    array = floats(name, values, 1)
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(
            f"{name}[{bad[0]}]={array[bad[0]]} ({bad.size} of {array.size} values not "
            "finite); find out where the model diverged, or leave it out"
        )
    return array


def confidences(name: str, values: Any) -> np.ndarray:
    """Return probabilities `[N]` in [0, 1]; rounding above 1 is clipped."""
    array = vector(name, values)
    bad = np.flatnonzero((array < 0) | (array > 1 + SUM_TOLERANCE))
    if bad.size:
        raise InputError(
            f"{name}[{bad[0]}]={array[bad[0]]} is outside [0, 1]; give the softmax "
            "probability of the true class, neither logits nor percent"
        )
    return np.minimum(array, 1.0)


def scores(name: str, outputs: Any) -> np.ndarray:
    """Return outputs `[N, K]`, K >= 2, whose row maxima are finite.

    Minus infinity is allowed beside a finite score: it marks a class left out.
    """
    array = floats(name, outputs, 2)
    if array.shape[1] < 2:
        raise InputError(
            f"{name}.shape={array.shape} has under 2 classes; for a sigmoid output p "
            "give the two columns 1 - p and p"
        )
    bad = np.flatnonzero(~np.isfinite(array.max(axis=1)))
    if bad.size:
        raise InputError(
            f"{name}[{bad[0]}]={array[bad[0]].tolist()} is not finite ({bad.size} of "
            f"{array.shape[0]} rows); find out where the model diverged"
        )
    return array


def probabilities(name: str, probs: Any) -> np.ndarray:
    """Return probabilities `[N, K]`, rows in [0, 1] that sum to 1."""
    array = scores(name, probs)
    total = array.sum(axis=1)
    wrong = (array.min(axis=1) < 0) | (np.abs(total - 1) > SUM_TOLERANCE)
    bad = np.flatnonzero(wrong)
    if bad.size:
        row = array[bad[0]]
        raise InputError(
            f"{name}[{bad[0]}] sums to {total[bad[0]]:.6g} with minimum {row.min():.6g}"
            f" ({bad.size} of {array.shape[0]} rows are no probabilities); give "
            "jax.nn.softmax(logits) in float32"
        )
    return np.minimum(array, 1.0)


def class_labels(name: str, labels: Any, size: int, num_classes: int) -> np.ndarray:
    """Return integer labels `[size]` in 0..num_classes-1."""
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise InputError(
            f"{name}.dtype={array.dtype} is not an integer type; give class numbers"
        )
    if array.shape != (size,):
        raise InputError(
            f"{name}.shape={array.shape} must be {(size,)}; give one label a sample"
        )
    bad = np.flatnonzero((array < 0) | (array >= num_classes))
    if bad.size:
        raise InputError(
            f"{name}[{bad[0]}]={array[bad[0]]} is outside 0..{num_classes - 1}; give "
            "labels that number the columns of the outputs"
        )
    return array.astype(np.int64)


def same_length(name: str, values: np.ndarray, other: str, others: np.ndarray) -> None:
    """Refuse two arrays which should pair sample by sample and do not."""
    if len(values) != len(others):
        raise InputError(
            f"len({name})={len(values)} differs from len({other})={len(others)}; give "
            "the same samples in the same order"
        )


def ensembles(
    unlearned: Any, retrained: Any, *, least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Return finite numbers `[N, F]`, `[M, F]`; N and M at least `least`, F 1.

    >>> ensembles([[1.0], [2.0]], [[3.0]])
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: retrained.shape=(1, 1) holds 1 model; give at \
least 2, one a row
    """
    given = {"unlearned": unlearned, "retrained": retrained}
    u, r = (_ensemble(name, values, least) for name, values in given.items())
    if u.shape[1] != r.shape[1]:
        raise InputError(
            f"unlearned.shape={u.shape} and retrained.shape={r.shape} have different "
            "numbers of samples; give the same samples in the same order, one a column"
        )
    return u, r


def drawn_ensembles(
    unlearned_models: int, retrained_models: int, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return normal draws `[N, draws]`, `[M, draws]`: ensembles of one distribution."""
    sizes = {"unlearned_models": unlearned_models, "retrained_models": retrained_models}
    for name, size in sizes.items():
        whole(name, size, 2, "give as many as were compared")
    whole("draws", draws, 1, "try 1000")
    rng = generator(seed)
    u, r = (rng.normal(size=(size, draws)) for size in sizes.values())
    return u, r


def whole(name: str, value: Any, low: int, remedy: str) -> None:
    """Refuse what is no whole number from `low` on."""
    if not isinstance(value, numbers.Integral) or value < low:
        raise InputError(
            f"{name}={value} must be a whole number from {low} on; {remedy}"
        )


def _ensemble(name: str, values: Any, least: int) -> np.ndarray:
    array = floats(name, values, 2)
    models, samples = array.shape
    if samples == 0:
        raise InputError(f"{name}.shape={array.shape} has no samples; give at least 1")
    if models < least:
        held = f"{models} model{'s' * (models > 1)}"
        raise InputError(
            f"{name}.shape={array.shape} holds {held}; give at least {least}, one a row"
        )
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = tuple(bad[0].tolist())
        raise InputError(
            f"{name}{list(place)}={array[place]} ({len(bad)} of {array.size} values "
            "not finite); find out where the model diverged, or leave it out"
        )
    return array
