"""Drawings of an experiment: two distances; then a panel for each model."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_unlearn.report import draw, reading
from jax_unlearn.report.draw import BLUE, GREEN, INK, MUTED, RED, Drawing
from jax_unlearn.report.forms import THIRDS
from jax_unlearn.report.table import number

__all__ = ["CONFLICTS", "confidences", "conflict_by_step", "conflict_share"]
__all__ += ["deviation_by_class", "gap_against_deviation", "weights_against_losses"]

LOWEST_LOSS = 1e-5  # losses are recorded to five digits
CONFLICTS = 12  # panels of the conflict at most
DRAWN = 24  # methods that have panels at most, so that a page stays below 1 MB
NAMED = 12  # classes whose names have room on an axis
STRIPS = 40  # places of a curve that tell their numbers at most
MANY = 500  # steps, beyond which the curve of the conflict is a raster
ZERO: Any = {"color": INK, "linewidth": 0.9}  # of the line where nothing differs
COLOURS = {"retrain": INK, "null": GREEN, "original": RED}


@draw.style()
def gap_against_deviation(results: reading.Results) -> Drawing:
    """Draw each model by Avg. Gap and deviation; methods by their number, from 1."""
    rows = results.rows
    names = {key: str(n) for n, key in enumerate(reading.methods_of(rows), start=1)}
    names |= {key: key[0].upper() for key in reading.REFERENCES if key in rows}
    figures: Any = {key: (rows[key].avg_gap, rows[key].deviation) for key in names}
    points = {key: (gap.mean, off.mean) for key, (gap, off) in figures.items()}
    (axes,) = draw.panels(1, size=(5.2, 3.9))
    if "original" in points:
        x, y = points["original"]
        look: Any = {"color": RED, "linewidth": 0.9, "linestyle": "--", "zorder": 1}
        axes.axvline(x, **look)
        axes.axhline(y, **look)
    if "null" in points:
        x, y = points["null"]
        axes.fill_between([0, x], 0, y, color=GREEN, alpha=0.18, linewidth=0)
    for key, (gap, off) in figures.items():
        look = {"fmt": "s" if key in reading.REFERENCES else "o", "markersize": 5}
        look |= {"xerr": gap.std or 0.0, "yerr": off.std or 0.0, "linewidth": 0.6}
        axes.errorbar(*points[key], color=COLOURS.get(key, BLUE), zorder=3, **look)
    axes.set_xlabel("Avg. Gap to Retrain (percentage points)")
    axes.set_ylabel("mean |p − p*| over the forget samples")
    for n, limits in enumerate(("xlim", "ylim")):
        ends = [of[n].mean + (of[n].std or 0.0) for of in figures.values()]
        end = max(1e-3, *ends)
        axes.set(**{limits: (-0.05 * end, 1.07 * end)})  # with room for the numbers
    unit = axes.figure.dpi / 72
    places = axes.transData.transform([*points.values()]) / unit
    shifts = _apart(places, wide=1.5 if len(names) > 12 else 1.0) - places
    look = {"ha": "center", "va": "center", "fontsize": 9.5, "fontweight": "bold"}
    look["arrowprops"] = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5}
    look["textcoords"] = "offset points"
    for (key, point), shift in zip(points.items(), shifts, strict=True):
        axes.annotate(names[key], point, xytext=shift, **look)
    texts = [
        f"{rows[key].label} {number(x, 2)} and {number(y, 3)}"
        for key, (x, y) in points.items()
    ]
    alt = f"Avg. Gap and |p − p*|: {'; '.join(texts)}"
    hits = draw.pointed(axes, [*points.values()], texts)
    return draw.drawing_of(axes.figure, name="gap", alt=alt, hits=hits)


def _apart(points: np.ndarray, *, near: float = 12.0, wide: float = 1.0) -> np.ndarray:
    """Return places beside the points, near to them and apart from all else."""
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


@draw.style()
def deviation_by_class(results: reading.Results) -> list[Drawing]:
    """Draw p − p* from head to tail, one panel a method, or of the original if none."""
    rows = results.rows
    ends = [-0.05, 0.05]
    for row in rows.values():
        ends += [value for value in row.by_rank or () if value is not None]
        for third in (row.groups or {}).values():
            ends += [third.mean - (third.std or 0.0), third.mean + (third.std or 0.0)]
    # The last rank that has forget samples under any model.
    ranks = [enumerate(row.by_rank or (), 1) for row in rows.values()]
    classes = max(n for of in ranks for n, value in of if value is not None)
    look: Any = {"ms": 3, "marker": "o" if classes <= 20 else ""}
    ranked = results.ranked[:classes]
    ticks: Any = {"xticks": _rank_ticks(classes)}
    below, rank = 0.0, "class, from head to tail (rank)"
    if ranked and classes <= NAMED:
        alike = all(len(one.names) == 1 for one in ranked)  # in all seeds
        names = [r.names[0] if alike else f"{n}" for n, r in enumerate(ranked, 1)]
        short = all(len(name) <= 3 for name in names)
        form = "{:.10}\n{}" if short else "{:.10} ({})"
        texts = [form.format(n, r.count) for n, r in zip(names, ranked, strict=True)]
        ticks = {"xticks": range(1, classes + 1), "xticklabels": texts}
        rank = f"{'class' if alike else 'rank of the class'}; below: samples to forget"
        below = 0.14
        if not short:  # upright, in place of the label of the axis
            below, rank = max(map(draw.width_of, texts)), ""
    drawings = []
    for key in methods_drawn(rows) or [key for key in rows if key != "retrain"]:
        shares = (1.9, 1) if rows[key].groups else (1.9,)
        left, *thirds = draw.panels(*shares, below=below)
        for axes in (left, *thirds):
            axes.axhline(0, **ZERO)
        looks = {"null": (GREEN, ":", 1.4), "original": (RED, "--", 1.4)}
        looks.pop(key, None)  # the original may be what the panel is of
        for line, (colour, dash, width) in (looks | {key: (BLUE, "-", 2.0)}).items():
            if line in rows:
                values = np.array((rows[line].by_rank or ())[:classes], np.float64)
                at = np.arange(1, classes + 1)
                left.plot(at, values, dash, color=colour, linewidth=width, **look)
                for axes in thirds:
                    _draw_thirds(axes, rows[line], colour, line == key)
        left.set(xlim=(0.5, classes + 0.5), **ticks)
        left.set(xlabel=rank, ylabel="p − p*")
        if below > 0.14:
            left.tick_params("x", labelrotation=90)
        left.set_ylim(_with_margin(ends))
        for axes in thirds:
            axes.set(xlim=(-0.6, 2.6), xticks=range(3), xticklabels=THIRDS)
            axes.tick_params("x", labelsize="small")  # the three do not touch
        told = [_class_told(rows, key, ranked, n) for n in range(classes)]
        hits = draw.hover(left, np.arange(classes + 1) + 0.5, told)
        words: Any = {"name": f"deviation{len(drawings)}", "title": rows[key].label}
        words |= {"alt": _deviation_alt(rows[key]), "hits": hits, "picked": True}
        drawings.append(draw.drawing_of(left.figure, **words))
    return drawings


def methods_drawn(rows: Mapping[str, reading.Row]) -> list[str]:
    """Return the methods that have panels: those nearest to Retrain."""
    drawn = set(reading.best_first(rows)[:DRAWN])
    return [key for key in reading.methods_of(rows) if key in drawn]


def _class_told(
    rows: Mapping[str, reading.Row], key: str, ranked: Sequence[Any], rank: int
) -> str:
    """Return the numbers of a class, by its name, or by its rank."""
    who = f"rank {rank + 1}"
    if ranked:
        names, count = ranked[rank]
        which = f"class {names[0]}" if len(names) == 1 else who
        others = f" (class {' or '.join(names)}, by seed)" if len(names) > 1 else ""
        who = f"{which}{others}, {count} to forget"
    found = []
    for other in dict.fromkeys((key, "original", "null")):
        value = (rows[other].by_rank or ())[rank] if other in rows else None
        if value is not None:
            label = rows[other].label if other == key else other
            found.append(f"{label} {number(value, 3, sign=True)}")
    return f"{who}: {', '.join(found)}"


def _draw_thirds(axes: Any, row: reading.Row, colour: str, strong: bool) -> None:
    look: Any = {"fmt": "_", "markersize": 11, "markeredgewidth": 1.6, "zorder": 2}
    if strong:
        look = {"fmt": "o", "markersize": 5, "markeredgewidth": 0, "zorder": 3}
    for x, third in enumerate(THIRDS):
        figure = (row.groups or {}).get(third)
        if figure is not None:
            error = (figure.std or 0.0) if strong else None
            own = {"yerr": error, "color": colour, "linewidth": 1.2, **look}
            axes.errorbar(x, figure.mean, **own)


def _deviation_alt(row: reading.Row) -> str:
    text, groups = f"Deviation p − p* of {row.label}", row.groups or {}
    if groups:
        means = [(third, groups[third].mean) for third in THIRDS if third in groups]
        said = [f"{third} {number(mean, 3, sign=True)}" for third, mean in means]
        return f"{text}: {', '.join(said)}"
    known = [number(r, 3, sign=True) for r in row.by_rank or () if r is not None]
    return f"{text}, by class: {', '.join(known)}"


def _with_margin(ends: Sequence[float]) -> tuple[float, float]:
    margin = 0.06 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def _rank_ticks(classes: int) -> list[int]:
    """Return ticks at the first and last rank and some between."""
    if classes <= 10:
        return list(range(1, classes + 1))
    step = next(s for s in (2, 5, 10, 20, 50, 100, 200, 500, 10**6) if classes / s <= 6)
    inner = [tick for tick in range(step, classes, step) if classes - tick > step / 2]
    return [1, *inner, classes]


DENSITIES: Any = (
    ("forget", {"fill": True, "color": RED, "alpha": 0.3}),
    ("forget", {"color": RED, "linewidth": 1.4}),
    ("retain", {"color": MUTED, "linewidth": 1.1, "linestyle": "--"}),
    ("unseen", {"color": BLUE, "linewidth": 1.5}),
    ("target", {"color": INK, "linewidth": 1.3, "linestyle": ":"}),
)


@draw.style()
def confidences(results: reading.Results) -> list[Drawing]:
    """Draw histograms of the confidence in the true class, one panel a model."""
    drawn = {"retrain", "original", *methods_drawn(results.rows)}
    keys = [key for key in reading.ordered_keys(results.rows) if key in drawn]
    shown = {key: results.rows[key] for key in keys}
    densities = {
        key: {part: _density(counts) for part, counts in (row.histograms or {}).items()}
        for key, row in shown.items()
    }
    every = np.concatenate([d for sets in densities.values() for d in sets.values()])
    low, high = float(every[every > 0].min()) / 1.5, float(every.max()) * 1.6
    floor = low / 10
    drawings = []
    for n, (key, row) in enumerate(shown.items()):
        sets = densities[key]
        above = {
            part: sets[part][round(0.9 * len(sets[part])) :] for part in reading.SETS
        }
        alt = f"Confidence of {row.label}: share above 0.9: " + ", ".join(
            f"{part} {100 * top.sum() / max(len(sets[part]), 1):.0f} %"
            for part, top in above.items()
        )
        if "retrain" in densities and key != "retrain":
            sets = sets | {"target": densities["retrain"]["forget"]}
        (axes,) = draw.panels(1, log="y")
        for part, look in DENSITIES:
            if part in sets:
                edges = np.linspace(0, 1, len(sets[part]) + 1)
                heights = np.maximum(sets[part], floor)
                axes.stairs(heights, edges, baseline=floor, **look)
        axes.set(xlim=(0, 1), ylim=(low, high), ylabel="density, log scale")
        axes.set_xlabel("confidence in the true class (probability)")
        hits = draw.hover(axes, *_shares_told(sets))
        words: Any = {"title": row.label, "name": f"confidence{n}", "hits": hits}
        words["picked"] = key not in reading.REFERENCES
        drawings.append(draw.drawing_of(axes.figure, **words, alt=alt))
    return drawings


def _shares_told(sets: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Return the edges of the bins, and what share of each set lies in each."""
    edges = np.linspace(0, 1, len(sets["forget"]) + 1)
    alike = {k: 100 * d / len(d) for k, d in sets.items() if len(d) == len(edges) - 1}
    texts = [
        f"{low:.2f} to {high:.2f}: "
        + ", ".join(f"{part} {share[n]:.1f} %" for part, share in alike.items())
        for n, (low, high) in enumerate(itertools.pairwise(edges))
    ]
    return edges, texts


def _density(counts: Sequence[float]) -> np.ndarray:
    """Return the density over [0, 1]; zeros where there are no samples."""
    values = np.asarray(counts, np.float64)
    return values * len(values) / max(values.sum(), 1.0)


@draw.style()
def weights_against_losses(results: reading.Results) -> list[Drawing]:
    """Draw weight against loss, early and late in a run, a panel a weighting method."""
    drawings = []
    drawn = {*methods_drawn(results.rows), *reading.REFERENCES}
    scatter = {k: p for k, p in (results.scatter or {}).items() if k in drawn}
    for n, (key, points) in enumerate(scatter.items()):
        label, said = results.rows[key].label, []
        (axes,) = draw.panels(1, log="x")
        for part, losses, weights, colour, marker in (
            ("first quarter", points.first_losses, points.first_weights, RED, "s"),
            ("last", points.last_losses, points.last_weights, BLUE, "o"),
        ):
            look: Any = {"color": colour, "marker": marker, "alpha": 0.65, "s": 7}
            at = np.maximum(losses, LOWEST_LOSS)
            axes.scatter(at, weights, linewidths=0, rasterized=True, **look)
            least, most = number(min(weights), 2), number(max(weights), 2)
            middle = number(float(np.median(losses)), 3)
            said.append(f"{part}: weights {least} to {most}, median loss {middle}")
        axes.set(xlabel="loss of the sample, log scale", ylabel="weight")
        first, last = (max(end, LOWEST_LOSS / 10) for end in axes.get_xlim())
        edges = np.geomspace(first, last, 13)
        hits = draw.hover(axes, edges, _weights_told(points, edges))
        alt = f"Weight against loss of {label}: {'; '.join(said)}"
        words: Any = {"title": label, "name": f"weight{n}", "picked": True}
        words["hits"] = hits
        drawings.append(draw.drawing_of(axes.figure, **words, alt=alt))
    return drawings


def _weights_told(points: reading.Points, edges: np.ndarray) -> list[str]:
    """Return the mean weights of the losses in each bin, early and late."""
    parts = {
        "first quarter": (points.first_losses, points.first_weights),
        "last quarter": (points.last_losses, points.last_weights),
    }
    texts = [f"loss {a:.2g} to {b:.2g}" for a, b in itertools.pairwise(edges)]
    for name, (losses, weights) in parts.items():
        at = np.digitize(np.maximum(losses, LOWEST_LOSS), edges) - 1
        for n in range(len(texts)):
            own = np.asarray(weights, np.float64)[at == n]
            mean = f", mean weight {number(float(own.mean()), 2)}" if len(own) else ""
            texts[n] += f"; {name}: {len(own)} samples{mean}"
    return texts


@draw.style()
def conflict_by_step(results: reading.Results) -> list[Drawing]:
    """Draw the cosine of g_f and g_r at each step, of the first `CONFLICTS` methods."""
    shown = list((results.conflict or {}).items())[:CONFLICTS]
    limits = _with_margin([v for _, angles in shown for v in angles] + [-0.1, 0.1])
    drawings = []
    for n, (key, cosines) in enumerate(shown):
        label, count, values = results.rows[key].label, len(cosines), np.array(cosines)
        shares = zip(conflict_share(cosines), (0, 1), strict=True)
        often, removed = (number(100 * share, digits) for share, digits in shares)
        detail = (
            f"conflict in {often} % of {count:,} step{'s' * (count > 1)}, "
            f"{removed} % of ‖g_f‖ removed"
        )
        (axes,) = draw.panels(1, size=(3.5, 2.0))
        steps, raster = np.arange(1, count + 1), count > MANY
        look: Any = {"color": RED, "alpha": 0.35, "linewidth": 0, "interpolate": True}
        axes.fill_between(steps, values, 0, values < 0, rasterized=raster, **look)
        look = {"marker": "o" if count <= 60 else "", "markersize": 2.4}
        look |= {"color": BLUE, "linewidth": 1.1}
        axes.plot(steps, values, rasterized=raster, **look)
        axes.axhline(0, **ZERO)
        axes.locator_params("x", integer=True, nbins=6)
        pad = max(0.02 * count, 0.5)
        axes.set(xlim=(1 - pad, count + pad), ylim=limits)
        axes.set(xlabel="step", ylabel="cos(g_f, g_r)")
        words: Any = {"title": label, "detail": detail, "name": f"conflict{n}"}
        words["picked"] = True
        alt = f"Cosine of the two gradients of {label}: {detail}"
        words["hits"] = draw.hover(axes, *_cosines_told(values))
        drawings.append(draw.drawing_of(axes.figure, **words, alt=alt))
    return drawings


def _cosines_told(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return edges between steps, or parts of a long run, and each one's cosine."""
    parts = np.array_split(np.arange(1, len(values) + 1), min(len(values), STRIPS))
    texts = [
        f"{f'step {own[0]}' if len(own) == 1 else f'steps {own[0]} to {own[-1]}'}: "
        f"cosine {number(float(values[own - 1].mean()), 2, sign=True)}"
        + " in the mean"
        * (len(own) > 1)
        for own in parts
    ]
    return np.array([0.5, *(own[-1] + 0.5 for own in parts)]), texts


def conflict_share(cosines: Sequence[float]) -> tuple[float, float]:
    """Return the share of steps in conflict, cos < 0, and the mean of max(0, −cos)."""
    values = np.asarray(cosines, np.float64)
    return float((values < 0).mean()), float(np.maximum(0.0, -values).mean())
