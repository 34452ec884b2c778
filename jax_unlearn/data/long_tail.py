"""The long-tailed law: how many samples each class gives, and head, mid and tail.

Shapes: K classes.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.checks import check_real
from jax_unlearn.errors import InputError

__all__ = ["ClassGroups", "head_mid_tail", "largest_remainder", "long_tailed_counts"]


class ClassGroups(NamedTuple):
    """Thirds of the classes, from those with most forget samples on."""

    head: NDArray[np.int64]
    mid: NDArray[np.int64]
    tail: NDArray[np.int64]


def long_tailed_counts(
    class_sizes: ArrayLike,
    total: int,
    *,
    gamma: float,
    order: ArrayLike,
    max_class_fraction: float,
) -> NDArray[np.int64]:
    r"""Return how many samples a long-tailed forget set takes of each class, `i64[K]`.

    The class of rank r, the r-th of `order`, gets a budget by the power law, capped:

    .. math::
        b_r = \min(\lambda r^{-\gamma}, c_r), \quad
        c_r = \lfloor \text{max\_class\_fraction} \cdot n_r \rfloor, \quad
        \sum_r b_r = \text{total},

    so what a full class cannot take is shared by the others under the same law, and
    classes that `order` leaves out get nothing. The budgets are rounded by largest
    remainder, ties to the smaller rank. γ >= 0; 0 gives every class the same.

    Raises:
      InputError: a hyper-parameter out of range, or `total` over the sum of the caps.

    Source: the law is METHODS [S], the cap and its redistribution are our choice.

    >>> sizes, order = [60, 60, 60], [2, 0, 1]  # 60 : 30 : 20 of 110
    >>> long_tailed_counts(sizes, 110, gamma=1.0, order=order, max_class_fraction=1.0)
    array([30, 20, 60])
    >>> long_tailed_counts(  # class 2 is full at 50; 60 are left for 30 : 20
    ...     sizes, 110, gamma=1.0, order=order, max_class_fraction=5 / 6
    ... )
    array([36, 24, 50])
    """
    sizes, order = np.asarray(class_sizes), np.asarray(order)
    check_real("gamma", gamma, "the paper uses 0 to 2", high=math.inf)
    check_real("max_class_fraction", max_class_fraction, "try 0.9", positive=True)
    distinct = len(np.unique(order)) == len(order)
    if not (distinct and np.all((order >= 0) & (order < len(sizes)))):
        raise InputError(
            f"order={order.tolist()} must name distinct classes, 0 to {len(sizes) - 1}"
        )
    caps = np.zeros(len(sizes), np.int64)
    caps[order] = np.floor(max_class_fraction * sizes[order] + 1e-9)
    if not 0 <= total <= caps.sum():
        largest = math.floor(caps.sum() / max(sizes.sum(), 1) * 1e4) / 1e4
        raise InputError(
            f"total={total} of {sizes.sum()} samples is infeasible with "
            f"max_class_fraction={max_class_fraction}: {len(order)} classes give at "
            f"most {caps.sum()}; the largest feasible fraction is {largest:g}"
        )
    log_rank = np.log(np.arange(1, len(order) + 1))
    ranked = caps[order]
    budget = np.zeros(len(order))
    free = ranked > 0
    while free.any():
        left = total - budget[~free].sum()
        # Relative to the first free rank: the largest weight is 1, whatever gamma.
        weight = np.exp(-gamma * (log_rank[free] - log_rank[free].min()))
        budget[free] = left * weight / weight.sum()
        full = free & (budget > ranked)
        if not full.any():
            break
        budget[full] = ranked[full]
        free &= ~full
    counts = np.zeros(len(sizes), np.int64)
    counts[order] = largest_remainder(budget, total, ranked)
    return counts


def head_mid_tail(forget_counts: ArrayLike) -> ClassGroups:
    """Return thirds of the classes by numbers of forget samples `[K]`, most first.

    Ties go by class number; when K is not a multiple of 3 the first groups are the
    larger ones. (METHODS [D].)

    Raises:
      InputError: fewer than three classes.

    >>> head_mid_tail([5, 40, 20, 10])
    ClassGroups(head=array([1, 2]), mid=array([3]), tail=array([0]))
    """
    counts = np.asarray(forget_counts)
    if counts.ndim != 1 or len(counts) < 3:
        raise InputError(
            f"forget_counts of shape {counts.shape} must hold at least 3 classes"
        )
    return ClassGroups(*np.array_split(np.argsort(-counts, kind="stable"), 3))


def largest_remainder(
    budget: NDArray[np.float64], total: int, caps: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Round budgets `[K]` to whole numbers of one total, the largest remainders up."""
    counts = np.minimum(np.floor(budget + 1e-9).astype(np.int64), caps)
    while (missing := total - counts.sum()) > 0:
        # Rounded, so that remainders equal but for the last bit count as a tie.
        remainder = np.where(counts < caps, np.round(budget - counts, 9), -np.inf)
        first = np.argsort(-remainder, kind="stable")[:missing]
        counts[first] += counts[first] < caps[first]
    return counts
