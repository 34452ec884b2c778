"""Amnesiac unlearning in its second form: training goes on with wrong labels."""

import optax

from jax_unlearn.methods.relabel import random_label
from jax_unlearn.types import Array, Harmonizer, Model, Unlearner, Weighting


def amnesiac_relabel(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    weighting: Weighting | None = None,
    harmonizer: Harmonizer | None = None,
    seed: int | Array = 0,
    model_state: str = "sequential",
    forward: str = "merged",
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
      weighting: weights of the forget samples; default uniform.
      harmonizer: joins the two gradients, with `forward="separate"` only.
      seed: of the labels.
      model_state: what happens to BatchNorm statistics, see `assemble`.
      forward: one pass over the union, as published, or one a batch, see `assemble`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Raises:
      InputError: as `random_label`.

    Reference: Graves et al., arXiv 2010.10981, the form they call "unlearning"; their
    other one, which subtracts logged updates, needs the log of the training run.

    >>> import jax.numpy as jnp
    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = amnesiac_relabel(model, optax.sgd(0.1), num_classes=2)
    >>> print(alg.init(jnp.float32(2.0), ()).step)
    0
    """
    return random_label(
        model,
        optimizer,
        num_classes=num_classes,
        weighting=weighting,
        harmonizer=harmonizer,
        redraw=False,
        exclude_true=True,
        seed=seed,
        model_state=model_state,
        forward=forward,
    )
