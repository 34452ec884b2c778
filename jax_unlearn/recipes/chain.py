"""Ten requests one after another on one model, against one retrain at the end.

120 of the 600 digits the model was trained on, in ten requests of 12, drawn at random.
Each is served from the model that the one before it left, and entered in a ledger.
What the tenth leaves is compared with one Retrain without all 120, with its null, and
with forgetting the 120 at once. Settings are those of the default job: chosen for one
request of 180, on other seeds.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn.data import Dataset, check_writable
from jax_unlearn.lab import Bench, Plan
from jax_unlearn.lab.chain import Chain, chain
from jax_unlearn.lab.experiment import phases, references
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.results import dataset_record
from jax_unlearn.recipes.digits import TRAINING, digits_plan
from jax_unlearn.recipes.recipe import Asked, Recipe, keep, seed_by_seed

METHODS = ("FT", "RL", "SalUn", "RL + LoReUn (dynamic)")
REQUESTS = 10


def chain_plan(seeds: tuple[int, ...] | None = None) -> Plan:
    """Return the plan of all ten requests together, by default with seeds 0 to 2.

    >>> sorted(chain_plan().methods)
    ['FT', 'RL', 'RL + LoReUn (dynamic)', 'SalUn']
    """
    demo = digits_plan(seeds=(0, 1, 2) if seeds is None else seeds)
    return dataclasses.replace(
        demo,
        title="Digits: ten requests of 2 %, one after another",
        kind="random",
        fraction=0.2,
        training=TRAINING,
        methods={name: demo.methods[name] for name in METHODS},
        note="Settings of the default job.",
    )


def _run(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    """Write a ledger a method and seed, and results after every seed.

    Models made before are not made again; chains go on where they were. The results are
    as those of an experiment, a row for each method all at once and one for it request
    by request.
    """
    del recipe
    plan, screen = chain_plan(asked.seeds), asked.screen
    check_writable(folder / "results.json")
    with screen.progress(phases(plan)) as progress:
        bench = Bench(plan, dataset, progress, folder=folder / "checkpoints")
        preparer, table = Preparer(bench.subject), bench.table(None)

        def gather(seeds: list[int]) -> dict[str, Any]:
            del seeds
            return {
                "plan": {"title": plan.title, "seeds": list(plan.seeds)},
                "requests": REQUESTS,
                "dataset": dataset_record(dataset),
                **table.summary(),
            }

        results = seed_by_seed(
            plan,
            folder / "results.json",
            lambda seed: _one_seed(bench, preparer, table, folder / "chains", seed),
            gather,
        )
    screen.show([results])
    keep(screen, folder / "short.json", results)


def _one_seed(
    bench: Bench, preparer: Preparer, table: Any, folder: Path, seed: int
) -> None:
    """Serve the requests of a seed by every method, at once and one by one."""
    case = bench.case(seed)
    request, original = case.request, references(bench, table, case).original
    shuffled = np.random.default_rng(seed).permutation(request.forget)
    parts = np.array_split(shuffled, REQUESTS)
    ids = np.union1d(request.forget, request.retain)
    start = Chain(bench.subject, original, ids, request.unseen)
    for name, setting in bench.plan.methods.items():
        once = bench.unlearn(name, setting, case, original).trained
        table.add(f"{slug(name)}-at-once", f"{name}, at once", once, setting)
        ledger = folder / f"seed-{seed}" / slug(name)
        given = {"folder": ledger, "seed": seed, "preparer": preparer}
        *before, last = chain(start, setting, parts, **given)
        kinds = ("prepare", "compile", "run")
        seconds = {k: sum(one.seconds[k] for one in (*before, last)) for k in kinds}
        served = last._replace(seconds=seconds)
        table.add(f"{slug(name)}-chain", f"{name}, ten requests", served, setting)


CHAIN_DIGITS = Recipe(
    name="chain-digits",
    title="Digits: ten forget requests, one after another",
    what="ten forget requests one after another, a ledger",
    start=_run,
    cpu="2 min",
    page="chain",
)
