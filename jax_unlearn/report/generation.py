"""Tables, grids and the figure of generation, from checked results."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax_unlearn.report.svg import (
    BLUE,
    GREEN,
    INK,
    Drawing,
    style,
    to_svg,
)
from jax_unlearn.report.table import REFERENCES, Cell, Table, number, ordered_keys

LABELS = {
    "retrain": "Retrain",
    "null": "Null (Retrain, other seed)",
    "original": "Original (nothing done)",
}
COLUMNS = {
    "ua": ("UA %", 1),
    "retained_accuracy": ("other classes %", 1),
    "frechet": ("Fréchet", 3),
    "fid": ("FID", 1),
    "forget_error": ("error, forget", 4),
    "unseen_error": ("error, unseen", 4),
    "retain_error": ("error, retain", 4),
    "seconds": ("time s", 1),
}
"""By figure: its heading and the digits behind the point."""

TARGETED = (
    "ua",
    "retained_accuracy",
    "frechet",
    "fid",
    "forget_error",
    "retain_error",
)


class Grid(NamedTuple):
    """Images of one model.

    Attributes:
      label: of the model.
      uri: of the PNG.
      alt: what it shows.
    """

    label: str
    uri: str
    alt: str


class Section(NamedTuple):
    """One forgotten class of one seed.

    Attributes:
      title: which.
      table: figures of its models.
      grids: images of its models.
      recognised: by model, the share of each class that is recognised.
      attacks: sentences on LTU's attacks; may be empty.
      forgotten: the name of the class.
    """

    title: str
    table: Table
    grids: list[Grid]
    recognised: list[list[str]]
    attacks: list[str]
    forgotten: str


def generation_table(results: Mapping[str, Any]) -> Table:
    """Return the main table of generation: one row a model, means over the runs.

    Every figure but the time carries its difference Δ from Retrain's.

    Args:
      results: of kind "generation".

    Returns:
      The table; Retrain, the null and the original first.

    >>> found = dict.fromkeys(COLUMNS, {"mean": 5.0, "std": None})
    >>> table = generation_table({"rows": {"retrain": found, "ESD": found}})
    >>> table.columns[:3], table.rows[1][1]
    (['Model', 'UA %', 'other classes %'], Cell(value='5.0', detail='Δ 0.0', mark=''))
    """
    return _table(results["rows"])


def generation_content(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that the page says of generation.

    Args:
      results: of kind "generation", checked.
    """
    plan, names = results["plan"], results["dataset"]["classes"]
    methods = plan.get("methods") or {}
    columns, setting_rows = _settings(methods)
    return {
        "title": plan["title"],
        "note": plan.get("note") or "",
        "targeted": "retrain" in results["rows"],
        "has_null": "null" in results["rows"],
        "count": len(results["runs"]),
        "table": generation_table(results),
        "floor": number(results["floor"]["frechet"], 3),
        "fid_floor": _optional(results["floor"].get("fid"), 1),
        "judge": number(results["judge"]["accuracy"], 1),
        "judged": [
            (name, number(value, 1))
            for name, value in zip(
                names, results["judge"].get("by_class") or [], strict=False
            )
        ],
        "sections": [_section(run, names) for run in results["runs"]],
        "names": names,
        "setting_columns": columns,
        "setting_rows": setting_rows,
        "sampling": _pairs(plan.get("sampling") or {}),
        "training": _pairs(plan.get("training") or {}),
        "machine": _machine(results["environment"]),
    }


def generation_figure(
    results: Mapping[str, Any], *, name: str = "generation"
) -> Drawing:
    """Draw UA, accuracy on the other classes and Fréchet distance of every model.

    Args:
      results: of kind "generation", checked.
      name: of the drawing, unique in its page.

    Returns:
      The drawing: a dot a model, a line where Retrain lies, a dotted one for the null.

    Source: our choice.
    """
    from matplotlib.figure import Figure

    rows = results["rows"]
    keys = [k for k in ordered_keys(rows) if k not in ("retrain", "null")]
    with style():
        height = 0.75 + 0.22 * len(keys)
        figure = Figure(figsize=(7.2, height))
        said = []
        for place, column in enumerate(("ua", "retained_accuracy", "frechet")):
            axes = figure.add_axes(
                (0.25 + 0.255 * place, 0.5 / height, 0.22, 1 - 0.6 / height)
            )
            for at, (reference, colour, line) in enumerate(
                (("retrain", INK, "-"), ("null", GREEN, ":"))
            ):
                if reference in rows:
                    value = rows[reference][column]["mean"]
                    axes.axvline(value, color=colour, linestyle=line, zorder=at)
            means = [rows[k][column]["mean"] for k in keys]
            errors = [rows[k][column].get("std") or 0.0 for k in keys]
            places = list(range(len(keys)))[::-1]
            axes.errorbar(
                means,
                places,
                xerr=errors,
                fmt="o",
                color=BLUE,
                markersize=4.6,
                elinewidth=1.0,
                zorder=3,
            )
            axes.set_yticks(places, [_label(k) for k in keys] if not place else [])
            axes.set_ylim(-0.6, len(keys) - 0.4)
            axes.set_xlabel(COLUMNS[column][0])
            if column == "ua":
                axes.set_xlim(-4, 104)
            said.append(COLUMNS[column][0])
        svg = to_svg(
            figure,
            name=name,
            alt=f"{', '.join(said)} of every method beside Retrain's: "
            + "; ".join(
                f"{_label(k)} "
                + ", ".join(
                    number(rows[k][c]["mean"], COLUMNS[c][1])
                    for c in ("ua", "retained_accuracy", "frechet")
                )
                for k in ordered_keys(rows)
            ),
        )
    return Drawing("Generated images: line Retrain, dotted line the null", svg)


def _label(key: str) -> str:
    return LABELS.get(key, key)


def _optional(value: float | None, digits: int) -> str:
    return "" if value is None else number(value, digits)


def _table(rows: Mapping[str, Any]) -> Table:
    """Return the table of rows of {"mean", "std"} by figure."""
    keys = ordered_keys(rows)
    shown = [n for n in COLUMNS if all(n in rows[key] for key in keys)]
    lines = []
    for key in keys:
        line = [Cell(_label(key), "target" if key == "retrain" else "")]
        for name in shown:
            line.append(_cell(rows, key, name))
        lines.append(line)
    return Table(["Model", *(COLUMNS[name][0] for name in shown)], lines, keys)


def _cell(rows: Mapping[str, Any], key: str, name: str) -> Cell:
    found, digits = rows[key][name], COLUMNS[name][1]
    value = number(found["mean"], digits)
    if found.get("std") is not None:
        value += f" ± {number(found['std'], digits)}"
    if "retrain" not in rows or key == "retrain" or name not in TARGETED:
        return Cell(value)
    gap = found["mean"] - rows["retrain"][name]["mean"]
    return Cell(value, f"Δ {number(gap, digits, sign=True)}")


def _section(run: Mapping[str, Any], names: list[str]) -> Section:
    rows = {
        key: {
            name: {"mean": row[name], "std": None}
            for name in COLUMNS
            if isinstance(row.get(name), int | float)
        }
        for key, row in run["rows"].items()
    }
    for key, row in run["rows"].items():
        times = row.get("seconds") or {}
        total = times.get("prepare", 0.0) + times.get("run", 0.0)
        rows[key]["seconds"] = {"mean": total, "std": None}
    forgotten = names[run["class"]]
    keys = ordered_keys(rows)
    order = [k for k in ("original", "retrain", "null") if k in rows]
    order += [k for k in keys if k not in REFERENCES]
    grids = run.get("grids") or {}
    attacks = [
        f"{_label(key)}: AUC of the attack {name!r} {found['auc']:.3f} "
        f"± {found['standard_error']:.3f}"
        + ("" if found["better_than_chance"] else ", no better than chance")
        for key, row in run["rows"].items()
        for name, found in ((row.get("details") or {}).get("attacks") or {}).items()
    ]
    return Section(
        f"Forget {forgotten!r} (seed {run['seed']})",
        _table(rows),
        [
            Grid(
                _label(key),
                f"data:image/png;base64,{grids[key]}",
                f"images of {_label(key)}, a row for each of {', '.join(names)}",
            )
            for key in order
            if key in grids
        ],
        [
            [
                _label(key),
                *(
                    "–" if share is None else f"{share:.0f}"
                    for share in run["rows"][key]["by_class"]
                ),
            ]
            for key in keys
        ],
        attacks,
        forgotten,
    )


def _settings(methods: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the settings in which the methods differ, a row a method."""
    names: list[str] = []
    for setting in methods.values():
        names += [name for name in setting if name not in names]
    differ = [
        name
        for name in names
        if len({repr(setting.get(name)) for setting in methods.values()}) > 1
        or len(methods) == 1
    ]
    rows = [
        [label, *(_plain(setting.get(name, "–")) for name in differ)]
        for label, setting in methods.items()
    ]
    return differ, rows


def _pairs(setting: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, _plain(value)) for name, value in setting.items()]


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _machine(environment: Mapping[str, Any]) -> str:
    versions = environment.get("versions") or {}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    device, cores = environment.get("device", "?"), environment.get("cores", "?")
    return f"{device}, {cores} cores; {told}"
