"""The commands that serve requests: one from model to page, or a chain of them."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax_unlearn import _validate
from jax_unlearn.audit import Audit
from jax_unlearn.cli import audit as audits
from jax_unlearn.cli import commands, drawn
from jax_unlearn.cli import texts as texts_cli
from jax_unlearn.cli.console import Reporter, open_console, say
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.making import Making
from jax_unlearn.cli.sources import DataSource, Source, reading_of
from jax_unlearn.data import check_writable, digest, read_json, write_atomic
from jax_unlearn.errors import MAX_SEED, InputError, check_seed
from jax_unlearn.lab import advice, costs, ledger, service, store
from jax_unlearn.lab import chain as chains
from jax_unlearn.lab.checkpoints import Checkpoints
from jax_unlearn.lab.job import blamed
from jax_unlearn.lab.modalities.classification.networks import Training
from jax_unlearn.lab.modalities.diffusion.settings import Sampling
from jax_unlearn.lab.modalities.language.foreign import identity_at
from jax_unlearn.lab.requests import class_id, requested
from jax_unlearn.lab.results import to_json
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Trainer

__all__ = ["Job", "chain", "forget"]

KEY = "0-unlearned"  # of the model's row in the audit
MODEL, AUDIT, REPORT, RECORD = "unlearned", "audit.json", "report.html", "record.json"


class Job(NamedTuple):
    """A request to be served: from where, how, and into which folder."""

    source: Source
    setting: Unlearning
    checkpoint: Path
    request: str
    out: Path
    place: Path  # where the folder is made: itself, or beside the one it replaces
    models: Checkpoints
    origin: Origin | None
    seed: int
    resume: bool
    save_every: float

    def making(self, name: str, seed: int) -> Making:
        """Return how one of its checkpoints is made."""
        told = {"resume": self.resume, "save_every": self.save_every}
        return Making(self.place / name, seed=seed, **told)


def forget(
    source: DataSource,
    setting: Unlearning,
    checkpoint: Path,
    request: str,
    out: Path = Path("served"),
    retrained: tuple[Path, ...] = (),
    with_retrain: int = 0,
    per_class: int = 50,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    save_every: float = store.SECONDS,
) -> dict[str, Any]:
    """Serve a request whole: unlearn, audit, report; say what to do with the model.

    OUT/unlearned is the new model, a checkpoint for all commands. OUT also holds
    audit.json, report.html and record.json. Without --method the method is chosen
    (--method auto): the one that came nearest to retraining in the studies, for such a
    request, budget and data. The reason is printed and recorded.

    Example, after that of `train`: `jax-unlearn forget --dataset digits --checkpoint
    original --request 3 --with-retrain 3`

    Args:
      source: The data that the model was trained on.
      setting: How; the method may be left out.
      checkpoint: checkpoint of the model, from `train` or `import`, or served by an
        earlier request.
      request: what to forget: a file that lists the samples, by position or with
        --key-column by key; a manifest of `split`; or a class. For a diffusion model
        with captions: a word.
      out: folder that is made.
      retrained: checkpoints of `train --retrain` to compare with. With three or more
        every figure has a verdict.
      with_retrain: number of Retrains to train here, as the original's record says,
        with the seeds after its own, in OUT/retrained-1 and so on. With 0 forget
        samples are compared with unseen ones.
      per_class: number of images drawn of each class, for diffusion models.
      seed: seed of random labels, order and noise.
      resume: go on with a command that was killed, or add Retrains.
      overwrite: replace the folder that is there, once the new one is complete.
      save_every: least seconds between two saves from which a killed run goes on; 0
        saves every step.
    """
    check_seed(seed)
    _validate.at_least("with_retrain", with_retrain, 0, "try 3")
    reads = (checkpoint, *retrained)
    place = _place(out, reads, resume=resume, overwrite=overwrite)
    source = source.like(checkpoint)
    models = audits.read_models(source, checkpoint, request, {}, retrained)
    stored = models.base
    origin = store.origin_of(stored)
    setting = costs.met(setting, origin, models.request, stored.modality)
    if with_retrain and origin is None:
        raise InputError(
            f"with_retrain={with_retrain}: the record of {checkpoint} does not say how "
            "it was trained; train Retrains with `jax-unlearn train --retrain "
            f"--original {checkpoint} --forget {request}` and give them as --retrained"
        )
    made_here = (models, origin, seed, resume, save_every)
    job = Job(source, setting, checkpoint, request, out, place, *made_here)
    fresh = not place.exists()
    try:
        return _served(job, retrained, with_retrain, per_class)
    except BaseException:  # of what was refused nothing stays
        if fresh and place.is_dir() and not any(place.iterdir()):
            place.rmdir()
        raise


def _served(
    job: Job, retrained: Sequence[Path], with_retrain: int, per_class: int
) -> dict[str, Any]:
    """Make what is missing, audit it, and say what follows."""
    out, console = job.out, open_console()
    model = job.making(MODEL, job.seed)
    own = 0 if job.origin is None else job.origin.seed  # Retrains have those after it
    seeds = [(own + n) % (MAX_SEED + 1) for n in range(1, with_retrain + 1)]
    told = {
        "unlearning": job.setting.record(),
        "seed": job.seed,
        "forgotten_sha256": digest(job.models.request.forget),
        "from": identity_at(job.checkpoint),
        "retrained": [identity_at(path) for path in retrained],
        "retrain_seeds": seeds,
    }
    record = job.place / RECORD
    if record.exists():
        before = read_json(record)
        if store.same(before if isinstance(before, dict) else {}, told):
            say(console, f"{out} is complete; nothing to resume")
            say(console, str(before.get("conclusion", "")))
            return {"out": str(out), "complete": True, **before}
    given = job.source, job.setting, job.checkpoint, job.request
    commands.unlearn(*given, model)
    chosen = read_json(model.out / "record.json").get("chosen")
    again = [*retrained, *(_retrain(job, n, s) for n, s in enumerate(seeds, 1))]
    results = _audited(job, again, per_class)
    said = _conclusion(job, results, len(again))
    whole = {
        "format": 1,
        **told,
        "forgotten_as": job.request,
        **({"chosen": chosen} if chosen else {}),
        **({"request": named} if (named := job.models.named.record) else {}),
        "conclusion": said,
        "files": {"model": MODEL, "audit": AUDIT, "report": REPORT},
        **asked_options(),
    }
    if results is None:
        del whole["files"]["audit"], whole["files"]["report"]
    write_atomic(record, to_json(whole), overwrite=True)
    if job.place != out:
        store.replace_folder(out, job.place)
    say(console, f"wrote {out}: {', '.join(whole['files'].values())}, {RECORD}")
    say(console, said)
    return {"out": str(out), **whole, **({"results": results} if results else {})}


def _retrain(job: Job, number: int, seed: int) -> Path:
    """Train on what the request leaves, as the original was; return the checkpoint."""
    models, path = job.models, job.place / f"retrained-{number}"
    assert job.origin is not None
    training, request = job.origin.training, models.request
    told = {
        "training": vars(training),
        "seed": seed,
        "retrain": True,
        **job.source.like(job.checkpoint).record(),
        "without": [],
        "forgotten_sha256": digest(request.forget),
    }
    trainer = Trainer(models.subject, training)
    notes = {"requests": [named]} if (named := models.named.record) else {}
    given = trainer, job.making(path.name, seed), told, notes
    commands.trained_on(*given, ids=request.retain, unseen=request.unseen)
    return path


def _audited(
    job: Job, retrained: Sequence[Path], per_class: int
) -> dict[str, Any] | None:
    """Audit the model and write the report; None where nothing can be audited."""
    out = job.place / AUDIT
    if job.models.base.modality.name != "diffusion":
        asked = job.source, job.checkpoint, job.request, {KEY: job.place / MODEL}
        models = audits.read_models(*asked, retrained)
        again = [
            job.out / one.path.name if one.path.parent == job.place else one.path
            for one in models.retrains
        ]

        def advise(found: Any) -> list[str]:
            if not isinstance(found, Audit):  # the conclusion says it
                return []
            return advice.judged(found, models.labels, again, f"{job.out / REPORT} is")

        how = {"seed": job.seed, "overwrite": True}
        texts = job.models.base.modality.texts
        results = (texts_cli if texts else audits).audited(models, out, advise, **how)
        commands.report(out, job.place / REPORT, overwrite=True)
        return results
    classes = job.models.subject.dataset.class_names
    try:
        if not job.models.named.record:  # of a list: single images
            class_id(job.request, classes)
    except InputError:
        return None  # the audit's classifier knows no other words
    judged = {"judge": Training(), "sampling": Sampling(), "per_class": per_class}
    given = {"original": job.checkpoint, "forget": job.request, "out": out}
    given |= {"unlearned": (job.place / MODEL,), "retrained": tuple(retrained)}
    given |= {"source": job.source, "seed": job.seed, "overwrite": True}
    results = drawn.audited(**judged, **given)
    os.replace(out.with_suffix(".html"), job.place / REPORT)
    return results


def _conclusion(job: Job, results: dict[str, Any] | None, retrains: int) -> str:
    """Return what a person can do with the model now."""
    model = job.out / MODEL
    if results is None:
        return (
            f"No classifier knows {job.request!r}, which is no class: look at images "
            f"of `jax-unlearn sample --checkpoint {model}` before it serves."
        )
    if results["advice"]:
        return " ".join(results["advice"])
    if "unseen" not in results:
        return (
            f"No text was held out to compare with: look at {model} before it serves."
        )
    seconds = sum((job.models.base.record.get("seconds") or {}).values()) or None
    told = {"retrains": retrains, "seconds": seconds, "known": job.origin is not None}
    return service.conclusion(results, KEY, str(model), **told)


def _place(out: Path, reads: Sequence[Path], *, resume: bool, overwrite: bool) -> Path:
    """Return where the folder is made; refuse before the work one that is not ours."""
    check_writable(out / RECORD)
    place = out.with_name(f"{out.name}.new")
    if overwrite and not resume:
        shutil.rmtree(place, ignore_errors=True)
    if not out.exists():
        return out
    if not overwrite and not (out.is_dir() and resume):
        raise InputError(
            f"out={out} exists; give --resume to go on with it, --overwrite to replace "
            "it, or another --out"
        )
    if not overwrite:
        return out
    if not (out / MODEL / RECORD).is_file():
        raise InputError(
            f"out={out} was not made by `forget` (it holds no {MODEL}/{RECORD}): it is "
            "not overwritten; choose another --out"
        )
    for path in reads:
        if out.resolve() in path.resolve().parents:
            raise InputError(
                f"out={out} holds {path}, which is read; choose another --out"
            )
    return place


def chain(
    source: DataSource,
    setting: Unlearning,
    checkpoint: Path,
    requests: tuple[str, ...],
    out: Path = Path("chain"),
    seed: int = 0,
    save_every: float = store.SECONDS,
) -> dict[str, Any]:
    """Serve forget requests one after another on one model; write a ledger of them.

    Give the command again to go on where it was killed, or with more requests after
    those that were served. OUT/request-N is the model after the N-th.

    Example, after that of `train`: `jax-unlearn chain --dataset digits --checkpoint
    original --requests 3 7`

    Args:
      source: The data that the model was trained on.
      setting: how each request is served.
      checkpoint: checkpoint of the model, from `jax-unlearn train` or `import`.
      requests: the requests in their order, one or more: each a file that lists
        samples, or a class, as for `jax-unlearn unlearn`.
      out: folder of the ledger and of the models.
      seed: seed of the first request; each later request has the next number.
      save_every: least seconds between two saves from which a killed run goes on; 0
        saves every step.
    """
    check_seed(seed)
    dataset = source.load_for(checkpoint)
    stored = store.load_model(checkpoint, dataset, modality=setting.modality)
    subject, origin = stored.subject(dataset), store.origin_of(stored)
    held = stored.ids, stored.unseen
    named = [requested(subject, *held, text, source.keys) for text in requests]
    ids = [one.ids for one in named]
    parts = stored.trained, *held, origin
    start = chains.Chain(subject, *parts, reading_of(stored.record))
    blame = setting.method, setting.learning_rate, checkpoint
    with Reporter(open_console(), len(ids)) as progress, blamed(*blame):
        how = {"folder": out, "seed": seed, "save_every": save_every}
        how["records"] = [one.record for one in named]
        served = chains.chain(start, setting, ids, progress=progress, **how)
        seconds = [done.seconds["run"] for done in served]
    record = out / chains.LEDGER
    entries = ledger.read(record)
    for entry, spent in zip(entries, seconds, strict=True):
        print(
            f"request {entry['number']}: forgot {entry['forgotten']}, "
            f"{entry['left']} left, in {spent:.1f} s; model {entry['after'][:12]}"
        )
        for line in entry.get("chosen", {}).get("why", ()):
            print(f"auto: {line}")
        for line in entry.get("certificate", {}).get("says", ()):
            print(line)
    last = out / f"request-{len(ids)}"
    print(f"ledger {record}; the last model is {last}")
    return {"ledger": str(record), "last": str(last), "requests": entries}
