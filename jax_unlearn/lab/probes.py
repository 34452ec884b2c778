"""Probes of single models that need the model itself, not only its outputs."""

from collections.abc import Sequence

import jax
import numpy as np
import optax

from jax_unlearn import _validate, audit
from jax_unlearn.data import as_floats, take
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.subject import Subject

PROBES = {
    "relearn": "relearn steps",
    "robustness": "robust accuracy %",
}
"""Names and what they report; the target of both is Retrain's value."""

RATE, LOSS, LIMIT = 0.03, 0.1, 500  # of relearning: SGD until the mean loss; our choice
SGD = optax.sgd(RATE)  # one and the same, so that models share a program
BOUND = 8 / 255  # of the attack on test images, for pixels in 0..1


def probe(
    subject: Subject,
    trained: Trained,
    request: Request,
    names: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Return what the probes find of a model.

    "relearn": steps of SGD (rate 0.03, all forget samples in each) until the mean loss
    on the forget set is at most 0.1, 500 if it never is. "robustness": test accuracy
    under PGD within 8/255, in percent.
    """
    for name in names:
        _validate.one_of("probe", name, PROBES)
    at = subject.model, trained.params, trained.model_state
    dataset = subject.dataset
    found: dict[str, float] = {}
    if "relearn" in names:
        forget = take(dataset.train, request.forget)
        how = SGD, jax.random.key(seed)
        told = audit.relearn_steps(*at, [forget], *how, loss_below=LOSS, limit=LIMIT)
        found["relearn"] = told.steps
    if "robustness" in names:
        pixels = as_floats(np.asarray(dataset.test.inputs))
        found["robustness"] = audit.robust_accuracy(
            *at, pixels, dataset.test.labels, bound=BOUND
        )
    return found
