"""The chooser: what was nearest to Retrain, by request, budget and what there is.

Made from the stored results of the studies by `jax-unlearn recipe --table`: the rows
that `ju.methods.auto` reads (`chooser.json`, in the package), and the table that
`jax-unlearn methods` and README show.
"""

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from jax_unlearn import audit
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.choose import (
    ALONE,
    EARLIER,
    FIRST,
    LEGEND,
    NOTHING,
    PART,
    RECORD,
    UNSEEN,
    UNTRAINED,
    Row,
    table,
)
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.results import LABELS
from jax_unlearn.lab.space import told
from jax_unlearn.recipes import frontier
from jax_unlearn.recipes.recipe import Results

__all__ = ["LEAST", "SOURCES", "Seen", "Study", "between", "compares", "markdown"]
__all__ += ["nearest", "possible", "rows_of", "seen_in", "text_of", "untouched"]
__all__ += ["usual_of"]

FILE, LEVEL = "chooser.json", 0.05
BEGIN, END = "<!-- chooser -->", "<!-- end of chooser -->"
STUDIES = ("frontier_digits", "frontier_fashion", "frontier_cifar10")
COME = "defaults_digits"  # methods as they come, for models that nobody can search
CHOICE = "choice_digits"  # where a part of the retain set is all there is
SOURCES = (*STUDIES, COME, CHOICE)
_REQUESTS = {"long-tailed": "gamma-1", "random": "random10", "class": "class"}
LEAST = {"avg_gap": 0.5, "deviation": 0.01}
"""Of a null in the unit of distances: nearer than that two Retrains are alike."""
NULL = 1.0  # distances are counted in nulls


class Seen(NamedTuple):
    """A row of a study."""

    label: str
    setting: Unlearning
    distances: np.ndarray  # a seed each, in nulls

    @property
    def mean(self) -> float:
        """Its distance from Retrain, in nulls."""
        return float(self.distances.mean())


def seen_in(results: Results) -> list[Seen]:
    """Return the rows of results with their distance from Retrain.

    Half of the Avg. Gap and half of the deviation by sample, each in units of the
    null's mean: 1 is as far as another Retrain.
    """
    found = []
    for key, row in results["rows"].items():
        setting = results["plan"]["methods"].get(row["label"])
        if key not in LABELS and setting is not None:
            own = Unlearning.read(setting), _distances(results, key)
            found.append(Seen(row["label"], *own))
    return found


def untouched(results: Results) -> np.ndarray:
    """Return the distance of the original from Retrain, as `seen_in` has it."""
    return _distances(results, "original")


def _distances(results: Results, key: str) -> np.ndarray:
    rows = results["rows"]
    nulls = {k: max(rows["null"][k]["mean"], low) for k, low in LEAST.items()}
    own = [np.asarray(rows[key][k]["per_seed"]) / null for k, null in nulls.items()]
    return np.mean(own, axis=0)


def compares(setting: Unlearning) -> bool:
    """Return whether a setting looks at unseen samples."""
    reads = "unseen" in setting.card.reads or bool(setting.compares)
    weighting = setting.weighting_card
    return reads or bool(weighting.reference(setting.weighting_options))


def possible(setting: Unlearning, have: str) -> bool:
    """Return whether what one has is enough for a setting."""
    reads = setting.card.reads
    if have == ALONE:
        return not {"retain", "training"} & {*reads} and not compares(setting)
    if compares(setting) and have != UNSEEN:
        return False
    if have == UNTRAINED:
        return "training" not in reads
    return have == EARLIER or setting.method != "rewind"


def nearest(
    rows: Iterable[Seen], have: str, usual: str = frontier.RETRAINING[1]
) -> Seen | None:
    """Return the row that is nearest to Retrain of those that are possible.

    Partial reset stays where none is clearly nearer (p < 0.05, paired over the seeds)
    nor nearer by a null on the mean: its rates follow from the original's training,
    those of others were searched. `usual` is the label of its κ, see `usual_of`.
    """
    own = [row for row in rows if possible(row.setting, have)]
    best = min(own, key=lambda row: row.mean, default=None)
    kept = next((row for row in own if row.label == usual), None)
    if best is None or kept is None or best is kept:
        return best
    clearly = _clearly(best.distances, kept.distances)
    return best if clearly or kept.mean - best.mean > NULL else kept


def usual_of(cells: Iterable[Iterable[Seen]]) -> str:
    """Return which partial reset is the usual one, by all requests and budgets.

    That of κ = 1, unless κ = 1 − λ is clearly nearer, paired over all and the seeds:
    a choice by budget would go to and fro with what two seeds' means happen to be.
    """
    plain, convex = frontier.RETRAINING[1:]
    pairs = []
    for rows in cells:
        known = {row.label: row.distances for row in rows}
        if {plain, convex} <= known.keys():
            pairs.append((known[convex], known[plain]))
    if not pairs:
        return plain
    both = (np.concatenate(one) for one in zip(*pairs, strict=True))
    return convex if _clearly(*both) else plain


def _clearly(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether distances are clearly smaller than others."""
    test = audit.paired_test(one, other)
    return test.p < LEVEL and test.mean_difference < 0


class Study(NamedTuple):
    """What a study has of a request at a budget."""

    name: str
    rate: float
    rows: list[Seen]
    original: np.ndarray


def rows_of(stored: Mapping[str, Results]) -> list[Row]:
    """Return the chooser's rows, of the stored results by the name of their file."""
    cells: dict[tuple[str, float], list[Study]] = {}
    for study in STUDIES:
        for request, budgets in frontier.by_request(stored.get(study, {})).items():
            for budget, results in budgets.items():
                rate = results["plan"]["training"]["learning_rate"]
                own = seen_in(results), untouched(results)
                one = Study(study.replace("_", "-"), rate, *own)
                cells.setdefault((request, budget), []).append(one)
    rows = []
    seen_at = {at: _together([one.rows for one in s]) for at, s in cells.items()}
    usual = usual_of(seen_at.values())
    for (request, budget), studies in sorted(cells.items()):
        seen = seen_at[request, budget]
        names, rate = ", ".join(one.name for one in studies), studies[0].rate
        original = float(np.concatenate([one.original for one in studies]).mean())
        for have in (RECORD, UNSEEN, EARLIER, ALONE):
            best = nearest(seen, have, usual)
            if best is None:
                continue
            # With the retain set partial reset is possible, and a request is served.
            if have == ALONE and best.mean > original:
                own = "", NOTHING, {}, round(original, 2), names, rate
                rows.append(Row(request, budget, have, *own))
            else:
                rows.append(_row(request, budget, have, best, names, rate))
    if (few := stored.get(CHOICE, {}).get(PART)) is not None:
        best = nearest(seen_in(few), PART)
        if best is not None:
            name = CHOICE.replace("_", "-")
            rows.append(_row("random10", 0.2, PART, best, name, 0.1))
    return rows + _as_they_come(stored.get(COME, {}))


def _as_they_come(found: Mapping[str, Results]) -> list[Row]:
    """Return the rows for models that nobody knows the training of.

    One method serves every request: that of the least mean Avg. Gap over all of them,
    since as they come most leave one kind of request as it was.
    """
    if not found:
        return []
    parts = {part: seen_in(own) for part, own in found.items()}
    gaps: dict[str, list[float]] = {}
    for part, own in parts.items():
        for row in own:
            if possible(row.setting, UNTRAINED):
                gap = found[part]["rows"][slug(row.label)]["avg_gap"]["mean"]
                gaps.setdefault(row.label, []).append(gap)
    best = min(gaps, key=lambda label: float(np.mean(gaps[label])))
    name = COME.replace("_", "-")
    return [
        _row(_REQUESTS[part], 0.0, UNTRAINED, row, name, 0.1)
        for part, own in parts.items()
        for row in own
        if row.label == best and part in _REQUESTS
    ]


def _together(studies: list[list[Seen]]) -> list[Seen]:
    """Return the rows that all studies have, their seeds side by side."""
    others = [{row.label: row for row in own} for own in studies[1:]]
    return [
        row._replace(
            distances=np.concatenate(
                [row.distances, *(own[row.label].distances for own in others)]
            )
        )
        for row in studies[0]
        if all(row.label in own for own in others)
    ]


def _row(
    request: str, budget: float, have: str, best: Seen, study: str, rate: float
) -> Row:
    """Return a cell of the chooser; partial reset and what comes as it is say less."""
    length = ("method", "budget", "epochs", "steps", "share", "rho")
    setting = {k: v for k, v in told(best.setting).items() if k not in length}
    if best.setting.weighting == best.setting.card.weighting:
        del setting["weighting"]
    if best.setting.method == FIRST:  # λ follows from the budget
        setting = {k: v for k, v in setting.items() if k == "perturb"}
    own = {} if have == UNTRAINED else setting
    named = best.setting.method, best.label, own
    return Row(request, budget, have, *named, round(best.mean, 2), study, rate)


def text_of(rows: Iterable[Row]) -> str:
    """Return the rows as the package keeps them, a row a line."""
    lines = ",\n".join(json.dumps(row._asdict(), ensure_ascii=False) for row in rows)
    return f'{{"format": 1, "rows": [\n{lines}\n]}}\n'


def markdown(rows: Iterable[Row]) -> str:
    """Return the table as README shows it, and what its cells mean."""
    heads, cells = table(rows)
    lines = [heads, ["---"] * len(heads), *cells]
    drawn = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{drawn}\n{LEGEND}\n"


def between(text: str, rows: Iterable[Row]) -> str:
    """Return a document with the table between its two marks, if it has them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        return text
    return f"{before}{begin}\n{markdown(rows)}{end}{after}"
