"""The judge of generated images: a classifier trained on all real ones, and figures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn import _validate, audit
from jax_unlearn.data import Dataset, Examples, holdout
from jax_unlearn.drivers.loop import predict
from jax_unlearn.drivers.series import Series
from jax_unlearn.lab.job import Progress, Trained, reporting
from jax_unlearn.lab.modalities.classification.networks import Classifier, Training
from jax_unlearn.lab.store import kept_model
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.types import Model

HELD_OUT = 0.05  # share of the training images that the judge does not see


class Judge(NamedTuple):
    """A classifier of real images, independent of any diffusion model.

    Its accuracy on real test images is in percent, in all and class by class.
    """

    built: Classifier
    trained: Trained
    accuracy: float = 0.0
    by_class: tuple[float, ...] = ()

    def classes(self, images: np.ndarray) -> np.ndarray:
        """Return the recognised class of each image, `i32[N]`."""
        return np.argmax(self._run(self.built.model, images), axis=1).astype(np.int32)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features of each image, `f32[N, D]`."""
        return self._run(self.built.features, images)

    def _run(self, model: Model, images: np.ndarray) -> np.ndarray:
        at = self.trained.params, self.trained.model_state
        return predict(model, *at, images, batch_size=256)


def train_judge(
    dataset: Dataset, setting: Training, folder: Path | None, progress: Progress
) -> Judge:
    """Train the classifier on real images of all classes, or read it back."""
    subject = subject_of(setting, dataset)
    ids, unseen = holdout(dataset.train.labels, fraction=HELD_OUT, seed=0)
    trainer = Trainer(subject, setting)
    told = {"training": vars(setting), "seed": 0}
    callback = reporting(progress, "judge", trainer.steps(len(ids)))

    def make(series: Series | None) -> tuple[Trained, dict[str, Any]]:
        return trainer(ids, seed=0, callback=callback, series=series), {}

    trained, _ = kept_model(folder, told, make, subject=subject, ids=ids, unseen=unseen)
    judge, (images, labels) = Judge(subject.built, trained), dataset.test
    right = 100.0 * (judge.classes(images) == labels)
    by_class = tuple(
        float(right[labels == c].mean()) if (labels == c).any() else 0.0
        for c in range(dataset.num_classes)
    )
    return judge._replace(accuracy=float(right.mean()), by_class=by_class)


Network = Callable[[np.ndarray], np.ndarray]
"""The features of images."""


def moments(
    networks: Mapping[str, Network], images: Examples, forgotten: int
) -> dict[str, audit.Moments]:
    """Return the moments of features by network, the forgotten class left out."""
    others = images.inputs[images.labels != forgotten]
    _validate.at_least("images of the other classes", len(others), 2)
    made = networks.items()
    return {name: audit.feature_moments(network(others)) for name, network in made}
