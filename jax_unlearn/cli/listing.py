"""The list of methods, as the command `methods` prints it."""

from typing import Any

from rich.markup import escape

from jax_unlearn.cli.console import open_console, table_of
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS
from jax_unlearn.lab.choose import LEGEND, table
from jax_unlearn.lab.choose import rows as rows_of_the_chooser
from jax_unlearn.lab.modalities import MODALITIES

__all__ = ["methods"]

METHODS_LEGEND = (
    "Cost in gradients of single samples: E epochs, F forget and R retain samples (of "
    "the share that may be read, --rho), T passes of its training; a forward "
    "pass alone counts a third. 'original': the original model goes on being asked, as "
    "a teacher or for a mask; 'training': its training must be known. Weights "
    "(--weighting): LoReUn, FaLW and others."
)


def methods() -> dict[str, Any]:
    """List the methods: what each needs, costs and is good for, and its source."""
    rows = [
        (
            f"{name}\n[dim]{escape(card.title)}, {card.kind}[/]",
            ", ".join(card.reads),
            "yes" if card.weighs else "–",
            ", ".join(m.name for m in MODALITIES if set(card.roles) <= m.roles),
            escape(card.cost),
            card.source,
        )
        for name, card in METHODS.items()
    ]
    console, heads = open_console(), ("method", "needs", "weights", "models", "cost")
    listed = table_of((*heads, "source"), rows, justify="left", overflow="fold")
    console.print(listed)
    rows = [(name, escape(card.suits)) for name, card in METHODS.items()]
    heads = ("method", "what it is good for, what to expect")
    console.print(table_of(heads, rows, justify="left", overflow="fold"))
    console.print(METHODS_LEGEND, style="dim", markup=False)
    found = rows_of_the_chooser()
    heads, cells = table(found)
    console.print("\nWhat to run, by what is to be forgotten and what you have")
    cells = [[escape(cell.replace("; ", "\n")) for cell in row] for row in cells]
    console.print(table_of(heads, cells, justify="left", overflow="fold"))
    console.print(f"{LEGEND} `--method auto` takes them.", style="dim", markup=False)
    plain = ("title", "label", "kind", "reads", "cost", "source", "weighs", "suits")
    return {
        "methods": {
            name: {field: getattr(card, field) for field in plain}
            | {"models": [m.name for m in MODALITIES if set(card.roles) <= m.roles]}
            for name, card in METHODS.items()
        },
        "chooser": [row._asdict() for row in found],
        "weightings": {n: {"title": c.title} for n, c in WEIGHTINGS.items()},
    }
