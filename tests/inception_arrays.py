"""Arrays of an Inception network drawn from their names, in numpy alone."""

import math
import zlib

import numpy as np


def drawn(name, shape):
    """Return one array; of a size that lets signals through 94 layers."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("conv.weight"):
        noise = noise * math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith(("running_var", "bn.weight")):
        noise = 1 + 0.1 * np.abs(noise)
    else:
        noise = 0.1 * noise
    return noise.astype(np.float32)


def pictures(channels=3):
    """Return two images, `u8[2, 40, 50, channels]`."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, 40, 50, channels), dtype=np.uint8)
