"""Builders of the methods that descend step by step: unlearner and schedule of each."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import harmonize, masks, methods, objectives
from jax_unlearn.data import (
    Examples,
    Schedule,
    forget_only,
    merged,
    phases,
    queried,
    retain_only,
    scrub_schedule,
    sequential,
    take,
    zipped,
)
from jax_unlearn.drivers.loop import predict
from jax_unlearn.lab.difficulty import RANKINGS
from jax_unlearn.lab.learn import learn
from jax_unlearn.lab.rewinding import nearest_to_unseen
from jax_unlearn.lab.stages import Job, Rewind, Trainer, optimizer_of
from jax_unlearn.lab.task import Task, as_floats, fisher_of
from jax_unlearn.types import Harmonizer, UnlearnBatch


def finetune(task: Task) -> Job:
    """Build FT."""
    unlearner = methods.finetune(
        task.model, task.optimizer(), model_state=task.model_state
    )
    return Job(unlearner, _retain_only(task))


def l1_sparse(task: Task) -> Job:
    """Build l1-sparse."""
    schedule = _retain_only(task)
    unlearner = methods.l1_sparse(
        task.model,
        task.optimizer(),
        penalty=task.setting.penalty,
        steps=len(schedule),
        model_state=task.model_state,
    )
    return Job(unlearner, schedule)


def gradient_ascent(task: Task) -> Job:
    """Build GA."""
    unlearner = methods.gradient_ascent(
        task.model,
        task.optimizer(),
        weighting=task.weighting(),
        model_state=task.model_state,
    )
    return Job(unlearner, _forget_only(task))


def neggrad_plus(task: Task) -> Job:
    """Build NegGrad+."""
    unlearner = methods.neggrad_plus(
        task.model, task.optimizer(), alpha=task.setting.alpha, **_joint(task)
    )
    return Job(unlearner, _both(task))


def random_label(task: Task) -> Job:
    """Build RL; SalUn too, whose mask is in the optimizer."""
    unlearner = methods.random_label(task.model, task.optimizer(), **_relabel(task))
    return Job(unlearner, _both(task))


def amnesiac_relabel(task: Task) -> Job:
    """Build the relabelling form of Amnesiac."""
    unlearner = methods.amnesiac_relabel(task.model, task.optimizer(), **_relabel(task))
    return Job(unlearner, _both(task))


def salun_soft(task: Task) -> Job:
    """Build SalUn-soft."""
    unlearner = methods.salun_soft(
        task.model,
        task.optimizer(),
        threshold=task.setting.threshold,
        **_relabel(task),
    )
    return Job(unlearner, _both(task))


def endpoint_transport(task: Task) -> Job:
    """Build endpoint transport."""
    forget, unseen = task.request.forget, task.request.unseen
    ranking = RANKINGS[task.setting.ranking](task)
    targets = objectives.transport_targets(
        ranking.scores,
        task.labels(forget),
        task.probabilities(unseen),
        task.labels(unseen),
        ease=ranking.ease,
    )
    table = objectives.target_table(forget, targets, len(task.dataset.train.labels))
    unlearner = methods.endpoint_transport(
        task.model,
        task.optimizer(),
        targets=jnp.asarray(table),
        **_joint(task),
        **_forward(task),
    )
    return Job(unlearner, _both(task))


def bad_teacher(task: Task) -> Job:
    """Build Bad Teacher; the incompetent one is another random start."""
    key = jax.random.fold_in(jax.random.key(task.seed), 1)
    inputs = task.dataset.train.inputs[:2]
    params, state = jax.jit(task.model.init)(key, inputs)
    unlearner = methods.bad_teacher(
        task.model,
        task.optimizer(),
        teacher_params=task.original.params,
        teacher_state=task.original.model_state,
        incompetent_params=params,
        incompetent_state=state,
        temperature=task.setting.teacher_temperature or 1.0,
        **_joint(task),
        **_forward(task),
    )
    return Job(unlearner, _both(task))


def scrub(task: Task) -> Job:
    """Build SCRUB, with its rewinding if that is asked for."""
    setting, request = task.setting, task.request
    unlearner = methods.scrub(
        task.model,
        task.optimizer(),
        teacher_params=task.original.params,
        teacher_state=task.original.model_state,
        alpha=setting.distill_share,
        gamma=setting.task_share,
        temperature=setting.teacher_temperature or 4.0,
        weighting=task.weighting(),
        model_state=task.model_state,
    )
    phased = scrub_schedule(
        task.dataset.train,
        request.forget,
        request.retain,
        forget_epochs=min(setting.forget_epochs, setting.epochs),
        **_passes(task),
    )
    chosen = Rewind(phased.ends, nearest_to_unseen(task)) if setting.rewind else None
    return Job(unlearner, phased.schedule, rewind=chosen)


def sfron(task: Task) -> Job:
    """Build SFRon: its mask, then ascents between steps on the retain set.

    The Fisher information of the mask is that by sample (our choice): the public code
    squares gradients of batches.
    """
    setting, request = task.setting, task.request
    schedule = zipped(
        task.dataset.train, request.forget, request.retain, **_passes(task)
    )
    fisher = [fisher_of(task, ids) for ids in (request.forget, request.retain)]
    unlearner = methods.sfron(
        task.model,
        task.optimizer(),
        mask=masks.fisher_ratio(*fisher),
        steps=len(schedule),
        forget_rate=setting.learning_rate,
        forget_every=setting.forget_every,
        peak=setting.peak,
        clip=setting.ascent_clip,
        weighting=task.weighting(),
        model_state=task.model_state,
    )
    return Job(unlearner, schedule)


def boundary_shrink(task: Task) -> Job:
    """Build boundary shrink: labels from adversarial neighbours."""
    forget = task.request.forget
    inputs = as_floats(task.dataset.train.inputs[forget])
    drawn = objectives.boundary_labels(
        task.model,
        task.original.params,
        task.original.model_state,
        jnp.asarray(inputs),
        jnp.asarray(task.labels(forget)),
        bound=task.setting.bound,
    )
    table = np.zeros(len(task.dataset.train.labels), np.int32)
    table[forget] = np.asarray(drawn)
    unlearner = methods.boundary_shrink(
        task.model,
        task.optimizer(),
        labels=jnp.asarray(table),
        weighting=task.weighting(),
        model_state=task.model_state,
    )
    return Job(unlearner, _forget_only(task))


def boundary_expand(task: Task) -> Job:
    """Build boundary expand."""
    width = predict(
        task.features,
        task.original.params,
        task.original.model_state,
        task.dataset.train.inputs[:1],
    ).shape[1]
    unlearner = methods.boundary_expand(
        task.model,
        task.features,
        task.optimizer(),
        head_optimizer=optimizer_of(task.setting, 0),
        num_classes=task.dataset.num_classes,
        width=width,
        weighting=task.weighting(),
        model_state=task.model_state,
        seed=task.seed,
    )
    return Job(unlearner, _forget_only(task))


def unsir(task: Task) -> Job:
    """Build UNSIR: noise in place of the forget samples, then repair without."""
    setting, request = task.setting, task.request
    examples = task.dataset.train
    labels = task.labels(request.forget)
    noise = methods.unsir_noise(
        task.model,
        task.original.params,
        task.original.model_state,
        jnp.asarray(labels),
        jax.random.key(task.seed),
        shape=examples.inputs.shape[1:],
        steps=setting.noise_steps,
    )
    images = np.asarray(noise)
    if examples.inputs.dtype == np.uint8:
        images = np.round(255 * images).astype(np.uint8)
    widened = Examples(
        np.concatenate([examples.inputs, images.astype(examples.inputs.dtype)]),
        np.concatenate([examples.labels, labels]),
    )
    ids = np.arange(len(examples.labels), len(widened.labels))
    passes = _passes(task)
    schedule = phases(
        zipped(
            widened,
            ids,
            request.retain,
            **{**passes, "epochs": setting.impair_epochs},
        ),
        retain_only(examples, request.retain, **{**passes, "seed": task.seed + 1}),
    )
    unlearner = methods.unsir(
        task.model, task.optimizer(), model_state=task.model_state
    )
    return Job(unlearner, schedule)


def ltu(task: Task) -> Job:
    """Build LTU: its membership models, its queries."""
    setting, request = task.setting, task.request
    learned = learn(task)
    rate = setting.inner_rate
    unlearner = methods.ltu(
        task.model,
        task.optimizer(),
        queries=len(learned.strategies),
        attacks=learned.attacks,
        attack_params=learned.attack_params,
        inner=optax.sgd(rate) if rate > 0 else optax.set_to_zero(),
        first_order=setting.first_order,
        remat=setting.remat,
        num_classes=task.dataset.num_classes,
        seed=task.seed,
        **_joint(task),
    )
    schedule = queried(
        task.dataset.train,
        request.forget,
        request.retain,
        learned.strategies,
        query_size=learned.query_size,
        **_passes(task),
    )
    return Job(unlearner, schedule, details=learned.details)


def retrain(task: Task) -> Job:
    """Build Retrain: a random start, and the training of the original."""
    trainer = Trainer(task.model, task.known_origin().training)
    return trainer.job(task.dataset.train, task.request.retain, seed=task.seed)[0]


BUILDERS: dict[str, Callable[[Task], Job]] = {
    "finetune": finetune,
    "l1_sparse": l1_sparse,
    "gradient_ascent": gradient_ascent,
    "neggrad_plus": neggrad_plus,
    "random_label": random_label,
    "salun": random_label,
    "salun_soft": salun_soft,
    "amnesiac_relabel": amnesiac_relabel,
    "endpoint_transport": endpoint_transport,
    "bad_teacher": bad_teacher,
    "scrub": scrub,
    "sfron": sfron,
    "boundary_shrink": boundary_shrink,
    "boundary_expand": boundary_expand,
    "unsir": unsir,
    "ltu": ltu,
    "retrain": retrain,
}
"""By the name of the method."""


def _passes(task: Task) -> dict[str, Any]:
    """Return what every schedule is told; the unseen set rides along if weights ask."""
    setting, unseen = task.setting, task.request.unseen
    passes: dict[str, Any] = {
        "batch_size": setting.batch_size,
        "epochs": setting.epochs,
        "seed": task.seed,
    }
    if setting.weighting != "falw" or setting.estimator == "anchored":
        return passes
    if setting.estimator == "streaming":
        size = min(setting.batch_size, len(unseen))
        return {**passes, "reference": unseen, "reference_size": size}
    whole = take(task.dataset.train, unseen, np.ones(len(unseen), np.bool_))
    return {**passes, "reference": whole}


def _retain_only(task: Task) -> Schedule[UnlearnBatch]:
    return retain_only(task.dataset.train, task.request.retain, **_passes(task))


def _forget_only(task: Task) -> Schedule[UnlearnBatch]:
    return forget_only(task.dataset.train, task.request.forget, **_passes(task))


def _both(task: Task) -> Schedule[UnlearnBatch]:
    schedule = {"merged": merged, "zipped": zipped, "sequential": sequential}
    return schedule[task.setting.schedule](
        task.dataset.train, task.request.forget, task.request.retain, **_passes(task)
    )


def _joint(task: Task) -> dict[str, Any]:
    """Return what methods of two gradients are told."""
    return {
        "weighting": task.weighting(),
        "harmonizer": _harmonizer(task),
        "model_state": task.model_state,
    }


def _forward(task: Task) -> dict[str, Any]:
    """Return how many forward passes a step has."""
    return {"forward": "merged"} if task.setting.schedule == "merged" else {}


def _relabel(task: Task) -> dict[str, Any]:
    classes = {"num_classes": task.dataset.num_classes, "seed": task.seed}
    return {**_joint(task), **_forward(task), **classes}


def _harmonizer(task: Task) -> Harmonizer | None:
    """Return what joins the gradients; None is their sum."""
    setting = task.setting
    name = setting.harmonizer
    if name == "auto":
        name = "one_way" if setting.method == "ltu" else "none"
    if name == "one_way":
        return harmonize.one_way(per_leaf=setting.per_leaf)
    if name == "two_way":
        return harmonize.two_way(per_leaf=setting.per_leaf)
    return harmonize.add() if setting.method == "ltu" else None
