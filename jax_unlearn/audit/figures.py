"""The catalogue of figures: what a whole audit computes, in the order shown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jax_unlearn.audit.deviation import DEVIATION
from jax_unlearn.audit.difference import (
    DIFFERENCE_AUC,
    DIFFERENCE_RETAIN_AUC,
    DIFFERENCE_TPR_1,
    DROP_AUC,
    DROP_RETAIN_AUC,
)
from jax_unlearn.audit.evidence import FigureCard, groups_of
from jax_unlearn.audit.exposure import RETAIN_AUC, RETAIN_TPR_1
from jax_unlearn.audit.forgetting import EPSILON, FORGETTING_F
from jax_unlearn.audit.klom import KLOM, KLOM_95
from jax_unlearn.audit.lira import LIRA_ACCURACY, LIRA_AUC, LIRA_TPR_01, LIRA_TPR_1
from jax_unlearn.audit.membership import MIA, MIA_ENTROPY, MIA_LOSS
from jax_unlearn.audit.memorisation import (
    Divider,
    Division,
    by_confidence,
    by_memorisation,
)
from jax_unlearn.audit.metrics import AVG_GAP, RA, TA, TOW, TOW_MIA, UA
from jax_unlearn.audit.rmia import RMIA_AUC, RMIA_TPR_1
from jax_unlearn.audit.vulnerable import LEAST, SPLIT, by_vulnerability
from jax_unlearn.errors import InputError, unknown_name

__all__ = ["DIVISIONS", "FIGURES", "GROUPS", "KINDS", "PROXIES", "cards_of"]
__all__ += ["chosen", "headlines", "needed", "unmet"]

FEW = 3  # figures that are not worth a table of their own

FIGURES: tuple[FigureCard, ...] = (
    *(UA, RA, TA, MIA, MIA_ENTROPY, MIA_LOSS, AVG_GAP, TOW, TOW_MIA, DEVIATION),
    *(LIRA_ACCURACY, LIRA_AUC, LIRA_TPR_1, LIRA_TPR_01, RMIA_AUC, RMIA_TPR_1),
    *(FORGETTING_F, EPSILON, KLOM, KLOM_95),
    *SPLIT,
    *(RETAIN_AUC, RETAIN_TPR_1),
    *(DROP_AUC, DROP_RETAIN_AUC),
    *(DIFFERENCE_AUC, DIFFERENCE_TPR_1, DIFFERENCE_RETAIN_AUC),
)
"""The cards of all figures of the library; nothing else lists them."""

KINDS: dict[str, FigureCard] = {card.key: card for card in FIGURES}
"""The same by key."""

GROUPS: dict[str, tuple[str, ...]] = groups_of(FIGURES)
"""What can be asked for, and the figures it brings."""

DIVISIONS: dict[str, Divider] = {
    "memorisation": by_memorisation,
    "vulnerability": by_vulnerability,
}
"""What can divide the forget samples into groups that are judged apart."""

NEEDS = {"memorisation": 2, "vulnerability": 2 * LEAST}
"""Originals and Retrains, half of which divide."""

PROXIES: dict[str, Callable[[Any, Any], Division]] = {"confidence": by_confidence}
"""What divides them by the originals alone."""


def cards_of(record: Mapping[str, Any]) -> dict[str, FigureCard]:
    """Return the cards of a record by key; the library's in one older than cards.

    >>> plain = {"label": "sure %", "digits": 1, "kind": "level", "meaning": ""}
    >>> cards_of({"cards": {"sure": {**plain, "group": "own"}}})["sure"].label
    'sure %'
    """
    stored = record.get("cards") or {}
    found = dict(KINDS)
    for key, plain in stored.items():
        given = {name: value for name, value in plain.items() if value is not None}
        known = KINDS.get(key)  # what a record does not say
        told = {"tells": known.tells, "headline": known.headline} if known else {}
        found[key] = FigureCard(key=key, **{**told, **given})
    return found


def headlines(cards: Sequence[FigureCard]) -> list[FigureCard]:
    """Return the few cards shown first, and one's own; none where that leaves few.

    >>> [card.key for card in headlines(FIGURES)][:5]
    ['ua', 'ra', 'ta', 'mia', 'deviation']
    """
    first = [card for card in cards if card.headline or card.key not in KINDS]
    return first if len(first) + FEW < len(cards) else []


def chosen(
    metrics: Sequence[str | FigureCard] | None,
    figures: Sequence[FigureCard],
    half: int,
    parts: Mapping[str, int],
    judged: int = 0,
) -> tuple[dict[str, FigureCard], dict[str, str]]:
    """Return the cards to compute, by key, and why others cannot be.

    Groups or cards may be asked for (`metrics`), of a catalogue (`figures`); `half`
    models are compared with as many, on parts of so many samples, and `judged` with as
    many beside those that divide the forget samples. Refused are unknown groups, two
    cards of one key, and what is asked for and cannot be had.
    """
    own = [card for card in metrics or () if isinstance(card, FigureCard)]
    catalogue = {card.key: card for card in (*figures, *own)}
    for card in (*figures, *own):
        if card != catalogue[card.key]:
            raise InputError(f"two figures have the key {card.key!r}; rename yours")
        if card.alone is None and card.against is None:
            raise InputError(f"figure {card.key!r} gives neither `alone` nor `against`")
    groups = groups_of(catalogue.values())
    asked: dict[str, str] = {}  # by whom
    for name in metrics or groups:
        if isinstance(name, FigureCard):
            asked[name.key] = name.key
        elif name in groups:
            asked |= dict.fromkeys(groups[name], name)
        else:
            raise unknown_name("metric", name, groups)
    left_out = {
        key: reason
        for key, card in catalogue.items()
        if key in asked
        and (reason := _lacking(card, judged if card.within else half, parts))
    }
    for key, reason in left_out.items() if metrics is not None else ():
        raise InputError(f"metrics={asked[key]!r}: {catalogue[key].label} {reason}")
    found = {k: c for k, c in catalogue.items() if k in asked and k not in left_out}
    return found, left_out


def _lacking(card: FigureCard, half: int, parts: Mapping[str, int]) -> str:
    """Return why a figure cannot be had; "" where it can."""
    reads = {part: each for each in (card, *card.levels) for part in each.reads}
    if "original" in reads and "original" not in parts:
        return "needs outputs of the original that each model comes from"
    for part in sorted(reads.keys() - {"original"}):
        if part not in parts:
            return f"needs outputs on {part} samples"
        if parts[part] < (least := reads[part].least):
            return f"needs {least} {part} samples; there are {parts[part]}"
    need, (own, retrained) = max(card.models // 2, 1), needed(card)
    if card.within and half < need:
        return (
            f"needs {own} originals and unlearned models and {retrained} Retrains or "
            f"more, {LEAST} of either to divide the samples; {max(half, 0)} can be "
            "compared beside those"
        )
    if card.models > 1 and half < need:
        return (
            f"needs {own} unlearned models and {retrained} Retrains or more, half of "
            f"them for the null; {half} can be compared"
        )
    return ""


def needed(card: FigureCard) -> tuple[int, int]:
    """Return how many unlearned models and how many Retrains a figure takes.

    >>> needed(LIRA_AUC), needed(RA)
    ((4, 8), (1, 1))
    """
    need, divide = max(card.models // 2, 1), LEAST if card.within else 0
    many = card.models > 1 or divide
    return divide + need, divide + (2 * need if many else 1)


def unmet(cards: Iterable[FigureCard], retrained: int) -> str:
    """Return which groups of figures take more models than one and some Retrains.

    >>> unmet([RA, KLOM, LIRA_AUC], 2)
    'klom from 2 unlearned models and 4 Retrains on, u_lira from 4 and 8'
    """
    groups: dict[tuple[int, int], dict[str, None]] = {}
    for card in cards:
        own, least = needed(card)
        if (card.models > 1 or card.within) and (own > 1 or least > retrained):
            groups.setdefault((own, least), {})[card.group] = None
    said, shown, words = [], set(), (" unlearned models", " Retrains on")
    for (own, least), names in sorted(groups.items()):
        fresh = [name for name in names if name not in shown]
        shown |= set(fresh)
        if fresh:
            many = words[0][: -1 if own == 1 else None]
            said.append(f"{', '.join(fresh)} from {own}{many} and {least}{words[1]}")
            words = "", ""
    return ", ".join(said)
