"""The UNet and its text-conditional sibling: shapes, references, bad input."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from toys import moved

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.zoo import AttentionBlock, TextEncoder, TextUNet, UNet
from jax_unlearn.zoo.unet import timestep_embedding

KEY = jax.random.key(0)
X, T = jnp.ones((2, 8, 8, 1)), jnp.array([0, 9])
C = jnp.array([1, 3])


@functools.cache
def unet(**options):
    options = {"num_classes": 3, "block_out_channels": (4, 8), **options}
    return ju.from_nnx(lambda rngs: UNet(**options, rngs=rngs))


@functools.cache
def shapes(model):
    return jax.eval_shape(model.init, KEY, None)


def made(model):
    """Return a network's parameters, none zero: init would take seconds to compile."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        values = rng.normal(size=leaf.shape)
        if path[-1].key == "kernel":
            values /= math.sqrt(math.prod(leaf.shape[:-1]))
        elif path[-1].key != "embedding":
            values = 0.1 * values + (path[-1].key == "scale")
        return jnp.asarray(values, leaf.dtype)

    params, state = shapes(model)
    assert not jax.tree.leaves(state)
    return jax.tree_util.tree_map_with_path(fill, params), state


@functools.cache
def predictions(model):
    """Return what a made network predicts of inputs, as one program."""
    params, state = made(model)
    return jax.jit(lambda inputs: model.apply(params, state, inputs, train=False)[0])


def shape_of(model, inputs):
    params, state = shapes(model)
    apply = jax.eval_shape(
        lambda p, i: model.apply(p, state, i, train=False)[0], params, inputs
    )
    return apply, params


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (8, 8, 1)),
        ({"block_out_channels": (4,), "attention": (False,)}, (7, 5, 1)),
        ({"block_out_channels": (4, 8, 8), "layers_per_block": 2}, (8, 12, 1)),
        ({"attention": (True, True), "heads": 2, "dropout": 0.1}, (8, 8, 1)),
        ({"dtype": jnp.bfloat16, "in_channels": 3}, (8, 8, 3)),
    ],
)
def test_prediction_has_the_shape_of_the_image_in_float32(options, shape):
    found, params = shape_of(unet(**options), (jnp.ones((2, *shape)), T, C))
    assert (found.shape, found.dtype) == ((2, *shape), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_parameters_of_one_setting_counted_by_hand():
    _, params = shape_of(unet(block_out_channels=(4,), attention=(False,)), (X, T, C))

    def conv(a, b, k=3):
        return k * k * a * b + b

    def block(a, b):  # two norms, two convolutions, the shift, perhaps a shortcut
        shortcut = conv(a, b, 1) if a != b else 0
        return 2 * a + conv(a, b) + 16 * b + b + 2 * b + conv(b, b) + shortcut

    time = 4 * 16 + 16 + 16 * 16 + 16
    down, middle, up = block(4, 4), 2 * block(4, 4), 2 * block(8, 4)
    ends = conv(1, 4) + 2 * 4 + conv(4, 1)
    expected = time + 4 * 16 + down + middle + up + ends
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_a_new_network_predicts_zero_and_a_moved_one_reads_all_its_inputs():
    model = unet(block_out_channels=(4,))
    params, state = jax.jit(lambda k: model.init(k, None))(KEY)
    run = jax.jit(lambda p, i: model.apply(p, state, i, train=False)[0])
    assert float(jnp.abs(run(params, (X, T, C))).max()) == 0
    params = moved(params)
    base = np.asarray(run(params, (X, T, C)))
    other = X.at[:, 0, 0].set(-1.0)
    for inputs in ((other, T, C), (X, T + 5, C), (X, T, C - 1)):
        found = np.asarray(run(params, inputs))
        assert (np.abs(found - base).reshape(2, -1).max(axis=1) > 1e-4).all()
    again = run(params, (X[::-1], T[::-1], C[::-1]))
    np.testing.assert_allclose(again[::-1], base, rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_near_float32():
    params, state = made(unet())

    def predicted(dtype):
        model = unet(dtype=dtype)
        run = jax.jit(lambda p: model.apply(p, state, (X, T, C), train=False)[0])
        return np.asarray(run(params))

    single, half = predicted(jnp.float32), predicted(jnp.bfloat16)
    assert np.abs(single - half).max() < 0.1 * np.abs(single).max()


@pytest.mark.parametrize("wrong", [-1, 4, 99])
def test_a_class_that_the_network_lacks_is_not_another_one(wrong):
    found = predictions(unet())((X, T, jnp.array([1, wrong])))
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("wrong", [-1, 7])
def test_a_token_that_the_network_lacks_is_not_another_one(wrong):
    encoder = TextEncoder(7, length=2, width=4, layers=0, heads=2, rngs=nnx.Rngs(0))
    found = encoder(jnp.array([[1, 2], [1, wrong]]))
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1, 1]).all()


def test_timesteps_are_embedded_as_sinusoids():
    t = np.array([0, 3, 999])
    rates = 10000.0 ** (-np.arange(4) / 4)
    angles = t[:, None] * rates
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    found = timestep_embedding(jnp.asarray(t), 8)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_attention_is_softmax_over_pixels_and_tokens():
    block = AttentionBlock(4, heads=2, context=3, groups=1, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for layer in (block.qkv, block.out, block.query, block.key_value, block.cross_out):
        shape = layer.kernel[...].shape
        layer.kernel[...] = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    x = rng.standard_normal((1, 2, 2, 4)).astype(np.float32)
    context = rng.standard_normal((1, 5, 3)).astype(np.float32)

    def normed(y):
        return (y - y.mean()) / np.sqrt(y.var() + 1e-6)

    def attend(q, k, v):
        heads = []
        for h in range(2):
            part = slice(2 * h, 2 * h + 2)
            logits = q[:, part] @ k[:, part].T / np.sqrt(2)
            share = np.exp(logits - logits.max(1, keepdims=True))
            heads.append(share / share.sum(1, keepdims=True) @ v[:, part])
        return np.concatenate(heads, axis=1)

    def kernel(layer):
        return np.asarray(layer.kernel[...], np.float64)

    y = x.reshape(4, 4).astype(np.float64)
    q, k, v = np.split(normed(y) @ kernel(block.qkv), 3, axis=1)
    y = y + attend(q, k, v) @ kernel(block.out)
    q = normed(y) @ kernel(block.query)
    k, v = np.split(context[0] @ kernel(block.key_value), 2, axis=1)
    y = y + attend(q, k, v) @ kernel(block.cross_out)
    found = nnx.jit(lambda block, *given: block(*given))(
        block, jnp.asarray(x), jnp.asarray(context)
    ).reshape(4, 4)
    np.testing.assert_allclose(found, y, rtol=1e-3, atol=1e-3)


def test_words_do_not_see_padding():
    encoder = TextEncoder(9, length=4, width=8, rngs=nnx.Rngs(0))
    tokens = jnp.array([[3, 5, 0, 0]])
    encode = nnx.jit(lambda encoder, tokens: encoder(tokens))
    base = encode(encoder, tokens)
    places = encoder.places.embedding[...]
    encoder.places.embedding[...] = places.at[2:].add(
        jnp.arange(8.0)
    )  # of padding alone
    found = encode(encoder, tokens)
    np.testing.assert_allclose(found[:, :2], base[:, :2], atol=1e-6)
    assert float(jnp.abs(found[:, 2:] - base[:, 2:]).max()) > 1e-3
    assert (
        float(jnp.abs(encode(encoder, jnp.array([[5, 3, 0, 0]])) - found).max()) > 1e-3
    )
    assert bool(jnp.isfinite(encode(encoder, jnp.zeros((1, 4), jnp.int32))).all())


def test_captions_reach_the_prediction_and_its_gradient():
    model = ju.from_nnx(
        lambda rngs: TextUNet(
            9, length=3, text_width=8, block_out_channels=(4,), rngs=rngs
        )
    )
    params, state = made(model)
    x, t = X[:1, :4, :4], T[:1]

    @jax.jit
    @jax.value_and_grad
    def loss(params, tokens):
        return jnp.sum(model.apply(params, state, (x, t, tokens), train=False)[0] ** 2)

    first, second = (jnp.array([[1, word, 0]]) for word in (2, 3))
    value, grads = loss(params, first)
    assert abs(value - loss(params, second)[0]) > 1e-4
    size = np.abs(grads["encoder"]["words"]["embedding"]).max(axis=1)
    assert size[2] > 0
    assert size[3] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shape_of(unet(), (X[:, :7], T, C)), "multiples of 2; pad the images"),
        (lambda: shape_of(unet(), (X[..., [0, 0]], T, C)), r"must be \[B, H, W, 1\]"),
        (lambda: shape_of(unet(), (X, T[:1], C)), "one timestep an image"),
        (
            lambda: shape_of(unet(), (X, T, jnp.ones((2, 4), jnp.int32))),
            "this network reads class ids",
        ),
        (lambda: shape_of(unet(), (X, T, jnp.ones(2))), "this network reads class ids"),
        (
            lambda: shape_of(unet(attention=(True,)), (X, T, C)),
            r"attention=\(True,\) must say yes or no for each of the 2 levels",
        ),
        (
            lambda: shape_of(unet(heads=3), (X, T, C)),
            "heads=3 must divide the 8 channels",
        ),
        (
            lambda: shape_of(unet(block_out_channels=(3,)), (X, T, C)),
            "give even widths",
        ),
        (
            lambda: shape_of(unet(cross_attention_dim=4), (X, T, C)),
            "a class or tokens; give one of the two",
        ),
        (lambda: shape_of(unet(num_classes=0), (X, T, C)), "num_classes=0 must be"),
        (
            lambda: TextEncoder(9, length=4, width=9, rngs=nnx.Rngs(0)),
            "heads=2 must divide width=9",
        ),
        (
            lambda: TextEncoder(9, length=4, rngs=nnx.Rngs(0))(jnp.array([1, 2])),
            r"tokens.shape=\(2,\) must be \[B, 4\]; this network reads captions",
        ),
        (lambda: timestep_embedding(T, 5), "width=5 must be even"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
