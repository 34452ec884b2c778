"""Where a forget sample should end: predictions such as unseen data get."""

import numpy as np

from jax_unlearn import _validate
from jax_unlearn.errors import InputError

__all__ = ["density_ratio", "quantile_match", "sharpness", "target_table"]
__all__ += ["transport_targets"]

FLATTEST, SHARPEST = 1e-2, 1e2  # factors of logits
HALVINGS = 60  # of that range: more than a float64 tells apart


def quantile_match(
    scores: np.ndarray, reference: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Match every score with the reference value of the same quantile.

    The i-th smallest of F scores is sent to the reference value of rank
    ⌊(i + ½)·U/F⌋: the monotone plan of one-dimensional optimal transport. With weights
    it is the first value up to which more than (i + ½)/F of their sum lies.

    Returns positions `i64[F]` in the reference `[U]`, U ≥ 1; its weights, `[U]`, are
    positive, by default all alike.

    Source: our choice (endpoint transport).

    >>> quantile_match(np.array([0.9, 0.1]), np.array([5.0, 7.0, 6.0, 4.0]))
    array([1, 0])
    """
    rank = np.empty(len(scores), np.int64)
    rank[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    order = np.argsort(reference, kind="stable")
    if weights is None:
        return order[((2 * rank + 1) * len(reference)) // (2 * len(scores))]
    total = np.cumsum(np.asarray(weights, np.float64)[order])
    wanted = (rank + 0.5) / len(scores) * total[-1]
    at = np.searchsorted(total, wanted, side="right")
    return order[np.minimum(at, len(reference) - 1)]


def density_ratio(
    wanted: np.ndarray, given: np.ndarray, *, width: float = 0.1
) -> np.ndarray:
    """Weight given samples so that they are spread as the wanted ones are.

    w_j = Σ_i k(g_j - f_i)/F / Σ_i k(g_j - g_i)/U, with k(d) = exp(-d²/(2·width²)).

    One number a sample, f, `[F]`, is wanted, and g, `[U]`, given; the kernel's width is
    in the unit of these numbers. The weights, `f64[U]`, are positive.

    Source: importance weighting under covariate shift (Shimodaira 2000), by kernel
    density estimates; width: our choice, for numbers in 0..1.

    >>> density_ratio(np.array([0.9, 0.9]), np.array([0.1, 0.9])).round(3)
    array([0., 2.])
    """
    wanted, given = np.asarray(wanted, np.float64), np.asarray(given, np.float64)

    def density(of: np.ndarray) -> np.ndarray:
        apart = (given[:, None] - of[None, :]) / width
        return np.exp(-0.5 * np.square(apart)).mean(axis=1)

    return np.maximum(density(wanted) / density(given), np.finfo(np.float32).tiny)


def transport_targets(
    scores: np.ndarray,
    labels: np.ndarray,
    unseen_probs: np.ndarray,
    unseen_labels: np.ndarray,
    *,
    min_unseen: int = 5,
    ease: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Give every forget sample an unseen prediction of its class and quantile.

    In each class, forget samples ranked by `scores` receive the original model's
    prediction on the unseen sample of the same rank of true-class probability. A class
    with fewer than `min_unseen` unseen samples borrows from all classes: a borrowed row
    exchanges the entry of its own true class with that of the class it is lent to.

    Args:
      scores: how easily each forget sample would be predicted unseen, `[F]`, larger is
        easier (default in the drivers: its probability under the original model).
      labels: classes of the forget samples, `[F]`.
      unseen_probs: predictions on unseen samples, `[U, K]`.
      unseen_labels: their classes, `[U]`.
      min_unseen: below this count a class borrows.
      ease: how easy the forget and the unseen samples are, `[F]` and `[U]` in 0..1, for
        a model that saw neither. Where the two differ, unseen samples count by the
        ratio of the densities (`density_ratio`), class by class.

    Returns:
      Target distributions `f32[F, K]`.

    Raises:
      InputError: no unseen sample at all, or arrays of different length.

    Source: our choice (endpoint transport).

    >>> probs = np.array([[0.9, 0.1], [0.6, 0.4]])
    >>> scores, labels = np.array([0.2, 0.8]), np.array([0, 0])
    >>> transport_targets(scores, labels, probs, labels, min_unseen=1)
    array([[0.6, 0.4],
           [0.9, 0.1]], dtype=float32)
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    unseen_probs, unseen_labels = np.asarray(unseen_probs), np.asarray(unseen_labels)
    if len(unseen_labels) == 0:
        raise InputError(
            "unseen_labels is empty: endpoint transport needs unseen samples; hold "
            "some out of training"
        )
    if len(scores) != len(labels) or len(unseen_probs) != len(unseen_labels):
        raise InputError(
            f"len(scores)={len(scores)}, len(labels)={len(labels)}, "
            f"len(unseen_probs)={len(unseen_probs)}, "
            f"len(unseen_labels)={len(unseen_labels)}: each pair must agree"
        )
    if ease is not None and tuple(map(len, ease)) != (len(labels), len(unseen_labels)):
        raise InputError(
            f"ease of {len(ease[0])} and {len(ease[1])} samples: give one number for "
            f"each of the {len(labels)} forget and {len(unseen_labels)} unseen samples"
        )
    true = unseen_probs[np.arange(len(unseen_labels)), unseen_labels]
    targets = np.empty((len(labels), unseen_probs.shape[1]), np.float32)
    for k in np.unique(labels):
        members = np.flatnonzero(labels == k)
        own = np.flatnonzero(unseen_labels == k)
        pool = own if len(own) >= min_unseen else np.arange(len(unseen_labels))
        weights = None
        if ease is not None:
            weights = density_ratio(ease[0][members], ease[1][pool])
        chosen = pool[quantile_match(scores[members], true[pool], weights)]
        rows = unseen_probs[chosen].astype(np.float32)
        here, lender = np.arange(len(chosen)), unseen_labels[chosen]
        rows[here, lender], rows[here, k] = rows[here, k], rows[here, lender].copy()
        targets[members] = rows
    return targets


def sharpness(logits: np.ndarray, sureness: float) -> float:
    """Return the factor that makes predictions as sure as asked.

    s with (1/n) Σ_i max_k softmax(s·z_i)_k = c, for logits z `[n, K]` and sureness
    0 < c ≤ 1: a mean of largest probabilities. At most 100 and at least 0.01, which
    are returned for a sureness that no factor between reaches.

    Raises:
      InputError: no logits, or a sureness outside (0, 1].

    Source: our choice; temperature scaling (arXiv 1706.04599) fits a likelihood
    instead.

    >>> sharpness(np.log([[0.6, 0.4], [0.6, 0.4]]), 0.9)  # log 9 / log 1.5
    5.419
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or not logits.size:
        raise InputError(f"logits.shape={logits.shape} must be [n, K], n and K ≥ 1")
    _validate.fraction("sureness", sureness, "give a mean probability")
    apart = logits - logits.max(axis=1, keepdims=True)

    def sure_at(factor: float) -> float:
        return float(np.mean(1 / np.exp(factor * apart).sum(axis=1)))

    low, high = FLATTEST, SHARPEST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if sure_at(middle) < sureness else (low, middle)
    return low


def target_table(ids: np.ndarray, targets: np.ndarray, num_samples: int) -> np.ndarray:
    """Scatter per-sample rows into a table indexed by sample id.

    Rows `[F, ...]` of the samples `ids` become a table `[N, ...]`, zero elsewhere.

    >>> target_table(np.array([2]), np.array([5.0]), 4)
    array([0., 0., 5., 0.])
    """
    table = np.zeros((num_samples, *targets.shape[1:]), targets.dtype)
    table[np.asarray(ids)] = targets
    return table
