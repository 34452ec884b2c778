"""Pixels to normalised floats, and augmentation, inside the compiled forward pass.

Shapes: B batch, images of H x W pixels and C channels.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, PyTree

__all__ = ["Augment", "as_floats", "channel_stats", "compose", "random_crop"]
__all__ += ["random_flip", "with_preprocessing"]

Augment = Callable[[Array, Array], Array]
"""`(key, images [B, H, W, C]) -> images`, a whole batch at a time."""


def channel_stats(
    inputs: ArrayLike, *, chunk: int = 4096
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation, `f64[C]` each, of images `[N, H, W, C]`.

    For `with_preprocessing`. Bytes are scaled to 0..1 first; floats are taken as they
    are. The standard deviation is that of the population; where it is 0 (a constant
    channel) 1 is returned, so that dividing by it is harmless. Of `chunk` images at a
    time, which bounds the memory.

    Raises:
      InputError: `inputs` is no batch of images.

    >>> channel_stats(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    (array([0.5]), array([0.5]))
    """
    images = np.asarray(inputs)
    if images.ndim != 4 or images.size == 0:
        raise InputError(
            f"inputs of shape {images.shape} must be [N, H, W, C] and not empty"
        )
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    axes = (0, 1, 2)
    count = images.size // images.shape[-1]
    mean = images.sum(axes, dtype=np.float64) / count
    square = np.zeros_like(mean)
    for start in range(0, len(images), chunk):
        square += ((images[start : start + chunk] - mean) ** 2).sum(axes)
    std = np.sqrt(square / count) / scale
    return mean / scale, np.where(std > 0, std, 1.0)


def with_preprocessing(
    model: Model, *, mean: ArrayLike, std: ArrayLike, augment: Augment | None = None
) -> Model:
    r"""Return the model of raw images, `uint8` or floating `[B, H, W, C]`.

    .. math::
        x \mapsto (x / 255 - \text{mean}) / \text{std}

    for bytes; floating inputs are taken as scaled to 0..1 already, so that gradients
    with respect to them exist, and mean and std `[C]` are on that scale. Augmentation,
    for example `compose(random_flip, random_crop(4))`, comes first, on the raw pixels,
    and only with `train=True` and a key: the key is then split in two, one for it and
    one for the network. Otherwise the network gets the key itself.

    Raises:
      InputError: unequal lengths, or a `std` that is not over 0; when the model is
        called, images with another number of channels.

    Source: common practice.

    >>> def apply(params, model_state, inputs, *, train, key=None):
    ...     return inputs, model_state
    >>> raw = Model(lambda key, inputs: ({}, {}), apply)
    >>> model = with_preprocessing(raw, mean=[0.5], std=[0.25])
    >>> images = jnp.full((1, 1, 1, 1), 255, jnp.uint8)
    >>> print(model.apply({}, {}, images, train=False)[0].ravel())
    [2.]
    """
    means, stds = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if means.ndim != 1 or means.shape != stds.shape:
        raise InputError(
            f"mean of shape {means.shape} and std of shape {stds.shape} must both be "
            "[C]; see channel_stats"
        )
    if not (np.isfinite(means).all() and np.isfinite(stds).all() and (stds > 0).all()):
        raise InputError(f"mean={means}, std={stds} must be finite and std over 0")

    def normalise(inputs: PyTree) -> Array:
        if inputs.ndim < 1 or inputs.shape[-1] != len(means):
            raise InputError(
                f"inputs of shape {inputs.shape} must have the {len(means)} channels "
                "of mean and std last"
            )
        shape = (1,) * (inputs.ndim - 1) + means.shape
        pixels = jnp.asarray(inputs).astype(jnp.float32)
        if jnp.issubdtype(inputs.dtype, jnp.integer):
            pixels = pixels / 255.0
        return (pixels - means.reshape(shape)) / stds.reshape(shape)

    def apply(params, model_state, inputs, *, train, key=None):
        if augment is not None and train and key is not None:
            augment_key, key = jax.random.split(key)
            inputs = augment(augment_key, jnp.asarray(inputs))
        return model.apply(params, model_state, normalise(inputs), train=train, key=key)

    return Model(lambda key, inputs: model.init(key, normalise(inputs)), apply)


def random_flip(key: Array, images: Array) -> Array:
    """Mirror each image of `[B, H, W, C]` left to right with probability 1/2.

    Source: common practice.

    >>> images = jnp.arange(2).reshape(1, 1, 2, 1)
    >>> flips = [random_flip(jax.random.key(s), images).ravel() for s in range(8)]
    >>> sorted({tuple(f.tolist()) for f in flips})
    [(0, 1), (1, 0)]
    """
    flip = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def random_crop(padding: int, *, fill: ArrayLike = 0.0) -> Augment:
    """Return the function that shifts images by up to `padding` pixels, 4 for CIFAR.

    The image is padded with `fill` on all sides and a window of its size is cut out of
    it at random, for each image apart. `fill` is what black is: a number, or one a
    channel, `[C]`.

    Raises:
      InputError: `padding` is negative.

    Source: common practice.

    >>> images = jnp.ones((2, 4, 4, 1))
    >>> random_crop(1)(jax.random.key(0), images).shape
    (2, 4, 4, 1)
    """
    if padding < 0:
        raise InputError(f"padding={padding} must not be negative; try 4")

    black = not np.any(fill)

    def crop(key: Array, images: Array) -> Array:
        sides = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
        padded = jnp.pad(images, sides)
        if not black:
            inside = jnp.pad(jnp.ones(images.shape[:3], np.bool_), sides[:3])
            edge = jnp.asarray(fill, images.dtype)
            edge = edge.reshape((1,) * 3 + (-1,))
            padded = jnp.where(inside[..., None], padded, edge)
        corners = jax.random.randint(key, (images.shape[0], 2), 0, 2 * padding + 1)

        def window(image: Array, corner: Array) -> Array:
            start = (corner[0], corner[1], jnp.zeros_like(corner[0]))
            return jax.lax.dynamic_slice(image, start, images.shape[1:])

        return jax.vmap(window)(padded, corners)

    return crop


def compose(*augments: Augment) -> Augment:
    """Return the augmentations one after the other, each with its own key.

    >>> def double(key, images):
    ...     return 2 * images
    >>> print(compose(double, double)(jax.random.key(0), jnp.ones((1, 1, 1, 1))).item())
    4.0
    """

    def composed(key: Array, images: Array) -> Array:
        keys: Any = jax.random.split(key, max(len(augments), 1))
        for augment, augment_key in zip(augments, keys, strict=False):
            images = augment(augment_key, images)
        return images

    return composed


def as_floats(inputs: np.ndarray) -> np.ndarray:
    """Return pixels as the networks see them: bytes as floats in 0..1.

    >>> as_floats(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    if inputs.dtype == np.uint8:
        return inputs.astype(np.float32) / np.float32(255)
    return inputs.astype(np.float32)
