"""What objectives ask of outputs and labels, told while tracing; and what they take."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, mlp

import jax_unlearn as ju

KEY = jax.random.key(0)


def output(shape, make=lambda logits: logits):
    """Return a model whose outputs are its parameters, of this shape."""
    return ju.from_stateless(
        lambda key, x: jnp.zeros(shape), lambda params, x: make(params)
    )


def losses(model, params, labels, **options):
    given = ju.Batch(jnp.zeros((len(labels), 1)), labels, **options)
    return ju.objectives.descent(model)(params, (), given, KEY)[0]


LOGITS = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
PIXELS = np.array([[0, 3, 1], [2, 2, 0]])


def test_a_sample_with_labels_of_its_own_axes_has_their_mean():
    table = np.log(np.exp(LOGITS.astype(np.float64)).sum(-1, keepdims=True)) - LOGITS
    expected = np.take_along_axis(table, PIXELS[..., None], -1)[..., 0].mean(1)
    model = output(LOGITS.shape)
    found = losses(model, jnp.array(LOGITS), jnp.array(PIXELS))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_mask_of_such_samples_counts_samples():
    model, given = output(LOGITS.shape), ju.Batch(jnp.zeros(2), jnp.array(PIXELS))
    masked = given._replace(mask=jnp.array([True, False]))
    alg = ju.methods.gradient_ascent(model, optax.sgd(1.0))
    state = alg.init(jnp.array(LOGITS), ())
    state, _ = alg.step(state, ju.UnlearnBatch(masked), KEY)
    shares = np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum(-1, keepdims=True)
    gradient = (shares - np.eye(4)[PIXELS[0]]) / 3  # of the mean over three pixels
    np.testing.assert_allclose(state.params[0], LOGITS[0] + gradient, rtol=1e-5)
    np.testing.assert_array_equal(state.params[1], LOGITS[1])


@pytest.mark.parametrize(
    ("model", "labels", "words"),
    [
        (
            output((2, 1)),
            np.zeros(2, int),
            r"\(2, 1\), .*: give logits .*one sigmoid logit",
        ),
        (output((2, 3)), np.eye(3, dtype=int)[:2], r"of one-hot rows: labels.argmax"),
        (output((2, 3), lambda p: (p, p)), np.zeros(2, int), "are tuple: give logits"),
        (output((2, 3), lambda p: {"a": p}), np.zeros(2, int), "are dict: give logits"),
        (output((2, 3)), np.zeros((2, 1), int), r"labels of shape \(2, 1\)"),
        (output((2, 3)), np.zeros(2), "type float32 .* integers of shape"),
    ],
)
@pytest.mark.parametrize("name", ["descent", "ascent", "random_label"])
def test_what_is_no_classification_is_refused(name, model, labels, words):
    options = {"num_classes": 3} if name == "random_label" else {}
    objective = getattr(ju.objectives, name)(model, **options)
    given = ju.Batch(jnp.zeros(2), jnp.asarray(labels), jnp.arange(2))
    with pytest.raises(ju.InputError, match=words):
        objective(jnp.zeros((2, 1 if "sigmoid" in words else 3)), (), given, KEY)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_that_no_class_has_is_named(wrong):
    model = mlp()
    params, state = model.init(KEY, jnp.zeros((1, 4)))
    labels = jnp.array([0, wrong, 2, 1])
    given = batch(0, 4)._replace(labels=labels)
    alg = ju.methods.finetune(model, optax.sgd(0.1))
    low, high = min(0, wrong), max(2, wrong)
    with pytest.raises(ju.NonFiniteError, match=f"labels {low} to {high} .* step 0$"):
        ju.run(alg, alg.init(params, state), [ju.UnlearnBatch(retain=given)], KEY)
    padded = given._replace(mask=labels != wrong)
    ended = ju.run(alg, alg.init(params, state), [ju.UnlearnBatch(retain=padded)], KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ended.params))


def test_the_optimizer_that_asks_for_the_loss_has_it():
    seen = []

    def update(grads, state, params=None, *, value, **_):
        seen.append(value)
        return grads, state

    asking = optax.GradientTransformationExtraArgs(lambda params: (), update)
    model = mlp()
    params, state = model.init(KEY, jnp.zeros((1, 4)))
    alg = ju.methods.finetune(model, optax.chain(optax.sgd(0.1), asking))
    given = ju.UnlearnBatch(retain=batch(0, 4))
    _, info = alg.step(alg.init(params, state), given, KEY)
    assert seen == [info.retain_loss]
    assert info.retain_loss > 0


def test_sfron_takes_labels_with_axes_of_their_own():
    given = ju.Batch(jnp.zeros(2), jnp.array(PIXELS), jnp.arange(2))
    alg = ju.methods.sfron(
        output(LOGITS.shape),
        optax.sgd(0.1),
        mask=jnp.ones(LOGITS.shape, bool),
        steps=4,
        forget_rate=0.1,
    )
    state, batches = alg.init(jnp.array(LOGITS), ()), ju.UnlearnBatch(given, given)
    for _ in range(2):  # one that climbs and one that does not
        state, info = alg.step(state, batches, KEY)
    assert info.weights.shape == (2,)
    assert np.isfinite(state.params).all()


def test_a_mean_over_samples_counts_samples_not_their_labels():
    model, params = output(LOGITS.shape), jnp.array(LOGITS)
    given = ju.Batch(jnp.zeros(2), jnp.array(PIXELS))
    loss = ju.objectives.descent(model)
    found = ju.gradients.mean_gradient(loss)(params, (), [given], KEY)
    expected = jax.grad(lambda params: loss(params, (), given, KEY)[0].mean())(params)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
