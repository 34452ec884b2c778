"""Checkpoints that commands make: anew, gone on with, or in an older one's place."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jax_unlearn import _validate, data
from jax_unlearn.cli.console import Reporter, open_console
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.sources import refuse_existing
from jax_unlearn.drivers.loop import Callback
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import InputError
from jax_unlearn.lab import logs, store
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.rewinds import folder_of

__all__ = ["Made", "Making"]

Logged = Literal["csv", "tensorboard"]


@dataclasses.dataclass(frozen=True)
class Making:
    """A checkpoint that a command makes, or goes on with where it was stopped.

    Attributes:
      out: checkpoint folder to make; its record.json says what was done.
      seed: seed of all that is random: initialisation, random labels, order,
        augmentation and noise.
      resume: go on where the same command was killed or stopped.
      overwrite: replace the checkpoint that is there, once the new one is complete.
      save_every: least seconds between two saves from which a killed run goes on; 0
        saves every step.
      log: write the figures of each step (losses, mean weight, size of the update)
        beside the checkpoint: csv to OUT.log.csv, tensorboard to OUT.logs.
      earlier: whether earlier states are kept beside it, in OUT.earlier.
    """

    out: Path
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    save_every: float = store.SECONDS
    log: Logged | None = None
    earlier: tyro.conf.Suppress[bool] = False

    @property
    def place(self) -> Path:
        """Where it is made: itself, or beside the one that it replaces."""
        replaces = self.overwrite and self.out.exists()
        return store.beside(self.out) if replaces else self.out

    def __call__(
        self,
        make: Callable[[Reporter, Series | None], tuple[Trained, dict[str, Any]]],
        told: dict[str, Any],
        *,
        ids: np.ndarray,
        **options: Any,
    ) -> tuple[Trained, Mapping[str, Any]] | None:
        """Make a model and write it, see `kept_model`; None where it is complete."""
        if self.overwrite:
            place = store.replacement_of(self.out, goes_on=self.resume)
        elif self.resume and self.out.exists():
            store.check_kept(self.out, {**told, "ids_sha256": data.digest(ids)})
            print(f"{self.out} is complete; nothing to resume")
            return None
        else:
            place = self.out
            refuse_existing(self.out, overwrite=False)
        self._check_log()
        self._check_earlier()
        options |= {"ids": ids, "seconds": self.save_every, "resume": self.resume}

        def noted(series: Series | None) -> tuple[Trained, dict[str, Any]]:
            trained, notes = make(progress, series)
            return trained, {**notes, **asked_options()}

        with Reporter(open_console(), 1) as progress:
            made = store.kept_model(place, told, noted, **options)
        if place != self.out:
            store.replace_folder(self.out, place)
            store.replace_folder(folder_of(self.out), folder_of(place))
        return made

    @contextlib.contextmanager
    def logging(
        self, callback: Callback, columns: Iterable[str] = logs.COLUMNS
    ) -> Iterator[Callback]:
        """Give the callback, which writes the log too if there is one."""
        if self.log is None:
            yield callback
            return
        path = logs.log_path(self.out, self.log)
        columns = tuple(columns)
        with logs.StepLog(logs.writer(self.log, path, columns), columns) as log:

            def both(step: int, state: Any, info: Any) -> Any:
                log(step, state, info)
                return callback(step, state, info)

            yield both

    def _check_earlier(self) -> None:
        """Refuse to mix states of two trainings; remove those to be replaced."""
        folder = folder_of(self.place)
        if self.resume or not folder.exists():
            return
        if not self.overwrite:
            if self.earlier:
                raise InputError(
                    f"{folder} holds states of another training; give --overwrite, or "
                    "choose another --out"
                )
            return
        shutil.rmtree(folder)

    def _check_log(self) -> None:
        """Refuse a log that could not be written; remove the one to be replaced."""
        if self.log is None:
            return
        _validate.choice("log", self.log, *logs.KINDS)
        logs.check_kind(self.log)
        path = logs.log_path(self.out, self.log)
        if self.resume or not path.exists():
            return
        if not self.overwrite:
            raise InputError(
                f"log={self.log}: {path} exists; give --overwrite, or choose another "
                "--out"
            )
        (shutil.rmtree if path.is_dir() else Path.unlink)(path)


Made = Annotated[Making, tyro.conf.arg(name="")]  # its options are the command's own
