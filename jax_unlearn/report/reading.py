"""Results as files hold them, typed: a damaged one is named, not drawn.

Unknown fields are passed over, and those that files of earlier versions lack have
defaults, so that every stored file of this format is read.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
from msgspec import Meta, Struct, field, structs

from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.audit.records import Figure, visible
from jax_unlearn.data import read_json
from jax_unlearn.lab import schema
from jax_unlearn.lab.schema import ROUNDING, Cosine, Finite, NotNegative, Share
from jax_unlearn.report import forms, generated
from jax_unlearn.report.forms import Counts, Numbers, check_complete, require
from jax_unlearn.report.settings import is_known

__all__ = ["NULL_QUERIES", "PERCENTAGES", "REFERENCES", "SETS", "Attack", "Beside"]
__all__ += ["Compared", "Comparison", "Cost", "Gap", "Learned", "PairedTest", "Points"]
__all__ += [
    "Rank",
    "Results",
    "Row",
    "Spread",
    "Unseen",
    "check_results",
    "load_results",
]
__all__ += ["methods_of", "ordered_keys", "read_rows"]

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

    @property
    def p(self) -> float:
        """Student's p, or the permutation's where there is none."""
        return self.permutation_p if self.t_p is None else self.t_p


class Compared(Struct, frozen=True):
    """A percentage beside the null's interval around Retrain."""

    null_high: Finite
    verdict: Literal["inside", "outside", ""]


class Comparison(Struct, frozen=True):
    """A model beside the null, and beside doing nothing."""

    metrics: dict[str, Compared]
    level: Finite
    against_nothing: PairedTest | None = None
    seeds: int = FEWEST

    def __post_init__(self):
        check_complete(self, metrics=PERCENTAGES)
        if self.seeds < FEWEST:  # earlier versions made verdicts of two
            structs.force_setattr(self, "against_nothing", None)
            bare = {k: structs.replace(m, verdict="") for k, m in self.metrics.items()}
            structs.force_setattr(self, "metrics", bare)

    def digits(self, name: str, gap: float) -> int:
        """Return the digits by which a difference outside is seen to lie there."""
        high, said = self.metrics[name].null_high, self.metrics[name].verdict
        return visible(Figure(gap, None, 0.0, -high, high, said), 1)

    @property
    def verdicts(self) -> set[str]:
        """The verdicts on the percentages; none from too few seeds."""
        return {self.metrics[name].verdict for name in PERCENTAGES} - {""}


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
        for part in ("first", "last"):
            losses = len(getattr(self, f"{part}_losses"))
            weights = len(getattr(self, f"{part}_weights"))
            said = f"{part}_weights has {weights} numbers, {part}_losses {losses}"
            require(losses == weights, said)


class Cost(Struct, frozen=True):
    """What making a model took, as a share of Retrain: by count, and by the clock."""

    counted: Spread | None = None
    measured: Spread | None = None


class Row(Struct, frozen=True):
    """One model: figures over the seeds; without Retrain it has no distances."""

    label: str
    metrics: dict[str, Spread]
    seconds: dict[str, Spread]
    setting: forms.Settings = None
    histograms: dict[str, Counts] | None = None
    avg_gap: Spread | None = None
    tow: Spread | None = None
    deviation: Spread | None = None
    groups: dict[forms.Third, Spread] | None = None
    by_rank: forms.Gapped | None = None
    comparison: Comparison | None = None
    deviation_test: PairedTest | None = None
    learned: Learned | None = None
    cost: Cost = Cost()
    certificate: tuple[str, ...] = ()  # in sentences

    def __post_init__(self):
        check_complete(self, metrics=(*PERCENTAGES, "fa"), seconds=SECONDS)
        if self.histograms is not None:
            check_complete(self, histograms=SETS)
            counted = sum(self.histograms["forget"]) > 0
            require(counted, "histograms.forget counts no sample")
        if self.comparison and self.comparison.seeds < FEWEST:
            structs.force_setattr(self, "deviation_test", None)
        if self.by_rank is not None:
            numbers = [value for value in self.by_rank if value is not None]
            require(bool(numbers), "by_rank holds no number")
        if self.setting:
            check_complete(self, setting=("method",))
            method = repr(self.setting["method"])[:40]
            said = f"setting.method={method} is no method of this library"
            require(is_known(self.setting), said)

    @property
    def is_inside(self) -> bool:
        """Whether all percentages lie inside the null's intervals."""
        return self.comparison is not None and self.comparison.verdicts == {"inside"}

    @property
    def spreads(self) -> dict[str, Spread]:
        """The figures over the seeds, by their place in the row."""
        found = {f"metrics.{name}": figure for name, figure in self.metrics.items()}
        found |= {f"seconds.{name}": figure for name, figure in self.seconds.items()}
        found |= {name: getattr(self, name) for name in DISTANCES}
        return {name: figure for name, figure in found.items() if figure is not None}


class Beside(Struct, frozen=True):
    """What a model makes of forget samples beside samples that it never saw."""

    auc: Share | None
    right: schema.Percent | None
    test: schema.Percent | None


class Unseen(Struct, frozen=True):
    """Forget samples beside unseen ones, or test samples in their place, by model."""

    of: Literal["unseen", "test"]
    samples: dict[Literal["forget", "unseen"], int]
    low: Share | None
    high: Share | None
    models: dict[str, Beside]

    def __post_init__(self):
        check_complete(self, samples=("forget", "unseen"))
        for key, one in self.models.items():
            chance = one.auc is None or (self.low is not None and self.high is not None)
            require(chance, f"models.{key}.auc without low and high of chance")


class Rank(NamedTuple):
    """A rank of the classes: which stand there in some seed, their mean count."""

    names: list[str]
    count: int


class Results(Struct, frozen=True):
    """The results of an experiment, of an audit, or of both."""

    format: Literal[1]
    rows: Annotated[dict[str, Row], Meta(min_length=1)] = field(default_factory=dict)
    audit: forms.Audit | None = None
    scatter: dict[str, Points] | None = None
    conflict: dict[str, Cosines] | None = None
    unseen: Unseen | None = None
    alone: forms.Alone | None = None
    forget_counts: tuple[tuple[schema.Whole, ...], ...] = ()  # by class, a seed each
    groups: tuple[forms.Groups, ...] = ()
    probes: dict[str, dict[str, Finite]] | None = None
    probe_figures: dict[str, dict[str, forms.AuditFigure]] | None = None
    advice: tuple[str, ...] = ()
    plan: forms.Plan = forms.Plan()
    dataset: forms.Data = forms.Data()
    environment: forms.Machine = forms.Machine()

    def __post_init__(self):
        stated = bool(self.rows) or self.audit is not None
        require(stated, "rows is missing, and so is audit")
        beside = None if self.unseen is None else self.unseen.models
        parts = {"scatter": self.scatter, "conflict": self.conflict, "unseen": beside}
        parts["alone"] = None if self.alone is None else self.alone.figures
        parts |= {"probes": self.probes, "probe_figures": self.probe_figures}
        for part, keys in parts.items():
            for key in keys or ():
                require(key in self.rows, f"{part}.{key} belongs to no row")
        distances = ("groups", "by_rank", *DISTANCES) if "retrain" in self.rows else ()
        for key, row in self.rows.items():
            for name in ("histograms", *distances):
                missing = getattr(row, name) is None
                require(not missing, f"rows.{key}.{name} is missing")
            for at, figure in row.spreads.items():
                count = len(figure.per_seed)
                said = f"per_seed has {count} seeds, others {self.seeds}"
                require(count == self.seeds, f"rows.{key}.{at}.{said}")
        lengths = sorted({len(row.by_rank or ()) for row in self.rows.values()})
        alike = not distances or len(lengths) == 1
        require(alike, f"rows: by_rank is of different lengths {lengths}")

    @property
    def ranked(self) -> list[Rank]:
        """What stands at each rank, that of most forget samples first.

        Files of earlier versions may tell nothing of it: of them there is no rank here.
        """
        named: list[str] = list(self.dataset.classes or ())
        given = self.plan.forget_counts
        every = self.forget_counts or ((given,) if given else ())
        if not every or {len(one) for one in every} != {len(named)}:
            return []
        counts = np.array(every)
        order = np.argsort(-counts, axis=1, kind="stable")
        means = np.take_along_axis(counts, order, axis=1).mean(axis=0)
        return [
            Rank([named[n] for n in dict.fromkeys(column)], round(mean))
            for column, mean in zip(order.T.tolist(), means.tolist(), strict=True)
        ]

    @property
    def seeds(self) -> int:
        """Number of seeds of the rows, of which there is one or more."""
        return len(next(iter(self.rows.values())).metrics["ua"].per_seed)


def load_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a `results.json` of an experiment or an audit, and check it.

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


def check_results(results: Any, *, name: str = "results") -> Any:
    """Return results by their types; refuse those that no report can be made of.

    Results are what `results.json` holds, or what this function returned; a message
    calls them by the name.

    Raises:
      InputError: a key that is missing or does not hold what it should.

    >>> check_results({"format": 1, "rows": {}})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: results.rows={} must be an object of length >= 1; \
give the results.json of a run
    """
    from jax_unlearn.report.language import LanguageResults

    if isinstance(results, generated.GenerationResults | LanguageResults):
        return results
    told = results.get("kind") if isinstance(results, Mapping) else None
    known = {"generation": generated.GenerationResults, "language": LanguageResults}
    kind = known.get(told, Results) if isinstance(told, str) else Results
    return schema.read(kind, results, name=name, lenient=True, remedy=REMEDY)


def read_rows(results: Any, kind: type[Kind]) -> dict[str, Kind]:
    """Return the rows of results, or of their types; nothing else of them is read."""
    rows = results["rows"] if isinstance(results, Mapping) else results.rows
    every: Any = dict[str, kind]
    return schema.read(every, rows, name="results.rows", lenient=True, remedy=REMEDY)


def ordered_keys(rows: Iterable[str]) -> list[str]:
    """Return the keys of the rows, references first."""
    return [key for key in REFERENCES if key in rows] + methods_of(rows)


def methods_of(rows: Iterable[str]) -> list[str]:
    """Return the keys of the rows that are methods."""
    return [key for key in rows if key not in REFERENCES]


def best_first(rows: Mapping[str, Row]) -> list[str]:
    """Return the keys of the methods, that of the smallest Avg. Gap first."""
    keys = methods_of(rows)
    return sorted(keys, key=lambda key: getattr(rows[key].avg_gap, "mean", 0.0))
