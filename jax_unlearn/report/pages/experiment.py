"""What the page of an experiment tells: numbers of the summary, tables, drawings."""

from collections.abc import Iterable, Mapping
from typing import Any

from jax_unlearn.report.draw import comparisons, panels
from jax_unlearn.report.reading import (
    NULL_QUERIES,
    PERCENTAGES,
    Attack,
    Gap,
    PairedTest,
    Results,
    Row,
    methods_of,
)
from jax_unlearn.report.settings import settings_table, shared_settings
from jax_unlearn.report.table import direction, gap_test, main_table, number

__all__ = ["content"]


def content(results: Results) -> dict[str, Any]:
    """Return what the template of an experiment reads.

    Args:
      results: with rows.
    """
    rows, methods = results.rows, methods_of(results.rows)
    counts = next(iter(rows.values())).histograms or {}
    compared = [row.comparison.level for row in rows.values() if row.comparison]
    targeted = "retrain" in rows
    learned = _alike(rows, "attacks")
    return {
        "rows": rows,
        "methods": methods,
        "targeted": targeted,
        "seeds": results.seeds,
        "forgotten": round(sum(counts["forget"]) / results.seeds),
        "retained": round(sum(counts["retain"]) / results.seeds),
        "outcome": outcome(rows) if targeted and methods else None,
        "table": main_table(results),
        "compared": compared[0] if compared else None,
        "tested": any(row.deviation_test for row in rows.values()),
        "drawings": drawings(results),
        "attacks": [
            (labels, [_attack(name, a) for name, a in attacks.items()])
            for labels, attacks in learned
        ],
        "weak": [
            (labels, name, attack)
            for labels, attacks in learned
            for name, attack in attacks.items()
            if attack.better_than_chance < 1
        ],
        "gaps": [
            (labels, [_gap(name, gaps[name]) for name in _null_last(gaps)])
            for labels, gaps in _alike(rows, "gaps")
        ],
        "conflict": _conflict(results),
        "settings": settings_table(rows),
        "shared": shared_settings(rows),
    }


def drawings(results: Results) -> dict[str, Any]:
    """Return the drawings by the sections that show them; none where there are none.

    Args:
      results: with rows.
    """
    targeted = "retrain" in results.rows
    return {
        "gap": comparisons.gap_against_deviation(results) if targeted else None,
        "deviation": panels.deviation_by_class(results) if targeted else [],
        "confidence": panels.confidences(results),
        "weights": panels.weights_against_losses(results),
        "conflict": panels.conflict_by_step(results),
    }


def outcome(rows: Mapping[str, Row]) -> dict[str, Any]:
    """Return how the methods ended beside Retrain, the null, and doing nothing.

    Args:
      rows: with Retrain and one method or more.

    Returns:
      "best": the key of the method of the least Avg. Gap; "within": labels of those
      inside the null's interval in all percentages; "gap" and "deviation": labels that
      are clearly nearer, farther, or neither; None where nothing was tested.
    """
    methods = methods_of(rows)
    within = []
    for key in methods:
        comparison = rows[key].comparison
        if comparison is not None and all(
            comparison.metrics[name].verdict == "inside" for name in PERCENTAGES
        ):
            within.append(rows[key].label)
    return {
        "best": min(methods, key=lambda key: getattr(rows[key].avg_gap, "mean", 0.0)),
        "within": within,
        "gap": _directions((rows[k].label, gap_test(rows[k])) for k in methods),
        "deviation": _directions(
            (rows[k].label, rows[k].deviation_test) for k in methods
        ),
    }


def _directions(
    tests: Iterable[tuple[str, PairedTest | None]],
) -> dict[str, list[str]] | None:
    found: dict[str, list[str]] = {"nearer": [], "farther": [], "unclear": []}
    for label, test in tests:
        if test is not None:
            found[direction(test)].append(label)
    return found if any(found.values()) else None


def _alike(rows: Mapping[str, Row], part: str) -> list[tuple[list[str], Any]]:
    """Return what methods learned, with the labels of those that learned the same."""
    found: list[tuple[list[str], Any]] = []
    for row in rows.values():
        if row.learned is None:
            continue
        learned = getattr(row.learned, part)
        for labels, other in found:
            if list(learned.items()) == list(other.items()):
                labels.append(row.label)
                break
        else:
            found.append(([row.label], learned))
    return found


def _attack(name: str, attack: Attack) -> tuple[str, list[str]]:
    share = attack.better_than_chance
    area = f"{number(attack.auc, 3)} ± {number(attack.standard_error, 3)}"
    cells = [_plain(name), area, f"{number(100 * share, 0)} % of seeds"]
    return "bad" if share < 1 else "", cells


def _null_last(gaps: Mapping[str, Gap]) -> list[str]:
    return sorted(gaps, key=lambda name: name == NULL_QUERIES)


def _gap(name: str, gap: Gap) -> tuple[str, list[str]]:
    null = name == NULL_QUERIES
    label = "forget samples against each other" if null else _plain(name)
    cells = [label, number(gap.labels, 3), number(gap.features, 4)]
    return "reference" if null else "", cells


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("mlp", "MLP")


def _conflict(results: Results) -> dict[str, Any]:
    """Return the least and largest shares of the conflicts that are drawn."""
    every = list((results.conflict or {}).values())
    shares = [panels.conflict_share(c) for c in every[: panels.CONFLICTS]]
    often, removed = zip(*shares, strict=True) if shares else ((0.0,), (0.0,))
    return {
        "count": len(every),
        "often": (min(often), max(often)),
        "removed": (min(removed), max(removed)),
    }
