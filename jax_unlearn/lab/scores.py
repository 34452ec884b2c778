"""Accuracy and loss of a model by part of its data: a first look at what was made."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from scipy.special import log_softmax

from jax_unlearn.data import Examples
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.subject import Subject

__all__ = ["sample_losses", "scores"]

TEST = "test"  # the part that is no list of training ids


def scores(
    subject: Subject, trained: Trained, parts: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Return `accuracy` (percent, of classifiers) and mean `loss`, by part and on test.

    The parts are ids of training samples; empty ones are left out. Models that are slow
    to look at are judged by some samples of each part, evenly spaced.
    """
    kind, dataset = subject.modality, subject.dataset
    test = kind.samples(subject.built, dataset.test)
    places = {name: (subject.examples, ids) for name, ids in parts.items()}
    places[TEST] = test, np.arange(len(test.labels))
    found = {}
    for name, (examples, ids) in places.items():
        if not len(ids):
            continue
        if kind.measured and len(ids) > kind.measured:
            ids = ids[np.linspace(0, len(ids) - 1, kind.measured).astype(int)]
        inputs = jax.tree.map(lambda leaf, ids=ids: leaf[ids], examples.inputs)
        part = Examples(inputs, examples.labels[ids])
        seen = kind.observe(subject, trained[:2], part).astype(np.float64)
        graded = "logits" in kind.roles or kind.texts
        found[name] = _scores(seen, kind.targets(part), graded)
        if kind.texts:  # "right" against 0 says what the probability is
            found[name] = {"loss": found[name]["loss"]}
    return found


def sample_losses(subject: Subject, trained: Trained, ids: np.ndarray) -> np.ndarray:
    """Return a classifier's cross-entropy of training samples, `f64[n]`."""
    inputs = jax.tree.map(lambda leaf: leaf[ids], subject.examples.inputs)
    part = Examples(inputs, subject.examples.labels[ids])
    seen = subject.modality.observe(subject, trained[:2], part).astype(np.float64)
    return _losses(seen, subject.modality.targets(part))


def _losses(seen: np.ndarray, targets: Any) -> np.ndarray:
    return -log_softmax(seen, axis=1)[np.arange(len(seen)), np.asarray(targets)]


def _scores(seen: np.ndarray, targets: Any, logits: bool) -> dict[str, float]:
    if not logits:  # of "right", minus the loss, against 0
        return {"loss": float(-seen[:, 0].mean())}
    loss = _losses(seen, targets).mean()
    accuracy = 100 * np.mean(seen.argmax(axis=1) == np.asarray(targets))
    return {"accuracy": float(accuracy), "loss": float(loss)}
