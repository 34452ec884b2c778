"""LoTUS: steps against float64 numpy, the temperature it sets, and where it ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_behaviour import (
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
from toys import batch, close, softmax64, three_digits

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import subject_of

LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
W = jax.random.normal(jax.random.key(3), (4, 3))
TEACHER = {"teacher_params": 2 * W, "teacher_state": ()}
RATE, MOMENTUM, DECAY = 0.3, 0.9, 0.05
MASK = np.array([1, 1, 0, 1, 1, 0], bool)
NEAR = batch(0, 6, mask=MASK)
REST = batch(1, 9, first_index=6, mask=np.arange(9) < 7)
X, Z = (np.asarray(b.inputs, np.float64) for b in (NEAR, REST))
SURE = jnp.int32((X @ np.asarray(W)).argmax(1))  # all right at first
MEMBERS = ju.Batch(NEAR.inputs, SURE)


def test_steps_in_float64():
    """Momentum and decay; the temperature set anew on every other step."""
    sgd = optax.chain(
        optax.add_decayed_weights(DECAY), optax.sgd(RATE, momentum=MOMENTUM)
    )
    members = batch(5, 300)  # two passes, the second one filled up
    told = {"members": members, "target": 0.4, "every": 2, "alpha": 3.0}
    alg = ju.methods.lotus(LINEAR, sgd, tolerance=0.5, **told, **TEACHER)
    state, step = alg.init(W, ()), jax.jit(alg.step)
    w, velocity, heats = np.asarray(W, np.float64), 0.0, []
    for number in range(6):
        if number % 2 == 0:
            right = (members.inputs @ w).argmax(1) == np.asarray(members.labels)
            a = right.mean()
            heat = np.exp(3.0 * (a - 0.4))
        key = jax.random.fold_in(jax.random.key(1), number)
        state, _ = step(state, ju.UnlearnBatch(NEAR, REST), key)
        forget_key, retain_key, _ = jax.random.split(key, 3)
        g, h = (
            np.asarray(jax.random.gumbel(k, (n, 3)), np.float64)
            for k, n in ((forget_key, 6), (retain_key, 9))
        )
        teacher = 2 * np.asarray(W, np.float64)
        soft = softmax64((X @ teacher + g) / heat)
        hard = np.eye(3)[(Z @ teacher + h).argmax(1)]
        errors = (softmax64(X @ w) - soft)[MASK], (softmax64(Z @ w) - hard)[:7]
        grad = (X[MASK].T @ errors[0] + Z[:7].T @ errors[1]) / (MASK.sum() + 7)
        velocity = MOMENTUM * velocity + grad + DECAY * w
        w = w - RATE * velocity
        heats.append(heat)
        close(state.objective_state.inner[0][2], heat, scale=20)
    assert len(set(heats)) > 1
    moved = np.linalg.norm(w - np.asarray(W, np.float64))
    assert np.linalg.norm(np.asarray(state.params) - w) < 3e-6 * moved
    assert not state.objective_state.stopped


def test_it_ends_where_it_errs_more_than_on_unseen_samples():
    wrong = MEMBERS._replace(labels=(SURE + 1) % 3)
    sgd, step = optax.sgd(RATE, momentum=MOMENTUM), ju.UnlearnBatch(NEAR, REST)
    for members, moves in ((wrong, False), (MEMBERS, True)):
        told = {"members": members, "target": 0.5, "every": 3}
        alg = ju.methods.lotus(LINEAR, sgd, **told, **TEACHER)
        start, key = alg.init(W, ()), jax.random.key(0)
        state, info = jax.jit(alg.step)(start, step, key)
        assert bool(state.objective_state.stopped) != moves
        assert np.array_equal(state.params, W) != moves
        assert (float(info.update_norm) > 0) == moves
        assert any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state)) == moves
        assert int(state.step) == 1


def test_draws_are_of_the_teachers_prediction():
    many = ju.Batch(jnp.tile(NEAR.inputs[:1], (4000, 1)), jnp.zeros(4000, jnp.int32))
    expected = softmax64(X[:1] @ (2 * np.asarray(W, np.float64)))[0]
    at = LINEAR, 2 * W, ()
    flat = jnp.zeros_like(W)
    for class_ in range(3):
        # a student sure of one class: its loss says how often another was drawn
        sure = LINEAR._replace(
            apply=lambda w, s, x, *, train, key=None, c=class_: (
                x @ w + 20.0 * jax.nn.one_hot(c, 3)[None],
                s,
            )
        )
        hard = ju.objectives.gumbel(*at)._replace(model=sure)
        losses, aux = hard(flat, (), many, jax.random.key(class_))
        assert (losses < 1).mean() == pytest.approx(expected[class_], abs=0.03)
        close(aux.task_losses, 0 if class_ == 0 else 20, scale=20)
    uniform = ju.objectives.gumbel(*at, temperature=1e6)
    losses, _ = uniform(W, (), many, jax.random.key(0))
    close(losses, -np.log(softmax64(X[:1] @ np.asarray(W))).mean(), scale=30)


@functools.cache
def smoothed(target):
    told = {"teacher_params": original(), "teacher_state": (), "every": 10}
    alg = ju.methods.lotus(
        MODEL,
        optax.sgd(0.3),
        members=part(FORGET)._replace(index=None),
        target=target,
        **told,
    )
    return unlearn(alg, 100)


def test_lotus_lowers_the_confidence_in_forget_samples():
    before, after = (
        confidence(p, part(FORGET)).mean() for p in (original(), smoothed(0.75))
    )
    assert after < 0.8 * before
    assert accuracy(smoothed(0.75), part(RETAIN)) > 0.93
    # at the target there is nothing to smooth: the temperature is 1
    assert confidence(smoothed(1.0), part(FORGET)).mean() > after + 0.1
    assert accuracy(smoothed(0.75), part(FORGET)) > accuracy(original(), part(UNSEEN))


def test_mistakes():
    told = {"members": MEMBERS, "target": 0.5, "every": 2, **TEACHER}
    for changes, words in (
        ({"target": 50.0}, "target=50.0 .* give an accuracy"),
        ({"every": 0}, "every=0"),
        ({"alpha": -1.0}, "alpha=-1.0 .* published: 8"),
        ({"tolerance": -0.1}, "tolerance=-0.1"),
        ({"members": MEMBERS._replace(mask=jnp.asarray(MASK))}, "without padding"),
        ({"members": jax.tree.map(lambda a: a[:0], MEMBERS)}, "no sample"),
    ):
        with pytest.raises(InputError, match=words):
            ju.methods.lotus(LINEAR, optax.sgd(0.1), **{**told, **changes})
    with pytest.raises(InputError, match="temperature=0.0"):
        ju.objectives.gumbel(LINEAR, W, (), temperature=0.0)


# --- the lab -------------------------------------------------------------------------

DATA = three_digits(90, 30)
IDS, LABELS = np.arange(len(DATA.train.labels)), DATA.train.labels
RANDOM = Request(IDS[:20], IDS[20:70], IDS[70:])
WHOLE = np.flatnonzero(LABELS[:70] == 1)
CLASS = Request(WHOLE, np.setdiff1d(IDS[:70], WHOLE), IDS[70:])


@functools.cache
def world():
    training = Training(network="small_cnn", width=4, epochs=1, batch_size=20)
    subject = subject_of(training, DATA)
    two = subject.examples.inputs[:2]
    variables = jax.jit(subject.model.init)(jax.random.key(0), two)
    return subject, Trained(*variables, {}), Preparer(subject)


@pytest.mark.parametrize("name", ["random", "class"])
def test_the_target_is_the_accuracy_on_unseen_samples(name):
    request = RANDOM if name == "random" else CLASS
    subject, trained, preparer = world()
    setting = Unlearning.of(method="lotus", epochs=2, batch_size=20, rho=0.5)
    job = preparer(setting, request, trained, seed=0, origin=None)
    state = job.unlearner.init(*trained[:2])
    inputs = DATA.train.inputs[request.unseen]
    logits = ju.predict(subject.model, *trained[:2], inputs)
    right = (logits.argmax(1) == LABELS[request.unseen]).mean()
    close(state.objective_state.target, right if name == "random" else 0.0)
    assert job.details["target"]["accuracy"] == pytest.approx(
        float(state.objective_state.target), abs=1e-5
    )
    assert int(state.objective_state.every) == len(job.schedule) / 2
    members = state.objective_state.members
    assert int(members.mask.sum()) == len(request.forget)
    if name == "random":
        found = execute(job, trained[:2], jax.random.key(0))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))
