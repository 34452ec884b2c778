"""SCRUB, its rewinding and Bad Teacher: the student moves, its teachers do not."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from jax.test_util import check_grads
from toys import batch, batchnorm_net, close, mlp, next_statistics, relaxed, softmax64

import jax_unlearn as ju
from jax_unlearn.data import Examples, merged
from jax_unlearn.data.schedules import scrub_schedule
from jax_unlearn.errors import InputError
from jax_unlearn.methods.teachers import bad_teacher, class_matched_error, rewind, scrub
from jax_unlearn.objectives import imitate, repel

CLASSES = 3
KEY = jax.random.key(1)
SGD = optax.sgd(1.0)  # the update is minus the gradient
LINEAR = ju.from_stateless(
    lambda key, x: jax.random.normal(key, (x.shape[-1], CLASSES)), lambda w, x: x @ w
)
W, TEACHER, RANDOM = (jax.random.normal(jax.random.key(k), (4, 3)) for k in (3, 4, 5))
FORGET = batch(0, 6, mask=np.array([1, 1, 0, 1, 1, 0], bool))
RETAIN = batch(1, 9, first_index=6, mask=np.arange(9) < 7)
BOTH = ju.UnlearnBatch(FORGET, RETAIN)

BN = batchnorm_net(CLASSES)
BN_PARAMS, BN_STATE = jax.jit(BN.init)(jax.random.key(0), jnp.zeros((1, 4)))
BN_TEACHER = jax.tree.map(lambda p: p + jnp.float32(0.5), BN_PARAMS)
BN_TEACHER_STATE = jax.tree.map(lambda s: s + jnp.float32(0.7), BN_STATE)


def kl64(student, teacher, temperature):
    """Return T²·KL(teacher ‖ student) of logits, [B]."""
    s, t = (softmax64(np.float64(z) / temperature) for z in (student, teacher))
    return temperature**2 * (t * np.log(t / s)).sum(1)


def entropy64(logits, labels):
    return -np.log(softmax64(logits))[np.arange(len(labels)), labels]


# objectives


@pytest.mark.parametrize("train", [True, False])
def test_repel_and_imitate_against_float64(train):
    teacher = (BN, BN_TEACHER, BN_TEACHER_STATE)
    logits, _ = BN.apply(BN_TEACHER, BN_TEACHER_STATE, FORGET.inputs, train=False)
    options = dict(alpha=0.3, gamma=0.7, temperature=2.0)
    for objective, expected in (
        (repel(*teacher, temperature=3.0), lambda kl, ce: -kl(3.0)),
        (imitate(*teacher, **options), lambda kl, ce: 0.7 * ce + 0.3 * kl(2.0)),
    ):
        objective = objective._replace(train=train)
        losses, aux = jax.jit(objective.__call__)(BN_PARAMS, BN_STATE, FORGET, KEY)
        assert losses.dtype == aux.task_losses.dtype == jnp.float32
        entropy = entropy64(aux.outputs, FORGET.labels)
        close(aux.task_losses, entropy, scale=4)  # on the true label
        divergence = functools.partial(kl64, aux.outputs, logits)
        close(losses, expected(divergence, entropy), scale=20)
        statistics = next_statistics(BN_STATE, BN_PARAMS, FORGET.inputs)
        for name, value in (statistics if train else BN_STATE).items():
            close(aux.model_state[name], value)  # the student's, not the teacher's


def test_derivatives_of_the_objectives_to_order_two():
    model = ju.from_stateless(lambda key, x: x, lambda w, x: w)  # logits as parameters
    samples = batch(0, 3)
    logits, teacher = jax.random.normal(jax.random.key(7), (2, 3, CLASSES))
    both = (
        repel(model, teacher, (), temperature=2.0),
        imitate(model, teacher, (), alpha=0.5, temperature=2.0),
    )

    @jax.jit
    def losses(logits, data=tuple(objective.data for objective in both)):
        found = [
            objective._replace(data=own)(logits, (), samples, KEY)[0]
            for objective, own in zip(both, data, strict=True)
        ]
        return jnp.stack(found)

    options = dict(order=2, modes=["rev"], atol=2e-2, rtol=2e-2)
    check_grads(losses, (logits,), **options)
    data = tuple(objective.data for objective in both)
    gradient = jax.grad(lambda data: jnp.sum(losses(logits, data)))(data)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_mistaken_hyper_parameters_are_named():
    teacher = (LINEAR, TEACHER, ())
    with pytest.raises(InputError, match="temperature=0 must be positive"):
        repel(*teacher, temperature=0)
    for name in ("alpha", "gamma"):
        for value in (-0.1, float("nan")):
            with pytest.raises(InputError, match=f"{name}={value} must not be neg"):
                imitate(*teacher, **{name: value})
    with pytest.raises(InputError, match=r"temperature=-1\.0"):
        student_of_two(temperature=-1.0)


# one step against numpy


def student_of_two(**options):
    return bad_teacher(
        LINEAR,
        SGD,
        teacher_params=TEACHER,
        teacher_state=(),
        incompetent_params=RANDOM,
        incompetent_state=(),
        **options,
    )


def scrubbed(optimizer=SGD, **options):
    return scrub(LINEAR, optimizer, teacher_params=TEACHER, teacher_state=(), **options)


def kl_gradient64(samples, teacher, temperature, weights=1.0):
    """Return the sum over counted samples of w_i ∇ T²·KL, by hand: T·x(s − t)."""
    x = np.asarray(samples.inputs, np.float64)
    logits = (x @ np.asarray(w, np.float64) / temperature for w in (W, teacher))
    student, target = map(softmax64, logits)
    counted = np.asarray(samples.mask) * weights
    return temperature * np.einsum("b,bi,bk->ik", counted, x, student - target)


def entropy_gradient64(samples):
    x = np.asarray(samples.inputs, np.float64)
    error = softmax64(x @ np.asarray(W, np.float64)) - np.eye(CLASSES)[samples.labels]
    return np.einsum("b,bi,bk->ik", np.asarray(samples.mask), x, error)


def loreun64(temperature):
    logits = np.asarray(FORGET.inputs, np.float64) @ np.asarray(W, np.float64)
    raw = np.exp(-entropy64(logits, FORGET.labels) / temperature)
    raw = raw * np.asarray(FORGET.mask)
    return np.asarray(FORGET.mask).sum() * raw / raw.sum()


def one_step(alg, batches=BOTH):
    state, info = jax.jit(alg.step)(alg.init(W, ()), batches, KEY)
    return np.asarray(W, np.float64) - np.asarray(state.params, np.float64), info


def test_a_scrub_step_by_hand():
    forget = -kl_gradient64(FORGET, TEACHER, 4.0) / 4
    retain = 0.99 * entropy_gradient64(RETAIN) + 0.001 * kl_gradient64(
        RETAIN, TEACHER, 4.0
    )
    alg = scrubbed()
    moved, info = one_step(alg, ju.UnlearnBatch(FORGET))  # a max-step
    close(moved, forget, scale=10)
    logits = (
        np.asarray(FORGET.inputs, np.float64) @ np.float64(w) for w in (W, TEACHER)
    )
    mask = np.asarray(FORGET.mask)
    close(info.forget_loss, -kl64(*logits, 4.0)[mask].mean(), scale=20)
    close(one_step(alg, ju.UnlearnBatch(None, RETAIN))[0], retain / 7, scale=3)
    close(one_step(alg)[0], forget + retain / 7, scale=10)


def test_scrub_takes_weights_harmonizer_and_hyper_parameters():
    weights = loreun64(0.5)
    alg = scrubbed(
        alpha=0.2,
        gamma=0.5,
        temperature=2.0,
        weighting=ju.weights.loreun(temperature=0.5),
        harmonizer=ju.harmonize.add(2.0, 3.0),
    )
    forget = -kl_gradient64(FORGET, TEACHER, 2.0, weights) / 4
    retain = 0.5 * entropy_gradient64(RETAIN) + 0.2 * kl_gradient64(
        RETAIN, TEACHER, 2.0
    )
    moved, info = one_step(alg)
    close(info.weights, weights, scale=5)
    close(moved, 2 * forget + 3 * retain / 7, scale=20)


def test_a_bad_teacher_step_by_hand():
    weights = loreun64(0.5)
    options = dict(temperature=2.0, weighting=ju.weights.loreun(temperature=0.5))
    forget = kl_gradient64(FORGET, RANDOM, 2.0, weights)
    retain = kl_gradient64(RETAIN, TEACHER, 2.0)
    close(one_step(student_of_two(**options))[0], forget / 4 + retain / 7, scale=5)
    moved, _ = one_step(student_of_two(forward="merged", **options))
    close(moved, (forget + retain) / 11, scale=5)  # one mean over all samples


@pytest.mark.parametrize("make", [scrubbed, student_of_two])
def test_padding_counts_for_nothing(make):
    def spoilt(part):
        far = jnp.where(part.mask[:, None], part.inputs, 50.0 + part.inputs)
        labels = jnp.where(part.mask, part.labels, (part.labels + 1) % CLASSES)
        return part._replace(inputs=far, labels=labels)

    step = jax.jit(make().step)
    state = make().init(W, ())
    plain, _ = step(state, BOTH, KEY)
    changed, _ = step(state, ju.UnlearnBatch(*map(spoilt, BOTH[:2])), KEY)
    np.testing.assert_array_equal(plain.params, changed.params)


# a run


@functools.cache
def problem():
    """Return 90 noisy samples, the first 20 to forget, and a net that knows all."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 90).astype(np.int32)
    angle = 2 * np.pi * labels / CLASSES
    signal = 1.3 * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(
        size=(90, 2)
    )
    inputs = np.concatenate([signal, rng.normal(size=(90, 8))], 1).astype(np.float32)
    model = mlp(width=24, classes=CLASSES)
    params, _ = model.init(jax.random.key(0), inputs)
    samples = ju.Batch(jnp.asarray(inputs), jnp.asarray(labels))
    alg = ju.methods.finetune(model, relaxed(optax.adam(0.02)))
    batches = [ju.UnlearnBatch(retain=samples)] * 60
    state = ju.run(alg, alg.init(params, ()), batches, KEY, scan=60)
    return model, Examples(inputs, labels), jax.device_get(state.params)


FORGET_IDS, RETAIN_IDS = range(20), range(20, 90)


def outputs(params, ids):
    model, examples, _ = problem()
    return ju.predict(model, params, (), examples.inputs[list(ids)])


def accuracy(params, ids):
    labels = problem()[1].labels[list(ids)]
    return (outputs(params, ids).argmax(1) == labels).mean()


def divergence(params, teacher, ids):
    return kl64(outputs(params, ids), outputs(teacher, ids), 1.0).mean()


def epochs_of(**options):
    options = dict(batch_size=24, forget_batch_size=10) | options
    return scrub_schedule(problem()[1], FORGET_IDS, RETAIN_IDS, **options)


def counting(alg):
    """Return the unlearner and the list of its traces."""
    traces = []

    def step(state, batches, key):
        traces.append(1)
        return alg.step(state, batches, key)

    return alg._replace(step=step), traces


def scrub_original(optimizer):
    model, _, original = problem()
    return scrub(model, optimizer, teacher_params=original, teacher_state=())


def test_scrub_leaves_the_teacher_on_forget_and_keeps_retain():
    original = problem()[2]
    decay = optax.add_decayed_weights(5e-3)
    alg, traces = counting(
        scrub_original(optax.chain(decay, optax.sgd(0.1, momentum=0.9)))
    )
    assert accuracy(original, FORGET_IDS) == accuracy(original, RETAIN_IDS) == 1
    state, errors, far = alg.init(original, ()), [], []
    for epoch in epochs_of(epochs=6, forget_epochs=4).epochs():
        state = ju.run(alg, state, epoch, KEY)
        errors.append(100 * (1 - accuracy(state.params, FORGET_IDS)))
        far.append(divergence(state.params, original, FORGET_IDS))
    assert len(traces) == 2  # once a batch structure
    assert far[0] < far[1] < far[2] < far[3]
    assert far[-1] > 0.3
    assert errors[-1] > 10
    assert accuracy(state.params, RETAIN_IDS) > 0.95
    assert divergence(state.params, original, RETAIN_IDS) < 0.2 * far[-1]
    chosen = rewind(errors, 0.0)  # the last checkpoint that has not forgotten
    assert errors[chosen] == 0
    assert errors[chosen + 1] > 0


def test_scrub_epoch_by_epoch_is_the_run_in_one():
    alg = scrub_original(optax.sgd(0.1))
    phased = epochs_of(epochs=2, forget_epochs=1)
    start = alg.init(problem()[2], ())
    whole = ju.run(alg, start, phased.schedule, KEY)
    state = start
    for epoch in phased.epochs():
        state = ju.run(alg, state, epoch, KEY)
    jax.tree.map(np.testing.assert_array_equal, state, whole)
    assert int(state.step) == phased.ends[-1]


def test_both_scrub_batches_in_one_step_forget_and_retain():
    _, examples, original = problem()
    alg, traces = counting(scrub_original(optax.sgd(0.03)))
    schedule = merged(examples, FORGET_IDS, RETAIN_IDS, batch_size=36, epochs=24)
    params = ju.run(alg, alg.init(original, ()), schedule, KEY).params
    assert len(traces) == 1
    assert divergence(params, original, FORGET_IDS) > 0.2
    assert accuracy(params, RETAIN_IDS) > 0.95


@pytest.mark.parametrize("forward", ["separate", "merged"])
def test_bad_teacher_answers_on_forget_as_the_untrained_net(forward):
    model, examples, original = problem()
    random, _ = model.init(jax.random.key(9), examples.inputs[:1])
    alg, traces = counting(
        bad_teacher(
            model,
            relaxed(optax.adam(0.01)),
            teacher_params=original,
            teacher_state=(),
            incompetent_params=random,
            incompetent_state=(),
            forward=forward,
        )
    )
    schedule = merged(examples, FORGET_IDS, RETAIN_IDS, batch_size=36, epochs=60)
    params = ju.run(alg, alg.init(original, ()), schedule, KEY).params
    assert len(traces) == 1
    before = divergence(original, random, FORGET_IDS)
    assert divergence(params, random, FORGET_IDS) < 0.1 * before
    assert divergence(params, random, RETAIN_IDS) > 0.5  # there it follows the other
    assert divergence(params, original, RETAIN_IDS) < 0.1
    assert accuracy(params, RETAIN_IDS) > 0.95


def test_the_student_moves_and_the_teacher_never_does():
    # A public repository gives its optimizer the teacher: the student stays at θ_o.
    alg = scrub(
        BN,
        optax.sgd(0.1, momentum=0.9),
        teacher_params=BN_PARAMS,
        teacher_state=BN_STATE,
    )
    start = jax.device_get((BN_PARAMS, BN_STATE))
    state = alg.init(BN_PARAMS, BN_STATE)
    before = jax.device_get(state)
    steps = [ju.UnlearnBatch(FORGET), ju.UnlearnBatch(None, RETAIN)] * 3
    done = ju.run(alg, state, steps, KEY)
    for teacher in done.objective_state:
        jax.tree.map(np.testing.assert_array_equal, teacher, start)
    for name, leaf in done.params.items():
        assert np.any(leaf != start[0][name])
    for name, leaf in done.model_state.items():
        assert np.any(leaf != start[1][name])
    # `run` gives away neither the caller's state nor the teacher it was made of
    jax.tree.map(np.testing.assert_array_equal, state.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, (BN_PARAMS, BN_STATE), start)


def test_donating_a_state_made_of_one_tree_harms_nobody():
    params = jax.tree.map(jnp.array, {"w": W})  # teachers and student are one tree
    model = ju.from_stateless(lambda key, x: params, lambda p, x: x @ p["w"])
    alg = bad_teacher(
        model,
        optax.sgd(0.1),
        teacher_params=params,
        teacher_state=(),
        incompetent_params=params,
        incompetent_state=(),
    )
    step = jax.jit(alg.step, donate_argnums=0)
    state = alg.init(params, ())
    for _ in range(2):
        state, _ = step(state, BOTH, KEY)
    np.testing.assert_array_equal(params["w"], W)  # alive and unchanged
    for teacher in state.objective_state:
        np.testing.assert_array_equal(teacher[0]["w"], W)
    again, _ = step(alg.init(params, ()), BOTH, KEY)
    assert np.all(np.isfinite(again.params["w"]))


def test_the_first_max_step_needs_a_difference_from_the_teacher():
    def first(model, params, state, **options):
        alg = scrub(model, SGD, teacher_params=params, teacher_state=state, **options)
        state = alg.init(params, state)
        return jax.jit(alg.step)(state, ju.UnlearnBatch(FORGET), KEY)[1].update_norm

    assert first(LINEAR, W, ()) < 1e-5  # at the minimum of the divergence
    assert first(BN, BN_PARAMS, BN_STATE, model_state="frozen") < 1e-5
    assert first(BN, BN_PARAMS, BN_STATE) > 1e-2  # batch statistics differ


# rewinding


def test_rewind_by_hand():
    assert rewind([5.0], 90.0) == 0
    assert rewind([0.0, 3.0, 8.0, 20.0], 6.0) == 2
    assert rewind([0.0, 20.0, 9.0, 5.0], 8.0) == 2  # errors need not rise
    assert rewind([4.0, 8.0, 8.0, 4.0], 6.0) == 3  # the last of equally near ones
    assert rewind(np.float32([0, 10]), np.float32(0)) == 0
    # 0.7 and 0.1 are as far from 0.4, which float64 does not see
    assert abs(0.7 - 0.4) != abs(0.1 - 0.4)
    assert rewind([0.1, 0.7], 0.4) == rewind([0.7, 0.1], 0.4) == 1


@given(st.lists(st.integers(0, 100), min_size=1, max_size=9), st.integers(0, 100))
@settings(deadline=None, max_examples=50)
def test_no_checkpoint_is_nearer_than_the_one_rewound_to(errors, reference):
    chosen = rewind(errors, reference)
    distances = [abs(error - reference) for error in errors]
    assert distances[chosen] == min(distances)
    assert all(distance > distances[chosen] for distance in distances[chosen + 1 :])


@pytest.mark.parametrize(
    ("errors", "reference", "message"),
    [
        ([1.0, np.nan], 3.0, "forget_errors holds nan"),
        ([1.0, -1.0], 3.0, r"forget_errors holds -1\.0; give errors in percent"),
        ([1.0], 100.5, r"unseen_error holds 100\.5"),
        ([1.0], np.nan, "unseen_error holds nan"),
        ([], 3.0, r"forget_errors\.shape=\(0,\)"),
        (5.0, 3.0, r"forget_errors\.shape=\(\)"),
        ([1.0], [3.0, 4.0], r"unseen_error\.shape=\(2,\)"),
    ],
)
def test_rewind_names_mistakes(errors, reference, message):
    with pytest.raises(InputError, match=message):
        rewind(errors, reference)


def test_class_matched_error_by_hand():
    correct = [True, False, False, False, True]
    labels = [0, 0, 1, 1, 2]
    assert class_matched_error(correct, labels, [1, 1, 2]) == pytest.approx(37.5)
    assert class_matched_error(correct, labels, [0, 0, 9]) == 0
    assert class_matched_error(correct, labels, [0, 5, 0]) == 100
    # class 3 has no unseen sample: it leaves the mix
    assert class_matched_error(correct, labels, [3, 1, 0, 50]) == pytest.approx(62.5)
    numbers = np.asarray(correct, np.float32)
    assert class_matched_error(numbers, labels, [1, 1, 2]) == pytest.approx(37.5)


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(5, 60))
@settings(deadline=None, max_examples=50)
def test_class_matched_error_is_an_average_that_knows_the_plain_one(
    seed, classes, size
):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    correct = rng.random(size) < rng.random(classes)[labels]
    plain = 100 * (1 - correct.mean())
    counts = np.bincount(labels, minlength=classes)
    # the unseen set's own mix gives the plain error
    assert class_matched_error(correct, labels, 3 * counts) == pytest.approx(plain)
    # repeating the unseen samples of one class changes nothing
    other = rng.integers(0, 9, classes)
    other[labels[0]] += 1
    once = class_matched_error(correct, labels, other)
    again = np.concatenate([np.arange(size), np.flatnonzero(labels == labels[0])])
    assert class_matched_error(correct[again], labels[again], other) == pytest.approx(
        once
    )
    assert 0 <= once <= 100


@pytest.mark.parametrize(
    ("correct", "labels", "counts", "message"),
    [
        ([True, np.nan], [0, 1], [1, 1], "correct holds nan; give booleans"),
        ([0.0, 0.4], [0, 1], [1, 1], r"correct holds 0\.4; give booleans"),
        ([[True]], [0], [1], r"correct of shape \(1, 1\)"),
        ([], [0], [1], r"correct of shape \(0,\)"),
        (["yes"], [0], [1], "correct of shape"),
        ([True], [0.0], [1], "labels of shape .* integer"),
        ([True], [0, 1], [1, 1], r"labels\.shape=\(2,\) must be \(1,\)"),
        ([True], [-1], [1], "labels holds -1"),
        ([True], [3], [1, 1], "labels holds 3; forget_counts has 2 classes, 0 to 1"),
        ([True], [0], [1.5], "forget_counts of shape"),
        ([True], [0], [-2], "forget_counts holds -2"),
        ([True], [0], [0, 4], r"forget_counts=\[0, 4\]: no unseen sample"),
        ([True], [0], [0], r"forget_counts=\[0\]: no unseen sample"),
    ],
)
def test_class_matched_error_names_mistakes(correct, labels, counts, message):
    with pytest.raises(InputError, match=message):
        class_matched_error(correct, labels, counts)
