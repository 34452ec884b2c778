"""What the commands read and where they write: data, checkpoints, requests, folders."""

import dataclasses
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jax_unlearn.data import Dataset, digits, from_npz, from_tfds, shrink
from jax_unlearn.data.files import check_writable
from jax_unlearn.drivers.checkpoint import read_record
from jax_unlearn.errors import InputError
from jax_unlearn.lab.catalog import load
from jax_unlearn.lab.requests import Asked, Keys, Request, requested
from jax_unlearn.lab.store import Stored, load_model
from jax_unlearn.lab.subject import Subject


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set: a name, or a file.

    Attributes:
      dataset: "digits" (shipped), a name known to tensorflow-datasets (cifar10,
        cifar100, fashion_mnist, svhn_cropped, ...), or FILE.py:NAME of a function that
        returns a `ju.data.Dataset`.
      data: .npz file with x_train, y_train, x_test, y_test, instead of a name.
      data_dir: folder of prepared tensorflow-datasets.
      download: let tensorflow-datasets download what is not prepared.
      reduce: factor by which images are made smaller first.
      key_column: what lists of samples name them by: an array of the data (user_id: the
        array user_id_train of an npz) or a column of a table; a key stands for all its
        samples. Not given: lists hold positions in the training arrays.
      skip_unknown: pass over keys that no sample has.
    """

    dataset: str | None = None
    data: Path | None = None
    data_dir: Path | None = None
    download: bool = False
    reduce: int = 1
    key_column: str | None = None
    skip_unknown: bool = False

    @property
    def keys(self) -> Keys:
        """How the samples of a list are looked up."""
        return Keys(self.key_column, self.skip_unknown)

    def load(self) -> Dataset:
        """Return the data set, its images made smaller if asked for."""
        if (self.dataset is None) == (self.data is None):
            raise InputError(
                f"dataset={self.dataset}, data={self.data}: give --dataset NAME or "
                "--data FILE.npz"
            )
        name = str(self.dataset)
        if self.data is not None:
            whole = from_npz(self.data)
        elif name == "digits":
            whole = digits()
        elif ".py:" not in name:
            whole = from_tfds(name, data_dir=self.data_dir, download=self.download)
        elif not isinstance(whole := load(name)(), Dataset):
            raise InputError(
                f"dataset={name} returned a {type(whole).__name__}; let it return a "
                "ju.data.Dataset"
            )
        return whole if self.reduce == 1 else shrink(whole, self.reduce)

    def load_for(self, checkpoint: Path) -> Dataset:
        """Return the data set, its images as small as when a model was trained."""
        return dataclasses.replace(self, reduce=self.reduced(checkpoint)).load()

    def reduced(self, checkpoint: Path | None) -> int:
        """Return the factor of a checkpoint's images; without one, that asked for."""
        if checkpoint is None:
            return self.reduce
        reduce = read_record(checkpoint).get("reduce", self.reduce)
        if type(reduce) is not int:
            raise InputError(
                f"checkpoint {checkpoint}: reduce={str(reduce)[:40]!r} in its record "
                "is no whole number; give another checkpoint"
            )
        return reduce


DataSource = Annotated[Source, tyro.conf.arg(name="data")]


def asked(
    source: Source, checkpoint: Path, forget: str, modality: str | None = None
) -> tuple[Stored, Subject, Request, Asked]:
    """Return a model, its network and data, and the request to it."""
    dataset = source.load_for(checkpoint)
    stored = load_model(checkpoint, dataset, modality=modality)
    subject, held = stored.subject(dataset), (stored.ids, stored.unseen)
    named = requested(subject, *held, forget, source.keys)
    request = Request(named.ids, np.setdiff1d(stored.ids, named.ids), stored.unseen)
    return stored, subject, request, named


def free_path(base: Path) -> Path:
    """Return the path, or the first of path-2, path-3, … that does not exist."""
    number, path = 1, base
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def refuse_existing(out: Path, *, overwrite: bool | None = None) -> None:
    """Refuse before the work what could not be written; None: no --overwrite there."""
    if overwrite and out.is_dir():
        raise InputError(f"out={out} is a folder; name a file inside it")
    if out.exists() and not overwrite:
        also = "" if overwrite is None else "give --overwrite or "
        raise InputError(f"out={out} exists; {also}choose another --out")
    check_writable(out)


def clear_run(path: Path, *, overwrite: bool) -> None:
    """Make room for a run where asked to, and only where a run of ours stood."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise InputError(
            f"out={path} already holds files; choose another --out or give --overwrite"
        )
    if not (path / "config.json").is_file():
        raise InputError(
            f"out={path} holds no run of jax-unlearn (no config.json): it is not "
            "overwritten; choose another --out"
        )
    shutil.rmtree(path)
