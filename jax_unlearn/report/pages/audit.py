"""What the pages of an audit tell: of each method the figures inside and outside."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jax_unlearn.audit.evidence import FigureCard
from jax_unlearn.audit.records import visible
from jax_unlearn.report.draw import audit as draw
from jax_unlearn.report.forms import Audit, AuditFigure, reasons
from jax_unlearn.report.pages import headline
from jax_unlearn.report.reading import Row
from jax_unlearn.report.settings import about, settings_table
from jax_unlearn.report.table import OUTSIDE, Cell, Table, number, ordered

__all__ = ["TITLES", "Verdict", "content", "method_settings", "slugs", "verdict"]

TITLES = {
    "standard": "Accuracies, MIA and distances",
    "mia": "Two more membership attacks",
    "deviation": "Sample by sample",
    "u_lira": "U-LiRA: a rule for each sample",
    "rmia": "RMIA: Retrains as references",
    "forgetting": "Forgetting quality: the best attack on each sample",
    "klom": "KLoM: divergence of the margins",
    "vulnerable": "RULI: samples that the originals exposed most",
    "protected": "RULI: samples that the originals exposed least",
    "retain": "Privacy of the retain set",
    "difference": "Difference attack: before and after",
}
"""What the page calls the library's groups of figures; others have their own name."""

COLUMNS = 9  # figures of the table of methods
Figures = list[tuple[FigureCard, AuditFigure]]


class Verdict(NamedTuple):
    """What the figures outside the null's intervals mean."""

    judged: int  # figures that have an interval
    outside: Figures
    told: dict[str, Figures]  # the same by what their cards say that they tell
    others: str  # "more", "less", "more or less" often right there than Retrain
    pair: str  # the same of what two models tell, before and after
    exposed: str  # the same of how easily samples that stay are told
    ensembles: bool  # whether an attack that compares many models was tried


def content(record: Audit, rows: Mapping[str, Row]) -> dict[str, Any]:
    """Return what the templates of an audit read; an experiment's rows may be empty."""
    names = {key: rows[key].label if key in rows else key for key in record.figures}
    swatches = draw.looks(list(names))
    pages = []
    for n, (key, slug) in enumerate(zip(names, slugs(names.values()), strict=True)):
        detail, drawings = record.details[key], []  # of curve and epsilon, if any
        if detail.roc is not None:
            drawings.append(draw.roc_of_one(record, key, names[key], f"roc{n}"))
        if detail.epsilon is not None:
            drawings.append(draw.epsilon_of_one(record, key, names[key], f"epsilon{n}"))
        page = {
            "label": names[key],
            "slug": slug,  # of its section, unique
            "verdict": verdict(record, key),
            "models": record.models[key],  # how many of them were audited
            "figures": record.figures[key],
            "detail": detail,
            "settings": method_settings(rows, key),  # may be empty
            "drawings": drawings,
        }
        pages.append(page)
    every = [(TITLES.get(g, g), cards) for g, cards in record.grouped.items()]
    behind = [
        (title, rest)
        for title, cards in every
        if (rest := [card for card in cards if card not in record.headline])
    ]
    judged = headline.of_audit(record, names, (page["slug"] for page in pages))
    drawn = [key for key in names if record.details[key].roc is not None]
    return {
        "record": record,
        "pages": pages,
        "judged": judged,
        "table": ordered(_table(record, names), OUTSIDE) if not rows else None,
        "headline": [("First to read", first)] if (first := record.headline) else every,
        "groups": behind if first else [],
        "behind": sum(
            figures[card.key].verdict == "outside"
            for figures in record.figures.values()
            for _, cards in behind
            for card in cards
        ),
        "roc": draw.roc_of_all(record, names) if len(names) > 1 else None,
        "key": [(names[key], swatches[key].swatch) for key in drawn],
        "left_out": reasons(record.left_out, record.cards),
        "strip": draw.strip,
    }


def _table(record: Audit, names: Mapping[str, str]) -> Table:
    """Return the table of an audit without rows: a row a method, figures first to read.

    The first row is what Retrains show.
    """
    every = [card for cards in record.grouped.values() for card in cards]
    cards = (record.headline or every)[:COLUMNS]
    figures = next(iter(record.figures.values()))
    columns, target = ["Model"], [Cell("Retrain", "target")]
    if record.judged:
        columns, target = [*columns, OUTSIDE], [*target, Cell("–")]
    columns += [card.label for card in cards]
    target += [_target(card, figures[card.key]) for card in cards]
    rows = {"retrain": target}
    for key, figures in record.figures.items():
        rows[key] = [Cell(names[key])]
        if record.judged:
            judged = sum(bool(figure.verdict) for figure in figures.values())
            rows[key].append(Cell(str(headline.outside(record, key)), f"of {judged}"))
        for card in cards:
            figure = figures[card.key]
            digits = visible(figure, card.digits)
            text = f"Δ {number(figure.value - figure.target, digits, sign=True)}"
            cell = Cell(number(figure.value, digits), text, figure.verdict)
            rows[key].append(cell)
    return Table(columns, [*rows.values()], [*rows])


def _target(card: FigureCard, figure: AuditFigure) -> Cell:
    low, high = figure.null_low, figure.null_high
    ends = [number(end, card.digits) for end in (low, high) if end is not None]
    said = f"[{', '.join(ends)}]" if ends else ""
    return Cell(number(figure.target, card.digits), said)


def verdict(record: Audit, name: str) -> Verdict:
    """Return what the figures of a method say."""
    cards = record.cards
    figures = [(cards[key], figure) for key, figure in record.figures[name].items()]
    outside = [(card, f) for card, f in figures if f.verdict == "outside"]
    told: dict[str, Figures] = {}
    for card, figure in outside:
        told.setdefault(card.tells, []).append((card, figure))
    if told.keys() - {"gaps", ""}:  # which say more than the distances of accuracies
        told.pop("gaps", None)
    return Verdict(
        judged=sum(bool(figure.verdict) for _, figure in figures),
        outside=outside,
        told=told,
        others=_sense(told.get("others", ())),
        pair=_sense(told.get("pair", ())),
        exposed=_sense(told.get("exposed", ())),
        ensembles=any(card.tells == "traces" for card, _ in figures),
    )


def _sense(outside: Iterable[tuple[FigureCard, AuditFigure]]) -> str:
    """Return on which side of Retrain's value figures lie: above is "more"."""
    below = [figure.value < figure.target for _, figure in outside]
    return "less" if all(below) else "more or less" if any(below) else "more"


def slugs(names: Iterable[str]) -> list[str]:
    """Return what the sections of methods are called in links, each another."""
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
    """Return a method's settings and what it reads, by its row's key or label."""
    labelled = {row.label: row for row in rows.values()}
    row = rows.get(name) or labelled.get(name)
    if row is None or not row.setting:
        return {}
    heads, (values,) = settings_table({name: row})
    card = about(row.setting)
    found = {"method": f"{values[1]}: {card.pop('title')}"}
    told = zip(heads[2:], values[2:], strict=True)
    return found | {head: value for head, value in told if value != "–"} | card
