"""Cells of the pages: what templates print of a row, a figure or a search."""

import itertools
import re
from collections.abc import Mapping
from statistics import median
from typing import Any

from jax_unlearn import audit
from jax_unlearn.audit.figures import headlines
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.catalog import METHODS
from jax_unlearn.recipes.recipe import Results
from jax_unlearn.report.glossary import IMAGES, TERMS

__all__ = ["MISSING", "attacks", "cost", "explained", "ordered", "otherwise_set"]
__all__ += ["seconds"]
__all__ += ["target", "trial"]

HEADS = {
    "inside": "how many of UA, RA, TA and MIA lie where another Retrain lies",
    "Avg. Gap": TERMS["Avg. Gap"],
    "\\|p − p*\\|": TERMS["|p − p*|"],
    "p": "how often chance alone would make such a difference from doing nothing, by a "
    "paired t-test over the seeds",
    "s": "running time in seconds",
    "cost": "share of Retrain's, counted in gradients of samples",
}
"""What headings of tables mean."""
OF_REPORTS = ("Cost", "RTE", "time", "vs. nothing", "figures outside")
MISSING = "(no such row)"  # in a reading: never in a stored page


def explained(page: str, *, images: bool = False) -> str:
    r"""Return a page with what its abbreviations stand for at the end.

    `images` says that it is of diffusion models, whose UA is another.

    >>> page = "# Study\n\n| | RA | s |\n| --- | --- | --- |\n| FT | 5.0 | 1 |\n"
    >>> print("\n".join(explained(page).splitlines()[-3:]))
    - **RA**: retain accuracy, on the samples that stay
    - **s**: running time in seconds
    - **FT**: Fine-tune
    """
    titles = {card.label: card.title for card in METHODS.values()}
    named = {k: v.partition(" (")[0] for k, v in titles.items() if f"({k}" in v}
    drawn = {"UA": IMAGES["UA"]} if images else {}
    short = {k: v for k, v in TERMS.items() if k not in OF_REPORTS}
    known = {**short, **drawn, **HEADS, **{n: named[n] for n in sorted(named)}}
    words = set(re.findall(r"[\w-]+", re.sub(r"`[^`]*`|\]\([^)]*\)", "", page)))
    words -= HEADS.keys()
    for line, below in itertools.pairwise(page.splitlines()):
        if below.startswith("| ---"):
            words |= {cell.strip() for cell in re.split(r"(?<!\\)\|", line)}
    lines = [f"- **{short}**: {known[short]}" for short in known if short in words]
    if not lines:
        return page
    title, _, rest = page.partition("\n")
    where = (
        "[Abbreviations](#abbreviations) are explained at the end, methods and\n"
        "weights on [pages](../../methods/README.md) of "
        "[their own](../../weights/README.md)."
    )
    end = "\n".join(["## Abbreviations", "", *lines])
    return f"{title}\n\n{where}\n\n{rest.strip()}\n\n{end}\n"


def ordered(rows: Results, nearest: bool = False) -> list[tuple[str, Any]]:
    """Return the references, then the methods, perhaps the nearest first."""
    first = [key for key in ("retrain", "null", "original") if key in rows]
    methods = [key for key in rows if key not in first]
    if nearest:
        methods.sort(key=lambda key: rows[key]["avg_gap"]["mean"])
    return [(key, rows[key]) for key in (*first, *methods)]


def attacks(found: Results) -> tuple[list[Any], list[Any]]:
    """Return the figures of an audit that all methods have, the headlines apart.

    Of each its kind, and one figure a method; all are the first where they are few.
    """
    methods = found["figures"].values()
    told = [(k, [one.get(key) for one in methods]) for key, k in audit.KINDS.items()]
    whole = [(kind, values) for kind, values in told if None not in values]
    few = headlines([kind for kind, _ in whole])
    first = [row for row in whole if not few or row[0] in few]
    return first, [row for row in whole if row not in first]


def target(figure: Mapping[str, Any], digits: int) -> str:
    """Return a target with the interval of its null, where it has one."""
    low, high = figure["null_low"], figure["null_high"]
    value = f"{figure['target']:.{digits}f}"
    return value if low is None else f"{value} [{low:.{digits}f}, {high:.{digits}f}]"


def seconds(row: Mapping[str, Any]) -> str:
    """Return the median of the seconds to prepare, and of those to run."""
    times = {name: found["per_seed"] for name, found in row["seconds"].items()}
    return f"{median(times['prepare']) + median(times['run']):.1f}"


def trial(searched: Mapping[str, Any], label: str, **values: Any) -> str:
    """Return the Avg. Gap of a trial of a search, as a reading tells it."""
    rows = searched["table"].get(label, ())
    same = [r for r in rows if all(r.get(k) == v for k, v in values.items())]
    return f"{same[0]['avg_gap']:.1f}" if same else MISSING


def cost(row: Mapping[str, Any]) -> str:
    """Return the share of Retrain's cost that was counted, in percent."""
    counted = row.get("cost", {}).get("counted")
    return f"{100 * counted['mean']:.0f} %" if counted else ""


def otherwise_set(found: Results, settings: Mapping[str, Any]) -> list[str]:
    """Return audited methods with other settings than those."""
    used = {k: Unlearning.read(v) for k, v in found["plan"]["methods"].items()}
    audited = [label for label in found["audit"]["figures"] if label in used]
    return [k for k in audited if used[k] != Unlearning.of(**settings[k])]
