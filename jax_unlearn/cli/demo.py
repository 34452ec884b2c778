"""The main job on digits."""

from pathlib import Path

import jax

from jax_unlearn.cli import console as consoles
from jax_unlearn.cli.sources import clear_run, free_path
from jax_unlearn.data import digits
from jax_unlearn.errors import InputError
from jax_unlearn.lab import experiment
from jax_unlearn.lab.store import SECONDS


def demo(
    out: Path | None = None,
    seeds: tuple[int, ...] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    save_every: float = SECONDS,
) -> None:
    """Forget a long-tailed request on digits with ten methods; compare with retraining.

    Args:
      out: folder of the run; default runs/digits, or the first free of runs/digits-2, …
      seeds: of splits, models and methods; default those of the recipe.
      overwrite: replace the run that stands in the folder.
      resume: go on with the run in the folder, default runs/digits, where it stopped.
      save_every: least seconds between two saves to go on from; 0 saves every step.
    """
    from jax_unlearn import report as reports
    from jax_unlearn.recipes.digits import digits_plan

    console = consoles.open_console()
    plan = digits_plan() if seeds is None else digits_plan(seeds=seeds)
    if resume:
        if overwrite:
            raise InputError("resume=True goes on with a run: leave --overwrite out")
        folder = Path("runs/digits") if out is None else out
    else:
        folder = free_path(Path("runs/digits")) if out is None else out
        clear_run(folder, overwrite=overwrite)
    console.print(
        f"{plan.title}: {len(plan.methods)} methods, {len(plan.seeds)} seeds, on "
        f"{jax.devices()[0].device_kind}; writing {folder}",
        markup=False,
    )
    phases = len(plan.seeds) * (3 + len(plan.methods))
    with consoles.Reporter(console, phases) as progress:
        results = experiment(
            plan,
            digits(),
            folder,
            progress=progress,
            resume=resume,
            save_every=save_every,
        )
    with consoles.status(console, "drawing the report"):
        page = reports.write(results, folder / "report.html", overwrite=resume)
    consoles.print_results(console, results)
    consoles.print_legend(console)
    consoles.say(console, f"report: {page}")
