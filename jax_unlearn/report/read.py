"""Results read from a file and checked, so that a damaged one is named, not drawn."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from jax_unlearn.data import read_json
from jax_unlearn.errors import InputError

FORMAT = 1
METRICS = ("ua", "fa", "ra", "ta", "mia")
SETS = ("forget", "unseen", "retain")
SECONDS = ("prepare", "compile", "run")
DISTANCES = ("avg_gap", "tow", "deviation")
NULL_QUERIES = "support"  # the row of gaps that stands for no difference
ROUNDING = 1e-6  # by which a mean of floats may leave its range
POINTS = ("first_losses", "first_weights", "last_losses", "last_weights")


class _Flaw(Exception):
    """What is wrong, beginning with the key."""


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
    check_results(results, name=f"path={path}")
    return results


def check_results(results: Any, *, name: str = "results") -> None:
    """Refuse results that no report can be made of.

    Args:
      results: what `results.json` holds.
      name: what the message calls them.

    Raises:
      InputError: a key that is missing or does not hold what it should.

    >>> check_results({"format": 1, "rows": {}})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: results holds no results: rows is empty; give the \
results.json of a run
    """
    try:
        _check(results)
    except _Flaw as flaw:
        raise InputError(
            f"{name} holds no results: {flaw}; give the results.json of a run"
        ) from flaw


def _check(results: Any) -> None:
    _dict(results, "the file")
    form = _get(results, "format", "")
    if form != FORMAT:
        raise _Flaw(f"format={form!r} must be {FORMAT}")
    rows = _dict(_get(results, "rows", ""), "rows")
    if not rows:
        raise _Flaw("rows is empty")
    seeds = None
    for key, row in rows.items():
        seeds = _check_row(row, f"rows.{key}", "retrain" in rows, seeds)
    lengths = {len(row.get("by_rank", [])) for row in rows.values()}
    if "retrain" in rows and len(lengths) > 1:
        raise _Flaw(f"by_rank is of different lengths {sorted(lengths)}")
    for key, points in _dict(results.get("scatter") or {}, "scatter").items():
        if key not in rows:
            raise _Flaw(f"scatter.{key} belongs to no row")
        _check_points(points, f"scatter.{key}")
    for key, angles in _dict(results.get("conflict") or {}, "conflict").items():
        if key not in rows:
            raise _Flaw(f"conflict.{key} belongs to no row")
        _check_angles(angles, f"conflict.{key}")
    plan = _dict(results.get("plan") or {}, "plan")
    _dict(results.get("dataset") or {}, "dataset")
    machine = _dict(results.get("environment") or {}, "environment")
    _dict(plan.get("training") or {}, "plan.training")
    _dict(machine.get("versions") or {}, "environment.versions")
    if not isinstance(plan.get("seeds") or [], list):
        raise _Flaw("plan.seeds is no list")


def _check_row(row: Any, at: str, targeted: bool, seeds: int | None) -> int:
    """Check a row; return its number of seeds, the same for all."""
    _dict(row, at)
    if not isinstance(_get(row, "label", at), str):
        raise _Flaw(f"{at}.label is no text")
    _dict(row.get("setting") or {}, f"{at}.setting")
    figures = _dict(_get(row, "metrics", at), f"{at}.metrics")
    for name in METRICS:
        seeds = _check_spread(figures, name, f"{at}.metrics", seeds)
    seconds = _dict(_get(row, "seconds", at), f"{at}.seconds")
    for name in SECONDS:
        seeds = _check_spread(seconds, name, f"{at}.seconds", seeds)
    histograms = _dict(_get(row, "histograms", at), f"{at}.histograms")
    for name in SETS:
        counts = _numbers(_get(histograms, name, f"{at}.histograms"))
        if counts is None or min(counts) < 0 or (name == "forget" and not sum(counts)):
            raise _Flaw(f"{at}.histograms.{name} is no list of counts")
    if targeted:
        for name in DISTANCES:
            seeds = _check_spread(row, name, at, seeds)
        for name in (groups := _dict(_get(row, "groups", at), f"{at}.groups")):
            _check_spread(groups, name, f"{at}.groups", None)
        ranks = _get(row, "by_rank", at)
        known = isinstance(ranks, list) and [r for r in ranks if r is not None]
        if not known or _numbers(known) is None:
            raise _Flaw(f"{at}.by_rank is no list of numbers")
    if row.get("comparison") is not None:
        _check_comparison(row["comparison"], f"{at}.comparison")
    if row.get("deviation_test") is not None:
        _check_test(row["deviation_test"], f"{at}.deviation_test")
    if row.get("learned") is not None:
        _check_learned(row["learned"], f"{at}.learned")
    return seeds or 0


def _check_spread(holder: Mapping, name: str, at: str, seeds: int | None) -> int:
    """Check a figure over the seeds; return their number."""
    at_figure = f"{at}.{name}"
    figure = _dict(_get(holder, name, at), at_figure)
    values = _numbers(_get(figure, "per_seed", at_figure))
    if values is None:
        raise _Flaw(f"{at_figure}.per_seed is no list of numbers")
    if seeds is not None and len(values) != seeds:
        raise _Flaw(f"{at_figure}.per_seed has {len(values)} seeds, others {seeds}")
    _number(figure, "mean", at_figure)
    if _get(figure, "std", at_figure) is not None:
        _number(figure, "std", at_figure)
        if figure["std"] < 0:
            raise _Flaw(f"{at_figure}.std={figure['std']} is negative")
    return len(values)


def _check_comparison(comparison: Any, at: str) -> None:
    metrics = _dict(_get(_dict(comparison, at), "metrics", at), f"{at}.metrics")
    for name in METRICS:
        place = f"{at}.metrics.{name}"
        row = _dict(_get(metrics, name, f"{at}.metrics"), place)
        _number(row, "null_high", place)
        if _get(row, "verdict", place) not in ("inside", "outside"):
            raise _Flaw(f"{place}.verdict={row['verdict']!r} is unknown")
    _number(comparison, "level", at)
    if comparison.get("against_nothing") is not None:
        _check_test(comparison["against_nothing"], f"{at}.against_nothing")


def _check_test(test: Any, at: str) -> None:
    for name in ("mean_difference", "permutation_p"):
        _number(_dict(test, at), name, at)
    if _get(test, "t_p", at) is not None:
        _number(test, "t_p", at)


def _check_points(points: Any, at: str) -> None:
    lengths = []
    for name in POINTS:
        values = _numbers(_get(_dict(points, at), name, at))
        if values is None:
            raise _Flaw(f"{at}.{name} is no list of numbers")
        lengths.append(len(values))
    if lengths[0] != lengths[1] or lengths[2] != lengths[3]:
        raise _Flaw(f"{at} has {lengths} losses and weights")


def _check_angles(angles: Any, at: str) -> None:
    values = _numbers(angles)
    if values is None:
        raise _Flaw(f"{at} is no list of numbers")
    wrong = [value for value in values if abs(value) > 1 + ROUNDING]
    if wrong:
        raise _Flaw(f"{at} holds {wrong[0]}, no cosine")


def _check_learned(learned: Any, at: str) -> None:
    """Check what a method learned before it unlearned: attacks, gaps of its queries."""
    attacks = _dict(_get(_dict(learned, at), "attacks", at), f"{at}.attacks")
    if not attacks:
        raise _Flaw(f"{at}.attacks is empty")
    for name in attacks:
        place = f"{at}.attacks.{name}"
        attack = _dict(attacks[name], place)
        for field in ("auc", "better_than_chance"):
            _number(attack, field, place, low=0, high=1)
        _number(attack, "standard_error", place, low=0)
    gaps = _dict(_get(learned, "gaps", at), f"{at}.gaps")
    _get(gaps, NULL_QUERIES, f"{at}.gaps")
    for name in gaps:
        place = f"{at}.gaps.{name}"
        gap = _dict(gaps[name], place)
        _number(gap, "labels", place, low=0, high=1)
        _number(gap, "features", place, low=-2, high=2)


def _get(holder: Mapping, name: str, at: str) -> Any:
    if name not in holder:
        raise _Flaw(f"{at}.{name} is missing" if at else f"{name} is missing")
    return holder[name]


def _dict(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _Flaw(f"{at} is no JSON object")
    return value


def _number(
    holder: Mapping,
    name: str,
    at: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
) -> None:
    value = _get(holder, name, at)
    if not _is_number(value):
        raise _Flaw(f"{at}.{name}={value!r} is no number")
    if not low - ROUNDING <= value <= high + ROUNDING:
        raise _Flaw(f"{at}.{name}={value} lies outside [{low}, {high}]")


def _numbers(values: Any) -> Sequence[float] | None:
    """Return a non-empty list of finite numbers, or None."""
    if not isinstance(values, list) or not values:
        return None
    return values if all(_is_number(v) for v in values) else None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)
