"""Two panels side by side under a legend, as the figures of a study have them."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

WIDTH = 7.4  # inches of a figure
SIZE = 8.5  # points of the text, as in the style
LINE = 0.15  # inches of a line of text
LONGEST = 30  # characters of a line of a label
SWATCH, GAP = 0.3, 0.28  # inches of a sample in the legend, and behind its label
BELOW = 0.42  # inches under the panels


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
        for number, line in enumerate(lines):
            place = height + LINE * (number - (len(lines) - 1) / 2)
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
