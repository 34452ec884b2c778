"""LoRA: the base is held once and never moves, and merging changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import relaxed

import jax_unlearn as ju
from jax_unlearn.language import Text, decoder, lora, lora_variables, merge_lora
from jax_unlearn.language.lora import turned_adapters
from jax_unlearn.zoo import DecoderConfig

KEY = jax.random.key(0)
CONFIG = DecoderConfig(24, width=16, layers=2, heads=2, kv_heads=1, hidden=20)
BASE = decoder(CONFIG, outputs="scored")
MODEL = lora(BASE, rank=3, alpha=6.0)
TOKENS = np.arange(24).reshape(4, 6) % 11
BATCH = ju.Batch(
    Text(jnp.asarray(TOKENS, jnp.int32), jnp.ones((4, 6), bool)),
    jnp.zeros(4, jnp.int32),
    jnp.arange(4, dtype=jnp.int32),
)


@functools.cache
def variables():
    return jax.jit(BASE.init)(KEY, None)


@functools.cache
def apply(model):
    return jax.jit(lambda *at: model.apply(*at, BATCH.inputs, train=False)[0].nll)


def test_adapters_begin_at_the_model_and_are_counted():
    params, state = lora_variables(*variables(), rank=3, alpha=6.0)
    found = apply(MODEL)(params, state)
    np.testing.assert_array_equal(found, apply(BASE)(*variables()))
    sizes = {"query": 32, "key": 24, "value": 24, "out": 32}
    total = sum(sizes.values()) + 3 * (16 + 20)
    assert sum(x.size for x in jax.tree.leaves(params)) == 2 * 3 * total
    drawn = jax.eval_shape(MODEL.init, KEY, None)
    given = jax.eval_shape(lambda: (params, state))
    assert jax.tree.structure(drawn) == jax.tree.structure(given)


def trained(steps=8):
    params, state = lora_variables(*variables(), rank=3, alpha=6.0)

    loss = ju.objectives.next_token(MODEL)
    alg = ju.methods.assemble(MODEL, relaxed(optax.adam(0.05)), retain=loss)
    begin = alg.init(params, state)
    batches = [ju.UnlearnBatch(retain=BATCH)] * steps
    return begin, ju.run(alg, begin, batches, KEY), state


def pointers(tree):
    return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}


def test_training_moves_the_adapters_alone_and_copies_no_base():
    begin, end, state = trained()
    base = pointers(variables()[0])
    assert base <= pointers(state)
    assert pointers(begin.model_state) == pointers(state)
    assert pointers(end.model_state) == pointers(state)
    before, after = begin.params, end.params
    assert not base & pointers(after)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(moved))
    # moments are of the adapters
    size = sum(x.size for x in jax.tree.leaves(after))
    assert sum(x.size for x in jax.tree.leaves(end.opt_state)) < 2.1 * size
    nll = apply(MODEL)(after, end.model_state)
    assert nll.mean() < apply(BASE)(*variables()).mean() - 0.2
    params, plain = merge_lora(after, end.model_state)
    np.testing.assert_allclose(apply(BASE)(params, plain), nll, atol=2e-5)
    assert jax.tree.structure(params) == jax.tree.structure(variables()[0])


def test_a_base_of_bfloat16_stays_so():
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables()[0])
    params, state = lora_variables(low, {}, rank=2, match="(query|value)$")
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert list(params["lora"]["layer0"]) == ["attention"]
    moved = jax.tree.map(lambda x: x + 0.1, params)
    merged, _ = merge_lora(moved, state)
    assert {x.dtype for x in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}
    key = merged["layer0"]["attention"]["key"]["kernel"]
    assert key is low["layer0"]["attention"]["key"]["kernel"]


def test_refusals():
    with pytest.raises(ju.InputError, match="rank=0 must be at least 1"):
        lora(BASE, rank=0)
    with pytest.raises(ju.InputError, match=r"none of 14 linear maps; some are layer0"):
        lora_variables(*variables(), match="head")
    with pytest.raises(ju.InputError, match="is no regular expression"):
        lora_variables(*variables(), match="(")
    with pytest.raises(ju.InputError, match="take nnx.LoRA or qwix"):
        lora_variables({"w": jnp.ones(2)}, ())
    with pytest.raises(ju.InputError, match="have no adapters"):
        merge_lora(*variables())


def test_a_task_vector_of_adapters_is_that_of_the_merged_weights():
    params, state = lora_variables(*variables(), rank=3, alpha=6.0)
    after = jax.tree.map(lambda leaf: leaf + 0.1, params)  # A moves, and B from 0
    turned = turned_adapters(after, -0.5)
    merged = [merge_lora(each, state)[0] for each in (after, turned)]
    wanted = ju.oneshot.task_vector(variables()[0], merged[0], scale=0.5)
    for found, leaf in zip(*map(jax.tree.leaves, (merged[1], wanted)), strict=True):
        np.testing.assert_allclose(found, leaf, atol=1e-6)
    apart = ju.oneshot.task_vector(params, after, scale=0.5)  # A and B by themselves
    other = jax.tree.leaves(merge_lora(apart, state)[0])
    gaps = map(jnp.subtract, other, jax.tree.leaves(wanted))
    assert max(float(jnp.abs(gap).max()) for gap in gaps) > 0.01
    assert turned_adapters(variables()[0], -0.5) is None
