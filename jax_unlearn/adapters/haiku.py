"""A `Model` of a haiku function."""

from typing import Any

from jax_unlearn.adapters.common import (
    mode_names,
    mode_values,
    needs_key,
    strong,
    typed_like,
)
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree


def from_haiku(transformed: Any) -> Model:
    """Return the `Model` of a haiku function.

    Parameters and state are haiku's own dicts of dicts of arrays; the model state of
    `hk.transform` is `{}`. `init` calls the function in train mode, in which
    `hk.BatchNorm` makes its state, with `key` for its dropout as well.

    Args:
      transformed: result of `hk.transform_with_state` or `hk.transform`; for the
        names of the function's mode argument see `jax_unlearn.adapters`.

    Returns:
      A `Model`.

    Raises:
      InputError: when the network needs a key and has none, or changes the structure,
        shapes or dtypes of its state.

    Examples:
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
    mode = mode_names(transformed.apply)

    def init(key: Array, inputs: PyTree) -> tuple[Params, ModelState]:
        params, state = transformed.init(key, inputs, **mode_values(mode, True))
        return strong(params), strong(state)

    def apply(
        params: Params,
        model_state: ModelState,
        inputs: PyTree,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[PyTree, ModelState]:
        extra = mode_values(mode, train)
        try:
            outputs, new_state = transformed.apply(
                params, model_state, key, inputs, **extra
            )
        except ValueError as error:
            if key is None and type(error).__name__ == "MissingRNGError":
                raise needs_key(train) from error
            raise
        if not train:
            return outputs, model_state
        return outputs, typed_like(new_state, model_state)

    return Model(init, apply)
