"""DELETE and ReGUn: several steps against float64 numpy, and what they do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_behaviour import (
    CLASSES,
    FORGET,
    MODEL,
    RETAIN,
    UNSEEN,
    accuracy,
    confidence,
    original,
    part,
    unlearn,
)
from toys import batch, close, softmax64

import jax_unlearn as ju
from jax_unlearn.errors import InputError

LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
W = jax.random.normal(jax.random.key(3), (4, 3))
KEY = jax.random.key(1)
FORGET_BATCH = batch(0, 6, mask=np.array([1, 1, 0, 1, 1, 0], bool))
RETAIN_BATCH = batch(1, 9, first_index=6, mask=np.arange(9) < 7)
BOTH = ju.UnlearnBatch(FORGET_BATCH, RETAIN_BATCH)
RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.05


def sgd():
    decay = optax.add_decayed_weights(DECAY)
    return optax.chain(decay, optax.sgd(RATE, momentum=MOMENTUM))


def pull64(w, samples, targets):
    """Return the mean gradient and losses of KL(targets ‖ softmax) over real rows."""
    x, mask = np.asarray(samples.inputs, np.float64), np.asarray(samples.mask)
    p = softmax64(x @ w)
    terms = np.where(
        targets > 0, targets * np.log(np.where(targets > 0, targets, 1)), 0
    )
    losses = (terms - np.where(targets > 0, targets * np.log(p), 0)).sum(1)
    return x[mask].T @ (p - targets)[mask] / mask.sum(), losses[mask].mean()


def walk64(gradient, steps):
    w, velocity, path = np.asarray(W, np.float64), 0.0, []
    for _ in range(steps):
        grad, loss = gradient(w)
        velocity = MOMENTUM * velocity + grad + DECAY * w
        w = w - RATE * velocity
        path.append((w, loss))
    return path


def check(alg, gradient, batches):
    state, step = alg.init(W, ()), jax.jit(alg.step)
    for expected, loss in walk64(gradient, 5):
        state, info = step(state, batches, KEY)
        close(state.params, expected, scale=20)
        close(info.forget_loss, loss, scale=20)


def test_delete_in_float64():
    alg = ju.methods.delete(LINEAR, sgd(), teacher_params=W, teacher_state=())
    teacher = np.asarray(FORGET_BATCH.inputs, np.float64) @ np.asarray(W, np.float64)
    labels = np.asarray(FORGET_BATCH.labels)
    teacher[np.arange(len(labels)), labels] = -np.inf
    targets = softmax64(teacher)
    batches = ju.UnlearnBatch(FORGET_BATCH)
    check(alg, lambda w: pull64(w, FORGET_BATCH, targets), batches)


@pytest.mark.parametrize("one", [False, True])
def test_regun_in_float64(one):
    rng = np.random.default_rng(2)
    q, y = (
        softmax64(rng.normal(size=(20, 3))),
        rng.integers(0, 2, 20),
    )  # none of class 2
    table = np.stack([q[y == 0].mean(0), q[y == 1].mean(0), q.mean(0)])
    if one:
        q = np.broadcast_to(q.mean(0), q.shape)
        table = np.stack([q[0]] * 3)
    references = ju.objectives.class_references(q, y, 3)
    close(references, table)
    labels = np.asarray(FORGET_BATCH.labels)[np.asarray(FORGET_BATCH.mask)]
    target = np.mean([table[c] for c in labels], axis=0)
    targets = np.broadcast_to(target, (6, 3))
    truth = np.eye(3)[np.asarray(RETAIN_BATCH.labels)]

    def gradient(w):
        forget, loss = pull64(w, FORGET_BATCH, targets)
        return forget + 0.5 * pull64(w, RETAIN_BATCH, truth)[0], loss

    check(ju.methods.regun(LINEAR, sgd(), references=references), gradient, BOTH)


def test_delete_turns_to_the_other_classes():
    teacher = {"teacher_params": original(), "teacher_state": ()}
    params = unlearn(ju.methods.delete(MODEL, optax.sgd(0.05), **teacher), 50)
    before = confidence(original(), part(FORGET)).mean()
    assert confidence(params, part(FORGET)).mean() < 0.6 * before


def test_regun_forgets_and_passes_the_level_of_unseen_data():
    unseen = part(UNSEEN)
    q = softmax64(ju.predict(MODEL, original(), (), unseen.inputs))
    references = ju.objectives.class_references(q, np.asarray(unseen.labels), CLASSES)
    params = unlearn(
        ju.methods.regun(MODEL, optax.sgd(0.1), references=references), 200
    )
    before, after = (confidence(p, part(FORGET)).mean() for p in (original(), params))
    assert after < 0.6 * before
    # one q for a batch of several classes is sure of none of them
    assert after < confidence(original(), unseen).mean()
    assert accuracy(params, part(RETAIN)) > 0.95


def test_mistakes():
    for q, y in (([[0.5, 0.5]], [0, 1]), (np.zeros((0, 2)), []), (np.eye(3)[:1], [0])):
        with pytest.raises(InputError, match="must be"):
            ju.objectives.class_references(q, y, 2)
    with pytest.raises(InputError, match="classes are 0 to 1"):
        ju.objectives.class_references([[0.5, 0.5]], [2], 2)
    with pytest.raises(InputError, match="retain_share=-1"):
        ju.methods.regun(LINEAR, sgd(), references=jnp.eye(3), retain_share=-1.0)
