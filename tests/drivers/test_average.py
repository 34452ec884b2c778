"""The moving average of the parameters: each step, by every driver, resumed alike."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, mlp, trees_close

import jax_unlearn as ju

KEY, DECAY = jax.random.key(0), 0.9
MODEL = mlp()
PARAMS, STATE = MODEL.init(KEY, jnp.zeros((1, 4)))
STEPS = [ju.UnlearnBatch(batch(t, 4), batch(t + 9, 4)) for t in range(6)]
ALG = ju.methods.random_label(MODEL, optax.sgd(0.1, momentum=0.9), num_classes=3)
START = ALG.init(PARAMS, STATE)


def expected():
    """Return the average after each step, in float64."""
    found, average = [START], jax.tree.map(np.float64, PARAMS)
    averages = []
    for t, step in enumerate(STEPS):
        found.append(ju.run(ALG, found[-1], [step], KEY))
        rate = min(DECAY, (1 + t) / (10 + t))
        average = jax.tree.map(
            lambda old, new, rate=rate: rate * old + (1 - rate) * np.float64(new),
            average,
            found[-1].params,
        )
        averages.append(average)
    return found[-1], averages


LAST, AVERAGES = expected()


def near(found, wanted):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found,
        wanted,
    )


@pytest.mark.parametrize("scan", [1, 2, 4])
def test_a_run_keeps_it_step_by_step(scan):
    state = ju.run(ALG, START, STEPS, KEY, scan=scan, ema=DECAY)
    near(ju.ema_of(state), AVERAGES[-1])
    trees_close(state.params, LAST.params, rtol=1e-5, atol=1e-6)
    assert state.ema.count == len(STEPS)


def test_a_callback_sees_it():
    seen = []

    def look(step, state, info):
        seen.append(jax.device_get(ju.ema_of(state)))

    ju.run(ALG, START, STEPS, KEY, ema=DECAY, callback=look, scan=1)
    for found, wanted in zip(seen, AVERAGES, strict=True):
        near(found, wanted)


def test_scan_steps_keeps_it():
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *STEPS)
    state, _ = jax.jit(
        lambda state: ju.scan_steps(ALG, state, stacked, KEY, ema=DECAY)
    )(START)
    near(ju.ema_of(state), AVERAGES[-1])


@pytest.mark.parametrize("how", ["loop", "vmap", "map"])
def test_ensembles_keep_it(how):
    alg = ju.averaged(ALG, DECAY)
    states = ju.stack([alg.init(PARAMS, STATE)] * 2)
    keys = jnp.stack([KEY, KEY])
    states = ju.run_ensemble(alg, states, [STEPS] * 2, keys, how=how)
    for state in ju.unstack(states):
        near(ju.ema_of(state), AVERAGES[-1])


def test_your_own_loop_keeps_it():
    alg = ju.averaged(ALG, DECAY)
    step, state = jax.jit(alg.step), alg.init(PARAMS, STATE)
    for t, one in enumerate(STEPS):
        state, _ = step(state, one, jax.random.fold_in(KEY, t))
    near(ju.ema_of(state), AVERAGES[-1])
    assert ju.averaged(ALG, DECAY).step is alg.step  # compiled once


@pytest.mark.parametrize("scan", [1, 2])
def test_resumed_it_is_the_same_bit_for_bit(tmp_path, scan):
    whole = ju.run(ALG, START, STEPS, KEY, ema=DECAY, scan=scan)
    series = ju.Series(tmp_path, {"seed": 0}, seconds=0)
    assert series.latest(START) is None
    told = {"ema": DECAY, "scan": scan}
    ju.run(ALG, START, STEPS[:4], KEY, callback=series.callback, **told)
    half = ju.Series(tmp_path, {"seed": 0}).latest(START)
    assert half.step == 4
    rest = ju.run(ALG, half, STEPS[4:], KEY, **told)
    trees_close(rest, whole, rtol=0, atol=0)
    template = ju.averaged(ALG, DECAY).init(PARAMS, STATE)
    trees_close(ju.Series(tmp_path, {"seed": 0}).latest(template), half)


def test_it_follows_moves_that_are_not_the_optimizers():
    mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), PARAMS)
    told = {"mask": mask, "steps": 9, "forget_rate": 0.1}
    alg = ju.methods.sfron(MODEL, optax.set_to_zero(), **told)
    start = alg.init(PARAMS, STATE)
    state = ju.run(alg, start, STEPS[:1], KEY, ema=0.5)
    moved = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, PARAMS, state.params)
    trees_close(ju.ema_of(state), moved, rtol=1e-5)


def test_optimizers_keep_the_same_one():
    optimizer = optax.chain(
        optax.sgd(0.1, momentum=0.9), ju.diffusion.ema_params(DECAY)
    )
    alg = ju.methods.random_label(MODEL, optimizer, num_classes=3)
    state = ju.run(alg, alg.init(PARAMS, STATE), STEPS, KEY)
    near(ju.ema_of(state), AVERAGES[-1])
    near(ju.ema_of(state.opt_state), AVERAGES[-1])


@pytest.mark.parametrize("decay", [1.0, -0.1, 2])
def test_what_is_no_decay_is_refused(decay):
    with pytest.raises(ju.InputError, match="decay="):
        ju.run(ALG, START, STEPS, KEY, ema=decay)


def test_without_one_there_is_none():
    with pytest.raises(ju.InputError, match=r"ema=0.999"):
        ju.ema_of(ju.run(ALG, START, STEPS[:1], KEY))
