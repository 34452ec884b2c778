"""The main tables of results as plain strings, shared by the terminal and the page."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import structs

from jax_unlearn.report.forms import Amount, GenerationRow
from jax_unlearn.report.reading import (
    PERCENTAGES,
    PairedTest,
    Row,
    Spread,
    ordered_keys,
    read_rows,
)

__all__ = [
    "Cell",
    "Table",
    "direction",
    "gap_test",
    "generation_label",
    "generation_table",
    "main_table",
    "number",
    "spread",
    "tabulated",
]

LEVEL = 0.05  # below it a paired test counts as clear
LABELS = {
    "retrain": "Retrain",
    "null": "Null (Retrain, other seed)",
    "original": "Original (nothing done)",
}
GENERATION = {
    "ua": ("UA %", 1),
    "retained_accuracy": ("other classes %", 1),
    "frechet": ("Fréchet", 3),
    "fid": ("FID", 1),
    "forget_error": ("error, forget", 4),
    "unseen_error": ("error, unseen", 4),
    "retain_error": ("error, retain", 4),
    "seconds": ("time s", 1),
}
"""Figures of diffusion models: the heading, and the digits behind the point."""
UNTARGETED = ("unseen_error", "seconds")  # told without their distance from Retrain's


class Cell(NamedTuple):
    """One cell.

    Attributes:
      value: the figure, "11.7 ± 2.1", or the model's name.
      detail: in smaller type, "Δ −4.1"; may be empty.
      mark: "inside" or "outside" the null's interval; empty where there is none.
    """

    value: str
    detail: str = ""
    mark: str = ""


class Table(NamedTuple):
    """Cells in rows.

    Attributes:
      columns: headings; the first is the model's.
      rows: as many cells each: Retrain, the null, the original, then the methods.
      keys: of the rows in the results.
    """

    columns: list[str]
    rows: list[list[Cell]]
    keys: list[str]


def main_table(results: Any) -> Table:
    """Return the main table: one row a model, figures over the seeds.

    Percentages carry their difference Δ from Retrain; the null's row adds half the
    width of its interval in brackets. Distances carry their ratio to the null's.
    Without Retrain there are no columns of distances, without several seeds none of
    tests. Source: our choice.

    Args:
      results: what `results.json` holds, or its types; only the rows are read.

    Returns:
      The table.

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
    rows = read_rows(results, Row)
    keys = ordered_keys(rows)
    targeted = "retrain" in rows
    tested = any(gap_test(row) for row in rows.values())
    columns = ["Model", "UA %", "RA %", "TA %", "MIA %"]
    if targeted:
        tests = ("Gap vs. nothing", "|p − p*| vs. nothing") if tested else ("", "")
        columns += ["Avg. Gap", tests[0], "|p − p*|", tests[1], "ToW"]
        columns = [column for column in columns if column]
    cells = []
    for key in keys:
        row = rows[key]
        line = [Cell(row.label, "target" if key == "retrain" else "")]
        line += [_percentage(rows, key, name) for name in PERCENTAGES]
        if targeted:
            line.append(_distance(rows, key, "avg_gap", 2))
            line += [_test(gap_test(row), 2)] if tested else []
            line.append(_distance(rows, key, "deviation", 3))
            line += [_test(row.deviation_test, 3)] if tested else []
            line.append(_distance(rows, key, "tow", 3))
        cells.append([*line, _seconds(row.seconds)])
    return Table([*columns, "RTE s"], cells, keys)


def generation_table(results: Any) -> Table:
    """Return the main table of generation: one row a model, means over the runs.

    Every figure but the time carries its difference Δ from Retrain's.

    Args:
      results: of kind "generation", or its types; only the rows are read.

    Returns:
      The table; Retrain, the null and the original first.

    Raises:
      InputError: rows that lack a figure.

    >>> found = dict.fromkeys(GENERATION, {"mean": 5.0, "std": None})
    >>> table = generation_table({"rows": {"retrain": found, "ESD": found}})
    >>> table.columns[:3], table.rows[1][1]
    (['Model', 'UA %', 'other classes %'], Cell(value='5.0', detail='Δ 0.0', mark=''))
    """
    rows = read_rows(results, GenerationRow)
    return tabulated({key: structs.asdict(row) for key, row in rows.items()})


def tabulated(rows: Mapping[str, Mapping[str, Amount | None]]) -> Table:
    """Return the table of figures of diffusion models, those that all of them have.

    Args:
      rows: the figures of each model, by key.
    """
    keys = ordered_keys(rows)
    shown = [name for name in GENERATION if all(rows[key].get(name) for key in keys)]
    target = rows.get("retrain", {})
    cells = []
    for key in keys:
        line = [Cell(generation_label(key), "target" if key == "retrain" else "")]
        for name in shown:
            figure, goal, digits = (
                rows[key][name],
                target.get(name),
                GENERATION[name][1],
            )
            detail = ""
            if figure and goal and key != "retrain" and name not in UNTARGETED:
                detail = f"Δ {number(figure.mean - goal.mean, digits, sign=True)}"
            line.append(Cell(spread(figure, digits) if figure else "", detail))
        cells.append(line)
    return Table(["Model", *(GENERATION[name][0] for name in shown)], cells, keys)


def generation_label(key: str) -> str:
    """Return what tables and figures call a diffusion model.

    >>> generation_label("retrain"), generation_label("ESD")
    ('Retrain', 'ESD')
    """
    return LABELS.get(key, key)


def gap_test(row: Row) -> PairedTest | None:
    """Return the paired test of a row's Avg. Gap against doing nothing, if any."""
    return row.comparison.against_nothing if row.comparison else None


def p_value(test: PairedTest) -> float:
    """Return Student's p, or the permutation's where differences do not vary.

    >>> p_value(PairedTest(mean_difference=-2.0, t_p=None, permutation_p=0.25))
    0.25
    """
    return test.permutation_p if test.t_p is None else test.t_p


def direction(test: PairedTest | None) -> str:
    """Return "nearer", "farther" (to Retrain, p < 0.05), "unclear", or "" untested.

    >>> direction(PairedTest(mean_difference=-2.0, t_p=0.01, permutation_p=0.1))
    'nearer'
    """
    if test is None:
        return ""
    if p_value(test) >= LEVEL or test.mean_difference == 0:
        return "unclear"
    return "nearer" if test.mean_difference < 0 else "farther"


def spread(figure: Spread | Amount, digits: int) -> str:
    """Return mean ± sample deviation; the mean alone where there is one seed.

    >>> spread(Amount(mean=11.66, std=2.06), 1)
    '11.7 ± 2.1'
    >>> spread(Amount(mean=11.66), 1)
    '11.7'
    """
    mean = number(figure.mean, digits)
    return mean if figure.std is None else f"{mean} ± {number(figure.std, digits)}"


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """Return a rounded number with a proper minus and no negative zero.

    >>> number(-4.08, 1, sign=True), number(-0.04, 1, sign=True), number(2.0, 1)
    ('−4.1', '0.0', '2.0')
    """
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        return f"{0:.{digits}f}"
    return text.replace("-", "−")


def probability(value: float) -> str:
    """Return a p-value as text.

    >>> probability(0.2076), probability(0.00002)
    ('p 0.208', 'p < 0.001')
    """
    return "p < 0.001" if value < 0.001 else f"p {value:.3f}"


def _percentage(rows: Mapping[str, Row], key: str, name: str) -> Cell:
    row, target = rows[key], rows.get("retrain")
    figure = row.metrics[name]
    value = spread(figure, 1)
    if key == "retrain" or target is None:
        return Cell(value)
    gap = figure.mean - target.metrics[name].mean
    detail = f"Δ {number(gap, 1, sign=True)}"
    if key == "null":
        halves = [
            row.comparison.metrics[name].null_high
            for row in rows.values()
            if row.comparison
        ]
        return Cell(value, f"{detail} (±{halves[0]:.1f})" if halves else detail)
    verdict = row.comparison.metrics[name].verdict if row.comparison else ""
    return Cell(value, detail, verdict)


def _distance(rows: Mapping[str, Row], key: str, name: str, digits: int) -> Cell:
    figure = getattr(rows[key], name)
    if key == "retrain":
        return Cell(number(figure.mean, digits))
    null = getattr(rows["null"], name).mean if "null" in rows else 0.0
    bare = name == "tow" or key == "null" or not null
    detail = "" if bare else f"{figure.mean / null:.1f} × null"
    return Cell(spread(figure, digits), detail)


def _test(test: PairedTest | None, digits: int) -> Cell:
    if test is None:
        return Cell("–")
    said = direction(test)
    detail = probability(p_value(test)) + ("" if said == "unclear" else f", {said}")
    return Cell(number(test.mean_difference, digits, sign=True), detail)


def _seconds(seconds: Mapping[str, Spread]) -> Cell:
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
