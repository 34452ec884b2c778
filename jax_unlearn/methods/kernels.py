"""Methods that damage convolution kernels, then fine-tune on the retain set: CT, MSG.

Both were found best in a comparison of eighteen methods (arXiv 2410.01276).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import _validate
from jax_unlearn.cards import Card, Job, Lab, Options, Share
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import divided
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.methods.step import annealed
from jax_unlearn.types import Array, Params, PyTree

__all__ = ["CT", "MSG", "Msg", "insensitive", "reinitialised", "slowed"]
__all__ += ["transposed_kernels"]


def transposed_kernels(params: Params) -> Params:
    """Swap height and width of every convolution kernel (CT).

    K[h, w, i, o] ← K[w, h, i, o] for leaves of four axes whose first two are equal.
    Shapes and dtypes stay, and so does every other leaf; no forget set is read.

    Raises:
      InputError: no square convolution kernel above 1 x 1.

    Source: "Convolution Transpose" in Deep Unlearn, arXiv 2410.01276.

    >>> kernel = jnp.arange(4.0).reshape(2, 2, 1, 1)
    >>> transposed_kernels({"k": kernel})["k"].ravel().tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    part, whole = divided(params)
    square = [
        leaf.ndim == 4 and leaf.shape[0] == leaf.shape[1] > 1
        for leaf in jax.tree.leaves(part)
    ]
    if not any(square):
        raise InputError(
            "ct transposes convolution kernels and this network has none above 1 x 1; "
            "take another method, e.g. msg"
        )
    leaves, structure = jax.tree.flatten(part)
    swapped = [
        jnp.swapaxes(leaf, 0, 1) if is_square else leaf
        for leaf, is_square in zip(leaves, square, strict=True)
    ]
    return whole(structure.unflatten(swapped))


def insensitive(gradient: PyTree, *, share: float) -> PyTree:
    """Mark in each kernel the share of weights with the smallest |gradient|.

    Kernels are the convolutions' (four axes); of a network without any, all leaves of
    two or more axes, which is our choice. ⌊share·n⌋ of a kernel's n weights are marked,
    the first among equals; other leaves not at all. Returns a pytree of bool.

    Raises:
      InputError: share outside [0, 1), or no kernel.

    >>> insensitive({"k": jnp.array([[3.0, -1.0], [0.5, 2.0]])}, share=0.5)[
    ...     "k"
    ... ].tolist()
    [[False, True], [True, False]]
    """
    _validate.share("share", share, "published: 0.3")
    axes = [leaf.ndim for leaf in jax.tree.leaves(gradient)]
    if max(axes, default=0) < 2:
        raise InputError("msg makes kernels anew and this network has none")
    least = 4 if 4 in axes else 2

    def marked(leaf):
        mask = np.zeros(leaf.size, np.bool_)
        if leaf.ndim >= least:
            order = np.argsort(
                np.abs(np.asarray(leaf, np.float32)).ravel(), kind="stable"
            )
            mask[order[: math.floor(share * leaf.size)]] = True
        return jnp.asarray(mask.reshape(leaf.shape))

    return jax.tree.map(marked, gradient)


def reinitialised(params: Params, mask: PyTree, key: Array) -> Params:
    """Draw marked weights anew, from N(0, 2/fan-out) (Kaiming).

    Fan-out is the number of a kernel's weights over its input channels, the last axis
    but one. Unmarked weights stay.

    Raises:
      InputError: a mask that is not like the parameters.

    >>> params, mask = {"k": jnp.ones((2, 8))}, {"k": jnp.arange(16).reshape(2, 8) < 1}
    >>> new = reinitialised(params, mask, jax.random.key(0))["k"]
    >>> int((new != 1).sum())
    1
    """
    part, whole = divided(params)
    remedy = "build the mask from gradients of the same model"
    _validate.same_shapes("the mask", mask, part, remedy)
    leaves, structure = jax.tree.flatten(part)
    keys = jax.random.split(key, max(len(leaves), 1))

    def drawn(leaf, marked, key):
        if leaf.ndim < 2:
            return leaf
        deviation = math.sqrt(2 * leaf.shape[-2] / leaf.size)
        new = deviation * jax.random.normal(key, leaf.shape, jnp.float32)
        return jnp.where(marked, new.astype(leaf.dtype), leaf)

    rows = zip(leaves, jax.tree.leaves(mask), keys, strict=True)
    return whole(structure.unflatten([drawn(*row) for row in rows]))


def slowed(mask: PyTree, factor: float = 0.1) -> optax.GradientTransformation:
    """Multiply gradients by a factor where the mask is False.

    >>> optimizer = optax.chain(slowed(jnp.array([True, False])), optax.sgd(1.0))
    >>> params = jnp.zeros(2)
    >>> print(optimizer.update(jnp.ones(2), optimizer.init(params), params)[0])
    [-1.  -0.1]
    """
    _validate.not_negative("factor", factor, "published: 0.1")

    def init(params):
        del params
        return jax.tree.map(
            lambda m: jnp.where(m, 1.0, factor).astype(jnp.float32), mask
        )

    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda g, s: g * s.astype(g.dtype), updates, state), state

    return optax.GradientTransformation(init, update)


@dataclasses.dataclass(frozen=True)
class Msg(Options):
    """Options of MSG.

    Attributes:
      renewed: share of each kernel's weights that are drawn anew.
      slow: factor of the other weights' gradients.
    """

    renewed: Share = 0.3
    slow: Share = 0.1


def _ct(lab: Lab, _: Options) -> Job:
    params, state = lab.original
    schedule = lab.schedule("retain")
    cosine = optax.cosine_decay_schedule(1.0, len(schedule))
    told = {"retain": lab.objective("remember"), "model_state": lab.model_state}
    unlearner = assemble(lab.model, annealed(lab.optimizer(), cosine), **told)
    return Job(unlearner, schedule, start=(transposed_kernels(params), state))


def _msg(lab: Lab, options: Msg) -> Job:
    params, state = lab.original
    schedule = lab.schedule("retain")
    mark_key, new_key = jax.random.split(jax.random.key(lab.seed))
    retain = lab.ids("retain")
    size = min(len(lab.ids("forget")), len(retain))
    chosen = np.asarray(jax.random.choice(mark_key, retain, (size,), replace=False))
    # sums over as many samples of each, so means do as well
    difference = optax.tree.sub(lab.gradient("retain", chosen), lab.gradient("forget"))
    mask = insensitive(difference, share=options.renewed)
    warm = max(len(schedule) // 10, 1)
    rise = optax.linear_schedule(0.0, 1.0, warm)
    fall = optax.linear_schedule(1.0, 0.0, max(len(schedule) - warm, 1))
    optimizer = optax.chain(slowed(mask, options.slow), lab.optimizer())
    unlearner = assemble(
        lab.model,
        annealed(optimizer, optax.join_schedules([rise, fall], [warm])),
        retain=lab.objective("remember"),
        model_state=lab.model_state,
    )
    return Job(unlearner, schedule, start=(reinitialised(params, mask, new_key), state))


CT = (
    Card.of(_ct, "CT", "Convolution transpose (CT)", "arXiv 2410.01276")
    .but(reads=("retain",), cost="E·R", weighs=False, step_reads=("length",))
    .but(
        suits="Good for convolutional networks, without access to the forget set: "
        "transposed kernels must be learned again, which costs accuracy unless the "
        "rate is that of training. It cannot be used on networks without kernels to "
        "transpose."
    )
    .tries(learning_rate=(0.03, 0.1, 0.2), epochs=(3, 8))
)

MSG = (
    Card.of(_msg, "MSG", "Mask by small gradients (MSG)", "arXiv 2410.01276")
    .but(reads=("forget", "retain", "original"), cost="E·R + 2·F", weighs=False)
    .but(roles=("remember", "evaluate"), step_reads=("length",))
    .but(
        suits="Good for random samples if many epochs on the retain set can be "
        "afforded: the weights that matter least to the retain set are drawn anew. "
        "After too few epochs accuracy is still damaged."
    )
    .tries(learning_rate=(0.03, 0.1, 0.2), renewed=(0.3, 0.5), epochs=(5,))
)
