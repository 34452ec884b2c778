"""The moving average of the parameters, as an optax transformation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_unlearn.errors import InputError
from jax_unlearn.leaves import joined
from jax_unlearn.types import Array, Params

__all__ = ["EmaState", "ema_of", "ema_params"]


class EmaState(NamedTuple):
    """Moving average of the parameters, float32, and number of steps, `i32[]`."""

    ema: Params
    count: Array


def ema_params(decay: float | Array = 0.999) -> optax.GradientTransformation:
    """Keep a moving average of the parameters: θ̄ ← d θ̄ + (1 − d) θ.

    Put it last in `optax.chain`, and give `update` the parameters: it sees the updates
    that are applied and leaves them alone. In the first steps d is
    min(decay, (1 + n)/(10 + n)), so that the average forgets the initialisation early.
    `ema_of` reads it.

    Raises:
      InputError: decay outside [0, 1).

    Reference: Ho et al., arXiv 2006.11239 (d = 0.9999 there); the warm-up is that of
    TensorFlow's ExponentialMovingAverage.

    >>> optimizer = optax.chain(optax.sgd(1.0), ema_params(0.5))
    >>> params, state = jnp.float32(0.0), optimizer.init(jnp.float32(0.0))
    >>> updates, state = optimizer.update(jnp.float32(-10.0), state, params)
    >>> print(ema_of(state))  # d = 1/10 in the first step: 0.1·0 + 0.9·10
    9.0
    """
    if isinstance(decay, int | float) and not 0 <= decay < 1:
        raise InputError(f"decay={decay} must lie in [0, 1); try 0.999")

    def init(params: Params) -> EmaState:
        copy = jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), params)
        return EmaState(copy, jnp.int32(0))

    def update(updates: Any, state: Any, params: Params | None = None):
        if params is None:
            raise ValueError("ema_params needs params: call update(g, state, params)")
        steps = state.count.astype(jnp.float32)
        rate = jnp.minimum(jnp.float32(decay), (1.0 + steps) / (10.0 + steps))

        def average(old: Array, param: Array, change: Array) -> Array:
            new = (param + change).astype(jnp.float32)
            return rate * old + (1.0 - rate) * new

        ema = jax.tree.map(average, state.ema, params, updates)
        return updates, EmaState(ema, state.count + 1)

    return optax.GradientTransformation(init, update)


def ema_of(opt_state: Any, params: Params | None = None) -> Params:
    """Return the moving average, float32, that a state of an optimizer holds.

    Leaves that are no floats have none: they are those of `params`, None without them.

    Raises:
      InputError: the chain keeps no average.

    >>> ema_of(optax.sgd(1.0).init(jnp.zeros(1)))
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: the optimizer keeps no average of the parameters; \
    chain ju.diffusion.ema_params(...) last
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, EmaState))
    averages = [leaf for leaf in leaves if isinstance(leaf, EmaState)]
    if not averages:
        raise InputError(
            "the optimizer keeps no average of the parameters; chain "
            "ju.diffusion.ema_params(...) last"
        )
    average = averages[-1].ema
    return average if params is None else joined(average, params)
