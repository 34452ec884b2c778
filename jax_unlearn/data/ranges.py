"""The range of pixels: what black and white are in a data set's own numbers.

Whoever draws or moves pixels does so in 0..1 and asks here for the way there and back,
so that bytes and floats of any scale are treated alike.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.preprocess import as_floats
from jax_unlearn.types import Array, Model

__all__ = ["PixelRange", "pixel_range"]


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
