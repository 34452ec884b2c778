"""Results as files hold them, typed: a damaged one is named, not drawn.

Unknown fields are passed over, and those that files of earlier versions lack have
defaults, so that every stored file of this format is read.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct, field

from jax_unlearn.data import read_json
from jax_unlearn.lab import schema
from jax_unlearn.lab.schema import (
    ROUNDING,
    Cosine,
    FieldError,
    Finite,
    NotNegative,
    Share,
)
from jax_unlearn.report.forms import (
    Audit,
    Counts,
    Data,
    Gapped,
    GenerationResults,
    Machine,
    Numbers,
    Plan,
    Settings,
    Third,
    check_complete,
)
from jax_unlearn.report.settings import is_known

__all__ = [
    "Learned",
    "PairedTest",
    "Points",
    "Results",
    "Row",
    "Spread",
    "check_results",
    "load_results",
    "methods_of",
    "ordered_keys",
    "read_rows",
]

REFERENCES = ("retrain", "null", "original")  # keys of the rows that come first
NULL_QUERIES = "support"  # the row of gaps that stands for no difference
PERCENTAGES = ("ua", "ra", "ta", "mia")
SETS = ("forget", "unseen", "retain")
SECONDS = ("prepare", "compile", "run")
DISTANCES = ("avg_gap", "tow", "deviation")
REMEDY = "give the results.json of a run"

Kind = TypeVar("Kind")
Cosines = Annotated[tuple[Cosine, ...], Meta(min_length=1)]


class Spread(Struct, frozen=True):
    """A figure over the seeds; of a single one there is no deviation."""

    mean: Finite
    std: NotNegative | None
    per_seed: Numbers


class PairedTest(Struct, frozen=True):
    """A paired test; differences that do not vary have no Student's p."""

    mean_difference: Finite
    permutation_p: Finite
    t_p: Finite | None


class Compared(Struct, frozen=True):
    """A percentage beside the null's interval around Retrain."""

    null_high: Finite
    verdict: Literal["inside", "outside"]


class Comparison(Struct, frozen=True):
    """A model beside the null, and beside doing nothing."""

    metrics: dict[str, Compared]
    level: Finite
    against_nothing: PairedTest | None = None

    def __post_init__(self):
        check_complete(self, metrics=PERCENTAGES)


class Attack(Struct, frozen=True):
    """The held-out quality of a membership attack; the share of seeds it is good in."""

    auc: Share
    standard_error: NotNegative
    better_than_chance: Share


class Gap(Struct, frozen=True):
    """How far queries are from the forget set."""

    labels: Share
    features: Annotated[float, Meta(ge=-2 - ROUNDING, le=2 + ROUNDING)]


class Learned(Struct, frozen=True):
    """What a method learned before it unlearned: attacks, and its queries' gaps."""

    attacks: Annotated[dict[str, Attack], Meta(min_length=1)]
    gaps: dict[str, Gap]

    def __post_init__(self):
        check_complete(self, gaps=(NULL_QUERIES,))


class Points(Struct, frozen=True):
    """Losses and weights of forget samples in the first and last quarter of a run."""

    first_losses: Numbers
    first_weights: Numbers
    last_losses: Numbers
    last_weights: Numbers

    def __post_init__(self):
        for losses, weights, part in (
            (self.first_losses, self.first_weights, "first"),
            (self.last_losses, self.last_weights, "last"),
        ):
            if len(losses) != len(weights):
                said = f"{len(weights)} numbers, {part}_losses {len(losses)}"
                raise FieldError(f"{part}_weights has {said}")


class Row(Struct, frozen=True):
    """One model: figures over the seeds; without Retrain it has no distances."""

    label: str
    metrics: dict[str, Spread]
    seconds: dict[str, Spread]
    setting: Settings = None
    histograms: dict[str, Counts] | None = None
    avg_gap: Spread | None = None
    tow: Spread | None = None
    deviation: Spread | None = None
    groups: dict[Third, Spread] | None = None
    by_rank: Gapped | None = None
    comparison: Comparison | None = None
    deviation_test: PairedTest | None = None
    learned: Learned | None = None

    def __post_init__(self):
        check_complete(self, metrics=(*PERCENTAGES, "fa"), seconds=SECONDS)
        if self.histograms is not None:
            check_complete(self, histograms=SETS)
            if not sum(self.histograms["forget"]):
                raise FieldError("histograms.forget counts no sample")
        if self.by_rank is not None and not any(r is not None for r in self.by_rank):
            raise FieldError("by_rank holds no number")
        if self.setting:
            check_complete(self, setting=("method",))
            if not is_known(self.setting):
                method = repr(self.setting["method"])[:40]
                raise FieldError(
                    f"setting.method={method} is no method of this library"
                )

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.metrics["ua"].per_seed)

    def other_counts(self, seeds: int) -> dict[str, int]:
        """Return the numbers of seeds of figures that have another one."""
        found = {f"metrics.{name}": spread for name, spread in self.metrics.items()}
        found |= {f"seconds.{name}": spread for name, spread in self.seconds.items()}
        found |= {n: s for n in DISTANCES if (s := getattr(self, n)) is not None}
        counts = {name: len(spread.per_seed) for name, spread in found.items()}
        return {name: count for name, count in counts.items() if count != seeds}


class Results(Struct, frozen=True):
    """The results of an experiment, of an audit, or of both."""

    format: Literal[1]
    rows: Annotated[dict[str, Row], Meta(min_length=1)] = field(default_factory=dict)
    audit: Audit | None = None
    scatter: dict[str, Points] | None = None
    conflict: dict[str, Cosines] | None = None
    plan: Plan = Plan()
    dataset: Data = Data()
    environment: Machine = Machine()

    def __post_init__(self):
        if not self.rows and self.audit is None:
            raise FieldError("rows is missing, and so is audit")
        for part in ("scatter", "conflict"):
            for key in getattr(self, part) or ():
                if key not in self.rows:
                    raise FieldError(f"{part}.{key} belongs to no row")
        targeted = "retrain" in self.rows
        needed = (
            "histograms",
            *(("groups", "by_rank", *DISTANCES) if targeted else ()),
        )
        for key, row in self.rows.items():
            for name in needed:
                if getattr(row, name) is None:
                    raise FieldError(f"rows.{key}.{name} is missing")
            for at, count in row.other_counts(self.seeds).items():
                said = f"per_seed has {count} seeds, others {self.seeds}"
                raise FieldError(f"rows.{key}.{at}.{said}")
        lengths = sorted({len(row.by_rank or ()) for row in self.rows.values()})
        if targeted and len(lengths) > 1:
            raise FieldError(f"rows: by_rank is of different lengths {lengths}")

    @property
    def seeds(self) -> int:
        """Number of seeds of the rows, of which there is one or more."""
        return next(iter(self.rows.values())).seeds


def load_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the results of an experiment or an audit.

    Args:
      path: of a `results.json`.

    Returns:
      What it holds, checked.

    Raises:
      InputError: a file that is missing, not JSON, or no result of this library; names
        the key.

    >>> load_results("no/such/results.json")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: cannot read path=no/such/results.json (No such \
file or directory); check the path
    """
    results = read_json(path)
    check_results(results, name=f"path={path}:")
    return results


def check_results(
    results: Any, *, name: str = "results"
) -> Results | GenerationResults:
    """Read results, and refuse those that no report can be made of.

    Args:
      results: what `results.json` holds, or what this function returned.
      name: what the message calls them.

    Returns:
      The results by their types.

    Raises:
      InputError: a key that is missing or does not hold what it should.

    >>> check_results({"format": 1, "rows": {}})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: results.rows={} must be an object of length >= 1; \
give the results.json of a run
    """
    if isinstance(results, GenerationResults):
        return results
    generated = isinstance(results, Mapping) and results.get("kind") == "generation"
    kind = GenerationResults if generated else Results
    return schema.read(kind, results, name=name, lenient=True, remedy=REMEDY)


def read_rows(results: Any, kind: type[Kind]) -> dict[str, Kind]:
    """Return the rows of results of which nothing else is needed.

    Args:
      results: a mapping with "rows", or typed results.
      kind: of the rows: `Row` or `GenerationRow`.

    Raises:
      InputError: a row that is not of that kind.
    """
    rows = results["rows"] if isinstance(results, Mapping) else results.rows
    every: Any = dict[str, kind]
    return schema.read(every, rows, name="results.rows", lenient=True, remedy=REMEDY)


def ordered_keys(rows: Iterable[str]) -> list[str]:
    """Return the keys of the rows, references first.

    >>> ordered_keys({"ft": 0, "original": 0, "retrain": 0})
    ['retrain', 'original', 'ft']
    """
    return [key for key in REFERENCES if key in rows] + methods_of(rows)


def methods_of(rows: Iterable[str]) -> list[str]:
    """Return the keys of the rows that are methods.

    >>> methods_of({"ft": 0, "original": 0})
    ['ft']
    """
    return [key for key in rows if key not in REFERENCES]
