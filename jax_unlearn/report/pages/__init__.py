"""The report as one self-contained page: no font, no network, no script but its own.

The words are in `templates`; what stands here are the numbers they tell.
"""

import base64
import functools
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from jax_unlearn.audit.records import visible
from jax_unlearn.data import write_atomic
from jax_unlearn.report import glossary, table
from jax_unlearn.report.generated import GenerationResults
from jax_unlearn.report.language import FIGURES, LanguageResults, language_table
from jax_unlearn.report.pages import audit, experiment, headline
from jax_unlearn.report.reading import REFERENCES, check_results, methods_of
from jax_unlearn.report.settings import (
    about,
    pairs,
    settings_table,
    shared_settings,
    show,
)

__all__ = ["environment", "render", "write"]

TERMS_AT = "<!-- terms -->"  # where a page shows what its words mean


class Given(NamedTuple):
    """A method of diffusion models, as tables of settings read it."""

    label: str
    setting: Mapping[str, Any]


class Picture(NamedTuple):
    """Images that a model drew; those of a method stand behind the picker."""

    title: str
    picked: bool
    png: str  # in base64


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
        return _page("generation", _generated(checked), glossary.IMAGES)
    texts = isinstance(checked, LanguageResults)
    rows, record = checked.rows, checked.audit
    content: dict[str, Any] = {"results": checked, "rows": {}, "audit": None}
    content |= {"what": "texts", "table": None} if texts else {"table": None}
    content |= {"settings": settings_table(rows), "shared": shared_settings(rows)}
    content["beside"] = experiment.beside(checked)
    given = {row.label: row.setting for row in rows.values() if row.setting}
    content["about"] = {label: about(setting) for label, setting in given.items()}
    if isinstance(checked, LanguageResults):
        content["table"] = table.ordered(language_table(checked), "|p − p*|")
        nearest = {key: checked.rows[key] for key in content["table"].table.keys}
        content["headline"] = headline.of_texts(nearest)
    elif rows:
        content |= experiment.content(checked)
    if record is not None:
        content["audit"] = found = audit.content(record, rows)
        content["headline"] = found["judged"]
        content["table"] = content["table"] or found["table"]
    return _page("experiment", content, _own(content, FIGURES if texts else {}))


def _page(name: str, content: Mapping[str, Any], own: Mapping[str, str]) -> str:
    """Return a page with the terms that it uses; `own` says what figures of it are."""
    page = environment().get_template(f"{name}.html").render(content)
    terms = glossary.used(page, own)
    drawn = environment().get_template("terms.html").render(terms=terms)
    return page.replace(TERMS_AT, drawn if terms else "")


def _own(content: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, str]:
    """Return what figures mean that no page of a method explains."""
    own = {glossary.base(name): said for name, _, said in figures.values()}
    alone, probes = content.get("alone"), content.get("probes")
    for attack in (*alone["shown"], *alone["behind"]) if alone else ():
        own[glossary.base(attack.card.label)] = attack.card.meaning
    for probe in probes or ():
        costs = f"costs {probe.cost} gradients of single samples a model"
        own[glossary.base(probe.card.label)] = f"{probe.card.meaning}; {costs}"
    return own


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


UNTESTED = "shares of drawn images are not tested"


def _generated(results: GenerationResults) -> dict[str, Any]:
    """Return what the page of diffusion models reads."""
    single, rows = results.runs[0].forgotten is None, results.rows
    names = ("returned", "unseen_returned") if single else ("ua", "retained_accuracy")
    told = {
        name: (heading, digits, glossary.IMAGES[glossary.base(heading)])
        for name in names
        if all(name in row.figures for row in rows.values())
        for heading, digits in [table.GENERATION[name]]
    }
    by = told[names[0]][0] if "retrain" in rows else ""
    keys = ["original", "retrain", "null", *methods_of(rows)]
    labels = {key: table.generation_label(key) for key in rows}

    def ordered(made: table.Table) -> table.Ordered:
        return table.ordered(made, by)._replace(terms=glossary.IMAGES)

    made = ordered(table.generation_table(results))
    nearest = {key: rows[key] for key in made.table.keys}
    given = {
        name: Given(name, {"method": name, **own})
        for name, own in (results.plan.methods or {}).items()
    }
    return {
        "results": results,
        "table": made,
        "tables": [ordered(table.tabulated(run.rows)) for run in results.runs],
        "headline": headline.unjudged(nearest, labels, told, UNTESTED),
        "what": "images",
        "audit": None,
        "pictures": [
            [
                Picture(labels[key], key not in REFERENCES, run.grids[key])
                for key in keys
                if run.grids and key in run.grids
            ]
            for run in results.runs
        ],
        "best": next((labels[key] for key in methods_of(nearest)), ""),
        "settings": settings_table(given),
        "shared": shared_settings(given),
        "label": table.generation_label,
    }


@functools.cache
def environment() -> Any:
    """Return the templates of the page, with what they write numbers by."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("jax_unlearn.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The browser runs the script of the page and none that a name or note smuggles in.
    text = loader.get_source(environment, "script.html")[0].strip()
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    script = {"text": Markup(text), "digest": f"sha256-{digest}"}
    environment.globals |= {"script": script, "what": "samples"}
    environment.filters |= {
        "coded": lambda text: Markup(
            re.sub("`(.*?)`", r"<code>\1</code>", str(escape(text)))
        ),
        "count": _count,
        "number": table.number,
        "pairs": _pairs,
        "plain": experiment.plain,
        "quoted": repr,
        "show": show,
        "termed": _termed,
        "squeezed": lambda text: Markup(re.sub(r"[ \n]+", " ", escape(text)).strip()),
        "typeset": _typeset,
        "visible": visible,
    }
    return environment


def _count(value: Any, what: str = "") -> str:
    """Return a number of things, of a number, a share or a list of them."""
    value = len(value) if isinstance(value, list | tuple) else value or 0
    number = f"{100 * value:g} %" if 0 < value < 1 else f"{value:,.0f}"
    return f"{number} {what}".strip() if value else ""


def _pairs(settings: Mapping[str, Any] | None) -> list[str]:
    """Return names and values, without empty ones and a width of 0, the usual one."""
    given = {k: v for k, v in (settings or {}).items() if v not in (None, "")}
    return pairs({k: v for k, v in given.items() if k != "width" or v != 0})


def _termed(heading: str, own: Mapping[str, str]) -> Markup:
    """Return a heading, an abbreviation with what it means."""
    meaning = glossary.meaning(heading, own)
    text = escape(heading.replace(" - ", " − "))
    return Markup(f'<abbr title="{escape(meaning)}">{text}</abbr>') if meaning else text


def _typeset(text: str) -> str:
    """Return a text with proper minus signs, and percent signs beside their number."""
    return text.replace(" - ", " − ").replace(" %", "\N{NO-BREAK SPACE}%")
