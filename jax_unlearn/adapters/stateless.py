"""A `Model` of two plain functions."""

from collections.abc import Callable

from jax_unlearn.adapters.common import strong
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree


def from_stateless(
    init: Callable[[Array, PyTree], Params],
    apply: Callable[[Params, PyTree], PyTree],
) -> Model:
    """Return the `Model` of two plain functions without state or randomness.

    Args:
      init: `(key, inputs [B, ...]) -> params`.
      apply: `(params, inputs [B, ...]) -> outputs [B, ...]`.

    Returns:
      A `Model` whose model state is `()`; `train` and `key` are not used.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> model = from_stateless(
      ...     lambda key, x: {"w": jnp.ones(x.shape[1:])}, lambda p, x: x @ p["w"]
      ... )
      >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
      >>> outputs, state = model.apply(params, state, jnp.ones((2, 3)), train=True)
      >>> outputs.tolist(), state
      ([3.0, 3.0], ())
    """

    def model_init(key: Array, inputs: PyTree) -> tuple[Params, ModelState]:
        return strong(init(key, inputs)), ()

    def model_apply(
        params: Params,
        model_state: ModelState,
        inputs: PyTree,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[PyTree, ModelState]:
        del train, key
        return apply(params, inputs), model_state

    return Model(model_init, model_apply)
