"""Texts of a step side by side: the same losses, weights and steps for less padding."""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_unlearn as ju
from jax_unlearn.data import Examples, Schedule
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modalities.language import packing
from jax_unlearn.lab.modalities.language.measured import scores_of
from jax_unlearn.language.packing import repacked, usual_rows
from jax_unlearn.language.text import Text
from jax_unlearn.types import Batch, UnlearnBatch

CONFIG = ju.zoo.DecoderConfig(48, width=16, layers=1, heads=2)
SIZES = (9, 3, 4, 20, 2)  # the last is beside the longest in a row of 24


def texts(sizes, longest=20) -> Any:
    rng, real = np.random.default_rng(0), np.arange(longest) < np.array(sizes)[:, None]
    tokens = rng.integers(1, 48, real.shape).astype(np.int32)
    told: Any = tokens, real & (np.arange(longest) > 0), None, real
    return Text(*told)


@functools.partial(jax.jit, static_argnames=("model", "train"))
def applied(model, *given, train):
    return model.apply(*given, train=train)


@pytest.fixture(scope="module")
def model():
    plain = ju.language.decoder(CONFIG, outputs="scored")
    return plain, jax.jit(plain.init)(jax.random.key(0), None)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (3, 4, 2, 1, 0)])
def test_losses_and_gradients_are_those_of_padded_texts(model, order):
    plain, (params, state) = model
    packs = repacked(plain, lambda texts: 2, length=24)
    text = texts([SIZES[i] for i in order])

    def found(one):
        def mean(params):
            scored, _ = one.apply(params, state, text, train=True)
            return scored.nll.sum() / jnp.float32(scored.counted.sum()), scored

        return jax.jit(jax.value_and_grad(mean, has_aux=True))(params)

    (_, own), slope = found(packs)
    (_, other), level = found(plain)
    assert np.array_equal(own.counted, other.counted)
    np.testing.assert_allclose(own.nll, other.nll, atol=1e-5)
    for one, two in zip(jax.tree.leaves(slope), jax.tree.leaves(level), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    words = jax.jit(packs.apply, static_argnames="train").lower(
        params, state, text, train=True
    )
    assert "2x24x16" in words.as_text()  # two rows, not five


def test_what_finds_no_place_is_not_told_as_a_loss(model):
    plain, (params, state) = model
    packs = repacked(plain, lambda texts: 1, length=24)
    found = applied(packs, params, state, texts((20, 20)), train=False)[0].nll
    assert bool(np.isnan(np.asarray(found)[1, 5]))
    assert np.isfinite(np.asarray(found)[0]).all()
    logits = repacked(ju.language.decoder(CONFIG), lambda texts: 1, length=24)
    with pytest.raises(InputError, match="only losses of tokens can be packed"):
        logits.apply(params, state, texts((20, 2)), train=False)


def test_batches_that_need_more_rows_are_scored_as_they_come(model):
    plain, (params, state) = model
    given = texts(40 * (4,) + (20,) * 8)
    subject = SimpleNamespace(examples=Examples(given, np.zeros(48, np.int32)))
    setting = SimpleNamespace(modality_options=SimpleNamespace(packed_into=24))
    rows = usual_rows([4] * 40 + [20] * 8, 8, length=24)

    def batch(step):
        own = jax.tree.map(lambda leaf: leaf[40 * step : 40 * step + 8], given)
        return UnlearnBatch(Batch(own, jnp.zeros(8, int)))

    steps = packing.fitting(subject, setting, Schedule(batch, steps=2))
    short, long = (step.forget for step in steps)
    assert short is not None
    assert long is not None
    assert short.inputs.segments is None
    assert rows < 8  # of the eight long texts each takes one
    assert long.inputs.segments is not None
    packs = packing.economical(subject, setting, plain)
    for part in (short, long):
        own, other = (
            applied(one, params, state, part.inputs, train=False)[0].nll
            for one in (packs, plain)
        )
        np.testing.assert_allclose(own, other, atol=1e-5)
    setting = SimpleNamespace(modality_options=SimpleNamespace(packed_into=0))
    assert packing.economical(subject, setting, plain) is plain
    assert packing.fitting(subject, setting, steps) is steps


def test_texts_scored_by_length_are_those_of_one_pass(model, monkeypatch):
    plain, at = model
    examples = Examples(texts(SIZES), np.zeros(5, np.int32))
    whole = scores_of(plain, at, examples)
    monkeypatch.setattr("jax_unlearn.lab.modalities.language.measured.STEP", 8)
    parts = scores_of(plain, at, examples, batch=2)
    assert np.array_equal(whole.counted, parts.counted)
    np.testing.assert_allclose(whole.nll, parts.nll, atol=1e-5)
