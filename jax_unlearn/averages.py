"""The moving average of the parameters, of any unlearner, method or training.

One equation, two places to keep it: in the state of an unlearner, after each of its
steps (`averaged`, and `ema=` of `ju.run` and `ju.scan_steps`), or in the state of an
optimizer (`ju.diffusion.ema_params`). `ema_of` reads it from either.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import divided, joined
from jax_unlearn.types import Array, Params, Unlearner, UnlearnState

__all__ = ["EmaState", "averaged", "begun", "ema_of", "ema_params", "follow"]
__all__ += ["with_average"]


class EmaState(NamedTuple):
    """Moving average of the parameters, float32, and number of steps, `i32[]`."""

    ema: Params
    count: Array


def averaged(unlearner: Unlearner, decay: float = 0.999) -> Unlearner:
    """Return the unlearner that keeps a moving average of the parameters.

    After each step, whatever made it: θ̄ ← d θ̄ + (1 − d) θ, in float32, from the
    parameters at `init` on. In the first steps d is min(decay, (1 + n)/(10 + n)), so
    that the average forgets the start early. It travels in `UnlearnState.ema`, through
    chunks, ensembles and checkpoints; `ema_of` reads it.

    Raises:
      InputError: decay, d, outside [0, 1).

    Source: as of `ju.diffusion.ema_params`.

    >>> import optax
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = averaged(ju.methods.gradient_ascent(model, optax.sgd(1.0)), 0.5)
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, _ = jax.jit(alg.step)(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params, ema_of(state))  # d = 1/10 in the first step
    1.8808 1.8927
    """
    _validate.share("decay", decay, "try 0.999")

    def init(params, model_state):
        return begun(unlearner.init(params, model_state))

    return Unlearner(init, _followed(unlearner.step, decay))


@functools.lru_cache(maxsize=256)
def _followed(step: Callable, decay: float) -> Callable:
    """Return the step that the average follows: one of each, so as to compile once."""

    def both(state, batch, key):
        new, info = step(state, batch, key)
        ema = follow(state.ema, divided(new.params)[0], decay)
        return new._replace(ema=ema), info

    return both


def with_average(
    unlearner: Unlearner, state: UnlearnState, decay: float | None
) -> tuple[Unlearner, UnlearnState]:
    """Return what a driver runs for `ema=decay`: averages go on where they are."""
    if decay is None:
        return unlearner, state
    return averaged(unlearner, decay), begun(state)


def begun(state: UnlearnState) -> UnlearnState:
    """Return a state with an average, begun at its parameters if it has none."""
    if jax.tree.leaves(state.ema):
        return state
    part = divided(state.params)[0]
    copy = jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), part)
    return state._replace(ema=EmaState(copy, jnp.int32(0)))


def follow(state: EmaState, params: Params, decay: float | Array) -> EmaState:
    """Return the average after a step, see `averaged`."""
    steps = state.count.astype(jnp.float32)
    rate = jnp.minimum(jnp.float32(decay), (1.0 + steps) / (10.0 + steps))

    def average(old: Array, param: Array) -> Array:
        return rate * old + (1.0 - rate) * param.astype(jnp.float32)

    return EmaState(jax.tree.map(average, state.ema, params), state.count + 1)


def ema_of(state: Any, params: Params | None = None) -> Params:
    """Return the moving average, float32, that a state holds.

    The state is that of an unlearner or of an optimizer; the average that was begun
    last counts. Leaves that are no floats have none: they are those of `params`, by
    default of the unlearner's state, and None without them.

    Raises:
      InputError: the state keeps no average.

    >>> ema_of({"momentum": jnp.zeros(1)})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: the state keeps no average of the parameters: run \
    with ema=0.999, or chain ju.diffusion.ema_params(...) last
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, EmaState))
    averages = [leaf for leaf in leaves if isinstance(leaf, EmaState)]
    if not averages:
        raise InputError(
            "the state keeps no average of the parameters: run with ema=0.999, or "
            "chain ju.diffusion.ema_params(...) last"
        )
    average = averages[-1].ema
    if params is None and isinstance(state, UnlearnState):
        params = state.params
    return average if params is None else joined(average, params)


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
