"""Rates, ROC curves and their intervals: what an attack's scores are worth.

A score says how much a sample looks like a positive (a member, a sample trained on and
then unlearned); negatives are what it is told from. A sample is called positive where
its score exceeds the threshold strictly, so that one constant score is never worth more
than chance.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn._validate import at_least
from jax_unlearn.audit import _checks
from jax_unlearn.errors import InputError

__all__ = ["Rate", "Roc", "bootstrap_interval", "clopper_pearson", "roc_auc"]
__all__ += ["roc_curve", "tpr_at_fpr"]

ROUNDING = 1e-9  # 0.29 · 100 is 28.999999999999996 and still allows 29 of 100


class Rate(NamedTuple):
    """A share of trials in percent, 100 · successes / trials.

    Attributes:
      low, high: Clopper-Pearson interval; right only for independent trials.
    """

    value: float
    low: float
    high: float
    successes: int
    trials: int


class Roc(NamedTuple):
    """A ROC curve: T distinct scores make T + 1 points, from (0, 0) to (1, 1).

    Attributes:
      fpr, tpr: shares of the negatives and of the positives above each threshold,
        rising, `f64[T+1]` in [0, 1].
      thresholds: falling from the largest score to minus infinity.
    """

    fpr: np.ndarray
    tpr: np.ndarray
    thresholds: np.ndarray


def clopper_pearson(
    successes: int, trials: int, *, level: float = 0.95
) -> tuple[float, float]:
    """Exact interval of a binomial share: the p not refused by either one-sided test.

    (low, high) in percent: Beta^-1((1 - level)/2; s, t - s + 1) and Beta^-1((1 +
    level)/2; s + 1, t - s) for s successes in t trials; 0 where s = 0, 100 where s = t.
    It holds the true share with at least probability `level` whatever the share is, if
    the trials are independent. Source: Clopper and Pearson, Biometrika 26, 1934.

    Raises:
      InputError: no trial, successes outside 0..t, a level outside (0, 1).

    >>> low, high = clopper_pearson(0, 10)
    >>> round(low, 2), round(high, 2)  # 100 · (1 - 0.025^(1/10))
    (0.0, 30.85)
    """
    _checks.level(level)
    if trials < 1:
        raise InputError(f"trials={trials} give no rate; give at least 1")
    if not 0 <= successes <= trials:
        raise InputError(
            f"successes={successes} is outside 0..{trials}; give a number of trials"
        )
    from scipy.special import betaincinv

    s, t = int(successes), int(trials)
    tail = (1 - level) / 2
    low = 0.0 if s == 0 else 100 * float(betaincinv(s, t - s + 1, tail))
    high = 100.0 if s == t else 100 * float(betaincinv(s + 1, t - s, 1 - tail))
    return low, high


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: Any,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of one or more samples.

    Every sample, `[n, ...]`, is drawn anew with replacement along its first axis,
    independently of the others; the interval lies between the (1 - level)/2 and (1 +
    level)/2 quantiles of the statistic, `(*samples) -> number`, called once a resample.
    Rows that belong together go in one array of two axes. Source: Efron, Annals of
    Statistics 7, 1979.

    Raises:
      InputError: no sample, an empty one, `resamples` below 1, a level outside (0, 1),
        a statistic that is not finite on a resample.

    >>> bootstrap_interval(lambda a, b: a.mean() - b.mean(), [2.0, 2.0], [1.0])
    (1.0, 1.0)
    """
    _checks.level(level)
    at_least("resamples", resamples, 1, "try 1000")
    arrays = [np.asarray(sample) for sample in samples]
    if not arrays:
        raise InputError("samples=(): give at least one array")
    for i, array in enumerate(arrays):
        if array.ndim < 1 or len(array) == 0:
            raise InputError(
                f"samples[{i}].shape={array.shape} holds no rows; give at least 1"
            )
    rng = _checks.generator(seed)
    values = np.empty(resamples)
    for i in range(resamples):
        drawn = (array[rng.integers(0, len(array), len(array))] for array in arrays)
        values[i] = statistic(*drawn)
    words = "on {n} of {all} resamples; give a statistic that is finite on every one"
    _checks.refuse("statistic", values, ~np.isfinite(values), words)
    return quantiles(values, level)


def roc_curve(positive: Any, negative: Any) -> Roc:
    """ROC curve of "score > threshold", of scores of positives and of negatives.

    The points are those of thresholds at every distinct score and below all of them;
    between two points a tie of both kinds is a sloping line, never a step.

    Raises:
      InputError: an empty set, a score that is not finite.

    >>> curve = roc_curve([0.9, 0.5], [0.5, 0.1])
    >>> curve.fpr.tolist(), curve.tpr.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    >>> curve.thresholds.tolist()
    [0.9, 0.5, 0.1, -inf]
    """
    p, n = _scores(positive, negative)
    thresholds = np.append(np.unique(np.concatenate([p, n]))[::-1], -np.inf)

    def above(scores: np.ndarray) -> np.ndarray:
        return 1 - np.searchsorted(scores, thresholds, side="right") / len(scores)

    return Roc(above(n), above(p), thresholds)


def roc_auc(positive: Any, negative: Any) -> float:
    """Area under the ROC curve: P(positive > negative) + P(equal)/2, 0..1.

    It takes and refuses what `roc_curve` does.

    >>> roc_auc([0.9, 0.5], [0.5, 0.1])  # (1 + 1 + 1/2 + 1) / 4
    0.875
    """
    p, n = _scores(positive, negative)
    twice = np.searchsorted(n, p, side="left") + np.searchsorted(n, p, side="right")
    return float(twice.sum() / (2 * len(p) * len(n)))


def tpr_at_fpr(
    positive: Any, negative: Any, *, fpr: float, level: float = 0.95
) -> Rate:
    """Largest share of positives above a threshold that at most `fpr` negatives exceed.

    In percent; `fpr` is a fraction, 0.01 for 1 %. The threshold t is the (k + 1)-th
    largest negative, k = floor(fpr · m): at most k negatives exceed it, and any lower
    one is exceeded by more. Nothing is interpolated. If 1/m > fpr then k = 0: t is the
    largest negative, and the rate is that at FPR 0; give at least 1/fpr negatives to
    mean more. The interval counts the positives as independent and the threshold as
    known.

    Raises:
      InputError: an empty set, a score that is not finite, an `fpr` outside 0..1, a
        level outside (0, 1).

    >>> tpr_at_fpr([3.0, 2.0, 1.5, 0.0], [2.0, 1.0], fpr=0.5).value
    75.0
    >>> tpr_at_fpr([3.0, 2.0, 1.5, 0.0], [2.0, 1.0], fpr=0.01).value
    25.0
    """
    _checks.level(level)
    if not 0 <= fpr <= 1:
        raise InputError(f"fpr={fpr} is outside 0..1; give a fraction, 0.01 for 1 %")
    p, n = _scores(positive, negative)
    allowed = math.floor(fpr * len(n) + ROUNDING)
    threshold = n[-1 - allowed] if allowed < len(n) else -np.inf
    hits = len(p) - int(np.searchsorted(p, threshold, side="right"))
    return rate(hits, len(p), level)


def quantiles(values: np.ndarray, level: float) -> tuple[float, float]:
    """Return the quantiles that leave (1 - level)/2 of the values on either side."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_positive(scores: np.ndarray) -> np.ndarray:
    """Return the share of scores above 0 along the first axis; a 0 counts half."""
    return np.mean((scores > 0) + 0.5 * (scores == 0), axis=0)


def student(level: float, count: int) -> float:
    """Return the two-sided quantile of Student's t for the mean of `count` numbers."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, count - 1))


def rate(hits: int, trials: int, level: float) -> Rate:
    """Return a share with its exact interval."""
    interval = clopper_pearson(hits, trials, level=level)
    return Rate(100 * hits / trials, *interval, hits, trials)


def _scores(positive: Any, negative: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return both sets sorted."""
    p = np.sort(_checks.vector("positive", positive))
    return p, np.sort(_checks.vector("negative", negative))
