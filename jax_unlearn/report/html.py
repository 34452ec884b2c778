"""The report as one self-contained page: no script, no font, no network."""

import importlib.resources
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jax_unlearn.data import write_atomic
from jax_unlearn.report import audit, conflict, figures, learned, settings, words
from jax_unlearn.report.generation import generation_content
from jax_unlearn.report.read import check_results
from jax_unlearn.report.svg import Drawing
from jax_unlearn.report.table import REFERENCES, Cell, main_table

ATTACKS = (
    "LTU forgets by what membership attacks tell it. Each was trained to tell samples "
    "that the original model was trained on from "
    "unseen ones; the AUC is that on held-out samples (0.5 is guessing) with its "
    "standard error, both in the mean over the seeds. An attack beats chance where its "
    "AUC exceeds 0.5 by over 1.96 of the standard errors that guessing has."
)
GAPS = (
    "LTU remembers by queries, retain samples drawn by several strategies, which "
    "should differ from the forget set and from one another. Gap of labels: total "
    "variation distance between the classes of a query and of the forget set, 0 to 1. "
    "Gap of features: squared maximum mean discrepancy, 0 for one distribution, "
    "slightly negative by chance. The last row is the null: a query of forget samples "
    "against the other forget samples."
)


class Figure(NamedTuple):
    """A figure of the page.

    Attributes:
      heading: of its section.
      caption: how to read it.
      legend: a word and the class of its swatch, for each line.
      drawings: its panels.
      wide: whether it is one drawing with a key of methods.
    """

    heading: str
    caption: str
    legend: list[tuple[str, str]]
    drawings: list[Drawing]
    wide: bool = False


def render(results: Mapping[str, Any]) -> str:
    """Return the report of an experiment or an audit as HTML.

    Args:
      results: what `results.json` holds.

    Returns:
      A page that needs nothing else: styles and figures are inside.

    Raises:
      InputError: a key that is missing or does not hold what it should.

    >>> render({})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: results holds no results: format is missing; give \
the results.json of a run
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    check_results(results)
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    if results.get("kind") == "generation":
        page, content = "generation.html", generation_content(results)
    else:
        page, content = "template.html", _content(results)
    return environment.get_template(page).render(content)


def write(
    results: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the report, whole or not at all.

    Args:
      results: what `results.json` holds.
      path: of the page.
      overwrite: whether a file of that name may be replaced.

    Returns:
      The path written.

    Raises:
      InputError: results that hold none; a file that exists, or cannot be written.

    >>> write({}, "report.html")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: results holds no results: format is missing; give \
the results.json of a run
    """
    return write_atomic(path, render(results), overwrite=overwrite)


def _template(name: str) -> str:
    source = importlib.resources.files("jax_unlearn.report").joinpath(name)
    return source.read_text(encoding="utf-8")


def _content(results: Mapping[str, Any]) -> dict[str, Any]:
    plan = results.get("plan") or {}
    audited = audit.content(results)
    summary = words.summary(results) if "rows" in results else []
    found = {
        "title": plan.get("title") or "Unlearning audit",
        "summary": summary + (audited["summary"] if audited else []),
        "rows": "rows" in results,
        "audit": audited,
        "note": plan.get("note") or "",
        "facts": words.facts(results),
    }
    return found | (_of_rows(results) if "rows" in results else {})


def _of_rows(results: Mapping[str, Any]) -> dict[str, Any]:
    rows = results["rows"]
    table = main_table(results)
    plan = results.get("plan") or {}
    compared = [row["comparison"] for row in rows.values() if row.get("comparison")]
    setting_columns, setting_rows = settings.settings_table(results)
    return {
        "columns": table.columns,
        "lines": [
            (key in REFERENCES, [(cell, _tone(cell)) for cell in row])
            for key, row in zip(table.keys, table.rows, strict=True)
        ],
        "targeted": "retrain" in rows,
        "has_null": "null" in rows,
        "compared": bool(compared),
        "tested": any(row.get("deviation_test") for row in rows.values()),
        "single": _single(results),
        "level": f"{100 * compared[0]['level']:g} %" if compared else "",
        "whole_classes": plan.get("kind") == "class",
        "figures": _figures(results),
        "told_of_attacks": ATTACKS,
        "attacks": learned.attack_tables(results),
        "warnings": learned.warnings(results),
        "told_of_gaps": GAPS,
        "gaps": learned.gap_tables(results),
        "conflict": _conflict_figure(results),
        "methods": [row["label"] for key, row in rows.items() if key not in REFERENCES],
        "setting_columns": setting_columns,
        "setting_rows": setting_rows,
        "shared": settings.shared_settings(results),
    }


def _tone(cell: Cell) -> str:
    """Return the class of a cell, from what it says.

    >>> _tone(Cell("−1.5", "p 0.010, nearer")), _tone(Cell("0.0", "Δ 0.0", "inside"))
    ('nearer', 'inside')
    """
    for word in ("nearer", "farther"):
        if cell.detail.endswith(f", {word}"):
            return word
    return cell.mark


def _figures(results: Mapping[str, Any]) -> list[Figure]:
    rows = results["rows"]
    found = []
    if "retrain" in rows:
        found += [_gap_figure(results), _deviation_figure(results)]
    found.append(_confidence_figure(results))
    if results.get("scatter"):
        found.append(_weight_figure(results))
    return found


def _gap_figure(results: Mapping[str, Any]) -> Figure:
    legend = [("R: Retrain, the target", "dot ink")]
    caption = (
        "Down and left is nearer to Retrain. The two measures can rank methods in "
        "opposite order: an average over the forget set can be right while single "
        f"samples are not.{_bars(results, ' Thin bars')}"
    )
    if "null" in results["rows"]:
        legend.append(("N: null; shaded: no farther than it from Retrain", "dot green"))
    if "original" in results["rows"]:
        legend.append(("O: original; beyond its dashes, farther than it", "dot red"))
    legend.append(("methods, by number", "dot blue round"))
    drawing = figures.gap_against_deviation(results)
    return Figure("Two measures of distance", caption, legend, [drawing], wide=True)


def _bars(results: Mapping[str, Any], what: str) -> str:
    """Return the sentence on error bars, empty for a single seed."""
    return "" if _single(results) else f"{what}: ± one standard deviation over seeds."


def _single(results: Mapping[str, Any]) -> bool:
    row = next(iter(results["rows"].values()))
    return len(row["metrics"]["ua"]["per_seed"]) == 1


def _deviation_figure(results: Mapping[str, Any]) -> Figure:
    rows = results["rows"]
    grouped = any(row["groups"] for row in rows.values())
    caption = (
        "Mean of p − p*, the confidence in the true class less Retrain's, over the "
        "forget samples of a class; the classes by how many of their samples were to "
        "be forgotten. Above zero they are still remembered (under-forgotten), below "
        "they were pushed too far (over-forgotten); zero is Retrain."
    )
    if grouped:
        caption += (
            " On the right of each panel the means of the thirds of the classes."
            f"{_bars(results, ' Bars')}"
        )
    else:
        caption += (
            " Fewer than three classes were touched, so that there is no head, middle "
            "and tail to compare."
        )
    legend = [("this method", "line blue")]
    if "original" in rows:
        legend.append(("original, nothing done", "line red dashed"))
    if "null" in rows:
        legend.append(("null, another Retrain", "line green dotted"))
    legend.append(("Retrain (zero)", "line ink thin"))
    drawings = figures.deviation_by_class(results)
    return Figure("Who was forgotten too little or too much", caption, legend, drawings)


def _confidence_figure(results: Mapping[str, Any]) -> Figure:
    over = "" if _single(results) else ", over all seeds"
    caption = (
        f"How sure each model is of the true class{over}. The scale is logarithmic, "
        "so that the few stay visible beside the many."
    )
    legend = [
        ("forget set", "area red"),
        ("unseen", "line blue"),
        ("retain set", "line muted dashed"),
    ]
    if "retrain" in results["rows"]:
        caption += (
            " Where the forget set (filled) follows the dotted line, the model is as "
            "sure of it as Retrain is."
        )
        legend.append(("forget set under Retrain, the target", "line ink dotted"))
    drawings = figures.confidences(results)
    return Figure("Confidence in the true class", caption, legend, drawings)


def _weight_figure(results: Mapping[str, Any]) -> Figure:
    caption = (
        "What the weighting does: the weight of each forget sample against its loss on "
        "the true class, in the first and the last quarter of the steps of the first "
        "seed's run; losses below 0.00001 are drawn at 0.00001."
    )
    legend = [("first quarter", "dot red"), ("last quarter", "dot blue round")]
    drawings = figures.weights_against_losses(results)
    return Figure("Weight against loss", caption, legend, drawings)


def _conflict_figure(results: Mapping[str, Any]) -> Figure | None:
    drawings = conflict.conflict_by_step(results)
    if not drawings:
        return None
    legend = [
        ("cosine of g_f and g_r", "line blue"),
        ("conflict: what one-way harmonization removes from g_f", "area red"),
        ("zero: at right angles", "line ink thin"),
    ]
    heading = "Do forgetting and remembering disagree?"
    return Figure(heading, conflict.caption(results), legend, drawings)
