"""From a setting to a method ready to run on a diffusion model."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import (
    diffusion,
    harmonize,
    masks,
    methods,
    objectives,
)
from jax_unlearn.data import Examples, queried, queries, retain_subset, zipped
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab.generation.measured import (
    attacks_of,
    salient,
    timestep_scale,
    weighting_of,
)
from jax_unlearn.lab.generation.models import Generator, vocabulary_of
from jax_unlearn.lab.generation.settings import GeneratorUnlearning
from jax_unlearn.lab.generation.task import GenerationTask
from jax_unlearn.lab.stages import Job, Request, Trained
from jax_unlearn.oneshot import fisher_information
from jax_unlearn.types import Array


def prepare(
    generator: Generator,
    original: Trained,
    examples: Examples,
    request: Request,
    setting: GeneratorUnlearning,
    *,
    seed: int,
    concept: str | None = None,
) -> Job:
    """Return a method ready to run, its masks, tables and attacks made.

    Args:
      generator: the model's functions.
      original: its parameters.
      examples: training images.
      request: which of them to forget.
      setting: how.
      seed: of all draws.
      concept: the word to forget, of a model of captions; default the class's name.

    Raises:
      InputError: nothing to forget or to retain, a class or word that is unknown, or
        a method that this model cannot serve.
    """
    if not len(request.forget) or not len(request.retain):
        raise InputError(
            f"{len(request.forget)} images to forget, {len(request.retain)} to retain: "
            "both sets need one"
        )
    start = time.perf_counter()
    retain = retain_subset(examples.labels, request.retain, rho=setting.rho, seed=seed)
    task = GenerationTask(
        generator,
        original,
        generator.samples(examples),
        request._replace(retain=np.sort(retain)),
        setting,
        seed,
        concept,
    )
    job = _BUILDERS[setting.method](task)
    jax.block_until_ready(job.details.get("wait", ()))
    return job._replace(prepare_seconds=time.perf_counter() - start)


def retain(task: GenerationTask) -> Job:
    """Build fine-tuning on the retain images."""
    return _joint(task, None)


def ascent(task: GenerationTask) -> Job:
    """Build gradient ascent on the denoising errors of the forget images."""
    scale = timestep_scale(task)
    return _joint(
        task, objectives.denoise_ascent(*task.pair, **_options(task, scale)), scale
    )


def relabel(task: GenerationTask) -> Job:
    """Build condition relabelling; with a mask it is SalUn."""
    scale = timestep_scale(task)
    loss = objectives.relabel_condition(
        *task.pair, replace=replacement(task), **_options(task, scale)
    )
    return _joint(task, loss, scale)


def esd(task: GenerationTask) -> Job:
    """Build negative guidance away from the condition."""
    if task.generator.null is None:
        raise InputError(
            "method='esd' needs the null condition, and this model was trained with "
            "drop=0; choose 'relabel'"
        )
    scale = timestep_scale(task)
    loss = objectives.negative_guidance(
        *task.pair,
        teacher=(task.original.params, task.original.model_state),
        null=task.generator.null,
        strength=task.setting.guidance,
        **_options(task, scale),
    )
    return _joint(task, loss, scale)


def sfron(task: GenerationTask) -> Job:
    """Build SFRon: masked ascents between steps on the retain images."""
    setting, scale = task.setting, timestep_scale(task)
    loss = objectives.denoise(*task.pair)._replace(train=False)
    importance = fisher_information(loss, per="batch")
    fisher = [
        importance(
            task.original.params,
            task.original.model_state,
            task.batches(task.some(ids)),
            task.key,
        )
        for ids in (task.request.forget, task.request.retain)
    ]
    unlearner = methods.sfron(
        task.generator.model,
        task.optimizer(),
        mask=masks.fisher_ratio(*fisher),
        steps=setting.steps,
        forget_rate=setting.forget_rate,
        forget_every=setting.forget_every,
        peak=setting.peak,
        clip=setting.clip,
        forget=objectives.denoise_ascent(*task.pair, **_options(task, scale)),
        retain=_remember(task),
        weighting=weighting_of(task, scale),
    )
    return Job(unlearner, _zipped(task))


def ltu(task: GenerationTask) -> Job:
    """Build LTU: relabelling as support, denoising errors for its attacks."""
    setting, scale = task.setting, timestep_scale(task)
    attacks, params, details = attacks_of(task)
    labels = task.samples.labels[task.request.retain]
    strategies = (queries.uniform(len(labels)), queries.class_skewed(labels))
    unlearner = methods.meta_unlearn(
        task.generator.model,
        task.optimizer(salient(task)),
        relabel=objectives.relabel_condition(
            *task.pair, replace=replacement(task), **_options(task, scale)
        ),
        remember=_remember(task),
        audits=[
            objectives.denoising_nonmember(
                *task.pair, attack, params[attack.name], draws=setting.draws
            )
            for attack in attacks
        ],
        queries=len(strategies),
        inner=optax.sgd(setting.inner_rate),
        weighting=weighting_of(task, scale),
        harmonizer=_harmonizer(setting),
        model_state="sequential",
    )
    schedule = queried(
        task.samples,
        task.request.forget,
        task.request.retain,
        strategies,
        batch_size=setting.batch_size,
        query_size=min(setting.query_size, len(labels)),
        steps=setting.steps,
        seed=task.seed,
        **_reference(task),
    )
    return Job(unlearner, schedule, details=details)


_BUILDERS: dict[str, Callable[[GenerationTask], Job]] = {
    "retain": retain,
    "ascent": ascent,
    "relabel": relabel,
    "esd": esd,
    "sfron": sfron,
    "ltu": ltu,
}


def replacement(task: GenerationTask) -> diffusion.Replace:
    """Return what takes the place of the forgotten condition.

    Raises:
      InputError: an unknown class or word, or the forgotten one itself.
    """
    name, network = task.setting.replace, task.generator.network
    forgotten = set(np.unique(task.samples.labels[task.request.forget]).tolist())
    names = list(network.class_names)
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
        return _replace_words(task, words if name == "random" else words[:1])
    if network.condition == "text":
        return _replace_words(task, [name])
    number = int(name) if name.isdigit() else names.index(name) if name in names else -1
    if not 0 <= number < len(names):
        raise unknown_name("replace", name, ("random", "next", *names))
    if number in forgotten:
        raise InputError(f"replace={name!r} is to be forgotten itself; choose another")
    return diffusion.anchor(number)


def _replace_words(task: GenerationTask, words: list[str]) -> diffusion.Replace:
    """Return the replacement of the concept by one of some words, drawn anew."""
    vocabulary = vocabulary_of(task.generator.network)
    concept = task.concept
    if concept is None:
        label = int(task.samples.labels[task.request.forget][0])
        concept = task.generator.network.class_names[label]
    makers = [
        diffusion.replace_word(vocabulary, concept, word)
        for word in words
        if diffusion.word_of(word) != diffusion.word_of(concept)
    ]

    def replace(key: Array, condition: Array, labels: Array) -> Array:
        options = jnp.stack([make(key, condition, labels) for make in makers])
        chosen = jax.random.randint(key, labels.shape, 0, len(makers))
        return options[chosen, jnp.arange(labels.shape[0])]

    return replace


def _options(task: GenerationTask, scale: Array | None) -> dict[str, Any]:
    return {"draws": task.draws, "scale": scale}


def _remember(task: GenerationTask):
    """Return the loss of the retain images: as in training."""
    return objectives.denoise(
        *task.pair, drop=task.generator.network.drop, null=task.generator.null
    )


def _joint(task: GenerationTask, forget: Any, scale: Array | None = None) -> Job:
    """Return the method that descends on a forget loss and on the retain images."""
    unlearner = methods.assemble(
        task.generator.model,
        task.optimizer(salient(task)),
        forget=forget,
        retain=_remember(task),
        weighting=None if forget is None else weighting_of(task, scale),
        harmonizer=_harmonizer(task.setting),
    )
    return Job(unlearner, _zipped(task))


def _zipped(task: GenerationTask):
    return zipped(
        task.samples,
        task.request.forget,
        task.request.retain,
        batch_size=task.setting.batch_size,
        steps=task.setting.steps,
        seed=task.seed,
        **_reference(task),
    )


def _reference(task: GenerationTask) -> dict[str, Any]:
    """Return the unseen images that ride along if the weights ask for them."""
    if task.setting.weighting != "falw":
        return {}
    unseen = task.request.unseen
    if not len(unseen):
        raise InputError("weighting='falw' needs unseen images; hold some out")
    size = min(task.setting.batch_size, len(unseen))
    return {"reference": unseen, "reference_size": size}


def _harmonizer(setting: GeneratorUnlearning):
    if setting.harmonizer == "one_way":
        return harmonize.one_way()
    if setting.harmonizer == "two_way":
        return harmonize.two_way()
    return harmonize.add(forget=setting.forget_strength)
