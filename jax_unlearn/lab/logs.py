"""A log of the steps of a run: a callback that writes the figures of each step."""

import csv
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.types import UnlearnInfo, UnlearnState

__all__ = ["COLUMNS", "KINDS", "TRAINING", "StepLog", "check_kind", "log_path"]
__all__ += ["writer"]

COLUMNS = ("forget_loss", "retain_loss", "weights_mean", "conflict", "update_norm")
TRAINING = ("loss", "update_norm")
KINDS = ("csv", "tensorboard")
SECONDS, ROWS = 2.0, 200  # between two writes: reading a step waits for it

Row = Mapping[str, float]
Write = Callable[[Iterable[tuple[int, Row]]], None]


class StepLog:
    """Write a row a step; under scan, as on accelerators, one a compiled chunk.

    `columns` are those of `COLUMNS`, or "loss", the mean loss of what was trained on.
    Rows are handed to `write` now and then, and when the log is closed.

    >>> rows = []
    >>> zero = np.float32(0)
    >>> info = UnlearnInfo(zero, np.float32(2), None, None, None, zero, np.float32(1))
    >>> with StepLog(rows.extend, ("loss", "weights_mean")) as log:
    ...     log(1, None, info)
    >>> rows
    [(1, {'loss': 2.0})]
    """

    def __init__(self, write: Write, columns: Iterable[str] = COLUMNS):
        self._write, self._columns = write, tuple(columns)
        self._rows: list[tuple[int, UnlearnInfo]] = []
        self._written = time.monotonic()

    def __enter__(self) -> "StepLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.flush()

    def __call__(
        self, step: int, state: UnlearnState | None, info: UnlearnInfo
    ) -> None:
        """Keep what a step says; a callback of `ju.run`."""
        del state
        self._rows.append((step, info._replace(task_losses=None)))
        if len(self._rows) >= ROWS or time.monotonic() - self._written > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that were kept."""
        rows = [(step, self._row(info)) for step, info in self._rows]
        self._rows = []
        self._written = time.monotonic()
        if rows:
            self._write(rows)

    def _row(self, info: UnlearnInfo) -> Row:
        values: dict[str, Any] = {**info._asdict(), "loss": info.retain_loss}
        values["weights_mean"] = weights = info.weights
        if weights is not None and info.index is not None:  # the others are padding
            values["weights_mean"] = np.asarray(weights)[np.asarray(info.index) >= 0]
        given = {name: values[name] for name in self._columns}
        return {k: float(np.mean(v)) for k, v in given.items() if v is not None}


def log_path(out: Path, kind: str) -> Path:
    """Return the file or folder of a log, beside what is made."""
    return out.with_name(f"{out.name}.log.csv" if kind == "csv" else f"{out.name}.logs")


def writer(kind: str, path: Path, columns: Iterable[str]) -> Write:
    """Return what writes rows of a kind; one that goes on replaces what it repeats."""
    return _Csv(path, tuple(columns)) if kind == "csv" else _tensorboard(path)


def check_kind(kind: str) -> None:
    """Refuse what is not installed, before the work."""
    if kind == "tensorboard":
        _summary_writer()


class _Csv:
    """Rows of a table; those of a run that goes on begin after its saved step."""

    def __init__(self, path: Path, columns: tuple[str, ...]):
        self._path, self._heads = path, ("step", *columns)
        self._started = False

    def __call__(self, rows: Iterable[tuple[int, Row]]) -> None:
        rows = list(rows)
        if not self._started:
            self._begin(rows[0][0])
        with self._path.open("a", newline="") as file:
            table = csv.DictWriter(file, self._heads, lineterminator="\n")
            table.writerows({"step": step, **row} for step, row in rows)

    def _begin(self, first: int) -> None:
        """Write the heads, and of an earlier log the rows before the first step."""
        kept: list[dict[str, str]] = []
        if self._path.exists():
            with self._path.open(newline="") as file:
                kept = [r for r in csv.DictReader(file) if int(r["step"]) < first]
        with self._path.open("w", newline="") as file:
            table = csv.DictWriter(
                file, self._heads, lineterminator="\n", extrasaction="ignore"
            )
            table.writeheader()
            table.writerows(kept)
        self._started = True


def _tensorboard(path: Path) -> Write:
    summary = _summary_writer()(logdir=str(path), write_to_disk=True)

    def write(rows: Iterable[tuple[int, Row]]) -> None:
        for step, row in rows:
            for name, value in row.items():
                summary.add_scalar(name, value, step)
        summary.flush()

    return write


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise InputError(
            "log=tensorboard needs tensorboardX: pip install tensorboardX, or give "
            "--log csv"
        ) from error
    return SummaryWriter
