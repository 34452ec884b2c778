"""The diffusion process: how images are noised, and what a network predicts of it.

Images come as bytes or in the range of about [−1, 1] in which diffusion models work.

Shapes: T timesteps of training, B batch, images of any shape `[B, ...]`. Names follow
the diffusers library (`alphas_cumprod`, `num_train_timesteps`, `prediction_type`).
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn._validate import choice
from jax_unlearn.diffusion.conditions import in_range
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array

__all__ = ["MAX_STEPS", "PREDICTIONS", "Process", "add_noise", "check_timesteps"]
__all__ += ["coefficients", "cosine", "from_betas", "linear", "target", "to_epsilon"]
__all__ += ["to_image", "to_model_range", "to_pixels"]

PREDICTIONS = ("epsilon", "v_prediction")
MAX_STEPS = 1_000_000  # our choice: more are a slip of the pen, and fill the memory


class Process(NamedTuple):
    """A noise schedule and what the network predicts.

    x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε, t = 0 … T − 1.

    Attributes:
      alphas_cumprod: ᾱ, falling from nearly 1 to nearly 0, `f32[T]`.
      prediction_type: "epsilon" (ε) or "v_prediction" (v = √ᾱ_t ε − √(1 − ᾱ_t) x_0).
    """

    alphas_cumprod: Array
    prediction_type: str = "epsilon"

    @property
    def num_train_timesteps(self) -> int:
        """Return T."""
        return self.alphas_cumprod.shape[0]


def linear(
    num_train_timesteps: int = 1000,
    *,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    prediction_type: str = "epsilon",
) -> Process:
    """Return the process whose β_t rise linearly, ᾱ_t = Π_{s ≤ t} (1 − β_s).

    `beta_start` and `beta_end` are β of the first and the last step for T = 1000. For
    another T all β are multiplied by 1000/T, so that the last image is as noisy.

    Raises:
      InputError: T below 1, β outside (0, 1), unknown prediction type.

    Reference: Ho et al., arXiv 2006.11239; the factor for other T: Dhariwal and
    Nichol, arXiv 2105.05233.

    >>> process = linear(1000)
    >>> process.alphas_cumprod[jnp.array([0, 999])].tolist()
    [0.9999, 0.00004]
    """
    _check_steps(num_train_timesteps)
    scale = 1000 / num_train_timesteps
    if not 0 < beta_start <= beta_end or not beta_end * scale < 1:
        raise InputError(
            f"beta_start={beta_start}, beta_end={beta_end}: need 0 < start <= end < "
            f"{1 / scale:g} for num_train_timesteps={num_train_timesteps}; published: "
            "0.0001 and 0.02 for 1000"
        )
    betas = scale * np.linspace(beta_start, beta_end, num_train_timesteps)
    return from_betas(betas, prediction_type=prediction_type)


def cosine(
    num_train_timesteps: int = 1000,
    *,
    offset: float = 0.008,
    max_beta: float = 0.999,
    prediction_type: str = "epsilon",
) -> Process:
    """Return the process of ᾱ_t ∝ cos²(π/2 · (t/T + s)/(1 + s)).

    The offset s ≥ 0 keeps the first β from vanishing, `max_beta` the last from 1.

    Raises:
      InputError: T below 1, numbers out of range, unknown prediction type.

    Reference: Nichol and Dhariwal, arXiv 2102.09672, equation 17.

    >>> process = cosine(2, offset=0.0)  # cos² of 45° and 90°, β at most 0.999
    >>> process.alphas_cumprod.tolist()
    [0.5, 0.0005]
    """
    _check_steps(num_train_timesteps)
    if not offset >= 0 or not 0 < max_beta < 1:
        raise InputError(
            f"offset={offset}, max_beta={max_beta}: need offset >= 0 and max_beta in "
            "(0, 1); published: 0.008 and 0.999"
        )
    edges = np.arange(num_train_timesteps + 1) / num_train_timesteps
    level = np.cos((edges + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = np.minimum(1 - level[1:] / level[:-1], max_beta)
    return from_betas(betas, prediction_type=prediction_type)


def from_betas(betas: ArrayLike, *, prediction_type: str = "epsilon") -> Process:
    """Return the process of any β_t in (0, 1), `[T]`.

    Raises:
      InputError: β outside (0, 1) or not `[T]`, unknown prediction type.

    >>> from_betas([0.5, 0.5]).alphas_cumprod.tolist()
    [0.5, 0.25]
    """
    values = np.asarray(betas, np.float64)
    if values.ndim != 1 or not len(values) or not ((values > 0) & (values < 1)).all():
        raise InputError(f"betas={values} must be [T] and lie between 0 and 1")
    choice("prediction_type", prediction_type, *PREDICTIONS)
    return Process(jnp.asarray(np.cumprod(1 - values), jnp.float32), prediction_type)


def add_noise(process: Process, x: Array, noise: Array, timesteps: Array) -> Array:
    """Return x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε of x_0 and ε `[B, ...]` at t `i32[B]`.

    Reference: Ho et al., arXiv 2006.11239, equation 4.

    >>> process = from_betas([0.36])
    >>> add_noise(process, jnp.array([1.0]), jnp.array([1.0]), jnp.array([0])).tolist()
    [1.4]
    """
    signal, spread = coefficients(process, timesteps, x.ndim)
    return signal * x + spread * noise


def target(process: Process, x: Array, noise: Array, timesteps: Array) -> Array:
    """Return what the network is to predict: ε, or v = √ᾱ_t ε − √(1 − ᾱ_t) x_0.

    The arguments are those of `add_noise`.

    Reference: Salimans and Ho, arXiv 2202.00512, for v.

    >>> process = from_betas([0.36], prediction_type="v_prediction")
    >>> target(process, jnp.array([1.0]), jnp.array([1.0]), jnp.array([0])).tolist()
    [0.2]
    """
    if process.prediction_type == "epsilon":
        return noise
    signal, spread = coefficients(process, timesteps, x.ndim)
    return signal * noise - spread * x


def to_epsilon(
    process: Process, prediction: Array, x_t: Array, timesteps: Array
) -> Array:
    """Return the noise that a prediction means: itself, or √ᾱ_t v + √(1 − ᾱ_t) x_t.

    The prediction is that of the network which saw x_t, both `[B, ...]`, at t `i32[B]`.

    >>> process = from_betas([0.36], prediction_type="v_prediction")
    >>> v, x = jnp.array([0.2]), jnp.array([1.4])  # of x_0 = ε = 1
    >>> to_epsilon(process, v, x, jnp.array([0])).tolist()
    [1.0]
    """
    if process.prediction_type == "epsilon":
        return prediction
    signal, spread = coefficients(process, timesteps, x_t.ndim)
    return signal * prediction + spread * x_t


def to_image(process: Process, epsilon: Array, x_t: Array, timesteps: Array) -> Array:
    """Return x̂_0 = (x_t − √(1 − ᾱ_t) ε)/√ᾱ_t, for a process whose ᾱ are above 0.

    Reference: Song et al., arXiv 2010.02502, equation 9.

    >>> x = to_image(from_betas([0.36]), jnp.ones(1), jnp.array([1.4]), jnp.array([0]))
    >>> x.tolist()
    [1.0]
    """
    signal, spread = coefficients(process, timesteps, x_t.ndim)
    return (x_t - spread * epsilon) / signal


def coefficients(process: Process, timesteps: Array, rank: int) -> tuple[Array, Array]:
    """Return √ᾱ_t and √(1 − ᾱ_t), shaped to multiply `[B, ...]` of this rank."""
    level = jnp.asarray(process.alphas_cumprod)[timesteps]
    level = level.reshape(level.shape + (1,) * (rank - 1))
    return jnp.sqrt(level), jnp.sqrt(1.0 - level)


def check_timesteps(process: Process, timesteps: ArrayLike) -> np.ndarray:
    """Return concrete timesteps as `i32[...]`, refused outside 0 … T − 1.

    Raises:
      InputError: a timestep out of range.

    >>> check_timesteps(from_betas([0.1]), [1])
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: timestep 1 is out of range: the process has \
num_train_timesteps=1, so 0 to 0
    """
    message = "timestep {} is out of range: the process has num_train_timesteps"
    return in_range(np.asarray(timesteps), message, process.num_train_timesteps)


def to_model_range(images: Array) -> Array:
    """Return bytes as floats x/127.5 − 1; floats are taken to lie in [−1, 1] already.

    >>> to_model_range(jnp.array([0, 255], jnp.uint8)).tolist()
    [-1.0, 1.0]
    """
    pixels = jnp.asarray(images).astype(jnp.float32)
    return pixels / 127.5 - 1.0 if images.dtype == jnp.uint8 else pixels


def to_pixels(images: ArrayLike) -> np.ndarray:
    """Return images of [−1, 1] as bytes `u8[N, H, W, C]`; what lies outside is clipped.

    >>> to_pixels(np.array([-1.0, 0.0, 3.0])).tolist()
    [0, 128, 255]
    """
    scaled = (np.asarray(images, np.float32) + 1.0) * 127.5
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def _check_steps(num_train_timesteps: int) -> None:
    if not 1 <= num_train_timesteps <= MAX_STEPS:
        limit = "least 1" if num_train_timesteps < 1 else f"most {MAX_STEPS}"
        raise InputError(
            f"num_train_timesteps={num_train_timesteps} must be at {limit}; try 1000"
        )
