"""The commands on diffusion models: generate train, unlearn, sample, audit."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from jax_unlearn.cli.commands import Flat, blamed, complete
from jax_unlearn.cli.console import Reporter, open_console, print_generation
from jax_unlearn.cli.sources import DataSource, refuse_existing
from jax_unlearn.data import (
    Dataset,
    Examples,
    digest,
    fingerprint,
    holdout,
    shrink,
    write_atomic,
)
from jax_unlearn.diffusion import mentions
from jax_unlearn.drivers.checkpoint import identity, read_record
from jax_unlearn.errors import (
    InputError,
    check_seed,
    unknown_name,
)
from jax_unlearn.lab.generation import (
    GeneratorTrainer,
    GeneratorTraining,
    GeneratorUnlearning,
    Sampling,
    build,
    describe,
    draw,
    load_generator,
    prepare,
    save_generator,
)
from jax_unlearn.lab.generation.grids import png_bytes
from jax_unlearn.lab.generation.models import (
    Stored,
    sampler_of,
    vocabulary_of,
)
from jax_unlearn.lab.generation.results import audit_models
from jax_unlearn.lab.learn import weak_attacks
from jax_unlearn.lab.results import environment, to_json
from jax_unlearn.lab.settings import Training
from jax_unlearn.lab.stages import Request, execute
from jax_unlearn.lab.unfinished import SECONDS, unfinished

SUMMARY = """Diffusion models: train one, make it forget a class or a word, draw images,
and compare with one that never saw them."""


def train(
    source: DataSource,
    training: Annotated[GeneratorTraining, Flat],
    out: Path = Path("generator"),
    forget: tuple[str, ...] = (),
    unseen_fraction: float = 0.1,
    reduce: int = 1,
    seed: int = 0,
    resume: bool = False,
    save_every: float = SECONDS,
) -> None:
    """Train a diffusion model on images; write a checkpoint.

    Args:
      source: the data.
      training: how.
      out: checkpoint folder to make.
      forget: classes (names or numbers) to leave out: that makes Retrain.
      unseen_fraction: share held out.
      reduce: factor by which images are made smaller first.
      seed: of initialisation, order and noise.
      resume: go on where the same command was killed or stopped.
      save_every: least seconds between two saves to go on from; 0 saves every step.
    """
    check_seed(seed)
    dataset = _load(source, reduce)
    trained_ids, unseen = holdout(
        dataset.train.labels, fraction=unseen_fraction, seed=seed
    )
    left_out = [class_id(name, dataset.class_names) for name in forget]
    ids = trained_ids[~np.isin(dataset.train.labels[trained_ids], left_out)]
    if not len(ids):
        raise InputError(f"forget={forget}: nothing is left to train on")
    told = {
        "training": vars(training),
        "seed": seed,
        "reduce": reduce,
        "without": left_out,
    }
    run = {
        **told,
        "ids": digest(ids),
        "unseen": digest(unseen),
        "data": fingerprint(dataset),
    }
    if complete(out, told, digest(ids), resume=resume):
        return
    network = describe(training, dataset)
    trainer = GeneratorTrainer(build(network), training)
    console = open_console()
    with (
        unfinished(out, run, seconds=save_every, resume=resume) as series,
        Reporter(console, 1) as progress,
        blamed("training", training.learning_rate),
    ):
        progress("training", 0, training.steps)
        trained = trainer(
            dataset.train,
            ids,
            seed=seed,
            callback=lambda step, state, info: progress(
                "training", step, training.steps
            ),
            series=series,
        )
        record = {**told, "environment": environment()}
        save_generator(out, trained, network, dataset, ids, unseen, record)
    print(
        f"trained on {len(ids)} images of {dataset.name} in "
        f"{trained.seconds['run']:.1f} s (compiled in "
        f"{trained.seconds['compile']:.1f} s); wrote {out}"
    )


def unlearn(
    source: DataSource,
    unlearning: Annotated[GeneratorUnlearning, Flat],
    checkpoint: Path,
    forget: str,
    out: Path = Path("generator-unlearned"),
    seed: int = 0,
    resume: bool = False,
    save_every: float = SECONDS,
) -> None:
    """Make a diffusion model forget a class, or a word of its captions.

    Args:
      source: the data the model was trained on.
      unlearning: how.
      checkpoint: of `jax-unlearn generate train` (or of an earlier unlearn).
      forget: class (name or number); of a model of captions, a word.
      out: checkpoint folder to make; its record.json says what was done.
      seed: of all draws.
      resume: go on where the same command was killed or stopped.
      save_every: least seconds between two saves to go on from; 0 saves every step.
    """
    check_seed(seed)
    stored, dataset = _stored(checkpoint, source)
    inside, concept = _concerned(stored, dataset, forget)
    request = Request(stored.ids[inside], stored.ids[~inside], stored.unseen)
    told = {
        "unlearning": vars(unlearning),
        "seed": seed,
        "forgotten": forget,
        "dataset_sha256": fingerprint(dataset),
    }
    run = {**told, "from": identity(checkpoint)}
    if complete(out, told, digest(request.retain), resume=resume):
        return
    console = open_console()
    with (
        unfinished(out, run, seconds=save_every, resume=resume) as series,
        Reporter(console, 1) as progress,
        blamed(unlearning.method, unlearning.learning_rate, checkpoint),
    ):
        job = prepare(
            stored.generator,
            stored.trained,
            dataset.train,
            request,
            unlearning,
            seed=seed,
            concept=concept,
        )
        progress(unlearning.method, 0, unlearning.steps)
        unlearned = execute(
            job,
            stored.trained.params,
            stored.trained.model_state,
            jax.random.key(seed),
            callback=lambda step, state, info: progress(
                unlearning.method, step, unlearning.steps
            ),
            series=series,
        )
        record = {
            **told,
            "reduce": stored.record.get("reduce", 1),
            "forgotten_images": len(request.forget),
            "from": stored.record.get("ids_sha256"),
            "environment": environment(),
            **job.details,
        }
        save_generator(
            out,
            unlearned,
            stored.generator.network,
            dataset,
            request.retain,
            stored.unseen,
            record,
        )
    for warning in weak_attacks(job.details):
        print(f"jax-unlearn: warning: {warning}", file=sys.stderr)
    print(
        f"forgot {forget!r}, {len(request.forget)} of {len(stored.ids)} images, in "
        f"{unlearned.seconds['run']:.1f} s (prepared in "
        f"{unlearned.seconds['prepare']:.1f} s, compiled in "
        f"{unlearned.seconds['compile']:.1f} s); wrote {out}"
    )


def sample(
    sampling: Annotated[Sampling, Flat],
    checkpoint: Path,
    classes: tuple[str, ...] = (),
    prompts: tuple[str, ...] = (),
    count: int = 8,
    out: Path = Path("samples.png"),
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw images and write them as one grid, a row for each class or prompt.

    Args:
      sampling: how.
      checkpoint: of `jax-unlearn generate train` or `unlearn`.
      classes: names or numbers; default all.
      prompts: of a model of captions, instead of classes.
      count: images of each.
      out: png file, or npz for the bare arrays (images, asked).
      seed: of all noise.
      overwrite: replace the file if it exists.
    """
    check_seed(seed)
    stored = load_generator(checkpoint)
    generator = stored.generator
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
    console = open_console()
    with Reporter(console, 1) as progress:
        progress("sampling", 0, sampling.sampling_steps)
        images = draw(
            generator,
            stored.trained,
            np.repeat(conditions, count, axis=0),
            sampling,
            seed=seed,
            progress=lambda done, total: progress(
                "sampling",
                max(1, done * sampling.sampling_steps // total),
                sampling.sampling_steps,
            ),
        )
    if out.suffix == ".png":
        grid = images.reshape(len(rows), count, *images.shape[1:])
        content = png_bytes(grid)
    else:
        buffer = io.BytesIO()
        np.savez(buffer, images=images, asked=np.repeat(np.asarray(rows), count))
        content = buffer.getvalue()
    write_atomic(out, content, overwrite=overwrite)
    print(f"drew {count} images of each of {', '.join(rows)}; wrote {out}")


def audit(
    source: DataSource,
    judge: Annotated[Training, Flat],
    sampling: Annotated[Sampling, Flat],
    original: Path,
    forget: str,
    unlearned: tuple[Path, ...] = (),
    retrained: Path | None = None,
    null: Path | None = None,
    per_class: int = 50,
    inception: Path | None = None,
    out: Path = Path("generation.json"),
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Compare diffusion models by the images they draw; write figures and a report.

    A classifier trained here on real images judges: UA (share of images of the
    forgotten class that it does not recognise), accuracy of the other classes, and the
    Fréchet distance of the other classes in its features. Retrain's values are the
    target; the null is Retrain of another seed.

    Args:
      source: the data the models were trained on.
      judge: how the classifier is trained.
      sampling: how images are drawn, from every model alike.
      original: checkpoint of the original model.
      forget: class (name or number) that was to be forgotten.
      unlearned: checkpoints after unlearning.
      retrained: of a model trained without the class: the target.
      null: of another such model, with another seed.
      per_class: images of each class.
      inception: weights of the standard FID's network (the file of pytorch-fid, or its
        arrays as .npz): FID of the other classes is told too. It is biased upwards
        for few images: published values are of 10,000 or more.
      out: json file to write; the report stands beside it as .html.
      seed: of all noise.
      overwrite: replace files that exist.
    """
    check_seed(seed)
    if out.suffix != ".json":
        raise InputError(f"out={out}: name a .json file; the page stands beside it")
    page = out.with_suffix(".html")
    paths = {"original": original}
    paths |= {} if retrained is None else {"retrain": retrained}
    paths |= {} if null is None else {"null": null}
    for path in unlearned:
        label = path.name
        if label in paths:
            raise InputError(f"unlearned={path}: the name {label!r} is taken")
        paths[label] = path
    if null is not None and retrained is None:
        raise InputError(f"null={null} needs the target: give --retrained")
    for path in (out, page):
        refuse_existing(path, overwrite=overwrite)
    first, dataset = _stored(original, source)
    stored = {"original": first} | {
        key: load_generator(path, dataset)
        for key, path in paths.items()
        if key != "original"
    }
    for one in stored.values():
        sampler_of(one.generator, sampling)
    forgotten = _judged(first, dataset, forget)
    _concerned(first, dataset, dataset.class_names[forgotten])
    console = open_console()
    phases = 1 + len(stored) + (inception is not None)
    with Reporter(console, phases) as progress:
        results = audit_models(
            stored,
            dataset,
            judge,
            sampling,
            forget=forgotten,
            per_class=per_class,
            seed=seed,
            progress=progress,
            inception=inception,
        )
    write_atomic(out, to_json(results), overwrite=overwrite)
    from jax_unlearn import report as reports

    written = reports.write(results, page, overwrite=overwrite)
    print_generation(console, results)
    console.print(f"report: {written}", markup=False, soft_wrap=True)


COMMANDS: dict[str, Any] = {
    "train": train,
    "unlearn": unlearn,
    "sample": sample,
    "audit": audit,
}


def generate() -> None:
    """Diffusion models: generate train, unlearn, sample, audit (each with --help)."""


def class_id(name: str, class_names: Sequence[str]) -> int:
    """Return the class of a name or a number.

    Raises:
      InputError: unknown.

    >>> class_id("cat", ["dog", "cat"]), class_id("0", ["dog", "cat"])
    (1, 0)
    """
    names = list(class_names)
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    raise unknown_name("class", name, names)


def _load(source: DataSource, reduce: int) -> Dataset:
    dataset = source.load()
    return dataset if reduce == 1 else shrink(dataset, reduce)


def _stored(checkpoint: Path, source: DataSource) -> tuple[Stored, Dataset]:
    """Return a model and its data, reduced as when it was trained."""
    reduce = read_record(checkpoint).get("reduce", 1)
    if type(reduce) is not int:
        raise InputError(
            f"checkpoint {checkpoint}: reduce={str(reduce)[:40]!r} in its record is no "
            "whole number; give another checkpoint"
        )
    dataset = _load(source, reduce)
    return load_generator(checkpoint, dataset), dataset


def _judged(stored: Stored, dataset: Dataset, forget: str) -> int:
    """Return the class whose images a classifier can look for."""
    try:
        return class_id(forget, dataset.class_names)
    except InputError as error:
        if stored.generator.network.condition == "class":
            raise
        raise InputError(
            f"forget={forget!r}: the audit's classifier knows the classes "
            f"{', '.join(dataset.class_names)}, and no other word; name one of them, "
            "or look at images of `jax-unlearn generate sample`"
        ) from error


def _concerned(
    stored: Stored, dataset: Dataset, forget: str
) -> tuple[np.ndarray, str | None]:
    """Return which of the model's images are to be forgotten, and the word."""
    network = stored.generator.network
    labels = dataset.train.labels[stored.ids]
    if network.condition == "class":
        inside, concept = labels == class_id(forget, network.class_names), None
    else:
        part = Examples(dataset.train.inputs[stored.ids], labels)
        tokens = stored.generator.captions(part)
        inside = mentions(tokens, vocabulary_of(network), forget)
        concept = forget
    if not inside.any():
        raise InputError(
            f"forget={forget!r}: this model was not trained on any image of it; there "
            "is nothing to forget"
        )
    return np.asarray(inside), concept
