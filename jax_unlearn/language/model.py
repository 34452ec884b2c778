"""Language models as the library's `Model`: logits, losses of tokens, hidden states."""

import functools
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.types import Model

if TYPE_CHECKING:
    from jax_unlearn.zoo import DecoderConfig

__all__ = ["decoder"]

METHODS = {"logits": "__call__", "scored": "score", "hidden": "hidden"}


def decoder(
    config: "DecoderConfig",
    *,
    outputs: str = "logits",
    layer: int | None = None,
    chunk: int | None = None,
    remat: bool = False,
    dtype: Any = jnp.float32,
    param_dtype: Any = None,
) -> Model:
    """Return the `Model` of a decoder, which reads a `Text`.

    Models of one config and different outputs share their parameters.

    Args:
      config: sizes and form, `ju.zoo.DecoderConfig(vocab_size, ...)`.
      outputs: "logits" `f32[B, T, V]`; "scored", a `Scored`, from the logits of a chunk
        of tokens at a time; "hidden", the states `f32[B, T, D]` of a layer.
      layer: whose states, from 0; None for those that the head reads.
      chunk: positions of each row of which "scored" holds logits at once; by default as
        many as make 128 MB.
      remat: the backward pass computes each block anew: less memory, a third more time.
      dtype: of the products; softmax, norms and losses are float32.
      param_dtype: of the parameters that `init` draws, by default float32.

    Raises:
      InputError: unknown outputs, a layer that the config lacks.

    >>> import jax, jax_unlearn as ju
    >>> config = ju.zoo.DecoderConfig(64, width=32, layers=2)
    >>> model = decoder(config, outputs="scored")
    >>> params, state = jax.jit(model.init)(jax.random.key(0), None)
    >>> apply = jax.jit(model.apply, static_argnames="train")
    >>> tokens = jnp.zeros((2, 5), jnp.int32)
    >>> apply(params, state, tokens, train=False)[0].nll.shape
    (2, 4)
    """
    from jax_unlearn.adapters import from_nnx
    from jax_unlearn.zoo import Decoder

    _validate.one_of("outputs", outputs, METHODS)
    make = functools.partial(
        Decoder,
        config,
        layer=layer,
        chunk=chunk,
        remat=remat,
        dtype=dtype,
        param_dtype=jnp.float32 if param_dtype is None else param_dtype,
    )
    return from_nnx(lambda rngs: make(rngs=rngs), method=METHODS[outputs])
