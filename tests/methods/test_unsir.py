"""UNSIR: noise that errs most, a class gone after impairing, the others back after."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_behaviour import CLASSES, MODEL, accuracy, loss, original, problem
from toys import batch, batchnorm_net, close, softmax64

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.methods.unsir import unsir, unsir_noise

LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
W = jax.random.normal(jax.random.key(3), (4, CLASSES))
KEY = jax.random.key(1)
GONE, COUNT = 0, 30
LABELS = jnp.full(COUNT, GONE, jnp.int32)


def toy_noise(**options):
    default = dict(shape=(12,), low=-3.0, high=3.0)
    return unsir_noise(MODEL, original(), (), LABELS, KEY, **(default | options))


@functools.cache
def noise():
    return ju.Batch(toy_noise(), LABELS)


@functools.cache
def divided(which):
    """Return the samples of the class to forget and the others: trained on, unseen."""
    forget, retain, unseen = problem()
    trained = jax.tree.map(lambda a, b: np.concatenate([a, b]), forget, retain)
    samples = unseen if which == "unseen" else trained
    own = np.asarray(samples.labels) == GONE
    return tuple(
        jax.tree.map(lambda x, rows=rows: jnp.asarray(np.asarray(x)[rows]), samples)
        for rows in (own, ~own)
    )


def test_noise_errs_more_than_its_start_and_than_any_sample():
    start = toy_noise(steps=1, learning_rate=1e-6)
    made = noise().inputs
    assert made.shape == (COUNT, 12)
    assert made.dtype == jnp.float32
    assert np.abs(made).max() <= 3
    first = loss(original(), ju.Batch(start, LABELS))
    last = loss(original(), noise())
    assert last > first + 5
    forget, retain, unseen = problem()
    for samples in (forget, retain, unseen):
        labelled = samples._replace(labels=jnp.zeros_like(samples.labels))
        assert last > loss(original(), labelled)


def test_stationary_point_of_the_penalised_error():
    # unbounded: at the end 2λz/D = ∇CE, in float64
    labels = jnp.array([0, 1, 2])
    penalty, w = 0.5, np.asarray(W, np.float64)
    made = unsir_noise(
        LINEAR,
        W,
        (),
        labels,
        KEY,
        shape=(4,),
        steps=600,
        penalty=penalty,
        low=None,
        high=None,
    )
    z = np.asarray(made, np.float64)
    gradient = (softmax64(z @ w) - np.eye(CLASSES)[np.asarray(labels)]) @ w.T
    np.testing.assert_allclose(2 * penalty * z / 4, gradient, atol=2e-3)
    assert np.abs(z).max() > 1.5
    own = softmax64(z @ w)[np.arange(3), labels]
    assert own.max() < 0.1


def test_bounds_and_where_the_noise_begins():
    options = dict(steps=1, learning_rate=1e-9)
    inside = np.asarray(toy_noise(low=0.2, high=0.4, **options))
    assert inside.min() >= np.float32(0.2)
    assert inside.max() <= np.float32(0.4)
    assert inside.std() > 0.04  # uniform: 0.058
    normal = np.asarray(toy_noise(low=None, high=None, **options))
    assert abs(normal.mean()) < 0.2
    assert abs(normal.std() - 1) < 0.2
    below = np.asarray(toy_noise(low=None, high=0.0, **options))
    np.testing.assert_allclose(below, np.minimum(normal, 0), atol=1e-6)
    pushed = np.asarray(toy_noise(low=0.2, high=0.4))  # clipped after every step
    assert pushed.min() >= np.float32(0.2)
    assert pushed.max() <= np.float32(0.4)


def test_a_row_depends_on_its_own_label_and_place_only():
    # a network with batch statistics: in eval mode samples do not meet
    net = batchnorm_net(CLASSES)
    params, state = jax.jit(net.init)(KEY, jnp.zeros((2, 4)))
    make = functools.partial(unsir_noise, net, params, state, key=KEY, shape=(4,))
    three = make(labels=jnp.array([0, 1, 2]), steps=5)
    five = make(labels=jnp.array([0, 1, 2, 2, 1]), steps=5)
    np.testing.assert_allclose(three, five[:3], atol=1e-6)
    assert np.abs(five[2] - five[3]).max() > 1e-3  # and not all are one image


def test_the_second_call_compiles_nothing():
    traces = []

    def apply(w, x):
        traces.append(1)
        return x @ w

    model = ju.from_stateless(lambda key, x: None, apply)
    labels = jnp.array([0, 1])
    make = functools.partial(unsir_noise, model, labels=labels, key=KEY, shape=(4,))
    first = make(W, (), steps=3, low=0.0)
    count = len(traces)
    others = dict(penalty=0.3, learning_rate=0.05, low=-1.0)
    again = make(2 * W, (), steps=3, **others)
    assert len(traces) == count
    assert np.abs(first - again).max() > 0.1


def mean64(samples):
    x, y = np.asarray(samples.inputs, np.float64), np.asarray(samples.labels)
    error = softmax64(x @ np.asarray(W, np.float64)) - np.eye(CLASSES)[y]
    return x.T @ error / len(y)


@pytest.mark.parametrize("forward", ["separate", "merged"])
def test_steps_descend_on_noise_and_retain_then_on_retain(forward):
    made, retain = batch(0, 5), batch(1, 9)
    alg = unsir(LINEAR, optax.sgd(1.0), forward=forward)
    step = jax.jit(alg.step)
    state, info = step(alg.init(W, ()), ju.UnlearnBatch(made, retain), KEY)
    moved = np.asarray(W, np.float64) - np.asarray(state.params, np.float64)
    if forward == "merged":
        close(moved, (5 * mean64(made) + 9 * mean64(retain)) / 14, scale=5)
    else:
        close(moved, mean64(made) + mean64(retain), scale=5)
    assert info.forget_loss > 0  # descended, not climbed
    repaired, _ = step(alg.init(W, ()), ju.UnlearnBatch(retain=retain), KEY)
    moved = np.asarray(W, np.float64) - np.asarray(repaired.params, np.float64)
    close(moved, mean64(retain), scale=5)


def test_the_class_is_gone_and_the_others_are_back():
    own, others = divided("trained")
    alg = unsir(MODEL, optax.sgd(0.1))
    start = alg.init(original(), ())
    impairing = [ju.UnlearnBatch(noise(), others)] * 60
    repairing = [ju.UnlearnBatch(retain=others)] * 30
    impaired = ju.run(alg, start, impairing, KEY, scan=30)
    repaired = ju.run(alg, impaired, repairing, KEY, scan=30)
    assert accuracy(original(), own) > 0.95
    assert accuracy(impaired.params, own) < 0.15
    assert accuracy(impaired.params, others) < 0.93  # the harm that is repaired
    assert accuracy(repaired.params, others) > 0.96
    assert accuracy(repaired.params, own) < 0.25
    unseen, rest = divided("unseen")
    assert accuracy(repaired.params, unseen) < 0.15
    assert accuracy(repaired.params, rest) > accuracy(original(), rest)
    # as many steps without the noise: the class stays
    tuned = ju.run(alg, start, [ju.UnlearnBatch(retain=others)] * 90, KEY, scan=30)
    assert accuracy(tuned.params, own) > 0.8


def test_mistakes():
    for options, message in (
        ({"steps": 0}, "steps=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"penalty": -1.0}, "penalty=-1.0"),
        ({"low": 1.0, "high": 1.0}, "low=1.0, high=1.0"),
    ):
        with pytest.raises(InputError, match=message):
            toy_noise(**options)
    with pytest.raises(InputError, match="model_state='none'"):
        unsir(LINEAR, optax.sgd(0.1), model_state="none")
