"""A `Model` of a haiku function."""

import inspect
from typing import Any

import jax

from jax_unlearn.adapters.common import adapted, mode_arguments, refuse_idle
from jax_unlearn.adapters.parts import Trainable, partly
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree

__all__ = ["from_haiku"]


def from_haiku(
    transformed: Any,
    *,
    train_argument: str | None = None,
    trainable: Trainable | None = None,
) -> Model:
    """Return the `Model` of a haiku function.

    Parameters and state are haiku's own dicts of dicts of arrays; the model state of
    `hk.transform` is `{}`. `init` calls the function in train mode, in which
    `hk.BatchNorm` makes its state, with `key` for its dropout as well. The function is
    one of `hk.transform_with_state` or `hk.transform`; for the names of its mode
    argument see `jax_unlearn.adapters`; `train_argument` names another ("not NAME" gets
    `not train`, "" says that there is none), `trainable` is that of `ju.trainable`.

    Raises:
      InputError: when the network needs a key and has none, changes the structure,
        shapes or dtypes of its state, or does not train as its mode argument was not
        found.

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

    def mode(train: bool) -> dict[str, bool]:
        return mode_arguments(transformed.apply, train, told=train_argument)

    def init(key: Array, inputs: PyTree) -> tuple[Params, ModelState]:
        return transformed.init(key, inputs, **mode(True))

    def call(params, model_state, inputs, *, train, key):
        outputs, new = transformed.apply(
            params, model_state, key, inputs, **mode(train)
        )
        if train and train_argument is None and not mode(True):
            pairs = zip(*map(jax.tree.leaves, (new, model_state)), strict=False)
            names = list(inspect.signature(transformed.apply).parameters)
            if jax.tree.leaves(model_state) and all(a is b for a, b in pairs):
                refuse_idle("the haiku function", names[4:])
        return outputs, new

    def lacks_key(error: Exception) -> bool:
        return type(error).__name__ == "MissingRNGError"

    return partly(adapted(init, call, lacks_key=lacks_key), trainable)
