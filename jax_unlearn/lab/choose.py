"""Which method serves a request, by its budget and by what there is to work with.

What was nearest to Retrain in the studies stands in `recipes/chooser.json`, which
`jax-unlearn recipe --table` makes from their results; nothing here names a winner.
"""

import functools
import importlib.resources
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit.rates import roc_auc
from jax_unlearn.lab.catalog import METHODS
from jax_unlearn.lab.modality import Modality
from jax_unlearn.lab.plan import NEIGHBOURS
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.methods.auto import shrinkage

__all__ = ["FIRST", "HAVE", "LEGEND", "NOTHING", "REQUESTS", "Choice", "Row"]
__all__ += ["apartness", "best", "choice", "kind_of", "rows", "table"]

FIRST = "partial_reset"  # where the training of the original is known
UNKNOWN = "scrub"  # where it is not, and no study says better
NOTHING = "nothing"  # label where every method ends farther away than the original is
LITTLE = 0.5  # share of the retain set below which partial reset learns too little anew
HALF = 0.3  # of the training samples: nearer to a half than to a tenth
LIKE, UNLIKE = 0.28, 0.77  # of `apartness`: on digits "near" has 0.17 to 0.19, "far"
# 0.95 to 0.97, and a draw at random 0.39 to 0.59 (seeds 0 to 4)
MOST = 2000  # samples of a part whose neighbours are looked for
UNEVEN = 0.05  # total variation between the classes of the request and of the training

RECORD, UNSEEN, EARLIER = "record", "unseen", "earlier"
UNTRAINED, PART, ALONE = "untrained", "part", "alone"
HAVE = {
    RECORD: "the retain set and the training settings",
    UNSEEN: "these and unseen samples",
    EARLIER: "these and earlier checkpoints",
    UNTRAINED: "the retain set, not the training settings",
    PART: "a part of the retain set",
    ALONE: "the forget set alone",
}
"""What one may have, by the words of the chooser."""


REQUESTS = {
    "random10": "10 % at random",
    "random50": "50 % at random",
    "gamma-1": "30 %, long-tailed",
    "class": "a class",
    "near": "10 %, like others",
    "far": "10 %, unlike others",
}
"""The requests of the studies, as the chooser calls them."""

LEGEND = (
    "A cell names the method that came nearest to Retrain in the studies; percentages "
    "are shares of Retrain's cost. Distance is the mean of Avg. Gap and |p − p*|, each "
    "divided by the null's: 1 is as far as another Retrain. Partial reset is named "
    "unless another method is clearly nearer (p < 0.05), or nearer by 1. The nearest "
    'may still be far: see the page of the study. "nothing": with the forget set '
    "alone, every method ended farther from Retrain than the original is. Run none "
    "there: keep the original, say that the request is not served yet, and retrain as "
    "soon as you can. The column for a part of the retain set was measured in one case "
    "(a tenth of it, 10 % at random, at 20 %). For other requests and budgets it is a "
    "guess."
)


class Row(NamedTuple):
    """What was nearest to Retrain, for a request at a budget."""

    request: str
    budget: float  # 0: of any
    have: str
    method: str  # name of its card; empty where doing nothing is nearer than all
    label: str  # of its row in the study
    setting: Mapping[str, Any]  # without the length
    distance: float  # in nulls: 1 is as near as another Retrain
    study: str
    rate: float = 0.1  # peak learning rate of the study's originals


class Choice(NamedTuple):
    """A method, what it is told, and why."""

    method: str
    setting: dict[str, Any]
    why: list[str]


@functools.cache
def rows() -> tuple[Row, ...]:
    """Return what the studies found, as the package has it; empty if it has none."""
    file = importlib.resources.files("jax_unlearn").joinpath("recipes/chooser.json")
    if not file.is_file():
        return ()
    return tuple(Row(**row) for row in json.loads(file.read_text("utf-8"))["rows"])


def kind_of(request: Request, labels: np.ndarray) -> str:
    """Return which of the studies' requests one is most like.

    "class": all samples of some classes; "gamma-1": classes are asked for unevenly;
    "random50", "random10": evenly, much or little. Labels are those of all samples.
    """
    own, trained = labels[request.forget], np.union1d(request.forget, request.retain)
    if not np.isin(own, labels[request.retain]).any():
        return "class"
    classes = int(labels.max()) + 1
    asked, all_of = (
        np.bincount(one, minlength=classes) / len(one) for one in (own, labels[trained])
    )
    chance = np.sqrt(all_of * (1 - all_of) / len(own)).sum() / 2
    if np.abs(asked - all_of).sum() / 2 > UNEVEN + 1.5 * chance:
        return "gamma-1"
    return "random50" if len(own) > HALF * len(trained) else "random10"


def apartness(forget: np.ndarray, retain: np.ndarray) -> float:
    """Return how often a forget sample lies farther from others than a retain one.

    That is the AUC, 0..1, of the mean distance to the nearest retain samples by
    features `[F, d]`, `[R, d]`: 1/2 of a draw at random, 0 of samples that others
    resemble, 1 of those unlike all others.

    >>> apartness(np.array([[9.0]]), np.arange(20.0)[:, None] / 20)
    1.0
    """
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS, len(retain) - 1)
    search = NearestNeighbors(n_neighbors=count).fit(retain)
    own, _ = search.kneighbors(forget)
    others, _ = search.kneighbors()  # without an argument: to the other samples
    return roc_auc(own.mean(axis=1), others.mean(axis=1))


def _alike(
    request: Request, features: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[str, str]:
    """Return "near", "far" or nothing, and what tells it."""
    rng = np.random.default_rng(seed)
    if min(len(request.forget), len(request.retain) - 1) < NEIGHBOURS:
        return "", ""
    parts = [np.sort(rng.permutation(ids)[:MOST]) for ids in request[:2]]
    share = apartness(*(features(ids).reshape(len(ids), -1) for ids in parts))
    chance = 3 / np.sqrt(12 * len(parts[0]))  # three standard errors of a draw
    if LIKE <= share <= UNLIKE or abs(share - 0.5) < chance:
        return "", ""
    kind, word = ("near", "like") if share < LIKE else ("far", "unlike")
    told = f"its samples are {word} the others: farther from their neighbours than"
    return kind, f"{told} {100 * share:.0f} % of those that stay, by its features"


def recognised(
    request: Request,
    labels: np.ndarray,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[str, str]:
    """Return which of the studies' requests one is most like, and what features say.

    Also "near" and "far", of samples like or unlike all others; the arguments are those
    of `choice`.
    """
    like = kind_of(request, labels)
    if like != "random10" or features is None:
        return like, ""
    near, told = _alike(request, features)
    return near or like, told


def choice(
    request: Request,
    labels: np.ndarray,
    kind: Modality,
    *,
    budget: float,
    rho: float = 1.0,
    rate: float | None = None,
    earlier: object = None,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Choice:
    """Return the method that serves a request.

    Args:
      request: who is to be forgotten, of whom.
      labels: of all training samples.
      kind: of the model.
      budget: share of Retrain's cost.
      rho: share of the retain set that may be read.
      rate: peak learning rate of the original's training; None where no record says.
      earlier: states of that training, if some are there.
      features: of training samples by id, as the original sees them: they tell requests
        like all others, or unlike them; None: nobody looks.
    """
    if kind.name != "classification":
        said = f"no study says yet what suits {kind.name} models"
        if kind.texts and rate is not None:
            shrink = round(shrinkage(budget, tied=True), 4)
            at = f"λ = {shrink:.2f} (κ = 1 − λ) by the budget"
            why = f"{METHODS[FIRST].title}, {at}: {said}"
            return Choice(FIRST, {"shrink": shrink}, [why])
        name = kind.defaults.get("method", Unlearning.method)
        return Choice(name, {}, [f"{METHODS[name].title}: {said}"])
    extra = {UNSEEN: len(request.unseen) > 1, EARLIER: earlier is not None}
    have = [RECORD, *(name for name, there in extra.items() if there)]
    have = [PART] if rho < LITTLE else have if rate is not None else [UNTRAINED]
    like, told = recognised(request, labels, None if PART in have else features)
    found = best(like, budget, have) or best("random10", budget, have if told else ())
    if PART in have:
        found = best("random10", budget, have)
        told = "the one case studied with a part of the retain set" if found else ""
    usual = FIRST if RECORD in have else UNKNOWN
    name = found.method if found else usual
    said = f"{METHODS[name].title}{_near(found)}" + (f"; {told}" if told else "")
    if rate is None:
        said += "; no record says how the original was trained"
        return Choice(name, {}, [said])
    own = dict(found.setting) if found else {}
    if found and own.get("optimizer", "sgd") == "sgd" and "learning_rate" in own:
        own["learning_rate"] *= rate / found.rate
    return Choice(name, own, [said])


def best(request: str, budget: float, have: Collection[str]) -> Row | None:
    """Return what was nearest at the nearest budget; None where nothing was studied."""

    def order(row: Row) -> tuple[float, float]:
        far = abs(math.log(row.budget / budget)) if row.budget else 0.0
        return round(far, 6), row.distance

    own = [row for row in rows() if row.have in have and row.request == request]
    return min(own, key=order, default=None)


def _near(found: Row | None) -> str:
    """Return where a method was nearest, as the end of a sentence."""
    if found is None:
        return ""
    at = f" at {100 * found.budget:g} % of Retrain's cost" if found.budget else ""
    return (
        f": nearest to Retrain for such a request{at}, given {HAVE[found.have]} "
        f"({found.study}: {found.distance:.1f} times as far as another Retrain)"
    )


def table(rows: Iterable[Row]) -> tuple[list[str], list[list[str]]]:
    """Return heads and cells: a request a row, a column for what one has.

    A cell names the nearest method by budget, alike neighbours joined; "as column 1"
    is what the first of them says.
    """
    rows = list(rows)
    haves = [h for h in HAVE if any(row.have == h for row in rows)]
    cells = []
    for name, title in REQUESTS.items():
        own = [row for row in rows if row.request == name]
        found = [_cell([row for row in own if row.have == have]) for have in haves]
        more = ["as column 1" if cell == found[0] else cell for cell in found[1:]]
        if own:
            cells.append([title, found[0], *more])
    return ["to forget, if you have", *(HAVE[have] for have in haves)], cells


def _cell(rows: list[Row]) -> str:
    """Return the methods of one cell, by ranges of budgets."""
    runs: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: row.budget):
        if runs and runs[-1][-1].label == row.label:
            runs[-1].append(row)
        else:
            runs.append([row])
    if len(runs) == 1:
        return runs[0][0].label
    return "; ".join(f"{_range(run)} {run[0].label}" for run in runs)


def _range(run: list[Row]) -> str:
    low, high = (f"{100 * row.budget:g}" for row in (run[0], run[-1]))
    return f"{low} %:" if low == high else f"{low} to {high} %:"
