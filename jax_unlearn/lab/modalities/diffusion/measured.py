"""What is measured on an original diffusion model: scales, tables, attacks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import diffusion, membership, objectives
from jax_unlearn.cards import Learned, Variables
from jax_unlearn.data import Examples, queries
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modality import checked_attacks, chosen
from jax_unlearn.membership import Observed
from jax_unlearn.methods.ltu import Ltu
from jax_unlearn.types import Array

__all__ = ["errors_of", "learn", "loss_table", "observed", "timestep_scale"]

DRAWS = 8  # timesteps an image, for attacks on many models


def errors_of(lab: Any, ids: np.ndarray, draws: int) -> diffusion.ErrorTable:
    """Return the denoising errors of some images under the original model."""
    given = lab.original, lab.examples, ids
    options = {"model": lab.model, "key": lab.key, "draws": draws}
    return lab.subject.built.errors(*given, **options)


def observed(subject: Any, at: Variables, examples: Examples) -> np.ndarray:
    """Return minus the mean denoising error of images against 0, `f32[n, 2]`."""
    # timesteps and noise are the same for all models: attacks compare like with like
    given = at, examples, np.arange(len(examples.labels))
    table = subject.built.errors(*given, key=jax.random.key(0), draws=DRAWS)
    errors = np.asarray(table.errors, np.float32).mean(axis=1)
    return np.stack([-errors, np.zeros_like(errors)], axis=1)


def timestep_scale(lab: Any) -> Array | None:
    """Return the mean error by bin of timesteps, where the weights look at errors."""
    options = lab.setting.modality_options
    if options.time != "bins" or lab.setting.weighting == "uniform":
        return None
    if "timestep_scale" not in lab.measured:
        table = errors_of(lab, lab.some(lab.request.forget), max(options.draws, 8))
        lab.measured["timestep_scale"] = diffusion.timestep_scale(
            table.errors,
            table.timesteps,
            bins=options.bins,
            num_train_timesteps=lab.subject.built.process.num_train_timesteps,
        )
    return lab.measured["timestep_scale"]


def loss_table(lab: Any) -> Array:
    """Return the original's mean scaled error by image, 0 beyond the forget set."""
    forget, draws = lab.request.forget, max(lab.setting.modality_options.draws, 8)
    table = errors_of(lab, forget, draws)
    errors = diffusion.scaled(
        jnp.asarray(table.errors.ravel()),
        jnp.asarray(table.timesteps.ravel()),
        timestep_scale(lab),
        lab.subject.built.process.num_train_timesteps,
    )
    means = np.zeros(len(lab.examples.labels), np.float32)
    means[forget] = np.asarray(errors).reshape(table.errors.shape).mean(axis=1)
    return jnp.asarray(means)


def learn(lab: Any, options: Ltu) -> Learned:
    """Train membership models on denoising errors of retain and unseen images."""
    if len(lab.request.unseen) < 4:
        raise InputError(
            f"{len(lab.request.unseen)} unseen images: the attacks of ltu learn from "
            "images the model was not trained on; hold some out"
        )
    labels = lab.labels("retain")
    attacks, strategies = chosen(
        lab,
        options,
        attacks={
            "logistic": membership.logistic,
            "entropy_mlp": membership.entropy_mlp,
            "gaussian_ratio": partial(membership.gaussian_ratio, equal_variance=True),
        },
        strategies={
            "uniform": partial(queries.uniform, len(labels)),
            "class_skewed": partial(queries.class_skewed, labels),
        },
    )
    attacks = [a._replace(features=objectives.denoising_features) for a in attacks]
    draws, seen = lab.setting.modality_options.draws, []
    for part in ("retain", "unseen"):
        ids = lab.some(lab.ids(part))
        errors = jnp.asarray(errors_of(lab, ids, draws).errors)
        seen.append(Observed(errors, jnp.asarray(lab.examples.labels[ids])))
    params, infos = membership.train_attacks(attacks, seen[0], seen[1], lab.key)
    pair = lab.model, lab.subject.built.process
    audits = tuple(
        objectives.denoising_nonmember(*pair, a, params[a.name], draws=draws)
        for a in attacks
    )
    size = min(options.query_size, len(labels))
    details = checked_attacks(infos, options)
    return Learned(tuple(strategies), size, audits, details)
