"""Rates of a descent by step, held in its state, so that one program serves all."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn.types import Array, PyTree

__all__ = ["LONGEST", "Table", "annealed", "tabled"]

LONGEST = 4096  # steps: as long is the table of rates, whatever the run


class Table(NamedTuple):
    """Rates by step, `f32[LONGEST]`, and the number of steps, `i32[]`."""

    rates: Array
    count: Array


def tabled(rates: np.ndarray) -> optax.GradientTransformation:
    """Descend by a rate of each step, which the state holds: one program serves all."""
    padded = np.zeros(LONGEST, np.float32)
    padded[: len(rates)] = rates

    def init(params: PyTree) -> Table:
        del params
        return Table(jnp.asarray(padded), jnp.int32(0))

    def update(updates: PyTree, state: Any, params: PyTree = None):
        del params
        rate = state.rates[state.count]
        down = jax.tree.map(lambda g: -rate.astype(g.dtype) * g, updates)
        return down, state._replace(count=state.count + 1)

    return optax.GradientTransformation(init, update)


def annealed(peak: float, steps: int, warm: float = 0.0, end: float = 0.0) -> Any:
    """Return rates that rise to a peak and fall along a cosine to a part of it."""
    rise = int(warm * steps)
    fall = np.arange(steps - rise) / max(steps - rise, 1)
    cosine = end + (1 - end) * 0.5 * (1 + np.cos(np.pi * fall))
    return peak * np.concatenate([(np.arange(rise) + 1) / (rise + 1), cosine])
