"""Results of language models as files hold them, and their table."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct

from jax_unlearn.audit.comparison import MetricRow, metric_row
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.lab import schema
from jax_unlearn.lab.modalities.language.probes import PROBES
from jax_unlearn.lab.probes import of_figures
from jax_unlearn.lab.schema import Finite, NotNegative
from jax_unlearn.report import forms, reading
from jax_unlearn.report.forms import require
from jax_unlearn.report.table import Cell, Table, number, spread

__all__ = ["FIGURES", "JUDGED", "LanguageResults", "LanguageRow", "beside_null"]
__all__ += ["language_table"]

FIGURES = {
    "forget_probability": (
        "p forget",
        3,
        "how sure the model is of the texts to forget: the probability of a token, in "
        "the geometric mean over an answer, then in the mean over the texts",
    ),
    "deviation": (
        "|p − p*|",
        3,
        "distance from Retrain's p, text by text, in the mean over the texts to "
        "forget; 0 for Retrain itself",
    ),
    "auc_loss": (
        "AUC",
        3,
        "how often a text to forget has less loss than an unseen one, the simplest "
        "membership attack: 0.5 where the loss tells nothing",
    ),
    "auc_gap": ("|AUC − AUC*|", 3, "distance of the AUC from Retrain's"),
    "retain_probability": (
        "p retain",
        3,
        "the same as p forget, of the texts that stay",
    ),
    "forget_perplexity": (
        "perplexity, forget",
        1,
        "e to the mean loss of the tokens of the texts to forget: among so many "
        "equally likely tokens the model chooses",
    ),
    "retain_perplexity": ("perplexity, retain", 1, "of the texts that stay"),
    "unseen_perplexity": ("perplexity, unseen", 1, "of texts that no model saw"),
    "other_perplexity": ("perplexity, other", 1, "of texts of another source"),
    "auc_min_k": (
        "AUC Min-K",
        3,
        "AUC of the attack that looks at the least likely tokens of a text",
    ),
    "auc_min_k_plus_plus": (
        "AUC Min-K++",
        3,
        "the same, each token measured by what the model expected there",
    ),
    "auc_zlib": (
        "AUC zlib",
        3,
        "AUC of the loss, measured by how far a text can be compressed",
    ),
    "forget_extraction": (
        "extraction",
        3,
        "share of an answer, up to its end, that the model completes by itself",
    ),
    "forget_memorization": (
        "memorization",
        3,
        "share of the tokens of the texts to forget that are the model's first choice",
    ),
    "forget_rouge": (
        "ROUGE forget",
        3,
        "share of the words of the true answer that the model's own answer holds, in "
        "their order (ROUGE-L), of the texts to forget",
    ),
    "retain_rouge": ("ROUGE retain", 3, "the same, of texts that stay"),
    "forget_truth_geometric": (
        "truth ratio",
        3,
        "how alike the true and wrong answers are to the model: 1 where it prefers "
        "neither, 0 where it is sure",
    ),
    "ks_distance": (
        "KS distance",
        3,
        "how far the truth ratios lie from Retrain's (Kolmogorov and Smirnov): 0 for "
        "the same, 1 where none overlap",
    ),
    "ks_p_value": (
        "forget quality",
        3,
        "p-value of that distance: small where chance alone would seldom make it",
    ),
    "privleak": (
        "PrivLeak",
        1,
        "how far the AUC of Min-K lies from Retrain's, in percent of Retrain's",
    ),
    **{
        key: (card.label, card.digits, card.meaning)
        for key, (_, card) in of_figures(PROBES).items()
    },
}
"""Figures that the table shows: the heading, the digits behind the point, a meaning."""
JUDGED = ("forget_probability", "auc_loss", "retain_probability", "unseen_perplexity")
"""What tells a model from Retrain: on texts to forget, that stay, that are new."""

LARGE = 1000  # times the null, beyond which the number says no more
DISTANCES = ("deviation", "auc_gap", "ks_distance")  # from Retrain, whose own are 0


class Measured(Struct, frozen=True):
    """A figure over the seeds."""

    mean: Finite
    std: NotNegative | None = None
    per_seed: tuple[Finite, ...] = ()


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
    unseen: reading.Unseen | None = None
    groups: tuple[forms.Groups, ...] = ()
    advice: tuple[str, ...] = ()

    def __post_init__(self):
        for key, row in self.rows.items():
            told = "forget_probability" in row.figures
            require(told, f"rows.{key}.figures.forget_probability is missing")


def beside_null(
    rows: Mapping[str, LanguageRow], key: str, name: str
) -> MetricRow | None:
    """Return a figure beside the null's interval; None from fewer than three seeds.

    The interval is that of `ju.audit.compare`: of the differences of the null from
    Retrain, seed by seed.
    """
    sides = [rows[side] for side in (key, "retrain", "null") if side in rows]
    found = [row.figures[name].per_seed for row in sides if name in row.figures]
    lengths = {len(values) for values in found}
    if key == "retrain" or len(found) < 3 or len(lengths) > 1 or min(lengths) < FEWEST:
        return None
    method, retrained, null = map(np.array, found)
    return metric_row(method, retrained, null)


def language_table(results: Any) -> Table:
    """Return the table of language models: one row a model, figures over the seeds.

    A figure carries its difference Δ from Retrain's, and in the null's row half the
    width of its interval in brackets; a distance from Retrain its ratio to the null's;
    cost is a share of Retrain's, counted in gradients of texts.

    >>> figures = {"forget_probability": {"mean": 0.5}, "deviation": {"mean": 0.2}}
    >>> row = {"label": "GA", "figures": figures, "seconds": {"mean": 1.0}}
    >>> table = language_table({"rows": {"ga": row, "null": row}})
    >>> table.columns, table.rows[1][2]
    (['Model', 'p forget', '|p − p*|', 'time s'], Cell(value='0.200', \
detail='1.0 × null', mark=''))
    """
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
        ratio = 0.0 if bare or null is None else figure.mean / null.mean
        times = f"{ratio:.1f}" if ratio < LARGE else f"over {LARGE}"
        detail = "" if bare else f"{times} × null"
        return Cell(value, detail)
    if key == "retrain" or target is None or name not in target.figures:
        return Cell(value)
    gap = figure.mean - target.figures[name].mean
    detail = f"Δ {number(gap, digits, sign=True)}"
    test = beside_null(rows, key, name) if name in JUDGED else None
    if test is None:
        return Cell(value, detail)
    if key == "null":
        return Cell(value, f"{detail} (±{number(test.null_high, digits)})")
    return Cell(value, detail, test.verdict)
