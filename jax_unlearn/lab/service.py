"""A request served whole: which method, how long it may take, what its audit means."""

import ast
import math
import operator
from collections.abc import Mapping
from typing import Any

from jax_unlearn import _validate
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.errors import InputError
from jax_unlearn.lab.advice import lasting
from jax_unlearn.lab.context import Origin
from jax_unlearn.lab.modalities import MODALITIES
from jax_unlearn.lab.modalities.classification.beside import said_beside, stands
from jax_unlearn.lab.modality import Modality
from jax_unlearn.lab.origins import training_in
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.settings import Unlearning

RECOMMENDED = "partial_reset"  # of a classifier whose training is known
UNTRAINED = "scrub"  # of one from elsewhere
_OPERATIONS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def recommended(modality: Modality, record: Mapping[str, Any]) -> str:
    """Return the method that serves a request where none is named.

    Partial reset takes its length and learning rates from the original's training, so
    that nothing has to be searched; where no record says how that went, SCRUB. In
    `recipes/results/defaults_digits.md` methods are compared as they come.
    """
    if modality.name != MODALITIES[0].name:
        return Unlearning.method
    return RECOMMENDED if training_in(record) else UNTRAINED


def budgeted(
    setting: Unlearning,
    budget: float,
    origin: Origin | None,
    request: Request,
    modality: Modality,
) -> Unlearning:
    """Return a setting as long as a share of the original's training allows.

    Methods that train anew have a share of their own; those that step get as many
    epochs (or steps, below one epoch) as cost that share in gradients of samples, by
    the formula of their card.

    Raises:
      InputError: a method without a length, an original whose training nobody knows, or
        a share in which it cannot take a step.
    """
    _validate.fraction("budget", budget, "try 0.3")
    card, method = setting.card, setting.method
    if hasattr(setting.options, "share"):
        return setting.but(share=budget)
    if card.kind != "steps":
        raise InputError(
            f"budget={budget}: {method} has no length to choose; leave --budget out, "
            f"or take --method {RECOMMENDED}"
        )
    if origin is None:
        raise InputError(
            f"budget={budget} is a share of the original's training, of which the "
            "checkpoint has no record; give --epochs or --steps instead"
        )
    forget, retain = len(request.forget), setting.rho * len(request.retain)
    size, trained = origin.training.batch_size, forget + len(request.retain)
    whole = modality.steps(origin.training, trained) * min(size, trained)
    left = budget * whole - cost(setting, 0, forget, retain)
    epoch = cost(setting, 1, forget, retain) - cost(setting, 0, forget, retain)
    steps = steps_of_epoch(setting, forget, retain)
    if setting.schedule == "zipped" and card.schedule:  # forget samples come again
        epoch *= 2 * steps * setting.batch_size / (forget + retain)
    epochs = left / epoch
    if epochs >= 1 and not setting.steps:
        return setting.but(epochs=int(epochs))
    if card.by_epochs or left * steps < epoch:
        least = (
            budget * whole - left + epoch / (1 if card.by_epochs else steps)
        ) / whole
        raise InputError(
            f"budget={budget} is less than {method} takes at least; give --budget "
            f"{_rounded_up(least):g} or more, or --method {RECOMMENDED}"
        )
    return setting.but(steps=int(epochs * steps))


def _rounded_up(share: float) -> float:
    """Return a share of two digits that is no smaller."""
    digit = 10.0 ** (math.floor(math.log10(share)) - 1)
    return min(round(math.ceil(share / digit * (1 + 1e-9)) * digit, 9), 1.0)


def cost(setting: Unlearning, epochs: int, forget: int, retain: float) -> float:
    """Return what a setting costs by its card's formula, in gradients of samples.

    >>> cost(Unlearning.of(method="scrub", forget_epochs=3), 3, 10, 100)
    440.0
    """
    card = setting.card
    values = {"E": epochs, "F": forget, "R": retain, **vars(setting.options)}
    text = card.cost.removeprefix("at least ").partition(":")[0].partition(";")[0]
    try:
        return _value(ast.parse(text.replace("·", "*"), mode="eval").body, values)
    except (SyntaxError, KeyError, TypeError) as error:
        raise InputError(
            f"budget: the cost of {setting.method}, {card.cost!r}, cannot be counted; "
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
    merged = setting.card.schedule and setting.scheduling == "merged"
    samples = forget + retain if merged else retain if both else 0
    if not samples:
        samples = forget if "forget" in setting.card.reads else retain
    return max(1, -(-int(samples) // setting.batch_size))


def conclusion(
    results: Mapping[str, Any],
    key: str,
    model: str,
    *,
    retrains: int,
    seconds: float | None = None,
    known: bool = True,
) -> str:
    """Return what a person can do with a model that was audited beside few Retrains.

    Args:
      results: of the audit of classifiers, beside unseen samples; `advice.judged` says
        the same of an audit beside Retrains.
      key: of the model's row.
      model: where it stands.
      retrains: how many the audit had.
      seconds: that one more took, if that is known.
      known: whether the original's record says how it was trained.
    """
    found = results["unseen"]
    stand, said = stands(found, key), f"The model {said_beside(found, key)}."
    before = stands(found, "original")
    if stand == "like" and before == "like":
        then = (
            "So was the original: by this measure there was nothing to forget; serve "
            f"{model} if the request has to be carried out all the same."
        )
    elif stand == "like":
        then = f"By this measure it has forgotten them: serve {model}."
    elif stand == "over":
        then = (
            "It forgot too much, which gives them away: do not serve it; give a "
            f"smaller {'--budget' if known else 'number of epochs'} or learning rate, "
            "another --method, or retrain."
        )
    elif stand == "remembered":
        then = (
            "It has not forgotten them: do not serve it; give a larger "
            f"{'--budget' if known else 'learning rate, more epochs'}, another "
            "--method, or retrain."
        )
    else:
        then = f"Nothing can be compared with them: look at {model} before it serves."
    one, first = found["models"][key]["test"], found["models"]["original"]["test"]
    if one is not None and first is not None:
        then += f" Test accuracy went from {first:.1f} to {one:.1f} %."
    missing = FEWEST - retrains
    each = "" if seconds is None else f", about {lasting(missing * seconds)}"
    have = f"{retrains or 'no'} Retrain{'' if retrains == 1 else 's'}"
    how = f"--with-retrain {FEWEST} --resume"
    if not known:
        how = "`train --retrain`, told how the original was trained; --retrained"
    return (
        f"{said} {then} With {have} this is no comparison with retraining: {missing} "
        f"more make one ({how}{each})."
    )
