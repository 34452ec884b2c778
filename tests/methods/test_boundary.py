"""Boundary shrink and expand: single steps by hand, the neuron kept apart, forgetting.

A linear network whose features are its inputs has a closed form; the others are in
`test_behaviour`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_behaviour import FORGET as WHICH_FORGET
from test_behaviour import (
    MODEL,
    RETAIN,
    UNSEEN,
    accuracy,
    confidence,
    loss,
    original,
    part,
    unlearn,
)
from toys import (
    batch,
    batchnorm_net,
    close,
    forms,
    next_statistics,
    softmax64,
    trees_close,
)

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.methods.boundary import boundary_expand, boundary_shrink
from jax_unlearn.objectives.boundary import boundary_labels

CLASSES, SIZE, WIDTH = 3, 6, 4
LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
SAME = ju.from_stateless(lambda key, x: None, lambda w, x: x)  # features = inputs
HIDDEN = ju.from_stateless(
    lambda key, x: None, lambda p, x: jnp.tanh(x @ p["w"] + p["b"][None])
)
W = jax.random.normal(jax.random.key(3), (WIDTH, CLASSES))
KEY = jax.random.key(1)
FORGET = batch(0, SIZE, mask=np.array([1, 1, 0, 1, 1, 0], bool))
BATCH = ju.UnlearnBatch(FORGET)
X, MASK = np.asarray(FORGET.inputs, np.float64), np.asarray(FORGET.mask)
ROWS = np.arange(SIZE)


def expand(optimizer=None, head=None, **options):
    return boundary_expand(
        LINEAR,
        SAME,
        optax.sgd(1.0) if optimizer is None else optimizer,
        head_optimizer=optax.sgd(0.5) if head is None else head,
        num_classes=CLASSES,
        width=WIDTH,
        **options,
    )


def float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


# --- shrink --------------------------------------------------------------------------


def test_shrink_step_with_weights():
    table = np.array([1, 2, 0, 1, 0, 2])
    weighting = ju.weights.loreun(temperature=0.5)
    alg = boundary_shrink(
        LINEAR, optax.sgd(1.0), labels=jnp.asarray(table), weighting=weighting
    )
    state, info = jax.jit(alg.step)(alg.init(W, ()), BATCH, KEY)
    probs = softmax64(X @ float64(W))
    true = -np.log(probs[ROWS, FORGET.labels])
    weights = MASK * np.exp(-true / 0.5)
    weights *= MASK.sum() / weights.sum()
    error = probs - np.eye(CLASSES)[table]
    expected = np.einsum("b,bi,bk->ik", weights, X, error) / MASK.sum()
    close(float64(W) - float64(state.params), expected, scale=3)
    close(info.weights, weights, scale=5)
    losses = -np.log(probs[ROWS, table])
    close(info.forget_loss, losses[MASK].mean(), scale=5)
    assert info.retain_loss == 0  # the retain set is unused


@functools.cache
def nearest():
    forget = part(WHICH_FORGET)
    labels = jax.jit(functools.partial(boundary_labels, MODEL))(
        original(), (), forget.inputs, forget.labels
    )
    return jnp.zeros(250, jnp.int32).at[forget.index].set(labels)


def test_shrink_moves_forget_samples_to_their_nearest_wrong_class():
    forget, table = part(WHICH_FORGET), nearest()
    params = unlearn(boundary_shrink(MODEL, optax.sgd(0.02), labels=table), 200)
    assert accuracy(original(), forget) == 1
    assert accuracy(params, forget) < 0.2
    assert confidence(params, forget).mean() < 0.4
    got = ju.predict(MODEL, params, (), forget.inputs).argmax(1)
    assert (got == np.asarray(table)[forget.index]).mean() > 0.8


# --- expand --------------------------------------------------------------------------


def expand64(state, weights):
    """Return the gradients of the weights and of the neuron, and the losses."""
    neuron = float64(state.objective_state.neuron)
    extra = X @ neuron["kernel"] + neuron["bias"]
    probs = softmax64(np.concatenate([X @ float64(state.params), extra[:, None]], 1))
    error = probs - np.eye(CLASSES + 1)[np.full(SIZE, CLASSES)]
    scaled = (weights * MASK / MASK.sum())[:, None] * error
    joint = X.T @ scaled
    bias = scaled[:, CLASSES].sum()
    return joint[:, :CLASSES], (joint[:, CLASSES], bias), -np.log(probs[:, CLASSES])


def test_expand_step_with_weights_of_the_real_classes():
    alg = expand(weighting=ju.weights.loreun(temperature=0.5))
    start = alg.init(W, ())
    probs = softmax64(X @ float64(W))  # K classes: what the weights look at
    true = -np.log(probs[ROWS, FORGET.labels])
    weights = MASK * np.exp(-true / 0.5)
    weights *= MASK.sum() / weights.sum()
    grads, (kernel, bias), losses = expand64(start, weights)
    state, info = jax.jit(alg.step)(start, BATCH, KEY)
    close(float64(W) - float64(state.params), grads, scale=5)
    old, new = (float64(s.objective_state.neuron) for s in (start, state))
    close(old["kernel"] - new["kernel"], 0.5 * kernel, scale=5)  # its own rate
    close(old["bias"] - new["bias"], 0.5 * bias, scale=5)
    close(info.weights, weights, scale=5)
    close(info.task_losses, true, scale=5)
    close(info.forget_loss, losses[MASK].mean(), scale=5)
    np.testing.assert_array_equal(info.index, [0, 1, -1, 3, 4, -1])
    assert state.step == 1


def test_expand_differentiates_the_features_too():
    alg = boundary_expand(
        MODEL,
        HIDDEN,
        optax.sgd(1.0),
        head_optimizer=optax.sgd(1.0),
        num_classes=CLASSES,
        width=32,
    )
    state, forget = alg.init(original(), ()), part(WHICH_FORGET)

    def mean_loss(params, neuron):
        hidden = jnp.tanh(forget.inputs @ params["w"] + params["b"][None])
        extra = hidden @ neuron["kernel"][:, None] + neuron["bias"]
        wide = jnp.concatenate([hidden @ params["v"], extra], axis=1)
        return -jnp.mean(jax.nn.log_softmax(wide)[:, CLASSES])

    neuron = state.objective_state.neuron
    grads = jax.jit(jax.grad(mean_loss, argnums=(0, 1)))(state.params, neuron)
    new, _ = jax.jit(alg.step)(state, ju.UnlearnBatch(forget), KEY)
    expected = jax.tree.map(jnp.subtract, (state.params, neuron), grads)
    got = (new.params, new.objective_state.neuron)
    trees_close(got, expected, rtol=1e-5, atol=1e-6)


def test_expand_forgets_and_the_neuron_is_never_among_the_parameters():
    def forgetting(optimizer):
        return boundary_expand(
            MODEL,
            HIDDEN,
            optimizer,
            head_optimizer=optax.sgd(0.1),
            num_classes=CLASSES,
            width=32,
        )

    traces, shapes = [], set()
    alg = forgetting(optax.sgd(0.1))

    def step(state, samples, key):
        traces.append(1)
        return alg.step(state, samples, key)

    def look(done, state, info):
        shapes.add(str(jax.tree.map(jnp.shape, state.params)))

    counted = ju.Unlearner(alg.init, step)
    steps = [ju.UnlearnBatch(part(WHICH_FORGET))] * 100
    start = alg.init(original(), ())
    end = ju.run(counted, start, steps, KEY, callback=look, scan=1)
    assert len(traces) == 1
    assert forms(end) == forms(start)
    assert shapes == {str(jax.tree.map(jnp.shape, original()))}
    forget = part(WHICH_FORGET)
    assert confidence(end.params, forget).mean() < 0.75  # from 0.95
    assert loss(end.params, forget) > 4 * loss(original(), forget)
    for which in (RETAIN, UNSEEN):  # it knows no retain set, and harms it less
        kept = confidence(end.params, part(which)).mean()
        before = confidence(original(), part(which)).mean()
        lost = confidence(original(), forget) - confidence(end.params, forget)
        assert before - kept < lost.mean()
    # the samples did go to the extra class: it is not just the logits that faded
    neuron = float64(end.objective_state.neuron)
    hidden = np.asarray(HIDDEN.apply(end.params, (), forget.inputs, train=False)[0])
    logits = ju.predict(MODEL, end.params, (), forget.inputs)
    extra = hidden @ neuron["kernel"] + neuron["bias"]
    assert (extra > logits.max(1)).all()
    # resumed, and by chunks
    half = ju.run(alg, start, steps[:50], KEY, scan=50)
    trees_close(ju.run(alg, half, steps[50:], KEY, scan=50), end, rtol=1e-4, atol=1e-5)


def test_a_mask_of_the_network_fits_and_holds():
    mask = jnp.asarray(np.random.default_rng(0).random(W.shape) < 0.5)
    decayed = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.5, momentum=0.9))
    alg = expand(ju.masks.masked(decayed, mask))
    state, step = alg.init(W, ()), jax.jit(alg.step)
    for _ in range(3):
        state, _ = step(state, BATCH, KEY)
    np.testing.assert_array_equal(np.asarray(state.params != W), mask)


def test_the_network_alone_or_the_neuron_alone():
    still = optax.set_to_zero()
    for optimizer, head, moves in (
        (still, optax.sgd(1.0), (False, True)),
        (optax.sgd(1.0), still, (True, False)),
    ):
        alg = expand(optimizer, head)
        start = alg.init(W, ())
        state, _ = jax.jit(alg.step)(start, BATCH, KEY)
        neurons = (s.objective_state.neuron["kernel"] for s in (start, state))
        assert (
            bool(jnp.any(state.params != W)),
            bool(jnp.any(jnp.not_equal(*neurons))),
        ) == moves


def test_batch_statistics_are_those_of_one_pass():
    net = batchnorm_net(CLASSES)
    params, model_state = jax.jit(net.init)(KEY, FORGET.inputs)

    def hidden(params, state, inputs, *, train, key=None):
        return jax.nn.relu(inputs @ params["w"]), {
            name: 99 + leaf for name, leaf in state.items()
        }

    whole = FORGET._replace(mask=None)
    for mode, expected in (
        ("sequential", next_statistics(model_state, params, FORGET.inputs)),
        ("frozen", float64(model_state)),
    ):
        alg = boundary_expand(
            net,
            ju.Model(net.init, hidden),
            optax.sgd(0.1),
            head_optimizer=optax.sgd(0.1),
            num_classes=CLASSES,
            width=WIDTH,
            model_state=mode,
        )
        start = alg.init(params, model_state)
        state, _ = jax.jit(alg.step)(start, ju.UnlearnBatch(whole), KEY)
        for name, leaf in expected.items():
            np.testing.assert_allclose(state.model_state[name], leaf, rtol=1e-5)


def test_falw_reads_the_reference_through_the_network():
    alg = expand(weighting=ju.weights.falw(jnp.array([2, 2, 2]), tau=0.0))
    unseen = batch(2, 12)
    state = alg.init(W, ())
    _, info = jax.jit(alg.step)(state, BATCH._replace(reference=unseen), KEY)
    probs = softmax64(float64(unseen.inputs) @ float64(W))[np.arange(12), unseen.labels]
    own = softmax64(X @ float64(W))
    for i, k in enumerate(np.asarray(FORGET.labels)):
        peers = probs[np.asarray(unseen.labels) == k]
        expected = 1 + np.tanh((own[i, k] - peers.mean()) / peers.std())
        np.testing.assert_allclose(info.weights[i], expected * MASK[i], atol=2e-5)


def test_init_copies_and_donation_spares_the_caller():
    params = jnp.array(W, copy=True)
    alg = expand(optax.sgd(0.1, momentum=0.9))
    state = alg.init(params, ())
    assert len({id(leaf) for leaf in jax.tree.leaves(state)}) == len(
        jax.tree.leaves(state)
    )
    jax.block_until_ready(jax.jit(alg.step, donate_argnums=0)(state, BATCH, KEY))
    assert not params.is_deleted()


def test_states_of_several_seeds_at_once():
    algs = [expand(seed=seed) for seed in (0, 1)]
    states = [alg.init(W, ()) for alg in algs]
    kernels = [state.objective_state.neuron["kernel"] for state in states]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
    assert max(np.abs(kernel).max() for kernel in kernels) <= WIDTH**-0.5
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    step = jax.jit(jax.vmap(algs[0].step, in_axes=(0, None, None)))
    several, _ = step(stacked, BATCH, KEY)
    for i, state in enumerate(states):
        alone, _ = jax.jit(algs[0].step)(state, BATCH, KEY)
        trees_close(jax.tree.map(lambda leaf, i=i: leaf[i], several), alone, atol=1e-6)


def fail(make, *args, **options):
    alg = make(*args, **options)
    jax.eval_shape(alg.step, alg.init(W, ()), BATCH, KEY)


def test_mistakes():
    with pytest.raises(InputError, match="one integer class"):
        boundary_shrink(LINEAR, optax.sgd(0.1), labels=jnp.zeros(3))
    with pytest.raises(InputError, match="model_state='none'"):
        expand(model_state="none")
    options = dict(head_optimizer=optax.sgd(0.1))
    for sizes, message in (
        (dict(num_classes=0, width=4), "num_classes=0"),
        (dict(num_classes=5, width=4), "num_classes=5"),
        (dict(num_classes=3, width=7), "width=7"),
    ):
        with pytest.raises(InputError, match=message):
            fail(boundary_expand, LINEAR, SAME, optax.sgd(0.1), **options, **sizes)
    alg = expand()
    with pytest.raises(InputError, match="no batch for any of its losses"):
        alg.step(alg.init(W, ()), ju.UnlearnBatch(retain=FORGET), KEY)
