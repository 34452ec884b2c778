"""Class-wise forgetting with diffusion models: digits, Fashion-MNIST, CIFAR-10.

One class after another is to be forgotten. The digits run takes minutes on a laptop;
Fashion-MNIST and CIFAR-10 are there at a scale that two CPU cores carry (images
reduced by averaging 2 x 2 pixels, a subset, a small UNet), and CIFAR-10 at full size
for an accelerator. The same settings of the methods serve all data sets: the defaults,
and for SFRon and LTU the best of six and two trials on digits, class 9 and seed 100,
which the tables do not show.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jax_unlearn.data import Dataset, digits, shrink, subset
from jax_unlearn.errors import InputError
from jax_unlearn.lab.generation import (
    GenerationPlan,
    GeneratorTraining,
    GeneratorUnlearning,
    Sampling,
)
from jax_unlearn.lab.settings import Training
from jax_unlearn.recipes.inputs import read_file, study_named


class Scale(NamedTuple):
    """A data set and how much of it.

    Attributes:
      title: of the report.
      shrink: factor by which images are reduced.
      train: training images used, 0 for all.
      training: of the diffusion models.
      judge: of the classifier.
      sampling: of the images.
      steps: of unlearning.
      classes: to forget, one at a time.
      per_class, forget_images: images drawn.
      rate, batch: learning rate and batch size of unlearning; the defaults are for
        models trained at 2e-3.
    """

    title: str
    shrink: int
    train: int
    training: GeneratorTraining
    judge: Training
    sampling: Sampling
    steps: int
    classes: tuple[int, ...]
    per_class: int
    forget_images: int
    rate: float = 1e-3
    batch: int = 64


SCALES = {
    "digits": Scale(
        "Digits: forget a class of a diffusion model",
        1,
        0,
        GeneratorTraining(widths=(16, 32), timesteps=200, steps=800, ema=0.99),
        Training(epochs=40),
        Sampling(sampling_steps=20),
        100,
        (0, 3, 7),
        50,
        100,
    ),
    "fashion": Scale(
        "Fashion-MNIST at 14 x 14: forget a class of a diffusion model",
        2,
        10000,
        GeneratorTraining(widths=(16, 32), timesteps=400, steps=2000),
        Training(epochs=8),
        Sampling(sampling_steps=20),
        100,
        (1, 5, 8),
        40,
        80,
    ),
    "cifar10": Scale(
        "CIFAR-10 at 16 x 16: forget a class of a diffusion model",
        2,
        10000,
        GeneratorTraining(widths=(24, 48, 48), timesteps=400, steps=2500),
        Training(network="resnet8", epochs=8, augment="flip"),
        Sampling(sampling_steps=20),
        100,
        (1, 6, 8),
        40,
        80,
    ),
    "cifar10-full": Scale(
        "CIFAR-10: forget a class of a diffusion model",
        1,
        0,
        GeneratorTraining(
            widths=(128, 256, 256, 256),
            layers=2,
            attention=(0, 1, 0, 0),
            dtype="bfloat16",
            noise="linear",
            steps=100_000,
            batch_size=256,
            learning_rate=2e-4,
            ema=0.9999,
        ),
        Training(network="resnet18", epochs=30, batch_size=256, augment="flip_crop"),
        Sampling(sampling_steps=100, sample_batch=1000),
        1000,
        (0, 1, 6),
        500,
        1000,
        rate=1e-4,  # with the batch, that of published code (SalUn, DDPM)
        batch=128,
    ),
}


def methods_of(
    steps: int, *, rate: float = 1e-3, batch: int = 64
) -> dict[str, GeneratorUnlearning]:
    """Return the methods of the tables by label.

    Args:
      steps: of unlearning.
      rate: learning rate; LTU's, which adds a second-order term, is 0.3 of it.
      batch: samples a step.
    """
    relabel = GeneratorUnlearning(steps=steps, learning_rate=rate, batch_size=batch)
    loreun = {"weighting": "loreun", "relative": True}
    return {
        "Relabel": relabel,
        "SalUn": dataclasses.replace(relabel, keep=0.5),
        "Relabel + LoReUn": dataclasses.replace(relabel, **loreun),
        "Relabel + LoReUn (static)": dataclasses.replace(
            relabel, weighting="loreun_static", relative=True
        ),
        "SalUn + LoReUn": dataclasses.replace(relabel, keep=0.5, **loreun),
        "ESD": dataclasses.replace(relabel, method="esd"),
        "SFRon": dataclasses.replace(
            relabel, method="sfron", forget_rate=0.1, peak=5.0
        ),
        "LTU": dataclasses.replace(
            relabel,
            method="ltu",
            harmonizer="one_way",
            rho=0.3,
            learning_rate=0.3 * rate,
        ),
    }


def generation_plan(
    name: str,
    *,
    seeds: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
) -> GenerationPlan:
    """Return the plan of a study.

    Args:
      name: "digits", "fashion", "cifar10" or "cifar10-full".
      seeds: of models, methods and images; default 0.
      classes: to forget, one at a time; default those of the study.

    Raises:
      InputError: no such study.

    >>> generation_plan("digits").classes
    (0, 3, 7)
    """
    scale = study_named(name, SCALES)
    return GenerationPlan(
        title=scale.title,
        training=scale.training,
        judge=scale.judge,
        sampling=scale.sampling,
        methods=methods_of(scale.steps, rate=scale.rate, batch=scale.batch),
        classes=scale.classes if classes is None else tuple(classes),
        seeds=(0,) if seeds is None else tuple(seeds),
        per_class=scale.per_class,
        forget_images=scale.forget_images,
    )


def load(name: str, data: Path | None) -> Dataset:
    """Return the data of a study: its subset, its size of images.

    Args:
      name: of the study.
      data: .npz file; digits need none.

    Raises:
      InputError: no file where one is needed, or one where none is.
    """
    scale = study_named(name, SCALES)
    if name == "digits":
        if data is not None:
            raise InputError(f"data={data}: digits are brought along; leave it out")
        return digits()
    dataset = read_file(data, f"generation-{name}")
    if scale.train:
        dataset = subset(dataset, train=scale.train, test=2000, seed=0)
    return shrink(dataset, scale.shrink)
