"""A part of the parameters to be trained, the rest carried but never touched.

The rest moves into the model state, where no method looks: it is not differentiated,
penalised, dampened, logged or counted in a norm. There it is an argument of compiled
programs, held once: `alg.init`, `ju.run` and `ju.Series` pass it on as it is.
"""

import difflib
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.leaves import Frozen, joined, name_of
from jax_unlearn.types import Model, ModelState, Params, PyTree

__all__ = ["PartState", "Trainable", "parted", "partly", "trainable"]
__all__ += ["whole_variables"]

Trainable = Any
"""Which parameters are trained: a pattern, a function of the path, or bools.

A text is a regular expression searched for in paths like "head/kernel"; a function is
`path -> bool` or `(path, leaf) -> bool`; bools are a pytree like the parameters, or a
prefix of it. Adapters of nnx also take filters of nnx.
"""


class PartState(NamedTuple):
    """Model state of a network that is trained in part.

    Attributes:
      frozen: the other parameters, None where one is trained.
      model_state: that of the whole network.
    """

    frozen: Frozen
    model_state: ModelState


def trainable(
    model: Model, params: Params, model_state: ModelState, which: Trainable
) -> tuple[Model, Params, ModelState]:
    """Leave a part of the parameters to the methods, and keep the rest from all.

    The parameters returned have None for leaves that are not trained; these are in the
    model state, the very arrays given. All of the library takes the three for a model
    with its variables: no method, optimizer, mask or norm sees the rest, no backward
    pass goes through it, and it is neither copied nor donated (by `jax.jit(alg.step,
    donate_argnums=0)` of your own it would be). BatchNorm statistics are no parameters:
    `model_state="frozen"` keeps these. `whole_variables` gives the whole again.

    The model's `init` draws all anew; a Retrain beside the same frozen part begins with
    the parameters of `init` and the model state returned here.

    Args:
      model: the network, of any adapter or your own.
      params: its parameters.
      model_state: its state.
      which: the leaves that are trained: "head|layers_3", a regular expression searched
        for in the paths "head/kernel"; `path -> bool` or `(path, leaf) -> bool`; a
        pytree of bools like the parameters or a prefix of it.

    Raises:
      InputError: no leaf is trained; bools that do not fit; of the model: variables
        that were not divided.

    >>> import jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(None, lambda p, x: x @ p["body"] @ p["head"])
    >>> params = {"body": jnp.eye(2), "head": jnp.ones((2, 3))}
    >>> model, params, state = trainable(model, params, (), "head")
    >>> jax.tree.map(jnp.shape, params), state.frozen.tree["body"].shape
    ({'body': None, 'head': (2, 3)}, (2, 2))
    >>> model.apply(params, state, jnp.ones((1, 2)), train=True)[0].tolist()
    [[2.0, 2.0, 2.0]]
    """
    return partly(model, which), *parted(params, model_state, which)


def whole_variables(
    params: Params, model_state: ModelState
) -> tuple[Params, ModelState]:
    """Return the variables of the whole network: undo what `trainable` did to them.

    Variables that were not divided come back as they are.

    >>> import jax.numpy as jnp
    >>> part = parted({"body": jnp.eye(2), "head": jnp.ones(3)}, (), "head")
    >>> jax.tree.map(jnp.shape, whole_variables(*part))
    ({'body': (2, 2), 'head': (3,)}, ())
    """
    if not isinstance(model_state, PartState):
        return params, model_state
    return joined(params, model_state.frozen.tree), model_state.model_state


def parted(
    params: Params, model_state: ModelState, which: Trainable | None
) -> tuple[Params, ModelState]:
    """Return the variables of `trainable`; None divides nothing."""
    if which is None:
        return params, model_state
    mask = _mask(params, which)
    part = jax.tree.map(lambda leaf, moves: leaf if moves else None, params, mask)
    rest = jax.tree.map(lambda leaf, moves: None if moves else leaf, params, mask)
    return part, PartState(Frozen(rest), model_state)


def partly(model: Model, which: Trainable | None) -> Model:
    """Return the model of divided variables; None is the model itself."""
    if which is None:
        return model

    def init(key, inputs):
        return parted(*model.init(key, inputs), which)

    def apply(params, model_state, inputs, *, train, key=None):
        if not isinstance(model_state, PartState) or _double(params, model_state):
            raise InputError(
                "this model is trained in part, and its parameters are not divided: "
                "give those of its init, of ju.variables_of(module, trainable=...), "
                "or of ju.trainable(model, params, model_state, ...)"
            )
        whole, own = whole_variables(params, model_state)
        outputs, own = model.apply(whole, own, inputs, train=train, key=key)
        return outputs, PartState(model_state.frozen, own)

    return Model(init, apply)


def _double(params: Params, model_state: PartState) -> bool:
    """Return whether a leaf is both trained and frozen, or the trees are unlike."""
    leaves, structure = jax.tree.flatten(params, is_leaf=lambda leaf: leaf is None)
    try:
        others = structure.flatten_up_to(model_state.frozen.tree)
    except (TypeError, ValueError):
        return True
    pairs = zip(leaves, others, strict=True)
    return any(a is not None and b is not None for a, b in pairs)


def _mask(params: Params, which: Trainable) -> PyTree:
    """Return a bool for every leaf."""
    if isinstance(which, str | re.Pattern):
        try:
            found = re.compile(which).search
        except re.error as error:
            raise InputError(
                f"trainable={which!r} is no regular expression ({error}); try 'head'"
            ) from error
        mask = _by_path(params, lambda path, leaf: found(path) is not None)
    elif callable(which):
        mask = _by_path(params, _of_two(which))
    else:
        mask = _broadcast(which, params)
    if not any(jax.tree.leaves(mask)):
        paths = [name_of(path) for path, _ in jax.tree.leaves_with_path(params)]
        near = difflib.get_close_matches(str(which), paths, n=3, cutoff=0.0)
        listed = ", ".join(repr(path) for path in near)
        told = f"={which!r}" if isinstance(which, str) else ""
        raise InputError(
            f"trainable{told} leaves none of the {len(paths)} parameters to train; "
            f"some are {listed}"
        )
    return mask


def _by_path(params: Params, test: Callable[[str, Any], Any]) -> PyTree:
    return jax.tree.map_with_path(lambda p, x: bool(test(name_of(p), x)), params)


def _of_two(function: Callable[..., Any]) -> Callable[[str, Any], Any]:
    """Return a function of path and leaf, of one that may take the path alone."""
    try:
        inspect.signature(function).bind("path", None)
    except TypeError:
        return lambda path, leaf: function(path)
    except ValueError:  # it shows no signature
        pass
    return function


def _broadcast(which: PyTree, params: Params) -> PyTree:
    """Return a tree of bools, or a prefix, as one bool a leaf."""
    try:
        mask = jax.tree.broadcast(which, params)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"trainable is no tree of bools like the parameters ({reason}); give one "
            "bool a parameter, a pattern such as 'head', or a function of the path"
        ) from error
    for path, leaf in jax.tree.leaves_with_path(mask):
        if not isinstance(leaf, bool | np.bool_):
            raise InputError(
                f"trainable has {leaf!r} for {name_of(path)!r}: give True or False"
            )
    return jax.tree.map(bool, mask)
