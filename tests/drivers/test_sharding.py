"""Sharding: eight devices, and two processes, give what one device gives."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sharded_runs as runs
from jax.sharding import PartitionSpec
from toys import batch, mlp, trees_close

import jax_unlearn as ju
from jax_unlearn.drivers.sharding import fully_sharded, shard, shardings, spread
from jax_unlearn.methods.assemble import _join, _part

HERE = Path(__file__).parent
FSDP = fully_sharded(min_size=32)
DATA_PARALLEL = ()
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}  # sums over devices in another order


@pytest.fixture(scope="module")
def mesh():
    assert len(jax.devices()) == 8
    return jax.make_mesh((8,), ("data",))


@pytest.fixture(scope="module")
def alone():
    return {name: runs.finished(name) for name in runs.METHODS}


def specs(tree):
    return [tuple(leaf.sharding.spec) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    ("name", "rules", "scan"),
    [
        ("loreun", DATA_PARALLEL, 1),
        ("falw", DATA_PARALLEL, 1),
        ("falw", FSDP, 1),
        ("loreun", FSDP, 2),
    ],
)
def test_eight_devices_are_one(name, rules, scan, mesh, alone):
    begun = shard(runs.start(name), mesh, rules)
    done = runs.finished(name, mesh, rules, scan=scan)
    trees_close(ju.sharding.fetch(done), alone[name], **ROUNDING)
    assert specs(done) == specs(begun)  # nothing has wandered
    split = {"w": (None, "data"), "v": ("data",), "scale": ()}
    for own in (done.params, done.opt_state[0].trace):
        found = {key: tuple(leaf.sharding.spec) for key, leaf in own.items()}
        assert found == (split if rules else dict.fromkeys(split, ()))
    held = done.params["w"].addressable_shards[0].data.shape
    assert held == ((4, 2) if rules else (4, 16))


def test_a_state_in_place_compiles_once(mesh):
    model, traced = mlp(), []
    alg = ju.methods.gradient_ascent(model, optax.sgd(0.1))

    def step(*args):
        traced.append(1)
        return alg.step(*args)

    counting = ju.Unlearner(alg.init, step)
    state = shard(alg.init(*model.init(runs.KEY, jnp.zeros((1, 4)))), mesh, FSDP)
    for _ in range(2):
        steps = spread([ju.UnlearnBatch(batch(s, 8)) for s in range(3)], mesh)
        state = ju.run(counting, state, steps, runs.KEY, scan=1)
    assert len(traced) == 1
    assert state.step == 6


def test_rules_go_by_path_and_the_first_decides(mesh):
    state = runs.start("loreun")
    rules = [
        ("^params/w$", PartitionSpec(None, "data")),
        ("w$", PartitionSpec()),
        ("(w|v)$", PartitionSpec("data")),
    ]
    found = shardings(jax.eval_shape(lambda: state), mesh, rules)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert tuple(found.params["w"].spec) == (None, "data")
    assert tuple(found.opt_state[0].trace["w"].spec) == ()
    moments = found.params["v"], found.opt_state[0].trace["v"]
    assert [tuple(place.spec) for place in moments] == [("data",)] * 2
    assert found.step.is_fully_replicated
    assert found.params["scale"].is_fully_replicated


def test_fully_sharded_parts_the_largest_dimension_that_fits():
    pair = jax.make_mesh((2, 4), ("data", "model"))
    tree = {
        "kernel": np.zeros((3, 3, 8, 12)),
        "odd": np.zeros((15, 21)),
        "vector": np.zeros(800),
        "small": np.zeros((4, 4)),
    }
    expected = {"odd": (), "vector": (), "small": ()}
    for axis, kernel in (
        ("model", (None, None, None, "model")),
        (("data", "model"), (None, None, ("data", "model"))),
    ):
        found = shardings(tree, pair, fully_sharded(axis=axis, min_size=64))
        told = {name: tuple(place.spec) for name, place in found.items()}
        assert told == {**expected, "kernel": kernel}


def test_arguments_that_do_not_fit(mesh):
    tree = {"head": {"kernel": np.zeros((12, 3))}}
    for spec, told in (
        (
            PartitionSpec("data"),
            r"head/kernel of shape \(12, 3\) on the mesh {'data': 8} does not divide "
            "12 by 8",
        ),
        (PartitionSpec(None, None, "data"), "more entries than dimensions"),
        (PartitionSpec("model"), r"axis 'model' is none of the mesh's \('data',\)"),
    ):
        with pytest.raises(ju.InputError, match=told):
            shard(tree, mesh, [("kernel", spec)])
    with pytest.raises(ju.InputError, match="axis 'model'"):
        shard(tree, mesh, fully_sharded(axis="model", min_size=1))
    with pytest.raises(ju.InputError, match="axis 'model'"):
        spread([], mesh, axis="model")
    with pytest.raises(ju.InputError, match="uneven='cut'"):
        spread([], mesh, uneven="cut")
    steps = spread([ju.UnlearnBatch(batch(0, 8), batch(1, 6))], mesh)
    with pytest.raises(ju.InputError, match="retain batch of 6 samples on 8 devices"):
        next(steps)


def test_uneven_batches_padded_are_the_same_step(mesh):
    model = mlp()
    alg = ju.methods.random_label(
        model,
        optax.sgd(0.1),
        num_classes=3,
        weighting=ju.weights.loreun(temperature=0.5),
    )
    state = alg.init(*model.init(runs.KEY, jnp.zeros((1, 4))))
    half = batch(1, 10, mask=np.arange(10) < 5)
    steps = [ju.UnlearnBatch(batch(0, 6), half)]
    expected = ju.run(alg, state, steps, runs.KEY)
    (padded,) = spread(steps, mesh, uneven="pad")
    assert padded.forget.mask.tolist() == [True] * 6 + [False] * 2
    assert padded.retain.mask.tolist() == [True] * 5 + [False] * 11
    np.testing.assert_array_equal(padded.forget.inputs[6:], steps[0].forget.inputs[:2])
    done = ju.run(alg, shard(state, mesh), [padded], runs.KEY)
    trees_close(ju.sharding.fetch(done), expected, **ROUNDING)


def test_a_set_that_comes_again_is_placed_once(mesh):
    first, second = spread(runs.batches()[:2], mesh)
    assert first.reference is second.reference
    assert first.forget is not second.forget
    shards = first.retain.inputs.addressable_shards
    assert [part.data.shape for part in shards] == [(2, 4)] * 8
    assert first.retain.mask is None


def test_the_rows_of_a_merged_pass_come_back():
    for sizes in ((4, 6), (3, 5), (8, 8), (0, 4), (0, 0)):
        pair = [np.arange(10.0 * n).reshape(n, 5, 2) + n for n in sizes]
        joined = _join(*map(jnp.asarray, pair))
        for got, expected in zip(_part(joined, sizes), pair, strict=True):
            np.testing.assert_array_equal(got, expected)
    assert _join(jnp.arange(4), -jnp.arange(1, 3)).tolist() == [0, 1, -1, 2, 3, -2]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_two_processes_are_one_device(tmp_path, alone):
    program = [sys.executable, str(HERE / "process_of_two.py"), str(free_port())]
    search = os.pathsep.join(
        (str(HERE), str(HERE.parent), str(Path(ju.__file__).parents[1]))
    )
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2")
    started = [
        subprocess.Popen(
            [*program, str(number), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": search, "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    try:
        told = [process.communicate(timeout=150)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    codes = [process.returncode for process in started]
    assert codes == [0, 0], "\n".join(told)[-4000:]
    for number in range(2):
        found = np.load(tmp_path / f"{number}.npz")
        for name, state in alone.items():
            leaves = runs.plain(state)
            got = [found[f"{name}/{place}"] for place in range(len(leaves))]
            trees_close(got, leaves, **ROUNDING)
            logits = ju.predict(runs.MODEL, *state[:2], runs.INPUTS)
            np.testing.assert_allclose(found[f"{name}/logits"], logits, **ROUNDING)
        assert re.match("w differs from process to process", str(found["refusal"]))
        # both wrote one folder a step, and went on from it to the same bits
        assert found["saved"].tolist() == ["step-0000000001", "step-0000000002"]
        for place in range(len(runs.plain(alone["falw"]))):
            expected = found[f"falw/{place}"]
            np.testing.assert_array_equal(found[f"resumed/{place}"], expected)
        assert re.search("step-0000000001 exists already", str(found["exists"]))
        assert found["waiting"].tolist() == [1, 1]
    # what two processes saved, one reads
    start = runs.start("falw")
    state = ju.Series(tmp_path / "series", {"seed": 0}).latest(start)
    after = runs.finished("falw", steps=2)
    trees_close(runs.plain(state), runs.plain(after), **ROUNDING)
