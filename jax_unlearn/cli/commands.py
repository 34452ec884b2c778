"""The commands on files: split, train, unlearn, report."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from jax_unlearn.cli.console import (
    Reporter,
    open_console,
)
from jax_unlearn.cli.sources import DataSource, refuse_existing
from jax_unlearn.data import (
    Dataset,
    check_ids,
    digest,
    fingerprint,
    forget_split,
    holdout,
    load_ids,
    load_manifest,
    save_manifest,
    to_ids,
)
from jax_unlearn.drivers import checkpoint as checkpoints
from jax_unlearn.drivers.locks import locked
from jax_unlearn.errors import InputError, NonFiniteError, check_seed
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.learn import weak_attacks
from jax_unlearn.lab.models import Stored, load_model, origin_of, save_model
from jax_unlearn.lab.networks import build, describe
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.results import environment as environment_record
from jax_unlearn.lab.stages import Trainer, execute
from jax_unlearn.lab.unfinished import SECONDS, partial_of, unfinished

Flat = tyro.conf.arg(name="")


def split(
    source: DataSource,
    out: Path = Path("split.json"),
    kind: str = "random",
    fraction: float | None = None,
    gamma: float = 1.0,
    classes: tuple[int, ...] | None = None,
    unseen_fraction: float = 0.1,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Divide the training samples into forget, retain and unseen; write a manifest.

    Args:
      source: the data.
      out: manifest to write.
      kind: "random", "class" or "long_tailed".
      fraction: share to forget; default 0.1 (all of the classes, for "class").
      gamma: imbalance of "long_tailed".
      classes: to forget, for "class".
      unseen_fraction: share held out of all training first.
      seed: of the draws.
      overwrite: replace the manifest if it exists.
    """
    check_seed(seed)
    dataset = source.load()
    labels = dataset.train.labels
    trained, unseen = holdout(labels, fraction=unseen_fraction, seed=seed)
    parts = forget_split(
        labels[trained],
        kind=kind,
        fraction=fraction,
        gamma=gamma,
        classes=classes,
        seed=seed,
        num_classes=dataset.num_classes,
    )
    parts = to_ids(parts, trained)
    save_manifest(out, parts, unseen=unseen, overwrite=overwrite)
    print(
        f"{dataset.name}: forget {len(parts.forget)}, retain {len(parts.retain)}, "
        f"unseen {len(unseen)}; forget by class {parts.manifest['forget_counts']}; "
        f"wrote {out}"
    )


def train(
    source: DataSource,
    training: Annotated[Training, Flat],
    out: Path = Path("original"),
    split: Path | None = None,
    retrain: bool = False,
    unseen_fraction: float = 0.1,
    seed: int = 0,
    resume: bool = False,
    save_every: float = SECONDS,
) -> None:
    """Train a model from scratch: the original, or Retrain; write a checkpoint.

    Args:
      source: the data.
      training: how.
      out: checkpoint folder to make.
      split: manifest of `jax-unlearn split`; its unseen samples are held out.
      retrain: leave the split's forget samples out: the reference of an audit.
      unseen_fraction: share held out, where no split is given.
      seed: of initialisation, order and augmentation.
      resume: go on where the same command was killed or stopped.
      save_every: least seconds between two saves to go on from; 0 saves every step.
    """
    check_seed(seed)
    dataset = source.load()
    labels = dataset.train.labels
    if split is not None:
        parts, unseen = load_manifest(split, labels=labels)
        ids = parts.retain if retrain else np.union1d(parts.forget, parts.retain)
    elif retrain:
        raise InputError("retrain=True needs the request: give --split FILE.json")
    else:
        ids, unseen = holdout(labels, fraction=unseen_fraction, seed=seed)
    told = {"training": vars(training), "seed": seed, "retrain": retrain}
    run = {
        **told,
        "ids": digest(ids),
        "unseen": digest(unseen),
        "data": fingerprint(dataset),
    }
    if complete(out, told, digest(ids), resume=resume):
        return
    network = describe(training, dataset)
    console = open_console()
    with (
        unfinished(out, run, seconds=save_every, resume=resume) as series,
        Reporter(console, 1) as progress,
    ):
        refuse_existing(out)
        trainer = Trainer(build(network), training)
        progress("training", 0, trainer.steps(len(ids)))
        with blamed("training", training.learning_rate):
            trained = trainer(
                dataset.train,
                ids,
                seed=seed,
                callback=lambda step, state, info: progress(
                    "training", step, trainer.steps(len(ids))
                ),
                series=series,
            )
        record = {**told, "environment": environment_record()}
        save_model(out, trained, network, dataset, ids, unseen, record)
    print(
        f"trained on {len(ids)} samples of {dataset.name} in "
        f"{trained.seconds['run']:.1f} s (compiled in "
        f"{trained.seconds['compile']:.1f} s); wrote {out}"
    )


def unlearn(
    source: DataSource,
    unlearning: Annotated[Unlearning, Flat],
    checkpoint: Path,
    forget: Path,
    out: Path = Path("unlearned"),
    seed: int = 0,
    resume: bool = False,
    save_every: float = SECONDS,
) -> None:
    """Make a model forget the listed samples; write a new checkpoint and a record.

    Args:
      source: the data the model was trained on.
      unlearning: how.
      checkpoint: of `jax-unlearn train` (or of an earlier `unlearn`).
      forget: ids to forget: .csv (one a line), .json (a list, or a split), or .npy.
      out: checkpoint folder to make; its record.json says what was done.
      seed: of random labels and order.
      resume: go on where the same command was killed or stopped.
      save_every: least seconds between two saves to go on from; 0 saves every step.
    """
    check_seed(seed)
    dataset = source.load()
    stored = load_model(checkpoint, dataset)
    ids = forget_ids(forget, dataset, stored)
    request = Request(ids, np.setdiff1d(stored.ids, ids), stored.unseen)
    told = {
        "unlearning": vars(unlearning),
        "seed": seed,
        "forgotten_sha256": digest(ids),
        "dataset_sha256": fingerprint(dataset),
    }
    run = {**told, "from": checkpoints.identity(checkpoint)}
    if complete(out, told, digest(request.retain), resume=resume):
        return
    console = open_console()
    with (
        unfinished(out, run, seconds=save_every, resume=resume) as series,
        Reporter(console, 1) as progress,
    ):
        refuse_existing(out)
        features = build(stored.network, features=True)
        preparer = Preparer(stored.model, dataset, features)
        job = preparer(
            unlearning, request, stored.trained, seed=seed, origin=origin_of(stored)
        )
        total = job.steps
        progress(unlearning.method, 0, total)
        with blamed(unlearning.method, unlearning.learning_rate, checkpoint):
            unlearned = execute(
                job,
                stored.trained.params,
                stored.trained.model_state,
                jax.random.key(seed),
                callback=lambda step, state, info: progress(
                    unlearning.method, step, total
                ),
                series=series,
            )
        record = {
            **told,
            "forgotten": len(ids),
            "from": {
                "ids_sha256": stored.record.get("ids_sha256"),
                "earlier": stored.record.get("unlearning"),
            },
            "environment": environment_record(),
            **job.details,
            **({} if unlearned.stopped is None else {"stopped": unlearned.stopped}),
        }
        save_model(
            out,
            unlearned,
            stored.network,
            dataset,
            request.retain,
            stored.unseen,
            record,
        )
    if unlearned.stopped is not None:
        step, reason = unlearned.stopped["step"], unlearned.stopped["reason"]
        print(f"stopped after step {step} of {total}: {reason}")
    for warning in weak_attacks(job.details):
        print(f"jax-unlearn: warning: {warning}", file=sys.stderr)
    print(
        f"forgot {len(ids)} of {len(stored.ids)} samples in "
        f"{unlearned.seconds['run']:.1f} s (prepared in "
        f"{unlearned.seconds['prepare']:.1f} s, compiled in "
        f"{unlearned.seconds['compile']:.1f} s); wrote {out}"
    )


def report(
    results: Path = Path("audit.json"),
    out: Path = Path("report.html"),
    overwrite: bool = False,
) -> None:
    """Draw the report of an audit or of a whole run, one self-contained page.

    Args:
      results: audit.json of `jax-unlearn audit`, or results.json of a run.
      out: page to write.
      overwrite: replace the page if it exists.
    """
    from jax_unlearn import report as reports

    page = reports.write(reports.load_results(results), out, overwrite=overwrite)
    print(f"wrote {page}")


@contextmanager
def blamed(
    what: str, learning_rate: float, checkpoint: Path | None = None
) -> Iterator[None]:
    """Say what diverged, with which learning rate, and where to go on from."""
    try:
        yield
    except NonFiniteError as error:
        last = "" if checkpoint is None else f"; last good checkpoint: {checkpoint}"
        raise InputError(
            f"{what} with learning_rate={learning_rate}: {error}; lower the learning "
            f"rate{last}"
        ) from error


def complete(out: Path, told: dict[str, Any], ids: str, *, resume: bool) -> bool:
    """Return whether the command to resume had written its checkpoint already.

    Raises:
      InputError: something else stands there.
    """
    if not resume or not out.exists():
        refuse_existing(out)
        return False
    record = checkpoints.read_record(out)
    wanted = json.loads(json.dumps({**told, "ids_sha256": ids}))
    if any(record.get(name) != value for name, value in wanted.items()):
        raise InputError(
            f"out={out} was made with another setting, seed, request or data set; "
            "choose another --out"
        )
    with locked(partial_of(out)):
        shutil.rmtree(partial_of(out), ignore_errors=True)
    print(f"{out} is complete; nothing to resume")
    return True


def forget_ids(path: Path, dataset: Dataset, stored: Stored) -> np.ndarray:
    """Return the ids of a file, checked to be among those a model was trained on."""
    return check_ids(
        load_ids(path), num_samples=len(dataset.train.labels), trained_ids=stored.ids
    )
