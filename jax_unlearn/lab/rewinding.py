"""Which epoch of SCRUB+R is kept."""

from collections.abc import Callable, Sequence

import numpy as np

from jax_unlearn import methods
from jax_unlearn.drivers.loop import predict
from jax_unlearn.lab.task import Task
from jax_unlearn.types import ModelState, Params


def nearest_to_unseen(
    task: Task,
) -> Callable[[Sequence[tuple[Params, ModelState]]], int]:
    """Return SCRUB+R's choice: the forget error nearest to the last unseen error."""
    request, counts = task.request, task.forget_counts()

    def wrong(candidate: tuple[Params, ModelState], ids: np.ndarray) -> np.ndarray:
        logits = predict(task.model, *candidate, task.dataset.train.inputs[ids])
        return logits.argmax(axis=1) != task.labels(ids)

    def choose(candidates: Sequence[tuple[Params, ModelState]]) -> int:
        errors = [100 * wrong(c, request.forget).mean() for c in candidates]
        right = ~wrong(candidates[-1], request.unseen)
        goal = methods.class_matched_error(right, task.labels(request.unseen), counts)
        return methods.rewind(errors, goal)

    return choose
