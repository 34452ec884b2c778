"""The learned temperature: its derivative, and that learning lowers the objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import blobs, mlp

from jax_unlearn.lab.job import Trained
from jax_unlearn.recipes import learned
from jax_unlearn.recipes.learned import Carry, Choice, Learner, Problem, free, loreun

MODEL = mlp()
INPUTS, LABELS = blobs(0, 30)
STEPS = 6


@pytest.fixture(scope="module")
def original():
    params, state = MODEL.init(jax.random.key(0), INPUTS[:2])
    return Trained(params, state, {})


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    classes = int(LABELS.max()) + 1
    forget, rest = np.arange(12), np.arange(12, len(LABELS))
    kept = rng.choice(rest, (STEPS, 8))
    order = np.stack([rng.permutation(12)[:8] for _ in range(STEPS)])
    return Problem(
        jnp.asarray(INPUTS[forget]),
        jnp.asarray(LABELS[forget]),
        jnp.asarray((LABELS[forget] + 1) % classes),
        jnp.full(12, 0.6, jnp.float32),
        jnp.asarray(INPUTS[kept]),
        jnp.asarray(LABELS[kept]),
        jnp.asarray(order),
        jnp.asarray(INPUTS[rest]),
        jnp.asarray(LABELS[rest]),
        jnp.full(len(rest), 0.5, jnp.float32),
        jnp.float32(0.3),
    )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(learned, "THROUGH", STEPS)
    return Learner(MODEL)


def choice(tau=0.7):
    rng = np.random.default_rng(1)
    free_ = jnp.asarray(rng.normal(size=12), jnp.float32)
    return Choice(jnp.log(jnp.float32(tau)), free_)


@pytest.mark.parametrize("weigh", [loreun, free])
def test_the_derivative_is_that_of_the_whole_run(quick, original, problem, weigh):
    step = jax.jit(learned.step_of(MODEL, weigh))

    def whole(given):
        memory = learned._MOMENTUM.init(original.params)
        carry = Carry(original.params, original.model_state, memory)
        for t in range(STEPS):
            carry = step(carry, t, problem, given)
        return learned.distance(MODEL, carry.params, carry.state, problem)

    found, slope = quick.gradient(weigh, original, problem, choice())
    value, expected = jax.value_and_grad(whole)(choice())
    np.testing.assert_allclose(found, value, rtol=1e-6)
    for one, other in zip(slope, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-8)
    assert max(float(np.abs(leaf).max()) for leaf in slope) > 1e-5


def test_the_derivative_is_that_of_finite_differences(quick, original, problem):
    _, slope = quick.gradient(loreun, original, problem, choice())
    width = 0.05
    ends = [
        quick.run(loreun, original, problem, choice(0.7 * np.exp(sign * width)))[1]
        for sign in (-1, 1)
    ]
    expected = (ends[1] - ends[0]) / (2 * width)
    np.testing.assert_allclose(slope.log_temperature, expected, rtol=0.02)


def test_learning_lowers_the_objective(quick, original, problem):
    before = quick.run(free, original, problem, choice())[1]
    best, path = quick.learn(free, original, problem, choice())
    after = quick.run(free, original, problem, best)[1]
    assert path[0] == pytest.approx(before)
    assert after == pytest.approx(min(path))
    assert after < before


def test_the_grid_costs_what_the_updates_cost():
    plain = learned.STEPS * len(learned.GRID)
    rest = learned.STEPS - learned.THROUGH
    update = rest + learned.PASSES * learned.THROUGH
    assert abs(plain - learned.OUTER * update) <= learned.STEPS
