"""How good an unlearned model is: beside a Retrain, or without one."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import Examples
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import Trained, probabilities
from jax_unlearn.lab.modalities.classification.figures import measure, outputs_of
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.subject import Subject

__all__ = ["Distance", "ForgetAgainstUnseen", "Unseen"]


class Distance:
    """How far models of one request are from its Retrain."""

    by = "avg_gap"

    def __init__(
        self, subject: Subject, request: Request, retrained: Trained, seed: int
    ):
        self._subject, self._request, self._seed = subject, request, seed
        self._goal, self._target = self._look(retrained)

    def __call__(self, trained: Trained) -> dict[str, float]:
        """Return Avg. Gap and mean |p - p*|, or the same of margins in their stead."""
        whole, own = self._look(trained)
        if isinstance(whole, audit.Metrics):
            gap = audit.avg_gap(whole, self._goal)
        else:
            gap = float(np.mean(np.abs(whole - self._goal)))
        apart = np.asarray(own, np.float64) - self._target
        return {"avg_gap": gap, "deviation": float(np.mean(np.abs(apart)))}

    def _look(self, trained: Trained) -> tuple[Any, np.ndarray]:
        """Return what is compared of a model as a whole, and by forget sample."""
        subject, request = self._subject, self._request
        dataset, kind = subject.dataset, subject.modality
        if "logits" in kind.roles:
            outputs = outputs_of(subject, trained)
            whole = measure(outputs, dataset, request, seed=self._seed)
            return whole, outputs.confidence(dataset, request.forget)
        most = kind.measured or None
        parts = [_rows(subject.examples, ids[:most]) for ids in request[:2]]
        parts.append(_rows(kind.samples(subject.built, dataset.test), slice(most)))
        margins = [_margins(subject, trained, part) for part in parts]
        return np.array([one.mean() for one in margins]), margins[0]


class Unseen(NamedTuple):
    """What a model shows of one request, where there is no Retrain."""

    forget: np.ndarray  # how sure it is of the true class of each sample, as the others
    unseen: np.ndarray
    held: np.ndarray  # of the held-out samples
    right: np.ndarray  # whether it is right of each forget sample
    accuracy: float  # share of the held-out samples of classes that stay


class ForgetAgainstUnseen:
    r"""How well forget samples are told from unseen ones, and what utility is lost.

    .. math::
        S(\theta) = 100 \Big| \sum_{k\ \text{stays}} \frac{F_k}{F} (2 A_k - 1) \Big|
          + 100 \sum_{k\ \text{goes}} \frac{F_k}{F} \text{acc}_k(\theta)
          + \max(0, TA(\theta_o) - TA(\theta))

    A_k is the AUC by which the confidence in the true class tells the F_k forget
    samples of class k from unseen samples of that class (of all classes, where it has
    none): 1/2 where nothing does, as of a model that never saw either. Both sides
    count: forget samples that are less sure than unseen ones stand out too. The signed
    values are joined first, since the AUC of the few samples of a class is noise. A
    class that goes, all of whose samples are to be forgotten, has another target: a
    model that never saw it is never right of it. TA is the accuracy, in percent, on
    held-out samples of the classes that stay; the original θ_o has what a Retrain of
    little less data would have. Of models without classes to be right of, the AUC of
    the held-out samples' margins, θ_o against θ, takes its place.

    All three terms are percentages with target 0, and weigh alike, as those of Avg. Gap
    do. Our choice: it reads no Retrain, so it cannot know the accuracy that a Retrain
    would have on samples it never saw; what it can know is that they are like unseen
    ones. Settings chosen by it are to be audited as any others.
    """

    by = "unseen_gap"

    def __init__(self, subject: Subject, request: Request, original: Trained):
        self._subject, self._request = subject, request
        labels = subject.dataset.train.labels
        self._own, self._others = labels[request.forget], labels[request.unseen]
        self._gone = np.setdiff1d(self._own, labels[request.retain])
        if self._gone.size and "logits" not in subject.modality.roles:
            raise InputError(
                f"without_retrain=True: what a {subject.modality.name} model makes of "
                f"class {self._gone[0]}, had it never seen it, is not known without a "
                "Retrain; leave --without-retrain out"
            )
        if not len(self._others):
            raise InputError(
                "without_retrain=True compares with unseen samples, and this model was "
                "trained on all samples; give a checkpoint that some were held out from"
            )
        self._original = self._look(original)

    def __call__(self, trained: Trained) -> dict[str, float]:
        """Return S, and its three terms."""
        found, before = self._look(trained), self._original
        told, right = 0.0, 0.0
        for k in np.unique(self._own):
            own, share = self._own == k, np.mean(self._own == k)
            if k in self._gone:
                right += share * np.mean(found.right[own])
                continue
            same = self._others == k
            others = found.unseen[same] if same.any() else found.unseen
            told += share * (2 * audit.roc_auc(found.forget[own], others) - 1)
        if "logits" in self._subject.modality.roles:
            lost = 100 * (before.accuracy - found.accuracy)
        else:
            lost = 100 * (2 * audit.roc_auc(before.held, found.held) - 1)
        terms = {"told_apart": 100 * abs(told), "right": 100 * right}
        terms |= {"lost": max(0.0, lost)}
        terms = {name: float(value) for name, value in terms.items()}
        return {"unseen_gap": sum(terms.values()), **terms}

    def _look(self, trained: Trained) -> Unseen:
        subject, request = self._subject, self._request
        train, test = subject.dataset.train, subject.dataset.test
        forget, unseen = request.forget, request.unseen
        if "logits" not in subject.modality.roles:
            held = subject.modality.samples(subject.built, test)
            parts = [_rows(subject.examples, ids) for ids in (forget, unseen)]
            own, others, held = (_margins(subject, trained, p) for p in (*parts, held))
            return Unseen(own, others, held, np.zeros(len(forget), bool), 0.0)
        stays = ~np.isin(test.labels, self._gone)
        own, others, held = (
            probabilities(subject.model, trained, inputs)
            for inputs in (train.inputs[forget], train.inputs[unseen], test.inputs)
        )
        right = held.argmax(1) == test.labels
        return Unseen(
            _sure(own, self._own),
            _sure(others, self._others),
            _sure(held, test.labels),
            own.argmax(1) == self._own,
            float(np.mean(right[stays])) if stays.any() else 0.0,
        )


def _sure(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return probabilities[np.arange(len(labels)), labels]


def _margins(subject: Subject, trained: Trained, examples: Examples) -> np.ndarray:
    """Return how sure a model of any kind is of each sample, `[n]`."""
    kind = subject.modality
    logits = kind.observe(subject, trained[:2], examples)
    return audit.margins(logits, kind.targets(examples))


def _rows(examples: Examples, ids: Any) -> Examples:
    return jax.tree.map(lambda leaf: leaf[ids], examples)
