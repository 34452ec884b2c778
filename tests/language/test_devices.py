"""Decoders on eight devices: data, FSDP and tensors give what one device gives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jax_unlearn as ju
from jax_unlearn.language import Text, decoder, generate
from jax_unlearn.zoo import decoder_config

KEY = jax.random.key(0)
CONFIG = decoder_config(
    "qwen3", 48, width=16, layers=1, heads=4, kv_heads=4, head_dim=8, hidden=24
)
MODEL = decoder(CONFIG, outputs="scored", chunk=3)
TOKENS = np.arange(64).reshape(8, 8) * 7 % 47
TEXT = Text(jnp.asarray(TOKENS, jnp.int32), jnp.ones((8, 8), bool))
BATCH = ju.Batch(TEXT, jnp.zeros(8, jnp.int32), jnp.arange(8, dtype=jnp.int32))
STEPS = [ju.UnlearnBatch(forget=BATCH, retain=BATCH)] * 2


def unlearner():
    loss = ju.objectives.next_token(MODEL)
    return ju.methods.assemble(
        MODEL,
        ju.memory.master(optax.sgd(0.05, momentum=0.9)),
        forget=ju.objectives.next_token_ascent(MODEL),
        retain=loss,
        weighting=ju.weights.loreun(temperature=1.0),
    )


@functools.cache
def start():
    return jax.jit(MODEL.init)(KEY, None)


@functools.cache
def alone():
    return ju.run(unlearner(), unlearner().init(*start()), STEPS, KEY)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((8, 1), {"data": None}),
        ((2, 4), {"data": "data"}),
    ],
)
def test_eight_devices_are_one(shape, options):
    mesh = jax.make_mesh(shape, ("data", "tensor"))
    alg, traces = unlearner(), []

    def step(*args):
        traces.append(args)
        return alg.step(*args)

    rules = ju.sharding.decoder_rules(**options)
    state = ju.sharding.shard(alg.init(*start()), mesh, rules)
    batches = ju.sharding.spread(STEPS, mesh)
    found = ju.run(alg._replace(step=step), state, batches, KEY)
    assert len(traces) == 1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        ju.sharding.fetch(found.params),
        ju.sharding.fetch(alone().params),
    )
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start()[0], alone().params)
    assert min(jax.tree.leaves(moved)) > 1e-4
    mlp = found.params["layer0"]["mlp"]
    spec = {k: tuple(v["kernel"].sharding.spec) for k, v in mlp.items()}
    own = options["data"] if shape[0] > 1 else None
    if shape[1] > 1:  # a part of an axis of one device is the whole
        assert (spec["up"], spec["down"]) == ((own, "tensor"), ("tensor", own))
    moment = found.opt_state.inner[0].trace["layer0"]["mlp"]["up"]["kernel"]
    assert moment.sharding == mlp["up"]["kernel"].sharding
    # 48 tokens are parted, whole heads lie together
    size = found.params["embedding"]["embedding"].addressable_shards[0].data.size
    parts = shape[1] * (shape[0] if options["data"] else 1)
    assert size * parts == 48 * 16


def test_an_axis_that_does_not_divide_leaves_a_dimension_whole():
    mesh = jax.make_mesh((1, 8), ("data", "tensor"))
    odd = decoder(decoder_config("llama", 50, width=16, layers=1, heads=2, hidden=20))
    params, _ = jax.eval_shape(odd.init, KEY, None)
    found = ju.sharding.shardings(params, mesh, ju.sharding.decoder_rules())
    assert found["embedding"]["embedding"].is_fully_replicated
    assert found["layer0"]["mlp"]["up"]["kernel"].is_fully_replicated
    assert not found["layer0"]["attention"]["query"]["kernel"].is_fully_replicated


def test_generation_on_eight_devices():
    mesh = jax.make_mesh((2, 4), ("data", "tensor"))
    params, state = start()
    rules = ju.sharding.decoder_rules(data="data")
    placed = ju.sharding.shard(params, mesh, rules)
    options = dict(max_new_tokens=4)
    one = generate(MODEL, params, state, TOKENS[:, :4], **options)
    many = generate(MODEL, placed, state, TOKENS[:, :4], **options)
    np.testing.assert_array_equal(one, many)
