"""Models to and from other programs: a checkpoint of their files, files of ours."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.cards import Variables
from jax_unlearn.drivers import formats, parameters
from jax_unlearn.drivers.checkpoint import read_record
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.rewinds import Earlier, Given, Kept
from jax_unlearn.lab.store import Stored, load_model, save_model
from jax_unlearn.lab.subject import Subject

__all__ = ["FORMATS", "Imported", "by_chance", "earlier_at", "exported", "fed"]
__all__ += ["imported", "keep"]

WEIGHTS = "jax_unlearn.zoo.weights"  # names of PyTorch for the networks here
TORCH = "torch-names"
HUGGING_FACE = "huggingface"
FORMATS = (*formats.WRITTEN, TORCH, HUGGING_FACE)


class Imported(NamedTuple):
    """A model of another program, and lines that say how it was read."""

    trained: Trained
    notes: tuple[str, ...]
    record: dict[str, Any]


def imported(
    subject: Subject, path: Path, *, subtree: str = "", cast: bool = False
) -> Imported:
    """Return the model that a file or a folder holds, for a network and its data."""
    network = subject.network
    example = subject.modality.example(network)
    like = jax.eval_shape(subject.model.init, jax.random.key(0), example)
    own = ".py:" in network.name
    translate = None if own else importlib.import_module(WEIGHTS).from_torch
    options = {"subtree": subtree, "cast": cast, "from_torch": translate}
    found = parameters.load(path, *like, **options)
    params, state = found.params, found.model_state
    leaves = {
        f"{part}/{name}": np.asarray(leaf)
        for part, tree in (("params", params), ("state", state))
        for name, leaf in parameters.named(tree).items()
    }
    record = {
        "file": path.name,
        "notes": list(found.notes),
        "sha256": formats.digest(leaves),
    }
    return Imported(Trained(params, state, {}), found.notes, record)


def earlier_at(
    path: Path, subject: Any, original: Variables, total: int, epoch: int
) -> Earlier:
    """Return the earlier state at a path: kept states, a checkpoint, or parameters."""
    if not (path / "record.json").exists():
        if not path.exists():
            raise InputError(f"earlier={path} does not exist; check the path")
        return Given(imported(subject, path).trained[:2], total, epoch)
    told = read_record(path)
    if (kept := Kept.beside(path, told)) is not None:
        return kept
    found = load_model(path, subject.dataset, like=subject.network).trained[:2]
    pairs = zip(*map(jax.tree.leaves, (found, original)), strict=True)
    if all(np.array_equal(*pair) for pair in pairs):
        raise InputError(
            f"earlier={path} is the model itself, not an earlier one; give another, or "
            "train with --keep-every"
        )
    return Given(found, total, epoch)


def by_chance(labels: np.ndarray) -> float:
    """Return an accuracy, percent, that guessing reaches on so many samples."""
    share = np.bincount(labels).max() / len(labels)
    return 100 * float(share + 3 * np.sqrt(share * (1 - share) / len(labels)))


def keep(
    path: Path,
    subject: Subject,
    found: Imported,
    ids: np.ndarray,
    record: Mapping[str, Any],
) -> None:
    """Write an imported model as a checkpoint; samples not in `ids` are unseen."""
    size = len(subject.dataset.train.labels)
    unseen = np.setdiff1d(np.arange(size), ids)
    told = {**record, "imported": found.record, "seed": 0}
    save_model(path, found.trained, subject, ids=ids, unseen=unseen, record=told)


def fed(subject: Subject) -> str:
    """Return what the network reads of the data, in words."""
    network, inputs = subject.network, subject.dataset.train.inputs
    scale = 255 if inputs.dtype.kind in "iu" else 1
    low, high = float(inputs.min()) / scale, float(inputs.max()) / scale
    mean, std = np.asarray(network.mean), np.asarray(network.std)
    ends = (low - mean) / std, (high - mean) / std
    what = f"{inputs.dtype} of {inputs.min():g} to {inputs.max():g}"
    divided = ", divided by 255" if scale == 255 else ""
    return (
        f"the network reads {list(inputs.shape[1:])}, {what}{divided}, less mean "
        f"{_numbers(mean)}, over std {_numbers(std)}: {ends[0].min():.3g} to "
        f"{ends[1].max():.3g}"
    )


def exported(
    stored: Stored, path: Path, kind: str, *, names: str | None, overwrite: bool
) -> int:
    """Write a checkpoint's model for other programs; return the number of arrays."""
    params, state = stored.trained[:2]
    if names is not None and kind != TORCH:
        raise InputError(f"names={names!r} is for format={TORCH!r}; leave it out")
    if kind != TORCH:
        parameters.save(path, params, state, format=kind, overwrite=overwrite)
        return len(jax.tree.leaves((params, state)))
    name = getattr(stored.built.network, "name", stored.modality.name)
    if ".py:" in name or stored.modality.name != "classification":
        raise InputError(
            f"format={kind!r}: {name} is no network whose names in PyTorch are known; "
            f"give one of {', '.join(formats.WRITTEN)}"
        )
    arrays = importlib.import_module(WEIGHTS).to_torch(params, state, names=names)
    formats.write(path, arrays, overwrite=overwrite)
    return len(arrays)


def exported_folder(stored: Stored, path: Path, overwrite: bool) -> int:
    """Write a language model as Hugging Face keeps it; return the number of arrays."""
    if not stored.modality.texts:
        raise InputError(
            f"format={HUGGING_FACE!r} is of language models; name a file: "
            f"{path}.safetensors, .npz or .msgpack"
        )
    if path.exists() and not overwrite and any(path.iterdir()):
        raise InputError(f"out={path} exists; give --overwrite or choose another --out")
    from jax_unlearn.language.pretrained import save_pretrained
    from jax_unlearn.language.tokens import save_tokenizer

    network = stored.built.network
    how = {"config": network.config, "overwrite": overwrite}
    save_pretrained(path, *stored.trained[:2], **how)
    save_tokenizer(network.tokenizer, path)
    return len(jax.tree.leaves(stored.trained.params))


def _numbers(values: np.ndarray) -> str:
    """Return numbers of channels, one where all are alike."""
    alike = len(set(values.tolist())) == 1
    return ", ".join(f"{value:.4g}" for value in (values[:1] if alike else values))
