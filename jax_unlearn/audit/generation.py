"""Figures of generated images: is the forgotten class gone, are the others still there?

Shapes: N generated images, K classes, D features. Plain arrays of any framework. UA,
as every figure here, has Retrain's value as its target: it is not better for being
higher.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.audit.frechet import feature_moments, frechet_distance
from jax_unlearn.errors import InputError


class GenerationMetrics(NamedTuple):
    """What a classifier says of generated images.

    Attributes:
      ua: share of the images asked to be of a forgotten class that are not recognised
        as that class, in percent.
      retained_accuracy: share of the images asked to be of other classes that are
        recognised, in percent.
      by_class: share recognised as the class asked for, in percent, `f64[K]`; NaN
        where none was asked for.
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

    Args:
      recognised: classes found in the images, `i[N]`.
      asked: classes asked for, `i[N]`.
      forget: the forgotten classes.
      num_classes: K.

    Returns:
      `GenerationMetrics`.

    Raises:
      InputError: unequal lengths, unknown classes, no image of a forgotten class, or
        none of another.

    Reference: SalUn, arXiv 2310.12508, for UA of class-wise forgetting.

    >>> found = generation_metrics(
    ...     [1, 0, 1, 1], [0, 0, 1, 1], forget=[0], num_classes=2
    ... )
    >>> found.ua, found.retained_accuracy, found.confusion.tolist()
    (50.0, 100.0, [[1, 1], [0, 2]])
    """
    found, wanted = (np.asarray(value) for value in (recognised, asked))
    if found.ndim != 1 or found.shape != wanted.shape:
        raise InputError(
            f"recognised of shape {found.shape}, asked of shape {wanted.shape}: give "
            "one class of each an image"
        )
    for name, values in (
        ("recognised", found),
        ("asked", wanted),
        ("forget", np.asarray(forget, np.int64)),
    ):
        wrong = values[(values < 0) | (values >= num_classes)]
        if wrong.size:
            raise InputError(
                f"{name}: class {wrong[0]} is unknown; with num_classes={num_classes} "
                f"they are 0 to {num_classes - 1}"
            )
    gone = np.isin(wanted, np.asarray(forget, np.int64))
    if not gone.any() or gone.all():
        which = "a forgotten" if not gone.any() else "another"
        raise InputError(
            f"forget={tuple(forget)}: no image of {which} class was asked for; draw "
            "some of both"
        )
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (wanted, found), 1)
    total = confusion.sum(axis=1)
    right = np.diag(confusion)
    share = np.where(total > 0, 100.0 * right / np.maximum(total, 1), np.nan)
    return GenerationMetrics(
        float(100.0 * np.mean(found[gone] != wanted[gone])),
        float(100.0 * np.mean(found[~gone] == wanted[~gone])),
        share,
        confusion,
    )


def class_frechet(
    features: ArrayLike,
    asked: ArrayLike,
    reference_features: ArrayLike,
    reference_labels: ArrayLike,
    *,
    exclude: Sequence[int] = (),
) -> float:
    """Return the Fréchet distance of generated to real images, some classes left out.

    Args:
      features: of generated images, `[N, D]`.
      asked: classes asked for, `i[N]`.
      reference_features: of real images, `[M, D]`.
      reference_labels: their classes, `i[M]`.
      exclude: classes left out of both, the forgotten ones.

    Returns:
      d² ≥ 0, in the features' units squared.

    Raises:
      InputError: unequal lengths, or fewer than two images on a side.

    Reference: SalUn, arXiv 2310.12508 (FID over the classes that remain).

    >>> a, b = [[0.0], [2.0], [9.0]], [[3.0], [5.0], [0.0]]
    >>> class_frechet(a, [0, 0, 1], b, [0, 0, 1], exclude=[1])  # 3² + 0
    9.0
    """
    moments = []
    for name, values, labels in (
        ("generated", features, asked),
        ("reference", reference_features, reference_labels),
    ):
        rows, classes = np.asarray(values), np.asarray(labels)
        if classes.ndim != 1 or len(rows) != len(classes):
            raise InputError(
                f"{name}: {len(rows)} features, classes of shape {classes.shape}; give "
                "one class an image"
            )
        kept = rows[~np.isin(classes, np.asarray(exclude, np.int64))]
        if len(kept) < 2:
            raise InputError(
                f"{name}: {len(kept)} images beside exclude={tuple(exclude)}; give 2 "
                "or more"
            )
        moments.append(feature_moments(kept))
    return frechet_distance(*moments)
