"""What is noted of a run, step by step: weights, losses, and gradients in conflict."""

from collections.abc import Sequence

import numpy as np

from jax_unlearn.drivers.series import Arrays
from jax_unlearn.types import UnlearnInfo, UnlearnState

SCATTER = 1500  # points of the weight-against-loss figure at most
FIELDS = ("weights", "task_losses", "index", "conflict")


class Infos:
    """What the notes of a run are made of, step by step; a callback of `run`."""

    def __init__(self):
        self.found: list[UnlearnInfo] = []

    def __call__(self, step: int, state: UnlearnState, info: UnlearnInfo) -> None:
        """Keep the info of a step."""
        del step, state
        self.found.append(info)

    def arrays(self) -> Arrays:
        """Return the fields joined, with the lengths of their parts."""
        return {
            name: array
            for field in FIELDS
            for name, array in _joined(field, self.found).items()
        }

    def restore(self, arrays: Arrays) -> None:
        """Undo `arrays`; fields that no note needs are zero."""
        zero, parts = np.zeros((), np.float32), {}
        for field in FIELDS:
            parts[field] = _parted(field, arrays)
        self.found = [
            UnlearnInfo(zero, zero, *fields, zero)  # type: ignore[arg-type]
            for fields in zip(*(parts[field] for field in FIELDS), strict=True)
        ]


def _joined(field: str, infos: Sequence[UnlearnInfo]) -> Arrays:
    values = [getattr(info, field) for info in infos]
    held = [np.asarray(value) for value in values if value is not None]
    sizes = [-1 if value is None else np.size(value) for value in values]
    named = {f"{field}/sizes": np.array(sizes, np.int32)}
    if held:
        named[f"{field}/values"] = np.concatenate([np.ravel(value) for value in held])
    return named


def _parted(field: str, arrays: Arrays) -> list[np.ndarray | None]:
    sizes = arrays.get(f"{field}/sizes", np.zeros(0, np.int32))
    values = arrays.get(f"{field}/values", np.zeros(0, np.float32))
    parts, begin = [], 0
    for size in sizes.tolist():
        parts.append(None if size < 0 else values[begin : begin + size])
        begin += max(size, 0)
    return parts


def weights_against_losses(infos: Sequence[UnlearnInfo]) -> dict[str, list[float]]:
    """Return losses and weights of the forget samples in the first and last quarter.

    Args:
      infos: of the steps of a run, in order.

    Returns:
      "first_losses", "first_weights", "last_losses", "last_weights", rounded.
    """
    weighted = [info for info in infos if info.weights is not None]
    part = max(len(weighted) // 4, 1)
    points = {}
    for name, chosen in (("first", weighted[:part]), ("last", weighted[-part:])):
        real = np.concatenate([np.asarray(i.index) for i in chosen]) >= 0
        for field in ("task_losses", "weights"):
            values = np.concatenate([np.asarray(getattr(i, field)) for i in chosen])
            values = values[real]
            short = field.removeprefix("task_")
            points[f"{name}_{short}"] = [round(float(v), 5) for v in values[:SCATTER]]
    return points


def conflicts(infos: Sequence[UnlearnInfo]) -> list[float]:
    """Return the cosine of the two gradients by step; empty if there never were two."""
    angles = [float(c) for info in infos for c in np.ravel(np.asarray(info.conflict))]
    return [round(c, 5) for c in angles] if any(angles) else []
