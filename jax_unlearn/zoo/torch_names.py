"""The names that PyTorch's libraries give to the arrays of the networks here."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.types import ModelState, Params
from jax_unlearn.zoo.classifiers import STAGES

__all__ = ["Form", "Leaf", "forms_of", "leaves_of", "path_of"]

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
LEAVES |= {"mean": "running_mean", "var": "running_var"}

OWN = r"head|hidden\d+|block[123]"
"""Parts of `MLP` and `SmallCNN`, which PyTorch's libraries lack: their own names."""

Namer = Callable[[str], str]
"""From the path of a module here, joined by "/", to the module's name in PyTorch."""


class Leaf(NamedTuple):
    """One array: its path here, its name and shape in PyTorch, how its axes lie.

    A kernel is `[out, in, height, width]` there and `[height, width, in, out]` here;
    `long` is the former, of a linear layer too, and None of what is no kernel.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    long: tuple[int, ...] | None

    def read(self, array: np.ndarray, like: Any) -> np.ndarray:
        """Return PyTorch's array in the shape that it has here."""
        if self.long is not None:
            array = array.reshape(self.long).transpose(2, 3, 1, 0)
        return array.reshape(like.shape)

    def write(self, array: np.ndarray) -> np.ndarray:
        """Return an array from here in the shape that it has in PyTorch."""
        if self.long is not None:
            out, inside, height, width = self.long
            array = array.reshape(height, width, inside, out).transpose(3, 2, 0, 1)
        return np.ascontiguousarray(array).reshape(self.shape)


class Form(NamedTuple):
    """The names that a library gives to the modules of a network."""

    library: str
    module: Namer


def forms_of(params: Params) -> list[Form]:
    """Return the forms of a network's names, the usual one first."""
    keys = set(params) if isinstance(params, dict) else set()
    if {"stem", "stage1_block1", "head"} <= keys:
        return [
            Form("torchvision", _residual("downsample", "fc")),
            Form("timm", _residual("downsample", "fc")),
            Form("cifar", _residual("shortcut", "linear")),
            Form("cifar", _residual("shortcut", "fc")),
            Form("cifar", _residual("downsample", "linear")),
        ]
    if {"stage5_conv3", "head"} <= keys:
        depth = sum(key.startswith("hidden") for key in keys)
        plain = [f"classifier.{3 * n}" for n in range(depth + 1)]
        forms = [Form("torchvision", _vgg(plain))]
        if depth == 0:
            own = ("classifier", "fc", "linear")
            return [*(Form("cifar", _vgg([name])) for name in own), *forms]
        first = [f"classifier.{3 * n + 1}" for n in range(depth)]  # dropout comes first
        timm = [*(f"pre_logits.fc{n + 1}" for n in range(depth)), "head.fc"]
        last = [Form("timm", _vgg(timm)), Form("cifar", _vgg([*first, plain[-1]]))]
        return forms + last
    if {"class_token", "positions", "patches", "head"} <= keys:
        return [
            Form("timm", _transformer(TIMM)),
            Form("torchvision", _transformer(TORCHVISION)),
            Form("torchvision", _transformer(TORCHVISION | OLDER)),
        ]
    if "head" in keys and all(re.fullmatch(OWN, key) for key in keys):
        return [Form("own", lambda path: path.replace("/", "."))]
    raise InputError(
        "no names of PyTorch are known for this network; give the parameters of a "
        "ResNet, VGG16, ViT, SmallCNN or MLP of ju.zoo"
    )


def _residual(shortcut: str, head: str) -> Namer:
    """Return the names of a ResNet."""
    layer = {"conv": "conv", "norm": "bn"}
    down = {"conv": f"{shortcut}.0", "norm": f"{shortcut}.1"}

    def module(path: str) -> str:
        if path == "head":
            return head
        block, *inner, kind = path.split("/")
        if block == "stem":
            return f"{layer[kind]}1"
        stage, index = _numbers(block)
        at = f"layer{stage}.{index - 1}"
        if inner == ["shortcut"]:
            return f"{at}.{down[kind]}"
        return f"{at}.{layer[kind]}{_numbers(inner[0])[0]}"

    return module


def _vgg(linear: list[str]) -> Namer:
    """Return the names of a VGG-16, whose linear layers have those given.

    A convolution has three entries in a list of layers, with BatchNorm and ReLU;
    pooling has one a stage.
    """

    def module(path: str) -> str:
        if path == "head":
            return linear[-1]
        if path.startswith("hidden"):
            return linear[_numbers(path)[0] - 1]
        block, kind = path.split("/")
        stage, index = _numbers(block)
        before = sum(size for size, _ in STAGES[: stage - 1]) + index - 1
        return f"features.{3 * before + stage - 1 + (kind == 'norm')}"

    return module


TIMM = {
    "class_token": "cls_token",
    "positions": "pos_embed",
    "patches": "patch_embed.proj",
    "block": "blocks.{}",
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "mix": "attn.proj",
    "norm2": "norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
    "norm": "norm",
    "head": "head",
}
TORCHVISION = {
    "class_token": "class_token",
    "positions": "encoder.pos_embedding",
    "patches": "conv_proj",
    "block": "encoder.layers.encoder_layer_{}",
    "norm1": "ln_1",
    "qkv": "self_attention.in_proj_",  # one array each, no module
    "mix": "self_attention.out_proj",
    "norm2": "ln_2",
    "up": "mlp.0",
    "down": "mlp.3",
    "norm": "encoder.ln",
    "head": "heads.head",
}
OLDER = {"up": "mlp.linear_1", "down": "mlp.linear_2"}  # in files that it still gives


def _transformer(table: Mapping[str, str]) -> Namer:
    """Return the names of a ViT."""

    def module(path: str) -> str:
        block, *inner = path.split("/")
        if not inner:
            return table[block]
        return f"{table['block'].format(_numbers(block)[0] - 1)}.{table[inner[0]]}"

    return module


def _numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def path_of(path: tuple[Any, ...]) -> str:
    """Return a path of (params, model_state), without which of the two it is."""
    return jax.tree_util.keystr(path[1:], simple=True, separator="/")


def leaves_of(module: Namer, params: Params, model_state: ModelState) -> list[Leaf]:
    """Return each leaf of the trees as PyTorch has it."""
    pairs = jax.tree_util.tree_leaves_with_path((params, model_state))
    shapes = {path_of(path): tuple(like.shape) for path, like in pairs}
    channels = shapes.get("stage5_conv3/conv/kernel", (0,))[-1]  # of a VGG16
    leaves = []
    for path, shape in shapes.items():
        at, _, kind = path.rpartition("/")
        name, long = module(at or path), None
        if kind in LEAVES:
            name += f"{'' if name.endswith('_') else '.'}{LEAVES[kind]}"
        if kind == "kernel":
            if len(shape) not in (2, 4):
                raise InputError(
                    f"{path} is {list(shape)}: give the parameters of one model, not "
                    "of several stacked"
                )
            long = (shape[-1], shape[-2], *shape[:-2])
            if len(shape) == 2:
                # what is left of the image follows the channels in PyTorch
                flat = channels and at == ("hidden1" if "hidden1" in params else "head")
                side = math.isqrt(shape[0] // channels) if flat else 1
                long = (shape[1], shape[0] // side**2, side, side)
            convolves = len(shape) == 4 or name.startswith("pre_logits")
            shape = long if convolves else (long[0], math.prod(long[1:]))
        leaves.append(Leaf(path, name, shape, long))
    return leaves
