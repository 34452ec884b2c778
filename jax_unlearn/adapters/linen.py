"""A `Model` of a `flax.linen` module."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jax_unlearn.adapters.common import (
    EVALUATE,
    TRAIN,
    adapted,
    flag,
    is_variadic,
    method_of,
    mode_arguments,
    refuse_idle,
    strong,
    unclear,
)
from jax_unlearn.adapters.parts import Trainable, partly
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree

__all__ = ["from_linen", "linen_variables"]


def from_linen(
    module: Any,
    *,
    method: str = "__call__",
    rngs: Sequence[str] = ("dropout",),
    train_argument: str | None = None,
    trainable: Trainable | None = None,
) -> Model:
    """Return the `Model` of a `flax.linen` module.

    `init(key, x)` draws the parameters of `module.init(key, x)`. Parameters are the
    collection "params", without partitioning boxes; the model state is the dict of all
    other collections, e.g. `{"batch_stats": ...}`, `{}` if none. With `train=True`
    these collections are mutable and no others, so values that a module sows elsewhere
    ("intermediates") are dropped. `variables_of(variables)` gives both of variables
    trained elsewhere. For the mode see `jax_unlearn.adapters`; a field of the module of
    one of these names is set where the call has no such argument.

    Args:
      module: the module, not its class.
      method: which one `apply` calls, as `"features"`; `init` is that of the whole
        module, so models of different methods share parameters and state.
      rngs: random streams that `key` feeds, each its own; others share one.
      train_argument: the argument or field that gets the mode, if not found by its
        name; "not NAME" gets `not train`; "" says that there is none.
      trainable: which parameters methods see, see `ju.trainable`; default all.

    Raises:
      InputError: what is given is no linen module, or has no such method; when the
        network needs a key and has none, changes the structure, shapes or dtypes of its
        state, or has BatchNorm or Dropout in the wrong mode, as its mode argument was
        not found.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> model = from_linen(nn.Dense(4))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> jax.tree.map(jnp.shape, params), state
    ({'bias': (4,), 'kernel': (3, 4)}, {})
    >>> model.apply(params, state, jnp.ones((2, 3)), train=False)[0].shape
    (2, 4)
    """
    from flax import errors, linen
    from flax.core import meta, unfreeze

    if not isinstance(module, linen.Module):
        raise InputError(_no_linen(module))
    function = method_of(type(module), method)
    in_mode = _switch(module, function, train_argument)
    of_whole = _switch(module, type(module).__call__, train_argument)
    told = bool(mode_arguments(function, True))

    def streams(key: Array) -> dict[str, Array]:
        own = {name: jax.random.fold_in(key, i) for i, name in enumerate(rngs)}
        return {"params": jax.random.fold_in(key, len(rngs)), **own}

    def init(key: Array, inputs: PyTree) -> tuple[Params, ModelState]:
        keys = {**streams(key), "params": key}
        made, arguments = of_whole(False)
        variables = dict(unfreeze(meta.unbox(made.init(keys, inputs, **arguments))))
        return variables.pop("params", {}), variables

    def call(params, model_state, inputs, *, train, key):
        made, arguments = in_mode(train)
        bound = functools.partial(
            made.apply,
            {"params": params, **model_state},
            inputs,
            rngs=None if key is None else streams(key),
            method=method,
            **arguments,
        )
        layers: list[tuple[str, bool]] = []
        with linen.intercept_methods(functools.partial(_watched, layers, train)):
            if not train:
                return bound(mutable=False), model_state
            outputs, new = bound(mutable=list(model_state))
        if train_argument is None and made is module and not told:
            still = all(evaluates for _, evaluates in layers)
            if still and (layers or _unchanged(new, model_state)):
                # by its constructors, unless there is an argument we do not know
                refuse_idle(type(module).__name__, _others(module, function))
        return outputs, new

    def lacks_key(error: Exception) -> bool:
        return isinstance(error, errors.InvalidRngError)

    return partly(adapted(init, call, lacks_key=lacks_key), trainable)


def linen_variables(variables: Mapping[str, Any]) -> tuple[Params, ModelState]:
    """Return (params, model_state) of linen variables as `from_linen` expects them.

    Plain dicts without partitioning boxes: the collection "params", and all others but
    "intermediates".

    >>> import jax.numpy as jnp
    >>> stats = {"mean": jnp.zeros(2)}
    >>> linen_variables({"params": {"scale": jnp.ones(2)}, "batch_stats": stats})[1]
    {'batch_stats': {'mean': Array([0., 0.], dtype=float32)}}
    """
    from flax.core import meta, unfreeze

    plain = dict(unfreeze(meta.unbox(dict(variables))))
    plain.pop("intermediates", None)
    params, rest = plain.pop("params", {}), plain
    rest = {name: value for name, value in rest.items() if jax.tree.leaves(value)}
    return strong(_plain(params)), strong(_plain(rest))


def _plain(tree: Any) -> Any:
    """Return mappings as dicts, at every depth."""
    if isinstance(tree, Mapping):
        return {name: _plain(value) for name, value in tree.items()}
    return tree


def _switch(module: Any, function: Any, told: str | None):
    """Return `train -> (module, arguments of its method)`."""
    fields = {f.name for f in dataclasses.fields(module)} - {"parent", "name"}
    if told:
        name, _ = flag(told)
        if name in fields and name not in inspect.signature(function).parameters:
            return lambda train: (module.clone(**dict([_told(told, train)])), {})
        return lambda train: (module, mode_arguments(function, train, told=told))
    if told is not None:
        return lambda train: (module, {})
    known = [name for name in (*TRAIN, *EVALUATE) if name in fields]
    if names := mode_arguments(function, True):
        # a layer as the whole network: what its constructor fixed is not told again
        fixed = [n for n in names if n in fields and getattr(module, n) is not None]

        def arguments(train: bool) -> dict[str, bool]:
            told = mode_arguments(function, train)
            return {name: told[name] for name in names if name not in fixed}

        return lambda train: (module, arguments(train))
    if known and not is_variadic(function):
        return lambda train: (
            module.clone(**{name: train == (name in TRAIN) for name in known}),
            {},
        )
    if is_variadic(function):
        raise unclear(type(module).__name__, function)
    return lambda train: (module, {})


def _told(told: str, train: bool) -> tuple[str, bool]:
    name, inverted = flag(told)
    return name, train != inverted


def _watched(layers: list, train: bool, call: Any, args: Any, kwargs: Any, context):
    """Note which layers evaluate; refuse one that trains in evaluation."""
    from flax import linen

    layer = context.module
    names = {linen.BatchNorm: "use_running_average", linen.Dropout: "deterministic"}
    name = next((n for kind, n in names.items() if isinstance(layer, kind)), None)
    if name is None or context.method_name != "__call__":
        return call(*args, **kwargs)
    value = kwargs.get(name, args[1] if len(args) > 1 else None)
    value = getattr(layer, name) if value is None else value
    if isinstance(value, bool):
        layers.append(("/".join(layer.path), value))
        if not train and not value and isinstance(layer, linen.BatchNorm):
            raise InputError(
                f"BatchNorm {layers[-1][0]!r} takes the statistics of its batch in "
                "evaluation too: let the module's call have an argument `train`, or "
                "name the one it has, train_argument='is_fitting'"
            )
    return call(*args, **kwargs)


def _unchanged(new: ModelState, old: ModelState) -> bool:
    """Return whether there are batch statistics, and none was touched."""
    pairs = [jax.tree.leaves(state.get("batch_stats", {})) for state in (new, old)]
    return bool(pairs[1]) and all(a is b for a, b in zip(*pairs, strict=False))


def _others(module: Any, function: Any) -> list[str]:
    """Return arguments of the call and fields that may be the mode."""
    parameters = list(inspect.signature(function).parameters.values())
    found = [p.name for p in parameters[2:] if p.kind is not p.VAR_POSITIONAL]
    own = (f for f in dataclasses.fields(module) if f.name not in ("parent", "name"))
    return found + [f.name for f in own if isinstance(getattr(module, f.name), bool)]


def _no_linen(module: Any) -> str:
    """Say what to give instead of something that is no linen module."""
    from flax import linen, nnx

    kind = module if isinstance(module, type) else type(module)
    if issubclass(kind, linen.Module):
        return f"module={kind.__name__} is a class: give a module, {kind.__name__}(...)"
    if issubclass(kind, nnx.Module):
        return f"module of {kind.__name__} is one of nnx: give it to from_nnx"
    return f"module of type {kind.__name__} is no flax.linen module: give one"
