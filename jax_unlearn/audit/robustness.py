"""Adversarial robustness: the accuracy that is left under small chosen perturbations.

Shapes: N samples, B samples a pass, K classes. Networks run in eval mode, so that no
sample depends on its batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import _validate, programs
from jax_unlearn.audit import _checks
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError
from jax_unlearn.objectives.boundary import margin_gradient
from jax_unlearn.types import Array, Model, ModelState, Params

__all__ = ["pgd", "robust_accuracy"]


def pgd(
    model: Model,
    params: Params,
    model_state: ModelState,
    inputs: Any,
    labels: Any,
    *,
    bound: float = 8 / 255,
    steps: int = 10,
    step_size: float | None = None,
    low: float = 0.0,
    high: float = 1.0,
    key: Array | None = None,
    batch_size: int = 512,
) -> np.ndarray:
    r"""Perturb inputs within an L∞ ball so that the loss rises (PGD).

    .. math::
        x_{t+1} = \Pi(x_t + \eta\,\mathrm{sign}\,\nabla_x \ell(f(x_t), y)),
        \qquad \Pi: |x - x_0|_\infty \le \epsilon,\ \text{low} \le x \le \text{high}

    The network gives logits `[B, K]`; inputs are one floating array `[N, ...]` with
    values in `low..high` (infinite for no limit), with true classes `[N]`. `bound` is ε
    ≥ 0 (published: 8/255 for images scaled to 0..1), `step_size` η (default: 2.5
    ε/steps, as published), `key` that of a random start, uniform in the ball, for each
    sample apart; `batch_size` bounds the samples a pass. The sign is taken of −∇m
    instead, with the margin m = log(p_y/(1 − p_y)): the same direction, since ℓ = log(1
    + exp(−m)), but one that does not vanish in float32 where the model is sure (p_y
    rounds to 1 from m = 17 on). One step without `key` and with the step size left out
    is FGSM. Where the gradient is 0 the input stays. The results lie in the ball to the
    rounding of float32.

    Raises:
      InputError: integer inputs, inputs outside `low..high`, labels that do not fit, a
        hyper-parameter out of range.

    Source: Madry et al., arXiv 1706.06083; FGSM: Goodfellow et al., arXiv 1412.6572.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 1.0, lambda w, x: w * x)
    >>> images = np.array([[0.5, 0.4], [0.0, 0.9]], np.float32)
    >>> pgd(model, jnp.float32(1), (), images, [0, 0], bound=0.1).tolist()
    [[0.4, 0.5], [0.0, 1.0]]
    """
    _checks.whole("steps", steps, 1, "try 10")
    _validate.not_negative("bound", bound, "try 8/255")
    if step_size is None:
        step_size = 2.5 * bound / steps
    else:
        remedy = "leave it out for 2.5 * bound / steps"
        _validate.positive("step_size", step_size, remedy)
    if not low < high:
        raise InputError(f"low={low} must be below high={high}; try 0.0 and 1.0")
    array = float_inputs("inputs", inputs)
    if not ((array >= low) & (array <= high)).all():
        raise InputError(
            f"inputs lie in {array.min()}..{array.max()}, outside low={low}, "
            f"high={high}; scale them, or give their own limits"
        )
    y = true_labels(model, (params, model_state), array, labels)
    limits = jnp.array([bound, step_size, low, high], jnp.float32)
    attack = limits, steps, key
    perturb = functools.partial(_perturb, model.apply, (params, model_state), attack)
    return by_pieces(perturb, (array, y, np.arange(len(y), dtype=np.int32)), batch_size)


def robust_accuracy(
    model: Model,
    params: Params,
    model_state: ModelState,
    inputs: Any,
    labels: Any,
    *,
    batch_size: int = 512,
    **attack: Any,
) -> float:
    """Share of samples that are right, and stay right under `pgd`, 0..100 percent.

    A sample the model gets wrong without a perturbation counts as wrong, even if the
    attack should put it right: the share is never above the clean accuracy, and with
    bound 0 it is the clean accuracy (our choice). Target: Retrain's value. It takes
    what `pgd` does (`attack` is `bound`, `steps`, `step_size`, `low`, `high` and `key`)
    and does not depend on `batch_size`. Source: Madry et al., arXiv 1706.06083.

    Raises:
      InputError: as `pgd`, and outputs that are not finite.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 1.0, lambda w, x: w * x)
    >>> images = np.array([[0.5, 0.4], [0.9, 0.1]], np.float32)
    >>> robust_accuracy(model, jnp.float32(1), (), images, [0, 0], bound=0.1)
    50.0
    """
    at = model, params, model_state
    adversarial = pgd(*at, inputs, labels, batch_size=batch_size, **attack)
    clean = float_inputs("inputs", inputs)
    right = np.ones(len(clean), np.bool_)
    for name, given in (("outputs", clean), ("adversarial outputs", adversarial)):
        outputs = predict(*at, given, batch_size=batch_size)
        right &= _checks.scores(name, outputs).argmax(axis=1) == np.asarray(labels)
    return float(100 * np.mean(right))


def float_inputs(name: str, inputs: Any) -> np.ndarray:
    """Return the inputs as one host array `f32[N, ...]`, if they are floats."""
    array = np.asarray(inputs)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"{name} of type {array.dtype} must be one floating array; convert pixels "
            "to floats in 0..1 first (inputs / 255)"
        )
    if array.ndim < 1 or array.size == 0:
        raise InputError(f"{name}.shape={array.shape} is empty; give [N, ...], N >= 1")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{name} hold NaN or infinite values; leave these samples out")
    return array


def true_labels(
    model: Model, variables: tuple[Params, ModelState], inputs: Any, labels: Any
) -> np.ndarray:
    """Return the labels `i32[N]`, if they fit the K ≥ 2 outputs of a classifier."""

    def outputs(params, model_state, inputs):
        one = jax.tree.map(lambda leaf: leaf[:1], inputs)
        return model.apply(params, model_state, one, train=False)[0]

    shape = jnp.shape(jax.eval_shape(outputs, *variables, inputs))
    if len(shape) != 2 or shape[1] < 2:
        raise InputError(
            f"the outputs of one sample have shape {shape}; give a classifier with "
            "logits [B, K], K >= 2"
        )
    total = len(jax.tree.leaves(inputs)[0])
    return _checks.class_labels("labels", labels, total, shape[1]).astype(np.int32)


def by_pieces(
    function: Callable[..., Array], arrays: Sequence[np.ndarray], batch_size: int
) -> np.ndarray:
    """Return what a function gives for the rows of arrays, some at a time."""
    _checks.whole("batch_size", batch_size, 1, "try 512")
    total = len(arrays[0])
    parts = [
        jax.device_get(function(*(jnp.asarray(array[rows]) for array in arrays)))
        for rows in programs.pieces(total, min(batch_size, total))
    ]
    return np.concatenate(parts)[:total]


def _perturb(apply, variables, attack, *samples):
    """Run the steps of `pgd` on a batch: inputs, labels, positions of the samples."""
    inputs, labels, rows = samples
    sizes, steps, key = attack
    moved = inputs if key is None else _noisy(inputs, rows, sizes, key)
    # A program a step: inside one that loops, XLA's gradients of convolutions are slow
    # on CPUs.
    for _ in range(steps):
        moved = _climb(apply, variables, moved, labels, inputs, sizes)
    return moved


@programs.jit
def _noisy(inputs: Array, rows: Array, sizes: Any, key: Array) -> Array:
    def noise(row: Array) -> Array:
        own = jax.random.fold_in(key, row)
        return jax.random.uniform(own, inputs.shape[1:], jnp.float32, -1.0, 1.0)

    return jnp.clip(inputs + sizes[0] * jax.vmap(noise)(rows), *_box(inputs, sizes))


@programs.jit(static_argnums=0)
def _climb(apply, variables, moved: Array, labels: Array, inputs: Array, sizes: Any):
    gradient, _ = margin_gradient(apply, variables, moved, labels)
    climbed = moved - sizes[1] * jnp.sign(gradient)
    return jnp.clip(climbed, *_box(inputs, sizes))


def _box(inputs: Array, sizes: Any) -> tuple[Array, Array]:
    """Return the least and the largest value of each pixel."""
    bound, _, low, high = sizes
    return jnp.maximum(inputs - bound, low), jnp.minimum(inputs + bound, high)
