"""Denoising errors: of a batch, of a whole data set, and by timestep.

Shapes: B batch, J draws of a timestep for each sample, T timesteps, b bins.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn import programs
from jax_unlearn.contracts import counted
from jax_unlearn.diffusion.conditions import conditioned
from jax_unlearn.diffusion.process import Process, add_noise, target, to_model_range
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Batch, Model, ModelState, Params

__all__ = ["ErrorTable", "Noised", "denoising_errors", "noised", "scaled"]
__all__ += ["squared_error", "timestep_scale"]


class Noised(NamedTuple):
    """A batch as the network sees it, each sample J = `draws` times, draw by draw.

    Its inputs are (x_t `[J·B, H, W, C]`, t `i32[J·B]`, condition `[J·B, ...]`); the
    target is what it is to predict, `[J·B, H, W, C]`; the labels are the classes,
    `i32[J·B]`.
    """

    inputs: tuple[Array, Array, Array]
    target: Array
    labels: Array
    draws: int


def noised(process: Process, batch: Batch, key: Array, *, draws: int = 1) -> Noised:
    """Draw timesteps and noise for a batch; row j·B + i is draw j of sample i.

    Draw j of a sample has t uniform over the j-th of J equal parts of 0 … T − 1, so
    that the mean over the draws is one over all timesteps, with less variance than J
    free draws have. The batch holds images, as inputs or beside their condition, see
    `conditioned`.

    Raises:
      InputError: `draws` outside 1 … T.

    Source: Ho et al., arXiv 2006.11239, algorithm 1, for one draw; the division into
    parts is our choice.

    >>> from jax_unlearn.diffusion.process import cosine
    >>> batch = Batch(jnp.zeros((3, 2, 2, 1)), jnp.array([0, 1, 2]))
    >>> seen = noised(cosine(100), batch, jax.random.key(0), draws=2)
    >>> bool((seen.inputs[1][:3] < 50).all() and (seen.inputs[1][3:] >= 50).all())
    True
    """
    total = process.num_train_timesteps
    if not 1 <= draws <= total:
        raise InputError(
            f"draws={draws} must lie between 1 and num_train_timesteps={total}"
        )
    images, condition = conditioned(batch)
    time_key, noise_key = jax.random.split(key)
    places = jax.random.uniform(time_key, (draws, images.shape[0]))
    parts = jnp.arange(draws, dtype=jnp.float32)[:, None]
    times = jnp.floor((parts + places) * (total / draws)).astype(jnp.int32)
    times = jnp.minimum(times, total - 1).reshape(-1)
    clean = _repeat(to_model_range(images), draws)
    noise = jax.random.normal(noise_key, clean.shape)
    return Noised(
        (add_noise(process, clean, noise, times), times, _repeat(condition, draws)),
        target(process, clean, noise, times),
        _repeat(jnp.where(counted(batch), batch.labels, 0), draws),
        draws,
    )


def squared_error(prediction: Array, wanted: Array) -> Array:
    """Return the mean squared error of each sample over all its pixels, `f32[B]`.

    >>> print(squared_error(jnp.array([[1.0, 3.0]]), jnp.zeros((1, 2))))
    [5.]
    """
    difference = (prediction - wanted).astype(jnp.float32)
    return jnp.mean(difference.reshape(difference.shape[0], -1) ** 2, axis=1)


def scaled(errors: Array, timesteps: Array, scale: Array | None, total: int) -> Array:
    """Return errors `[N]` over the mean error of their timestep's bin: ℓ/m_{⌊t b/T⌋}.

    The timesteps are `i32[N]` of `total` = T; m is `f32[b]`, or None, which leaves the
    errors as they are.

    >>> scaled(jnp.array([2.0, 2.0]), jnp.array([0, 9]), jnp.array([4.0, 1.0]), 10)
    Array([0.5, 2. ], dtype=float32)
    """
    if scale is None:
        return errors
    return errors / scale[timesteps * scale.shape[0] // total]


def timestep_scale(
    errors: ArrayLike, timesteps: ArrayLike, *, bins: int, num_train_timesteps: int
) -> Array:
    """Return the mean error m of each bin of timesteps, `f32[b]`, for `scaled`.

    The error of a sample depends on t far more than on the sample: small t are hard. A
    bin without errors takes the mean of all; none is 0. The errors, `[N, J]` or `[N]`,
    are usually those under the original model, the timesteps are of the same shape.

    Raises:
      InputError: `bins` outside 1 … T, no errors, or shapes that differ.

    >>> timestep_scale([4.0, 2.0, 1.0], [0, 1, 9], bins=2, num_train_timesteps=10)
    Array([3., 1.], dtype=float32)
    """
    values, times = np.asarray(errors, np.float64), np.asarray(timesteps)
    if values.shape != times.shape or not values.size:
        raise InputError(
            f"errors of shape {values.shape}, timesteps of shape {times.shape}: give "
            "one timestep an error, and 1 or more"
        )
    if not 1 <= bins <= num_train_timesteps:
        raise InputError(
            f"bins={bins} must lie between 1 and "
            f"num_train_timesteps={num_train_timesteps}"
        )
    place = times.ravel() * bins // num_train_timesteps
    count = np.bincount(place, minlength=bins)
    total = np.bincount(place, values.ravel(), minlength=bins)
    means = np.where(count > 0, total / np.maximum(count, 1), values.mean())
    return jnp.asarray(np.maximum(means, 1e-12), jnp.float32)


class ErrorTable(NamedTuple):
    """Denoising errors of samples under one model, and their t, both `[N, J]`."""

    errors: np.ndarray
    timesteps: np.ndarray


def denoising_errors(
    model: Model,
    params: Params,
    model_state: ModelState,
    samples: Batch,
    key: Array,
    *,
    process: Process,
    draws: int = 8,
    batch_size: int = 256,
) -> ErrorTable:
    """Return the denoising errors of samples under a model in eval mode.

    The samples are one batch of host arrays, N rows, see `conditioned`; each has
    `draws` timesteps, one in each of J equal parts, as in `noised`. They go through the
    model, of inputs (x_t, t, condition), `batch_size` at a time; the last batch is
    padded.

    Raises:
      InputError: no samples, `draws` or `batch_size` out of range.

    >>> from jax_unlearn.diffusion.process import cosine
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     return jnp.zeros_like(inputs[0]), state
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> data = Batch(np.zeros((2, 8, 8, 1), np.float32), np.zeros(2, np.int32))
    >>> table = denoising_errors(
    ...     model, (), (), data, jax.random.key(0), process=cosine(10), draws=4
    ... )
    >>> table.errors.shape  # of ε̂ = 0: about 1
    (2, 4)
    """
    count = len(samples.labels)
    if not count or batch_size < 1:
        raise InputError(
            f"{count} samples, batch_size={batch_size}: give 1 or more of each"
        )

    fixed = model, process.prediction_type, draws
    parts = []
    for number, rows in enumerate(programs.pieces(count, min(batch_size, count))):
        batch = jax.tree.map(lambda leaf, rows=rows: jnp.asarray(leaf[rows]), samples)
        made = params, model_state, process.alphas_cumprod, batch
        part = _measure(fixed, *made, jax.random.fold_in(key, number))
        parts.append(jax.device_get(part))
    errors, times = (np.concatenate(part)[:count] for part in zip(*parts, strict=True))
    return ErrorTable(errors, times)


@programs.jit(static_argnums=0)
def _measure(
    fixed: tuple[Model, str, int],
    params: Params,
    model_state: ModelState,
    alphas_cumprod: Array,
    batch: Batch,
    key: Array,
) -> tuple[Array, Array]:
    """Return errors and timesteps: one program for all models of one network."""
    model, prediction_type, draws = fixed
    seen = noised(Process(alphas_cumprod, prediction_type), batch, key, draws=draws)
    prediction, _ = model.apply(params, model_state, seen.inputs, train=False)
    errors = squared_error(prediction, seen.target)
    return errors.reshape(draws, -1).T, seen.inputs[1].reshape(draws, -1).T


def _repeat(array: Array, times: int) -> Array:
    return jnp.concatenate([array] * times) if times > 1 else array
