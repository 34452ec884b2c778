"""The whole audit: every figure beside its target, the null and a verdict."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_unlearn._validate import at_least
from jax_unlearn.audit import _checks
from jax_unlearn.audit.evidence import (
    FEWEST,
    Evidence,
    FigureCard,
    ModelOutputs,
    PartLabels,
    evidence,
    judged,
    select,
)
from jax_unlearn.audit.figures import FIGURES, KINDS, chosen
from jax_unlearn.audit.rates import quantiles, student
from jax_unlearn.audit.records import Audit, Detail, Figure, audit_table, to_record
from jax_unlearn.audit.vulnerable import held_out_split
from jax_unlearn.errors import InputError, unknown_name

__all__ = ["Audit", "Detail", "Figure", "audit", "audit_table", "to_record"]

TABLED = ("ua", "ra", "ta", "mia", "avg_gap", "tow", "deviation")  # in any table
SMALL = 16  # Retrains, below which the divisions of them show too little spread


def audit(
    unlearned: Mapping[str, ModelOutputs | Evidence] | ModelOutputs,
    retrained: ModelOutputs | Evidence,
    labels: PartLabels,
    *,
    kind: str = "logits",
    metrics: Sequence[str | FigureCard] | None = None,
    figures: Sequence[FigureCard] = FIGURES,
    originals: str | ModelOutputs | None = None,
    level: float = 0.95,
    resamples: int = 20,
    seed: int = 0,
) -> Audit:
    """Audit unlearned models against models that never saw the forget samples.

    Plain arrays of outputs, of any framework. All models are of ONE request: the same
    forget, retain, test and unseen samples. From three Retrains on every figure has a
    null and a verdict; with fewer it has neither. For a level the interval is target ±
    t·s·√(1/N + 1/M), s the standard deviation of the M Retrains (of a percentage of n
    samples at least that of rounding, 100/(n√12)), t Student's quantile with M - 1
    degrees of freedom. Distances between ensembles depend on their size; so
    value and null are both taken between h = min(N, ⌊M/2⌋) models and as many Retrains:
    the Retrains are divided at random, `resamples` times, and the interval holds the
    middle `level` of the distances of one half from the other (our choice). Of fewer
    than 16 Retrains the divisions repeat each other; there it is at least their mean ±
    t·s·√(1 + 1/M), s their standard deviation. No interval leaves the bounds that the
    figure's card states. "Inside" says that so many models do not tell the method from
    Retrain, not that they are equal; of many figures some fall outside by chance.
    `audit_table` lays them out.

    Args:
      unlearned: outputs of the unlearned models, of one method or by name.
      retrained: outputs of the Retrains, each from another seed.
      labels: true classes.
      kind: of the outputs, "logits" or "probabilities".
      metrics: groups of figures by name (`ju.audit.GROUPS`), or cards of your own; None
        takes all of `figures` that the number of models allows.
      figures: cards of what there is: `(*ju.audit.FIGURES, MINE)` adds one.
      originals: outputs of the originals, or which of `unlearned` they are: number i is
        what model i of every method comes from, or one is what all come from. The
        difference attack reads them, and RULI's split, made by the first third of
        them and of the Retrains (4 or more), which are then not judged.
      level: of the intervals, in (0, 1).
      resamples: divisions for the null, 2 or more.
      seed: of the divisions and of the attacks' samples.

    Raises:
      InputError: outputs with NaN, labels and outputs of different length, an unknown
        metric, fewer models than a metric asked for needs, a figure of your own that is
        not finite.

    >>> rng = np.random.default_rng(0)
    >>> def models(shift):
    ...     return ModelOutputs(*(rng.normal(shift, 1, (8, 30, 2)) for _ in range(3)))
    >>> truth = PartLabels(*(np.arange(30) % 2 for _ in range(3)))
    >>> found = audit(models(0.0), models(0.0), truth, metrics=["deviation"])
    >>> list(found.figures["unlearned"])
    ['deviation']
    """
    _checks.level(level)
    at_least("resamples", resamples, 2, "try 20")
    if metrics is not None and not metrics:
        raise InputError(f"metrics={list(metrics)}: name one, or leave it out for all")
    if isinstance(unlearned, ModelOutputs):
        unlearned = {"unlearned": unlearned}
    if not unlearned or "null" in unlearned:
        raise InputError(
            f"unlearned={sorted(unlearned)}: name one method or more, none of them "
            "'null'"
        )
    checked = functools.partial(evidence, labels=labels, kind=kind)
    target = checked("retrained", retrained)
    methods = {name: checked(name, given) for name, given in unlearned.items()}
    for name, found in methods.items():
        if found.shapes != target.shapes:
            raise InputError(
                f"{name} has parts of shape {found.shapes}, retrained {target.shapes}; "
                "give the same samples and classes"
            )
    before = methods.get(originals) if isinstance(originals, str) else None
    if isinstance(originals, ModelOutputs):
        before = checked("originals", originals)
    elif originals is not None and before is None:
        raise unknown_name("method", originals, methods)
    if before is not None:
        methods = {name: _paired(name, own, before) for name, own in methods.items()}
        target = _coming_from(target, before)
    sizes = {name: found.models for name, found in methods.items()}
    half = min(*sizes.values(), target.models // 2)
    split = held_out_split(before, target, seed)
    held = 0 if split is None else split.models
    pairs = min(*sizes.values(), (target.models - held) // 2) if held else 0
    pairs = min(pairs, *(size - held for size in sizes.values()))
    cards, left_out = chosen(metrics, figures, half, target.sizes, pairs)
    ways = level, resamples, seed
    own = {key: card for key, card in cards.items() if not card.within}
    table, details = _tabulated(methods, target, own, half, *ways)
    if split is not None:
        for group in ("vulnerable", "protected"):
            own = {key: card for key, card in cards.items() if card.within == group}
            rest = held, getattr(split, group)
            models = {name: judged(found, *rest) for name, found in methods.items()}
            more, _ = _tabulated(models, judged(target, *rest), own, pairs, *ways)
            table = {name: found | more[name] for name, found in table.items()}
    settings = half, resamples, float(level), len(target.labels["forget"])
    ordered = {
        name: {key: found[key] for key in cards} for name, found in table.items()
    }
    cards |= {card.key: card for card in figures if card.key in left_out}
    if not any(card.within and key not in left_out for key, card in cards.items()):
        split = None
    count = 0 if before is None else before.models
    more = left_out, cards, split, count
    return Audit(ordered, details, sizes, target.models, *settings, *more)


def alone(
    models: Mapping[str, ModelOutputs],
    labels: PartLabels,
    *,
    original: str,
    target: str | None = None,
    null: str | None = None,
    seed: int = 0,
) -> tuple[dict[str, dict[str, float]], dict[str, FigureCard], dict[str, str]]:
    """Return what attacks find on single models, beside one Retrain, two or none.

    Of probabilities by name; all models come from the `original` among them. The value
    of the Retrain that is called `target` is the target of a level, that of another
    (`null`) shows how far two are apart; a distance is each model's from the target.
    What tables of models hold anyway is not repeated.

    Returns the figures by model, the cards of these and of those left out, and why.
    """
    found = {k: evidence(k, m, labels, kind="probabilities") for k, m in models.items()}
    found = {k: _coming_from(own, found[original]) for k, own in found.items()}
    asked = [card for card in FIGURES if card.key not in TABLED]
    half, sizes = int(null is not None), found[original].sizes
    cards, left_out = chosen(None, asked, half, sizes)
    if target is None:
        far = [key for key, card in cards.items() if not card.each]
        left_out |= dict.fromkeys(far, "needs a Retrain")
        cards = {key: card for key, card in cards.items() if key not in far}
    goal = None if target is None else _with_levels(found[target], cards, seed)
    figures = {}
    for name, own in found.items():
        own = _with_levels(own, cards, seed)
        far = {} if goal is None or name == target else _between(own, goal, cards, seed)
        figures[name] = {
            key: float(own.levels[key][0]) if card.each else far[key]
            for key, card in cards.items()
            if card.each or key in far
        }
    return figures, cards | {key: KINDS[key] for key in left_out}, left_out


def _paired(name: str, models: Evidence, originals: Evidence) -> Evidence:
    """Return models beside the originals that they come from, number by number."""
    if originals.models not in (1, models.models):
        raise InputError(
            f"{name} has {models.models} models and originals {originals.models}: "
            "model i of a method comes from original i; give as many, or the one that "
            "all come from"
        )
    return _coming_from(models, originals)


def _coming_from(models: Evidence, originals: Evidence) -> Evidence:
    """Return models beside originals, which are taken in turn."""
    numbers = np.arange(models.models) % originals.models
    return models._replace(before=select(originals, numbers))


def _tabulated(
    methods: Mapping[str, Evidence],
    target: Evidence,
    cards: Mapping[str, FigureCard],
    half: int,
    level: float,
    resamples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Figure]], dict[str, Detail]]:
    """Return figures and what is drawn, by method; the null's with half a pair."""
    target = _with_levels(target, cards, seed)
    rng = _checks.generator(seed, 0)
    orders = [rng.permutation(target.models) for _ in range(resamples if half else 0)]
    draws = [(order[:half], order[half : 2 * half]) for order in orders]
    null = [_between(*_sides(target, target, d), cards, seed) for d in draws]
    table, details = {}, {}
    for name, found in methods.items():
        models = _with_levels(found, cards, seed)
        rng = _checks.generator(seed, 1)  # whatever else is audited
        pairs = [(rng.permutation(models.models)[:half], b) for _, b in draws]
        if not draws:  # a single Retrain: all models beside it
            pairs = [(np.arange(models.models), np.zeros(models.models, np.int64))]
        values = [_between(*_sides(models, target, p), cards, seed) for p in pairs]
        table[name] = {
            key: _level(models.levels[key], target, card, level)
            if card.each
            else _distance(
                [v[key] for v in values],
                [v[key] for v in null],
                card,
                level,
                target.models,
            )
            for key, card in cards.items()
        }
        details[name] = _detail(*_sides(models, target, pairs[0]), cards, level)
    if draws:
        details["null"] = _detail(*_sides(target, target, draws[0]), cards, level)
    return table, details


def _sides(
    models: Evidence, others: Evidence, pair: tuple[np.ndarray, np.ndarray]
) -> tuple[Evidence, Evidence]:
    return select(models, pair[0]), select(others, pair[1])


def _with_levels(found: Evidence, cards: Mapping[str, Any], seed: int) -> Evidence:
    """Add what each model has, of the figures and of what they are made of."""
    levels = {}
    for card in itertools.chain(*((*c.levels, c) for c in cards.values())):
        if card.alone is not None and card.key not in levels:
            values = np.asarray(card.alone(found, seed), np.float64)
            if values.shape != (found.models,) or not np.isfinite(values).all():
                words = f"{found.models} models is {str(values.tolist())[:60]}"
                raise InputError(
                    f"figure {card.key!r} of {words}; let `alone` return a finite "
                    "number each"
                )
            levels[card.key] = values
    return found._replace(levels=levels)


def _between(
    models: Evidence, others: Evidence, cards: Mapping[str, FigureCard], seed: int
) -> dict[str, float]:
    """Return what is measured between two sets of as many models."""
    against = functools.cache(lambda measure: measure(models, others, seed))
    found = {}
    for key, card in cards.items():
        if card.against is None:
            continue
        found[key] = float(card.read(against(card.against)))
        if not np.isfinite(found[key]):
            raise InputError(
                f"figure {key!r} is {found[key]}; let `against` return a finite number"
            )
    return found


def _distance(
    values: Sequence[float],
    null: Sequence[float],
    card: FigureCard,
    level: float,
    retrained: int,
) -> Figure:
    """Return a figure of sets of models, with the interval of the null's draws."""
    value = float(np.mean(values))
    target = float(np.mean(null) if null else card.kind == "closeness")
    if retrained < FEWEST:
        return Figure(value, None, target, None, None, "")
    low, high = quantiles(np.array(null), level)
    if retrained < SMALL:
        spread = np.std(null, ddof=1) * np.sqrt(1 + 1 / retrained)
        reach = float(student(level, retrained) * spread)
        low, high = min(low, target - reach), max(high, target + reach)
    beyond = {"distance": value > high, "closeness": value < low}
    outside = beyond.get(card.kind, not low <= value <= high)
    return Figure(
        value, None, target, *_judged(low, high, card.bounds, card.kind, outside)
    )


def _level(
    values: np.ndarray, others: Evidence, card: FigureCard, level: float
) -> Figure:
    samples = len(others.labels[card.counts]) if card.counts else 0
    how = {"samples": samples, "bounds": card.bounds, "level": level}
    return level_figure(values, others.levels[card.key], **how)


def level_figure(
    values: np.ndarray,
    retrained: np.ndarray,
    *,
    samples: int = 0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    level: float = 0.95,
) -> Figure:
    """Return a level with Student's interval from the spread of the Retrains.

    Where it counts n samples it moves in steps of 100/n, and a few Retrains may agree
    by chance: their spread is at least that of rounding to a step, 100/(n√12).
    """
    mean, goal = float(values.mean()), float(retrained.mean())
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    if len(retrained) < FEWEST:
        return Figure(mean, std, goal, None, None, "")
    least = 100 / samples / 12**0.5 if samples else 0.0
    spread = max(retrained.std(ddof=1), least)
    reach = float(student(level, len(retrained)) * spread)
    reach *= float(np.sqrt(1 / len(values) + 1 / len(retrained)))
    outside = abs(mean - goal) > reach + 1e-9
    ends = goal - reach, goal + reach
    return Figure(mean, std, goal, *_judged(*ends, bounds, "level", outside))


def _judged(
    low: float, high: float, bounds: tuple[float, float], kind: str, outside: bool
) -> tuple[float | None, float | None, str]:
    """Return the interval within the figure's bounds, and the verdict.

    There is neither where nothing that the figure can be lies outside.
    """
    least, most = bounds
    above, below = high >= most, low <= least  # nothing is there
    empty = {"distance": above, "closeness": below}.get(kind, above and below)
    if empty:
        return None, None, ""
    return max(low, least), min(high, most), "outside" if outside else "inside"


def _detail(
    models: Evidence, others: Evidence, cards: Mapping[str, FigureCard], level: float
) -> Detail:
    detail = Detail(None, None, {}, {})
    for card in cards.values():
        if card.detail is not None:
            detail = detail._replace(**card.detail(models, others, level))
    return detail
