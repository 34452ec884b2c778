"""Is the loss a proxy of difficulty, and does weighting by it make models robust?

Looks at the models of a part of the tables. Rank correlations, over the forget samples
of a seed, of scores of the original model with what Retrain says of them, and with how
far unlearned models stay from that; the other Retrain shows how much of it can be known
at all. The deviation that endpoint transport would leave if it reached its targets, by
the score that ranks the samples: what Retrain says itself ranks best. And the accuracy
on test images that is left under PGD.
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from jax_unlearn import audit
from jax_unlearn.data import Dataset, write_atomic
from jax_unlearn.drivers.locks import locked
from jax_unlearn.lab import Plan
from jax_unlearn.lab.bench import Bench, Progress
from jax_unlearn.lab.difficulty import RANKINGS, Ranking
from jax_unlearn.lab.results import environment, spread, to_json
from jax_unlearn.lab.stages import Trained
from jax_unlearn.lab.task import Task, as_floats
from jax_unlearn.objectives import transport_targets

UNLEARNED = ("RL", "SalUn", "RL + LoReUn (dynamic)", "SalUn + LoReUn (dynamic)")
IMAGES, STEPS = 500, 10  # of the attack
BOUNDS = {"8/255": 8 / 255, "2/255": 2 / 255}


def proxies_study(
    plan: Plan,
    dataset: Dataset,
    folder: Path,
    *,
    progress: Progress | None = None,
    originals: Path | None = None,
) -> dict[str, Any]:
    """Correlate and attack the models of a part; write `proxies.json` after each seed.

    Args:
      plan: of the part, with the methods `UNLEARNED`; models that its folder has are
        read, others are made.
      dataset: its data.
      folder: of the part.
      progress: called as models are made.
      originals: folder of the part whose original models are used.

    Returns:
      What the file holds: "correlation" by score and by what it is compared with,
      "targets" by score, and "robust" by "model, bound", each over the seeds.
    """
    store = None if originals is None else originals / "checkpoints"
    bench = Bench(
        plan, dataset, progress, folder=folder / "checkpoints", originals=store
    )
    kinds = ("correlation", "targets", "robust")
    found: dict[str, dict[str, list[Any]]] = {kind: {} for kind in kinds}
    results: dict[str, Any] = {}
    with locked(folder):
        for number, seed in enumerate(plan.seeds, 1):
            for kind, values in _one_seed(bench, seed).items():
                for name, value in values.items():
                    found[kind].setdefault(name, []).append(value)
            results = {
                "format": 1,
                "plan": plan.title,
                "seeds": list(plan.seeds[:number]),
                "attack": {"images": IMAGES, "bounds": [*BOUNDS], "steps": STEPS},
                "environment": environment(),
                "correlation": {
                    name: {
                        other: spread([value[other] for value in values])
                        for other in values[0]
                    }
                    for name, values in found["correlation"].items()
                },
            } | {
                kind: {name: spread(values) for name, values in found[kind].items()}
                for kind in kinds[1:]
            }
            text = to_json(results)
            write_atomic(folder / "proxies.json", text, overwrite=True)
    return results


def _one_seed(bench: Bench, seed: int) -> dict[str, dict[str, Any]]:
    """Return the figures of a seed."""
    dataset, plan = bench.dataset, bench.plan
    request, _ = bench.request(seed)
    models = bench.references(request, seed)
    made: dict[str, Trained] = {
        "Retrain": models.retrained,
        "Null": models.null,
        "Original": models.original,
    }
    for label in UNLEARNED:
        setting = plan.methods[label]
        given = request, models.original
        made[label] = bench.unlearn(label, setting, *given, seed=seed).trained
    said = {
        label: bench.outputs(trained).confidence(dataset, request.forget)
        for label, trained in made.items()
    }
    setting = plan.methods["RL"]
    task = Task(
        bench.model,
        bench.features,
        dataset,
        setting,
        request,
        models.original,
        None,
        seed,
    )
    rankings = {name: rank(task) for name, rank in RANKINGS.items()}
    rankings["null"] = Ranking(said["Null"])
    scores = {name: ranking.scores for name, ranking in rankings.items()}
    reached = {**rankings, "Retrain": Ranking(said["Retrain"])}
    return {
        "correlation": {n: _correlations(s, said) for n, s in scores.items()},
        "targets": {n: _left(task, s, said["Retrain"]) for n, s in reached.items()},
        "robust": {
            f"{label}, {name}": _robust(bench, trained, bound)
            for label, trained in made.items()
            for name, bound in BOUNDS.items()
        },
    }


def _correlations(score: np.ndarray, said: dict[str, np.ndarray]) -> dict[str, float]:
    """Return Spearman's ρ of a score with p* and with each model's |p - p*|."""
    target = said["Retrain"]

    def with_(values: np.ndarray) -> float:
        return float(np.asarray(spearmanr(score, values))[0])

    return {"p*": with_(target)} | {
        f"|p - p*| {label}": with_(np.abs(said[label] - target))
        for label in ("Original", *UNLEARNED)
    }


def _left(task: Task, ranking: Ranking, target: np.ndarray) -> float:
    """Return mean |t - p*| of the targets by a ranking: the floor of transport."""
    forget, unseen = task.request.forget, task.request.unseen
    own, new = task.labels(forget), task.labels(unseen)
    said = task.probabilities(unseen)
    targets = transport_targets(ranking.scores, own, said, new, ease=ranking.ease)
    reached = targets[np.arange(len(own)), own]
    return float(np.mean(np.abs(reached - target)))


def _robust(bench: Bench, trained: Trained, bound: float) -> float:
    """Return the accuracy on test images under the attack, percent."""
    test = bench.dataset.test
    return audit.robust_accuracy(
        bench.model,
        trained.params,
        trained.model_state,
        as_floats(test.inputs[:IMAGES]),
        test.labels[:IMAGES],
        bound=bound,
        steps=STEPS,
    )
