"""Adversarial robustness: the accuracy that is left under small chosen perturbations.

Shapes: N samples, B samples a pass, K classes. Networks run in eval mode, so that no
sample depends on the batch it is in.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.data.checks import positive_integer
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, ModelState, Params


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

    The sign is taken of −∇m instead, with the margin m of `margin`: the same direction,
    since ℓ = log(1 + exp(−m)), but one that does not vanish in float32 where the model
    is sure (p_y rounds to 1 from m = 17 on, and the gradient of ℓ is then wrong or 0).
    One step without `key` and with the step size left out is FGSM. Where the gradient
    is 0 the input stays.

    Args:
      model: the network; outputs are logits `[B, K]`.
      params: its parameters.
      model_state: its state.
      inputs: one floating array `[N, ...]` with values in `low..high`.
      labels: true classes `[N]`.
      bound: ε ≥ 0; published: 8/255 for images scaled to 0..1.
      steps: number of steps.
      step_size: η; default 2.5 ε/steps, as published.
      low: least value of an input; minus infinity for no limit.
      high: greatest value of an input.
      key: of a random start, uniform in the ball, drawn for each sample apart; None
        starts at the input itself.
      batch_size: largest number of samples a pass; the last pass is padded.

    Returns:
      Adversarial inputs `f32[N, ...]`, in the ball to the rounding of float32.

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
    step_size = _check_attack(bound, steps, step_size, low, high)
    array = float_inputs("inputs", inputs)
    if not ((array >= low) & (array <= high)).all():
        raise InputError(
            f"inputs lie in {array.min()}..{array.max()}, outside low={low}, "
            f"high={high}; scale them, or give their own limits"
        )
    classes = class_count(model, params, model_state, array)
    y = _checks.class_labels("labels", labels, len(array), classes).astype(np.int32)
    limits = jnp.array([bound, step_size, low, high], jnp.float32)
    count = jnp.int32(steps)
    parts = [
        jax.device_get(
            _perturb(
                model.apply,
                params,
                model_state,
                jax.tree.map(jnp.asarray, (array[rows], y[rows], rows)),
                limits,
                count,
                key,
            )
        )
        for rows in pieces(len(array), batch_size)
    ]
    return np.concatenate(parts)[: len(array)]


def robust_accuracy(
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
) -> float:
    """Share of samples that are right, and stay right under `pgd`, in percent.

    A sample the model gets wrong without a perturbation counts as wrong, even if the
    attack should put it right: the share is never above the clean accuracy, and with
    bound 0 it is the clean accuracy (our choice). Target: Retrain's value.

    Args:
      model: the network; outputs are logits `[B, K]`.
      params: its parameters.
      model_state: its state.
      inputs: one floating array `[N, ...]` with values in `low..high`.
      labels: true classes `[N]`.
      bound: as in `pgd`.
      steps: as in `pgd`.
      step_size: as in `pgd`.
      low: as in `pgd`.
      high: as in `pgd`.
      key: as in `pgd`.
      batch_size: largest number of samples a pass; the value does not depend on it.

    Returns:
      A percentage, 0..100.

    Raises:
      InputError: as `pgd`, and outputs that are not finite.

    Source: Madry et al., arXiv 1706.06083.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 1.0, lambda w, x: w * x)
    >>> images = np.array([[0.5, 0.4], [0.9, 0.1]], np.float32)
    >>> robust_accuracy(model, jnp.float32(1), (), images, [0, 0], bound=0.1)
    50.0
    """
    adversarial = pgd(
        model,
        params,
        model_state,
        inputs,
        labels,
        bound=bound,
        steps=steps,
        step_size=step_size,
        low=low,
        high=high,
        key=key,
        batch_size=batch_size,
    )
    clean = float_inputs("inputs", inputs)
    right = np.ones(len(clean), np.bool_)
    for name, given in (("outputs", clean), ("adversarial outputs", adversarial)):
        outputs = predict(model, params, model_state, given, batch_size=batch_size)
        array = _checks.scores(name, np.asarray(outputs, np.float64))
        right &= array.argmax(axis=1) == np.asarray(labels)
    return float(100 * np.mean(right))


def margin(logits: Array, labels: Array) -> Array:
    """Return m = z_y − log Σ_{k≠y} exp(z_k), so that p_y = 1/(1 + exp(−m)).

    The cross-entropy is log(1 + exp(−m)): it falls where m rises, and ∇m has the
    direction of −∇ℓ at any confidence, without the underflow of ∇ℓ.

    Args:
      logits: `[..., K]`, K ≥ 2.
      labels: true classes, integers `[...]`.

    Returns:
      Margins `f32[...]`.

    Source: the definition; our choice as the thing to differentiate.

    >>> margin(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0])).tolist()  # 2 − log 2
    [1.3069]
    """
    logits = logits.astype(jnp.float32)
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.bool_)
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=-1)
    return jnp.sum(jnp.where(own, logits, 0.0), axis=-1) - others


def margin_gradient(apply, params, model_state, inputs: Array, labels: Array) -> Array:
    """Return ∇_x m of every sample, `f32[B, ...]`, from one pass in eval mode.

    The gradient of the sum is the gradient of each sample, because samples do not meet
    in eval mode.

    >>> def apply(w, state, x, *, train, key=None):
    ...     return w * x, state
    >>> x, y = jnp.array([[3.0, 1.0]]), jnp.array([0])
    >>> margin_gradient(apply, 2.0, (), x, y).tolist()
    [[2.0, -2.0]]
    """

    def total(inputs: Array) -> Array:
        outputs, _ = apply(params, model_state, inputs, train=False)
        return jnp.sum(margin(outputs, labels))

    return jax.grad(total)(inputs)


def float_inputs(name: str, inputs: Any) -> np.ndarray:
    """Return the inputs as one host array `f32[N, ...]`, if they are floats.

    >>> float_inputs("inputs", [[3, 255]])
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: inputs of type int64 must be one floating array; \
convert pixels to floats in 0..1 first (inputs / 255)
    """
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


def class_count(
    model: Model, params: Params, model_state: ModelState, inputs: Any
) -> int:
    """Return K ≥ 2, the length of a row of outputs; nothing is computed.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 1.0, lambda w, x: w * x)
    >>> class_count(model, jnp.float32(1), (), np.zeros((5, 3), np.float32))
    3
    """
    forward = functools.partial(model.apply, train=False)
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), inputs
    )
    shape = jnp.shape(jax.eval_shape(forward, params, model_state, one)[0])
    if len(shape) != 2 or shape[1] < 2:
        raise InputError(
            f"the outputs of one sample have shape {shape}; give a classifier with "
            "logits [B, K], K >= 2"
        )
    return shape[1]


def pieces(total: int, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the rows of each pass, `i32[B]`; the last pass repeats the last row.

    >>> [rows.tolist() for rows in pieces(3, 2)]
    [[0, 1], [2, 2]]
    """
    size = min(positive_integer("batch_size", batch_size), total)
    for start in range(0, total, size):
        yield np.minimum(np.arange(start, start + size, dtype=np.int32), total - 1)


def _check_attack(
    bound: float, steps: int, step_size: float | None, low: float, high: float
) -> float:
    """Return the step size, if all is in range."""
    positive_integer("steps", steps)
    if not (math.isfinite(bound) and bound >= 0):
        raise InputError(f"bound={bound} must be finite and not negative; try 8/255")
    if not low < high:
        raise InputError(f"low={low} must be below high={high}; try 0.0 and 1.0")
    if step_size is None:
        return 2.5 * bound / steps
    if not (math.isfinite(step_size) and step_size > 0):
        raise InputError(
            f"step_size={step_size} must be finite and positive; leave it out for "
            "2.5 * bound / steps"
        )
    return step_size


@functools.partial(jax.jit, static_argnums=0)
def _perturb(apply, params, model_state, samples, limits, steps, key):
    """Run the steps of `pgd` on one batch; `samples`: (inputs, labels, positions)."""
    inputs, labels, rows = samples
    bound, step_size, low, high = limits
    least = jnp.maximum(inputs - bound, low)
    most = jnp.minimum(inputs + bound, high)

    def start(row: Array) -> Array:
        own = jax.random.fold_in(key, row)
        return jax.random.uniform(own, inputs.shape[1:], jnp.float32, -1.0, 1.0)

    def step(_, moved: Array) -> Array:
        gradient = margin_gradient(apply, params, model_state, moved, labels)
        return jnp.clip(moved - step_size * jnp.sign(gradient), least, most)

    first = inputs
    if key is not None:
        first = jnp.clip(inputs + bound * jax.vmap(start)(rows), least, most)
    return jax.lax.fori_loop(0, steps, step, first)
