"""What is measured on the original model first: mask, scale, weights, attacks."""

import jax.numpy as jnp
import numpy as np

from jax_unlearn import diffusion, masks, membership, objectives, weights
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import mean_gradient
from jax_unlearn.lab.generation.models import whole
from jax_unlearn.lab.generation.task import GenerationTask
from jax_unlearn.membership import Observed
from jax_unlearn.types import Array, PyTree, Weighting


def salient(task: GenerationTask) -> PyTree | None:
    """Return the salient weights: large gradients of the forget images' errors."""
    if task.setting.keep == 1:
        return None
    loss = objectives.denoise(*task.pair)._replace(train=False)
    grads = mean_gradient(loss)(
        task.original.params,
        task.original.model_state,
        task.batches(task.some(task.request.forget)),
        task.key,
    )
    return masks.gradient_saliency(grads, keep=task.setting.keep)


def errors_of(task: GenerationTask, ids: np.ndarray) -> diffusion.ErrorTable:
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


def timestep_scale(task: GenerationTask) -> Array | None:
    """Return the mean error by bin of timesteps, where the weights look at errors."""
    weighted = task.setting.weighting not in ("auto", "uniform")
    weighted |= task.setting.method == "sfron"
    if task.setting.time != "bins" or not weighted:
        return None
    table = errors_of(task, task.some(task.request.forget))
    return diffusion.timestep_scale(
        table.errors,
        table.timesteps,
        bins=task.setting.bins,
        num_train_timesteps=task.generator.process.num_train_timesteps,
    )


def weighting_of(task: GenerationTask, scale: Array | None) -> Weighting:
    """Return the weights of the forget images; `scale` as in `timestep_scale`.

    Raises:
      InputError: class counts or tables that the weighting refuses.
    """
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
    found = errors_of(task, forget)
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


def attacks_of(task: GenerationTask):
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
