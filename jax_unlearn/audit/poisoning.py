r"""GUS: does the model still remember the noise that its forget set was poisoned with?

Known Gaussian noise ξ_i is added to some training inputs, a model is trained on them
and made to forget them. For one that does not depend on the noise, exactly,

.. math::
    I_i = \frac{\langle \nabla_x \ell(f(x_i), y_i), \xi_i \rangle}
    {\sigma \|\nabla_x \ell(f(x_i), y_i)\|_2} \sim N(0, 1)

independently over the samples, for the gradient is taken at the CLEAN input x_i, which
knows nothing of the noise: no shadow model is needed. Source: Pawelczyk et al., arXiv
2406.17216. Shapes: N samples, n poisoned ones.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import _validate, programs
from jax_unlearn.audit import _checks, robustness
from jax_unlearn.audit.rates import Rate, rate, student
from jax_unlearn.data.checks import positions
from jax_unlearn.errors import InputError
from jax_unlearn.objectives.boundary import margin_gradient
from jax_unlearn.types import Array, Model, ModelState, Params

__all__ = ["Gus", "Poisoned", "gaussian_score", "gus", "poison"]

SIDES = {"two-sided": np.abs, "less": np.negative, "greater": np.positive}
"""Where scores of a model that remembers may lie, turned to the right."""


class Poisoned(NamedTuple):
    """Inputs `[N, ...]`, the chosen ones with noise, and theirs, `f32[n, ...]`."""

    inputs: np.ndarray
    noise: np.ndarray


class Gus(NamedTuple):
    """Gaussian unlearning score; the target of each field is that of N(0, 1).

    Attributes:
      mean: of the scores; 0 if the noise is forgotten, below 0 if the model still knows
        it, above 0 if it was pushed away from it.
      std, std_error: sample standard deviation of the scores, and std/√n.
      low, high: Student's t interval of the mean.
      p_value: of mean 0, from mean·√n ~ N(0, 1), exact if the noise is forgotten.
      tpr_1, tpr_01: share of scores beyond the threshold that N(0, 1) passes with
        probability 1 % and 0.1 %, their targets.
      samples: their number n.
    """

    mean: float
    std: float
    std_error: float
    low: float
    high: float
    p_value: float
    tpr_1: Rate
    tpr_01: Rate
    samples: int


def poison(
    inputs: Any,
    ids: Any,
    key: Array,
    *,
    scale: float,
    clip: tuple[float, float] | None = None,
) -> Poisoned:
    """Add noise ξ ~ N(0, σ²) to the inputs of some samples: x_i + ξ_i.

    Inputs, one floating array `[N, ...]`, are copied and keep their type; `ids` `[n]`,
    or all where None, are poisoned at `scale` σ (published: σ² = 0.32 for CIFAR-10).
    The noise of a sample depends on the key and on its id alone. With `clip`, (low,
    high), the poisoned inputs are cut to that range while `noise` stays as drawn:
    scores with it are N(0, 1) under the null still, while the difference of the inputs
    is not. The same holds for rounding the inputs to bytes. Both make the memory of the
    noise fainter.

    Raises:
      InputError: integer inputs, ids out of range or repeated, σ not positive.

    >>> clean = np.zeros((3, 2), np.float32)
    >>> inputs, noise = poison(clean, [2], jax.random.key(0), scale=0.5)
    >>> noise.shape, bool(inputs[:2].any()), np.array_equal(inputs[2], noise[0])
    ((1, 2), False, True)
    """
    _validate.positive("scale", scale, "try 0.1")
    array = robustness.float_inputs("inputs", inputs)
    rows = np.arange(len(array)) if ids is None else np.asarray(ids)
    if len(np.unique(positions("ids", rows, len(array)))) < len(rows):
        raise InputError("ids name a sample twice; give each id once")
    if clip is not None and not clip[0] < clip[1]:
        raise InputError(f"clip={clip} must be (low, high) with low < high")

    def draw(row: Array) -> Array:
        own = jax.random.fold_in(key, row)
        return jax.random.normal(own, array.shape[1:], jnp.float32)

    noise = scale * np.asarray(jax.vmap(draw)(jnp.asarray(rows, jnp.int32)))
    noise = noise.astype(np.float32)
    new = array[rows] + noise
    poisoned = np.array(inputs)
    poisoned[rows] = new if clip is None else np.clip(new, *clip)
    return Poisoned(poisoned, noise)


def gaussian_score(
    model: Model,
    params: Params,
    model_state: ModelState,
    inputs: Any,
    labels: Any,
    noise: Any,
    *,
    scale: float,
    batch_size: int = 512,
) -> np.ndarray:
    r"""Correlate the noise with the gradient of the loss at the clean inputs.

    .. math:: I_i = \langle g_i, \xi_i \rangle / (\sigma \|g_i\|_2),
        \qquad g_i = \nabla_x \ell(f(x_i), y_i)

    `f32[n]`, of the CLEAN inputs of the poisoned samples `[n, ...]` (at the poisoned
    ones a model that never saw the noise scores far from 0 too), their true classes
    `[n]`, the noise of `poison` `[n, ...]` and its σ, `scale`, for a model whose
    outputs are logits `[B, K]`, at most `batch_size` a pass. A model that fits x_i +
    ξ_i better than x_i gives a negative score; the score is 0 where the gradient is
    exactly 0 (many such samples make the test of `gus` conservative). The loss enters
    by the direction of its gradient only, which is taken from the margin (see
    `margin_gradient` of `ju.objectives.boundary`): the loss itself underflows on
    memorised samples.

    Raises:
      InputError: integer inputs, noise of another shape, labels that do not fit, σ not
        positive, gradients that are not finite.

    Source: Pawelczyk et al., arXiv 2406.17216, algorithm 1.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 1.0, lambda w, x: w * x)
    >>> clean, noise = np.zeros((1, 2), np.float32), np.array([[2.0, 0.0]])
    >>> print(gaussian_score(model, jnp.float32(1), (), clean, [0], noise, scale=2.0))
    [-0.7071]
    """
    _validate.positive("scale", scale, "try 0.1")
    array = robustness.float_inputs("inputs", inputs)
    xi = robustness.float_inputs("noise", noise)
    if array.shape != xi.shape:
        raise InputError(
            f"inputs.shape={array.shape} differs from noise.shape={xi.shape}; give the "
            "clean inputs of the poisoned samples, in their order"
        )
    variables = params, model_state
    y = robustness.true_labels(model, variables, array, labels)
    correlate = functools.partial(_correlate, model.apply, variables)
    scores = robustness.by_pieces(correlate, (array, y, xi / scale), batch_size)
    return _checks.vector("scores", scores).astype(np.float32)


def gus(scores: Any, *, alternative: str = "two-sided", level: float = 0.95) -> Gus:
    """Test whether scores are those of a model that does not depend on the noise.

    Scores are those of `gaussian_score`, `[n]`, n ≥ 2. Under the null the mean times √n
    and every score are N(0, 1), so that p-value and thresholds need no reference model.
    Models are compared by the interval of the mean, which holds beyond the null: it
    estimates how much is remembered. The interval and `std` are 0 where all scores are
    equal. The alternative "two-sided" counts |I| (default: ascent on the forget set can
    push a model past forgetting, to scores above 0, which betrays it as well); "less"
    counts scores below minus the threshold, where training puts them; "greater" those
    above it.

    Raises:
      InputError: fewer than two scores, scores not finite, an unknown alternative, a
        level outside (0, 1).

    Source: Pawelczyk et al., arXiv 2406.17216 (mean and TPR at FPR 1 %); intervals and
    p-value: our choice.

    >>> found = gus([-3.0, -1.0, -2.0, -2.0])
    >>> found.mean, round(found.p_value, 6), found.tpr_1.value  # z = −4; 2.576
    (-2.0, 6.3e-05, 25.0)
    """
    from scipy import stats

    values = _checks.vector("scores", scores)
    if len(values) < 2:
        raise InputError(f"len(scores)={len(values)} is too few; give 2 or more")
    _validate.one_of("alternative", alternative, SIDES)
    _checks.level(level)
    count, mean, std = len(values), float(values.mean()), float(values.std(ddof=1))
    std_error = std / math.sqrt(count)
    reach = student(level, count) * std_error
    sided, tails = SIDES[alternative], 2 if alternative == "two-sided" else 1

    def beyond(false_positives: float) -> Rate:
        threshold = stats.norm.isf(false_positives / tails)
        return rate(int(np.sum(sided(values) > threshold)), count, level)

    statistic = sided(mean) * math.sqrt(count)
    return Gus(
        mean=mean,
        std=std,
        std_error=std_error,
        low=mean - reach,
        high=mean + reach,
        p_value=float(tails * stats.norm.sf(statistic)),
        tpr_1=beyond(0.01),
        tpr_01=beyond(0.001),
        samples=count,
    )


@programs.jit(static_argnums=0)
def _correlate(apply, variables, *samples):
    """Return the scores of a batch: inputs, labels, noise of standard deviation 1."""
    inputs, labels, noise = samples
    gradient = -margin_gradient(apply, variables, inputs, labels)[0]
    gradient = gradient.reshape(gradient.shape[0], -1)
    largest = jnp.max(jnp.abs(gradient), axis=1, keepdims=True)
    # Squares of very small gradients would underflow.
    gradient = gradient / jnp.where(largest > 0, largest, 1.0)
    norm = jnp.sqrt(jnp.sum(gradient**2, axis=1))
    product = jnp.sum(gradient * noise.reshape(gradient.shape), axis=1)
    return product / jnp.where(norm > 0, norm, 1.0)
