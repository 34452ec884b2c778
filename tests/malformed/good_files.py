"""One good file of every kind that is read, none trained: what tests then spoil."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from made_audit import made_audit
from made_generation import made_generation
from made_results import made_results

from jax_unlearn.data import (
    Dataset,
    forget_split,
    from_npz,
    holdout,
    save_manifest,
    to_ids,
)
from jax_unlearn.drivers.checkpoint import _digests
from jax_unlearn.lab import Training
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities.diffusion.settings import DiffusionTraining
from jax_unlearn.lab.store import save_model
from jax_unlearn.lab.subject import subject_of

SIZES = {"forget": 12, "retain": 20, "test": 15}
SECONDS = {"prepare": 0.0, "compile": 0.0, "run": 0.0}


class Files(NamedTuple):
    """Paths, by what they hold."""

    folder: Path
    data: Path
    split: Path
    ids: Path
    model: Path
    generator: Path
    arrays: Path
    results: Path
    audit: Path
    generation: Path


def images() -> dict[str, np.ndarray]:
    """Return a data set of 60 and 30 images of 4 x 4 pixels in 3 classes."""
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (60, 4, 4, 1), dtype=np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": rng.integers(0, 256, (30, 4, 4, 1), dtype=np.uint8),
        "y_test": np.arange(30) % 3,
    }


def outputs() -> dict[str, np.ndarray]:
    """Return logits of four retrained models and of two unlearned ones."""
    rng = np.random.default_rng(0)
    arrays = {f"labels/{part}": np.arange(size) % 3 for part, size in SIZES.items()}
    for name, count in (("retrained", 4), ("ours", 2)):
        for part, size in SIZES.items():
            arrays[f"{name}/{part}"] = rng.normal(size=(count, size, 3))
    return arrays


def write_all(folder: Path) -> Files:
    """Write every file."""
    files = Files(
        folder,
        folder / "data.npz",
        folder / "split.json",
        folder / "ids.csv",
        folder / "model",
        folder / "generator",
        folder / "outputs.npz",
        folder / "results.json",
        folder / "audit.json",
        folder / "generation.json",
    )
    np.savez(files.data, allow_pickle=False, **images())
    np.savez(files.arrays, allow_pickle=False, **outputs())
    dataset = from_npz(files.data)
    trained, unseen = holdout(dataset.train.labels, fraction=0.2)
    split = forget_split(dataset.train.labels[trained], fraction=0.2, num_classes=3)
    split = to_ids(split, trained)
    save_manifest(files.split, split, unseen=unseen)
    files.ids.write_text("".join(f"{i}\n" for i in split.forget))
    _write_model(files.model, dataset, trained, unseen)
    _write_generator(files.generator, dataset, trained, unseen)
    files.results.write_text(json.dumps(made_results()))
    files.audit.write_text(json.dumps({"format": 1, "audit": made_audit()}))
    files.generation.write_text(json.dumps(made_generation()))
    return files


def altered(checkpoint: Path, to: Path, change) -> Path:
    """Copy a checkpoint, change its record, and write its digests anew."""
    shutil.copytree(checkpoint, to)
    record = json.loads((to / "record.json").read_text())
    change(record)
    (to / "record.json").write_text(json.dumps(record))
    (to / "digests.json").write_text(json.dumps(_digests(to)))
    return to


def _write_model(path: Path, dataset: Dataset, ids, unseen) -> None:
    training = Training(network="mlp", width=4, epochs=1, batch_size=32)
    _write_untrained(path, training, dataset, (ids, unseen), {"retrain": False})


def _write_generator(path: Path, dataset: Dataset, ids, unseen) -> None:
    training = DiffusionTraining(widths=(4,), attention=(0,), timesteps=30, steps=2)
    _write_untrained(path, training, dataset, (ids, unseen), {"reduce": 1})


def _write_untrained(path: Path, training, dataset: Dataset, parts, more) -> None:
    subject = subject_of(training, dataset)
    inputs = jax.tree.map(lambda x: jnp.asarray(x[:2]), subject.examples.inputs)
    params, state = subject.model.init(jax.random.key(0), inputs)
    record = {"training": vars(training), "seed": 0, **more}
    trained = Trained(params, state, SECONDS)
    ids, unseen = parts
    save_model(path, trained, subject, ids=ids, unseen=unseen, record=record)
