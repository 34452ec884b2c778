"""Results read from a file and checked, so that a damaged one is named, not drawn."""

import os
from collections.abc import Mapping
from typing import Any

from jax_unlearn.data import read_json
from jax_unlearn.errors import InputError
from jax_unlearn.lab.catalog import CATALOG
from jax_unlearn.report._flaws import (
    ROUNDING,
    Flaw,
    check_number,
    get,
    mapping,
    numbers,
)
from jax_unlearn.report.read_audit import check_audit
from jax_unlearn.report.read_generation import check_generation

FORMAT = 1
LONGEST = 160  # characters of a flaw
METRICS = ("ua", "fa", "ra", "ta", "mia")
SETS = ("forget", "unseen", "retain")
SECONDS = ("prepare", "compile", "run")
DISTANCES = ("avg_gap", "tow", "deviation")
NULL_QUERIES = "support"  # the row of gaps that stands for no difference
POINTS = ("first_losses", "first_weights", "last_losses", "last_weights")


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
    except Flaw as flaw:
        what = " ".join(str(flaw).split())
        what = what if len(what) <= LONGEST else f"{what[:LONGEST]}..."
        raise InputError(
            f"{name} holds no results: {what}; give the results.json of a run"
        ) from flaw


def _check(results: Any) -> None:
    mapping(results, "the file")
    form = get(results, "format", "")
    if form != FORMAT or isinstance(form, bool):
        raise Flaw(f"format={form!r} must be {FORMAT}")
    if results.get("kind") == "generation":
        check_generation(results)
        return
    if results.get("audit") is not None:
        check_audit(results["audit"])
    elif "rows" not in results:
        raise Flaw("rows is missing, and so is audit")
    rows = mapping(results.get("rows", {}), "rows")
    if not rows and "rows" in results:
        raise Flaw("rows is empty")
    seeds = None
    for key, row in rows.items():
        seeds = _check_row(row, f"rows.{key}", "retrain" in rows, seeds)
    lengths = {len(row.get("by_rank", [])) for row in rows.values()}
    if "retrain" in rows and len(lengths) > 1:
        raise Flaw(f"by_rank is of different lengths {sorted(lengths)}")
    for key, points in mapping(results.get("scatter") or {}, "scatter").items():
        if key not in rows:
            raise Flaw(f"scatter.{key} belongs to no row")
        _check_points(points, f"scatter.{key}")
    for key, angles in mapping(results.get("conflict") or {}, "conflict").items():
        if key not in rows:
            raise Flaw(f"conflict.{key} belongs to no row")
        _check_angles(angles, f"conflict.{key}")
    plan = mapping(results.get("plan") or {}, "plan")
    mapping(results.get("dataset") or {}, "dataset")
    machine = mapping(results.get("environment") or {}, "environment")
    mapping(plan.get("training") or {}, "plan.training")
    mapping(machine.get("versions") or {}, "environment.versions")
    if not isinstance(plan.get("seeds") or [], list):
        raise Flaw("plan.seeds is no list")


def _check_row(row: Any, at: str, targeted: bool, seeds: int | None) -> int:
    """Check a row; return its number of seeds, the same for all."""
    mapping(row, at)
    if not isinstance(get(row, "label", at), str):
        raise Flaw(f"{at}.label is no text")
    _check_setting(row.get("setting") or {}, f"{at}.setting")
    figures = mapping(get(row, "metrics", at), f"{at}.metrics")
    for name in METRICS:
        seeds = _check_spread(figures, name, f"{at}.metrics", seeds)
    seconds = mapping(get(row, "seconds", at), f"{at}.seconds")
    for name in SECONDS:
        seeds = _check_spread(seconds, name, f"{at}.seconds", seeds)
    histograms = mapping(get(row, "histograms", at), f"{at}.histograms")
    for name in SETS:
        counts = numbers(get(histograms, name, f"{at}.histograms"))
        if counts is None or min(counts) < 0 or (name == "forget" and not sum(counts)):
            raise Flaw(f"{at}.histograms.{name} is no list of counts")
    if targeted:
        for name in DISTANCES:
            seeds = _check_spread(row, name, at, seeds)
        for name in (groups := mapping(get(row, "groups", at), f"{at}.groups")):
            _check_spread(groups, name, f"{at}.groups", None)
        ranks = get(row, "by_rank", at)
        known = isinstance(ranks, list) and [r for r in ranks if r is not None]
        if not known or numbers(known) is None:
            raise Flaw(f"{at}.by_rank is no list of numbers")
    if row.get("comparison") is not None:
        _check_comparison(row["comparison"], f"{at}.comparison")
    if row.get("deviation_test") is not None:
        _check_test(row["deviation_test"], f"{at}.deviation_test")
    if row.get("learned") is not None:
        _check_learned(row["learned"], f"{at}.learned")
    return seeds or 0


def _check_setting(setting: Any, at: str) -> None:
    if not mapping(setting, at):
        return
    method = get(setting, "method", at)
    if not isinstance(method, str) or method not in CATALOG:
        raise Flaw(f"{at}.method={method!r} is no method of this library")


def _check_spread(holder: Mapping, name: str, at: str, seeds: int | None) -> int:
    """Check a figure over the seeds; return their number."""
    at_figure = f"{at}.{name}"
    figure = mapping(get(holder, name, at), at_figure)
    values = numbers(get(figure, "per_seed", at_figure))
    if values is None:
        raise Flaw(f"{at_figure}.per_seed is no list of numbers")
    if seeds is not None and len(values) != seeds:
        raise Flaw(f"{at_figure}.per_seed has {len(values)} seeds, others {seeds}")
    check_number(figure, "mean", at_figure)
    if get(figure, "std", at_figure) is not None:
        check_number(figure, "std", at_figure)
        if figure["std"] < 0:
            raise Flaw(f"{at_figure}.std={figure['std']} is negative")
    return len(values)


def _check_comparison(comparison: Any, at: str) -> None:
    metrics = mapping(get(mapping(comparison, at), "metrics", at), f"{at}.metrics")
    for name in METRICS:
        place = f"{at}.metrics.{name}"
        row = mapping(get(metrics, name, f"{at}.metrics"), place)
        check_number(row, "null_high", place)
        if get(row, "verdict", place) not in ("inside", "outside"):
            raise Flaw(f"{place}.verdict={row['verdict']!r} is unknown")
    check_number(comparison, "level", at)
    if comparison.get("against_nothing") is not None:
        _check_test(comparison["against_nothing"], f"{at}.against_nothing")


def _check_test(test: Any, at: str) -> None:
    for name in ("mean_difference", "permutation_p"):
        check_number(mapping(test, at), name, at)
    if get(test, "t_p", at) is not None:
        check_number(test, "t_p", at)


def _check_points(points: Any, at: str) -> None:
    lengths = []
    for name in POINTS:
        values = numbers(get(mapping(points, at), name, at))
        if values is None:
            raise Flaw(f"{at}.{name} is no list of numbers")
        lengths.append(len(values))
    if lengths[0] != lengths[1] or lengths[2] != lengths[3]:
        raise Flaw(f"{at} has {lengths} losses and weights")


def _check_angles(angles: Any, at: str) -> None:
    values = numbers(angles)
    if values is None:
        raise Flaw(f"{at} is no list of numbers")
    wrong = [value for value in values if abs(value) > 1 + ROUNDING]
    if wrong:
        raise Flaw(f"{at} holds {wrong[0]}, no cosine")


def _check_learned(learned: Any, at: str) -> None:
    """Check what a method learned before it unlearned: attacks, gaps of its queries."""
    attacks = mapping(get(mapping(learned, at), "attacks", at), f"{at}.attacks")
    if not attacks:
        raise Flaw(f"{at}.attacks is empty")
    for name in attacks:
        place = f"{at}.attacks.{name}"
        attack = mapping(attacks[name], place)
        for field in ("auc", "better_than_chance"):
            check_number(attack, field, place, low=0, high=1)
        check_number(attack, "standard_error", place, low=0)
    gaps = mapping(get(learned, "gaps", at), f"{at}.gaps")
    get(gaps, NULL_QUERIES, f"{at}.gaps")
    for name in gaps:
        place = f"{at}.gaps.{name}"
        gap = mapping(gaps[name], place)
        check_number(gap, "labels", place, low=0, high=1)
        check_number(gap, "features", place, low=-2, high=2)
