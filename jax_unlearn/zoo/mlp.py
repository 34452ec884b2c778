"""A multi-layer perceptron on flattened inputs."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_unlearn.errors import InputError
from jax_unlearn.zoo.layers import classifier, kaiming

Array = jax.Array


class MLP(nnx.Module):
    """Linear layers with ReLU, then a linear classifier; no BatchNorm, no dropout.

    Args:
      num_classes: K.
      in_features: D, number of values of a sample, e.g. 64 for 8x8 grey images.
      hidden: widths of the hidden layers; `()` is logistic regression.
      dtype: compute dtype, e.g. `jnp.bfloat16`; parameters and logits are float32.
      rngs: random streams.

    Examples:
      >>> def logits(x):
      ...     return MLP(10, in_features=64, rngs=nnx.Rngs(0))(x, train=False)
      >>> jax.eval_shape(logits, jnp.ones((2, 8, 8, 1)))
      ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        in_features: int,
        hidden: Sequence[int] = (128, 128),
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = in_features
        self.depth = len(hidden)
        for i, width in enumerate(hidden):
            layer = nnx.Linear(
                in_features,
                width,
                kernel_init=kaiming,
                dtype=dtype,
                rngs=rngs,
            )
            setattr(self, f"hidden{i + 1}", layer)
            in_features = width
        self.head = classifier(in_features, num_classes, rngs=rngs)

    def features(self, x: Array, *, train: bool) -> Array:
        """Return the last hidden layer `f32[B, hidden[-1]]` of `x [B, ...]`.

        Raises:
          InputError: if the samples do not have `in_features` values.
        """
        del train
        if math.prod(x.shape[1:]) != self.in_features:
            raise InputError(
                f"x.shape={x.shape} must be [B, ...] with in_features="
                f"{self.in_features} values a sample; build MLP with "
                f"in_features={math.prod(x.shape[1:])}"
            )
        x = x.reshape(x.shape[0], -1)
        for i in range(self.depth):
            x = nnx.relu(getattr(self, f"hidden{i + 1}")(x))
        return x.astype(jnp.float32)

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return logits `f32[B, K]` of `x [B, ...]`; both modes are the same."""
        return self.head(self.features(x, train=train))
