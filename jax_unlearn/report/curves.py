"""The drawings of an audit: ROC curves on log-log axes, epsilon of each sample."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit.forgetting import SEPARATED
from jax_unlearn.report.figures import PANEL, log_scale
from jax_unlearn.report.read_audit import NULL
from jax_unlearn.report.svg import (
    AMBER,
    BLUE,
    GREEN,
    INK,
    MUTED,
    PURPLE,
    RED,
    Drawing,
    new_axes,
    style,
    to_svg,
)
from jax_unlearn.report.table import number

LEAST_RATE = 1e-3  # at the left of a ROC curve
BINS = 24  # of the finite epsilons
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


def roc_of_all(record: Mapping[str, Any], labels: Mapping[str, str]) -> Drawing | None:
    """Draw the ROC curves of all methods on log-log axes, with the null's.

    Args:
      record: a checked audit.
      labels: of the methods, by name.

    Returns:
      The drawing; None where no method has a curve.
    """
    found = looks(list(labels))
    curves = [(n, found[n], roc) for n in labels if (roc := _roc(record, n))]
    if not curves:
        return None
    return _roc_drawing(record, labels, curves, (5.2, 3.9), "roc")


def roc_of_one(record: Mapping[str, Any], name: str, label: str, id_: str) -> Drawing:
    """Draw the ROC curve of a method that has one on log-log axes, with the null's.

    Args:
      record: a checked audit.
      name: of the method.
      label: of the method.
      id_: of the drawing, unique in its page.

    Returns:
      The drawing.
    """
    curves = [(name, Look(BLUE, "-", 1.9, "blue"), record["details"][name]["roc"])]
    return _roc_drawing(record, {name: label}, curves, (PANEL[0], 2.9), id_)


def lowest_rate(record: Mapping[str, Any]) -> float:
    """Return where the axes of the ROC curves begin: 0.001, or 1/trials if more.

    >>> (
    ...     lowest_rate({"half": 4, "forgotten": 25}),
    ...     lowest_rate({"half": 64, "forgotten": 25}),
    ... )
    (0.01, 0.001)
    """
    trials = max(record["half"] * record["forgotten"], 1)
    return min(max(LEAST_RATE, 1 / trials), 0.1)


def on_axes(roc: Mapping[str, Any], low: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a ROC curve that lies right of and above `low`.

    It begins with the best rate had at no more than `low` false positives; a curve
    whose rate is less begins where it reaches `low`.

    Args:
      roc: lists "fpr" and "tpr", both rising.
      low: where both axes begin.

    Returns:
      The rates, drawn as steps.

    >>> x, y = on_axes({"fpr": [0, 0.05, 0.2, 1], "tpr": [0, 0.3, 0.5, 1]}, 0.1)
    >>> x.tolist(), y.tolist()
    ([0.1, 0.2, 1.0], [0.3, 0.5, 1.0])
    """
    fpr, tpr = (np.asarray(roc[name], np.float64) for name in ("fpr", "tpr"))
    start = max(int(np.searchsorted(fpr, low, side="right")) - 1, 0)
    x, y = np.clip(fpr[start:], low, 1), np.minimum(tpr[start:], 1)
    if x[-1] < 1:
        x, y = np.append(x, 1.0), np.append(y, y[-1])
    return x[y >= low], y[y >= low]


def _roc(record: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return (record["details"].get(name) or {}).get("roc")


def _roc_drawing(
    record: Mapping[str, Any],
    labels: Mapping[str, str],
    curves: Sequence[tuple[str, Look, Mapping[str, Any]]],
    size: tuple[float, float],
    id_: str,
) -> Drawing:
    low = lowest_rate(record)
    null = _roc(record, NULL)
    with style():
        (axes,) = new_axes(*size)
        log_scale(axes, "x")
        log_scale(axes, "y")
        axes.plot([low, 1], [low, 1], color=MUTED, linewidth=0.9)
        if null is not None:
            _steps(axes, null, low, Look(GREEN, ":", 1.9, ""))
        for _, look, roc in curves:
            _steps(axes, roc, low, look)
        axes.set_xlim(low, 1.06)
        axes.set_ylim(low, 1.06)
        axes.set_xlabel("false positives among Retrain's (share, log scale)")
        axes.set_ylabel("traces found (share, log scale)")
        known = [(labels[name], roc) for name, _, roc in curves]
        known += [] if null is None else [("null", null)]
        alt = "ROC curves of U-LiRA; traces found at 1 % false positives: " + ", ".join(
            f"{label} {number(100 * rate_at(roc, 0.01), 1)} %" for label, roc in known
        )
        title = "" if len(labels) > 1 else "ROC curve of U-LiRA"
        return Drawing(title, to_svg(axes.figure, name=id_, alt=alt))


def _steps(axes: Any, roc: Mapping[str, Any], low: float, look: Look) -> None:
    x, y = on_axes(roc, low)
    axes.plot(
        x,
        y,
        look.dash,
        color=look.colour,
        linewidth=look.width,
        drawstyle="steps-post",
    )


def rate_at(roc: Mapping[str, Any], fpr: float) -> float:
    """Return the best true-positive rate at no more than so many false positives.

    >>> rate_at({"fpr": [0, 0.005, 0.2, 1], "tpr": [0, 0.3, 0.5, 1]}, 0.01)
    0.3
    """
    last = int(np.searchsorted(np.asarray(roc["fpr"]), fpr, side="right")) - 1
    return float(roc["tpr"][last]) if last >= 0 else 0.0


def epsilon_bins(record: Mapping[str, Any]) -> np.ndarray:
    """Return edges of bins that all methods and the null share.

    The last bin, apart from the others, is of samples on which an attack never errs.

    >>> detail = {"epsilon": [0.0, 2.4, 50.0]}
    >>> edges = epsilon_bins({"details": {"ft": detail}})
    >>> len(edges), float(edges[-2]), float(edges[1])
    (26, 2.4, 0.1)
    """
    found = [d["epsilon"] for d in record["details"].values() if d["epsilon"]]
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


def epsilon_of_one(
    record: Mapping[str, Any], name: str, label: str, id_: str
) -> Drawing:
    """Draw the histogram of a method's epsilons, beside that of the null.

    Args:
      record: a checked audit in which the method has them.
      name: of the method.
      label: of the method.
      id_: of the drawing, unique in its page.

    Returns:
      The drawing; all methods have the same axes.
    """
    edges = epsilon_bins(record)
    heights = {
        who: shares(detail["epsilon"], edges)
        for who, detail in record["details"].items()
        if detail["epsilon"]
    }
    separated = any(height[-1] for height in heights.values())
    with style():
        (axes,) = new_axes(PANEL[0], 2.9)
        for who, colour, dash in ((name, BLUE, "-"), (NULL, GREEN, ":")):
            if who not in heights:
                continue
            parts = [(heights[who][:-1], edges[:-1])]
            if separated:
                parts.append((heights[who][-1:], edges[-2:] + _gap(edges)))
            for height, at in parts:
                if who == name:
                    axes.stairs(height, at, fill=True, color=BLUE, alpha=0.3)
                axes.stairs(
                    height, at, color=colour, linestyle=dash, linewidth=1.6, zorder=3
                )
        end = edges[-1] + _gap(edges) if separated else edges[-2]
        axes.set_xlim(-0.01 * end, 1.01 * end)
        axes.set_ylim(0, 1.06 * max(height.max() for height in heights.values()))
        ticks = _ticks(edges[-2])
        words = [f"{tick:g}" for tick in ticks]
        if separated:
            ticks, words = (
                [*ticks, (edges[-2] + edges[-1]) / 2 + _gap(edges)],
                [*words, "∞"],
            )
        axes.set_xticks(ticks, words)
        axes.set_xlabel("epsilon of a sample")
        axes.set_ylabel("share of the samples, %")
        alt = f"Epsilon of each sample, {label}: {_middle(record, name)}"
        if NULL in heights:
            alt += f"; null: {_middle(record, NULL)}"
        drawing = to_svg(axes.figure, name=id_, alt=alt)
        return Drawing("Epsilon of each sample", drawing)


def _gap(edges: np.ndarray) -> float:
    """Return the room between the finite epsilons and the others."""
    return float(2 * edges[1])


def _ticks(top: float) -> list[float]:
    """Return a few ticks from 0 on, none at the very end.

    >>> _ticks(3.4)
    [0.0, 1.0, 2.0, 3.0]
    """
    step = next(s for s in (0.25, 0.5, 1, 2, 5, 10) if top / s <= 6)
    return [float(tick) for tick in np.arange(0, 0.97 * top, step)]


def _middle(record: Mapping[str, Any], name: str) -> str:
    values = np.asarray(record["details"][name]["epsilon"], np.float64)
    low, high = np.quantile(values, [0.5, 0.95])
    return f"median {number(low, 2)}, 95 % below {number(high, 2)}"
