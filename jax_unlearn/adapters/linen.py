"""A `Model` of a `flax.linen` module."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from jax_unlearn.adapters.common import adapted, mode_arguments
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree

__all__ = ["from_linen"]


def from_linen(module: Any, *, rngs: Sequence[str] = ("dropout",)) -> Model:
    """Return the `Model` of a `flax.linen` module.

    `init(key, x)` draws the parameters of `module.init(key, x)`. Parameters are the
    collection "params", without partitioning boxes; the model state is the dict of
    all other collections, e.g. `{"batch_stats": ...}`, `{}` if none. With
    `train=True` these collections are mutable and no others, so values that a module
    sows elsewhere ("intermediates") are dropped.

    Args:
      module: `flax.linen.Module`; for the names of its mode argument see
        `jax_unlearn.adapters`.
      rngs: names of the random streams that `key` feeds.

    Returns:
      A `Model`. Variables trained elsewhere fit it as `params =
      variables.pop("params")`, `model_state = variables`, both plain dicts.

    Raises:
      InputError: when the network needs a key and has none, or changes the structure,
        shapes or dtypes of its state.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> model = from_linen(nn.Dense(4))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> jax.tree.map(jnp.shape, params), state
    ({'bias': (4,), 'kernel': (3, 4)}, {})
    >>> model.apply(params, state, jnp.ones((2, 3)), train=False)[0].shape
    (2, 4)
    """
    from flax import errors
    from flax.core import meta, unfreeze

    function = type(module).__call__

    def streams(key: Array) -> dict[str, Array]:
        return {name: jax.random.fold_in(key, i) for i, name in enumerate(rngs)}

    def init(key: Array, inputs: PyTree) -> tuple[Params, ModelState]:
        keys = {**streams(key), "params": key}
        boxed = module.init(keys, inputs, **mode_arguments(function, False))
        variables = dict(unfreeze(meta.unbox(boxed)))
        return variables.pop("params", {}), variables

    def call(params, model_state, inputs, *, train, key):
        bound = functools.partial(
            module.apply,
            {"params": params, **model_state},
            inputs,
            rngs=None if key is None else streams(key),
            **mode_arguments(function, train),
        )
        if train:
            return bound(mutable=list(model_state))
        return bound(mutable=False), model_state

    def lacks_key(error: Exception) -> bool:
        return isinstance(error, errors.InvalidRngError)

    return adapted(init, call, lacks_key=lacks_key)
