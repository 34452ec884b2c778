"""What the commands read and where they write: data, checkpoints, requests, folders."""

import dataclasses
import difflib
import functools
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from jax_unlearn import data as sets
from jax_unlearn.cli import choices
from jax_unlearn.data import Dataset, digits, from_tfds, shrink
from jax_unlearn.data.files import check_writable
from jax_unlearn.drivers.checkpoint import read_record
from jax_unlearn.errors import InputError
from jax_unlearn.lab.catalog import load
from jax_unlearn.lab.modalities.language.foreign import record_at
from jax_unlearn.lab.origins import training_in, training_of
from jax_unlearn.lab.requests import Asked, Keys, Request, requested
from jax_unlearn.lab.store import Stored, kind_of, load_model
from jax_unlearn.lab.subject import Subject
from jax_unlearn.language.texts import read_texts, text_dataset

__all__ = ["DataSource", "Source", "asked", "clear_run", "free_path", "reading_of"]
__all__ += ["refuse_existing", "trained_like"]

SETS = "{digits,cifar10,cifar100,fashion_mnist,svhn_cropped,NAME,FILE.py:NAME}"
Named = Annotated[str | None, tyro.conf.arg(metavar=SETS)]


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set: a name, or a file.

    Attributes:
      dataset: name of the data: "digits" (no download), a name of tensorflow-datasets
        (cifar10, cifar100, fashion_mnist, svhn_cropped, ...), or FILE.py:NAME of a
        function that returns a `ju.data.Dataset`.
      data: file or folder with the data, instead of a name: .npz with x_train, y_train,
        x_test and y_test (or similar names); .csv, .tsv or .parquet; a folder of images
        with a folder for each class; a Hugging Face data set written by `save_to_disk`.
        Texts: .jsonl, .json, .csv, .parquet or .txt.
      label_column: column of the labels, in a table or a Hugging Face data set; for
        texts the column of their topics.
      exclude: columns that the model does not read. Default: id, those that end in _id,
        and similar ones.
      image_size: size in pixels, height and width, to which images in files are
        resized.
      data_dir: folder with the prepared data of tensorflow-datasets.
      download: let tensorflow-datasets download data that are not there yet.
      reduce: factor by which images are made smaller before all else.
      key_column: what names the samples in lists: an array of the data (user_id means
        the array user_id_train of an .npz), or a column of a table. A key stands for
        all samples that have it. Default: lists hold positions in the training data.
      skip_unknown: ignore keys in a list that no sample has.
      question_column: column of the questions, for texts. Default: question.
      answer_column: column of the answers, for texts. Default: answer.
      texts: read files as texts (for `split`; language models always do).
    """

    dataset: Named = None
    data: Path | None = None
    label_column: str | None = None
    exclude: tuple[str, ...] | None = None
    image_size: int | None = None
    data_dir: Path | None = None
    download: bool = False
    reduce: int = 1
    key_column: str | None = None
    skip_unknown: bool = False
    question_column: str | None = None
    answer_column: str | None = None
    texts: bool = False

    @property
    def keys(self) -> Keys:
        """How the samples of a list are looked up."""
        return Keys(self.key_column, self.skip_unknown)

    def load(self) -> Dataset:
        """Return the data set, its images made smaller if asked for; say its notes."""
        return self._loaded

    @functools.cached_property  # jobs of several commands read it once
    def _loaded(self) -> Dataset:
        if (self.dataset is None) == (self.data is None):
            raise InputError(
                f"dataset={self.dataset}, data={self.data}: give --dataset NAME or "
                "--data PATH"
            )
        try:
            whole = self._read()
        except InputError as error:
            raise InputError(_as_options(str(error))) from error
        for note in whole.notes:
            print(f"data: {note}")
        return whole if self.reduce == 1 else shrink(whole, self.reduce)

    def _read(self) -> Dataset:
        name = str(self.dataset)
        chosen = {key: getattr(self, key) for key in _READING}
        named = {n: chosen.pop(f"{n}_column") for n in ("question", "answer")}
        if self.data is not None and self.texts:
            for key in ("exclude", "image_size"):
                if chosen[key] is not None:
                    raise InputError(f"{key}={chosen[key]}: not of texts; leave it out")
            given = {n: value for n, value in named.items() if value}
            return text_dataset(read_texts(self.data, topic=self.label_column, **given))
        for key, value in named.items():
            if value is not None:
                raise InputError(
                    f"{key}_column={value!r} is of texts; give --modality language"
                )
        if self.data is not None:
            return sets.load(self.data, **chosen)
        for key, value in chosen.items():
            if value is not None:
                raise InputError(
                    f"{key}={value!r} is for --data PATH, not for dataset={name}; "
                    "leave it out"
                )
        if name == "digits":
            return digits()
        if ".py:" not in name:
            try:
                return from_tfds(name, data_dir=self.data_dir, download=self.download)
            except InputError as error:
                near = difflib.get_close_matches(name, ["digits"])
                also = "; did you mean 'digits', which comes with scikit-learn?"
                raise InputError(f"{error}{also if near else ''}") from error
        if not isinstance(whole := load(name)(), Dataset):
            raise InputError(
                f"dataset={name} returned a {type(whole).__name__}; let it return a "
                "ju.data.Dataset"
            )
        return whole

    def record(self) -> dict[str, Any]:
        """Return how the data are read, for the record of a model."""
        chosen = {key: getattr(self, key) for key in _READING}
        given = {key: value for key, value in chosen.items() if value is not None}
        return {"reduce": self.reduce, **given}

    def told(self) -> dict[str, Any]:
        """Return the options that name the data, those that were given."""
        usual = vars(type(self)())
        own = {key: getattr(self, key) for key in usual}
        given = {k: v for k, v in own.items() if v != usual[k] and v is not True}
        return {name.replace("_", "-"): value for name, value in given.items()}

    def load_for(self, checkpoint: Path) -> Dataset:
        """Return the data set, read as when a model was trained."""
        return self.like(checkpoint).load()

    def like(self, checkpoint: Path | None) -> "Source":
        """Return the source, read as when a model was trained, if there is one."""
        if checkpoint is None:
            return self
        record = record_at(checkpoint)
        told = reading_of(record)
        reduce = told.get("reduce", self.reduce)
        if type(reduce) is not int:
            raise InputError(
                f"checkpoint {checkpoint}: reduce={str(reduce)[:40]!r} in its record "
                "is no whole number; give another checkpoint"
            )
        changes: dict[str, Any] = {"reduce": reduce}
        changes["texts"] = kind_of(checkpoint, record).texts
        for key, kind in _READING.items():
            value = told.get(key)
            if value is None or getattr(self, key) is not None:
                continue
            if not isinstance(value, kind):
                raise InputError(
                    f"checkpoint {checkpoint}: {key}={str(value)[:40]!r} in its record "
                    "cannot be; give another checkpoint"
                )
            whole = tuple(map(str, value)) if isinstance(value, list) else value
            changes[key] = whole
        same = all(getattr(self, key) == value for key, value in changes.items())
        return self if same else dataclasses.replace(self, **changes)


# what is said of files, with its type in records
_READING: dict[str, type] = {
    "label_column": str,
    "exclude": list,
    "image_size": int,
    "question_column": str,
    "answer_column": str,
}


def reading_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model's record says of how its data are read."""
    return {key: record[key] for key in ("reduce", *_READING) if key in record}


def _as_options(message: str) -> str:
    """Return a message of the library in the words of the command line."""

    def option(match: re.Match[str]) -> str:
        name, value = match[1].replace("_", "-"), match[2]
        if value.startswith("["):
            value = value[1:-1].replace(",", "")
        return f"--{name}" if value == "True" else f"--{name} {value}".rstrip()

    names = "|".join((*_READING, "download"))
    return re.sub(rf"\b({names})=(\[[^\]]*\]|'[^']*'|\w+)", option, message)


def trained_like(words: Sequence[str]) -> Any:
    """Return how the original that `train` names was trained; None where none is."""
    path = choices.value(words, "--original")
    if words[0] != "train" or not path or not (Path(path) / "record.json").is_file():
        return None
    record = read_record(path)
    if training_in(record) is None:
        return None
    kind = kind_of(path, record)
    return kind.beside(training_of(record, kind), path)


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
