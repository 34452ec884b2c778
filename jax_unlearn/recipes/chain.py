"""Ten requests one after another on one model, against one retrain at the end.

120 of the 600 digits the model was trained on, in ten requests of 12, drawn at random.
Each is served from the model that the one before it left, and entered in a ledger.
What the tenth leaves is compared with one Retrain without all 120, with its null, and
with forgetting the 120 at once. Settings are those of the default job: chosen for one
request of 180, on other seeds.
"""

from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn.data import Dataset, check_writable, write_atomic
from jax_unlearn.lab import Plan
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.chain import Chain, chain
from jax_unlearn.lab.experiment import references
from jax_unlearn.lab.job import Progress
from jax_unlearn.lab.modalities.classification.figures import Table
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.results import dataset_record, shortened, to_json
from jax_unlearn.recipes.digits import TRAINING, UNSEEN, digits_plan
from jax_unlearn.recipes.recipe import Asked, Recipe, seed_by_seed

METHODS = ("FT", "RL", "SalUn", "RL + LoReUn (dynamic)")
REQUESTS = 10


def chain_plan(seeds: tuple[int, ...] = (0, 1, 2)) -> Plan:
    """Return the plan of all ten requests together.

    >>> sorted(chain_plan().methods)
    ['FT', 'RL', 'RL + LoReUn (dynamic)', 'SalUn']
    """
    chosen = digits_plan().methods
    return Plan(
        title="Digits: ten requests of 2 %, one after another",
        kind="random",
        fraction=0.2,
        gamma=1.0,
        unseen=UNSEEN,
        training=TRAINING,
        methods={name: chosen[name] for name in METHODS},
        seeds=seeds,
        note="Settings of the default job.",
    )


def chain_study(
    plan: Plan, dataset: Dataset, folder: Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Run the plan; write a ledger a method and seed, and results after every seed.

    Models made before are not made again; chains go on where they were.

    Args:
      plan: of `chain_plan`.
      dataset: digits.
      folder: of the run.
      progress: called as training and unlearning go on.

    Returns:
      Results as those of an experiment, a row for each method all at once and one for
      it request by request.

    Raises:
      InputError: a folder with models of another plan, or in use by another run.
    """
    bench = Bench(plan, dataset, progress, folder=folder / "checkpoints")
    preparer = Preparer(bench.subject)
    table = Table(bench.subject)

    def one(seed: int) -> int:
        _one_seed(bench, preparer, table, folder / "chains" / f"seed-{seed}", seed)
        return seed

    def gather(seeds: list[int]) -> dict[str, Any]:
        return {
            "plan": {"title": plan.title, "seeds": list(plan.seeds)},
            "requests": REQUESTS,
            "dataset": dataset_record(dataset),
            **table.summary(),
        }

    return seed_by_seed(plan, folder / "results.json", one, gather)


def _one_seed(
    bench: Bench, preparer: Preparer, table: Table, chains: Path, seed: int
) -> None:
    """Serve the requests of a seed by every method, at once and one by one."""
    case = bench.case(seed)
    request, original = case.request, references(bench, table, case).original
    shuffled = np.random.default_rng(seed).permutation(request.forget)
    parts = np.array_split(shuffled, REQUESTS)
    ids = np.union1d(request.forget, request.retain)
    for name, setting in bench.plan.methods.items():
        once = bench.unlearn(name, setting, case, original).trained
        key, label = f"{slug(name)}-at-once", f"{name}, at once"
        table.add(key, label, once, setting)
        folder = chains / slug(name)
        start = Chain(bench.subject, original, ids, request.unseen)
        told = {"folder": folder, "seed": seed, "preparer": preparer}
        made = chain(start, setting, parts, **told)
        served = list(made)
        kinds = ("prepare", "compile", "run")
        seconds = {k: sum(one.seconds[k] for one in served) for k in kinds}
        key, label = f"{slug(name)}-chain", f"{name}, ten requests"
        table.add(key, label, served[-1]._replace(seconds=seconds), setting)


def _run(recipe: Recipe, asked: Asked) -> None:
    """Run ten requests one after another; print the table, write the results."""
    screen, folder = asked.screen, recipe.folder(asked)
    plan = chain_plan() if asked.seeds is None else chain_plan(asked.seeds)
    dataset = recipe.load(asked)
    check_writable(folder / "results.json")
    with screen.progress(len(plan.seeds) * (3 + len(plan.methods))) as progress:
        results = chain_study(plan, dataset, folder, progress=progress)
    screen.show([results])
    text = to_json(shortened(results))
    path = write_atomic(folder / "short.json", text, overwrite=True)
    screen.say(f"short results: {path}")


CHAIN_DIGITS = Recipe(
    name="chain-digits",
    title="Digits: ten forget requests, one after another",
    what="ten forget requests one after another, a ledger",
    start=_run,
    cpu="2 min",
    page="chain",
)
