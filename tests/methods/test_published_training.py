"""Methods that train on the retain set alone against what is published, in float64."""

import jax
import numpy as np
import pytest
from published import (
    FORGET,
    ORIGINAL,
    RETAIN,
    SEED,
    UNSEEN,
    At,
    add,
    cross,
    drawn,
    falling,
    far,
    flat,
    forward,
    job_of,
    mean_gradient,
    retaining,
    rows_of,
    subject,
    union,
    walk,
    wide,
)
from toys import softmax64

from jax_unlearn.methods.reset import FRESH

# --- convolutions, resets, retraining -----------------------------------------------


def test_ct():
    job = job_of("ct")
    start, state = wide(job.start)
    expected = jax.tree.map(np.copy, ORIGINAL.params)
    expected["conv"]["kernel"] = np.swapaxes(expected["conv"]["kernel"], 0, 1)
    np.testing.assert_array_equal(flat(start), flat(expected))
    np.testing.assert_array_equal(flat(state), flat(ORIGINAL.state))
    walk(job, retaining(falling(len(job.schedule))))


def test_msg():
    """Renewed where |Σ_r ∇ − Σ_f ∇| is least; warm-up, then a linear fall."""
    job = job_of("msg", renewed=0.3, slow=0.1, epochs=5)
    before = np.float64(drawn(0)[0]["conv"]["kernel"])
    renewed = np.float64(job.start[0]["conv"]["kernel"]) != before
    key = jax.random.split(jax.random.key(SEED))[0]
    chosen = jax.random.choice(key, RETAIN, (len(FORGET),), replace=False)
    sums = []
    for ids in (np.asarray(chosen), FORGET):
        batch = rows_of(ids)
        grads, _ = mean_gradient(ORIGINAL, batch, cross(batch.labels), train=False)
        sums.append(grads["conv"]["kernel"])
    order = np.abs(sums[0] - sums[1]).ravel().argsort()
    assert set(np.flatnonzero(renewed)) == set(order[: int(0.3 * renewed.size)])
    slow = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1), ORIGINAL.params)
    slow["conv"]["kernel"][renewed] = 1.0
    steps = len(job.schedule)
    warm = steps // 10

    def factor(t):
        return t / warm if t < warm else 1 - (t - warm) / (steps - warm)

    walk(job, retaining(factor, slow))


def trained(*, seed, steps, rate=1.0):
    """Return the start of a training of a seed, and its update."""
    images = subject().examples.inputs[:2]
    key, _ = jax.random.split(jax.random.key(seed))
    fall = falling(steps)
    update = retaining(lambda t: rate * fall(t))
    return At.of(jax.jit(subject().model.init)(key, images)), update


@pytest.mark.parametrize("method", ["retrain", "short_retrain"])
def test_retraining(method):
    """From scratch on D_r alone, the cosine annealed within the budget."""
    share = {} if method == "retrain" else {"share": 0.5}
    job = job_of(method, **share)
    steps = 4 if share else 8  # of 2 epochs of 4 batches
    assert len(job.schedule) == steps
    seed = SEED if not share else FRESH + SEED
    start, update = trained(seed=seed, steps=steps)
    np.testing.assert_array_equal(flat(wide(job.start[0])), flat(start.params))
    ids = [i for batch in job.schedule for i in batch.retain.index]
    assert set(ids) == set(RETAIN)
    walk(job, update)


def test_partial_reset():
    told = {"share": 0.5, "shrink": 0.3, "perturb": 0.7, "rate": 2.0}
    job = job_of("partial_reset", **told)
    fresh, update = trained(seed=FRESH + SEED, steps=4, rate=2.0)
    mixed = add((0.3, ORIGINAL.params), (0.7, fresh.params))
    assert far(job.start[0], mixed, ORIGINAL.params) < 1e-6
    np.testing.assert_array_equal(flat(wide(job.start[1])), flat(fresh.state))
    walk(job, update)


@pytest.mark.parametrize("sharpen", [None, 2.5])
def test_reset_transport(sharpen):
    """One mean over D_f, led to what a partial reset says of it, and D_r."""
    told = {"shrink": 0.3, "rate": 2.0}
    _, update = trained(seed=FRESH + SEED, steps=2, rate=2.0)
    led = {"share": 0.25, "perturb": 0.7}  # 80 samples, of which a fifth leads
    reset = walk(job_of("partial_reset", **told, **led), update)
    job = job_of("reset_transport", epochs=1, lead=0.2, sharpen=sharpen, **told)
    assert job.start is None
    z = forward(reset, rows_of(FORGET).inputs, train=False).logits
    sure = forward(ORIGINAL, rows_of(UNSEEN).inputs, train=False).logits
    goal, low, high = softmax64(sure).max(axis=1).mean(), 0.01, 100.0
    while sharpen is None and high - low > 1e-9:
        middle = (low + high) / 2
        less = softmax64(middle * z).max(axis=1).mean() < goal
        low, high = (middle, high) if less else (low, middle)
    targets = softmax64((sharpen or low) * z)
    walk(job, union(lambda t, at, samples: cross(targets[samples.index])))
