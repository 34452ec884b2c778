"""Auto: partial reset whose λ follows from the budget, or is looked for within it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jax_unlearn import _validate
from jax_unlearn.cards import Card, Count, Fraction, Job, Lab, Options, Variables
from jax_unlearn.errors import InputError
from jax_unlearn.methods.reset import PartialReset, partial_reset
from jax_unlearn.types import Params

__all__ = ["AUTO", "MARGIN", "RETAINED", "TOP", "Attempt", "Auto", "Chosen", "auto"]
__all__ += ["shrinkage"]

TOP = 0.9  # the largest λ: what keeps more forgets nothing
TIED = 0.75  # the same where κ = 1 − λ, of which little is new: search seeds of digits
USUAL = 0.3  # share of Retrain's cost where none is asked for, as of partial reset
MARGIN = 0.03  # of accuracy on unseen samples, below the best
RETAINED = 0.01  # of accuracy on retain samples, below the original's
NEAR = 0.05  # of λ: closer no accuracy tells two apart
MOST = 1000  # samples of a part that an accuracy is measured on
FEWEST = 34  # unseen samples, of which one is the margin
# of `shrinkage`: from budgets of .1, .2 and .4 on search seeds of digits, and from one
# seed of Fashion-MNIST
SLOPE, WHOLE, PER_GAP, GAP = 0.22, 2 / 3, 2.0, 0.03

Made = TypeVar("Made")


def shrinkage(budget: float, *, gap: float = GAP, tied: bool = False) -> float:
    """Return the λ of partial reset that suits a budget, without trying any.

    λ(b, g) = 0.22 log₂(⅔ / b) + 2 g, cut to [0, 0.9], or to [0, 0.75] where κ = 1 − λ:
    half the time asks to keep 0.22 more of the original, and so does a gap larger by
    11 points: what was memorised, and other samples do not teach, takes long to learn.

    Args:
      budget: share of Retrain's steps, in (0, 1].
      gap: the original's accuracy on the samples it was trained on less that on unseen
        ones, in 0..1; by default a small one.
      tied: whether κ = 1 − λ.

    Raises:
      InputError: the budget is not in (0, 1], or the gap not finite.

    Source: our choice; how often it is right: `recipes/results/choice_digits.md`.

    >>> [round(shrinkage(budget), 2) for budget in (0.05, 0.2, 0.4, 1.0)]
    [0.88, 0.44, 0.22, 0.0]
    >>> round(shrinkage(0.2, gap=0.15), 2)
    0.68
    """
    _validate.fraction("budget", budget, "try 0.2")
    _validate.within("gap", gap, "[-1, 1]", "accuracies lie in 0..1")
    shrink = SLOPE * math.log2(WHOLE / budget) + PER_GAP * gap
    return min(max(shrink, 0.0), TIED if tied else TOP)


class Attempt(NamedTuple):
    """A λ that was tried, and what it came to.

    Attributes:
      shrink: λ.
      accuracy: on samples that no model saw.
      retained: accuracy on retain samples, less the original's.
    """

    shrink: float
    accuracy: float
    retained: float = 0.0


class Chosen(NamedTuple):
    """What `auto` chose.

    Attributes:
      made: what `train` made of it.
      shrink: its λ.
      share: of Retrain's steps that each attempt took.
      interval: the largest λ that was too small (0 if none was), and the one chosen;
        None where nothing was looked at.
      tried: the attempts, in their order.
    """

    made: Any
    shrink: float
    share: float
    interval: tuple[float, float] | None
    tried: tuple[Attempt, ...]


def auto(
    params: Params,
    fresh: Params,
    train: Callable[[Params, float], Made],
    *,
    budget: float,
    accuracy: Callable[[Made], tuple[float, float]] | None = None,
    attempts: int = 1,
    first: float | None = None,
    perturb: float | None = 1.0,
) -> Chosen:
    """Unlearn by partial reset within a budget, λ chosen without a Retrain.

    One attempt has `first` for its λ. Several share the budget: the first of them has
    λ = 0.9 and shows what accuracy can be had, the second has `first`, and the others
    halve the interval in which the smallest λ lies that loses nothing: its accuracy on
    unseen samples is within 3 points of the best, that on retain samples within one of
    the original's. The smallest such λ wins: less of the original loses too much, more
    of it remembers more than it must. Attempts too close to tell apart are not made.

    Args:
      params: of the model that is to forget.
      fresh: a new initialisation of the same structure.
      train: `(params, share) -> made`: trains on the retain set from some parameters,
        its schedule annealed within that share of Retrain's steps.
      budget: share of Retrain's steps, for all attempts together.
      accuracy: of what was made, in 0..1: on samples that were never trained on, and
        on retain samples less the original's.
      attempts: how many to make at most; without `accuracy` one is made.
      first: λ; None: `shrinkage` of an attempt's share of the budget.
      perturb: κ, as of `partial_reset`; None: 1 − λ.

    Raises:
      InputError: a number out of its range.

    Source: our choice, on shrink and perturb (arXiv 1910.08475).

    >>> def train(params, share):  # a model that needs to keep a half
    ...     return 0.9 if params > 0.48 else 0.6
    >>> def accuracy(made):
    ...     return made, 0.0
    >>> told = {"budget": 0.4, "accuracy": accuracy, "attempts": 4}
    >>> chosen = auto(1.0, 0.0, train, **told)
    >>> [round(one.shrink, 2) for one in chosen.tried], chosen.share
    ([0.9, 0.66, 0.33, 0.5], 0.1)
    >>> round(chosen.shrink, 2), round(chosen.interval[0], 2), chosen.made
    (0.5, 0.33, 0.9)
    """
    _validate.fraction("budget", budget, "try 0.2")
    _validate.at_least("attempts", attempts, 1, "1 looks at nothing; try 3")

    def made(shrink: float, share: float) -> Made:
        told = {"shrink": shrink, "perturb": perturb}
        return train(partial_reset(params, fresh, **told), share)

    tied = perturb is None
    if accuracy is None or attempts == 1:
        shrink = shrinkage(budget, tied=tied) if first is None else first
        return Chosen(made(shrink, budget), shrink, budget, None, ())
    share = budget / attempts
    shrink = shrinkage(share, tied=tied) if first is None else first
    kept: dict[float, Made] = {}
    tried: list[Attempt] = []

    def look(shrink: float) -> Attempt:
        kept[shrink] = made(shrink, share)
        tried.append(Attempt(shrink, *map(float, accuracy(kept[shrink]))))
        return tried[-1]

    top, low, high = look(TOP).accuracy, 0.0, TOP
    shrink = TOP / 2 if shrink > TOP - NEAR else shrink
    while len(tried) < attempts and high - low > NEAR:
        found = look(shrink)
        top = max(top, found.accuracy)
        loses = top - found.accuracy > MARGIN or found.retained < -RETAINED
        low, high = (shrink, high) if loses else (low, shrink)
        for other in set(kept) - {high}:  # models take memory
            del kept[other]
        shrink = (low + high) / 2
    return Chosen(kept[high], high, share, (low, high), tuple(tried))


@dataclasses.dataclass(frozen=True)
class Auto(Options):
    """Options of auto.

    Attributes:
      share: share of Retrain's cost, for all attempts together; --budget says the same.
        Default: 0.3 for partial reset; other methods keep their own length.
      attempts: largest number of λ of partial reset to try within that cost, judged by
        the accuracy on unseen samples; 1 takes λ from the budget and measures nothing.
    """

    share: Fraction | None = None
    attempts: Count = 1

    def costs(self, passes: float) -> dict[str, float]:
        """Return the share that is taken where none was asked for."""
        del passes
        return {"share": self.share or USUAL}


def _auto(lab: Lab, options: Auto) -> Job:
    share = options.share or USUAL
    changes, told = lab.choice(share, asked=options.share is not None)
    why = told["why"]
    part = lab.ids("forget"), lab.ids("retain"), lab.original
    if changes["method"] != "partial_reset" or "shrink" in changes:
        if options.attempts > 1:
            why.append("attempts are of classifiers' partial reset: one was made")
        job = lab.part(changes, *part)
        return job._replace(details={**job.details, "chosen": told})
    unseen, several = lab.ids("unseen"), options.attempts > 1
    if several and len(unseen) < FEWEST:
        why.append(
            f"{len(unseen)} unseen samples are too few to judge attempts by "
            f"({FEWEST} are needed): λ follows from the budget"
        )
        several = False
    method = {"method": "short_retrain", "rate": PartialReset().rate}
    whole = lab.part({**method, "share": share}, *part)
    budget, job = share, whole
    if several:
        each = whole.steps // options.attempts
        if not each:
            raise InputError(
                f"attempts={options.attempts}: a budget of {share:g} is {whole.steps} "
                "steps, fewer than attempts; give fewer of them, or a larger --budget"
            )
        budget = share * each * options.attempts / whole.steps
        job = lab.part({**method, "share": budget / options.attempts}, *part)
    fresh, state = job.start or lab.original
    parts = {part: _look(lab, part) for part in ("unseen", "retain")}
    seen = {name: part(lab.original) for name, part in parts.items()}
    spent: list[float] = []

    def train(params: Params, share: float) -> Job | Variables:
        begun = job._replace(start=(params, state))
        if not several:
            return begun
        end, seconds = lab.done(begun, lab.original, len(spent))
        spent.append(seconds["run"])
        return end

    def accuracy(at: Any) -> tuple[float, float]:
        return parts["unseen"](at), parts["retain"](at) - seen["retain"]

    perturb = changes.get("perturb", PartialReset().perturb)
    each = budget / (options.attempts if several else 1)
    gap = max(seen["retain"] - seen["unseen"], 0.0) if len(unseen) >= FEWEST else GAP
    chosen = auto(
        lab.original[0],
        fresh,
        train,
        budget=budget,
        accuracy=accuracy if several else None,
        attempts=options.attempts,
        first=shrinkage(each, gap=gap, tied=perturb is None),
        perturb=perturb,
    )
    setting = {"shrink": round(chosen.shrink, 4), "perturb": perturb}
    told["setting"] = setting | {"share": chosen.share}
    details = {**job.details, "chosen": told}
    if not several:
        how = f" and from {100 * gap:.1f} points less accuracy on unseen samples"
        few = f" ({len(unseen)} unseen samples say nothing more)"
        how = how if len(unseen) >= FEWEST else few
        kept = f"λ = {chosen.shrink:.2f}{' (κ = 1 − λ)' if perturb is None else ''}"
        why.append(f"{kept} follows from the budget{how}")
        return chosen.made._replace(details=details)
    why.append(_said(chosen, len(unseen)))
    told["tried"] = [one._asdict() for one in chosen.tried]
    told["interval"], told["seconds"] = chosen.interval, spent
    at = chosen.made
    return Job(None, None, transform=lambda *_: at, details=details)


def _look(lab: Lab, part: str) -> Callable[[Variables], float]:
    """Return what tells the accuracy on a part's samples of classes that stay."""
    stays = np.isin(lab.labels(part), lab.labels("retain"))
    ids, labels = lab.ids(part)[stays], lab.labels(part)[stays]
    some = np.random.default_rng(lab.seed).permutation(len(ids))[:MOST]
    ids, labels = ids[some], labels[some]

    def accuracy(at: Variables) -> float:
        if not len(ids):
            return 0.0
        return float(np.mean(lab.predict(ids, at).argmax(axis=-1) == labels))

    return accuracy


def _said(chosen: Chosen, unseen: int) -> str:
    """Return in words where a λ comes from that was looked for."""
    tried = ", ".join(
        f"{one.shrink:.2f}: {100 * one.accuracy:.1f} %" for one in chosen.tried
    )
    low, high = chosen.interval or (0.0, chosen.shrink)
    return (
        f"λ = {high:.2f} is the smallest of {len(chosen.tried)} attempts that loses "
        f"no accuracy (on {unseen} unseen samples {tried}); the smallest there is lies "
        f"between {low:.2f} and {high:.2f}"
    )


AUTO = (
    Card.of(_auto, "Auto", "Auto: by budget and by what there is")
    .but(cost="share·T·R", kind="training", weighs=False)
    .but(
        suits="Good where no settings can be searched: partial reset, with λ by the "
        "budget, if it is known how the original was trained; else the method that was "
        "nearest to Retrain in the study of the frontier. The reason is printed and "
        "recorded."
    )
    .tries(share=(0.1, 0.2, 0.3), attempts=(1, 3))
)
