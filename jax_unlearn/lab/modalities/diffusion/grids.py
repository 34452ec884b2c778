"""Grids of images as PNG: files, and text for json files and pages."""

import base64
import io

import numpy as np


def sheet(images: np.ndarray, *, enlarge: int = 1) -> np.ndarray:
    """Return images in rows and columns as one image, a black line between them.

    Args:
      images: `u8[rows, columns, H, W, C]`, one or three channels.
      enlarge: pixels for each pixel of the images.

    Returns:
      `u8[height, width, 3]`.

    >>> sheet(np.full((2, 3, 4, 4, 1), 9, np.uint8)).shape
    (9, 14, 3)
    """
    rows, columns, height, width, channels = images.shape
    framed = np.zeros((rows, columns, height + 1, width + 1, channels), np.uint8)
    framed[:, :, :height, :width] = images
    whole = framed.transpose(0, 2, 1, 3, 4).reshape(
        rows * (height + 1), columns * (width + 1), channels
    )[:-1, :-1]
    colours = np.repeat(whole, 3 // channels, axis=-1)
    return np.repeat(np.repeat(colours, enlarge, axis=0), enlarge, axis=1)


def to_png(images: np.ndarray) -> str:
    """Return a grid as PNG in base64.

    Args:
      images: `u8[rows, columns, H, W, C]`.

    Returns:
      ASCII text.

    >>> to_png(np.zeros((2, 3, 4, 4, 1), np.uint8))[:10]
    'iVBORw0KGg'
    """
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, sheet(images), format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def png_bytes(images: np.ndarray) -> bytes:
    """Return a grid as the bytes of a PNG file, enlarged to be looked at.

    Args:
      images: `u8[rows, columns, H, W, C]`.

    >>> png_bytes(np.zeros((1, 1, 4, 4, 3), np.uint8))[1:4]
    b'PNG'
    """
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    enlarge = max(1, 64 // images.shape[2])
    imsave(buffer, sheet(images, enlarge=enlarge), format="png")
    return buffer.getvalue()
