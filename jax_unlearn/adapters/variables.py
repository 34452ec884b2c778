"""The variables of a trained network of any framework."""

import sys
from collections.abc import Mapping
from typing import Any

from jax_unlearn.adapters.equinox import equinox_variables
from jax_unlearn.adapters.linen import linen_variables
from jax_unlearn.adapters.nnx import nnx_variables, trained_paths
from jax_unlearn.adapters.parts import Trainable, parted
from jax_unlearn.errors import InputError
from jax_unlearn.types import ModelState, Params

__all__ = ["variables_of"]


def variables_of(
    trained: Any, *, trainable: Trainable | None = None
) -> tuple[Params, ModelState]:
    """Return (params, model_state) of your trained network, as its `Model` reads them.

    >>> from flax import nnx
    >>> import jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> network = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    >>> model = ju.from_nnx(network)
    >>> params, model_state = variables_of(network)
    >>> model.apply(params, model_state, jnp.ones((1, 2)), train=False)[0].shape
    (1, 3)

    Args:
      trained: an nnx module; linen variables (`{"params": ..., "batch_stats": ...}`), a
        bound linen module or a `TrainState`; an equinox module, or the pair (module,
        state); a pair (params, state) of haiku.
      trainable: which parameters methods see, as given to the adapter; see
        `ju.trainable`. Default all.

    Returns:
      The parameters, and what else the network carries; the arrays are those given.

    Raises:
      InputError: nothing of these; it names what to give instead.
    """
    which, any_kind = trainable, trained  # of which no class is known here
    if _is(trained, "flax.nnx", "Module"):
        which = trained_paths(trained, trainable)
        found = nnx_variables(trained)
    elif _is(trained, "equinox", "Module"):
        found = equinox_variables(trained)
    elif isinstance(trained, tuple | list) and len(trained) == 2:
        if _is(trained[0], "equinox", "Module"):
            found = equinox_variables(*trained)
        else:
            found = trained[0], trained[1]
    elif _is(trained, "flax.linen", "Module"):
        if any_kind.scope is None:
            raise InputError(
                f"a linen module of {type(trained).__name__} holds no variables: give "
                "those it was trained to, {'params': ..., 'batch_stats': ...}"
            )
        found = linen_variables(any_kind.variables)
    elif isinstance(trained, Mapping) and "params" in trained:
        found = linen_variables(trained)
    elif hasattr(trained, "params"):  # a TrainState, and its other collections
        others = (getattr(trained, name, None) for name in ("model_state", "state"))
        rest = next((other for other in others if isinstance(other, Mapping)), {})
        stats = getattr(trained, "batch_stats", None)
        rest = dict(rest) if stats is None else {**rest, "batch_stats": stats}
        found = linen_variables({**rest, "params": any_kind.params})
    else:
        keys = f" of {sorted(trained)[:3]}" if isinstance(trained, Mapping) else ""
        raise InputError(
            f"a {type(trained).__name__}{keys} is no trained network: give an nnx or "
            "equinox module, linen variables {'params': ..., 'batch_stats': ...}, a "
            "TrainState, or (params, model_state)"
        )
    return parted(*found, which)


def _is(value: Any, package: str, name: str) -> bool:
    """Return whether a value is of a class of a package, if that is imported at all."""
    module = sys.modules.get(package)
    return module is not None and isinstance(value, getattr(module, name))
