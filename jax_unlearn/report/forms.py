"""Results of audits and of diffusion models as files hold them, typed and checked."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field, structs

from jax_unlearn.audit.evidence import FEWEST, FigureCard, groups_of
from jax_unlearn.audit.figures import cards_of, headlines
from jax_unlearn.lab import schema
from jax_unlearn.lab.schema import ROUNDING, Cosine, FieldError, Finite, NotNegative

__all__ = ["NULL", "THIRDS", "Audit", "AuditFigure", "Counts", "Data", "Detail"]
__all__ += ["Gapped", "Groups", "Machine", "Numbers", "PlainCard", "Plan", "Roc"]
__all__ += ["Alone", "RuliSplit", "Settings", "Third", "check_complete", "reasons"]
__all__ += ["require"]

NULL = "null"  # the detail of Retrains against others
THIRDS = ("head", "mid", "tail")

Third = Literal["head", "mid", "tail"]
Numbers = Annotated[tuple[Finite, ...], Meta(min_length=1)]
Counts = Annotated[tuple[NotNegative, ...], Meta(min_length=1)]
Settings = dict[str, Any] | None
Gapped = tuple[Finite | None, ...]  # by class, None where there are no samples
Natural = Annotated[int, Meta(ge=1)]
Rates = Annotated[tuple[schema.Share, ...], Meta(min_length=1)]


class AuditFigure(Struct, frozen=True):
    """A figure of a method beside its target and, where there is one, the null."""

    value: Finite
    std: NotNegative | None
    target: Finite
    null_low: Finite | None
    null_high: Finite | None
    verdict: Literal["inside", "outside", ""]

    def __post_init__(self):
        low, high, verdict = self.null_low, self.null_high, self.verdict
        if low is None or high is None:
            missing = "low" if low is None else "high"
            require(low is high, f"null_{missing} is missing")
            require(not verdict, f"verdict={verdict!r} without a null's interval")
        else:
            said = f"null_low={low} lies above null_high={high}"
            require(low <= high + ROUNDING, said)
            require(verdict != "", "verdict is empty beside a null's interval")

    def check_verdict(self, kind: str, at: str) -> None:
        """Refuse a verdict that the null's interval contradicts."""
        value, low, high = self.value, self.null_low, self.null_high
        if low is None or high is None:
            return
        above = low - value if kind == "closeness" else value - high
        beyond = max(above, low - value if kind == "level" else above)
        contrary = beyond if self.verdict == "inside" else -beyond
        said = f"contradicts value={value} beside [{low}, {high}]"
        require(contrary <= ROUNDING, f"{at}.verdict={self.verdict!r} {said}")


class Roc(Struct, frozen=True):
    """A ROC curve."""

    fpr: Rates
    tpr: Rates

    def __post_init__(self):
        for name, rates in (("fpr", self.fpr), ("tpr", self.tpr)):
            rises = all(a <= b for a, b in itertools.pairwise((0, *rates)))
            require(rises, f"{name} does not rise from 0 on")
        counts = len(self.tpr), len(self.fpr)
        require(counts[0] == counts[1], "tpr has {} points, fpr {}".format(*counts))


class Detail(Struct, frozen=True):
    """What is drawn of a method, or of the null."""

    roc: Roc | None
    epsilon: Counts | None
    groups: dict[Third, Cosine]
    intervals: dict[str, tuple[Finite, Finite, Finite]] | None = None


class PlainCard(Struct, frozen=True, forbid_unknown_fields=True):
    """What a record keeps of a figure's card; not its functions."""

    label: str
    kind: Literal["level", "distance", "closeness"]
    meaning: str
    group: str
    source: str
    digits: schema.Whole
    models: Natural
    headline: bool | None = None  # earlier versions said nothing of it


class RuliSplit(Struct, frozen=True):
    """Forget samples by how well the originals exposed them."""

    vulnerable: Annotated[tuple[schema.Whole, ...], Meta(min_length=1)]
    protected: Annotated[tuple[schema.Whole, ...], Meta(min_length=1)]
    auc: Rates
    models: Natural


def reasons(
    left_out: Mapping[str, str], cards: Mapping[str, FigureCard]
) -> list[tuple[str, list[str]]]:
    """Return each reason why figures are left out, and their labels."""
    found: dict[str, list[str]] = {}
    for key, why in left_out.items():
        found.setdefault(why, []).append(cards[key].label)
    return list(found.items())


class Alone(Struct, frozen=True):
    """What attacks find on single models, as `attacked` writes it."""

    figures: dict[str, dict[str, Finite]]
    plain: dict[str, PlainCard] = field(name="cards")
    left_out: dict[str, str] = {}

    @property
    def cards(self) -> dict[str, FigureCard]:
        """The cards of the figures, and of those left out."""
        plain = {key: structs.asdict(card) for key, card in self.plain.items()}
        return cards_of({"cards": plain})

    def __post_init__(self):
        for key in (*self.left_out, *itertools.chain(*self.figures.values())):
            require(key in self.plain, f"cards.{key} is missing")


class Audit(Struct, frozen=True):
    """The record of an audit, as `jax_unlearn.audit.records.to_record` writes it."""

    figures: Annotated[
        dict[str, Annotated[dict[str, AuditFigure], Meta(min_length=1)]],
        Meta(min_length=1),
    ]
    models: dict[str, Natural]
    retrained: Natural
    half: schema.Whole
    resamples: Annotated[int, Meta(ge=2)]
    forgotten: Natural
    level: Annotated[float, Meta(gt=0, lt=1)]
    left_out: dict[str, str]
    plain: dict[str, PlainCard] | None = field(name="cards", default=None)
    split: RuliSplit | None = None
    originals: schema.Whole = 0  # 0: not known
    details: dict[str, Detail] = {}

    @property
    def cards(self) -> dict[str, FigureCard]:
        """The cards that the figures are shown by: the library's and its own."""
        plain = {key: structs.asdict(card) for key, card in (self.plain or {}).items()}
        return cards_of({"cards": plain})

    @property
    def grouped(self) -> dict[str, list[FigureCard]]:
        """The cards of the figures that it has, by group."""
        cards, known = self.cards, next(iter(self.figures.values()))
        shown = [card for key, card in cards.items() if key in known]
        groups = groups_of(shown).items()
        return {group: [cards[key] for key in keys] for group, keys in groups}

    @property
    def headline(self) -> list[FigureCard]:
        """The cards of the figures shown first; none where all may be."""
        return headlines([card for cards in self.grouped.values() for card in cards])

    @property
    def verdicts(self) -> set[str]:
        """The verdicts that there are."""
        made = {f.verdict for of in self.figures.values() for f in of.values()}
        return made - {""}

    @property
    def judged(self) -> bool:
        """Whether any figure has an interval of the null."""
        return bool(self.verdicts)

    def __post_init__(self):
        if self.retrained < FEWEST:  # earlier versions made verdicts of two
            ends = {"null_low": None, "null_high": None, "verdict": ""}
            bare = {
                name: {k: structs.replace(figure, **ends) for k, figure in own.items()}
                for name, own in self.figures.items()
            }
            structs.force_setattr(self, "figures", bare)
        if not self.details:
            bare = dict.fromkeys((*self.figures, NULL), Detail(None, None, {}))
            structs.force_setattr(self, "details", bare)
        cards, first = self.cards, next(iter(self.figures))
        known = "is no figure of this library, nor of a card in the record"
        taken = f"figures.{NULL} is no method: that name is the null's"
        require(NULL not in self.figures, taken)
        for name, figures in self.figures.items():
            for key, figure in figures.items():
                at = f"figures.{name}.{key}"
                require(key in cards, f"{at} {known}")
                figure.check_verdict(cards[key].kind, at)
            same = set(figures) == set(self.figures[first])
            require(same, f"figures.{name} has other figures than {first}")
            for part in ("details", "models"):
                require(name in getattr(self, part), f"{part}.{name} is missing")
        for name, detail in self.details.items():
            at = f"details.{name}"
            owned = name == NULL or name in self.figures
            require(owned, f"{at} belongs to no method")
            for key, (_, low, high) in (detail.intervals or {}).items():
                inside = f"{at}.intervals.{key}"
                require(key in cards, f"{inside} {known}")
                require(low <= high + ROUNDING, f"{inside} ends before it begins")
            count = len(detail.epsilon or ())
            said = f"{at}.epsilon has {count} samples, forgotten={self.forgotten}"
            require(count in (0, self.forgotten), said)
        if self.split is not None:
            ids = *self.split.vulnerable, *self.split.protected
            once = len(set(ids)) == len(ids) and max(ids) < self.forgotten
            said = "split names a forget sample twice, or one that there is not"
            require(once and len(self.split.auc) == self.forgotten, said)
        for key in self.left_out:
            require(key in cards, f"left_out.{key} {known}")


class Groups(Struct, frozen=True):
    """Figures by group of forget samples."""

    name: str
    meaning: str
    audits: Annotated[dict[str, Audit], Meta(min_length=1)]

    def __post_init__(self):
        first = next(iter(self.audits))
        for group, audit in self.audits.items():
            same = set(audit.figures) == set(self.audits[first].figures)
            require(same, f"audits.{group} has other methods than {first}")


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


def require(holds: bool, said: str) -> None:
    """Refuse a record that does not hold what it should, in words that name a field."""
    if not holds:
        raise FieldError(said)


def check_complete(record: Struct, **parts: Iterable[str]) -> None:
    """Refuse a mapping in a record that lacks one of so many names."""
    for part, names in parts.items():
        for name in names:
            require(name in getattr(record, part), f"{part}.{name} is missing")
