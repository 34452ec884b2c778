"""Vision transformers: where patches are, the block in NumPy, dropping."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_unlearn import zoo
from jax_unlearn.adapters import from_nnx
from jax_unlearn.errors import InputError


def test_a_vision_transformer_sees_where_patches_are_and_all_of_them():
    model = from_nnx(
        lambda rngs: zoo.ViT(
            10, image_size=(9, 6), patch_size=3, width=12, depth=2, rngs=rngs
        )
    )
    x = jax.random.normal(jax.random.key(0), (2, 9, 6, 3))
    params, state = jax.jit(model.init)(jax.random.key(1), None)
    params = jax.tree.map(lambda leaf: 5 * leaf, params)  # far from the start
    apply = jax.jit(functools.partial(model.apply, train=False))
    logits = apply(params, state, x)[0]
    flipped = apply(params, state, x[:, ::-1])[0]
    assert np.abs(logits - flipped).max() > 1e-3
    for row in (0, 3, 6):
        other = apply(params, state, x.at[:, row, 5].add(1))[0]
        assert np.abs(logits - other).max() > 1e-4, row


def test_attention_and_mlp_match_numpy():
    """One block of two heads, in float64."""
    block = zoo.TransformerBlock(4, heads=2, hidden=6, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    graph, own = nnx.split(block)
    own = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), own)
    block = nnx.merge(graph, jax.tree.map(lambda x: x.astype(jnp.float32), own))
    x = rng.normal(size=(2, 3, 4))

    def norm(layer, x):
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return y * np.float64(layer.scale[...]) + np.float64(layer.bias[...])

    def dense(layer, x):
        return x @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])

    def gelu(x):
        return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2

    q, k, v = np.split(dense(block.qkv, norm(block.norm1, x)), 3, axis=-1)
    mixed = []
    for head in (slice(0, 2), slice(2, 4)):
        scores = q[..., head] @ k[..., head].transpose(0, 2, 1) / math.sqrt(2)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed.append(scores / scores.sum(-1, keepdims=True) @ v[..., head])
    wanted = x + dense(block.mix, np.concatenate(mixed, axis=-1))
    wanted += dense(block.down, gelu(dense(block.up, norm(block.norm2, wanted))))
    found = block(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("option", ["dropout", "drop_path"])
def test_dropping_needs_a_key_and_trains_alone(option):
    def make(rngs, **options):
        return zoo.ViT(
            3, image_size=4, patch_size=2, width=4, depth=2, rngs=rngs, **options
        )

    x = jax.random.normal(jax.random.key(0), (6, 4, 4, 3))
    plain, model = from_nnx(make), from_nnx(functools.partial(make, **{option: 0.5}))
    params, state = jax.jit(plain.init)(jax.random.key(1), None)
    apply = jax.jit(model.apply, static_argnames="train")
    wanted = jax.jit(plain.apply, static_argnames="train")(params, state, x, train=True)
    np.testing.assert_array_equal(apply(params, state, x, train=False)[0], wanted[0])
    keys = jax.random.split(jax.random.key(2))
    one, other = (apply(params, state, x, train=True, key=key)[0] for key in keys)
    assert np.abs(one - other).max() > 1e-4
    with pytest.raises(InputError, match="key=None"):
        model.apply(params, state, x, train=True)


def test_a_sample_leaves_out_whole_branches():
    block = zoo.TransformerBlock(4, heads=2, hidden=6, drop_path=0.5, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (24, 3, 4))
    moved = np.asarray(block(x, train=True) != x).any(axis=2)  # by token
    np.testing.assert_array_equal(moved.any(axis=1), moved.all(axis=1))
    assert 0 < moved.all(axis=1).sum() < 24
    assert (block(x, train=False) != x).all()
    module = zoo.ViT(3, depth=3, width=4, drop_path=0.5, rngs=nnx.Rngs(0))
    assert not isinstance(module.block1.drop_path, nnx.Dropout)  # a rate of 0
    assert module.block2.drop_path.rate == 0.25
    assert module.block3.drop_path.rate == 0.5
