"""What the pages of an audit tell: of each method the figures inside and outside."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jax_unlearn.audit.card import FigureCard
from jax_unlearn.audit.figures import GROUPS, KINDS
from jax_unlearn.report.draw import Drawing
from jax_unlearn.report.draw import audit as draw
from jax_unlearn.report.forms import Audit, AuditFigure, Detail
from jax_unlearn.report.reading import Row
from jax_unlearn.report.settings import about, settings_table

__all__ = ["Page", "Verdict", "content"]

TITLES = {
    "standard": "Accuracies, MIA and distances",
    "mia": "Two more membership attacks",
    "deviation": "Sample by sample",
    "u_lira": "U-LiRA: a rule for each sample",
    "rmia": "RMIA: Retrains as references",
    "forgetting": "Forgetting quality: the best attack on each sample",
    "klom": "KLoM: divergence of the margins",
}
"""What the page calls the library's groups of figures; others have their own name."""
TRACES = (*GROUPS["u_lira"], *GROUPS["forgetting"], *GROUPS["klom"])
ATTACKS = ("mia", "mia_entropy", "mia_loss", *GROUPS["rmia"])
FEW = 6  # figures that are named one by one


class Verdict(NamedTuple):
    """What the figures outside the null's intervals mean.

    Attributes:
      judged: number of figures that have an interval.
      outside: those that lie outside, with their cards.
      few: whether they are named one by one.
      chancy: whether so few may be chance.
      ensembles: whether an attack that compares many models was tried.
      traces, attacks, answers: whether such an attack, an attack on one model, or the
        answers on the forgotten samples are outside.
      kept: how often they are right on other data, "more", "less", "more or less"
        often; empty where as often as Retrain.
      gaps: whether only distances of the accuracies are outside.
      own: of `outside`, the figures that are not of the library.
    """

    judged: int
    outside: list[tuple[FigureCard, AuditFigure]]
    few: bool
    chancy: bool
    ensembles: bool
    traces: bool
    attacks: bool
    answers: bool
    kept: str
    gaps: bool
    own: list[tuple[FigureCard, AuditFigure]]


class Page(NamedTuple):
    """What is told of one method.

    Attributes:
      label: of the method.
      slug: of its section, unique.
      verdict: for a person who has to answer a deletion request.
      models: how many of them were audited.
      figures: by key.
      detail: what is drawn, and the thirds of the classes.
      settings: names and values; may be empty.
      drawings: ROC curve and epsilon; may be empty.
    """

    label: str
    slug: str
    verdict: Verdict
    models: int
    figures: dict[str, AuditFigure]
    detail: Detail
    settings: dict[str, str]
    drawings: list[Drawing]


def content(record: Audit, rows: Mapping[str, Row]) -> dict[str, Any]:
    """Return what the templates of an audit read.

    Args:
      record: of the audit.
      rows: of an experiment beside it; may be empty.
    """
    names = {key: rows[key].label if key in rows else key for key in record.figures}
    swatches = draw.looks(list(names))
    reasons: dict[str, list[str]] = {}
    for key, why in record.left_out.items():
        reasons.setdefault(why, []).append(key)
    pages = []
    for n, (key, slug) in enumerate(zip(names, slugs(names.values()), strict=True)):
        detail, drawings = record.details[key], []
        if detail.roc is not None:
            drawings.append(draw.roc_of_one(record, key, names[key], f"roc{n}"))
        if detail.epsilon is not None:
            drawings.append(draw.epsilon_of_one(record, key, names[key], f"epsilon{n}"))
        page = Page(
            label=names[key],
            slug=slug,
            verdict=verdict(record, key),
            models=record.models[key],
            figures=record.figures[key],
            detail=detail,
            settings=method_settings(rows, key),
            drawings=drawings,
        )
        pages.append(page)
    return {
        "record": record,
        "pages": pages,
        "groups": [(TITLES.get(g, g), cards) for g, cards in record.grouped.items()],
        "roc": draw.roc_of_all(record, names) if len(names) > 1 else None,
        "key": [
            (names[key], swatches[key].swatch)
            for key in names
            if record.details[key].roc is not None
        ],
        "left_out": list(reasons.items()),
        "most": max(page.verdict.judged for page in pages),
        "shown": len(pages[0].figures),
        "strip": draw.strip,
    }


def verdict(record: Audit, name: str) -> Verdict:
    """Return what the figures of a method say.

    Args:
      record: of the audit.
      name: of the method.
    """
    figures, cards = record.figures[name], record.cards
    judged = [key for key, figure in figures.items() if figure.verdict]
    outside = [key for key in judged if figures[key].verdict == "outside"]
    kept = [key for key in outside if key in ("ra", "ta")]
    below = [key for key in kept if figures[key].value < figures[key].target]
    how = "less" if len(below) == len(kept) else "more or less" if below else "more"
    told = {*TRACES, *ATTACKS, "ua", "deviation", "ra", "ta"} & set(outside)
    own = [key for key in outside if key not in KINDS]
    by_chance = (1 - record.level) * len(judged)
    return Verdict(
        judged=len(judged),
        outside=[(cards[key], figures[key]) for key in outside],
        few=len(outside) <= FEW,
        chancy=len(outside) <= max(by_chance, 1),
        ensembles=bool(set(TRACES) & set(figures)),
        traces=bool(set(TRACES) & set(outside)),
        attacks=bool(set(ATTACKS) & set(outside)),
        answers=bool({"ua", "deviation"} & set(outside)),
        kept=how if kept else "",
        gaps=not told and len(outside) > len(own),
        own=[(cards[key], figures[key]) for key in own],
    )


def slugs(names: Iterable[str]) -> list[str]:
    """Return what the sections of methods are called in links, each another.

    >>> slugs(["RL + FaLW", "RL/FaLW", "忘"])
    ['method-rl-falw', 'method-rl-falw-2', 'method-n']
    """
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "n"
        slug, count = f"method-{plain}", 1
        while slug in found:
            count += 1
            slug = f"method-{plain}-{count}"
        found.append(slug)
    return found


def method_settings(rows: Mapping[str, Row], name: str) -> dict[str, str]:
    """Return the settings of a method that has a row, and what it reads.

    Args:
      rows: of an experiment.
      name: of the method in the audit: the key of a row, or its label.

    Returns:
      Names and values; none where no row tells them.
    """
    labelled = {row.label: row for row in rows.values()}
    row = rows.get(name) or labelled.get(name)
    if row is None or not row.setting:
        return {}
    heads, (values,) = settings_table({name: row})
    card = about(row.setting)
    found = {"method": f"{values[1]}: {card.pop('title')}"}
    told = zip(heads[2:], values[2:], strict=True)
    return found | {head: value for head, value in told if value != "–"} | card
