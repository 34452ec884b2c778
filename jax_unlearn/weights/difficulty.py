"""Other cheap measures of how hard a sample is to forget, as weightings."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_unlearn import _validate, losses
from jax_unlearn.cards import WeightingCard
from jax_unlearn.gradients import sample_gradient
from jax_unlearn.types import Array, Batch, LossFn, PyTree, Sample, Weighting
from jax_unlearn.weights.combine import stateless
from jax_unlearn.weights.loreun import Loreun, Softmin

__all__ = ["EL2N", "MARGIN", "by_score", "el2n", "gradient_norms", "margin"]


def by_score(
    score: Callable[[Sample], Array], *, temperature: float | Array, **options: Any
) -> Weighting:
    """Weight by any per-sample score, small = hard to forget: w_i ∝ exp(−s_i/τ).

    The score is `Sample -> f32[B]`, all else as of `Softmin`, errors included.

    >>> w = by_score(lambda sample: sample.losses, temperature=1.0)  # LoReUn again
    >>> s = Sample(jnp.zeros(2), None, jnp.array([0, 1]))
    >>> w.update(s, w.init())[0].tolist()
    [1.0, 1.0]
    """
    softmin = Softmin(temperature, **options)
    told = {"joint": softmin.joint}
    return stateless(lambda sample: softmin(score(sample), sample.mask), **told)


def el2n(*, temperature: float | Array, **options: Any) -> Weighting:
    """Weight by the error norm: w_i ∝ exp(−‖p_i − onehot(y_i)‖₂/τ).

    The arguments are those of `Softmin`.

    Reference: the score is Paul et al., arXiv 2107.07075; its use here is our choice.

    >>> w = el2n(temperature=1.0)
    >>> s = Sample(jnp.zeros(2), jnp.zeros((2, 2)), jnp.array([0, 1]))
    >>> w.update(s, w.init())[0].tolist()
    [1.0, 1.0]
    """
    return by_score(
        lambda s: losses.el2n(s.outputs, s.labels), temperature=temperature, **options
    )


def margin(*, temperature: float | Array, **options: Any) -> Weighting:
    """Weight by the logit margin: w_i ∝ exp(margin_i/τ), sure samples more.

    The arguments are those of `Softmin`; τ is in units of the logits.

    Source: our choice.

    >>> w = margin(temperature=1.0)
    >>> s = Sample(jnp.zeros(2), jnp.zeros((2, 2)), jnp.array([0, 1]))
    >>> w.update(s, w.init())[0].tolist()
    [1.0, 1.0]
    """
    return by_score(
        lambda s: -losses.margin(s.outputs, s.labels),
        temperature=temperature,
        **options,
    )


def gradient_norms(
    loss_fn: LossFn,
    params: PyTree,
    model_state: PyTree,
    batch: Batch,
    *,
    chunk: int = 32,
) -> Array:
    """Return ‖∇_θ ℓ_i‖₂ of every sample, `f32[B]`, as a table for `by_table`.

    The loss is in eval mode, such as `objectives.descent(model)._replace(train=False)`.
    So many samples as `chunk` are differentiated together, which bounds the memory.

    Raises:
      InputError: an `Objective` in train mode.

    Reference: GraNd, Paul et al., arXiv 2107.07075, definition 2.1.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 0.0, lambda w, x: w * x)
    >>> loss = ju.objectives.descent(model)._replace(train=False)
    >>> batch = Batch(jnp.array([[2.0, 0.0]]), jnp.array([0]))
    >>> gradient_norms(loss, 0.0, (), batch).tolist()  # |−x_0 + (x_0 + x_1)/2|
    [1.0]
    """
    _validate.eval_mode(loss_fn)
    gradient = sample_gradient(loss_fn)

    def one(sample: Batch) -> Array:
        grads = gradient(params, model_state, sample, jax.random.key(0))
        leaves = [g.astype(jnp.float32) for g in jax.tree.leaves(grads)]
        squares = [jnp.sum(jnp.square(leaf)) for leaf in leaves]
        return jnp.sqrt(sum(squares, jnp.float32(0)))

    return jax.lax.map(one, batch, batch_size=chunk)


EL2N = WeightingCard(
    "el2n", "EL2N", "by the error norm", lambda lab, options: el2n(**vars(options))
).but(source="score: arXiv 2107.07075", options=Loreun, reads="logits", shared=True)

MARGIN = EL2N.but(
    name="margin", label="margin", title="by the logit margin", source="our choice"
).but(build=lambda lab, options: margin(**vars(options)))
