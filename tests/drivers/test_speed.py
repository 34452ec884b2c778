"""Fast trainings: schedule, rates, slow parameters, labels and augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jax_unlearn as ju
from jax_unlearn import objectives, speed


def test_rates_and_decays_are_those_of_the_description():
    """One step by hand: rate 11.5·c, biases 64 times, decay 0.0153·c, Nesterov."""
    optimizer = speed.whitened().optimizer(100)
    params = {"layer": {"kernel": jnp.float32(2.0), "bias": jnp.float32(3.0)}}
    grads = jax.tree.map(lambda p: p / 10, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    c, begin = 1 / (1 + 1 / 0.15), 0.2
    for name, rate in (("kernel", 11.5), ("bias", 64 * 11.5)):
        w, g = float(params["layer"][name]), float(grads["layer"][name])
        expected = -begin * 1.85 * c * (rate * g + 0.0153 * w)
        np.testing.assert_allclose(updates["layer"][name], expected, rtol=1e-5)


def test_a_smaller_batch_takes_smaller_steps():
    def first(size):
        optimizer = speed.whitened(batch_size=size).optimizer(10)
        w = {"kernel": jnp.ones(1)}
        return float(optimizer.update(w, optimizer.init(w), w)[0]["kernel"][0])

    np.testing.assert_allclose(first(1024) / first(256), 4, rtol=1e-5)


def test_lookahead_ends_at_the_slow_parameters():
    steps, every, rate = 7, 3, 0.5
    optimizer = speed.lookahead(optax.sgd(rate), steps, every=every)
    w, slow, fast = jnp.float32(1.0), 1.0, 1.0
    state = optimizer.init(w)
    for step in range(1, steps + 1):
        updates, state = optimizer.update(jnp.float32(step), state, w)
        w = optax.apply_updates(w, updates)
        fast -= rate * step
        if step % every == 0 or step == steps:
            alpha = 1.0 if step == steps else 0.95**5 * (step / steps) ** 3
            slow = alpha * slow + (1 - alpha) * fast
            fast = slow
        np.testing.assert_allclose(w, fast, rtol=1e-5)
    np.testing.assert_allclose(w, state.slow)


def test_smoothed_labels_are_learned_and_true_ones_weighed():
    model = ju.from_stateless(lambda key, x: None, lambda w, x: w * x)
    batch = ju.Batch(jnp.array([[2.0, 0.0, 1.0]]), jnp.array([2]))
    loss = objectives.descent(model, smoothing=0.3)
    losses, aux = loss(jnp.float32(1), (), batch, jax.random.key(0))
    logs = np.log(np.exp([2.0, 0, 1]) / np.exp([2.0, 0, 1]).sum())
    np.testing.assert_allclose(losses[0], -0.7 * logs[2] - 0.1 * logs.sum(), rtol=1e-6)
    np.testing.assert_allclose(aux.task_losses[0], -logs[2], rtol=1e-6)
    with pytest.raises(ju.InputError, match=r"smoothing=1.0 must lie in \[0, 1\)"):
        objectives.descent(model, smoothing=1.0)


@pytest.mark.parametrize(("make", "most"), [(speed.resnet, 4), (speed.whitened, 2)])
def test_augmentation_flips_and_shifts_within_bounds_by_its_key(make, most):
    """A bright column moves by `most` at the most, from its place or its mirror's."""
    images = jnp.zeros((200, 15, 15, 1), jnp.uint8).at[:, :, 3].set(255)
    augment = make().augment
    key = jax.random.key(0)
    found = augment(key, images)
    assert found.dtype == jnp.uint8
    places = np.asarray(found[:, 7, :, 0]).argmax(axis=1)
    straight, mirrored = abs(places - 3) <= most, abs(places - 11) <= most
    assert (straight | mirrored).all()
    assert straight.any()
    assert mirrored.any()
    assert set(places - 3) >= set(range(-min(most, 3), most + 1))
    np.testing.assert_array_equal(found, augment(key, images))
    assert (found != augment(jax.random.key(1), images)).any()


@pytest.mark.parametrize("steps", [10, 30])
def test_a_shortened_training_is_annealed_to_its_end(steps):
    optimizer = speed.resnet(learning_rate=1.0, weight_decay=0.0).optimizer(steps)
    w = jnp.ones(1)
    state, found = optimizer.init(w), []
    for _ in range(steps):
        updates, state = optimizer.update(w, state, w)
        found.append(-float(updates[0]))
    rates = np.array(found) / (1 - 0.9 ** (np.arange(steps) + 2)) / 10  # the trace's
    np.testing.assert_allclose(rates[0], 0.2, rtol=1e-4)
    np.testing.assert_allclose(rates[steps // 5], 1, rtol=1e-4)
    np.testing.assert_allclose(rates[-1], 1.25 / steps, rtol=1e-4)
