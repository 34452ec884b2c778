"""The judge of generated images: a classifier trained on all real ones, and figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn import audit, diffusion
from jax_unlearn.data import Dataset, Examples, holdout
from jax_unlearn.drivers.loop import Callback, predict
from jax_unlearn.lab.generation.grids import COLUMNS, to_png
from jax_unlearn.lab.generation.models import Generator, draw, whole
from jax_unlearn.lab.generation.settings import Sampling
from jax_unlearn.lab.models import load_model, save_model
from jax_unlearn.lab.networks import Network, build, describe
from jax_unlearn.lab.settings import Training
from jax_unlearn.lab.stages import Request, Trained, Trainer
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


def judge_of(network: Network, trained: Trained, test: Examples) -> Judge:
    """Return the judge of a trained classifier, its accuracy measured.

    Args:
      network: of the classifier.
      trained: the classifier.
      test: real images it was not trained on.
    """
    model, features = build(network), build(network, features=True)
    at = trained.params, trained.model_state
    found = np.argmax(predict(model, *at, test.inputs, batch_size=256), axis=1)
    right = 100.0 * (found == test.labels)
    by_class = [
        float(right[test.labels == c].mean()) if (test.labels == c).any() else 0.0
        for c in range(network.num_classes)
    ]
    return Judge(model, features, trained, float(right.mean()), by_class)


def train_judge(
    dataset: Dataset,
    setting: Training,
    *,
    seed: int,
    folder: Path | None = None,
    callback: Callback | None = None,
) -> Judge:
    """Train the classifier on real images of all classes, or read it from its folder.

    Args:
      dataset: real images.
      setting: how.
      seed: of the training.
      folder: where it is kept.
      callback: as in `run`.
    """
    network = describe(setting, dataset)
    if folder is not None and folder.exists():
        return judge_of(network, load_model(folder, dataset).trained, dataset.test)
    ids, unseen = holdout(dataset.train.labels, fraction=HELD_OUT, seed=seed)
    trainer = Trainer(build(network), setting)
    trained = trainer(dataset.train, ids, seed=seed, callback=callback)
    if folder is not None:
        save_model(folder, trained, network, dataset, ids, unseen)
    return judge_of(network, trained, dataset.test)


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
    generator: Generator,
    trained: Trained,
    examples: Examples,
    parts: dict[str, np.ndarray],
    *,
    seed: int,
    most: int = 256,
) -> dict[str, float]:
    """Return the mean denoising error of some images of each part.

    Args:
      generator: the model's functions.
      trained: its parameters.
      examples: real images.
      parts: ids by name of the part.
      seed: of the choice, the timesteps and the noise.
      most: images of a part, at most.
    """
    samples, found = generator.samples(examples), {}
    for name, ids in parts.items():
        chosen = np.random.default_rng(seed).permutation(ids)[:most]
        table = diffusion.denoising_errors(
            generator.model,
            trained.params,
            trained.model_state,
            whole(samples, np.sort(chosen)),
            jax.random.key(seed),
            process=generator.process,
            draws=4,
        )
        found[name] = float(table.errors.mean())
    return found


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


def look(
    generator: Generator,
    trained: Trained,
    judge: Judge,
    dataset: Dataset,
    request: Request,
    forgotten: int,
    sampling: Sampling,
    *,
    counts: tuple[int, int],
    seed: int,
    fid: Fid | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], str]:
    """Draw images of all classes from a model and judge them.

    Args:
      generator: the model's functions.
      trained: its parameters.
      judge: the classifier.
      dataset: real images.
      request: who was to be forgotten.
      forgotten: their class.
      sampling: how images are drawn.
      counts: images of the forgotten class, and of each other class.
      seed: of all noise.
      fid: None leaves FID out.
      progress: told (steps done, steps in all).

    Returns:
      (figures, JSON-able; a grid of some images as base64 PNG, a row a class).
    """
    classes = np.arange(dataset.num_classes)
    asked = np.repeat(classes, np.where(classes == forgotten, *counts))
    images = draw(
        generator,
        trained,
        generator.prompts(asked),
        sampling,
        seed=seed,
        progress=progress,
    )
    figures = figures_of(
        judge, images, asked, forget=[forgotten], reference=dataset.test, fid=fid
    )
    unseen = request.unseen[dataset.train.labels[request.unseen] == forgotten]
    parts = {"forget_error": request.forget, "retain_error": request.retain}
    if len(unseen):
        parts["unseen_error"] = unseen
    errors = errors_of(generator, trained, dataset.train, parts, seed=seed)
    shown = np.stack([images[asked == c][:COLUMNS] for c in classes])
    return {**figures, **errors, "seconds": trained.seconds}, to_png(shown)
