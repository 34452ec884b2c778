"""An audit as a table of text, and as data for a file."""

from typing import Any

import numpy as np

from jax_unlearn.audit.auditor import Audit
from jax_unlearn.audit.rates import Roc
from jax_unlearn.errors import unknown_name

POINTS = 200  # of a ROC curve at most


def audit_table(found: Audit, name: str) -> str:
    """Lay the figures of a method out as a Markdown table.

    Args:
      found: of `audit`.
      name: of the method.

    Raises:
      InputError: no such method.

    >>> from jax_unlearn.audit.auditor import Figure
    >>> figure = Figure(5.0, 1.0, 4.0, 3.0, 5.5, "inside")
    >>> found = Audit({"FT": {"ua": figure}}, {}, {"FT": 8}, 8, 4, 20, 0.95, 30, {})
    >>> print(audit_table(found, "FT").splitlines()[2])
    | UA % | 5.0 ± 1.0 | 4.0 | [3.0, 5.5] | inside |
    """
    if name not in found.figures:
        raise unknown_name("method", name, found.figures)
    lines = [
        "| figure | method | Retrain or null | null's interval | verdict |",
        "|---|---|---|---|---|",
    ]
    for key, figure in found.figures[name].items():
        card = found.cards[key]
        value = f"{figure.value:.{card.digits}f}"
        if figure.std is not None:
            value += f" ± {figure.std:.{card.digits}f}"
        low, high = figure.null_low, figure.null_high
        interval = "–"
        if low is not None and high is not None:
            interval = f"[{low:.{card.digits}f}, {high:.{card.digits}f}]"
        label = card.label.replace("|", "\\|")
        lines.append(
            f"| {label} | {value} | {figure.target:.{card.digits}f} | {interval} "
            f"| {figure.verdict or '–'} |"
        )
    return "\n".join(lines)


def to_record(found: Audit) -> dict[str, Any]:
    """Return an audit as JSON-able data, curves thinned to 200 points.

    Args:
      found: of `audit`.

    >>> to_record(Audit({}, {}, {}, 8, 4, 20, 0.95, 30, {}))["half"]
    4
    """
    return {
        **found._asdict(),
        "figures": {
            name: {key: figure._asdict() for key, figure in figures.items()}
            for name, figures in found.figures.items()
        },
        "details": {
            name: {
                "roc": None if detail.roc is None else _thinned(detail.roc),
                "epsilon": None
                if detail.epsilon is None
                else [round(float(e), 4) for e in detail.epsilon],
                "groups": detail.groups,
                "intervals": {k: list(v) for k, v in detail.intervals.items()},
            }
            for name, detail in found.details.items()
        },
        "cards": {key: card.plain() for key, card in found.cards.items()},
    }


def _thinned(roc: Roc) -> dict[str, list[float]]:
    """Return points of a curve, evenly spaced in the logarithm of the FPR too."""
    count = len(roc.fpr)
    if count > POINTS:
        goals = np.concatenate(
            [np.geomspace(1e-4, 1, POINTS // 2), np.linspace(0, 1, POINTS // 2)]
        )
        kept = np.unique(
            [0, count - 1, *np.searchsorted(roc.fpr, goals, side="right") - 1]
        )
    else:
        kept = np.arange(count)
    return {
        "fpr": [round(float(x), 6) for x in roc.fpr[kept]],
        "tpr": [round(float(y), 6) for y in roc.tpr[kept]],
    }
