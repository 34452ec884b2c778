"""Figures of matplotlib as inline SVG that follows the page: its font, its colours."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from markupsafe import Markup, escape

INK, MUTED, GRID = "#010203", "#040506", "#070809"
BLUE, RED, GREEN = "#0072b2", "#d55e00", "#009e73"  # safe for the colour-blind
PURPLE, AMBER = "#cc79a7", "#e69f00"  # likewise
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    BLUE: "var(--blue)",
    RED: "var(--red)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    AMBER: "var(--amber)",
}
_ON_PAPER = {
    "--ink": "#1c2127",
    "--muted": "#5b6570",
    "--grid": "#e6e9ed",
    "--blue": "#0072b2",
    "--red": "#c75200",
    "--green": "#00805d",
    "--purple": "#a8478c",
    "--amber": "#a87900",
}
"""What the page's variables are in a drawing without a page."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jax_unlearn",
    "text.usetex": False,
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
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
    for colour, variable in _VARIABLES.items():
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
    for variable, colour in _ON_PAPER.items():
        text = text.replace(f"var({variable})", colour)
    look = 'style="background: #ffffff; font-family: system-ui, sans-serif"'
    return text.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" {look}', 1)


def _shorten(tag: re.Match[str]) -> str:
    """Round the coordinates of a tag to hundredths of a point.

    >>> _shorten(re.match(".*", '<use x="1.23456">'))
    '<use x="1.23">'
    """
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", tag[0])
