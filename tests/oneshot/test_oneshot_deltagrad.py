"""DeltaGrad against retraining and float64, and its L-BFGS product against BFGS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import blobs, softmax64

import jax_unlearn as ju
from jax_unlearn.oneshot.deltagrad import deltagrad, gradient_path, lbfgs_product

CLASSES, STEPS, DECAY = 3, 120, 0.01
MODEL = ju.from_stateless(
    lambda key, x: {"w": jnp.zeros((2, CLASSES)), "b": jnp.zeros(CLASSES)},
    lambda p, x: x @ p["w"] + p["b"][None],
)
LOSS = ju.objectives.descent(MODEL)._replace(train=False)
INPUTS, LABELS = blobs(0, 60, classes=CLASSES)
BATCH = ju.Batch(INPUTS, LABELS)
ZERO = {"w": jnp.zeros((2, CLASSES)), "b": jnp.zeros(CLASSES)}
RATES = np.full(STEPS, 0.5)
REMOVED = np.array([0, 60, 61, 121, 150])


def descend64(keep):
    """Return the end of gradient descent on some samples, in float64."""
    inputs, labels = np.float64(INPUTS[keep]), LABELS[keep]
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    theta = np.zeros((3, CLASSES))
    for rate in RATES:
        wrong = softmax64(design @ theta)
        wrong[np.arange(len(labels)), labels] -= 1
        theta = theta - rate * (design.T @ wrong / len(labels) + DECAY * theta)
    return {"w": theta[:2], "b": theta[2]}


def distance(a, b):
    return np.sqrt(
        sum(np.sum((np.float64(a[name]) - np.float64(b[name])) ** 2) for name in a)
    )


KEEP = np.setdiff1d(np.arange(len(LABELS)), REMOVED)
TRAINED, PATH = gradient_path(LOSS, ZERO, BATCH, rates=RATES, decay=DECAY)
RETRAINED = descend64(KEEP)


def test_the_path_is_gradient_descent():
    assert distance(TRAINED, descend64(np.arange(len(LABELS)))) < 1e-5
    assert PATH.params.shape == (STEPS + 1, 9)
    steps = PATH.params[:-1] - PATH.rates[:, None] * PATH.grads
    np.testing.assert_allclose(steps, PATH.params[1:], atol=1e-6)
    assert not PATH.params[0].any()


def test_all_steps_exact_is_retraining():
    got, info = deltagrad(LOSS, period=1)(TRAINED, PATH, BATCH, REMOVED)
    assert distance(got, RETRAINED) < 2e-5
    assert info.exact == STEPS


def test_the_estimate_is_near_retraining_at_a_part_of_the_price():
    got, info = deltagrad(LOSS)(TRAINED, PATH, BATCH, REMOVED)
    before = distance(TRAINED, RETRAINED)
    assert before > 1e-2
    assert distance(got, RETRAINED) < 0.1 * before
    planned = 10 + (STEPS - 10) // 5
    assert info.exact == planned
    assert info.gradients == planned * 180 + STEPS * 5
    assert info.retraining == STEPS * 175
    assert info.gradients < 0.35 * info.retraining
    assert info.rejected == 0


def test_a_longer_memory():
    replay = deltagrad(LOSS, history=4, period=10)
    got, info = replay(TRAINED, PATH, BATCH, REMOVED)
    assert distance(got, RETRAINED) < 0.1 * distance(TRAINED, RETRAINED)
    assert info.exact == 10 + (STEPS - 10) // 10


def test_ids_and_padding():
    order = np.random.default_rng(0).permutation(180)
    shuffled = ju.Batch(
        jnp.asarray(np.r_[INPUTS[order], 99 * np.ones((4, 2), np.float32)]),
        jnp.asarray(np.r_[LABELS[order], np.zeros(4, np.int32)]),
        jnp.asarray(np.r_[order + 1000, [1000] * 4], jnp.int32),
        jnp.arange(184) < 180,
    )
    trained, path = gradient_path(LOSS, ZERO, shuffled, rates=RATES, decay=DECAY)
    assert distance(trained, TRAINED) < 1e-5
    replay = deltagrad(LOSS, period=2)
    got, info = replay(trained, path, shuffled, REMOVED + 1000)
    assert distance(got, RETRAINED) < 0.02 * distance(TRAINED, RETRAINED)
    assert info.retraining == STEPS * 175


def test_lbfgs_product_is_that_of_the_bfgs_matrix():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(6, 6))
    hessian = half @ half.T + np.eye(6)
    s = rng.normal(size=(3, 6)) * np.array([[1.0], [1e-3], [10.0]])
    y = s @ hessian
    matrix = np.eye(6) * (s[-1] @ y[-1]) / (s[-1] @ s[-1])
    for a, b in zip(s, y, strict=True):
        image = matrix @ a
        matrix += np.outer(b, b) / (a @ b) - np.outer(image, image) / (a @ image)
    v = rng.normal(size=6)
    product = jax.jit(lbfgs_product)
    got = product(jnp.float32(s), jnp.float32(y), jnp.float32(v))
    np.testing.assert_allclose(got, matrix @ v, rtol=1e-3, atol=1e-3)
    secant = product(jnp.float32(s), jnp.float32(y), jnp.float32(s[-1]))
    np.testing.assert_allclose(secant, y[-1], rtol=1e-4, atol=1e-3)
    missing = np.zeros((2, 6))
    padded = product(
        jnp.float32(np.r_[missing, s]), jnp.float32(np.r_[missing, y]), jnp.float32(v)
    )
    np.testing.assert_allclose(padded, got, rtol=1e-4, atol=1e-4)
    nothing = product(jnp.zeros((3, 6)), jnp.zeros((3, 6)), jnp.float32(v))
    assert not nothing.any()


def parabola(sign):
    def loss_fn(w, state, samples, key):
        return sign * (w.astype(jnp.float32) - samples.inputs) ** 2 / 2, None

    return loss_fn


def test_a_concave_loss_shows_in_the_rejected_pairs():
    samples = ju.Batch(jnp.array([1.0, 3.0, 8.0]), jnp.zeros(3, jnp.int32))
    concave = parabola(-1.0)
    w, path = gradient_path(concave, jnp.float32(0), samples, rates=[0.1] * 20)
    _, info = deltagrad(concave, burn_in=2)(w, path, samples, [1])
    assert info.rejected == 19  # the first pair is 0, no pair at all
    assert info.exact == 20  # without pairs every step is exact


def test_low_precision_parameters_keep_their_dtype():
    samples = ju.Batch(jnp.array([1.0, 3.0]), jnp.zeros(2, jnp.int32))
    convex = parabola(1.0)
    w, path = gradient_path(convex, jnp.bfloat16(0), samples, rates=[0.5] * 30)
    got, _ = deltagrad(convex)(w, path, samples, [1])
    assert (w.dtype, got.dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert path.params.dtype == path.grads.dtype == jnp.float32
    assert abs(float(got) - 1.0) < 0.01


def test_mistakes_of_the_path():
    samples = ju.Batch(jnp.array([1.0, 3.0]), jnp.zeros(2, jnp.int32))
    convex, w = parabola(1.0), jnp.float32(0)
    for rates in ([], [-0.1], 0.1, [float("nan")]):
        with pytest.raises(ju.InputError, match="rates of shape"):
            gradient_path(convex, w, samples, rates=rates)
    with pytest.raises(ju.InputError, match="decay=-1"):
        gradient_path(convex, w, samples, rates=[0.1], decay=-1)
    nobody = samples._replace(mask=jnp.zeros(2, bool))
    with pytest.raises(ju.InputError, match="holds no sample"):
        gradient_path(convex, w, nobody, rates=[0.1])
    with pytest.raises(ju.InputError, match="train=True"):
        gradient_path(LOSS._replace(train=True), ZERO, BATCH, rates=[0.1])
    with pytest.raises(ju.NonFiniteError, match="not finite at step"):
        gradient_path(convex, w, samples, rates=[1e20] * 4)


def test_mistakes_of_the_replay():
    for options in (dict(burn_in=1), dict(period=0), dict(history=0)):
        name, value = next(iter(options.items()))
        with pytest.raises(ju.InputError, match=f"{name}={value}"):
            deltagrad(LOSS, **options)
    replay = deltagrad(LOSS)
    for removed, message in (
        ([], "must be ids"),
        (np.zeros(180, bool), "must be ids"),
        ([3, 3], "twice"),
        ([180], "removed=180 is not among the 180"),
        (np.arange(180), "all 180 samples"),
    ):
        with pytest.raises(ju.InputError, match=message):
            replay(TRAINED, PATH, BATCH, removed)
    with pytest.raises(ju.InputError, match="is of another model"):
        replay({"w": TRAINED["w"]}, PATH, BATCH, [1])
    broken = PATH._replace(rates=PATH.rates.at[7].set(jnp.inf))
    with pytest.raises(ju.NonFiniteError, match="not finite at step 7"):
        replay(TRAINED, broken, BATCH, [1])
