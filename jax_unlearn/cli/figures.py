"""The figures of a whole audit on the terminal."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jax_unlearn.audit import Audit, Figure
from jax_unlearn.cli.console import MARKS

LEGEND = (
    "In brackets: where a method that is only another Retrain lies; ● inside, ○ "
    "outside. The target of a level (UA ... MIA, RMIA) is Retrain's value; that of a "
    "distance is the distance between two sets of Retrains. Inside means: so many "
    "models do not tell it from Retrain."
)


def print_audit(console: Console, found: Audit) -> None:
    """Print a table: a row a figure, a column a method, the target beside.

    Args:
      console: where to write.
      found: of `audit`.
    """
    models = ", ".join(f"{name} {count}" for name, count in found.models.items())
    console.print(
        f"{found.forgotten} forget samples; models: {models}, Retrain "
        f"{found.retrained}; ensembles compare {found.half} with {found.half}.",
        markup=False,
        soft_wrap=True,
    )
    names = list(found.figures)
    for start in range(0, len(names), 4):
        console.print(_table(found, names[start : start + 4]))
    for reason in sorted(set(found.left_out.values())):
        left = [
            found.cards[key].label
            for key, why in found.left_out.items()
            if why == reason
        ]
        console.print(
            f"left out ({reason}): {', '.join(left)}", markup=False, soft_wrap=True
        )
    console.print(LEGEND, style="dim", markup=False)


def _table(found: Audit, names: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("figure")
    table.add_column("target", justify="right", no_wrap=True)
    for name in names:
        table.add_column(escape(name), justify="right")
    for key, card in found.cards.items():
        row = [found.figures[name].get(key) for name in names]
        shown = [figure for figure in row if figure is not None]
        if not shown:
            continue
        cells = [_cell(figure, card.digits) for figure in row]
        table.add_row(escape(card.label), _target(shown[0], card.digits), *cells)
    return table


def _target(figure: Figure, digits: int) -> str:
    return escape(f"{figure.target:.{digits}f} {figure.interval(digits)}".rstrip())


def _cell(figure: Figure | None, digits: int) -> str:
    if figure is None:
        return "–"
    mark = f" {MARKS[figure.verdict]}" if figure.verdict else ""
    return escape(figure.text(digits)) + mark
