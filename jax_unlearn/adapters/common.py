"""What the adapters share: the contract of a `Model`, and mode arguments."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, ModelState, Params, PyTree

__all__ = ["EVALUATE", "TRAIN", "adapted", "evaluating", "flag", "from_stateless"]
__all__ += ["has_weights", "is_variadic", "mode_arguments", "needs_key"]
__all__ += ["refuse_idle", "strong", "two_classes", "unclear", "with_outputs"]

TRAIN = ("train", "training", "is_training")
EVALUATE = ("deterministic", "use_running_average", "inference")


def mode_arguments(
    function: Callable[..., Any], train: bool, *, told: str | None = None
) -> dict[str, bool]:
    """Return the arguments that tell a function the mode, of those that it has.

    A name that is `told` stands for all; "not NAME" is one that gets the opposite, and
    "" says that there is none.
    """
    names = inspect.signature(function).parameters
    if told == "":
        return {}
    if told is None:
        return {n: train == (n in TRAIN) for n in names if n in TRAIN + EVALUATE}
    name, inverted = flag(told)
    if name not in names and not is_variadic(function):
        listed = ", ".join(n for n in names if n != "self")
        raise InputError(
            f"train_argument={told!r}: the call takes ({listed}); name one of these"
        )
    return {name: train != inverted}


def flag(told: str) -> tuple[str, bool]:
    """Return the name of a mode argument, and whether it gets `not train`."""
    name = told.removeprefix("not ").strip()
    return name, told.startswith("not ") != (name in EVALUATE)


def is_variadic(function: Callable[..., Any]) -> bool:
    """Return whether a function takes any named argument."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def method_of(owner: Any, method: str) -> Callable[..., Any]:
    """Return the method of a module, or of its class."""
    function = getattr(owner, method, None)
    if not callable(function):
        name = (owner if isinstance(owner, type) else type(owner)).__name__
        raise InputError(
            f"method={method!r}: {name} has no such method; give one that it defines, "
            "or leave it out to call the module"
        )
    return function


def unclear(who: str, function: Callable[..., Any]) -> InputError:
    """Return the error of a call whose mode argument cannot be read off."""
    return InputError(
        f"{who}.__call__{inspect.signature(function)} does not show which argument "
        "gets the mode: name it, such as train_argument='train' or 'deterministic'"
    )


def refuse_idle(who: str, others: Sequence[str]) -> None:
    """Refuse a network whose layers evaluate in train mode too, if it may be told."""
    if others:
        raise InputError(
            f"BatchNorm or Dropout of {who} would never train: no argument has a known "
            f"name; name the one that gets the mode, such as train_argument="
            f"{others[0]!r} ('not {others[0]}' if True means evaluation; '' if none)"
        )


def evaluating(who: str, maker: str) -> InputError:
    """Return the error of a module instance of which all layers evaluate."""
    return InputError(
        f"all BatchNorm and Dropout layers of this {who} evaluate, by their "
        f"constructors or since it was switched: give {maker} instead of the module, "
        "with ju.variables_of(module) for the weights; or, if none is frozen for good, "
        "switch the module to train mode first"
    )


def adapted(
    init: Callable[[Array, PyTree], tuple[Params, ModelState]],
    call: Callable[..., tuple[PyTree, ModelState]],
    *,
    lacks_key: Callable[[Exception], bool] = lambda error: False,
) -> Model:
    """Return the `Model` of two functions of a framework, held to the contract."""

    def apply(params, model_state, inputs, *, train, key=None):
        try:
            outputs, state = call(params, model_state, inputs, train=train, key=key)
        except Exception as error:
            if key is None and lacks_key(error):
                raise needs_key(train) from error
            raise
        return outputs, _typed_like(state, model_state) if train else model_state

    return Model(lambda key, inputs: strong(init(key, inputs)), apply)


def from_stateless(
    init: Callable[[Array, PyTree], Params], apply: Callable[[Params, PyTree], PyTree]
) -> Model:
    """Return the `Model` of two plain functions without state or randomness.

    `init` is `(key, inputs [B, ...]) -> params`, `apply` is `(params, inputs [B, ...])
    -> outputs [B, ...]`; the model state is `()`, and `train` and `key` are not used.

    >>> model = from_stateless(
    ...     lambda key, x: {"w": jnp.ones(x.shape[1:])}, lambda p, x: x @ p["w"]
    ... )
    >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> outputs, state = model.apply(params, state, jnp.ones((2, 3)), train=True)
    >>> outputs.tolist(), state
    ([3.0, 3.0], ())
    """

    def call(params, model_state, inputs, **_):
        return apply(params, inputs), model_state

    return adapted(lambda key, inputs: (init(key, inputs), ()), call)


def with_outputs(model: Model, function: Callable[[PyTree], PyTree]) -> Model:
    """Return the model whose outputs pass through a function, logits in the end.

    For networks that give a dict or a tuple, of which objectives want the logits.

    >>> import jax_unlearn as ju
    >>> pair = ju.from_stateless(lambda key, x: 2.0, lambda w, x: {"logits": w * x})
    >>> model = with_outputs(pair, lambda outputs: outputs["logits"])
    >>> print(model.apply(2.0, (), jnp.ones((1, 2)), train=False)[0])
    [[2. 2.]]
    """

    def apply(params, model_state, inputs, *, train, key=None):
        outputs, state = model.apply(params, model_state, inputs, train=train, key=key)
        return function(outputs), state

    return Model(model.init, apply)


def two_classes(logit: Array) -> Array:
    """Return logits `[B, 2]` of the classes 0 and 1: 0 and one sigmoid logit.

    The logit is `[B]` or `[B, 1]`; softmax of the pair is its sigmoid.

    >>> two_classes(jnp.array([3.0])).tolist()
    [[0.0, 3.0]]
    """
    column = logit.reshape(logit.shape[0], 1)
    return jnp.concatenate([jnp.zeros_like(column), column], axis=1)


def strong(tree: PyTree) -> PyTree:
    """Return the tree as arrays without weak types, which make a step trace twice."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), tree)


def has_weights(instance: Any, call: str, make: str) -> InputError:
    """Return the error of a module that is to draw weights, which it has already."""
    return InputError(
        f"a module of {type(instance).__name__} has weights already, and draws no new "
        f"ones: take these by ju.variables_of(module), or give {call} the {make}"
    )


def needs_key(train: bool) -> InputError:
    """Return the error of a network that draws random numbers without a key."""
    return InputError(
        f"key=None, but the network draws random numbers with train={train}; pass "
        "key=jax.random.key(0), another key in every step"
    )


def _typed_like(new: ModelState, old: ModelState) -> ModelState:
    """Return the new model state with the strong dtypes of the old one."""
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
