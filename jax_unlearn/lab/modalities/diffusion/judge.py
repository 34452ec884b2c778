"""The judge of generated images: a classifier trained on all real ones, and figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn import audit, diffusion
from jax_unlearn.data import Dataset, Examples, digest, holdout
from jax_unlearn.drivers.loop import predict
from jax_unlearn.drivers.series import Series
from jax_unlearn.lab.job import Progress, Trained
from jax_unlearn.lab.modalities.classification.networks import Classifier, Training
from jax_unlearn.lab.modalities.diffusion.grids import to_png
from jax_unlearn.lab.modalities.diffusion.networks import draw, whole
from jax_unlearn.lab.modalities.diffusion.settings import COLUMNS, Judging
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.store import kept, load_model, save_model
from jax_unlearn.lab.subject import Subject, subject_of
from jax_unlearn.lab.training import Trainer
from jax_unlearn.types import Model

HELD_OUT = 0.05  # share of the training images that the judge does not see


class Judge(NamedTuple):
    """A classifier of real images, independent of any diffusion model.

    Attributes:
      model, features: logits and penultimate features of raw images.
      trained: its parameters.
      accuracy: on real test images, in percent.
      by_class: the same, class by class.
    """

    model: Model
    features: Model
    trained: Trained
    accuracy: float
    by_class: list[float]

    def classes(self, images: np.ndarray) -> np.ndarray:
        """Return the recognised class of each image, `i32[N]`."""
        return np.argmax(self._run(self.model, images), axis=1).astype(np.int32)

    def seen(self, images: np.ndarray) -> np.ndarray:
        """Return the features of each image, `f32[N, D]`."""
        return self._run(self.features, images)

    def _run(self, model: Model, images: np.ndarray) -> np.ndarray:
        at = self.trained.params, self.trained.model_state
        return predict(model, *at, images, batch_size=256)


def judge_of(built: Classifier, trained: Trained, test: Examples) -> Judge:
    """Return the judge of a trained classifier, its accuracy measured.

    Args:
      built: the classifier's functions.
      trained: the classifier.
      test: real images it was not trained on.
    """
    at = trained.params, trained.model_state
    logits = predict(built.model, *at, test.inputs, batch_size=256)
    right = 100.0 * (np.argmax(logits, axis=1) == test.labels)
    by_class = [
        float(right[test.labels == c].mean()) if (test.labels == c).any() else 0.0
        for c in range(built.network.num_classes)
    ]
    return Judge(built.model, built.features, trained, float(right.mean()), by_class)


def train_judge(
    dataset: Dataset,
    setting: Training,
    *,
    seed: int,
    folder: Path | None = None,
    progress: Progress,
) -> Judge:
    """Train the classifier on real images of all classes, or read it from its folder.

    Args:
      dataset: real images.
      setting: how.
      seed: of the training.
      folder: where it is kept.
      progress: told (phase, steps done, steps in all).
    """
    subject = subject_of(setting, dataset)
    ids, unseen = holdout(dataset.train.labels, fraction=HELD_OUT, seed=seed)
    trainer = Trainer(subject, setting)
    told = {"training": vars(setting), "seed": seed, "ids_sha256": digest(ids)}
    total = trainer.steps(len(ids))
    progress("judge", 0, total)

    def make(series: Series | None) -> Trained:
        return trainer(
            ids,
            seed=seed,
            callback=lambda step, state, info: progress("judge", step, total),
            series=series,
        )

    def read(path: Path) -> tuple[dict[str, Any], Trained]:
        stored = load_model(path, dataset)
        return stored.record, stored.trained

    def write(path: Path, trained: Trained) -> None:
        save_model(path, trained, subject, ids=ids, unseen=unseen, record=told)

    trained = kept(folder, told, make, read=read, write=write)
    return judge_of(subject.built, trained, dataset.test)


class Fid:
    """FID of the images of the classes that remain, to real ones.

    Args:
      weights: of `audit.load_inception`.
      reference: real images.
      forget: classes left out of both sides.
      progress: told (images done, images) of the real ones.
    """

    def __init__(
        self,
        weights: Any,
        reference: Examples,
        forget: Sequence[int],
        progress: Callable[[int, int], None] | None = None,
    ):
        self._weights, self._forget = weights, list(forget)
        self._moments = self._of(reference.inputs, reference.labels, progress)

    def __call__(self, images: np.ndarray, asked: np.ndarray) -> float:
        """Return the FID of images `u8[N, H, W, C]`, asked to be of classes `[N]`."""
        return audit.frechet_distance(self._of(images, asked), self._moments)

    def _of(
        self,
        images: np.ndarray,
        classes: np.ndarray,
        progress: Callable[[int, int], None] | None = None,
    ) -> audit.Moments:
        kept = images[~np.isin(classes, self._forget)]
        found = audit.inception_features(self._weights, kept, progress=progress)
        return audit.feature_moments(found)


def figures_of(
    judge: Judge,
    images: np.ndarray,
    asked: np.ndarray,
    *,
    forget: Sequence[int],
    reference: Examples,
    fid: Fid | None = None,
) -> dict[str, Any]:
    """Return the figures of generated images, JSON-able.

    Args:
      judge: the classifier.
      images: generated, `u8[N, H, W, C]`.
      asked: the class asked for, `[N]`.
      forget: the forgotten classes.
      reference: real images for the Fréchet distance.
      fid: to the same images; None leaves it out.
    """
    num_classes = len(judge.by_class)
    found = audit.generation_metrics(
        judge.classes(images), asked, forget=tuple(forget), num_classes=num_classes
    )
    distance = audit.class_frechet(
        judge.seen(images),
        asked,
        judge.seen(reference.inputs),
        reference.labels,
        exclude=tuple(forget),
    )
    by_class = [None if np.isnan(v) else float(v) for v in found.by_class]
    return {
        "ua": float(found.ua),
        "retained_accuracy": float(found.retained_accuracy),
        "frechet": float(distance),
        **({} if fid is None else {"fid": fid(images, asked)}),
        "by_class": by_class,
        "confusion": np.asarray(found.confusion).astype(int).tolist(),
    }


def errors_of(
    subject: Subject,
    trained: Trained,
    parts: dict[str, np.ndarray],
    *,
    seed: int,
    most: int = 256,
) -> dict[str, float]:
    """Return the mean denoising error of some images of each part.

    Args:
      subject: the diffusion model and real images.
      trained: its parameters.
      parts: ids by name of the part.
      seed: of the choice, the timesteps and the noise.
      most: images of a part, at most.
    """
    means = {}
    for name, ids in parts.items():
        chosen = np.random.default_rng(seed).permutation(ids)[:most]
        table = diffusion.denoising_errors(
            subject.model,
            trained.params,
            trained.model_state,
            whole(subject.examples, np.sort(chosen)),
            jax.random.key(seed),
            process=subject.built.process,
            draws=4,
        )
        means[name] = float(table.errors.mean())
    return means


def floor_of(
    judge: Judge,
    dataset: Dataset,
    forgotten: int,
    per_class: int,
    fid: Fid | None = None,
) -> dict[str, float]:
    """Return the distances of as many real training images: the floor.

    Args:
      judge: the classifier.
      dataset: real images.
      forgotten: the class left out.
      per_class: images of each class.
      fid: None leaves it out.
    """
    labels, rng = dataset.train.labels, np.random.default_rng(0)
    ids = np.concatenate(
        [
            rng.permutation(np.flatnonzero(labels == c))[:per_class]
            for c in range(dataset.num_classes)
            if c != forgotten
        ]
    )
    images = dataset.train.inputs[ids]
    distance = audit.class_frechet(
        judge.seen(images),
        labels[ids],
        judge.seen(dataset.test.inputs),
        dataset.test.labels,
        exclude=(forgotten,),
    )
    standard = {} if fid is None else {"fid": fid(images, labels[ids])}
    return {"frechet": distance, **standard}


class Look(NamedTuple):
    """How models are looked at, all alike.

    Attributes:
      judge: the classifier.
      judging: how many images are drawn, and how.
      progress: told (phase, steps done, steps in all).
      fid: None leaves FID out.
    """

    judge: Judge
    judging: Judging
    progress: Progress
    fid: Fid | None = None

    def __call__(
        self,
        label: str,
        subject: Subject,
        trained: Trained,
        request: Request,
        *,
        seed: int,
    ) -> tuple[dict[str, Any], str]:
        """Draw images of all classes from a model and judge them.

        Args:
          label: what the model is called.
          subject: the diffusion model and real images.
          trained: its parameters.
          request: who was to be forgotten.
          seed: of all noise.

        Returns:
          (figures, JSON-able; a grid of some images as base64 PNG, a row a class).
        """
        dataset, sampling = subject.dataset, self.judging.sampling
        labels, total = dataset.train.labels, sampling.sampling_steps
        forgotten, phase = forgotten_class(dataset, request), f"{label}: images"
        classes = np.arange(dataset.num_classes)
        counts = self.judging.forget_images, self.judging.per_class
        asked = np.repeat(classes, np.where(classes == forgotten, *counts))
        self.progress(phase, 0, total)
        images = draw(
            subject.built,
            trained,
            subject.built.prompts(asked),
            sampling,
            seed=seed,
            progress=lambda done, steps: self.progress(
                phase, max(1, done * total // steps), total
            ),
        )
        figures = figures_of(
            self.judge,
            images,
            asked,
            forget=[forgotten],
            reference=dataset.test,
            fid=self.fid,
        )
        parts = {"forget_error": request.forget, "retain_error": request.retain}
        unseen = request.unseen[labels[request.unseen] == forgotten]
        if len(unseen):
            parts["unseen_error"] = unseen
        errors = errors_of(subject, trained, parts, seed=seed)
        shown = np.stack([images[asked == c][:COLUMNS] for c in classes])
        return {**figures, **errors, "seconds": trained.seconds}, to_png(shown)


def forgotten_class(dataset: Dataset, request: Request) -> int:
    """Return the class that most of the forgotten images are of."""
    return int(np.bincount(dataset.train.labels[request.forget]).argmax())
