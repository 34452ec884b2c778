"""Does the original's loss say which samples are difficult, and are models robust?

For the models of a part of the tables it computes: rank correlations, over the forget
samples, of the original's scores with what Retrain says of the samples (another Retrain
shows how much can be known), and with how far unlearned models are from it; the
deviation that endpoint transport would leave if it reached its targets, by the score
that orders the samples; and the accuracy on test images under PGD.

The attacks that need many models of each kind, U-LiRA and KLoM, are a recipe of their
own.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np

from jax_unlearn import audit
from jax_unlearn.cards import Ranked
from jax_unlearn.data import Dataset, as_floats
from jax_unlearn.lab import Plan
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.context import Context
from jax_unlearn.lab.job import Progress, Trained
from jax_unlearn.lab.modalities.classification.figures import outputs_of
from jax_unlearn.lab.modalities.classification.measured import RANKINGS
from jax_unlearn.objectives import transport_targets
from jax_unlearn.recipes.recipe import Asked, Recipe, seed_by_seed, spreads
from jax_unlearn.recipes.tables import CIFAR10, FASHION, beside, look

__all__ = ["BOUNDS", "LIRA_FASHION", "PROXIES_CIFAR10", "PROXIES_FASHION"]
__all__ += ["proxies_study"]

UNLEARNED = ("RL", "SalUn", "RL + LoReUn (dynamic)", "SalUn + LoReUn (dynamic)")
IMAGES, STEPS = 500, 10  # of the attack
BOUNDS = {"8/255": 8 / 255, "2/255": 2 / 255}

MODELS = 32  # of each kind, for attacks that need many
ATTACKED = ("FT", *UNLEARNED, "RL + FaLW (every 8)", "NegGrad+", "Transport, no decay")


def proxies_study(
    plan: Plan, dataset: Dataset, folder: Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Correlate and attack the models of a part, read or made; write `proxies.json`."""
    bench = Bench(plan, dataset, progress, folder=folder / "checkpoints")
    attack = {"images": IMAGES, "bounds": [*BOUNDS], "steps": STEPS}
    return seed_by_seed(
        plan,
        folder / "proxies.json",
        lambda seed: _one_seed(bench, seed),
        lambda found: {"attack": attack, **spreads(found)},
    )


def _one_seed(bench: Bench, seed: int) -> dict[str, dict[str, Any]]:
    plan, case = bench.plan, bench.case(seed)
    models, forget = bench.references(case), case.request.forget
    made: dict[str, Trained] = {
        "Retrain": models.retrained,
        "Null": cast(Trained, models.null),
        "Original": models.original,
    }
    for label in UNLEARNED:
        setting = plan.methods[label]
        made[label] = bench.unlearn(label, setting, case, models.original).trained
    said = {
        label: outputs_of(bench.subject, trained).confidence(bench.dataset, forget)
        for label, trained in made.items()
    }
    given = plan.methods["RL"], case.request, models.original, None, seed
    lab = Context(bench.subject, bench.subject.model, *given)
    rankings = {name: rank(lab) for name, rank in RANKINGS.items()}
    rankings["null"] = Ranked(said["Null"])
    reached = {**rankings, "Retrain": Ranked(said["Retrain"])}
    return {
        "correlation": {n: _correlations(r.scores, said) for n, r in rankings.items()},
        "targets": {n: _left(lab, r, said["Retrain"]) for n, r in reached.items()},
        "robust": {
            f"{label}, {name}": _robust(bench, trained, bound)
            for label, trained in made.items()
            for name, bound in BOUNDS.items()
        },
    }


def _correlations(score: np.ndarray, said: dict[str, np.ndarray]) -> dict[str, float]:
    """Return Spearman's ρ of a score with p* and with each model's |p - p*|."""
    from scipy.stats import spearmanr

    target = said["Retrain"]

    def with_(values: np.ndarray) -> float:
        return float(np.asarray(spearmanr(score, values))[0])

    return {"p*": with_(target)} | {
        f"|p - p*| {label}": with_(np.abs(said[label] - target))
        for label in ("Original", *UNLEARNED)
    }


def _left(lab: Context, ranking: Ranked, target: np.ndarray) -> float:
    """Return mean |t - p*| of the targets by a ranking: the floor of transport."""
    own, new = lab.labels("forget"), lab.labels("unseen")
    said = lab.probabilities("unseen")
    targets = transport_targets(ranking.scores, own, said, new, ease=ranking.ease)
    reached = targets[np.arange(len(own)), own]
    return float(np.mean(np.abs(reached - target)))


def _robust(bench: Bench, trained: Trained, bound: float) -> float:
    """Return the accuracy on test images under the attack, percent."""
    test = bench.dataset.test
    return audit.robust_accuracy(
        bench.subject.model,
        trained.params,
        trained.model_state,
        as_floats(test.inputs[:IMAGES]),
        test.labels[:IMAGES],
        bound=bound,
        steps=STEPS,
    )


def _run(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    plan, part = beside(recipe, asked, folder)
    with asked.screen.progress(len(plan.seeds) * (3 + len(UNLEARNED))) as progress:
        proxies_study(plan, dataset, part, progress=progress)
    asked.screen.say(f"results: {part / 'proxies.json'}")


def _attack(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    """Attack many models of the first seed's request."""
    plan, part = beside(recipe, asked, folder)
    chosen = {"methods": ATTACKED, "models": MODELS}
    asked.screen.ensembles(plan, dataset, part / "lira", **chosen)


PROXIES_FASHION = look("proxies-fashion", FASHION, _run)
PROXIES_CIFAR10 = look("proxies-cifar10", CIFAR10, _run)
LIRA_FASHION = look("lira-fashion", FASHION, _attack)
