"""Gradients along the step of unlearning: by hand, and of models that unlearned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from toys import batch, batchnorm_net

import jax_unlearn as ju
from jax_unlearn.audit.alignment import gradient_alignment
from jax_unlearn.errors import InputError

MODEL = ju.from_stateless(lambda key, x: jnp.zeros((4, 3)), lambda w, x: x @ w)


def problem(seed=0, count=37):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(count, 4)).astype(np.float32), rng.integers(0, 3, count)
    w, step = (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    return x, y, jnp.asarray(w), jnp.asarray(step)


def by_hand(x, y, w, step):
    """Return the cosines of softmax regression, whose gradient is x (p - e_y)^T."""
    x, w, step = (np.asarray(a, np.float64) for a in (x, w, step))
    residual = softmax(x @ w, axis=1) - np.eye(3)[y]
    gradients = x[:, :, None] * residual[:, None, :]
    lengths = np.sqrt((gradients**2).sum(axis=(1, 2)) * (step**2).sum())
    return (gradients * step).sum(axis=(1, 2)) / lengths


@pytest.mark.parametrize("batch_size", [1, 16, 64])
def test_the_cosines_are_those_of_softmax_regression(batch_size):
    x, y, w, step = problem()
    pair = (w, ()), (w + step, ())
    found = gradient_alignment(MODEL, *pair, x, y, batch_size=batch_size)
    np.testing.assert_allclose(found, by_hand(x, y, w, step), atol=1e-5)
    assert np.abs(found).max() > 0.3


def test_ascent_on_some_samples_gives_them_away_and_no_step_nothing():
    x, y, w, _ = problem(1, 60)
    residual = softmax(np.asarray(x @ w, np.float64), axis=1) - np.eye(3)[y]
    forget = np.arange(60) < 3
    step = 0.01 * x[forget].T @ residual[forget] / 3
    found = gradient_alignment(MODEL, (w, ()), (w + step.astype(np.float32), ()), x, y)
    assert ju.audit.roc_auc(found[forget], found[~forget]) > 0.75
    still = gradient_alignment(MODEL, (w, ()), (w, ()), x, y)
    np.testing.assert_array_equal(still, 0)


def test_a_random_step_tells_nothing_in_the_mean():
    aucs = []
    for seed in range(40):
        x, y, w, step = problem(seed, 40)
        found = by_hand(x, y, w, step)
        if seed < 3:  # one program a shape; the transcription stands for the rest
            pair = (w, ()), (w + step, ())
            own = gradient_alignment(MODEL, *pair, x, y)
            np.testing.assert_allclose(own, found, atol=1e-5)
        aucs.append(ju.audit.roc_auc(found[:20], found[20:]))
    assert np.mean(aucs) == pytest.approx(0.5, abs=4 * np.std(aucs) / 40**0.5)


def test_statistics_of_the_original_are_read_not_those_of_a_batch():
    model = batchnorm_net()
    given = batch(0, 5)
    start = model.init(jax.random.key(0), given.inputs)
    end = jax.tree.map(lambda leaf: leaf + 0.1, start[0])
    told = (start, (end, start[1]))
    whole = gradient_alignment(model, *told, given.inputs, given.labels)
    first = jax.tree.map(lambda leaf: leaf[:1], given.inputs)
    alone = gradient_alignment(model, *told, first, given.labels[:1], batch_size=5)
    np.testing.assert_allclose(whole[0], alone[0], atol=1e-6)
    assert np.all(np.abs(whole) <= 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": [0, 1]}, "2 labels and an input of 37 samples"),
        ({"after": (jnp.zeros((4, 2)), ())}, "two models of one network"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_what_does_not_fit_is_named(change, said):
    x, y, w, step = problem()
    given = {"before": (w, ()), "after": (w + step, ()), "inputs": x, "labels": y}
    with pytest.raises(InputError, match=said):
        gradient_alignment(MODEL, **{**given, **change})
