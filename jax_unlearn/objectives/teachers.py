"""Objectives of a student and its teacher: away from it, or after it and the labels."""

from jax_unlearn import _validate
from jax_unlearn.objectives.base import Objective
from jax_unlearn.objectives.classification import distill
from jax_unlearn.types import Model, ModelState, Params


def repel(
    model: Model,
    teacher_params: Params,
    teacher_state: ModelState,
    *,
    temperature: float = 4.0,
) -> Objective:
    """Return −T²·KL(teacher ‖ student): minimising it leaves the teacher.

    The loss has no lower bound, and no gradient where student and teacher agree: from
    the teacher itself only BatchNorm's batch statistics, dropout, augmentation, weight
    decay or a step on other samples lead away.

    Args:
      model: the network of student and teacher; outputs are logits `[B, K]`.
      teacher_params: the frozen teacher's parameters; carried as `Objective.data`.
      teacher_state: the teacher's model state; it runs in eval mode.
      temperature: T > 0; published 4.

    Returns:
      An `Objective`, losses `f32[B]` of 0 or less.

    Raises:
      InputError: temperature not positive.

    Reference: Kurmanji et al., arXiv 2302.09880, the max-steps of SCRUB.

    >>> import jax, jax.numpy as jnp
    >>> from jax_unlearn.adapters import from_stateless
    >>> from jax_unlearn.types import Batch
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> objective = repel(model, 0.0, (), temperature=1.0)  # a teacher of (1/2, 1/2)
    >>> objective(2.0, (), batch, jax.random.key(0))[0].tolist()  # log 2 − 1.1269
    [-0.4338]
    """
    pull = distill(model, teacher_params, teacher_state, temperature=temperature)
    return pull.negated()


def imitate(
    model: Model,
    teacher_params: Params,
    teacher_state: ModelState,
    *,
    alpha: float = 0.001,
    gamma: float = 0.99,
    temperature: float = 4.0,
) -> Objective:
    """Return γ·CE(y) + α·T²·KL(teacher ‖ student): the label and the teacher both.

    Args:
      model: the network of student and teacher; outputs are logits `[B, K]`.
      teacher_params: the frozen teacher's parameters; carried as `Objective.data`.
      teacher_state: the teacher's model state; it runs in eval mode.
      alpha: α ≥ 0; published 0.001.
      gamma: γ ≥ 0; published 0.99.
      temperature: T > 0; published 4.

    Returns:
      An `Objective`, losses `f32[B]`.

    Raises:
      InputError: alpha or gamma negative, or temperature not positive.

    Reference: Kurmanji et al., arXiv 2302.09880, the min-steps of SCRUB; Hinton et al.,
    arXiv 1503.02531.

    >>> import jax, jax.numpy as jnp
    >>> from jax_unlearn.adapters import from_stateless
    >>> from jax_unlearn.types import Batch
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> objective = imitate(model, 2.0, (), gamma=1.0)  # the teacher agrees
    >>> objective(2.0, (), batch, jax.random.key(0))[0].tolist()  # log(1 + e^-2)
    [0.1269]
    """
    _validate.not_negative("alpha", alpha, "try 0.001")
    _validate.not_negative("gamma", gamma, "try 0.99")
    pull = distill(model, teacher_params, teacher_state, temperature=temperature)

    def output_loss(outputs, batch, key, data):
        divergence, task_losses = pull.output_loss(outputs, batch, key, data)
        return gamma * task_losses + alpha * divergence, task_losses

    return pull._replace(output_loss=output_loss)
