"""The card at the head of a page: which models can be told from retrained ones."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jax_unlearn.audit.comparison import MetricRow
from jax_unlearn.audit.records import Figure, visible
from jax_unlearn.lab.arrays import NOTHING
from jax_unlearn.lab.results import ORIGINAL
from jax_unlearn.report import reading
from jax_unlearn.report.forms import Audit, AuditFigure
from jax_unlearn.report.glossary import TERMS
from jax_unlearn.report.language import FIGURES, JUDGED, LanguageRow, beside_null
from jax_unlearn.report.table import number

__all__ = ["LOSS", "STATES", "UNTOUCHED", "Headline", "Judged", "Outside"]
__all__ += ["of_audit", "of_rows", "of_texts", "outside", "unjudged"]

STATES = ("alike", "told", "damaged", "unknown")
UNTOUCHED = {ORIGINAL, NOTHING}  # the original, by its name in audits and ensembles
LOSS = 1.0  # percentage points: an accuracy of 99.8 beside 100.0 ± 0.0 is no damage
DAMAGE = "Right less often than other Retrains, by a percentage point or more, on"
DAMAGED_TEXTS = (
    f"Less sure of texts than other Retrains, by {LOSS / 100:g} of p or {LOSS:g} % of "
    "perplexity or more, on"
)


class Outside(NamedTuple):
    """A figure outside the null's interval: its name, what it is, how far it lies."""

    name: str
    meaning: str
    gap: str


class Judged(NamedTuple):
    """A model, one of `STATES`, and the figures that tell it from Retrain."""

    key: str
    label: str
    state: str
    outside: list[Outside]
    slug: str = ""  # of its section, if it has one
    figures: str = ""  # those that nothing was tested of, in words


class Headline(NamedTuple):
    """The models by state, best first; what they were judged by."""

    groups: dict[str, list[Judged]]
    blind: bool  # doing nothing is not told from retraining either
    figures: list[tuple[str, str]]  # names and meanings
    retrained: int
    models: int  # of each method; 0: it differs
    untested: str = ""  # why there is no verdict beside Retrain
    beside: str = ""  # figures of Retrain and the original, where nothing is tested
    damage: str = DAMAGE  # what a damaged model is, up to the data it is damaged on

    @property
    def every(self) -> list[Judged]:
        """All models that are judged, or that would be."""
        return [one for models in self.groups.values() for one in models]

    @property
    def states(self) -> dict[str, str]:
        """The state of each model, by its key."""
        return {one.key: one.state for one in self.every}


def of_rows(rows: Mapping[str, reading.Row], seeds: int) -> Headline:
    """Return the headline of an experiment, judged by its four percentages."""
    judged = [_of_row(rows, key) for key in reading.best_first(rows)]
    figures = [(name.upper(), TERMS[name.upper()]) for name in reading.PERCENTAGES]
    blind = "original" in rows and rows["original"].is_inside
    retrained = seeds if "retrain" in rows else 0
    return Headline(_grouped(judged), blind, figures, retrained, seeds)


def of_texts(rows: Mapping[str, LanguageRow]) -> Headline:
    """Return the headline of an experiment with texts, its rows nearest first.

    Damaged ones stand by their damage to texts that stay, the least first: a ruined
    model is near Retrain on the texts to forget. Without a null, or of fewer than three
    seeds, there is no verdict.
    """
    tested = {
        key: {name: test for name in JUDGED if (test := beside_null(rows, key, name))}
        for key in rows
    }
    names = [name for name in JUDGED if any(name in own for own in tested.values())]
    if not names:
        told = {name: FIGURES[name] for name in ("forget_probability", "deviation")}
        return unjudged(rows, {key: row.label for key, row in rows.items()}, told)
    found = {
        key: _of_tests(key, rows[key].label, own)
        for key, own in tested.items()
        if key not in ("retrain", "null")
    }
    untouched = [found.pop(key) for key in UNTOUCHED & found.keys()]
    blind = any(one.state == "alike" for one in untouched)

    def harm(key: str) -> float:
        kept = tested[key].get("retain_probability")
        return -kept.difference if kept and found[key].state == "damaged" else 0.0

    grouped = _grouped(found[key] for key in sorted(found, key=harm))
    figures = [(FIGURES[name][0], FIGURES[name][2]) for name in names]
    seeds = len(rows["retrain"].figures[names[0]].per_seed)
    return Headline(grouped, blind, figures, seeds, seeds, damage=DAMAGED_TEXTS)


def of_audit(
    record: Audit, labels: Mapping[str, str], links: Iterable[str]
) -> Headline:
    """Return the headline of an audit, judged by all figures that have an interval."""
    slugs = dict(zip(record.figures, links, strict=True))
    judged = [
        _of_figures(record, key, labels[key], slugs[key])
        for key in sorted(record.figures, key=lambda key: outside(record, key))
        if key not in UNTOUCHED or len(record.figures) == 1
    ]
    blind = any(
        not outside(record, key)
        and any(f.verdict for f in record.figures[key].values())
        for key in UNTOUCHED.intersection(record.figures)
    )
    cards = [card for cards in record.grouped.values() for card in cards]
    figures = [(card.label, card.meaning) for card in record.headline or cards]
    counts = {record.models[key] for key in record.figures}
    models = counts.pop() if len(counts) == 1 else 0
    return Headline(_grouped(judged), blind, figures, record.retrained, models)


def unjudged(
    rows: Mapping[str, Any],
    labels: Mapping[str, str],
    figures: Mapping[str, tuple[str, int, str]],
    untested: str = "",
) -> Headline:
    """Return the headline of methods that no figure was tested of, with some figures.

    A figure is told by its heading, digits and meaning; of Retrain and the original
    apart from the methods.
    """
    shown = {
        key: ", ".join(
            f"{heading} {number(row.figures[name].mean, digits)}"
            for name, (heading, digits, _) in figures.items()
            if name in row.figures
        )
        for key, row in rows.items()
    }
    keys = [key for key in rows if key not in ("retrain", "null", *UNTOUCHED)]
    keys = keys or [key for key in rows if key in UNTOUCHED]
    judged = [
        Judged(key, labels[key], "unknown", [], figures=shown[key]) for key in keys
    ]
    references = [key for key in ("retrain", *UNTOUCHED) if key in rows]
    beside = "; ".join(f"{labels[key]}: {shown[key]}" for key in references)
    retrained = sum(key in rows for key in ("retrain", "null"))
    named = [(heading, meaning) for heading, _, meaning in figures.values()]
    counts = retrained, 0, untested, f"{beside}." if beside else ""
    return Headline(_grouped(judged), False, named, *counts)


def outside(record: Audit, key: str) -> int:
    """Return how many figures of a method lie outside the null's intervals."""
    return sum(f.verdict == "outside" for f in record.figures[key].values())


def _grouped(judged: Iterable[Judged]) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = {state: [] for state in STATES}
    for one in judged:
        found[one.state].append(one)
    return {state: models for state, models in found.items() if models}


def _of_row(rows: Mapping[str, reading.Row], key: str) -> Judged:
    row, told, lost = rows[key], [], False
    if row.comparison is None or not row.comparison.verdicts:
        return Judged(key, row.label, "unknown", [])
    for name in reading.PERCENTAGES:
        if row.comparison.metrics[name].verdict == "outside":
            gap = row.metrics[name].mean - rows["retrain"].metrics[name].mean
            lost |= name in ("ra", "ta") and gap <= -LOSS
            far = number(gap, row.comparison.digits(name, gap), sign=True)
            told.append(Outside(name.upper(), TERMS[name.upper()], far))
    return Judged(key, row.label, _state(told, lost), told)


def _of_tests(key: str, label: str, tests: Mapping[str, MetricRow]) -> Judged:
    if not tests:
        return Judged(key, label, "unknown", [])
    told, lost = [], False
    for name, test in tests.items():
        if test.verdict == "outside":
            gap, (heading, digits, meaning) = test.difference, FIGURES[name]
            lost |= name == "retain_probability" and gap <= -LOSS / 100
            lost |= name == "unseen_perplexity" and gap >= LOSS / 100 * test.target_mean
            ends = test.null_low, test.null_high
            shown = visible(Figure(gap, None, 0.0, *ends, test.verdict), digits)
            told.append(Outside(heading, meaning, number(gap, shown, sign=True)))
    return Judged(key, label, _state(told, lost), told)


def _of_figures(record: Audit, key: str, label: str, slug: str) -> Judged:
    figures, told, lost = record.figures[key], [], False
    if not any(figure.verdict for figure in figures.values()):
        return Judged(key, label, "unknown", [], slug)
    for name, figure in figures.items():
        if figure.verdict == "outside":
            card = record.cards[name]
            lost |= card.tells == "others" and _below(figure)
            digits = visible(figure, card.digits)
            gap = number(figure.value - figure.target, digits, sign=True)
            told.append(Outside(card.label, card.meaning, gap))
    return Judged(key, label, _state(told, lost), told, slug)


def _below(figure: AuditFigure) -> bool:
    return figure.value <= figure.target - LOSS


def _state(told: list[Outside], lost: bool) -> str:
    return "damaged" if lost else "told" if told else "alike"
