"""The frontier: distance to Retrain against the share of its cost that was paid."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.report import draw
from jax_unlearn.report.draw import GREEN, MUTED
from jax_unlearn.report.draw.studies import COLOURS, DISTANCES, MARKERS
from jax_unlearn.report.reading import REFERENCES, Row, read_rows
from jax_unlearn.report.table import number

__all__ = ["frontier"]

_THIN: Any = {"color": MUTED, "linewidth": 0.7, "alpha": 0.55, "zorder": 1}


@draw.style()
def frontier(
    results: Mapping[float, Mapping[str, Any]],
    keys: Mapping[str, str],
    *,
    name: str = "frontier",
) -> draw.Drawing:
    """Draw both distances to Retrain against the budget, a share of Retrain's cost.

    The results are by budget, each with its own Retrain. The keys, for each label, are
    those of its row in all of them, a line each; every other row is a thin line. Where
    the null is, another Retrain, there is nothing left to gain: its mean ± one standard
    deviation over the seeds is a band.

    Raises:
      InputError: no results, a budget that is not positive, or a label without a row.

    >>> frontier({}, {"FT": "ft"})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: results={} must hold one or more; give {budget: \
results}
    """
    if not results:
        raise InputError("results={} must hold one or more; give {budget: results}")
    budgets = sorted(results)
    if budgets[0] <= 0:
        raise InputError(f"results has budget={budgets[0]:g}; a share is positive")
    rows = {budget: read_rows(results[budget], Row) for budget in budgets}
    for label, key in keys.items():
        if not any(key in own for own in rows.values()):
            raise InputError(f"keys[{label!r}]={key!r} is no row; leave it out")
    named = dict.fromkeys(keys.values())
    others = dict.fromkeys(k for own in rows.values() for k in own)
    others = [k for k in others if k not in named and k not in REFERENCES]
    colours = [c for c in (*COLOURS, draw.SKY, draw.BROWN) if c not in (GREEN, MUTED)]
    lines = itertools.cycle([(c, line) for line in ("-", "--") for c in colours])
    marked = zip(keys.items(), lines, itertools.cycle(MARKERS), strict=False)
    looks = {
        key: draw.Entry(label, colour, marker, line)
        for (label, key), (colour, line), marker in marked
    }
    entries = list(looks.values())
    if others:
        entries.append(draw.Entry(f"{len(others)} other methods", MUTED, "", "-"))
    if any("original" in own for own in rows.values()):
        entries.append(draw.Entry("original, nothing done", draw.INK, "", "--"))
    band = "null, another Retrain (shaded: ± its standard deviation)"
    entries.append(draw.Entry(band, GREEN, "", ":"))
    panels = draw.under_legend(entries, 2.9, left=0.55, between=0.75)
    for axes, (figure, title, _) in zip(panels, DISTANCES, strict=True):
        nulls = [getattr(rows[b]["null"], figure) for b in budgets if "null" in rows[b]]
        if nulls:
            mean = float(np.mean([null.mean for null in nulls]))
            spread = float(np.mean([null.std or 0.0 for null in nulls]))
            axes.axhspan(mean - spread, mean + spread, color=GREEN, alpha=0.15, lw=0)
            axes.axhline(mean, color=GREEN, linestyle=":", linewidth=1.3)
        least = 0.0  # that every line of its own reaches
        for key in (*others, *looks):
            at = [budget for budget in budgets if key in rows[budget]]
            means = [getattr(rows[budget][key], figure).mean for budget in at]
            if key in looks:
                own = looks[key]
                look: Any = {"color": own.colour, "marker": own.marker, "ls": own.line}
                axes.plot(at, means, linewidth=1.5, markersize=4.4, zorder=3, **look)
                least = max(least, min(means))
            else:
                axes.plot(at, means, **_THIN)
        axes.set(xscale="log", ylabel=title, xlabel="share of Retrain's cost, %")
        axes.minorticks_off()
        axes.set_xticks(budgets, [f"{100 * budget:g}" for budget in budgets])
        original = rows[budgets[-1]].get("original")
        if original is not None:
            nothing = getattr(original, figure).mean
            axes.axhline(nothing, color=draw.INK, linestyle="--", linewidth=1.0)
            # what is worse than doing nothing needs no room but for the best of a line
            axes.set_ylim(0, max(1.35 * nothing, 1.1 * least) or None)
    told = [
        f"{label} at {100 * budget:g} %: "
        + " and ".join(
            number(getattr(rows[budget][key], figure).mean, digits)
            for figure, _, digits in DISTANCES
        )
        for label, key in keys.items()
        for budget in budgets
        if key in rows[budget]
    ]
    alt = f"Avg. Gap and |p − p*| by the share of Retrain's cost: {'; '.join(told)}"
    title = "Distance to Retrain by the share of its cost"
    return draw.drawing_of(panels[0].figure, name=name, alt=alt, title=title)
