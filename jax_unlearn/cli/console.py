"""What a person sees while it runs: a bar or a line for every phase, then tables."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich import box, progress
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable

from jax_unlearn.audit import Figure
from jax_unlearn.audit.records import SIGN, visible
from jax_unlearn.lab.advice import lasting
from jax_unlearn.lab.modalities.classification.probes import PROBES
from jax_unlearn.lab.probes import of_figures
from jax_unlearn.report import Cell, Table, generation_table, main_table
from jax_unlearn.report.language import language_table

__all__ = ["Reporter", "open_console", "print_blocks", "print_generation"]
__all__ += ["print_language", "print_legend", "print_probes", "print_results"]
__all__ += ["print_scores", "say", "signs_of", "status", "table_of"]

MARKS = {"inside": "[green]●[/]", "outside": "[yellow]○[/]"}
SAID_EVERY = 30.0  # seconds between two lines in a file or a pipe
GAP = 3  # columns of space and line between two columns of the table
FILE_WIDTH = 120  # of what is written to a file or a pipe


def open_console() -> Console:
    """Return the terminal as it is, or a file or pipe of at least `FILE_WIDTH`."""
    if sys.stdout.isatty():
        return Console()
    # notebooks set FORCE_COLOR, which would draw bars line by line into their cells
    plain = Console(force_terminal=False)
    return Console(force_terminal=False, width=max(plain.width, FILE_WIDTH))


def say(console: Console, line: str) -> None:
    """Write a line as it is: unbroken, its brackets no markup."""
    console.print(line, markup=False, soft_wrap=True)


class Reporter:
    """Follow so many phases: bars on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, phases: int):
        self._console, self._phases = console, phases
        self._number, self._start = 0, time.perf_counter()
        self._name, self._first, self._began, self._said = "", 0.0, 0, 0.0
        self._bars = progress.Progress(
            progress.TextColumn("{task.description:<36}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> "Reporter":
        self._bars.start()
        self._total = self._bars.add_task("all phases", total=self._phases, left="")
        self._phase = self._bars.add_task("starting", total=1, left="")
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Report `done` of `total` steps; 0 begins a phase, whose step is compiled."""
        now = time.perf_counter()
        if done == 0:
            self._number += 1
            self._name, self._first, self._said = phase, 0.0, now
            self._bars.update(self._total, completed=self._number - 1)
            named = f"{phase}: compiling"
            self._bars.reset(self._phase, total=total, description=named, left="")
            if not self._console.is_terminal:
                seconds = time.perf_counter() - self._start
                self._console.print(
                    f"[{self._number}/{self._phases}] {phase}: {total} steps "
                    f"({seconds:.0f} s so far)",
                    markup=False,
                )
            return
        if not self._first:  # the step that ends the compilation says no speed
            self._first, self._began, self._said = now, done, now
        left = ""
        if done > self._began and done < total:
            each = (now - self._first) / (done - self._began)
            left = f"{lasting(each * (total - done))} left"
        self._bars.update(
            self._phase, completed=done, description=self._name, left=left
        )
        if left and not self._console.is_terminal and now - self._said > SAID_EVERY:
            self._said = now
            say(self._console, f"{self._name}: {done} of {total} steps, {left}")


def status(console: Console, message: str) -> AbstractContextManager[Any]:
    """Show a message while a phase without steps runs."""
    if console.is_terminal:
        return console.status(message)
    console.print(message, markup=False)
    return nullcontext()


def table_of(
    heads: Sequence[str], rows: Sequence[Sequence[str]], **columns: Any
) -> RichTable:
    """Return a table of markup: text in the first column, numbers in the others."""
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, head in enumerate(heads):
        side = "right" if number else "left"
        table.add_column(head, **{"justify": side, **columns})
    for row in rows:
        table.add_row(*row)
    return table


def print_scores(
    console: Console,
    found: Mapping[str, Mapping[str, float]],
    after: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Print accuracy and loss by part, of a model or before and after unlearning."""
    parts = [part for part in found if after is None or part in after]
    rows = []
    for key, label, digits in (("accuracy", "accuracy %", 1), ("loss", "loss", 3)):
        cells = [Cell(label)]
        for part in parts:
            if key in found[part]:
                then = [one[part][key] for one in (found, after) if one is not None]
                cells.append(Cell(" → ".join(f"{value:.{digits}f}" for value in then)))
        if len(cells) > 1:
            rows.append(cells)
    heads = ["" if after is None else "before → after", *parts]
    print_blocks(console, Table(heads, rows, []))


def print_results(console: Console, results: dict[str, Any]) -> None:
    """Print the main table: every figure beside its target and the null."""
    print_blocks(console, main_table(results))


def print_generation(console: Console, results: dict[str, Any]) -> None:
    """Print the table of generated images, and how to read it."""
    print_blocks(console, generation_table(results))
    standard = results["floor"].get("fid")
    fid = "" if standard is None else f"; FID of as many real images: {standard:.1f}"
    meaning = "UA: share of the forgotten class's images not recognised as it"
    if results["runs"][0]["class"] is None:
        meaning = (
            "Returned at: a forgotten image is noised, the model removes the noise; "
            "how far the result is from the image; nearer: share that comes back "
            "nearer than from Retrain"
        )
    if "retained_accuracy" in next(iter(results["rows"].values())):
        head = "other classes" if "UA" in meaning else "recognised"
        meaning += f"; {head}: share of their drawn images recognised"
    console.print(
        f"{meaning}, by a "
        f"classifier right on {results['judge']['accuracy']:.1f} % of real images; "
        f"Fréchet: distance from real images in its features (real ones: "
        f"{results['floor']['frechet']:.3f}), not FID{fid}. The target is Retrain's "
        "value, Δ the distance from it; the null is Retrain of another seed.",
        style="dim",
    )


def print_language(console: Console, results: dict[str, Any]) -> None:
    """Print the table of language models, and how to read it."""
    print_blocks(console, language_table(results))
    known = "retrain" in results["rows"]
    target = (
        "The target is Retrain's value, Δ the distance from it; the null is Retrain of "
        "another seed."
        if known
        else "Without Retrain no figure has a target."
    )
    console.print(
        "p: e to minus the mean loss of an answer's tokens; AUC: how often a forget "
        f"text has less loss than an unseen one. {target}",
        style="dim",
    )


def print_blocks(console: Console, table: Table, leading: int = 1) -> None:
    """Print a table in as many blocks as a narrow console needs, none cut short."""
    cells = [[_markup(cell) for cell in row] for row in table.rows]
    heads = [escape(column) for column in table.columns]
    widths = [
        max(Measurement.get(console, console.options, text).maximum for text in column)
        for column in zip(heads, *cells, strict=True)
    ]
    for block in _blocks(widths, console.width, leading):
        rows = [[row[number] for number in block] for row in cells]
        console.print(table_of([heads[number] for number in block], rows, no_wrap=True))
        console.print()


def _markup(cell: Cell) -> str:
    """Return a cell as rich markup: the value and its mark, the detail below."""
    mark = f" {MARKS[cell.mark]}" if cell.mark else ""
    detail = f"\n[dim]{escape(cell.detail)}[/]" if cell.detail else ""
    return escape(cell.value) + mark + detail


def _blocks(widths: list[int], width: int, leading: int = 1) -> list[list[int]]:
    """Pack columns into blocks that fit, the first ones leading each."""
    blocks = [list(range(leading))]
    for number in range(leading, len(widths)):
        block = [*blocks[-1], number]
        if sum(widths[n] + GAP for n in block) - GAP > width and block[leading:-1]:
            blocks.append([*range(leading), number])
        else:
            blocks[-1] = block
    return blocks


def print_probes(console: Console, results: dict[str, Any]) -> None:
    """Print what probes found, if there were any; the target is Retrain's value."""
    if not results.get("probes"):
        return
    names, rows = list(next(iter(results["probes"].values()))), []
    judged = results.get("probe_figures", {})
    for key, found in results["probes"].items():
        target = "target" if key == "retrain" else ""
        cells = [Cell(results["rows"][key]["label"], target)]
        for name in names:
            figure = Figure(**judged[key][name]) if key in judged else None
            verdict = "" if figure is None else figure.verdict
            detail = "" if figure is None else figure.interval(visible(figure, 1))
            cells.append(Cell(f"{found[name]:.4g}", detail, verdict))
        rows.append(cells)
    known = of_figures(PROBES)
    cards = [known[name][1] for name in names]
    heads = ["probe", *(card.label for card in cards)]
    print_blocks(console, Table(heads, rows, [*results["probes"]]))
    meanings = (f"{card.label}: {card.meaning}" for card in cards)
    told = "; ".join(meanings) + ". The target is Retrain's value after the same test"
    console.print(f"{told}; the null is another Retrain.", style="dim", markup=False)


_FIGURES = (
    "UA: share of the forget samples that the model gets wrong; RA, TA: accuracy on "
    "retain and test samples; MIA: share of the forget samples that an attack takes "
    "for unseen; RTE: running time."
)


def print_legend(console: Console, results: Mapping[str, Any]) -> None:
    """Say how to read the table; signs where there are any."""
    rows = results["rows"]
    if "retrain" not in rows:
        console.print(
            f"{_FIGURES} There is no target: give --retrained to see how far each "
            "model is from a retrained one.",
            style="dim",
        )
        return
    table = main_table(results)
    marks = {cell.mark for row in table.rows for cell in row}
    cost = " Cost: share of Retrain's cost, counted in gradients of samples."
    signs = signs_of(marks, " the range of another Retrain (the null)")
    console.print(
        f"{_FIGURES} Retrain's value is the target of each: Δ is the distance "
        f"from it{signs and f', {signs}'}. For Retrain itself Avg. Gap and |p − p*| "
        f"are 0, and ToW is 1.{cost if 'Cost %' in table.columns else ''}",
        style="dim",
    )


def signs_of(marks: Iterable[str], of: str = "") -> str:
    """Return what the signs in a table mean; "" where there are none."""
    said = [f"{SIGN[mark]} {mark}" for mark in SIGN if mark in marks]
    return f"{' and '.join(said)}{of}" if said else ""
