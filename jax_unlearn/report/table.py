"""The main tables of results as plain strings, shared by the terminal and the page."""

import re
from collections.abc import Mapping
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

from jax_unlearn.lab.results import LABELS
from jax_unlearn.report import reading
from jax_unlearn.report.generated import Amount, GenerationRow, RunRow

__all__ = ["GENERATION", "OUTSIDE", "Cell", "Ordered", "Table", "direction"]
__all__ += ["gap_test", "generation_label", "generation_table", "main_table"]
__all__ += ["number", "ordered", "spread", "tabulated"]

HUGE = 1e6  # from here on the digits before the point say no more
LEVEL = 0.05  # below it a paired test counts as clear
GENERATION = {
    "ua": ("UA %", 1),
    "retained_accuracy": ("other classes %", 1),
    "frechet": ("Fréchet", 3),
    "fid": ("FID", 1),
    "forget_error": ("error, forget", 4),
    "unseen_error": ("error, unseen", 4),
    "retain_error": ("error, retain", 4),
    "returned": ("returned at", 3),
    "unseen_returned": ("unseen at", 3),
    "nearer": ("nearer %", 1),
    "seconds": ("time s", 1),
}
"""Figures of diffusion models: the heading, and the digits behind the point."""
RECOGNISED = "recognised %"  # where single images are forgotten, not a class
OUTSIDE = "figures outside"
FIRST = {"Avg. Gap", "UA %", "TA %", "other classes %", "Fréchet", "returned at"}
FIRST |= {"p forget", "|AUC − AUC*|", "p retain"}  # of language models
FIRST |= {"nearer %", RECOGNISED, "Cost %", OUTSIDE, "|p - p*|", "U-LiRA AUC"}
"""Columns shown first; where there are more than a few, the rest is folded."""
FEW = 7  # columns that need no fold
SMALLEST = {"Gap vs. nothing", "|p − p*| vs. nothing", "Cost %", "RTE s", "time s"}
SMALLEST |= {OUTSIDE}  # columns sorted by value, not by the distance from Retrain
# told without their distance from Retrain's
UNTARGETED = ("unseen_error", "unseen_returned", "seconds")


class Cell(NamedTuple):
    """A figure, "11.7 ± 2.1", or a model's name; in smaller type "Δ −4.1".

    The mark is "inside" or "outside" the null's interval, or "".
    """

    value: str
    detail: str = ""
    mark: str = ""


class Table(NamedTuple):
    """As many cells a row as headings; keys are those of the rows in the results.

    Retrain comes first, then the null, the original, and the methods.
    """

    columns: list[str]
    rows: list[list[Cell]]
    keys: list[str]


def main_table(results: Any) -> Table:
    """Return the main table: one row a model, figures over the seeds.

    Percentages carry their difference Δ from Retrain; the null's row adds half the
    width of its interval in brackets. Distances carry their ratio to the null's.
    Without Retrain there are no columns of distances, without several seeds none of
    tests, without a known training none of costs: shares of Retrain's, counted in
    gradients of samples, and by the clock in smaller type. Only the rows of the results
    are read, or of their types.

    Raises:
      InputError: rows that lack a figure.

    >>> spread = {"per_seed": [5.0, 7.0], "mean": 6.0, "std": 2**0.5}
    >>> metrics = dict.fromkeys(("ua", "fa", "ra", "ta", "mia"), spread)
    >>> seconds = dict.fromkeys(("prepare", "compile", "run"), spread)
    >>> row = {"label": "FT", "metrics": metrics, "seconds": seconds}
    >>> table = main_table({"rows": {"ft": row}})
    >>> table.columns
    ['Model', 'UA %', 'RA %', 'TA %', 'MIA %', 'RTE s']
    >>> table.rows[0][1].value
    '6.0 ± 1.4'
    """
    rows = reading.read_rows(results, reading.Row)
    tested = any(gap_test(row) for row in rows.values())
    lines = {key: _line(rows, key, tested) for key in reading.ordered_keys(rows)}
    columns = list(next(iter(lines.values())))
    return Table(columns, [[*line.values()] for line in lines.values()], [*lines])


def _line(rows: Mapping[str, reading.Row], key: str, tested: bool) -> dict[str, Cell]:
    """Return the cells of a row by their headings."""
    row = rows[key]
    cells = {"Model": Cell(row.label, "target" if key == "retrain" else "")}
    for name in reading.PERCENTAGES:
        cells[f"{name.upper()} %"] = _percentage(rows, key, name)
    if "retrain" in rows:
        cells["Avg. Gap"] = _distance(rows, key, "avg_gap", 2)
        if tested:
            cells["Gap vs. nothing"] = _test(gap_test(row), 2)
        cells["|p − p*|"] = _distance(rows, key, "deviation", 3)
        if tested:
            cells["|p − p*| vs. nothing"] = _test(row.deviation_test, 3)
        cells["ToW"] = _distance(rows, key, "tow", 3)
    if any(one.cost.counted for one in rows.values()):
        cells["Cost %"] = _cost(row.cost)
    return cells | {"RTE s": _seconds(row.seconds)}


class Ordered(NamedTuple):
    """A table with its methods best first, and by what each cell is sorted."""

    table: Table
    order: dict[str, list[float | None]]  # by key, a number a column
    sorted_by: str  # a column; "" where the rows stand as they came
    terms: Mapping[str, str] = MappingProxyType({})  # what its headings mean

    @property
    def parts(self) -> list[list[int]]:
        """The columns shown first, and the folded ones behind the model's name."""
        every = range(1, len(self.table.columns))
        if len(every) < FEW:
            return [[0, *every]]
        shown = FIRST | {self.sorted_by}
        first = [n for n in every if self.table.columns[n] in shown]
        return [[0, *first], [0, *(n for n in every if n not in first)]]


def ordered(table: Table, by: str) -> Ordered:
    """Return the table with its methods nearest to Retrain in a column first.

    >>> rows = [[Cell("Retrain"), Cell("9")], [Cell("a"), Cell("5")]]
    >>> table = Table(["Model", "UA %"], [*rows, [Cell("b"), Cell("8.5")]], [])
    >>> made = ordered(table._replace(keys=["retrain", "a", "b"]), "UA %")
    >>> made.table.keys, made.order["a"]
    (['retrain', 'b', 'a'], [None, 4.0])
    """
    values = {
        key: [_leading(cell.value) for cell in row]
        for key, row in zip(table.keys, table.rows, strict=True)
    }
    target = [*(values.get("retrain") or [None] * len(table.columns))]
    for row in values.values():
        for n, name in enumerate(table.columns):
            value, aim = row[n], None if name in SMALLEST else target[n]
            if n == 0:
                row[n] = None
            elif value is not None and aim is not None:
                row[n] = abs(value - aim)
    if by not in table.columns:
        return Ordered(table, values, "")
    place = table.columns.index(by)
    first = [key for key in table.keys if key in reading.REFERENCES]
    rest = reading.methods_of(table.keys)
    rest.sort(key=lambda key: (values[key][place] is None, values[key][place] or 0.0))
    rows = dict(zip(table.keys, table.rows, strict=True))
    keys = first + rest
    return Ordered(Table(table.columns, [rows[key] for key in keys], keys), values, by)


def _leading(text: str) -> float | None:
    """Return the number that a cell begins with."""
    number = re.match(r"[+−]?\d+(\.\d+)?", text)
    return float(number[0].replace("−", "-")) if number else None


def generation_table(results: Any) -> Table:
    """Return the main table of generation: one row a model, means over the runs.

    Every figure but the time carries its difference Δ from Retrain's. Only the rows of
    the results are read, or of their types.

    Raises:
      InputError: rows that lack a figure.

    >>> found = dict.fromkeys(GENERATION, {"mean": 5.0, "std": None})
    >>> table = generation_table({"rows": {"retrain": found, "ESD": found}})
    >>> table.columns[:3], table.rows[1][1]
    (['Model', 'UA %', 'other classes %'], Cell(value='5.0', detail='Δ 0.0', mark=''))
    """
    return tabulated(reading.read_rows(results, GenerationRow))


def tabulated(rows: Mapping[str, GenerationRow] | Mapping[str, RunRow]) -> Table:
    """Return the table of diffusion models: the figures that all of them have."""
    figures = {key: rows[key].figures for key in reading.ordered_keys(rows)}
    names = [n for n in GENERATION if all(n in found for found in figures.values())]
    target = figures.get("retrain", {})
    cells = []
    for key, found in figures.items():
        line = [Cell(generation_label(key), "target" if key == "retrain" else "")]
        for name in names:
            digits, detail = GENERATION[name][1], ""
            if target and key != "retrain" and name not in UNTARGETED:
                gap = found[name].mean - target[name].mean
                detail = f"Δ {number(gap, digits, sign=True)}"
            line.append(Cell(spread(found[name], digits), detail))
        cells.append(line)
    heads = ["Model", *(GENERATION[name][0] for name in names)]
    if "ua" not in names:
        heads = [RECOGNISED if head == "other classes %" else head for head in heads]
    return Table(heads, cells, [*figures])


def generation_label(key: str) -> str:
    """Return what tables and figures call a diffusion model."""
    return LABELS.get(key, key)


def gap_test(row: reading.Row) -> reading.PairedTest | None:
    """Return the paired test of a row's Avg. Gap against doing nothing, if any."""
    return row.comparison.against_nothing if row.comparison else None


def direction(test: reading.PairedTest | None) -> str:
    """Return "nearer", "farther" (to Retrain, p < 0.05), "unclear", or "" untested."""
    if test is None:
        return ""
    if test.p >= LEVEL or test.mean_difference == 0:
        return "unclear"
    return "nearer" if test.mean_difference < 0 else "farther"


def spread(figure: reading.Spread | Amount, digits: int) -> str:
    """Return mean ± sample deviation; the mean alone where there is one seed."""
    mean = number(figure.mean, digits)
    return mean if figure.std is None else f"{mean} ± {number(figure.std, digits)}"


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """Return a rounded number with a proper minus and no negative zero.

    >>> number(-0.04, 1), number(-2.55, 1), number(10680551110531.2, 1)
    ('0.0', '−2.5', '1.07e+13')
    """
    if abs(value) >= HUGE:
        return f"{value:{'+' if sign else ''}.3g}".replace("-", "−")
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        return f"{0:.{digits}f}"
    return text.replace("-", "−")


def _percentage(rows: Mapping[str, reading.Row], key: str, name: str) -> Cell:
    row, target = rows[key], rows.get("retrain")
    figure = row.metrics[name]
    if key == "retrain" or target is None:
        return Cell(spread(figure, 1))
    gap = figure.mean - target.metrics[name].mean
    digits = row.comparison.digits(name, gap) if row.comparison else 1
    detail = f"Δ {number(gap, digits, sign=True)}"
    made = [one.comparison for one in rows.values() if one.comparison]
    judged = [one.metrics[name] for one in made if one.verdicts]
    if key == "null" and judged:
        detail += f" (±{min(judged[0].null_high, 100.0):.1f})"
    verdict = row.comparison.metrics[name].verdict if row.comparison else ""
    return Cell(spread(figure, 1), detail, verdict)


def _distance(
    rows: Mapping[str, reading.Row], key: str, name: str, digits: int
) -> Cell:
    figure = getattr(rows[key], name)
    if key == "retrain":
        return Cell(number(figure.mean, digits))
    null = getattr(rows["null"], name).mean if "null" in rows else 0.0
    bare = name == "tow" or key == "null" or not null
    detail = "" if bare else f"{figure.mean / null:.1f} × null"
    return Cell(spread(figure, digits), detail)


def _test(test: reading.PairedTest | None, digits: int) -> Cell:
    if test is None:
        return Cell("–")
    said, shown = direction(test), "p < 0.001" if test.p < 0.001 else f"p {test.p:.3f}"
    detail = shown if said == "unclear" else f"{shown}, {said}"
    return Cell(number(test.mean_difference, digits, sign=True), detail)


def _cost(cost: reading.Cost) -> Cell:
    """Return the share of Retrain's cost, by count and by the clock."""
    if cost.counted is None:
        return Cell("–")
    share, clock = 100 * cost.counted.mean, cost.measured
    # the median: on its first seed a method compiles
    detail = "" if clock is None else f"clock {_percent(100 * median(clock.per_seed))}"
    return Cell(_percent(share), detail)


def _percent(share: float) -> str:
    return number(share, 0 if share >= 9.95 or share == 0 else 1)


def _seconds(seconds: Mapping[str, reading.Spread]) -> Cell:
    """Return the running time; compilation counts once, as seeds share programs."""
    if all(max(part.per_seed) == 0 for part in seconds.values()):
        return Cell("–")
    run = seconds["run"]
    digits = 0 if run.mean >= 100 else 1 if run.mean >= 10 else 2
    once = {name: max(seconds[name].per_seed) for name in ("compile", "prepare")}
    detail = ", ".join(
        f"{name} {value:.2f}" for name, value in once.items() if value >= 0.005
    )
    return Cell(spread(run, digits), detail)
