"""A `Model` of a `flax.linen` module."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from jax_unlearn.adapters.common import (
    mode_names,
    mode_values,
    needs_key,
    strong,
    typed_like,
)
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree


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

    Examples:
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

    mode = mode_names(type(module).__call__)

    def streams(key: Array) -> dict[str, Array]:
        return {name: jax.random.fold_in(key, i) for i, name in enumerate(rngs)}

    def init(key: Array, inputs: PyTree) -> tuple[Params, ModelState]:
        boxed = module.init(
            {**streams(key), "params": key}, inputs, **mode_values(mode, False)
        )
        variables = dict(unfreeze(meta.unbox(boxed)))
        params = variables.pop("params", {})
        return strong(params), strong(variables)

    def apply(
        params: Params,
        model_state: ModelState,
        inputs: PyTree,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[PyTree, ModelState]:
        call = functools.partial(
            module.apply,
            {"params": params, **model_state},
            inputs,
            rngs=None if key is None else streams(key),
            **mode_values(mode, train),
        )
        try:
            if not train:
                return call(mutable=False), model_state
            outputs, new_state = call(mutable=list(model_state))
        except errors.InvalidRngError as error:
            if key is None:
                raise needs_key(train) from error
            raise
        return outputs, typed_like(new_state, model_state)

    return Model(init, apply)
