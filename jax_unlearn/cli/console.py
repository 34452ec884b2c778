"""What a person sees while it runs: a progress bar for every phase, then a table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table as RichTable

from jax_unlearn.lab.probes import PROBES
from jax_unlearn.report import Cell, Table, generation_table, main_table

MARKS = {"inside": "[green]●[/]", "outside": "[yellow]○[/]"}
GAP = 3  # columns of space and line between two columns of the table
FILE_WIDTH = 120  # of what is written to a file or a pipe


def open_console() -> Console:
    """Return the terminal as it is, or a file or pipe of at least `FILE_WIDTH`."""
    console = Console()
    if console.is_terminal:
        return console
    return Console(width=max(console.width, FILE_WIDTH))


class Reporter:
    """Follow phases: bars on a terminal, a line a phase elsewhere.

    Args:
      console: where to write.
      phases: how many phases there will be.
    """

    def __init__(self, console: Console, phases: int):
        self._console, self._phases = console, phases
        self._number, self._start = 0, time.perf_counter()
        self._bars = Progress(
            TextColumn("{task.description:<36}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> "Reporter":
        self._bars.start()
        self._total = self._bars.add_task("all phases", total=self._phases)
        self._phase = self._bars.add_task("starting", total=1)
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Report `done` of `total` steps; 0 begins a phase."""
        if done == 0:
            self._number += 1
            self._bars.update(self._total, completed=self._number - 1)
            self._bars.reset(self._phase, total=total, description=phase)
            if not self._console.is_terminal:
                seconds = time.perf_counter() - self._start
                self._console.print(
                    f"[{self._number}/{self._phases}] {phase}: {total} steps "
                    f"({seconds:.0f} s so far)",
                    markup=False,
                )
        self._bars.update(self._phase, completed=done)


@contextmanager
def status(console: Console, message: str) -> Iterator[None]:
    """Show a message while a phase without steps runs."""
    if not console.is_terminal:
        console.print(message, markup=False)
        yield
        return
    with console.status(message):
        yield


def print_results(console: Console, results: dict[str, Any]) -> None:
    """Print the main table: every figure beside its target and the null.

    A console too narrow for all columns gets them in several blocks, none cut short.
    """
    _print_table(console, main_table(results))


def print_generation(console: Console, results: dict[str, Any]) -> None:
    """Print the table of generated images, and how to read it."""
    _print_table(console, generation_table(results))
    standard = results["floor"].get("fid")
    fid = "" if standard is None else f"; FID of as many real images: {standard:.1f}"
    console.print(
        f"UA: share of the forgotten class's images not recognised as it, by a "
        f"classifier right on {results['judge']['accuracy']:.1f} % of real images; "
        f"Fréchet: distance in its features (as many real images: "
        f"{results['floor']['frechet']:.3f}), not FID{fid}. The target is Retrain's "
        "value, Δ the distance from it; the null is Retrain of another seed.",
        style="dim",
    )


def _print_table(console: Console, table: Table) -> None:
    cells = [[_markup(cell) for cell in row] for row in table.rows]
    heads = [escape(column) for column in table.columns]
    widths = [
        max(Measurement.get(console, console.options, text).maximum for text in column)
        for column in zip(heads, *cells, strict=True)
    ]
    for block in _blocks(widths, console.width):
        shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for number in block:
            side = "right" if number else "left"
            shown.add_column(heads[number], justify=side, no_wrap=True)
        for row in cells:
            shown.add_row(*(row[number] for number in block))
        console.print(shown)
        console.print()


def print_probes(console: Console, results: dict[str, Any]) -> None:
    """Print what probes found, if there were any; the target is Retrain's value."""
    if not results.get("probes"):
        return
    names = list(next(iter(results["probes"].values())))
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    shown.add_column("probe")
    for name in names:
        shown.add_column(PROBES[name], justify="right")
    for key, found in results["probes"].items():
        label = escape(results["rows"][key]["label"])
        target = "\n[dim]target[/]" if key == "retrain" else ""
        shown.add_row(label + target, *(f"{found[name]:g}" for name in names))
    console.print(shown)
    console.print()


def _markup(cell: Cell) -> str:
    """Return a cell as rich markup: the value and its mark, the detail below."""
    mark = f" {MARKS[cell.mark]}" if cell.mark else ""
    detail = f"\n[dim]{escape(cell.detail)}[/]" if cell.detail else ""
    return escape(cell.value) + mark + detail


def _blocks(widths: list[int], width: int) -> list[list[int]]:
    """Pack columns into blocks that fit, the first column leading each.

    >>> _blocks([10, 20, 20, 20], 60)
    [[0, 1, 2], [0, 3]]
    """
    blocks, used = [[0]], widths[0]
    for number in range(1, len(widths)):
        needed = widths[number] + GAP
        if used + needed > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(number)
        used += needed
    return blocks


def print_legend(console: Console, *, has_target: bool = True) -> None:
    """Say how to read the table."""
    if not has_target:
        console.print(
            "There is no target: give --retrained to see how far each model is from a "
            "retrained one."
        )
        return
    console.print(
        "UA, RA, TA and MIA have Retrain's value as their target: Δ is the distance "
        "from it, ● inside and ○ outside what another seed of Retrain does (null). "
        "Avg. Gap and |p − p*| are 0, ToW is 1, for Retrain itself.",
        style="dim",
    )
