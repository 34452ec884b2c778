"""Figures of a study: against ρ or γ, without each part, near and far forget sets.

Each shows Avg. Gap and mean |p − p*|, or three figures of diffusion models: means over
the seeds ± one standard deviation, beside those of the null (another Retrain) and, in
some, of the original (nothing done).
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.report import draw
from jax_unlearn.report.draw import AMBER, BLUE, GREEN, GRID, INK, MUTED, PURPLE, RED
from jax_unlearn.report.generated import GenerationRow
from jax_unlearn.report.reading import Row, ordered_keys, read_rows
from jax_unlearn.report.table import GENERATION, generation_label, number

__all__ = ["COLOURS", "DISTANCES", "MARKERS", "ablation_bars", "gamma_sweep"]
__all__ += ["generation_figure", "near_far", "rho_sweep"]

Column = tuple[str, str, int]  # name of a figure, heading, digits
DISTANCES: tuple[Column, ...] = (
    ("avg_gap", "Avg. Gap (percentage points)", 2),
    ("deviation", "mean |p − p*|", 3),
)
GENERATED: tuple[Column, ...] = tuple(
    (name, *GENERATION[name]) for name in ("ua", "retained_accuracy", "frechet")
)
COLOURS = (BLUE, PURPLE, AMBER, INK, MUTED, RED)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # with the colours, 35 or 42 looks
SHIFT, EDGE = 0.018, 0.07  # of the length of an axis: between series, at the ends of ρ
BESIDE = 0.1  # inches between two points on one step
_POINT: Any = {"markersize": 4.6, "elinewidth": 1.0, "capsize": 2.2, "zorder": 3}
_BOUND: Any = {"linewidth": 1.3, "zorder": 1}
BOUNDS = {
    "null": draw.Entry("null, another Retrain", GREEN, "", ":"),
    "original": draw.Entry("original, nothing done", RED, "", "--"),
}


@draw.style()
def rho_sweep(
    results: Mapping[str, Any],
    series: Mapping[str, Mapping[float, str]],
    *,
    name: str = "rho",
) -> draw.Drawing:
    """Draw both distances to Retrain against ρ, the share of the retain set read.

    Of the results only the rows are read, as in all figures here; a series names the
    key of its row at each ρ. The name of the drawing must be unique in its page.

    Raises:
      InputError: no series or an empty one, a ρ that is not positive, a key without a
        row, or results without Retrain.

    >>> rho_sweep({"rows": {"retrain": {}}}, {"LTU": {0.3: "ltu"}})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: series['LTU'][0.3]='ltu' is no row of results; \
choose of retrain
    """
    if not series or not all(series.values()):
        raise InputError(f"series={dict(series)} must name rows; give {{rho: row key}}")
    keys = {f"series[{s!r}][{r}]": k for s, by in series.items() for r, k in by.items()}
    rows = _rows(results, keys)
    for label, by in series.items():
        for rho in by:
            if not 0 < rho < math.inf:
                raise InputError(f"series[{label!r}] has rho={rho}: must be positive")
    shares = sorted({rho for by in series.values() for rho in by})
    span = math.log(shares[-1] / shares[0]) or 1.0
    beside = span * min(SHIFT, EDGE / len(series))
    points = {s: {r: rows[k] for r, k in by.items()} for s, by in series.items()}
    bounds = {entry: [row] for entry, row in _bounds(rows).items()}
    figure = _sweep(points, bounds, lambda rhos, n: rhos * math.exp(beside * n))
    for axes in figure.axes:
        axes.set_xscale("log")
        axes.minorticks_off()
        factor = math.exp(EDGE * span)
        axes.set_xlim(shares[0] / factor, shares[-1] * factor)
        inches = axes.get_position().width * draw.WIDTH
        unit = inches / ((1 + 2 * EDGE) * span)  # of log ρ
        ticks: list[float] = []
        for share in reversed(shares):  # a tick where there is room for its number
            label = draw.width_of(f"{share:g}") + 0.1
            if not ticks or math.log(ticks[-1] / share) * unit > label:
                ticks.append(share)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlabel("ρ, the share of the retain set that is read")
    said = _said_at("ρ", points) | {e.label: row for e, row in _bounds(rows).items()}
    title = "Distance to Retrain by the share ρ of the retain set"
    return _drawing(figure, name, title, said, by=" by ρ")


@draw.style()
def gamma_sweep(
    results: Mapping[float, Mapping[str, Any]],
    keys: Mapping[str, str],
    *,
    name: str = "gamma",
) -> draw.Drawing:
    """Draw both distances to Retrain against γ, the imbalance of the forget set.

    The results are by γ, each with its own Retrain, and so its own null; the keys, for
    each label, are those of its row in all of them, a line each.

    Raises:
      InputError: no results, no label, a key without a row, or no Retrain somewhere.

    >>> gamma_sweep({}, {"RL": "rl"})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: results={} must hold one or more; give {gamma: \
results}
    """
    if not results:
        raise InputError("results={} must hold one or more; give {gamma: results}")
    gammas = sorted(results)
    rows = {g: _labelled(results[g], keys, f"results[{g:g}]") for g in gammas}
    nulls = [rows[g]["null"] for g in gammas if "null" in rows[g]]
    beside = SHIFT * (gammas[-1] - gammas[0])
    points = {s: {g: rows[g][key] for g in gammas} for s, key in keys.items()}
    bounds = {BOUNDS["null"]: nulls} if len(nulls) == len(gammas) else {}
    figure = _sweep(points, bounds, lambda at, n: at + beside * n)
    for axes in figure.axes:
        axes.set_xticks(gammas, [f"{gamma:g}" for gamma in gammas])
        axes.set_xlabel("γ, the imbalance of the forget set")
    title = "Distance to Retrain by the imbalance γ of the forget set"
    return _drawing(figure, name, title, _said_at("γ", points), by=" by γ")


@draw.style()
def ablation_bars(
    results: Mapping[str, Any], keys: Mapping[str, str], *, name: str = "ablation"
) -> draw.Drawing:
    """Draw both distances to Retrain of each of several methods, one below another.

    The keys, for each label from top to bottom, are those of its row.

    Raises:
      InputError: no label, a key without a row, or results without Retrain.

    >>> ablation_bars({"rows": {"retrain": {}}}, {"LTU": "ltu"})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: keys['LTU']='ltu' is no row of results; choose of \
retrain
    """
    rows = _labelled(results, keys, "results")
    shown = {label: rows[key] for label, key in keys.items()}
    figure = _ladder({draw.Entry("", BLUE, "o", ""): shown}, _bounds(rows), step=0.24)
    said = shown | {entry.label: row for entry, row in _bounds(rows).items()}
    title = "Distance to Retrain without each part"
    return _drawing(figure, name, title, said)


@draw.style()
def near_far(
    near_results: Mapping[str, Any],
    far_results: Mapping[str, Any],
    keys: Mapping[str, str],
    *,
    name: str = "near-far",
) -> draw.Drawing:
    """Draw both distances to Retrain for a near and a far forget set, side by side.

    Each request has its own Retrain and its own null. The keys, for each label from top
    to bottom, are those of its row in both.

    Raises:
      InputError: no label, a key without a row in one of them, or no Retrain there.

    >>> near_far({"rows": {"ltu": {}}}, {"rows": {}}, {"LTU": "ltu"})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: near_results has rows ltu and no retrain, so that \
no distance is known; give the results of an experiment
    """
    given = (("near", near_results, BLUE, "o"), ("far", far_results, PURPLE, "s"))
    sides, bounds, said = {}, {}, {}
    for side, results, colour, marker in given:
        rows = _labelled(results, keys, f"{side}_results")
        shown = {label: rows[key] for label, key in keys.items()}
        sides[draw.Entry(f"{side} forget set", colour, marker, "")] = shown
        said |= {f"{label}, {side}": row for label, row in shown.items()}
        if "null" in rows:
            label = f"{side}: {BOUNDS['null'].label}"
            bounds[draw.Entry(label, colour, "", ":")] = rows["null"]
            said[f"null, {side}"] = rows["null"]
    figure = _ladder(sides, bounds, step=0.32)
    title = "Distance to Retrain of near and far forget sets"
    return _drawing(figure, name, title, said)


@draw.style()
def generation_figure(results: Any, *, name: str = "generation") -> draw.Drawing:
    """Draw UA, accuracy on the other classes and Fréchet distance of every model.

    The results are of kind "generation", or their types.

    Raises:
      InputError: rows that lack a figure.
    """
    rows = read_rows(results, GenerationRow)
    models = {generation_label(key): rows[key] for key in ordered_keys(rows)}
    keys = [key for key in ordered_keys(rows) if key not in ("retrain", "null")]
    shown = {generation_label(key): rows[key] for key in keys} or models
    looks = {"retrain": draw.Entry("Retrain, the target", INK, "", "-"), **BOUNDS}
    bounds = {looks[key]: rows[key] for key in ("retrain", "null") if key in rows}
    sides = {draw.Entry("", BLUE, "o", ""): shown}
    columns = [c for c in GENERATED if all(c[0] in r.figures for r in rows.values())]
    figure = _ladder(sides, bounds, step=0.24, columns=columns)
    if "ua" in columns[0]:
        low, high = figure.axes[0].get_xlim()  # a bar may reach over 100 %
        figure.axes[0].set_xlim(min(low, -4), max(high, 104))
    heads = ", ".join(head for _, head, _ in columns)
    alt = f"{heads} of every method beside Retrain's: " + "; ".join(
        f"{label} {', '.join(_numbers(row, columns))}" for label, row in models.items()
    )
    title = "Generated images beside Retrain's"
    return draw.drawing_of(figure, name=name, alt=alt, title=title)


def _sweep(
    series: Mapping[str, Mapping[float, Any]],
    bounds: Mapping[draw.Entry, Sequence[Any]],
    shift: Callable[[np.ndarray, float], np.ndarray],
) -> Any:
    """Return a figure of lines over one axis; a bound has a row, or one each place."""
    free = [colour for colour in COLOURS if colour not in {e.colour for e in bounds}]
    looks = zip(series, itertools.cycle(free), itertools.cycle(MARKERS), strict=False)
    lines = {draw.Entry(*look, "-"): series[look[0]] for look in looks}
    panels = draw.under_legend([*lines, *bounds], 2.7, left=0.55, between=0.75)
    for axes, (distance, title, _) in zip(panels, DISTANCES, strict=True):
        for entry, rows in bounds.items():
            look = {"color": entry.colour, "linestyle": entry.line, **_BOUND}
            means, _ = _means(rows, distance)
            if len(means) == 1:
                axes.axhline(means[0], **look)
            else:
                axes.plot(sorted(next(iter(series.values()))), means, **look)
        for n, (line, points) in enumerate(lines.items()):
            places = np.array(sorted(points))
            means, errors = _means([points[x] for x in places], distance)
            at = shift(places, n - (len(lines) - 1) / 2)
            look: Any = {"color": line.colour, "marker": line.marker, "linewidth": 1.3}
            axes.errorbar(at, means, yerr=errors, **look, **_POINT)
        axes.set(ylabel=title, ylim=(0, axes.get_ylim()[1]))
    return panels[0].figure


def _ladder(
    sides: Mapping[draw.Entry, Mapping[str, Any]],
    bounds: Mapping[draw.Entry, Any],
    *,
    step: float,
    columns: Sequence[Column] = DISTANCES,
) -> Any:
    """Return a figure of points one below another, those of several sides in pairs."""
    labels, pairs = list(next(iter(sides.values()))), len(sides) > 1
    entries = [entry for entry in (*sides, *bounds) if entry.label]
    panels, at, edges = draw.ladder(labels, entries, step=step, count=len(columns))
    for axes, (name, title, _) in zip(panels, columns, strict=True):
        for entry, row in bounds.items():
            look = {"color": entry.colour, "linestyle": entry.line, **_BOUND}
            axes.axvline(getattr(row, name).mean, **look)
        for n, (entry, rows) in enumerate(sides.items()):
            means, errors = _means(rows.values(), name)
            look: Any = {"color": entry.colour, "marker": entry.marker, **_POINT}
            beside = at + BESIDE * (n - (len(sides) - 1) / 2)
            axes.errorbar(means, beside, xerr=errors, linestyle="none", **look)
        if pairs:
            axes.grid(visible=False, axis="y")
            for edge in edges:
                axes.axhline(edge, color=GRID, linewidth=1.0)
        axes.set(xlabel=title, xlim=(0, None) if columns is DISTANCES else None)
        axes.locator_params(axis="x", nbins=6)
    return panels[0].figure


def _means(rows: Iterable[Any], name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return means and sample deviations; None for those of a single seed."""
    figures = [getattr(row, name) for row in rows]
    errors = [figure.std for figure in figures]
    means = np.array([figure.mean for figure in figures], np.float64)
    return means, None if None in errors else np.array(errors, np.float64)


def _drawing(
    figure: Any, name: str, title: str, said: Mapping[str, Row], *, by: str = ""
) -> draw.Drawing:
    """Return a drawing that also says its numbers, of each row by a label."""
    told = [f"{label}: {' and '.join(_numbers(row))}" for label, row in said.items()]
    alt = f"Avg. Gap and |p − p*|{by}: {'; '.join(told)}"
    return draw.drawing_of(figure, name=name, alt=alt, title=title)


def _numbers(row: Any, columns: Sequence[Column] = DISTANCES) -> list[str]:
    return [number(getattr(row, name).mean, digits) for name, _, digits in columns]


def _said_at(symbol: str, points: Mapping[str, Mapping[float, Row]]) -> dict[str, Row]:
    return {
        f"{label} at {symbol} {at:g}": by[at]
        for label, by in points.items()
        for at in sorted(by)
    }


def _bounds(rows: Mapping[str, Row]) -> dict[draw.Entry, Row]:
    return {entry: rows[key] for key, entry in BOUNDS.items() if key in rows}


def _labelled(
    results: Mapping[str, Any], keys: Mapping[str, str], name: str
) -> dict[str, Row]:
    if not keys:
        raise InputError("keys={} must name rows; give {label: row key}")
    return _rows(results, {f"keys[{label!r}]": k for label, k in keys.items()}, name)


def _rows(
    results: Mapping[str, Any], keys: Mapping[str, str], name: str = "results"
) -> dict[str, Row]:
    """Return the rows, with Retrain and those of some keys among them."""
    known = ", ".join(results["rows"])
    if "retrain" not in results["rows"]:
        raise InputError(
            f"{name} has rows {known} and no retrain, so that no distance is known; "
            "give the results of an experiment"
        )
    for at, key in keys.items():
        if key not in results["rows"]:
            raise InputError(f"{at}={key!r} is no row of {name}; choose of {known}")
    return read_rows(results, Row)
