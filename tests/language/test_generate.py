"""Generation: with a cache as without, padding, draws, ends, refusals."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_unlearn as ju
from jax_unlearn.language import decoder, generate, lora, lora_variables
from jax_unlearn.zoo import decoder_config

VOCAB = 30
CONFIG = decoder_config(
    "gemma2", VOCAB, width=16, layers=2, heads=2, hidden=24, window=4
)
MODEL = decoder(CONFIG, outputs="scored")  # any outputs do
PROMPT = np.array([[3, 4, 5, 6], [7, 8, 0, 0], [0, 0, 7, 8]])
REAL = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]], bool)


@functools.cache
def variables():
    params, state = jax.jit(MODEL.init)(jax.random.key(3), None)
    return jax.tree.map(lambda x: 6 * x if x.ndim > 1 else x + 0.2, params), state


def run(tokens=PROMPT, real=REAL, model=MODEL, **options):
    options = {"max_new_tokens": 8, **options}
    return np.asarray(generate(model, *variables(), tokens, real=real, **options))


@functools.cache
def greedy():
    return run()


def test_a_cache_gives_what_whole_texts_give():
    found = greedy()
    plain = run(model=decoder(CONFIG), cache=False)
    np.testing.assert_array_equal(found, plain)
    np.testing.assert_array_equal(found[1], found[2])  # padding on either side
    assert len(set(found[0].tolist())) > 1


def test_the_tokens_are_the_likeliest():
    params, state = variables()
    text = jnp.asarray(np.concatenate([PROMPT[:1], greedy()[:1]], axis=1))
    model = decoder(CONFIG)
    logits = jax.jit(lambda p: model.apply(p, state, text, train=False)[0])(params)
    np.testing.assert_array_equal(logits[0, 3:-1].argmax(axis=-1), greedy()[0])


def test_a_text_ends_at_its_token():
    end = int(greedy()[0, 2])
    found = run(eos=[end], pad=VOCAB + 5)
    stop = greedy()[0].tolist().index(end)
    np.testing.assert_array_equal(found[0, : stop + 1], greedy()[0, : stop + 1])
    assert (found[0, stop + 1 :] == VOCAB + 5).all()


def test_draws():
    key = jax.random.key(1)
    drawn = run(temperature=1.0, key=key)
    np.testing.assert_array_equal(drawn, run(temperature=1.0, key=key))
    assert (drawn != run(temperature=1.0, key=jax.random.key(2))).any()
    # almost no share, or almost no temperature, leaves the likeliest alone
    np.testing.assert_array_equal(run(temperature=1.0, top_p=1e-6, key=key), greedy())
    np.testing.assert_array_equal(run(temperature=1e-4, key=key), greedy())


def test_draws_follow_the_probabilities():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    model = ju.from_stateless(
        lambda key, text: (),
        lambda p, text: jnp.broadcast_to(logits, (*text.tokens.shape, 4)),
    )
    many = jnp.zeros((4000, 1), jnp.int32)
    options = dict(max_new_tokens=1, temperature=2.0, cache=False)
    key = jax.random.key(0)

    def shares(**more):
        drawn = np.asarray(generate(model, (), (), many, key=key, **options, **more))
        return np.bincount(drawn[:, 0], minlength=4) / 4000

    exact = np.sqrt([0.5, 0.3, 0.15, 0.05])
    np.testing.assert_allclose(shares(), exact / exact.sum(), atol=0.03)
    exact[2:] = 0  # the first two have 0.67 of the softened shares
    np.testing.assert_allclose(shares(top_p=0.6), exact / exact.sum(), atol=0.03)


def test_one_program_serves_all_prompts_of_a_shape():
    traces = chex.assert_max_traces(n=4)  # eager check, prompt, loop and its start

    def apply(params, state, inputs, *, train, key=None):
        return counted(params, inputs), state

    @traces
    def counted(params, inputs):
        return MODEL.apply(params, variables()[1], inputs, train=False)[0]

    model = MODEL._replace(apply=apply)
    first = run(model=model)
    again = run(PROMPT[::-1].copy(), REAL[::-1].copy(), model=model)
    np.testing.assert_array_equal(first[::-1], again)


def test_adapters_take_part():
    params, state = lora_variables(*variables(), rank=2)
    model = lora(MODEL, rank=2)
    same = generate(model, params, state, PROMPT, real=REAL, max_new_tokens=8)
    np.testing.assert_array_equal(same, greedy())
    moved = jax.tree.map(lambda x: x + 0.5, params)
    other = generate(model, moved, state, PROMPT, real=REAL, max_new_tokens=8)
    assert (np.asarray(other) != greedy()).any()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"temperature": -1.0}, "temperature=-1.0 must not be negative"),
        ({"temperature": 1.0}, "key=None: give jax.random.key"),
        ({"top_p": 0.0}, "top_p=0.0 must lie in"),
        ({"tokens": PROMPT[0]}, "must be integers"),
        ({"real": REAL[:2]}, "real of shape"),
        ({"real": REAL & (PROMPT > 6)}, "prompt 0 is empty"),
        (
            {"tokens": PROMPT + 24},
            "token 30 of prompt 0 is none of the vocabulary's 30",
        ),
    ],
)
def test_refusals(options, told):
    with pytest.raises(ju.InputError, match=told):
        run(**options)
