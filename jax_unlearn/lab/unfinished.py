"""What is kept of a model while it is being made: `<path>.partial`, gone when it is."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_unlearn.drivers.locks import LOCK, locked
from jax_unlearn.drivers.series import Arrays, Series
from jax_unlearn.errors import InputError
from jax_unlearn.types import UnlearnInfo, UnlearnState

SECONDS = 30.0  # between two saves: far more than a save takes


def partial_of(path: Path) -> Path:
    """Return the folder beside a checkpoint that holds it while it is being made.

    >>> partial_of(Path("runs/original")).as_posix()
    'runs/original.partial'
    """
    return path.with_name(f"{path.name}.partial")


@contextmanager
def unfinished(
    path: Path,
    told: dict[str, Any],
    *,
    seconds: float = SECONDS,
    resume: bool = True,
    say: Callable[[str], None] | None = None,
) -> Iterator[Series]:
    """Give the series of a model in the making; it goes when the body ends well.

    Args:
      path: checkpoint that the body makes.
      told: as of `Series`.
      seconds: as of `Series`.
      resume: whether states found there may be gone on from.
      say: as of `Series`.

    Raises:
      InputError: another process makes the same model; a folder that cannot be
        written to; states are there and are not to be gone on from.
    """
    folder = partial_of(path)
    with locked(folder):
        series = Series(folder, told, seconds=seconds, say=say)
        if not resume and series.paths():
            raise InputError(
                f"{folder} holds an interrupted run; give --resume to go on with it, "
                "or remove it"
            )
        try:
            yield series
        except BaseException:
            if all(file.name == LOCK for file in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


class Candidates:
    """States after some of the steps, of which one is kept: `Rewind`'s.

    Args:
      structure: of each.
    """

    def __init__(self, structure: Any):
        self.found: list[Any] = []
        self._structure = structure

    def arrays(self) -> Arrays:
        """Return the leaves by number of candidate and leaf."""
        return {
            f"{number}/{at}": np.asarray(leaf)
            for number, candidate in enumerate(self.found)
            for at, leaf in enumerate(jax.tree.leaves(candidate))
        }

    def restore(self, arrays: Arrays) -> None:
        """Undo `arrays`."""
        width = self._structure.num_leaves
        leaves = [jax.numpy.array(leaf) for leaf in arrays.values()]
        self.found = [
            jax.tree.unflatten(self._structure, leaves[begin : begin + width])
            for begin in range(0, len(leaves), width)
        ]


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
