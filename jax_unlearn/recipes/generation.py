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
from jax_unlearn.lab import Plan, Training, Unlearning, experiment
from jax_unlearn.lab.experiment import phases
from jax_unlearn.lab.modalities.diffusion.figures import shortened
from jax_unlearn.lab.modalities.diffusion.settings import (
    DiffusionTraining,
    Judging,
    Sampling,
)
from jax_unlearn.recipes.recipe import DIGITS, Asked, Data, Recipe, publish

if TYPE_CHECKING:
    from jax_unlearn.report import Drawing


def methods_of(
    steps: int, *, rate: float = 1e-3, batch: int = 64
) -> dict[str, Unlearning]:
    """Return the methods of the tables by label.

    Args:
      steps: of unlearning.
      rate: learning rate; LTU's, which adds a second-order term, is 0.3 of it.
      batch: samples a step.
    """

    def told(**changes: Any) -> Unlearning:
        values = {"steps": steps, "learning_rate": rate, "batch_size": batch}
        return Unlearning.of(modality="diffusion", **{**values, **changes})

    loreun: dict[str, Any] = {"weighting": "loreun", "relative": True}
    static: dict[str, Any] = {"weighting": "loreun_static", "relative": True}
    slow = {"learning_rate": 0.3 * rate, "rho": 0.3, "allow_weak": True}
    return {
        "Relabel": told(),
        "SalUn": told(method="salun"),
        "Relabel + LoReUn": told(**loreun),
        "Relabel + LoReUn (static)": told(**static),
        "SalUn + LoReUn": told(method="salun", **loreun),
        "ESD": told(method="esd"),
        "SFRon": told(method="sfron", forget_rate=0.1, peak=5.0, fisher="batch"),
        "LTU": told(method="ltu", **slow),
    }


def planned(
    recipe: Recipe,
    *,
    seeds: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
) -> Plan:
    """Return the plan of a recipe.

    Args:
      recipe: one of the recipes here.
      seeds: of models, methods and images; default 0.
      classes: to forget, one at a time; default those of the recipe.

    >>> planned(GENERATION_DIGITS).classes
    (0, 3, 7)
    """
    plan: Plan = recipe.study
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
        results = experiment(plan, dataset, folder, progress=progress, resume=True)
    publish(recipe, screen, folder, {"": results})
    text = json.dumps(shortened(results), allow_nan=False) + "\n"
    path = write_atomic(folder / "short.json", text, overwrite=True)
    screen.say(f"results without images: {path}")


def _figures(found: Mapping[str, Any]) -> "dict[str, Drawing]":
    from jax_unlearn import report as reports

    return {"figure": reports.generation_figure(found)}


def _recipe(name: str, what: str, cpu: str, *, data: Data, plan: Plan) -> Recipe:
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


def _plan(
    title: str,
    training: DiffusionTraining,
    judging: Judging,
    *,
    methods: dict[str, Unlearning] | None = None,
    classes: tuple[int, ...],
) -> Plan:
    return Plan(
        title=f"{title}: forget a class of a diffusion model",
        kind="class",
        fraction=1.0,
        gamma=1.0,
        unseen=0.1,
        training=training,
        methods=methods_of(100) if methods is None else methods,
        seeds=(0,),
        classes=classes,
        judging=judging,
    )


_DRAWN = Sampling(sampling_steps=20)  # what two CPU cores carry

GENERATION_DIGITS = _recipe(
    "digits",
    "forget a class of a diffusion model",
    "15 min",
    data=DIGITS,
    plan=_plan(
        "Digits",
        DiffusionTraining(widths=(16, 32), timesteps=200, steps=800, ema=0.99),
        Judging(Training(epochs=40), _DRAWN),
        classes=(0, 3, 7),
    ),
)
GENERATION_FASHION = _recipe(
    "fashion",
    "the same on Fashion-MNIST at 14 x 14",
    "40 min",
    data=Data(train=10000, test=2000, shrink=2),
    plan=_plan(
        "Fashion-MNIST at 14 x 14",
        DiffusionTraining(widths=(16, 32), timesteps=400, steps=2000),
        Judging(Training(epochs=8), _DRAWN, 40, 80),
        classes=(1, 5, 8),
    ),
)
GENERATION_CIFAR10 = _recipe(
    "cifar10",
    "the same on CIFAR-10 at 16 x 16",
    "1 h",
    data=Data(train=10000, test=2000, shrink=2),
    plan=_plan(
        "CIFAR-10 at 16 x 16",
        DiffusionTraining(widths=(24, 48, 48), timesteps=400, steps=2500),
        Judging(Training("resnet8", epochs=8, augment="flip"), _DRAWN, 40, 80),
        classes=(1, 6, 8),
    ),
)

RATE = 1e-4  # with the batch, that of published code (SalUn, DDPM)
_UNET = DiffusionTraining(
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
    plan=_plan(
        "CIFAR-10",
        _UNET,
        Judging(
            Training("resnet18", epochs=30, batch_size=256, augment="flip_crop"),
            Sampling(sampling_steps=100, sample_batch=1000),
            per_class=500,
            forget_images=1000,
        ),
        methods=methods_of(1000, rate=RATE, batch=128),
        classes=(0, 1, 6),
    ),
)
