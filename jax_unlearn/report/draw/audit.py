"""The drawings of an audit: ROC curves on log-log axes, epsilons, where values lie."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from jax_unlearn.audit.forgetting import SEPARATED
from jax_unlearn.lab.schema import ROUNDING
from jax_unlearn.report.draw import (
    AMBER,
    BLUE,
    GREEN,
    INK,
    MUTED,
    PURPLE,
    RED,
    Drawing,
    log_scale,
    new_axes,
    style,
    to_svg,
)
from jax_unlearn.report.forms import NULL, Audit, AuditFigure, Roc
from jax_unlearn.report.table import number

__all__ = ["Look", "epsilon_of_one", "looks", "roc_of_all", "roc_of_one", "strip"]

PANEL = (3.5, 2.9)  # inches
LEAST_RATE = 1e-3  # at the left of a ROC curve
BINS = 24  # of the finite epsilons
STRIP, BAND = (112.0, 14.0), (44.0, 68.0)  # points; where the null's interval is drawn
_COLOURS = ((BLUE, "blue"), (PURPLE, "purple"), (AMBER, "amber"), (INK, "ink"))
_DASHES = (("-", ""), ("--", " dashed"))


class Look(NamedTuple):
    """How a method is drawn where several are.

    Attributes:
      colour: of its line.
      dash: of its line.
      width: of its line, points.
      swatch: class of its sample in the key.
    """

    colour: str
    dash: str
    width: float
    swatch: str


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Return a look for each method; 16 before two are alike.

    >>> [look.swatch for look in looks(["ft", "original"]).values()]
    ['blue', 'red dashed']
    """
    found = {}
    for n, name in enumerate(name for name in methods if name != "original"):
        colour, word = _COLOURS[n % 4]
        dash, dashed = _DASHES[n // 4 % 2]
        thin = n // 8 % 2
        look = f"{word}{dashed}{' thin' * thin}"
        found[name] = Look(colour, dash, 0.9 if thin else 1.8, look)
    original = Look(RED, "--", 1.6, "red dashed")
    return {name: found.get(name, original) for name in methods}


def roc_of_all(record: Audit, labels: Mapping[str, str]) -> Drawing | None:
    """Draw the ROC curves of all methods on log-log axes, with the null's.

    Args:
      record: of the audit.
      labels: of the methods, by name.

    Returns:
      The drawing; None where no method has a curve.
    """
    found = looks(list(labels))
    curves = {n: found[n] for n in labels if record.details[n].roc is not None}
    return _roc_drawing(record, labels, curves, "roc") if curves else None


def roc_of_one(record: Audit, name: str, label: str, id_: str) -> Drawing:
    """Draw the ROC curve of a method that has one on log-log axes, with the null's.

    Args:
      record: of the audit.
      name: of the method.
      label: of the method.
      id_: of the drawing, unique in its page.

    Returns:
      The drawing.
    """
    look = Look(BLUE, "-", 1.9, "blue")
    return _roc_drawing(record, {name: label}, {name: look}, id_)


def lowest_rate(record: Audit) -> float:
    """Return where the axes of the ROC curves begin: 0.001, or 1/trials if more."""
    trials = max(record.half * record.forgotten, 1)
    return min(max(LEAST_RATE, 1 / trials), 0.1)


def on_axes(roc: Roc, low: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a ROC curve that lies right of and above `low`.

    It begins with the best rate had at no more than `low` false positives; a curve
    whose rate is less begins where it reaches `low`.

    Args:
      roc: both rates rise.
      low: where both axes begin.

    Returns:
      The rates, drawn as steps.

    >>> x, y = on_axes(Roc(fpr=(0, 0.05, 0.2, 1), tpr=(0, 0.3, 0.5, 1)), 0.1)
    >>> x.tolist(), y.tolist()
    ([0.1, 0.2, 1.0], [0.3, 0.5, 1.0])
    """
    fpr, tpr = np.asarray(roc.fpr, np.float64), np.asarray(roc.tpr, np.float64)
    start = max(int(np.searchsorted(fpr, low, side="right")) - 1, 0)
    x, y = np.clip(fpr[start:], low, 1), np.minimum(tpr[start:], 1)
    if x[-1] < 1:
        x, y = np.append(x, 1.0), np.append(y, y[-1])
    return x[y >= low], y[y >= low]


def _roc_drawing(
    record: Audit, labels: Mapping[str, str], curves: Mapping[str, Look], id_: str
) -> Drawing:
    low = lowest_rate(record)
    lines = {name: record.details[name].roc for name in curves}
    shown = {NULL: Look(GREEN, ":", 1.9, "")} if NULL in record.details else {}
    shown |= curves
    lines[NULL] = record.details[NULL].roc if NULL in record.details else None
    with style():
        (axes,) = new_axes(*((5.2, 3.9) if len(labels) > 1 else PANEL))
        log_scale(axes, "x")
        log_scale(axes, "y")
        axes.plot([low, 1], [low, 1], color=MUTED, linewidth=0.9)
        for name, (colour, dash, width, _) in shown.items():
            roc = lines[name]
            if roc is not None:
                x, y = on_axes(roc, low)
                look: Any = {"color": colour, "linewidth": width}
                axes.plot(x, y, dash, drawstyle="steps-post", **look)
        axes.set_xlim(low, 1.06)
        axes.set_ylim(low, 1.06)
        axes.set_xlabel("false positives among Retrain's (share, log scale)")
        axes.set_ylabel("traces found (share, log scale)")
        alt = "ROC curves of U-LiRA; traces found at 1 % false positives: " + ", ".join(
            f"{labels.get(name, 'null')} {number(100 * rate_at(roc, 0.01), 1)} %"
            for name, roc in lines.items()
            if roc is not None
        )
        title = "" if len(labels) > 1 else "ROC curve of U-LiRA"
        return Drawing(title, to_svg(axes.figure, name=id_, alt=alt))


def rate_at(roc: Roc, fpr: float) -> float:
    """Return the best true-positive rate at no more than so many false positives.

    >>> rate_at(Roc(fpr=(0, 0.005, 0.2, 1), tpr=(0, 0.3, 0.5, 1)), 0.01)
    0.3
    """
    last = int(np.searchsorted(np.asarray(roc.fpr), fpr, side="right")) - 1
    return float(roc.tpr[last]) if last >= 0 else 0.0


def epsilon_bins(record: Audit) -> np.ndarray:
    """Return edges of bins that all methods and the null share.

    The last bin, apart from the others, is of samples on which an attack never errs.
    """
    found = [d.epsilon for d in record.details.values() if d.epsilon]
    values = np.concatenate([np.asarray(epsilon, np.float64) for epsilon in found])
    finite = values[values < SEPARATED]
    top = max(float(finite.max()) if finite.size else 0.0, 1.0)
    return np.append(np.linspace(0, top, BINS + 1), top * (1 + 2 / BINS))


def shares(epsilon: Sequence[float], edges: np.ndarray) -> np.ndarray:
    """Return the percent of the samples in each bin; the last holds the told apart.

    >>> shares([0.0, 0.1, 2.4, 50.0], np.array([0.0, 1.2, 2.4, 2.6])).tolist()
    [50.0, 25.0, 25.0]
    """
    values = np.asarray(epsilon, np.float64)
    apart = values >= SEPARATED
    counts, _ = np.histogram(np.minimum(values[~apart], edges[-2]), edges[:-1])
    return 100 * np.append(counts, apart.sum()) / len(values)


def epsilon_of_one(record: Audit, name: str, label: str, id_: str) -> Drawing:
    """Draw the histogram of a method's epsilons, beside that of the null.

    Args:
      record: of an audit in which the method has them.
      name: of the method.
      label: of the method.
      id_: of the drawing, unique in its page.

    Returns:
      The drawing; all methods have the same axes.
    """
    edges = epsilon_bins(record)
    details = {n: d.epsilon for n, d in record.details.items() if d.epsilon}
    heights = {who: shares(epsilon, edges) for who, epsilon in details.items()}
    separated = any(height[-1] for height in heights.values())
    gap = float(2 * edges[1])  # room between the finite epsilons and the others
    with style():
        (axes,) = new_axes(*PANEL)
        for who, colour, dash in ((name, BLUE, "-"), (NULL, GREEN, ":")):
            if who not in heights:
                continue
            parts = [(heights[who][:-1], edges[:-1])]
            if separated:
                parts.append((heights[who][-1:], edges[-2:] + gap))
            look: Any = {"color": colour, "linestyle": dash, "linewidth": 1.6}
            for height, at in parts:
                if who == name:
                    axes.stairs(height, at, fill=True, color=BLUE, alpha=0.3)
                axes.stairs(height, at, zorder=3, **look)
        end = edges[-1] + gap if separated else edges[-2]
        axes.set_xlim(-0.01 * end, 1.01 * end)
        axes.set_ylim(0, 1.06 * max(height.max() for height in heights.values()))
        ticks = _ticks(edges[-2])
        words = [f"{tick:g}" for tick in ticks]
        if separated:
            ticks, words = [*ticks, edges[-2:].mean() + gap], [*words, "∞"]
        axes.set_xticks(ticks, words)
        axes.set_xlabel("epsilon of a sample")
        axes.set_ylabel("share of the samples, %")
        alt = f"Epsilon of each sample, {label}: {_middle(details[name])}"
        if NULL in details:
            alt += f"; null: {_middle(details[NULL])}"
        drawing = to_svg(axes.figure, name=id_, alt=alt)
        return Drawing("Epsilon of each sample", drawing)


def _ticks(top: float) -> list[float]:
    """Return a few ticks from 0 on, none at the very end.

    >>> _ticks(3.4)
    [0.0, 1.0, 2.0, 3.0]
    """
    step = next(s for s in (0.25, 0.5, 1, 2, 5, 10) if top / s <= 6)
    return [float(tick) for tick in np.arange(0, 0.97 * top, step)]


def _middle(epsilon: Sequence[float]) -> str:
    low, high = np.quantile(np.asarray(epsilon, np.float64), [0.5, 0.95])
    return f"median {number(low, 2)}, 95 % below {number(high, 2)}"


def strip(kind: str, figure: AuditFigure) -> Markup:
    """Draw where a value lies beside the null's interval, which is always as wide.

    Args:
      kind: of the figure's card.
      figure: of a method.

    Returns:
      A small `<svg>`, or nothing where there is no interval.

    >>> ends = {"null_low": 1.0, "null_high": 2.0, "verdict": "outside"}
    >>> figure = AuditFigure(value=3.0, std=None, target=1.5, **ends)
    >>> 'cx="92.0"' in strip("level", figure)
    True
    """
    low, high = figure.null_low, figure.null_high
    if low is None or high is None:
        return Markup("")
    width, height = STRIP
    middle, inside = height / 2, figure.verdict == "inside"
    ends = {"distance": (0.0, BAND[1]), "closeness": (BAND[0], width)}.get(kind, BAND)
    x = place(figure.value, low, high)
    colour = "var(--green)" if inside else "var(--red)"
    parts = [
        f'<svg viewBox="0 0 {width:g} {height:g}" aria-hidden="true">',
        f'<line x1="0" x2="{width:g}" y1="{middle:g}" y2="{middle:g}" '
        'stroke="var(--rule)" stroke-width="1"/>',
    ]
    for (start, end), shade in ((ends, 0.16), (BAND, 0.3)):
        parts.append(
            f'<rect x="{start:g}" y="2" width="{end - start:g}" '
            f'height="{height - 4:g}" fill="var(--green)" fill-opacity="{shade}"/>'
        )
    if 4 <= x <= width - 4:
        parts.append(
            f'<circle cx="{x:.1f}" cy="{middle:g}" r="3.2" '
            f'fill="{colour if inside else "var(--page)"}" '
            f'stroke="{colour}" stroke-width="1.6"/>'
        )
    else:  # an arrow: the value lies beyond the drawing
        tip, base = (width - 1, width - 8) if x > width / 2 else (1, 8)
        parts.append(
            f'<path d="M {tip:g} {middle:g} L {base:g} {middle - 4:g} '
            f'L {base:g} {middle + 4:g} Z" fill="{colour}"/>'
        )
    return Markup("".join(parts) + "</svg>")


def place(value: float, low: float, high: float) -> float:
    """Return where a value is drawn in a strip whose band is [low, high].

    >>> place(1.5, 1.0, 2.0), place(7.0, 1.0, 1.0) > STRIP[0]
    (56.0, True)
    """
    left, right = BAND
    if high - low <= ROUNDING:
        away = value - (low + high) / 2
        beyond = math.copysign(1e3, away) if abs(away) > ROUNDING else 0.0
        return (left + right) / 2 + beyond
    return left + (right - left) * (value - low) / (high - low)
