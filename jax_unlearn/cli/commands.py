"""The commands on files, for any kind of model: from a split to a report."""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_unlearn import data
from jax_unlearn import report as reports
from jax_unlearn.cli.choices import Kind
from jax_unlearn.cli.console import Reporter, open_console, print_scores
from jax_unlearn.cli.making import Made, Making
from jax_unlearn.cli.messages import warn
from jax_unlearn.cli.sources import DataSource, asked, reading_of
from jax_unlearn.cli.transfer import warn_of_start
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab import costs, rewinds, store
from jax_unlearn.lab.job import Trained, blamed, execute, reporting
from jax_unlearn.lab.logs import TRAINING
from jax_unlearn.lab.modalities import modality_named, modality_of
from jax_unlearn.lab.modalities.language.foreign import identity_at
from jax_unlearn.lab.modalities.language.networks import config_of
from jax_unlearn.lab.modality import weak_attacks
from jax_unlearn.lab.origins import passed_on
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.refusals import kept_statistics
from jax_unlearn.lab.requests import left_out, said_of, set_aside, split_of
from jax_unlearn.lab.results import environment
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Trainer, described, scores, subject_of
from jax_unlearn.language.texts import hiding

__all__ = ["report", "train", "trained_on", "unlearn"]

ORIGINAL, UNLEARNED = Making(Path("original")), Making(Path("unlearned"))


def train(
    source: DataSource,
    training: Any,
    making: Made = ORIGINAL,
    modality: Kind = "classification",
    split: Path | None = None,
    original: Path | None = None,
    retrain: bool = False,
    forget: tuple[str, ...] = (),
    unseen_fraction: float = 0.1,
    keep_every: int = 0,
    plan: bool = False,
    card: str = "",
) -> dict[str, Any]:
    """Train a model from scratch: the original, or Retrain; write a checkpoint.

    Example: `jax-unlearn train --dataset digits --out original`

    Args:
      source: The data.
      training: The network, and how it is trained.
      making: what is made.
      modality: kind of model.
      split: manifest that `jax-unlearn split` wrote. Its unseen samples are held out.
      original: checkpoint to train Retrain like: its training samples, held-out samples
        and settings are used. Options given here replace its own.
      retrain: leave out the samples to forget, those of --split or --forget. This makes
        Retrain, the reference of an audit.
      forget: samples to leave out, which makes Retrain too: files that list them (by
        position, or with --key-column by key), or classes (names or numbers).
      unseen_fraction: share of the samples that is held out of training, if there is
        neither --split nor --original. With 0 no audit can compare with unseen samples.
      keep_every: store the state of the training every so many epochs in OUT.earlier,
        from which `unlearn --method rewind` starts. 0 stores none.
      plan: print how much memory the training of a language model takes, and load
        nothing.
      card: accelerator for --plan: its name (H200, A100, v5e, ...) or its memory in
        gigabytes. "": the one of this machine.
    """
    if plan:
        return planned(training, card)
    seed, kind = check_seed(making.seed), modality_named(modality)
    source = dataclasses.replace(source, texts=source.texts or kind.texts)
    dataset = source.load() if original is None else source.load_for(original)
    labels = dataset.train.labels
    if split is not None and original is not None:
        raise InputError(f"split={split}, original={original}: give one of them")
    if retrain and split is None and not forget:
        raise InputError(
            "retrain=True needs the request: give --split FILE.json or --forget FILE"
        )
    if split is not None:
        parts, unseen = split_of(split, labels)
        ids = parts.retain if retrain else np.union1d(parts.forget, parts.retain)
    elif original is not None:
        stored = store.load_model(original, dataset)
        ids, unseen = stored.ids, stored.unseen
    else:
        ids, unseen = set_aside(labels, unseen_fraction, seed)
    gone = left_out(forget, dataset, source.keys)
    ids = np.setdiff1d(ids, gone.ids)
    if not len(ids):
        raise InputError(
            f"forget={forget}: nothing is left to train on; name fewer samples"
        )
    left = np.setdiff1d(ids if split is None else parts.retain, gone.ids)
    dataset = hiding(dataset, left)
    told = {
        "training": vars(training),
        "seed": seed,
        "retrain": retrain,
        **source.like(original).record(),
        "without": gone.classes,
        **gone.told,
    }
    if original is not None and kind.texts and not training.start:
        subject = like_original(stored, training, dataset)
    else:
        subject = subject_of(training, dataset)
    trainer = Trainer(subject, training)
    warn_of_start(training)
    parts = {"ids": ids, "unseen": unseen, "keep_every": keep_every}
    return trained_on(trainer, making, told, gone.notes, **parts)


def planned(training: Any, card: str) -> dict[str, Any]:
    """Print how much memory a training takes, by what holds it."""
    from jax_unlearn.language.plan import card_of, plan

    if not modality_of(training).texts:
        raise InputError("plan=True is for language models; give --modality language")
    size = card_of(card)
    length = training.length or training.packed or 512
    how = {"batch": training.batch_size, "length": length, "remat": training.remat}
    how["rank"] = training.lora or None
    made = plan(config_of(training), dtype=training.dtype, **how)
    if not training.lora:  # parameters are float32, their own masters
        held = plan(config_of(training), **how)
        names = ("weights", "gradients", "moments", "masters")
        made = made._replace(**{name: getattr(held, name) for name in names})
    if not size and (told := jax.devices()[0].memory_stats()):
        size = told.get("bytes_limit", 0)
    remedies = dict.fromkeys(("logits", "activations"), "give a smaller --batch-size")
    if not training.remat:
        remedies["activations"] = "give --remat, or a smaller --batch-size"
    low = "train adapters: --lora 16 --dtype bfloat16, with --start"
    remedies |= {"state": low, "weights": low}
    if training.lora:
        remedies["weights"] = "give --dtype bfloat16, or take a larger card"
    lines = made.lines(size or None, remedies=remedies)
    print(f"{made.parameters:,} parameters, {training.batch_size} rows of {length}")
    print("\n".join(lines))
    return {"bytes": made._asdict(), "total": made.total, "lines": lines}


def like_original(stored: store.Stored, training: Any, dataset: data.Dataset) -> Any:
    """Return the network of an original of texts, for a training beside it."""
    origin = store.origin_of(stored)
    if origin is None:
        raise InputError(
            f"original={stored.path}: no record says what it was trained from; give "
            "--start, the model that it was tuned from"
        )
    names = ("family", "width", "layers", "heads", "kv_heads", "hidden", "dtype")
    for name in names:
        value, own = getattr(training, name), getattr(origin.training, name)
        if value != own:
            flag = name.replace("_", "-")
            raise InputError(
                f"{name}={value}: with --original the network is the original's, of "
                f"{own}; leave --{flag} out, or --original"
            )
    network = dataclasses.replace(stored.built.network, sha256="")
    return described(stored.modality, network, dataset)


def trained_on(
    trainer: Trainer,
    making: Making,
    told: dict[str, Any],
    notes: Mapping[str, Any],
    *,
    ids: np.ndarray,
    unseen: np.ndarray,
    keep_every: int = 0,
) -> dict[str, Any]:
    """Train on samples, say how that went, and return it."""
    training, seed = trainer.setting, making.seed
    steps, epoch = trainer.steps(len(ids)), rewinds.epoch_of(training, len(ids))
    marks: tuple[int, ...] = ()
    if keep_every:
        marks = rewinds.marks_of(keep_every, steps, epoch)
        notes = {**notes, "kept": {"steps": steps, "epoch": epoch, "every": keep_every}}
    making = dataclasses.replace(making, earlier=bool(marks))

    def make(progress: Reporter, series: Series | None) -> tuple[Trained, dict]:
        callback = reporting(progress, "training", steps)
        if marks:
            run = {**told, "ids_sha256": data.digest(ids)}
            folder = rewinds.folder_of(making.place)
            callback = rewinds.keeping(callback, folder, run, marks)
        with (
            blamed("training", training.learning_rate),
            making.logging(callback, TRAINING) as callback,
        ):
            options = {"callback": callback, "series": series, "marks": marks}
            trained = trainer(ids, seed=seed, **options)
        return trained, {**notes, "environment": environment()}

    made = making(make, told, subject=trainer.subject, ids=ids, unseen=unseen)
    if made is None:
        return {"out": str(making.out), "complete": True}
    trained, seconds = made[0], made[0].seconds
    found = scores(trainer.subject, trained, {"train": ids})
    print_scores(open_console(), found)
    print(
        f"trained on {len(ids)} samples of {trainer.subject.dataset.name} in "
        f"{seconds['run']:.1f} s (compiled in {seconds['compile']:.1f} s); wrote "
        f"{making.out}"
    )
    if marks:
        folder, count = rewinds.folder_of(making.out), len(marks)
        print(f"kept {count} earlier state{'s' * (count > 1)} in {folder}")
    told = {"samples": len(ids), "seconds": seconds, "scores": found}
    return {"out": str(making.out), **told}


def warn_of_cost(
    setting: Unlearning,
    origin: Any,
    request: Any,
    kind: Any,
    checkpoint: Path,
    forget: str,
) -> float | None:
    """Return the counted cost; warn where training anew on what stays costs less."""
    expected = costs.beside(setting, origin, request, kind)
    if expected is None or expected <= 1:
        return expected
    words = ["--original", str(checkpoint), "--retrain", "--forget", forget]
    anew = shlex.join(["jax-unlearn", "train", *words])
    shorter = costs.affordable(setting, origin, request, kind)
    warn(
        f"{setting.method} with these settings costs {100 * expected:.0f} % of "
        "training anew on the samples that stay, which forgets for certain: "
        + (f"give --budget {shorter:g} as its length, or " if shorter else "")
        + f"take `{anew}`, with --data and --out"
    )
    return expected


def unlearn(
    source: DataSource,
    setting: Unlearning,
    checkpoint: Path,
    forget: str,
    making: Made = UNLEARNED,
) -> dict[str, Any]:
    """Make a model forget samples, a class or a word; write a new checkpoint.

    The options depend on the method and on the kind of model: `jax-unlearn unlearn
    METHOD --modality KIND --help` lists them, `jax-unlearn methods` the methods.

    Example, after that of `train`: `jax-unlearn unlearn salun --dataset digits
    --checkpoint original --forget 3`

    Args:
      source: The data that the model was trained on.
      setting: how.
      checkpoint: checkpoint of the model, from `jax-unlearn train`, `import` or an
        earlier `unlearn`.
      forget: what to forget: a file that lists the samples, by position or with
        --key-column by key (.csv, .tsv, .txt, .json, .jsonl, .npy, .npz, .parquet); a
        manifest of `split`; or a class (name or number). For a diffusion model with
        captions: a word. For texts: words that they contain.
      making: what is made.
    """
    seed = check_seed(making.seed)
    if making.log is not None and setting.card.kind != "steps":
        raise InputError(
            f"log={making.log}: {setting.method} takes no steps to log; leave it out"
        )
    stored, subject, request, named = asked(
        source, checkpoint, forget, setting.modality
    )
    if {"unknown", "in_test", "not_trained"} & named.record.keys():
        print(said_of(named.record))
    for warning in subject.modality.warns(subject, request.forget):
        warn(warning)
    ids, steps = request.forget, []
    told = {
        "unlearning": setting.record(),
        "seed": seed,
        "forgotten_sha256": data.digest(ids),
        "dataset_sha256": data.fingerprint(subject.dataset),
    }

    def make(progress: Reporter, series: Series | None) -> tuple[Trained, dict]:
        whole = setting.card.kind == "one-shot"
        origin = store.origin_of(stored, retraced=whole)
        known = {"origin": origin, "concept": named.concept, "series": series}
        prepare, before = Preparer(subject), stored.record.get
        job = prepare(setting, request, stored.trained, seed=seed, **known)
        steps.append(job.steps)
        given = setting, origin, request, subject.modality
        counted = warn_of_cost(*given, checkpoint, forget)
        callback = reporting(progress, setting.method, job.steps)
        at, key = stored.trained[:2], jax.random.key(seed)
        with (
            blamed(setting.method, setting.learning_rate, checkpoint),
            making.logging(callback) as callback,
        ):
            trained = execute(job, at, key, callback=callback, series=series)
        seconds, share = stored.record.get("seconds", {}), 0.0
        if origin is not None and stored.record.get("training"):  # Retrain's, by size
            share = seconds.get("run", 0.0) * len(request.retain) / len(stored.ids)
        chosen = job.details.get("chosen", {})
        spent = trained.seconds["run"] + sum(chosen.get("seconds", ()))  # attempts
        cost = {
            "counted": chosen.get("cost", counted),
            "measured": spent / share if share else None,
        }
        earlier = {"ids_sha256": before("ids_sha256"), "earlier": before("unlearning")}
        return trained, {
            "forgotten": len(ids),
            "forgotten_as": forget,
            **({"request": named.record} if named.record else {}),
            "reduce": 1,
            **reading_of(stored.record),
            "from": earlier,
            **passed_on(stored.record),
            **job.details,
            "cost": cost,
            "environment": environment(),
            **({} if trained.stopped is None else {"stopped": trained.stopped}),
        }

    run = {"from": identity_at(checkpoint)}
    parts = {"ids": request.retain, "unseen": stored.unseen}
    made = making(make, told, subject=subject, run=run, **parts)
    if made is None:
        return {"out": str(making.out), "complete": True}
    (unlearned, notes), seconds = made, made[0].seconds
    if unlearned.stopped is not None:
        step, reason = unlearned.stopped["step"], unlearned.stopped["reason"]
        print(f"stopped after step {step} of {steps[0]}: {reason}")
    for line in notes.get("chosen", {}).get("why", ()):
        print(f"{setting.method}: {line}")
    for line in notes.get("certificate", {}).get("says", ()):
        print(line)
    for warning in (*weak_attacks(notes), *kept_statistics(notes)):
        warn(warning)
    sets = {"forget": ids, "retain": request.retain}
    before, after = (scores(subject, m, sets) for m in (stored.trained, unlearned))
    print_scores(open_console(), before, after)
    print(
        f"forgot {len(ids)} of {len(stored.ids)} samples in {seconds['run']:.1f} s "
        f"(prepared in {seconds['prepare']:.1f} s, compiled in "
        f"{seconds['compile']:.1f} s); wrote {making.out}"
    )
    if (counted := notes["cost"]["counted"]) is not None:
        clock = notes["cost"]["measured"]
        also = "" if clock is None else f", {100 * clock:.3g} % by the clock"
        print(f"cost: {100 * counted:.3g} % of Retrain's gradients of samples{also}")
    return {
        "out": str(making.out),
        "cost": notes["cost"],
        **({"chosen": notes["chosen"]} if "chosen" in notes else {}),
        "forgotten": len(ids),
        "left": len(request.retain),
        "seconds": seconds,
        "stopped": unlearned.stopped,
        "scores": {"before": before, "after": after},
    }


def report(
    results: Path = Path("audit.json"),
    out: Path = Path("report.html"),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw the report of an audit or of a whole run, one self-contained page.

    Example, after that of `audit`: `jax-unlearn report --results audit.json`

    Args:
      results: audit.json of `jax-unlearn audit`, or results.json of a run.
      out: path of the page that is written.
      overwrite: replace the page if it exists.
    """
    page = reports.write(reports.load_results(results), out, overwrite=overwrite)
    print(f"wrote {page}")
    return {"out": str(page)}
