"""What models say beside several Retrains, and beside samples that they never saw."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jax_unlearn import audit
from jax_unlearn.audit.auditor import alone
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.audit.figures import KINDS, unmet
from jax_unlearn.data import Dataset
from jax_unlearn.lab.modalities.classification.figures import Outputs
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.results import NULL, ORIGINAL, RETRAIN
from jax_unlearn.membership.quality import auc_standard_error

__all__ = ["against_unseen", "alone_lacks", "alone_misses", "alone_needs", "attacked"]
__all__ += ["beside_all", "said_beside", "stacked", "stands"]

REACH = 1.96  # standard errors of a 95 % interval
RIGHT = 5.0  # percent of a class that goes: more is no chance; our choice


Stacks = tuple[dict[str, audit.ModelOutputs], audit.ModelOutputs, audit.PartLabels]


def stacked(
    dataset: Dataset,
    request: Request,
    models: Mapping[str, Outputs],
    retrained: Sequence[Outputs],
) -> Stacks:
    """Return what single models, by label, and several Retrains say of a request.

    Where nothing was held out, test samples take the place of unseen ones.
    """
    train, test = dataset.train.labels, dataset.test.labels
    parts = {name: ids for name, ids in request._asdict().items() if len(ids)}
    held = {name: train[ids] for name, ids in parts.items()}
    labels = audit.PartLabels(**{"unseen": test, **held}, test=test)

    def stack(outputs: Sequence[Outputs]) -> audit.ModelOutputs:
        own = {n: np.stack([o.train[ids] for o in outputs]) for n, ids in parts.items()}
        tested = np.stack([o.test for o in outputs])
        return audit.ModelOutputs(**{"unseen": tested, **own}, test=tested)

    given = {label: stack([outputs]) for label, outputs in models.items()}
    return given, stack(retrained), labels


def beside_all(
    dataset: Dataset,
    request: Request,
    outputs: Mapping[str, Outputs],
    more: Sequence[Outputs],
    *,
    seed: int = 0,
    by: Sequence[str] = (),
) -> tuple[audit.Audit | dict[str, Any], list[dict[str, Any]]]:
    """Audit beside three Retrains or more, by group too; else beside unseen samples.

    `more` are Retrains that have no row.
    """
    again = [outputs[key] for key in (RETRAIN, NULL) if key in outputs] + [*more]
    if len(again) < FEWEST:
        return against_unseen(dataset, request, outputs), []
    models = {k: own for k, own in outputs.items() if k not in (RETRAIN, NULL)}
    given = stacked(dataset, request, models, again)
    how = {"kind": "probabilities", "seed": seed}
    originals = ORIGINAL if ORIGINAL in models else None
    found = audit.audit(*given, originals=originals, **how)
    return found, audit.divided(by, given, given[0][ORIGINAL], **how) if by else []


def attacked(
    dataset: Dataset,
    request: Request,
    models: Mapping[str, Outputs],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what attacks find on single models by key, with fewer than three Retrains.

    JSON-able: "figures" by model and key of the figure, "cards" by key, and why others
    are "left_out".
    """
    stacks, _, labels = stacked(dataset, request, models, [models[ORIGINAL]])
    known = {"target": RETRAIN, "null": NULL}
    given = {name: key for name, key in known.items() if key in models}
    how = {"original": ORIGINAL, "seed": seed, **given}
    figures, cards, left_out = alone(stacks, labels, **how)
    plain = {key: card.plain() for key, card in cards.items()}
    return {"figures": figures, "cards": plain, "left_out": left_out}


def alone_needs(rows: Collection[str]) -> str:
    """Return what figures of single models are read beside, and what is missing.

    >>> alone_needs(["retrain", "original"])[-69:]
    'A second Retrain is the null, from three on there is an interval too.'
    """
    least = "Each needs one unlearned model and its original"
    if RETRAIN not in rows:
        return (
            f"{least}. There is no target: a Retrain is the target, a second the null, "
            "from three on there is an interval too."
        )
    said = f"{least}, and a Retrain, whose value is the target, not 0.5"
    if NULL not in rows:
        return (
            f"{said}. A second Retrain is the null, from three on there is an interval "
            "too."
        )
    return (
        f"{said}; the null is another Retrain's. From three on there is an interval "
        "too."
    )


def alone_lacks(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the figures left out for another reason than too few models."""
    few = {key for key, card in KINDS.items() if card.models > 1 or card.within}
    return {key: why for key, why in found["left_out"].items() if key not in few}


def alone_misses(found: Mapping[str, Any]) -> str:
    """Return the line that says which figures take more models; "" where none do."""
    retrained = len({RETRAIN, NULL} & set(found["figures"]))
    said = unmet([KINDS[key] for key in found["left_out"]], retrained)
    return said and (
        f"More models give more figures: {said} (vulnerable and protected from as "
        "many originals); `jax-unlearn ensemble` trains and audits them."
    )


def against_unseen(
    dataset: Dataset, request: Request, models: Mapping[str, Outputs]
) -> dict[str, Any]:
    r"""Return how well each model's confidence tells forget from unseen samples.

    .. math:: A = \sum_k \frac{F_k}{F} A_k, \qquad
              \text{SE}^2 = \sum_k \Big(\frac{F_k}{F}\Big)^2 \text{SE}(A_k = ½)^2

    A_k is the AUC by which the probability of the true class tells the F_k forget
    samples of class k from unseen ones of that class (of all classes, where it has
    none). Chance gives ½ ± 1.96 SE, with the standard error of the rank-sum test.
    Samples of a class that goes as a whole have another target: a model that never saw
    the class is never right of it, and their share of right answers stands apart. Where
    nothing was held out, test samples take the place of unseen ones.

    JSON-able: "of" ("unseen" or "test"), "samples" of either side, "low" and "high" of
    chance (None where all of the request is of classes that go), "models": by key
    "auc" (None likewise), "right" (percent of the samples of classes that go, None
    where there are none) and "test" (accuracy in percent on classes that stay).

    Source: our choice; the standard error as in `ju.membership`.
    """
    train, test = dataset.train.labels, dataset.test.labels
    own, held = train[request.forget], len(request.unseen) > 0
    gone = np.setdiff1d(own, train[request.retain])
    labels = train[request.unseen] if held else test
    parts = []  # size, own samples and the others, by class
    for number in np.setdiff1d(own, gone):
        mine, others = own == number, labels == number
        others = others if others.any() else ~np.isin(labels, gone)
        if others.any():
            parts.append((int(mine.sum()), mine, others))
    count = sum(size for size, *_ in parts)
    errors = [
        size / count * float(auc_standard_error(0.5, size, others.sum()))
        for size, _, others in parts
    ]
    reach = REACH * float(np.sqrt(np.sum(np.square(errors)))) if parts else None

    def look(outputs: Outputs) -> dict[str, float | None]:
        sure = outputs.confidence(dataset, request.forget)
        other = outputs.confidence(dataset, request.unseen)
        if not held:
            other = outputs.test[np.arange(len(test)), test]
        areas = [
            size / count * audit.roc_auc(sure[a], other[b]) for size, a, b in parts
        ]
        right = outputs.train[request.forget].argmax(1) == own
        stays = ~np.isin(test, gone)
        return {
            "auc": sum(areas) if parts else None,
            "right": _percent(right, np.isin(own, gone)),
            "test": _percent(outputs.test.argmax(1) == test, stays),
        }

    return {
        "of": "unseen" if held else "test",
        "samples": {"forget": len(own), "unseen": len(labels)},
        "low": None if reach is None else max(0.5 - reach, 0.0),
        "high": None if reach is None else min(0.5 + reach, 1.0),
        "models": {key: look(outputs) for key, outputs in models.items()},
    }


def _percent(right: np.ndarray, of: np.ndarray) -> float | None:
    return 100 * float(np.mean(right[of])) if of.any() else None


def said_beside(found: Mapping[str, Any], key: str) -> str:
    """Return what `against_unseen` says of a model, as a sentence without its subject.

    >>> one = {"auc": 0.71, "right": None, "test": 90.0}
    >>> found = {"of": "test", "low": 0.4, "high": 0.6, "models": {"new": one}}
    >>> said_beside({**found, "samples": {"forget": 30, "unseen": 50}}, "new")
    'is still surer of the 30 forget samples than of 50 test samples that it never saw \
(AUC 0.710, by chance 0.400 to 0.600)'
    """
    one, sizes, said = found["models"][key], found["samples"], []
    if one["auc"] is not None:
        kind = "unseen samples" if found["of"] == "unseen" else "test samples that it"
        kind += "" if found["of"] == "unseen" else " never saw"
        words = f"the {sizes['forget']} forget samples than of {sizes['unseen']} {kind}"
        low, high = found["low"], found["high"]
        if one["auc"] > high:
            how = f"is still surer of {words}"
        elif one["auc"] < low:
            how = f"is less sure of {words}: they stand out"
        else:
            how = f"is no surer of {words}"
        chance = f"by chance {low:.3f} to {high:.3f}"
        said.append(f"{how} (AUC {one['auc']:.3f}, {chance})")
    if one["right"] is not None:
        said.append(
            f"gets {one['right']:.1f} % of the samples of the forgotten classes right"
        )
    return " and ".join(said)


def stands(found: Mapping[str, Any], key: str) -> str:
    """Return "remembered", "over", "like" or "unknown": what a model makes of them."""
    one = found["models"][key]
    if one["auc"] is not None and one["auc"] < found["low"]:
        return "over"
    surer = one["auc"] is not None and one["auc"] > found["high"]
    if surer or (one["right"] or 0.0) > RIGHT:
        return "remembered"
    return "unknown" if one["auc"] is None and one["right"] is None else "like"
