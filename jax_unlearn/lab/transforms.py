"""Builders of the one-shot methods: a function of the parameters each."""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import objectives, oneshot
from jax_unlearn.data import forget_only, retain_only, take
from jax_unlearn.errors import InputError
from jax_unlearn.lab.stages import Trainer, Transform, checked, cosine, execute
from jax_unlearn.lab.task import Task, fisher_of
from jax_unlearn.types import ModelState, Params, PyTree

SAME = 1e-3  # how far, relatively, a path gone again may end from the original


def influence(task: Task) -> Transform:
    """Build IU."""
    setting, request, examples = task.setting, task.request, task.dataset.train
    size = {"batch_size": setting.batch_size, "epochs": 1, "seed": task.seed}
    forget = forget_only(examples, request.forget, **size)
    retain = retain_only(examples, request.retain, **size)

    def transform(params, model_state):
        found = oneshot.influence(
            objectives.descent(task.model)._replace(train=False),
            params,
            model_state,
            forget=[step.forget for step in forget if step.forget is not None],
            retain=[step.retain for step in retain if step.retain is not None],
            key=jax.random.key(task.seed),
            alpha=setting.strength,
            samples=setting.samples,
            form=setting.form,
        )
        return found, model_state

    return transform


def ssd(task: Task) -> Transform:
    """Build SSD."""
    setting, request = task.setting, task.request

    def transform(params, model_state):
        everything = np.union1d(request.forget, request.retain)
        found = oneshot.ssd(
            params,
            fisher_of(task, everything, per="batch"),
            fisher_of(task, request.forget, per="batch"),
            alpha=setting.selection,
            dampening=setting.dampening,
        )
        return found, model_state

    return transform


def fisher_forgetting(task: Task) -> Transform:
    """Build Fisher forgetting."""

    def transform(params, model_state):
        found = oneshot.fisher_noise(
            params,
            fisher_of(task, task.request.retain),
            jax.random.key(task.seed),
            alpha=task.setting.noise,
        )
        return found, model_state

    return transform


def amnesiac(task: Task) -> Transform:
    """Build Amnesiac by subtraction: the training runs again, and is logged."""
    origin, request = task.known_origin(), task.request
    ids = np.union1d(request.forget, request.retain)
    trainer = Trainer(task.model, origin.training)
    job, key = trainer.job(task.dataset.train, ids, seed=origin.seed)
    unlearner, schedule = checked(job)
    start = cast(tuple[Params, ModelState], job.start)
    log = oneshot.UpdateLog(unlearner.init(*start), schedule, watched=request.forget)
    trained = execute(job, *start, key, callback=log)
    _check_same(task, trained.params)
    touched = log.touched(request.forget)

    def transform(params, model_state):
        return oneshot.amnesiac(params, log.updates, touched), model_state

    return transform


def deltagrad(task: Task) -> Transform:
    """Build DeltaGrad: the path of the training is gone again, and kept."""
    origin, request, setting = task.known_origin(), task.request, task.setting
    training = origin.training
    ids = np.union1d(request.forget, request.retain)
    if (
        training.network != "linear"
        or training.momentum
        or training.batch_size < len(ids)
        or training.augment != "none"
    ):
        raise InputError(
            f"method='deltagrad' needs an original trained by full-batch gradient "
            f"descent: --network linear --momentum 0 --batch-size {len(ids)} "
            f"--augment none, not --network {training.network} --momentum "
            f"{training.momentum:g} --batch-size {training.batch_size} "
            f"--augment {training.augment}"
        )
    job, _ = Trainer(task.model, training).job(
        task.dataset.train, ids, seed=origin.seed
    )
    start, model_state = cast(tuple[Params, ModelState], job.start)
    loss = objectives.descent(task.model)._replace(train=False)
    batch = take(task.dataset.train, ids)
    steps = job.steps
    trained, path = oneshot.gradient_path(
        loss,
        start,
        batch,
        rates=[cosine(training, steps)(float(step)) for step in range(steps)],
        decay=training.weight_decay,
        model_state=model_state,
    )
    _check_same(task, trained)
    replay = oneshot.deltagrad(
        loss,
        burn_in=setting.burn_in,
        period=setting.period,
        history=setting.history,
    )

    def transform(params, model_state):
        found, _ = replay(params, path, batch, request.forget, model_state=model_state)
        return found, model_state

    return transform


BUILDERS: dict[str, Callable[[Task], Transform]] = {
    "influence": influence,
    "ssd": ssd,
    "fisher_forgetting": fisher_forgetting,
    "amnesiac": amnesiac,
    "deltagrad": deltagrad,
}
"""By the name of the method."""


def _check_same(task: Task, params: Params) -> None:
    """Refuse an original that its training, gone through again, does not lead to."""
    distance = _norm(jax.tree.map(jnp.subtract, params, task.original.params))
    size = _norm(task.original.params)
    if not distance <= SAME * size:
        raise InputError(
            f"the training of the original, gone through again, ends {distance:.3g} "
            f"from it (norm {size:.3g}): it was made by another version or machine, or "
            "is an unlearned one; train it anew"
        )


def _norm(tree: PyTree) -> float:
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(np.sum(leaf**2) for leaf in leaves)))
