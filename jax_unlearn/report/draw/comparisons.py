"""Drawings of all models beside each other: two distances, or three of generation."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_unlearn.report.draw import (
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
from jax_unlearn.report.forms import GenerationRow
from jax_unlearn.report.reading import (
    REFERENCES,
    Results,
    Row,
    methods_of,
    ordered_keys,
    read_rows,
)
from jax_unlearn.report.table import GENERATION, generation_label, number

__all__ = ["gap_against_deviation", "generation_figure"]

COLOURS = {"retrain": INK, "null": GREEN, "original": RED}
COMPARED = ("ua", "retained_accuracy", "frechet")


def gap_against_deviation(results: Results) -> Drawing:
    """Draw each model by Avg. Gap and per-sample deviation, methods by number.

    Args:
      results: with Retrain.

    Returns:
      The drawing; the numbers are those of the methods in order, from 1.
    """
    rows = results.rows
    names = {key: str(n) for n, key in enumerate(methods_of(rows), start=1)}
    names |= {key: key[0].upper() for key in REFERENCES if key in rows}
    with style():
        (axes,) = new_axes(5.2, 3.9)
        points = {key: tuple(f.mean for f in _distances(rows[key])) for key in names}
        for side, limit in enumerate((axes.set_xlim, axes.set_ylim)):
            figures = [_distances(rows[key])[side] for key in names]
            end = max(figure.mean + (figure.std or 0.0) for figure in figures)
            end = max(end, 1e-3)
            limit(-0.05 * end, 1.07 * end)  # with some room for the numbers
        if "original" in points:
            look: Any = {"color": RED, "linewidth": 0.9, "linestyle": "--", "zorder": 1}
            axes.axvline(points["original"][0], **look)
            axes.axhline(points["original"][1], **look)
        if "null" in points:
            x, y = points["null"]
            axes.fill_between([0, x], 0, y, color=GREEN, alpha=0.18, linewidth=0)
        for key, (x, y) in points.items():
            gap, deviation = _distances(rows[key])
            axes.errorbar(
                x,
                y,
                xerr=gap.std or 0.0,
                yerr=deviation.std or 0.0,
                fmt="s" if key in REFERENCES else "o",
                color=COLOURS.get(key, BLUE),
                markersize=5,
                linewidth=0.6,
                zorder=3,
            )
        axes.set_xlabel("Avg. Gap to Retrain (percentage points)")
        axes.set_ylabel("mean |p − p*| over the forget samples")
        _label_points(axes, points, names)
        alt = "Avg. Gap and |p − p*|: " + "; ".join(
            f"{rows[key].label} {number(x, 2)} and {number(y, 3)}"
            for key, (x, y) in points.items()
        )
        return Drawing("", to_svg(axes.figure, name="gap", alt=alt))


def _distances(row: Row) -> tuple[Any, Any]:
    return row.avg_gap, row.deviation


def _label_points(
    axes: Any, points: Mapping[str, Any], names: Mapping[str, str]
) -> None:
    """Write each name beside its point, away from other names and points."""
    unit = axes.figure.dpi / 72
    places = np.array([axes.transData.transform(points[key]) for key in names]) / unit
    at = _apart(places, wide=1.5 if len(names) > 12 else 1.0)
    for key, start, place in zip(names, places, at, strict=True):
        axes.annotate(
            names[key],
            points[key],
            xytext=place - start,
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


def generation_figure(results: Any, *, name: str = "generation") -> Drawing:
    """Draw UA, accuracy on the other classes and Fréchet distance of every model.

    Args:
      results: of kind "generation", or its types; only the rows are read.
      name: of the drawing, unique in its page.

    Returns:
      The drawing: a dot a model, a line where Retrain lies, a dotted one for the null.

    Raises:
      InputError: rows that lack a figure.

    Source: our choice.
    """
    from matplotlib.figure import Figure

    rows = read_rows(results, GenerationRow)
    keys = [k for k in ordered_keys(rows) if k not in ("retrain", "null")]
    places = list(range(len(keys)))[::-1]
    with style():
        height = 0.75 + 0.22 * len(keys)
        figure = Figure(figsize=(7.2, height))
        for column, shown in enumerate(COMPARED):
            box = (0.25 + 0.255 * column, 0.5 / height, 0.22, 1 - 0.6 / height)
            axes = figure.add_axes(box)
            for depth, (reference, line) in enumerate(
                (("retrain", "-"), ("null", ":"))
            ):
                if reference in rows:
                    value = getattr(rows[reference], shown).mean
                    look: Any = {"color": COLOURS[reference], "linestyle": line}
                    axes.axvline(value, zorder=depth, **look)
            figures = [getattr(rows[key], shown) for key in keys]
            axes.errorbar(
                [found.mean for found in figures],
                places,
                xerr=[found.std or 0.0 for found in figures],
                fmt="o",
                color=BLUE,
                markersize=4.6,
                elinewidth=1.0,
                zorder=3,
            )
            labels = [] if column else [generation_label(key) for key in keys]
            axes.set_yticks(places, labels)
            axes.set_ylim(-0.6, len(keys) - 0.4)
            axes.set_xlabel(GENERATION[shown][0])
            if shown == "ua":
                axes.set_xlim(-4, 104)
        heads = ", ".join(GENERATION[shown][0] for shown in COMPARED)
        alt = f"{heads} of every method beside Retrain's: " + "; ".join(
            f"{generation_label(key)} {_numbers(rows[key])}"
            for key in ordered_keys(rows)
        )
        svg = to_svg(figure, name=name, alt=alt)
    return Drawing("Generated images: line Retrain, dotted line the null", svg)


def _numbers(row: GenerationRow) -> str:
    return ", ".join(
        number(getattr(row, shown).mean, GENERATION[shown][1]) for shown in COMPARED
    )
