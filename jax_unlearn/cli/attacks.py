"""What a person sees of an audit: figures beside their target, headlines first."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from jax_unlearn.audit import Audit, Figure, FigureCard
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.audit.figures import cards_of, headlines
from jax_unlearn.audit.records import visible
from jax_unlearn.cli.console import print_blocks, say, signs_of
from jax_unlearn.lab.modalities.classification.beside import (
    alone_lacks,
    alone_misses,
    alone_needs,
    said_beside,
)
from jax_unlearn.lab.results import NULL, RETRAIN
from jax_unlearn.report import Cell, Table
from jax_unlearn.report.reading import ordered_keys

__all__ = ["print_alone", "print_audit", "print_groups", "print_unseen"]

MOST_NAMED = 6  # figures left out that are named, not their groups
REFERENCES = {RETRAIN: "target", NULL: "null"}

AUDIT_LEGEND = (
    "The target is Retrain's value. Figures that compare two groups of models (U-LiRA, "
    "KLoM, epsilon, ...) have as their target what two groups of Retrains show. No "
    "figure proves that unlearning equals training anew, or that other originals would "
    "give the same result."
)


def print_unseen(console: Console, results: dict[str, Any]) -> None:
    """Print what models make of forget samples beside samples that they never saw."""
    say(console, "Forget samples compared with unseen ones, without a Retrain:")
    for key in results["unseen"]["models"]:
        label = results["rows"][key]["label"]
        say(console, f"  {label} {said_beside(results['unseen'], key)}.")


def print_audit(
    console: Console,
    found: Audit,
    labels: Mapping[str, str] | None = None,
    *,
    every: bool = False,
) -> None:
    """Print an audit: a row a figure, a column a method, the target beside.

    Of many figures the headlines are printed, and `every` one where asked for.
    """
    shown = {name: (labels or {}).get(name, name) for name in found.figures}
    models = ", ".join(f"{shown[name]} {n}" for name, n in found.models.items())
    own = f"; from {found.originals} original" + "s" * (found.originals != 1)
    say(
        console,
        f"{found.forgotten} forget samples; models: {models}"
        f", Retrain {found.retrained}{own if found.originals else ''}; ensembles "
        f"compare {found.half} with {found.half}.",
    )
    keys = list(next(iter(found.figures.values())))
    first = [card.key for card in headlines([found.cards[key] for key in keys])]
    rest = [key for key in keys if first and key not in first]
    for part in (first or keys, rest if every else []):
        if part:
            heads, rows = _audit_rows(found, shown, part)
            print_blocks(console, Table(heads, rows, []), 2)
    if rest and not every:
        beyond = sum(
            figures[key].verdict == "outside"
            for figures in found.figures.values()
            for key in rest
        )
        of = len(rest) * len(found.figures)
        told = f", {beyond} of {of} values outside," if beyond else ""
        said = "are in the file; `jax-unlearn audit --all-figures` prints them"
        say(console, f"{len(rest)} more figures{told} {said}.")
    _print_left_out(console, found.left_out, found.cards)
    marks = {f.verdict for own in found.figures.values() for f in own.values()}
    legend = (
        f"In brackets: the null, the range in which another Retrain would lie; "
        f"{signs_of(marks)}. Inside: with this many models the figure does not tell "
        "the method from Retrain. "
        if marks - {""}
        else f"No verdict: it takes {FEWEST} Retrains or more, and there "
        f"{'is' if found.retrained == 1 else 'are'} {found.retrained}. "
    )
    console.print(legend + AUDIT_LEGEND, style="dim", markup=False)


def _print_left_out(
    console: Console, left_out: Mapping[str, str], cards: Mapping[str, FigureCard]
) -> None:
    """Print a line for each reason why figures are left out."""
    for reason in sorted(set(left_out.values())):
        named = [cards[key] for key, why in left_out.items() if why == reason]
        names = [card.label for card in named]
        if len(names) > MOST_NAMED:
            names = dict.fromkeys(card.group for card in named)
        say(console, f"left out ({reason}): {', '.join(names)}")


def print_alone(
    console: Console, results: Mapping[str, Any], *, every: bool = False
) -> None:
    """Print what attacks find on single models; the headlines, or every figure."""
    found, cards = results["alone"], cards_of(results["alone"])
    keys = [key for key in found["cards"] if key not in found["left_out"]]
    first = [key for key in keys if cards[key].headline]
    rest = [key for key in keys if key not in first]
    for part in (first, rest if every else []):
        if not part:
            continue
        rows = []
        for name in ordered_keys(found["figures"]):
            own = found["figures"][name]
            cells = (f"{own[k]:.{cards[k].digits}f}" if k in own else "–" for k in part)
            label = Cell(results["rows"][name]["label"], REFERENCES.get(name, ""))
            rows.append([label, *(Cell(cell) for cell in cells)])
        heads = ["attack", *(cards[key].label for key in part)]
        print_blocks(console, Table(heads, rows, []))
    if rest and not every:
        said = "are in the file; `jax-unlearn audit --all-figures` prints them"
        say(console, f"{len(rest)} more figures {said}.")
    _print_left_out(console, alone_lacks(found), cards)
    if missing := alone_misses(found):
        say(console, missing)
    meanings = "; ".join(f"{cards[key].label}: {cards[key].meaning}" for key in first)
    console.print(f"{meanings}. {alone_needs(results['rows'])}", style="dim")


def _audit_rows(
    found: Audit, shown: Mapping[str, str], keys: Sequence[str]
) -> tuple[list[str], list[list[Cell]]]:
    """Return headings and rows of some figures of an audit."""
    rows = []
    for key in keys:
        card, figures = found.cards[key], [own[key] for own in found.figures.values()]
        digits = max(visible(figure, card.digits) for figure in figures)
        target = f"{figures[0].target:.{digits}f} {figures[0].interval(digits)}"
        cells = (Cell(f.text(digits), mark=f.verdict) for f in figures)
        rows.append([Cell(card.label), Cell(target.rstrip()), *cells])
    return ["figure", "target", *shown.values()], rows


def print_groups(
    console: Console,
    groups: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str] | None = None,
) -> None:
    """Print the figures by group of forget samples: a column a group, by method."""
    for found in groups:
        say(console, f"by {found['name']}: {found['meaning']}")
        audits = found["audits"]
        cards = cards_of(next(iter(audits.values())))
        rows = []
        for name, figures in next(iter(audits.values()))["figures"].items():
            for key in figures:
                cells, card = [], cards[key]
                for own in audits.values():
                    figure = Figure(**own["figures"][name][key])
                    digits = visible(figure, card.digits)
                    value = f"{figure.text(digits)} ({figure.target:.{digits}f})"
                    cells.append(Cell(value, mark=figure.verdict))
                label = (labels or {}).get(name, name)
                rows.append([Cell(f"{label}: {card.label}"), *cells])
        heads = [f"{group} ({own['forgotten']})" for group, own in audits.items()]
        table = Table(["figure (target)", *heads], rows, [])
        print_blocks(console, table)
