"""Samplers: the equations of one reverse step, and the drivers that make images.

Shapes: B batch, S sampling steps, T timesteps of training. A sampler is a table of
timesteps and an equation; `generate` runs any of them with any network.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn import _validate, programs
from jax_unlearn._validate import choice, within
from jax_unlearn.diffusion.conditions import conditioned, like
from jax_unlearn.diffusion.process import (
    Process,
    add_noise,
    to_epsilon,
    to_model_range,
)
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Batch, Model, ModelState, Params

__all__ = ["Sampler", "ddim", "ddpm", "generate", "guided", "returned", "reverse_step"]


class Sampler(NamedTuple):
    """Which steps to take, and the variance of each.

    A step goes from ᾱ to ᾱ' by x' = √ᾱ' x̂_0 + √(1 − ᾱ' − σ²) ε̂ + σ' z, with z of N(0,
    I); σ is what leaves the direction of ε̂, σ' what is drawn anew (they differ in DDPM
    with the large variance only). By step, `[S]`: the timesteps, falling; ᾱ; ᾱ', 1 for
    the last; σ²; σ'². |x̂_0| is at most `clip`, if that is not None.
    """

    process: Process
    timesteps: np.ndarray
    alphas: np.ndarray
    next_alphas: np.ndarray
    variances: np.ndarray
    drawn_variances: np.ndarray
    clip: float | None


def ddim(
    process: Process,
    num_inference_steps: int = 50,
    *,
    eta: float = 0.0,
    clip: float | None = 1.0,
) -> Sampler:
    """Return the sampler of few steps: σ² = η² (1 − ᾱ')/(1 − ᾱ) · (1 − ᾱ/ᾱ').

    The S timesteps are spread evenly from T − 1 to 0, both included. η in [0, 1]: 0
    draws nothing on the way, 1 with S = T is `ddpm`. |x̂_0| may be bounded by `clip`.

    Raises:
      InputError: S or η out of range.

    Reference: Song et al., arXiv 2010.02502, equations 12 and 16.

    >>> from jax_unlearn.diffusion.process import linear
    >>> ddim(linear(1000), 3).timesteps.tolist()
    [999, 500, 0]
    """
    total = process.num_train_timesteps
    if not 1 <= num_inference_steps <= total:
        raise InputError(
            f"num_inference_steps={num_inference_steps} must lie between 1 and "
            f"num_train_timesteps={total}"
        )
    within("eta", eta, "[0, 1]", "0 is deterministic")
    spread = np.round(np.linspace(total - 1, 0, num_inference_steps))

    def variances(alphas: np.ndarray, after: np.ndarray):
        variance = eta**2 * (1 - after) / (1 - alphas) * (1 - alphas / after)
        return variance, variance

    return _sampler(process, spread, variances, clip)


def ddpm(
    process: Process, *, variance: str = "fixed_small", clip: float | None = 1.0
) -> Sampler:
    """Return ancestral sampling, one step a timestep of training.

    The mean is that of q(x_{t−1} | x_t, x̂_0); the variance
    β̃_t = (1 − ᾱ_{t−1})/(1 − ᾱ_t) β_t ("fixed_small") or β_t ("fixed_large"); |x̂_0| is
    bounded by `clip`, or not.

    Raises:
      InputError: unknown variance.

    Reference: Ho et al., arXiv 2006.11239, equations 6, 7 and 11.

    >>> from jax_unlearn.diffusion.process import from_betas
    >>> ddpm(from_betas([0.5, 0.5])).variances.tolist()  # (1 − 0.5)/(1 − 0.25)·0.5, 0
    [0.3333, 0.0]
    """
    choice("variance", variance, "fixed_small", "fixed_large")
    steps = np.arange(process.num_train_timesteps)[::-1]

    def variances(alphas: np.ndarray, after: np.ndarray):
        betas = 1 - alphas / after
        small = (1 - after) / (1 - alphas) * betas
        large = np.where(after < 1, betas, 0.0)  # the last step draws nothing
        return small, small if variance == "fixed_small" else large

    return _sampler(process, steps, variances, clip)


def reverse_step(
    sampler: Sampler, x: Array, prediction: Array, noise: Array, *, step: Array
) -> Array:
    """Return x' of one step, for a whole batch at the same step, 0 … S − 1.

    x' = √ᾱ' x̂_0 + √(1 − ᾱ' − σ²) ε̂ + σ' z. Where x̂_0 is clipped, ε̂ is taken anew
    from it, so that x_t = √ᾱ x̂_0 + √(1 − ᾱ) ε̂ still holds. x_t, what the network
    predicts of it, and the noise z are `[B, ...]`.

    Reference: Song et al., arXiv 2010.02502, equation 12.

    >>> from jax_unlearn.diffusion.process import from_betas
    >>> s = ddim(from_betas([0.36]), 1)  # one step to x̂_0
    >>> x, e, z = jnp.array([1.2]), jnp.array([1.0]), jnp.zeros(1)
    >>> reverse_step(s, x, e, z, step=jnp.int32(0)).tolist()  # (1.2 − 0.6)/0.8
    [0.75]
    """
    time, level, after, variance, drawn = (jnp.asarray(a)[step] for a in sampler[1:-1])
    times = jnp.full(x.shape[:1], time, jnp.int32)
    epsilon = to_epsilon(sampler.process, prediction, x, times)
    image = (x - jnp.sqrt(1.0 - level) * epsilon) / jnp.sqrt(level)
    if sampler.clip is not None:
        image = jnp.clip(image, -sampler.clip, sampler.clip)
        epsilon = (x - jnp.sqrt(level) * image) / jnp.sqrt(1.0 - level)
    along = jnp.sqrt(jnp.maximum(1.0 - after - variance, 0.0))
    return jnp.sqrt(after) * image + along * epsilon + jnp.sqrt(drawn) * noise


def guided(conditional: Array, unconditional: Array, scale: float | Array) -> Array:
    """Return the guided prediction ε̂ = ε_∅ + s (ε_c − ε_∅), all `[B, ...]`.

    s = 1 is the plain conditional prediction, as in diffusers (`guidance_scale`); the
    w of the paper is s − 1, also in SalUn's code for DDPM: (1 + w) ε_c − w ε_∅, whose
    w = 2 is s = 3.

    Reference: Ho and Salimans, arXiv 2207.12598, equation 6.

    >>> print(guided(jnp.array([3.0]), jnp.array([1.0]), 2.0))
    [5.]
    """
    return unconditional + scale * (conditional - unconditional)


def generate(
    model: Model,
    params: Params,
    model_state: ModelState,
    conditions: ArrayLike,
    key: Array,
    *,
    sampler: Sampler,
    shape: tuple[int, ...],
    guidance_scale: float = 1.0,
    null: ArrayLike | None = None,
    start: ArrayLike | None = None,
    batch_size: int = 256,
    scan: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return one image for each condition, by one compiled program.

    Image i is drawn from `fold_in(key, i)`: it does not depend on the batch size, nor
    on what else is asked for (up to rounding). The images, `f32[N, H, W, C]` of about
    [−1, 1], come to the host.

    The model, of inputs (x_t, t, condition), usually takes the moving average of its
    parameters. The conditions are class ids `[N]`, tokens `[N, L]`, …, as it reads
    them; `shape` is that of an image, (H, W, C). Any `guidance_scale` (s of `guided`)
    but 1 costs a second pass a step, and needs the null condition. Images begin as
    noise, or as `start`, `[N, H, W, C]`, at the sampler's first t. The last batch is
    padded. `scan` runs all steps as one `lax.scan`; default on accelerators only,
    because on the CPU a convolution inside a loop is slow. `progress` is told (steps
    done, steps in all).

    Raises:
      InputError: no conditions, batch size below 1, guidance without a null condition.

    >>> from jax_unlearn.diffusion.process import from_betas
    >>> from jax_unlearn.types import Model
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     return 0.6 * inputs[0], state  # the best ε̂ where the data are N(0, 1)
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> sampler = ddim(from_betas([0.36]), 1, clip=None)
    >>> x = generate(
    ...     model, (), (), [0], jax.random.key(0), sampler=sampler, shape=(1, 1, 1)
    ... )
    >>> x.shape
    (1, 1, 1, 1)
    """
    asked = np.asarray(conditions)
    if asked.ndim < 1 or not len(asked) or batch_size < 1:
        raise InputError(
            f"conditions of shape {asked.shape}, batch_size={batch_size}: ask for 1 or "
            "more images"
        )
    if guidance_scale != 1.0 and null is None:
        raise InputError(
            f"guidance_scale={guidance_scale} needs the null condition of a model "
            "trained with dropped conditions; use guidance_scale=1.0, or train with "
            "drop > 0 and give null"
        )
    chunked = jax.default_backend() != "cpu" if scan is None else scan
    size = min(batch_size, len(asked))
    passes, total = list(programs.pieces(len(asked), size)), len(sampler.timesteps)
    guide = None if guidance_scale == 1.0 else jnp.asarray(null)
    arrays = tuple(map(jnp.asarray, (sampler.process.alphas_cumprod, *sampler[1:-1])))
    setting = (model.apply, sampler.process.prediction_type, sampler.clip)
    scale = jnp.float32(guidance_scale)
    images = []
    for number, rows in enumerate(passes):
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
            key, number * size + jnp.arange(size)
        )
        x = _first(keys, shape) if start is None else jnp.asarray(start)[rows]
        batch = (jnp.asarray(asked[rows]), keys, guide, scale)
        carried, steps = (arrays, params, model_state, batch), jnp.arange(total)
        advance, chunks = (_all_steps, [steps]) if chunked else (_one_step, steps)
        done = number * total
        for chunk in chunks:
            x = advance(setting, carried, x, chunk)
            done += chunk.size
            if progress is not None:
                progress(done, len(passes) * total)
        images.append(np.asarray(x))
    return np.concatenate(images)[: len(asked)]


def returned(
    model: Model,
    params: Params,
    model_state: ModelState,
    samples: Batch,
    key: Array,
    *,
    process: Process,
    share: float = 0.25,
    steps: int = 12,
    draws: int = 4,
    batch_size: int = 256,
) -> np.ndarray:
    """Return how far from themselves noised images come back, `f64[N, J]`.

    An image is noised to t = `share`·(T − 1) and denoised by `steps` steps of DDIM, J =
    `draws` times; the distance is the root of the mean square over pixels of [−1, 1].
    One that a model has memorised comes back near itself; how near it would otherwise
    is what Retrain does of it. Noise depends on key and place alone, so that models
    compare like with like. The samples are those of `denoising_errors`.

    Raises:
      InputError: no samples, or a number out of range.

    Source: the injected noise of SISS, arXiv 2503.01034 (t = 250 of 1000), which
    compares by SSCD, a network's features; the distance of pixels is our choice.

    >>> from jax_unlearn.diffusion.process import cosine
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     x, t, _ = inputs  # the best ε̂ where all data are the image 0
    ...     level = cosine(9).alphas_cumprod[t].reshape(-1, 1, 1, 1)
    ...     return x / jnp.sqrt(1 - level), ()
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> data = Batch(np.zeros((2, 2, 2, 1), np.float32), np.zeros(2, np.int32))
    >>> found = returned(model, (), (), data, jax.random.key(0), process=cosine(9))
    >>> found.shape, bool(found.max() < 1e-5)
    ((2, 4), True)
    """
    _validate.within("share", share, "(0, 1]", "try 0.25")
    for name, value in (("steps", steps), ("draws", draws)):
        _validate.at_least(name, value, 1)
    total = process.num_train_timesteps
    every = ddim(process, min(total, round(steps / share)))
    first = np.flatnonzero(every.timesteps <= round(share * (total - 1)))[0]
    sampler = every._replace(
        **{name: getattr(every, name)[first:] for name in every._fields[1:-1]}
    )
    images, conditions = conditioned(samples)
    clean = to_model_range(jnp.repeat(jnp.asarray(images), draws, axis=0))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(clean)))
    times = jnp.full(len(clean), sampler.timesteps[0], jnp.int32)
    start = add_noise(process, clean, _first(keys, clean.shape[1:]), times)
    told = {"sampler": sampler, "shape": clean.shape[1:], "batch_size": batch_size}
    asked = np.repeat(np.asarray(conditions), draws, axis=0)
    at = model, params, model_state
    back = generate(*at, asked, key, start=start, **told)
    apart = np.square(np.float64(back) - np.asarray(clean, np.float64))
    return np.sqrt(apart.mean(axis=tuple(range(1, apart.ndim)))).reshape(-1, draws)


def _sampler(process: Process, steps: np.ndarray, variances, clip) -> Sampler:
    """Return the sampler of steps, its variances a function of ᾱ before and after."""
    if clip is not None and not clip > 0:
        raise InputError(
            f"clip={clip} must be positive, or None; images lie in [-1, 1]"
        )
    times = steps.astype(np.int32)
    alphas = np.asarray(process.alphas_cumprod, np.float64)[times]
    after = np.append(alphas[1:], 1.0)
    levels = [a.astype(np.float32) for a in (alphas, after, *variances(alphas, after))]
    return Sampler._make((process, times, *levels, clip))


@functools.partial(jax.jit, static_argnums=1)
def _first(keys, shape):
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _stepped(setting, carried, x, step):
    apply, prediction_type, clip = setting
    arrays, params, model_state, batch = carried
    conditions, keys, null, scale = batch
    process = Process(arrays[0], prediction_type)
    sampler = Sampler._make((process, *arrays[1:], clip))
    times = jnp.full(x.shape[:1], sampler.timesteps[step], jnp.int32)

    def predict(x: Array, times: Array, conditions: Array) -> Array:
        return apply(params, model_state, (x, times, conditions), train=False)[0]

    if null is None:
        prediction = predict(x, times, conditions)
    else:
        both = jnp.concatenate([conditions, like(null, conditions)])
        doubled = jnp.concatenate([x, x]), jnp.concatenate([times, times])
        conditional, bare = jnp.split(predict(doubled[0], doubled[1], both), 2)
        prediction = guided(conditional, bare, scale)
    fresh = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
    noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(fresh)
    return reverse_step(sampler, x, prediction, noise, step=step)


_one_step = programs.jit(_stepped, static_argnums=0)


@programs.jit(static_argnums=0)
def _all_steps(setting, carried, x, steps):
    def body(x, step):
        return _stepped(setting, carried, x, step), None

    return jax.lax.scan(body, x, steps)[0]
