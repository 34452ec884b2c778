"""The drivers: keys, chunks, errors, donation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, batchnorm_net, forms, mlp, trees_close

import jax_unlearn as ju


def info(loss, sign=1.0):
    zero = jnp.float32(0)
    return ju.UnlearnInfo(loss * jnp.float32(sign), zero, None, None, None, zero, zero)


@functools.cache
def walker():
    """Return an unlearner that adds a random number and the batch mean at each step."""

    def init(params, model_state):
        return ju.UnlearnState(params, model_state, (), (), (), jnp.int32(0))

    def step(state, batches, key):
        moved = jax.random.normal(key, state.params.shape)
        parts = [part for part in batches if part is not None]
        data = sum((jnp.mean(part.inputs) for part in parts), jnp.float32(0))
        params = state.params + moved + data
        new = state._replace(params=params, step=state.step + 1)
        return new, info(jnp.sum(params))

    return ju.Unlearner(init, step)


def start():
    return walker().init(jnp.zeros(3), {"count": jnp.float32(5)})


def stream(length):
    return [ju.UnlearnBatch(batch(seed, 4)) for seed in range(length)]


KEY = jax.random.key(7)


@jax.jit
def drawn(t):
    return jax.random.normal(jax.random.fold_in(KEY, t), (3,))


def expected_walk(length):
    params = np.zeros(3, np.float32)
    for t, one in enumerate(stream(length)):
        params = params + drawn(t) + np.mean(one.forget.inputs)
    return params


@pytest.mark.parametrize("scan", [None, 1, 3, 4, 50])
def test_every_step_has_its_key_and_batch(scan):
    state = ju.run(walker(), start(), stream(7), KEY, scan=scan)
    np.testing.assert_allclose(state.params, expected_walk(7), rtol=1e-5)
    assert state.step == 7
    assert state.model_state["count"] == 5


@pytest.mark.parametrize("scan", [1, 3])
def test_resumed_is_uninterrupted(scan):
    alg, batches = walker(), stream(7)
    whole = ju.run(alg, start(), batches, KEY, scan=scan)
    half = ju.run(alg, start(), batches[:4], KEY, scan=scan)
    rest = ju.run(alg, half, batches[4:], KEY, scan=scan)
    np.testing.assert_allclose(rest.params, whole.params, rtol=1e-6)
    assert rest.step == 7
    if scan == 1:  # the same program: the same bits
        np.testing.assert_array_equal(rest.params, whole.params)


def test_batches_may_come_from_a_generator_and_none_is_no_step():
    state = ju.run(walker(), start(), (one for one in stream(3)), KEY)
    np.testing.assert_allclose(state.params, expected_walk(3), rtol=1e-5)
    empty = ju.run(walker(), start(), [], KEY)
    assert empty.step == 0


def test_callback_sees_every_step_or_chunk():
    seen = []

    def callback(step, state, last):
        seen.append((step, int(state.step), float(last.forget_loss.reshape(-1)[-1])))
        np.testing.assert_allclose(seen[-1][2], np.sum(state.params), rtol=1e-5)

    ju.run(walker(), start(), stream(5), KEY, callback=callback, scan=1)
    assert [s[:2] for s in seen] == [(n, n) for n in range(1, 6)]
    single = [s[2] for s in seen]
    seen.clear()
    ju.run(walker(), start(), stream(5), KEY, callback=callback, scan=2)
    assert [s[:2] for s in seen] == [(2, 2), (4, 4), (5, 5)]
    np.testing.assert_allclose([s[2] for s in seen], [single[i] for i in (1, 3, 4)])


@pytest.mark.parametrize("scan", [1, 2])
def test_the_callback_stops_the_run_or_rolls_it_back(scan):
    kept = {}

    def stop(done, state, info):
        kept[done] = jax.tree.map(jnp.copy, state)
        return state if done == 4 else None

    def roll_back(done, state, info):
        return kept[2] if done == 4 else None

    stopped = ju.run(walker(), start(), stream(7), KEY, callback=stop, scan=scan)
    np.testing.assert_allclose(stopped.params, expected_walk(4), rtol=1e-5)
    assert max(kept) == 4
    back = ju.run(walker(), start(), stream(7), KEY, callback=roll_back, scan=scan)
    np.testing.assert_allclose(back.params, expected_walk(2), rtol=1e-5)
    on = ju.run(walker(), back, stream(7)[2:], KEY, scan=scan)
    np.testing.assert_allclose(on.params, expected_walk(7), rtol=1e-5)


def test_a_stopped_run_is_still_looked_at():
    def stop(done, state, info):
        return state

    broken = walker().init(jnp.full(3, jnp.nan), ())
    with pytest.raises(ju.NonFiniteError):
        ju.run(walker(), broken, stream(2), KEY, callback=stop)


def test_chunks_end_where_the_form_of_the_batches_changes():
    small, large = (ju.UnlearnBatch(batch(0, size)) for size in (4, 6))
    other = ju.UnlearnBatch(retain=batch(0, 4))
    batches = [small] * 5 + [large] * 2 + [other] * 3 + [small]
    ends = []
    state = ju.run(
        walker(),
        start(),
        batches,
        KEY,
        scan=3,
        callback=lambda step, *_: ends.append(step),
    )
    assert ends == [3, 5, 7, 10, 11]
    loop = ju.run(walker(), start(), batches, KEY, scan=1)
    np.testing.assert_allclose(state.params, loop.params, rtol=1e-5)


@functools.cache
def breaker(at, value, retain=False):
    """Return an unlearner whose loss turns into `value` at the step `at` only."""

    def init(params, model_state):
        return ju.UnlearnState(params, model_state, (), (), (), jnp.int32(0))

    def step(state, batches, key):
        loss = jnp.where(state.step == at, jnp.float32(value), jnp.float32(1))
        told = info(loss)
        if retain:
            told = told._replace(forget_loss=jnp.float32(1), retain_loss=loss)
        return state._replace(step=state.step + 1), told

    return ju.Unlearner(init, step)


@pytest.mark.parametrize("scan", [1, 4])
@pytest.mark.parametrize("check_every", [1, 3, 50])
@pytest.mark.parametrize("at", [0, 4, 10])
def test_non_finite_loss_names_its_step(scan, check_every, at):
    alg = breaker(at, np.nan)
    state = alg.init(jnp.zeros(1), ())
    with pytest.raises(ju.NonFiniteError, match=f"at step {at}$") as caught:
        ju.run(alg, state, stream(1) * 11, KEY, scan=scan, check_every=check_every)
    assert caught.value.step == at


def test_non_finite_step_counts_from_the_start_of_the_whole_run():
    alg = breaker(9, -np.inf, retain=True)
    state = ju.run(alg, alg.init(jnp.zeros(1), ()), stream(1) * 6, KEY)
    with pytest.raises(ju.NonFiniteError) as caught:
        ju.run(alg, state, stream(1) * 6, KEY, check_every=2)
    assert caught.value.step == 9


def test_a_broken_run_stops_early():
    drawn = []

    def batches():
        for one in stream(1) * 100:
            drawn.append(1)
            yield one

    alg = breaker(3, np.inf)
    with pytest.raises(ju.NonFiniteError):
        ju.run(alg, alg.init(jnp.zeros(1), ()), batches(), KEY, check_every=5)
    assert len(drawn) == 5


def test_a_diverging_model_is_reported():
    model = ju.from_stateless(lambda key, x: 0.0, lambda w, x: x @ w)
    alg = ju.methods.gradient_ascent(model, optax.sgd(3e38))
    state = alg.init(jnp.ones((4, 3)), ())
    for steps in (10, 1):  # the loss is finite still, the update is not
        with pytest.raises(ju.NonFiniteError) as caught:
            ju.run(alg, state, [ju.UnlearnBatch(batch(0, 32))] * steps, KEY)
        assert caught.value.step == 0


@pytest.mark.parametrize("scan", [1, 3])
def test_the_callers_state_is_not_donated(scan):
    state = start()
    first = ju.run(walker(), state, stream(3), KEY, scan=scan)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    second = ju.run(walker(), state, stream(3), KEY, scan=scan)
    np.testing.assert_array_equal(first.params, second.params)
    np.testing.assert_array_equal(state.params, np.zeros(3))


def test_inner_states_are_donated():
    # what the docstring of Callback says: the state is gone after the call
    kept = []
    ju.run(
        walker(),
        start(),
        stream(3),
        KEY,
        callback=lambda step, state, last: kept.append(state.params),
    )
    assert [leaf.is_deleted() for leaf in kept] == [True, True, False]


@pytest.mark.parametrize("scan", [0, -2])
def test_impossible_chunk(scan):
    with pytest.raises(ju.InputError, match=f"scan={scan}"):
        ju.run(walker(), start(), stream(2), KEY, scan=scan)


def test_scan_steps_returns_every_info_and_runs_under_vmap():
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *stream(5))
    state, infos = jax.jit(lambda state: ju.scan_steps(walker(), state, stacked, KEY))(
        start()
    )
    np.testing.assert_allclose(state.params, expected_walk(5), rtol=1e-5)
    assert infos.forget_loss.shape == (5,)
    np.testing.assert_allclose(infos.forget_loss[-1], jnp.sum(state.params), rtol=1e-5)
    assert forms(state) == forms(start())
    keys = jnp.stack([KEY, jax.random.key(8)])
    several = jax.jit(
        jax.vmap(lambda key: ju.scan_steps(walker(), start(), stacked, key)[0].params)
    )(keys)
    np.testing.assert_allclose(several[0], state.params, rtol=1e-5)
    assert np.abs(several[0] - several[1]).max() > 0.1


def test_scan_equals_loop_for_a_real_method():
    model = batchnorm_net()
    params, model_state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    alg = ju.methods.random_label(
        model,
        optax.sgd(0.1, momentum=0.9),
        num_classes=3,
        redraw=True,
        weighting=ju.weights.loreun(temperature=0.5),
    )
    batches = [ju.UnlearnBatch(batch(s, 6), batch(s + 9, 6)) for s in range(5)]
    state = alg.init(params, model_state)
    loop = ju.run(alg, state, batches, KEY, scan=1)
    chunked = ju.run(alg, state, batches, KEY, scan=2)
    # two programs: rounding, amplified by five steps
    trees_close(chunked, loop, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 10, 1024])
def test_predict_is_the_forward_pass_in_eval_mode(batch_size):
    model = batchnorm_net()
    params, model_state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    model_state = {"mean": model_state["mean"] + 0.5, "var": model_state["var"] * 2}
    inputs = np.asarray(batch(0, 10).inputs)
    expected, _ = model.apply(params, model_state, jnp.asarray(inputs), train=False)
    got = ju.predict(model, params, model_state, inputs, batch_size=batch_size)
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_predict_compiles_one_shape_and_takes_pytrees():
    traced = []

    def apply(params, inputs):
        traced.append(inputs["a"].shape)
        return inputs["a"] @ params + inputs["b"]

    model = ju.from_stateless(lambda key, x: jnp.ones((2, 1)), apply)
    inputs = {"a": jnp.arange(10.0).reshape(5, 2), "b": jnp.ones((5, 1))}
    got = ju.predict(model, jnp.ones((2, 1)), (), inputs, batch_size=2)
    np.testing.assert_allclose(got[:, 0], [2, 6, 10, 14, 18])
    assert traced == [(2, 2)]


def test_predict_needs_samples():
    model = mlp()
    with pytest.raises(ju.InputError, match="inputs hold 0 samples"):
        ju.predict(model, {}, (), np.zeros((0, 2), np.float32))
    with pytest.raises(ju.InputError, match="batch_size=0"):
        ju.predict(model, {}, (), np.zeros((3, 2), np.float32), batch_size=0)
