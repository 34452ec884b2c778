"""The network of the standard FID: Inception v3 of 2015, from a file of its weights.

No weights are brought along. Files hold the arrays under the names of pytorch-fid
(`pt_inception-2015-12-05-6726825d.pth`): `Mixed_5b.branch1x1.conv.weight`, ... Other
Inception weights (torchvision's, of ImageNet) give other numbers, which are no FID. As
in pytorch-fid, mean pooling leaves out what lies beyond the border, and the last block
pools the maximum.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jax_unlearn import programs
from jax_unlearn._validate import at_least
from jax_unlearn.data.files import read_npz
from jax_unlearn.errors import InputError

__all__ = ["inception_features", "load_inception"]

SIZE, CLASSES, EPSILON = 299, 1008, 1e-3
NAME = "the FID weights of pytorch-fid, pt_inception-2015-12-05-6726825d.pth"
TORCH = (
    "torch; where it is, turn it into .npz: "
    "np.savez('fid.npz', **{k: v.numpy() for k, v in torch.load(PATH).items()})"
)
NEEDS = {
    ".npz": "",
    ".safetensors": "`pip install safetensors`; .npz does not",
    ".pth": TORCH,
    ".pt": TORCH,
}
"""Kinds of files, and what reading them needs."""

NORM = ("weight", "bias", "running_mean", "running_var")  # of a normalisation

Weights = dict[str, tuple[Array, Array]]  # kernel HWIO, bias; normalisation folded in


class Layer(NamedTuple):
    """Convolution with normalisation and ReLU, or 3 × 3 pooling, of 0 features."""

    name: str  # with its block's; of a pooling it ends in "max" or "mean"
    features: int
    kernel: tuple[int, int]
    stride: int
    padding: str


def _first(pool: int) -> str:
    return f"""branch1x1 64
        branch5x5_1 48 > branch5x5_2 64 5x5
        branch3x3dbl_1 64 > branch3x3dbl_2 96 3x3 > branch3x3dbl_3 96 3x3
        mean > branch_pool {pool}"""


def _factored(n: int) -> str:
    return f"""branch1x1 192
        branch7x7_1 {n} > branch7x7_2 {n} 1x7 > branch7x7_3 192 7x1
        branch7x7dbl_1 {n} > branch7x7dbl_2 {n} 7x1 > branch7x7dbl_3 {n} 1x7 >
        branch7x7dbl_4 {n} 7x1 > branch7x7dbl_5 192 1x7
        mean > branch_pool 192"""


def _last(pool: str) -> str:
    return f"""branch1x1 320
        branch3x3_1 384 > branch3x3_2a 384 1x3 | branch3x3_2b 384 3x1
        branch3x3dbl_1 448 > branch3x3dbl_2 384 3x3 >
        branch3x3dbl_3a 384 1x3 | branch3x3dbl_3b 384 3x1
        {pool} > branch_pool 192"""


BLOCKS = {
    "Conv2d_1a_3x3": "32 3x3 /2 valid",
    "Conv2d_2a_3x3": "32 3x3 valid",
    "Conv2d_2b_3x3": "64 3x3",
    "maxpool1": "max /2 valid",
    "Conv2d_3b_1x1": "80",
    "Conv2d_4a_3x3": "192 3x3 valid",
    "maxpool2": "max /2 valid",
    "Mixed_5b": _first(32),
    "Mixed_5c": _first(64),
    "Mixed_5d": _first(64),
    "Mixed_6a": """branch3x3 384 3x3 /2 valid
        branch3x3dbl_1 64 > branch3x3dbl_2 96 3x3 > branch3x3dbl_3 96 3x3 /2 valid
        max /2 valid""",
    "Mixed_6b": _factored(128),
    "Mixed_6c": _factored(160),
    "Mixed_6d": _factored(160),
    "Mixed_6e": _factored(192),
    "Mixed_7a": """branch3x3_1 192 > branch3x3_2 320 3x3 /2 valid
        branch7x7x3_1 192 > branch7x7x3_2 192 1x7 > branch7x7x3_3 192 7x1 >
        branch7x7x3_4 192 3x3 /2 valid
        max /2 valid""",
    "Mixed_7b": _last("mean"),
    "Mixed_7c": _last("max"),
}
"""Blocks in their order: a branch a line, its steps joined by ">"; "|" parts the layers
of a step, which read the same input. A layer: name, channels out, then kernel, stride
and padding where they are not 1x1, 1 and the same size."""


def _layer(block: str, text: str) -> Layer:
    words = text.split()
    name = block if words[0].isdigit() else f"{block}.{words.pop(0)}"
    features = int(words.pop(0)) if words and words[0].isdigit() else 0
    height, width = next((w for w in words if "x" in w), "1x1").split("x")
    padding = "VALID" if "valid" in words else "SAME"
    stride = 2 if "/2" in words else 1
    return Layer(name, features, (int(height), int(width)), stride, padding)


NETWORK = [
    [
        [
            [_layer(block, part) for part in step.split("|")]
            for step in branch.split(">")
        ]
        for branch in text.replace(">\n", ">").splitlines()
    ]
    for block, text in BLOCKS.items()
]


def load_inception(path: str | Path) -> Weights:
    """Read the weights of the standard FID, for `inception_features`, from a file.

    A .npz, a .safetensors (needs `pip install safetensors`), or a .pth or .pt (needs
    torch). Batch normalisation is folded into the convolutions: kernel γ / √(σ² +
    0.001), bias β − μ γ / √(σ² + 0.001).

    Raises:
      InputError: no such file, another kind of file, a library that is not there,
        arrays that lack or have another shape, weights of torchvision.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file; give {NAME}")
    if file.suffix not in NEEDS:
        raise InputError(f"{file}: give a file that ends in {', '.join(NEEDS)}")
    try:
        arrays = _read(file)
    except ImportError as error:
        need = NEEDS[file.suffix]
        raise InputError(f"{file}: this kind of file needs {need}") from error
    except Exception as error:  # torch names no set of errors
        raise InputError(
            f"{file}: no readable {file.suffix} file of arrays; write it anew"
        ) from error
    return folded(arrays, str(file))


def folded(arrays: Mapping[str, ArrayLike], source: str = "arrays") -> Weights:
    """Return the weights of named arrays; `fc.*` and counters are not needed."""

    def require(right: Any, words: str) -> None:
        if not right:
            raise InputError(f"{source}{words}; give {NAME}")

    head = np.shape(arrays.get("fc.bias", np.zeros(CLASSES)))
    words = f": fc.bias has shape {head}, of FID's network ({CLASSES},): "
    require(head == (CLASSES,), f"{words}these weights are another training's")
    checked: dict[str, np.ndarray] = {}
    for name, shape in inception_shapes().items():
        require(name in arrays, f" lacks {name!r}")
        array = np.asarray(arrays[name])
        words = f": {name!r} has shape {array.shape}, not {shape}"
        require(array.shape == shape, words)
        finite = array.dtype.kind in "fiu" and np.isfinite(array).all()
        require(finite, f": {name!r} holds no finite numbers")
        if name.endswith(".running_var"):
            require(array.min() >= 0, f": variance {array.min()} in {name!r}")
        checked[name] = array.astype(np.float64)
    weights = {}
    for name in (name for name in checked if name.endswith(".conv.weight")):
        at = name.removesuffix(".conv.weight")
        scale, shift, mean, variance = (checked[f"{at}.bn.{norm}"] for norm in NORM)
        factor = scale / np.sqrt(variance + EPSILON)
        kernel = np.transpose(checked[name], (2, 3, 1, 0)) * factor
        weights[at] = (
            jnp.asarray(kernel, jnp.float32),
            jnp.asarray(shift - mean * factor, jnp.float32),
        )
    return weights


def inception_features(
    weights: Weights,
    images: ArrayLike,
    *,
    size: int = SIZE,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return the features of FID, `f32[N, 2048]`: means of the last block's places.

    Images `u8[N, H, W, C]`, C of 1 or 3, are resized bilinearly to `size` (at least 75;
    FID is defined with 299), without smoothing first, and scaled to [−1, 1], as
    pytorch-fid does; grey ones are repeated in three channels. `weights` are of
    `load_inception`; `progress` is told (images done, images) after each batch.
    `feature_moments` and `frechet_distance` make FID of the features.

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
    at_least("number of images", len(values), 1)
    at_least("size", size, 75)
    at_least("batch_size", batch_size, 1)
    parts = []
    for rows in programs.pieces(len(values), min(batch_size, len(values))):
        parts.append(jax.device_get(_features(weights, values[rows], size)))
        if progress is not None:
            progress(int(rows[-1]) + 1, len(values))
    return np.concatenate(parts)[: len(values)]


def inception_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of each array that the network needs, in the layout of torch."""
    shapes: dict[str, tuple[int, ...]] = {}

    def widen(layer: Layer, channels: int) -> int:
        if not layer.features:
            return channels
        kernel = layer.features, channels, *layer.kernel
        shapes[f"{layer.name}.conv.weight"] = kernel
        shapes.update({f"{layer.name}.bn.{n}": (layer.features,) for n in NORM})
        return layer.features

    _passed(3, widen, sum)
    return shapes


def _passed(x: Any, apply: Callable[[Layer, Any], Any], join: Callable) -> Any:
    """Return what comes out of the network, its layers applied and its ends joined."""
    for branches in NETWORK:
        ends = []
        for branch in branches:
            y = x
            for step in branch:
                y = join([apply(layer, y) for layer in step])
            ends.append(y)
        x = join(ends)
    return x


def _read(file: Path) -> Mapping[str, ArrayLike]:
    if file.suffix == ".npz":
        return read_npz(file)
    if file.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(file)
    import torch  # pyright: ignore[reportMissingImports]

    stored = torch.load(file, map_location="cpu", weights_only=True)
    return {str(name): value.numpy() for name, value in stored.items()}


@programs.jit(static_argnums=2)
def _features(weights: Weights, images: Array, size: int) -> Array:
    from flax import linen

    def apply(layer: Layer, x: Array) -> Array:
        strides, padding = (layer.stride, layer.stride), layer.padding
        if layer.name.endswith("max"):
            return linen.max_pool(x, (3, 3), strides, padding)
        if not layer.features:
            return linen.avg_pool(x, (3, 3), strides, padding, count_include_pad=False)
        kernel, bias = weights[layer.name]
        axes = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=axes
        )
        return jax.nn.relu(y + bias.reshape(1, 1, 1, -1))

    x = images.astype(jnp.float32) / 255.0
    shape = (x.shape[0], size, size, x.shape[3])
    x = 2.0 * jax.image.resize(x, shape, "bilinear", antialias=False) - 1.0
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    x = _passed(x, apply, functools.partial(jnp.concatenate, axis=-1))
    return jnp.mean(x, axis=(1, 2))
