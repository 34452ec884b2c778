"""The figures of a whole audit: what each measures, and how it is computed.

A level has Retrain's value as its target. A distance is one between two sets of models,
and its target is that between two sets of Retrains, which is not 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jax_unlearn.audit.deviation import deviation_by_group
from jax_unlearn.audit.evidence import Evidence
from jax_unlearn.audit.forgetting import forgetting_quality
from jax_unlearn.audit.klom import klom
from jax_unlearn.audit.lira import u_lira
from jax_unlearn.audit.membership import (
    entropy_mia_member_rate,
    loss_mia_accuracy,
    svc_mia_efficacy,
)
from jax_unlearn.audit.metrics import Metrics, avg_gap, tow, tow_mia
from jax_unlearn.audit.rmia import rmia_attack

ATTACKED = 4  # models of an ensemble that RMIA attacks, one by one


class Kind(NamedTuple):
    """What a figure is.

    Attributes:
      label: its name, with the unit.
      digits: after the point.
      kind: "level"; "distance", of which more is farther from Retrain; "closeness", of
        which less is.
      meaning: how it is to be read.
      models: how many models of either sort it needs.
      unseen: whether it reads unseen samples.
    """

    label: str
    digits: int
    kind: str
    meaning: str
    models: int = 1
    unseen: bool = False


KINDS: dict[str, Kind] = {
    "ua": Kind("UA %", 1, "level", "100 - accuracy on the forget set"),
    "ra": Kind("RA %", 1, "level", "accuracy on the retain set"),
    "ta": Kind("TA %", 1, "level", "accuracy on the test set"),
    "mia": Kind(
        "MIA (SVC, called non-member) %",
        1,
        "level",
        "forget samples that an SVC on the confidence calls non-members",
    ),
    "mia_entropy": Kind(
        "MIA (entropy, called member) %",
        1,
        "level",
        "forget samples that a logistic regression on the entropy calls members",
    ),
    "mia_loss": Kind(
        "MIA (loss, accuracy) %",
        1,
        "level",
        "accuracy of telling forget from unseen samples by the loss; guessing is 50",
        unseen=True,
    ),
    "avg_gap": Kind(
        "Avg. Gap", 2, "distance", "mean distance from Retrain in UA, RA, TA and MIA"
    ),
    "tow": Kind("ToW", 3, "closeness", "tug of war of the three accuracies, 0 to 1"),
    "tow_mia": Kind("ToW-MIA", 3, "closeness", "the same with the MIA for UA"),
    "deviation": Kind(
        "|p - p*|",
        3,
        "distance",
        "mean over the forget samples of how far the confidence is from Retrain's",
    ),
    "lira_accuracy": Kind(
        "U-LiRA accuracy %",
        1,
        "distance",
        "models told from Retrain sample by sample; guessing is 50",
        models=8,
    ),
    "lira_auc": Kind(
        "U-LiRA AUC", 3, "distance", "the same by rank; guessing is 0.5", models=8
    ),
    "lira_tpr_1": Kind(
        "U-LiRA TPR at 1 % FPR, %",
        2,
        "distance",
        "traces found while 1 % of Retrain's are called traces",
        models=8,
    ),
    "lira_tpr_01": Kind(
        "U-LiRA TPR at 0.1 % FPR, %",
        2,
        "distance",
        "traces found while 0.1 % of Retrain's are called traces",
        models=8,
    ),
    "rmia_auc": Kind(
        "RMIA AUC",
        3,
        "level",
        "forget samples told from unseen ones, with Retrains as references",
        models=2,
        unseen=True,
    ),
    "rmia_tpr_1": Kind(
        "RMIA TPR at 1 % FPR, %",
        2,
        "level",
        "forget samples found while 1 % of the unseen ones are called members",
        models=2,
        unseen=True,
    ),
    "forgetting_f": Kind(
        "forgetting quality F",
        3,
        "closeness",
        "points for each sample that no attack on the ensembles tells apart",
        models=4,
    ),
    "epsilon": Kind(
        "median epsilon",
        2,
        "distance",
        "how surely the best attack on one sample tells the ensembles apart",
        models=4,
    ),
    "klom": Kind(
        "KLoM (mean)",
        3,
        "distance",
        "divergence of the margins of one sample from Retrain's",
        models=4,
    ),
    "klom_95": Kind(
        "KLoM (95 % of samples)", 3, "distance", "the same, its upper end", models=4
    ),
}
"""By key, in the order in which they are shown."""

GROUPS: dict[str, tuple[str, ...]] = {
    "standard": ("ua", "ra", "ta", "mia", "avg_gap", "tow", "tow_mia"),
    "mia": ("mia_entropy", "mia_loss"),
    "deviation": ("deviation",),
    "u_lira": ("lira_accuracy", "lira_auc", "lira_tpr_1", "lira_tpr_01"),
    "rmia": ("rmia_auc", "rmia_tpr_1"),
    "forgetting": ("forgetting_f", "epsilon"),
    "klom": ("klom", "klom_95"),
}
"""What can be asked for, and the figures it brings."""


PAIRED = ("avg_gap", "tow", "tow_mia")
"""Distances of one model from another, made of levels."""


def per_model(
    given: Evidence, gone: list[int], keys: set[str], *, seed: int
) -> dict[str, np.ndarray]:
    """Return the levels that one model has, `[N]` each.

    Args:
      given: outputs.
      gone: classes forgotten as a whole, which leave the test set.
      keys: figures asked for; those they are made of are computed too.
      seed: of the attacks' samples.
    """
    test = ~np.isin(given.labels["test"], gone)
    confidence, probs = given.confidence, given.probs

    def right(part: str) -> np.ndarray:
        return probs[part].argmax(axis=2) == given.labels[part]

    def each(measure: Callable[[int], float]) -> np.ndarray:
        return np.array([measure(i) for i in range(given.models)])

    def loss(part: str, i: int) -> np.ndarray:
        return -np.log(np.maximum(confidence[part][i], 1e-30))

    measured: dict[str, Callable[[], np.ndarray]] = {
        "ua": lambda: 100 - 100 * right("forget").mean(axis=1),
        "ra": lambda: 100 * right("retain").mean(axis=1),
        "ta": lambda: 100 * right("test")[:, test].mean(axis=1),
        "mia": lambda: each(
            lambda i: svc_mia_efficacy(
                confidence["retain"][i],
                confidence["test"][i][test],
                confidence["forget"][i],
                seed=seed,
            )
        ),
        "mia_entropy": lambda: each(
            lambda i: entropy_mia_member_rate(
                probs["retain"][i], probs["test"][i][test], probs["forget"][i]
            )
        ),
        "mia_loss": lambda: each(
            lambda i: loss_mia_accuracy(loss("forget", i), loss("unseen", i), seed=seed)
        ),
    }
    needed = keys | ({"ua", "ra", "ta", "mia"} if keys & set(PAIRED) else set())
    return {key: make() for key, make in measured.items() if key in needed}


def paired(
    levels: dict[str, np.ndarray], other: dict[str, np.ndarray]
) -> dict[str, float]:
    """Return the distances of models from others, each from one, in the mean.

    Args:
      levels: of `per_model`, `[h]` each.
      other: of the others, `[h]` each.
    """
    pairs = list(zip(_metrics(levels), _metrics(other), strict=True))
    return {
        "avg_gap": float(np.mean([avg_gap(a, b) for a, b in pairs])),
        "tow": float(np.mean([tow(a, b) for a, b in pairs])),
        "tow_mia": float(np.mean([tow_mia(a, b) for a, b in pairs])),
    }


def compared(
    models: Evidence, others: Evidence, keys: set[str], *, seed: int
) -> dict[str, float]:
    """Return the figures of one ensemble against another of as many models.

    Args:
      models: of the method, or Retrains.
      others: Retrains.
      keys: which figures.
      seed: of the attacks' folds.
    """
    found: dict[str, float] = {}
    if "deviation" in keys:
        apart = models.confidence["forget"] - others.confidence["forget"]
        found["deviation"] = float(np.abs(apart).mean())
    if keys & set(GROUPS["u_lira"]):
        lira = u_lira(models.margins, others.margins, seed=seed)
        found |= {
            "lira_accuracy": lira.accuracy,
            "lira_auc": lira.auc,
            "lira_tpr_1": lira.tpr_1.value,
            "lira_tpr_01": lira.tpr_01.value,
        }
    if keys & set(GROUPS["forgetting"]):
        quality = forgetting_quality(models.margins, others.margins)
        found |= {"forgetting_f": quality.f, "epsilon": quality.median}
    if keys & set(GROUPS["klom"]):
        divergence = klom(models.margins, others.margins)
        found |= {"klom": divergence.mean, "klom_95": divergence.quantile_95}
    if keys & set(GROUPS["rmia"]):
        attacks = [
            rmia_attack(
                models.confidence["forget"][i],
                others.confidence["forget"],
                models.confidence["unseen"][i],
                others.confidence["unseen"],
            )
            for i in range(min(models.models, ATTACKED))
        ]
        found["rmia_auc"] = float(np.mean([a.auc for a in attacks]))
        found["rmia_tpr_1"] = float(np.mean([a.tpr_1.value for a in attacks]))
    return {key: value for key, value in found.items() if key in keys}


def group_deviation(
    models: Evidence, others: Evidence, num_classes: int
) -> dict[str, float]:
    """Return the mean of p - p* over the forget samples of head, mid and tail classes.

    Args:
      models: of the method.
      others: Retrains.
      num_classes: K.

    Returns:
      By group; empty where fewer than three classes are forgotten.
    """
    labels = models.labels["forget"]
    counts = np.bincount(labels, minlength=num_classes)
    if np.count_nonzero(counts) < 3:
        return {}
    apart = models.confidence["forget"].mean(axis=0)
    apart = apart - others.confidence["forget"].mean(axis=0)
    groups = deviation_by_group(apart, labels, counts)
    return {name: float(group.mean) for name, group in groups.items()}


def _metrics(levels: dict[str, np.ndarray]) -> list[Metrics]:
    rows = zip(*(levels[name] for name in ("ua", "ra", "ta", "mia")), strict=True)
    return [Metrics(ua, 100 - ua, ra, ta, mia) for ua, ra, ta, mia in rows]
