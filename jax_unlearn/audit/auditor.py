"""The whole audit: every figure beside its target, the null and a verdict."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.audit.evidence import (
    Evidence,
    ModelOutputs,
    PartLabels,
    evidence,
    select,
)
from jax_unlearn.audit.figures import (
    GROUPS,
    KINDS,
    PAIRED,
    compared,
    group_deviation,
    paired,
    per_model,
)
from jax_unlearn.audit.forgetting import example_epsilon
from jax_unlearn.audit.lira import u_lira
from jax_unlearn.audit.rates import Roc, check_level, quantiles
from jax_unlearn.errors import InputError, unknown_name


class Figure(NamedTuple):
    """One figure of one method.

    Attributes:
      value: of the method.
      std: over its models, None for a figure of a whole ensemble or a single model.
      target: Retrain's value of a level; that of the null for the others.
      null_low, null_high: where a method that is only another Retrain lies at the
        chosen level; None with fewer than two Retrains.
      verdict: "inside" or "outside" of the null's interval; "" where there is none. A
        distance below the interval, and a closeness above it, are inside.
    """

    value: float
    std: float | None
    target: float
    null_low: float | None
    null_high: float | None
    verdict: str


class Detail(NamedTuple):
    """What is drawn of one method, and of the null.

    Attributes:
      roc: of U-LiRA, None with too few models.
      epsilon: of each forget sample, `f64[F]`, None with too few models.
      groups: mean of p - p* by head, mid and tail; may be empty.
      intervals: of U-LiRA's figures in this division: value and interval, the AUC's by
        bootstrap over samples, the rates' Clopper-Pearson's (see `u_lira`); or empty.
    """

    roc: Roc | None
    epsilon: np.ndarray | None
    groups: dict[str, float]
    intervals: dict[str, tuple[float, float, float]]


class Audit(NamedTuple):
    """All figures of one or more methods.

    Attributes:
      figures: by method, then by key of `KINDS`.
      details: by method; "null" is that of Retrains against others.
      models: number of models of each method.
      retrained: number of Retrains.
      half: models of either side in the figures of ensembles.
      resamples: divisions of the Retrains that the null is drawn from.
      level: of the null's intervals.
      forgotten: number of forget samples.
      left_out: figures that could not be had, with the reason.
    """

    figures: dict[str, dict[str, Figure]]
    details: dict[str, Detail]
    models: dict[str, int]
    retrained: int
    half: int
    resamples: int
    level: float
    forgotten: int
    left_out: dict[str, str]


def audit(
    unlearned: Mapping[str, ModelOutputs] | ModelOutputs,
    retrained: ModelOutputs,
    labels: PartLabels,
    *,
    kind: str = "logits",
    metrics: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 20,
    seed: int = 0,
) -> Audit:
    """Audit unlearned models against models that never saw the forget samples.

    Plain arrays of outputs, of any framework. All models are of ONE request: the same
    forget, retain, test and unseen samples. From two Retrains on every figure has a
    null. For a level the interval is target ± t·s·√(1/N + 1/M), s the standard
    deviation of the M Retrains. Distances between ensembles depend on their size; so
    value and null are both taken between h = min(N, ⌊M/2⌋) models and as many
    Retrains: the Retrains are divided at random, `resamples` times, and the interval
    holds the middle `level` of the distances of one half from the other (our choice).
    "Inside" says that so many models do not tell the method from Retrain, not that
    they are equal; of many figures some fall outside by chance.

    Args:
      unlearned: outputs of the unlearned models, of one method or by name.
      retrained: outputs of the Retrains, each from another seed.
      labels: true classes.
      kind: of the outputs, "logits" or "probabilities".
      metrics: groups of figures: "standard", "mia", "deviation", "u_lira", "rmia",
        "forgetting", "klom"; None takes what the number of models allows.
      level: of the intervals, in (0, 1).
      resamples: divisions for the null, 2 or more.
      seed: of the divisions and of the attacks' samples.

    Returns:
      `Audit`; `audit_table` lays it out.

    Raises:
      InputError: outputs with NaN, labels and outputs of different length, an unknown
        metric, fewer models than a metric asked for needs.

    >>> rng = np.random.default_rng(0)
    >>> def models(shift):
    ...     return ModelOutputs(*(rng.normal(shift, 1, (8, 30, 2)) for _ in range(3)))
    >>> truth = PartLabels(*(np.arange(30) % 2 for _ in range(3)))
    >>> found = audit(models(0.0), models(0.0), truth, metrics=["deviation"])
    >>> list(found.figures["unlearned"])
    ['deviation']
    """
    check_level(level)
    if resamples < 2:
        raise InputError(f"resamples={resamples} must be at least 2; try 20")
    if metrics is not None and not metrics:
        raise InputError(f"metrics={list(metrics)}: name one, or leave it out for all")
    if isinstance(unlearned, ModelOutputs):
        unlearned = {"unlearned": unlearned}
    if not unlearned or "null" in unlearned:
        raise InputError(
            f"unlearned={sorted(unlearned)}: name one method or more, none of them "
            "'null'"
        )
    target = evidence("retrained", retrained, labels, kind=kind)
    methods = {
        name: evidence(name, given, labels, kind=kind)
        for name, given in unlearned.items()
    }
    _check_alike(target, methods)
    smallest = min(found.models for found in methods.values())
    half = min(smallest, target.models // 2)
    keys, left_out = _wanted(metrics, half, "unseen" in target.probs)
    gone = np.setdiff1d(target.labels["forget"], target.labels["retain"])
    levels = {
        name: per_model(found, gone.tolist(), keys, seed=seed)
        for name, found in {"": target, **methods}.items()
    }
    draws = list(_divisions(target.models, half, resamples, seed))
    null = [
        _distances(target, a, target, b, levels[""], levels[""], keys, seed)
        for a, b in draws
    ]
    figures, details = {}, {}
    for name, found in methods.items():
        rng = _checks.generator(seed, 1)  # whatever else is audited
        picks = [rng.permutation(found.models)[:half] for _ in draws]
        others = [b for _, b in draws]
        if not draws:  # a single Retrain: all models beside it
            picks = [np.arange(found.models)]
            others = [np.zeros(found.models, np.int64)]
        values = [
            _distances(found, a, target, b, levels[name], levels[""], keys, seed)
            for a, b in zip(picks, others, strict=True)
        ]
        figures[name] = _figures(levels[name], levels[""], values, null, keys, level)
        details[name] = _detail(
            select(found, picks[0]), select(target, others[0]), keys, level=level
        )
    if draws:
        first, second = (select(target, part) for part in draws[0])
        details["null"] = _detail(first, second, keys, level=level)
    return Audit(
        figures,
        details,
        {name: found.models for name, found in methods.items()},
        target.models,
        half,
        resamples,
        float(level),
        len(target.labels["forget"]),
        left_out,
    )


def _check_alike(target: Evidence, methods: Mapping[str, Evidence]) -> None:
    for name, found in methods.items():
        shapes = [
            {part: p.shape[1:] for part, p in given.probs.items()}
            for given in (found, target)
        ]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{name} has parts of shape {shapes[0]}, retrained {shapes[1]}; give "
                "the same samples and classes"
            )


def _wanted(
    metrics: Sequence[str] | None, half: int, unseen: bool
) -> tuple[set[str], dict[str, str]]:
    """Return the figures to compute, and why others are not."""
    for name in metrics or ():
        if name not in GROUPS:
            raise unknown_name("metric", name, GROUPS)
    keys, left_out = set(), {}
    for group in metrics or GROUPS:
        for key in GROUPS[group]:
            kind = KINDS[key]
            need = max(kind.models // 2, 1)
            reason = ""
            if kind.models > 1 and half < need:
                reason = (
                    f"needs {need} unlearned models and {2 * need} Retrains or more, "
                    f"half of them for the null; {half} can be compared"
                )
            elif kind.unseen and not unseen:
                reason = "needs outputs on unseen samples"
            if reason and metrics is not None:
                raise InputError(f"metrics={group!r}: {kind.label} {reason}")
            if reason:
                left_out[key] = reason
            else:
                keys.add(key)
    return keys, left_out


def _divisions(
    count: int, half: int, resamples: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield random disjoint halves of the Retrains; none if there are fewer than 2."""
    rng = _checks.generator(seed, 0)
    for _ in range(resamples if half else 0):
        order = rng.permutation(count)
        yield order[:half], order[half : 2 * half]


def _distances(
    models: Evidence,
    chosen: np.ndarray,
    target: Evidence,
    others: np.ndarray,
    levels: dict[str, np.ndarray],
    target_levels: dict[str, np.ndarray],
    keys: set[str],
    seed: int,
) -> dict[str, float]:
    """Return what is measured between some models and as many Retrains."""
    found = compared(select(models, chosen), select(target, others), keys, seed=seed)
    if keys & set(PAIRED):
        pair = (
            {name: values[part] for name, values in of.items()}
            for of, part in ((levels, chosen), (target_levels, others))
        )
        found |= paired(*pair)
    return {key: value for key, value in found.items() if key in keys}


def _figures(
    levels: dict[str, np.ndarray],
    target: dict[str, np.ndarray],
    values: list[dict[str, float]],
    null: list[dict[str, float]],
    keys: set[str],
    level: float,
) -> dict[str, Figure]:
    found = {}
    for key, kind in KINDS.items():
        if key not in keys:
            continue
        if key in levels:
            found[key] = _level(levels[key], target[key], level)
            continue
        value = float(np.mean([v[key] for v in values]))
        drawn = np.array([v[key] for v in null])
        if not drawn.size:
            found[key] = Figure(value, None, float(kind.kind == "closeness"), *_NONE)
            continue
        low, high = quantiles(drawn, level)
        outside = {
            "distance": value > high,
            "closeness": value < low,
            "level": not low <= value <= high,
        }[kind.kind]
        verdict = "outside" if outside else "inside"
        found[key] = Figure(value, None, float(drawn.mean()), low, high, verdict)
    return found


_NONE = (None, None, "")


def _level(values: np.ndarray, target: np.ndarray, level: float) -> Figure:
    """Return a level with Student's interval from the spread of the Retrains."""
    mean, goal = float(values.mean()), float(target.mean())
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    if len(target) < 2:
        return Figure(mean, std, goal, *_NONE)
    from scipy.stats import t

    spread = target.std(ddof=1) * np.sqrt(1 / len(values) + 1 / len(target))
    reach = float(t.ppf((1 + level) / 2, len(target) - 1) * spread)
    verdict = "inside" if abs(mean - goal) <= reach + 1e-9 else "outside"
    return Figure(mean, std, goal, goal - reach, goal + reach, verdict)


def _detail(
    models: Evidence, others: Evidence, keys: set[str], *, level: float
) -> Detail:
    classes = models.probs["forget"].shape[2]
    epsilon = groups = roc = None
    intervals: dict[str, tuple[float, float, float]] = {}
    if "lira_auc" in keys:
        lira = u_lira(models.margins, others.margins, level=level)
        roc = lira.roc
        intervals = {
            "lira_auc": (lira.auc, lira.auc_low, lira.auc_high),
            "lira_tpr_1": lira.tpr_1[:3],
            "lira_tpr_01": lira.tpr_01[:3],
        }
    if "epsilon" in keys:
        epsilon = example_epsilon(models.margins, others.margins)
    if "deviation" in keys:
        groups = group_deviation(models, others, classes)
    return Detail(roc, epsilon, groups or {}, intervals)
