"""The tables of an audit, and the page of each method, from the record."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from jax_unlearn.audit.card import FigureCard, groups_of
from jax_unlearn.audit.figures import cards_of
from jax_unlearn.lab.catalog import CATALOG
from jax_unlearn.report import curves, settings, verdicts
from jax_unlearn.report.read_audit import NULL, THIRDS
from jax_unlearn.report.strips import strip
from jax_unlearn.report.svg import Drawing
from jax_unlearn.report.table import Cell, number, spread

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


class Overview(NamedTuple):
    """One table of all methods.

    Attributes:
      columns: headings: the figure, its target, then the methods.
      groups: the title of each group, and its rows.
    """

    columns: list[Cell]
    groups: list[tuple[str, list[list[Cell]]]]


class Line(NamedTuple):
    """One figure in the table of a method.

    Attributes:
      label: of the figure, with the unit.
      meaning: what it measures.
      value: of the method.
      target: Retrain's or the null's.
      interval: of the null; a dash where there is none.
      strip: where the value lies beside it.
      verdict: "inside", "outside" or empty.
    """

    label: str
    meaning: str
    value: str
    target: Cell
    interval: str
    strip: Markup
    verdict: str


class Page(NamedTuple):
    """What is told of one method.

    Attributes:
      label: of the method.
      slug: of its section, unique.
      verdict: sentences for a person who has to answer a deletion request.
      models: how many of them were audited.
      settings: names and values; may be empty.
      groups: the title of each group of figures, and its lines.
      drawings: ROC curve and epsilon; may be empty.
      note: how the drawings are to be read; may be empty.
      thirds: headings and rows of p - p* by head, mid and tail; may be empty.
    """

    label: str
    slug: str
    verdict: list[str]
    models: str
    settings: list[tuple[str, str]]
    groups: list[tuple[str, list[Line]]]
    drawings: list[Drawing]
    note: str
    thirds: list[list[str]]


def content(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return all that the page says of the audit.

    Args:
      results: checked results.

    Returns:
      What the template reads; None where there is no audit.
    """
    record = results.get("audit")
    if record is None:
        return None
    names = labels(results)
    roc = curves.roc_of_all(record, names)
    found = curves.looks(list(names))
    return {
        "summary": verdicts.summary(record, names),
        "overview": overview(record, names),
        "compared": verdicts.compared(record),
        "level": f"{100 * record['level']:g} %",
        "roc": roc if len(names) > 1 else None,
        "key": [
            (names[name], found[name].swatch)
            for name in names
            if record["details"][name]["roc"] is not None
        ],
        "null_drawn": NULL in record["details"],
        "pages": pages(results),
        "limits": verdicts.limits(record),
        "may": verdicts.may_say(record),
        "left_out": left_out(record),
        "judged": verdicts.judged(record),
    }


def labels(results: Mapping[str, Any]) -> dict[str, str]:
    """Return what the page calls each method: the label of its row, if it has one.

    >>> rows = {"ft": {"label": "FT"}}
    >>> labels({"rows": rows, "audit": {"figures": {"ft": {}, "ssd": {}}}})
    {'ft': 'FT', 'ssd': 'ssd'}
    """
    rows = results.get("rows") or {}
    return {
        name: rows[name]["label"] if name in rows else name
        for name in results["audit"]["figures"]
    }


def label(card: FigureCard) -> str:
    """Return what the page calls a figure.

    >>> label(cards_of({})["deviation"])
    '|p − p*|'
    """
    return verdicts.typeset(card.label)


def left_out(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return figures that could not be had, those of one reason together, and why.

    >>> left_out({"left_out": {"rmia_auc": "no unseen", "mia_loss": "no unseen"}})
    [('RMIA AUC; MIA (loss, accuracy)\N{NO-BREAK SPACE}%', 'no unseen')]
    """
    reasons: dict[str, list[str]] = {}
    cards = cards_of(record)
    for key, why in record["left_out"].items():
        reasons.setdefault(why, []).append(label(cards[key]))
    return [("; ".join(keys), why) for why, keys in reasons.items()]


def slugs(names: list[str]) -> list[str]:
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


def overview(record: Mapping[str, Any], names: Mapping[str, str]) -> Overview:
    """Return all figures: one row a figure, one column a method.

    A cell holds the value, below it the null's interval and whether it is inside.

    Args:
      record: a checked audit.
      names: labels of the methods.

    Returns:
      The table.
    """
    columns = [Cell("Figure"), Cell("Target")]
    for name in names:
        columns.append(Cell(names[name], models_of(record, name)))
    groups = [
        (
            title,
            [
                [Cell(label(card)), target(record, card)]
                + [_cell(card, record["figures"][name][card.key]) for name in names]
                for card in cards
            ],
        )
        for title, cards in _grouped(record)
    ]
    return Overview(columns, groups)


def target(record: Mapping[str, Any], card: FigureCard) -> Cell:
    """Return the target of a figure, the same for all methods, and whose it is.

    Args:
      record: a checked audit.
      card: of the figure.
    """
    figure = next(iter(record["figures"].values()))[card.key]
    value = number(figure["target"], card.digits)
    if card.each:
        return Cell(value, "Retrain")
    return Cell(value, "if alike" if figure["null_low"] is None else "null")


def interval(card: FigureCard, figure: Mapping[str, Any]) -> str:
    """Return the null's interval of a figure, a dash where there is none.

    >>> interval(cards_of({})["ua"], {"null_low": -0.51, "null_high": 2.0})
    '[−0.5, 2.0]'
    """
    if figure["null_low"] is None:
        return "–"
    ends = (figure["null_low"], figure["null_high"])
    return "[{}, {}]".format(*(number(end, card.digits) for end in ends))


def models_of(record: Mapping[str, Any], name: str) -> str:
    """Return how many models of a method there are.

    >>> models_of({"models": {"ft": 1}}, "ft")
    '1 model'
    """
    count = record["models"][name]
    return f"{count:,} model{'s' * (count > 1)}"


def pages(results: Mapping[str, Any]) -> list[Page]:
    """Return the page of each method.

    Args:
      results: checked results with an audit.
    """
    record, names = results["audit"], labels(results)
    found = []
    for n, (slug, name) in enumerate(
        zip(slugs(list(names.values())), names, strict=True)
    ):
        detail, figures = record["details"][name], record["figures"][name]
        drawings = []
        if detail["roc"] is not None:
            drawings.append(curves.roc_of_one(record, name, names[name], f"roc{n}"))
        if detail["epsilon"] is not None:
            epsilon = curves.epsilon_of_one(record, name, names[name], f"epsilon{n}")
            drawings.append(epsilon)
        groups = [
            (title, [_line(record, card, figures[card.key]) for card in cards])
            for title, cards in _grouped(record)
        ]
        page = Page(
            names[name],
            slug,
            verdicts.verdict(record, name),
            models_of(record, name),
            method_settings(results, name),
            groups,
            drawings,
            _note(record, name),
            _thirds(record, name),
        )
        found.append(page)
    return found


def method_settings(results: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """Return the settings of a method that has a row, and what it reads.

    Args:
      results: checked results.
      name: of the method in the audit: the key of a row, or its label.

    Returns:
      Names and values; none where no row tells them.
    """
    rows = results.get("rows") or {}
    row = rows.get(name) or next((r for r in rows.values() if r["label"] == name), {})
    if not row.get("setting"):
        return []
    heads, (values,) = settings.settings_table({"rows": {name: row}})
    entry = CATALOG[row["setting"]["method"]]
    found = [("method", f"{values[1]}: {entry.title}")]
    found += [
        (head, value)
        for head, value in zip(heads[2:], values[2:], strict=True)
        if value != "–"
    ]
    found += [("reads", ", ".join(entry.reads)), ("cost", entry.cost)]
    return [*found, ("source", entry.source)]


def _grouped(record: Mapping[str, Any]) -> list[tuple[str, list[FigureCard]]]:
    """Return the groups that the audit has figures of, with their cards."""
    known = next(iter(record["figures"].values()))
    cards = {key: card for key, card in cards_of(record).items() if key in known}
    return [
        (TITLES.get(group, group), [cards[key] for key in keys])
        for group, keys in groups_of(cards.values()).items()
    ]


def _cell(card: FigureCard, figure: Mapping[str, Any]) -> Cell:
    detail = "" if figure["null_low"] is None else interval(card, figure)
    return Cell(_value(card, figure), detail, figure["verdict"])


def _value(card: FigureCard, figure: Mapping[str, Any]) -> str:
    return spread({"mean": figure["value"], "std": figure["std"]}, card.digits)


def _line(
    record: Mapping[str, Any], card: FigureCard, figure: Mapping[str, Any]
) -> Line:
    return Line(
        label(card),
        verdicts.typeset(card.meaning),
        _value(card, figure),
        target(record, card),
        interval(card, figure),
        strip(card.kind, figure),
        figure["verdict"],
    )


def _three(card: FigureCard, ends: Sequence[float]) -> str:
    """Return a value with its own interval."""
    value, low, high = (number(end, card.digits) for end in ends)
    return f"{value} [{low}, {high}]"


def _note(record: Mapping[str, Any], name: str) -> str:
    detail, said = record["details"][name], ""
    if detail["roc"] is not None or detail["epsilon"] is not None:
        said = (
            f"Drawn is one division of the models into groups of {record['half']}; the "
            f"table has the mean of {record['resamples']}."
        )
    if detail["epsilon"] is not None:
        said += (
            " An epsilon of 0 is a sample on which the two kinds of models are not "
            "told apart; at ∞ some attack never errs. Chance alone gives a sample some "
            "epsilon: compare with the null."
        )
    if detail.get("intervals"):
        cards = cards_of(record)
        told = ", ".join(
            f"{label(cards[key])} {_three(cards[key], ends)}"
            for key, ends in detail["intervals"].items()
        )
        said += (
            f" In this division: {told}. These intervals are over samples of the same "
            "models, and too narrow for other models: the null's tell more."
        )
    return said


def _thirds(record: Mapping[str, Any], name: str) -> list[list[str]]:
    """Return headings and rows of the deviation by thirds of the classes."""
    details = record["details"]
    groups = {"this method": details[name]["groups"]}
    if not groups["this method"]:
        return []
    if NULL in details:
        groups["null, another Retrain"] = details[NULL]["groups"]
    rows = [
        [who, *(number(g[t], 3, sign=True) if t in g else "–" for t in THIRDS)]
        for who, g in groups.items()
    ]
    return [["p − p*", *THIRDS], *rows]
