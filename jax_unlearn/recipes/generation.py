"""Diffusion models that forget a class: digits, Fashion-MNIST and CIFAR-10.

One class after another is forgotten: at a size for two CPU cores (small images, a
subset, a small UNet), and on CIFAR-10 at full size. All data sets share the settings of
the methods: the defaults (methods that relabel have SalUn's balance of forget and
retain loss), and for SFRon and LTU the best of six and of two trials on digits, class 9
and seed 100, which are not in the tables. Images are drawn with the guidance that
SalUn's code calls 2, a guidance scale of 3.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax_unlearn.data import Dataset
from jax_unlearn.lab import Plan, Unlearning, experiment, schema
from jax_unlearn.lab.experiment import phases
from jax_unlearn.lab.modalities.diffusion import settings
from jax_unlearn.recipes.recipe import (
    Asked,
    Drawings,
    Recipe,
    Results,
    declared,
    packaged,
    publish,
)

__all__ = ["GENERATION_CIFAR10", "GENERATION_CIFAR10_FULL", "GENERATION_DIGITS"]
__all__ += ["GENERATION_FASHION", "IMAGES_DIGITS", "RATE", "images_of", "methods_of"]
__all__ += ["planned"]

Chosen = Sequence[int] | None  # None leaves the choice to the recipe


def methods_of(
    steps: int, *, pixels: int, rate: float = 1e-3, batch: int = 64
) -> dict[str, Unlearning]:
    """Return the methods of the tables by label."""
    common: dict[str, Any] = {"modality": "diffusion", "steps": steps}
    common |= {"learning_rate": rate, "batch_size": batch}
    # lower for LTU, which adds a second-order term
    slow = {"learning_rate": 0.3 * rate, "rho": 0.3, "allow_weak": True}
    # published for losses that are sums over pixels; ours are means
    sfron = dict.fromkeys(("clip", "ascent_clip"), 1.0 / pixels)
    # SalUn's α = 1e-3, there of a sum over 32 x 32 x 3 pixels beside a mean; here of
    # means, so that the balance is the same for images of every size
    salun = {"retain_strength": 1e-3 * 32 * 32 * 3}
    relative = {"weighting": "loreun", "relative": True}
    changes: dict[str, dict[str, Any]] = {
        "Relabel": salun,
        "SalUn": {"method": "salun", **salun},
        "Relabel + LoReUn": {**relative, **salun},
        "Relabel + LoReUn (static)": {
            **relative,
            "weighting": "loreun_static",
            **salun,
        },
        "SalUn + LoReUn": {"method": "salun", **relative, **salun},
        "ESD": {"method": "esd"},
        "SFRon": {"method": "sfron", **sfron},
        "LTU": {"method": "ltu", **slow},
    }
    return {label: Unlearning.of(**{**common, **own}) for label, own in changes.items()}


def planned(recipe: Recipe, *, seeds: Chosen = None, classes: Chosen = None) -> Plan:
    """Return the plan of a recipe, perhaps with other seeds and other classes."""
    given = {"seeds": seeds, "classes": classes}
    changes: Any = {k: tuple(v) for k, v in given.items() if v is not None}
    return dataclasses.replace(recipe.study, **changes)


def _run(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    plan = planned(recipe, seeds=asked.seeds, classes=asked.classes)
    with asked.screen.progress(phases(plan)) as progress:
        results = experiment(plan, dataset, folder, progress=progress, resume=True)
    publish(recipe, asked.screen, folder, {"": results})


def images_of(steps: int, *, batch: int) -> dict[str, Unlearning]:
    """Return the methods that forget single images, by label."""
    common: dict[str, Any] = {"modality": "diffusion", "steps": steps}
    common |= {"batch_size": batch}
    changes: dict[str, dict[str, Any]] = {
        "SISS": {"method": "siss", "learning_rate": 3e-4},
        "SISS, no forget term": {"method": "siss", "learning_rate": 3e-4}
        | {"strength": 0.0},
        "NegGrad+": {"method": "neggrad_plus", "learning_rate": 3e-4},
    }
    return {label: Unlearning.of(**{**common, **own}) for label, own in changes.items()}


def _figures(found: Results) -> Drawings:
    from jax_unlearn import report as reports

    return {"figure": reports.generation_figure(found)}


def _plan(name: str, methods: dict[str, Unlearning]) -> Plan:
    """Return the plan that stands in `recipes.toml`, of whole classes if it has any."""
    told = packaged("recipes.toml")[name]
    own = told["plan"]
    request = {"kind": "class", "fraction": 1.0, "unseen": 0.1, "seeds": (0,)}
    return Plan(
        title=told["title"],
        gamma=1.0,
        training=settings.DiffusionTraining(**own["training"]),
        methods=methods,
        classes=own.get("classes", ()),
        judging=schema.read(settings.Judging, own["judging"], name=name),
        **{**request, **own.get("request", {})},
    )


def _recipe(name: str, **values: Any) -> Recipe:
    """Return the recipe of such a plan, of classes that are forgotten in turn."""
    plan, given = _plan(name, methods_of(**values)), {"options": ("classes",)}
    return declared(name, _run, study=plan, figures=_figures, **given)


GENERATION_DIGITS = _recipe("generation-digits", steps=100, pixels=8 * 8)
GENERATION_FASHION = _recipe("generation-fashion", steps=100, pixels=14 * 14)
GENERATION_CIFAR10 = _recipe("generation-cifar10", steps=100, pixels=16 * 16 * 3)
RATE = 1e-4  # with the batch, that of published code (SalUn, DDPM)
GENERATION_CIFAR10_FULL = _recipe(
    "generation-cifar10-full", steps=1000, pixels=32 * 32 * 3, rate=RATE, batch=128
)
LENGTHS = {200: "", 1000: ", 1,000 steps"}  # of methods that forget images; labels
_IMAGES = {
    f"{label}{told}": setting
    for steps, told in LENGTHS.items()
    for label, setting in images_of(steps, batch=16).items()
}
IMAGES_DIGITS = declared("images-digits", _run, study=_plan("images-digits", _IMAGES))
