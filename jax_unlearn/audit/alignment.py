"""The difference attack on weights: whose gradient points along what unlearning did.

An attacker who holds the parameters before and after knows more than outputs tell: the
step from the one to the other is, to first order, made of gradients of the samples that
were removed. Reconstructions start from it; telling the samples is the easier task.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import leaves, programs
from jax_unlearn._validate import at_least
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Model, ModelState, Params

__all__ = ["gradient_alignment"]


def gradient_alignment(
    model: Model,
    before: tuple[Params, ModelState],
    after: tuple[Params, ModelState],
    inputs: Any,
    labels: Any,
    *,
    batch_size: int = 64,
) -> np.ndarray:
    r"""Cosine of each sample's loss gradient with the step from one model to another.

    .. math:: a(x, y) = \frac{\langle \nabla_\theta \ell(x, y; \theta_o),
              \theta_u - \theta_o \rangle}{\lVert \nabla_\theta \ell(x, y; \theta_o)
              \rVert \, \lVert \theta_u - \theta_o \rVert}

    `f64[n]`, within [-1, 1]: positive where the step raised the loss of the sample, as
    its removal does; 0 where either has no length. Gradients are those of the
    cross-entropy at the original, in eval mode (its BatchNorm statistics, no dropout),
    of one sample each, `batch_size` at a time. Compare forget with unseen samples by
    `roc_auc`; target: what the step from the original to a Retrain shows.

    Source: that parameters before and after give removed samples away: Bertran et al.,
    arXiv 2405.20272 (reconstruction from the difference), and Hu et al., arXiv
    2404.03233 (inversion of unlearning, its features); the cosine is our choice.

    Args:
      model: what both models are.
      before: parameters and state of the original.
      after: those of the model that came of it.
      inputs: pytree of arrays `[n, ...]`.
      labels: true classes, `[n]`.
      batch_size: samples whose gradients are held at a time.

    Raises:
      InputError: parameters of other shapes, as many labels as there are no inputs.

    >>> import jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: jnp.zeros((2, 2)), lambda w, x: x @ w)
    >>> w, x, y = jnp.zeros((2, 2)), jnp.eye(2), jnp.array([0, 1])
    >>> raised = w + jnp.array([[-1.0, 1.0], [0.0, 0.0]])  # of the first sample alone
    >>> gradient_alignment(model, (w, ()), (raised, ()), x, y).round(3).tolist()
    [1.0, 0.0]
    """
    at_least("batch_size", batch_size, 1, "try 64")
    count = len(labels)
    for leaf in jax.tree.leaves(inputs):
        if len(leaf) != count:
            raise InputError(
                f"{count} labels and an input of {len(leaf)} samples; give one label "
                "a sample"
            )
    start, end = before[0], after[0]
    if jax.tree.map(jnp.shape, start) != jax.tree.map(jnp.shape, end):
        raise InputError(
            "before and after are of other parameters; give two models of one network"
        )

    moved, _ = leaves.divided(start)
    step = optax.tree.sub(leaves.alike(end, moved), moved)
    truth, found = jnp.asarray(labels, jnp.int32), []
    for rows in programs.pieces(count, batch_size):
        part = jax.tree.map(lambda leaf, rows=rows: jnp.asarray(leaf[rows]), inputs)
        cosines = _cosines(model.apply, before, step, part, truth[rows])
        found.append(np.asarray(cosines, np.float64))
    return np.clip(np.concatenate(found or [np.zeros(0)])[:count], -1, 1)


@programs.jit(static_argnums=0)
def _cosines(apply: Any, before: Any, step: Params, inputs: Any, labels: Array):
    start, state = before
    moved, whole = leaves.divided(start)
    step = optax.tree.cast(step, jnp.float32)

    def cosine(x: Any, y: Array) -> Array:
        def loss(part: Params) -> Array:
            single = jax.tree.map(lambda leaf: leaf[None], x)
            logits, _ = apply(whole(part), state, single, train=False)
            logits = logits.astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[None])[0]

        gradient = optax.tree.cast(jax.grad(loss)(moved), jnp.float32)
        lengths = optax.tree.norm(gradient) * optax.tree.norm(step)
        safe = jnp.where(lengths > 0, lengths, 1.0)
        return jnp.where(lengths > 0, optax.tree.vdot(gradient, step) / safe, 0.0)

    return jax.vmap(cosine)(inputs, labels)
