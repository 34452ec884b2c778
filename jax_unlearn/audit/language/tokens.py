"""What a model's losses of tokens say of texts: likelihood, memory, perplexity.

Texts are ragged: a sequence of N arrays, one number a token of the answer, or a
`ju.language.Scored` of padded arrays. No model is needed, of any framework. Each figure
of an unlearned model has Retrain's value as its target, and that of a Retrain of
another seed as its null: higher is not better.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.errors import InputError

__all__ = ["Ragged", "choice_probability", "exact_memorization"]
__all__ += ["extraction_strength", "mean_nll", "perplexity", "probability", "ragged"]

Ragged = Any
"""N arrays of a number a token, or a `ju.language.Scored`."""


def ragged(values: Ragged, name: str = "nll") -> list[NDArray[np.float64]]:
    """Return a float64 array of each text; those of a `Scored` without padding.

    Raises:
      InputError: no texts, a text without a token, values that are not finite.

    >>> ragged([[1.0, 2.0], [3.0]])
    [array([1., 2.]), array([3.])]
    """
    if hasattr(values, "nll") and hasattr(values, "counted"):
        given = zip(np.asarray(values.nll), np.asarray(values.counted), strict=True)
        rows = [np.asarray(row, np.float64)[own] for row, own in given]
    else:
        rows = [np.asarray(row, np.float64).reshape(-1) for row in values]
    if not rows:
        raise InputError(f"{name} holds no texts; give one array a text")
    for number, row in enumerate(rows):
        if not row.size:
            raise InputError(f"{name}[{number}] has no token; leave the text out")
        if not np.isfinite(row).all():
            raise InputError(
                f"{name}[{number}] holds {row[~np.isfinite(row)][0]}; find out where "
                "the model diverged"
            )
    return rows


def mean_nll(nll: Ragged) -> NDArray[np.float64]:
    """Return ℓ̄ of each text, the mean over its tokens, `f64[N]`.

    >>> mean_nll([[1.0, 3.0], [5.0]])
    array([2., 5.])
    """
    return np.array([row.mean() for row in ragged(nll)])


def probability(nll: Ragged) -> NDArray[np.float64]:
    """Return e^{−ℓ̄} = π(y | x)^{1/n} of each text, `f64[N]`.

    By token, as all public codes have it; the paper's likelihood is not.

    Reference: TOFU, arXiv 2401.06121, section 2.2.

    >>> probability([[0.0, np.log(4.0)]])
    array([0.5])
    """
    return np.exp(-mean_nll(nll))


def choice_probability(true: ArrayLike, wrong: ArrayLike) -> NDArray[np.float64]:
    """Return p/(p + Σ p_wrong) of each question with wrong answers, `f64[N]`.

    Of mean losses: true `[N]`, wrong `[N, J]`. For questions on real authors and facts.

    Raises:
      InputError: shapes that do not fit.

    Reference: TOFU, arXiv 2401.06121, section 2.2.

    >>> choice_probability([0.0], [[0.0, 0.0, 0.0]])
    array([0.25])
    """
    own, others = pair_of(true, wrong)
    # relative to the likeliest, so that no exponential underflows
    least = np.minimum(own, others.min(axis=1))
    p = np.exp(least - own)
    return p / (p + np.exp(least[:, None] - others).sum(axis=1))


def perplexity(nll: Ragged) -> float:
    """Return exp(ΣS/Σn) over all tokens of all texts; not a mean of means.

    >>> round(perplexity([[np.log(2.0)] * 3, [np.log(4.0)]]), 4)  # 2^(5/4)
    2.3784
    """
    return float(np.exp(np.concatenate(ragged(nll)).mean()))


def extraction_strength(right: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Return 1 − k*/n of each text: the share that the model completes by itself.

    k* is the least k from which every further token is the model's likeliest; if none
    is, 0 (one public code then gives 1/n). `right` says of each token whether it was,
    given all before it.

    Source: open-unlearning's metric of this name, after the extraction of Carlini et
    al., arXiv 2012.07805.

    >>> extraction_strength([[0, 1, 1, 1], [1, 1, 1, 0], [0, 0]])
    array([0.75, 0. , 0. ])
    """
    found = []
    for row in _marks(right):
        wrong = np.flatnonzero(~row)
        begin = wrong[-1] + 1 if wrong.size else 0
        found.append(1 - begin / len(row))
    return np.array(found)


def exact_memorization(right: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Return the share of a text's tokens that are the model's likeliest, `f64[N]`.

    All tokens count; one public code drops the last, which of a completion is text.

    Reference: arXiv 2205.10770.

    >>> exact_memorization([[0, 1, 1, 1]])
    array([0.75])
    """
    return np.array([row.mean() for row in _marks(right)])


def pair_of(
    true: ArrayLike, wrong: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean losses `[N]` and those of J other answers `[N, J]`, if they fit."""
    own, others = np.asarray(true, np.float64), np.asarray(wrong, np.float64)
    if own.ndim != 1 or others.ndim != 2 or len(own) != len(others) or not others.size:
        raise InputError(
            f"mean losses of shapes {own.shape} and {others.shape}: give [N] and "
            "[N, J], J answers to each"
        )
    return own, others


def _marks(right: Sequence[ArrayLike]) -> list[NDArray[np.bool_]]:
    """Return whether each token was right, by text."""
    rows = ragged(right, "right")
    for number, row in enumerate(rows):
        if ((row != 0) & (row != 1)).any():
            raise InputError(
                f"right[{number}] holds {row[(row != 0) & (row != 1)][0]}; give True "
                "or False a token"
            )
    return [row.astype(np.bool_) for row in rows]
