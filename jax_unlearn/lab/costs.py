"""What a method costs beside Retrain, counted by its card; and a budget that it keeps.

Counted are gradients of single samples, a forward pass as a third of one: what the
FLOPs of a step are made of, for any network, without compiling it twice. Not counted
are guards, attacks that a method trains, and what is measured of the original once.
"""

import ast
import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.lab.modality import Modality
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.rewinds import Kept, Origin, epoch_of
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.methods.rum import NOTHING, Rum

__all__ = ["RECOMMENDED", "Count", "TooLittle", "affordable", "beside"]
__all__ += ["cost", "count_of", "met", "passes_of", "share_of", "steps_of_epoch"]

RECOMMENDED = "partial_reset"  # of a classifier whose training is known
_OPERATIONS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class TooLittle(InputError):
    """A budget in which a method cannot take a step."""


class Count(NamedTuple):
    """Gradients of samples: those of no epoch, of each one more; steps of an epoch."""

    fixed: float
    epoch: float
    steps: int

    def of(self, setting: Unlearning) -> float:
        """Return what a setting's own length costs."""
        if setting.card.kind != "steps":
            return self.fixed
        epochs = setting.steps / self.steps if setting.steps else setting.epochs
        return self.fixed + epochs * self.epoch


def passes_of(training: Any, samples: int, modality: Modality) -> float:
    """Return how many passes over so many samples a training makes, T."""
    return modality.steps(training, samples) / epoch_of(training, samples)


def count_of(
    setting: Unlearning, request: Request, passes: float, classes: int = 1
) -> Count:
    """Return what a setting costs for a request, Retrain making so many passes."""
    known = passes, classes
    if isinstance(setting.options, Rum):
        return _count_of_parts(setting, setting.options, request, *known)
    forget, retain = len(request.forget), setting.rho * len(request.retain)
    none, one = (cost(setting, e, forget, retain, *known) for e in (0, 1))
    steps, epoch = steps_of_epoch(setting, forget, retain), one - none
    if setting.scheduling == "zipped" and setting.card.schedule:
        epoch *= 2 * steps * setting.batch_size / (forget + retain)  # D_f comes again
    if setting.card.kind == "steps":  # unseen samples that ride along, forwards
        options, unseen = setting.weighting_options, len(request.unseen)
        how = setting.weighting_card.reference(options)
        every = getattr(options, "every", 1) if how == "whole" else 1
        if getattr(options, "estimator", "every") != "every":
            every = 1
        ride = min(setting.batch_size, unseen) if how == "batches" else unseen
        epoch += steps * ride / (3 * every) if how else 0.0
        none += forget if setting.salient and not setting.card.salient else 0
    return Count(none, epoch, steps)


def _count_of_parts(
    setting: Unlearning, options: Rum, request: Request, *known: Any
) -> Count:
    """Return the sum of what the methods of RUM's parts cost, and of the scores."""
    parts = np.array_split(request.forget, len(options.parts))
    fixed, epoch = 0.0 if options.memorised else len(request.forget) / 3, 0.0
    for number, name in enumerate(options.parts):
        if name == NOTHING:
            continue
        own = setting.part(options.changes(number))
        retain = np.concatenate([request.retain, *parts[number + 1 :]])
        asked = request._replace(forget=parts[number], retain=retain)
        one = count_of(own, asked, *known)
        given = options.part_epochs is not None
        fixed += one.of(own) if given else one.fixed
        epoch += 0.0 if given else one.epoch
    return Count(fixed, epoch, 1)


def share_of(
    setting: Unlearning,
    request: Request,
    training: Any,
    modality: Modality,
    classes: int = 1,
) -> float | None:
    """Return a setting's cost as a share of Retrain's; None where its card says none.

    A budget that is not met yet is what it may cost.
    """
    samples = len(request.retain)
    if not samples:
        return None
    passes = passes_of(training, samples, modality)
    try:
        count = count_of(setting, request, passes, classes)
    except InputError:
        return None
    return count.of(setting) / (passes * samples)


def beside(
    setting: Unlearning, origin: Origin | None, request: Request, modality: Modality
) -> float | None:
    """Return `share_of` a setting whose budget is met first; None: nobody knows."""
    if origin is None or not len(request.retain):
        return None
    found = met(setting, origin, request, modality)
    return share_of(found, request, origin.training, modality, origin.classes)


def met(
    setting: Unlearning,
    origin: Origin | None,
    request: Request,
    modality: Modality,
) -> Unlearning:
    """Return a setting as long as its budget allows; itself where it has none.

    The budget is a share of Retrain's cost. Methods that train anew get that share of
    its steps, methods that step as many steps as cost no more by the formula of their
    card (whole epochs, of those that have no others); R2D begins at the first state
    from which the rest costs no more. All are rounded down.

    Raises:
      InputError: a method without a length, an original whose training nobody knows, or
        (TooLittle) a budget in which it cannot take a step.
    """
    if (budget := setting.budget) is None:
        return setting
    card, method = setting.card, setting.method
    free = {"budget": None}
    length = [n for n in ("share", "rewind_to") if hasattr(setting.options, n)]
    if card.kind != "steps" and not length:
        raise InputError(
            f"budget={budget}: {method} has no length to choose; leave --budget out, "
            f"or take --method {RECOMMENDED}"
        )
    if origin is None:
        raise InputError(
            f"budget={budget} is a share of the original's training, of which the "
            "checkpoint has no record; "
            + ("leave --budget out" if length else "give --epochs or --steps instead")
        )
    retain = len(request.retain)
    passes = passes_of(origin.training, retain, modality)
    if length:
        total = modality.steps(origin.training, retain)
        steps = math.floor(budget * total + 1e-9)
        if not steps:
            raise _too_little(setting, 1 / total)
        if length == ["share"]:
            fits = math.ceil(budget * total - 1e-9) == steps
            return setting.but(share=budget if fits else steps / total, **free)
        return setting.but(rewind_to=_rewound(setting, steps / total, origin), **free)
    count = count_of(setting, request, passes, origin.classes)
    whole = passes * retain
    if not count.epoch:
        raise InputError(
            f"budget={budget}: {method} so set has no length to choose; leave "
            "--budget out"
        )
    epochs = (budget * whole - count.fixed) / count.epoch + 1e-9
    whole_ones = card.by_epochs or int(epochs % 1 * count.steps) == 0
    if epochs >= 1 and whole_ones and not setting.steps:
        return setting.but(epochs=int(epochs), steps=0, **free)
    if card.by_epochs or epochs * count.steps < 1:
        least = count.fixed + count.epoch / (1 if card.by_epochs else count.steps)
        raise _too_little(setting, least / whole)
    return setting.but(steps=int(epochs * count.steps), **free)


def affordable(
    setting: Unlearning, origin: Origin | None, request: Request, modality: Modality
) -> float | None:
    """Return a budget below Retrain's cost that a method can keep; None: it has none.

    The first of 0.3, 0.5 and 0.9 in which it takes a step.
    """
    length = {"steps": 0, "epochs": Unlearning.epochs}
    for budget in (0.3, 0.5, 0.9):
        try:
            own = setting.but(budget=budget, **length)
            met(own, origin, request, modality)
            return budget
        except InputError:
            continue
    return None


def _rewound(setting: Unlearning, share: float, origin: Origin) -> float:
    """Return the place from which no more than a share of the training is left."""
    states = origin.earlier
    if not isinstance(states, Kept):  # any state can be made, or one is given
        return max(1 - share, 0.0)
    places = [0.0, *(step / states.total for step in states.steps)]
    found = [place for place in places if 1 - place <= share + 1e-9]
    if not found:
        raise _too_little(setting, 1 - places[-1])
    return min(found)


def _too_little(setting: Unlearning, least: float) -> TooLittle:
    """Return the error of a budget that is below the least that will do."""
    least = round(least, 9)
    digit = 10.0 ** (math.floor(math.log10(least)) - 1)
    enough = round(math.ceil(round(least / digit, 6)) * digit, 9)
    if enough > 1:
        remedy = f"leave --budget out, or take --method {RECOMMENDED}"
    else:
        remedy = f"give --budget {enough:g} or more, or --method {RECOMMENDED}"
    return TooLittle(
        f"budget={setting.budget} is less than {setting.method} takes at least; "
        f"{remedy}"
    )


def cost(
    setting: Unlearning,
    epochs: float,
    forget: float,
    retain: float,
    passes: float = 1.0,
    classes: int = 1,
) -> float:
    """Return what a setting costs by its card's formula, in gradients of samples.

    >>> cost(Unlearning.of(method="scrub", forget_epochs=3), 3, 10, 100)
    440.0
    >>> cost(Unlearning.of(method="rewind", rewind_to=0.75), 0, 10, 100, passes=40)
    1000.0
    """
    card, options = setting.card, setting.options
    values = {"E": epochs, "F": forget, "R": retain, "T": passes, "K": classes}
    values |= vars(options)
    if hasattr(options, "costs"):
        values |= options.costs(passes)
    text = card.cost.removeprefix("at least ").partition(":")[0].partition(";")[0]
    try:
        return _value(ast.parse(text.replace("·", "*"), mode="eval").body, values)
    except (SyntaxError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"budget: the cost of {setting.method}, {card.cost!r}, cannot be counted; "
            "write it in its card as a formula of E, F, R, T, K and its options, or "
            "give --epochs instead"
        ) from error


def _value(node: ast.AST, values: Mapping[str, Any]) -> float:
    """Return the value of a formula of names, numbers and the four operations."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        pair = _value(node.left, values), _value(node.right, values)
        return _OPERATIONS[type(node.op)](*pair)
    if isinstance(node, ast.Name):
        return float(values[node.id])
    if isinstance(node, ast.Constant):
        return float(node.value)  # type: ignore
    raise KeyError(type(node).__name__)


def steps_of_epoch(setting: Unlearning, forget: int, retain: float) -> int:
    """Return how many steps an epoch takes, by the schedule and what is read."""
    both = {"forget", "retain"} <= set(setting.card.reads)
    how = setting.scheduling if setting.card.schedule else ""
    samples = forget + retain if how == "merged" else retain if both else 0
    if not samples:
        samples = forget if "forget" in setting.card.reads else retain
    steps = -(-int(samples) // setting.batch_size)
    steps += -(-forget // setting.batch_size) if how == "sequential" else 0
    return max(1, steps)
