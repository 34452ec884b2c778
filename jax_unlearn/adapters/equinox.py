"""A `Model` of an equinox module."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_unlearn.adapters.common import (
    adapted,
    evaluating,
    has_weights,
    mode_arguments,
    strong,
)
from jax_unlearn.adapters.parts import Trainable, partly
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree

__all__ = ["equinox_variables", "from_equinox"]

MAKER = "function of a key that makes it"


def from_equinox(
    make: Any,
    *,
    axis_name: str = "batch",
    batched: bool = False,
    train_argument: str | None = None,
    trainable: Trainable | None = None,
) -> Model:
    """Return the `Model` of an equinox module, vmapped over the batch.

    As equinox users write it, the module is a function of one sample, called as
    `module(x)`, `module(x, key=key)`, `module(x, state)` or `module(x, state,
    key=key)` by the names in its signature; with `state` it returns (output, state).
    The adapter vmaps it with `axis_name`, over which `eqx.nn.BatchNorm` takes its
    means, and gives every sample its own key.

    Parameters are the module filtered by `eqx.is_inexact_array`, `eqx.combine(params,
    module)` gives a module back. The model state is the dict {"state":
    `eqx.nn.State`, "arrays": the module's other arrays}. The given State stays valid.

    `make`, `(key) -> eqx.Module`, is wrapped in `eqx.nn.make_with_state` here, and
    traced once more for its static part. It may be a module as well: that says how it
    is built, and `equinox_variables` gives its weights; its model has no `init`. A
    `batched` module takes the whole batch by itself: no vmap, one key a call. A layer
    that is in inference mode by its constructor is so in train mode too.
    `train_argument` names the argument of the call that gets the mode, if not found by
    its name ("not NAME" gets `not train`); `trainable` is that of `ju.trainable`.

    Raises:
      InputError: when the network needs a key and has none, or has state but its call
        has no argument named `state`; when what is given makes no equinox module.

    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> model = from_equinox(lambda key: eqx.nn.Linear(3, 4, key=key))
    >>> params, state = model.init(jax.random.key(0), None)
    >>> params.weight.shape
    (4, 3)
    >>> model.apply(params, state, jnp.ones((2, 3)), train=False)[0].shape
    (2, 4)
    """
    import equinox as eqx

    instance = make if isinstance(make, eqx.Module) else None
    build = None if instance is not None else eqx.nn.make_with_state(_maker(make))
    if instance is not None and (modes := _modes(instance)) and all(modes):
        raise evaluating("module", f"the {MAKER}")

    @functools.cache
    def abstract():
        module, state = (
            eqx.filter_eval_shape(build, jax.random.key(0))
            if build is not None
            else (eqx.filter_eval_shape(lambda: instance), ())
        )
        names = inspect.signature(type(module).__call__).parameters
        if jax.tree.leaves(state) and "state" not in names:
            raise InputError(
                f"module={type(module).__name__} has state, but its __call__ takes no "
                "argument named 'state'; use __call__(self, x, state, *, key=None)"
            )
        dynamic, static = eqx.partition(
            module, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)
        )
        parts = eqx.partition(dynamic, _is_inexact)
        return static, [jax.tree.structure(part) for part in parts], names

    def fitted(params: Params, arrays: PyTree) -> list[PyTree]:
        """Return both in the structures of the one abstract module."""
        parts = zip(abstract()[1], (params, arrays), strict=True)
        return [jax.tree.unflatten(s, jax.tree.leaves(part)) for s, part in parts]

    def init(key: Array, inputs: PyTree) -> tuple[Params, ModelState]:
        del inputs
        if build is None:
            raise has_weights(instance, "from_equinox", MAKER)
        params, model_state = equinox_variables(*build(key))
        params, arrays = fitted(params, model_state["arrays"])
        return params, {**model_state, "arrays": arrays}

    def call(params, model_state, inputs, *, train, key):
        static, _, names = abstract()
        module = eqx.combine(*fitted(params, model_state["arrays"]), static)
        if not train:
            module = eqx.nn.inference_mode(module)
        mode = mode_arguments(type(module).__call__, train, told=train_argument)

        def one(x: PyTree, state: Any, sample_key: Array | None):
            keyed = {**mode, "key": sample_key} if "key" in names else mode
            if "state" in names:
                return module(x, state, **keyed)
            return module(x, **keyed), state

        keys = key
        if not batched:
            size = jax.tree.leaves(inputs)[0].shape[0]
            keys = None if key is None else jax.random.split(key, size)
            one = jax.vmap(
                one, in_axes=(0, None, 0), out_axes=(0, None), axis_name=axis_name
            )
        # eqx.nn.State is used up by a call: give it a copy.
        state = jax.tree.map(lambda leaf: leaf, model_state["state"])
        outputs, state = one(inputs, state, keys)
        return outputs, {**model_state, "state": state}

    def lacks_key(error: Exception) -> bool:
        return isinstance(error, RuntimeError) and "requires a key" in str(error)

    return partly(adapted(init, call, lacks_key=lacks_key), trainable)


def equinox_variables(module: Any, state: Any = None) -> tuple[Params, ModelState]:
    """Return (params, model_state) of an equinox module as `from_equinox` expects.

    For the module and the state of `eqx.nn.make_with_state(make)(key)`, None for a
    module without state: the floating arrays, and {"state": state, "arrays": the
    module's other arrays}.

    Raises:
      InputError: a module with state, without it.

    >>> import equinox as eqx, jax
    >>> make = eqx.nn.make_with_state(lambda key: eqx.nn.Linear(3, 4, key=key))
    >>> params, model_state = equinox_variables(*make(jax.random.key(0)))
    >>> params.weight.shape, jax.tree.leaves(model_state)
    ((4, 3), [])
    """
    import equinox as eqx

    if state is None:
        indices = jax.tree.leaves(module, is_leaf=_is_index)
        if any(map(_is_index, indices)):
            raise InputError(
                f"the module of {type(module).__name__} has state: give both as "
                "eqx.nn.make_with_state returned them, (module, state)"
            )
        state = eqx.nn.State({})
    dynamic = eqx.filter(module, eqx.is_array)
    params, arrays = eqx.partition(dynamic, _is_inexact)
    return strong(params), strong({"state": state, "arrays": arrays})


def _maker(make: Any) -> Callable[[Array], Any]:
    """Return the function of a key that makes a module."""
    import equinox as eqx

    if not callable(make):
        raise InputError(
            f"make={make!r} makes no module: give a function of a key that returns an "
            "equinox module, or the module"
        )

    def build(key: Array) -> Any:
        try:
            named = "key" in inspect.signature(make).parameters
        except ValueError:  # it shows no signature
            named = False
        try:
            module = make(key=key) if named else make(key)
        except TypeError as error:
            raise InputError(
                f"{getattr(make, '__name__', make)!r} cannot be made of a key alone "
                f"({error}); give a function, lambda key: Network(..., key=key)"
            ) from error
        if not isinstance(module, eqx.Module):
            raise InputError(
                f"make returns a {type(module).__name__}, which is no equinox module; "
                "give a function of a key that returns one"
            )
        return module

    return build


def _modes(module: Any) -> list[bool]:
    """Return of each layer that has a mode whether it is in inference."""

    def has(part: Any) -> bool:
        return hasattr(part, "inference")

    parts = filter(has, jax.tree.leaves(module, is_leaf=has))
    return [bool(part.inference) for part in parts]


def _is_index(leaf: Any) -> bool:
    import equinox as eqx

    return isinstance(leaf, eqx.nn.StateIndex)


def _is_inexact(leaf: Any) -> bool:
    """Return whether a leaf is a floating (trainable) array or its description."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)
