"""Decoders: rows that hold the same texts otherwise, chunks, caches, wrong input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_unlearn as ju
from jax_unlearn import zoo
from jax_unlearn.language import Scored, Text, decoder, scored
from jax_unlearn.zoo.decoder_config import FAMILIES, RopeScaling, frequencies

VOCAB, KEY = 40, jax.random.key(0)
LONG, SHORT = np.arange(3, 10) * 5 % VOCAB, np.arange(20, 25)


def config(family, **options):
    sizes = dict(width=16, layers=2, heads=4, head_dim=8, hidden=24)
    if family != "gpt2":
        sizes["kv_heads"] = 2
    if family == "gemma2":
        sizes["window"] = 3
    return zoo.decoder_config(family, VOCAB, **{**sizes, **options})


@functools.cache
def variables(family):
    """Return parameters that are large enough for every part to matter."""
    params, state = decoder(config(family)).init(KEY, None)
    return jax.tree.map(lambda x: 4 * x if x.ndim > 1 else x + 0.3, params), state


def rows():
    """Return the two texts packed, and each alone, padded with junk on a side."""
    tokens = np.full((3, 15), -7, np.int32)
    segments = np.zeros((3, 15), np.int32)
    tokens[0, :12], segments[0, :12] = [*LONG, *SHORT], [1] * 7 + [2] * 5
    tokens[1, :7], segments[1, :7] = LONG, 1
    tokens[2, 10:], segments[2, 10:] = SHORT, 1
    targets = np.ones((3, 15), bool)
    targets[:, :2] = False
    return Text(*map(jnp.asarray, (tokens, targets, segments)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_is_the_same_in_every_row(family):
    model, text = decoder(config(family)), rows()
    params, state = variables(family)
    run = jax.jit(lambda p, text: model.apply(p, state, text, train=False)[0])
    logits = run(params, text)
    assert logits.dtype == jnp.float32
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-5)
    close(logits[0, :7], logits[1, :7])
    close(logits[0, 7:12], logits[2, 10:])
    assert np.isfinite(logits).all()
    # a token sees those before it, and no other
    assert np.abs(logits[0, 7] - logits[0, 3]).max() > 1e-2
    changed = text._replace(tokens=text.tokens.at[1, 4].set(1))
    after = run(params, changed)
    close(after[1, :4], logits[1, :4])
    assert (np.abs(after[1, 4:7] - logits[1, 4:7]).max(axis=-1) > 1e-4).all()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_cache_continues_as_the_whole_text(family):
    model, (params, state) = decoder(config(family)), variables(family)
    text = jax.tree.map(lambda x: x[1:, -9:], rows())
    tokens, real = text.tokens[1:], text.segments[1:] > 0
    text = Text(tokens, real, None, real)
    whole = jax.jit(lambda p: model.apply(p, state, text, train=False)[0])(params)
    step = jax.jit(lambda *a: model.apply(params, state, zoo.Continuation(*a), train=0))
    cache, at = None, 0
    for size in (6, 1, 1, 1):
        part = tokens[:, at : at + size], jnp.int32(at), real, cache
        (logits, cache), _ = step(*part)
        at += size
        np.testing.assert_allclose(logits, whole[:, at - 1], rtol=0, atol=2e-5)


def test_scores_are_those_of_the_logits_chunk_by_chunk():
    cfg, text = config("gemma2"), rows()
    params, state = variables("gemma2")

    def losses(params, model):
        outputs = model.apply(params, state, text, train=True)[0]
        found = scored(outputs, text)
        return found.nll.sum(), found

    def run(**options):
        model = decoder(cfg, **options)
        return jax.jit(jax.grad(losses, has_aux=True), static_argnums=1)(params, model)

    gradient, found = run()
    assert isinstance(found, Scored)
    assert found.counted.sum() == 9 + 9  # 12 − 2 − 1 packed, 7 − 2 and 5 − 1 alone
    for options in ({"chunk": 4}, {"chunk": 99}, {"remat": True}):
        other, part = run(outputs="scored", **options)
        np.testing.assert_allclose(part.nll, found.nll, atol=2e-5)
        np.testing.assert_array_equal(part.counted, found.counted)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
            other,
            gradient,
        )


def test_hidden_states_of_a_layer_and_of_the_head():
    cfg, text = config("llama"), rows()
    params, state = variables("llama")

    def hidden(layer):
        model = decoder(cfg, outputs="hidden", layer=layer)
        return jax.jit(lambda p: model.apply(p, state, text, train=False)[0])(params)

    last = hidden(1)
    normed = last / np.sqrt(np.mean(last**2, axis=-1, keepdims=True) + cfg.epsilon)
    np.testing.assert_allclose(normed * 1.3, hidden(None), rtol=1e-5)
    assert np.abs(hidden(0) - last).max() > 0.1
    with pytest.raises(ju.InputError, match=r"layer=2 must lie in \[0, 1\]"):
        hidden(2)


def test_scaled_frequencies():
    sizes = dict(width=64, heads=2, rope_theta=5e5)
    plain = frequencies(zoo.decoder_config("llama", VOCAB, **sizes))
    np.testing.assert_allclose(plain, 5e5 ** -(np.arange(16) / 16), rtol=1e-6)
    scaling = RopeScaling(factor=8.0, low=1.0, high=4.0, length=8192)
    scaled = zoo.decoder_config("llama", VOCAB, rope_scaling=scaling, **sizes)
    ratio = frequencies(scaled) / plain
    wavelength = 2 * np.pi / plain
    np.testing.assert_allclose(ratio[wavelength < 2048], 1)
    np.testing.assert_allclose(ratio[wavelength > 8192], 1 / 8)
    between = ratio[(wavelength > 2048) & (wavelength < 8192)]
    assert between.size
    assert ((between > 1 / 8) & (between < 1)).all()
    linear = zoo.decoder_config(
        "llama", VOCAB, rope_scaling=RopeScaling("linear", 4.0), **sizes
    )
    np.testing.assert_allclose(frequencies(linear) * 4, plain)


def test_bfloat16_parameters_stay_so_and_outputs_are_float32():
    cfg, text = config("llama"), rows()
    model = decoder(cfg, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    params, state = model.init(KEY, None)

    def loss(params):
        logits = model.apply(params, state, text, train=True)[0]
        assert logits.dtype == jnp.float32
        return scored(logits, text).nll.sum()

    gradient = jax.jit(jax.grad(loss))(params)
    kinds = {leaf.dtype for leaf in jax.tree.leaves((params, gradient))}
    assert kinds == {jnp.dtype(jnp.bfloat16)}


def test_a_token_that_the_vocabulary_lacks_is_not_hidden():
    params, state = variables("llama")
    model = decoder(config("llama"))
    tokens = jnp.array([[1, VOCAB, 3], [1, 2, 3]])
    logits = jax.jit(lambda p: model.apply(p, state, tokens, train=False)[0])(params)
    assert np.isnan(logits[0]).all()
    assert np.isfinite(logits[1]).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kv_heads": 3}, "kv_heads=3 must divide heads=4"),
        ({"head_dim": 7}, "head_dim=7 must be even"),
        ({"head_dim": None, "width": 18}, "heads=4 must divide width=18"),
        ({"activation": "relu"}, "unknown activation 'relu'"),
        ({"layers": 0}, "layers=0 must be at least 1"),
    ],
)
def test_sizes_that_make_no_decoder(change, told):
    with pytest.raises(ju.InputError, match=told):
        config("llama", **change)


def test_wrong_input():
    with pytest.raises(ju.InputError, match="unknown family 'lama'; did you mean"):
        zoo.decoder_config("lama", 9)
    with pytest.raises(ju.InputError, match="unknown outputs 'logit'"):
        decoder(config("llama"), outputs="logit")
    params, state = variables("gpt2")
    model = decoder(config("gpt2", length=4))
    params = {**params, "positions": {"embedding": jnp.ones((4, 16))}}
    with pytest.raises(ju.InputError, match="5 tokens, but positions reach 4"):
        model.apply(params, state, jnp.zeros((1, 5), jnp.int32), train=False)
    with pytest.raises(ju.InputError, match="must be integers"):
        model.apply(params, state, jnp.zeros((1, 4)), train=False)
