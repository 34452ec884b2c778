"""The checks of an audit's record: figures, curves, numbers of models."""

import itertools
from collections.abc import Mapping
from typing import Any

from jax_unlearn.audit.card import PLAIN, READ_KINDS, FigureCard
from jax_unlearn.audit.figures import cards_of
from jax_unlearn.report._flaws import (
    ROUNDING,
    Flaw,
    check_count,
    check_number,
    get,
    mapping,
    numbers,
)

NULL = "null"  # the detail of Retrains against others
THIRDS = ("head", "mid", "tail")
VERDICTS = ("inside", "outside", "")


def check_audit(record: Any, at: str = "audit") -> None:
    """Refuse an audit's record that no page can be made of.

    Args:
      record: of `jax_unlearn.audit.auditor.to_record`.
      at: what a flaw calls it.

    Raises:
      Flaw: a key that is missing, unknown, or does not hold what it should.

    >>> check_audit({"figures": {}})
    Traceback (most recent call last):
    jax_unlearn.report._flaws.Flaw: audit.figures is empty
    """
    figures = mapping(get(mapping(record, at), "figures", at), f"{at}.figures")
    if not figures:
        raise Flaw(f"{at}.figures is empty")
    _check_cards(record, f"{at}.cards")
    cards = cards_of(record)
    first = next(iter(figures))
    for name, found in figures.items():
        place = f"{at}.figures.{name}"
        if name == NULL:
            raise Flaw(f"{place} is no method: that name is the null's")
        _check_figures(found, cards, place)
        if set(found) != set(figures[first]):
            raise Flaw(f"{place} has other figures than {first}")
    forgotten = check_count(record, "forgotten", at, least=1)
    details = mapping(get(record, "details", at), f"{at}.details")
    for name in figures:
        get(details, name, f"{at}.details")
    for name, detail in details.items():
        if name != NULL and name not in figures:
            raise Flaw(f"{at}.details.{name} belongs to no method")
        _check_detail(detail, f"{at}.details.{name}", forgotten)
        for key in detail.get("intervals") or {}:
            _check_known(key, cards, f"{at}.details.{name}.intervals.{key}")
    models = mapping(get(record, "models", at), f"{at}.models")
    for name in figures:
        check_count(models, name, f"{at}.models", least=1)
    for name, least in (("retrained", 1), ("half", 0), ("resamples", 2)):
        check_count(record, name, at, least=least)
    level = check_number(record, "level", at)
    if not 0 < level < 1:
        raise Flaw(f"{at}.level={level} lies outside (0, 1)")
    left_out = mapping(get(record, "left_out", at), f"{at}.left_out")
    for key, reason in left_out.items():
        _check_known(key, cards, f"{at}.left_out.{key}")
        if not isinstance(reason, str):
            raise Flaw(f"{at}.left_out.{key} is no text")


def _check_cards(record: Any, at: str) -> None:
    """Check the cards that a record brings; one of before there were cards has none."""
    for key, card in mapping(record.get("cards") or {}, at).items():
        place = f"{at}.{key}"
        for name in ("label", "kind", "meaning", "group", "source"):
            if not isinstance(get(mapping(card, place), name, place), str):
                raise Flaw(f"{place}.{name} is no text")
        if card["kind"] not in READ_KINDS:
            raise Flaw(f"{place}.kind={card['kind']!r} is unknown")
        check_count(card, "digits", place, least=0)
        check_count(card, "models", place, least=1)
        if more := set(card) - set(PLAIN):
            raise Flaw(f"{place}.{min(more)} is unknown")


def _check_known(key: str, cards: Mapping[str, FigureCard], at: str) -> None:
    if key not in cards:
        raise Flaw(f"{at} is no figure of this library, nor of a card in the record")


def _check_figures(found: Any, cards: Mapping[str, FigureCard], at: str) -> None:
    if not mapping(found, at):
        raise Flaw(f"{at} is empty")
    for key, figure in found.items():
        place = f"{at}.{key}"
        _check_known(key, cards, place)
        _check_figure(cards[key].kind, mapping(figure, place), place)


def _check_figure(kind: str, figure: Mapping, at: str) -> None:
    value = check_number(figure, "value", at)
    check_number(figure, "target", at)
    if get(figure, "std", at) is not None:
        check_number(figure, "std", at, low=0)
    verdict = get(figure, "verdict", at)
    if verdict not in VERDICTS:
        raise Flaw(f"{at}.verdict={verdict!r} is unknown")
    ends = [get(figure, name, at) for name in ("null_low", "null_high")]
    if ends == [None, None]:
        if verdict:
            raise Flaw(f"{at}.verdict={verdict!r} without a null's interval")
        return
    low, high = (check_number(figure, n, at) for n in ("null_low", "null_high"))
    if low > high + ROUNDING:
        raise Flaw(f"{at} has null_low={low} above null_high={high}")
    if not verdict:
        raise Flaw(f"{at}.verdict is empty beside a null's interval")
    above = value - high if kind != "closeness" else low - value
    below = low - value if kind == "level" else above
    beyond = max(above, below)
    if beyond > ROUNDING if verdict == "inside" else beyond < -ROUNDING:
        raise Flaw(
            f"{at}.verdict={verdict!r} contradicts value={value} beside [{low}, {high}]"
        )


def _check_detail(detail: Any, at: str, forgotten: int) -> None:
    mapping(detail, at)
    if get(detail, "roc", at) is not None:
        _check_roc(detail["roc"], f"{at}.roc")
    if get(detail, "epsilon", at) is not None:
        epsilon = numbers(detail["epsilon"])
        if epsilon is None or min(epsilon) < 0:
            raise Flaw(f"{at}.epsilon is no list of numbers from 0 on")
        if len(epsilon) != forgotten:
            raise Flaw(
                f"{at}.epsilon has {len(epsilon)} samples, audit.forgotten={forgotten}"
            )
    groups = mapping(get(detail, "groups", at), f"{at}.groups")
    for name in groups:
        if name not in THIRDS:
            raise Flaw(f"{at}.groups.{name} is none of head, mid, tail")
        check_number(groups, name, f"{at}.groups", low=-1, high=1)
    for key, ends in mapping(detail.get("intervals") or {}, f"{at}.intervals").items():
        values = numbers(ends)
        if values is None or len(values) != 3 or values[1] > values[2] + ROUNDING:
            raise Flaw(f"{at}.intervals.{key} is no value with an interval")


def _check_roc(roc: Any, at: str) -> None:
    lengths = []
    for name in ("fpr", "tpr"):
        values = numbers(get(mapping(roc, at), name, at))
        if values is None:
            raise Flaw(f"{at}.{name} is no list of numbers")
        if min(values) < 0 or max(values) > 1 + ROUNDING:
            raise Flaw(f"{at}.{name} leaves [0, 1]")
        if any(b < a for a, b in itertools.pairwise(values)):
            raise Flaw(f"{at}.{name} does not rise")
        lengths.append(len(values))
    if lengths[0] != lengths[1]:
        raise Flaw(f"{at} has {lengths[0]} points of fpr, {lengths[1]} of tpr")
