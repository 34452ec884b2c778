"""A request served whole: which method serves it, and what its audit means."""

from collections.abc import Mapping
from typing import Any

from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.lab.advice import lasting
from jax_unlearn.lab.costs import RECOMMENDED
from jax_unlearn.lab.modalities import MODALITIES
from jax_unlearn.lab.modalities.classification.beside import said_beside, stands
from jax_unlearn.lab.modality import Modality
from jax_unlearn.lab.origins import training_in
from jax_unlearn.lab.settings import Unlearning

__all__ = ["conclusion", "recommended"]

UNTRAINED = "scrub"  # of one from elsewhere


def recommended(modality: Modality, record: Mapping[str, Any]) -> str:
    """Return the method that serves a request where none is named.

    Partial reset takes its length and learning rates from the original's training, so
    that nothing has to be searched; where no record says how that went, SCRUB. In
    `recipes/results/defaults_digits.md` methods are compared as they come.
    """
    if modality.texts and training_in(record):
        return RECOMMENDED
    if modality.name != MODALITIES[0].name:
        return modality.defaults.get("method", Unlearning.method)
    return RECOMMENDED if training_in(record) else UNTRAINED


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
