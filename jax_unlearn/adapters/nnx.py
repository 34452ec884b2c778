"""A `Model` of a `flax.nnx` module."""

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
    is_variadic,
    method_of,
    mode_arguments,
    needs_key,
    refuse_idle,
    strong,
    unclear,
)
from jax_unlearn.adapters.parts import Trainable, partly
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import name_of
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree

__all__ = ["from_nnx", "nnx_variables"]

MAKER = "class or function of rngs that makes it"


def from_nnx(
    make: Any,
    *,
    method: str = "__call__",
    train_argument: str | None = None,
    trainable: Trainable | None = None,
) -> Model:
    """Return the `Model` of a `flax.nnx` module.

    `init(key, x)` is `make(nnx.Rngs(key))`, so it draws what nnx users would; `x` is
    not read. Parameters are the `nnx.Param` variables, the model state all others
    (`nnx.BatchStat`, raw arrays), both as nested dicts of arrays by attribute name.
    Random streams are not carried: `key` restarts them in every call.

    The mode is told as `jax_unlearn.adapters` says: by arguments of the method, and by
    the attributes that `Module.eval()` sets. A BatchNorm or Dropout that evaluates by
    its constructor does so in train mode too.

    Args:
      make: a function of rngs, a class or `functools.partial` that needs nothing else,
        or a module. A module says how it is built and nothing of its weights: give
        these as `nnx_variables(module)`; its model has no `init`.
      method: which one `apply` calls; it gets `nnx.Rngs(key)` if it takes `rngs`.
        Models of one `make` and different methods share parameters and state:
        `"features"` gives the penultimate layer of a network of `jax_unlearn.zoo`.
      train_argument: the argument of the method that gets the mode, if not found by its
        name; "not NAME" gets `not train`; "" says that there is none.
      trainable: which parameters methods see, see `ju.trainable`, or a filter of nnx
        (`nnx.LoRAParam`, `nnx.PathContains("head")`); default all.

    Raises:
      InputError: what is given makes no nnx module from rngs; when the network needs a
        key and has none, the module has no such method, the parameters or the state
        lack variables of the module, or its mode argument was not found.

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
    instance = make if isinstance(make, nnx.Module) else None
    build: Any = _builder(make) if instance is None else None
    if instance is not None and (modes := _modes(instance)) and all(modes):
        raise evaluating("module", f"the {MAKER}")

    @functools.cache
    def abstract():
        if build is None:
            graphdef, *states = nnx.split(instance, *kinds)
            specs = [jax.tree.map(_described, state) for state in states]
            module = instance
        else:
            module = nnx.eval_shape(lambda: build(nnx.Rngs(jax.random.key(0))))
            graphdef, *specs = nnx.split(module, *kinds)
        names = inspect.signature(method_of(module, method)).parameters
        return (graphdef, *specs), "rngs" in names

    def init(key: Array, inputs: PyTree) -> tuple[Params, ModelState]:
        del inputs
        if build is None:
            raise has_weights(instance, "from_nnx", MAKER)
        module = build(nnx.Rngs(key))
        method_of(module, method)  # a wrong name fails here already
        return nnx_variables(module)

    def call(params, model_state, inputs, *, train, key):
        (graphdef, *specs), takes_rngs = abstract()
        keys = _stream_keys(specs[1], jax.random.key(0) if key is None else key)
        counts = jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), specs[2])
        unused = jax.tree.leaves(counts)
        params = _fill(specs[0], params, "params")
        state = _fill(specs[3], model_state, "model_state")
        module = nnx.merge(graphdef, params, keys, counts, state)
        function = method_of(module, method)
        arguments: dict[str, Any] = mode_arguments(function, train, told=train_argument)
        told = bool(arguments) or train_argument == ""
        if not told and is_variadic(function):
            raise unclear(type(module).__name__, function)
        _set_mode(module, train)
        if takes_rngs:
            arguments["rngs"] = None if key is None else nnx.Rngs(key)
        before = jax.tree.leaves(nnx.state(module, nnx.BatchStat))
        outputs = function(inputs, **arguments)
        after = jax.tree.leaves(nnx.state(module, nnx.BatchStat))

        _, _, _, used, new_state = nnx.split(module, *kinds)
        pairs = zip(unused, jax.tree.leaves(used), strict=True)
        drawn = any(before is not after for before, after in pairs)
        if key is None and drawn:
            raise needs_key(train)
        if not train:
            return outputs, model_state
        same = all(a is b for a, b in zip(before, after, strict=False))
        if not (told or drawn) and same and _learns(module):
            refuse_idle(type(module).__name__, _others(function))
        values = _by_path(nnx.to_pure_dict(new_state))
        keep = jax.tree_util.tree_map_with_path
        return outputs, keep(lambda path, _: values[name_of(path)], model_state)

    if trainable is not None and is_nnx_filter(trainable):
        (_, spec, *_), _ = abstract()
        trainable = _paths(spec, trainable)
    return partly(adapted(init, call), trainable)


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


def is_nnx_filter(trainable: Any) -> bool:
    """Return whether this is a filter of variables that nnx alone understands."""
    if isinstance(trainable, tuple | list):
        return bool(trainable) and all(map(is_nnx_filter, trainable))
    if isinstance(trainable, type) or trainable is Ellipsis:
        return True
    return type(trainable).__module__.startswith("flax.nnx")


def trained_paths(module: Any, trainable: Any) -> Any:
    """Return a filter of `ju.trainable` for one of nnx, any other as it is."""
    from flax import nnx

    if trainable is None or not is_nnx_filter(trainable):
        return trainable
    return _paths(nnx.state(module, nnx.Param), trainable)


def _paths(state: Any, trainable: Any) -> Callable[[str], bool]:
    """Return whether a path is one of the variables that a filter of nnx takes."""
    from flax import nnx

    found = set(_by_path(nnx.to_pure_dict(nnx.filter_state(state, trainable))))
    return lambda path: path in found


def _builder(make: Any) -> Callable[[Any], Any]:
    """Return the function of rngs that makes a module."""
    from flax import linen, nnx

    who = getattr(make, "__name__", None) or repr(make)
    if isinstance(make, linen.Module) or (
        isinstance(make, type) and issubclass(make, linen.Module)
    ):
        raise InputError(f"{type(make).__name__} is of linen: give it to from_linen")
    if not callable(make):
        raise InputError(
            f"make={make!r} makes no module: give a function of rngs, a class that "
            "needs nothing but rngs, or an nnx module"
        )
    signature = _signature(make)
    named = "rngs" in signature.parameters
    try:
        signature.bind(**{"rngs": None}) if named else signature.bind(None)
    except TypeError as error:
        needed = [
            name
            for name, p in signature.parameters.items()
            if p.default is p.empty and name != "rngs"
        ]
        told = ", ".join(needed) or "no rngs"
        raise InputError(
            f"{who} takes {told}: give a function of rngs alone, such as "
            f"lambda rngs: {who if who.isidentifier() else 'Network'}(..., rngs=rngs)"
        ) from error

    def build(rngs: Any) -> Any:
        module = make(rngs=rngs) if named else make(rngs)
        if not isinstance(module, nnx.Module):
            raise InputError(
                f"{who} makes a {type(module).__name__}, which is no nnx module; give "
                "a function of rngs that returns one"
            )
        return module

    return build


def _signature(make: Any) -> inspect.Signature:
    """Return what a function, a class or a partial of one still takes."""
    arguments, named = (), {}
    if isinstance(make, functools.partial):
        make, arguments, named = make.func, make.args, make.keywords
    if isinstance(make, type):  # nnx hides the signature behind a metaclass
        make, arguments = make.__init__, (None, *arguments)
    return inspect.signature(functools.partial(make, *arguments, **named))


def _described(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype)


def _modes(module: Any) -> list[bool]:
    """Return of each layer that has a mode whether it evaluates."""
    from flax import nnx

    return [
        bool(getattr(part, name))
        for _, part in nnx.iter_modules(module)
        for name in ("deterministic", "use_running_average")
        if hasattr(part, name)
    ]


def _learns(module: Any) -> bool:
    """Return whether a BatchNorm or a Dropout of a rate is in train mode."""
    from flax import nnx

    def rate(part: Any) -> Any:
        return getattr(part, "rate", getattr(part, "dropout_rate", 0.0))

    return any(
        not getattr(part, "use_running_average", True)
        or (not getattr(part, "deterministic", True) and bool(rate(part)))
        for _, part in nnx.iter_modules(module)
    )


def _set_mode(module: Any, train: bool) -> None:
    """Switch to evaluation, or leave the mode of the constructors; unset is train."""
    from flax import nnx

    if not train:
        module.eval()
        return
    for _, part in nnx.iter_modules(module):
        for name in ("deterministic", "use_running_average"):
            if getattr(part, name, True) is None:
                setattr(part, name, False)


def _others(function: Any) -> list[str]:
    """Return the arguments of a bound method that may be the mode."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.kind not in kinds and p.name != "rngs"]


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
    """Return the leaves by path, 0 and "0" (after a checkpoint) being the same."""
    return {name_of(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(tree)}
