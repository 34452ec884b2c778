"""Diffusion models: denoising as the task, conditions that are relabelled."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import diffusion, methods, objectives
from jax_unlearn.data import Dataset, Examples
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab.modalities.diffusion import measured, networks, settings
from jax_unlearn.lab.modality import Modality, adam, falling_rate
from jax_unlearn.types import (
    Array,
    LossFn,
    Model,
    ModelState,
    Params,
    Unlearner,
    UnlearnState,
)

__all__ = ["BYTES", "DIFFUSION", "FIGURES", "MEASURED", "replacement"]

BYTES = np.dtype(np.uint8)
FIGURES = (
    *("mia_loss", "deviation", "u_lira", "rmia", "forgetting", "klom"),
    *("retain", "difference"),
    # of RULI's groups all but UA: there is no answer that could be wrong
    *(
        f"{group}_{key}"
        for group in ("vulnerable", "protected")
        for key in ("deviation", "lira_auc", "lira_tpr_1", "klom")
    ),
)
"""Figures of an audit, or groups of them, that denoising errors can serve."""
MEASURED = 512  # images on which errors, masks and attacks are measured, at most


def _optimize(
    built: networks.Generator, training: settings.DiffusionTraining, steps: int
) -> Unlearner:
    """Return training by Adam, clipped, with a moving average of the parameters."""
    return _trained(built.model, built.network, training, steps)


@functools.lru_cache(maxsize=16)  # equal trainings share their compiled steps
def _trained(
    model: Model,
    network: networks.DiffusionNetwork,
    training: settings.DiffusionTraining,
    steps: int,
) -> Unlearner:
    built = networks.build(network)
    optimizer = optax.chain(
        optax.clip_by_global_norm(training.clip),
        adam(),
        falling_rate(training.learning_rate, steps),
        diffusion.ema_params(training.ema),
    )
    noise: dict[str, Any] = {"drop": network.drop, "null": built.null}
    loss = objectives.denoise(model, built.process, **noise)
    return methods.assemble(model, optimizer, retain=loss)


def _objective(lab: Any, role: str, **options: Any) -> LossFn:
    """Return the loss of a role; those of forget images may be scaled by timestep."""
    built, chosen = lab.subject.built, lab.setting.modality_options
    pair = lab.model, built.process
    draws = chosen.draws if chosen.time == "draws" else 1

    def scaled() -> dict[str, Any]:
        return {"draws": draws, "scale": measured.timestep_scale(lab)}

    def guide() -> LossFn:
        if built.null is None:
            raise InputError(
                "method='esd' needs the null condition, and this model was trained "
                "without one (drop=0); choose 'neggrad_plus'"
            )
        return objectives.negative_guidance(
            *pair, teacher=lab.original, null=built.null, **options, **scaled()
        )

    made = {
        "remember": lambda: objectives.denoise(
            *pair, drop=built.network.drop, null=built.null
        ),
        "evaluate": lambda: objectives.denoise(*pair)._replace(train=False),
        "ascend": lambda: objectives.denoise_ascent(*pair, **scaled()),
        "noise": lambda: objectives.denoise_uniform(*pair, **scaled()),
        "relabel": lambda: objectives.relabel_condition(
            *pair, replace=replacement(lab), **scaled()
        ),
        "guide": guide,
        "pairs": lambda: objectives.pairs(
            *pair, drop=built.network.drop, null=built.null, **options
        ),
    }
    if role not in made:
        raise InputError(f"role={role!r}: diffusion models have {', '.join(made)}")
    return made[role]()


def replacement(lab: Any) -> diffusion.Replace:
    """Return what takes the place of the forgotten condition."""
    name, network = lab.setting.modality_options.replace, lab.subject.network
    forgotten = set(np.unique(lab.labels("forget")).tolist())
    names = list(network.class_names)
    if network.condition == "none":
        raise InputError(
            f"method={lab.setting.method!r} puts another condition in the place of the "
            "forgotten one, and this model was trained without; choose 'siss' or "
            "'neggrad_plus'"
        )
    if name in ("random", "next"):
        others = [c for c in range(len(names)) if c not in forgotten]
        if not others:
            raise InputError(
                f"replace={name!r}: every class is to be forgotten, none can take "
                "its place"
            )
        if network.condition == "class":
            make = diffusion.random_other if name == "random" else diffusion.next_class
            return make(len(names))
        words = [names[c] for c in others]
        return _replace_words(lab, words if name == "random" else words[:1])
    if network.condition == "text":
        return _replace_words(lab, [name])
    number = int(name) if name.isdigit() else names.index(name) if name in names else -1
    if not 0 <= number < len(names):
        raise unknown_name("replace", name, ("random", "next", *names))
    if number in forgotten:
        raise InputError(f"replace={name!r} is to be forgotten itself; choose another")
    return diffusion.anchor(number)


def _words(lab: Any) -> tuple[str | None, tuple[int, ...]]:
    """Return what a replacement of words is made of."""
    if lab.subject.network.condition != "text":
        return None, ()
    return lab.concept, tuple(np.unique(lab.labels("forget")).tolist())


def _replace_words(lab: Any, words: list[str]) -> diffusion.Replace:
    """Return the replacement of the concept by one of some words, drawn anew."""
    network = lab.subject.network
    vocabulary, concept = network.vocabulary, lab.concept
    if concept is None:
        concept = network.class_names[int(lab.labels("forget")[0])]
    makers = [
        diffusion.replace_word(vocabulary, concept, word)
        for word in words
        if diffusion.word_of(word) != diffusion.word_of(concept)
    ]
    if not makers:
        raise InputError(f"replace={words[0]!r} is to be forgotten itself; try 'next'")

    def replace(key: Array, condition: Array, labels: Array) -> Array:
        options = jnp.stack([make(key, condition, labels) for make in makers])
        chosen = jax.random.randint(key, labels.shape, 0, len(makers))
        return options[chosen, jnp.arange(labels.shape[0])]

    return replace


def _table(subject: Any, judging: Any, folder: Any, progress: Any) -> Any:
    from jax_unlearn.lab.modalities.diffusion.figures import ImageTable

    judge = None if folder is None else folder / "judge"
    return ImageTable(
        subject, judging or settings.Judging(), folder=judge, progress=progress
    )


def _concerned(subject: Any, ids: np.ndarray, text: str) -> Any:
    """Return the images whose captions have a word, and the word."""
    network = subject.network
    if network.condition != "text" or Path(text).exists():
        return None
    tokens = subject.built.captions(subject.dataset.train.at(ids))
    return ids[np.asarray(diffusion.mentions(tokens, network.vocabulary, text))], text


def _averaged(state: UnlearnState) -> tuple[Params, ModelState]:
    """Return the moving average of the parameters, in their place."""
    return diffusion.ema_of(state), state.model_state


def _bytes(dataset: Dataset) -> Dataset:
    """Return the data set with pixels as bytes, as images are drawn and judged."""
    if dataset.is_table or dataset.is_text:
        what, instead = ("a table", "classification")
        if dataset.is_text:
            what, instead = "a set of texts", "language"
        raise InputError(
            f"modality='diffusion' reads images, and {dataset.name} is {what}; use "
            f"{instead}"
        )
    if dataset.train.inputs.dtype == np.uint8:
        return dataset
    parts = [
        Examples(dataset.range.own(dataset.range.unit(part.inputs), BYTES), part.labels)
        for part in (dataset.train, dataset.test)
    ]
    return dataset._replace(train=parts[0], test=parts[1])


DIFFUSION = Modality(
    name="diffusion",
    key="generator",
    training=settings.DiffusionTraining,
    network=networks.DiffusionNetwork,
    describe=networks.describe,
    build=networks.build,
    optimize=_optimize,
    steps=lambda training, samples: training.steps,
    roles=frozenset(("remember", "evaluate", "ascend", "noise", "relabel", "nonmember"))
    | {"guide", "pairs"},
    objective=_objective,
    membership=measured.learn,
    loss_table=measured.loss_table,
    table=_table,
    judging=settings.Judging,
    observe=measured.observed,
    targets=lambda examples: np.zeros(len(examples.labels), np.int32),
    metrics=FIGURES,
    reads=_bytes,
    samples=networks.Generator.samples,
    constants=_words,
    concerned=_concerned,
    finish=_averaged,
    measured=MEASURED,
    stateful=False,
    options=settings.Denoising,
    defaults=settings.DEFAULTS,
)
