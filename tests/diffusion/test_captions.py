"""Words, captions, and requests to forget a word, end to end on a tiny data set."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jax_unlearn as ju
from jax_unlearn import diffusion, objectives
from jax_unlearn.errors import InputError
from jax_unlearn.types import Model

KNOWN = diffusion.all_words(["Ankle boot", "cat"])


@given(st.lists(st.sampled_from(KNOWN.words), min_size=0, max_size=KNOWN.length))
def test_tokens_and_back(words):
    text = " ".join(words)
    tokens = diffusion.tokenize(KNOWN, [text, text.upper()])
    assert tokens.shape == (2, KNOWN.length)
    assert diffusion.detokenize(KNOWN, tokens) == [text, text]


def test_captions_follow_the_pixels():
    images = np.zeros((4, 2, 2, 1), np.uint8)
    images[1:] += np.array([60, 120, 250], np.uint8).reshape(3, 1, 1, 1)
    limits = diffusion.thresholds(images)
    assert limits == (90.0, 0.0)
    found = diffusion.captions_of(images, [0, 1, 0, 1], ["Ankle boot", "cat"], limits)
    assert found == [
        "a dark thin ankle-boot",
        "a dark thin cat",
        "a bright thin ankle-boot",
        "a bright bold cat",
    ]
    assert diffusion.tokenize(KNOWN, found).min() > 0


def test_requests_by_word():
    tokens = diffusion.tokenize(KNOWN, ["a cat", "a dark cat", "a bold ankle-boot"])
    found = diffusion.mentions(tokens, KNOWN, "cat")
    assert found.tolist() == [True, True, False]
    replace = diffusion.replace_word(KNOWN, "cat", "Ankle boot")
    texts = diffusion.detokenize(KNOWN, replace(None, jnp.asarray(tokens), None))
    assert texts == ["a ankle-boot", "a dark ankle-boot", "a bold ankle-boot"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diffusion.tokenize(KNOWN, ["a cta"]), "unknown word 'cta'.*'cat'"),
        (
            lambda: diffusion.tokenize(KNOWN, ["a a a a a"]),
            "5 words, .* reads 4",
        ),
        (lambda: diffusion.detokenize(KNOWN, [[99]]), "token 99 is unknown"),
        (lambda: diffusion.mentions([[1]], KNOWN, "dog"), "unknown word 'dog'"),
        (lambda: diffusion.replace_word(KNOWN, "cat", "cat"), "must be another word"),
        (lambda: diffusion.vocabulary([""]), "there is no word in them"),
        (lambda: diffusion.vocabulary(["a b"], length=1), "length=1 is too short"),
        (lambda: diffusion.thresholds(np.zeros((2, 2))), "must be uint8"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


# A caption "a dark square" or "a light square"; the image is dark or light. The network
# is a table of words, which keeps the whole job under a few seconds.
WORDS = diffusion.vocabulary(["a dark square", "a light square"])
PROCESS = diffusion.cosine(30)


def by_words(params, state, inputs, *, train, key=None):
    """ε̂ of images that are all at a level told by the words of the caption."""
    x, times, tokens = inputs
    level = PROCESS.alphas_cumprod[times].reshape(-1, 1, 1, 1)
    shade = jnp.tanh(params["words"][tokens].sum(axis=1)).reshape(-1, 1, 1, 1)
    return (x - jnp.sqrt(level) * shade) / jnp.sqrt(1 - level), state


MODEL = Model(
    lambda key, inputs: ({"words": jnp.zeros(len(WORDS.words) + 1)}, ()), by_words
)


def images_of(params, text):
    tokens = diffusion.tokenize(WORDS, [text] * 4)
    return diffusion.generate(
        MODEL,
        params,
        (),
        tokens,
        jax.random.key(1),
        sampler=diffusion.ddim(PROCESS, 10),
        shape=(2, 2, 1),
    ).mean()


def test_a_word_is_forgotten_by_prompt_and_the_other_stays():
    shades = np.where(np.arange(64) % 2, 0.8, -0.8).astype(np.float32)
    images = np.broadcast_to(shades.reshape(-1, 1, 1, 1), (64, 2, 2, 1)).copy()
    texts = ["a light square" if s > 0 else "a dark square" for s in shades]
    tokens = diffusion.tokenize(WORDS, texts)
    examples = ju.data.Examples((images, tokens), (shades > 0).astype(np.int32))
    null = diffusion.null_tokens(WORDS)
    keep = objectives.denoise(MODEL, PROCESS, drop=0.2, null=null)
    optimizer = optax.chain(optax.clip(1.0), optax.sgd(0.02))
    alg = ju.methods.assemble(MODEL, optimizer, retain=keep)
    schedule = ju.data.retain_only(
        examples, np.arange(64), batch_size=32, epochs=100, seed=0
    )
    params, state = MODEL.init(jax.random.key(0), None)
    params = ju.run(alg, alg.init(params, state), schedule, jax.random.key(0)).params
    assert images_of(params, "a dark square") == pytest.approx(-0.8, abs=0.15)
    assert images_of(params, "a light square") == pytest.approx(0.8, abs=0.15)
    dark = diffusion.mentions(tokens, WORDS, "dark")
    batches = ju.data.zipped(
        examples, np.flatnonzero(dark), np.flatnonzero(~dark), batch_size=32, steps=150
    )
    objectives_of = {
        "anchor": objectives.relabel_condition(
            MODEL, PROCESS, replace=diffusion.replace_word(WORDS, "dark", "light")
        ),
        "negative": objectives.negative_guidance(
            MODEL, PROCESS, teacher=(params, ()), null=null
        ),
    }
    for name, forget in objectives_of.items():
        alg = ju.methods.assemble(MODEL, optimizer, forget=forget, retain=keep)
        done = ju.run(alg, alg.init(params, state), batches, jax.random.key(2)).params
        assert images_of(done, "a dark square") > -0.3, name
        assert images_of(done, "a light square") == pytest.approx(0.8, abs=0.25), name
