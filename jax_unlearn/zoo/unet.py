"""The UNet of diffusion models, conditioned on a class or on tokens.

Shapes: B batch, images of H x W pixels and C channels, E width of the embeddings, L
length of a condition. Names follow the diffusers library (`block_out_channels`,
`layers_per_block`, `cross_attention_dim`, `sample_size`); images are NHWC, as
everywhere in flax. Parameters, normalisations and softmax are float32.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_unlearn.errors import InputError
from jax_unlearn.zoo.unet_blocks import (
    AttentionBlock,
    ResBlock,
    convolution,
    flat_normal,
    group_norm,
    linear,
    normalised,
    timestep_embedding,
)

Array = jax.Array


class UNet(nnx.Module):
    """The denoiser of a diffusion model: `(x_t, t, condition) -> prediction`.

    Level l (from 0) has `layers_per_block` residual blocks of `block_out_channels[l]`
    channels on the way down and one more on the way up; every level but the last
    halves the image. Where `attention[l]` is set each block is followed by attention.

    The condition is a class id (`num_classes`), embedded and added to the embedding
    of the timestep; or the hidden states of an encoder (`cross_attention_dim`), read
    by cross-attention; or neither (then it is not read). Class ids run to
    `num_classes`, which is the null condition of classifier-free guidance.

    Args:
      num_classes: K, or None.
      in_channels: C of the images; the prediction has as many.
      block_out_channels: channels of the levels.
      layers_per_block: residual blocks a level.
      attention: whether each level attends; default the last level only.
      heads: of the attention.
      cross_attention_dim: width of the tokens, or None.
      groups: of the normalisations, at most.
      dropout: in the residual blocks.
      dtype: compute dtype, e.g. `jnp.bfloat16`; parameters and prediction are float32.
      rngs: random streams.

    Raises:
      InputError: settings that make no network; when called, images that are no
        multiple of 2^(levels − 1) or have other channels, a condition of another rank.

    Reference: Ho et al., arXiv 2006.11239 (the network); Nichol and Dhariwal, arXiv
    2102.09672 (class embedding); Ho and Salimans, arXiv 2207.12598 (null condition).

    Examples:
      >>> def predict(x, t, c):
      ...     net = UNet(10, block_out_channels=(8, 16), rngs=nnx.Rngs(0))
      ...     return net((x, t, c), train=False)
      >>> x, t = jnp.ones((2, 8, 8, 1)), jnp.array([0, 9])
      >>> jax.eval_shape(predict, x, t, jnp.array([3, 10])).shape
      (2, 8, 8, 1)
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        in_channels: int = 1,
        block_out_channels: Sequence[int] = (32, 64),
        layers_per_block: int = 1,
        attention: Sequence[bool] | None = None,
        heads: int = 1,
        cross_attention_dim: int | None = None,
        groups: int = 8,
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        widths = tuple(block_out_channels)
        if not widths or min(widths) < 2 or widths[0] % 2 or layers_per_block < 1:
            raise InputError(
                f"block_out_channels={widths}, layers_per_block={layers_per_block}: "
                "give even widths, one a level, and 1 or more layers"
            )
        attends = (
            (False,) * (len(widths) - 1) + (True,)
            if attention is None
            else tuple(attention)
        )
        if len(attends) != len(widths):
            raise InputError(
                f"attention={attends} must say yes or no for each of the "
                f"{len(widths)} levels of block_out_channels"
            )
        if num_classes is not None and num_classes < 1:
            raise InputError(f"num_classes={num_classes} must be at least 1, or None")
        if num_classes is not None and cross_attention_dim is not None:
            raise InputError(
                f"num_classes={num_classes}, cross_attention_dim={cross_attention_dim}:"
                " the condition is a class or tokens; give one of the two"
            )
        self.in_channels, self.levels = in_channels, len(widths)
        self.width, self.dtype = widths[0], dtype
        self.reads_class = num_classes is not None
        self.reads_tokens = cross_attention_dim is not None
        embedding = 4 * widths[0]

        def blocks(name: str, size: int, out: int, attend: bool) -> None:
            block = ResBlock(
                size,
                out,
                embedding=embedding,
                groups=groups,
                dropout=dropout,
                dtype=dtype,
                rngs=rngs,
            )
            setattr(self, name, block)
            if attend:
                attention = AttentionBlock(
                    out,
                    heads=heads,
                    context=cross_attention_dim,
                    groups=groups,
                    dtype=dtype,
                    rngs=rngs,
                )
                setattr(self, f"{name}_attention", attention)

        self.time1 = linear(widths[0], embedding, dtype=dtype, rngs=rngs)
        self.time2 = linear(embedding, embedding, dtype=dtype, rngs=rngs)
        if num_classes is not None:
            self.classes = nnx.Embed(
                num_classes + 1,
                embedding,
                embedding_init=flat_normal(1.0),
                dtype=jnp.float32,
                rngs=rngs,
            )
        self.stem = convolution(in_channels, widths[0], dtype=dtype, rngs=rngs)
        sizes, size, plan = [widths[0]], widths[0], []
        for level, out in enumerate(widths):
            for layer in range(layers_per_block):
                blocks(f"down{level}_{layer}", size, out, attends[level])
                plan.append(f"down{level}_{layer}")
                size = out
                sizes.append(out)
            if level < len(widths) - 1:
                down = convolution(out, out, stride=2, dtype=dtype, rngs=rngs)
                setattr(self, f"down{level}", down)
                plan.append(f"down{level}")
                sizes.append(out)
        blocks("mid0", size, size, attends[-1])
        blocks("mid1", size, size, False)
        self.down_plan, plan = tuple(plan), []
        for level in reversed(range(len(widths))):
            out = widths[level]
            for layer in range(layers_per_block + 1):
                blocks(f"up{level}_{layer}", size + sizes.pop(), out, attends[level])
                plan.append(f"up{level}_{layer}")
                size = out
            if level:
                setattr(
                    self, f"up{level}", convolution(out, out, dtype=dtype, rngs=rngs)
                )
                plan.append(f"up{level}")
        self.up_plan = tuple(plan)
        self.norm = group_norm(size, groups, rngs)
        self.out = convolution(
            size, in_channels, zero=True, dtype=jnp.float32, rngs=rngs
        )

    def __call__(self, inputs: tuple[Array, Array, Array], *, train: bool) -> Array:
        """Return the prediction `f32[B, H, W, C]`.

        Args:
          inputs: (x_t `[B, H, W, C]`, t `i32[B]`, condition: class ids `i32[B]` or
            hidden states `[B, L, cross_attention_dim]`).
          train: whether dropout acts.
        """
        x, timesteps, condition = inputs
        self._check(x, timesteps, condition)
        embedding = self.time1(timestep_embedding(timesteps, self.width))
        embedding = self.time2(nnx.silu(embedding))
        if self.reads_class:
            embedding = embedding + self.classes(condition).astype(embedding.dtype)
        context = condition if self.reads_tokens else None

        def through(name: str, y: Array) -> Array:
            y = getattr(self, name)(y, embedding, train=train)
            attention = getattr(self, f"{name}_attention", None)
            return y if attention is None else attention(y, context)

        y = self.stem(x.astype(self.dtype))
        skips = [y]
        for name in self.down_plan:
            y = through(name, y) if "_" in name else getattr(self, name)(y)
            skips.append(y)
        y = through("mid1", through("mid0", y))
        for name in self.up_plan:
            if "_" in name:
                y = through(name, jnp.concatenate([y, skips.pop()], axis=-1))
            else:
                y = getattr(self, name)(jnp.repeat(jnp.repeat(y, 2, 1), 2, 2))
        y = nnx.silu(normalised(self.norm, y))
        return self.out(y.astype(jnp.float32))

    def _check(self, x: Array, timesteps: Array, condition: Array) -> None:
        step = 2 ** (self.levels - 1)
        if x.ndim != 4 or x.shape[-1] != self.in_channels:
            raise InputError(
                f"x_t.shape={x.shape} must be [B, H, W, {self.in_channels}]; pass NHWC "
                "images or set in_channels"
            )
        if x.shape[1] % step or x.shape[2] % step:
            raise InputError(
                f"x_t.shape={x.shape}: {self.levels} levels need sides that are "
                f"multiples of {step}; pad the images, or use fewer levels"
            )
        if timesteps.shape != x.shape[:1]:
            raise InputError(
                f"t.shape={timesteps.shape} must be [B]={x.shape[:1]}: one timestep an "
                "image"
            )
        if self.reads_class and (
            condition.ndim != 1 or not jnp.issubdtype(condition.dtype, jnp.integer)
        ):
            raise InputError(
                f"condition of shape {condition.shape} and dtype {condition.dtype}: "
                "this network reads class ids, integers [B]"
            )
        if self.reads_tokens and condition.ndim != 3:
            raise InputError(
                f"condition of shape {condition.shape}: this network reads hidden "
                "states [B, L, cross_attention_dim]"
            )
