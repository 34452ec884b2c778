"""The text encoder against float64, and words forgotten by a UNet that reads them.

Shares of samples are of 48 a word, bounds from seeds 0 to 5 with room to spare.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import relaxed

import jax_unlearn as ju
from jax_unlearn import diffusion, objectives
from jax_unlearn.errors import InputError
from jax_unlearn.zoo import TextEncoder, TextUNet, UNet

KEY = jax.random.key(0)


def filled(make, seed=0):
    """A module on whose every parameter something depends: none is zero or one."""
    module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    rng = np.random.default_rng(seed)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.5, leaf.dtype),
        nnx.state(module),
    )
    nnx.update(module, state)
    return module


def encoder(length, dtype=jnp.float32):
    return filled(
        lambda rngs: TextEncoder(
            7, length=length, width=6, layers=2, heads=3, dtype=dtype, rngs=rngs
        )
    )


SHORT, LONG = encoder(3), encoder(5)
nnx.update(LONG, nnx.state(SHORT, lambda path, _: "places" not in path))
LONG.places.embedding[...] = (
    LONG.places.embedding[...].at[:3].set(SHORT.places.embedding[...])
)


def encode64(module, caption):
    """The hidden states of one caption in float64, word by word."""

    def value(leaf):
        return np.asarray(leaf[...], np.float64)

    def normed(layer, y):
        centred = y - y.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
        return centred / spread * value(layer.scale) + value(layer.bias)

    def linear(layer, y):
        return y @ value(layer.kernel) + value(layer.bias)

    caption = np.asarray(caption)
    seen = np.flatnonzero(caption) if caption.any() else np.arange(len(caption))
    x = value(module.words.embedding)[caption] + value(module.places.embedding)
    size = x.shape[1] // module.heads
    for layer in range(module.layers):
        y = normed(getattr(module, f"norm{layer}a"), x)
        q, k, v = np.split(linear(getattr(module, f"qkv{layer}"), y), 3, axis=1)
        heads = []
        for head in range(module.heads):
            part = slice(head * size, (head + 1) * size)
            shares = np.exp(q[:, part] @ k[seen][:, part].T / np.sqrt(size))
            shares /= shares.sum(axis=1, keepdims=True)
            heads.append(shares @ v[seen][:, part])
        x = x + linear(getattr(module, f"mix{layer}"), np.concatenate(heads, axis=1))
        y = linear(
            getattr(module, f"up{layer}"), normed(getattr(module, f"norm{layer}b"), x)
        )
        x = x + linear(getattr(module, f"down{layer}"), y / (1 + np.exp(-y)))
    return normed(module.norm, x)


CAPTIONS = np.array([[3, 5, 1], [3, 0, 0], [6, 2, 0], [0, 0, 0]], np.int32)


@jax.jit
def hidden(state, tokens):
    """The states of a module given as arrays; compiled once a length and dtype."""
    return nnx.merge(*state)(tokens)


def test_hidden_states_are_those_of_a_masked_transformer():
    found = hidden(nnx.split(SHORT), CAPTIONS)
    assert found.dtype == jnp.float32
    expected = np.stack([encode64(SHORT, caption) for caption in CAPTIONS])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    half = hidden(nnx.split(encoder(3, jnp.bfloat16)), CAPTIONS)
    assert half.dtype == jnp.float32
    error = np.abs(np.asarray(half) - expected).max()
    assert 1e-4 < error < 0.1 * np.abs(expected).max()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_more_padding_does_not_change_the_words(words):
    def padded(length):
        return np.array([words + [0] * (length - len(words))] * 4, np.int32)

    short = hidden(nnx.split(SHORT), padded(3))[:, : len(words)]
    long = hidden(nnx.split(LONG), padded(5))[:, : len(words)]
    np.testing.assert_allclose(short, long, atol=1e-4)


def test_bfloat16_is_inside_and_float32_around():
    model = ju.from_nnx(
        lambda rngs: TextUNet(
            7, length=3, block_out_channels=(4,), dtype=jnp.bfloat16, rngs=rngs
        )
    )
    params, state = jax.eval_shape(model.init, KEY, None)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    inputs = (jnp.zeros((4, 4, 4, 1)), jnp.arange(4), jnp.asarray(CAPTIONS))

    def apply(params):
        return model.apply(params, state, inputs, train=False)[0]

    assert jax.eval_shape(apply, params).dtype == jnp.float32
    products = [
        equation.outvars[0].aval.dtype
        for equation in jax.make_jaxpr(apply)(params).eqns
        if equation.primitive.name == "conv_general_dilated"
    ]
    assert products.count(jnp.bfloat16) == len(products) - 1  # the last one is float32


# A square is lit on one side, and the caption says on which.
WORDS = ("left", "right", "top")
TEXTS = [f"a {word} square" for word in WORDS]
KNOWN = diffusion.vocabulary(TEXTS)
TOKENS, NULL = diffusion.tokenize(KNOWN, TEXTS), diffusion.null_tokens(KNOWN)
LEFT = np.where(np.arange(4) < 2, 0.8, -0.8) * np.ones((4, 1))
SQUARES = np.stack([LEFT, -LEFT, LEFT.T])
PROCESS = diffusion.cosine(50, prediction_type="v_prediction")
MODEL = ju.from_nnx(
    lambda rngs: TextUNet(
        len(KNOWN.words) + 1,
        length=KNOWN.length,
        text_width=8,
        block_out_channels=(8,),
        rngs=rngs,
    )
)
REMEMBER = objectives.denoise(MODEL, PROCESS, drop=0.2, null=NULL)
TRAINING, STEPS, RATES = 200, 40, (1e-2, 3e-3)


def drawn(rng, words):
    """A batch of squares whose captions have one of some words."""
    labels = rng.choice(words, 32).astype(np.int32)
    noise = 0.1 * rng.normal(size=(32, 4, 4))
    images = (SQUARES[labels] + noise)[..., None].astype(np.float32)
    return ju.Batch((images, TOKENS[labels]), labels)


def requests(rng):
    """Forget "left" and remember the rest, in turns: two small programs to compile."""
    for _ in range(STEPS):
        yield ju.UnlearnBatch(forget=drawn(rng, [0]))
        yield ju.UnlearnBatch(retain=drawn(rng, [1, 2]))


def shares(params, state):
    """Share of samples [prompt, square] that look most like each square."""
    prompts = np.repeat(np.arange(3), 48)
    images = diffusion.generate(
        MODEL,
        params,
        state,
        diffusion.tokenize(KNOWN, [TEXTS[prompt] for prompt in prompts]),
        jax.random.key(1),
        sampler=diffusion.ddim(PROCESS, 10),
        shape=(4, 4, 1),
    )
    apart = ((images[:, None, ..., 0] - SQUARES[None]) ** 2).mean(axis=(2, 3))
    nearest = apart.argmin(axis=1)
    return np.stack(
        [np.bincount(nearest[prompts == p], None, 3) / 48 for p in range(3)]
    )


@pytest.fixture(scope="module")
def trained():
    """The unlearner of the relabelled word, and its state after training."""
    rate = optax.piecewise_constant_schedule(RATES[0], {TRAINING: RATES[1] / RATES[0]})
    unlearner = ju.methods.assemble(
        MODEL,
        relaxed(optax.adam(rate)),
        forget=objectives.relabel_condition(
            MODEL, PROCESS, replace=diffusion.replace_word(KNOWN, "left", "right")
        ),
        retain=REMEMBER,
    )
    rng = np.random.default_rng(0)
    batches = (ju.UnlearnBatch(retain=drawn(rng, [0, 1, 2])) for _ in range(TRAINING))
    start = unlearner.init(*jax.jit(lambda key: MODEL.init(key, None))(KEY))
    return unlearner, ju.run(unlearner, start, batches, KEY)


def test_a_word_takes_the_meaning_of_another(trained):
    unlearner, state = trained
    assert shares(state.params, state.model_state).diagonal().min() > 0.9
    rest = [b for b in requests(np.random.default_rng(1)) if b.forget is None]
    only_rest = ju.run(unlearner, state, rest, KEY)
    assert shares(only_rest.params, state.model_state).diagonal().min() > 0.8
    done = ju.run(unlearner, state, requests(np.random.default_rng(1)), KEY)
    found = shares(done.params, done.model_state)
    assert found[0, 0] < 0.1
    assert min(found[0, 1], found[1, 1], found[2, 2]) > 0.85


def test_negative_guidance_leads_away_from_a_word(trained):
    _, state = trained
    teacher = (state.params, state.model_state)
    unlearner = ju.methods.assemble(
        MODEL,
        relaxed(optax.adam(RATES[1])),
        forget=objectives.negative_guidance(
            MODEL, PROCESS, teacher=teacher, null=NULL, strength=2.0
        ),
        retain=REMEMBER,
    )
    start = unlearner.init(*teacher)
    done = ju.run(unlearner, start, requests(np.random.default_rng(1)), KEY)
    found = shares(done.params, done.model_state)
    assert found[0, 0] < 0.25
    assert min(found[1, 1], found[2, 2]) > 0.85


READS_CLASS = ju.from_nnx(lambda rngs: UNet(3, block_out_channels=(8,), rngs=rngs))


@functools.cache
def zeros_of(model):
    """Parameters of a network, all zero, and its state: traced once."""
    params, state = jax.eval_shape(model.init, KEY, None)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params), state


def asked(model, conditions, **options):
    """Draw images as a user would, without computing any number."""
    zeros, state = zeros_of(model)
    sampler = diffusion.ddim(PROCESS, 1)
    return diffusion.generate(
        model, zeros, state, conditions, KEY, sampler=sampler, shape=(4, 4, 1),
        **options,
    )  # fmt: skip


def lost(model, inputs, **options):
    """Trace the denoising error of a batch."""
    params, state = zeros_of(model)
    objective = objectives.denoise(model, PROCESS, **options)
    batch = ju.Batch(inputs, np.zeros(3, np.int32))
    jax.eval_shape(lambda p: objective(p, state, batch, KEY)[0], params)


IMAGES, CLASSES = np.zeros((3, 4, 4, 1), np.float32), np.arange(3, dtype=np.int32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: asked(MODEL, CLASSES), r"tokens.shape=\(3,\).*reads captions"),
        (lambda: asked(MODEL, TOKENS[0]), r"tokens.shape=\(3,\).*reads captions"),
        (lambda: asked(MODEL, TOKENS[:, :2]), r"tokens.shape=\(3, 2\).*\[B, 3\]"),
        (lambda: asked(MODEL, TOKENS * 1.0), "tokens.dtype=float.* integers"),
        (lambda: asked(READS_CLASS, TOKENS), r"\(3, 3\).*reads class ids"),
        (
            lambda: asked(MODEL, TOKENS, guidance_scale=2.0),
            "guidance_scale=2.0 needs the null condition .* dropped conditions",
        ),
        (lambda: asked(MODEL, TOKENS, guidance_scale=2.0, null=3), "as many tokens"),
        (
            lambda: asked(READS_CLASS, CLASSES, guidance_scale=2.0, null=NULL),
            "give one class id",
        ),
        (lambda: lost(MODEL, IMAGES), r"tokens.shape=\(3,\).*reads captions"),
        (lambda: lost(READS_CLASS, (IMAGES, TOKENS)), "reads class ids"),
        (
            lambda: lost(MODEL, (IMAGES, TOKENS), drop=0.1),
            "drop=0.1 needs the null condition",
        ),
        (
            lambda: lost(MODEL, (IMAGES, TOKENS), drop=0.1, null=3),
            "as many tokens",
        ),
        (
            lambda: TextEncoder(1, length=2, rngs=nnx.Rngs(0)),
            "vocab_size=1, length=2, layers=1: give 2 or more tokens",
        ),
    ],
)
def test_misuse_is_named_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as found:
        call()
    assert "\n" not in str(found.value)
