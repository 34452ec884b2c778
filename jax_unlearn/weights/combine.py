"""Weightings made of weightings: uniform, product, bounds, fade-in."""

from collections.abc import Callable

import jax.numpy as jnp

from jax_unlearn.cards import WeightingCard
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Sample, Weighting

__all__ = ["UNIFORM", "chain", "clip", "schedule", "stateless", "uniform"]


def stateless(weigh: Callable[[Sample], Array], *, joint: bool = False) -> Weighting:
    """Make a weighting of a function of the samples alone, `Sample -> f32[B]`.

    `joint`: whether a weight depends on the other samples of its batch.

    >>> w = stateless(lambda sample: 2.0 * sample.losses)
    >>> s = Sample(jnp.array([1.0, 3.0]), None, jnp.array([0, 1]))
    >>> w.update(s, w.init())[0].tolist()
    [2.0, 6.0]
    """

    def update(sample: Sample, state, *, reference=None):
        del reference
        return weigh(sample), state

    return Weighting(lambda: (), update, joint)


def uniform() -> Weighting:
    """Weight every sample by 1.

    >>> w = uniform()
    >>> s = Sample(jnp.zeros(2), None, jnp.array([0, 1]))
    >>> w.update(s, w.init())[0].tolist()
    [1.0, 1.0]
    """
    return stateless(lambda sample: jnp.ones(sample.losses.shape, jnp.float32))


def chain(*weightings: Weighting) -> Weighting:
    """Multiply weightings: w = Π_j w_j, each with its own state.

    Raises:
      InputError: no weighting is given.

    >>> from jax_unlearn.weights.loreun import loreun
    >>> w = chain(loreun(temperature=1.0), uniform())
    >>> s = Sample(jnp.log(jnp.array([1.0, 3.0])), None, jnp.array([0, 1]))
    >>> w.update(s, w.init())[0].tolist()
    [1.5, 0.5]
    """
    if not weightings:
        raise InputError("chain() of no weightings; give one or more, or use uniform()")

    def update(sample: Sample, state, *, reference=None):
        product, states = jnp.ones(sample.losses.shape, jnp.float32), []
        for weighting, own in zip(weightings, state, strict=True):
            weights, own = weighting.update(sample, own, reference=reference)
            product = product * weights
            states.append(own)
        return product, tuple(states)

    joint = any(w.joint for w in weightings)
    return Weighting(lambda: tuple(w.init() for w in weightings), update, joint)


def clip(weighting: Weighting, low: float, high: float) -> Weighting:
    """Bound the weights to [low, high].

    Raises:
      InputError: unless 0 ≤ low ≤ high.

    >>> from jax_unlearn.weights.loreun import loreun
    >>> w = clip(loreun(temperature=1.0), 0.0, 1.2)
    >>> s = Sample(jnp.log(jnp.array([1.0, 3.0])), None, jnp.array([0, 1]))
    >>> w.update(s, w.init())[0].tolist()
    [1.2, 0.5]
    """
    fixed = all(isinstance(bound, int | float) for bound in (low, high))
    if fixed and not 0 <= low <= high:
        raise InputError(f"low={low}, high={high}: bounds need 0 <= low <= high")

    def update(sample: Sample, state, *, reference=None):
        weights, state = weighting.update(sample, state, reference=reference)
        return jnp.clip(weights, low, high), state

    return Weighting(weighting.init, update, weighting.joint)


def schedule(weighting: Weighting, strength: Callable[[Array], Array]) -> Weighting:
    """Fade between uniform and the weighting: w ← 1 + s(t)·(w − 1).

    `strength` is any optax schedule, of the number of weighted steps so far, `i32[]`.

    >>> import optax
    >>> from jax_unlearn.weights.loreun import loreun
    >>> w = schedule(loreun(temperature=1.0), optax.linear_schedule(0.0, 1.0, 2))
    >>> s = Sample(jnp.log(jnp.array([1.0, 3.0])), None, jnp.array([0, 1]))
    >>> first, state = w.update(s, w.init())
    >>> second, state = w.update(s, state)
    >>> print(first, second)
    [1. 1.] [1.25 0.75]
    """

    def update(sample: Sample, state, *, reference=None):
        inner, step = state
        weights, inner = weighting.update(sample, inner, reference=reference)
        share = jnp.asarray(strength(step), jnp.float32)
        return 1.0 + share * (weights - 1.0), (inner, step + 1)

    return Weighting(lambda: (weighting.init(), jnp.int32(0)), update, weighting.joint)


UNIFORM = WeightingCard(
    "uniform", "uniform", "all alike", lambda lab, options: uniform(), source="–"
).but(shared=True)
