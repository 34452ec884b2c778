"""Results of generation, checked before they are drawn."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from jax_unlearn.report._flaws import (
    Flaw,
    check_count,
    check_number,
    get,
    mapping,
    numbers,
)

PERCENT = ("ua", "retained_accuracy")
ERRORS = ("forget_error", "retain_error", "unseen_error", "fid")
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
    if not isinstance(plan.get("note") or "", str):
        raise Flaw("plan.note is no text")
    for name in ("methods", "sampling", "training"):
        settings = mapping(plan.get(name) or {}, f"plan.{name}")
        if name == "methods":
            for label, setting in settings.items():
                mapping(setting, f"plan.methods.{label}")
    names = get(mapping(get(results, "dataset", ""), "dataset"), "classes", "dataset")
    if not isinstance(names, list) or not names or not _are_texts(names):
        raise Flaw("dataset.classes is no list of names")
    judge = mapping(get(results, "judge", ""), "judge")
    check_number(judge, "accuracy", "judge", low=0, high=100)
    if judge.get("by_class") and numbers(judge["by_class"]) is None:
        raise Flaw("judge.by_class is no list of numbers")
    floor = mapping(get(results, "floor", ""), "floor")
    check_number(floor, "frechet", "floor", low=0)
    standard = ("fid",) if "fid" in floor else ()
    for name in standard:
        check_number(floor, name, "floor", low=0)
    machine = mapping(get(results, "environment", ""), "environment")
    mapping(machine.get("versions") or {}, "environment.versions")
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
            get(row, name, f"rows.{key}")
        for name in row:
            found = mapping(row[name], f"rows.{key}.{name}")
            check_number(found, "mean", f"rows.{key}.{name}", low=0)
            if found.get("std") is not None:
                check_number(found, "std", f"rows.{key}.{name}", low=0)
    runs = get(results, "runs", "")
    if not isinstance(runs, list) or not runs:
        raise Flaw("runs is no list of runs")
    for number, run in enumerate(runs):
        _check_run(mapping(run, f"runs[{number}]"), f"runs[{number}]", rows, names)


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _check_run(run: Mapping[str, Any], at: str, rows, names) -> None:
    check_number(run, "seed", at)
    if check_count(run, "class", at, least=0) >= len(names):
        raise Flaw(f"{at}.class={run['class']} lies outside [0, {len(names) - 1}]")
    found = mapping(get(run, "rows", at), f"{at}.rows")
    if set(found) != set(rows):
        raise Flaw(f"{at}.rows has other rows than rows")
    for key in found:
        _check_row(mapping(found[key], f"{at}.rows.{key}"), f"{at}.rows.{key}", names)
    for key, text in mapping(run.get("grids") or {}, f"{at}.grids").items():
        try:
            start = base64.b64decode(text, validate=True)[: len(PNG)]
        except (binascii.Error, TypeError, ValueError) as error:
            raise Flaw(f"{at}.grids.{key} is no base64") from error
        if start != PNG:
            raise Flaw(f"{at}.grids.{key} is no PNG")


def _check_row(row: Mapping[str, Any], at: str, names) -> None:
    for name in PERCENT:
        check_number(row, name, at, low=0, high=100)
    check_number(row, "frechet", at, low=0)
    for name in ERRORS:
        if name in row:
            check_number(row, name, at, low=0)
    shares = get(row, "by_class", at)
    if not isinstance(shares, list) or len(shares) != len(names):
        raise Flaw(f"{at}.by_class has not one share a class")
    known = [share for share in shares if share is not None]
    if known and numbers(known) is None:
        raise Flaw(f"{at}.by_class is no list of numbers")
    times = mapping(row.get("seconds") or {}, f"{at}.seconds")
    for name in times:
        check_number(times, name, f"{at}.seconds", low=0)
    details = mapping(row.get("details") or {}, f"{at}.details")
    attacks = mapping(details.get("attacks") or {}, f"{at}.details.attacks")
    for name in attacks:
        place = f"{at}.details.attacks.{name}"
        attack = mapping(attacks[name], place)
        check_number(attack, "auc", place, low=0, high=1)
        check_number(attack, "standard_error", place, low=0)
        if not isinstance(get(attack, "better_than_chance", place), bool):
            raise Flaw(f"{place}.better_than_chance is neither true nor false")
