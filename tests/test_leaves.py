"""Integers, booleans and random keys among the parameters stay; complex is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, relaxed

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import alike, divided

KEY = jax.random.key(0)
LARGE = 2**30 + 1  # no float32
FORGET, RETAIN = batch(0, 8), batch(1, 8, first_index=8)


def init(key, inputs):
    del inputs
    return {
        "w": jax.random.normal(key, (4, 3)),
        "steps": jnp.int32(LARGE),
        "table": jnp.arange(6, dtype=jnp.uint8),
        "used": jnp.array([True, False]),
        "stream": jax.random.key(3),
    }


MODEL = ju.from_stateless(init, lambda p, x: x @ p["w"])
LOSS = ju.objectives.descent(MODEL)._replace(train=False)


@functools.cache
def params():
    return MODEL.init(KEY, FORGET.inputs)[0]


def others(tree):
    words = {**tree, "stream": jax.random.key_data(tree["stream"])}
    return {k: np.asarray(v) for k, v in words.items() if k != "w"}


def assert_only_floats_moved(after, before=None):
    before = params() if before is None else before
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert not np.array_equal(after["w"], before["w"])
    assert np.isfinite(after["w"]).all()
    for name, value in others(before).items():
        found = others(after)[name]
        assert found.dtype == value.dtype, name
        np.testing.assert_array_equal(found, value, err_msg=name)


OPTIMIZERS = {
    "momentum and decay": optax.chain(
        optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9)
    ),
    "adamw, clipped": relaxed(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))
    ),
    "soft threshold": ju.masks.soft_threshold(optax.sgd(0.1), 1e-4),
    "falling threshold": ju.masks.falling_threshold(optax.sgd(0.1), steps=9),
    "average": optax.chain(optax.sgd(0.1), ju.diffusion.ema_params(0.9)),
    "lookahead": ju.speed.lookahead(optax.sgd(0.1), 2, every=1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_move_floats_alone(name):
    alg = ju.methods.finetune(MODEL, OPTIMIZERS[name])
    state = alg.init(params(), ())
    after = ju.run(alg, state, [ju.UnlearnBatch(retain=RETAIN)] * 2, KEY)
    assert_only_floats_moved(after.params)
    if name == "average":
        average = ju.diffusion.ema_of(after.opt_state, after.params)
        assert_only_floats_moved(average)


def test_one_shot_functions_move_floats_alone():
    fisher = ju.oneshot.fisher_information(LOSS)
    all_samples = fisher(params(), (), [FORGET, RETAIN], KEY)
    own = fisher(params(), (), [FORGET], KEY)
    by_batch = ju.oneshot.fisher_information(LOSS, per="batch")
    assert jax.tree.structure(by_batch(params(), (), [FORGET], KEY)) == (
        jax.tree.structure(own)
    )
    full = {**{name: jnp.ones(()) for name in others(params())}, "w": own["w"]}
    ssd = functools.partial(ju.oneshot.ssd, alpha=0.0, dampening=0.1)
    sets = {"forget": [FORGET], "retain": [RETAIN], "key": KEY}
    update = {**params(), "w": np.float32(1)}
    made = {
        "noise": ju.oneshot.fisher_noise(params(), own, KEY),
        "noise, a leaf for each": ju.oneshot.fisher_noise(params(), full, KEY),
        "ssd": ssd(params(), all_samples, own),
        "ssd, a leaf for each": ssd(params(), full, own),
        "influence": ju.oneshot.influence(LOSS, params(), (), **sets),
        "exact": ju.oneshot.influence(LOSS, params(), (), form="exact", **sets),
        "reset": ju.methods.partial_reset(params(), MODEL.init(KEY, None)[0]),
        "amnesiac": ju.oneshot.amnesiac(
            params(), [{**update, "w": np.ones((4, 3), np.float32)}], [True]
        ),
    }
    for name, after in made.items():
        assert_only_floats_moved(after), name


def test_logged_updates_and_paths_hold_floats_alone():
    alg = ju.methods.finetune(MODEL, optax.sgd(0.1))
    state = alg.init(params(), ())
    steps = [ju.UnlearnBatch(retain=part) for part in (FORGET, RETAIN)]
    log = ju.oneshot.UpdateLog(state, steps)
    after = ju.run(alg, state, steps, KEY, callback=log).params
    back = ju.oneshot.amnesiac(after, log.updates, [True, True])
    assert_only_floats_moved(after)
    np.testing.assert_allclose(back["w"], params()["w"], rtol=1e-5, atol=1e-6)
    assert_only_floats_moved(back, after)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), FORGET, RETAIN)
    trained, path = ju.oneshot.gradient_path(LOSS, params(), both, rates=[0.1] * 4)
    assert path.params.shape == (5, 12)
    assert_only_floats_moved(trained)
    replay = ju.oneshot.deltagrad(LOSS, burn_in=2)
    assert_only_floats_moved(replay(trained, path, both, [1])[0], trained)


def test_gradients_and_masks_are_of_floats_alone():
    gradient = ju.gradients.mean_gradient(LOSS)(params(), (), [FORGET], KEY)
    alone = {"w": params()["w"]}
    plain = ju.gradients.mean_gradient(LOSS)(alone, (), [FORGET], KEY)
    np.testing.assert_array_equal(gradient["w"], plain["w"])
    assert all(leaf is None for name, leaf in gradient.items() if name != "w")
    mask = ju.masks.gradient_saliency(gradient, keep=0.5)
    assert int(mask["w"].sum()) == 6
    support = lambda p: (jnp.sum(p["w"] ** 2), None)  # noqa: E731
    query = lambda p: (jnp.sum(p["w"])[None], None)  # noqa: E731
    meta, _ = ju.gradients.meta_grad(support, query, params(), inner=optax.sgd(0.1))
    assert meta["steps"] is None
    np.testing.assert_allclose(meta["w"], 2 * params()["w"] + 0.8, rtol=1e-5)


@pytest.mark.parametrize("leaves", ["of floats", "of all"])
def test_masks_fit_with_and_without_other_leaves(leaves):
    half = jnp.arange(12).reshape(4, 3) < 6
    every = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, jnp.bool_), params())
    mask = {**(every if leaves == "of all" else dict.fromkeys(every)), "w": half}
    step = [ju.UnlearnBatch(FORGET, RETAIN)]
    told = {"mask": mask, "steps": 2, "forget_rate": 0.1}
    salun = ju.methods.salun(MODEL, optax.sgd(0.1), mask=mask, num_classes=3)
    for alg in (salun, ju.methods.sfron(MODEL, optax.sgd(0.1), **told)):
        after = ju.run(alg, alg.init(params(), ()), step, KEY).params
        assert_only_floats_moved(after)
    after = ju.run(salun, salun.init(params(), ()), step, KEY).params
    np.testing.assert_array_equal(after["w"][2:], params()["w"][2:])


def test_ensembles_and_precision_keep_other_leaves():
    alg = ju.methods.finetune(ju.memory.cast(MODEL), optax.sgd(0.1))
    states = ju.stack([alg.init(params(), ())] * 2)
    schedules, keys = [[ju.UnlearnBatch(retain=RETAIN)]] * 2, jax.random.split(KEY, 2)
    after = ju.run_ensemble(alg, states, schedules, keys, how="vmap")
    for each in ju.unstack(after.params):
        assert_only_floats_moved(each)


def test_states_with_other_leaves_are_saved_and_resumed(tmp_path):
    alg = ju.methods.finetune(MODEL, optax.sgd(0.1, momentum=0.9))
    start, steps = alg.init(params(), ()), [ju.UnlearnBatch(retain=RETAIN)] * 3
    series = ju.Series(tmp_path / "run", {"seed": 0}, seconds=0)
    ju.run(alg, start, steps[:2], KEY, callback=series.callback)
    state = ju.Series(tmp_path / "run", {"seed": 0}).latest(start)
    resumed = ju.run(alg, state, steps[2:], KEY)
    whole = ju.run(alg, start, steps, KEY)
    np.testing.assert_array_equal(resumed.params["w"], whole.params["w"])
    assert_only_floats_moved(resumed.params)
    ju.checkpoint.save(tmp_path / "model", whole.params, {})
    loaded = ju.checkpoint.load(tmp_path / "model", params())
    assert_only_floats_moved(loaded)


def test_complex_leaves_are_named_and_refused():
    bad = {"body": {"w": jnp.ones((4, 3), jnp.complex64)}, "v": jnp.ones(3)}
    fisher = {"body": {"w": jnp.ones((4, 3))}, "v": jnp.ones(3)}
    entries = {
        "init": lambda: ju.methods.finetune(MODEL, optax.sgd(0.1)).init(bad, ()),
        "ssd": lambda: ju.oneshot.ssd(bad, fisher, fisher),
        "noise": lambda: ju.oneshot.fisher_noise(bad, fisher, KEY),
        "amnesiac": lambda: ju.oneshot.amnesiac(bad, [], np.zeros(0, np.bool_)),
        "reset": lambda: ju.methods.partial_reset(bad, bad),
        "fisher": lambda: ju.oneshot.fisher_information(LOSS)(bad, (), [FORGET], KEY),
        "saliency": lambda: ju.masks.gradient_saliency(bad, keep=0.5),
        "gradient": lambda: ju.gradients.mean_gradient(LOSS)(bad, (), [FORGET], KEY),
    }
    for entry in entries.values():
        with pytest.raises(InputError, match="'body/w' is of type complex64"):
            entry()


def test_parts_go_back_together():
    tree = {"a": jnp.ones(2), "n": np.int64(3), "none": None, "x": 0.5}
    part, whole = divided(tree)
    assert (part["n"], part["x"]) == (None, 0.5)
    assert whole({**part, "x": 1.5})["n"] == tree["n"]
    assert whole({**part, "x": 1.5})["x"] == 1.5
    assert alike({"a": 1, "n": 2, "none": None, "x": 3}, part)["n"] is None
    other = {"b": 1}
    assert alike(other, part) is other
