"""Methods that give the forget set new targets: random labels, SalUn, transport."""

import optax

from jax_unlearn import objectives
from jax_unlearn.masks import masked, soft_threshold
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.types import Array, Harmonizer, Model, PyTree, Unlearner, Weighting


def random_label(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    weighting: Weighting | None = None,
    harmonizer: Harmonizer | None = None,
    redraw: bool = False,
    exclude_true: bool = True,
    seed: int | Array = 0,
    model_state: str = "sequential",
    forward: str = "separate",
) -> Unlearner:
    """Relabel (RL): minimise Σ w_i CE(x_i, y'_i) on D_f, y' random, and CE on D_r.

    With `weighting=ju.weights.falw(counts)`, `forward="merged"` and the whole unseen
    set as reference it is FaLW's Algorithm 1; with `ju.weights.loreun(...)`, RL+LoReUn.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: any optax transformation; published: lr 0.01 to 0.1, 10 epochs.
      num_classes: K.
      weighting: weights of the forget samples; default uniform.
      harmonizer: joins the two gradients; default their sum.
      redraw: new labels at every step instead of one draw a sample.
      exclude_true: draw over the other K − 1 classes (published form) or over all K.
      seed: of the fixed labels.
      model_state: what happens to BatchNorm statistics, see `assemble`.
      forward: one pass a batch or one for both, see `assemble`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Raises:
      InputError: as `assemble` and `objectives.random_label`.

    Reference: Golatkar et al., arXiv 1911.04933; SalUn's RL, arXiv 2310.12508.

    >>> import jax.numpy as jnp
    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = random_label(model, optax.sgd(0.1), num_classes=2)
    >>> print(alg.init(jnp.float32(2.0), ()).step)
    0
    """
    return assemble(
        model,
        optimizer,
        forget=objectives.random_label(
            model,
            num_classes=num_classes,
            redraw=redraw,
            exclude_true=exclude_true,
            seed=seed,
        ),
        retain=objectives.descent(model),
        weighting=weighting,
        harmonizer=harmonizer,
        model_state=model_state,
        forward=forward,
    )


def salun(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    mask: PyTree,
    num_classes: int,
    legacy: bool = False,
    **options,
) -> Unlearner:
    """Relabel only the salient weights (SalUn): RL under m = 1(|∇ℓ_f(θ_o)| large).

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: any optax transformation; published: lr 0.013 (CIFAR-10, 10 %).
      mask: from `ju.masks.gradient_saliency`, keep 0.5 in the paper.
      num_classes: K.
      legacy: leaky mask of the code public until 2026, see `ju.masks.masked`.
      **options: as `random_label`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Raises:
      ValueError: at `init`, if the mask does not fit the parameters.

    Reference: Fan et al., arXiv 2310.12508.

    >>> import jax.numpy as jnp
    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = salun(model, optax.sgd(0.1), mask=jnp.array(True), num_classes=2)
    >>> print(alg.init(jnp.float32(2.0), ()).step)
    0
    """
    optimizer = masked(optimizer, mask, legacy=legacy)
    return random_label(model, optimizer, num_classes=num_classes, **options)


def salun_soft(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    threshold: float,
    num_classes: int,
    **options,
) -> Unlearner:
    """Relabel under a pull to the original weights (SalUn-soft): no mask to prepare.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: any optax transformation.
      threshold: soft threshold of the change a step, see `ju.masks.soft_threshold`.
      num_classes: K.
      **options: as `random_label`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Raises:
      InputError: negative threshold.

    Reference: Fan et al., arXiv 2310.12508, soft-thresholding variant.

    >>> import jax.numpy as jnp
    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = salun_soft(model, optax.sgd(0.1), threshold=1e-4, num_classes=2)
    >>> print(alg.init(jnp.float32(2.0), ()).step)
    0
    """
    optimizer = soft_threshold(optimizer, threshold)
    return random_label(model, optimizer, num_classes=num_classes, **options)


def endpoint_transport(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    targets: Array,
    weighting: Weighting | None = None,
    harmonizer: Harmonizer | None = None,
    model_state: str = "sequential",
    forward: str = "separate",
) -> Unlearner:
    """Send every forget sample to an unseen prediction of its class and quantile.

    Minimises Σ w_i CE(t_i, f(x_i)) on D_f beside CE on D_r. The targets say where to
    go, so it does not overshoot.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: any optax transformation.
      targets: table `f32[N, K]` by sample id, from `ju.objectives.transport_targets`
        and `target_table`.
      weighting: weights of the forget samples; default uniform.
      harmonizer: joins the two gradients; default their sum.
      model_state: what happens to BatchNorm statistics, see `assemble`.
      forward: one pass a batch or one for both, see `assemble`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Source: our choice.

    >>> import jax.numpy as jnp
    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = endpoint_transport(model, optax.sgd(0.1), targets=jnp.full((1, 2), 0.5))
    >>> print(alg.init(jnp.float32(2.0), ()).step)
    0
    """
    return assemble(
        model,
        optimizer,
        forget=objectives.transport(model, targets),
        retain=objectives.descent(model),
        weighting=weighting,
        harmonizer=harmonizer,
        model_state=model_state,
        forward=forward,
    )
