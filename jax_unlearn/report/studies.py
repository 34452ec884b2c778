"""Figures of a study: against ρ or γ, without each part, near and far forget sets.

Each shows Avg. Gap on the left and mean |p − p*| on the right: means over the seeds
with ± one standard deviation, beside those of the null (another Retrain) and, in the
first two, of the original (nothing done).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from jax_unlearn.errors import InputError
from jax_unlearn.report.panels import WIDTH, Entry, ladder, two_panels, width_of
from jax_unlearn.report.svg import (
    AMBER,
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    PURPLE,
    RED,
    Drawing,
    style,
    to_svg,
)
from jax_unlearn.report.table import number

DISTANCES = (
    ("avg_gap", "Avg. Gap (percentage points)", 2),
    ("deviation", "mean |p − p*|", 3),
)
BOUNDS = (
    ("null", "null, another Retrain", GREEN, ":"),
    ("original", "original, nothing done", RED, "--"),
)
COLOURS = (BLUE, PURPLE, AMBER, INK, MUTED)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # 35 series before one looks the same
SHIFT, EDGE = 0.018, 0.07  # of the length of the ρ axis: between series, at the ends
_POINT: Any = {"markersize": 4.6, "elinewidth": 1.0, "capsize": 2.2, "zorder": 3}


def rho_sweep(
    results: Mapping[str, Any],
    series: Mapping[str, Mapping[float, str]],
    *,
    name: str = "rho",
) -> Drawing:
    """Draw both distances to Retrain against ρ, the share of the retain set read.

    Args:
      results: checked results, with Retrain.
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
    _targeted(results, "results")
    if not series or not all(series.values()):
        raise InputError(f"series={dict(series)} must name rows; give {{rho: row key}}")
    for label, keys in series.items():
        for rho, key in keys.items():
            _row(results, key, f"series[{label!r}][{rho}]")
            if not 0 < rho < math.inf:
                raise InputError(f"series[{label!r}] has rho={rho}: must be positive")
    shares = sorted({rho for keys in series.values() for rho in keys})
    with style():
        styles = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
        looks = dict(zip(series, styles, strict=False))
        entries = [Entry(s, *looks[s], "-") for s in series] + _bounds(results)
        panels = two_panels(entries, 2.7, left=0.55, between=0.75)
        span = math.log(shares[-1] / shares[0]) or 1.0
        beside = span * min(SHIFT, EDGE / len(series))
        for axes, (distance, title, _) in zip(panels, DISTANCES, strict=True):
            _bound_lines(axes.axhline, results, distance)
            for n, (label, keys) in enumerate(series.items()):
                # Side by side, so that bars at one ρ do not hide each other.
                shift = math.exp(beside * (n - (len(series) - 1) / 2))
                rhos = sorted(keys)
                means, errors = _spread(results, [keys[r] for r in rhos], distance)
                colour, marker = looks[label]
                axes.errorbar(
                    np.array(rhos) * shift,
                    means,
                    yerr=errors,
                    color=colour,
                    marker=marker,
                    **_POINT,
                    linewidth=1.3,
                )
            _rho_axis(axes, shares, span)
            axes.set_ylabel(title)
            axes.set_ylim(0, axes.get_ylim()[1])
        said = [
            f"{label} at ρ {rho:g}: {_said(results, keys[rho])}"
            for label, keys in series.items()
            for rho in sorted(keys)
        ]
        return Drawing(
            "Distance to Retrain by the share ρ of the retain set",
            _finish(panels, name, "Avg. Gap and |p − p*| by ρ", said, results),
        )


def gamma_sweep(
    results: Mapping[float, Mapping[str, Any]],
    keys: Mapping[str, str],
    *,
    name: str = "gamma",
) -> Drawing:
    """Draw both distances to Retrain against γ, the imbalance of the forget set.

    Each request has its own Retrain, and so its own null.

    Args:
      results: checked results by γ, each with Retrain.
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
    for gamma in gammas:
        _targeted(results[gamma], f"results[{gamma:g}]")
        _check_keys(results[gamma], keys, f"results[{gamma:g}]")
    nulled = all("null" in results[gamma]["rows"] for gamma in gammas)
    with style():
        colours = itertools.cycle((*COLOURS, RED))  # no bound is red here
        looks = dict(zip(keys, zip(colours, MARKERS, strict=False), strict=False))
        entries = [Entry(label, *looks[label], "-") for label in keys]
        if nulled:
            entries.append(Entry(BOUNDS[0][1], GREEN, "", ":"))
        panels = two_panels(entries, 2.7, left=0.55, between=0.75)
        for axes, (distance, title, _) in zip(panels, DISTANCES, strict=True):
            if nulled:
                means = [results[g]["rows"]["null"][distance]["mean"] for g in gammas]
                axes.plot(gammas, means, color=GREEN, linestyle=":", linewidth=1.5)
            beside = SHIFT * (gammas[-1] - gammas[0])
            for n, (label, key) in enumerate(keys.items()):
                found = [_spread(results[gamma], [key], distance) for gamma in gammas]
                several = all(error is not None for _, error in found)
                colour, marker = looks[label]
                axes.errorbar(
                    np.array(gammas) + beside * (n - (len(keys) - 1) / 2),
                    [mean[0] for mean, _ in found],
                    yerr=[e[0] for _, e in found if e is not None] if several else None,
                    color=colour,
                    marker=marker,
                    **_POINT,
                    linewidth=1.3,
                )
            axes.set_xticks(gammas, [f"{gamma:g}" for gamma in gammas])
            axes.set_xlabel("γ, the imbalance of the forget set")
            axes.set_ylabel(title)
            axes.set_ylim(0, axes.get_ylim()[1])
        said = [
            f"{label} at γ {gamma:g}: {_said(results[gamma], key)}"
            for label, key in keys.items()
            for gamma in gammas
        ]
        return Drawing(
            "Distance to Retrain by the imbalance γ of the forget set",
            _finish(panels, name, "Avg. Gap and |p − p*| by γ", said),
        )


def ablation_bars(
    results: Mapping[str, Any], keys: Mapping[str, str], *, name: str = "ablation"
) -> Drawing:
    """Draw both distances to Retrain of each of several methods, one below another.

    Args:
      results: checked results, with Retrain.
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
    _targeted(results, "results")
    _check_keys(results, keys, "results")
    with style():
        panels, at, _ = ladder(list(keys), _bounds(results), step=0.24)
        for axes, (distance, title, _) in zip(panels, DISTANCES, strict=True):
            _bound_lines(axes.axvline, results, distance)
            means, errors = _spread(results, list(keys.values()), distance)
            axes.errorbar(
                means,
                at,
                xerr=errors,
                color=BLUE,
                marker="o",
                linestyle="none",
                **_POINT,
            )
            _distance_axis(axes, title)
        said = [f"{label}: {_said(results, key)}" for label, key in keys.items()]
        return Drawing(
            "Distance to Retrain without each part",
            _finish(panels, name, "Avg. Gap and |p − p*|", said, results),
        )


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
      near_results: checked results of the request near to other samples.
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
    sides = (
        ("near", near_results, BLUE, "o", -0.05),
        ("far", far_results, PURPLE, "s", 0.05),
    )
    for side, results, *_ in sides:
        _targeted(results, f"{side}_results")
        _check_keys(results, keys, f"{side}_results")
    nulls = [(s, r, colour) for s, r, colour, *_ in sides if "null" in r["rows"]]
    with style():
        entries = [
            Entry(f"{side} forget set", colour, marker, "")
            for side, _, colour, marker, _ in sides
        ]
        entries += [
            Entry(f"{side}: null, another Retrain", colour, "", ":")
            for side, _, colour in nulls
        ]
        panels, at, edges = ladder(list(keys), entries, step=0.32)
        for axes, (distance, title, _) in zip(panels, DISTANCES, strict=True):
            for _, results, colour in nulls:
                mean = results["rows"]["null"][distance]["mean"]
                axes.axvline(mean, color=colour, linestyle=":", linewidth=1.5)
            for _, results, colour, marker, shift in sides:
                means, errors = _spread(results, list(keys.values()), distance)
                axes.errorbar(
                    means,
                    at + shift,
                    xerr=errors,
                    color=colour,
                    marker=marker,
                    linestyle="none",
                    **_POINT,
                )
            for edge in edges:
                axes.axhline(edge, color=GRID, linewidth=1.0)
            axes.grid(visible=False, axis="y")
            _distance_axis(axes, title)
        said = [
            f"{label}, {side}: {_said(results, key)}"
            for label, key in keys.items()
            for side, results, *_ in sides
        ]
        said += [f"null, {side}: {_said(r, 'null')}" for side, r, _ in nulls]
        return Drawing(
            "Distance to Retrain of near and far forget sets",
            _finish(panels, name, "Avg. Gap and |p − p*|", said),
        )


def _bounds(results: Mapping[str, Any]) -> list[Entry]:
    return [
        Entry(label, colour, "", line)
        for key, label, colour, line in BOUNDS
        if key in results["rows"]
    ]


def _bound_lines(draw: Any, results: Mapping[str, Any], distance: str) -> None:
    for key, _, colour, line in BOUNDS:
        if key in results["rows"]:
            mean = results["rows"][key][distance]["mean"]
            draw(mean, color=colour, linestyle=line, linewidth=1.3, zorder=1)


def _rho_axis(axes: Any, shares: Sequence[float], span: float) -> None:
    """Scale by the logarithm, with a tick at each ρ that leaves room for its number."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    factor = math.exp(EDGE * span)
    axes.set_xlim(shares[0] / factor, shares[-1] * factor)
    width = (
        axes.get_position().width * WIDTH / ((1 + 2 * EDGE) * span)
    )  # inches a unit of log ρ
    ticks: list[float] = []
    for share in reversed(shares):
        label = width_of(f"{share:g}") + 0.1
        if not ticks or math.log(ticks[-1] / share) * width > label:
            ticks.append(share)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("ρ, the share of the retain set that is read")


def _distance_axis(axes: Any, title: str) -> None:
    axes.set_xlim(0, axes.get_xlim()[1])
    axes.xaxis.get_major_locator().set_params(nbins=6)
    axes.set_xlabel(title)


def _spread(
    results: Mapping[str, Any], keys: Sequence[str], distance: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return means and sample deviations; None for those of a single seed."""
    figures = [results["rows"][key][distance] for key in keys]
    means = np.array([figure["mean"] for figure in figures], np.float64)
    if any(figure["std"] is None for figure in figures):
        return means, None
    return means, np.array([figure["std"] for figure in figures], np.float64)


def _said(results: Mapping[str, Any], key: str) -> str:
    row = results["rows"][key]
    return " and ".join(
        number(row[distance]["mean"], digits) for distance, _, digits in DISTANCES
    )


def _finish(
    panels: Any,
    name: str,
    what: str,
    said: Sequence[str],
    results: Mapping[str, Any] | None = None,
) -> Markup:
    bounds = [
        f"{label}: {_said(results, key)}"
        for key, label, *_ in BOUNDS
        if results is not None and key in results["rows"]
    ]
    alt = f"{what}: {'; '.join([*said, *bounds])}"
    return to_svg(panels[0].figure, name=name, alt=alt)


def _targeted(results: Mapping[str, Any], name: str) -> None:
    if "retrain" not in results["rows"]:
        raise InputError(
            f"{name} has rows {', '.join(results['rows'])} and no retrain, so that no "
            "distance is known; give the results of an experiment"
        )


def _check_keys(results: Mapping[str, Any], keys: Mapping[str, str], name: str) -> None:
    if not keys:
        raise InputError("keys={} must name rows; give {label: row key}")
    for label, key in keys.items():
        _row(results, key, f"keys[{label!r}]", name)


def _row(results: Mapping[str, Any], key: str, at: str, name: str = "results") -> None:
    if key not in results["rows"]:
        raise InputError(
            f"{at}={key!r} is no row of {name}; choose of {', '.join(results['rows'])}"
        )
