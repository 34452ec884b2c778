"""Objectives that follow the original model, but for what it knows of the sample."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn import _validate, losses
from jax_unlearn.contracts import counted, forward_pass, usable
from jax_unlearn.errors import InputError
from jax_unlearn.objectives.base import Objective, on_logits
from jax_unlearn.tables import NO_CLASS, check_table
from jax_unlearn.types import Array, Model, ModelState, Params

__all__ = ["class_references", "gumbel", "other_classes", "reference"]


def other_classes(
    model: Model, teacher_params: Params, teacher_state: ModelState
) -> Objective:
    """Return KL(q ‖ p), q the teacher's probabilities without the true class (DELETE).

    q_k ∝ softmax(teacher)_k for k ≠ y and q_y = 0: what the original says of the other
    classes stays, the true one goes. The teacher, carried in `Objective.data`, runs in
    eval mode.

    Reference: DELETE, arXiv 2503.23751.

    >>> from jax_unlearn.adapters import from_stateless
    >>> from jax_unlearn.types import Batch
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> objective = other_classes(model, 2.0, ())
    >>> objective(2.0, (), batch, jax.random.key(0))[0].tolist()  # −log p_1
    [2.1269]
    """

    def loss(logits, batch, key, data):
        del key
        params, model_state = data
        at, inputs = (params, model_state), usable(batch).inputs
        teacher, _ = forward_pass(model.apply, *at, inputs, train=False)
        own = jax.nn.one_hot(batch.labels, teacher.shape[-1], dtype=jnp.bool_)
        others = jnp.where(own, -jnp.inf, teacher.astype(jnp.float32))
        return _known(batch.labels) * losses.distillation(logits, others)

    return on_logits(model, loss, (teacher_params, teacher_state))


def class_references(
    probabilities: ArrayLike, labels: ArrayLike, num_classes: int
) -> Array:
    """Return the mean prediction of unseen samples of each class, `f32[K, K]`.

    Row c is (1/n_c) Σ_{u: y_u = c} q_u over predictions q `[U, K]` of the original; of
    a class without unseen samples, the mean over all.

    Raises:
      InputError: arrays that do not fit, or no unseen sample.

    >>> q = [[0.9, 0.1], [0.7, 0.3]]
    >>> class_references(q, [0, 0], 2).tolist()
    [[0.8, 0.2], [0.8, 0.2]]
    """
    q, y = np.asarray(probabilities, np.float64), np.asarray(labels)
    if q.shape != (len(y), num_classes) or not len(y):
        raise InputError(
            f"probabilities.shape={q.shape} must be [U, {num_classes}] with U ≥ 1, one "
            f"row for each of the {len(y)} labels"
        )
    if y.min() < 0 or y.max() >= num_classes:
        raise InputError(
            f"labels hold {y.min()} to {y.max()}; classes are 0 to {num_classes - 1}"
        )
    rows = [q[y == c] if (y == c).any() else q for c in range(num_classes)]
    return jnp.asarray([row.mean(axis=0) for row in rows], jnp.float32)


def reference(model: Model, references: Array) -> Objective:
    """Return KL(q ‖ p), one q for the whole batch: unseen data of its classes (ReGUn).

    q = Σ_c h_c·q_c with h_c the share of class c among the batch's samples that count
    and q_c row c of `references` `[K, K]`, see `class_references`. Rows that are all
    equal give one q for every batch. The nearest relative of `transport`, which has a
    target for each sample instead, by its rank within the class.

    Raises:
      InputError: a table that is not `[K, K]`.

    Reference: ReGUn, arXiv 2603.11210.

    >>> from jax_unlearn.adapters import from_stateless
    >>> from jax_unlearn.types import Batch
    >>> model = from_stateless(lambda key, x: 0.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> objective = reference(model, jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> objective(0.0, (), batch, jax.random.key(0))[0].tolist()  # log 2
    [0.6931]
    """
    table = jnp.asarray(references, jnp.float32)
    check_table("references", table, "[K, K]")

    def loss(logits, batch, key, data):
        del key
        counts = counted(batch).astype(jnp.float32)
        member = jax.nn.one_hot(batch.labels, len(data), dtype=jnp.float32)
        histogram = counts @ member / jnp.maximum(counts.sum(), 1.0)
        target = jnp.broadcast_to(histogram @ data, logits.shape)
        entropy = -jnp.sum(jnp.where(target > 0, target * jnp.log(target), 0.0), -1)
        apart = losses.soft_cross_entropy(logits, target) - entropy
        return _known(batch.labels) * apart

    return on_logits(model, loss, table)._replace(joint=True)


def gumbel(
    model: Model,
    teacher_params: Params,
    teacher_state: ModelState,
    *,
    temperature: float | Array | None = None,
) -> Objective:
    """Return the cross-entropy to a Gumbel-softmax draw of the teacher (LoTUS).

    ℓ = −Σ_k t_k log p_k with t = softmax((z + g)/τ), z the teacher's logits in eval
    mode and g standard Gumbel noise, drawn anew for each sample and step: τ → 0 is a
    class drawn from the teacher's prediction, large τ the uniform distribution. With
    the `temperature` None it is that class itself: t one-hot at argmax(z + g). No label
    is used. Teacher and τ are carried in `Objective.data`.

    Raises:
      InputError: τ that is not positive.

    Reference: LoTUS, arXiv 2503.18314; Gumbel-softmax: arXiv 1611.01144.

    >>> from jax_unlearn.adapters import from_stateless
    >>> from jax_unlearn.types import Batch
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[9.0, 0.0]]), jnp.array([1]))
    >>> objective = gumbel(model, 2.0, ())  # the teacher is sure of class 0
    >>> objective(0.0, (), batch, jax.random.key(0))[0].tolist()  # log 2
    [0.6931]
    """
    if temperature is not None:
        _validate.positive("temperature", temperature, "try 1")
        temperature = jnp.asarray(temperature, jnp.float32)

    def loss(logits, batch, key, data):
        params, model_state, temperature = data
        at, inputs = (params, model_state), usable(batch).inputs
        teacher, _ = forward_pass(model.apply, *at, inputs, train=False)
        noise = jax.random.gumbel(key, teacher.shape, jnp.float32)
        noisy = jax.lax.stop_gradient(teacher).astype(jnp.float32) + noise
        if temperature is None:
            return losses.cross_entropy(logits, jnp.argmax(noisy, axis=-1))
        target = jax.nn.softmax(noisy / temperature, axis=-1)
        return losses.soft_cross_entropy(logits, target)

    return on_logits(model, loss, (teacher_params, teacher_state, temperature))


def _known(labels: Array) -> Array:
    """Return 1, or NaN for a label that is no class of the model."""
    return jnp.where(labels == NO_CLASS, jnp.float32(jnp.nan), jnp.float32(1))
