"""Ensembles: many models of one request, made here and audited."""

import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from jax_unlearn import audit as audits
from jax_unlearn import report as reports
from jax_unlearn._validate import at_least, one_of
from jax_unlearn.cli.console import Reporter, open_console, print_audit, say, status
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.sources import DataSource
from jax_unlearn.data import Dataset, digits, fingerprint
from jax_unlearn.data.files import check_writable, read_json, write_atomic
from jax_unlearn.drivers.ensemble import HOWS, local_mesh
from jax_unlearn.errors import InputError
from jax_unlearn.lab.arrays import save_outputs
from jax_unlearn.lab.ensembles import audit_of, run_ensembles
from jax_unlearn.lab.plan import Plan, plan_of
from jax_unlearn.lab.results import head, to_json
from jax_unlearn.lab.store import SECONDS
from jax_unlearn.recipes.digits import digits_plan


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
    at_least("resamples", resamples, 2, "try 20")
    if methods is not None and not methods:
        raise InputError("methods=(): name one or more, or leave it out for all")
    one_of("how", how, ("auto", *HOWS))
    check_writable(out / "outputs.npz")
    given = source.dataset is not None or source.data is not None
    dataset = source.load() if given else digits()
    if run is not None:
        record = read_json(run / "config.json")
        found = record.get("dataset") if isinstance(record, dict) else None
        found = found if isinstance(found, dict) else {}
        if found.get("fingerprint") != fingerprint(dataset):
            raise InputError(
                f"run={run} is of data set {found.get('name')!r}, not of these data; "
                "give --data or --dataset of that run"
            )
        plan = plan_of(record, name=f"run={run}")
    elif given:
        raise InputError("run=None takes the demo's plan, which brings its data")
    else:
        plan = digits_plan()
    for name in methods or ():
        one_of("method", name, plan.methods)
    chosen = plan.methods if methods is None else methods
    counts = {"models": models, "chunk": chunk, "resamples": resamples}
    asked = open_console(), plan, dataset, out
    audited(*asked, methods=chosen, how=how, save_every=save_every, **counts)


def audited(
    console: Console,
    plan: Plan,
    dataset: Dataset,
    out: Path,
    *,
    methods: Iterable[str],
    models: int,
    chunk: int = 16,
    how: str = "auto",
    resamples: int = 20,
    **options: Any,
) -> None:
    """Make models for a plan's first seed as `ensemble` does, audit them, and tell."""
    chosen = {name: plan.methods[name] for name in methods}
    phases = -(-models // max(chunk, 1)) * (2 + len(chosen))
    with Reporter(console, phases) as progress:
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
            say=functools.partial(say, console),
            **options,
        )
    with status(console, "auditing"):
        found, given = audit_of(made, plan.training, resamples=resamples)
    file = save_outputs(out / "outputs.npz", *given)
    told = {
        **plan.record(),
        "title": f"{plan.title}: {models} models",
        "seeds": [plan.seeds[0]],
        "forgotten": found.forgotten,
    }
    record = audits.to_record(found)
    results = {**head(told, dataset), **asked_options()}
    results |= {"seconds": made.seconds, "audit": record}
    write_atomic(out / "results.json", to_json(results), overwrite=True)
    page = reports.write(results, out / "report.html", overwrite=True)
    print_audit(console, found)
    say(console, f"outputs: {file}\nreport: {page}")
