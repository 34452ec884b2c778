"""The command that lists the methods: what each reads, and what it costs."""

from rich import box
from rich.markup import escape
from rich.table import Table

from jax_unlearn.cli.console import open_console
from jax_unlearn.lab.catalog import METHODS
from jax_unlearn.lab.modalities import MODALITIES

LEGEND = (
    "Cost in gradients of single samples: E epochs, F forget and R retain samples (of "
    "the share that may be read, --rho), T steps of the original's training; a forward "
    "pass alone counts a third. 'original': the original model goes on being asked, as "
    "a teacher or for a mask; 'training': its training must be known. Weights "
    "(--weighting): LoReUn, FaLW and others."
)


def methods() -> None:
    """List the methods: what each needs, what it costs, where it comes from."""
    console = open_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("method", "needs", "weights", "models", "cost", "source"):
        table.add_column(column, overflow="fold")
    for name, card in METHODS.items():
        serves = [m.name for m in MODALITIES if set(card.roles) <= m.roles]
        table.add_row(
            f"{name}\n[dim]{escape(card.title)}, {card.kind}[/]",
            ", ".join(card.reads),
            "yes" if card.weighs else "–",
            ", ".join(serves),
            escape(card.cost),
            card.source,
        )
    console.print(table)
    console.print(LEGEND, style="dim", markup=False)
