"""The command that measures: checkpoints, or arrays of outputs of any framework."""

from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn import audit as audits
from jax_unlearn.cli.commands import forget_ids
from jax_unlearn.cli.console import (
    open_console,
    print_legend,
    print_probes,
    print_results,
    status,
)
from jax_unlearn.cli.figures import print_audit
from jax_unlearn.cli.sources import DataSource, refuse_existing
from jax_unlearn.data import Dataset, digest, write_atomic
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab import Request, Unlearning
from jax_unlearn.lab.arrays import load_outputs
from jax_unlearn.lab.models import Stored, load_model
from jax_unlearn.lab.probes import check_probes, probe
from jax_unlearn.lab.results import (
    NULL,
    ORIGINAL,
    RETRAIN,
    Table,
    dataset_record,
    environment,
    to_json,
)
from jax_unlearn.lab.stages import outputs_of


def audit(
    source: DataSource,
    original: Path | None = None,
    forget: Path | None = None,
    unlearned: tuple[Path, ...] = (),
    retrained: Path | None = None,
    null: Path | None = None,
    probes: tuple[str, ...] = (),
    arrays: Path | None = None,
    kind: str = "logits",
    metrics: tuple[str, ...] | None = None,
    resamples: int = 20,
    out: Path = Path("audit.json"),
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
      forget: ids that were to be forgotten, as given to `unlearn`.
      unlearned: checkpoints to audit.
      retrained: checkpoint of `train --retrain`, the target of every figure.
      null: the same from another seed: how far two retrainings are apart.
      probes: of each checkpoint: "relearn" (steps until the forget set is learned
        again), "robustness" (test accuracy under PGD).
      arrays: .npz file with `labels/PART [n]`, `retrained/PART [N, n, K]` and, of one
        method or more, `NAME/PART [N, n, K]`; PART is forget, retain, test or unseen.
      kind: what the arrays hold: "logits" or "probabilities".
      metrics: groups of figures of the arrays: standard, mia, deviation, u_lira, rmia,
        forgetting, klom; default what the number of models allows.
      resamples: divisions of the retrained models in the arrays, for the null.
      out: file to write, for `jax-unlearn report`.
      seed: of the attacks' samples.
      overwrite: replace the file if it exists.
    """
    refuse_existing(out, overwrite=overwrite)
    check_seed(seed)
    if arrays is not None:
        checkpoints = (original, forget, retrained, null)
        if unlearned or any(path is not None for path in checkpoints):
            raise InputError(
                f"arrays={arrays} and checkpoints: give one or the other to audit"
            )
        audit_arrays(arrays, out, kind, metrics, resamples, seed)
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
    dataset = source.load()
    base = load_model(original, dataset)
    ids = forget_ids(forget, dataset, base)
    if null is not None and retrained is None:
        raise InputError(
            f"null={null} needs a Retrain to stand beside: --retrained DIR"
        )
    request = Request(ids, np.setdiff1d(base.ids, ids), base.unseen)
    table = Table(dataset)
    console = open_console()
    references: dict[str, Stored] = {}
    for key, path in ((RETRAIN, retrained), (NULL, null)):
        if path is not None:
            references[key] = _honest_retrain(path, dataset, request)
    with status(console, "running the models over the data"):
        target = references.get(RETRAIN)
        table.start(request, target and _outputs(target, dataset), seed)
        labels = {RETRAIN: "Retrain", NULL: "Null (Retrain, other seed)"}
        for key, stored in references.items():
            _add_row(table, key, labels[key], stored, dataset)
        _add_row(table, ORIGINAL, "Original (nothing done)", base, dataset)
        models = {**references, ORIGINAL: base}
        for number, path in enumerate(unlearned):
            stored, key = load_model(path, dataset), f"{number}-{path.name}"
            _add_row(table, key, path.name, stored, dataset)
            models[key] = stored
        probed = {
            key: probe(s.model, s.trained, dataset, request, probes, seed=seed)
            for key, s in models.items()
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


def audit_arrays(
    file: Path,
    out: Path,
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
    console = open_console()
    with status(console, "auditing"):
        found = audits.audit(
            unlearned,
            retrained,
            labels,
            kind=kind,
            metrics=metrics,
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


def _honest_retrain(path: Path, dataset: Dataset, request: Request) -> Stored:
    """Return a retrained model that has not seen a forget sample."""
    stored = load_model(path, dataset)
    seen = np.intersect1d(stored.ids, request.forget)
    if "unlearning" in stored.record or seen.size:
        raise InputError(
            f"checkpoint {path} is no retraining: it was trained on {seen.size} of the "
            f"{len(request.forget)} forget samples or unlearned from a model that was; "
            "use `jax-unlearn train --retrain --split FILE`"
        )
    return stored


def _outputs(stored: Stored, dataset: Dataset) -> Any:
    return outputs_of(stored.model, stored.trained, dataset)


def _add_row(
    table: Table, key: str, label: str, stored: Stored, dataset: Dataset
) -> None:
    setting = stored.record.get("unlearning")
    table.add(
        key,
        label,
        _outputs(stored, dataset),
        stored.record.get("seconds", {}),
        None if setting is None else Unlearning(**setting),
    )
