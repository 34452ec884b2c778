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
from typing import TYPE_CHECKING, Any

from jax_unlearn.data import Dataset
from jax_unlearn.lab import Plan, Training, Unlearning, experiment
from jax_unlearn.lab.experiment import phases
from jax_unlearn.lab.modalities.diffusion.settings import (
    DiffusionTraining,
    Judging,
    Sampling,
)
from jax_unlearn.recipes.recipe import DIGITS, Asked, Data, Recipe, Results, publish

if TYPE_CHECKING:
    from jax_unlearn.report import Drawing

RATE = 1e-4  # with a batch of 128, that of published code (SalUn, DDPM)


def methods_of(
    steps: int, *, rate: float = 1e-3, batch: int = 64
) -> dict[str, Unlearning]:
    """Return the methods of the tables by label.

    The learning rate of LTU, which adds a second-order term, is 0.3 of the others'.
    """
    common: dict[str, Any] = {"modality": "diffusion", "steps": steps}
    common |= {"learning_rate": rate, "batch_size": batch}
    slow = {"learning_rate": 0.3 * rate, "rho": 0.3, "allow_weak": True}
    changes: dict[str, dict[str, Any]] = {
        "Relabel": {},
        "SalUn": {"method": "salun"},
        "Relabel + LoReUn": {"weighting": "loreun", "relative": True},
        "Relabel + LoReUn (static)": {"weighting": "loreun_static", "relative": True},
        "SalUn + LoReUn": {"method": "salun", "weighting": "loreun", "relative": True},
        "ESD": {"method": "esd"},
        "SFRon": {
            "method": "sfron",
            "forget_rate": 0.1,
            "peak": 5.0,
            "fisher": "batch",
        },
        "LTU": {"method": "ltu", **slow},
    }
    return {label: Unlearning.of(**{**common, **own}) for label, own in changes.items()}


def planned(
    recipe: Recipe,
    *,
    seeds: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
) -> Plan:
    """Return the plan of a recipe, perhaps with other seeds and other classes.

    >>> planned(GENERATION_DIGITS).classes
    (0, 3, 7)
    """
    given = {"seeds": seeds, "classes": classes}
    changes: Any = {k: tuple(v) for k, v in given.items() if v is not None}
    return dataclasses.replace(recipe.study, **changes)


def _run(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    plan = planned(recipe, seeds=asked.seeds, classes=asked.classes)
    with asked.screen.progress(phases(plan)) as progress:
        results = experiment(plan, dataset, folder, progress=progress, resume=True)
    publish(recipe, asked.screen, folder, {"": results})


def _figures(found: Results) -> "dict[str, Drawing]":
    from jax_unlearn import report as reports

    return {"figure": reports.generation_figure(found)}


def _recipe(
    name: str, title: str, what: str, cpu: str, data: Data, **values: Any
) -> Recipe:
    plan = Plan(
        title=f"{title}: forget a class of a diffusion model",
        kind="class",
        fraction=1.0,
        gamma=1.0,
        unseen=0.1,
        seeds=(0,),
        **{"methods": methods_of(100), **values},
    )
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


_DRAWN = Sampling(sampling_steps=20)  # what two CPU cores carry

GENERATION_DIGITS = _recipe(
    "digits",
    "Digits",
    "forget a class of a diffusion model",
    "15 min",
    DIGITS,
    training=DiffusionTraining(widths=(16, 32), timesteps=200, steps=800, ema=0.99),
    judging=Judging(Training(epochs=40), _DRAWN),
    classes=(0, 3, 7),
)
GENERATION_FASHION = _recipe(
    "fashion",
    "Fashion-MNIST at 14 x 14",
    "the same on Fashion-MNIST at 14 x 14",
    "40 min",
    Data(train=10000, test=2000, shrink=2),
    training=DiffusionTraining(widths=(16, 32), timesteps=400, steps=2000),
    judging=Judging(Training(epochs=8), _DRAWN, 40, 80),
    classes=(1, 5, 8),
)
GENERATION_CIFAR10 = _recipe(
    "cifar10",
    "CIFAR-10 at 16 x 16",
    "the same on CIFAR-10 at 16 x 16",
    "1 h",
    Data(train=10000, test=2000, shrink=2),
    training=DiffusionTraining(widths=(24, 48, 48), timesteps=400, steps=2500),
    judging=Judging(Training("resnet8", epochs=8, augment="flip"), _DRAWN, 40, 80),
    classes=(1, 6, 8),
)
GENERATION_CIFAR10_FULL = _recipe(
    "cifar10-full",
    "CIFAR-10",
    "CIFAR-10 at full size",
    "weeks",
    Data(),
    training=DiffusionTraining(
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
    judging=Judging(
        Training("resnet18", epochs=30, batch_size=256, augment="flip_crop"),
        Sampling(sampling_steps=100, sample_batch=1000),
        per_class=500,
        forget_images=1000,
    ),
    methods=methods_of(1000, rate=RATE, batch=128),
    classes=(0, 1, 6),
)
