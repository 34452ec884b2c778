"""What is measured on an original diffusion model: scales, tables, attacks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import diffusion, membership, objectives
from jax_unlearn.cards import Learned, Variables
from jax_unlearn.data import Examples, queries
from jax_unlearn.errors import InputError
from jax_unlearn.lab.attacks import checked_attacks, numbered
from jax_unlearn.lab.modalities.diffusion.networks import whole
from jax_unlearn.membership import Observed
from jax_unlearn.methods.ltu import Ltu
from jax_unlearn.types import Array

DRAWS = 8  # timesteps an image, for attacks on many models


def errors_of(lab: Any, ids: np.ndarray, draws: int) -> diffusion.ErrorTable:
    """Return the denoising errors of some images under the original model."""
    at: Variables = lab.original
    return diffusion.denoising_errors(
        lab.model,
        *at,
        whole(lab.examples, ids),
        lab.key,
        process=lab.subject.built.process,
        draws=draws,
    )


def observed(subject: Any, at: Variables, examples: Examples) -> np.ndarray:
    """Return minus the mean denoising error of images against 0, `f32[n, 2]`.

    Timesteps and noise are the same for all models, so that attacks on many of them
    compare like with like; the margin of the two numbers is the loss, reversed.
    """
    table = diffusion.denoising_errors(
        subject.model,
        *at,
        whole(examples, np.arange(len(examples.labels))),
        jax.random.key(0),
        process=subject.built.process,
        draws=DRAWS,
    )
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
    """Train membership models on denoising errors of retain and unseen images.

    Args:
      lab: with four unseen images or more.
      options: of LTU.

    Raises:
      InputError: too few unseen images, an attack or a strategy that needs logits or
        features, or no attack that is better than chance.
    """
    if len(lab.request.unseen) < 4:
        raise InputError(
            f"{len(lab.request.unseen)} unseen images: the attacks of ltu learn from "
            "images the model was not trained on; hold some out"
        )
    kinds = {
        "logistic": membership.logistic(),
        "entropy_mlp": membership.entropy_mlp(),
        "gaussian_ratio": membership.gaussian_ratio(equal_variance=True),
    }
    labels = lab.labels("retain")
    sources = {
        "uniform": lambda: queries.uniform(len(labels)),
        "class_skewed": lambda: queries.class_skewed(labels),
    }
    for name, known in (("attacks", kinds), ("strategies", sources)):
        for asked in getattr(options, name):
            if asked not in known:
                raise InputError(
                    f"{name}={asked!r} reads outputs that diffusion models do not "
                    f"have; use {', '.join(known)}"
                )
    attacks = [
        kinds[name]._replace(
            name=numbered(options.attacks, number),
            features=objectives.denoising_features,
        )
        for number, name in enumerate(options.attacks)
    ]
    draws, seen = lab.setting.modality_options.draws, []
    for part in ("retain", "unseen"):
        chosen = lab.some(lab.ids(part))
        table = errors_of(lab, chosen, draws)
        own = jnp.asarray(lab.examples.labels[chosen])
        seen.append(Observed(jnp.asarray(table.errors), own))
    params, infos = membership.train_attacks(attacks, seen[0], seen[1], lab.key)
    audits = tuple(
        objectives.denoising_nonmember(
            lab.model,
            lab.subject.built.process,
            attack,
            params[attack.name],
            draws=draws,
        )
        for attack in attacks
    )
    strategies = tuple(sources[name]() for name in options.strategies)
    size = min(options.query_size, len(labels))
    return Learned(strategies, size, audits, checked_attacks(infos, options))
