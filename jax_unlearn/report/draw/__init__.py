"""Drawings: axes and legends in the page's style, and SVG that follows the page."""

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup, escape

__all__ = [
    "Drawing",
    "Entry",
    "ladder",
    "log_scale",
    "new_axes",
    "standalone",
    "style",
    "to_svg",
    "two_panels",
    "width_of",
]

# Colours by which a drawing says which of the page's variables is meant. The series
# are those of Okabe and Ito, safe for the colour-blind.
INK, MUTED, GRID = "#010203", "#040506", "#070809"
BLUE, RED, GREEN, PURPLE, AMBER = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"
_VARIABLES = {
    INK: ("var(--ink)", "#1c2127"),
    MUTED: ("var(--muted)", "#5b6570"),
    GRID: ("var(--grid)", "#e6e9ed"),
    BLUE: ("var(--blue)", "#0072b2"),
    RED: ("var(--red)", "#c75200"),
    GREEN: ("var(--green)", "#00805d"),
    PURPLE: ("var(--purple)", "#a8478c"),
    AMBER: ("var(--amber)", "#a87900"),
}
"""The page's variable for each, and the colour in a drawing without a page."""

WIDTH = 7.4  # inches of a figure under a legend
SIZE = 8.5  # points of the text
LINE = 0.15  # inches of a line of text
LONGEST = 30  # characters of a line of a label
SWATCH, GAP = 0.3, 0.28  # inches of a sample in the legend, and behind its label
BELOW = 0.42  # inches under the panels

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jax_unlearn",
    "text.usetex": False,
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": SIZE,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.labelpad": 2.5,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "figure.dpi": 160,  # of the rasters inside
}


class Drawing(NamedTuple):
    """One drawing of a figure.

    Attributes:
      title: what it shows, plain text.
      svg: the drawing.
      detail: numbers that belong beside the title, plain text; may be empty.
    """

    title: str
    svg: Markup
    detail: str = ""


class Entry(NamedTuple):
    """One entry of a legend.

    Attributes:
      label: what it says.
      colour: of line and marker.
      marker: of matplotlib; empty for none.
      line: style of matplotlib; empty for none.
    """

    label: str
    colour: str
    marker: str
    line: str


@contextmanager
def style() -> Iterator[None]:
    """Use the page's style inside the block, whatever the user's settings.

    >>> with style():
    ...     (axes,) = new_axes(2.0, 1.0)
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_axes(width: float, height: float, columns: Sequence[float] = (1,)) -> Any:
    """Return axes side by side in a new figure that pyplot does not know of.

    The margins are the same for every figure, so that panels line up and no layout has
    to be searched for.

    Args:
      width: of the figure, inches.
      height: of the figure, inches.
      columns: relative widths of the axes.

    Returns:
      A list of axes, with a common vertical scale.

    >>> with style():
    ...     (axes,) = new_axes(2.0, 1.0)
    >>> len(axes.figure.axes)
    1
    """
    from matplotlib.figure import Figure

    left, right, bottom, top, gap = 0.57, 0.12, 0.4, 0.08, 0.1
    figure = Figure(figsize=(width, height))
    room = width - left - right - gap * (len(columns) - 1)
    found: list[Any] = []
    for part in columns:
        size = room * part / sum(columns)
        box = (
            left / width,
            bottom / height,
            size / width,
            (height - bottom - top) / height,
        )
        found.append(figure.add_axes(box, sharey=found[0] if found else None))
        left += size + gap
    for axes in found[1:]:
        axes.tick_params(axis="y", length=0, labelleft=False)
    return found


def log_scale(axes: Any, direction: str) -> None:
    """Scale by powers of ten, without minor ticks.

    Args:
      axes: of matplotlib.
      direction: "x" or "y".

    >>> with style():
    ...     (axes,) = new_axes(2.0, 1.0)
    ...     log_scale(axes, "x")
    >>> axes.get_xscale(), axes.xaxis.get_major_formatter()(1e-5, 0)
    ('log', '1e−5')
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    (axes.set_xscale if direction == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if direction == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:g}".replace("e-0", "e−").replace("e+0", "e"))
    )


def to_svg(figure: Any, *, name: str, alt: str) -> Markup:
    """Return a figure as SVG to stand in a page.

    Identifiers begin with `name`, so that figures do not share any; colours become the
    page's variables; nothing points outside the document.

    Args:
      figure: of matplotlib, drawn under `style`.
      name: unique in the page, letters, digits and hyphens.
      alt: what a reader is told who does not see it.

    Returns:
      An `<svg>` element.

    >>> with style():
    ...     (axes,) = new_axes(2.0, 1.0)
    ...     text = to_svg(axes.figure, name="f1", alt="<nothing>")
    >>> print(text[:66])
    <svg role="img" aria-label="&lt;nothing&gt;" viewBox="0 0 144 72">
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(stream, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = text.replace('xlink:href="#', f'xlink:href="#{name}-')
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"<[^>]*>", _shorten, text)
    text = re.sub(r"(?<=base64,)\s+", "", text)
    text = re.sub(r"\s+", " ", text).replace("> <", "><")
    for colour, (variable, _) in _VARIABLES.items():
        text = text.replace(colour, variable)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None  # matplotlib writes one
    body = text[text.index(">") + 1 :]
    return Markup(f'<svg role="img" aria-label="{escape(alt)}" {box[0]}>{body}')


def standalone(drawing: Drawing) -> str:
    """Return a drawing as an SVG file of its own: ink on white, no page around it.

    Args:
      drawing: what to write.

    Returns:
      The text of an .svg file.

    >>> with style():
    ...     (axes,) = new_axes(2.0, 1.0)
    ...     text = standalone(Drawing("", to_svg(axes.figure, name="f1", alt="none")))
    >>> text[:40], "var(" in text
    ('<svg xmlns="http://www.w3.org/2000/svg" ', False)
    """
    text = str(drawing.svg)
    for variable, colour in _VARIABLES.values():
        text = text.replace(variable, colour)
    look = 'style="background: #ffffff; font-family: system-ui, sans-serif"'
    return text.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" {look}', 1)


def _shorten(tag: re.Match[str]) -> str:
    """Round the coordinates of a tag to hundredths of a point.

    >>> _shorten(re.match(".*", '<use x="1.23456">'))
    '<use x="1.23">'
    """
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", tag[0])


def two_panels(
    entries: Sequence[Entry], height: float, *, left: float, between: float
) -> Any:
    """Return two axes with scales of their own, under a legend.

    Args:
      entries: of the legend.
      height: of the axes, inches.
      left: room for what stands to the left of them, inches.
      between: room between them, inches.

    Returns:
      A list of the two axes.

    >>> len(two_panels([Entry("null", "black", "", ":")], 1.0, left=0.5, between=0.5))
    2
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    places = flow([entry.label for entry in entries])
    above = 0.2 + LINE * 1.3 * (1 + max((line for _, line in places), default=0))
    total, right = BELOW + height + above, 0.15
    size = (WIDTH - left - between - right) / 2
    figure = Figure(figsize=(WIDTH, total))
    for entry, (at, line) in zip(entries, places, strict=True):
        y = 1 - LINE * (0.7 + 1.3 * line) / total
        x = np.array([at, at + SWATCH / 2, at + SWATCH]) / WIDTH
        look: Any = {"linestyle": entry.line or "none", "linewidth": 1.4}
        look |= {"marker": entry.marker or "none", "markersize": 4.6, "markevery": [1]}
        figure.add_artist(Line2D(x, [y, y, y], color=entry.colour, **look))
        where = (at + SWATCH + 0.07) / WIDTH
        figure.text(where, y, entry.label, ha="left", va="center_baseline")
    return [
        figure.add_axes((at / WIDTH, BELOW / total, size / WIDTH, height / total))
        for at in (left, left + size + between)
    ]


def ladder(labels: Sequence[str], entries: Sequence[Entry], *, step: float) -> Any:
    """Return two panels with a step for each label, and the labels to their left.

    Args:
      labels: from top to bottom.
      entries: of the legend.
      step: inches of a label of one line; longer ones are wrapped and have more.

    Returns:
      A list of the two axes, the height at which each label stands, and the borders
      between them.

    >>> axes, at, edges = ladder(["A", "B"], [Entry("x", "red", "o", "")], step=0.25)
    >>> at.tolist(), edges.tolist()
    ([0.125, 0.375], [0.25])
    """
    wrapped = ["\n".join(textwrap.wrap(label, LONGEST)) or label for label in labels]
    steps = [max(step, LINE * (text.count("\n") + 1) + 0.1) for text in wrapped]
    ends = np.cumsum(steps)
    at = ends - np.array(steps) / 2
    longest = max(width_of(line) for text in wrapped for line in text.split("\n"))
    left = longest + 0.12
    panels = two_panels(entries, float(ends[-1]), left=left, between=0.35)
    for axes in panels:
        axes.set_ylim(ends[-1], 0)
        axes.set_yticks(at)
        axes.tick_params(axis="y", length=0, labelleft=False)
    for text, height in zip(wrapped, at, strict=True):
        lines = text.split("\n")
        for n, line in enumerate(lines):
            place = height + LINE * (n - (len(lines) - 1) / 2)
            panels[0].annotate(
                line,
                (0, place),
                xycoords=("axes fraction", "data"),
                xytext=(-5, 0),
                textcoords="offset points",
                ha="right",
                va="center_baseline",
            )
    return panels, at, ends[:-1]


def flow(labels: Sequence[str]) -> list[tuple[float, int]]:
    """Return where the entries of a legend begin: inches, and in which line.

    >>> [line for _, line in flow(["a long label of a series"] * 5)]
    [0, 0, 0, 1, 1]
    """
    places: list[tuple[float, int]] = []
    at, line = 0.05, 0
    for label in labels:
        width = SWATCH + 0.07 + width_of(label)
        if places and at + width > WIDTH and at > 0.05:
            at, line = 0.05, line + 1
        places.append((at, line))
        at += width + GAP
    return places


def width_of(text: str) -> float:
    """Return the width of a line of text in inches, rather more than it takes.

    >>> 0.15 < width_of("LTU") < 0.25
    True
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=SIZE)
    width, *_ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(1.05 * width / 72)
