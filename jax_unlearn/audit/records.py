"""What an audit returns: figures beside target and null, as a table and as JSON."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit.evidence import FigureCard
from jax_unlearn.audit.figures import KINDS
from jax_unlearn.audit.rates import Roc
from jax_unlearn.audit.vulnerable import Ruli
from jax_unlearn.errors import unknown_name

__all__ = ["Audit", "Detail", "Figure", "audit_table", "to_record", "visible"]

POINTS = 200  # of a ROC curve in a record at most
SIGN = {"inside": "●", "outside": "○"}  # of verdicts, in tables of text
MOST = 6  # digits behind the point, however near a value lies


class Figure(NamedTuple):
    """One figure of one method.

    Attributes:
      value: of the method.
      std: over its models, None for a figure of a whole ensemble or a single model.
      target: Retrain's value of a level; that of the null for the others.
      null_low, null_high: the range in which another Retrain would lie, at the
        chosen level; None with fewer than three Retrains, or where these are so far
        apart that no value could lie outside.
      verdict: "inside" or "outside" of the null's interval; "" where there is none. A
        distance below the interval, and a closeness above it, are inside.
    """

    value: float
    std: float | None
    target: float
    null_low: float | None
    null_high: float | None
    verdict: str

    def text(self, digits: int) -> str:
        """Return the value, with its spread where it has one."""
        spread = "" if self.std is None else f" ± {self.std:.{digits}f}"
        return f"{self.value:.{digits}f}{spread}"

    def interval(self, digits: int) -> str:
        """Return the null's interval; "" where there is none."""
        ends = (self.null_low, self.null_high)
        if None in ends:
            return ""
        return f"[{', '.join(f'{end:.{digits}f}' for end in ends)}]"


def visible(figure: Any, digits: int) -> int:
    """Return the digits by which a value outside is seen to lie there.

    A value of 99.78 beside [99.81, 100] is not shown as 99.8 beside [99.8, 100.0].

    >>> visible(Figure(99.78, None, 99.9, 99.81, 100.0, "outside"), 1)
    2
    """
    low, high = figure.null_low, figure.null_high
    value, target = figure.value, figure.target
    if figure.verdict != "outside" or low is None or high is None:
        return digits
    for shown in range(digits, max(digits, MOST)):
        seen = round(value, shown)
        apart = not round(low, shown) <= seen <= round(high, shown)
        if apart and (seen != round(target, shown) or value == target):
            return shown
    return max(digits, MOST)


class Detail(NamedTuple):
    """What is drawn of one method, and of the null.

    Attributes:
      roc: of U-LiRA, None with too few models, like `epsilon`.
      epsilon: of each forget sample, `f64[F]`.
      groups: mean of p - p* by head, mid and tail; may be empty.
      intervals: value and interval of U-LiRA's figures in this division: the AUC's by
        bootstrap over samples, the rates' Clopper-Pearson's; or empty.
    """

    roc: Roc | None
    epsilon: np.ndarray | None
    groups: dict[str, float]
    intervals: dict[str, tuple[float, float, float]]


class Audit(NamedTuple):
    """All figures of one or more methods.

    Attributes:
      figures: by method, then by key of the card.
      details: by method; "null" is that of Retrains against others.
      models: number of models of each method.
      retrained: number of Retrains.
      half: models of either side in the figures of ensembles.
      resamples: divisions of the Retrains that the null is drawn from.
      level: of the null's intervals.
      forgotten: number of forget samples.
      left_out: figures that could not be had, with the reason.
      cards: of the figures and of those left out, by key.
      split: into vulnerable and protected samples; None where there is none.
      originals: that the models come from; 0 where none were given.
    """

    figures: dict[str, dict[str, Figure]]
    details: dict[str, Detail]
    models: dict[str, int]
    retrained: int
    half: int
    resamples: int
    level: float
    forgotten: int
    left_out: dict[str, str]
    cards: Mapping[str, FigureCard] = KINDS
    split: Ruli | None = None
    originals: int = 0


def audit_table(found: Audit, name: str) -> str:
    """Lay the figures of a method out as a Markdown table.

    Raises:
      InputError: no such method.

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
        digits = visible(figure, card.digits)
        label, target = card.label.replace("|", "\\|"), f"{figure.target:.{digits}f}"
        cells = label, figure.text(digits), target, figure.interval(digits)
        row = " | ".join(cell or "–" for cell in (*cells, figure.verdict))
        lines.append(f"| {row} |")
    return "\n".join(lines)


def to_record(found: Audit) -> dict[str, Any]:
    """Return an audit as JSON-able data, curves thinned to 200 points.

    >>> to_record(Audit({}, {}, {}, 8, 4, 20, 0.95, 30, {}))["half"]
    4
    """

    def plain_split(split: Ruli) -> dict[str, Any]:
        return {
            **split._asdict(),
            "vulnerable": split.vulnerable.tolist(),
            "protected": split.protected.tolist(),
            "auc": np.round(split.auc, 4).tolist(),
        }

    def plain(detail: Detail) -> dict[str, Any]:
        roc, epsilon = detail.roc, detail.epsilon
        return {
            **detail._asdict(),
            "roc": None if roc is None else _thinned(roc),
            "epsilon": None if epsilon is None else np.round(epsilon, 4).tolist(),
        }

    split = found.split
    return {
        **found._asdict(),
        "split": None if split is None else plain_split(split),
        "figures": {
            name: {key: figure._asdict() for key, figure in figures.items()}
            for name, figures in found.figures.items()
        },
        "details": {name: plain(detail) for name, detail in found.details.items()},
        "cards": {key: card.plain() for key, card in found.cards.items()},
    }


def _thinned(roc: Roc) -> dict[str, list[float]]:
    """Return points of a curve, evenly spaced in the logarithm of the FPR too."""
    kept = np.arange(len(roc.fpr))
    if len(kept) > POINTS:
        half = POINTS // 2
        goals = [*np.geomspace(1e-4, 1, half), *np.linspace(0, 1, half)]
        nearest = np.searchsorted(roc.fpr, goals, side="right") - 1
        kept = np.unique([kept[0], kept[-1], *nearest])
    axes = {"fpr": roc.fpr, "tpr": roc.tpr}
    return {name: values[kept].round(6).tolist() for name, values in axes.items()}
