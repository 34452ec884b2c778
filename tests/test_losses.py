"""Per-sample losses against float64 numpy, closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.special import logsumexp
from toys import close, softmax64

from jax_unlearn import losses

SHAPES = [(7, 5), (5,), (2, 3, 4)]


def cross_entropy64(logits, labels):
    own = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return logsumexp(logits, axis=-1) - own


def probability64(logits, labels):
    return np.take_along_axis(softmax64(logits), labels[..., None], -1)[..., 0]


def margin64(logits, labels):
    rest = logits.copy()
    np.put_along_axis(rest, labels[..., None], -np.inf, -1)
    own = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return own - rest.max(-1)


def el2n64(logits, labels):
    error = softmax64(logits)
    own = np.take_along_axis(error, labels[..., None], -1)
    np.put_along_axis(error, labels[..., None], own - 1, -1)
    return np.sqrt((error**2).sum(-1))


def soft_cross_entropy64(logits, targets):
    return -(targets * (logits - logsumexp(logits, axis=-1, keepdims=True))).sum(-1)


def distillation64(logits, teacher, temperature):
    t, s = softmax64(teacher / temperature), softmax64(logits / temperature)
    return temperature**2 * (t * (np.log(t) - np.log(s))).sum(-1)


LABELLED = {
    "cross_entropy": cross_entropy64,
    "true_class_probability": probability64,
    "margin": margin64,
    "el2n": el2n64,
}


def compiled(name):
    """A loss as one program."""
    return jax.jit(getattr(losses, name))


def draw(seed, shape):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=shape).astype(np.float32)
    other = rng.normal(scale=3, size=shape).astype(np.float32)
    return logits, rng.integers(0, shape[-1], shape[:-1]), other


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("shape", SHAPES)
def test_labelled_scores_equal_float64(name, shape):
    score = compiled(name)
    for seed in range(5):
        logits, labels, _ = draw(seed, shape)
        expected = LABELLED[name](logits.astype(np.float64), labels)
        got = score(jnp.asarray(logits), jnp.asarray(labels))
        assert got.shape == shape[:-1]
        close(got, expected, scale=np.abs(logits).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_soft_losses_equal_float64(shape):
    distillation = jax.jit(
        lambda x, t, temperature: losses.distillation(x, t, temperature=temperature)
    )
    logits, _, teacher = draw(11, shape)
    wide, wide_teacher = logits.astype(np.float64), teacher.astype(np.float64)
    targets = softmax64(teacher)
    scale = np.abs([logits, teacher]).max()
    close(
        jax.jit(losses.soft_cross_entropy)(jnp.asarray(logits), jnp.float32(targets)),
        soft_cross_entropy64(wide, targets),
        scale=scale,
    )
    for temperature in (0.5, 1.0, 4.0):
        close(
            distillation(jnp.asarray(logits), jnp.asarray(teacher), temperature),
            distillation64(wide, wide_teacher, temperature),
            # T² times the rounding of logits/T
            scale=scale * max(temperature, 1),
        )


CALLS = {
    "cross_entropy": lambda logits, labels, other: losses.cross_entropy(logits, labels),
    "probability": lambda logits, labels, other: losses.true_class_probability(
        logits, labels
    ),
    "margin": lambda logits, labels, other: losses.margin(logits, labels),
    "el2n": lambda logits, labels, other: losses.el2n(logits, labels),
    "soft": lambda logits, labels, other: losses.soft_cross_entropy(
        logits, jax.nn.softmax(other)
    ),
    "distillation": lambda logits, labels, other: losses.distillation(
        logits, other, temperature=2.0
    ),
}


@pytest.fixture(params=CALLS)
def call(request):
    return CALLS[request.param]


def test_vmapped_is_batched_and_jit_is_eager(call):
    arguments = tuple(jnp.asarray(a) for a in draw(5, (6, 4)))
    batched = call(*arguments)
    # another program may sum in another order: a few units in the last place
    vmapped = jax.jit(jax.vmap(call))(*arguments)
    np.testing.assert_allclose(vmapped, batched, 2e-6, 1e-6)
    np.testing.assert_allclose(jax.jit(call)(*arguments), batched, 2e-6, 1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_logits_are_computed_in_float32(call, dtype):
    logits, labels, other = (jnp.asarray(a) for a in draw(6, (6, 4)))
    logits, other = logits.astype(dtype), other.astype(dtype)

    @jax.jit
    def both(logits, other):
        values, pullback = jax.vjp(lambda x: call(x, labels, other), logits)
        return values, pullback(jnp.ones_like(values))[0]

    narrow, gradient = both(logits, other)
    assert narrow.dtype == jnp.float32
    assert gradient.dtype == dtype
    if call is not CALLS["soft"]:  # its targets are a softmax of low precision
        wide, _ = both(logits.astype(jnp.float32), other.astype(jnp.float32))
        np.testing.assert_allclose(narrow, wide, rtol=1e-6, atol=1e-6)


def test_derivatives_to_order_two(call):
    logits, labels, other = (jnp.asarray(a) for a in draw(7, (3, 4)))
    # float32 differences with step 1e-2: errors of 1e-4 (second order) and 1e-5/1e-2
    function = jax.jit(lambda x: call(x, labels, other))
    check_grads(function, (logits,), order=2, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_cross_entropy_has_its_textbook_gradient():
    logits, labels, _ = draw(8, (4, 5))
    gradient = jax.jit(
        jax.grad(lambda x: jnp.sum(losses.cross_entropy(x, jnp.array(labels))))
    )
    expected = softmax64(logits)
    expected[np.arange(4), labels] -= 1
    close(gradient(jnp.asarray(logits)), expected)
    # el2n is the norm of exactly this
    close(
        compiled("el2n")(jnp.asarray(logits), jnp.array(labels)),
        np.linalg.norm(expected, axis=-1),
    )


def test_constants_by_hand():
    zeros, labels = jnp.zeros((1, 10)), jnp.array([3])
    close(compiled("cross_entropy")(zeros, labels), [np.log(10)])
    close(compiled("true_class_probability")(zeros, labels), [0.1])
    close(compiled("el2n")(zeros, labels), [np.sqrt(0.9**2 + 9 * 0.1**2)])
    close(
        compiled("margin")(jnp.array([[3.0, 1.0], [3.0, 1.0]]), jnp.array([0, 1])),
        [2, -2],
    )
    # KL((3/4, 1/4) ‖ (1/2, 1/2)) = log 2 − H(1/4)
    teacher = np.log(np.float32([[3.0, 1.0]]))
    expected = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    close(compiled("distillation")(jnp.zeros((1, 2)), teacher), [expected])


def test_soft_cross_entropy_ends_at_the_entropy_of_the_target():
    logits, labels, other = draw(9, (50, 4))
    targets = softmax64(other)
    entropy = -(targets * np.log(targets)).sum(-1)
    soft = compiled("soft_cross_entropy")
    values = np.asarray(soft(jnp.asarray(logits), jnp.float32(targets)))
    assert np.all(values >= entropy - 1e-6)
    close(soft(jnp.asarray(other), jnp.float32(targets)), entropy)
    onehot = np.eye(4, dtype=np.float32)[labels]
    np.testing.assert_allclose(
        soft(jnp.asarray(logits), onehot),
        compiled("cross_entropy")(jnp.asarray(logits), jnp.asarray(labels)),
        rtol=1e-6,
        atol=1e-6,
    )


def test_distillation_is_zero_at_the_teacher_and_leaves_it_alone():
    logits, _, teacher = (jnp.asarray(a) for a in draw(10, (5, 4)))
    shifted = np.asarray(teacher) + np.float32(2.5)  # the same distribution
    distillation = jax.jit(
        lambda x, t, temperature: losses.distillation(x, t, temperature=temperature)
    )
    assert np.abs(distillation(shifted, teacher, 1.0)).max() < 1e-6
    assert distillation(logits, teacher, 3.0).min() > 0
    gradient = jax.jit(jax.grad(lambda t: jnp.sum(losses.distillation(logits, t))))(
        teacher
    )
    np.testing.assert_array_equal(gradient, jnp.zeros_like(teacher))


def test_distillation_keeps_the_size_of_its_gradient():
    # T²·∇KL tends to the gradient of the squared logit difference / (2K)
    logits, teacher = jnp.array([[0.3, -0.3]]), jnp.array([[-0.1, 0.1]])

    def size(temperature):
        return jax.jit(
            jax.grad(
                lambda x: losses.distillation(x, teacher, temperature=temperature)[0]
            )
        )(logits)

    np.testing.assert_allclose(size(100.0), (logits - teacher) / 2, rtol=1e-3)


def test_extreme_logits_stay_finite():
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e30, 1e30, 0.0]])
    labels = jnp.array([0, 1])
    for name in LABELLED:
        value, gradient = jax.jit(
            jax.value_and_grad(
                lambda x, name=name: jnp.sum(getattr(losses, name)(x, labels))
            )
        )(logits)
        assert jnp.isfinite(value), name
        if name != "el2n":  # a norm has no gradient at zero error
            assert jnp.all(jnp.isfinite(gradient)), name
    np.testing.assert_array_equal(compiled("cross_entropy")(logits, labels), [0.0, 0.0])


def test_impossible_classes_without_weight_count_zero():
    logits = jnp.array([[-jnp.inf, 0.0, 0.0]])
    targets = jnp.array([[0.0, 0.5, 0.5]])
    for loss in (
        lambda x: losses.soft_cross_entropy(x, targets)[0],
        lambda x: losses.distillation(x, logits)[0] + jnp.log(jnp.float32(2)),
    ):
        value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
        np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
        assert jnp.all(jnp.isfinite(gradient))
