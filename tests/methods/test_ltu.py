"""LTU: both gradients against objectives written out by hand, and what it is for."""

import functools
import itertools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import (
    batch,
    batchnorm_net,
    blobs,
    close,
    forms,
    mlp,
    next_statistics,
    relaxed,
    softmax64,
    trees_close,
)

import jax_unlearn as ju
from jax_unlearn import membership
from jax_unlearn.errors import InputError
from jax_unlearn.membership import AttackParams, Dense, Gaussians

CLASSES, SIZE, COUNT, RATE = 3, 7, 2, 0.5  # COUNT queries of 4 samples
MODEL = mlp(width=6, classes=CLASSES)
ATTACKS = (
    membership.logistic(),
    membership.softmax_mlp(hidden=(4,)),
    membership.gaussian_ratio(),
)
ORDERS = np.array(list(itertools.permutations(range(3))), np.int32)
KEY = jax.random.key(1)
SGD = optax.sgd(1.0, momentum=0.0)  # its state holds the gradient, to the bit


@functools.cache
def learned(seed):
    """Return parameters of the attacks that differ in all that can be learned."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def positive(*shape):
        return 0.5 + normal(*shape) ** 2

    def dense(inputs, outputs):
        return Dense(normal(inputs, outputs), normal(outputs))

    nets = (
        (dense(3, 1),),
        (dense(3, 4), dense(4, 1)),
        Gaussians(normal(1), positive(1), normal(1), positive(1)),
    )
    return {
        attack.name: AttackParams(normal(size), positive(size), net)
        for attack, net, size in zip(ATTACKS, nets, (3, 3, 1), strict=True)
    }


def given_weights():
    """Return a weighting whose weights are its state: one program serves them all."""

    def update(sample, state, *, reference=None):
        del sample, reference
        return state, state

    return ju.Weighting(lambda: jnp.ones(SIZE), update)


def make(**options):
    options = {
        "num_classes": CLASSES,
        "queries": COUNT,
        "attacks": ATTACKS,
        "attack_params": learned(0),
        "inner": optax.sgd(RATE),
        "weighting": given_weights(),
        "optimizer": SGD,
        "model": MODEL,
        **options,
    }
    return ju.methods.ltu(options.pop("model"), options.pop("optimizer"), **options)


def seeing(join=None, **options):
    """Return an unlearner and its compiled step, which also returns (g_f, g_r).

    With `join=None` the harmonizer that looks at them belongs to another unlearner in
    the same program, so that the first one has the default.
    """
    traces = []

    @jax.jit
    def step(state, batches, key, rate):
        traces.append(1)
        assert len(traces) == 1  # one program serves all its tests
        chosen, seen = {"inner": optax.sgd(rate), **options}, []

        def look(g_forget, g_retain):
            seen.append((g_forget, g_retain))
            return g_retain if join is None else join(g_forget, g_retain)

        result = make(harmonizer=look, **chosen).step(state, batches, key)
        if join is None:
            result = make(**chosen).step(state, batches, key)
        return *result, *seen[0]

    def with_rate(state, batches, key, rate=RATE):
        return step(state, batches, key, jnp.float32(rate))

    return make(**options), with_rate


@functools.cache
def default():
    return seeing()


def params_of(seed, scale=1.0):
    params, _ = MODEL.init(jax.random.key(seed), jnp.zeros((1, 4)))
    return jax.tree.map(lambda leaf: scale * (leaf + 0.1), params)


def drawn(seed, *, forget=(2,), retain=(7,)):
    """Return a forget batch of 7 and two queries of 4; the named rows are padding."""
    return ju.UnlearnBatch(
        batch(seed, SIZE, first_index=10, mask=~np.isin(np.arange(SIZE), forget)),
        batch(seed + 1000, 8, first_index=20, mask=~np.isin(np.arange(8), retain)),
    )


PARAMS, BOTH = params_of(0), drawn(0)


# --- the objectives, written out -----------------------------------------------------


def double(tree):
    """Return the tree in numpy, with float32 leaves as float64."""

    def wide(leaf):
        return np.asarray(leaf, np.float64 if leaf.dtype == jnp.float32 else None)

    return jax.tree.map(wide, tree)


def log_probs(params, samples):
    hidden = jnp.tanh(samples.inputs @ params["w"] + params["b"][None])
    return jax.nn.log_softmax(hidden @ params["v"])


def of_class(table, labels):
    return jnp.take_along_axis(table, labels[:, None], axis=1)[:, 0]


def scores(attack_params, table, labels):
    """Return how surely each attack takes each sample for a member, `[3, B]`."""
    own = of_class(table, labels)
    rest = jnp.where(
        jnp.arange(CLASSES, dtype=jnp.int32)[None] == labels[:, None], -jnp.inf, table
    )
    logistic, sorting, ratio = (
        (attack_params[attack.name], features)
        for attack, features in zip(
            ATTACKS,
            (
                jnp.stack([-own, jnp.exp(own), own - rest.max(axis=1)], axis=1),
                -jnp.sort(-jnp.exp(table), axis=1),
                (own - jnp.log(jnp.exp(rest).sum(axis=1)))[:, None],
            ),
            strict=True,
        )
    )

    def normal(params, x):
        return (x - params.mean[None]) / params.std[None]

    def dense(layer, x):
        return x @ layer.weight + layer.bias[None]

    def log_density(mean, var, x):
        return -((x - mean[None]) ** 2) / (2 * var[None]) - jnp.log(var[None]) / 2

    hidden = dense(sorting[0].net[0], normal(*sorting))
    hidden = hidden / (1 + jnp.exp(-hidden))
    z, g = normal(*ratio), ratio[0].net
    return jnp.stack(
        [
            dense(logistic[0].net[0], normal(*logistic))[:, 0],
            dense(sorting[0].net[1], hidden)[:, 0],
            (
                log_density(g.member_mean, g.member_var, z)
                - log_density(g.nonmember_mean, g.nonmember_var, z)
            )[:, 0],
        ]
    )


def mean(values, where):
    total = jnp.sum(jnp.where(where, values, 0.0))
    return total / jnp.maximum(jnp.sum(where.astype(total.dtype)), 1.0)


@jax.jit
def written_out(params, attack_params, targets, weights, batches, rate):
    """Return (g_f for each of the orders, g_r, the query losses), in float64."""
    forget, retain = batches.forget, batches.retain
    part = jnp.arange(SIZE) % 3

    def total(support, queries):
        def objective(params):
            slope = jax.grad(support)(params)
            virtual = jax.tree.map(lambda p, s: p - rate * s, params, slope)
            losses = jnp.stack(queries(virtual))
            return support(params) + jnp.sum(losses), losses

        return jax.grad(objective, has_aux=True)

    def relabelled(params):
        losses = -of_class(log_probs(params, forget), targets)
        return mean(weights * losses, forget.mask)

    def retained(params):
        losses = -of_class(log_probs(params, retain), retain.labels)
        first = jnp.arange(8) < 4
        return [mean(losses, retain.mask & half) for half in (first, ~first)]

    def given_away(order):
        def losses(params):  # each sample's by the attack whose turn its part is
            said = scores(attack_params, log_probs(params, forget), forget.labels)
            return jnp.log(1 + jnp.exp(said[order[part], jnp.arange(SIZE)]))

        def support(params):
            return mean(losses(params), forget.mask & (part == 0))

        def queries(params):
            own = losses(params)
            return [mean(own, forget.mask & (part == number)) for number in (1, 2)]

        return total(support, queries)(params)[0]

    return jax.vmap(given_away)(ORDERS), *total(relabelled, retained)(params)


@jax.jit
def random_label_losses(logits, samples, seed):
    objective = ju.objectives.random_label(MODEL, num_classes=CLASSES, seed=seed)
    return objective.output_loss(logits, samples, KEY, objective.data)[0]


def fixed_labels(samples, seed=0):
    """Return the random labels: those of which the losses tell."""
    logits = np.tile(np.arange(3, dtype=np.float32), (len(samples.labels), 1))
    losses = random_label_losses(logits, samples, np.int32(seed))
    table = -np.log(softmax64(logits))
    found = np.abs(table - np.asarray(losses)[:, None]).argmin(1)
    assert np.all(found != np.asarray(samples.labels))
    return found.astype(np.int32)


def expected(
    batches=BOTH, params=PARAMS, *, weights=None, lent=None, seed=0, rate=RATE
):
    """Return (g_f for each order `[6, n]`, g_r `[n]`, query losses)."""
    weights = np.ones(SIZE) if weights is None else np.asarray(weights, np.float64)
    labels = fixed_labels(batches.forget, seed)
    with jax.enable_x64(True):
        g_forget, g_retain, losses = written_out(
            double(params),
            double(learned(0) if lent is None else lent),
            labels,
            weights,
            double(batches._replace(reference=None)),
            np.float64(rate),
        )
    g_forget, g_retain, losses = double((g_forget, g_retain, losses))
    each = [jax.tree.map(lambda leaf, n=n: leaf[n], g_forget) for n in range(6)]
    return np.stack([flat(tree) for tree in each]), flat(g_retain), losses


def flat(tree):
    return np.concatenate(
        [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    )


def distance(actual, wanted):
    """Return the relative distance of a gradient from a reference that is not 0."""
    size = np.linalg.norm(wanted, axis=-1)
    assert np.all(size > 1e-2)
    return np.linalg.norm(flat(actual) - wanted, axis=-1) / size


def order_of(g_forget, wanted):
    """Return which of the orders of the attacks made this gradient: only one can."""
    found = distance(g_forget, wanted)
    assert np.sum(found < 1e-5) == 1
    assert np.sum(found < 1e-3) == 1
    return ORDERS[found.argmin()]


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


# --- BatchNorm -----------------------------------------------------------------------

PLAIN = batchnorm_net(CLASSES)
PAIR = (membership.logistic(), membership.gaussian_ratio())


def counting_init(key, inputs):
    params, state = PLAIN.init(key, inputs)
    return params, {"norm": state, "passes": jnp.int32(3)}


def counting_apply(params, model_state, inputs, *, train, key=None):
    outputs, norm = PLAIN.apply(params, model_state["norm"], inputs, train=train)
    return outputs, {"norm": norm, "passes": model_state["passes"] + int(train)}


NET = ju.Model(counting_init, counting_apply)  # what has no mean: an integer
NET_PARAMS, NET_STATE = jax.jit(NET.init)(jax.random.key(0), jnp.zeros((1, 4)))
NET_STATE["norm"] = {"mean": jnp.full(4, 0.25), "var": jnp.full(4, 1.5)}
FULL = ju.UnlearnBatch(batch(0, 6), batch(1, 8, first_index=6))


@functools.cache
def in_train_mode():
    """Return a start and a compiled step of "sequential", with the info of "retain"."""
    options = {
        "model": NET,
        "attacks": PAIR,
        "weighting": None,
        "inner": optax.sgd(RATE),
        "inner_steps": 2,
        "first_order": True,
    }
    alg, step = seeing(ju.harmonize.add(), model_state="sequential", **options)
    other = make(model_state="retain", **options)  # the same passes in one program

    @jax.jit
    def both(state):
        return step(state, FULL, KEY), other.step(state, FULL, KEY)

    return alg.init(NET_PARAMS, NET_STATE), both


@functools.partial(jax.jit, static_argnames=("model", "train"))
def mean_loss(params, state, inputs, labels, *, model, train):
    outputs, _ = model.apply(params, state, inputs, train=train)
    return -jnp.mean(of_class(jax.nn.log_softmax(outputs), labels))


def losses_of(model, state, batches, train):
    """Return the support loss and the sum of the two query losses, as functions."""
    labels = fixed_labels(batches.forget)
    loss = functools.partial(mean_loss, model=model, train=train)

    def support(params):
        return loss(params, state, batches.forget.inputs, labels)

    def queries(params):
        inputs, labels = (
            jnp.split(leaf, 2)
            for leaf in (batches.retain.inputs, batches.retain.labels)
        )
        return sum(
            loss(params, state, *query) for query in zip(inputs, labels, strict=True)
        )

    return support, queries


def check_losses(info, support, queries, params, virtual):
    np.testing.assert_allclose(info.forget_loss, support(params), rtol=1e-5)
    np.testing.assert_allclose(info.retain_loss, queries(virtual) / 2, rtol=1e-5)


def moved(support, params, *, rate, steps):
    for _ in range(steps):
        slope = jax.jit(jax.grad(support))(params)
        params = jax.tree.map(lambda p, s: p - rate * s, params, slope)
    return params


def check_statistics(state, passes):
    """Compare with the mean of the states that passes over (params, inputs) make."""
    states = [next_statistics(NET_STATE["norm"], *one) for one in passes]
    for name in ("mean", "var"):
        wanted = np.mean([one[name] for one in states], axis=0)
        np.testing.assert_allclose(state.model_state["norm"][name], wanted, rtol=1e-5)
    assert state.model_state["passes"] == 4


@functools.cache
def of_train_mode():
    """Return support, queries and the parameters after the virtual steps."""
    support, queries = losses_of(NET, NET_STATE, FULL, train=True)
    return support, queries, moved(support, NET_PARAMS, rate=RATE, steps=2)


def test_train_mode_takes_the_mean_of_the_statistics():
    start, step = in_train_mode()
    (sequential, info, *_), (retain, told) = step(start)
    support, queries, virtual = of_train_mode()
    check_losses(info, support, queries, NET_PARAMS, virtual)
    check_losses(told, support, queries, NET_PARAMS, virtual)
    passes = [(virtual, inputs) for inputs in jnp.split(FULL.retain.inputs, 2)]
    check_statistics(retain, passes)
    check_statistics(sequential, [(NET_PARAMS, FULL.forget.inputs), *passes])


def test_first_order_takes_the_virtual_steps_for_constants():
    start, step = in_train_mode()
    (_, _, _, g_retain), _ = step(start)
    support, queries, virtual = of_train_mode()

    @jax.jit
    def by_hand(virtual):
        query = jax.grad(queries)(virtual)
        slope, bent = jax.jvp(jax.grad(support), (NET_PARAMS,), (query,))
        return optax.tree.add(slope, query), bent

    wanted, bent = map(flat, by_hand(virtual))
    assert distance(g_retain, wanted) < 1e-5
    # what second order adds for one step
    assert RATE * np.linalg.norm(bent) > 0.05 * np.linalg.norm(wanted)


def test_attacks_look_at_the_model_in_use():
    start, step = in_train_mode()
    used = {**NET_STATE, "norm": {"mean": jnp.full(4, -0.5), "var": jnp.full(4, 4.0)}}
    (_, info, g_forget, g_retain), _ = step(start)
    (_, told, g_changed, g_same), _ = step(start._replace(model_state=used))
    assert distance(g_changed, flat(g_forget)) > 0.1
    # g_r is normalised with the statistics of its batches, whatever the state
    trees_close(g_same, g_retain, rtol=0, atol=0)
    assert told.retain_loss == info.retain_loss


# --- bad input -----------------------------------------------------------------------


def refusal(message):
    return pytest.raises(InputError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"attacks": ATTACKS[:1]},
            "attacks=['logistic']: give 2 or more membership models, each with its own "
            "name, such as membership.default_attacks()",
        ),
        (
            {"attacks": ()},
            "attacks=[]: give 2 or more membership models, each with its own name, "
            "such as membership.default_attacks()",
        ),
        (
            {"attacks": (*ATTACKS, ATTACKS[0])},
            "attacks=['logistic', 'softmax_mlp', 'gaussian_ratio', 'logistic']: give 2 "
            "or more membership models, each with its own name, such as "
            "membership.default_attacks()",
        ),
        (
            {"attacks": (*ATTACKS, ATTACKS[0]._replace(name="second"))},
            "attack_params lacks 'second': pass what membership.train_attacks returned "
            "for these attacks",
        ),
        ({"queries": 0}, "queries=0 must be at least 1"),
        (
            {"model_state": "none"},
            "model_state='none': choose 'sequential', 'retain' or 'frozen'",
        ),
    ],
)
def test_bad_options(options, message):
    with refusal(message):
        make(**options)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (
            BOTH._replace(retain=batch(1, 5)),
            "5 retain samples in the batch are not queries=2 equal parts; use "
            "ju.data.queried with as many strategies",
        ),
        (
            BOTH._replace(forget=None),
            "ltu reads a forget and a retain batch each step; use ju.data.queried",
        ),
        (
            BOTH._replace(retain=None),
            "ltu reads a forget and a retain batch each step; use ju.data.queried",
        ),
        (
            BOTH._replace(forget=batch(1, 2)),
            "2 forget samples in the batch, 3 attacks: each needs one to look at; "
            "enlarge the batch",
        ),
    ],
)
def test_bad_batches(batches, message):
    alg = make(weighting=None)
    with refusal(message):
        alg.step(alg.init(PARAMS, ()), batches, KEY)


def test_fixed_labels_need_ids():
    unnamed = BOTH._replace(forget=BOTH.forget._replace(index=None))
    alg, redrawn = make(weighting=None), make(weighting=None, redraw=True)
    with pytest.raises(InputError, match=r"^batch.index=None: fixed random labels"):
        alg.step(alg.init(PARAMS, ()), unnamed, KEY)
    state = redrawn.init(PARAMS, ())
    after, info = jax.eval_shape(redrawn.step, state, unnamed, KEY)
    assert forms(after) == forms(state)
    assert info.index is None


# --- what it is for ------------------------------------------------------------------

WIDE = batchnorm_net(CLASSES, width=32)
JUDGES = (membership.logistic(), membership.gaussian_ratio(equal_variance=True))
FORGET, RETAIN, OTHERS = slice(0, 24), slice(24, 120), slice(120, 240)


class Model(NamedTuple):
    params: dict
    state: dict


@functools.cache
def samples():
    """Return three clouds with ten coordinates of noise, shuffled."""
    inputs, labels = blobs(0, 80, spread=1.2)
    rng = np.random.default_rng(1)
    inputs = np.concatenate([inputs, rng.normal(size=(240, 10))], axis=1)
    order = rng.permutation(240)
    ids = np.arange(240, dtype=np.int32)
    return inputs[order].astype(np.float32), labels[order], ids


def rows(chosen):
    return ju.Batch(*(leaf[chosen] for leaf in samples()))


def observed(model):
    """Return the outputs on all samples, and the labels."""
    inputs, labels, _ = samples()
    return membership.Observed(
        jnp.asarray(ju.predict(WIDE, *model, inputs)), jnp.asarray(labels)
    )


def confidence(model, part):
    logits, labels = observed(model)
    return softmax64(logits)[np.arange(240), labels][part].mean()


def accuracy(model, part):
    logits, labels = map(np.asarray, observed(model))
    return (logits.argmax(1) == labels)[part].mean()


@functools.cache
def original():
    """Return a model that has memorised forget and retain samples."""
    alg = ju.methods.finetune(WIDE, relaxed(optax.adam(0.02)))
    known = rows(slice(0, 120))
    start = alg.init(*WIDE.init(jax.random.key(0), known.inputs))
    state = ju.run(alg, start, [ju.UnlearnBatch(retain=known)] * 60, KEY)
    return Model(state.params, state.model_state)


@functools.cache
def trained_attacks():
    seen, unseen = (
        membership.Observed(*(leaf[part] for leaf in observed(original())))
        for part in (RETAIN, OTHERS)
    )
    attacks, infos = membership.train_attacks(JUDGES, seen, unseen, KEY)
    assert min(info.auc for info in infos.values()) > 0.55
    return attacks


def suspicion(model, part):
    """Return the mean score of each attack."""

    @jax.jit
    def scored(attacks, seen):
        return [a.score(attacks[a.name], a.features(*seen)) for a in JUDGES]

    return np.stack(scored(trained_attacks(), observed(model)))[:, part].mean(axis=1)


@functools.cache
def mask():
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: rng.random(leaf.shape) < 0.8, original().params)


class Counted(NamedTuple):
    alg: ju.Unlearner
    start: ju.UnlearnState
    batches: list
    traces: list


@functools.cache
def ahead():
    """Return an unlearner and 80 steps with a uniform and a skewed query."""
    size, labels = 24, samples()[1]
    retained, batches = np.arange(240)[RETAIN], []
    for n in range(80):
        rng = np.random.default_rng(n)
        mixed = rng.choice(retained, size, replace=False)
        skewed = rng.choice(retained[labels[RETAIN] == n % 3], size)
        query = rows(np.concatenate([mixed, skewed]))
        query = query._replace(mask=np.ones(2 * size, bool))
        batches.append(ju.UnlearnBatch(rows(FORGET), query))
    plain = make(
        model=WIDE,
        optimizer=ju.masks.masked(
            optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.5)),
            mask(),
        ),
        inner=optax.sgd(0.1),
        attacks=JUDGES,
        attack_params=trained_attacks(),
    )
    traces = []

    def step(state, batches, key):
        traces.append(1)
        return plain.step(state, batches, key)

    alg = ju.Unlearner(plain.init, step)
    start = alg.init(*original())._replace(weight_state=jnp.ones(size))
    return Counted(alg, start, batches, traces)


@functools.cache
def unlearned(remember=True):
    """Return all states and infos of a run.

    Without `remember` all that g_r looks at is padding, or has weight 0.
    """
    states, infos = [], []

    def keep(done, state, info):
        states.append(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state))
        infos.append(info)

    alg, start, batches, _ = ahead()
    if not remember:
        start = start._replace(weight_state=jnp.zeros(24))
        nobody = np.zeros(48, bool)
        batches = [b._replace(retain=b.retain._replace(mask=nobody)) for b in batches]
    ju.run(alg, start, batches, KEY, callback=keep, scan=1)
    return states, infos


def last(states):
    return Model(states[-1].params, states[-1].model_state)


def test_ltu_forgets_and_retains():
    before, after = original(), last(unlearned()[0])
    assert confidence(before, FORGET) > 0.95
    assert accuracy(before, OTHERS) < 0.9  # there is something to forget
    assert confidence(after, FORGET) < 0.4
    assert np.all(suspicion(before, FORGET) - suspicion(after, FORGET) > 0.5)
    assert accuracy(after, RETAIN) > 0.95
    assert accuracy(after, OTHERS) > accuracy(before, OTHERS) - 0.15


def test_attacks_alone_make_forget_and_g_r_protects():
    before, alone = original(), last(unlearned(remember=False)[0])
    assert confidence(alone, FORGET) < 0.6
    assert np.all(suspicion(before, FORGET) - suspicion(alone, FORGET) > 0.3)
    assert accuracy(alone, RETAIN) < accuracy(last(unlearned()[0]), RETAIN) - 0.1


def test_frozen_is_eval_mode_and_changes_nothing():
    states, infos = unlearned()
    for state in states:
        trees_close(state.model_state, original().state, rtol=0, atol=0)
    support, queries = losses_of(
        WIDE, original().state, ahead().batches[0], train=False
    )
    virtual = moved(support, original().params, rate=0.1, steps=1)
    check_losses(infos[0], support, queries, original().params, virtual)


def test_masked_weights_stay():
    after = last(unlearned()[0]).params
    for leaf, before, free in zip(
        *map(jax.tree.leaves, (after, original().params, mask())), strict=True
    ):
        changed = np.asarray(leaf != before)
        assert not np.any(changed[~free])
        assert changed[free].mean() > 0.9
        assert not np.all(free)


def test_a_run_is_traced_once_resumes_and_equals_scan():
    states, infos = unlearned()
    alg, start, batches, traces = ahead()
    assert all(forms(state) == forms(start) for state in states)
    resumed = ju.run(alg, states[2], batches[3:6], KEY, scan=1)
    assert len(traces) == 1
    trees_close(resumed, states[5], rtol=0, atol=0)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches[:6])
    state, told = jax.jit(lambda s: ju.scan_steps(alg, s, stacked, KEY))(start)
    # another program: rounding, amplified by six steps
    trees_close(state, states[5], rtol=1e-4, atol=1e-5)
    for name in ("forget_loss", "retain_loss", "conflict", "update_norm"):
        wanted = np.stack([getattr(info, name) for info in infos[:6]])
        np.testing.assert_allclose(getattr(told, name), wanted, rtol=1e-3, atol=1e-5)


# --- cost ----------------------------------------------------------------------------

DEPTH, WIDTH, ROWS = 4, 64, 256


def deep_net():
    """Return a network of equal dense layers and a last one of three outputs."""

    def init(key, inputs):
        del key, inputs
        layer = jnp.ones((WIDTH, WIDTH)) / WIDTH
        return [*[layer] * DEPTH, jnp.ones((WIDTH, CLASSES))]

    def apply(params, x):
        for layer in params[:-1]:
            x = jnp.tanh(x @ layer)
        return x @ params[-1]

    return ju.from_stateless(init, apply)


@functools.cache
def program(**options):
    """Return the compiled step of the deep network: B = ROWS, N = 2, b = ROWS."""
    alg = make(
        model=deep_net(),
        attacks=PAIR,
        weighting=None,
        optimizer=optax.sgd(0.1),
        **options,
    )
    state = alg.init(*deep_net().init(KEY, None))
    batches = ju.UnlearnBatch(
        batch(0, ROWS, features=WIDTH), batch(1, COUNT * ROWS, features=WIDTH)
    )
    return jax.jit(alg.step).lower(state, batches, KEY).compile()


def forward_operations():
    """Return F, the operations of one forward pass of one sample."""
    model, inputs = deep_net(), jnp.zeros((ROWS, WIDTH))
    params, _ = model.init(KEY, inputs)
    passed = jax.jit(lambda p, x: model.apply(p, (), x, train=True)[0])
    return passed.lower(params, inputs).compile().cost_analysis()["flops"] / ROWS


def test_operations_are_those_on_paper():
    # a gradient is 3 F a sample, a Hessian-vector product 6 F: support, queries and
    # one product of the support, for g_r and, with the support B/M of B, for g_f
    remembering = 3 * ROWS + COUNT * 3 * ROWS + 6 * ROWS
    support = ROWS / len(PAIR)
    forgetting = 3 * support + 3 * (ROWS - support) + 6 * support
    paper = forward_operations() * (remembering + forgetting)
    assert 0.75 * paper <= program().cost_analysis()["flops"] <= 1.25 * paper


def test_remat_holds_little_more_than_first_order():
    def held(**options):
        return program(**options).memory_analysis().temp_size_in_bytes

    assert held(remat=True) <= 1.3 * held(first_order=True)
    assert held(remat=True) < 0.8 * held()
