"""Pixels: their range, normalised floats of them, augmentation in the compiled pass.

Whoever draws or moves pixels does so in 0..1 and asks `PixelRange` for the way there
and back, so that bytes and floats of any scale are treated alike.

Shapes: B batch, images of H x W pixels and C channels.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, PyTree

__all__ = ["Augment", "PixelRange", "as_floats", "channel_stats", "compose"]
__all__ += ["pixel_range", "random_crop", "random_flip", "with_preprocessing"]

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


class PixelRange(NamedTuple):
    """Least and largest pixel values, one for all channels or one a channel.

    Bytes count as 0..1, which is what a network gets of them.

    >>> scale = PixelRange((0.0,), (255.0,))
    >>> scale.unit(np.array([0.0, 51.0])).tolist()
    [0.0, 0.20000000298023224]
    >>> scale.own(np.array([0.0, 1.0]), np.dtype(np.float32)).tolist()
    [0.0, 255.0]
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def unit(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Return pixels `[..., C]` as floats, 0 for the least and 1 for the largest."""
        floats = as_floats(np.asarray(inputs))
        if self.is_unit:
            return floats
        low, high = self._bounds()
        return ((floats - low) / (high - low)).astype(np.float32)

    def own(self, unit: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return pixels of 0..1 in the data set's own range and type."""
        if dtype == np.uint8:
            return np.clip(np.round(255 * unit), 0, 255).astype(np.uint8)
        low, high = self._bounds()
        return (unit if self.is_unit else unit * (high - low) + low).astype(dtype)

    def model(self, model: Model) -> Model:
        """Return the model as a function of pixels in 0..1, the same one each time."""
        return model if self.is_unit else _of_unit(model, self)

    @property
    def is_unit(self) -> bool:
        """Whether pixels are in 0..1 already."""
        return self == UNIT

    def _bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)


UNIT = PixelRange((0.0,), (1.0,))


def pixel_range(inputs: ArrayLike) -> PixelRange:
    """Return the range of images `[N, H, W, C]`, bytes or floats.

    Floats are in 0..1, in −1..1 or in 0..255 where they lie within it (and some over
    1, or over half of 255, in the last); else each channel has the range of its own
    values, as standardised images do. (Our choice.)

    >>> pixel_range(np.array([0.0, 200.0], np.float32).reshape(1, 1, 2, 1))
    PixelRange(low=(0.0,), high=(255.0,))
    >>> pixel_range(np.array([-2.0, 3.0], np.float32).reshape(1, 1, 2, 1))
    PixelRange(low=(-2.0,), high=(3.0,))
    """
    images = np.asarray(inputs)
    if images.dtype == np.uint8:
        return UNIT
    low, high = images.min(axis=(0, 1, 2)), images.max(axis=(0, 1, 2))
    least, most = float(low.min()), float(high.max())
    if least >= 0 and most <= 1:
        return UNIT
    if least >= -1 and most <= 1:
        return PixelRange((-1.0,), (1.0,))
    if least >= 0 and 127.5 < most <= 255:
        return PixelRange((0.0,), (255.0,))
    high = np.where(high > low, high, low + 1)  # a constant channel
    return PixelRange(tuple(low.tolist()), tuple(high.tolist()))


@functools.lru_cache(maxsize=64)
def _of_unit(model: Model, scale: PixelRange) -> Model:
    low, high = jnp.float32(scale.low), jnp.float32(scale.high)

    def own(inputs: Array) -> Array:
        shape = (1,) * (inputs.ndim - 1) + (-1,)
        return inputs * (high - low).reshape(shape) + low.reshape(shape)

    def init(key: Array, inputs: Array) -> Any:
        return model.init(key, jax.tree.map(own, inputs))

    def apply(params, model_state, inputs, *, train, key=None):
        return model.apply(params, model_state, own(inputs), train=train, key=key)

    return Model(init, apply)
