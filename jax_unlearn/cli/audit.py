"""The command that measures: checkpoints, or arrays of outputs of any framework."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from jax_unlearn import _validate
from jax_unlearn import audit as audits
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.cli import console as consoles
from jax_unlearn.cli.attacks import (
    print_alone,
    print_audit,
    print_groups,
    print_unseen,
)
from jax_unlearn.cli.choices import Kind
from jax_unlearn.cli.ensemble import DIVIDERS, By, Probes, ensemble
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.sources import DataSource, Source, asked, refuse_existing
from jax_unlearn.data import write_atomic
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab.arrays import load_outputs, originals_among
from jax_unlearn.lab.catalog import load
from jax_unlearn.lab.checkpoints import Checkpoints, gathered, given_plan
from jax_unlearn.lab.ensembles import NOTHING
from jax_unlearn.lab.modalities.classification.beside import attacked, beside_all
from jax_unlearn.lab.modalities.classification.figures import Table, outputs_of
from jax_unlearn.lab.modalities.classification.probes import PROBES
from jax_unlearn.lab.probes import check_probes, judged, pressed
from jax_unlearn.lab.results import head, to_json

__all__ = ["advised", "audit", "audit_arrays", "audited", "read_models"]

ORIGINALS = ("original", NOTHING)  # what arrays call them


def audit(
    source: DataSource,
    original: Path | None = None,
    forget: str | None = None,
    unlearned: tuple[Path, ...] = (),
    retrained: tuple[Path, ...] = (),
    null: Path | None = None,
    probes: Probes = (),
    arrays: Path | None = None,
    parts: tuple[Path, ...] = (),
    run: Path | None = None,
    kind: Annotated[str, tyro.conf.arg(metavar="{logits,probabilities}")] = "logits",
    metrics: tuple[str, ...] | None = None,
    resamples: int = 20,
    by: By = (),
    all_figures: bool = False,
    out: Path = Path("audit.json"),
    modality: Kind = "classification",
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Measure unlearned models: checkpoints, or arrays of outputs of any framework.

    Checkpoints (--original, --forget, --unlearned) are compared with the original,
    Retrain and a second Retrain, the null. Arrays (--arrays) may hold many models of
    each kind, for attacks that need many. --parts audits the models that `jax-unlearn
    ensemble` made in parts, with their data and request unless others are given.

    Example, after that of `unlearn`: `jax-unlearn audit --dataset digits --original
    original --forget 3 --unlearned unlearned`

    Args:
      source: The data; arrays need none.
      original: checkpoint of the model before unlearning.
      forget: what was to be forgotten, as given to `unlearn`: a file, or a class.
      unlearned: checkpoints to audit.
      retrained: checkpoints of `train --retrain`, each from another seed: the first is
        the target of every figure, the second the null; from three on figures are
        compared with all. With fewer, forget samples are compared with unseen ones,
        too.
      null: a second Retrain, if none is given above: how far two retrainings are apart.
      probes: further tests of each checkpoint, Retrains included: "relearn" (steps
        until the forget set is learned again), "recover" (after a fifth of the forget
        samples was learned again: how many others are right), "recover-retain" (forget
        samples right after fine-tuning on retain samples), "int8" and "int4" (forget
        samples right with rounded weights), "robustness" (test accuracy under PGD),
        "alignment" (forget samples told from unseen ones by the change of weights). Two
        Retrains give target and null, three an interval.
      arrays: .npz file with `labels/PART [n]`, `retrained/PART [N, n, K]` and for each
        method `NAME/PART [N, n, K]`. PART is forget, retain, test or unseen.
      parts: all folders that `jax-unlearn ensemble --part` wrote for the models.
      run: for --parts, the folder of the run whose plan they were made by.
      kind: what the arrays hold, logits or probabilities.
      metrics: figures of the arrays, or groups of them: standard, mia, deviation,
        u_lira, rmia, forgetting, klom, vulnerable, protected, retain, difference; or
        FILE.py:CARD of your own. Default: all that the number of models allows.
      resamples: random divisions of the Retrains for the null (--arrays and --parts).
      by: groups of the forget samples for which figures are given, too. "memorisation",
        "vulnerability": for --parts, or arrays with the originals as `original/PART`;
        half of the originals and Retrains form the groups, the others are audited.
        "confidence": an approximation by one original, for checkpoints too.
      all_figures: print all figures, not only the main ones. The file always holds all.
      out: path of the results, which `jax-unlearn report` reads.
      modality: kind of model. Default: that of the original.
      seed: seed of the samples that the attacks draw.
      overwrite: replace the file if it exists.
    """
    del modality
    refuse_existing(out, overwrite=overwrite)
    check_seed(seed)
    for name in by:
        _validate.one_of("by", name, DIVIDERS)
    if parts:
        if unlearned or retrained or {null, arrays, metrics} != {None}:
            raise InputError(
                f"parts={[str(path) for path in parts]} hold all models; leave "
                "checkpoints, --arrays and --metrics out"
            )
        made_as = {"run": run, "original": original, "forget": forget}
        made_as |= {"resamples": resamples, "by": by, "all_figures": all_figures}
        made_as["probes"] = probes
        return ensemble(source, **made_as, join=parts, out=out)
    if arrays is not None:
        if unlearned or retrained or {original, forget, null} != {None}:
            raise InputError(
                f"arrays={arrays} and checkpoints: give one or the other to audit"
            )
        if probes:
            raise InputError(
                f"probes={list(probes)} take parameters, and {arrays} holds outputs; "
                "leave --probes out, or audit checkpoints"
            )
        how = {"kind": kind, "resamples": resamples, "seed": seed}
        told = {"metrics": metrics, "by": by, "every": all_figures}
        return audit_arrays(arrays, out, **told, **how)
    if metrics is not None:
        raise InputError(f"metrics={list(metrics)} are for --arrays; leave them out")
    if original is None or forget is None or not unlearned:
        raise InputError(
            f"original={original}, forget={forget}, "
            f"unlearned={[str(path) for path in unlearned]}: give all three, or "
            "--arrays FILE.npz, or --parts DIR"
        )
    check_probes(PROBES, probes)
    for name in set(by) - set(audits.PROXIES):
        raise InputError(
            f"by={name!r} divides the samples by many originals, and there is one; "
            f"give --by {' or '.join(audits.PROXIES)}, or make more: jax-unlearn "
            f"ensemble --original {original} --forget {forget} --by {name}"
        )
    if len(retrained) + (null is not None) < FEWEST and by:
        raise InputError(
            f"by={list(by)} takes {FEWEST} Retrains or more, as other figures of a "
            f"single model do; train them by `jax-unlearn train --retrain --original "
            f"{original} --forget {forget} --seed N`, or leave --by out"
        )
    how = {"probes": probes, "by": by, "seed": seed, "every": all_figures}
    given = source, original, forget, unlearned, retrained, null
    return advised(audited, out, *given, overwrite=overwrite, **how)


def advised(
    audited: Callable[..., dict[str, Any]], out: Path, *asked: Any, **how: Any
) -> dict[str, Any]:
    """Read the checkpoints asked for, measure them, and say what follows."""
    source, original, forget, unlearned, retrained, null = asked
    paths = {f"{n}-{path.name}": path for n, path in enumerate(unlearned)}
    models = read_models(source, original, forget, paths, retrained, null)
    given = forget, source.told(), out, null
    results = audited(models, out, lambda found: models.advice(found, *given), **how)
    consoles.say(consoles.open_console(), "\n".join(results["advice"]))
    return results


def audited(
    models: Checkpoints,
    out: Path,
    advise: Callable[[Any], list[str]],
    *,
    probes: Sequence[str] = (),
    by: Sequence[str] = (),
    seed: int = 0,
    every: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Measure checkpoints that were read; write, print and return what was found."""
    subject, request = models.subject, models.request
    table, console = Table(subject, keep=True), consoles.open_console()
    with consoles.status(console, "running the models over the data"):
        models.measure(table, seed)
        outputs = dict(table.outputs)
        more = [outputs_of(subject, one.trained) for one in models.more]
        given = subject.dataset, request, outputs, more
        beside, groups = beside_all(*given, seed=seed, by=by)
        given = {"original": models.base.trained, "seed": seed}
        probed, more = (
            [pressed(subject, one.trained, request, probes, **given) for one in these]
            for these in (models.rows.values(), models.more)
        )
        probed = dict(zip(models.rows, probed, strict=True))
    found = {**table.summary(), "probes": probed if probes else {}}
    if probes:
        found["probe_figures"] = judged(probed, more, len(request.forget), PROBES)
    if isinstance(beside, audits.Audit):
        found["audit"] = audits.to_record(beside)
    else:
        found["unseen"] = beside
        found["alone"] = attacked(subject.dataset, request, outputs, seed=seed)
    found |= {"groups": groups} if by else {}
    found["advice"] = advise(beside)
    plan = head(models.plan(seed), subject.dataset)
    results = {**plan, **asked_options(), **found}
    write_atomic(out, to_json(results), overwrite=overwrite)
    consoles.print_results(console, results)
    consoles.print_probes(console, results)
    consoles.print_legend(console, results)
    if isinstance(beside, audits.Audit):
        print_audit(console, beside, models.labels, every=every)
        print_groups(console, groups, models.labels)
    else:
        print_unseen(console, results)
        print_alone(console, results, every=every)
    print(f"wrote {out}")
    return {"out": str(out), **results}


def read_models(
    source: Source,
    original: Path,
    forget: str,
    unlearned: Mapping[str, Path],
    retrained: Sequence[Path] = (),
    null: Path | None = None,
) -> Checkpoints:
    """Read the checkpoints of an audit, and the data."""
    if null is not None and not retrained:
        raise InputError(
            f"null={null} is compared with a Retrain: give --retrained DIR too"
        )
    given, told = asked(source, original, forget), {"forget": forget, "say": print}
    again = {"retrained": retrained, "null": null, "unlearned": unlearned}
    return gathered(*given, **told, **again)


def audit_arrays(
    file: Path,
    out: Path,
    *,
    metrics: tuple[str, ...] | None,
    seed: int,
    by: Sequence[str] = (),
    every: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Audit outputs of models of any framework; the options are those of `audit`."""
    given = load_outputs(file)
    if metrics is not None:
        metrics = tuple(load(name) if ".py:" in name else name for name in metrics)
    console = consoles.open_console()
    with consoles.status(console, "auditing"):
        how = {"originals": originals_among(given[0]), "metrics": metrics}
        found = audits.audit(*given, seed=seed, **how, **options)
        groups = []
        if by:
            known = [given[0][name] for name in ORIGINALS if name in given[0]]
            if not known:
                raise InputError(
                    f"by={list(by)}: the originals divide the samples, and {file} "
                    "holds none; add their outputs as original/forget, original/retain "
                    "and original/test"
                )
            groups = audits.divided(by, given, known[0], seed=seed, **options)
    plan = given_plan(f"Audit of {file.name}", np.asarray(given[2].forget), seed)
    results = {**head(plan), **asked_options(), "audit": audits.to_record(found)}
    results |= {"groups": groups} if by else {}
    write_atomic(out, to_json(results), overwrite=True)
    print_audit(console, found, every=every)
    print_groups(console, groups)
    consoles.say(console, f"wrote {out}")
    return {"out": str(out), **results}
