"""The command that measures: checkpoints, or arrays of outputs of any framework."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from jax_unlearn import _validate
from jax_unlearn import audit as audits
from jax_unlearn import report as reports
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.cli import console as consoles
from jax_unlearn.cli.choices import Kind
from jax_unlearn.cli.ensemble import ensemble
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.sources import DataSource, Source, asked, refuse_existing
from jax_unlearn.data import digest, write_atomic
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab import advice
from jax_unlearn.lab.arrays import load_outputs
from jax_unlearn.lab.catalog import load
from jax_unlearn.lab.modalities.classification.beside import (
    against_unseen,
    beside_retrains,
)
from jax_unlearn.lab.modalities.classification.figures import (
    PROBES,
    Table,
    outputs_of,
    probe,
)
from jax_unlearn.lab.modalities.classification.networks import Training
from jax_unlearn.lab.modalities.diffusion.figures import ImageTable
from jax_unlearn.lab.modalities.diffusion.networks import sampler_of
from jax_unlearn.lab.modalities.diffusion.settings import Judging, Sampling
from jax_unlearn.lab.requests import Asked, Request, class_id, said_of
from jax_unlearn.lab.results import LABELS, NULL, ORIGINAL, RETRAIN, head, to_json
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import Stored, load_model
from jax_unlearn.lab.subject import Subject


class Models(NamedTuple):
    """The checkpoints of an audit by row: Retrain, the null, the original, others."""

    subject: Subject
    request: Request
    named: Asked
    rows: dict[str, Stored]
    labels: dict[str, str]
    more: list[Stored]  # Retrains beside the target and the null
    again: list[Path]  # of all Retrains

    @property
    def base(self) -> Stored:
        """The original."""
        return self.rows[ORIGINAL]

    def measure(self, table: Any, seed: int, *, noted: bool = False) -> None:
        """Add all to a table, with what their records note if asked to."""
        target = self.rows.get(RETRAIN)
        table.start(self.request, target and target.trained, seed)
        for key, stored in self.rows.items():
            setting, notes = None, None
            if key not in LABELS:
                notes, told = stored.record, stored.record.get("unlearning")
                with contextlib.suppress(InputError):  # of a card that is not at hand
                    setting = None if told is None else Unlearning.read(told)
            given = key, self.labels[key], stored.trained, setting
            table.add(*given, notes if noted else None)

    def beside(self, table: Table, seed: int) -> audits.Audit | dict[str, Any]:
        """Audit beside three Retrains or more; else beside unseen samples."""
        given, outputs = (self.subject.dataset, self.request), dict(table.outputs)
        again = [outputs[key] for key in (RETRAIN, NULL) if key in outputs]
        again += [outputs_of(self.subject, stored.trained) for stored in self.more]
        if len(again) < FEWEST:
            return against_unseen(*given, outputs)
        models = {k: own for k, own in outputs.items() if k not in (RETRAIN, NULL)}
        return beside_retrains(*given, models, again, seed=seed)

    def advice(
        self, found: Any, original: Path, forget: str, source: Source, *paths: Any
    ) -> list[str]:
        """Return what the audit says and what to do next."""
        if isinstance(found, audits.Audit):
            page = f"`jax-unlearn report --results {paths[0]}` writes"
            return advice.judged(found, self.labels, self.again, page)
        again = [stored for k, stored in self.rows.items() if k in (RETRAIN, NULL)]
        pairs = zip(self.again, again, strict=True)
        retrained = [advice.Known(path, stored.record) for path, stored in pairs]
        base = advice.Known(original, self.rows[ORIGINAL].record)
        return advice.missing(retrained, base, forget, source.told(), *paths)


def audit(
    source: DataSource,
    original: Path | None = None,
    forget: str | None = None,
    unlearned: tuple[Path, ...] = (),
    retrained: tuple[Path, ...] = (),
    null: Path | None = None,
    probes: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar=f"{{{','.join(PROBES)}}} ...")
    ] = (),
    arrays: Path | None = None,
    parts: tuple[Path, ...] = (),
    run: Path | None = None,
    kind: Annotated[str, tyro.conf.arg(metavar="{logits,probabilities}")] = "logits",
    metrics: tuple[str, ...] | None = None,
    resamples: int = 20,
    out: Path = Path("audit.json"),
    modality: Kind = "classification",
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Measure unlearned models: checkpoints, or arrays of outputs of any framework.

    Checkpoints (--original, --forget, --unlearned) stand beside the original, Retrain
    and the null. Of arrays (--arrays) there may be many models of each kind: then
    attacks on ensembles are added. `jax-unlearn ensemble` makes such models; --parts
    joins what its parts made, with their data and request unless others are given.

    Args:
      source: the data; not for arrays.
      original: checkpoint the request was made to.
      forget: ids or class that were to be forgotten, as given to `unlearn`.
      unlearned: checkpoints to audit.
      retrained: checkpoints of `train --retrain`, each from another seed: the first is
        the target of every figure, the second the null, as --null; from three on every
        figure is audited beside all of them. With fewer, forget samples are compared
        with unseen ones too.
      null: the same from another seed: how far two retrainings are apart.
      probes: of each checkpoint: "relearn" (steps until the forget set is learned
        again), "robustness" (test accuracy under PGD).
      arrays: .npz file with `labels/PART [n]`, `retrained/PART [N, n, K]` and, of one
        method or more, `NAME/PART [N, n, K]`; PART is forget, retain, test or unseen.
      parts: folders of `jax-unlearn ensemble --part`, to audit what all of them made.
      run: of parts, the folder of the run whose plan they took.
      kind: what the arrays hold: "logits" or "probabilities".
      metrics: figures of the arrays, or groups of them: standard, mia, deviation,
        u_lira, rmia, forgetting, klom, or FILE.py:CARD for one of your own; default
        what the number of models allows.
      resamples: divisions of the retrained models in arrays or parts, for the null.
      out: file to write, for `jax-unlearn report`.
      modality: kind of model; that of the original is found out.
      seed: of the attacks' samples.
      overwrite: replace the file if it exists.
    """
    del modality
    refuse_existing(out, overwrite=overwrite)
    check_seed(seed)
    if parts:
        if unlearned or retrained or probes or {null, arrays, metrics} != {None}:
            raise InputError(
                f"parts={[str(path) for path in parts]} hold all models; leave "
                "checkpoints, --arrays, --probes and --metrics out"
            )
        made_as = {"run": run, "original": original, "forget": forget}
        return ensemble(source, **made_as, resamples=resamples, join=parts, out=out)
    if arrays is not None:
        if unlearned or retrained or {original, forget, null} != {None}:
            raise InputError(
                f"arrays={arrays} and checkpoints: give one or the other to audit"
            )
        how = {"kind": kind, "metrics": metrics, "resamples": resamples, "seed": seed}
        return audit_arrays(arrays, out, **how)
    if metrics is not None:
        raise InputError(f"metrics={list(metrics)} are of --arrays; leave them out")
    if original is None or forget is None or not unlearned:
        raise InputError(
            f"original={original}, forget={forget}, "
            f"unlearned={[str(path) for path in unlearned]}: give all three, or "
            "--arrays FILE.npz, or --parts DIR"
        )
    for name in probes:
        _validate.one_of("probe", name, PROBES)
    paths = {f"{n}-{path.name}": path for n, path in enumerate(unlearned)}
    models = read_models(source, original, forget, paths, retrained, null)

    def advise(found: Any) -> list[str]:
        return models.advice(found, original, forget, source, out, null)

    how = {"probes": probes, "seed": seed, "overwrite": overwrite}
    results = audited(models, out, advise, **how)
    consoles.say(consoles.open_console(), "\n".join(results["advice"]))
    return results


def audited(
    models: Models,
    out: Path,
    advise: Callable[[Any], list[str]],
    *,
    probes: Sequence[str] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Measure checkpoints that were read; write, print and return what was found."""
    subject, request = models.subject, models.request
    table, console = Table(subject, keep=True), consoles.open_console()
    with consoles.status(console, "running the models over the data"):
        models.measure(table, seed)
        beside = models.beside(table, seed)
        probed = {
            key: probe(subject, stored.trained, request, probes, seed=seed)
            for key, stored in models.rows.items()
        }
    dataset = subject.dataset
    labels = dataset.train.labels[request.forget]
    plan = given_plan(f"Audit on {dataset.name}", labels, seed, dataset.num_classes)
    told = {**plan, "forgotten_sha256": digest(request.forget)}
    if record := models.named.record:
        told |= {"request": record, "note": said_of(record)}
    found = {**table.summary(), "probes": probed if probes else {}}
    if isinstance(beside, audits.Audit):
        found["audit"] = audits.to_record(beside)
    else:
        found["unseen"] = beside
    found["advice"] = advise(beside)
    results = {**head(told, dataset), **asked_options(), **found}
    write_atomic(out, to_json(results), overwrite=overwrite)
    consoles.print_results(console, results)
    consoles.print_probes(console, results)
    consoles.print_legend(console, results)
    if isinstance(beside, audits.Audit):
        consoles.print_audit(console, beside, models.labels)
    else:
        consoles.print_unseen(console, results)
    print(f"wrote {out}")
    return {"out": str(out), **results}


def audit_images(
    source: DataSource,
    judge: Training,
    sampling: Sampling,
    original: Path,
    forget: str,
    unlearned: tuple[Path, ...] = (),
    retrained: tuple[Path, ...] = (),
    null: Path | None = None,
    per_class: int = 50,
    inception: Path | None = None,
    out: Path = Path("generation.json"),
    modality: Kind = "diffusion",
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
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
      retrained: of models trained without the class, each from another seed: the first
        is the target, the second the null; of more nothing is drawn.
      null: the second, by its name.
      per_class: images of each class.
      inception: weights of the standard FID's network (the file of pytorch-fid, or its
        arrays as .npz): FID is told too; published values are of 10,000 images.
      out: json file to write; the report stands beside it as .html.
      modality: kind of model; that of the original is found out.
      seed: of all noise.
      overwrite: replace files that exist.
    """
    del modality
    check_seed(seed)
    if out.suffix != ".json":
        raise InputError(f"out={out}: name a .json file; the page stands beside it")
    for path in (out, page := out.with_suffix(".html")):
        refuse_existing(path, overwrite=overwrite)
    paths: dict[str, Path] = {}
    for path in unlearned:
        if path.name in (*paths, *LABELS):
            raise InputError(f"unlearned={path}: the name {path.name!r} is taken")
        paths[path.name] = path
    judging = Judging(judge, sampling, per_class, per_class)
    models = read_models(source, original, forget, paths, retrained, null)
    dataset = models.subject.dataset
    if models.named.concept is not None and forget not in dataset.class_names:
        raise InputError(
            f"forget={forget!r}: the audit's classifier knows the classes "
            f"{', '.join(dataset.class_names)}, and no other word; name one of them, "
            "or look at images of `jax-unlearn sample`"
        )
    forgotten = dataset.class_names[class_id(forget, dataset.class_names)]
    for stored in models.rows.values():
        sampler_of(stored.built, sampling)
    console = consoles.open_console()
    phases = 1 + len(models.rows) + (inception is not None)
    with consoles.Reporter(console, phases) as progress:
        options = {"inception": inception, "progress": progress}
        table = ImageTable(models.subject, judging, **options)
        models.measure(table, seed, noted=True)
    weights = inception and sha256(inception.read_bytes()).hexdigest()
    own = [(key, one.record) for key, one in models.rows.items() if key not in LABELS]
    told = {"sampling": vars(sampling), "judge": vars(judge), "per_class": per_class}
    plan = {
        "title": f"{dataset.name}: forget {forgotten!r}",
        **told,
        "inception": inception and {"file": inception.name, "sha256": weights},
        "methods": {k: r["unlearning"] for k, r in own if "unlearning" in r},
    }
    found = table.summary()
    found["advice"] = advice.pictured(found["rows"], forgotten, original, forget)
    text = to_json({**head(plan, dataset), **asked_options(), **found})
    write_atomic(out, text, overwrite=overwrite)
    results = json.loads(text)
    reports.write(results, page, overwrite=overwrite)
    consoles.print_generation(console, results)
    consoles.say(console, "\n".join(found["advice"]))
    consoles.say(console, f"report: {page}")
    return {"out": str(out), **results}


def read_models(
    source: Source,
    original: Path,
    forget: str,
    unlearned: Mapping[str, Path],
    retrained: Sequence[Path] = (),
    null: Path | None = None,
) -> Models:
    """Read the checkpoints of an audit; refuse what does not belong together."""
    if null is not None and not retrained:
        raise InputError(
            f"null={null} needs a Retrain to stand beside: --retrained DIR"
        )
    again = [*retrained[:1], *([] if null is None else [null]), *retrained[1:]]
    base, subject, request, named = asked(source, original, forget)
    kind, dataset = base.modality.name, subject.dataset

    def read(path: Path) -> Stored:
        return load_model(path, dataset, modality=kind, like=subject.network)

    retrains = [read(path) for path in again]
    for path, stored in zip(again, retrains, strict=True):
        seen = np.intersect1d(stored.ids, request.forget)
        if "unlearning" in stored.record or seen.size:
            raise InputError(
                f"checkpoint {path} is no retraining: it was trained on {seen.size} of "
                f"the {len(request.forget)} forget samples or unlearned from a model "
                f"that was; use `jax-unlearn train --retrain --original {original} "
                f"--forget {forget}` with the options of the data"
            )
        if less := np.setdiff1d(request.retain, stored.ids).size:
            print(
                f"{path} was trained without {less} samples more than the request "
                "names: it is the Retrain of a larger request"
            )
    rows = dict(zip((RETRAIN, NULL), retrains, strict=False)) | {ORIGINAL: base}
    rows |= {key: read(path) for key, path in unlearned.items()}
    labels = LABELS | {key: path.name for key, path in unlearned.items()}
    return Models(subject, request, named, rows, labels, retrains[2:], again)


def audit_arrays(
    file: Path, out: Path, *, metrics: tuple[str, ...] | None, seed: int, **options: Any
) -> dict[str, Any]:
    """Audit outputs of models of any framework; the options are those of `audit`."""
    given = load_outputs(file)
    if metrics is not None:
        metrics = tuple(load(name) if ".py:" in name else name for name in metrics)
    console = consoles.open_console()
    with consoles.status(console, "auditing"):
        found = audits.audit(*given, metrics=metrics, seed=seed, **options)
    plan = given_plan(f"Audit of {file.name}", np.asarray(given[2].forget), seed)
    results = {**head(plan), **asked_options(), "audit": audits.to_record(found)}
    write_atomic(out, to_json(results), overwrite=True)
    consoles.print_audit(console, found)
    consoles.say(console, f"wrote {out}")
    return {"out": str(out), **results}


def given_plan(
    title: str, labels: np.ndarray, seed: int, classes: int = 0
) -> dict[str, Any]:
    """Return what results say of a request that was given, by its samples' labels."""
    return {
        "title": title,
        "kind": "given",
        "forget_counts": np.bincount(labels, minlength=classes).tolist(),
        "forgotten": len(labels),
        "seeds": [seed],
        "note": "",
    }
