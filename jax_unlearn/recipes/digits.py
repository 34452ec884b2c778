"""The default job: a long-tailed request on scikit-learn's digits.

600 of the 1,000 training images are trained on, 400 are held out as unseen data. The
request asks for 30 % of the 600, long-tailed over the classes (γ = 1): the head class
gives up most of its images. The settings of the methods are chosen by `search`, with an
equal number of trials for each, on seeds that the job itself does not use.
"""

import dataclasses
import importlib.resources
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import digits
from jax_unlearn.errors import NonFiniteError
from jax_unlearn.pipeline import Bench, Plan, Training, Unlearning, draw_request
from jax_unlearn.pipeline.results import environment
from jax_unlearn.pipeline.stages import measure

SEEDS = (0, 1, 2, 3, 4)
SEARCH_SEEDS = (100, 101, 102, 103)
SETTINGS = "digits_settings.json"
TRAINING = Training(network="small_cnn", width=8, epochs=40, learning_rate=0.1)

_RELABEL = {
    "learning_rate": (0.001, 0.003, 0.01, 0.03),
    "epochs": (2, 4, 8),
}
_LOREUN = {
    "temperature": (0.3, 1.0),
    "learning_rate": (0.001, 0.003, 0.01),
    "epochs": (2, 4),
}

GRIDS: dict[str, tuple[dict[str, Any], dict[str, Sequence[Any]]]] = {
    "FT": (
        {"method": "finetune"},
        {"learning_rate": (0.03, 0.1, 0.2, 0.3), "epochs": (5, 10, 20)},
    ),
    "GA": (
        {"method": "gradient_ascent"},
        {"learning_rate": (0.0003, 0.001, 0.002, 0.003), "epochs": (5, 10, 20)},
    ),
    "RL": ({"method": "random_label"}, _RELABEL),
    "SalUn": ({"method": "salun"}, _RELABEL),
    "RL + LoReUn (static)": (
        {"weighting": "loreun_static", "relative": True},
        _LOREUN,
    ),
    "RL + LoReUn (dynamic)": ({"weighting": "loreun", "relative": True}, _LOREUN),
    "SalUn + LoReUn": (
        {"method": "salun", "weighting": "loreun", "relative": True},
        _LOREUN,
    ),
    "RL + FaLW (exact)": ({"weighting": "falw", "estimator": "exact"}, _RELABEL),
    "RL + FaLW (anchored)": ({"weighting": "falw", "estimator": "anchored"}, _RELABEL),
    "Endpoint transport": (
        {"method": "endpoint_transport"},
        {"learning_rate": (0.03, 0.1, 0.2, 0.3), "epochs": (5, 10, 20)},
    ),
}
"""What is fixed and what is tried for each method: twelve trials each."""


def trials(label: str) -> Iterator[Unlearning]:
    """Yield the settings tried for a method.

    >>> len(list(trials("RL")))
    12
    """
    fixed, grid = GRIDS[label]
    for values in itertools.product(*grid.values()):
        yield Unlearning(**fixed, **dict(zip(grid, values, strict=True)))


def digits_plan(*, seeds: Sequence[int] = SEEDS) -> Plan:
    """Return the plan of the default job.

    Args:
      seeds: of splits, models and methods.

    Raises:
      InputError: fewer than two seeds, or a seed twice.

    >>> len(digits_plan().methods)
    10
    """
    text = importlib.resources.files("jax_unlearn.recipes").joinpath(SETTINGS)
    found = json.loads(text.read_text())
    return _plan(
        {name: Unlearning(**chosen) for name, chosen in found["settings"].items()},
        tuple(seeds),
        note=(
            f"Settings chosen by the smallest mean Avg. Gap of {found['trials']} "
            f"trials a method on search seeds {found['search_seeds']} "
            "(jax-unlearn tune); reported on other seeds."
        ),
    )


def search(say: Callable[[str], None]) -> dict[str, Any]:
    """Try every setting of every method on the search seeds and choose the best.

    Args:
      say: told a line for each trial.

    Returns:
      JSON-able: "settings" by method, "table" of all trials, seeds, environment.
    """
    dataset = digits()
    plan = _plan({}, SEARCH_SEEDS)
    bench = Bench(plan, dataset)
    cases = []
    for seed in SEARCH_SEEDS:
        request, _ = draw_request(plan, dataset, seed)
        models = bench.references(request, seed)
        target = bench.outputs(models.retrained)
        goal = measure(target, dataset, request, seed=seed)
        cases.append((seed, request, models.original, target, goal))

    def trial(label: str, setting: Unlearning) -> dict[str, Any]:
        gaps, deviations = [], []
        for seed, request, original, target, goal in cases:
            try:
                trained = bench.unlearn(label, setting, request, original, seed=seed)
            except NonFiniteError:
                return {"avg_gap": None, "deviation": None}  # diverged: never chosen
            outputs = bench.outputs(trained)
            metrics = measure(outputs, dataset, request, seed=seed)
            gaps.append(audit.avg_gap(metrics, goal))
            deviations.append(
                audit.per_sample_deviation(
                    outputs.confidence(dataset, request.forget),
                    target.confidence(dataset, request.forget),
                )
            )
        return {
            "avg_gap": float(np.mean(gaps)),
            "deviation": float(np.mean(deviations)),
        }

    settings, table = {}, {}
    for label, (_, grid) in GRIDS.items():
        rows = []
        for setting in trials(label):
            varied = {name: getattr(setting, name) for name in grid}
            row = varied | trial(label, setting)
            rows.append((row["avg_gap"], setting, row))
            say(f"{label}: {row}")
        finite = [row for row in rows if row[0] is not None]
        settings[label] = dataclasses.asdict(min(finite, key=lambda row: row[0])[1])
        table[label] = [row for _, _, row in rows]
    return {
        "settings": settings,
        "trials": len(next(iter(table.values()))),
        "search_seeds": list(SEARCH_SEEDS),
        "training": vars(TRAINING),
        "table": table,
        "environment": environment(),
    }


def _plan(
    methods: dict[str, Unlearning], seeds: tuple[int, ...], note: str = ""
) -> Plan:
    return Plan(
        title="Digits: forget 30 %, long-tailed",
        kind="long_tailed",
        fraction=0.3,
        gamma=1.0,
        unseen=400,
        training=TRAINING,
        methods=methods,
        seeds=seeds,
        note=note,
    )
