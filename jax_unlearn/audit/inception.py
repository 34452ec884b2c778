"""The network of the standard FID: Inception v3 of 2015, from a file of its weights.

No weights are brought along. Files hold the arrays under the names of pytorch-fid
(`pt_inception-2015-12-05-6726825d.pth`): `Mixed_5b.branch1x1.conv.weight`, ... Other
Inception weights (torchvision's, of ImageNet) give other numbers, which are no FID.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jax_unlearn.audit.inception_network import (
    Conv,
    Weights,
    array_shapes,
    convolutions,
    inception,
)
from jax_unlearn.data.files import read_npz
from jax_unlearn.errors import InputError

SIZE, CLASSES, EPSILON = 299, 1008, 1e-3
NAME = "the FID weights of pytorch-fid, pt_inception-2015-12-05-6726825d.pth"


def load_inception(path: str | Path) -> Weights:
    """Read the weights of the standard FID from a file.

    Batch normalisation is folded into the convolutions: kernel γ / √(σ² + 0.001), bias
    β − μ γ / √(σ² + 0.001).

    Args:
      path: .npz; .safetensors (needs `pip install safetensors`); or .pth or .pt (needs
        torch). All hold the arrays under the names of pytorch-fid.

    Returns:
      Weights for `inception_features`.

    Raises:
      InputError: no such file, another kind of file, a library that is not there,
        arrays that lack or have another shape, weights of torchvision.

    Source: the names are those of pytorch-fid and torchvision.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file; give {NAME}")
    readers = {
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
        ".pth": _read_torch,
        ".pt": _read_torch,
    }
    if file.suffix not in readers:
        raise InputError(f"{file}: give a file that ends in {', '.join(readers)}")
    return folded(readers[file.suffix](file), str(file))


def folded(arrays: Mapping[str, ArrayLike], name: str = "arrays") -> Weights:
    """Return the weights of named arrays, batch normalisation folded in.

    Args:
      arrays: by the names of pytorch-fid; `fc.*` and counters are not needed.
      name: of their source, for messages.

    Raises:
      InputError: as `load_inception`.
    """
    head = np.shape(arrays["fc.bias"]) if "fc.bias" in arrays else (CLASSES,)
    if head != (CLASSES,):
        raise InputError(
            f"{name}: fc.bias has shape {head}, of FID's network ({CLASSES},): these "
            f"weights are another training's; give {NAME}"
        )
    return {layer[0]: _fold(*layer, arrays, name) for layer in convolutions()}


def inception_features(
    weights: Weights,
    images: ArrayLike,
    *,
    size: int = SIZE,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return the features of FID: the mean over the last block's places.

    Images are resized bilinearly to 299 × 299, without smoothing first, and scaled to
    [−1, 1], as pytorch-fid does; grey ones are repeated in three channels.

    Args:
      weights: of `load_inception`.
      images: `u8[N, H, W, C]`, C of 1 or 3.
      size: to resize to; FID is defined with 299, at least 75.
      batch_size: images at a time.
      progress: told (images done, images) after each batch.

    Returns:
      `f32[N, 2048]`; `feature_moments` and `frechet_distance` make FID of them.

    Raises:
      InputError: images of another type or shape, no image, a size below 75, a batch
        size below 1.

    Reference: Heusel et al., arXiv 1706.08500; Szegedy et al., arXiv 1512.00567.

    >>> weights = load_inception("fid.npz")  # doctest: +SKIP
    >>> real = feature_moments(inception_features(weights, images))  # doctest: +SKIP
    """
    values = np.asarray(images)
    if values.dtype != np.uint8 or values.ndim != 4 or values.shape[-1] not in (1, 3):
        raise InputError(
            f"images: {values.dtype} of shape {values.shape}; give u8[N, H, W, C] with "
            "1 or 3 channels"
        )
    for what, value, least in (
        ("images", len(values), 1),
        ("size", size, 75),
        ("batch_size", batch_size, 1),
    ):
        if value < least:
            raise InputError(f"{what}: {value} must be at least {least}")
    parts = []
    for start in range(0, len(values), batch_size):
        part = values[start : start + batch_size]
        short = min(batch_size, len(values)) - len(part)
        padded = np.pad(part, [(0, short), (0, 0), (0, 0), (0, 0)])
        parts.append(np.asarray(_features(weights, padded, size))[: len(part)])
        if progress is not None:
            progress(start + len(part), len(values))
    return np.concatenate(parts)


def _fold(
    at: str, layer: Conv, channels: int, arrays: Mapping[str, ArrayLike], source: str
) -> tuple[Array, Array]:
    found = {}
    for name, shape in array_shapes(at, layer, channels).items():
        if name not in arrays:
            raise InputError(f"{source} lacks {name!r}; give {NAME}")
        array = np.asarray(arrays[name])
        if array.shape != shape:
            raise InputError(
                f"{source}: {name!r} has shape {array.shape}, not {shape}; give {NAME}"
            )
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InputError(f"{source}: {name!r} holds no finite numbers; give {NAME}")
        found[name] = array.astype(np.float64)
    kernel, scale, shift, mean, variance = found.values()
    if variance.min() < 0:
        raise InputError(f"{source}: variance {variance.min()} at {at!r}; give {NAME}")
    factor = scale / np.sqrt(variance + EPSILON)
    return (
        jnp.asarray(np.transpose(kernel, (2, 3, 1, 0)) * factor, jnp.float32),
        jnp.asarray(shift - mean * factor, jnp.float32),
    )


def _read_npz(path: Path) -> Mapping[str, ArrayLike]:
    try:
        return read_npz(path)
    except ValueError as error:
        raise InputError(
            f"{path}: no readable .npz file ({error}); write it anew"
        ) from error


def _read_safetensors(path: Path) -> Mapping[str, ArrayLike]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise InputError(
            f"{path}: this kind of file needs `pip install safetensors`; .npz does not"
        ) from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no readable .safetensors file; write it anew"
        ) from error


def _read_torch(path: Path) -> Mapping[str, ArrayLike]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"{path}: this kind of file needs torch; where it is, turn it into .npz: "
            "np.savez('fid.npz', **{k: v.numpy() for k, v in torch.load(PATH).items()})"
        ) from error
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): value.numpy() for name, value in stored.items()}
    except Exception as error:  # torch names no set of errors
        raise InputError(
            f"{path}: no readable file of torch arrays; give {NAME}"
        ) from error


@functools.partial(jax.jit, static_argnums=2)
def _features(weights: Weights, images: Array, size: int) -> Array:
    x = images.astype(jnp.float32) / 255.0
    shape = (x.shape[0], size, size, x.shape[3])
    x = 2.0 * jax.image.resize(x, shape, "bilinear", antialias=False) - 1.0
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    return jnp.mean(inception(weights, x), axis=(1, 2))
