"""Drawings: axes and legends in the page's style, and SVG that follows the page."""

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup, escape

__all__ = ["BELOW", "LINE", "LONGEST", "SIZE", "WIDTH", "Drawing", "Entry"]
__all__ += ["drawing_of", "flow", "hover", "ladder", "panels", "pointed"]
__all__ += ["standalone", "style"]
__all__ += ["under_legend", "width_of"]

# Colours by which a drawing says which of the page's variables is meant. The series
# are those of Okabe and Ito, safe for the colour-blind.
INK, MUTED, GRID = "#010203", "#040506", "#070809"
BLUE, RED, GREEN, PURPLE, AMBER = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"
SKY, BROWN = "#56b4e9", "#8c564b"  # where the others do not do
_VARIABLES = {
    INK: ("var(--ink)", "#1c2127"),
    MUTED: ("var(--muted)", "#5b6570"),
    GRID: ("var(--grid)", "#e6e9ed"),
    BLUE: ("var(--blue)", "#0072b2"),
    RED: ("var(--red)", "#c75200"),
    GREEN: ("var(--green)", "#00805d"),
    PURPLE: ("var(--purple)", "#a8478c"),
    AMBER: ("var(--amber)", "#a87900"),
    SKY: ("var(--sky)", "#4aa3d8"),
    BROWN: ("var(--brown)", "#7a4a2b"),
}
"""The page's variable for each, and the colour in a drawing without a page."""

WIDTH = 7.4  # inches of a figure under a legend
SIZE = 8.5  # points of the text
LINE = 0.15  # inches of a line of text
LONGEST = 30  # characters of a line of a label
SWATCH, GAP = 0.3, 0.28  # inches of a sample in the legend, and behind its label
BELOW = 0.42  # inches under the panels

_STYLE: Any = {
    "svg.hashsalt": "jax_unlearn",
    "font.family": "DejaVu Sans",
    "font.size": SIZE,
    "figure.dpi": 110,  # of the rasters inside
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    **dict.fromkeys(("svg.fonttype", "figure.facecolor", "axes.facecolor"), "none"),
    **dict.fromkeys(("text.usetex", "text.parse_math", "axes.spines.top"), False),
    **dict.fromkeys(("axes.spines.right", "axes.formatter.useoffset"), False),
    **dict.fromkeys(("text.color", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0.0),
    **dict.fromkeys(("xtick.major.pad", "ytick.major.pad"), 6.0),
    "axes.labelpad": 2.5,
}


class Drawing(NamedTuple):
    """One drawing of a figure: what it shows, and numbers beside that; plain text."""

    title: str
    svg: Markup
    detail: str = ""
    picked: bool = False  # one of several methods' that a page shows one at a time


class Entry(NamedTuple):
    """An entry of a legend: marker and style of the line, each empty for none."""

    label: str
    colour: str
    marker: str
    line: str


@contextmanager
def style() -> Iterator[None]:
    """Use the page's style inside the block, whatever the user's settings."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def panels(
    *shares: float,
    size: tuple[float, float] = (3.5, 2.25),
    log: str = "",
    below: float = 0.0,  # more inches, for long labels
) -> list[Any]:
    """Return axes side by side on a common vertical scale; "x", "y" or "xy" are log."""
    from matplotlib.figure import Figure  # that pyplot does not know
    from matplotlib.ticker import LogLocator

    (width, height), gap = (size[0], size[1] + below), 0.1  # inches
    # the same in every drawing, so that panels line up and no layout is searched for
    left, right, bottom, top = 0.57, 0.12, 0.4 + below, 0.08
    figure, found = Figure(figsize=(width, height)), []
    room = width - left - right - gap * (len(shares) - 1)
    for share in shares:
        wide = room * share / sum(shares)
        box = (left, bottom, wide, height - bottom - top)
        place = (np.array(box) / (width, height, width, height)).tolist()
        found.append(figure.add_axes(place, sharey=found[0] if found else None))
        left += wide + gap
    for axes in found:
        for direction in log:
            axes.set(**{f"{direction}scale": "log"})
            axes.minorticks_off()
            axis = axes.xaxis if direction == "x" else axes.yaxis
            axis.set_major_locator(LogLocator(numticks=6))
            axis.set_major_formatter(
                lambda x, _: f"{x:g}".replace("e-0", "e−").replace("e+0", "e")
            )
    for axes in found[1:]:
        axes.tick_params(axis="y", length=0, labelleft=False)
    return found


def drawing_of(
    figure: Any,
    *,
    name: str,
    alt: str,
    title: str = "",
    detail: str = "",
    hits: Sequence[str] = (),
    picked: bool = False,
) -> Drawing:
    """Return a figure made under `style`; its identifiers begin with a unique name.

    `hits` are the numbers that a pointer over a place shows: of `hover`, `pointed`.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(stream, metadata=nothing)
    text = stream.getvalue()
    text = re.sub(r"<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'font-family: [^;"]*;?| transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"<[^>]*>", _shorten, text)
    text = re.sub(r"(?<=base64,)\s+", "", text)
    text = _compact(re.sub(r"\s+", " ", text).replace("> <", "><"), name, picked)
    for colour, (variable, _) in _VARIABLES.items():
        text = text.replace(colour, variable)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None  # matplotlib writes one
    body = text[text.index(">") + 1 :].replace("</svg>", "".join(hits) + "</svg>")
    svg = Markup(f'<svg role="img" aria-label="{escape(alt)}" {box[0]}>{body}')
    return Drawing(title, svg, detail, picked)


def hover(axes: Any, edges: Any, texts: Sequence[str]) -> list[str]:
    """Return strips of the axes, between edges along x, that tell a text each."""
    box = axes.figure.get_window_extent()
    ends = axes.transData.transform([(edge, 0.0) for edge in edges])[:, 0]
    ends = np.clip(ends, axes.bbox.x0, axes.bbox.x1) * 72 / axes.figure.dpi
    low, high = axes.bbox.y0, axes.bbox.y1
    top, height = ((box.height - high) * 72 / axes.figure.dpi, high - low)
    place = f'y="{top:.1f}" height="{height * 72 / axes.figure.dpi:.1f}"'
    return [
        f'<rect class="hit" fill="transparent" x="{x:.1f}" width="{end - x:.1f}" '
        f"{place}><title>{escape(text)}</title></rect>"
        for x, end, text in zip(ends[:-1], ends[1:], texts, strict=True)
        if end > x
    ]


def pointed(axes: Any, places: Any, texts: Sequence[str]) -> list[str]:
    """Return discs about places of the axes that tell a text each."""
    scale, height = 72 / axes.figure.dpi, axes.figure.get_window_extent().height
    return [
        f'<circle class="hit" fill="transparent" cx="{x * scale:.1f}" '
        f'cy="{(height - y) * scale:.1f}" r="7"><title>{escape(text)}</title></circle>'
        for (x, y), text in zip(axes.transData.transform(places), texts, strict=True)
    ]


def _shared(found: re.Match[str]) -> str:
    clip, uses, look = found[1] or "", found[2], found[3]
    alike = uses.count(look) == uses.count("<use ")
    return f"<g{clip}{look}>{uses.replace(look, '')}</g>" if alike else found[0]


def _compact(text: str, name: str, many: bool) -> str:
    """Return an SVG without what nobody sees: frames, tick marks, empty groups."""
    text = re.sub(r'<path d="[^"]*" style="fill: none"/>', "", text)
    grid = rf'<path d="([^"]*)" [^>]*stroke: {GRID}[^>]*/>'
    lines = re.findall(grid, text)
    text = re.sub(grid, "", text)
    if many:  # the style of markers that are alike, once for all of them
        marked = r'<g( clip-path="[^"]*")?>((?:<use [^>]*?( style="[^"]*")/>)+)</g>'
        text = re.sub(marked, _shared, text)
    before = ""
    while before != text:
        before, text = text, re.sub(r"<g(?: [^>]*)?></g>|<g/>|<defs></defs>", "", text)
    for n, old in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]*)"', text))):
        text = re.sub(rf'(id="|href="#|url\(#){old}(?=[")])', rf"\g<1>{name}-{n}", text)
    parts, kept, depth = re.split(r"(<g>|<g [^>]*>|</g>)", text), [], []
    for part in parts:  # groups that say nothing
        if part.startswith("<g"):
            depth.append(part != "<g>")
        if part == "<g>" or (part == "</g>" and not depth.pop()):
            continue
        kept.append(part)
    look = f'style="fill: none; stroke: {GRID}; stroke-width: 0.6"'
    path = f'<path d="{"".join(lines)}" {look}/>' if lines else ""
    text = "".join(kept)
    start = text.index(">") + 1
    return text[:start] + path + text[start:]


def standalone(drawing: Drawing) -> str:
    """Return the text of an SVG file: ink on white, no page around it.

    >>> text = standalone(drawing_of(panels(1)[0].figure, name="f1", alt="empty"))
    >>> text[:40], "var(" in text
    ('<svg xmlns="http://www.w3.org/2000/svg" ', False)
    """
    text = str(drawing.svg)
    for variable, colour in _VARIABLES.values():
        text = text.replace(variable, colour)
    look = 'style="background: #ffffff; font-family: system-ui, sans-serif"'
    return text.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" {look}', 1)


def _shorten(tag: re.Match[str]) -> str:
    """Round the coordinates of a tag to hundredths of a point."""
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", tag[0])


def flow(labels: Sequence[str]) -> list[tuple[float, int]]:
    """Return where the entries of a legend begin: inches, and in which line."""
    places: list[tuple[float, int]] = []
    at, line = 0.05, 0
    for label in labels:
        width = SWATCH + 0.07 + width_of(label)
        if places and at + width > WIDTH:
            at, line = 0.05, line + 1
        places.append((at, line))
        at += width + GAP
    return places


def under_legend(
    entries: Sequence[Entry], height: float, *, left: float, between: float, count=2
) -> list[Any]:
    """Return axes side by side with scales of their own, under a legend; in inches."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    places = flow([entry.label for entry in entries])
    above = 0.2 + LINE * 1.3 * (1 + max((line for _, line in places), default=0))
    total, right = BELOW + height + above, 0.15
    size = (WIDTH - left - between * (count - 1) - right) / count
    figure = Figure(figsize=(WIDTH, total))
    for entry, (at, line) in zip(entries, places, strict=True):
        y = 1 - LINE * (0.7 + 1.3 * line) / total
        x = np.array([at, at + SWATCH / 2, at + SWATCH]) / WIDTH
        look: Any = {"linestyle": entry.line or "none", "linewidth": 1.4}
        look |= {"marker": entry.marker or "none", "markersize": 4.6, "markevery": [1]}
        figure.add_artist(Line2D(x, [y, y, y], color=entry.colour, **look))
        where = (at + SWATCH + 0.07) / WIDTH
        figure.text(where, y, entry.label, ha="left", va="center_baseline")
    starts = [left + n * (size + between) for n in range(count)]
    boxes = [(x / WIDTH, BELOW / total, size / WIDTH, height / total) for x in starts]
    return [figure.add_axes(box) for box in boxes]


def ladder(
    labels: Sequence[str], entries: Sequence[Entry], *, step: float, count: int = 2
) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Return panels with a step for each label, in inches, its height, the borders."""
    wrapped = ["\n".join(textwrap.wrap(label, LONGEST)) or label for label in labels]
    steps = [max(step, LINE * (text.count("\n") + 1) + 0.1) for text in wrapped]
    ends = np.cumsum(steps)
    at = ends - np.array(steps) / 2
    left = 0.12 + max(width_of(line) for text in wrapped for line in text.split("\n"))
    height = float(ends[-1])
    panels = under_legend(entries, height, left=left, between=0.35, count=count)
    for axes in panels:
        axes.set(ylim=(height, 0), yticks=at)
        axes.tick_params(axis="y", length=0, labelleft=False)
    look: Any = {"ha": "right", "va": "center_baseline", "xytext": (-5, 0)}
    look |= {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    for text, middle in zip(wrapped, at, strict=True):
        lines = text.split("\n")  # each a text of its own, which has a place in the SVG
        for n, line in enumerate(lines):
            place = middle + LINE * (n - (len(lines) - 1) / 2)
            panels[0].annotate(line, (0, place), **look)
    return panels, at, ends[:-1]


def width_of(text: str) -> float:
    """Return the width of a line of text in inches, rather more than it takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=SIZE)
    width, *_ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(1.05 * width / 72)
