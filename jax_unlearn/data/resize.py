"""Smaller images, for networks that a laptop can train."""

import numpy as np

from jax_unlearn.data.sources import Dataset, Examples
from jax_unlearn.errors import InputError


def shrink(dataset: Dataset, factor: int) -> Dataset:
    """Return the data set with its images reduced by an integer factor.

    Each pixel is the mean of factor × factor pixels, rounded to bytes again.

    Args:
      dataset: of `uint8` images.
      factor: 1 or more; divides both sides.

    Returns:
      Data set of `uint8[N, H/factor, W/factor, C]`, its name saying so.

    Raises:
      InputError: a factor that does not divide the sides, or images that are no bytes.

    Source: our choice.

    >>> images = Examples(np.array([[0, 2], [4, 6]], np.uint8).reshape(1, 2, 2, 1), [0])
    >>> small = shrink(Dataset("tiny", images, images, 1, ("a",)), 2)
    >>> small.name, small.train.inputs.ravel()
    ('tiny-1x1', array([3], dtype=uint8))
    """
    height, width = dataset.train.inputs.shape[1:3]
    if factor < 1 or height % factor or width % factor:
        raise InputError(
            f"factor={factor} must divide the sides of images of {height} x {width}"
        )
    if dataset.train.inputs.dtype != np.uint8:
        raise InputError(
            f"images of type {dataset.train.inputs.dtype}: shrink reads bytes"
        )
    if factor == 1:
        return dataset

    def reduced(part: Examples) -> Examples:
        n, h, w, c = part.inputs.shape
        blocks = part.inputs.reshape(n, h // factor, factor, w // factor, factor, c)
        means = np.round(blocks.mean(axis=(2, 4), dtype=np.float32))
        return Examples(means.astype(np.uint8), part.labels)

    return dataset._replace(
        name=f"{dataset.name}-{height // factor}x{width // factor}",
        train=reduced(dataset.train),
        test=reduced(dataset.test),
    )
