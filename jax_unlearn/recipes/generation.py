"""Class-wise forgetting with diffusion models: digits, Fashion-MNIST, CIFAR-10.

One class after another is to be forgotten. The digits run takes minutes on a laptop;
Fashion-MNIST and CIFAR-10 are there at a scale that two CPU cores carry (images
reduced by averaging 2 x 2 pixels, a subset, a small UNet), and CIFAR-10 at full size
for an accelerator. The same settings of the methods serve all data sets: the defaults,
and for SFRon and LTU the best of six and two trials on digits, class 9 and seed 100,
which the tables do not show.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jax_unlearn.data import write_atomic
from jax_unlearn.lab.generation import (
    GenerationPlan,
    GeneratorTraining,
    GeneratorUnlearning,
    Sampling,
    phases,
    study,
)
from jax_unlearn.lab.generation.results import short
from jax_unlearn.lab.settings import Training
from jax_unlearn.recipes.recipe import DIGITS, Asked, Data, Recipe, publish

if TYPE_CHECKING:
    from jax_unlearn.report.svg import Drawing


def methods_of(
    steps: int, *, rate: float = 1e-3, batch: int = 64
) -> dict[str, GeneratorUnlearning]:
    """Return the methods of the tables by label.

    Args:
      steps: of unlearning.
      rate: learning rate; LTU's, which adds a second-order term, is 0.3 of it.
      batch: samples a step.
    """

    def relabel(**changes: Any) -> GeneratorUnlearning:
        values = {"steps": steps, "learning_rate": rate, "batch_size": batch}
        return GeneratorUnlearning(**{**values, **changes})

    loreun: dict[str, Any] = {"weighting": "loreun", "relative": True}
    static: dict[str, Any] = {"weighting": "loreun_static", "relative": True}
    slow = {"learning_rate": 0.3 * rate, "rho": 0.3}
    return {
        "Relabel": relabel(),
        "SalUn": relabel(keep=0.5),
        "Relabel + LoReUn": relabel(**loreun),
        "Relabel + LoReUn (static)": relabel(**static),
        "SalUn + LoReUn": relabel(keep=0.5, **loreun),
        "ESD": relabel(method="esd"),
        "SFRon": relabel(method="sfron", forget_rate=0.1, peak=5.0),
        "LTU": relabel(method="ltu", harmonizer="one_way", **slow),
    }


def planned(
    recipe: Recipe,
    *,
    seeds: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
) -> GenerationPlan:
    """Return the plan of a recipe.

    Args:
      recipe: one of the recipes here.
      seeds: of models, methods and images; default 0.
      classes: to forget, one at a time; default those of the recipe.

    >>> planned(GENERATION_DIGITS).classes
    (0, 3, 7)
    """
    plan: GenerationPlan = recipe.study
    return dataclasses.replace(
        plan,
        seeds=plan.seeds if seeds is None else tuple(seeds),
        classes=plan.classes if classes is None else tuple(classes),
    )


def _run(recipe: Recipe, asked: Asked) -> None:
    """Run a study of diffusion models; write its page, its figure, its results."""
    screen, folder = asked.screen, recipe.folder(asked)
    plan = planned(recipe, seeds=asked.seeds, classes=asked.classes)
    dataset = recipe.load(asked)
    with screen.progress(phases(plan)) as progress:
        results = study(plan, dataset, folder, progress=progress)
    publish(recipe, screen, folder, {"": results})
    text = json.dumps(short(results), allow_nan=False) + "\n"
    path = write_atomic(folder / "short.json", text, overwrite=True)
    screen.say(f"results without images: {path}")


def _figures(found: Mapping[str, Any]) -> "dict[str, Drawing]":
    from jax_unlearn import report as reports

    return {"figure": reports.generation_figure(found)}


def _recipe(
    name: str, what: str, cpu: str, *, data: Data, plan: GenerationPlan
) -> Recipe:
    return Recipe(
        name=f"generation-{name}",
        title=plan.title,
        what=what,
        start=_run,
        cpu=cpu,
        data=data,
        options=("classes",),
        study=plan,
        figures=_figures,
        page="generation",
    )


def _small(title: str, training: GeneratorTraining, **values: Any) -> GenerationPlan:
    """Return a plan that two CPU cores carry."""
    return GenerationPlan(
        title=f"{title}: forget a class of a diffusion model",
        training=training,
        sampling=Sampling(sampling_steps=20),
        methods=methods_of(100),
        **values,
    )


_FEWER: dict[str, Any] = {"per_class": 40, "forget_images": 80}

GENERATION_DIGITS = _recipe(
    "digits",
    "forget a class of a diffusion model",
    "15 min",
    data=DIGITS,
    plan=_small(
        "Digits",
        GeneratorTraining(widths=(16, 32), timesteps=200, steps=800, ema=0.99),
        judge=Training(epochs=40),
        classes=(0, 3, 7),
    ),
)
GENERATION_FASHION = _recipe(
    "fashion",
    "the same on Fashion-MNIST at 14 x 14",
    "40 min",
    data=Data(train=10000, test=2000, shrink=2),
    plan=_small(
        "Fashion-MNIST at 14 x 14",
        GeneratorTraining(widths=(16, 32), timesteps=400, steps=2000),
        judge=Training(epochs=8),
        classes=(1, 5, 8),
        **_FEWER,
    ),
)
GENERATION_CIFAR10 = _recipe(
    "cifar10",
    "the same on CIFAR-10 at 16 x 16",
    "1 h",
    data=Data(train=10000, test=2000, shrink=2),
    plan=_small(
        "CIFAR-10 at 16 x 16",
        GeneratorTraining(widths=(24, 48, 48), timesteps=400, steps=2500),
        judge=Training(network="resnet8", epochs=8, augment="flip"),
        classes=(1, 6, 8),
        **_FEWER,
    ),
)

RATE = 1e-4  # with the batch, that of published code (SalUn, DDPM)
_UNET = GeneratorTraining(
    widths=(128, 256, 256, 256),
    layers=2,
    attention=(0, 1, 0, 0),
    dtype="bfloat16",
    noise="linear",
    steps=100_000,
    batch_size=256,
    learning_rate=2e-4,
    ema=0.9999,
)
GENERATION_CIFAR10_FULL = _recipe(
    "cifar10-full",
    "CIFAR-10 at full size",
    "weeks",
    data=Data(),
    plan=dataclasses.replace(
        _small(
            "CIFAR-10",
            _UNET,
            judge=Training("resnet18", epochs=30, batch_size=256, augment="flip_crop"),
            classes=(0, 1, 6),
            per_class=500,
            forget_images=1000,
        ),
        sampling=Sampling(sampling_steps=100, sample_batch=1000),
        methods=methods_of(1000, rate=RATE, batch=128),
    ),
)
