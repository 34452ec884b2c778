"""A `Model` of a `flax.linen` or a `flax.nnx` module."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jax_unlearn.adapters.common import adapted, mode_arguments, needs_key, strong
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree

__all__ = ["from_linen", "from_nnx", "nnx_variables"]


def from_linen(module: Any, *, rngs: Sequence[str] = ("dropout",)) -> Model:
    """Return the `Model` of a `flax.linen` module.

    `init(key, x)` draws the parameters of `module.init(key, x)`. Parameters are the
    collection "params", without partitioning boxes; the model state is the dict of all
    other collections, e.g. `{"batch_stats": ...}`, `{}` if none. With `train=True`
    these collections are mutable and no others, so values that a module sows elsewhere
    ("intermediates") are dropped. Variables trained elsewhere fit it as `params =
    variables.pop("params")`, `model_state = variables`, both plain dicts. `rngs` names
    the random streams that `key` feeds; for the mode see `jax_unlearn.adapters`.

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

    return adapted(
        init, call, lacks_key=lambda e: isinstance(e, errors.InvalidRngError)
    )


def from_nnx(make: Callable[[Any], Any], *, method: str = "__call__") -> Model:
    """Return the `Model` of a `flax.nnx` module.

    `init(key, x)` is `make(nnx.Rngs(key))`, so it draws what nnx users would; `x` is
    not read. Parameters are the `nnx.Param` variables, the model state all others
    (`nnx.BatchStat`, raw arrays), both as nested dicts of arrays by attribute name.
    Random streams are not carried: `key` restarts them in every call.

    `make` is traced once more for the abstract module. `apply` calls its `method`,
    which gets `nnx.Rngs(key)` if it takes `rngs`, and the mode as
    `jax_unlearn.adapters` says. Models of one `make` and different methods share
    parameters and state: `"features"` gives the penultimate layer of a network of
    `jax_unlearn.zoo`. `nnx_variables` gives the variables of a module trained
    elsewhere; `nnx.update(module, params, model_state)` writes them back.

    Raises:
      InputError: when the network needs a key and has none, the module has no such
        method, or the parameters or the state lack variables of the module.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> model = from_nnx(lambda rngs: nnx.BatchNorm(3, momentum=0.5, rngs=rngs))
    >>> params, state = model.init(jax.random.key(0), None)
    >>> sorted(params), sorted(state)
    (['bias', 'scale'], ['mean', 'var'])
    >>> outputs, state = model.apply(params, state, jnp.ones((4, 3)), train=True)
    >>> state["mean"].tolist()  # 0.5 * 0 + 0.5 * 1
    [0.5, 0.5, 0.5]

    Features of the same parameters:

    >>> from jax_unlearn.zoo import MLP
    >>> def make(rngs):
    ...     return MLP(3, in_features=4, hidden=(8,), rngs=rngs)
    >>> features = from_nnx(make, method="features")
    >>> params, state = from_nnx(make).init(jax.random.key(0), None)
    >>> features.apply(params, state, jnp.ones((2, 4)), train=False)[0].shape
    (2, 8)
    """
    from flax import nnx

    kinds = (nnx.Param, nnx.RngKey, nnx.RngCount, ...)

    @functools.cache
    def abstract():
        module = nnx.eval_shape(lambda: make(nnx.Rngs(jax.random.key(0))))
        names = inspect.signature(_bound(module, method)).parameters
        return nnx.split(module, *kinds), "rngs" in names

    def init(key: Array, inputs: PyTree) -> tuple[Params, ModelState]:
        del inputs
        module = make(nnx.Rngs(key))
        _bound(module, method)  # a wrong name fails here already
        return nnx_variables(module)

    def call(params, model_state, inputs, *, train, key):
        (graphdef, *specs), takes_rngs = abstract()
        keys = _stream_keys(specs[1], jax.random.key(0) if key is None else key)
        counts = jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), specs[2])
        unused = jax.tree.leaves(counts)
        params = _fill(specs[0], params, "params")
        state = _fill(specs[3], model_state, "model_state")
        module = nnx.merge(graphdef, params, keys, counts, state)
        function = _bound(module, method)
        arguments: dict[str, Any] = mode_arguments(function, train)
        if not arguments:
            (module.train if train else module.eval)()
        if takes_rngs:
            arguments["rngs"] = None if key is None else nnx.Rngs(key)
        outputs = function(inputs, **arguments)

        _, _, _, used, new_state = nnx.split(module, *kinds)
        pairs = zip(unused, jax.tree.leaves(used), strict=True)
        if key is None and any(before is not after for before, after in pairs):
            raise needs_key(train)
        if not train:
            return outputs, model_state
        values = _by_path(nnx.to_pure_dict(new_state))
        keep = jax.tree_util.tree_map_with_path
        return outputs, keep(lambda path, _: values[_name(path)], model_state)

    return adapted(init, call)


def nnx_variables(module: Any) -> tuple[Params, ModelState]:
    """Return (params, model_state) of an nnx module as `from_nnx` expects them.

    Nested dicts: the `nnx.Param` variables, and all others but the random streams.

    >>> import jax
    >>> from flax import nnx
    >>> params, state = nnx_variables(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    >>> jax.tree.map(lambda x: x.shape, params), state
    ({'bias': (3,), 'kernel': (2, 3)}, {})
    """
    from flax import nnx

    _, params, _, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return strong(nnx.to_pure_dict(params)), strong(nnx.to_pure_dict(state))


def _bound(module: Any, method: str) -> Callable[..., Any]:
    """Return the method of a module."""
    function = getattr(module, method, None)
    if not callable(function):
        raise InputError(
            f"method={method!r}: {type(module).__name__} has no such method; give one "
            "that it defines, or leave it out to call the module"
        )
    return function


def _stream_keys(spec: Any, key: Array) -> Any:
    """Return a different key for every random stream of the module."""
    leaves, structure = jax.tree.flatten(spec)

    def stream(number: int, leaf: Any) -> Array:
        own = jax.random.fold_in(key, number)
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    return jax.tree.unflatten(structure, map(stream, range(len(leaves)), leaves))


def _fill(spec: Any, values: PyTree, name: str) -> Any:
    """Return the abstract state with its leaves replaced by those of nested dicts."""
    from flax import nnx

    state = jax.tree.map(lambda leaf: leaf, spec)
    given, wanted = _by_path(values), _by_path(nnx.to_pure_dict(state))
    if given.keys() != wanted.keys():
        path = min(given.keys() ^ wanted.keys())
        verb = "lacks" if path in wanted else "has an unknown"
        raise InputError(
            f"{name} {verb} {path!r}; pass the {name} of this model's init or of "
            "nnx_variables(module)"
        )
    nnx.replace_by_pure_dict(state, values)
    return state


def _by_path(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of nested dicts by path."""
    return {_name(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: tuple[Any, ...]) -> str:
    """Return a path as text, in which 0 and "0" (after a checkpoint) are the same."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
