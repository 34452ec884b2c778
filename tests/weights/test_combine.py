"""Products, bounds and fades of weightings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import close, forms

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.weights import chain, clip, loreun, schedule, sfron, uniform

LOSSES = jnp.array([0.1, 0.7, 2.0, 0.4])
SAMPLE = ju.Sample(LOSSES, jnp.zeros((4, 3)), jnp.array([0, 1, 2, 0]))


def alone(weighting):
    return weighting.update(SAMPLE, weighting.init())[0]


def counter():
    """Return a weighting whose weights are 1, 2, 3, … step by step."""

    def update(sample, state, *, reference=None):
        del reference
        return jnp.full(sample.losses.shape, 1.0) * (state + 1.0), state + 1.0

    return ju.Weighting(lambda: jnp.float32(0), update)


def test_uniform():
    np.testing.assert_array_equal(alone(uniform()), np.ones(4))


def test_chain_multiplies_and_keeps_every_state():
    both = chain(loreun(temperature=1.0), counter(), sfron(0.5))
    expected = np.float64(alone(loreun(temperature=1.0))) * alone(sfron(0.5))
    state = both.init()
    for step in (1, 2, 3):
        weights, new = jax.jit(both.update)(SAMPLE, state)
        close(weights, step * expected, scale=3)
        assert forms(new) == forms(state)
        state = new
    assert state[1] == 3


def test_chain_passes_the_reference_on():
    seen = []

    def update(sample, state, *, reference=None):
        seen.append(reference)
        return jnp.ones(4), state

    spy = ju.Weighting(lambda: (), update)
    chained = clip(schedule(chain(spy, spy), optax.constant_schedule(1.0)), 0, 2)
    chained.update(SAMPLE, chained.init(), reference=lambda: SAMPLE)
    assert len(seen) == 2
    assert all(reference() is SAMPLE for reference in seen)


def test_chain_of_nothing():
    with pytest.raises(InputError, match="one or more"):
        chain()


def test_clip_bounds():
    plain = np.asarray(alone(loreun(temperature=0.5)))
    got = alone(clip(loreun(temperature=0.5), 0.3, 1.1))
    close(got, np.clip(plain, 0.3, 1.1))
    assert plain.min() < 0.3 < 1.1 < plain.max()
    # bounds may be traced, as any hyper-parameter
    traced = jax.vmap(lambda high: alone(clip(loreun(temperature=0.5), 0.0, high)))(
        jnp.array([0.5, 1.0])
    )
    np.testing.assert_allclose(traced.max(axis=1), [0.5, 1.0])


@pytest.mark.parametrize("bounds", [(-1, 1), (2, 1), (0, float("nan"))])
def test_impossible_bounds(bounds):
    with pytest.raises(InputError, match="low="):
        clip(uniform(), *bounds)


def test_schedule_fades_and_counts_steps():
    faded = schedule(loreun(temperature=0.5), optax.linear_schedule(0.0, 1.0, 4))
    full = np.float64(alone(loreun(temperature=0.5)))
    state = faded.init()
    for step in range(6):
        weights, new = jax.jit(faded.update)(SAMPLE, state)
        close(weights, 1 + min(step / 4, 1) * (full - 1), scale=3)
        assert forms(new) == forms(state)
        state = new
