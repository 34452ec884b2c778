"""The methods of the papers' tables: what each is told, and what its search tries."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax_unlearn.lab import Unlearning
from jax_unlearn.recipes.search import Grids

LOREUN = {"weighting": "loreun", "relative": True}
STATIC = {"weighting": "loreun_static", "relative": True}
TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0)
BASES = ("GA", "RL", "SalUn", "SFRon", "SCRUB")  # LoReUn is laid on each of them

FIXED: dict[str, dict[str, Any]] = {
    "FT": {"method": "finetune"},
    "RL": {"method": "random_label"},
    "GA": {"method": "gradient_ascent"},
    "IU": {"method": "influence"},
    "BE": {"method": "boundary_expand"},
    "BS": {"method": "boundary_shrink"},
    "l1-sparse": {"method": "l1_sparse"},
    "SalUn": {"method": "salun"},
    "NegGrad+": {"method": "neggrad_plus"},
    "SFRon": {"method": "sfron", "clip": 7.0, "weighting": "uniform"},
    "SCRUB": {"method": "scrub"},
    "Bad Teacher": {"method": "bad_teacher", "optimizer": "adam", "rho": 0.3},
    "SSD": {"method": "ssd"},
    "LTU": {
        "method": "ltu",
        "rho": 0.3,
        "query_size": 32,
        "clip": 30.0,  # the second-order term can explode
        "allow_weak": True,
    },
    "RL + FaLW (exact)": {"weighting": "falw"},
    "RL + FaLW (every 8)": {"weighting": "falw", "estimator": "every", "every": 8},
    "RL + FaLW (streaming)": {"weighting": "falw", "estimator": "streaming"},
    "RL + FaLW (anchored)": {"weighting": "falw", "estimator": "anchored"},
    "Endpoint transport": {"method": "endpoint_transport"},
    "Transport, no decay": {"method": "endpoint_transport", "weight_decay": 0.0},
}
"""What each method is told before its search."""

_RELABEL = {"learning_rate": (0.001, 0.003, 0.01), "epochs": (2, 5)}
_DESCEND = {"learning_rate": (0.03, 0.1, 0.2), "epochs": (3, 8)}

TRIED: dict[str, dict[str, Sequence[Any]]] = {
    "FT": _DESCEND,
    "RL": _RELABEL,
    "GA": {"learning_rate": (0.0001, 0.0003, 0.001), "epochs": (3, 8)},
    "IU": {"strength": (1.0, 10.0, 100.0), "form": ("published", "exact")},
    "BE": {"learning_rate": (0.0001, 0.0003, 0.001), "epochs": (3, 8)},
    "BS": {"learning_rate": (0.0001, 0.0003, 0.001), "epochs": (3, 8)},
    "l1-sparse": {
        "learning_rate": (0.03, 0.1, 0.2),
        "penalty": (1e-4, 1e-3),
        "epochs": (5,),
    },
    "SalUn": _RELABEL,
    "NegGrad+": {
        "learning_rate": (0.003, 0.01, 0.03),
        "alpha": (0.95, 0.99),
        "epochs": (3,),
    },
    "SFRon": {"learning_rate": (0.01, 0.03, 0.1), "peak": (5.0, 25.0), "epochs": (3,)},
    "SCRUB": {
        "learning_rate": (0.003, 0.01, 0.03),
        "forget_epochs": (1, 2),
        "epochs": (3,),
    },
    "Bad Teacher": {"learning_rate": (1e-4, 3e-4, 1e-3), "epochs": (1, 3)},
    "SSD": {"selection": (1.0, 3.0, 10.0), "dampening": (0.3, 1.0)},
    "LTU": {"learning_rate": (0.0003, 0.001, 0.003), "epochs": (2, 5)},
    "Endpoint transport": _DESCEND,
    "Transport, no decay": _DESCEND,
}
"""Six trials each; weighted methods and estimators have those of random labels."""


def weighted(label: str, weighting: str) -> str:
    """Return the label of a method with LoReUn.

    >>> weighted("RL", "static")
    'RL + LoReUn (static)'
    """
    return f"{label} + LoReUn ({weighting})"


FIELD = (*FIXED,)[:13]
"""The standard table and its neighbours, LTU apart."""

WITH_LOREUN = tuple(
    weighted(base, how) for base in BASES for how in ("static", "dynamic")
)
WITH_FALW = tuple(label for label in FIXED if "FaLW" in label)
TRANSPORT = ("Endpoint transport", "Transport, no decay")

MODELS = 32  # of each kind, for attacks that need many
ATTACKED = (
    "FT",
    "RL",
    "SalUn",
    "RL + LoReUn (dynamic)",
    "SalUn + LoReUn (dynamic)",
    "RL + FaLW (every 8)",
    "NegGrad+",
    "Transport, no decay",
)
"""Methods that are attacked so."""


def grids(labels: Sequence[str]) -> Grids:
    """Return the grid of each method, six trials.

    >>> grids(["RL + FaLW (anchored)"])["RL + FaLW (anchored)"][1]["epochs"]
    (2, 5)
    """
    made = {}
    for label in labels:
        base, _, how = label.partition(" + LoReUn ")
        weights = {"(static)": STATIC, "(dynamic)": LOREUN, "": {}}[how]
        made[label] = ({**FIXED[base], **weights}, TRIED.get(base, _RELABEL))
    return made


def variants(settings: Mapping[str, Unlearning]) -> dict[str, Unlearning]:
    """Return LoReUn at other temperatures and unnormalised, rate and length kept.

    >>> sorted(variants({"RL + LoReUn (dynamic)": Unlearning.of(**LOREUN)}))[0]
    'LoReUn, mean one, τ 0.1'
    """
    base = settings[weighted("RL", "dynamic")]
    made = {}
    for word, how in (("mean one", "mean_one"), ("raw", "none")):
        for tau in TEMPERATURES:
            made[f"LoReUn, {word}, τ {tau:g}"] = base.but(
                temperature=tau, normalize=how
            )
    return made


def unbalanced(settings: Mapping[str, Unlearning]) -> dict[str, Unlearning]:
    """Return FaLW without its class balance: B = 1."""
    base = settings["RL + FaLW (exact)"]
    return {"RL + FaLW, no balance": base.but(tau=0.0)}


def ranked(settings: Mapping[str, Unlearning]) -> dict[str, Unlearning]:
    """Return endpoint transport with other ranks of difficulty."""
    base, bare = settings["Endpoint transport"], settings["Transport, no decay"]
    made = {
        f"Transport by {ranking}": base.but(ranking=ranking)
        for ranking in ("el2n", "gradient_norm", "neighbours")
    }
    both = bare.but(ranking="neighbours")
    return {**made, "Transport by neighbours, no decay": both}


def referenced(settings: Mapping[str, Unlearning]) -> dict[str, Unlearning]:
    """Return transport to targets that a model without forget samples helps find."""
    bare = settings["Transport, no decay"]
    found = bare.but(ranking="reference")
    return {"Transport by reference, no decay": found}
