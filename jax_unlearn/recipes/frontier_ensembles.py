"""Attacks with many models along the frontier: do they find memory, or short training?

At three budgets, for one request, 32 models of each kind are made: originals, Retrains,
and unlearned models of some methods, each from an original of its own. The methods are
those of the frontier's figure, those of the claims about FaLW, LoReUn and LTU, and the
nearest of all others. Their settings are those of the frontier's results.

Short Retrain never reads the forget set. If U-LiRA tells it from Retrain, the reason is
that it was trained less. It is run at every budget, so that each method can be compared
with a short Retrain of the same test accuracy. U-LiRA on samples that no model was
trained on answers the same question without a short Retrain.

Attacks read outputs. What the weights still hold is asked by probes: every model is
tuned on a part of the forget samples, is rounded to four bits, and the step from its
original is compared with the gradients of the samples.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import Dataset, check_writable, write_atomic
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Bench, Unlearning
from jax_unlearn.lab.ensembles import Ensembles, audit_of, run_ensembles
from jax_unlearn.lab.parts import CHUNK
from jax_unlearn.lab.plan import plan_of, slug
from jax_unlearn.lab.results import head, to_json
from jax_unlearn.recipes import frontier
from jax_unlearn.recipes.recipe import (
    Asked,
    Recipe,
    Results,
    declared,
    parts_of,
    stored,
)

__all__ = ["BUDGETS", "ENSEMBLES", "FIGURES", "MODELS", "PROBES", "Trace", "best_of"]
__all__ += ["measured", "methods_of", "named", "traces"]

BUDGETS = (0.05, 0.2, 0.5)
REQUESTS = ("random10", "gamma-1")
MODELS = 32
FIGURES = ("ta", "lira_auc", "lira_tpr_1", "klom", "forgetting_f", "deviation")
PROBES = ("recover", "int4", "alignment")
SHORT = frontier.RETRAINING[0]
ATTACKED = (*frontier.SHOWN, "RL", "RL + LoReUn (dynamic)", "LTU")
TOLD = 0.02  # of an AUC beyond the null's: less says nothing of where it comes from


def best_of(results: Results) -> tuple[str, ...]:
    """Return whoever of the field is nearest to Retrain, by either distance."""
    found = []
    for figure in frontier.DIGITS_OF:
        rows = frontier.means_of(results, figure)
        field = {label: rows[label] for label in rows if label not in frontier.OURS}
        found.append(min(field, key=lambda label: field[label]))
    return tuple(dict.fromkeys(found))


def named(label: str, budget: float) -> str:
    """Return what a method is called at a budget."""
    return f"{label}, {100 * budget:g} %"


def methods_of(found: Results, request: str) -> dict[str, Unlearning]:
    """Return the settings of a request's methods, by `named`, from stored results."""
    told = {}
    for budget, results in sorted(frontier.by_request(found)[request].items()):
        known = results["plan"]["methods"]
        both = (*ATTACKED, *best_of(results)) if budget in BUDGETS else (SHORT,)
        for label in dict.fromkeys(both):
            if label in known and slug(label) in results["rows"]:
                told[named(label, budget)] = Unlearning.read(known[label])
    return told


def measured(made: Ensembles, training: Any, *, resamples: int = 20) -> dict[str, Any]:
    """Return what attacks say of the models by role, and of "null", Retrains halved.

    "figures" are an audit's; "unseen" is U-LiRA's AUC on samples that no model was
    trained on; "bias" the mean of p − p* on the forget samples, above 0 where more is
    remembered than Retrain knows; "models" how many there are.
    """
    cards = [card for card in audit.FIGURES if card.key in FIGURES]
    whole, (outputs, retrained, labels) = audit_of(
        made, training, catalogue=cards, resamples=resamples
    )
    half = len(retrained.forget) // 2
    parts = {"null": (slice(half), slice(half, None))}
    rows = {}
    for role in ("null", *outputs):
        one = retrained if role == "null" else outputs[role]
        mine, theirs = parts.get(role, (slice(None), slice(None)))
        row: dict[str, Any] = {"models": len(one.forget[mine])}
        for part in ("forget", "unseen"):
            own = audit.margins(getattr(one, part)[mine], getattr(labels, part))
            other = audit.margins(
                getattr(retrained, part)[theirs], getattr(labels, part)
            )
            row[part] = audit.u_lira(own, other, level=None).auc
            if part == "forget":
                sure = 1 / (1 + np.exp(-own)), 1 / (1 + np.exp(-other))
                row["bias"] = float(np.mean(sure[0]) - np.mean(sure[1]))
        rows[role] = row
    return {"attacked": rows, "audit": audit.to_record(whole)}


class Trace(NamedTuple):
    """What U-LiRA finds of a method, and whence."""

    label: str
    found: float  # AUC on forget samples
    short: float | None  # that of a short Retrain of the same test accuracy, if any
    unseen: float  # AUC on samples that nobody was trained on
    share: float | None  # of what is found, on unseen samples too; None: little is
    bias: float  # p − p*
    ta: float
    models: int


def traces(results: Results, budget: float) -> list[Trace]:
    """Return the traces that methods of a budget leave, the least first.

    A short Retrain of the same accuracy lies between those of two budgets, linearly;
    there is none of a method that is more accurate than all of them.
    """
    rows, figures = results["attacked"], results["audit"]["figures"]

    def accuracy(role: str) -> float:
        return float(figures[role]["ta"]["value"])

    short = sorted(
        (accuracy(role), rows[role]["forget"])
        for role in rows
        if role.startswith(f"{SHORT},")
    )
    chance, found = rows["null"], []
    for role, row in rows.items():
        label, _, at = role.rpartition(", ")
        if at != named("", budget).removeprefix(", "):
            continue
        ta, level, share = accuracy(role), None, None
        if short[0][0] <= ta <= short[-1][0]:
            level = float(np.interp(ta, [t for t, _ in short], [a for _, a in short]))
        if row["forget"] - chance["forget"] > TOLD:
            share = row["unseen"] - chance["unseen"]
            share /= row["forget"] - chance["forget"]
            share = float(np.clip(share, 0, 1))
        told = label, row["forget"], level, row["unseen"], share, row["bias"], ta
        found.append(Trace(*told, row["models"]))
    return sorted(found, key=lambda one: one.found)


def _part(
    name: str, frontiers: Results, asked: Asked, dataset: Dataset, folder: Path
) -> Iterator[dict[str, Any]]:
    """Make the models of a request, and yield what is measured after each budget."""
    one = next(iter(frontier.by_request(frontiers)[name].values()))
    plan = dataclasses.replace(plan_of(one, name=name), methods={}, probes=PROBES)
    bench, told = Bench(plan, dataset), {}
    for label, setting in methods_of(frontiers, name).items():
        told.setdefault(label.rpartition(", ")[2], {})[label] = setting
    results: dict[str, Any] = head(plan.record(), dataset)
    results |= {"models": MODELS, "attacked": {}, "seconds": {}}
    diverged = results["diverged"] = {}
    # one after another: on a CPU convolutions of many models at once are slow
    how = "loop" if jax.default_backend() == "cpu" else "auto"
    phases = sum(2 + len(methods) for methods in told.values()) * (MODELS // CHUNK)
    with asked.screen.progress(phases) as progress:
        for budget, methods in told.items():
            given = {"count": MODELS, "methods": methods, "chunk": CHUNK, "how": how}
            given |= {"progress": progress, "say": asked.screen.say, "bench": bench}
            given |= {"diverged": diverged}
            made = run_ensembles(plan, dataset, folder / name, **given)
            found = measured(made, plan.training)
            known = results.get("audit", found["audit"])
            known["figures"] |= found["audit"]["figures"]
            results["attacked"] |= found["attacked"]
            results["seconds"] |= made.seconds
            results["audit"] = known
            asked.screen.say(f"{name}, {budget}: {len(methods)} methods")
            # programs take memory mappings, of which there are few
            jax.clear_caches()
            yield results


def _run(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    """Run the requests asked for, by default all that the frontier's results have."""
    if not (frontiers := stored(recipe.study.stem)):
        raise InputError(
            f"{recipe.name} takes the settings that {recipe.study.name} found, and no "
            "results of it are here; give the command in a copy of the repository"
        )
    known = [name for name in REQUESTS if name in frontier.by_request(frontiers)]
    names = parts_of(asked, known)
    check_writable(folder / "short.json")
    made = {}
    for name in names:
        for results in _part(name, frontiers, asked, dataset, folder):
            text = to_json(frontier.stored(made | {name: results}))
            write_atomic(folder / "short.json", text, overwrite=True)
        made[name] = results
    asked.screen.say(f"results: {folder / 'short.json'}")


ENSEMBLES = tuple(
    declared(name, _run, options=("parts",), seeded=False, study=of, data=of.data)
    for name, of in (
        ("frontier-ensembles", frontier.DIGITS),
        ("frontier-ensembles-fashion", frontier.FASHION),
        ("frontier-ensembles-cifar10", frontier.CIFAR10),
    )
)
