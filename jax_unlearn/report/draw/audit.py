"""The drawings of an audit: ROC curves on log-log axes, epsilons, where values lie."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from jax_unlearn.audit.forgetting import SEPARATED
from jax_unlearn.lab.schema import ROUNDING
from jax_unlearn.report import draw
from jax_unlearn.report.draw import BLUE, GREEN, Drawing
from jax_unlearn.report.forms import NULL, Audit, AuditFigure, Roc
from jax_unlearn.report.table import number

__all__ = ["Look", "epsilon_bins", "epsilon_of_one", "looks", "on_axes", "place"]
__all__ += ["rate_at", "roc_of_all", "roc_of_one", "shares", "strip"]

PANEL, LARGE = (3.5, 2.9), (5.2, 3.9)  # inches
LEAST_RATE = 1e-3  # at the left of a ROC curve
BINS = 24  # of the finite epsilons
STRIPS = 20  # places of a ROC curve that tell their numbers
STRIP, BAND = (112.0, 14.0), (44.0, 68.0)  # points; where the null's interval is drawn


class Look(NamedTuple):
    """How a method is drawn where several are; the swatch is a class of the page."""

    colour: str
    dash: str
    width: float
    swatch: str


_WORDS = {BLUE: "blue", draw.PURPLE: "purple", draw.AMBER: "amber", draw.INK: "ink"}
_LOOKS = [
    Look(colour, dash, width, f"{_WORDS[colour]}{dashed}{thin}")
    for width, thin in ((1.8, ""), (0.9, " thin"))
    for dash, dashed in (("-", ""), ("--", " dashed"))
    for colour in _WORDS
]


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Return a look for each method; 16 before two are alike."""
    original, several = Look(draw.RED, "--", 1.6, "red dashed"), itertools.cycle(_LOOKS)
    return {name: original if name == "original" else next(several) for name in methods}


def roc_of_all(record: Audit, labels: Mapping[str, str]) -> Drawing | None:
    """Draw the ROC curves of all methods with the null's; None where none has one."""
    found = looks(list(labels))
    curves = {n: found[n] for n in labels if record.details[n].roc is not None}
    size = LARGE if len(labels) > 1 else PANEL
    return _roc(record, labels, curves, name="roc", size=size) if curves else None


def roc_of_one(record: Audit, name: str, label: str, id_: str) -> Drawing:
    """Draw the ROC curve of a method that has one with the null's."""
    drawing = _roc(record, {name: label}, {name: Look(BLUE, "-", 1.9, "")}, name=id_)
    return drawing._replace(title="ROC curve of U-LiRA")


def on_axes(roc: Roc, low: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a ROC curve that lies right of and above `low`, as steps."""
    fpr, tpr = np.asarray(roc.fpr, np.float64), np.asarray(roc.tpr, np.float64)
    start = max(int(np.searchsorted(fpr, low, side="right")) - 1, 0)
    x, y = np.clip(fpr[start:], low, 1), np.minimum(tpr[start:], 1)
    if x[-1] < 1:
        x, y = np.append(x, 1.0), np.append(y, y[-1])
    return x[y >= low], y[y >= low]


@draw.style()
def _roc(
    record: Audit,
    labels: Mapping[str, str],
    curves: Mapping[str, Look],
    *,
    name: str,
    size: tuple[float, float] = PANEL,
) -> Drawing:
    trials = max(record.half * record.forgotten, 1)
    low = min(max(LEAST_RATE, 1 / trials), 0.1)
    (axes,) = draw.panels(1, size=size, log="xy")
    axes.plot([low, 1], [low, 1], color=draw.MUTED, linewidth=0.9)
    said, drawn = [], {}
    for who, look in {NULL: Look(GREEN, ":", 1.9, ""), **curves}.items():
        roc = record.details[who].roc if who in record.details else None
        if roc is not None:
            line: Any = {"color": look.colour, "linewidth": look.width}
            axes.plot(*on_axes(roc, low), look.dash, drawstyle="steps-post", **line)
            rate = number(100 * rate_at(roc, 0.01), 1)
            drawn[labels.get(who, "null")] = roc
            said.append(f"{labels.get(who, 'null')} {rate} %")
    axes.set(xlim=(low, 1.06), ylim=(low, 1.06))
    axes.set_xlabel("false positives among Retrain's (share, log scale)")
    axes.set_ylabel("traces found (share, log scale)")
    edges = np.geomspace(low, 1.06, STRIPS + 1)
    texts = [
        _rates_told(drawn, float(rate)) for rate in np.sqrt(edges[1:] * edges[:-1])
    ]
    words: Any = {"name": name, "hits": draw.hover(axes, edges, texts)}
    about = "ROC curves of U-LiRA; traces found at 1 % false positives"
    return draw.drawing_of(axes.figure, **words, alt=f"{about}: {', '.join(said)}")


def _rates_told(drawn: Mapping[str, Roc], rate: float) -> str:
    """Return what each curve finds at so many false positives, the most first."""
    found = {label: 100 * rate_at(roc, rate) for label, roc in drawn.items()}
    order = sorted(found, key=lambda label: -found[label])
    told = ", ".join(f"{label} {number(found[label], 1)} %" for label in order)
    return f"at {100 * rate:.2g} % false positives, traces found: {told}"


def rate_at(roc: Roc, fpr: float) -> float:
    """Return the best true-positive rate at no more than so many false positives."""
    last = int(np.searchsorted(np.asarray(roc.fpr), fpr, side="right")) - 1
    return float(roc.tpr[last]) if last >= 0 else 0.0


def epsilon_bins(record: Audit) -> np.ndarray:
    """Return edges of bins that all share, the last of samples always told apart."""
    found = [d.epsilon for d in record.details.values() if d.epsilon]
    values = np.concatenate([np.asarray(epsilon, np.float64) for epsilon in found])
    finite = values[values < SEPARATED]
    top = max(float(finite.max()) if finite.size else 0.0, 1.0)
    return np.append(np.linspace(0, top, BINS + 1), top * (1 + 2 / BINS))


def shares(epsilon: Sequence[float], edges: np.ndarray) -> np.ndarray:
    """Return the percent of the samples in each bin; the last holds the told apart."""
    values = np.asarray(epsilon, np.float64)
    apart = values >= SEPARATED
    counts, _ = np.histogram(np.minimum(values[~apart], edges[-2]), edges[:-1])
    return 100 * np.append(counts, apart.sum()) / len(values)


@draw.style()
def epsilon_of_one(record: Audit, name: str, label: str, id_: str) -> Drawing:
    """Draw the histogram of a method's epsilons beside the null's, on shared axes."""
    edges = epsilon_bins(record)
    details = {n: d.epsilon for n, d in record.details.items() if d.epsilon}
    heights = {who: shares(epsilon, edges) for who, epsilon in details.items()}
    separated = any(height[-1] for height in heights.values())
    gap = float(2 * edges[1])  # room between the finite epsilons and the others
    (axes,) = draw.panels(1, size=PANEL)
    fill: Any = {"fill": True, "color": BLUE, "alpha": 0.3}
    line: Any = {"linewidth": 1.6, "zorder": 3}
    own, null = line | {"color": BLUE}, line | {"color": GREEN, "linestyle": ":"}
    for who, look in ((name, fill), (name, own), (NULL, null)):
        if who in heights:
            axes.stairs(heights[who][:-1], edges[:-1], **look)
            if separated:
                axes.stairs(heights[who][-1:], edges[-2:] + gap, **look)
    end = edges[-1] + gap if separated else edges[-2]
    ticks = _ticks(edges[-2])
    words = [f"{tick:g}" for tick in ticks]
    if separated:
        ticks, words = [*ticks, edges[-2:].mean() + gap], [*words, "∞"]
    axes.set(xlim=(-0.01 * end, 1.01 * end), xticks=ticks, xticklabels=words)
    axes.set_ylim(0, 1.06 * max(height.max() for height in heights.values()))
    axes.set(xlabel="epsilon of a sample", ylabel="share of the samples, %")
    title = "Epsilon of each sample"
    alt = f"{title}, {label}: {_middle(details[name])}"
    if NULL in details:
        alt += f"; null: {_middle(details[NULL])}"
    who = {"this method": heights[name]}
    who |= {"null": heights[NULL]} if NULL in heights else {}
    texts = [f"epsilon {a:.2f} to {b:.2f}" for a, b in itertools.pairwise(edges[:-1])]
    texts = [
        f"{place}: of the samples, "
        + ", ".join(f"{label} {number(own[n], 1)} %" for label, own in who.items())
        for n, place in enumerate([*texts, "an attack never errs (∞)"])
    ]
    hits = draw.hover(axes, edges[:-1], texts[:-1])
    hits += draw.hover(axes, edges[-2:] + gap, texts[-1:]) if separated else []
    return draw.drawing_of(axes.figure, title=title, name=id_, alt=alt, hits=hits)


def _ticks(top: float) -> list[float]:
    """Return a few ticks from 0 on, none at the very end."""
    step = next(s for s in (0.25, 0.5, 1, 2, 5, 10) if top / s <= 6)
    return [float(tick) for tick in np.arange(0, 0.97 * top, step)]


def _middle(epsilon: Sequence[float]) -> str:
    low, high = np.quantile(np.asarray(epsilon, np.float64), [0.5, 0.95])
    return f"median {number(low, 2)}, 95 % below {number(high, 2)}"


def strip(kind: str, figure: AuditFigure) -> Markup:
    """Draw where a value lies beside the null's interval, which is always as wide."""
    low, high = figure.null_low, figure.null_high
    if low is None or high is None:
        return Markup("")
    width, height = STRIP
    middle, inside = height / 2, figure.verdict == "inside"
    ends = {"distance": (0.0, BAND[1]), "closeness": (BAND[0], width)}.get(kind, BAND)
    x = place(figure.value, low, high)
    colour = "var(--green)" if inside else "var(--red)"
    bands = [
        f'<rect x="{start:g}" y="2" width="{end - start:g}" height="{height - 4:g}" '
        f'fill="var(--green)" fill-opacity="{shade}"/>'
        for (start, end), shade in ((ends, 0.16), (BAND, 0.3))
    ]
    if 4 <= x <= width - 4:
        value = (
            f'<circle cx="{x:.1f}" cy="{middle:g}" r="3.2" stroke="{colour}" '
            f'fill="{colour if inside else "var(--page)"}" stroke-width="1.6"/>'
        )
    else:  # an arrow: the value lies beyond the drawing
        tip, base = (width - 1, width - 8) if x > width / 2 else (1, 8)
        value = (
            f'<path d="M {tip:g} {middle:g} L {base:g} {middle - 4:g} '
            f'L {base:g} {middle + 4:g} Z" fill="{colour}"/>'
        )
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" aria-hidden="true">'
        f'<line x1="0" x2="{width:g}" y1="{middle:g}" y2="{middle:g}" '
        f'stroke="var(--rule)" stroke-width="1"/>{"".join(bands)}{value}</svg>'
    )


def place(value: float, low: float, high: float) -> float:
    """Return where a value is drawn in a strip whose band is [low, high]."""
    width = max(high - low, 4 * ROUNDING)  # what rounding moves stays in the band
    share = (value - (low + high) / 2) / width
    return (BAND[0] + BAND[1]) / 2 + (BAND[1] - BAND[0]) * share
