"""AMUN: neighbours and steps against float64 numpy, and what it does to a model."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_behaviour import FORGET, MODEL, RETAIN, accuracy, confidence, original, part
from toys import batch, batchnorm_net, close, softmax64, three_digits, trees_close

import jax_unlearn as ju
from jax_unlearn.data import Examples
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.job import execute
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.methods import adversarial
from jax_unlearn.objectives import boundary_neighbours

LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
W = jax.random.normal(jax.random.key(3), (4, 3))
KEY = jax.random.key(1)
RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.05


# --- neighbours ----------------------------------------------------------------------


def search64(w, x, y, *, radius=0.04, steps=50, low=0.0, high=1.0):
    """Return one sample's neighbour and class, written from the paper's description."""
    start, found, ball = x.copy(), x.copy(), radius
    while True:
        for _ in range(steps):
            logits = np.tanh(found @ w)
            if logits.argmax() != y:
                return found, logits.argmax()
            error = softmax64(logits) - np.eye(w.shape[1])[y]
            rise = w @ (error * (1 - logits**2))  # of the cross-entropy
            found = found + ball / 10 * rise / np.linalg.norm(rise)
            away = found - start
            away *= min(1.0, ball / np.linalg.norm(away))
            found = np.clip(start + away, low, high)
        if np.tanh(found @ w).argmax() == y:
            ball *= 2


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_those_of_the_published_search(seed):
    rng = np.random.default_rng(seed)
    w, x = rng.normal(size=(6, 3)), rng.uniform(size=(20, 6))
    logits = np.tanh(x @ w)
    labels = np.where(np.arange(20) < 17, logits.argmax(1), logits.argmin(1))
    model = ju.from_stateless(lambda key, x: None, lambda w, x: jnp.tanh(x @ w))
    given = jnp.float32(x), jnp.int32(labels)
    found = boundary_neighbours(model, jnp.float32(w), (), *given)
    distances = np.linalg.norm(found.inputs - x, axis=1)
    assert distances.max() > 0.1  # some are found after several doublings
    assert found.crossed.all()
    for i in range(20):
        expected, label = search64(w, x[i], labels[i])
        np.testing.assert_allclose(found.inputs[i], expected, atol=2e-5)
        assert found.labels[i] == label
    np.testing.assert_allclose(found.inputs[17:], x[17:], atol=1e-7)  # wrong already
    assert np.asarray(found.inputs).min() >= 0
    assert np.asarray(found.inputs).max() <= 1
    alone = boundary_neighbours(
        model, jnp.float32(w), (), *(leaf[4:5] for leaf in given)
    )
    np.testing.assert_allclose(alone.inputs[0], found.inputs[4], atol=1e-6)


def test_the_search_ends_where_no_class_changes():
    constant = ju.from_stateless(
        lambda key, x: None, lambda w, x: w[None] + 0 * x[:, :1]
    )
    w, x = jnp.array([0.5, 3.0, 1.0]), jnp.full((2, 4), 0.5)
    found = boundary_neighbours(constant, w, (), x, jnp.array([1, 1]))
    assert not found.crossed.any()
    np.testing.assert_array_equal(found.labels, [2, 2])
    np.testing.assert_array_equal(found.inputs, x)
    # sure to the last digit of float32, where the loss has no gradient
    sure = boundary_neighbours(LINEAR, 1e3 * W, (), x, jnp.argmax(x @ W, axis=1))
    assert sure.crossed.all()


def test_batch_statistics_are_those_of_the_original():
    model = batchnorm_net()
    forget = batch(0, 6)
    params, state = model.init(KEY, forget.inputs)
    state = {"mean": state["mean"] + 0.3, "var": state["var"] * 2}
    logits, _ = model.apply(params, state, forget.inputs, train=False)
    labels = jnp.argmax(logits, axis=1)
    told = {"low": -np.inf, "high": np.inf}
    given = params, state, forget.inputs, labels
    found = boundary_neighbours(model, *given, **told)
    after, _ = model.apply(params, state, found.inputs, train=False)
    crossed = np.asarray(found.crossed)
    assert crossed.sum() >= 4  # the others are where no unit answers
    np.testing.assert_array_equal(jnp.argmax(after, 1)[crossed], found.labels[crossed])
    assert (np.asarray(found.labels) != labels).all()


def test_mistakes():
    x, y = jnp.zeros((2, 4)), jnp.array([0, 1])
    for told, words in (
        ({"radius": 0.0}, "radius=0.0 .* published: 0.04"),
        ({"steps": 0}, "steps=0"),
        ({"doublings": -1}, "doublings=-1"),
        ({"low": 1.0}, "low=1.0, high=1.0"),
    ):
        with pytest.raises(InputError, match=words):
            boundary_neighbours(LINEAR, W, (), x, y, **told)
    with pytest.raises(InputError, match="convert pixels to floats"):
        boundary_neighbours(LINEAR, W, (), jnp.zeros((2, 4), jnp.uint8), y)
    alg = ju.methods.amun(LINEAR, optax.sgd(0.1), labels=y)
    near = ju.UnlearnBatch(batch(0, 2)._replace(index=None))
    with pytest.raises(InputError, match="index=None"):
        alg.step(alg.init(W, ()), near, KEY)


# --- steps ---------------------------------------------------------------------------

MASK = np.array([1, 1, 0, 1, 1, 0], bool)
NEAR = batch(0, 6, mask=MASK)
REST = batch(1, 9, first_index=6, mask=np.arange(9) < 7)
TABLE = np.array([2, 0, 1, 1, 2, 0])


def union64():
    """Return inputs and classes of the union of what counts, as one batch."""
    x = np.concatenate([NEAR.inputs[MASK], REST.inputs[:7]]).astype(np.float64)
    return x, np.concatenate([TABLE[MASK], REST.labels[:7]])


@pytest.mark.parametrize("with_rest", [True, False])
def test_steps_in_float64(with_rest):
    """Momentum, decay and a rate that falls to a tenth, over the union of both sets."""
    decay = optax.add_decayed_weights(DECAY)
    sgd = optax.chain(decay, optax.sgd(RATE, momentum=MOMENTUM))
    drops = optax.piecewise_constant_schedule(1.0, {3: 0.1})
    falling = optax.scale_by_schedule(lambda step: drops(jnp.float32(step)))
    alg = ju.methods.amun(LINEAR, optax.chain(sgd, falling), labels=jnp.asarray(TABLE))
    x, y = union64()
    if not with_rest:
        x, y = x[: MASK.sum()], y[: MASK.sum()]
    w, velocity = np.asarray(W, np.float64), 0.0
    state, step = alg.init(W, ()), jax.jit(alg.step)
    for number in range(6):
        given = ju.UnlearnBatch(NEAR, REST if with_rest else None)
        truth = np.arange(6), np.asarray(NEAR.labels)  # which weightings look at
        task = -np.log(softmax64(NEAR.inputs @ w)[truth])
        state, info = step(state, given, KEY)
        close(info.task_losses[MASK], task[MASK], scale=20)
        p = softmax64(x @ w)
        velocity = MOMENTUM * velocity + x.T @ (p - np.eye(3)[y]) / len(x) + DECAY * w
        w = w - RATE * (1.0 if number < 3 else 0.1) * velocity
    moved = np.linalg.norm(w - np.asarray(W, np.float64))
    assert np.linalg.norm(np.asarray(state.params) - w) < 1e-6 * moved + 1e-6


def test_the_union_has_statistics_of_its_own():
    """Three steps of a network with BatchNorm against those of one shuffled batch."""
    model = batchnorm_net()
    x, y = union64()
    params, state = model.init(KEY, NEAR.inputs)
    sgd = optax.sgd(RATE, momentum=MOMENTUM)
    alg = ju.methods.amun(model, sgd, labels=jnp.asarray(TABLE))
    near, rest = (
        NEAR._replace(inputs=NEAR.inputs[MASK], index=NEAR.index[MASK],
                      labels=NEAR.labels[MASK], mask=None),
        REST._replace(inputs=REST.inputs[:7], index=REST.index[:7],
                      labels=REST.labels[:7], mask=None),
    )  # fmt: skip

    def total(params, state):
        logits, state = model.apply(params, state, jnp.float32(x), train=True)
        log_p = jax.nn.log_softmax(logits)
        return -jnp.mean(log_p[jnp.arange(len(y)), jnp.asarray(y)]), state

    ours, step = alg.init(params, state), jax.jit(alg.step)
    plain, velocity = params, jax.tree.map(jnp.zeros_like, params)
    for _ in range(3):
        ours, _ = step(ours, ju.UnlearnBatch(near, rest), KEY)
        grads, state = jax.grad(total, has_aux=True)(plain, state)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, grads)
        plain = jax.tree.map(lambda p, v: p - RATE * v, plain, velocity)
    trees_close(ours.params, plain, rtol=2e-6, atol=2e-6)
    trees_close(ours.model_state, state, rtol=2e-6, atol=2e-6)


# --- a model -------------------------------------------------------------------------


@functools.cache
def near_forget():
    forget = part(FORGET)
    told = {"low": -np.inf, "high": np.inf}
    given = original(), (), forget.inputs, forget.labels
    return boundary_neighbours(MODEL, *given, **told)


def ran(inputs, labels, kept):
    """Return the model after steps on these inputs, labels beside what is kept."""
    forget = part(FORGET)
    table = jnp.zeros(250, jnp.int32).at[forget.index].set(labels)
    step = ju.UnlearnBatch(forget._replace(inputs=inputs), kept)
    alg = ju.methods.amun(MODEL, optax.sgd(0.1, momentum=0.5), labels=table)
    return ju.run(alg, alg.init(original(), ()), [step] * 50, KEY, scan=50).params


def test_amun_lowers_confidence_in_forget_samples_alone():
    forget, retain = part(FORGET), part(RETAIN)
    both = jax.tree.map(lambda a, b: np.concatenate([a, b]), forget, retain)
    found = near_forget()
    assert found.crossed.all()
    before = confidence(original(), forget).mean()
    after = {}
    for name, kept in {"all": both, "retain": retain, "none": None}.items():
        params = ran(found.inputs, found.labels, kept)
        after[name] = confidence(params, forget).mean()
        assert accuracy(params, retain) > (0.97 if kept is not None else 0.75)
        # the same steps with the true classes make the model surer
        plain = ran(found.inputs, forget.labels, kept)
        assert confidence(plain, forget).mean() > after[name] + 0.03
    assert after["none"] < after["retain"] < after["all"]
    assert after["retain"] < 0.95 * before
    assert after["none"] < 0.85 * before


# --- the lab -------------------------------------------------------------------------

DATA = three_digits(90, 30)
IDS = np.arange(len(DATA.train.labels))
REQUEST = Request(IDS[:20], IDS[20:80], IDS[80:])


@functools.cache
def world():
    training = Training(network="small_cnn", width=4, epochs=4, batch_size=20)
    subject = subject_of(training, DATA)
    trained = Trainer(subject, training)(IDS[:80], seed=0)
    return subject, trained, Preparer(subject)


def job_of(**told):
    _, trained, preparer = world()
    setting = Unlearning.of(method="amun", batch_size=20, **told)
    return preparer(setting, REQUEST, trained, seed=0, origin=None)


VARIANTS = {
    "all": ({}, [*REQUEST.retain, *REQUEST.forget]),
    "no forget": ({"with_forget": False}, REQUEST.retain),
    "no retain": ({"with_retain": False}, REQUEST.forget),
    "neighbours": ({"with_retain": False, "with_forget": False}, []),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_an_epoch_is_a_pass_over_the_union(name):
    told, kept = VARIANTS[name]
    job = job_of(epochs=2, **told)
    rest, near = [], []
    for step in list(job.schedule)[: len(job.schedule) // 2]:
        rows = 0
        if step.retain is not None:
            rest += step.retain.index[step.retain.mask].tolist()
            rows += len(step.retain.labels)
            assert step.retain.inputs.dtype == np.float32
        near += step.forget.index[step.forget.mask].tolist()
        assert rows + len(step.forget.labels) == 20
        # labels stay the true ones, pixels those of a neighbour, not rounded to bytes
        own = DATA.train.labels[step.forget.index]
        np.testing.assert_array_equal(step.forget.labels, own)
        assert step.forget.inputs.min() >= 0
        assert step.forget.inputs.max() <= 1
        clean = DATA.range.unit(DATA.train.inputs[step.forget.index])
        assert 0 < np.abs(step.forget.inputs - clean).max() < 1
    assert sorted(rest) == sorted(kept)
    assert set(near) == set(REQUEST.forget.tolist())


def test_the_job_runs_and_tells_what_it_found():
    subject, trained, _ = world()
    job = job_of(steps=3, radius=0.05)
    told = job.details["neighbours"]
    assert told["samples"] == 20
    assert 0 < told["crossed"] <= 20
    assert told["distance"] > 0
    assert 1 <= told["steps"] <= 2 * 51 * (adversarial.DOUBLINGS + 1)  # batches filled
    found = execute(job, trained[:2], KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))
    step = job.schedule[0]
    table = job.unlearner.init(trained.params, trained.model_state).objective_state[0]
    logits, _ = subject.model.apply(
        trained.params, trained.model_state, jnp.asarray(step.forget.inputs),
        train=False,
    )  # fmt: skip
    classes, given = np.argmax(logits, axis=1), np.asarray(table)[step.forget.index]
    assert (classes == given).mean() >= told["crossed"] / 20
    assert (given != step.forget.labels).all()


def test_the_job_finds_the_neighbours_of_one_search():
    rng, forget = np.random.default_rng(0), np.arange(1, 21)
    w, x = jnp.float32(rng.normal(size=(6, 3))), rng.uniform(size=(24, 6))
    model = ju.from_stateless(lambda key, x: None, lambda w, x: jnp.tanh(x @ w))
    labels = np.argmax(x @ np.asarray(w), axis=1).astype(np.int32)
    labels[:4] = (labels[:4] + 1) % 3  # wrong already
    examples = Examples(np.float32(x), labels)
    lab = SimpleNamespace(
        examples=examples,
        model=model,
        original=(w, ()),
        range=SimpleNamespace(unit=lambda inputs: inputs, model=lambda model: model),
        setting=SimpleNamespace(batch_size=6),
        ids=lambda part: forget,
        labels=lambda part: labels[forget],
    )
    found, taken = adversarial._neighbours(lab, adversarial.Amun(search_steps=10))
    # all take a look, some go to the end of a radius and further
    assert 20 + 6 * 11 < taken < 24 * 11 * (adversarial.DOUBLINGS + 1)
    whole = boundary_neighbours(model, w, (), x[forget], labels[forget], steps=10)
    far = np.linalg.norm(whole.inputs - x[forget], axis=1)
    assert far.min() == 0
    assert far.max() > 0.2  # some cross at the first radius, some after doublings
    np.testing.assert_allclose(found.inputs, whole.inputs, atol=1e-5)
    np.testing.assert_array_equal(found.labels, whole.labels)
    assert found.crossed.all()


def test_the_rate_falls_to_a_tenth():
    _, trained, _ = world()
    job = job_of(steps=4, momentum=0.0, weight_decay=0.0, learning_rate=1e-6)
    state, moves = job.unlearner.init(*trained[:2]), []
    step, given = jax.jit(job.unlearner.step), job.schedule[0]
    for _ in range(4):
        state, info = step(state, given, KEY)
        moves.append(float(info.update_norm))
    np.testing.assert_allclose(moves, np.array([1, 1, 0.1, 0.1]) * moves[0], rtol=1e-3)
