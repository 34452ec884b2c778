"""What noise hides: the (ε, δ) statement that clipped and noisy steps earn."""

import math
from typing import NamedTuple

import numpy as np

from jax_unlearn import _validate
from jax_unlearn.errors import InputError

__all__ = ["Guarantee", "NoisySteps", "guarantee_of", "noise_scale", "noisy_steps"]
__all__ += ["renyi_of", "renyi_rate"]

ORDERS = 1 + np.geomspace(1e-4, 1e7, 4001)  # any of them gives a true ε


class NoisySteps(NamedTuple):
    """The noisy phase: T steps θ ← θ − η(clip(g, C1) + λθ) + N(0, σ²).

    Attributes:
      steps: T.
      model_clip: C0, largest norm of the parameters at the start.
      gradient_clip: C1, largest norm of a gradient.
      rate: η.
      decay: λ, η·λ below 1.
    """

    steps: int
    model_clip: float
    gradient_clip: float
    rate: float
    decay: float = 0.0


class Guarantee(NamedTuple):
    """An (ε, δ) statement: `renyi` is ρ of D_α ≤ α·ρ, `order` the α that gives ε."""

    epsilon: float
    delta: float
    renyi: float
    order: float


def noisy_steps(
    *, model_clip: float, gradient_clip: float, rate: float, decay: float = 0.0
) -> int:
    """Return the published length of the noisy phase.

    T = C0/(C1 η), or ln(2 λ C0/C1)/(η λ) if that is shorter, rounded up.

    Reference: Koloskova et al., arXiv 2506.06985.

    >>> noisy_steps(model_clip=1.0, gradient_clip=10.0, rate=0.01)
    10
    """
    long = model_clip / (gradient_clip * rate)
    if decay > 0 and (ratio := 2 * decay * model_clip / gradient_clip) > 1:
        long = min(long, math.log(ratio) / (rate * decay))
    return max(math.ceil(round(long, 9)), 1)


def renyi_rate(sigma: float, phase: NoisySteps) -> float:
    r"""Return ρ: after the noisy phase D_α ≤ α·ρ for every order α > 1.

    .. math:: \rho = \frac{\big(2 C_0 c^T + 2 η C_1 \sum_{t \lt T} c^t\big)^2}
              {2 σ^2 \sum_{t \lt T} c^{2t}}, \qquad c = 1 − ηλ

    of two runs on the same batches from any two starts of norm C0 or less: they begin
    2·C0 apart at most, a step brings them c times nearer and 2ηC1 farther, and the
    noise of all steps hides the distance (privacy amplification by iteration, the
    shifts shared out ∝ c^(T−1−t)). It is attained where gradients lead apart. At λ = 0:
    (2 C0 + 2 η C1 T)²/(2 σ² T).

    Source: Koloskova et al., arXiv 2506.06985, after Feldman et al., arXiv 1808.06651.
    Their code has 4 for 2 at λ = 0 (its form for λ > 0 tends to 2), and takes ρ itself
    for the divergence of every order, which a Gaussian's is not: both tell a smaller ε
    than the noise gives.

    >>> renyi_rate(2.0, NoisySteps(4, model_clip=1.0, gradient_clip=1.0, rate=0.5))
    1.125
    """
    check(phase)
    _validate.positive("sigma", sigma, "see noise_scale")
    return (_shift(phase) / sigma) ** 2 / 2


def noise_scale(renyi: float, phase: NoisySteps) -> float:
    """Return σ, the noise's deviation in each parameter and step; see `renyi_rate`.

    >>> noise_scale(1.125, NoisySteps(4, model_clip=1.0, gradient_clip=1.0, rate=0.5))
    2.0
    """
    check(phase)
    _validate.positive("renyi", renyi, "see renyi_of")
    return _shift(phase) / math.sqrt(2 * renyi)


def guarantee_of(renyi: float, delta: float) -> Guarantee:
    r"""Convert D_α ≤ α·ρ for every α > 1 into an (ε, δ) statement.

    .. math:: ε = \min_α \; αρ + \ln\frac{α−1}{α} − \frac{\ln δ + \ln α}{α−1}

    The minimum is looked for among orders from 1.0001 to 10⁷; 0 at least.

    Raises:
      InputError: ρ not positive, δ outside (0, 1).

    Reference: Balle et al., arXiv 1905.09982, theorem 21.

    >>> round(guarantee_of(0.5, 1e-5).epsilon, 2)
    4.73
    """
    _validate.positive("renyi", renyi, "see renyi_rate")
    _validate.within("delta", delta, "(0, 1)", "try 1e-5")
    a = ORDERS
    epsilons = a * renyi + np.log1p(-1 / a) - (math.log(delta) + np.log(a)) / (a - 1)
    best = int(np.argmin(epsilons))
    return Guarantee(max(float(epsilons[best]), 0.0), delta, renyi, float(a[best]))


def renyi_of(epsilon: float, delta: float) -> float:
    """Return the largest ρ whose statement at δ is no more than ε.

    Raises:
      InputError: ε not positive, δ outside (0, 1).

    >>> round(renyi_of(1.0, 1e-5), 4)
    0.0306
    """
    _validate.positive("epsilon", epsilon, "try 1.0")
    low, high = 1e-12, 1.0
    while guarantee_of(high, delta).epsilon <= epsilon:
        low, high = high, 2 * high
    for _ in range(60):
        middle = math.sqrt(low * high)
        fits = guarantee_of(middle, delta).epsilon <= epsilon
        low, high = (middle, high) if fits else (low, middle)
    return low * (1 - 1e-12)  # what rounds later on stays below


def _shift(phase: NoisySteps) -> float:
    """Return the distance that the noise hides, over the deviation of all noise at σ=1.

    In logarithms of c, for c^T may be below the smallest float.
    """
    c = np.float64(1 - phase.rate * phase.decay)
    powers = c ** np.arange(phase.steps, dtype=np.float64)
    apart = 2 * phase.model_clip * c**phase.steps
    apart += 2 * phase.rate * phase.gradient_clip * powers.sum()
    return float(apart / math.sqrt(np.square(powers).sum()))


def check(phase: NoisySteps) -> None:
    """Refuse numbers out of range, each in one line."""
    _validate.at_least("steps", phase.steps, 1)
    _validate.positive("model_clip", phase.model_clip, "try 1.0")
    _validate.positive("gradient_clip", phase.gradient_clip, "try 5.0")
    _validate.positive("rate", phase.rate, "try 0.001")
    _validate.not_negative("decay", phase.decay, "0 does not pull")
    if phase.rate * phase.decay >= 1:
        raise InputError(
            f"rate={phase.rate}, decay={phase.decay}: their product must be below 1; "
            f"give a decay below {1 / phase.rate:g}"
        )
