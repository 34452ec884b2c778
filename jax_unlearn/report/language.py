"""Results of language models as files hold them, and their table."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from jax_unlearn.lab import schema
from jax_unlearn.lab.schema import Finite, NotNegative
from jax_unlearn.report import forms
from jax_unlearn.report.forms import require
from jax_unlearn.report.table import Cell, Table, number, spread

__all__ = ["FIGURES", "LanguageResults", "LanguageRow", "language_table"]

FIGURES = {
    "forget_probability": ("p forget", 3),
    "deviation": ("|p − p*|", 3),
    "auc_loss": ("AUC", 3),
    "auc_gap": ("|AUC − AUC*|", 3),
    "retain_probability": ("p retain", 3),
    "forget_perplexity": ("perplexity, forget", 1),
    "retain_perplexity": ("retain", 1),
    "unseen_perplexity": ("unseen", 1),
    "other_perplexity": ("other texts", 1),
    "auc_min_k": ("AUC Min-K", 3),
    "auc_min_k_plus_plus": ("AUC Min-K++", 3),
    "auc_zlib": ("AUC zlib", 3),
    "forget_extraction": ("extraction", 3),
    "forget_memorization": ("memorization", 3),
    "forget_rouge": ("ROUGE forget", 3),
    "retain_rouge": ("ROUGE retain", 3),
    "forget_truth_geometric": ("truth ratio", 3),
    "ks_distance": ("KS distance", 3),
    "ks_p_value": ("forget quality", 3),
    "privleak": ("PrivLeak", 1),
}
"""Figures that the table shows: the heading, and the digits behind the point."""
DISTANCES = ("deviation", "auc_gap", "ks_distance")  # from Retrain, whose own are 0


class Measured(Struct, frozen=True):
    """A figure over the seeds."""

    mean: Finite
    std: NotNegative | None = None


class LanguageRow(Struct, frozen=True):
    """One language model, over the seeds."""

    label: str
    figures: Annotated[dict[str, Measured], Meta(min_length=1)]
    seconds: Measured
    cost: Measured | None = None
    setting: forms.Settings = None


class LanguageResults(Struct, frozen=True):
    """The results of an audit of language models, or of an experiment with them."""

    kind: Literal["language"]
    format: Literal[1]
    rows: Annotated[dict[str, LanguageRow], Meta(min_length=1)]
    texts: dict[str, schema.Whole] = {}
    plan: forms.Plan = forms.Plan()
    dataset: forms.Data = forms.Data()
    environment: forms.Machine = forms.Machine()
    audit: forms.Audit | None = None
    advice: tuple[str, ...] = ()

    def __post_init__(self):
        for key, row in self.rows.items():
            told = "forget_probability" in row.figures
            require(told, f"rows.{key}.figures.forget_probability is missing")


def language_table(results: Any) -> Table:
    """Return the table of language models: one row a model, figures over the seeds.

    A figure carries its difference Δ from Retrain's, a distance from Retrain its ratio
    to the null's; cost is a share of Retrain's, counted in gradients of texts.

    >>> figures = {"forget_probability": {"mean": 0.5}, "deviation": {"mean": 0.2}}
    >>> row = {"label": "GA", "figures": figures, "seconds": {"mean": 1.0}}
    >>> table = language_table({"rows": {"ga": row, "null": row}})
    >>> table.columns, table.rows[1][2]
    (['Model', 'p forget', '|p − p*|', 'time s'], Cell(value='0.200', \
detail='1.0 × null', mark=''))
    """
    from jax_unlearn.report import reading

    rows = reading.read_rows(results, LanguageRow)
    keys = reading.ordered_keys(rows)
    names = [n for n in FIGURES if any(n in row.figures for row in rows.values())]
    costs = any(row.cost is not None for row in rows.values())
    lines = []
    for key in keys:
        row = rows[key]
        line = [Cell(row.label, "target" if key == "retrain" else "")]
        line += [_cell(rows, key, name) for name in names]
        if costs:
            share = row.cost and number(100 * row.cost.mean, 1)
            line.append(Cell(share or "–"))
        lines.append([*line, Cell(spread(row.seconds, 1))])  # type: ignore[arg-type]
    heads = ["Model", *(FIGURES[name][0] for name in names)]
    return Table([*heads, *["Cost %"] * costs, "time s"], lines, keys)


def _cell(rows: dict[str, LanguageRow], key: str, name: str) -> Cell:
    figure, digits = rows[key].figures.get(name), FIGURES[name][1]
    if figure is None:
        return Cell("–")
    value, target = spread(figure, digits), rows.get("retrain")  # type: ignore
    if name in DISTANCES:
        null = rows["null"].figures.get(name) if "null" in rows else None
        bare = key in ("null", "retrain") or null is None or not null.mean
        detail = "" if bare or null is None else f"{figure.mean / null.mean:.1f} × null"
        return Cell(value, detail)
    if key == "retrain" or target is None or name not in target.figures:
        return Cell(value)
    gap = figure.mean - target.figures[name].mean
    return Cell(value, f"Δ {number(gap, digits, sign=True)}")
