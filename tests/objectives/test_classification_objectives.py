"""What is minimised: values, targets, and the arrays that travel in the state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import batch, batchnorm_net, close, forms, next_statistics, softmax64

import jax_unlearn as ju
from jax_unlearn import objectives
from jax_unlearn.errors import InputError

CLASSES, SIZE = 3, 8
MODEL = batchnorm_net(CLASSES)
PARAMS, STATE = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 4)))
SAMPLES = batch(0, SIZE, first_index=10)
KEY = jax.random.key(1)


def evaluate(objective, key=KEY, samples=SAMPLES, params=PARAMS):
    return jax.jit(objective.__call__)(params, STATE, samples, key)


@functools.partial(jax.jit, static_argnames="train")
def outputs_of(params, state, train):
    return MODEL.apply(params, state, SAMPLES.inputs, train=train)[0]


def log_probabilities(train=True):
    outputs = outputs_of(PARAMS, STATE, train)
    return np.log(softmax64(outputs))


def true_losses(train=True):
    return -log_probabilities(train)[np.arange(SIZE), SAMPLES.labels]


def drawn_labels(objective, key=KEY, samples=SAMPLES):
    """Recover the random labels from the losses of a model of known outputs."""
    losses, aux = evaluate(objective, key, samples)
    table = -np.log(softmax64(aux.outputs))
    distance = np.abs(table - np.asarray(losses)[:, None])
    assert distance.min(axis=1).max() < 1e-5
    return distance.argmin(axis=1)


ALL = {
    "descent": lambda: objectives.descent(MODEL),
    "ascent": lambda: objectives.ascent(MODEL),
    "random_label": lambda: objectives.random_label(MODEL, num_classes=CLASSES),
    "redraw": lambda: objectives.random_label(MODEL, num_classes=CLASSES, redraw=True),
    "distill": lambda: objectives.distill(MODEL, PARAMS, STATE, temperature=2.0),
    "transport": lambda: objectives.transport(MODEL, jnp.full((20, CLASSES), 1 / 3)),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("train", [True, False])
def test_the_contract_of_a_loss_function(name, train):
    losses, aux = evaluate(ALL[name]()._replace(train=train))
    assert losses.shape == aux.task_losses.shape == (SIZE,)
    assert losses.dtype == aux.task_losses.dtype == jnp.float32
    close(aux.task_losses, true_losses(train), scale=4)  # always on the true label
    assert forms(aux.model_state) == forms(STATE)
    expected = next_statistics(STATE, PARAMS, SAMPLES.inputs) if train else STATE
    for leaf, value in expected.items():
        close(aux.model_state[leaf], value)


def test_descent_and_ascent():
    close(evaluate(objectives.descent(MODEL))[0], true_losses(), scale=4)
    close(evaluate(objectives.ascent(MODEL))[0], -true_losses(), scale=4)


def test_random_labels_are_never_true_and_belong_to_the_sample():
    objective = objectives.random_label(MODEL, num_classes=CLASSES)
    labels = drawn_labels(objective)
    assert np.all(labels != np.asarray(SAMPLES.labels))
    # another step, another batch, another order: the same label
    np.testing.assert_array_equal(drawn_labels(objective, jax.random.key(99)), labels)
    rows = np.array([5, 0, 3])
    part = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[rows]), SAMPLES)
    # BatchNorm sees another batch, the labels do not
    np.testing.assert_array_equal(drawn_labels(objective, KEY, part), labels[rows])


def many_labels(size=3000, **options):
    """Return true and random labels of many samples of a model that ignores inputs."""
    model = ju.from_stateless(lambda key, x: 0.0, lambda w, x: x)
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(size, 5)), jnp.float32)
    truth = jnp.asarray(rng.integers(0, 5, size), jnp.int32)
    samples = ju.Batch(logits, truth, jnp.asarray(np.arange(size), jnp.int32))
    objective = objectives.random_label(model, num_classes=5, **options)
    losses, _ = objective(0.0, (), samples, KEY)
    table = -np.log(softmax64(logits))
    return np.asarray(truth), np.abs(table - np.asarray(losses)[:, None]).argmin(1)


@pytest.mark.parametrize("redraw", [False, True])
def test_random_labels_are_uniform_over_the_other_classes(redraw):
    truth, drawn = many_labels(redraw=redraw)
    assert np.all(drawn != truth)
    for k in range(5):
        counts = np.bincount(drawn[truth == k], minlength=5)
        others = np.delete(counts, k)
        expected = others.sum() / 4
        # chi-square with 3 degrees of freedom: 21.1 has probability 1e-4
        assert ((others - expected) ** 2 / expected).sum() < 21.1


def test_random_labels_over_all_classes():
    truth, drawn = many_labels(exclude_true=False)
    counts = np.bincount(drawn, minlength=5)
    assert ((counts - 600) ** 2 / 600).sum() < 23.5  # 4 degrees of freedom, 1e-4
    assert abs((drawn == truth).mean() - 0.2) < 0.03


def test_seeds_and_redraws_differ():
    _, first = many_labels(seed=0)
    _, second = many_labels(seed=1)
    assert 0.1 < (first == second).mean() < 0.4
    objective = objectives.random_label(MODEL, num_classes=CLASSES, redraw=True)
    draws = [drawn_labels(objective, jax.random.key(k)) for k in range(4)]
    assert len({tuple(draw) for draw in draws}) > 1
    assert np.all(np.stack(draws) != np.asarray(SAMPLES.labels))
    np.testing.assert_array_equal(draws[0], drawn_labels(objective, jax.random.key(0)))


def test_draw_labels_of_two_classes_is_the_other_one():
    for label in (0, 1):
        for seed in range(5):
            drawn = objectives.draw_labels(
                jax.random.key(seed), jnp.int32(label), num_classes=2
            )
            assert drawn == 1 - label
            assert drawn.dtype == jnp.int32


def test_random_labels_need_ids_and_two_classes():
    with pytest.raises(InputError, match="num_classes=1"):
        objectives.random_label(MODEL, num_classes=1)
    objective = objectives.random_label(MODEL, num_classes=CLASSES)
    with pytest.raises(InputError, match=r"batch\.index=None.*redraw=True"):
        objective(PARAMS, STATE, SAMPLES._replace(index=None), KEY)
    redrawn = objectives.random_label(MODEL, num_classes=CLASSES, redraw=True)
    losses, _ = redrawn(PARAMS, STATE, SAMPLES._replace(index=None), KEY)
    assert losses.shape == (SIZE,)


def test_distill_uses_a_frozen_teacher_in_eval_mode():
    teacher = jax.tree.map(lambda p: np.asarray(p) + np.float32(0.5), PARAMS)
    teacher_state = jax.tree.map(lambda s: np.asarray(s) + np.float32(0.7), STATE)
    objective = objectives.distill(MODEL, teacher, teacher_state, temperature=3.0)
    losses, aux = evaluate(objective)
    teacher_logits = outputs_of(teacher, teacher_state, False)
    t = softmax64(np.float64(teacher_logits) / 3)
    s = softmax64(np.float64(aux.outputs) / 3)
    close(losses, 9 * (t * np.log(t / s)).sum(1), scale=20)
    for leaf, value in next_statistics(STATE, PARAMS, SAMPLES.inputs).items():
        close(aux.model_state[leaf], value)  # the student's, not the teacher's
    itself = objectives.distill(MODEL, PARAMS, STATE)._replace(train=False)
    assert np.abs(evaluate(itself)[0]).max() < 1e-6
    gradient = jax.jit(
        jax.grad(
            lambda data: jnp.sum(
                objective._replace(data=data)(PARAMS, STATE, SAMPLES, KEY)[0]
            )
        )
    )(objective.data)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    with pytest.raises(InputError, match="temperature=0"):
        objectives.distill(MODEL, PARAMS, STATE, temperature=0)


def test_transport_reads_the_row_of_each_id():
    rng = np.random.default_rng(3)
    table = softmax64(rng.normal(size=(20, CLASSES)))
    objective = objectives.transport(MODEL, jnp.asarray(table, jnp.float32))
    expected = -(table[np.asarray(SAMPLES.index)] * log_probabilities()).sum(1)
    close(evaluate(objective)[0], expected, scale=4)
    with pytest.raises(InputError, match=r"batch\.index=None"):
        objective(PARAMS, STATE, SAMPLES._replace(index=None), KEY)


def test_transport_is_at_rest_at_its_target():
    logits = jnp.array([[0.3, -1.0, 0.2]])
    model = ju.from_stateless(lambda key, x: 0.0, lambda w, x: w)
    objective = objectives.transport(model, jax.nn.softmax(logits))
    samples = ju.Batch(jnp.zeros((1, 1)), jnp.array([0]), jnp.array([0]))
    gradient = jax.jit(jax.grad(lambda w: objective(w, (), samples, KEY)[0][0]))
    assert np.abs(gradient(logits)).max() < 1e-7
    assert np.abs(gradient(logits + jnp.array([[1.0, 0.0, 0.0]]))).max() > 0.1
