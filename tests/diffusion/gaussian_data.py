"""Gaussian data, whose best denoiser and whose samples are known in closed form."""

import jax.numpy as jnp
import numpy as np

from jax_unlearn.types import Model

MEAN, STD = 0.3, 0.5


def best_epsilon(x, level, mean=MEAN, std=STD):
    """E[ε | x_t = x] for x_0 ~ N(mean, std²), by the conditional of a Gaussian."""
    variance = level * std**2 + 1 - level
    return (1 - level) ** 0.5 * (x - level**0.5 * mean) / variance


def best_model(process, calls=None, mean=MEAN, std=STD):
    """The exact denoiser as a model; class c shifts the mean by params·c."""

    def apply(params, state, inputs, *, train, key=None):
        x, times, condition = inputs
        if calls is not None:
            calls.append(x.shape)
        level = process.alphas_cumprod[times].reshape(-1, *[1] * (x.ndim - 1))
        shift = params * condition.astype(jnp.float32).reshape(level.shape)
        found = best_epsilon(x, level, mean + shift, std)
        if process.prediction_type == "v_prediction":
            image = (x - jnp.sqrt(1 - level) * found) / jnp.sqrt(level)
            found = jnp.sqrt(level) * found - jnp.sqrt(1 - level) * image
        return found, state

    return Model(lambda key, inputs: ((), ()), apply)


def affine_ddim(alphas, mean=MEAN, std=STD):
    """The whole of a deterministic sampler as x ↦ a·x + b, in float64."""
    slope, offset = 1.0, 0.0
    after = np.append(alphas[1:], 1.0)
    for level, target in zip(alphas, after, strict=True):
        gain = np.sqrt(1 - level) / (level * std**2 + 1 - level)
        # ε = gain·x − gain·√level·mean; x_0 = (x − √(1−level)·ε)/√level
        image = (
            (1 - np.sqrt(1 - level) * gain) / np.sqrt(level),
            np.sqrt(1 - level) * gain * mean,
        )
        step = np.sqrt(target) * image[0] + np.sqrt(1 - target) * gain
        shift = np.sqrt(target) * image[1] - np.sqrt(1 - target) * gain * (
            np.sqrt(level) * mean
        )
        slope, offset = step * slope, step * offset + shift
    return slope, offset
