"""Collectives: counted in compiled programs, and what they would cost."""

import math

import jax
import jax.numpy as jnp
import optax
import pytest
from collectives import Chip, Collective, counted, efficiency, ring_seconds
from toys import batch, mlp

import jax_unlearn as ju
from jax_unlearn.drivers.sharding import fully_sharded, shard, spread

MODEL = mlp(width=32)
PARAMS = MODEL.init(jax.random.key(0), jnp.zeros((1, 4)))
BYTES = 4 * sum(leaf.size for leaf in jax.tree.leaves(PARAMS[0]))


def loreun(method, **options):
    weighting = ju.weights.loreun(temperature=0.5)
    return method(MODEL, optax.sgd(0.1, momentum=0.9), weighting=weighting, **options)


def compiled(alg, rules=(), *, retain=True):
    """Return the program of a step on eight devices."""
    mesh = jax.make_mesh((8,), ("data",))
    state = shard(alg.init(*PARAMS), mesh, rules)
    both = ju.UnlearnBatch(batch(1, 256), batch(2, 512) if retain else None)
    step = ju.sharding.in_place(alg.step, state)
    lowered = jax.jit(step).lower(state, next(spread([both], mesh)), jax.random.key(0))
    return lowered.compile().as_text()


def reduced(program):
    """Return bytes of the arrays that are reduced, and how many scalars."""
    found = [c for c in counted(program) if c.kind == "all-reduce"]
    assert all(c.group == 8 for c in found)
    shapes = [dims for c in found for _, dims in c.shapes]
    return 4 * sum(math.prod(dims) for dims in shapes if dims), shapes.count(())


@pytest.mark.parametrize(
    ("alg", "gradients", "retain"),
    [
        (loreun(ju.methods.gradient_ascent), 1, False),
        (loreun(ju.methods.random_label, num_classes=3, forward="merged"), 1, True),
        (loreun(ju.methods.random_label, num_classes=3), 2, True),
    ],
    ids=["ascent", "merged", "separate"],
)
def test_a_pass_reduces_its_gradient_and_a_few_scalars(alg, gradients, retain):
    program = compiled(alg, retain=retain)
    assert {c.kind for c in counted(program)} == {"all-reduce"}
    size, scalars = reduced(program)
    assert size == gradients * BYTES
    assert 3 <= scalars <= 8  # of the weights: least loss, sum, count; mean losses


def test_parted_parameters_are_gathered_where_they_are_used():
    alg = loreun(ju.methods.gradient_ascent)
    program = compiled(alg, fully_sharded(min_size=32), retain=False)
    gathered = [c for c in counted(program) if c.kind == "all-gather"]
    shapes = {tuple(sorted(dims)) for c in gathered for _, dims in c.shapes}
    assert shapes == {(4, 32), (3, 32)}  # the two matrices, and never the samples


def test_every_form_of_the_text_is_read():
    program = """
  %all-reduce.3 = (f32[16]{0:T(128)S(1)}, bf16[2,4]{1,0}, /*index=5*/pred[]) \
all-reduce(%a, %b, %c), replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_0'}, x=1
  %start.1 = (f32[4]{0}, f32[32]{0}) all-gather-start(%d), replica_groups={{0,1},{2,3}}
  %done.1 = f32[32]{0} all-gather-done(%start.1)
  ROOT %rs = f32[2,4]{1,0} reduce-scatter(f32[8,4]{1,0} %e), replica_groups=[2,4]<=[8]
  %p = s8[6]{0} collective-permute(%f), source_target_pairs={{0,1}}
  %fused = f32[8]{0} fusion(%all-reduce.3), calls=%all-reduce-like
"""
    assert counted(program) == [
        Collective("all-reduce", (("f32", (16,)), ("bf16", (2, 4)), ("pred", ())), 8),
        Collective("all-gather", (("f32", (32,)),), 2),
        Collective("reduce-scatter", (("f32", (2, 4)),), 4),
        Collective("collective-permute", (("s8", (6,)),), 0),
    ]
    assert [c.bytes for c in counted(program)] == [64 + 16 + 1, 128, 128, 6]


def test_the_ring_is_the_sum_of_its_turns():
    chip, size = Chip(flops=1e12, bandwidth=1e9, latency=1e-3), 6e9
    for chips in (2, 8, 256):
        turn = size / chips / 1e9 + 1e-3  # a piece to the next chip
        half = sum(turn for _ in range(chips - 1))
        for kind, times in (("all-reduce", 2), ("all-gather", 1), ("all-to-all", 1)):
            found = ring_seconds(kind, size, chips, chip=chip)
            assert found == pytest.approx(times * half)
        found = ring_seconds("collective-permute", size, chips, chip=chip)
        assert found == pytest.approx(6.001)
    assert ring_seconds("all-reduce", size, 1, chip=chip) == 0
    sent = [Collective("all-reduce", (("f32", (10**6,)),), 8)] * 2
    chip = Chip(flops=1e9, bandwidth=8e6)  # 2 s against 2·2·7/8·4e6/8e6 s
    assert efficiency(sent, 2e9, 8, chip=chip) == pytest.approx(2 / (2 + 1.75))
    assert efficiency(sent, 2e9, 1, chip=chip) == 1
    assert efficiency([], 2e9, 256, chip=chip) == 1


@pytest.mark.parametrize(
    ("chips", "chip"),
    [(0, Chip(1, 1)), (2, Chip(0, 1)), (2, Chip(1, -1)), (2, Chip(1, 1, -1))],
)
def test_chips_that_cannot_be(chips, chip):
    with pytest.raises(ju.InputError, match="give 1 chip or more, positive rates"):
        ring_seconds("all-reduce", 1.0, chips, chip=chip)
