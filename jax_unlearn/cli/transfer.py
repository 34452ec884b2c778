"""The commands between this library and other programs: `import` and `export`."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn import _validate
from jax_unlearn.cli.choices import Kind
from jax_unlearn.cli.console import open_console, print_scores, status
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.messages import warn
from jax_unlearn.cli.sources import DataSource, Source, refuse_existing
from jax_unlearn.data import Dataset
from jax_unlearn.drivers import formats
from jax_unlearn.drivers.parameters import MismatchError
from jax_unlearn.errors import InputError
from jax_unlearn.lab import requests, store, transfer
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities import modality_of
from jax_unlearn.lab.modalities.classification.own import same_start
from jax_unlearn.lab.results import environment
from jax_unlearn.lab.subject import Subject, described, scores, subject_of

__all__ = ["export_model", "import_model", "warn_of_start"]

SHOWN = 200  # leaves compared on the screen


def import_model(
    source: DataSource,
    training: Any,
    params: Path,
    out: Path = Path("original"),
    trained_on: Path | None = None,
    subtree: str = "",
    cast: bool = False,
    modality: Kind = "classification",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Make a checkpoint of a model that was trained elsewhere; all commands take it.

    Give --mean and --std as they were in its training. Images of bytes are divided by
    255 before. If the network reads bytes as they are, give --mean 0 and
    --std 0.00392156862745098.

    Example, after that of `export`: `jax-unlearn import --dataset digits --params
    weights.safetensors --out imported`

    Args:
      source: The data that it was trained on.
      training: Its network, what that reads, and how a Retrain is to be trained.
      params: file or folder with the parameters and batch statistics: of orbax (a tree,
        a whole training state or a CheckpointManager), .msgpack of flax, .npz,
        .safetensors (shards too), or a PyTorch state dict (.pt, .pth).
      out: folder of the checkpoint that is made.
      trained_on: file that lists the samples that the model was trained on; the others
        are unseen. Default: it was trained on all, and no sample is unseen.
      subtree: part of the file that holds the parameters, if it holds several
        ("ema_params").
      cast: allow conversions of number types that lose precision.
      modality: kind of model. For language models --params is a Hugging Face folder
        (config.json, model.safetensors, tokenizer.json), and --start the model that it
        was tuned from.
      overwrite: replace the checkpoint that is there.
    """
    del modality  # the training is of it
    if not overwrite:
        refuse_existing(out, overwrite=False)
    if (kind := modality_of(training)).texts:
        source = dataclasses.replace(source, texts=True)
    elif not hasattr(training, "mean"):
        raise InputError(
            f"modality={kind.name!r}: models of that kind are not imported; give one "
            "of classification or language"
        )
    dataset = source.load()
    if kind.texts:
        ids = requests.trained_on(trained_on, dataset, source.keys)
        how = {"listed": trained_on, "overwrite": overwrite}
        return _import_texts(source, dataset, training, params, out, ids, **how)
    if not training.mean and not training.std:  # of the data would be a guess
        training = dataclasses.replace(training, mean=(0.0,), std=(1.0,))
    subject = subject_of(training, dataset)
    size = len(dataset.train.labels)
    ids = requests.trained_on(trained_on, dataset, source.keys)
    try:
        found = transfer.imported(subject, params, subtree=subtree, cast=cast)
    except MismatchError as error:
        for line in error.lines[:SHOWN]:
            print(line)
        if len(error.lines) > SHOWN:
            print(f"and {len(error.lines) - SHOWN} more")
        raise
    parts = {"train": ids, "unseen": np.setdiff1d(np.arange(size), ids)}
    with status(open_console(), "running the model over the data"):
        right = scores(subject, found.trained, parts)
    told = {"training": vars(training), **source.record(), "scores": right}
    _keep(out, subject, found, ids, told, listed=trained_on, overwrite=overwrite)
    print(f"read {params}: {'; '.join(found.notes)}")
    print(transfer.fed(subject))
    print_scores(open_console(), right)
    accuracy = right["test"]["accuracy"]
    if accuracy <= transfer.by_chance(dataset.test.labels):
        warn(
            f"{accuracy:.2f} % of the test samples is what guessing reaches: check "
            "--mean, --std and the order of the classes"
        )
    if trained_on is None:
        print(
            f"taken as trained on all {size} training samples, so none is unseen; give "
            "--trained-on FILE if it was not"
        )
    shown = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay")
    how = ", ".join(f"{name} {getattr(training, name):g}" for name in shown)
    print(
        f"a Retrain beside it (train --retrain --original {out}) has {how}, augment "
        f"{training.augment}: give these here as its own training had them"
    )
    print(f"wrote {out}")
    return {"out": str(out), "scores": right, "notes": list(found.notes)}


def _import_texts(
    source: Source,
    dataset: Dataset,
    training: Any,
    params: Path,
    out: Path,
    ids: np.ndarray,
    *,
    listed: Path | None,
    overwrite: bool,
) -> dict[str, Any]:
    """Make a checkpoint of a language model in a Hugging Face folder."""
    from jax_unlearn.lab.modalities.language.packing import digest_of, weights_of

    own = dataclasses.replace(training, start=str(params))
    subject = subject_of(own, dataset)
    at = weights_of(own.start, subject.network)
    record = {"file": params.name, "sha256": subject.network.sha256}
    # what a Retrain begins from is no model that saw the texts
    before = digest_of(training.start) if training.start else ""
    network = dataclasses.replace(subject.network, sha256=before)
    subject = described(subject.modality, network, subject.dataset)
    found = transfer.Imported(Trained(*at, {}), (), record)
    size = len(subject.dataset.train.labels)
    parts = {"train": ids, "unseen": np.setdiff1d(np.arange(size), ids)}
    with status(open_console(), "running the model over the texts"):
        losses = scores(subject, found.trained, parts)
    told = {"training": vars(training), **source.record(), "scores": losses}
    _keep(out, subject, found, ids, told, listed=listed, overwrite=overwrite)
    print_scores(open_console(), losses)
    print(
        f"a {subject.network.config.family} of {subject.network.config.vocab_size} "
        f"tokens; texts have up to {subject.network.length}"
    )
    begins = f"goes on from {training.start}" if before else "begins from nothing"
    remedy = "" if before else "; give --start, the model that this one was tuned from"
    print(f"a Retrain beside it (train --retrain --original {out}) {begins}{remedy}")
    print(f"wrote {out}")
    return {"out": str(out), "scores": losses}


def _keep(
    out: Path,
    subject: Subject,
    found: transfer.Imported,
    ids: np.ndarray,
    told: dict[str, Any],
    *,
    listed: Path | None,
    overwrite: bool,
) -> None:
    """Write the checkpoint of what was read; one that stands there goes last."""
    trained_on = "all" if listed is None else listed.name
    told |= {"trained_on": trained_on, "environment": environment(), **asked_options()}
    place = store.replacement_of(out, goes_on=False) if overwrite else out
    transfer.keep(place, subject, found, ids, told)
    if place != out:
        store.replace_folder(out, place)


def warn_of_start(training: Any) -> None:
    """Say that seeds would not differ, of a network that draws none of its weights."""
    name = getattr(training, "network", "")
    if ".py:" in name and same_start(name):
        warn(
            f"{name} takes no rngs: every seed starts from the same parameters; let it "
            "take rngs"
        )


def export_model(
    checkpoint: Path,
    out: Path,
    format: str | None = None,
    names: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the parameters of a checkpoint for other programs; `import` reads them.

    The names of the arrays begin with params, batch_stats or model_state. Their parts
    are joined by "/" in .npz and by "." in .safetensors, and nested in .msgpack.

    Example, after that of `train`: `jax-unlearn export --checkpoint original --out
    weights.safetensors`

    Args:
      checkpoint: checkpoint of any command.
      out: path of the file that is written.
      format: "safetensors", "npz" or "msgpack"; "torch-names" for PyTorch's names and
        axes, of the networks of this package, in the format of the file's suffix;
        "huggingface" for a language model, a folder that transformers reads. Default:
        by the suffix of --out; without a suffix a folder.
      names: whose names to use with --format torch-names: "torchvision", "timm" or
        "cifar" (ResNets and VGGs written for CIFAR). Default: those usual for the
        network.
      overwrite: replace the file if it exists.
    """
    known = ", ".join(transfer.FORMATS)
    kind = format or formats.SUFFIXES.get(out.suffix.lower(), "")
    if not kind and checkpoint.is_dir() and not out.suffix:
        kind = transfer.HUGGING_FACE
    if kind == transfer.HUGGING_FACE:
        count = transfer.exported_folder(store.load_model(checkpoint), out, overwrite)
        print(f"wrote {count} arrays of {checkpoint} and its tokenizer to {out}")
        return {"out": str(out), "arrays": count}
    if not kind:
        raise InputError(f"out={out}: no known suffix; give --format, one of {known}")
    _validate.one_of("format", kind, transfer.FORMATS)
    refuse_existing(out, overwrite=overwrite)
    stored = store.load_model(checkpoint)
    options = {"names": names, "overwrite": overwrite}
    count = transfer.exported(stored, out, kind, **options)
    print(f"wrote {count} arrays of {checkpoint} to {out} ({kind})")
    return {"out": str(out), "arrays": count}
