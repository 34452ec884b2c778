"""What the page of an experiment tells: numbers of the summary, tables, drawings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import structs

from jax_unlearn.audit import FigureCard
from jax_unlearn.lab.modalities.classification.beside import (
    alone_lacks,
    alone_misses,
    alone_needs,
    said_beside,
)
from jax_unlearn.lab.modalities.classification.probes import PROBES
from jax_unlearn.lab.probes import of_figures
from jax_unlearn.report import reading
from jax_unlearn.report.draw import experiment as draw
from jax_unlearn.report.forms import reasons
from jax_unlearn.report.pages import headline
from jax_unlearn.report.table import direction, gap_test, main_table, number, ordered

__all__ = ["Probed", "beside", "content", "drawings", "outcome", "plain", "probed"]

SHORT_RETRAIN = "short_retrain"  # the method that a budget is to be read against


def content(results: reading.Results) -> dict[str, Any]:
    """Return what the template of an experiment reads, of results with rows."""
    rows, methods = results.rows, reading.methods_of(results.rows)
    counts = next(iter(rows.values())).histograms or {}
    made = [row.comparison for row in rows.values() if row.comparison]
    compared = [one.level for one in made if one.verdicts]
    targeted = "retrain" in rows
    learned, cosines = _alike(rows, "attacks"), (results.conflict or {}).values()
    return {
        "rows": rows,
        "methods": methods,
        "targeted": targeted,
        "seeds": results.seeds,
        "forgotten": round(sum(counts["forget"]) / results.seeds),
        "retained": round(sum(counts["retain"]) / results.seeds),
        "outcome": outcome(rows) if targeted and methods else None,
        "table": ordered(main_table(results), "Avg. Gap"),
        "headline": headline.of_rows(rows, results.seeds),
        "best": rows[reading.best_first(rows)[0]].label if methods else "",
        "short": cheaper(rows) if targeted else None,
        "compared": compared[0] if compared else None,
        "verdicts": set().union(*(one.verdicts for one in made)),
        "tested": any(row.deviation_test for row in rows.values()),
        "drawings": drawings(results),
        "drawn": len(draw.methods_drawn(rows)),
        "attacks": [
            (labels, [_attack(name, a) for name, a in attacks.items()])
            for labels, attacks in learned
        ],
        "learned_alike": learned,
        "gaps": [(labels, [*_gaps(gaps)]) for labels, gaps in _alike(rows, "gaps")],
        "conflicts": [draw.conflict_share(c) for c in cosines],
        "probes": probed(results),
        "alone": attacked(results),
    }


def beside(results: Any) -> list[tuple[str, str]]:
    """Return label and sentence of each model beside samples it never saw, if any."""
    if results.unseen is None:
        return []
    found = structs.asdict(results.unseen)
    found["models"] = {k: structs.asdict(m) for k, m in found["models"].items()}
    keys = reading.ordered_keys(found["models"])
    return [(results.rows[key].label, said_beside(found, key)) for key in keys]


class Probed(NamedTuple):
    """A probe or an attack, and what each row gave, beside target and null."""

    card: FigureCard
    values: dict[str, float]
    figures: dict[str, Any]
    cost: str = ""  # of a probe


def probed(results: reading.Results) -> list[Probed]:
    """Return what probes found, if any were asked for and are known."""
    found = results.probes or {}
    known = of_figures(PROBES)
    names = [name for name in next(iter(found.values()), {}) if name in known]
    judged = results.probe_figures or {}
    return [
        Probed(
            known[name][1],
            {key: found[key][name] for key in reading.ordered_keys(found)},
            {key: own[name] for key, own in judged.items()},
            known[name][0].cost,
        )
        for name in names
    ]


def attacked(results: reading.Results) -> dict[str, Any] | None:
    """Return what attacks found on single models, headlines apart, and what is not."""
    found = results.alone
    if found is None:
        return None
    keys, plain = reading.ordered_keys(found.figures), structs.asdict(found)
    shown: tuple[list[Probed], list[Probed]] = [], []
    for key in [key for key in found.plain if key not in found.left_out]:
        own = {k: found.figures[k][key] for k in keys if key in found.figures[k]}
        card = found.cards[key]
        shown[not card.headline].append(Probed(card, own, {}))
    return {
        "keys": keys,
        "shown": shown[0],
        "behind": shown[1],
        "left_out": reasons(alone_lacks(plain), found.cards),
        "missing": alone_misses(plain),
        "needs": alone_needs(results.rows),
    }


def drawings(results: reading.Results) -> dict[str, Any]:
    """Return the drawings by the sections that show them; none where there are none."""
    targeted = "retrain" in results.rows
    return {
        "gap": draw.gap_against_deviation(results) if targeted else None,
        "deviation": draw.deviation_by_class(results) if targeted else [],
        "confidence": draw.confidences(results),
        "weights": draw.weights_against_losses(results),
        "conflict": draw.conflict_by_step(results),
    }


def outcome(rows: Mapping[str, reading.Row]) -> dict[str, Any]:
    """Return the labels of the methods by how they ended beside doing nothing."""
    methods = [rows[key] for key in reading.methods_of(rows)]
    return {
        "gap": _directions([(row.label, gap_test(row)) for row in methods]),
        "deviation": _directions([(row.label, row.deviation_test) for row in methods]),
    }


def cheaper(rows: Mapping[str, reading.Row]) -> dict[str, Any] | None:
    """Return who is nearer than short Retrain at no more cost, where it has a row.

    Its cost would have bought the same training, cut short: the row to read first.
    """
    costed = [
        (row, row.cost.counted.mean, row.avg_gap.mean)
        for key in reading.methods_of(rows)
        if (row := rows[key]).cost.counted and row.avg_gap
    ]
    named = [
        one for one in costed if (one[0].setting or {}).get("method") == SHORT_RETRAIN
    ]
    if not named or len(costed) < 2:
        return None
    short, cost, gap = min(named, key=lambda one: one[2])
    nearer = [row.label for row, c, g in costed if g < gap and c <= cost * (1 + 1e-6)]
    return {"row": short, "cost": cost, "nearer": nearer}


def _directions(
    tests: Sequence[tuple[str, reading.PairedTest | None]],
) -> dict[str, list[str]] | None:
    found: dict[str, list[str]] = {"nearer": [], "farther": [], "unclear": []}
    for label, test in tests:
        if test is not None:
            found[direction(test)].append(label)
    return found if any(found.values()) else None


def _alike(rows: Mapping[str, reading.Row], part: str) -> list[tuple[list[str], Any]]:
    """Return what methods learned, with the labels of those that learned the same."""
    found: dict[str, tuple[list[str], Any]] = {}
    for row in rows.values():
        if row.learned is not None:
            learned = getattr(row.learned, part)
            found.setdefault(repr(learned), ([], learned))[0].append(row.label)
    return list(found.values())


def _attack(name: str, attack: reading.Attack) -> tuple[str, list[str]]:
    share = attack.better_than_chance
    area = f"{number(attack.auc, 3)} ± {number(attack.standard_error, 3)}"
    cells = [plain(name), area, f"{number(100 * share, 0)} % of seeds"]
    return "bad" if share < 1 else "", cells


def _gaps(gaps: Mapping[str, reading.Gap]) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of a table of gaps, that of the null last."""
    for name in sorted(gaps, key=lambda name: name == reading.NULL_QUERIES):
        null, gap = name == reading.NULL_QUERIES, gaps[name]
        label = "forget samples against each other" if null else plain(name)
        cells = [label, number(gap.labels, 3), number(gap.features, 4)]
        yield "reference" if null else "", cells


def plain(name: str) -> str:
    """Return a name of a strategy or an attack in words."""
    return name.replace("_", " ").replace("mlp", "MLP")
