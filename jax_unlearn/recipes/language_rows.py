"""The rows of the study of language models: what is searched, and what of it is asked.

All methods take as many steps; what a search tries is their rate, and of those that
train anew how much of the original stays, or their rate, in as many trials each.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["ABLATION", "MAIN", "PRESSED", "ROUNDS", "TAIL", "TRIED", "Changes", "Rows"]
__all__ += ["fixed", "grids_of", "settings_of"]

Rows = Mapping[str, Mapping[str, Any]]
"""By label, flat values of settings."""

Changes = Mapping[str, tuple[str, Mapping[str, Any]]]
"""By label, the row whose settings are taken, and what is changed of them."""

LOREUN = {"weighting": "loreun", "relative": True}
STATIC = {"weighting": "loreun_static", "relative": True}
TOKENS = {"weighting": "loreun_tokens", "relative": True}
FALW = {"weighting": "falw", "estimator": "anchored"}
# one pass over the retain texts, in which twice as few forget texts come twice
STEPS: dict[str, Any] = {"epochs": 1, "batch_size": 16, "packed_into": 256}
RATES = {"learning_rate": (2e-4, 1e-3)}
TRIED: dict[str, Mapping[str, tuple[float, ...]]] = {
    "partial_reset": {"shrink": (0.3, 0.7)},
    "short_retrain": {"rate": (1.0, 3.0)},
}
"""What a search tries first, by method; of all others `RATES`."""

ROUNDS = 1  # of a search after that: two more trials about the best
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
            **{"budget": 0.3, "rate": 1.0},
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

ABLATION: Changes = {
    f"{label}, {shape}": (label, own)
    for label in ("GradDiff", "NPO")
    for shape, own in SHAPES.items()
    if (label, shape) != ("NPO", "dynamic")  # the main table's row, at the same rate
}
"""Shape by granularity, normalisation and reference, with the plain row's settings."""

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


def grids_of(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return what a search tries of each row."""
    return {
        label: {**own, **TRIED.get(own["method"], RATES)} for label, own in rows.items()
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
