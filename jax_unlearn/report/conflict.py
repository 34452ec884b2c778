"""The figure of the conflict: the cosine of the two gradients, step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_unlearn.report.svg import BLUE, INK, RED, Drawing, new_axes, style, to_svg
from jax_unlearn.report.table import number

PANEL = (3.5, 2.0)  # inches
PANELS = 12  # at most
MANY = 500  # steps, beyond which the curve is a raster


def conflict_by_step(results: Mapping[str, Any]) -> list[Drawing]:
    """Draw the cosine of g_f and g_r at each step, one panel a method.

    Args:
      results: checked results.

    Returns:
      The panels, the first `PANELS` at most; none where no method had two gradients.
    """
    shown = list((results.get("conflict") or {}).items())[:PANELS]
    ends = [value for _, angles in shown for value in angles] + [-0.1, 0.1]
    margin = 0.06 * (max(ends) - min(ends))
    limits = min(ends) - margin, max(ends) + margin
    return [
        _panel(results["rows"][key]["label"], angles, limits, f"conflict{n}")
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


def caption(results: Mapping[str, Any]) -> str:
    """Return how to read the figure, with what its panels say in numbers.

    Args:
      results: checked results in which a method had two gradients.

    Returns:
      Plain text.
    """
    conflicts = results["conflict"]
    shown = list(conflicts.values())[:PANELS]
    often, removed = zip(*map(conflict_share, shown), strict=True)
    text = (
        "The cosine of the angle between the forgetting gradient g_f and the "
        "remembering gradient g_r, at each step of the first seed's run. Below zero "
        "they conflict: one-way harmonization then removes from g_f a part of length "
        "−cos · ‖g_f‖ (shaded), or would, where a method joins them otherwise. "
        f"{'In these runs they' if len(shown) > 1 else 'They'} conflict in "
        f"{_range(often, 0)} of the steps, and the projection removes "
        f"{_range(removed, 1)} of ‖g_f‖ in the mean over all steps."
    )
    if len(conflicts) > PANELS:
        text += f" Drawn are the first {PANELS} of {len(conflicts)} methods."
    return text


def _range(shares: Sequence[float], digits: int) -> str:
    """Return shares as percent, from the lowest to the highest.

    >>> _range([0.5, 0.25], 0), _range([0.5], 1)
    ('25 to 50 %', '50.0 %')
    """
    low, high = (number(100 * end(shares), digits) for end in (min, max))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _panel(
    label: str, cosines: Sequence[float], limits: tuple[float, float], name: str
) -> Drawing:
    steps, values = np.arange(1, len(cosines) + 1), np.asarray(cosines, np.float64)
    often, removed = conflict_share(cosines)
    detail = (
        f"conflict in {number(100 * often, 0)} % of {len(values):,} "
        f"step{'s' * (len(values) > 1)}, {number(100 * removed, 1)} % of ‖g_f‖ removed"
    )
    raster = len(values) > MANY
    with style():
        (axes,) = new_axes(*PANEL)
        axes.fill_between(
            *_below(steps, values),
            0,
            color=RED,
            alpha=0.35,
            linewidth=0,
            rasterized=raster,
        )
        axes.plot(
            steps,
            values,
            color=BLUE,
            linewidth=1.1,
            marker="o" if len(values) <= 60 else "",
            markersize=2.4,
            rasterized=raster,
        )
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
