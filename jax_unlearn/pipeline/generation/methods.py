"""From a setting to a method ready to run on a diffusion model."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import (
    diffusion,
    harmonize,
    masks,
    membership,
    methods,
    objectives,
    weights,
)
from jax_unlearn.data import Examples, queried, queries, retain_subset, take, zipped
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.gradients import mean_gradient
from jax_unlearn.membership import Observed
from jax_unlearn.oneshot import fisher_information
from jax_unlearn.pipeline.generation.models import Generator, vocabulary_of, whole
from jax_unlearn.pipeline.generation.settings import GeneratorUnlearning
from jax_unlearn.pipeline.settings import Unlearning
from jax_unlearn.pipeline.stages import Job, Request, Trained, optimizer_of
from jax_unlearn.types import Array, Batch, PyTree, Weighting

PROBED = 512  # images on which errors, masks and attacks are measured, at most


class GenerationTask(NamedTuple):
    """What a method is built from.

    Attributes:
      generator: the model's functions.
      original: its parameters.
      samples: training images with their conditions.
      request: which of them to forget.
      setting: how.
      seed: of all draws.
      concept: the word to forget, of a model of captions.
    """

    generator: Generator
    original: Trained
    samples: Examples
    request: Request
    setting: GeneratorUnlearning
    seed: int
    concept: str | None = None

    @property
    def key(self) -> Array:
        """Return the key of what is measured before the run."""
        return jax.random.fold_in(jax.random.key(self.seed), 7)

    @property
    def draws(self) -> int:
        """Return the timesteps an image and step."""
        return self.setting.draws if self.setting.time == "draws" else 1

    def some(self, ids: np.ndarray) -> np.ndarray:
        """Return at most `PROBED` of the ids, chosen by the seed."""
        rng = np.random.default_rng(self.seed)
        return np.sort(rng.permutation(ids)[:PROBED])

    def optimizer(self, mask: PyTree | None = None) -> optax.GradientTransformation:
        """Return Adam, clipped, over the masked weights."""
        setting = self.setting
        inner = optimizer_of(
            Unlearning(
                optimizer="adam",
                learning_rate=setting.learning_rate,
                clip=setting.clip,
                weight_decay=0.0,
            ),
            setting.steps,
        )
        return inner if mask is None else masks.masked(inner, mask)


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
    scale = _scale(task)
    return _joint(
        task, objectives.denoise_ascent(*_pair(task), **_options(task, scale)), scale
    )


def relabel(task: GenerationTask) -> Job:
    """Build condition relabelling; with a mask it is SalUn."""
    scale = _scale(task)
    loss = objectives.relabel_condition(
        *_pair(task), replace=replacement(task), **_options(task, scale)
    )
    return _joint(task, loss, scale)


def esd(task: GenerationTask) -> Job:
    """Build negative guidance away from the condition."""
    if task.generator.null is None:
        raise InputError(
            "method='esd' needs the null condition, and this model was trained with "
            "drop=0; choose 'relabel'"
        )
    scale = _scale(task)
    loss = objectives.negative_guidance(
        *_pair(task),
        teacher=(task.original.params, task.original.model_state),
        null=task.generator.null,
        strength=task.setting.guidance,
        **_options(task, scale),
    )
    return _joint(task, loss, scale)


def sfron(task: GenerationTask) -> Job:
    """Build SFRon: masked ascents between steps on the retain images."""
    setting, scale = task.setting, _scale(task)
    loss = objectives.denoise(*_pair(task))._replace(train=False)
    importance = fisher_information(loss, per="batch")
    fisher = [
        importance(
            task.original.params,
            task.original.model_state,
            _batches(task, task.some(ids)),
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
        forget=objectives.denoise_ascent(*_pair(task), **_options(task, scale)),
        retain=_remember(task),
        weighting=_weighting(task, scale),
    )
    return Job(unlearner, _zipped(task))


def ltu(task: GenerationTask) -> Job:
    """Build LTU: relabelling as support, denoising errors for its attacks."""
    setting, scale = task.setting, _scale(task)
    attacks, params, details = _attacks(task)
    labels = task.samples.labels[task.request.retain]
    strategies = (queries.uniform(len(labels)), queries.class_skewed(labels))
    unlearner = methods.meta_unlearn(
        task.generator.model,
        task.optimizer(_mask(task)),
        relabel=objectives.relabel_condition(
            *_pair(task), replace=replacement(task), **_options(task, scale)
        ),
        remember=_remember(task),
        audits=[
            objectives.denoising_nonmember(
                *_pair(task), attack, params[attack.name], draws=setting.draws
            )
            for attack in attacks
        ],
        queries=len(strategies),
        inner=optax.sgd(setting.inner_rate),
        weighting=_weighting(task, scale),
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


def _pair(task: GenerationTask):
    return task.generator.model, task.generator.process


def _options(task: GenerationTask, scale: Array | None) -> dict[str, Any]:
    return {"draws": task.draws, "scale": scale}


def _remember(task: GenerationTask):
    """Return the loss of the retain images: as in training."""
    return objectives.denoise(
        *_pair(task), drop=task.generator.network.drop, null=task.generator.null
    )


def _joint(task: GenerationTask, forget: Any, scale: Array | None = None) -> Job:
    """Return the method that descends on a forget loss and on the retain images."""
    unlearner = methods.assemble(
        task.generator.model,
        task.optimizer(_mask(task)),
        forget=forget,
        retain=_remember(task),
        weighting=None if forget is None else _weighting(task, scale),
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


def _batches(task: GenerationTask, ids: np.ndarray) -> list[Batch]:
    """Return images cut into batches, the last one padded."""
    size = min(task.setting.batch_size, len(ids))
    found = []
    for start in range(0, len(ids), size):
        rows = np.arange(start, start + size)
        mask = rows < len(ids)
        found.append(take(task.samples, ids[np.minimum(rows, len(ids) - 1)], mask))
    return found


def _mask(task: GenerationTask) -> PyTree | None:
    """Return the salient weights: large gradients of the forget images' errors."""
    if task.setting.keep == 1:
        return None
    loss = objectives.denoise(*_pair(task))._replace(train=False)
    grads = mean_gradient(loss)(
        task.original.params,
        task.original.model_state,
        _batches(task, task.some(task.request.forget)),
        task.key,
    )
    return masks.gradient_saliency(grads, keep=task.setting.keep)


def _errors(task: GenerationTask, ids: np.ndarray) -> diffusion.ErrorTable:
    """Return the denoising errors of some images under the original model."""
    return diffusion.denoising_errors(
        task.generator.model,
        task.original.params,
        task.original.model_state,
        whole(task.samples, ids),
        task.key,
        process=task.generator.process,
        draws=max(task.setting.draws, 8),
    )


def _scale(task: GenerationTask) -> Array | None:
    """Return the mean error by bin of timesteps, where the weights look at errors."""
    weighted = task.setting.weighting not in ("auto", "uniform")
    weighted |= task.setting.method == "sfron"
    if task.setting.time != "bins" or not weighted:
        return None
    table = _errors(task, task.some(task.request.forget))
    return diffusion.timestep_scale(
        table.errors,
        table.timesteps,
        bins=task.setting.bins,
        num_train_timesteps=task.generator.process.num_train_timesteps,
    )


def _weighting(task: GenerationTask, scale: Array | None) -> Weighting:
    setting = task.setting
    name = setting.weighting
    if name == "auto":
        name = "sfron" if setting.method == "sfron" else "uniform"
    options = {"temperature": setting.temperature, "relative": setting.relative}
    if name == "uniform":
        return weights.uniform()
    if name == "loreun":
        return weights.loreun(**options)
    if name == "sfron":
        return weights.sfron(0.5)
    forget = task.request.forget
    if name == "falw":
        counts = np.bincount(
            task.samples.labels[forget], minlength=task.generator.num_classes
        )
        return weights.falw(jnp.asarray(counts), estimator=weights.streaming())
    found = _errors(task, forget)
    total = task.generator.process.num_train_timesteps
    errors = diffusion.scaled(
        jnp.asarray(found.errors.ravel()),
        jnp.asarray(found.timesteps.ravel()),
        scale,
        total,
    )
    table = np.zeros(len(task.samples.labels), np.float32)
    table[forget] = np.asarray(errors).reshape(found.errors.shape).mean(axis=1)
    return weights.loreun_static(jnp.asarray(table), **options)


def _attacks(task: GenerationTask):
    """Train membership models on denoising errors of retain and unseen images."""
    if len(task.request.unseen) < 4:
        raise InputError(
            f"{len(task.request.unseen)} unseen images: the attacks of ltu learn from "
            "images the model was not trained on; hold some out"
        )
    kinds = (
        membership.logistic(),
        membership.entropy_mlp()._replace(name="mlp"),
        membership.gaussian_ratio(equal_variance=True),
    )
    features = objectives.denoising_features
    attacks = [attack._replace(features=features) for attack in kinds]
    seen = []
    for ids in (task.request.retain, task.request.unseen):
        chosen = task.some(ids)
        table = diffusion.denoising_errors(
            task.generator.model,
            task.original.params,
            task.original.model_state,
            whole(task.samples, chosen),
            task.key,
            process=task.generator.process,
            draws=task.setting.draws,
        )
        labels = jnp.asarray(task.samples.labels[chosen])
        seen.append(Observed(jnp.asarray(table.errors), labels))
    params, infos = membership.train_attacks(attacks, seen[0], seen[1], task.key)
    details = {
        "attacks": {
            name: {
                "auc": float(info.auc),
                "standard_error": float(info.standard_error),
                "better_than_chance": bool(membership.better_than_chance(info)),
            }
            for name, info in infos.items()
        }
    }
    return attacks, params, details
