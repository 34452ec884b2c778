"""Figures of generated images: is the forgotten class gone, are the others still there?

A classifier says what the images show; the Fréchet distance, how like real ones they
are in the features of some network (FID only where these are those of the standard
Inception network). Shapes: N generated images, K classes, D features. The target of UA,
as of every figure here, is Retrain's value: it is not better for being higher.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn import _validate
from jax_unlearn.audit import _checks
from jax_unlearn.errors import InputError

__all__ = ["GenerationMetrics", "Moments", "class_frechet", "feature_moments"]
__all__ += ["frechet_distance", "generation_metrics"]


class Moments(NamedTuple):
    """Mean `f64[D]`, sample covariance (n − 1) `f64[D, D]` and number n of features."""

    mean: np.ndarray
    cov: np.ndarray
    count: int


class GenerationMetrics(NamedTuple):
    """What a classifier says of generated images, in percent.

    Attributes:
      ua: share of the images asked to be of a forgotten class that are not recognised
        as that class; NaN where no class is forgotten.
      retained_accuracy: share of those of other classes that are recognised.
      by_class: share recognised as the class asked for, `f64[K]`; NaN where none was.
      confusion: number of images by class asked for (rows) and recognised (columns),
        `i64[K, K]`.
    """

    ua: float
    retained_accuracy: float
    by_class: np.ndarray
    confusion: np.ndarray


def generation_metrics(
    recognised: ArrayLike,
    asked: ArrayLike,
    *,
    forget: Sequence[int],
    num_classes: int,
) -> GenerationMetrics:
    """Return how often a classifier recognises what was asked for.

    Of the classes found in N images and those asked for, `i[N]` each, 0..K-1.

    Raises:
      InputError: unequal lengths, unknown classes, no image of a forgotten class, or
        none of another.

    Reference: SalUn, arXiv 2310.12508, for UA of class-wise forgetting.

    >>> classes = [1, 0, 1, 1], [0, 0, 1, 1]
    >>> found = generation_metrics(*classes, forget=[0], num_classes=2)
    >>> found.ua, found.retained_accuracy, found.confusion.tolist()
    (50.0, 100.0, [[1, 1], [0, 2]])
    """
    labels = functools.partial(_checks.class_labels, num_classes=num_classes)
    wanted = labels("asked", asked, np.size(asked))
    found = labels("recognised", recognised, wanted.size)
    gone = np.asarray(forget, np.int64)
    gone = np.isin(wanted, labels("forget", gone, gone.size))
    if (len(forget) and not gone.any()) or gone.all():
        which = "a forgotten" if not gone.any() else "another"
        raise InputError(
            f"forget={tuple(forget)}: no image of {which} class was asked for; draw "
            "some of both"
        )
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (wanted, found), 1)
    total = confusion.sum(axis=1)
    share = 100.0 * np.diag(confusion) / np.maximum(total, 1)
    return GenerationMetrics(
        float(100.0 * np.mean(found[gone] != wanted[gone])) if gone.any() else np.nan,
        float(100.0 * np.mean(found[~gone] == wanted[~gone])),
        np.where(total > 0, share, np.nan),
        confusion,
    )


def feature_moments(features: ArrayLike) -> Moments:
    """Return mean and sample covariance of features `[N, D]`, N ≥ 2, in float64.

    Raises:
      InputError: another shape, fewer than two rows, values that are not finite.

    >>> found = feature_moments([[0.0], [2.0]])
    >>> found.mean.tolist(), found.cov.tolist()
    ([1.0], [[2.0]])
    """
    values = _checks.finite("features", features, 2)
    _validate.at_least("number of images", len(values), 2)
    cov = np.atleast_2d(np.cov(values, rowvar=False))
    return Moments(values.mean(axis=0), cov, len(values))


def frechet_distance(first: Moments, second: Moments) -> float:
    """Return d² = |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^{1/2}) ≥ 0.

    The trace of the root is that of (Σ_a^{1/2} Σ_b Σ_a^{1/2})^{1/2}, a symmetric
    matrix: no complex numbers, and singular covariances (fewer images than features) do
    no harm. The estimate is too large for few images, by an amount that depends on
    their number: compare at equal numbers only.

    Raises:
      InputError: moments of features of different networks.

    Reference: Dowson and Landau 1982; Heusel et al., arXiv 1706.08500, equation 6.

    >>> a = Moments(np.zeros(1), np.array([[1.0]]), 9)
    >>> b = Moments(np.array([3.0]), np.array([[4.0]]), 9)
    >>> frechet_distance(a, b)  # 3² + (1 − 2)²
    10.0
    """
    if first.mean.shape != second.mean.shape:
        raise InputError(
            f"features of sizes {first.mean.shape} and {second.mean.shape}: take both "
            "from the same network"
        )
    values, vectors = np.linalg.eigh(first.cov)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ second.cov @ root)
    cross = np.sqrt(np.maximum(inner, 0.0)).sum()
    spread = np.trace(first.cov) + np.trace(second.cov) - 2.0 * cross
    offset = np.sum((first.mean - second.mean) ** 2)
    return float(max(offset + spread, 0.0))


def class_frechet(
    features: ArrayLike,
    asked: ArrayLike,
    reference_features: ArrayLike,
    reference_labels: ArrayLike,
    *,
    exclude: Sequence[int] = (),
) -> float:
    """Return the Fréchet distance of generated to real images, some classes left out.

    Of features `[N, D]`, `[M, D]` and the classes asked for and real, without the
    classes to `exclude`, the forgotten ones. Reference: SalUn, arXiv 2310.12508 (FID
    over the classes that remain).

    Raises:
      InputError: unequal lengths, or fewer than two images on a side.

    >>> a, b = [[0.0], [2.0], [9.0]], [[3.0], [5.0], [0.0]]
    >>> class_frechet(a, [0, 0, 1], b, [0, 0, 1], exclude=[1])  # 3² + 0
    9.0
    """

    def moments(name: str, values: ArrayLike, labels: ArrayLike) -> Moments:
        rows, classes = np.asarray(values), np.asarray(labels)
        if classes.shape != (len(rows),):
            raise InputError(
                f"{name}: {len(rows)} features, classes of shape {classes.shape}; give "
                "one class an image"
            )
        kept = rows[~np.isin(classes, np.asarray(exclude, np.int64))]
        if len(kept) < 2:
            words = f"{len(kept)} images beside exclude={tuple(exclude)}"
            raise InputError(f"{name}: {words}; give 2 or more")
        return feature_moments(kept)

    generated = moments("generated", features, asked)
    reference = moments("reference", reference_features, reference_labels)
    return frechet_distance(generated, reference)
