"""Weights of PyTorch for the networks here, by name, and back.

`ResNet` has the names of torchvision, which timm shares, and of the ResNets written for
CIFAR; `VGG16` those of torchvision and timm, and of VGGs with a small head; `ViT` those
of timm (DeiT) and torchvision; `SmallCNN` and `MLP` their own, "block1.conv.weight".
The networks compute the same (padding by numbers, 1e-5 in BatchNorm, 1e-6 in LayerNorm,
the exact GELU), so that logits differ by rounding only. An `MLP` reads an image row by
row, channels last; one of PyTorch that flattens NCHW images reads another order.

What PyTorch does otherwise in training: BatchNorm keeps the running variance with
n / (n − 1), and VGG drops features (`dropout` here).
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.errors import MANY, InputError
from jax_unlearn.types import ModelState, Params
from jax_unlearn.zoo.torch_names import Leaf, forms_of, leaves_of, path_of

__all__ = ["from_torch", "resampled_positions", "to_torch"]

COUNTER = "num_batches_tracked"  # of BatchNorm; PyTorch reads it without momentum alone
NEAREST = 3
EXACT = jax.lax.Precision.HIGHEST  # accelerators round the factors otherwise


def from_torch(
    arrays: Mapping[str, Any], params: Params, model_state: ModelState
) -> tuple[Params, ModelState]:
    """Return (params, model_state) with the values of a PyTorch state dict.

    By names, whichever of the libraries named in `jax_unlearn.zoo.weights` gave them; a
    prefix that all share, such as "module.", does not count, and counters of batches
    are not read. Values are not changed: half precision is widened, anything that would
    lose digits is refused.

    Args:
      arrays: by the names of PyTorch; NumPy arrays, or tensors.
      params: of a network named there, from `model.init` or
        `jax.eval_shape(model.init, ...)`; read for structure, shapes and dtypes.
      model_state: likewise.

    Raises:
      MismatchError: arrays that are missing, unexpected or of another shape; `lines`
        compares them one by one.
      InputError: another network; a dtype that would lose digits.

    Source: He et al., arXiv 1512.03385; Simonyan & Zisserman, arXiv 1409.1556;
    Dosovitskiy et al., arXiv 2010.11929, as torchvision and timm name their parts.

    >>> import jax_unlearn as ju
    >>> model = ju.from_nnx(lambda rngs: ju.zoo.ResNet18(10, width=2, rngs=rngs))
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), None)
    >>> arrays = {"conv1.weight": np.ones((2, 3, 7, 7), np.float32)}
    >>> try:
    ...     from_torch(arrays, params, state)
    ... except ju.InputError as error:
    ...     print(str(error).split(" (")[0])
    conv1.weight is [2, 3, 7, 7], the network takes [2, 3, 3, 3]
    """
    arrays = _without_prefix(_as_numpy(arrays))
    tables = [leaves_of(form.module, params, model_state) for form in forms_of(params)]
    # the first of those that name the most arrays
    leaves = max(tables, key=lambda each: sum(leaf.name in arrays for leaf in each))
    _check_names(arrays, leaves)
    by_path = {leaf.path: leaf for leaf in leaves}

    def fill(path: Any, like: Any) -> Any:
        leaf = by_path[path_of(path)]
        array = arrays[leaf.name]
        if not np.can_cast(array.dtype, like.dtype):
            raise InputError(
                f"{leaf.name} is {array.dtype}, the network's parameters are "
                f"{like.dtype}, which would lose digits; convert first, e.g. "
                f"{{k: v.astype('{like.dtype}') for k, v in arrays.items()}}"
            )
        return jnp.asarray(leaf.read(array, like), like.dtype)

    filled = jax.tree_util.tree_map_with_path(fill, (params, model_state))
    return filled[0], filled[1]


def to_torch(
    params: Params, model_state: ModelState, *, names: str | None = None
) -> dict[str, np.ndarray]:
    """Return the state dict for PyTorch of a `ResNet`, `VGG16` or `ViT`.

    The inverse of `from_torch`, bit for bit. Counters of batches, which are not kept
    here, are 0. `torch.load_state_dict` takes `{k: torch.from_numpy(v) for ...}`.

    Args:
      params: of the network.
      model_state: its running statistics.
      names: whose, one of "torchvision", "timm" and "cifar" that knows the network. By
        default timm's of a ViT, "cifar" of a VGG16 without hidden layers, else
        torchvision's.

    Raises:
      InputError: another network, or names that it has not.

    Source: as `from_torch`.

    >>> import jax_unlearn as ju
    >>> model = ju.from_nnx(lambda rngs: ju.zoo.ResNet18(10, width=2, rngs=rngs))
    >>> arrays = to_torch(*model.init(jax.random.key(0), None))
    >>> arrays["layer4.1.conv2.weight"].shape, arrays["fc.weight"].shape
    ((16, 16, 3, 3), (10, 16))
    """
    forms = forms_of(params)
    chosen = [form for form in forms if names in (None, form.library)]
    if not chosen:
        known = ", ".join(dict.fromkeys(repr(form.library) for form in forms))
        raise InputError(f"names={names!r}: this network has the names of {known}")
    values = jax.tree_util.tree_leaves_with_path((params, model_state))
    by_path = {path_of(path): np.asarray(value) for path, value in values}
    written: dict[str, np.ndarray] = {}
    for leaf in leaves_of(chosen[0].module, params, model_state):
        written[leaf.name] = leaf.write(by_path[leaf.path])
        module, _, kind = leaf.name.rpartition(".")
        if kind == "running_var":
            written[f"{module}.{COUNTER}"] = np.zeros((), np.int64)
    return written


def resampled_positions(positions: Any, grid: tuple[int, int]) -> np.ndarray:
    """Return position embeddings of a ViT for another number of patches.

    Those of the patches, a square, are resized by cubic interpolation (a = −1/2,
    widened to an average where the grid shrinks); the class token's stays.

    Args:
      positions: `[1, 1 + n², D]`, "pos_embed" or "encoder.pos_embedding" of PyTorch.
      grid: rows and columns of the new patches.

    Returns:
      `[1, 1 + rows · columns, D]`.

    Raises:
      InputError: positions that are no class token and a square.

    Source: Dosovitskiy et al., arXiv 2010.11929, section 3.2; the kernel is timm's.

    >>> resampled_positions(np.ones((1, 5, 3), np.float32), (3, 2)).shape
    (1, 7, 3)
    """
    array = np.asarray(positions)
    side = math.isqrt(max(array.shape[1] - 1, 0)) if array.ndim == 3 else 0
    if array.ndim != 3 or side < 1 or array.shape[:2] != (1, 1 + side**2):
        raise InputError(
            f"positions.shape={array.shape} must be [1, 1 + n², D]: a class token and "
            "a square of patches"
        )
    first, rest = array[:, :1], array[0, 1:].reshape(side, side, -1)
    size = (*grid, array.shape[2])
    resized = jax.image.resize(jnp.asarray(rest), size, "cubic", precision=EXACT)
    rest = np.asarray(resized, array.dtype).reshape(1, -1, array.shape[2])
    return np.concatenate([first, rest], axis=1)


def _as_numpy(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays, of tensors too, without counters of batches."""
    found = {}
    for name, value in arrays.items():
        if isinstance(value, Mapping):
            raise InputError(
                f"arrays[{name!r}] holds arrays by name itself; give that alone"
            )
        value = value.detach().cpu() if hasattr(value, "detach") else value
        try:
            array = np.asarray(value)
        except TypeError as error:  # of a tensor of bfloat16
            raise InputError(
                f"{name}: {error}; give NumPy arrays, e.g. {{k: v.float().numpy() for "
                "k, v in tensors.items()}"
            ) from error
        if array.dtype.kind in "OSU":
            raise InputError(f"arrays[{name!r}] is no array of numbers; leave it out")
        if not name.endswith(COUNTER):
            found[name] = array
    return found


def _without_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays without first words that all of their names share."""
    while len(arrays) > 1 and all("." in name for name in arrays):
        if len({name.split(".")[0] for name in arrays}) > 1:
            break
        arrays = {name.split(".", 1)[1]: array for name, array in arrays.items()}
    return arrays


def _check_names(arrays: dict[str, np.ndarray], leaves: list[Leaf]) -> None:
    """Refuse arrays whose names or shapes are not those of the network."""
    shapes = {leaf.name: leaf.shape for leaf in leaves}
    found = {name: array.shape for name, array in arrays.items()}
    missing = [name for name in shapes if name not in found]
    unexpected = [name for name in found if name not in shapes]
    differing = [
        f"{leaf.name} is {list(found[leaf.name])}, the network takes {list(leaf.shape)}"
        f"{_reason(leaf, found[leaf.name])}"
        for leaf in leaves
        if found.get(leaf.name, leaf.shape) != leaf.shape
    ]
    differing.sort(key=lambda line: "(" not in line)  # those with a reason first
    sizes = shapes | found
    lines, parts = list(differing), [_listed(differing, NEAREST)]
    for what, names, others in (
        ("missing", missing, unexpected),
        ("unexpected", unexpected, missing),
    ):
        near = {n: difflib.get_close_matches(n, others, n=NEAREST) for n in names}
        # those first that have a name nearby, which is told of the first three
        order = sorted(names, key=lambda name: not near[name])
        told = [f"{n} (near {near[n][0]})" if near[n] else n for n in order[:NEAREST]]
        if names:
            parts.append(f"{what}: {_listed(told + order[NEAREST:])}")
        for name in order:
            nearest = ", ".join(f"{n} {list(sizes[n])}" for n in near[name]) or "none"
            lines.append(f"{what} {name} {list(sizes[name])}; nearest: {nearest}")
    if lines:
        from jax_unlearn.drivers.parameters import MismatchError

        told = "; ".join(filter(None, parts))
        raise MismatchError(
            f"{told}; give the weights of this very network", tuple(lines)
        )


def _reason(leaf: Leaf, shape: tuple[int, ...]) -> str:
    """Return what another shape means, where that is known, and what to do."""
    if leaf.path == "head/kernel" and len(shape) == 2 and shape[1] == leaf.shape[1]:
        module = leaf.name.rpartition(".")[0]
        return (
            f" (a head for {shape[0]} classes: build the network for as many, or give "
            f"{module}.weight and {module}.bias for {leaf.shape[0]})"
        )
    if leaf.path == "stem/conv/kernel" and len(shape) == 4 and shape[2] in (3, 7):
        stem = "imagenet" if shape[2] == 7 else "cifar"
        return f" (build it with stem={stem!r})" if leaf.shape[2] != shape[2] else ""
    if leaf.path == "positions" and shape[-1:] == leaf.shape[-1:]:
        return (
            f" (images of another size: build the ViT for {shape[1] - 1} patches, or "
            "see ju.zoo.resampled_positions)"
        )
    return ""


def _listed(words: list[str], most: int = MANY) -> str:
    """Return words on one line, the first of many."""
    more = [f"and {len(words) - most} more"] if len(words) > most else []
    return ", ".join(words[:most] + more)
