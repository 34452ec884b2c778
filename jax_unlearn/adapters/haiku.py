"""A `Model` of a haiku function."""

from typing import Any

from jax_unlearn.adapters.common import adapted, mode_arguments
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree

__all__ = ["from_haiku"]


def from_haiku(transformed: Any) -> Model:
    """Return the `Model` of a haiku function.

    Parameters and state are haiku's own dicts of dicts of arrays; the model state of
    `hk.transform` is `{}`. `init` calls the function in train mode, in which
    `hk.BatchNorm` makes its state, with `key` for its dropout as well. The function is
    one of `hk.transform_with_state` or `hk.transform`; for the names of its mode
    argument see `jax_unlearn.adapters`.

    Raises:
      InputError: when the network needs a key and has none, or changes the structure,
        shapes or dtypes of its state.

    >>> import haiku as hk, jax, jax.numpy as jnp
    >>> model = from_haiku(hk.transform(lambda x: hk.Linear(4)(x)))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> jax.tree.map(jnp.shape, params), state
    ({'linear': {'b': (4,), 'w': (3, 4)}}, {})
    >>> model.apply(params, state, jnp.ones((2, 3)), train=False)[0].shape
    (2, 4)
    """
    import haiku as hk

    if not isinstance(transformed, hk.Transformed | hk.TransformedWithState):
        raise InputError(
            f"transformed={transformed!r} must come from hk.transform_with_state or "
            "hk.transform; wrap the function first"
        )
    if isinstance(transformed, hk.Transformed):
        transformed = hk.with_empty_state(transformed)

    def init(key: Array, inputs: PyTree) -> tuple[Params, ModelState]:
        return transformed.init(key, inputs, **mode_arguments(transformed.apply, True))

    def call(params, model_state, inputs, *, train, key):
        mode = mode_arguments(transformed.apply, train)
        return transformed.apply(params, model_state, key, inputs, **mode)

    return adapted(
        init, call, lacks_key=lambda e: type(e).__name__ == "MissingRNGError"
    )
