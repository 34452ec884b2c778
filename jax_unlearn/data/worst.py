"""Worst-case requests: the forget set of which unlearning leaves the most.

Shapes: N samples, n of them to forget.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn._validate import at_least, positive
from jax_unlearn.data.checks import positive_integer
from jax_unlearn.data.splits import random_bits
from jax_unlearn.errors import InputError

__all__ = ["Search", "capped_simplex", "worst_case"]


class Search(NamedTuple):
    """How far a search is, and what it found; all arrays are on the host.

    Attributes:
      weights: of all samples, `f64[N]`, in [0, 1] with the sum n.
      best: the set of which most is left so far, sorted, `i64[n]`.
      left: mean loss of the set of each round after it was unlearned, less that of the
        reference, `f64[rounds]`. Low: much is left.
    """

    weights: NDArray[np.float64]
    best: NDArray[np.int64]
    left: NDArray[np.float64]


def capped_simplex(weights: ArrayLike, count: int) -> NDArray[np.float64]:
    r"""Project onto the weights in [0, 1] that sum to n: the nearest, `f64[N]`.

    .. math::
        w_i = \min(\max(a_i - \mu, 0), 1), \qquad \sum_i w_i = n

    μ is found by bisection, to rounding.

    Raises:
      InputError: weights that are not finite, a count outside 1..N.

    >>> capped_simplex([2.0, 0.5, 0.25, -1.0], 2).round(6).tolist()
    [1.0, 0.625, 0.375, 0.0]
    """
    a = np.asarray(weights, np.float64)
    if a.ndim != 1 or not np.isfinite(a).all():
        raise InputError(f"weights of shape {a.shape} must be finite numbers [N]")
    if positive_integer("count", count) > len(a):
        raise InputError(f"count={count} is more than the {len(a)} samples; lower it")
    low, high = a.min() - 1, a.max()  # sums N and 0
    for _ in range(100):
        middle = (low + high) / 2
        if np.clip(a - middle, 0, 1).sum() > count:
            low = middle
        else:
            high = middle
    return np.clip(a - high, 0, 1)


def worst_case(
    unlearn: Callable[[NDArray[np.int64]], ArrayLike],
    *,
    samples: int,
    count: int,
    rounds: int = 10,
    rate: float = 0.05,
    decay: float = 1e-4,
    seed: int = 0,
    reference: ArrayLike | None = None,
    found: Search | None = None,
    each: Callable[[Search], None] | None = None,
) -> Search:
    r"""Search the forget set of which unlearning leaves the most, by weights.

    .. math::
        \min_w \sum_i w_i\,\ell_i(\theta_u(w)) + \gamma \|w\|^2, \qquad
        w \in [0, 1]^N,\ \textstyle\sum_i w_i = n

    Each round unlearns the n samples of the largest weights, anew from the original
    model, and takes a projected step, `w ← Π(w - rate · (ℓ/s + 2γw))`, s the standard
    deviation of the losses. How θ_u depends on w is left out of the gradient, which is
    exact where unlearning goes by the sign of its gradients: sign-SGD on the samples
    that stay. A sample whose loss stays low although it is unlearned gathers weight;
    so, for a round, does one that was not unlearned yet. Returned as `best` is the set
    that was measured worst in any round: never better off than the first, a random
    one (`seed`). The same arguments give the same set.

    Low loss after unlearning may mean that the others teach a sample anyway: Retrain
    is right of it, too. With `reference`, losses `[N]` of models that never saw the
    sample, ℓ less the reference is searched by: what is left that should not be.

    Published are the objective, its gradient, sign-SGD from the original for θ_u(w) and
    the projection; there the soft weights are unlearned and made hard now and then, and
    the last set is taken. Our choice: every round unlearns a real request (so that any
    method may stand for `unlearn`), losses in standard deviations, weights that are all
    alike at first, the best of the rounds, and the reference. With N/n rounds or more
    each sample can be tried once.

    Args:
      unlearn: `ids [n] -> losses [N]` of all samples, after unlearning these.
      samples: N.
      count: n, 1 to N - 1.
      rounds: calls of `unlearn`: the cost.
      rate: step of the weights.
      decay: γ.
      seed: of the first set.
      reference: losses to be subtracted.
      found: of a search with the same arguments that was stopped: goes on there.
      each: called after every round, to keep what was found.

    Raises:
      InputError: numbers out of range, losses that are not finite or not `[N]`.

    Source: Fan et al., arXiv 2403.07362 (ECCV 2024).

    >>> kept = np.array([0.1, 3.0, 2.0, 0.2])  # loss of each, once it is unlearned
    >>> def unlearn(ids):
    ...     return np.where(np.isin(np.arange(4), ids), kept, 0.0)
    >>> worst_case(unlearn, samples=4, count=2, rounds=8).best
    array([0, 3])
    """
    positive_integer("samples", samples)
    if positive_integer("count", count) >= samples:
        raise InputError(
            f"count={count} must be less than the {samples} samples; lower it"
        )
    at_least("rounds", rounds, 1, "try 10")
    positive("rate", rate, "try 0.05")
    at_least("decay", decay, 0, "try 1e-4")
    apart = np.zeros(samples) if reference is None else _losses(reference, samples)
    if found is None:
        order = np.argsort(random_bits(seed).random_raw(samples), kind="stable")
        # all alike, but for the order: a set at 1 would take many rounds to leave
        weights = np.full(samples, count / samples)
        weights[order] += 1e-6 * np.linspace(0.5, -0.5, samples)
        found = Search(weights, np.sort(order[:count]), np.zeros(0))
    for _ in range(len(found.left), rounds):
        ids = np.sort(np.argsort(-found.weights, kind="stable")[:count])
        scores = _losses(unlearn(ids), samples) - apart
        left = np.append(found.left, scores[ids].mean())
        best = ids if left[-1] <= left.min() else found.best
        spread = scores.std() or 1.0
        step = rate * (scores / spread + 2 * decay * found.weights)
        found = Search(capped_simplex(found.weights - step, count), best, left)
        if each is not None:
            each(found)
    return found


def _losses(given: ArrayLike, samples: int) -> NDArray[np.float64]:
    losses = np.asarray(given, np.float64)
    if losses.shape != (samples,) or not np.isfinite(losses).all():
        raise InputError(
            f"losses of shape {losses.shape} must be {samples} finite numbers, one a "
            "sample"
        )
    return losses
