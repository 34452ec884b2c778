"""The commands on files, for any kind of model: split, train, unlearn, report."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_unlearn.cli.choices import Choice, Kind, form, parsed
from jax_unlearn.cli.console import Reporter, open_console
from jax_unlearn.cli.sources import DataSource, refuse_existing
from jax_unlearn.data import (
    digest,
    fingerprint,
    forget_split,
    holdout,
    load_manifest,
    save_manifest,
    to_ids,
    write_atomic,
)
from jax_unlearn.drivers import checkpoint as checkpoints
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab.attacks import weak_attacks
from jax_unlearn.lab.job import Trained, blamed, execute
from jax_unlearn.lab.modalities.diffusion.figures import png_bytes
from jax_unlearn.lab.modalities.diffusion.networks import draw, sampler_of
from jax_unlearn.lab.modalities.diffusion.settings import Sampling
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.requests import Request, class_id, requested
from jax_unlearn.lab.results import environment as environment_record
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import (
    SECONDS,
    identity,
    kept,
    load_model,
    origin_of,
    save_model,
)
from jax_unlearn.lab.subject import Subject, Trainer, subject_of


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


def train_command(choice: Choice) -> Callable[..., None]:
    """Return the command that trains a kind of model."""
    kind = choice.modality

    def train(
        source: DataSource,
        training: Any,
        out: Path = Path("original"),
        modality: Kind = kind.name,
        split: Path | None = None,
        retrain: bool = False,
        forget: tuple[str, ...] = (),
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
          modality: kind of model.
          split: manifest of `jax-unlearn split`; its unseen samples are held out.
          retrain: leave the split's forget samples out: the reference of an audit.
          forget: classes (names or numbers) to leave out: that makes Retrain, too.
          unseen_fraction: share held out, where no split is given.
          seed: of initialisation, order, augmentation and noise.
          resume: go on where the same command was killed or stopped.
          save_every: least seconds between two saves to go on from; 0 saves every step.
        """
        del modality
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
        without = [class_id(name, dataset.class_names) for name in forget]
        ids = ids[~np.isin(labels[ids], without)]
        if not len(ids):
            raise InputError(f"forget={forget}: nothing is left to train on")
        told = {
            "training": vars(training),
            "seed": seed,
            "retrain": retrain,
            "reduce": source.reduce,
            "without": without,
        }
        subject = subject_of(training, dataset)
        if not resume:
            refuse_existing(out)
        trainer = Trainer(subject, training)
        total = trainer.steps(len(ids))

        def make(progress: Reporter, series: Series | None) -> Trained:
            progress("training", 0, total)
            with blamed("training", training.learning_rate):
                return trainer(
                    ids,
                    seed=seed,
                    callback=lambda step, state, info: progress(
                        "training", step, total
                    ),
                    series=series,
                )

        parts = ids, unseen
        trained = _kept(out, told, make, subject, parts, resume, save_every)
        if trained is not None:
            print(
                f"trained on {len(ids)} samples of {dataset.name} in "
                f"{trained.seconds['run']:.1f} s (compiled in "
                f"{trained.seconds['compile']:.1f} s); wrote {out}"
            )

    return parsed(train, training=form(kind.training))


def unlearn_command(choice: Choice) -> Callable[..., None]:
    """Return the command that unlearns by a method."""

    def unlearn(
        source: DataSource,
        setting: Unlearning,
        checkpoint: Path,
        forget: str,
        out: Path = Path("unlearned"),
        seed: int = 0,
        resume: bool = False,
        save_every: float = SECONDS,
    ) -> None:
        """Make a model forget samples, a class or a word; write a new checkpoint.

        What it is told depends on the method: `jax-unlearn unlearn METHOD --help` lists
        it, `jax-unlearn methods` lists the methods.

        Args:
          source: the data the model was trained on.
          setting: how.
          checkpoint: of `jax-unlearn train` (or of an earlier `unlearn`).
          forget: ids to forget: .csv (one a line), .json (a list, or a split), or .npy;
            or a class (name or number); of a model of captions, a word.
          out: checkpoint folder to make; its record.json says what was done.
          seed: of random labels and order.
          resume: go on where the same command was killed or stopped.
          save_every: least seconds between two saves to go on from; 0 saves every step.
        """
        check_seed(seed)
        dataset = source.load_for(checkpoint)
        stored = load_model(checkpoint, dataset, modality=choice.modality.name)
        subject = stored.subject(dataset)
        ids, concept = requested(subject, stored.ids, forget)
        request = Request(ids, np.setdiff1d(stored.ids, ids), stored.unseen)
        told = {
            "unlearning": setting.record(),
            "seed": seed,
            "forgotten_sha256": digest(ids),
            "dataset_sha256": fingerprint(dataset),
        }
        if not resume:
            refuse_existing(out)
        details: dict[str, Any] = {}

        def make(progress: Reporter, series: Series | None) -> Trained:
            job = Preparer(subject)(
                setting,
                request,
                stored.trained,
                seed=seed,
                origin=origin_of(stored),
                concept=concept,
            )
            details.update(job.details, steps=job.steps)
            progress(setting.method, 0, job.steps)
            with blamed(setting.method, setting.learning_rate, checkpoint):
                return execute(
                    job,
                    (stored.trained.params, stored.trained.model_state),
                    jax.random.key(seed),
                    callback=lambda step, state, info: progress(
                        setting.method, step, job.steps
                    ),
                    series=series,
                )

        def record(trained: Trained) -> dict[str, Any]:
            stopped = {} if trained.stopped is None else {"stopped": trained.stopped}
            notes = {name: value for name, value in details.items() if name != "steps"}
            return {
                "forgotten": len(ids),
                "forgotten_as": forget,
                "reduce": stored.record.get("reduce", 1),
                "from": {
                    "ids_sha256": stored.record.get("ids_sha256"),
                    "earlier": stored.record.get("unlearning"),
                },
                **notes,
                **stopped,
            }

        unlearned = _kept(
            out,
            told,
            make,
            subject,
            (request.retain, stored.unseen),
            resume,
            save_every,
            run={"from": checkpoints.identity(checkpoint)},
            record=record,
        )
        if unlearned is None:
            return
        if unlearned.stopped is not None:
            step, reason = unlearned.stopped["step"], unlearned.stopped["reason"]
            print(f"stopped after step {step} of {details['steps']}: {reason}")
        for warning in weak_attacks(details):
            print(f"jax-unlearn: warning: {warning}", file=sys.stderr)
        print(
            f"forgot {len(ids)} of {len(stored.ids)} samples in "
            f"{unlearned.seconds['run']:.1f} s (prepared in "
            f"{unlearned.seconds['prepare']:.1f} s, compiled in "
            f"{unlearned.seconds['compile']:.1f} s); wrote {out}"
        )

    return parsed(unlearn, setting=choice.form())


def sample(
    sampling: Sampling,
    checkpoint: Path,
    classes: tuple[str, ...] = (),
    prompts: tuple[str, ...] = (),
    count: int = 8,
    out: Path = Path("samples.png"),
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw images of a diffusion model as one grid, a row for each class or prompt.

    Args:
      sampling: how the images are drawn.
      checkpoint: of `jax-unlearn train --modality diffusion`, or `unlearn`.
      classes: names or numbers; default all.
      prompts: of a model of captions, instead of classes.
      count: images of each.
      out: png file, or npz for the bare arrays (images, asked).
      seed: of all noise.
      overwrite: replace the file if it exists.
    """
    check_seed(seed)
    stored = load_model(checkpoint, modality="diffusion")
    generator = stored.built
    sampler_of(generator, sampling)  # refused before the work
    if out.suffix not in (".png", ".npz"):
        raise InputError(f"out={out}: write a .png or an .npz file")
    refuse_existing(out, overwrite=overwrite)
    if count < 1:
        raise InputError(f"count={count} must be at least 1")
    if prompts:
        rows = list(prompts)
        conditions = generator.tokens(rows)
    else:
        names = generator.network.class_names
        ids = [class_id(name, names) for name in classes] or range(len(names))
        rows = [names[i] for i in ids]
        conditions = generator.prompts(np.asarray(list(ids)))
    wanted = np.repeat(conditions, count, axis=0)
    with Reporter(open_console(), 1) as progress:
        given = generator, stored.trained, wanted, sampling
        images = draw(*given, seed=seed, progress=progress)
    if out.suffix == ".png":
        grid = images.reshape(len(rows), count, *images.shape[1:])
        content = png_bytes(grid, enlarge=max(1, 64 // images.shape[1]))
    else:
        buffer = io.BytesIO()
        np.savez(buffer, images=images, asked=np.repeat(np.asarray(rows), count))
        content = buffer.getvalue()
    write_atomic(out, content, overwrite=overwrite)
    print(f"drew {count} images of each of {', '.join(rows)}; wrote {out}")


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


def _kept(
    out: Path,
    told: dict[str, Any],
    make: Callable[[Reporter, Series | None], Trained],
    subject: Subject,
    parts: tuple[np.ndarray, np.ndarray],
    resume: bool,
    save_every: float,
    *,
    run: dict[str, Any] | None = None,
    record: Callable[[Trained], dict[str, Any]] = lambda trained: {},
) -> Trained | None:
    """Make a model and write its checkpoint; None where it stands there already."""
    ids, unseen = parts

    def making(series: Series | None) -> Trained:
        with Reporter(open_console(), 1) as progress:
            return make(progress, series)

    def read(path: Path) -> tuple[dict[str, Any], Trained | None]:
        return checkpoints.read_record(path), None

    def write(path: Path, trained: Trained | None) -> None:
        if trained is not None:
            more = {**told, **record(trained), "environment": environment_record()}
            save_model(path, trained, subject, ids=ids, unseen=unseen, record=more)

    made = kept(
        out,
        {**told, "ids_sha256": digest(ids)},
        making,
        read=read,
        write=write,
        run={**identity(subject, ids, unseen), **(run or {})},
        seconds=save_every,
        resume=resume,
    )
    if made is None:
        print(f"{out} is complete; nothing to resume")
    return made
