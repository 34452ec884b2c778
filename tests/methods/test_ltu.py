"""LTU: both gradients against objectives written out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ltu_made import (
    BOTH,
    KEY,
    PARAMS,
    RATE,
    SIZE,
    default,
    distance,
    drawn,
    expected,
    fixed_labels,
    flat,
    learned,
    log_probs,
    make,
    of_class,
    order_of,
    params_of,
    seeing,
    unflat,
)
from toys import batch, close, forms, trees_close

import jax_unlearn as ju

# --- both gradients ------------------------------------------------------------------

UNSEEN = batch(5, 12)
COUNTS = jnp.array([4, 2, 1])
FALW = ju.weights.falw(COUNTS, tau=0.0)
LOREUN = ju.weights.loreun(temperature=0.5)


@functools.cache
def added():
    return seeing(
        ju.harmonize.add(), remat=True, weighting=ju.weights.chain(LOREUN, FALW)
    )


@functools.cache
def variant(name):
    """Return (state, info, g_f, g_r) of one step of the batch BOTH."""
    if name == "remat, weighted":
        alg, step = added()
        return step(alg.init(PARAMS, ()), BOTH._replace(reference=UNSEEN), KEY)
    alg, step = default()
    rate = 0.0 if name == "no virtual step" else RATE
    return step(alg.init(PARAMS, ()), BOTH, KEY, rate)


@pytest.mark.parametrize("name", ["second order", "no virtual step", "remat, weighted"])
def test_gradients_are_those_of_the_objectives_written_out(name):
    state, info, g_forget, g_retain = variant(name)
    rate = 0.0 if name == "no virtual step" else RATE
    wanted, g_remember, losses = expected(weights=info.weights, rate=rate)
    assert distance(g_retain, g_remember) < 1e-5
    order_of(g_forget, wanted)
    np.testing.assert_allclose(info.retain_loss, np.mean(losses), rtol=1e-5)
    table = log_probs(PARAMS, BOTH.forget)
    relabelled = -of_class(table, jnp.asarray(fixed_labels(BOTH.forget)))
    counted = np.asarray(BOTH.forget.mask)
    close(info.forget_loss, np.asarray(relabelled)[counted].mean(), scale=3)
    close(info.task_losses, -of_class(table, BOTH.forget.labels), scale=3)
    np.testing.assert_array_equal(info.index, [10, 11, -1, 13, 14, 15, 16])
    assert state.step == 1
    for leaf, start, move in zip(
        *map(jax.tree.leaves, (state.params, PARAMS, state.opt_state[0].trace)),
        strict=True,
    ):
        np.testing.assert_allclose(leaf, start - move, rtol=1e-6, atol=1e-6)


def test_steps_with_momentum_and_decay_in_float64():
    """θ ← θ − β·m, m ← 0.9·m + g_r + (g_f without what works against g_r) + λθ."""
    decayed = optax.add_decayed_weights(0.05)
    sgd = optax.chain(decayed, optax.sgd(0.1, momentum=0.9))
    alg = make(optimizer=sgd, weighting=ju.weights.uniform())
    state, step = alg.init(PARAMS, ()), jax.jit(alg.step)
    start = params = np.float64(flat(PARAMS))
    memory, conflicts = 0.0, 0
    for t in range(5):
        batches = drawn(t)
        state, info = step(state, batches, jax.random.fold_in(KEY, t))
        forget, retain, _ = expected(batches, unflat(params))
        found, ends = flat(state.params), []
        for one in forget:  # in the order of the attacks that was drawn
            share = min(one @ retain, 0) / (retain @ retain)
            grad = retain + one - share * retain + 0.05 * params
            ends.append((params - 0.1 * (0.9 * memory + grad), 0.9 * memory + grad))
        nearest = min(ends, key=lambda end: np.linalg.norm(end[0] - found))
        params, memory = nearest
        conflicts += float(info.conflict) < 0
        moved = np.linalg.norm(params - start)
        assert np.linalg.norm(found - params) < 1e-5 * moved, t
    assert conflicts


def test_the_virtual_step_matters():
    for a, b in zip(expected()[:2], expected(rate=0.0)[:2], strict=True):
        off = np.linalg.norm(a - b, axis=-1) / np.linalg.norm(a, axis=-1)
        assert np.all(off > 1e-2)  # a thousand times the tolerance


def test_add_is_the_sum():
    state, info, g_forget, g_retain = variant("remat, weighted")
    forget, retain, joined = map(flat, (g_forget, g_retain, state.opt_state[0].trace))
    np.testing.assert_allclose(joined, forget + retain, rtol=0, atol=1e-6)
    cosine = forget @ retain / np.linalg.norm(forget) / np.linalg.norm(retain)
    np.testing.assert_allclose(info.conflict, cosine, atol=1e-5)


def test_weights_are_those_of_the_forget_batch():
    mask, labels = np.asarray(BOTH.forget.mask), np.asarray(BOTH.forget.labels)
    probs = np.exp(np.asarray(log_probs(PARAMS, BOTH.forget), np.float64))
    probs = probs[np.arange(SIZE), labels]
    raw = mask * probs**2  # exp(−ℓ/τ), ℓ = −log p, τ = ½
    classes = np.asarray(UNSEEN.labels)
    unseen = np.exp(np.asarray(log_probs(PARAMS, UNSEEN), np.float64))
    unseen = unseen[np.arange(12), classes]
    weights = variant("remat, weighted")[1].weights
    for i, k in enumerate(labels):
        peers = unseen[classes == k]
        assert len(peers) > 1
        falw = 1 + np.tanh((probs[i] - peers.mean()) / peers.std())
        loreun = mask.sum() * raw[i] / raw.sum()
        np.testing.assert_allclose(weights[i], falw * loreun, atol=5e-5)


def test_weights_act_on_the_random_labels_only():
    alg, step = default()
    start = alg.init(PARAMS, ())
    weights = jnp.asarray([0.0, 3.0, 9.0, 0.2, 1.0, 0.0, 2.0])
    _, info, g_forget, g_retain = step(start._replace(weight_state=weights), BOTH, KEY)
    np.testing.assert_array_equal(info.weights, np.where(BOTH.forget.mask, weights, 0))
    assert distance(g_retain, expected(weights=weights)[1]) < 1e-5
    _, plain, g_same, g_other = variant("second order")
    trees_close(g_forget, g_same, rtol=0, atol=0)
    assert distance(g_retain, flat(g_other)) > 0.05
    assert info.forget_loss == plain.forget_loss  # unweighted


# --- attacks and padding -------------------------------------------------------------


def test_attacks_take_turns():
    alg, step = default()
    start, wanted = alg.init(PARAMS, ()), expected()[0]
    orders = [
        tuple(order_of(step(start, BOTH, jax.random.key(n))[2], wanted))
        for n in range(40)
    ]
    assert len(set(orders)) == 6  # each is the support, and each looks at each part
    again = [order_of(step(start, BOTH, jax.random.key(n))[2], wanted) for n in (0, 7)]
    assert [orders[0], orders[7]] == [tuple(order) for order in again]


def test_padding_has_no_influence():
    alg, step = default()
    start = alg.init(PARAMS, ())
    plain = drawn(3, forget=(1, 2, 5), retain=(0, 7))  # all three parts have some
    other = drawn(4, forget=(), retain=())

    def padded(samples, rest):
        def swapped(leaf, strange):
            mask = samples.mask.reshape(-1, *[1] * (leaf.ndim - 1))
            return jnp.where(mask, leaf, strange)

        filled = jax.tree.map(swapped, samples, rest._replace(inputs=9 * rest.inputs))
        return filled._replace(mask=samples.mask)

    strange = ju.UnlearnBatch(
        padded(plain.forget, other.forget), padded(plain.retain, other.retain)
    )
    assert jnp.any(strange.forget.inputs != plain.forget.inputs)
    results = [step(start, batches, KEY) for batches in (plain, strange)]
    (state, info, *grads), (same, told, *copies) = results
    trees_close((same, copies), (state, grads), rtol=0, atol=0)
    for name in ("forget_loss", "retain_loss", "conflict", "weights", "index"):
        np.testing.assert_array_equal(getattr(told, name), getattr(info, name))
    wanted, g_remember, _ = expected(plain)
    assert distance(grads[1], g_remember) < 1e-5
    order_of(grads[0], wanted)


def test_nobody_counts_nobody_moves():
    alg, step = default()
    nobody = drawn(0, forget=range(SIZE), retain=range(8))
    state, info, *_ = step(alg.init(PARAMS, ()), nobody, KEY)
    trees_close(state.params, PARAMS, rtol=0, atol=0)
    assert info.forget_loss == info.retain_loss == info.conflict == 0


# --- harmony -------------------------------------------------------------------------


def check_harmony(state, info, g_forget, g_retain, epsilon):
    """Compare what the default harmonizer made with float64; return the cosine."""
    forget, retain = flat(g_forget), flat(g_retain)
    joined = flat(state.opt_state[0].trace)
    assert np.all(np.isfinite(joined))
    dot, square = forget @ retain, retain @ retain
    size = np.linalg.norm(forget) * np.linalg.norm(retain)
    slack = 8 * epsilon * (size + square)
    assert joined @ retain >= square - slack
    assert joined @ retain >= -slack
    kept = forget - dot / square * retain if dot < 0 else forget
    longest = np.linalg.norm(forget) + np.linalg.norm(retain)
    np.testing.assert_allclose(
        joined, kept + retain, rtol=0, atol=4 * epsilon * longest
    )
    cosine = dot / size if size > 0 else 0.0
    np.testing.assert_allclose(info.conflict, cosine, atol=max(1e-5, epsilon))
    return cosine


def lent_state(alg, seed, params, weights):
    """Return a state with attacks, labels and weights of its own."""
    other = make(attack_params=learned(seed), seed=seed)
    state = other.init(params, ())
    assert forms(state) == forms(alg.init(params, ()))
    return state._replace(weight_state=weights)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
    forget=st.sets(st.integers(0, SIZE - 1), max_size=SIZE),
    retain=st.sets(st.integers(0, 7), max_size=8),
)
def test_never_works_against_retain(seed, scale, forget, retain):
    alg, step = default()
    batches = drawn(seed, forget=list(forget), retain=list(retain))
    params = params_of(seed % 7, scale)
    state = lent_state(alg, seed, params, jnp.ones(SIZE))
    result = step(state, batches, jax.random.key(seed))
    check_harmony(*result, epsilon=1.2e-7)
    assert forms(result[0]) == forms(state)


def test_both_conflict_and_agreement_occur():
    alg, step = default()
    cosines = [
        check_harmony(
            *step(lent_state(alg, n, PARAMS, jnp.ones(SIZE)), drawn(n), KEY), 1.2e-7
        )
        for n in range(20)
    ]
    assert min(cosines) < -0.2
    assert max(cosines) > 0.2


def test_nothing_to_remember_conflicts_with_nothing():
    alg, step = default()
    start = lent_state(alg, 0, PARAMS, jnp.zeros(SIZE))
    state, info, g_forget, g_retain = step(start, drawn(0, retain=range(8)), KEY)
    assert not np.any(flat(g_retain))
    assert np.linalg.norm(flat(g_forget)) > 0.01
    trees_close(state.opt_state[0].trace, g_forget, rtol=0, atol=0)
    assert info.conflict == 0


def test_low_precision_parameters():
    def half(tree):
        return jax.tree.map(
            lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, tree
        )

    alg, step = seeing(inner=optax.set_to_zero(), first_order=True)
    conflicts = []
    for n in range(8):
        start = lent_state(alg, n, half(PARAMS), jnp.ones(SIZE))
        state, info, g_forget, g_retain = step(start, half(drawn(n)), KEY)
        assert forms(state) == forms(start)
        conflicts.append(check_harmony(state, info, g_forget, g_retain, epsilon=2**-7))
        # eight bits of mantissa, in every layer and its gradient
        wanted, g_remember, losses = expected(
            drawn(n), lent=learned(n), seed=n, rate=0.0
        )
        assert distance(g_retain, g_remember) < 0.05
        assert np.min(distance(g_forget, wanted)) < 0.05
        np.testing.assert_allclose(info.retain_loss, np.mean(losses), rtol=0.02)
        assert info.forget_loss.dtype == info.retain_loss.dtype == jnp.float32
    assert min(conflicts) < -0.2
    curved = make()
    start = curved.init(half(PARAMS), ())
    assert forms(jax.eval_shape(curved.step, start, half(BOTH), KEY)[0]) == forms(start)


def test_the_step_of_one_unlearner_serves_the_state_of_another():
    alg, step = default()
    start = lent_state(alg, 5, PARAMS, jnp.ones(SIZE))
    _, _, g_forget, g_retain = step(start, BOTH, KEY)
    wanted, g_remember, _ = expected(lent=learned(5), seed=5)
    assert distance(g_retain, g_remember) < 1e-5
    order_of(g_forget, wanted)
    own = expected()
    assert np.min(distance(g_forget, own[0])) > 0.1  # not the attacks of `alg`
    assert distance(g_retain, own[1]) > 0.1  # nor its labels
