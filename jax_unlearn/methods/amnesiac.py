"""Amnesiac unlearning in its second form: training goes on with wrong labels."""

from typing import Unpack

import optax

from jax_unlearn.methods.assemble import Options
from jax_unlearn.methods.relabel import random_label
from jax_unlearn.types import Array, Model, Unlearner


def amnesiac_relabel(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    seed: int | Array = 0,
    **options: Unpack[Options],
) -> Unlearner:
    """Train on over D_r and a relabelled D_f: (Σ w_i CE(x_i, y'_i) + Σ CE)/(n_f + n_r).

    Each forget sample gets one wrong label for good, uniform over the other K − 1
    classes, and training goes on over the shuffled union (`ju.data.merged`). This is
    `random_label` with `forward="merged"` and its other defaults, and nothing else: the
    published methods differ in the schedule only, RL also being run as forget passes
    and retain passes in turn.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: published: the one the model was trained with, which goes on (Adam of
        lr 1e-3, batch 64, up to 10 epochs).
      num_classes: K.
      seed: of the labels.
      **options: `weighting`, `harmonizer`, `model_state` and `forward` of `assemble`;
        `forward` defaults to "merged", one pass over the union, as published.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Raises:
      InputError: as `random_label`.

    Reference: Graves et al., arXiv 2010.10981, the form they call "unlearning"; their
    other one, which subtracts logged updates, needs the log of the training run.

    >>> import jax, jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = amnesiac_relabel(model, optax.sgd(1.0), num_classes=2)
    >>> x = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = alg.step(state, ju.UnlearnBatch(x, x), jax.random.key(0))
    >>> print(state.params)  # 2 − (p_0 − p_1)/2, from −CE(1)/2 and CE(0)/2
    1.6192
    """
    given: Options = {"forward": "merged", **options}
    return random_label(model, optimizer, num_classes=num_classes, seed=seed, **given)
