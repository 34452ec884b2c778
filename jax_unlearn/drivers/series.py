"""Checkpoints of a run as it goes on: killed at any moment, it resumes bit for bit.

A series is a folder with the last few states of one run, each a checkpoint of
`jax_unlearn.drivers.checkpoint` named by its step. What is damaged is skipped. The
processes of one run share the folder, and save and end together; a lock keeps other
runs out.
"""

import hashlib
import json
import operator
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import programs
from jax_unlearn.averages import begun
from jax_unlearn.drivers import checkpoint, sharding, signals
from jax_unlearn.drivers.stacking import is_key
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import apart, put_back
from jax_unlearn.types import PyTree, UnlearnState

__all__ = ["LOCK", "Arrays", "Companion", "InUseError", "Series", "locked"]

Arrays = dict[str, np.ndarray]
LOCK = ".lock"


class InUseError(InputError):
    """A folder that another process holds."""


class Companion(Protocol):
    """What a run gathers besides its state, saved and restored with it."""

    def arrays(self) -> Arrays:
        """Return what to save, by name."""
        ...

    def restore(self, arrays: Arrays) -> None:
        """Take back what `arrays` returned."""
        ...


class Series:
    """The last states of one run, saved as it goes on.

    When the states are saved does not touch the bits of the run, and it goes on only
    with the compile options that it began with (`ju.programs`). Pass `callback` to
    `run`; begin with `latest`. SIGTERM inside `signals.handled` saves and ends the
    run after the step.

    Args:
      folder: made at the first save.
      told: what run this is (settings, seed, digests of ids and data), JSON-able; the
        states of another run are refused.
      seconds: least time between two saves; 0 saves after every call.
      keep: how many states stay.
      say: told of damaged states; default a line on stderr.

    Raises:
      InputError: `seconds` below 0, `keep` below 1.

    >>> import tempfile, optax
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = ju.methods.gradient_ascent(model, optax.sgd(1.0))
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> batches, key = [ju.UnlearnBatch(forget)] * 4, jax.random.key(0)
    >>> start = alg.init(jnp.float32(2.0), ())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     series = ju.Series(folder, {"seed": 0}, seconds=0)
    ...     _ = ju.run(alg, start, batches[:3], key, callback=series.callback)
    ...     state = ju.Series(folder, {"seed": 0}).latest(start)
    >>> print(state.step)
    3
    >>> ju.run(alg, state, batches[3:], key) == ju.run(alg, start, batches, key)
    True
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        told: dict[str, Any],
        *,
        seconds: float = 30.0,
        keep: int = 2,
        say: Callable[[str], None] | None = None,
    ):
        if not seconds >= 0 or keep < 1:
            raise InputError(
                f"seconds={seconds}, keep={keep}: wait 0 or more, keep 1 or more"
            )
        self.folder = Path(folder)
        self.seconds = seconds
        self.spent = 0.0  # seconds of the run before this process
        self._told = json.loads(json.dumps(told))
        self._keep = keep
        self._say = say or (lambda line: print(line, file=sys.stderr))
        self._companions: dict[str, Companion] = {}
        self._frozen: tuple[list[Any], str] = [], ""
        self._begun = self._saved = time.monotonic()

    def carry(self, name: str, companion: Companion) -> None:
        """Save and restore something beside the state; to be called before `latest`.

        Its name is unlike those of others and has no "/".
        """
        self._companions[name] = companion

    def callback(self, step: int, state: PyTree, info: Any = None) -> None:
        """Save the state if it is time, or if the process was asked to end.

        Raises:
          InputError: it cannot be written; the states saved before are whole.
          Stopped: the process was asked to end; the state is saved.
        """
        due, number = checkpoint.largest(self.due(), signals.pending() or 0)
        if due:
            self.save(step, state)
            self._saved = time.monotonic()
        signals.check()
        if number:  # sent to another process of this run
            raise signals.Stopped(number)

    def due(self) -> bool:
        """Return whether `callback` would save now."""
        waited = time.monotonic() - self._saved
        return signals.pending() is not None or waited >= self.seconds

    def save(self, step: int, state: PyTree) -> Path:
        """Save a state now and delete the oldest; return its checkpoint.

        Raises:
          InputError: it cannot be written; the states saved before are whole.
        """
        rest, frozen = apart(state)
        leaves = jax.tree.leaves(rest)
        carried = {
            f"{name}/{key}": np.asarray(array)
            for name, companion in self._companions.items()
            for key, array in companion.arrays().items()
            if np.size(array)  # orbax keeps no empty arrays
        }
        record = {
            "run": self._told,
            "step": step,
            "compile": programs.in_force(),
            **({"ema": True} if jax.tree.leaves(getattr(state, "ema", ())) else {}),
            "seconds": self.spent + time.monotonic() - self._begun,
            "carried": [[k, list(a.shape), a.dtype.name] for k, a in carried.items()],
        }
        if frozen:  # not saved: that it is the same says its digest
            record["frozen"] = self._digest(frozen)
        path = self.folder / f"step-{step:010d}"
        checkpoint.in_first(lambda: self._remove([path]))
        checkpoint.save(path, _tree(leaves, list(carried.values())), record)
        checkpoint.in_first(lambda: self._remove(self.paths()[: -self._keep]))
        return path

    def latest(self, template: PyTree) -> Any:
        """Return the newest whole state, or None, and restore the companions.

        It lies where the arrays of the template lie, a pytree like it. Damaged states
        are removed, each with a line to `say`.

        Raises:
          InputError: the states are of another run, or of other compile options.
        """
        self._begun = self._saved = time.monotonic()
        killed = self.folder.glob(".step-*")  # while they were saved
        checkpoint.in_first(lambda: self._remove(killed))
        for path in reversed(self.paths()):
            try:
                record = checkpoint.read_record(path)
            except InputError as error:
                self._say(f"{error}: the one before it is used")
                checkpoint.in_first(lambda path=path: self._remove([path]))
                continue
            if record.get("run") != self._told:
                raise InputError(
                    f"{self.folder} holds an interrupted run of another setting, seed, "
                    "request or data set; choose another folder, or remove it"
                )
            before, here = record.get("compile"), programs.in_force()
            if None not in (before, here) and before != here:  # gives other bits
                raise InputError(
                    f"{self.folder} holds a run compiled by the choice {before!r}, "
                    f"this process compiles by {here!r}; set {programs.VARIABLE}="
                    f"{before} to go on, or choose another folder"
                )
            return self._restored(path, record, template)
        return None

    def at(self, step: int, template: PyTree) -> Any:
        """Return the state saved after a step; companions stay as they are.

        Raises:
          InputError: it is missing, damaged, or of another run.
        """
        path = self.folder / f"step-{step:010d}"
        record = checkpoint.read_record(path)
        if record.get("run") != self._told:
            raise InputError(
                f"{path} is of another run than asked for (setting, seed or data set); "
                "choose another folder"
            )
        return self._restored(path, record, template)

    def paths(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def _remove(self, folders: Iterable[Path]) -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _restored(self, path: Path, record: dict[str, Any], template: PyTree) -> Any:
        if record.get("ema") and isinstance(template, UnlearnState):
            template = begun(template)
        rest, frozen = apart(template)
        if record.get("frozen") != (self._digest(frozen) if frozen else None):
            raise InputError(
                f"{self.folder} holds a run with other frozen parameters; give those "
                "of that run, or choose another folder"
            )
        leaves, structure = jax.tree.flatten(rest)
        carried = record["carried"]
        shapes = [jax.ShapeDtypeStruct(s, jnp.dtype(dtype)) for _, s, dtype in carried]
        tree = checkpoint.load(path, _tree(leaves, shapes))
        arrays: dict[str, Arrays] = {name: {} for name in self._companions}
        for (key, *_), array in zip(
            carried, _values(tree.get("carried", {})), strict=True
        ):
            name, _, rest = key.partition("/")
            arrays[name][rest] = np.asarray(array)
        for name, companion in self._companions.items():
            companion.restore(arrays[name])
        self.spent = float(record["seconds"])
        values = map(sharding.placed, _values(tree["state"]), leaves)
        return put_back(structure.unflatten(values), frozen)

    def _digest(self, frozen: tuple[PyTree, ...]) -> str:
        """Return the SHA-256 of frozen arrays, made once as long as they are these."""
        leaves = jax.tree.leaves(frozen)
        before, digest = self._frozen
        if len(before) != len(leaves) or any(map(operator.is_not, before, leaves)):
            total = hashlib.sha256()
            for leaf in leaves:
                array = sharding.fetch(
                    jax.random.key_data(leaf) if is_key(leaf) else leaf
                )
                total.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
            digest = total.hexdigest()
            self._frozen = leaves, digest
        return digest


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder for this process while the body runs, or refuse; made if missing.

    The lock is the system's: a killed process leaves none, only the file.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nothing is locked
        fcntl = None
    path = Path(folder) / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open(path)
        while fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _names(path, file):
                break
            os.close(file)  # its last holder removed it meanwhile
            file = _open(path)
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(file, 20, 0).decode() or "unknown"
        os.close(file)
        raise InUseError(
            f"folder {folder} is in use by another run (process {holder}); wait for "
            "it, or choose another folder"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot write to folder {folder} ({error.strerror}); free some space or "
            "choose another folder"
        ) from error
    try:
        yield
    finally:
        if fcntl is not None and _names(path, file):  # not one that came after it
            path.unlink(missing_ok=True)
        os.close(file)


def _tree(leaves: list[Any], carried: list[Any]) -> dict[str, Any]:
    named = {"state": leaves, "carried": carried}
    return {
        part: {f"{number:06d}": leaf for number, leaf in enumerate(values)}
        for part, values in named.items()
        if values
    }


def _values(part: dict[str, Any]) -> list[Any]:
    return [part[name] for name in sorted(part)]


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _names(path: Path, file: int) -> bool:
    """Return whether an open file is still the one of that path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
