"""The catalogue of figures: what a whole audit computes, in the order shown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax_unlearn.audit.deviation import DEVIATION
from jax_unlearn.audit.evidence import FigureCard, groups_of
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
from jax_unlearn.errors import InputError, unknown_name

__all__ = ["DIVISIONS", "FIGURES", "GROUPS", "KINDS", "PROXIES", "cards_of"]
__all__ += ["chosen"]

FIGURES: tuple[FigureCard, ...] = (
    *(UA, RA, TA, MIA, MIA_ENTROPY, MIA_LOSS, AVG_GAP, TOW, TOW_MIA, DEVIATION),
    *(LIRA_ACCURACY, LIRA_AUC, LIRA_TPR_1, LIRA_TPR_01, RMIA_AUC, RMIA_TPR_1),
    *(FORGETTING_F, EPSILON, KLOM, KLOM_95),
)
"""The cards of all figures of the library; nothing else lists them."""

KINDS: dict[str, FigureCard] = {card.key: card for card in FIGURES}
"""The same by key."""

GROUPS: dict[str, tuple[str, ...]] = groups_of(FIGURES)
"""What can be asked for, and the figures it brings."""

DIVISIONS: dict[str, Divider] = {"memorisation": by_memorisation}
"""What can divide the forget samples into groups that are judged apart."""

PROXIES: dict[str, Callable[[Any, Any], Division]] = {"confidence": by_confidence}
"""What divides them by the originals alone."""


def cards_of(record: Mapping[str, Any]) -> dict[str, FigureCard]:
    """Return the cards of a record by key; the library's in one older than cards.

    >>> plain = {"label": "sure %", "digits": 1, "kind": "level", "meaning": ""}
    >>> cards_of({"cards": {"sure": {**plain, "group": "own"}}})["sure"].label
    'sure %'
    """
    stored = record.get("cards") or {}
    tells = {key: card.tells for key, card in KINDS.items()}
    return KINDS | {
        key: FigureCard(key=key, tells=tells.get(key, ""), **plain)
        for key, plain in stored.items()
    }


def chosen(
    metrics: Sequence[str | FigureCard] | None,
    figures: Sequence[FigureCard],
    half: int,
    parts: Mapping[str, Any],
) -> tuple[dict[str, FigureCard], dict[str, str]]:
    """Return the cards to compute, by key, and why others cannot be.

    Groups or cards may be asked for (`metrics`), of a catalogue (`figures`); `half`
    models are compared with as many, on `parts`. Refused are unknown groups, two cards
    of one key, and what is asked for and cannot be had.
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
        if key in asked and (reason := _lacking(card, half, parts))
    }
    for key, reason in left_out.items() if metrics is not None else ():
        raise InputError(f"metrics={asked[key]!r}: {catalogue[key].label} {reason}")
    found = {k: c for k, c in catalogue.items() if k in asked and k not in left_out}
    return found, left_out


def _lacking(card: FigureCard, half: int, parts: Mapping[str, Any]) -> str:
    """Return why a figure cannot be had; "" where it can."""
    need = max(card.models // 2, 1)
    if card.models > 1 and half < need:
        return (
            f"needs {need} unlearned models and {2 * need} Retrains or more, half of "
            f"them for the null; {half} can be compared"
        )
    reads = {part for each in (card, *card.levels) for part in each.reads}
    for part in sorted(reads - set(parts)):
        return f"needs outputs on {part} samples"
    return ""
