"""Per-sample losses and scores that optax lacks; nothing here is reduced.

Where no other arguments are named, a function takes logits `[..., K]` and the labels of
the true classes, integers `[...]`. All compute in float32 and return one value a
sample, so that each also runs on one item under `jax.vmap`.
"""

import jax
import jax.numpy as jnp
import optax

from jax_unlearn.types import Array

__all__ = ["cross_entropy", "distillation", "el2n", "margin", "soft_cross_entropy"]
__all__ += ["true_class_probability"]


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Return ℓ = −log softmax(logits)_y `f32[...]`, whatever the logits' dtype.

    A label outside 0..K − 1 has the loss NaN, and so have its gradients.

    >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).tolist()  # log 4
    [1.3863]
    """
    known = (labels >= 0) & (labels < logits.shape[-1])
    loss = optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.where(known, labels, 0)
    )
    # a factor, for a choice would give an unknown label the gradient 0
    return loss * jnp.where(known, jnp.float32(1), jnp.float32(jnp.nan))


def true_class_probability(logits: Array, labels: Array) -> Array:
    """Return p_y = softmax(logits)_y `f32[...]`, the confidence in the true class.

    >>> true_class_probability(jnp.zeros((1, 4)), jnp.array([2])).tolist()
    [0.25]
    """
    return jnp.exp(-cross_entropy(logits, labels))


def soft_cross_entropy(logits: Array, targets: Array) -> Array:
    """Return −Σ_k t_k log softmax(logits)_k `f32[...]`, 0·log 0 counted as 0.

    The targets are distributions `[..., K]`; a loss is at least the target's entropy.

    >>> soft_cross_entropy(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]])).tolist()  # log 2
    [0.6931]
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    targets = targets.astype(jnp.float32)
    return -jnp.sum(jnp.where(targets == 0, 0.0, targets * log_probs), axis=-1)


def distillation(
    logits: Array, teacher_logits: Array, *, temperature: float | Array = 1.0
) -> Array:
    """Return T²·KL(teacher ‖ student), both softened by the temperature T.

    A class to which the teacher gives no probability counts 0. Both give logits
    `[..., K]`; no gradient flows into the teacher's. T > 0; T² keeps the size of the
    gradient independent of T. Losses are `f32[...]`, 0 where both agree.

    Reference: Hinton et al., arXiv 1503.02531, section 2.

    >>> distillation(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]])).tolist()
    [0.0]
    """
    student = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
    teacher = jax.nn.log_softmax(
        jax.lax.stop_gradient(teacher_logits).astype(jnp.float32) / temperature
    )
    probs = jnp.exp(teacher)
    terms = jnp.where(probs == 0, 0.0, probs * (teacher - student))
    return jnp.square(jnp.float32(temperature)) * jnp.sum(terms, axis=-1)


def margin(logits: Array, labels: Array) -> Array:
    """Return logit_y − max_{k≠y} logit_k `f32[...]`, positive where it is right.

    >>> margin(jnp.array([[3.0, 1.0, 0.0]]), jnp.array([0])).tolist()
    [2.0]
    """
    logits = logits.astype(jnp.float32)
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.bool_)
    true = jnp.sum(jnp.where(own, logits, 0.0), axis=-1)
    return true - jnp.max(jnp.where(own, -jnp.inf, logits), axis=-1)


def el2n(logits: Array, labels: Array) -> Array:
    """Return the L2 norm of the error, ‖softmax(logits) − onehot(y)‖₂, in [0, √2].

    It is the norm of the cross-entropy's gradient in the logits, `f32[...]`.

    Reference: Paul et al., arXiv 2107.07075, definition 2.2.

    >>> el2n(jnp.zeros((1, 2)), jnp.array([0])).tolist()  # ‖(−1/2, 1/2)‖
    [0.7071]
    """
    probabilities = jax.nn.softmax(logits.astype(jnp.float32))
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    return jnp.linalg.norm(probabilities - own, axis=-1)
