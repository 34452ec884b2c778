"""The record of a made-up audit, as `to_record` returns it, without any model."""

import json

import numpy as np

from jax_unlearn.audit.figures import KINDS

FORGOTTEN = 40
# Retrain's value, or the null's, and the width of its interval, by figure.
TARGETS = {
    "ua": (5.4, 1.1),
    "ra": (97.1, 0.6),
    "ta": (94.2, 0.9),
    "mia": (12.7, 3.1),
    "mia_entropy": (61.3, 4.5),
    "mia_loss": (50.4, 2.2),
    "avg_gap": (1.12, 0.61),
    "tow": (0.941, 0.032),
    "tow_mia": (0.903, 0.051),
    "deviation": (0.084, 0.012),
    "lira_accuracy": (50.3, 1.4),
    "lira_auc": (0.502, 0.015),
    "lira_tpr_1": (1.31, 0.82),
    "lira_tpr_01": (0.22, 0.21),
    "rmia_auc": (0.507, 0.023),
    "rmia_tpr_1": (1.18, 0.72),
    "forgetting_f": (0.171, 0.021),
    "epsilon": (1.61, 0.19),
    "klom": (3.12, 0.24),
    "klom_95": (6.44, 0.52),
    "retain_auc": (0.611, 0.014),
    "retain_tpr_1": (2.31, 0.62),
    "drop_auc": (0.872, 0.021),
    "drop_retain_auc": (0.903, 0.018),
    "difference_auc": (0.864, 0.023),
    "difference_tpr_1": (24.1, 5.2),
    "difference_retain_auc": (0.911, 0.017),
}
TARGETS |= {
    f"{group}_{key}": TARGETS[key]
    for group in ("vulnerable", "protected")
    for key in ("ua", "deviation", "lira_auc", "lira_tpr_1", "klom")
}
DEFAULT = {"Original": 9.0, "FT": 2.0, "SSD": 0.4}


def figure(key, strength, rng, *, null=True):
    """Return a figure that lies some widths of the null's interval from its target."""
    target, width = TARGETS[key]
    kind = KINDS[key].kind
    sign = -1.0 if kind == "closeness" or key in ("ua", "mia", "mia_entropy") else 1.0
    value = target + sign * width * strength * rng.uniform(0.1, 1.3) / 2
    if "%" in KINDS[key].label:
        value = min(max(value, 0.0), 100.0)
    low, high = target - width / 2, target + width / 2
    inside = {
        "level": low <= value <= high,
        "distance": value <= high,
        "closeness": value >= low,
    }[kind]
    std = width / 3 if kind == "level" and KINDS[key].models == 1 else None
    found = {"value": value, "std": std, "target": target}
    ends = {"null_low": low, "null_high": high}
    if not null:
        if kind != "level":
            found["target"] = float(kind == "closeness")
        return found | dict.fromkeys(ends) | {"verdict": ""}
    return found | ends | {"verdict": "inside" if inside else "outside"}


def detail(strength, rng, *, separated=0):
    """Return a binormal ROC curve, epsilons, and deviations by thirds."""
    cuts = np.linspace(4, -4, 60)
    rates = {
        name: np.mean(rng.normal(shift, 1, 4000)[:, None] > cuts, axis=0)
        for name, shift in (("fpr", 0.0), ("tpr", 0.25 * strength))
    }
    epsilon = np.abs(rng.normal(1.6 + 0.2 * strength, 0.5, FORGOTTEN))
    epsilon[:separated] = 50.0
    return {
        "roc": {name: [0.0, *map(float, found), 1.0] for name, found in rates.items()},
        "epsilon": [round(float(e), 4) for e in epsilon],
        "groups": {
            third: float(0.02 * strength * rng.uniform(-0.2, 1) + 0.01 * rng.normal())
            for third in ("head", "mid", "tail")
        },
        "intervals": {"lira_tpr_1": [8.7, 8.1, 9.4]},
    }


def made_audit(methods=None, *, keys=None, half=16, null=True, separated=0):
    """Return an audit's record as JSON holds it.

    Args:
      methods: how far each is from Retrain, in halves of the null's intervals.
      keys: of the figures; default all.
      half: models of either side.
      null: whether there is more than one Retrain.
      separated: forget samples of the first method with an epsilon of 50.
    """
    methods = DEFAULT if methods is None else methods
    rng = np.random.default_rng(4)
    keys = list(KINDS) if keys is None else keys
    figures = {
        name: {key: figure(key, strength, rng, null=null) for key in keys}
        for name, strength in methods.items()
    }
    details = {
        name: detail(strength, rng, separated=separated * (n == 0))
        for n, (name, strength) in enumerate(methods.items())
    }
    if null:
        details["null"] = detail(0.0, rng)
    for found in details.values():
        if "lira_auc" not in keys or not null:
            found["roc"], found["intervals"] = None, {}
        if "epsilon" not in keys or not null:
            found["epsilon"] = None
        if "deviation" not in keys:
            found["groups"] = {}
    record = {
        "figures": figures,
        "details": details,
        "models": dict.fromkeys(methods, max(half, 1)),
        "retrained": 2 * half if null else 1,
        "half": half if null else 0,
        "resamples": 20,
        "level": 0.95,
        "forgotten": FORGOTTEN,
        "left_out": {
            key: "needs outputs on unseen samples" for key in KINDS if key not in keys
        },
    }
    return json.loads(json.dumps(record))
