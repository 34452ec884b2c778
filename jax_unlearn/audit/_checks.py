"""Checks of what a user hands to an audit; each returns float64 or integer arrays.

Every failure is an `InputError` of one line that names the value and the remedy.
"""

import numbers
from collections.abc import Sized
from typing import Any

import numpy as np

from jax_unlearn._validate import within
from jax_unlearn.data.checks import numbered
from jax_unlearn.errors import InputError, check_seed

SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may sum from 1 (float32 stays within 1e-5)."""


def generator(seed: int, *more: int) -> np.random.Generator:
    """Return NumPy's generator of a seed, and of further numbers beside it."""
    checked = check_seed(seed)
    return np.random.default_rng([checked, *more] if more else checked)


def level(value: float) -> None:
    """Refuse a level of an interval that is no probability."""
    within("level", value, "(0, 1)", "try 0.95")


def whole(name: str, value: Any, low: int, remedy: str) -> None:
    """Refuse what is no whole number from `low` on."""
    if not isinstance(value, numbers.Integral) or value < low:
        raise InputError(
            f"{name}={value} must be a whole number from {low} on; {remedy}"
        )


def refuse(name: str, array: np.ndarray, wrong: np.ndarray, words: str) -> None:
    """Refuse an array with wrong entries or rows, and show the first of them."""
    bad = np.argwhere(wrong)
    if len(bad):
        place = bad[0].tolist()
        value = array[tuple(place)].tolist()
        words = words.format(n=len(bad), all=wrong.size)
        raise InputError(f"{name}{place}={value} {words}")


def real(name: str, values: Any) -> np.ndarray:
    """Return `values` as a float64 array; complex numbers and texts are refused."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "cUSmM":
            raise TypeError(f"numbers of type {array.dtype}")
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} of type {type(values).__name__} is no array of numbers; give a "
            "rectangular array"
        ) from error


def floats(name: str, values: Any, ndim: int | None) -> np.ndarray:
    """Return a float64 array of `ndim` axes, of 2 or more where None; none is empty."""
    array = real(name, values)
    if array.ndim != (max(array.ndim, 2) if ndim is None else ndim):
        raise InputError(
            f"{name}.shape={array.shape} must have {ndim or 2} axes; reshape"
        )
    if 0 in array.shape:
        raise InputError(f"{name}.shape={array.shape} is empty; give at least 1 sample")
    return array


def finite(name: str, values: Any, ndim: int) -> np.ndarray:
    """Return finite numbers of `ndim` axes, none of them empty."""
    array = floats(name, values, ndim)
    words = "({n} of {all} values not finite); find out where the model diverged, "
    refuse(name, array, ~np.isfinite(array), f"{words}or leave it out")
    return array


def vector(name: str, values: Any) -> np.ndarray:
    """Return finite numbers `[N]`, N >= 1."""
    return finite(name, values, 1)


def confidences(name: str, values: Any, ndim: int = 1) -> np.ndarray:
    """Return probabilities in [0, 1], `[N]` or of more axes; rounding is clipped."""
    array = finite(name, values, ndim)
    words = "is outside [0, 1]; give the softmax probability of the true class, "
    outside = (array < 0) | (array > 1 + SUM_TOLERANCE)
    refuse(name, array, outside, f"{words}neither logits nor percent")
    return np.minimum(array, 1.0)


def scores(name: str, outputs: Any, ndim: int | None = 2) -> np.ndarray:
    """Return outputs `[..., N, K]`, K >= 2, whose row maxima are finite.

    Minus infinity is allowed beside a finite score: it marks a class left out.
    """
    array = floats(name, outputs, ndim)
    if array.shape[-1] < 2:
        raise InputError(
            f"{name}.shape={array.shape} has under 2 classes; for a sigmoid output p "
            "give the two columns 1 - p and p"
        )
    words = "is not finite ({n} of {all} rows); find out where the model diverged"
    refuse(name, array, ~np.isfinite(array.max(axis=-1)), words)
    return array


def probabilities(name: str, probs: Any, ndim: int | None = 2) -> np.ndarray:
    """Return probabilities `[..., N, K]`, rows in [0, 1] that sum to 1."""
    array = scores(name, probs, ndim)
    total, least = array.sum(axis=-1), array.min(axis=-1)
    bad = np.argwhere((least < 0) | (np.abs(total - 1) > SUM_TOLERANCE))
    if len(bad):
        place = tuple(bad[0].tolist())
        raise InputError(
            f"{name}{list(place)} sums to {total[place]:.6g} with minimum "
            f"{least[place]:.6g} ({len(bad)} of {total.size} rows are no "
            "probabilities); give jax.nn.softmax(logits) in float32"
        )
    return np.minimum(array, 1.0)


def class_labels(name: str, labels: Any, size: int, num_classes: int) -> np.ndarray:
    """Return integer labels `[size]` in 0..num_classes-1."""
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise InputError(
            f"{name}.dtype={array.dtype} is not an integer type; give class numbers, "
            f"as the outputs' columns are: {numbered(array)}"
        )
    if array.shape != (size,):
        raise InputError(
            f"{name}.shape={array.shape} must be {(size,)}; give one label a sample"
            + (f": {numbered(array)}" if array.ndim > 1 else "")
        )
    words = f"is outside 0..{num_classes - 1}; give labels that number the columns of "
    outside = (array < 0) | (array >= num_classes)
    refuse(name, array, outside, f"{words}the outputs")
    return array.astype(np.int64)


def same_length(name: str, values: Sized, other: str, others: Sized) -> None:
    """Refuse two arrays which should pair sample by sample and do not."""
    if len(values) != len(others):
        raise InputError(
            f"len({name})={len(values)} differs from len({other})={len(others)}; give "
            "the same ones in the same order"
        )


def ensembles(
    unlearned: Any, retrained: Any, *, least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Return finite numbers `[N, F]`, `[M, F]`; N and M at least `least`, F 1."""
    u, r = finite("unlearned", unlearned, 2), finite("retrained", retrained, 2)
    for name, array in (("unlearned", u), ("retrained", r)):
        if len(array) < least:
            held = f"{len(array)} model{'s' * (len(array) > 1)}"
            raise InputError(
                f"{name}.shape={array.shape} holds {held}; give at least {least}, one "
                "a row"
            )
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
