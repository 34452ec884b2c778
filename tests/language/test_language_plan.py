"""The memory plan: the table of eight billion, and what XLA says of small models."""

import jax
import jax.numpy as jnp
import pytest

import jax_unlearn as ju
from jax_unlearn.language import Text, decoder, lora, plan
from jax_unlearn.zoo import DecoderConfig, decoder_config

BILLIONS = decoder_config(
    "llama", 128256, width=4096, layers=32, heads=32, kv_heads=8, hidden=14336
)
STEP = dict(batch=8, length=512, dtype=jnp.bfloat16, remat=True)


@pytest.mark.parametrize(
    ("options", "table"),
    [
        ({}, (16, 16, 64, 32, 128)),
        ({"moment_dtype": jnp.bfloat16}, (16, 16, 32, 32, 96)),
        ({"rank": 16}, (16, 0.2, 0.3, 0, 17)),
    ],
)
def test_eight_billion(options, table):
    found = plan(BILLIONS, **STEP, **options)
    parts = [size / 1e9 for size in found[:4]]
    assert [*parts, sum(parts)] == pytest.approx(table, rel=0.05, abs=0.05)
    assert found.parameters == 8_030_261_248
    assert found.trained == (41_943_040 if "rank" in options else found.parameters)
    # logits of all tokens, 8 × 512 × 128k in float32, would be 2.1 GB
    whole = plan(BILLIONS, **STEP, **options, chunk=511)
    assert whole.logits / 3 == pytest.approx(2.1e9, rel=0.01)
    assert found.logits < 0.5e9
    assert found.fits(141e9) == bool(options)


@pytest.mark.parametrize(
    ("sizes", "batch", "length", "chunk"),
    [
        (dict(vocab_size=128, width=64, hidden=128, layers=3), 4, 128, None),
        (dict(vocab_size=2048, width=64, hidden=128, layers=1), 4, 64, None),
        (dict(vocab_size=2048, width=64, hidden=128, layers=2), 4, 64, 8),
        (dict(vocab_size=128, width=128, hidden=512, layers=3), 4, 64, None),
    ],
)
def test_activations_are_those_of_the_compiler(sizes, batch, length, chunk):
    config = DecoderConfig(heads=4, kv_heads=2, **sizes)
    model = decoder(config, outputs="scored", chunk=chunk)
    params, state = jax.eval_shape(model.init, jax.random.key(0), None)
    shape = batch, length
    text = Text(
        jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape, jnp.bool_)
    )

    def loss(params, text):
        return model.apply(params, state, text, train=True)[0].nll.mean()

    compiled = jax.jit(jax.grad(loss)).lower(params, text).compile()
    found = compiled.memory_analysis()
    told = plan(config, batch=batch, length=length, chunk=chunk, moments=0)
    assert told.weights == sum(4 * x.size for x in jax.tree.leaves(params))
    assert found.output_size_in_bytes == pytest.approx(told.gradients, rel=0.01)
    assert told.activations + told.logits == pytest.approx(
        found.temp_size_in_bytes, rel=0.25
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("match", [r"(query|down)$", "layer2/.*key"])
def test_parameters_are_those_of_the_model(family, match):
    config = decoder_config(family, 50, width=16, layers=3, heads=2, length=8)
    whole = decoder(config)
    given = plan(config, batch=1, length=8, rank=2, match=match)
    for model, count in (
        (whole, given.parameters),
        (lora(whole, rank=2, match=match), given.trained),
    ):
        params = jax.eval_shape(model.init, jax.random.key(0), None)[0]
        assert count == sum(x.size for x in jax.tree.leaves(params))


def test_options():
    config = DecoderConfig(100, width=16, layers=2, heads=2)
    options = dict(batch=4, length=32)
    one = plan(config, **options)
    assert one.trained == one.parameters
    assert (one.weights, one.masters) == (4 * one.parameters, 0)
    low = plan(config, dtype=jnp.bfloat16, **options)
    assert (low.weights, low.masters) == (one.weights / 2, one.weights)
    more = plan(config, gradients=2, references=1, moments=1, **options)
    assert more[:3] == (2 * one.weights, 2 * one.weights, one.weights)
    assert plan(config, remat=True, **options).activations < one.activations
    assert plan(config, devices=2, **options).total == pytest.approx(
        one.total / 2, 1e-3
    )
    told = one.lines(1e4)[-1]
    assert told.startswith("too much for a card of 0.0 GB: compute blocks anew")
    assert "adapters" in plan(BILLIONS, **STEP).lines(141e9)[-1]
    with pytest.raises(ju.InputError, match="batch=0 must be at least 1"):
        plan(config, batch=0, length=32)
