"""Switches that trade time for memory: a `Model` in, the same `Model` out.

Every method, weighting and driver runs a network through `Model.apply`, so a switch on
the model serves all of them, and they can be put on one over the other. None changes a
result beyond rounding: weights that are normalised over the batch (LoReUn, FaLW) see
the whole batch, however small the parts it is run in.

>>> import jax.numpy as jnp
>>> import optax
>>> import jax_unlearn as ju
>>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
>>> model = ju.memory.microbatched(ju.memory.rematerialised(model), 2)
>>> alg = ju.methods.gradient_ascent(model, optax.sgd(1.0))
>>> forget = ju.Batch(jnp.array([[1.0, 0.0]] * 3), jnp.array([0] * 3))
>>> state, _ = jax.jit(alg.step)(
...     alg.init(jnp.float32(2.0), ()), ju.UnlearnBatch(forget), jax.random.key(0)
... )
>>> print(state.params)  # 2 − p_1, p_1 = 1/(1 + e²), as without the switches
1.8808
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_unlearn.errors import InputError
from jax_unlearn.leaves import apart, put_back
from jax_unlearn.types import Array, Model, PyTree

__all__ = ["MasterState", "cast", "keep_products", "master", "microbatched"]
__all__ += ["rematerialised"]

Policy = Callable[..., Any]
"""As `jax.checkpoint` takes it: which intermediate values are kept."""

PRODUCTS = ("dot_general", "conv_general_dilated")


def keep_products(primitive: Any, *_: Any, **__: Any) -> bool:
    """Keep what matrix products and convolutions give; compute all else anew.

    A `jax.checkpoint` policy: normalisation, activation and pooling are cheap to do
    twice and hold most of the memory of a convolutional network.

    >>> keep_products(jax.lax.dot_general_p), keep_products(jax.lax.tanh_p)
    (True, False)
    """
    return primitive.name in PRODUCTS


def rematerialised(model: Model, *, policy: Policy | None = keep_products) -> Model:
    """Return the model whose backward pass computes intermediate values anew.

    Gradient checkpointing: the same numbers by the same operations. For accelerators;
    XLA's compiler for CPUs finds that both computations are one, and keeps the values
    after all (jax 0.10): use `microbatched` there. The policy says which values are
    kept for the backward pass: `keep_products`, one of `jax.checkpoint_policies`, or
    None to keep nothing but the inputs.

    Source: Chen et al., arXiv 1604.06174, by `jax.checkpoint`; the default policy is
    our choice.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: jnp.sin(w * x))
    >>> def total(w, model):
    ...     return model.apply(w, (), jnp.ones(3), train=True)[0].sum()
    >>> print(jax.grad(total)(jnp.float32(0.0), rematerialised(model)))
    3.0
    """

    def apply(params, model_state, inputs, *, train, key=None):
        def forward(params, model_state, inputs, key):
            return model.apply(params, model_state, inputs, train=train, key=key)

        return jax.checkpoint(forward, policy=policy)(params, model_state, inputs, key)

    return Model(model.init, apply)


def microbatched(model: Model, size: int) -> Model:
    """Return the model that runs a batch in parts, holding one part's activations.

    Two passes: the first gives the outputs of all parts, of which losses and weights
    are made, normalised over the whole batch; the second computes a part again and adds
    its gradient up. With B samples, memory for activations falls to size/B, time rises
    by a forward pass. Part j holds the samples j, j + P, j + 2P, … of P parts of `size`
    samples, so that a batch spread over devices stays spread if they divide `size`; the
    last parts are filled up, and cut off again. A network that draws random numbers
    (dropout) gets the key `fold_in(key, j)` for part j: other draws, of the same
    distribution.

    The outputs have the batch axis first. In a training pass the model must have no
    state: BatchNorm statistics of parts are not those of the batch.

    Raises:
      InputError: `size` below 1; when the model is called with `train=True`, a state.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> outputs, _ = microbatched(model, 2).apply(
    ...     jnp.float32(2.0), (), jnp.arange(5.0), train=True
    ... )
    >>> print(outputs)
    [0. 2. 4. 6. 8.]
    """
    if size < 1:
        raise InputError(f"size={size}: give 1 or more samples a part")

    def apply(params, model_state, inputs, *, train, key=None):
        total = jax.tree.leaves(inputs)[0].shape[0]
        if total <= size:
            return model.apply(params, model_state, inputs, train=train, key=key)
        if train and jax.tree.leaves(apart(model_state)[0]):
            raise InputError(
                f"size={size} for a batch of {total}: a model with a state (BatchNorm) "
                "would see the statistics of a part; freeze it (model_state='frozen', "
                "--freeze-statistics), or use a network without"
            )
        parts = -(-total // size)

        @jax.checkpoint
        def forward(numbered):
            number, part = numbered
            own = None if key is None else jax.random.fold_in(key, number)
            return model.apply(params, model_state, part, train=train, key=own)[0]

        divided = jax.tree.map(lambda leaf: _divided(leaf, parts, size), inputs)
        outputs = jax.lax.map(forward, (jnp.arange(parts), divided))
        return jax.tree.map(lambda leaf: _joined(leaf, total), outputs), model_state

    return Model(model.init, apply)


def cast(model: Model, dtype: Any = jnp.bfloat16) -> Model:
    """Return the model that computes in another precision than its parameters have.

    Parameters and floating inputs are cast on the way in, outputs to float32 on the way
    out: gradients, optimizer, losses and weights stay in float32. Rounding here is that
    of `dtype` (bfloat16: 8 bits, 0.4 %). The networks of `ju.zoo` do the same by their
    argument `dtype`, and keep their BatchNorm statistics in float32, as this does. A
    model whose layers name a dtype of their own is not changed by this.

    Raises:
      InputError: `dtype` is no floating type.

    Source: mixed precision as in Micikevicius et al., arXiv 1710.03740, without loss
    scaling, which bfloat16 does not need.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> outputs, _ = cast(model).apply(jnp.float32(1.001), (), jnp.ones(1), train=True)
    >>> print(outputs, outputs.dtype)
    [1.] float32
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"dtype={dtype}: give a floating type, such as jnp.bfloat16")

    def apply(params, model_state, inputs, *, train, key=None):
        rest, frozen = apart(model_state)
        params, inputs, low = _floats((params, inputs, frozen), dtype)
        mode = {"train": train, "key": key}
        outputs, new = model.apply(params, put_back(rest, low), inputs, **mode)
        new = jax.tree.map(_typed, apart(new)[0], rest)
        return _floats(outputs, jnp.float32), put_back(new, frozen)

    return Model(model.init, apply)


class MasterState(NamedTuple):
    """State of `master`.

    Attributes:
      masters: the parameters in float32; None for those that are so already.
      inner: state of the optimizer, in float32.
    """

    masters: PyTree
    inner: PyTree


def master(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Let an optimizer move float32 copies of parameters that have fewer digits.

    bfloat16 has 8 bits: a step smaller than 1/512 of a weight rounds to nothing, and at
    the rates of fine-tuning most steps are. Here the optimizer sees gradients and
    parameters in float32 and its steps add up there; the parameters are the masters,
    rounded. A weight that something else has moved (a saliency mask, a reset) is taken
    as it is. Costs 4 bytes a parameter, and float32 moments; `plan` counts both.

    Raises:
      InputError: in the update, if the parameters are not given.

    Source: Micikevicius et al., arXiv 1710.03740, section 3.1.

    >>> params = jnp.ones(1, jnp.bfloat16)
    >>> from jax_unlearn.optimizers import applied
    >>> optimizer = master(optax.sgd(1e-3))
    >>> state = optimizer.init(params)
    >>> for _ in range(8):
    ...     gradient = jnp.ones(1, jnp.bfloat16)
    ...     updates, state = optimizer.update(gradient, state, params)
    ...     params = applied(params, updates)
    >>> print(state.masters, params.astype(float))  # by itself bfloat16 stays at 1
    [0.992] [0.9921875]
    """
    inner = optax.with_extra_args_support(optimizer)

    def low(leaf: Array) -> bool:
        return jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4

    def widened(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x.astype(jnp.float32) if low(x) else x, tree)

    def init(params):
        wide = widened(params)
        masters = jax.tree.map(lambda p, w: w if low(p) else None, params, wide)
        return MasterState(masters, inner.init(wide))

    def update(updates, state, params=None, **extra):
        if params is None:
            raise InputError(
                "master: params=None; give update(gradients, state, params)"
            )

        def current(own: Array | None, param: Array) -> Array:
            if own is None:
                return param
            same = own.astype(param.dtype) == param
            return jnp.where(same, own, param.astype(jnp.float32))

        def step(param: Array, old: Array, move: Array) -> Array:
            if not low(param):
                return move
            rounded = (old + move).astype(param.dtype).astype(jnp.float32)
            return rounded - param.astype(jnp.float32)

        none = {"is_leaf": lambda leaf: leaf is None}
        wide = jax.tree.map(current, state.masters, params, **none)
        told = {k: widened(v) if k == "grad" else v for k, v in extra.items()}
        moves, own = inner.update(widened(updates), state.inner, wide, **told)
        masters = jax.tree.map(
            lambda p, old, move: old + move if low(p) else None, params, wide, moves
        )
        return jax.tree.map(step, params, wide, moves), MasterState(masters, own)

    return optax.GradientTransformationExtraArgs(init, update)


def _divided(leaf: Array, parts: int, size: int) -> Array:
    """Return the rows as `[parts, size, ...]`, the last ones repeated to fill it."""
    missing = parts * size - leaf.shape[0]
    if missing:
        fill = jnp.broadcast_to(leaf[-1:], (missing, *leaf.shape[1:]))
        leaf = jnp.concatenate([leaf, fill])
    return jnp.moveaxis(leaf.reshape(size, parts, *leaf.shape[1:]), 1, 0)


def _joined(leaf: Array, total: int) -> Array:
    """Undo `_divided`."""
    return jnp.moveaxis(leaf, 0, 1).reshape(-1, *leaf.shape[2:])[:total]


def _typed(leaf: Array, old: Array) -> Array:
    return leaf if leaf.dtype == old.dtype else leaf.astype(old.dtype)


def _floats(tree: PyTree, dtype: Any) -> PyTree:
    """Return the tree with its floating leaves cast."""

    def floats(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(floats, tree)
