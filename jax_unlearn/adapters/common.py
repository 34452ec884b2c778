"""What the adapters share: mode arguments, strong types, the missing key."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, ModelState, PyTree

_TRAIN_NAMES = ("train", "training", "is_training")
_EVAL_NAMES = ("deterministic", "use_running_average", "inference")


def mode_names(function: Callable[..., Any]) -> dict[str, bool]:
    """Return the mode arguments of a function, True for those that mean training.

    Args:
      function: anything with a signature.

    Returns:
      The arguments among `train`, `training`, `is_training` (True) and
      `deterministic`, `use_running_average`, `inference` (False).

    Examples:
      >>> mode_names(lambda x, *, train, deterministic: x)
      {'train': True, 'deterministic': False}
    """
    names = inspect.signature(function).parameters
    return {n: n in _TRAIN_NAMES for n in names if n in _TRAIN_NAMES + _EVAL_NAMES}


def mode_values(names: dict[str, bool], train: bool) -> dict[str, bool]:
    """Return the mode arguments with their values.

    Args:
      names: result of `mode_names`.
      train: the mode.

    Returns:
      `train` for each True name, `not train` for the others.

    Examples:
      >>> mode_values({"train": True, "deterministic": False}, True)
      {'train': True, 'deterministic': False}
      >>> mode_values({"train": True, "deterministic": False}, False)
      {'train': False, 'deterministic': True}
    """
    return {name: train == means_train for name, means_train in names.items()}


def strong(tree: PyTree) -> PyTree:
    """Return the tree as arrays without weak types.

    Args:
      tree: pytree of arrays or numbers.

    Returns:
      The same values and dtypes; a weakly typed leaf would make a compiled step trace
      twice.

    Examples:
      >>> strong({"a": jnp.asarray(0.0)})["a"].weak_type
      False
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), tree)


def typed_like(new: ModelState, old: ModelState) -> ModelState:
    """Return the new model state with the strong dtypes of the old one.

    Args:
      new: model state after a call.
      old: model state before it.

    Returns:
      The values of `new`, cast.

    Raises:
      InputError: if structure or shapes differ.

    Examples:
      >>> typed_like({"n": jnp.asarray(1.0)}, {"n": jnp.zeros((), jnp.int32)})
      {'n': Array(1, dtype=int32)}
    """
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise InputError(
            f"model_state={jax.tree.structure(old)} became {jax.tree.structure(new)}; "
            "pass what this model's init returns (plain dicts), and let the network "
            "make all its state in init"
        )

    def convert(value: Array, like: Array) -> Array:
        if jnp.shape(value) != jnp.shape(like):
            raise InputError(
                f"a leaf of model_state of shape={jnp.shape(like)} became "
                f"{jnp.shape(value)}; let the network keep the shapes of its state"
            )
        return jnp.asarray(value, jnp.asarray(like).dtype)

    return jax.tree.map(convert, new, old)


def needs_key(train: bool) -> InputError:
    """Return the error of a network that draws random numbers without a key.

    Args:
      train: the mode it was called in.

    Returns:
      The error, to be raised.

    Examples:
      >>> print(needs_key(True))
      key=None, but the network draws random numbers with train=True; pass \
key=jax.random.key(0), another key in every step
    """
    return InputError(
        f"key=None, but the network draws random numbers with train={train}; pass "
        "key=jax.random.key(0), another key in every step"
    )
