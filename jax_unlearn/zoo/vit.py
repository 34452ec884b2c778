"""Vision transformers: patches as tokens, a class token, pre-norm blocks.

Shapes: B batch, N patches, D width.
"""

import functools
import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array
from jax_unlearn.zoo import layers
from jax_unlearn.zoo.classifiers import Classifier

__all__ = ["TransformerBlock", "ViT", "ViTBase", "ViTSmall", "ViTTiny"]
__all__ += ["usual_patch"]

EPSILON = 1e-6
"""Added to the variance by LayerNorm, as in the published networks."""

HEAD = 64
"""Features of a head in the published networks."""


def small_normal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Return an array from N(0, 0.02²), the initial values of DeiT."""
    return layers.flat_normal(key, shape, dtype) * 0.02


def layer_norm(width: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Return LayerNorm in float32; E[x²] − E[x]² would lose digits."""
    return nnx.LayerNorm(
        width, epsilon=EPSILON, dtype=jnp.float32, use_fast_variance=False, rngs=rngs
    )


class TransformerBlock(nnx.Module):
    """x + mix(attention(norm(x))), then x + down(GELU(up(norm(x)))).

    Args:
      width: D.
      heads: of the attention; divides D.
      hidden: features between `up` and `down`.
      dropout: share of features dropped after `mix`, GELU and `down`.
      drop_path: share of samples for which a branch is left out.
      dtype, rngs: as in `ViT`.

    Reference: Dosovitskiy et al., arXiv 2010.11929; GELU is the exact one.

    >>> def block(x):
    ...     return TransformerBlock(8, heads=2, hidden=32, rngs=nnx.Rngs(0))(x)
    >>> nnx.eval_shape(block, jnp.ones((2, 5, 8))).shape
    (2, 5, 8)
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(kernel_init=small_normal, dtype=dtype, rngs=rngs)
        self.heads = heads
        self.norm1 = layer_norm(width, rngs=rngs)
        self.qkv = layers.linear(width, 3 * width, **options)
        self.mix = layers.linear(width, width, **options)
        self.norm2 = layer_norm(width, rngs=rngs)
        self.up = layers.linear(width, hidden, **options)
        self.down = layers.linear(hidden, width, **options)
        self.dropout = layers.dropout(dropout, rngs=rngs)
        self.drop_path = layers.dropout(drop_path, rngs=rngs, broadcast_dims=(1, 2))

    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """Return tokens `f32[B, N, D]` of tokens `x f32[B, N, D]`."""
        drop = functools.partial(self.dropout, deterministic=not train)
        leave = functools.partial(self.drop_path, deterministic=not train)
        q, k, v = jnp.split(self.qkv(self.norm1(x)), 3, axis=-1)
        y = drop(self.mix(layers.attention(q, k, v, heads=self.heads)))
        x = x + leave(y).astype(x.dtype)
        y = drop(nnx.gelu(self.up(self.norm2(x)), approximate=False))
        return x + leave(drop(self.down(y))).astype(x.dtype)


class ViT(Classifier):
    """A vision transformer: its features are the class token after the last norm.

    An image is cut into patches, each mapped to D features by one linear map; a class
    token comes first, learned position embeddings are added. Weights of PyTorch fit it:
    `ju.zoo.from_torch`. With the default sizes it is DeiT-Tiny for CIFAR: 5,362,762
    parameters for 10 classes.

    Args:
      num_classes: K.
      image_size: side of the images, or (height, width).
      patch_size: side of a patch; divides both.
      width: D.
      depth: number of blocks.
      heads: of the attention; divides D. By default one for 64 features.
      hidden: features inside the blocks' second branch, by default 4 D.
      dropout: share of features dropped after the position embeddings and in each
        block; 0 in DeiT.
      drop_path: share of samples that leave out a branch of the last block (stochastic
        depth), growing from 0 at the first; 0.1 in DeiT's training on ImageNet.
      in_channels, dtype, convolution, rngs: as in `SmallCNN`; LayerNorm, softmax and
        the sum of the branches are float32.

    Raises:
      InputError: patches or heads that do not divide; when called, images of another
        size.

    Reference: Dosovitskiy et al., arXiv 2010.11929; the sizes, initial values and
    `drop_path` of Touvron et al. (DeiT), arXiv 2012.12877.

    >>> def logits(x):
    ...     return ViT(10, rngs=nnx.Rngs(0))(x, train=False)
    >>> nnx.eval_shape(logits, jnp.ones((2, 32, 32, 3)))
    ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        image_size: int | tuple[int, int] = 32,
        patch_size: int = 4,
        width: int = 192,
        depth: int = 12,
        heads: int | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        in_channels: int = 3,
        dtype: Any = jnp.float32,
        convolution: layers.Convolution = layers.XLA,
        rngs: nnx.Rngs,
    ):
        sides = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
        numbers = {"patch_size": patch_size, "width": width, "depth": depth}
        for name, number in numbers.items():
            _validate.at_least(name, number, 1, "see ju.zoo.ViT")
        _validate.share("dropout", dropout, "try 0")
        _validate.share("drop_path", drop_path, "try 0.1")
        if len(sides) != 2 or min(sides) < 1 or any(n % patch_size for n in sides):
            raise InputError(
                f"patch_size={patch_size} must divide image_size={image_size}; give "
                "another patch_size, or pad the images"
            )
        heads = heads_of(width) if heads is None else heads
        if heads < 1 or width % heads:
            raise InputError(f"heads={heads} must divide width={width}")
        shared: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.image_size, self.in_channels, self.depth = sides, in_channels, depth
        places = 1 + sides[0] // patch_size * (sides[1] // patch_size)
        self.patches = layers.conv(
            in_channels,
            width,
            kernel=patch_size,
            stride=patch_size,
            padding=0,
            use_bias=True,
            init=layers.linear_uniform,
            convolution=convolution,
            **shared,
        )
        self.class_token = nnx.Param(small_normal(rngs.params(), (1, 1, width)))
        self.positions = nnx.Param(small_normal(rngs.params(), (1, places, width)))
        self.dropout = layers.dropout(dropout, rngs=rngs)
        hidden = 4 * width if hidden is None else hidden
        block = functools.partial(
            TransformerBlock, width, heads=heads, hidden=hidden, dropout=dropout
        )
        for index in range(depth):
            rate = drop_path * index / max(depth - 1, 1)
            setattr(self, f"block{index + 1}", block(drop_path=rate, **shared))
        self.norm = layer_norm(width, rngs=rngs)
        self.head = layers.classifier(width, num_classes, rngs=rngs)

    def features(self, x: Array, *, train: bool) -> Array:
        """Return the class token `f32[B, D]` of images `x [B, H, W, C]`."""
        layers.check_images(x, self.in_channels)
        if x.shape[1:3] != self.image_size:
            raise InputError(
                f"x.shape={x.shape} is not image_size={self.image_size}; resize the "
                f"images, or build the ViT with image_size={x.shape[1:3]}"
            )
        x = self.patches(x).astype(jnp.float32)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        first = jnp.broadcast_to(self.class_token[...], (x.shape[0], 1, x.shape[-1]))
        x = jnp.concatenate([first, x], axis=1)
        x = x + jnp.broadcast_to(self.positions[...], x.shape)
        x = self.dropout(x, deterministic=not train)
        for index in range(self.depth):
            x = getattr(self, f"block{index + 1}")(x, train=train)
        return self.norm(x[:, 0])


def heads_of(width: int) -> int:
    """Return the usual number of heads, of 64 features, or the next that divides.

    >>> [heads_of(width) for width in (192, 768, 200, 16)]
    [3, 12, 2, 1]
    """
    return next(n for n in range(max(width // HEAD, 1), 0, -1) if width % n == 0)


def usual_patch(height: int, width: int) -> int:
    """Return a patch size for images: 16 from 128 pixels on, below it an eighth.

    Or the next smaller one that divides both sides.

    >>> [usual_patch(side, side) for side in (224, 96, 64, 32, 28, 8)]
    [16, 12, 8, 4, 4, 1]
    """
    least = min(height, width)
    most = 16 if least >= 128 else -(least // -8)
    common = math.gcd(height, width)
    return next(size for size in range(most, 0, -1) if common % size == 0)


def ViTTiny(num_classes: int, **options: Any) -> ViT:
    """Return a ViT-Tiny (DeiT-Tiny): width 192, 3 heads; options as in `ViT`.

    5,362,762 parameters for 10 classes of 32x32 images, patches of 4; 5,717,416 for
    1,000 classes, `image_size=224, patch_size=16`.

    >>> def logits(x):
    ...     return ViTTiny(10, rngs=nnx.Rngs(0))(x, train=False)
    >>> nnx.eval_shape(logits, jnp.ones((2, 32, 32, 3)))
    ShapeDtypeStruct(shape=(2, 10), dtype=float32)
    """
    return ViT(num_classes, **{"width": 192, **options})


def ViTSmall(num_classes: int, **options: Any) -> ViT:
    """Return a ViT-Small (DeiT-Small): width 384, 6 heads; options as in `ViT`.

    22,050,664 parameters for 1,000 classes, `image_size=224, patch_size=16`.

    >>> def features(x):
    ...     return ViTSmall(10, rngs=nnx.Rngs(0)).features(x, train=False)
    >>> nnx.eval_shape(features, jnp.ones((2, 32, 32, 3))).shape
    (2, 384)
    """
    return ViT(num_classes, **{"width": 384, **options})


def ViTBase(num_classes: int, **options: Any) -> ViT:
    """Return a ViT-Base (DeiT-Base): width 768, 12 heads; options as in `ViT`.

    86,567,656 parameters for 1,000 classes, `image_size=224, patch_size=16`.

    >>> def features(x):
    ...     return ViTBase(10, rngs=nnx.Rngs(0)).features(x, train=False)
    >>> nnx.eval_shape(features, jnp.ones((2, 32, 32, 3))).shape
    (2, 768)
    """
    return ViT(num_classes, **{"width": 768, **options})
