"""The main table of results as plain strings, shared by the terminal and the page."""

from collections.abc import Mapping
from typing import Any, NamedTuple

REFERENCES = ("retrain", "null", "original")  # keys of the rows that come first
PERCENTAGES = ("ua", "ra", "ta", "mia")
LEVEL = 0.05  # below it a paired test counts as clear


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


def main_table(results: Mapping[str, Any]) -> Table:
    """Return the main table: one row a model, figures over the seeds.

    Percentages carry their difference Δ from Retrain; the null's row adds half the
    width of its interval in brackets. Distances carry their ratio to the null's.
    Without Retrain there are no columns of distances, without several seeds none of
    tests. Source: our choice.

    Args:
      results: what `results.json` holds.

    Returns:
      The table.

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
    rows = results["rows"]
    keys = ordered_keys(rows)
    target = rows.get("retrain")
    tested = any(gap_test(row) for row in rows.values())
    columns = ["Model", "UA %", "RA %", "TA %", "MIA %"]
    if target is not None:
        columns.append("Avg. Gap")
        columns += ["Gap vs. nothing"] if tested else []
        columns.append("|p − p*|")
        columns += ["|p − p*| vs. nothing"] if tested else []
        columns.append("ToW")
    columns.append("RTE s")
    cells = []
    for key in keys:
        row = rows[key]
        line = [Cell(row["label"], "target" if key == "retrain" else "")]
        line += [_percentage(rows, key, name) for name in PERCENTAGES]
        if target is not None:
            line.append(_distance(rows, key, "avg_gap", 2))
            line += [_test(gap_test(row), 2)] if tested else []
            line.append(_distance(rows, key, "deviation", 3))
            line += [_test(row.get("deviation_test"), 3)] if tested else []
            line.append(_distance(rows, key, "tow", 3))
        line.append(_seconds(row["seconds"]))
        cells.append(line)
    return Table(columns, cells, keys)


def ordered_keys(rows: Mapping[str, Any]) -> list[str]:
    """Return the keys of the rows, references first.

    >>> ordered_keys({"ft": 0, "original": 0, "retrain": 0})
    ['retrain', 'original', 'ft']
    """
    first = [key for key in REFERENCES if key in rows]
    return first + [key for key in rows if key not in REFERENCES]


def gap_test(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the paired test of a row's Avg. Gap against doing nothing, if any.

    >>> gap_test({"label": "FT"}) is None
    True
    """
    return (row.get("comparison") or {}).get("against_nothing")


def p_value(test: Mapping[str, Any]) -> float:
    """Return Student's p, or the permutation's where differences do not vary.

    >>> p_value({"t_p": None, "permutation_p": 0.25})
    0.25
    """
    return test["permutation_p"] if test["t_p"] is None else test["t_p"]


def direction(test: Mapping[str, Any] | None) -> str:
    """Return "nearer", "farther" (to Retrain, p < 0.05), "unclear", or "" untested.

    >>> direction({"mean_difference": -2.0, "t_p": 0.01, "permutation_p": 0.1})
    'nearer'
    """
    if test is None:
        return ""
    if p_value(test) >= LEVEL or test["mean_difference"] == 0:
        return "unclear"
    return "nearer" if test["mean_difference"] < 0 else "farther"


def spread(figure: Mapping[str, Any], digits: int) -> str:
    """Return mean ± sample deviation; the mean alone where there is one seed.

    >>> spread({"mean": 11.66, "std": 2.06}, 1)
    '11.7 ± 2.1'
    >>> spread({"mean": 11.66, "std": None}, 1)
    '11.7'
    """
    mean = number(figure["mean"], digits)
    if figure["std"] is None:
        return mean
    return f"{mean} ± {figure['std']:.{digits}f}"


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


def _percentage(rows: Mapping[str, Any], key: str, name: str) -> Cell:
    row, target = rows[key], rows.get("retrain")
    figure = row["metrics"][name]
    value = spread(figure, 1)
    if key == "retrain" or target is None:
        return Cell(value)
    difference = figure["mean"] - target["metrics"][name]["mean"]
    detail = f"Δ {number(difference, 1, sign=True)}"
    if key == "null":
        half = null_half_width(rows, name)
        return Cell(value, detail if half is None else f"{detail} (±{half:.1f})")
    if row.get("comparison") is None:
        return Cell(value, detail)
    return Cell(value, detail, row["comparison"]["metrics"][name]["verdict"])


def null_half_width(rows: Mapping[str, Any], name: str) -> float | None:
    """Return half the width of the null's interval of a metric, if there is one.

    >>> null_half_width({"ft": {"label": "FT"}}, "ua") is None
    True
    """
    for row in rows.values():
        if row.get("comparison") is not None:
            return row["comparison"]["metrics"][name]["null_high"]
    return None


def _distance(rows: Mapping[str, Any], key: str, name: str, digits: int) -> Cell:
    figure = rows[key][name]
    if key == "retrain":
        return Cell(number(figure["mean"], digits))
    value = spread(figure, digits)
    null = rows["null"][name]["mean"] if key != "null" and "null" in rows else 0.0
    if name == "tow" or not null:
        return Cell(value)
    return Cell(value, f"{figure['mean'] / null:.1f} × null")


def _test(test: Mapping[str, Any] | None, digits: int) -> Cell:
    if test is None:
        return Cell("–")
    said = direction(test)
    detail = probability(p_value(test)) + ("" if said == "unclear" else f", {said}")
    return Cell(number(test["mean_difference"], digits, sign=True), detail)


def _seconds(seconds: Mapping[str, Any]) -> Cell:
    """Return the running time; compilation counts once, as seeds share programs."""
    if all(max(part["per_seed"]) == 0 for part in seconds.values()):
        return Cell("–")
    run = seconds["run"]
    digits = 0 if run["mean"] >= 100 else 1 if run["mean"] >= 10 else 2
    once = {name: max(seconds[name]["per_seed"]) for name in ("compile", "prepare")}
    detail = ", ".join(
        f"{name} {value:.2f}" for name, value in once.items() if value >= 0.005
    )
    return Cell(spread(run, digits), detail)
