"""The command that measures: checkpoints, or arrays of outputs of any framework."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn import audit as audits
from jax_unlearn.cli.choices import Choice, Kind, form, parsed
from jax_unlearn.cli.console import (
    Reporter,
    open_console,
    print_generation,
    print_legend,
    print_probes,
    print_results,
    status,
)
from jax_unlearn.cli.figures import print_audit
from jax_unlearn.cli.sources import DataSource, refuse_existing
from jax_unlearn.data import Dataset, digest, write_atomic
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab.arrays import load_outputs
from jax_unlearn.lab.catalog import load
from jax_unlearn.lab.modalities.classification.figures import Table
from jax_unlearn.lab.modalities.classification.networks import Training
from jax_unlearn.lab.modalities.diffusion.figures import ImageTable
from jax_unlearn.lab.modalities.diffusion.networks import sampler_of
from jax_unlearn.lab.modalities.diffusion.settings import Judging, Sampling
from jax_unlearn.lab.probes import check_probes, probe
from jax_unlearn.lab.requests import Request, class_id, requested
from jax_unlearn.lab.results import (
    NULL,
    ORIGINAL,
    RETRAIN,
    dataset_record,
    environment,
    to_json,
)
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import Stored, load_model
from jax_unlearn.lab.subject import Subject

LABELS = {
    RETRAIN: "Retrain",
    NULL: "Null (Retrain, other seed)",
    ORIGINAL: "Original (nothing done)",
}


class Models(NamedTuple):
    """The checkpoints of an audit, read and checked.

    Attributes:
      subject: the original's network and data.
      references: Retrain, the null and the original, those that are given.
      unlearned: by key of their row.
      request: whom they were to forget.
      concept: the word of the request, if it is about one.
    """

    subject: Subject
    references: dict[str, Stored]
    unlearned: dict[str, Stored]
    request: Request
    concept: str | None


def audit_command(choice: Choice) -> Callable[..., None]:
    """Return the command that audits a kind of model."""
    if choice.modality.name != "diffusion":
        return audit
    return parsed(_audit_images, judge=form(Training), sampling=form(Sampling))


def audit(
    source: DataSource,
    original: Path | None = None,
    forget: str | None = None,
    unlearned: tuple[Path, ...] = (),
    retrained: Path | None = None,
    null: Path | None = None,
    probes: tuple[str, ...] = (),
    arrays: Path | None = None,
    kind: str = "logits",
    metrics: tuple[str, ...] | None = None,
    resamples: int = 20,
    out: Path = Path("audit.json"),
    modality: Kind = "classification",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Measure unlearned models: checkpoints, or arrays of outputs of any framework.

    Checkpoints (--original, --forget, --unlearned) stand beside the original, Retrain
    and the null. Of arrays (--arrays) there may be many models of each kind: then
    attacks on ensembles are added. `jax-unlearn ensemble` makes such models.

    Args:
      source: the data; not for arrays.
      original: checkpoint the request was made to.
      forget: ids or class that were to be forgotten, as given to `unlearn`.
      unlearned: checkpoints to audit.
      retrained: checkpoint of `train --retrain`, the target of every figure.
      null: the same from another seed: how far two retrainings are apart.
      probes: of each checkpoint: "relearn" (steps until the forget set is learned
        again), "robustness" (test accuracy under PGD).
      arrays: .npz file with `labels/PART [n]`, `retrained/PART [N, n, K]` and, of one
        method or more, `NAME/PART [N, n, K]`; PART is forget, retain, test or unseen.
      kind: what the arrays hold: "logits" or "probabilities".
      metrics: figures of the arrays, or groups of them: standard, mia, deviation,
        u_lira, rmia, forgetting, klom, or FILE.py:CARD for one of your own; default
        what the number of models allows.
      resamples: divisions of the retrained models in the arrays, for the null.
      out: file to write, for `jax-unlearn report`.
      modality: kind of model; that of the original is found out.
      seed: of the attacks' samples.
      overwrite: replace the file if it exists.
    """
    del modality
    refuse_existing(out, overwrite=overwrite)
    check_seed(seed)
    if arrays is not None:
        checkpoints = (original, forget, retrained, null)
        if unlearned or any(given is not None for given in checkpoints):
            raise InputError(
                f"arrays={arrays} and checkpoints: give one or the other to audit"
            )
        audit_arrays(
            arrays, out, kind=kind, metrics=metrics, resamples=resamples, seed=seed
        )
        return
    if metrics is not None:
        raise InputError(f"metrics={list(metrics)} are of --arrays; leave them out")
    if original is None or forget is None or not unlearned:
        raise InputError(
            f"original={original}, forget={forget}, "
            f"unlearned={[str(path) for path in unlearned]}: give all three, or "
            "--arrays FILE.npz"
        )
    check_probes(probes)
    dataset = source.load_for(original)
    paths = [(f"{n}-{path.name}", path) for n, path in enumerate(unlearned)]
    models = _models(dataset, original, forget, paths, (retrained, null))
    request, ids = models.request, models.request.forget
    table, console = Table(models.subject), open_console()
    with status(console, "running the models over the data"):
        target = models.references.get(RETRAIN)
        table.start(request, target and target.trained, seed)
        for key, stored in models.references.items():
            table.add(key, LABELS[key], stored.trained)
        for (key, path), stored in zip(paths, models.unlearned.values(), strict=True):
            table.add(key, path.name, stored.trained, _setting(stored))
        probed = {
            key: probe(models.subject, s.trained, request, probes, seed=seed)
            for key, s in {**models.references, **models.unlearned}.items()
        }
    counts = np.bincount(dataset.train.labels[ids], minlength=dataset.num_classes)
    results = {
        "format": 1,
        "plan": {
            "title": f"Audit on {dataset.name}",
            "kind": "given",
            "forget_counts": counts.tolist(),
            "forgotten": len(ids),
            "forgotten_sha256": digest(ids),
            "seeds": [seed],
            "note": "",
        },
        "dataset": dataset_record(dataset),
        "environment": environment(),
        **table.summary(),
        "probes": probed if probes else {},
    }
    write_atomic(out, to_json(results), overwrite=overwrite)
    print_results(console, results)
    print_probes(console, results)
    print_legend(console, has_target=retrained is not None)
    print(f"wrote {out}")


def _audit_images(
    source: DataSource,
    judge: Training,
    sampling: Sampling,
    original: Path,
    forget: str,
    unlearned: tuple[Path, ...] = (),
    retrained: Path | None = None,
    null: Path | None = None,
    per_class: int = 50,
    inception: Path | None = None,
    out: Path = Path("generation.json"),
    modality: Kind = "diffusion",
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
      modality: kind of model; that of the original is found out.
      seed: of all noise.
      overwrite: replace files that exist.
    """
    from jax_unlearn import report as reports

    del modality
    check_seed(seed)
    if out.suffix != ".json":
        raise InputError(f"out={out}: name a .json file; the page stands beside it")
    page = out.with_suffix(".html")
    for path in (out, page):
        refuse_existing(path, overwrite=overwrite)
    labels, paths = {RETRAIN, NULL, ORIGINAL}, []
    for path in unlearned:
        if path.name in labels:
            raise InputError(f"unlearned={path}: the name {path.name!r} is taken")
        labels.add(path.name)
        paths.append((path.name, path))
    judging = Judging(judge, sampling, per_class, per_class)
    dataset = source.load_for(original)
    models = _models(dataset, original, forget, paths, (retrained, null))
    forgotten = _judged(models, dataset, forget)
    for one in (*models.references.values(), *models.unlearned.values()):
        sampler_of(one.built, sampling)
    console, seen = open_console(), {**models.references, **models.unlearned}
    phases = 1 + len(seen) + (inception is not None)
    with Reporter(console, phases) as progress:
        table = ImageTable(
            models.subject, judging, inception=inception, progress=progress
        )
        table.start(models.request, None, seed)
        for key in (ORIGINAL, RETRAIN, NULL):
            if key in models.references:
                table.add(key, key, models.references[key].trained)
        for label, stored in models.unlearned.items():
            table.add(label, label, stored.trained, notes=stored.record)
    results = {
        "format": 1,
        "plan": {
            "title": f"{dataset.name}: forget {dataset.class_names[forgotten]!r}",
            "sampling": vars(sampling),
            "judge": vars(judge),
            "per_class": per_class,
            "inception": inception and _file_record(inception),
            "methods": {
                label: stored.record["unlearning"]
                for label, stored in models.unlearned.items()
                if "unlearning" in stored.record
            },
        },
        "dataset": dataset_record(dataset),
        "environment": environment(),
        **table.summary(),
    }
    text = to_json(results)
    write_atomic(out, text, overwrite=overwrite)
    written = reports.write(json.loads(text), page, overwrite=overwrite)
    print_generation(console, results)
    console.print(f"report: {written}", markup=False, soft_wrap=True)


def audit_arrays(
    file: Path,
    out: Path,
    *,
    kind: str,
    metrics: tuple[str, ...] | None,
    resamples: int,
    seed: int,
) -> None:
    """Audit outputs of unlearned and retrained models of any framework.

    Args:
      file: .npz file, see `load_outputs`.
      out: file to write.
      kind: what the arrays hold: "logits" or "probabilities".
      metrics: groups of figures; None takes what the number of models allows.
      resamples: divisions of the Retrains for the null.
      seed: of the divisions and the attacks' samples.
    """
    unlearned, retrained, labels = load_outputs(file)
    asked = None if metrics is None else [_figure(name) for name in metrics]
    console = open_console()
    with status(console, "auditing"):
        found = audits.audit(
            unlearned,
            retrained,
            labels,
            kind=kind,
            metrics=asked,
            resamples=resamples,
            seed=seed,
        )
    counts = np.bincount(np.asarray(labels.forget))
    results = {
        "format": 1,
        "plan": {
            "title": f"Audit of {file.name}",
            "kind": "given",
            "forget_counts": counts.tolist(),
            "forgotten": found.forgotten,
            "seeds": [seed],
            "note": "",
        },
        "environment": environment(),
        "audit": audits.to_record(found),
    }
    write_atomic(out, to_json(results), overwrite=True)
    print_audit(console, found)
    console.print(f"wrote {out}", markup=False, soft_wrap=True)


def _file_record(path: Path) -> dict[str, str]:
    """Return name and checksum of a file."""
    return {"file": path.name, "sha256": sha256(path.read_bytes()).hexdigest()}


def _honest_retrain(
    path: Path, dataset: Dataset, request: Request, modality: str
) -> Stored:
    """Return a retrained model that has not seen a forget sample."""
    stored = load_model(path, dataset, modality=modality)
    seen = np.intersect1d(stored.ids, request.forget)
    if "unlearning" in stored.record or seen.size:
        raise InputError(
            f"checkpoint {path} is no retraining: it was trained on {seen.size} of the "
            f"{len(request.forget)} forget samples or unlearned from a model that was; "
            "use `jax-unlearn train --retrain --split FILE`"
        )
    return stored


def _figure(name: str) -> Any:
    """Return the card that a file of one's own holds, or the name of a figure."""
    return load(name) if ".py:" in name else name


def _models(
    dataset: Dataset,
    original: Path,
    forget: str,
    unlearned: list[tuple[str, Path]],
    retrained: tuple[Path | None, Path | None],
) -> Models:
    """Read the checkpoints of an audit; refuse what does not belong together."""
    base = load_model(original, dataset)
    kind, subject = base.modality.name, base.subject(dataset)
    target, null = retrained
    if null is not None and target is None:
        raise InputError(
            f"null={null} needs a Retrain to stand beside: --retrained DIR"
        )
    ids, concept = requested(subject, base.ids, forget)
    request = Request(ids, np.setdiff1d(base.ids, ids), base.unseen)
    references = {
        key: _honest_retrain(path, dataset, request, kind)
        for key, path in ((RETRAIN, target), (NULL, null))
        if path is not None
    }
    models = {key: load_model(path, dataset, modality=kind) for key, path in unlearned}
    return Models(subject, {**references, ORIGINAL: base}, models, request, concept)


def _judged(models: Models, dataset: Dataset, forget: str) -> int:
    """Return the class whose images a classifier can look for."""
    if models.concept is not None and forget not in dataset.class_names:
        raise InputError(
            f"forget={forget!r}: the audit's classifier knows the classes "
            f"{', '.join(dataset.class_names)}, and no other word; name one of them, "
            "or look at images of `jax-unlearn sample`"
        )
    return class_id(forget, dataset.class_names)


def _setting(stored: Stored) -> Unlearning | None:
    """Return how a model was unlearned; None where its card is not at hand."""
    record = stored.record.get("unlearning")
    try:
        return None if record is None else Unlearning.read(record)
    except InputError:
        return None
