"""Names and axes of PyTorch's layers, and those of flax for the same layers."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["inside", "state_dict", "translated"]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "module", "_orig_mod")
ENDS = {"running_mean": "mean", "running_var": "var"}


def inside(names: Iterable[str]) -> bool:
    """Return whether names are of PyTorch, whose layers have a `weight`.

    >>> inside(["body/0/weight"]), inside(["body/kernel"])
    (True, False)
    """
    return any(name.rpartition("/")[2] == "weight" for name in names)


def state_dict(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays under PyTorch's own names, without the wrappers around them.

    >>> list(state_dict({"state_dict/module/fc/weight": np.ones(1), "epoch": 3}))
    ['fc.weight']
    """
    inner = dict(arrays)
    while True:
        tops = {name.partition("/")[0] for name in inner}
        part = next((f"{wrapper}/" for wrapper in WRAPPERS if wrapper in tops), "")
        if not part:
            return {name.replace("/", "."): array for name, array in inner.items()}
        inside = {n: array for n, array in inner.items() if n.startswith(part)}
        inner = {name.removeprefix(part): array for name, array in inside.items()}


def translated(arrays: Mapping[str, Any], params: Iterable[str]) -> dict[str, Any]:
    """Return arrays under flax's names for the same layers, their axes in its order.

    `params` are the names that the network has.

    >>> found = {"fc/weight": np.ones((10, 4)), "bn/running_mean": np.ones(4)}
    >>> {name: a.shape for name, a in translated(found, ["fc/kernel"]).items()}
    {'fc/kernel': (4, 10), 'bn/mean': (4,)}
    """
    names, made = tuple(params), {}
    for name, array in arrays.items():
        layer, _, last = name.rpartition("/")
        front = layer and f"{layer}/"
        if last != "weight":
            made[front + ENDS.get(last, last)] = array
        elif np.ndim(array) == 1:
            made[f"{front}scale"] = array
        elif any(f"/{front}embedding".endswith(f"/{name}") for name in names):
            made[f"{front}embedding"] = array
        else:  # [out, in, ...] there, [..., in, out] here
            made[f"{front}kernel"] = np.moveaxis(array, (0, 1), (-1, -2))
    return made
