"""A small text encoder, and the UNet that reads it: text-conditional generation.

Shapes: B batch, L tokens, D width of the encoder.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jax_unlearn.errors import InputError
from jax_unlearn.tables import no_wrap
from jax_unlearn.types import Array
from jax_unlearn.zoo.layers import attention, linear
from jax_unlearn.zoo.unet import UNet

__all__ = ["TextEncoder", "TextUNet"]


class TextEncoder(nnx.Module):
    """Token and position embeddings, then pre-norm transformer blocks.

    Padding (token 0) is never attended to by words; a caption of padding alone
    attends to itself. The position embeddings of the padding differ, so that the null
    caption is a condition of its own.

    Args:
      vocab_size: number of tokens, padding included.
      length, width: L and D.
      layers: transformer blocks, 0 or more.
      heads: of the attention; divides D.
      dtype: compute dtype; parameters, LayerNorm and outputs are float32.
      rngs: random streams.

    Raises:
      InputError: sizes that make no network; when called, tokens of another shape or
        type.

    Reference: Vaswani et al., arXiv 1706.03762.

    >>> def encode(tokens):
    ...     return TextEncoder(9, length=4, width=8, rngs=nnx.Rngs(0))(tokens)
    >>> nnx.eval_shape(encode, jnp.zeros((2, 4), jnp.int32)).shape
    (2, 4, 8)
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        length: int,
        width: int = 32,
        layers: int = 1,
        heads: int = 2,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if vocab_size < 2 or length < 1 or layers < 0:
            raise InputError(
                f"vocab_size={vocab_size}, length={length}, layers={layers}: give 2 or "
                "more tokens, 1 or more places, 0 or more layers"
            )
        if heads < 1 or width % heads:
            raise InputError(f"heads={heads} must divide width={width}")
        self.length, self.layers, self.heads = length, layers, heads
        self.words = nnx.Embed(vocab_size, width, rngs=rngs)
        self.places = nnx.Embed(length, width, rngs=rngs)
        dense = functools.partial(linear, dtype=dtype, rngs=rngs)
        for layer in range(layers):
            setattr(self, f"norm{layer}a", nnx.LayerNorm(width, rngs=rngs))
            setattr(self, f"qkv{layer}", dense(width, 3 * width))
            setattr(self, f"mix{layer}", dense(width, width))
            setattr(self, f"norm{layer}b", nnx.LayerNorm(width, rngs=rngs))
            setattr(self, f"up{layer}", dense(width, 4 * width))
            setattr(self, f"down{layer}", dense(4 * width, width))
        self.norm = nnx.LayerNorm(width, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        """Return hidden states `f32[B, L, D]` of `tokens i32[B, L]`."""
        if tokens.ndim != 2 or tokens.shape[1] != self.length:
            raise InputError(
                f"tokens.shape={tokens.shape} must be [B, {self.length}]; this network "
                "reads captions, see ju.diffusion.tokenize"
            )
        if not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise InputError(f"tokens.dtype={tokens.dtype} must be of integers")
        x = self.words(no_wrap(tokens)) + self.places(jnp.arange(self.length))[None]
        words = tokens != 0
        alone = ~words.any(axis=1, keepdims=True)
        seen = (words | alone)[:, None, None, :]  # [B, heads, queries, keys]
        for layer in range(self.layers):
            part = getattr(self, f"qkv{layer}")(getattr(self, f"norm{layer}a")(x))
            q, k, v = jnp.split(part, 3, axis=-1)
            y = attention(q, k, v, heads=self.heads, mask=seen)
            x = x + getattr(self, f"mix{layer}")(y).astype(x.dtype)
            y = getattr(self, f"up{layer}")(getattr(self, f"norm{layer}b")(x))
            x = x + getattr(self, f"down{layer}")(nnx.silu(y)).astype(x.dtype)
        return self.norm(x)


class TextUNet(nnx.Module):
    """A UNet that attends to the words of a caption: `(x_t, t, tokens) -> prediction`.

    As in latent diffusion, the UNet sees padding too: its hidden states are those of
    the last places.

    Args:
      vocab_size, length, dtype, rngs: as in `TextEncoder`.
      text_width, text_layers: D and `layers` of the encoder.
      **options: `in_channels`, `block_out_channels`, `layers_per_block`, `attention`,
        `heads`, `groups`, `dropout`, as in `UNet`; where a level attends it reads the
        caption.

    Raises:
      InputError: as `TextEncoder` and `UNet`.

    Reference: Rombach et al., arXiv 2112.10752 (cross-attention to a text encoder,
    trained jointly).

    >>> def predict(x, t, tokens):
    ...     net = TextUNet(9, length=4, block_out_channels=(8,), rngs=nnx.Rngs(0))
    ...     return net((x, t, tokens), train=False)
    >>> x, tokens = jnp.ones((2, 4, 4, 1)), jnp.ones((2, 4), jnp.int32)
    >>> nnx.eval_shape(predict, x, jnp.array([0, 9]), tokens).shape
    (2, 4, 4, 1)
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        length: int,
        text_width: int = 32,
        text_layers: int = 1,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        text: dict[str, Any] = dict(length=length, width=text_width, layers=text_layers)
        shared: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.encoder = TextEncoder(vocab_size, **text, **shared)
        self.unet = UNet(cross_attention_dim=text_width, **shared, **options)

    def __call__(self, inputs: tuple[Array, Array, Array], *, train: bool) -> Array:
        """Return the prediction `f32[B, H, W, C]` of (x_t, t, tokens `i32[B, L]`)."""
        x, timesteps, tokens = inputs
        return self.unet((x, timesteps, self.encoder(tokens)), train=train)
