"""The two gradients of LTU: remembering one step ahead, and forgetting by attacks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.gradients import mean_loss, uniform_weights, weighted_loss
from jax_unlearn.leaves import apart
from jax_unlearn.methods.step import (
    Weigher,
    equal_parts,
    next_state,
    steady,
    weights_of,
    with_data,
)
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import Array, Batch

__all__ = ["Parts", "forgetting", "remembering"]


class Parts(NamedTuple):
    """What `meta_unlearn` was given, defaults filled in."""

    relabel: Objective
    remember: Objective
    audits: tuple[Objective, ...]
    queries: int
    weigher: Weigher
    gradient: Callable[..., Any]
    fewest: int


def remembering(parts: Parts, state, batch, key: Array):
    """Return (g_r, what was seen on its way)."""
    forget, queries = batch.forget, equal_parts(batch.retain, parts.queries)
    at = state.model_state
    support = with_data(parts.relabel, state.objective_state[0])
    support = steady(support, at, forget, fewest=parts.fewest)
    one = jax.tree.map(lambda leaf: leaf[0], queries)
    remember = steady(parts.remember, at, one, fewest=parts.fewest)
    support_key, *query_keys = jax.random.split(key, parts.queries + 1)
    weights_fn = weights_of(parts.weigher, support, state, batch)

    def support_loss(params):
        losses, aux = support(params, state.model_state, forget, support_key)
        return weighted_loss(losses, aux, weights_fn, where=forget.mask)

    def query_losses(params):
        def one(query, key):
            losses, aux = remember(params, at, query, key)
            loss, _ = weighted_loss(losses, aux, uniform_weights, where=query.mask)
            after = next_state(at, aux.model_state, query, parts.fewest)
            return loss, apart(after)[0]

        return jax.vmap(one)(queries, jnp.stack(query_keys))

    return parts.gradient(support_loss, query_losses, state.params)


def forgetting(parts: Parts, state, forget: Batch, key: Array) -> Any:
    """Return g_f: each attack judges a part of the forget batch."""
    judges = list(map(with_data, parts.audits, state.objective_state[1:]))
    order_key, support_key, query_key = jax.random.split(key, 3)
    order = jax.random.permutation(order_key, len(judges))
    part = np.arange(forget.labels.shape[0]) % len(judges)
    first = jax.tree.map(lambda leaf: leaf[np.flatnonzero(part == 0)], forget)
    rest = jax.tree.map(lambda leaf: leaf[np.flatnonzero(part > 0)], forget)
    owner = order[part[part > 0]]  # which attack looks at which query sample

    def judged(params, batch, key):
        """Return the losses of all attacks from one forward pass, `[attacks, B]`."""
        seen, _ = judges[0].outputs(params, state.model_state, batch, key)
        return jnp.stack([j.output_loss(seen, batch, key, j.data)[0] for j in judges])

    def support_loss(params):
        losses = judged(params, first, support_key)[order[0]]
        return weighted_loss(losses, None, uniform_weights, where=first.mask)[0], None

    def query_losses(params):
        losses = judged(params, rest, query_key)
        own = jnp.take_along_axis(losses, owner[None], axis=0)[0]
        rows = [np.flatnonzero(part[part > 0] == i) for i in range(1, len(judges))]
        masks = [None if rest.mask is None else rest.mask[r] for r in rows]
        means = [mean_loss(own[r], m) for r, m in zip(rows, masks, strict=True)]
        return jnp.stack(means), None

    return parts.gradient(support_loss, query_losses, state.params)[0]
