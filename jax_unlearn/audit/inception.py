"""The network of the standard FID: Inception v3 of 2015, from a file of its weights.

No weights are brought along. Files hold the arrays under the names of pytorch-fid
(`pt_inception-2015-12-05-6726825d.pth`): `Mixed_5b.branch1x1.conv.weight`, ... Other
Inception weights (torchvision's, of ImageNet) give other numbers, which are no FID.
The network is that of pytorch-fid too: mean pooling leaves out what lies beyond the
border, and the last block pools the maximum.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

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

Weights = dict[str, tuple[Array, Array]]  # kernel HWIO, bias; normalisation folded in


class Layer(NamedTuple):
    """Convolution with batch normalisation and ReLU, or 3 × 3 pooling.

    Attributes:
      name: of the convolution within its block; "max" or "mean" of a pooling.
      features: channels out; 0 of a pooling, which keeps their number.
      kernel: height and width.
      stride: 1 or 2.
      padding: "SAME" or "VALID".
    """

    name: str
    features: int
    kernel: tuple[int, int]
    stride: int
    padding: str

    def at(self, block: str) -> str:
        """Return the name of its arrays."""
        return f"{block}.{self.name}" if self.name else block


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


def _layer(text: str) -> Layer:
    """Read one layer.

    >>> _layer("branch3x3 384 3x3 /2 valid")
    Layer(name='branch3x3', features=384, kernel=(3, 3), stride=2, padding='VALID')
    """
    words = text.split()
    name = "" if words[0].isdigit() else words.pop(0)
    features = int(words.pop(0)) if words and words[0].isdigit() else 0
    height, width = next((w for w in words if "x" in w), "1x1").split("x")
    padding = "VALID" if "valid" in words else "SAME"
    stride = 2 if "/2" in words else 1
    return Layer(name, features, (int(height), int(width)), stride, padding)


NETWORK = {
    block: [
        [[_layer(part) for part in step.split("|")] for step in branch.split(">")]
        for branch in text.replace(">\n", ">").splitlines()
    ]
    for block, text in BLOCKS.items()
}


def load_inception(path: str | Path) -> Weights:
    """Read the weights of the standard FID, for `inception_features`, from a file.

    Batch normalisation is folded into the convolutions: kernel γ / √(σ² + 0.001), bias
    β − μ γ / √(σ² + 0.001).

    Args:
      path: .npz; .safetensors (needs `pip install safetensors`); or .pth or .pt (needs
        torch). All hold the arrays under the names of pytorch-fid.

    Raises:
      InputError: no such file, another kind of file, a library that is not there,
        arrays that lack or have another shape, weights of torchvision.

    Source: the names are those of pytorch-fid and torchvision.
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


def folded(arrays: Mapping[str, ArrayLike], name: str = "arrays") -> Weights:
    """Return the weights of named arrays, batch normalisation folded in.

    `fc.*` and counters are not needed; `name` is their source's, for messages.
    """
    head = np.shape(arrays.get("fc.bias", np.zeros(CLASSES)))
    if head != (CLASSES,):
        raise InputError(
            f"{name}: fc.bias has shape {head}, of FID's network ({CLASSES},): these "
            f"weights are another training's; give {NAME}"
        )
    return {layer[0]: _fold(array_shapes(*layer), arrays, name) for layer in layers()}


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
    at_least("number of images", len(values), 1)
    at_least("size", size, 75)
    at_least("batch_size", batch_size, 1)
    parts = []
    for start in range(0, len(values), batch_size):
        part = values[start : start + batch_size]
        short = min(batch_size, len(values)) - len(part)
        padded = np.pad(part, [(0, short), (0, 0), (0, 0), (0, 0)])
        parts.append(np.asarray(_features(weights, padded, size))[: len(part)])
        if progress is not None:
            progress(start + len(part), len(values))
    return np.concatenate(parts)


def inception(weights: Weights, x: Array) -> Array:
    """Return the last block's features of `f32[B, H, W, 3]` in [−1, 1], at each place.

    >>> weights = {
    ...     name: (jnp.zeros((*layer.kernel, channels, layer.features)), jnp.ones(()))
    ...     for name, layer, channels in layers()
    ... }
    >>> jax.eval_shape(inception, weights, jnp.zeros((1, 299, 299, 3))).shape
    (1, 8, 8, 2048)
    """
    for block, branches in NETWORK.items():
        ends = []
        for branch in branches:
            y = x
            for step in branch:
                parts = [_apply(layer, layer.at(block), weights, y) for layer in step]
                y = jnp.concatenate(parts, axis=-1)
            ends.append(y)
        x = jnp.concatenate(ends, axis=-1)
    return x


def inception_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of each array that the network needs, in the layout of torch.

    >>> inception_shapes()["Mixed_5b.branch1x1.conv.weight"]  # out, in, height, width
    (64, 192, 1, 1)
    """
    return {n: shape for one in layers() for n, shape in array_shapes(*one).items()}


def layers() -> list[tuple[str, Layer, int]]:
    """Return name, layer and channels in of each convolution, in their order.

    >>> layers()[0][0], len(layers())
    ('Conv2d_1a_3x3', 94)
    """
    found, channels = [], 3
    for block, branches in NETWORK.items():
        ends = []
        for branch in branches:
            width = channels
            for step in branch:
                found += [(layer.at(block), layer, width) for layer in step]
                width = sum(layer.features or width for layer in step)
            ends.append(width)
        channels = sum(ends)
    return [one for one in found if one[1].features]


def array_shapes(at: str, layer: Layer, channels: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a convolution's arrays: kernel, γ, β, μ, σ².

    >>> list(array_shapes("a", Layer("", 2, (1, 1), 1, "SAME"), 3).values())
    [(2, 3, 1, 1), (2,), (2,), (2,), (2,)]
    """
    norm = ("weight", "bias", "running_mean", "running_var")
    return {f"{at}.conv.weight": (layer.features, channels, *layer.kernel)} | {
        f"{at}.bn.{name}": (layer.features,) for name in norm
    }


def _fold(
    shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, ArrayLike], source: str
) -> tuple[Array, Array]:
    found = []
    for name, shape in shapes.items():
        if name not in arrays:
            raise InputError(f"{source} lacks {name!r}; give {NAME}")
        array = np.asarray(arrays[name])
        if array.shape != shape:
            raise InputError(
                f"{source}: {name!r} has shape {array.shape}, not {shape}; give {NAME}"
            )
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InputError(f"{source}: {name!r} holds no finite numbers; give {NAME}")
        found.append(array.astype(np.float64))
    kernel, scale, shift, mean, variance = found
    if variance.min() < 0:
        at = list(shapes)[-1]
        raise InputError(f"{source}: variance {variance.min()} in {at!r}; give {NAME}")
    factor = scale / np.sqrt(variance + EPSILON)
    return (
        jnp.asarray(np.transpose(kernel, (2, 3, 1, 0)) * factor, jnp.float32),
        jnp.asarray(shift - mean * factor, jnp.float32),
    )


def _read(file: Path) -> Mapping[str, ArrayLike]:
    if file.suffix == ".npz":
        return read_npz(file)
    if file.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(file)
    import torch  # pyright: ignore[reportMissingImports]

    stored = torch.load(file, map_location="cpu", weights_only=True)
    return {str(name): value.numpy() for name, value in stored.items()}


def _apply(layer: Layer, at: str, weights: Weights, x: Array) -> Array:
    if not layer.features:
        return _pool(layer, x)
    kernel, bias = weights[at]
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (layer.stride, layer.stride),
        layer.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jax.nn.relu(y + bias.reshape(1, 1, 1, -1))


def _pool(layer: Layer, x: Array) -> Array:
    window, strides = (1, 3, 3, 1), (1, layer.stride, layer.stride, 1)

    def reduce(values: Array, start: float, operation: Callable) -> Array:
        return jax.lax.reduce_window(
            values, start, operation, window, strides, layer.padding
        )

    if layer.name == "max":
        return reduce(x, -jnp.inf, jax.lax.max)
    inside = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return reduce(x, 0.0, jax.lax.add) / reduce(inside, 0.0, jax.lax.add)


@programs.jit(static_argnums=2)
def _features(weights: Weights, images: Array, size: int) -> Array:
    x = images.astype(jnp.float32) / 255.0
    shape = (x.shape[0], size, size, x.shape[3])
    x = 2.0 * jax.image.resize(x, shape, "bilinear", antialias=False) - 1.0
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    return jnp.mean(inception(weights, x), axis=(1, 2))
