"""Results of generation, checked before they are drawn."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from jax_unlearn.report._flaws import Flaw, check_number, get, mapping

PERCENT = ("ua", "retained_accuracy")
PNG = b"\x89PNG\r\n\x1a\n"


def check_generation(results: Mapping[str, Any]) -> None:
    """Refuse results of generation that no page can be made of.

    Args:
      results: with kind "generation".

    Raises:
      Flaw: a key that is missing or does not hold what it should.
    """
    plan = mapping(get(results, "plan", ""), "plan")
    if not isinstance(get(plan, "title", "plan"), str):
        raise Flaw("plan.title is no text")
    mapping(plan.get("methods") or {}, "plan.methods")
    names = get(mapping(get(results, "dataset", ""), "dataset"), "classes", "dataset")
    if not isinstance(names, list) or not names:
        raise Flaw("dataset.classes is no list of names")
    judge = mapping(get(results, "judge", ""), "judge")
    check_number(judge, "accuracy", "judge", low=0, high=100)
    floor = mapping(get(results, "floor", ""), "floor")
    check_number(floor, "frechet", "floor", low=0)
    standard = ("fid",) if "fid" in floor else ()
    for name in standard:
        check_number(floor, name, "floor", low=0)
    mapping(get(results, "environment", ""), "environment")
    rows = mapping(get(results, "rows", ""), "rows")
    if not rows:
        raise Flaw("rows is empty")
    for key, row in rows.items():
        mapping(row, f"rows.{key}")
        for name in (
            *PERCENT,
            "frechet",
            "forget_error",
            "retain_error",
            "seconds",
            *standard,
        ):
            found = mapping(get(row, name, f"rows.{key}"), f"rows.{key}.{name}")
            check_number(found, "mean", f"rows.{key}.{name}", low=0)
    runs = get(results, "runs", "")
    if not isinstance(runs, list) or not runs:
        raise Flaw("runs is no list of runs")
    for number, run in enumerate(runs):
        _check_run(mapping(run, f"runs[{number}]"), f"runs[{number}]", rows, names)


def _check_run(run: Mapping[str, Any], at: str, rows, names) -> None:
    check_number(run, "seed", at)
    check_number(run, "class", at, low=0, high=len(names) - 1)
    found = mapping(get(run, "rows", at), f"{at}.rows")
    if set(found) != set(rows):
        raise Flaw(f"{at}.rows has other rows than rows")
    for key, row in found.items():
        for name in PERCENT:
            check_number(mapping(row, f"{at}.rows.{key}"), name, at, low=0, high=100)
        check_number(row, "frechet", f"{at}.rows.{key}", low=0)
        shares = get(row, "by_class", f"{at}.rows.{key}")
        if not isinstance(shares, list) or len(shares) != len(names):
            raise Flaw(f"{at}.rows.{key}.by_class has not one share a class")
    for key, text in mapping(run.get("grids") or {}, f"{at}.grids").items():
        try:
            start = base64.b64decode(text, validate=True)[: len(PNG)]
        except (binascii.Error, TypeError, ValueError) as error:
            raise Flaw(f"{at}.grids.{key} is no base64") from error
        if start != PNG:
            raise Flaw(f"{at}.grids.{key} is no PNG")
