"""The moving average of the parameters, as an optax transformation."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate
from jax_unlearn.averages import EmaState as EmaState
from jax_unlearn.averages import ema_of as ema_of
from jax_unlearn.averages import follow
from jax_unlearn.types import Array, Params

__all__ = ["EmaState", "ema_of", "ema_params"]


def ema_params(decay: float | Array = 0.999) -> optax.GradientTransformation:
    """Keep a moving average of the parameters: θ̄ ← d θ̄ + (1 − d) θ.

    Put it last in `optax.chain`, and give `update` the parameters: it sees the updates
    that are applied and leaves them alone. In the first steps d is
    min(decay, (1 + n)/(10 + n)), so that the average forgets the initialisation early.
    `ema_of` reads it. For any unlearner `ema=` of `ju.run` keeps the same average.

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
    _validate.share("decay", decay, "try 0.999")

    def init(params: Params) -> EmaState:
        copy = jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), params)
        return EmaState(copy, jnp.int32(0))

    def update(updates: Any, state: Any, params: Params | None = None):
        if params is None:
            raise ValueError("ema_params needs params: call update(g, state, params)")
        return updates, follow(state, jax.tree.map(jnp.add, params, updates), decay)

    return optax.GradientTransformation(init, update)
