"""The card of a figure: what an audit shows of it, and how it is computed."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jax_unlearn._validate import one_of
from jax_unlearn.audit.evidence import Evidence
from jax_unlearn.errors import InputError

__all__ = ["FigureCard", "groups_of"]

READ_KINDS = ("level", "distance", "closeness")
TELLS = ("traces", "attack", "answers", "others", "gaps", "")
PLAIN = ("label", "digits", "kind", "meaning", "group", "models", "source")
"""What a record keeps of a card, so that a page can be made without its functions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureCard:
    """A figure of an audit, beside the function that computes it.

    A figure that each model has gives `alone`, one of two sets of models `against`.
    Cards with the same `against` share what it returns: it is called once for all.

    Attributes:
      key: its name in records.
      alone: `(models, seed) -> f64[N]`, of N models; such a figure is a level.
      against: `(models, others, seed) -> result`, of two sets of as many models.
      read: `result -> float`.
      label: its name for readers, with the unit.
      digits: after the point.
      kind: "level", whose target is Retrain's value; "distance", of which more is
        farther from Retrain; "closeness", of which less is. The target of the last two
        is what two sets of Retrains have, which is neither 0 nor 1.
      meaning: how it is to be read, in a line.
      group: what it is asked for by, together with others.
      tells: what a value outside the null's interval says in plain words: that an
        attack on many models finds "traces", or an "attack" on one model something;
        that models give other "answers" on the forgotten samples, or on "others"; that
        the "gaps" of the accuracies are wide; "": no more than its label.
      models: Retrains it needs, half of them for the null, and half as many unlearned
        models; 1 where one model beside one Retrain will do.
      reads: parts it reads beside forget, retain and test: "unseen".
      levels: cards of the levels that it is made of; `against` finds them in
        `Evidence.levels`, whether they are asked for or not.
      detail: `(models, others, level) -> fields of Detail`, what a report draws.
      source: where it is published.

    >>> card = FigureCard(
    ...     key="sure",
    ...     alone=lambda models, seed: (
    ...         100 * (models.confidence["forget"] > 0.9).mean(axis=1)
    ...     ),
    ...     label="sure %",
    ...     digits=1,
    ...     kind="level",
    ...     meaning="forget samples with a confidence over 0.9",
    ...     group="own",
    ... )
    >>> card.each, card.models
    (True, 1)
    """

    key: str
    alone: Callable[[Evidence, int], Any] | None = None
    against: Callable[[Evidence, Evidence, int], Any] | None = None
    read: Callable[[Any], float] = float
    label: str
    digits: int = 3
    kind: str = "distance"
    meaning: str
    group: str
    tells: str = ""
    models: int = 1
    reads: tuple[str, ...] = ()
    levels: tuple["FigureCard", ...] = ()
    detail: Callable[[Evidence, Evidence, float], Mapping[str, Any]] | None = None
    source: str = ""

    def __post_init__(self):
        one_of("kind", self.kind, READ_KINDS)
        one_of("tells", self.tells, TELLS)
        if (self.against if self.each else self.alone) is not None:
            raise InputError(
                f"figure {self.key!r} of kind={self.kind!r}, models={self.models}: a "
                "level with models=1 gives `alone`, any other figure `against`"
            )

    @property
    def each(self) -> bool:
        """Whether each model has a value of its own."""
        return self.kind == "level" and self.models == 1

    def plain(self) -> dict[str, Any]:
        """Return all but the functions, as a record keeps it."""
        return {name: getattr(self, name) for name in PLAIN}


def groups_of(cards: Iterable[FigureCard]) -> dict[str, tuple[str, ...]]:
    """Return the keys of each group, in their order."""
    groups: dict[str, tuple[str, ...]] = {}
    for card in cards:
        groups[card.group] = (*groups.get(card.group, ()), card.key)
    return groups
