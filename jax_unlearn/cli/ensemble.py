"""Audits of many models: of arrays of any framework, and of ensembles made here."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jax_unlearn import audit as audits
from jax_unlearn.audit import ModelOutputs, PartLabels
from jax_unlearn.cli.console import Reporter, open_console, status
from jax_unlearn.cli.figures import print_audit
from jax_unlearn.cli.sources import DataSource, Source
from jax_unlearn.data import (
    Dataset,
    check_writable,
    digits,
    fingerprint,
    read_json,
    write_atomic,
)
from jax_unlearn.drivers.ensemble import HOWS, local_mesh
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab.arrays import save_outputs
from jax_unlearn.lab.ensembles import Ensembles, run_ensembles
from jax_unlearn.lab.modalities import modality_of
from jax_unlearn.lab.plan import Plan, plan_of
from jax_unlearn.lab.results import dataset_record, environment, to_json
from jax_unlearn.lab.store import SECONDS


def ensemble(
    source: DataSource,
    run: Path | None = None,
    models: int = 16,
    methods: tuple[str, ...] | None = None,
    chunk: int = 16,
    how: str = "auto",
    resamples: int = 20,
    out: Path = Path("runs/ensemble"),
    save_every: float = SECONDS,
) -> None:
    """Train, unlearn and audit many models of one request; go on where it stopped.

    Args:
      source: the data; none given takes digits.
      run: folder of a run, whose plan is taken (its first seed's request); default the
        plan of the demo.
      models: N, unlearned models of each method, and Retrains. U-LiRA needs 8.
      methods: labels in the plan; default all of them.
      chunk: models in one program, as many as memory allows; spread over the devices
        here if they divide it and the number of models.
      how: "vmap", "map", "loop", or "auto": what is fastest here.
      resamples: divisions of the Retrains for the null.
      out: folder; the models found there are not made again.
      save_every: least seconds between two saves to go on from; 0 saves every step.
    """
    if resamples < 2:
        raise InputError(f"resamples={resamples} must be at least 2; try 20")
    if methods is not None and not methods:
        raise InputError("methods=(): name one or more, or leave it out for all")
    if how not in ("auto", *HOWS):
        raise unknown_name("how", how, ("auto", *HOWS))
    check_writable(out / "outputs.npz")
    plan, dataset = _planned(source, run)
    for name in methods or ():
        if name not in plan.methods:
            raise unknown_name("method", name, plan.methods)
    audited(
        open_console(),
        plan,
        dataset,
        out,
        methods=plan.methods if methods is None else methods,
        models=models,
        chunk=chunk,
        how=how,
        resamples=resamples,
        save_every=save_every,
    )


def audited(
    console: Any,
    plan: Plan,
    dataset: Dataset,
    out: Path,
    *,
    methods: Iterable[str],
    models: int,
    chunk: int = 16,
    how: str = "auto",
    resamples: int = 20,
    save_every: float = SECONDS,
) -> None:
    """Make the models of a plan and audit them; print and write what is found.

    Args:
      console: to print on.
      plan: whose methods are made, for the request of its first seed.
      dataset: its data.
      out: folder.
      methods: labels in the plan.
      models: as of `ensemble`, like the rest.
      chunk: as there.
      how: as there.
      resamples: as there.
      save_every: as there.
    """
    from jax_unlearn import report as reports

    chosen = {name: plan.methods[name] for name in methods}

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    with Reporter(console, _phases(models, chunk, len(chosen))) as progress:
        made = run_ensembles(
            plan,
            dataset,
            out,
            count=models,
            methods=chosen,
            chunk=chunk,
            how=how,
            mesh=None if how == "loop" else local_mesh(math.gcd(models, chunk)),
            progress=progress,
            say=say,
            save_every=save_every,
        )
    labels, outputs = outputs_of_ensembles(made)
    retrained = outputs.pop("retrain")
    with status(console, "auditing"):
        groups = modality_of(plan.training).metrics
        figures = [c for c in audits.FIGURES if groups is None or c.group in groups]
        given = outputs, retrained, labels
        found = audits.audit(*given, figures=figures, resamples=resamples)
    file = save_outputs(out / "outputs.npz", outputs, retrained, labels)
    results: dict[str, Any] = {
        "format": 1,
        "plan": {
            **plan.record(),
            "title": f"{plan.title}: {models} models",
            "seeds": [plan.seeds[0]],
            "forgotten": found.forgotten,
        },
        "dataset": dataset_record(dataset),
        "environment": environment(),
        "seconds": made.seconds,
        "audit": audits.to_record(found),
    }
    write_atomic(out / "results.json", to_json(results), overwrite=True)
    page = reports.write(results, out / "report.html", overwrite=True)
    print_audit(console, found)
    say(f"outputs: {file}\nreport: {page}")


def outputs_of_ensembles(
    made: Ensembles,
) -> tuple[PartLabels, dict[str, ModelOutputs]]:
    """Return the labels, and the outputs by role; "original" is one more method."""
    outputs = {
        "doing nothing" if role == "original" else role: ModelOutputs(**logits)
        for role, logits in made.logits.items()
    }
    return PartLabels(**made.labels), outputs


def _planned(source: Source, run: Path | None) -> tuple[Plan, Dataset]:
    """Return the plan and its data."""
    from jax_unlearn.recipes.digits import digits_plan

    given = source.dataset is not None or source.data is not None
    dataset = source.load() if given else digits()
    if run is None:
        if given:
            raise InputError("run=None takes the demo's plan, which brings its data")
        return digits_plan(), dataset
    record = read_json(run / "config.json")
    found = record.get("dataset") if isinstance(record, dict) else None
    found = found if isinstance(found, dict) else {}
    if found.get("fingerprint") != fingerprint(dataset):
        raise InputError(
            f"run={run} is of data set {found.get('name')!r}, not of these data; give "
            "--data or --dataset of that run"
        )
    return plan_of(record, name=f"run={run}"), dataset


def _phases(models: int, chunk: int, methods: int) -> int:
    return -(-models // max(chunk, 1)) * (2 + methods)
