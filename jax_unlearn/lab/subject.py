"""What a job is about: a kind of model, its network, its data; training, and scores."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import log_softmax

from jax_unlearn.cards import Job
from jax_unlearn.data import Dataset, Examples, retain_only
from jax_unlearn.drivers.loop import Callback
from jax_unlearn.drivers.series import Series
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.modalities import modality_of
from jax_unlearn.lab.modality import Modality
from jax_unlearn.types import Array, Model, Unlearner

__all__ = ["Subject", "Trainer", "described", "sample_losses", "scores", "subject_of"]


class Subject(NamedTuple):
    """A network and its data."""

    modality: Modality
    built: Any
    dataset: Dataset
    examples: Examples

    @property
    def model(self) -> Model:
        """The network's functions."""
        return self.built.model

    @property
    def network(self) -> Any:
        """The network's description."""
        return self.built.network


def subject_of(training: Any, dataset: Dataset) -> Subject:
    """Return the network that a training setting asks for, with its data."""
    modality = modality_of(training)
    dataset = modality.reads(dataset)
    return described(modality, modality.describe(training, dataset), dataset)


def described(modality: Modality, network: Any, dataset: Dataset) -> Subject:
    """Return the network of a description, with its data."""
    built, dataset = modality.build(network), modality.reads(dataset)
    examples = modality.samples(built, dataset.train)
    return Subject(modality, built, dataset, examples)


class Trainer:
    """Train models of one setting from scratch, the compiled step shared."""

    def __init__(self, subject: Subject, setting: Any, execute: Any = execute):
        self.subject, self.setting, self._execute = subject, setting, execute
        self._unlearners: dict[tuple[int, float], Unlearner] = {}

    def steps(self, samples: int) -> int:
        """Return how many steps training on so many samples takes."""
        return self.subject.modality.steps(self.setting, samples)

    def __call__(
        self,
        ids: np.ndarray,
        *,
        seed: int,
        callback: Callback | None = None,
        series: Series | None = None,
        marks: tuple[int, ...] = (),
    ) -> Trained:
        """Train on samples; the seed is of start, order, augmentation and noise.

        The callback is shown the states after the steps of `marks`, whatever else.
        """
        job, key = self.job(ids, seed=seed)
        job = job._replace(marks=marks)
        return self._execute(job, None, key, callback=callback, series=series)

    def job(
        self, ids: np.ndarray, *, seed: int, share: float = 1.0, rate: float = 1.0
    ) -> tuple[Job, Array]:
        """Return a training, its start included, and the key of its run."""
        subject, setting = self.subject, self.setting
        kind, examples = subject.modality, subject.examples
        # the schedule is annealed within them; 0.3·10 is 3, not 4
        steps = math.ceil(share * self.steps(len(ids)) - 1e-9)
        options = {"batch_size": setting.batch_size, "steps": steps, "seed": seed}
        schedule = retain_only(examples, ids, **options)
        schedule = kind.layout(subject, setting, schedule)
        if (steps, rate) not in self._unlearners:
            peak = rate * setting.learning_rate
            told = dataclasses.replace(setting, learning_rate=peak)
            self._unlearners[steps, rate] = kind.optimize(subject.built, told, steps)
        init_key, run_key = jax.random.split(jax.random.key(seed))
        two = examples.at(slice(2)).inputs
        if kind.start is None:
            start = jax.jit(subject.model.init)(init_key, two)
        else:
            start = kind.start(subject, setting, init_key, two)
        unlearner = self._unlearners[steps, rate]
        return Job(unlearner, schedule, start=start, finish=kind.finish), run_key


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
        part = examples.at(ids)
        seen = kind.observe(subject, trained[:2], part).astype(np.float64)
        graded = "logits" in kind.roles or kind.texts
        found[name] = _scores(seen, kind.targets(part), graded)
        if kind.texts:  # "right" against 0 says what the probability is
            found[name] = {"loss": found[name]["loss"]}
    return found


def sample_losses(subject: Subject, trained: Trained, ids: np.ndarray) -> np.ndarray:
    """Return a classifier's cross-entropy of training samples, `f64[n]`."""
    part = subject.examples.at(ids)
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
