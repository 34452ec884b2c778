"""Methods of one shot against what is published, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from published import (
    CLASSES,
    FORGET,
    KEY,
    ORIGINAL,
    REQUEST,
    RETAIN,
    SEED,
    TRAINING,
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
    onehot,
    retaining,
    rows_of,
    subject,
    wide,
)
from test_published_weights import like, squares
from toys import softmax64

import jax_unlearn as ju
from jax_unlearn.lab.job import execute
from jax_unlearn.lab.subject import Trainer

# --- in one shot --------------------------------------------------------------------


def test_ssd():
    """θ·λ·I_D/I_f, at most θ, where I_f > α·I_D; statistics as they are."""
    every, some = squares(np.union1d(FORGET, RETAIN)), squares(FORGET)
    job = job_of("ssd", selection=1.1, dampening=0.8)

    def dampened(param, every, some):
        marked = some > 1.1 * every
        factor = np.minimum(0.8 * every / np.where(marked, some, 1), 1)
        return param * np.where(marked, factor, 1)

    expected = jax.tree.map(dampened, ORIGINAL.params, every, some)
    found, state = job.transform(*drawn(0))
    assert far(found, expected, ORIGINAL.params) < 1e-5
    np.testing.assert_array_equal(flat(wide(state)), flat(ORIGINAL.state))
    assert 0.1 < np.mean(flat(some) > 1.1 * flat(every)) < 0.9


def test_fisher_forgetting():
    """Noise of variance α·min(1/F, 1000), F the mean of squares of single gradients."""
    each = []
    for i in RETAIN:
        batch = rows_of(np.array([i]))
        grads, _ = mean_gradient(ORIGINAL, batch, cross(batch.labels), train=False)
        each.append((1 / len(RETAIN), jax.tree.map(np.square, grads)))
    fisher = add(*each)
    noise = {}
    for alpha in (1e-3, 4e-3):
        job = job_of("fisher_forgetting", noise=alpha)
        change = add((1, wide(job.transform(*drawn(0))[0])), (-1, ORIGINAL.params))
        deviation = jax.tree.map(
            lambda f, a=alpha: np.sqrt(a / np.maximum(f, 1e-3)), fisher
        )
        noise[alpha] = flat(change) / flat(deviation)
    np.testing.assert_allclose(noise[1e-3], noise[4e-3], rtol=2e-3, atol=1e-4)
    assert abs(np.std(noise[1e-3]) - 1) < 0.25  # of 87 draws
    key = jax.random.key(SEED)
    drawn_noise = optax.tree.random_like(key, drawn(0)[0])
    assert far(like(fisher, noise[1e-3]), wide(drawn_noise), add((0, fisher))) < 1e-3


def test_amnesiac():
    """What the training changed in the batches that held forget samples, taken back."""
    everyone, forget = np.arange(60), np.array([3, 40])
    job, key = Trainer(subject(), TRAINING).job(everyone, seed=SEED)
    end = execute(job, None, key)
    at, update = At.of(job.start), retaining(falling(len(job.schedule)))
    lost = []
    for t, batch in enumerate(job.schedule):
        before, at = at, update(t, at, batch)
        if np.isin(batch.retain.index, forget).any():
            lost.append((-1, add((1, at.params), (-1, before.params))))
    assert 1 < len(lost) < len(job.schedule)
    assert far(end.params, at.params, job.start[0]) < 2e-5
    request = REQUEST._replace(forget=forget, retain=np.setdiff1d(everyone, forget))
    made = job_of("amnesiac", original=end[:2], request=request)
    found, _ = made.transform(*end[:2])
    assert far(found, add((1, at.params), *lost), at.params) < 1e-4


def test_deltagrad():
    """Algorithm 1 with the matrix of BFGS itself, not its compact form."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 4)), rng.integers(0, CLASSES, 40)
    gone, decay, steps = np.array([1, 7, 30]), 0.05, 24
    rates = np.linspace(0.5, 0.3, steps)

    def slope(w, ids):
        error = softmax64(x[ids] @ w.reshape(4, CLASSES)) - onehot(y[ids])
        return (x[ids].T @ error).ravel() / len(ids) + decay * w

    every = np.arange(40)
    path, slopes = [np.zeros(12)], []
    for rate in rates:
        slopes.append(slope(path[-1], every))
        path.append(path[-1] - rate * slopes[-1])
    w, pairs = path[0], []
    for t, rate in enumerate(rates):
        if t < 4 or (t - 4 + 1) % 5 == 0:
            full = slope(w, every)
            if t:
                pairs = [*pairs, (w - path[t], full - slopes[t])][-2:]
        else:
            s, g = pairs[-1]
            bent = (s @ g) / (s @ s) * np.eye(12)
            for s, g in pairs:
                along = bent @ s
                bent = bent + np.outer(g, g) / (g @ s)
                bent = bent - np.outer(along, along) / (s @ along)
            full = slopes[t] + bent @ (w - path[t])
        w = w - rate / (40 - 3) * (40 * full - 3 * slope(w, gone))

    model = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
    loss = ju.objectives.descent(model)._replace(train=False)
    batch = ju.Batch(jnp.float32(x), jnp.int32(y), jnp.arange(40))
    start = jnp.zeros((4, CLASSES))
    told = {"rates": rates, "decay": decay}
    end, kept = ju.oneshot.gradient_path(loss, start, batch, **told)
    found, info = ju.oneshot.deltagrad(loss, burn_in=4, period=5)(
        end, kept, batch, gone
    )
    assert info.exact == 8
    assert far(found.ravel(), w, path[-1]) < 1e-3
    exact = path[0]
    rest = np.setdiff1d(every, gone)
    for rate in rates:
        exact = exact - rate * slope(exact, rest)
    # the estimate is not retraining itself: the test would see one for the other
    assert 0.05 > far(w, exact, path[-1]) > 5e-3


def test_fisher_forgetting_as_its_code_has_it():
    """Labels of the model's own; means over inputs; ten times in head and vectors."""
    fisher = add((0, ORIGINAL.params))
    for i in RETAIN:
        batch = rows_of(np.array([i]))
        shares = softmax64(forward(ORIGINAL, batch.inputs, train=False).logits)[0]
        for y in range(CLASSES):
            own = cross(np.array([y]))
            grads, _ = mean_gradient(ORIGINAL, batch, own, train=False)
            squares = jax.tree.map(np.square, grads)
            fisher = add((1, fisher), (shares[y] / len(RETAIN), squares))
    alpha = 1e-3
    limits = {"conv": 1e3, "norm": 1e3, "head": 1e2}
    deviation = {}
    for layer, leaves in fisher.items():
        deviation[layer] = {}
        for name, f in leaves.items():
            variance = alpha * np.minimum(1 / (f + 1e-8), limits[layer])
            if f.ndim > 1:  # flax: inputs are the last axis but one
                variance = np.broadcast_to(variance.mean(-2, keepdims=True), f.shape)
            few = layer == "conv"
            deviation[layer][name] = np.sqrt(variance * (1 if few else 10))
    key = jax.random.key(SEED)
    noise = wide(optax.tree.random_like(key, drawn(0)[0]))
    moved = jax.tree.map(np.multiply, deviation, noise)
    job = job_of("fisher_forgetting", noise=alpha, published=True)
    found, state = job.transform(*drawn(0))
    assert far(found, add((1, ORIGINAL.params), (1, moved)), ORIGINAL.params) < 1e-5
    np.testing.assert_array_equal(flat(wide(state)), flat(ORIGINAL.state))
    # not the equation alone
    plain = job_of("fisher_forgetting", noise=alpha).transform(*drawn(0))[0]
    assert far(plain, found, ORIGINAL.params) > 0.1


def test_fisher_forgetting_sets_a_class_that_goes_to_zero():
    params = {"head": {"kernel": np.ones((4, 3), np.float32)}}
    fisher = {"head": {"kernel": np.full((4, 3), 1e12, np.float32)}}
    noisy = ju.oneshot.published_noise(
        params, fisher, KEY, num_classes=3, alpha=1e-9, gone=[1]
    )["head"]["kernel"]
    np.testing.assert_allclose(noisy[:, [0, 2]], 1, atol=1e-6)
    assert 0 < np.abs(noisy[:, 1]).max() < 0.2  # a deviation of 0.03
