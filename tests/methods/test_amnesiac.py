"""Amnesiac relabelling: wrong labels for good, one pass over the union."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, blobs, close, mlp, relaxed, softmax64

import jax_unlearn as ju
from jax_unlearn.data import Examples, merged
from jax_unlearn.errors import InputError
from jax_unlearn.methods.relabel import amnesiac_relabel

CLASSES = 2  # the wrong label is the other one, whatever is drawn
KEY = jax.random.key(1)
SGD = optax.sgd(1.0)
LINEAR = ju.from_stateless(
    lambda key, x: jax.random.normal(key, (x.shape[-1], CLASSES)), lambda w, x: x @ w
)
W = jax.random.normal(jax.random.key(3), (4, CLASSES))
FORGET = batch(0, 6, classes=CLASSES, mask=np.array([1, 1, 0, 1, 1, 0], bool))
RETAIN = batch(1, 9, classes=CLASSES, first_index=6, mask=np.arange(9) < 7)


def gradient64(samples, labels, weights=1.0):
    """Return the sum of w_i ∇CE over the counted samples."""
    x = np.asarray(samples.inputs, np.float64)
    error = softmax64(x @ np.asarray(W, np.float64)) - np.eye(CLASSES)[labels]
    return np.einsum("b,bi,bk->ik", np.asarray(samples.mask) * weights, x, error)


def moved(key=KEY, **options):
    alg = amnesiac_relabel(LINEAR, SGD, num_classes=CLASSES, **options)
    batches = ju.UnlearnBatch(FORGET, RETAIN)
    state, info = jax.jit(alg.step)(alg.init(W, ()), batches, key)
    return np.asarray(W, np.float64) - np.asarray(state.params, np.float64), info


def test_a_step_is_one_mean_over_the_relabelled_union():
    forget = gradient64(FORGET, 1 - np.asarray(FORGET.labels))  # never the true label
    retain = gradient64(RETAIN, np.asarray(RETAIN.labels))
    first, _ = moved()
    close(first, (forget + retain) / 11, scale=3)
    np.testing.assert_array_equal(first, moved(jax.random.key(8))[0])  # fixed labels
    separate, _ = moved(forward="separate", harmonizer=ju.harmonize.add(2.0, 1.0))
    close(separate, 2 * forget / 4 + retain / 7, scale=3)


def test_weights_bear_on_the_forget_samples():
    weighting = ju.weights.loreun(temperature=0.5)
    step, info = moved(weighting=weighting)
    weights = np.asarray(info.weights, np.float64)
    assert np.ptp(weights[np.asarray(FORGET.mask)]) > 0.1
    forget = gradient64(FORGET, 1 - np.asarray(FORGET.labels), weights)
    retain = gradient64(RETAIN, np.asarray(RETAIN.labels))
    close(step, (forget + retain) / 11, scale=5)


def test_it_is_random_label_merged():
    # three classes, so that the draws matter
    samples, others = batch(2, 4, classes=3), batch(3, 4, classes=3, first_index=4)
    net = ju.from_stateless(lambda key, x: x, lambda w, x: x @ w)
    start = jnp.ones((4, 3), jnp.float32)

    def relabelled(seed):
        return ju.methods.random_label(
            net, SGD, num_classes=3, forward="merged", seed=seed
        )

    def end(step, state):
        state, _ = step(state, ju.UnlearnBatch(samples, others), KEY)
        return np.asarray(state.params)

    alg = amnesiac_relabel(net, SGD, num_classes=3, seed=5)
    mine = end(jax.jit(alg.step), alg.init(start, ()))
    step = jax.jit(relabelled(5).step)
    np.testing.assert_array_equal(mine, end(step, relabelled(5).init(start, ())))
    other = end(step, relabelled(6).init(start, ()))  # the seed travels in the state
    assert np.abs(mine - other).max() > 1e-3


def test_mistakes_are_named():
    with pytest.raises(InputError, match="num_classes=1"):
        amnesiac_relabel(LINEAR, SGD, num_classes=1)
    with pytest.raises(InputError, match="forward='merged' makes one gradient"):
        moved(harmonizer=ju.harmonize.add())


@functools.cache
def trained():
    """Return a network, its data and parameters that know all of it."""
    examples = Examples(*blobs(0, 30, spread=0.4))
    model = mlp(width=16)
    params, _ = model.init(jax.random.key(0), examples.inputs)
    samples = ju.Batch(*map(jnp.asarray, examples))
    alg = ju.methods.finetune(model, relaxed(optax.adam(0.05)))
    batches = [ju.UnlearnBatch(retain=samples)] * 50
    state = ju.run(alg, alg.init(params, ()), batches, KEY, scan=50)
    return model, examples, state.params


def test_a_forgotten_class_is_not_recognised_and_the_others_are():
    model, examples, original = trained()
    forget, retain = np.arange(30), np.arange(30, 90)  # the whole of class 0

    def accuracy(params, ids):
        logits = ju.predict(model, params, (), examples.inputs[ids])
        return (logits.argmax(1) == examples.labels[ids]).mean()

    assert accuracy(original, forget) > 0.95
    traces = []
    alg = amnesiac_relabel(model, optax.sgd(0.3), num_classes=3)

    def step(state, batches, key):
        traces.append(1)
        return alg.step(state, batches, key)

    schedule = merged(examples, forget, retain, batch_size=24, epochs=20)
    start = alg.init(original, ())
    params = ju.run(alg._replace(step=step), start, schedule, KEY).params
    assert len(traces) == 1
    assert accuracy(params, forget) < 0.1
    assert accuracy(params, retain) > 0.95
