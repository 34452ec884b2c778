"""A small trainer of classifiers, for whoever has no training of their own at hand."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import ArrayLike

from jax_unlearn import _validate
from jax_unlearn.candidates import examples_of
from jax_unlearn.data import retain_only
from jax_unlearn.data.batches import take
from jax_unlearn.drivers.loop import run
from jax_unlearn.errors import InputError
from jax_unlearn.methods.finetune import finetune
from jax_unlearn.methods.reset import partial_reset
from jax_unlearn.types import Model, Unlearner, UnlearnState

__all__ = ["fit"]


def fit(
    model: Model,
    data: Any,
    ids: ArrayLike | None = None,
    *,
    start: Any = None,
    shrink: float | None = None,
    epochs: int = 20,
    learning_rate: float = 0.1,
    batch_size: int = 32,
    seed: int = 0,
) -> UnlearnState:
    """Train a classifier on some of its samples: momentum 0.9, a cosine schedule.

    Trained anew on `split.retain` it is Retrain; a share of Retrain's epochs is short
    Retrain; with `start` and `shrink`, partial reset.

    Args:
      model: the network.
      data: a `ju.data.Dataset`, or arrays, as `ju.compare` takes them.
      ids: training samples to train on; default all.
      start: what training begins from, (params, model_state) or a state; default a new
        initialisation.
      shrink: with a start, the share λ of its weights that is kept, to which a new
        initialisation is added, see `ju.methods.partial_reset`; None keeps the start
        as it is.
      epochs: passes over the samples.
      learning_rate: of the first step; it falls to 0 along a cosine.
      batch_size: samples of a step.
      seed: of the initialisation and of the order of the samples.

    Raises:
      InputError: options out of range, a `shrink` without a start.

    >>> import jax_unlearn as ju
    >>> data = ju.data.digits()
    >>> model = ju.from_nnx(lambda rngs: ju.zoo.MLP(10, in_features=64, rngs=rngs))
    >>> model = ju.data.with_preprocessing(model, mean=[0.3], std=[0.4])
    >>> state = fit(model, data, range(200), epochs=4)
    >>> logits = ju.predict(model, *state[:2], data.test.inputs)
    >>> float((logits.argmax(1) == data.test.labels).mean()) > 0.5
    True
    """
    _validate.positive("learning_rate", learning_rate, "try 0.1")
    train, _ = examples_of(data)
    ids = np.arange(len(train.labels)) if ids is None else ids
    batches = retain_only(train, ids, batch_size=batch_size, epochs=epochs, seed=seed)
    key = jax.random.key(seed)
    begin = None
    if start is not None:
        state = hasattr(start, "params") and hasattr(start, "model_state")
        begin = (start.params, start.model_state) if state else start
        if not isinstance(begin, tuple) or len(begin) != 2:
            raise InputError(
                f"start of type {type(start).__name__} must be the pair (params, "
                "model_state) or a state of ju.run"
            )
    if begin is None or shrink is not None:
        fresh, new_state = model.init(key, take(train, np.zeros(2, np.int64)).inputs)
        if begin is not None and shrink is not None:
            fresh = partial_reset(begin[0], fresh, shrink=shrink)
        elif shrink is not None:
            raise InputError(f"shrink={shrink:g} without a start; give start=params")
        begin = fresh, new_state
    alg = _trainer(model, learning_rate, len(batches))
    return run(alg, alg.init(*begin), batches, key)


@functools.lru_cache(maxsize=16)
def _trainer(model: Model, rate: float, steps: int) -> Unlearner:
    """Return one step of training, compiled once for all seeds."""

    def rates(count: Any) -> Array:  # optax's mixes dtypes, which strict modes refuse
        turn = jnp.float32(np.pi / steps) * count.astype(jnp.float32)
        return jnp.float32(rate / 2) * (1 + jnp.cos(turn))

    return finetune(model, optax.sgd(rates, momentum=0.9))
