"""The studies on digits: twelve methods, all methods, and a chain of requests.

600 of the 1,000 training images are used for training. The request is for 30 % of them,
long-tailed over the classes (γ = 1). Each method has the settings of the best of twelve
trials, on seeds that no table uses; in the table of all methods, the twelve keep their
settings. UNSIR, which forgets a whole class, and DeltaGrad, which follows the training
of a linear network by full batches, have tables of their own, beside other methods.

The chain is for 120 of the 600 images, in ten random requests of 12. Each is served
from the model of the request before. The last model is compared with a Retrain without
all 120, with the null, and with forgetting the 120 at once.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn.data import Dataset, check_writable
from jax_unlearn.lab import Bench, Plan, Training
from jax_unlearn.lab.chain import Chain, chain
from jax_unlearn.lab.experiment import phases, references
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.results import dataset_record
from jax_unlearn.recipes.recipe import (
    Asked,
    Recipe,
    declared,
    keep,
    packaged,
    seed_by_seed,
    shortened,
)
from jax_unlearn.recipes.study import Part, studied

__all__ = ["CHAIN_DIGITS", "DEMO_DIGITS", "FIELD_DIGITS", "chain_plan", "digits_plan"]

_GRIDS = packaged("grids/digits.toml")
_LONG_TAILED = Part("forget 30 %, long-tailed", "long_tailed", 0.3)
_LINEAR = Training(
    "linear", epochs=200, batch_size=1000, momentum=0.0, learning_rate=0.5
)

DEMO_DIGITS = studied("demo-digits", {"demo": _LONG_TAILED.but(grid=_GRIDS["demo"])})
"""What `jax-unlearn` does without a command."""


def digits_plan(*, seeds: Sequence[int] | None = None) -> Plan:
    """Return the plan of the default job, by default with seeds 0 to 4."""
    return DEMO_DIGITS.study.plan("demo", seeds=seeds)


FIELD_DIGITS = studied(
    "field-digits",
    {
        "field": _LONG_TAILED.but(
            title="all methods, long-tailed",
            grid=_GRIDS["field"],
            more=(lambda settings: {**digits_plan().methods, **settings},),
        ),
        "class": Part("forget a class", "class", 1.0, grid=_GRIDS["class"]),
        "linear": Part(
            *("a linear network, 10 % at random", "random", 0.1),
            grid=_GRIDS["linear"],
            training=_LINEAR,
        ),
    },
)

TRAINING = DEMO_DIGITS.study.training
METHODS = ("FT", "RL", "SalUn", "RL + LoReUn (dynamic)")
REQUESTS = 10


def chain_plan(seeds: tuple[int, ...] | None = None) -> Plan:
    """Return the plan of all ten requests together, by default with seeds 0 to 2."""
    demo = digits_plan(seeds=(0, 1, 2) if seeds is None else seeds)
    return dataclasses.replace(
        demo,
        title="Digits: ten requests of 2 %, one after another",
        kind="random",
        fraction=0.2,
        training=TRAINING,
        methods={name: demo.methods[name] for name in METHODS},
        note="The settings are those of the recipe demo-digits.",
    )


def _run(_recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    """Write ledgers, and results of each method at once and request by request."""
    plan, screen = chain_plan(asked.seeds), asked.screen
    check_writable(folder / "results.json")
    with screen.progress(phases(plan)) as progress:
        bench = Bench(plan, dataset, progress, folder=folder / "checkpoints")
        preparer, table = Preparer(bench.subject), bench.table(None)
        results = seed_by_seed(
            plan,
            folder / "results.json",
            lambda seed: _one_seed(bench, preparer, table, folder / "chains", seed),
            lambda _: {
                "plan": {"title": plan.title, "seeds": list(plan.seeds)},
                "requests": REQUESTS,
                "dataset": dataset_record(dataset),
                **table.summary(),
            },
        )
    screen.show([results])
    keep(screen, folder / "short.json", shortened(results))


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


CHAIN_DIGITS = declared("chain-digits", _run)
