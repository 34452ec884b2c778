"""The rows of the study of language models: what is searched, and what of it is asked.

All methods take as many steps; what a search tries is their rate, and of those that
train anew how much of the original stays, or their rate, in as many trials each.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.lab.modalities.language.settings import LanguageTraining

__all__ = ["ABLATION", "FURTHER", "LONGER", "LONGER_ABLATION", "MAIN", "OF"]
__all__ += [
    "OTHER_ABLATION",
    "PRESSED",
    "ROUNDS",
    "TAIL",
    "TRIED",
    "Authors",
    "Changes",
    "LanguageStudy",
    "Rows",
    "fixed",
    "grids_of",
    "settings_of",
]

Rows = Mapping[str, Mapping[str, Any]]
"""By label, flat values of settings."""

Changes = Mapping[str, tuple[str, Mapping[str, Any]]]
"""By label, the row whose settings are taken, and what is changed of them."""

OF = {
    "ablation": "main",
    "other_ablation": "main",
    "longer_ablation": "longer",
    "long_tailed": "main",
    "pressed": "main",
}
"""Parts whose rows have the settings of another's."""


@dataclasses.dataclass(frozen=True)
class Authors:
    """How many authors are of each part; the file has at least as many, in this order.

    Of 200 authors, as in TOFU, the parts begin at 0, 40, 160 and 180.
    """

    retain: int = 20
    base: int = 120
    unseen: int = 10
    forget: int = 10

    def places(self, count: int) -> dict[str, range]:
        """Return the numbers of each part's authors, of so many there are."""
        sizes = dataclasses.asdict(self)
        if sum(sizes.values()) > count:
            raise InputError(
                f"the file has {count} authors, the recipe takes {self.retain} + "
                f"{self.base} + {self.unseen} + {self.forget}; give a larger file"
            )
        begins = (0, 40, 160, 180) if count == 200 else np.cumsum([0, *sizes.values()])
        return {
            name: range(int(begin), int(begin) + size)
            for (name, size), begin in zip(sizes.items(), begins, strict=False)
        }


@dataclasses.dataclass(frozen=True)
class LanguageStudy:
    """A study of texts by author."""

    title: str
    authors: Authors
    training: LanguageTraining
    base_epochs: int
    seeds: tuple[int, ...]
    methods: Rows
    further: Rows = dataclasses.field(default_factory=dict)  # searched as methods are
    ablation: Changes = dataclasses.field(default_factory=dict)
    other_ablation: Changes = dataclasses.field(default_factory=dict)
    longer: Rows = dataclasses.field(default_factory=dict)  # of more steps
    longer_ablation: Changes = dataclasses.field(default_factory=dict)
    long_tailed: Changes = dataclasses.field(default_factory=dict)
    gamma: float = 0.0  # of a part whose authors are forgotten in a long tail; 0: none
    search_seed: int | None = None  # None: the settings of `methods` are fixed
    pressed: tuple[str, ...] = ()  # rows that are relearned and rounded

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its tables."""
        more = ("further", "ablation", "other_ablation", "longer", "longer_ablation")
        more += ("long_tailed", "pressed")
        return ("main", *(name for name in more if getattr(self, name)))

    def changes(self, part: str) -> Changes:
        """Return the rows of a part which takes its settings of another."""
        if part == "pressed":
            return {label: (label, {}) for label in self.pressed}
        return getattr(self, part)

    def searches(self, parts: Sequence[str]) -> dict[str, Rows]:
        """Return the rows whose settings some parts take, by whose they are."""
        rows = {"main": self.methods, "further": self.further, "longer": self.longer}
        asked = {OF.get(part, part) for part in parts}
        return {kind: own for kind, own in rows.items() if kind in asked}


LOREUN = {"weighting": "loreun", "relative": True}
STATIC = {"weighting": "loreun_static", "relative": True}
TOKENS = {"weighting": "loreun_tokens", "relative": True}
FALW = {"weighting": "falw", "estimator": "anchored"}
# one pass over the retain texts, in which twice as few forget texts come twice
STEPS: dict[str, Any] = {"epochs": 1, "batch_size": 16, "packed_into": 256}
# as published for TOFU: five passes over the forget texts (2401.06121), each step with
# as many retain texts, in 125 steps, as of open-unlearning's ten passes over 400 in
# batches of 32; what a part of the cost of Retrain's buys is in the main table
LONG: dict[str, Any] = {"steps": 125, "batch_size": 8, "packed_into": 256}
TRIED: dict[str, dict[str, Mapping[str, tuple[float, ...]]]] = {
    "main": {
        "partial_reset": {"shrink": (0.3, 0.7)},
        "short_retrain": {"rate": (1.0, 3.0)},
        "": {"learning_rate": (2e-4, 1e-3)},
    },
    "longer": {
        "": {"learning_rate": (5e-5, 1.4e-4, 3.7e-4, 1e-3)},
    },
}
TRIED["further"] = TRIED["main"]
"""What a search tries first, by method; of all others what "" says."""

# after that: two more trials each about the best
ROUNDS = {"main": 1, "further": 1, "longer": 0}
PLAIN = {"GradDiff": "grad_diff", "NPO": "npo", "SimNPO": "simnpo", "IdkNLL": "idk_nll"}
SHAPES = {
    "static": STATIC,
    "by token": TOKENS,
    "not normalised": {**LOREUN, "normalize": "none"},
    "dynamic": LOREUN,
}


def _of(method: str, **own: Any) -> dict[str, Any]:
    return {"modality": "language", "method": method, **STEPS, **own}


def _main() -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {
        "Partial reset": {
            **{"modality": "language", "method": "partial_reset"},
            # as the stored study ran it; texts have κ = 1 − λ by default now
            **{"budget": 0.3, "rate": 1.0, "perturb": 1.0},
        },
        "Short Retrain": {
            **{"modality": "language", "method": "short_retrain", "budget": 0.3}
        },
        "GA": _of("gradient_ascent", epochs=2),
    }
    for label, method in PLAIN.items():
        rows[label] = _of(method)
        rows[f"{label} + LoReUn"] = _of(method, **LOREUN)
    rows["GradDiff + LoReUn (static)"] = _of("grad_diff", **STATIC)
    rows["GradDiff + FaLW"] = _of("grad_diff", **FALW)
    rows["WGA"] = _of("wga")
    rows["RMU"] = _of("rmu")
    return rows


MAIN: Rows = _main()
"""The main table."""


FURTHER: Rows = {
    "Partial reset (convex)": {
        **{"modality": "language", "method": "partial_reset"},
        **{"budget": 0.3, "rate": 1.0, "perturb": None},
    },
    "IdkDPO": _of("idk_dpo"),
    "IdkDPO + LoReUn": _of("idk_dpo", **LOREUN),
    "IdkDPO + LoReUn (static)": _of("idk_dpo", **STATIC),
    "LTU": {
        **{"modality": "language", "method": "ltu", "epochs": 2, "batch_size": 16},
        # as many steps as GA, by passes over the forget texts, too; in each five
        # queries: 40 retained texts, of which other rows read 16
        "query_size": 8,
    },
}
"""Methods that the main table lacks."""

LONGER: Rows = {
    label: {**{k: v for k, v in MAIN[label].items() if k not in STEPS}, **LONG}
    for plain in ("GradDiff", "NPO", "SimNPO")
    for label in (plain, f"{plain} + LoReUn")
}
"""The rows of longer unlearning."""

ABLATION: Changes = {
    f"{label}, {shape}": (label, own)
    for label in ("GradDiff", "NPO")
    for shape, own in SHAPES.items()
    if (label, shape) != ("NPO", "dynamic")  # the main table's row, at the same rate
}
"""Shape by granularity, normalisation and reference, with the plain row's settings."""

OTHER_ABLATION: Changes = {
    f"{label}, {shape}" if shape else label: (label, SHAPES[shape] if shape else {})
    for label, shapes in {
        "GA": ("static", "by token", "dynamic"),
        "SimNPO": ("static", "by token"),
        # whose objectives do not weigh tokens, or do so themselves
        "IdkNLL": ("static",),
        "WGA": ("static", "dynamic"),
        "RMU": ("static", "dynamic"),
    }.items()
    for shape in ("", *shapes)
}
"""Of the methods that the first one leaves out, where the main table has no such row at
the same rate; each method plain beside them, of the same models."""

LONGER_ABLATION: Changes = {
    "NPO, static": ("NPO", STATIC),
    "NPO, by token": ("NPO", TOKENS),
    "NPO, temperature 0.5": ("NPO", {**LOREUN, "temperature": 0.5}),
    "GradDiff, static": ("GradDiff", STATIC),
}
"""Of longer unlearning; its dynamic rows stand in its table, at the same rates."""

TAIL: Changes = {
    label: (label, {})
    for label in (
        *("Partial reset", "GradDiff", "GradDiff + LoReUn", "GradDiff + FaLW"),
        *("NPO", "NPO + LoReUn"),
    )
}
"""The rows of a long-tailed request."""

PRESSED = ("Partial reset", "GradDiff", "GradDiff + LoReUn", "NPO", "NPO + LoReUn")
"""The rows that are relearned and rounded."""


def grids_of(rows: Rows, kind: str) -> dict[str, dict[str, Any]]:
    """Return what a search tries of each row of a part."""
    tried = TRIED[kind]
    return {
        label: {**own, **tried.get(own["method"], tried[""])}
        for label, own in rows.items()
    }


def settings_of(settings: Rows, asked: Changes) -> dict[str, dict[str, Any]]:
    """Return rows with the settings of others, and what is changed of them."""
    return {k: {**settings[own], **changes} for k, (own, changes) in asked.items()}


def fixed(**told: Any) -> dict[str, dict[str, Any]]:
    """Return some rows of the main table without a search."""
    labels = ("Partial reset", "GradDiff", "GradDiff + LoReUn", "NPO", "NPO + LoReUn")
    return {
        label: {**MAIN[label], **({} if "budget" in MAIN[label] else told)}
        for label in labels
    }
