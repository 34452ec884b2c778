"""The figures: deviation by class, confidences, weights, Avg. Gap against deviation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_unlearn.report.svg import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    RED,
    Drawing,
    new_axes,
    style,
    to_svg,
)
from jax_unlearn.report.table import REFERENCES, number, ordered_keys

PANEL = (3.5, 2.25)  # inches of a small multiple
GROUPS = ("head", "mid", "tail")
LOWEST_LOSS = 1e-5  # losses are recorded to five digits


def deviation_by_class(results: Mapping[str, Any]) -> list[Drawing]:
    """Draw the deviation p − p* from head to tail, one panel a method.

    Args:
      results: checked results, with Retrain.

    Returns:
      The panels; the original alone where there is no method.
    """
    rows = results["rows"]
    shown = _methods(rows) or [key for key in rows if key != "retrain"]
    low, high = _range_of_deviation(rows)
    return [
        _deviation_panel(rows, key, (low, high), f"deviation{n}")
        for n, key in enumerate(shown)
    ]


def _deviation_panel(
    rows: Mapping[str, Any], key: str, limits: tuple[float, float], name: str
) -> Drawing:
    row = rows[key]
    looks = {"null": (GREEN, ":", 1.4), "original": (RED, "--", 1.4)}
    lines = {k: v for k, v in looks.items() if k in rows and k != key}
    lines[key] = (BLUE, "-", 2.0)
    classes = _last_class(rows)
    grouped = bool(row["groups"])
    with style():
        left, *right = new_axes(*PANEL, (1.9, 1) if grouped else (1,))
        for axes in (left, *right):
            axes.axhline(0, color=INK, linewidth=0.9, zorder=1.5)
        ranks = np.arange(1, classes + 1)
        for line, (colour, dash, width) in lines.items():
            values = np.array(rows[line]["by_rank"][:classes], np.float64)
            marker = "o" if classes <= 20 else ""
            left.plot(
                ranks, values, dash, color=colour, linewidth=width, marker=marker, ms=3
            )
        left.set_xlim(0.5, classes + 0.5)
        left.set_xticks(_rank_ticks(classes))
        left.set_xlabel("class, from head to tail (rank)")
        left.set_ylabel("p − p*")
        for axes in right:
            for line, (colour, _, _) in lines.items():
                _group_points(axes, rows[line]["groups"], colour, line == key)
            axes.set_xlim(-0.6, 2.6)
            axes.set_xticks(range(3), GROUPS)
        left.set_ylim(*limits)
        return Drawing(row["label"], to_svg(left.figure, name=name, alt=_said(row)))


def _group_points(
    axes: Any, groups: Mapping[str, Any], colour: str, strong: bool
) -> None:
    for x, group in enumerate(GROUPS):
        if group in groups:
            axes.errorbar(
                x,
                groups[group]["mean"],
                yerr=(groups[group]["std"] or 0.0) if strong else None,
                fmt="o" if strong else "_",
                color=colour,
                markersize=5 if strong else 11,
                markeredgewidth=0 if strong else 1.6,
                linewidth=1.2,
                zorder=3 if strong else 2,
            )


def _said(row: Mapping[str, Any]) -> str:
    text = f"Deviation p − p* of {row['label']}"
    means = [
        f"{group} {number(row['groups'][group]['mean'], 3, sign=True)}"
        for group in GROUPS
        if group in row["groups"]
    ]
    if means:
        return f"{text}: {', '.join(means)}"
    known = [r for r in row["by_rank"] if r is not None]
    return f"{text}, by class: {', '.join(number(r, 3, sign=True) for r in known)}"


def _range_of_deviation(rows: Mapping[str, Any]) -> tuple[float, float]:
    ends = [-0.05, 0.05]
    for row in rows.values():
        ends += [value for value in row["by_rank"] if value is not None]
        for group in row["groups"].values():
            spread = group["std"] or 0.0
            ends += [group["mean"] - spread, group["mean"] + spread]
    margin = 0.06 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def _last_class(rows: Mapping[str, Any]) -> int:
    """Return the last rank that has forget samples."""
    return max(
        1 + max(n for n, value in enumerate(row["by_rank"]) if value is not None)
        for row in rows.values()
    )


def _rank_ticks(classes: int) -> list[int]:
    """Return ticks at the first and last rank and some between.

    >>> _rank_ticks(100)
    [1, 20, 40, 60, 80, 100]
    """
    if classes <= 10:
        return list(range(1, classes + 1))
    step = next(s for s in (2, 5, 10, 20, 50, 100, 200, 500, 10**6) if classes / s <= 6)
    inner = [tick for tick in range(step, classes, step) if classes - tick > step / 2]
    return [1, *inner, classes]


def confidences(results: Mapping[str, Any]) -> list[Drawing]:
    """Draw histograms of the confidence in the true class, one panel a model.

    Args:
      results: checked results.

    Returns:
      The panels: Retrain, the original, the methods.
    """
    rows = results["rows"]
    shown = [key for key in ordered_keys(rows) if key != "null"]
    density = {
        key: {name: _density(c) for name, c in rows[key]["histograms"].items()}
        for key in shown
    }
    positive = np.concatenate(
        [d[d > 0] for sets in density.values() for d in sets.values()]
    )
    limits = float(positive.min()) / 1.5, float(positive.max()) * 1.6
    target = density["retrain"]["forget"] if "retrain" in density else None
    return [
        _confidence_panel(
            rows[key],
            density[key],
            None if key == "retrain" else target,
            limits,
            f"confidence{n}",
        )
        for n, key in enumerate(shown)
    ]


def _confidence_panel(
    row: Mapping[str, Any],
    density: Mapping[str, np.ndarray],
    target: np.ndarray | None,
    limits: tuple[float, float],
    name: str,
) -> Drawing:
    with style():
        (axes,) = new_axes(*PANEL)
        log_scale(axes, "y")
        axes.set_ylim(*limits)
        axes.set_xlim(0, 1)
        floor = limits[0] / 10

        def steps(values: np.ndarray, **look: Any) -> None:
            edges = np.linspace(0, 1, len(values) + 1)
            axes.stairs(np.maximum(values, floor), edges, baseline=floor, **look)

        steps(density["forget"], fill=True, color=RED, alpha=0.3)
        steps(density["forget"], color=RED, linewidth=1.4)
        steps(density["retain"], color=MUTED, linewidth=1.1, linestyle="--")
        steps(density["unseen"], color=BLUE, linewidth=1.5)
        if target is not None:
            steps(target, color=INK, linewidth=1.3, linestyle=":")
        axes.set_xlabel("confidence in the true class (probability)")
        axes.set_ylabel("density, log scale")
        alt = f"Confidence of {row['label']}: share above 0.9: " + ", ".join(
            f"{part} {100 * _share_above(row['histograms'][part], 0.9):.0f} %"
            for part in ("forget", "unseen", "retain")
        )
        return Drawing(row["label"], to_svg(axes.figure, name=name, alt=alt))


def log_scale(axes: Any, direction: str) -> None:
    """Scale by powers of ten, without minor ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    (axes.set_xscale if direction == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if direction == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))


def _power(value: float) -> str:
    """Return a power of ten as a tick says it.

    >>> _power(0.001), _power(10.0), _power(1e-5)
    ('0.001', '10', '1e−5')
    """
    return f"{value:g}".replace("e-0", "e−").replace("e+0", "e")


def _density(counts: Sequence[float]) -> np.ndarray:
    """Return the density over [0, 1]; zeros where there are no samples.

    >>> _density([1, 3]).tolist()
    [0.5, 1.5]
    """
    values = np.asarray(counts, np.float64)
    return values * len(values) / max(values.sum(), 1.0)


def _share_above(counts: Sequence[float], low: float) -> float:
    values = np.asarray(counts, np.float64)
    first = round(low * len(values))
    return float(values[first:].sum() / max(values.sum(), 1.0))


def weights_against_losses(results: Mapping[str, Any]) -> list[Drawing]:
    """Draw weight against loss in the first and last quarter of the first seed's run.

    Args:
      results: checked results.

    Returns:
      A panel for each method that weights; none where no run was followed.
    """
    rows, scatter = results["rows"], results.get("scatter") or {}
    return [
        _weight_panel(rows[key]["label"], points, f"weight{n}")
        for n, (key, points) in enumerate(scatter.items())
    ]


def _weight_panel(label: str, points: Mapping[str, Any], name: str) -> Drawing:
    with style():
        (axes,) = new_axes(*PANEL)
        log_scale(axes, "x")
        parts = (("first", RED, "s", "first quarter"), ("last", BLUE, "o", "last"))
        for part, colour, marker, _ in parts:
            losses = np.maximum(points[f"{part}_losses"], LOWEST_LOSS)
            axes.scatter(
                losses,
                points[f"{part}_weights"],
                s=7,
                color=colour,
                marker=marker,
                alpha=0.45,
                linewidths=0,
                rasterized=True,
            )
        axes.set_xlabel("loss of the sample (nats), log scale")
        axes.set_ylabel("weight")
        alt = f"Weight against loss of {label}: " + "; ".join(
            f"{said}: weights {number(min(w), 2)} to {number(max(w), 2)}, "
            f"median loss {number(float(np.median(points[f'{part}_losses'])), 3)}"
            for part, _, _, said in parts
            for w in [points[f"{part}_weights"]]
        )
        return Drawing(label, to_svg(axes.figure, name=name, alt=alt))


def gap_against_deviation(results: Mapping[str, Any]) -> Drawing:
    """Draw each model by Avg. Gap and per-sample deviation, methods by number.

    Args:
      results: checked results, with Retrain.

    Returns:
      The drawing; the numbers are those of the methods in order, from 1.
    """
    rows = results["rows"]
    methods = _methods(rows)
    names = {key: str(n) for n, key in enumerate(methods, start=1)}
    names |= {key: key[0].upper() for key in REFERENCES if key in rows}
    with style():
        (axes,) = new_axes(5.2, 3.9)
        points = {key: _position(rows[key]) for key in names}
        _frame(axes, rows, list(points))
        if "original" in points:
            x, y = points["original"]
            axes.axvline(x, color=RED, linewidth=0.9, linestyle="--", zorder=1)
            axes.axhline(y, color=RED, linewidth=0.9, linestyle="--", zorder=1)
        if "null" in points:
            x, y = points["null"]
            axes.fill_between([0, x], 0, y, color=GREEN, alpha=0.18, linewidth=0)
        for key, (x, y) in points.items():
            colour = {"retrain": INK, "null": GREEN, "original": RED}.get(key, BLUE)
            axes.errorbar(
                x,
                y,
                xerr=rows[key]["avg_gap"]["std"] or 0.0,
                yerr=rows[key]["deviation"]["std"] or 0.0,
                fmt="o" if key in methods else "s",
                color=colour,
                markersize=5,
                linewidth=0.6,
                zorder=3,
            )
        axes.set_xlabel("Avg. Gap to Retrain (percentage points)")
        axes.set_ylabel("mean |p − p*| over the forget samples")
        _label_points(axes, points, names)
        alt = "Avg. Gap and |p − p*|: " + "; ".join(
            f"{rows[key]['label']} {number(x, 2)} and {number(y, 3)}"
            for key, (x, y) in points.items()
        )
        return Drawing("", to_svg(axes.figure, name="gap", alt=alt))


def _position(row: Mapping[str, Any]) -> tuple[float, float]:
    return row["avg_gap"]["mean"], row["deviation"]["mean"]


def _frame(axes: Any, rows: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Show all points with their bars, and some room for the numbers."""
    for limit, name in ((axes.set_xlim, "avg_gap"), (axes.set_ylim, "deviation")):
        figures = [rows[key][name] for key in keys]
        end = max(figure["mean"] + (figure["std"] or 0.0) for figure in figures)
        end = max(end, 1e-3)
        limit(-0.05 * end, 1.07 * end)


def _label_points(
    axes: Any,
    points: Mapping[str, tuple[float, float]],
    names: Mapping[str, str],
) -> None:
    """Write each name beside its point, away from other names and points."""
    unit = axes.figure.dpi / 72
    places = np.array([axes.transData.transform(points[key]) for key in names]) / unit
    at = _apart(places, wide=1.5 if len(names) > 12 else 1.0)
    for key, place in zip(names, at, strict=True):
        axes.annotate(
            names[key],
            points[key],
            xytext=place - places[list(names).index(key)],
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9.5,
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5},
        )


def _apart(points: np.ndarray, *, near: float = 12.0, wide: float = 1.0) -> np.ndarray:
    """Return places beside the points, near to them and apart from all else.

    `wide` is the room of a name across, as a multiple of that along.

    >>> places = _apart(np.array([[0.0, 0.0], [1.0, 1.0]]))
    >>> bool(np.linalg.norm(places[0] - places[1]) > 10)
    True
    """
    angles = 0.8 + 2.4 * np.arange(len(points))  # no two start in one direction
    start = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    at = points + near * np.where(len(points) > 1, start, [[0.7, 0.7]])
    unit = np.array([wide, 1.0])
    for _ in range(300):
        push = 0.04 * (points - at)
        for others, room in ((at, 14.0 if wide > 1 else 13.0), (points, 10.0)):
            apart = (at[:, None] - others[None]) / unit
            distance = np.linalg.norm(apart, axis=-1)
            closeness = np.where(distance > 0, np.maximum(room - distance, 0), 0)
            safe = np.where(distance > 0, distance, 1.0)
            push += unit * (0.3 * (closeness / safe)[..., None] * apart).sum(axis=1)
        at = at + push
    return at


def _methods(rows: Mapping[str, Any]) -> list[str]:
    return [key for key in rows if key not in REFERENCES]
