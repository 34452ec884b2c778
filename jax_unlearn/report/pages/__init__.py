"""The report as one self-contained page: no script, no font, no network.

The words are in `templates`; what stands here are the numbers they tell.
"""

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from jax_unlearn.data import write_atomic
from jax_unlearn.report import table
from jax_unlearn.report.forms import GenerationResults
from jax_unlearn.report.pages import audit, experiment
from jax_unlearn.report.reading import check_results, methods_of
from jax_unlearn.report.settings import pairs, show

__all__ = ["environment", "render", "write"]


def render(results: Mapping[str, Any]) -> str:
    """Return the report of an experiment or an audit as HTML.

    It takes what `results.json` holds; the page needs nothing else.

    Raises:
      InputError: a key that is missing or does not hold what it should.

    >>> render({})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: results.format is missing; give the results.json \
of a run
    """
    checked = check_results(results)
    if isinstance(checked, GenerationResults):
        return environment().get_template("generation.html").render(_generated(checked))
    content: dict[str, Any] = {"results": checked, "rows": {}, "audit": None}
    if checked.rows:
        content |= experiment.content(checked)
    if checked.audit is not None:
        content["audit"] = audit.content(checked.audit, checked.rows)
    return environment().get_template("experiment.html").render(content)


def write(
    results: Mapping[str, Any], path: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write the report of results to a path, whole or not at all, and return the path.

    Raises:
      InputError: results that hold none; a file that exists, or cannot be written.

    >>> write({}, "report.html")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: results.format is missing; give the results.json \
of a run
    """
    return write_atomic(path, render(results), overwrite=overwrite)


def _generated(results: GenerationResults) -> dict[str, Any]:
    """Return what the page of diffusion models reads."""
    methods = results.plan.methods or {}
    names = dict.fromkeys(name for own in methods.values() for name in own)
    values = {n: {repr(own.get(n)) for own in methods.values()} for n in names}
    differ = [name for name in names if len(methods) == 1 or len(values[name]) > 1]
    settings = [
        [label, *(show(own.get(name)) for name in differ)]
        for label, own in methods.items()
    ]
    return {
        "results": results,
        "table": table.generation_table(results),
        "tables": [table.tabulated(run.rows) for run in results.runs],
        "drawn": ["original", "retrain", "null", *methods_of(results.rows)],
        "settings": ([name.replace("_", " ") for name in differ], settings),
        "label": table.generation_label,
    }


@functools.cache
def environment() -> Any:
    """Return the templates of the page, with what they write numbers by."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("jax_unlearn.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": _count,
        "number": table.number,
        "pairs": _pairs,
        "plain": experiment.plain,
        "quoted": repr,
        "show": show,
        "squeezed": lambda text: Markup(re.sub(r"[ \n]+", " ", escape(text)).strip()),
        "typeset": _typeset,
    }
    return environment


def _count(value: Any, what: str = "") -> str:
    """Return a number of things, of a number, a share or a list of them."""
    value = len(value) if isinstance(value, list | tuple) else value or 0
    number = f"{100 * value:g} %" if 0 < value < 1 else f"{value:,.0f}"
    return f"{number} {what}".strip() if value else ""


def _pairs(settings: Mapping[str, Any] | None) -> list[str]:
    """Return names and values, but for a width of 0, which is the usual one."""
    given = {k: v for k, v in (settings or {}).items() if v is not None}
    return pairs({k: v for k, v in given.items() if k != "width" or v != 0})


def _typeset(text: str) -> str:
    """Return a text with proper minus signs, and percent signs beside their number."""
    return text.replace(" - ", " − ").replace(" %", "\N{NO-BREAK SPACE}%")
