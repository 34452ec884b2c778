"""Two optimizers for two gradients: against float64 numpy, in phases and together."""

import jax
import numpy as np
import optax
import pytest
from toys import batch, close, relaxed, softmax64, trees_close

import jax_unlearn as ju
from jax_unlearn.errors import InputError

LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
W = jax.random.normal(jax.random.key(3), (4, 3))
KEY = jax.random.key(1)
FORGET, RETAIN = batch(0, 6), batch(1, 9, first_index=6)
PHASES = {
    "together": [ju.UnlearnBatch(FORGET, RETAIN)] * 6,
    "alternating": [ju.UnlearnBatch(FORGET), ju.UnlearnBatch(retain=RETAIN)] * 3,
}


def make(harmonizer=ju.harmonize.separate):
    return ju.methods.neggrad_plus(
        LINEAR,
        ju.optimizers.dual(
            relaxed(optax.adamw(0.02, weight_decay=0.05)),
            optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9)),
        ),
        alpha=0.5,
        **({} if harmonizer is None else {"harmonizer": harmonizer}),
    )


def gradient64(w, samples):
    x, y = np.asarray(samples.inputs, np.float64), np.asarray(samples.labels)
    return x.T @ (softmax64(x @ w) - np.eye(3)[y]) / len(y)


def walk64(steps):
    """Walk with AdamW up the forget loss and SGD down the retain loss."""
    w = np.asarray(W, np.float64)
    first, second, velocity, count = 0.0, 0.0, 0.0, 0
    for one in steps:
        move = np.zeros_like(w)
        if one.forget is not None:
            grad, count = -0.5 * gradient64(w, one.forget), count + 1
            first = 0.9 * first + 0.1 * grad
            second = 0.999 * second + 0.001 * grad**2
            size = np.sqrt(second / (1 - 0.999**count)) + 1e-8
            move -= 0.02 * (first / (1 - 0.9**count) / size + 0.05 * w)
        if one.retain is not None:
            grad = 0.5 * gradient64(w, one.retain) + 5e-4 * w
            velocity = 0.9 * velocity + grad
            move -= 0.1 * velocity
        w = w + move
    return w


@pytest.mark.parametrize("phases", PHASES)
def test_each_gradient_has_its_own_moments(phases):
    steps, alg = PHASES[phases], make()
    start = alg.init(W, ())
    end = ju.run(alg, start, steps, KEY, scan=1)
    close(end.params, walk64(steps), scale=20)
    half = ju.run(alg, start, steps[:2], KEY, scan=1)
    trees_close(ju.run(alg, half, steps[2:], KEY, scan=1), end)


def test_the_optimizer_of_an_absent_gradient_rests():
    alg = make()
    step = jax.jit(alg.step)
    state, _ = step(alg.init(W, ()), PHASES["together"][0], KEY)
    after, info = step(state, ju.UnlearnBatch(FORGET), KEY)
    trees_close(after.opt_state.retain, state.opt_state.retain)
    assert info.retain_loss == 0
    assert np.abs(after.params - state.params).max() > 1e-3


def test_joined_gradients_are_refused():
    for harmonizer in (ju.harmonize.add(), ju.harmonize.one_way()):
        alg = ju.methods.assemble(
            LINEAR,
            ju.optimizers.dual(optax.sgd(0.1), optax.sgd(0.1)),
            retain=ju.objectives.descent(LINEAR),
            forget=ju.objectives.ascent(LINEAR),
            harmonizer=harmonizer,
        )
        with pytest.raises(InputError, match=r"harmonizer=ju\.harmonize\.separate"):
            jax.eval_shape(alg.step, alg.init(W, ()), PHASES["together"][0], KEY)
