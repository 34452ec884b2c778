"""Recipes that train a classifier fast: few epochs of a steep, annealed rate.

For `ju.resident`: the batches, the augmentation, the loss and the optimizer of a
training, made for a number of steps, so that one shortened is annealed to its end too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate, objectives
from jax_unlearn.data.preprocess import Augment, compose, random_crop, random_flip
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.types import Array, Model, Unlearner

__all__ = ["FastTraining", "lookahead", "resnet", "triangle", "whitened"]


class FastTraining(NamedTuple):
    """How a network is trained.

    Attributes:
      epochs, batch_size: passes over the samples, and samples a step.
      augment: of the raw images, for `ju.data.with_preprocessing`.
      optimizer: `steps -> optax transformation`.
      smoothing: of the labels.
    """

    epochs: int
    batch_size: int
    augment: Augment
    optimizer: Callable[[int], optax.GradientTransformation]
    smoothing: float = 0.0

    def unlearner(self, model: Model, steps: int) -> Unlearner:
        """Return what trains the model on `UnlearnBatch.retain` in so many steps."""
        loss = objectives.descent(model, smoothing=self.smoothing)
        return assemble(model, self.optimizer(steps), retain=loss, fewest=0)


def resnet(
    *,
    epochs: int = 30,
    batch_size: int = 512,
    learning_rate: float = 0.4,
    weight_decay: float = 5e-4,
) -> FastTraining:
    """Return the training of a ResNet: SGD with Nesterov momentum 0.9, one cycle.

    The rate rises to `learning_rate` in a fifth of the steps and falls to 0; shifts by
    4 pixels and flips; plain cross-entropy, as in the papers on unlearning.

    Raises:
      InputError: a number that is not positive.

    Source: our choice; common practice.

    >>> optimizer = resnet(learning_rate=1.0, weight_decay=1e-9).optimizer(10)
    >>> state = optimizer.init(jnp.ones(1))
    >>> update, _ = optimizer.update(jnp.ones(1), state, jnp.zeros(1))
    >>> print(update)  # the rate begins with 0.2; Nesterov: 1 + 0.9
    [-0.38]
    """
    _validate.positive("learning_rate", learning_rate, "try 0.4")

    def optimizer(steps: int) -> optax.GradientTransformation:
        return _sgd(learning_rate, triangle(steps), weight_decay, 0.9)

    augment = compose(random_flip, random_crop(4))
    return FastTraining(epochs, batch_size, augment, optimizer)


def whitened(
    *,
    epochs: int = 10,
    batch_size: int = 1024,
    learning_rate: float = 11.5,
    weight_decay: float = 0.0153,
    bias_rate: float = 64.0,
    smoothing: float = 0.2,
) -> FastTraining:
    r"""Return the training of `ju.zoo.WhitenedCNN`: flips, shifts by 2 pixels, SGD.

    Rate and decay are decoupled from momentum μ = 0.85 and from each other, a thousand
    samples or so: with B samples a step and c = B / 1024 / (1 + 1/(1 − μ)), the rate on
    the mean gradient is 11.5·c at its peak, after 23 % of the steps (0.2 of that at
    first, 0.07 at last), and a step takes 0.0153·c of the weights. That of the biases
    is `bias_rate` times the others'; the rest is as in `FastTraining`.

    Raises:
      InputError: a number that is not positive.

    Reference: Jordan, arXiv 2404.00498, without its augmentation at test time.

    >>> training = whitened(learning_rate=1.0, weight_decay=1e-9)
    >>> params = {"kernel": jnp.zeros(1), "bias": jnp.zeros(1)}
    >>> optimizer = training.optimizer(100)
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> jax.tree.map(jnp.shape, updates)
    {'bias': (1,), 'kernel': (1,)}
    """
    momentum = 0.85
    for name, value in (("learning_rate", learning_rate), ("bias_rate", bias_rate)):
        _validate.positive(name, value)
    share = batch_size / 1024 / (1 + 1 / (1 - momentum))

    def optimizer(steps: int) -> optax.GradientTransformation:
        shape = triangle(steps, start=0.2, end=0.07, peak=0.23)

        def part(rate: float) -> optax.GradientTransformation:
            return _sgd(rate * share, shape, weight_decay / rate, momentum)

        own: Any = {"bias": part(learning_rate * bias_rate)}
        own["rest"] = part(learning_rate)
        return lookahead(optax.partition(own, _kinds), steps)

    augment = compose(random_flip, random_crop(2))
    return FastTraining(epochs, batch_size, augment, optimizer, smoothing)


def triangle(
    steps: int, *, start: float = 0.2, peak: float = 0.2, end: float = 0.0
) -> optax.Schedule:
    """Return a factor that rises from `start` to 1 at a share of the steps, then falls.

    >>> shape = triangle(10)
    >>> [round(float(shape(step)), 2) for step in (0, 1, 2, 6, 10)]
    [0.2, 0.6, 1.0, 0.5, 0.0]
    """
    knots, values = jnp.array([0.0, peak, 1.0]), jnp.array([start, 1.0, end])
    return lambda step: jnp.interp(jnp.float32(step) / max(steps, 1), knots, values)


class LookaheadState(NamedTuple):
    """State of `lookahead`: of the inner one, the slow parameters, the steps done."""

    inner: Any
    slow: Any
    count: Array


def lookahead(
    inner: optax.GradientTransformation, steps: int, *, every: int = 5
) -> optax.GradientTransformation:
    r"""Pull the parameters to a slow mean of theirs, at last altogether.

    .. math::
        s \leftarrow \alpha s + (1 - \alpha)\,\theta, \quad \theta \leftarrow s, \quad
        \alpha = 0.95^5 (t / T)^3

    after every k steps t of T, and at the end with α = 1. Unlike `optax.lookahead` it
    is a plain transformation of one set of parameters; `update` needs `params`.

    Reference: Zhang et al., arXiv 1907.08610; α as in Jordan, arXiv 2404.00498.

    >>> optimizer = lookahead(optax.sgd(1.0), 2, every=1)
    >>> w = jnp.ones(1)
    >>> updates, state = optimizer.update(w, optimizer.init(w), w)
    >>> print(updates)  # θ = 0, s = 0.097·1
    [-0.9032774]
    """

    def init(params) -> LookaheadState:
        return LookaheadState(inner.init(params), params, jnp.int32(0))

    def update(updates, state, params=None):
        updates, own = inner.update(updates, state.inner, params)
        count = state.count + 1
        done = count.astype(jnp.float32) / max(steps, 1)
        alpha = jnp.where(done >= 1, 1.0, 0.95**5 * done**3).astype(jnp.float32)
        now = (count % every == 0) | (done >= 1)

        def pull(slow, update, p):
            mixed = alpha * slow + (1 - alpha) * (p + update)
            return jnp.where(now, mixed, slow).astype(p.dtype)

        slow = jax.tree.map(pull, state.slow, updates, params)
        pulled = jax.tree.map(
            lambda s, u, p: jnp.where(now, s - p, u), slow, updates, params
        )
        return pulled, LookaheadState(own, slow, count)

    return optax.GradientTransformation(init, update)


def _sgd(
    rate: float, shape: optax.Schedule, decay: float, momentum: float
) -> optax.GradientTransformation:
    """Return SGD with Nesterov momentum, of a rate times a shape."""
    return optax.chain(
        optax.add_decayed_weights(decay),
        optax.sgd(lambda step: rate * shape(step), momentum, nesterov=True),
    )


def _kinds(params: Any) -> Any:
    """Name each leaf "bias" or "rest"."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "bias" if "bias" in jax.tree_util.keystr(path[-1:]) else "rest",
        params,
    )
