"""Figures of a study: against ρ or γ, without each part, near and far forget sets.

Each shows Avg. Gap on the left and mean |p − p*| on the right: means over the seeds
with ± one standard deviation, beside those of the null (another Retrain) and, in the
first two, of the original (nothing done).
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.report.draw import (
    AMBER,
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    PURPLE,
    RED,
    WIDTH,
    Drawing,
    Entry,
    ladder,
    style,
    to_svg,
    two_panels,
    width_of,
)
from jax_unlearn.report.reading import Row, read_rows
from jax_unlearn.report.table import number

__all__ = ["ablation_bars", "gamma_sweep", "near_far", "rho_sweep"]

DISTANCES = (
    ("avg_gap", "Avg. Gap (percentage points)", 2),
    ("deviation", "mean |p − p*|", 3),
)
COLOURS = (BLUE, PURPLE, AMBER, INK, MUTED)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # 35 series before one looks the same
SHIFT, EDGE = 0.018, 0.07  # of the length of an axis: between series, at the ends of ρ
_POINT: Any = {"markersize": 4.6, "elinewidth": 1.0, "capsize": 2.2, "zorder": 3}


BOUNDS = {
    "null": Entry("null, another Retrain", GREEN, "", ":"),
    "original": Entry("original, nothing done", RED, "", "--"),
}


def rho_sweep(
    results: Mapping[str, Any],
    series: Mapping[str, Mapping[float, str]],
    *,
    name: str = "rho",
) -> Drawing:
    """Draw both distances to Retrain against ρ, the share of the retain set read.

    Args:
      results: with Retrain; only the rows are read.
      series: for each name, the key of the row at each ρ.
      name: of the drawing, unique in its page.

    Returns:
      The drawing: a line a series over a logarithmic scale.

    Raises:
      InputError: no series or an empty one, a ρ that is not positive, a key without a
        row, or results without Retrain.

    Source: our choice.

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

    with style():
        looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
        lines = [Entry(s, *look, "-") for s, look in zip(series, looks, strict=False)]
        figure = _sweep(
            {line: points[line.label] for line in lines},
            [entry for key, entry in BOUNDS.items() if key in rows],
            lambda rhos, n: rhos * math.exp(beside * n),
            lambda axes, distance: _draw_bounds(axes.axhline, rows, distance),
        )
        for axes in figure.axes:
            _scale_by_rho(axes, shares, span)
        said = _said_at("ρ", points) + _said_of_bounds(rows)
        alt = f"Avg. Gap and |p − p*| by ρ: {'; '.join(said)}"
        title = "Distance to Retrain by the share ρ of the retain set"
        return Drawing(title, to_svg(figure, name=name, alt=alt))


def gamma_sweep(
    results: Mapping[float, Mapping[str, Any]],
    keys: Mapping[str, str],
    *,
    name: str = "gamma",
) -> Drawing:
    """Draw both distances to Retrain against γ, the imbalance of the forget set.

    Each request has its own Retrain, and so its own null.

    Args:
      results: by γ, each with Retrain; only the rows are read.
      keys: for each label, the key of its row in all of them.
      name: of the drawing, unique in its page.

    Returns:
      The drawing: a line a label.

    Raises:
      InputError: no results, no label, a key without a row, or no Retrain somewhere.

    Source: our choice.

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

    def draw_null(axes: Any, distance: str) -> None:
        if len(nulls) == len(gammas):
            means, _ = _means(nulls, distance)
            axes.plot(gammas, means, color=GREEN, linestyle=":", linewidth=1.5)

    with style():
        colours = itertools.cycle((*COLOURS, RED))  # no bound is red here
        looks = zip(keys, colours, MARKERS, strict=False)
        figure = _sweep(
            {Entry(*look, "-"): points[look[0]] for look in looks},
            [BOUNDS["null"]] if len(nulls) == len(gammas) else [],
            lambda at, n: at + beside * n,
            draw_null,
        )
        for axes in figure.axes:
            axes.set_xticks(gammas, [f"{gamma:g}" for gamma in gammas])
            axes.set_xlabel("γ, the imbalance of the forget set")
        alt = f"Avg. Gap and |p − p*| by γ: {'; '.join(_said_at('γ', points))}"
        title = "Distance to Retrain by the imbalance γ of the forget set"
        return Drawing(title, to_svg(figure, name=name, alt=alt))


def ablation_bars(
    results: Mapping[str, Any], keys: Mapping[str, str], *, name: str = "ablation"
) -> Drawing:
    """Draw both distances to Retrain of each of several methods, one below another.

    Args:
      results: with Retrain; only the rows are read.
      keys: for each label, from top to bottom, the key of its row.
      name: of the drawing, unique in its page.

    Returns:
      The drawing.

    Raises:
      InputError: no label, a key without a row, or results without Retrain.

    Source: our choice.

    >>> ablation_bars({"rows": {"retrain": {}}}, {"LTU": "ltu"})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: keys['LTU']='ltu' is no row of results; choose of \
retrain
    """
    rows = _labelled(results, keys, "results")
    with style():
        bounds = [entry for key, entry in BOUNDS.items() if key in rows]
        panels, at, _ = ladder(list(keys), bounds, step=0.24)
        for axes, (distance, title, _) in zip(panels, DISTANCES, strict=True):
            _draw_bounds(axes.axvline, rows, distance)
            _draw_rungs(axes, [rows[key] for key in keys.values()], distance, at)
            _scale_by_distance(axes, title)
        said = [f"{label}: {_said(rows[key])}" for label, key in keys.items()]
        alt = f"Avg. Gap and |p − p*|: {'; '.join(said + _said_of_bounds(rows))}"
        title = "Distance to Retrain without each part"
        return Drawing(title, to_svg(panels[0].figure, name=name, alt=alt))


def near_far(
    near_results: Mapping[str, Any],
    far_results: Mapping[str, Any],
    keys: Mapping[str, str],
    *,
    name: str = "near-far",
) -> Drawing:
    """Draw both distances to Retrain for a near and a far forget set, side by side.

    Each request has its own Retrain, so that it has its own null too. The original is
    drawn where `keys` names it.

    Args:
      near_results: of the request near to other samples; only the rows are read.
      far_results: of the request far from them.
      keys: for each label, from top to bottom, the key of its row in both.
      name: of the drawing, unique in its page.

    Returns:
      The drawing.

    Raises:
      InputError: no label, a key without a row in one of them, or no Retrain there.

    Source: our choice.

    >>> near_far({"rows": {"ltu": {}}}, {"rows": {}}, {"LTU": "ltu"})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: near_results has rows ltu and no retrain, so that \
no distance is known; give the results of an experiment
    """
    given = {"near": near_results, "far": far_results}
    sides = {s: _labelled(r, keys, f"{s}_results") for s, r in given.items()}
    looks = {"near": (BLUE, "o", -0.05), "far": (PURPLE, "s", 0.05)}
    nulls = {side: rows["null"] for side, rows in sides.items() if "null" in rows}
    with style():
        entries = [Entry(f"{s} forget set", *looks[s][:2], "") for s in sides]
        for side in nulls:
            label = f"{side}: {BOUNDS['null'].label}"
            entries.append(Entry(label, looks[side][0], "", ":"))
        panels, at, edges = ladder(list(keys), entries, step=0.32)
        for axes, (distance, title, _) in zip(panels, DISTANCES, strict=True):
            for side, row in nulls.items():
                mean = getattr(row, distance).mean
                axes.axvline(mean, color=looks[side][0], linestyle=":", linewidth=1.5)
            for side, rows in sides.items():
                colour, marker, shift = looks[side]
                shown = [rows[key] for key in keys.values()]
                _draw_rungs(axes, shown, distance, at + shift, (colour, marker))
            for edge in edges:
                axes.axhline(edge, color=GRID, linewidth=1.0)
            axes.grid(visible=False, axis="y")
            _scale_by_distance(axes, title)
        said = [
            f"{label}, {side}: {_said(rows[key])}"
            for label, key in keys.items()
            for side, rows in sides.items()
        ]
        said += [f"null, {side}: {_said(row)}" for side, row in nulls.items()]
        alt = f"Avg. Gap and |p − p*|: {'; '.join(said)}"
        title = "Distance to Retrain of near and far forget sets"
        return Drawing(title, to_svg(panels[0].figure, name=name, alt=alt))


def _sweep(
    lines: Mapping[Entry, Mapping[float, Row]],
    bounds: Sequence[Entry],
    shift: Callable[[np.ndarray, float], np.ndarray],
    draw_bounds: Callable[[Any, str], None],
) -> Any:
    """Return a figure of lines over one axis, shifted so that no bar hides another."""
    panels = two_panels([*lines, *bounds], 2.7, left=0.55, between=0.75)
    for axes, (distance, title, _) in zip(panels, DISTANCES, strict=True):
        draw_bounds(axes, distance)
        for n, (line, points) in enumerate(lines.items()):
            places = np.array(sorted(points))
            means, errors = _means([points[x] for x in places], distance)
            at = shift(places, n - (len(lines) - 1) / 2)
            look: Any = {"color": line.colour, "marker": line.marker, "linewidth": 1.3}
            axes.errorbar(at, means, yerr=errors, **look, **_POINT)
        axes.set_ylabel(title)
        axes.set_ylim(0, axes.get_ylim()[1])
    return panels[0].figure


def _draw_rungs(
    axes: Any,
    rows: Sequence[Row],
    distance: str,
    at: np.ndarray,
    look: tuple[str, str] = (BLUE, "o"),
) -> None:
    means, errors = _means(rows, distance)
    colour, marker = look
    shape: Any = {"color": colour, "marker": marker, "linestyle": "none"}
    axes.errorbar(means, at, xerr=errors, **shape, **_POINT)


def _draw_bounds(draw: Any, rows: Mapping[str, Row], distance: str) -> None:
    for key, (_, colour, _, line) in BOUNDS.items():
        if key in rows:
            mean = getattr(rows[key], distance).mean
            draw(mean, color=colour, linestyle=line, linewidth=1.3, zorder=1)


def _scale_by_rho(axes: Any, shares: Sequence[float], span: float) -> None:
    """Scale by the logarithm, with a tick at each ρ that leaves room for its number."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    factor = math.exp(EDGE * span)
    axes.set_xlim(shares[0] / factor, shares[-1] * factor)
    inches = axes.get_position().width * WIDTH
    unit = inches / ((1 + 2 * EDGE) * span)  # of log ρ
    ticks: list[float] = []
    for share in reversed(shares):
        label = width_of(f"{share:g}") + 0.1
        if not ticks or math.log(ticks[-1] / share) * unit > label:
            ticks.append(share)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("ρ, the share of the retain set that is read")


def _scale_by_distance(axes: Any, title: str) -> None:
    axes.set_xlim(0, axes.get_xlim()[1])
    axes.xaxis.get_major_locator().set_params(nbins=6)
    axes.set_xlabel(title)


def _means(rows: Sequence[Row], distance: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return means and sample deviations; None for those of a single seed."""
    figures = [getattr(row, distance) for row in rows]
    errors = [figure.std for figure in figures]
    means = np.array([figure.mean for figure in figures], np.float64)
    return means, None if None in errors else np.array(errors, np.float64)


def _said(row: Row) -> str:
    return " and ".join(
        number(getattr(row, distance).mean, digits) for distance, _, digits in DISTANCES
    )


def _said_at(symbol: str, points: Mapping[str, Mapping[float, Row]]) -> list[str]:
    return [
        f"{label} at {symbol} {at:g}: {_said(by[at])}"
        for label, by in points.items()
        for at in sorted(by)
    ]


def _said_of_bounds(rows: Mapping[str, Row]) -> list[str]:
    return [f"{e.label}: {_said(rows[k])}" for k, e in BOUNDS.items() if k in rows]


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
