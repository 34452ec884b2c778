"""What LTU learned before it unlearned: tables of its attacks and of its queries."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax_unlearn.report.read import NULL_QUERIES
from jax_unlearn.report.table import number

NULL_LABEL = "forget samples against each other"


class Row(NamedTuple):
    """One row of a table.

    Attributes:
      cells: as text; the first is the row's name.
      tone: "bad" for an attack that may give no feedback, "reference" for the null of
        the gaps, else empty.
    """

    cells: list[str]
    tone: str


class Learned(NamedTuple):
    """One table, and the methods it is true of.

    Attributes:
      who: the first of them.
      others: the rest, as a phrase; empty if there are none.
      columns: headings.
      rows: of the table.
    """

    who: str
    others: str
    columns: list[str]
    rows: list[Row]


def attack_tables(results: Mapping[str, Any]) -> list[Learned]:
    """Return the held-out quality of the attacks: one table for all methods alike.

    Args:
      results: checked results.

    Returns:
      The tables, in the order of the methods; none where nothing was learned.
    """
    columns = ["attack", "held-out AUC", "beats chance in"]
    return [
        Learned(*_who(labels), columns, [_attack(*item) for item in attacks.items()])
        for labels, attacks in _alike(results, "attacks")
    ]


def gap_tables(results: Mapping[str, Any]) -> list[Learned]:
    """Return how far the queries are from the forget set, with the null row last.

    Args:
      results: checked results.

    Returns:
      The tables, in the order of the methods; none where nothing was learned.
    """
    columns = ["queries", "gap of labels", "gap of features"]
    return [
        Learned(*_who(labels), columns, [_gap(*item) for item in _null_last(gaps)])
        for labels, gaps in _alike(results, "gaps")
    ]


def warnings(results: Mapping[str, Any]) -> list[str]:
    """Return a line for each attack that does not beat chance in some seed.

    Args:
      results: checked results.

    Returns:
      Plain text, with the methods that learned that attack.
    """
    return [
        f"{_plain(name)} does not beat chance in "
        f"{_percent(1 - found['better_than_chance'])} of the seeds: it gives no "
        f"feedback there ({_some(labels)})."
        for labels, attacks in _alike(results, "attacks")
        for name, found in attacks.items()
        if found["better_than_chance"] < 1
    ]


def _alike(results: Mapping[str, Any], part: str) -> list[tuple[list[str], Any]]:
    """Return what methods learned, with the labels of those that learned the same."""
    found: list[tuple[list[str], Any]] = []
    for row in results["rows"].values():
        if row.get("learned") is None:
            continue
        learned = row["learned"][part]
        for labels, other in found:
            if learned == other and list(learned) == list(other):
                labels.append(row["label"])
                break
        else:
            found.append(([row["label"]], learned))
    return found


def _who(labels: list[str]) -> tuple[str, str]:
    """Return the first of several methods, and a phrase that names the others.

    >>> _who(["LTU", "LTU, masked"])
    ('LTU', 'the same for: LTU, masked')
    """
    rest = "; ".join(labels[1:])
    return labels[0], f"the same for: {rest}" if rest else ""


def _some(labels: list[str]) -> str:
    """Name several methods, the first few of many.

    >>> _some(["A", "B", "C", "D"])
    'A and 3 others'
    """
    if len(labels) > 3:
        return f"{labels[0]} and {len(labels) - 1} others"
    return "; ".join(labels)


def _attack(name: str, found: Mapping[str, float]) -> Row:
    share = found["better_than_chance"]
    area = f"{number(found['auc'], 3)} ± {number(found['standard_error'], 3)}"
    cells = [_plain(name), area, f"{_percent(share)} of seeds"]
    return Row(cells, "bad" if share < 1 else "")


def _null_last(gaps: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(gaps.items(), key=lambda item: item[0] == NULL_QUERIES)


def _gap(name: str, gap: Mapping[str, float]) -> Row:
    null = name == NULL_QUERIES
    label = NULL_LABEL if null else _plain(name)
    cells = [label, number(gap["labels"], 3), number(gap["features"], 4)]
    return Row(cells, "reference" if null else "")


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("mlp", "MLP")


def _percent(share: float) -> str:
    return f"{number(100 * share, 0)} %"
