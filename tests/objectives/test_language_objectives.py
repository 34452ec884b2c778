"""Objectives of language models: equations, masks, reductions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_unlearn as ju
from jax_unlearn import objectives
from jax_unlearn.language import Scored, Text, answered, scored

V, T = 7, 6
KEY = jax.random.key(0)


def toy(key=KEY, width=5):
    """A model of one hidden layer over the token before and the position."""

    def init(key, text):
        del text
        first, second = jax.random.split(key)
        shape = (V + 1, width)
        return {
            "embed": jax.random.normal(first, shape, jnp.float32),
            "head": jax.random.normal(second, (width, V), jnp.float32),
        }, {}

    def apply(params, state, text, *, train, key=None):
        del train, key
        hidden = jnp.tanh(params["embed"][text.tokens])
        return hidden @ params["head"], state

    return ju.Model(init, apply)


def texts(lengths=((2, 3), (1, 4), (3, 1)), seed=0, width=T):
    """Right-padded texts of (prompt, answer) lengths."""
    draws = np.random.default_rng(seed)
    shape = (len(lengths), width)
    tokens = draws.integers(0, V, shape).astype(np.int32)
    targets, real = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, (prompt, answer) in enumerate(lengths):
        targets[row, prompt : prompt + answer] = True
        real[row, : prompt + answer] = True
    return Text(jnp.array(tokens), jnp.array(targets), None, jnp.array(real))


MODEL = toy()
TEXT = texts()
PARAMS = MODEL.init(KEY, TEXT)[0]
BATCH = ju.Batch(TEXT, jnp.arange(3, dtype=jnp.int32), jnp.array([4, 0, 2]))


def by_hand(params, text):
    """Return ℓ_t of each text's answer as lists, in float64 numpy."""
    table, head = (np.asarray(params[k], np.float64) for k in ("embed", "head"))
    rows = []
    for row, targets in zip(text.tokens, text.targets, strict=True):
        logits = np.tanh(table[np.asarray(row)]) @ head
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        at = np.flatnonzero(np.asarray(targets))
        rows.append(-logits[at - 1, np.asarray(row)[at]])
    return rows


def test_texts_are_scored_as_by_hand_and_padding_is_not():
    outputs, _ = MODEL.apply(PARAMS, {}, TEXT, train=True)
    found = scored(outputs, TEXT)
    for row, wanted in enumerate(by_hand(PARAMS, TEXT)):
        own = np.asarray(found.nll[row])[np.asarray(found.counted[row])]
        np.testing.assert_allclose(own, wanted, rtol=1e-5)
    assert not np.asarray(found.nll)[~np.asarray(found.counted)].any()
    assert found.counted.tolist() == TEXT.targets[:, 1:].tolist()


def test_first_tokens_of_packed_texts_are_not_answered():
    packed = Text(
        jnp.zeros((1, 6), jnp.int32),
        jnp.ones((1, 6), jnp.bool_),
        jnp.array([[1, 1, 2, 2, 2, 0]]),
    )
    assert answered(packed).tolist() == [[True, False, True, True, False]]


def test_scores_pass_through_and_other_outputs_are_refused():
    own = Scored(jnp.ones((3, T - 1)), answered(TEXT))
    assert scored(own, TEXT) is own
    with pytest.raises(ju.InputError, match="logits"):
        scored(jnp.zeros((3, V)), TEXT)
    with pytest.raises(ju.InputError, match=r"\[B, T − 1\]"):
        scored(own, texts(width=T + 1))
    plain = BATCH._replace(inputs=TEXT.tokens)
    with pytest.raises(ju.InputError, match=r"ju\.language\.Text"):
        objectives.next_token(MODEL)(PARAMS, {}, plain, KEY)


@pytest.mark.parametrize("reduction", ["sequence", "sum", "token"])
def test_next_token_and_its_ascent_reduce_as_said(reduction):
    rows = by_hand(PARAMS, TEXT)
    number = np.array(list(map(len, rows)))
    total = np.array([row.sum() for row in rows])
    scale = {"sequence": 1 / number, "sum": 1.0, "token": 3 / number.sum()}[reduction]
    down = objectives.next_token(MODEL, reduction=reduction)
    losses, aux = down(PARAMS, {}, BATCH, KEY)
    np.testing.assert_allclose(losses, total * scale, rtol=1e-5)
    np.testing.assert_allclose(aux.task_losses, total / number, rtol=1e-5)
    up, aux = objectives.next_token_ascent(MODEL, reduction=reduction)(
        PARAMS, {}, BATCH, KEY
    )
    np.testing.assert_allclose(up, -losses)
    np.testing.assert_allclose(aux.task_losses, total / number, rtol=1e-5)
