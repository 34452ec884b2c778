"""The Fréchet distance between two sets of images, in the features of some network.

It is called FID only where the features are those of the standard Inception network.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.errors import InputError


class Moments(NamedTuple):
    """Mean and covariance of features.

    Attributes:
      mean: `f64[D]`.
      cov: sample covariance (n − 1), `f64[D, D]`.
      count: n.
    """

    mean: np.ndarray
    cov: np.ndarray
    count: int


def feature_moments(features: ArrayLike) -> Moments:
    """Return mean and sample covariance of features, in float64.

    Args:
      features: `[N, D]`, N ≥ 2.

    Returns:
      `Moments`.

    Raises:
      InputError: another shape, fewer than two rows, values that are not finite.

    >>> found = feature_moments([[0.0], [2.0]])
    >>> found.mean.tolist(), found.cov.tolist()
    ([1.0], [[2.0]])
    """
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or values.shape[0] < 2 or not values.shape[1]:
        raise InputError(
            f"features of shape {values.shape} must be [N, D] with 2 or more rows"
        )
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise InputError(f"features[{row}] are not finite; mend or drop this image")
    mean = values.mean(axis=0)
    centred = values - mean
    return Moments(mean, centred.T @ centred / (len(values) - 1), len(values))


def frechet_distance(first: Moments, second: Moments) -> float:
    """Return d² = |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^{1/2}).

    The trace of the root is that of (Σ_a^{1/2} Σ_b Σ_a^{1/2})^{1/2}, a symmetric
    matrix: no complex numbers, and singular covariances (fewer images than features)
    do no harm. The estimate is too large for few images, by an amount that depends on
    their number: compare at equal numbers only.

    Args:
      first: moments of one set of images.
      second: moments of the other, in the same features.

    Returns:
      d² ≥ 0.

    Raises:
      InputError: other features.

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
