"""Results of audits and of diffusion models as files hold them, typed and checked."""

import base64
import binascii
import itertools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field, structs

from jax_unlearn.audit.card import FigureCard, groups_of
from jax_unlearn.audit.figures import KINDS
from jax_unlearn.lab.schema import (
    ROUNDING,
    FieldError,
    Finite,
    NotNegative,
    Percent,
    Share,
    Whole,
)

__all__ = [
    "Amount",
    "Audit",
    "AuditFigure",
    "Detail",
    "GenerationResults",
    "GenerationRow",
    "GenerationRun",
    "Roc",
    "check_complete",
]

NULL = "null"  # the detail of Retrains against others
THIRDS = ("head", "mid", "tail")
PNG = b"\x89PNG\r\n\x1a\n"

Third = Literal["head", "mid", "tail"]
Numbers = Annotated[tuple[Finite, ...], Meta(min_length=1)]
Counts = Annotated[tuple[NotNegative, ...], Meta(min_length=1)]
Settings = dict[str, Any] | None
Gapped = tuple[Finite | None, ...]  # by class, None where there are no samples
Natural = Annotated[int, Meta(ge=1)]
Rates = Annotated[tuple[Share, ...], Meta(min_length=1)]
Signed = Annotated[float, Meta(ge=-1 - ROUNDING, le=1 + ROUNDING)]


class AuditFigure(Struct, frozen=True):
    """A figure of a method beside its target and, where there is one, the null."""

    value: Finite
    std: NotNegative | None
    target: Finite
    null_low: Finite | None
    null_high: Finite | None
    verdict: Literal["inside", "outside", ""]

    def __post_init__(self):
        low, high = self.null_low, self.null_high
        if low is None and high is None:
            if self.verdict:
                said = "without a null's interval"
                raise FieldError(f"verdict={self.verdict!r} {said}")
        elif low is None or high is None:
            raise FieldError(f"null_{'low' if low is None else 'high'} is missing")
        elif low > high + ROUNDING:
            raise FieldError(f"null_low={low} lies above null_high={high}")
        elif not self.verdict:
            raise FieldError("verdict is empty beside a null's interval")


class Roc(Struct, frozen=True):
    """A ROC curve."""

    fpr: Rates
    tpr: Rates

    def __post_init__(self):
        for name, rates in (("fpr", self.fpr), ("tpr", self.tpr)):
            if any(b < a for a, b in itertools.pairwise((0, *rates))):
                raise FieldError(f"{name} does not rise from 0 on")
        if len(self.fpr) != len(self.tpr):
            raise FieldError(f"tpr has {len(self.tpr)} points, fpr {len(self.fpr)}")


class Detail(Struct, frozen=True):
    """What is drawn of a method, or of the null."""

    roc: Roc | None
    epsilon: Counts | None
    groups: dict[Third, Signed]
    intervals: dict[str, tuple[Finite, Finite, Finite]] | None = None


class PlainCard(Struct, frozen=True, forbid_unknown_fields=True):
    """What a record keeps of a figure's card; not its functions."""

    label: str
    kind: Literal["level", "distance", "closeness"]
    meaning: str
    group: str
    source: str
    digits: Whole
    models: Natural


class Audit(Struct, frozen=True):
    """The record of an audit, as `jax_unlearn.audit.records.to_record` writes it."""

    figures: Annotated[
        dict[str, Annotated[dict[str, AuditFigure], Meta(min_length=1)]],
        Meta(min_length=1),
    ]
    details: dict[str, Detail]
    models: dict[str, Natural]
    retrained: Natural
    half: Whole
    resamples: Annotated[int, Meta(ge=2)]
    forgotten: Natural
    level: Annotated[float, Meta(gt=0, lt=1)]
    left_out: dict[str, str]
    plain: dict[str, PlainCard] | None = field(name="cards", default=None)

    @property
    def cards(self) -> dict[str, FigureCard]:
        """The cards that the figures are shown by: the library's and its own."""
        tells = {key: card.tells for key, card in KINDS.items()}
        return KINDS | {
            key: FigureCard(key=key, tells=tells.get(key, ""), **structs.asdict(plain))
            for key, plain in (self.plain or {}).items()
        }

    @property
    def grouped(self) -> dict[str, list[FigureCard]]:
        """The cards of the figures that it has, by group."""
        cards, known = self.cards, next(iter(self.figures.values()))
        shown = [card for key, card in cards.items() if key in known]
        groups = groups_of(shown).items()
        return {group: [cards[key] for key in keys] for group, keys in groups}

    @property
    def judged(self) -> bool:
        """Whether any figure has an interval of the null."""
        return any(f.verdict for of in self.figures.values() for f in of.values())

    def __post_init__(self):
        cards, first = self.cards, next(iter(self.figures))
        if NULL in self.figures:
            raise FieldError(f"figures.{NULL} is no method: that name is the null's")
        for name, figures in self.figures.items():
            for key, figure in figures.items():
                _check_known(key, cards, f"figures.{name}.{key}")
                _check_verdict(cards[key].kind, figure, f"figures.{name}.{key}")
            if set(figures) != set(self.figures[first]):
                raise FieldError(f"figures.{name} has other figures than {first}")
            for part in ("details", "models"):
                if name not in getattr(self, part):
                    raise FieldError(f"{part}.{name} is missing")
        for name, detail in self.details.items():
            at = f"details.{name}"
            if name != NULL and name not in self.figures:
                raise FieldError(f"{at} belongs to no method")
            for key, (_, low, high) in (detail.intervals or {}).items():
                _check_known(key, cards, f"{at}.intervals.{key}")
                if low > high + ROUNDING:
                    raise FieldError(f"{at}.intervals.{key} ends before it begins")
            if detail.epsilon and len(detail.epsilon) != self.forgotten:
                said = f"{len(detail.epsilon)} samples, forgotten={self.forgotten}"
                raise FieldError(f"{at}.epsilon has {said}")
        for key in self.left_out:
            _check_known(key, cards, f"left_out.{key}")


class Plan(Struct, frozen=True):
    """What was asked for."""

    title: str | None = None
    note: str | None = None
    kind: str | None = None
    gamma: float | None = None
    unseen: NotNegative | None = None  # below 1, a share
    seeds: tuple[int, ...] | None = None
    training: Settings = None
    sampling: Settings = None
    methods: dict[str, dict[str, Any]] | None = None
    forget_counts: tuple[int, ...] | None = None
    forgotten_sha256: str | None = None


class Data(Struct, frozen=True):
    """The data set."""

    name: str | None = None
    train: int | None = None
    test: int | None = None
    classes: tuple[str, ...] | None = None
    fingerprint: str | None = None


class Machine(Struct, frozen=True):
    """Where it ran."""

    device: str | None = None
    cores: int | None = None
    python: str | None = None
    versions: dict[str, str] | None = None


class Amount(Struct, frozen=True):
    """A figure that cannot be negative, in the mean over the runs."""

    mean: NotNegative
    std: NotNegative | None = None


class Judge(Struct, frozen=True):
    """The classifier that says what is in the images, on real ones."""

    accuracy: Percent
    by_class: tuple[Finite, ...] | None = None


class GenerationRow(Struct, frozen=True):
    """One diffusion model, in the mean over the runs."""

    ua: Amount
    retained_accuracy: Amount
    frechet: Amount
    forget_error: Amount
    retain_error: Amount
    seconds: Amount
    fid: Amount | None = None
    unseen_error: Amount | None = None


class RunAttack(Struct, frozen=True):
    """The held-out quality of a membership attack on denoising errors."""

    auc: Share
    standard_error: NotNegative
    better_than_chance: bool


class RunDetails(Struct, frozen=True):
    """What a method noted in one run."""

    attacks: dict[str, RunAttack] | None = None


class RunRow(Struct, frozen=True):
    """One diffusion model in one run."""

    ua: Percent
    retained_accuracy: Percent
    frechet: NotNegative
    by_class: Gapped
    fid: NotNegative | None = None
    forget_error: NotNegative | None = None
    unseen_error: NotNegative | None = None
    retain_error: NotNegative | None = None
    seconds: dict[str, NotNegative] | None = None
    details: RunDetails | None = None


class GenerationRun(Struct, frozen=True):
    """One forgotten class of one seed."""

    seed: Finite
    forgotten: Whole = field(name="class")
    rows: dict[str, RunRow]
    grids: dict[str, str] | None = None


class GenerationResults(Struct, frozen=True):
    """The results of an experiment with diffusion models."""

    kind: Literal["generation"]
    format: Literal[1]
    plan: Plan
    dataset: Data
    judge: Judge
    floor: dict[str, NotNegative]
    environment: Machine
    rows: Annotated[dict[str, GenerationRow], Meta(min_length=1)]
    runs: Annotated[tuple[GenerationRun, ...], Meta(min_length=1)]

    def __post_init__(self):
        check_complete(self, floor=("frechet",))
        for part, name in (("plan", "title"), ("dataset", "classes")):
            if not getattr(getattr(self, part), name):
                raise FieldError(f"{part}.{name} is missing")
        for key, row in self.rows.items():
            if "fid" in self.floor and row.fid is None:
                raise FieldError(f"rows.{key}.fid is missing")
        classes = len(self.dataset.classes or ())
        for n, run in enumerate(self.runs):
            if run.forgotten >= classes:
                said = f"lies outside [0, {classes - 1}]"
                raise FieldError(f"runs[{n}].class={run.forgotten} {said}")
            if set(run.rows) != set(self.rows):
                raise FieldError(f"runs[{n}].rows has other rows than rows")
            for key, row in run.rows.items():
                if len(row.by_class) != classes:
                    said = "by_class has not one share a class"
                    raise FieldError(f"runs[{n}].rows.{key}.{said}")
            for key, text in (run.grids or {}).items():
                _check_png(text, f"runs[{n}].grids.{key}")


def check_complete(record: Struct, **parts: Iterable[str]) -> None:
    """Refuse a mapping in a record that lacks a name.

    Args:
      record: that holds the mappings.
      **parts: by the name of each, what must be in it.

    Raises:
      FieldError: a name that is missing.
    """
    for part, names in parts.items():
        for name in names:
            if name not in getattr(record, part):
                raise FieldError(f"{part}.{name} is missing")


def _check_known(key: str, cards: Mapping[str, FigureCard], at: str) -> None:
    if key not in cards:
        said = "is no figure of this library, nor of a card in the record"
        raise FieldError(f"{at} {said}")


def _check_verdict(kind: str, figure: AuditFigure, at: str) -> None:
    """Refuse a verdict that the null's interval contradicts."""
    value, low, high = figure.value, figure.null_low, figure.null_high
    if low is None or high is None:
        return
    above = low - value if kind == "closeness" else value - high
    beyond = max(above, low - value if kind == "level" else above)
    inside = figure.verdict == "inside"
    if beyond > ROUNDING if inside else beyond < -ROUNDING:
        said = f"contradicts value={value} beside [{low}, {high}]"
        raise FieldError(f"{at}.verdict={figure.verdict!r} {said}")


def _check_png(text: str, at: str) -> None:
    try:
        start = base64.b64decode(text, validate=True)[: len(PNG)]
    except (binascii.Error, ValueError) as error:
        raise FieldError(f"{at} is no base64") from error
    if start != PNG:
        raise FieldError(f"{at} is no PNG")
