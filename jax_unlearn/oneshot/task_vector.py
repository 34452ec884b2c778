"""Task vectors: take back the direction in which overfitting the forget set leads."""

import dataclasses

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.cards import Card, Job, Lab, Options, Positive, Variables
from jax_unlearn.errors import InputError
from jax_unlearn.language.lora import turned_adapters
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.types import Array, Params, UnlearnState

__all__ = ["TASK_VECTOR", "TaskVector", "task_vector"]


def task_vector(
    params: Params, overfitted: Params, *, scale: float | Array = 1.0
) -> Params:
    """Return θ_o − α(θ₊ − θ_o), θ₊ the original overfitted on the forget set.

    Both are pytrees of one structure; what is not floating stays. α, the scale, of 0
    changes nothing.

    Raises:
      InputError: a negative scale, or parameters of another structure.

    Reference: arXiv 2212.04089; of texts, in MUSE, arXiv 2407.06460.

    >>> print(task_vector(jnp.float32(1.0), jnp.float32(1.5)))
    0.5
    """
    _validate.not_negative("scale", scale, "try 1")
    if jax.tree.structure(params) != jax.tree.structure(overfitted):
        raise InputError(
            "overfitted has other leaves than params: fine-tune a copy of the same "
            "model on the forget set"
        )
    alpha = jnp.asarray(scale, jnp.float32)

    def moved(before, after):
        before = jnp.asarray(before)
        if not jnp.issubdtype(before.dtype, jnp.floating):
            return before
        found = before.astype(jnp.float32)
        found = found - alpha * (jnp.asarray(after).astype(jnp.float32) - found)
        return found.astype(before.dtype)

    return jax.tree.map(moved, params, overfitted)


@dataclasses.dataclass(frozen=True)
class TaskVector(Options):
    """Options of the task vector.

    Attributes:
      scale: α, how far the parameters move against the task vector.
    """

    scale: Positive = 1.0


def _task_vector(lab: Lab, options: TaskVector) -> Job:
    told = {"weighting": lab.weighting(), "model_state": lab.model_state}
    job = Job.of(lab, "forget", assemble, forget=lab.objective("remember"), **told)
    original = lab.original

    def back(state: UnlearnState) -> Variables:
        if (turned := turned_adapters(state.params, -options.scale)) is not None:
            return turned, original[1]  # of products: those of the factors are others
        moved = task_vector(original[0], state.params, scale=options.scale)
        return moved, original[1]

    return job._replace(finish=back)


TASK_VECTOR = (
    Card.of(_task_vector, "Task vector", source="arXiv 2212.04089")
    .but(reads=("forget", "original"), cost="E·F", step_reads=())
    .but(
        suits="Good as a rough method if there is only the forget set: it overfits "
        "this set, then moves the weights as far the other way. A larger scale forgets "
        "more and damages more of the rest."
    )
    .tries(learning_rate=(0.001, 0.003, 0.01), epochs=(3, 10), scale=(0.5, 1.0))
)
