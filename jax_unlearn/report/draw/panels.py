"""Panels of one model each: deviation by class, confidence, weights, conflict."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_unlearn.report.draw import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    RED,
    Drawing,
    log_scale,
    new_axes,
    style,
    to_svg,
)
from jax_unlearn.report.forms import THIRDS
from jax_unlearn.report.reading import Points, Results, Row, methods_of, ordered_keys
from jax_unlearn.report.table import number

__all__ = [
    "confidences",
    "conflict_by_step",
    "conflict_share",
    "deviation_by_class",
    "weights_against_losses",
]

PANEL = (3.5, 2.25)  # inches of a small multiple
LOWEST_LOSS = 1e-5  # losses are recorded to five digits
CONFLICTS = 12  # panels of the conflict at most
MANY = 500  # steps, beyond which the curve of the conflict is a raster


def deviation_by_class(results: Results) -> list[Drawing]:
    """Draw the deviation p − p* from head to tail, one panel a method.

    Args:
      results: with Retrain.

    Returns:
      The panels; the original alone where there is no method.
    """
    rows = results.rows
    shown = methods_of(rows) or [key for key in rows if key != "retrain"]
    ends = [-0.05, 0.05]
    for row in rows.values():
        ends += [value for value in row.by_rank or () if value is not None]
        for third in (row.groups or {}).values():
            spread = third.std or 0.0
            ends += [third.mean - spread, third.mean + spread]
    limits = _with_margin(ends)
    return [
        _deviation_panel(rows, key, limits, f"deviation{n}")
        for n, key in enumerate(shown)
    ]


def _deviation_panel(
    rows: Mapping[str, Row], key: str, limits: tuple[float, float], name: str
) -> Drawing:
    looks = {"null": (GREEN, ":", 1.4), "original": (RED, "--", 1.4)}
    lines = {k: v for k, v in looks.items() if k in rows and k != key}
    lines[key] = (BLUE, "-", 2.0)
    classes = max(_last_class(row) for row in rows.values())
    ranks = np.arange(1, classes + 1)
    with style():
        left, *right = new_axes(*PANEL, (1.9, 1) if rows[key].groups else (1,))
        for axes in (left, *right):
            axes.axhline(0, color=INK, linewidth=0.9, zorder=1.5)
        for line, (colour, dash, width) in lines.items():
            row, marker = rows[line], "o" if classes <= 20 else ""
            values = np.array((row.by_rank or ())[:classes], np.float64)
            look = {"color": colour, "linewidth": width, "marker": marker, "ms": 3}
            left.plot(ranks, values, dash, **look)
            for axes in right:
                _third_points(axes, row, colour, line == key)
        left.set_xlim(0.5, classes + 0.5)
        left.set_xticks(_rank_ticks(classes))
        left.set_xlabel("class, from head to tail (rank)")
        left.set_ylabel("p − p*")
        for axes in right:
            axes.set_xlim(-0.6, 2.6)
            axes.set_xticks(range(3), THIRDS)
        left.set_ylim(*limits)
        alt = _deviation_alt(rows[key])
        return Drawing(rows[key].label, to_svg(left.figure, name=name, alt=alt))


def _third_points(axes: Any, row: Row, colour: str, strong: bool) -> None:
    for x, third in enumerate(THIRDS):
        figure = (row.groups or {}).get(third)
        if figure is not None:
            axes.errorbar(
                x,
                figure.mean,
                yerr=(figure.std or 0.0) if strong else None,
                fmt="o" if strong else "_",
                color=colour,
                markersize=5 if strong else 11,
                markeredgewidth=0 if strong else 1.6,
                linewidth=1.2,
                zorder=3 if strong else 2,
            )


def _deviation_alt(row: Row) -> str:
    text = f"Deviation p − p* of {row.label}"
    groups = row.groups or {}
    if groups:
        means = [
            f"{third} {number(groups[third].mean, 3, sign=True)}"
            for third in THIRDS
            if third in groups
        ]
        return f"{text}: {', '.join(means)}"
    known = [number(r, 3, sign=True) for r in row.by_rank or () if r is not None]
    return f"{text}, by class: {', '.join(known)}"


def _with_margin(ends: Sequence[float]) -> tuple[float, float]:
    margin = 0.06 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def _last_class(row: Row) -> int:
    """Return the last rank that has forget samples."""
    return max(n for n, value in enumerate(row.by_rank or (), 1) if value is not None)


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


def confidences(results: Results) -> list[Drawing]:
    """Draw histograms of the confidence in the true class, one panel a model.

    Args:
      results: of an experiment.

    Returns:
      The panels: Retrain, the original, the methods.
    """
    shown = [key for key in ordered_keys(results.rows) if key != "null"]
    densities = {
        key: {k: _density(c) for k, c in (results.rows[key].histograms or {}).items()}
        for key in shown
    }
    every = np.concatenate([d for sets in densities.values() for d in sets.values()])
    positive = every[every > 0]
    limits = float(positive.min()) / 1.5, float(positive.max()) * 1.6
    drawings = []
    for n, key in enumerate(shown):
        sets = densities[key]
        if "retrain" in densities and key != "retrain":
            sets = sets | {"target": densities["retrain"]["forget"]}
        drawings.append(
            _confidence_panel(results.rows[key], sets, limits, f"confidence{n}")
        )
    return drawings


def _confidence_panel(
    row: Row, sets: Mapping[str, np.ndarray], limits: tuple[float, float], name: str
) -> Drawing:
    looks: Any = (
        ("forget", {"fill": True, "color": RED, "alpha": 0.3}),
        ("forget", {"color": RED, "linewidth": 1.4}),
        ("retain", {"color": MUTED, "linewidth": 1.1, "linestyle": "--"}),
        ("unseen", {"color": BLUE, "linewidth": 1.5}),
        ("target", {"color": INK, "linewidth": 1.3, "linestyle": ":"}),
    )
    with style():
        (axes,) = new_axes(*PANEL)
        log_scale(axes, "y")
        axes.set_ylim(*limits)
        axes.set_xlim(0, 1)
        floor = limits[0] / 10
        for part, look in looks:
            if part in sets:
                edges = np.linspace(0, 1, len(sets[part]) + 1)
                heights = np.maximum(sets[part], floor)
                axes.stairs(heights, edges, baseline=floor, **look)
        axes.set_xlabel("confidence in the true class (probability)")
        axes.set_ylabel("density, log scale")
        alt = f"Confidence of {row.label}: share above 0.9: " + ", ".join(
            f"{part} {100 * _share_above(sets[part], 0.9):.0f} %"
            for part in ("forget", "unseen", "retain")
        )
        return Drawing(row.label, to_svg(axes.figure, name=name, alt=alt))


def _density(counts: Sequence[float]) -> np.ndarray:
    """Return the density over [0, 1]; zeros where there are no samples.

    >>> _density([1, 3]).tolist()
    [0.5, 1.5]
    """
    values = np.asarray(counts, np.float64)
    return values * len(values) / max(values.sum(), 1.0)


def _share_above(density: np.ndarray, low: float) -> float:
    return float(density[round(low * len(density)) :].sum() / max(len(density), 1))


def weights_against_losses(results: Results) -> list[Drawing]:
    """Draw weight against loss in the first and last quarter of the first seed's run.

    Args:
      results: of an experiment.

    Returns:
      A panel for each method that weights; none where no run was followed.
    """
    return [
        _weight_panel(results.rows[key].label, points, f"weight{n}")
        for n, (key, points) in enumerate((results.scatter or {}).items())
    ]


def _weight_panel(label: str, points: Points, name: str) -> Drawing:
    parts: Any = (
        ("first quarter", points.first_losses, points.first_weights, RED, "s"),
        ("last", points.last_losses, points.last_weights, BLUE, "o"),
    )
    with style():
        (axes,) = new_axes(*PANEL)
        log_scale(axes, "x")
        said = []
        for part, losses, weights, colour, marker in parts:
            look: Any = {"color": colour, "marker": marker, "alpha": 0.45, "s": 7}
            shown = np.maximum(losses, LOWEST_LOSS)
            axes.scatter(shown, weights, linewidths=0, rasterized=True, **look)
            said.append(
                f"{part}: weights {number(min(weights), 2)} to "
                f"{number(max(weights), 2)}, median loss "
                f"{number(float(np.median(losses)), 3)}"
            )
        axes.set_xlabel("loss of the sample (nats), log scale")
        axes.set_ylabel("weight")
        alt = f"Weight against loss of {label}: {'; '.join(said)}"
        return Drawing(label, to_svg(axes.figure, name=name, alt=alt))


def conflict_by_step(results: Results) -> list[Drawing]:
    """Draw the cosine of g_f and g_r at each step, one panel a method.

    Args:
      results: of an experiment.

    Returns:
      The panels, the first `CONFLICTS` at most; none where no method had two gradients.
    """
    shown = list((results.conflict or {}).items())[:CONFLICTS]
    limits = _with_margin([v for _, angles in shown for v in angles] + [-0.1, 0.1])
    return [
        _conflict_panel(results.rows[key].label, angles, limits, f"conflict{n}")
        for n, (key, angles) in enumerate(shown)
    ]


def conflict_share(cosines: Sequence[float]) -> tuple[float, float]:
    """Return how often two gradients conflict, and what a projection removes.

    A step conflicts where cos < 0. There the projection of g_f beside g_r removes a
    part of length −cos·‖g_f‖; elsewhere nothing.

    Args:
      cosines: of the angle between g_f and g_r, one a step.

    Returns:
      The share of the steps that conflict, and the mean of max(0, −cos); both 0 to 1.

    Source: the one-way projection, see `jax_unlearn.harmonize.project`.

    >>> conflict_share([-0.5, 0.1, 0.2, 0.0])
    (0.25, 0.125)
    """
    values = np.asarray(cosines, np.float64)
    return float((values < 0).mean()), float(np.maximum(0.0, -values).mean())


def _conflict_panel(
    label: str, cosines: Sequence[float], limits: tuple[float, float], name: str
) -> Drawing:
    steps, values = np.arange(1, len(cosines) + 1), np.asarray(cosines, np.float64)
    often, removed = (
        number(100 * share, d)
        for share, d in zip(conflict_share(cosines), (0, 1), strict=True)
    )
    detail = (
        f"conflict in {often} % of {len(values):,} step{'s' * (len(values) > 1)}, "
        f"{removed} % of ‖g_f‖ removed"
    )
    raster: Any = {"rasterized": len(values) > MANY}
    with style():
        (axes,) = new_axes(PANEL[0], 2.0)
        below = _below(steps, values)
        axes.fill_between(*below, 0, color=RED, alpha=0.35, linewidth=0, **raster)
        look: Any = {"marker": "o" if len(values) <= 60 else "", "markersize": 2.4}
        axes.plot(steps, values, color=BLUE, linewidth=1.1, **look, **raster)
        axes.axhline(0, color=INK, linewidth=0.9)
        axes.set_ylim(*limits)
        pad = max(0.02 * len(values), 0.5)
        axes.set_xlim(1 - pad, len(values) + pad)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
        axes.set_xlabel("step")
        axes.set_ylabel("cos(g_f, g_r)")
        alt = f"Cosine of the two gradients of {label}: {detail}"
        return Drawing(label, to_svg(axes.figure, name=name, alt=alt), detail)


def _below(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the curve of min(value, 0), with the points where it meets zero.

    >>> x, y = _below(np.array([1, 2]), np.array([-1.0, 1.0]))
    >>> x.tolist(), y.tolist()
    ([1.0, 1.5, 2.0], [-1.0, 0.0, 0.0])
    """
    left, right = values[:-1], values[1:]
    at = np.flatnonzero(left * right < 0)
    crossings = steps[at] + left[at] / (left[at] - right[at])
    x = np.concatenate([steps, crossings])
    y = np.concatenate([np.minimum(values, 0.0), np.zeros(len(crossings))])
    order = np.argsort(x)
    return x[order], y[order]
