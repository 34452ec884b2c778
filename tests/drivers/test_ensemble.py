"""Ensembles: each model as if it ran alone, by one program, over many devices."""

import json
import re
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from toys import batch, batchnorm_net, forms, mlp, trees_close

import jax_unlearn as ju
from jax_unlearn.drivers import ensemble
from jax_unlearn.drivers.ensemble import run_ensemble, stack, step_seconds, unstack
from jax_unlearn.zoo import convolution

COUNT, STEPS = 8, 3
KEYS = jax.random.split(jax.random.key(7), COUNT)
MODEL = batchnorm_net()
METHOD = ju.methods.random_label(
    MODEL,
    optax.sgd(0.1, momentum=0.9),
    num_classes=3,
    redraw=True,  # draws labels with the key of the step
)


def schedule(model):
    """Return the steps of one model: its own batches."""
    steps = [
        ju.UnlearnBatch(batch(100 * model + s, 6), batch(100 * model + s + 9, 6))
        for s in range(STEPS)
    ]
    return jax.tree.map(np.asarray, steps)


SCHEDULES = [schedule(i) for i in range(COUNT)]


def start(model):
    return METHOD.init(*MODEL.init(jax.random.key(model), jnp.zeros((1, 4))))


@pytest.fixture(scope="module")
def states():
    return stack([start(i) for i in range(COUNT)])


@pytest.fixture(scope="module")
def alone():
    return [
        ju.run(METHOD, start(i), SCHEDULES[i], KEYS[i], scan=1) for i in range(COUNT)
    ]


@pytest.fixture(scope="module")
def mesh():
    assert len(jax.devices()) == COUNT
    return Mesh(np.array(jax.devices()), ("ensemble",))


@pytest.mark.parametrize("how", ["vmap", "map", "loop"])
def test_each_model_is_the_one_that_ran_alone(states, alone, how):
    done = run_ensemble(METHOD, states, SCHEDULES, KEYS, how=how)
    assert forms(done) == forms(states)
    for got, expected in zip(unstack(done), alone, strict=True):
        trees_close(got, expected, rtol=1e-5, atol=1e-6)
    if how == "loop":  # the same program: the same bits
        for a, b in zip(
            jax.tree.leaves(done), jax.tree.leaves(stack(alone)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    moved = np.asarray(done.params["w"]) - np.asarray(states.params["w"])
    assert np.abs(moved[0] - moved[1]).max() > 1e-3  # not the same run N times


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_devices_share_the_models_and_do_not_talk(states, alone, mesh, how):
    done = run_ensemble(METHOD, states, SCHEDULES, KEYS, how=how, mesh=mesh)
    assert len(done.params["w"].sharding.device_set) == COUNT
    shard = done.params["w"].addressable_shards[0].data
    assert shard.shape == (1, *done.params["w"].shape[1:])
    for got, expected in zip(unstack(jax.device_get(done)), alone, strict=True):
        trees_close(got, expected, rtol=1e-5, atol=1e-6)
    batches = stack([steps[0] for steps in SCHEDULES])
    placed = [ensemble._put(tree, mesh) for tree in (states, batches, KEYS)]
    lowered = ensemble._step.lower(ensemble._Way(METHOD.step, how, mesh), *placed)
    program = lowered.compile().as_text()
    assert f"num_partitions={COUNT}" in program
    talk = "all-reduce|all-gather|all-to-all|collective|reduce-scatter|send|recv"
    assert not re.search(rf"= \S+ ({talk})", program)


def test_a_sweep_of_what_travels_in_the_state():
    model, rates = mlp(), jnp.linspace(0.05, 0.4, COUNT)
    temperatures = jnp.geomspace(0.1, 4.0, COUNT)

    def travelling(sample, temperature, *, reference=None):
        weights = ju.weights.loreun_weights(
            sample.losses, temperature=temperature, where=sample.mask
        )
        return weights, temperature

    def method(rate, temperature):
        return ju.methods.gradient_ascent(
            model,
            optax.inject_hyperparams(optax.sgd)(learning_rate=rate),
            weighting=ju.Weighting(lambda: temperature, travelling),
        )

    params = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    steps = [ju.UnlearnBatch(batch(s, 6)) for s in range(2)]
    settings = list(zip(rates, temperatures, strict=True))
    states = stack([method(*own).init(*params) for own in settings])
    explicit = jax.make_mesh((COUNT,), ("ensemble",))  # as jax makes them
    done = run_ensemble(
        method(*settings[0]), states, [steps] * COUNT, KEYS, how="vmap", mesh=explicit
    )
    assert len(done.params["w"].sharding.device_set) == COUNT
    parts = unstack(done.params)
    for i in (0, 3, 7):  # the same numbers, fixed in the program
        fixed = ju.methods.gradient_ascent(
            model,
            optax.sgd(float(rates[i])),
            weighting=ju.weights.loreun(temperature=float(temperatures[i])),
        )
        alone = ju.run(fixed, fixed.init(*params), steps, KEYS[i])
        trees_close(parts[i], alone.params, rtol=1e-5, atol=1e-6)
        assert np.abs(parts[i]["w"] - params[0]["w"]).max() > 1e-3


def test_the_devices_here_share_the_models_or_none_does():
    found = ensemble.local_mesh(2 * COUNT)
    assert found is not None
    assert dict(found.shape) == {"ensemble": COUNT}
    assert ensemble.local_mesh(COUNT + 4) is None


def test_a_mesh_that_does_not_fit(states, mesh):
    few = jax.tree.map(lambda leaf: leaf[:6], states)
    with pytest.raises(ju.InputError, match="6 models on 8 devices"):
        run_ensemble(METHOD, few, SCHEDULES[:6], KEYS[:6], mesh=mesh)
    other = Mesh(np.array(jax.devices()), ("data",))
    with pytest.raises(ju.InputError, match="axes \\('data',\\): name an axis"):
        run_ensemble(METHOD, states, SCHEDULES, KEYS, mesh=other)
    with pytest.raises(ju.InputError, match="how='loop' on a mesh"):
        run_ensemble(METHOD, states, SCHEDULES, KEYS, mesh=mesh, how="loop")


def info(loss):
    zero = jnp.float32(0)
    return ju.UnlearnInfo(loss, zero, None, None, None, zero, zero)


def walk_start(model, breaks=-1):
    own = {"key": jax.random.key(5), "name": jnp.int32(model)}
    own["breaks"] = jnp.int32(breaks)
    return ju.UnlearnState(jnp.zeros(3), {}, (), (), own, jnp.int32(0))


def walk(state, batches, key):
    """Walk by the own key and the step's; the loss breaks at a step of the own."""
    own = state.objective_state
    drawn = jax.random.normal(key, (3,)) + jax.random.normal(own["key"], (3,))
    params = state.params + drawn
    for part in batches:
        if part is not None:
            params = params + jnp.mean(part.inputs)
    own = {**own, "key": jax.random.fold_in(own["key"], own["name"])}
    loss = jnp.where(own["breaks"] == state.step, jnp.nan, jnp.sum(params))
    new = state._replace(params=params, objective_state=own, step=state.step + 1)
    return new, info(loss)


WALKER = ju.Unlearner(lambda params, model_state: walk_start(0), walk)


def walkers(count=3):
    return stack([walk_start(i) for i in range(count)])


def walk_schedules(length, count=3):
    return [
        [ju.UnlearnBatch(batch(10 * i + t, 4)) for t in range(length)]
        for i in range(count)
    ]


@pytest.mark.parametrize("how", ["auto", "vmap", "map", "loop"])
def test_random_keys_in_the_state_generators_and_forms(how):
    schedules = walk_schedules(4)
    for steps in schedules:  # as a sequential schedule has them
        steps[2] = ju.UnlearnBatch(retain=steps[2].forget)
    drawn = []

    def once(steps):
        for one in steps:
            drawn.append(1)
            yield one

    generators = [once(steps) for steps in schedules]
    done = run_ensemble(WALKER, walkers(), generators, KEYS[:3], how=how)
    assert len(drawn) == 12
    for i, got in enumerate(unstack(done)):
        expected = ju.run(WALKER, walk_start(i), schedules[i], KEYS[i], scan=1)
        trees_close(got, expected, rtol=1e-5)
    assert done.step.tolist() == [4, 4, 4]


@pytest.mark.parametrize("how", ["auto", "map"])
def test_several_models_on_a_device(how):
    pair = Mesh(np.array(jax.devices()[:2]), ("ensemble",))
    schedules, keys = walk_schedules(3, 4), KEYS[:4]
    done = run_ensemble(WALKER, walkers(4), schedules, keys, how=how, mesh=pair)
    expected = run_ensemble(WALKER, walkers(4), schedules, keys, how="loop")
    trees_close(jax.device_get(done.params), expected.params, rtol=1e-5)
    shards = [shard.data.shape for shard in done.params.addressable_shards]
    assert shards == [(2, 3)] * 2


@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_resumed_is_uninterrupted_and_the_callers_states_are_kept(how):
    schedules, states, keys = walk_schedules(4), walkers(), KEYS[:3]
    whole = run_ensemble(WALKER, states, schedules, keys, how=how)
    parts = [steps[:2] for steps in schedules], [steps[2:] for steps in schedules]
    half = run_ensemble(WALKER, states, parts[0], keys, how=how)
    rest = run_ensemble(WALKER, half, parts[1], keys, how=how)
    trees_close(rest, whole, rtol=1e-6)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((states, half)))
    np.testing.assert_array_equal(states.params, np.zeros((3, 3)))


@pytest.mark.parametrize("how", ["vmap", "map", "loop"])
@pytest.mark.parametrize("check_every", [1, 3, 50])
def test_non_finite_losses_name_model_and_step(how, check_every):
    states = stack([walk_start(i, breaks) for i, breaks in enumerate((16, -1, 14))])
    states = states._replace(step=states.step + 10)  # of an earlier run
    with pytest.raises(
        ju.NonFiniteError, match="model 2 is not finite at step 14$"
    ) as e:
        run_ensemble(
            WALKER,
            states,
            walk_schedules(7),
            KEYS[:3],
            how=how,
            check_every=check_every,
        )
    assert e.value.step == 14


@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_the_callback_sees_all_models_after_each_step(how):
    seen, kept = [], []

    def callback(step, states, infos):
        seen.append((step, states.step.tolist()))
        kept.append(states.params)
        np.testing.assert_allclose(
            infos.forget_loss, np.sum(states.params, axis=1), rtol=1e-5
        )

    run_ensemble(
        WALKER, walkers(), walk_schedules(3), KEYS[:3], how=how, callback=callback
    )
    assert seen == [(n, [n, n, n]) for n in (1, 2, 3)]
    if how == "vmap":  # inner states are donated
        assert [leaf.is_deleted() for leaf in kept] == [True, True, False]


def test_arguments_that_do_not_fit():
    states, schedules, keys = walkers(), walk_schedules(3), KEYS[:3]
    with pytest.raises(ju.InputError, match="unknown how 'vmpa'; did you mean 'vmap'"):
        run_ensemble(WALKER, states, schedules, keys, how="vmpa")
    with pytest.raises(ju.InputError, match="3 states, 2 schedules, 3 keys"):
        run_ensemble(WALKER, states, schedules[:2], keys)
    with pytest.raises(ju.InputError, match="3 states, 3 schedules, 4 keys"):
        run_ensemble(WALKER, states, schedules, KEYS[:4])
    short = [*schedules[:2], schedules[2][:2]]
    with pytest.raises(ju.InputError, match="schedule 2 has 2 steps, others have more"):
        run_ensemble(WALKER, states, short, keys, how="vmap")
    other = [*schedules[:2], [ju.UnlearnBatch(batch(0, 5))] * 3]
    with pytest.raises(ju.InputError, match="tree 2 differs from tree 0"):
        run_ensemble(WALKER, states, other, keys, how="vmap")
    with pytest.raises(ju.InputError, match="leading axes"):
        run_ensemble(WALKER, states._replace(step=jnp.int32(0)), schedules, keys)


@pytest.mark.parametrize("how", ["auto", "vmap", "loop"])
def test_no_batches_are_no_step(how):
    done = run_ensemble(WALKER, walkers(), [[]] * 3, KEYS[:3], how=how)
    assert done.step.tolist() == [0, 0, 0]


def test_auto_takes_the_fastest(monkeypatch):
    times = {"vmap": 3.0, "map": 1.0, "loop": 2.0}
    ran = []
    advance = ensemble._advance

    def watched(way, *rest):
        ran.append(way.how)
        return advance(way, *rest)

    monkeypatch.setattr(ensemble, "_advance", watched)
    monkeypatch.setattr(ensemble, "_seconds", lambda way, *rest: times[way.how])
    run_ensemble(WALKER, walkers(), walk_schedules(3), KEYS[:3])
    assert ran == ["map"] * 3


def test_measuring_leaves_the_states_alone():
    states, schedules, keys = walkers(), walk_schedules(2), KEYS[:3]
    found = step_seconds(WALKER, states, schedules, keys, repeats=1)
    assert sorted(found) == ["loop", "map", "vmap"]
    assert all(0 < seconds < 10 for seconds in found.values())
    np.testing.assert_array_equal(states.params, np.zeros((3, 3)))
    with pytest.raises(ju.InputError, match="repeats=0"):
        step_seconds(WALKER, states, schedules, keys, repeats=0)
    with pytest.raises(ju.InputError, match="0 steps"):
        step_seconds(WALKER, states, [[]] * 3, keys)


def test_stack_keeps_types_and_says_what_differs():
    tree = {"w": jnp.ones(3, jnp.bfloat16), "k": jax.random.key(1), "n": None}
    tree["count"] = jnp.int32(2)
    joined = stack([tree, tree])
    assert joined["w"].dtype == jnp.bfloat16
    assert joined["w"].shape == (2, 3)
    assert joined["n"] is None
    assert not any(getattr(x, "weak_type", False) for x in jax.tree.leaves(joined))
    first = unstack(joined)[0]
    assert forms(first) == forms(tree)
    assert (jax.random.key_data(first["k"]) == jax.random.key_data(tree["k"])).all()
    host = stack([{"x": np.zeros(2, np.uint8)}] * 3)["x"]
    assert isinstance(host, np.ndarray)
    assert host.dtype == np.uint8
    with pytest.raises(ju.InputError, match="tree 1 differs"):
        stack([tree, {**tree, "count": jnp.float32(2)}])
    with pytest.raises(ju.InputError, match="tree 2 differs"):
        stack([tree, tree, {"w": tree["w"]}])
    with pytest.raises(ju.InputError, match="trees=\\[\\]"):
        stack([])
    with pytest.raises(ju.InputError, match="leading axes"):
        unstack({"a": jnp.ones(2), "b": jnp.ones(3)})
    with pytest.raises(ju.InputError, match="leading axes"):
        unstack({})


def test_the_benchmark_runs(monkeypatch, capsys):
    path = Path(__file__).parents[1] / "benchmarks" / "bench_ensemble.py"
    bench = runpy.run_path(str(path))
    options = ["--models", "2", "--epochs", "1", "--network", "linear"]
    monkeypatch.setattr(sys, "argv", ["bench", *options])
    bench["main"]()
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["steps"] == {"train": 10, "unlearn": 10}
    total = found["seconds"]["total"]
    assert found["ratio"]["vmap"] == pytest.approx(total["one by one"] / total["vmap"])
    assert told.err.startswith("2 models of linear on cpu: one by one ")


@pytest.mark.parametrize(("how", "more"), [("vmap", False), ("loop", True)])
def test_convolutions_of_models_side_by_side_are_not_in_parts(how, more, monkeypatch):
    monkeypatch.setattr(ju.programs, "LEAST", 0)
    monkeypatch.setattr(convolution, "PIXELS", 1)
    model = ju.from_nnx(lambda rngs: ju.zoo.SmallCNN(3, width=2, rngs=rngs))
    x, labels = jnp.ones((4, 5, 5, 1)), jnp.zeros(4, jnp.int32)
    alg = ju.methods.finetune(model, optax.sgd(0.1))
    state = alg.init(*jax.jit(model.init)(KEYS[0], x))
    given = state, ju.UnlearnBatch(None, ju.Batch(x, labels)), KEYS[0]
    if how == "vmap":
        given = stack([given] * 2)
    found = {}
    for choice in ("rule", "xla"):
        with ju.programs.using(choice):
            way = ensemble._Way(alg.step, how)
            program = ensemble._step.lower(way, *given).as_text()
        found[choice] = program.count("stablehlo.convolution")
    assert (found["rule"] > found["xla"]) == more
