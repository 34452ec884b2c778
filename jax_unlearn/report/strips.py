"""Small drawings in a table: where a value lies beside the null's interval."""

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from jax_unlearn.report._flaws import ROUNDING

STRIP, BAND = (112.0, 14.0), (44.0, 68.0)  # points; where the null's interval is drawn


def strip(kind: str, figure: Mapping[str, Any]) -> Markup:
    """Draw where a value lies beside the null's interval, which is always as wide.

    Args:
      kind: of the figure's card.
      figure: a checked one.

    Returns:
      A small `<svg>`, or nothing where there is no interval.

    >>> figure = {"value": 3.0, "null_low": 1.0, "null_high": 2.0, "verdict": "outside"}
    >>> 'cx="92.0"' in strip("level", figure)
    True
    """
    low, high = figure["null_low"], figure["null_high"]
    if low is None:
        return Markup("")
    width, height = STRIP
    middle = height / 2
    ends = {"distance": (0.0, BAND[1]), "closeness": (BAND[0], width)}.get(kind, BAND)
    x = place(figure["value"], low, high)
    colour = "var(--green)" if figure["verdict"] == "inside" else "var(--red)"
    parts = [
        f'<svg viewBox="0 0 {width:g} {height:g}" aria-hidden="true">',
        f'<line x1="0" x2="{width:g}" y1="{middle:g}" y2="{middle:g}" '
        'stroke="var(--rule)" stroke-width="1"/>',
    ]
    for (start, end), shade in ((ends, 0.16), (BAND, 0.3)):
        parts.append(
            f'<rect x="{start:g}" y="2" width="{end - start:g}" '
            f'height="{height - 4:g}" fill="var(--green)" fill-opacity="{shade}"/>'
        )
    if 4 <= x <= width - 4:
        full = colour if figure["verdict"] == "inside" else "var(--page)"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{middle:g}" r="3.2" fill="{full}" '
            f'stroke="{colour}" stroke-width="1.6"/>'
        )
    else:
        tip, base = (width - 1, width - 8) if x > width / 2 else (1, 8)
        parts.append(
            f'<path d="M {tip:g} {middle:g} L {base:g} {middle - 4:g} '
            f'L {base:g} {middle + 4:g} Z" fill="{colour}"/>'
        )
    return Markup("".join(parts) + "</svg>")


def place(value: float, low: float, high: float) -> float:
    """Return where a value is drawn in a strip whose band is [low, high].

    >>> place(1.5, 1.0, 2.0), place(7.0, 1.0, 1.0) > STRIP[0]
    (56.0, True)
    """
    left, right = BAND
    if high - low <= ROUNDING:
        away = value - (low + high) / 2
        beyond = math.copysign(1e3, away) if abs(away) > ROUNDING else 0.0
        return (left + right) / 2 + beyond
    return left + (right - left) * (value - low) / (high - low)
