"""OrthoGrad: spans in float64, several steps, batch statistics, what retain feels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_behaviour import FORGET, MODEL, RETAIN, loss, original, part
from toys import batch, batchnorm_net, softmax64, trees_close

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.methods import off_span, orthograd

LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w["k"] + w["b"][None])
START = {
    "k": jax.random.normal(jax.random.key(3), (4, 3)),
    "b": jnp.array([0.1, 0.2, -0.1]),
}
KEY = jax.random.key(1)
FORGET_BATCH = batch(0, 6, mask=np.array([1, 1, 0, 1, 1, 0], bool))
RETAIN_BATCH = batch(1, 4, first_index=6, mask=np.array([1, 1, 0, 1], bool))
BOTH = ju.UnlearnBatch(FORGET_BATCH, RETAIN_BATCH)


def off64(vector, rows):
    """Project off the span of the rows, by an SVD in float64."""
    rows = rows[np.linalg.norm(rows, axis=1) > 0]
    if not len(rows):
        return vector
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, s, v = np.linalg.svd(rows, full_matrices=False)
    basis = v[s > 1e-6 * s[0]]
    return vector - basis.T @ (basis @ vector)


@pytest.mark.parametrize("per_leaf", [True, False])
@pytest.mark.parametrize("kind", ["free", "dependent", "tiny", "none", "many"])
def test_spans_in_float64(kind, per_leaf):
    rng = np.random.default_rng(0)
    count = 9 if kind == "many" else 3  # more than a leaf of six has directions
    rows = {"a": rng.normal(size=(count, 8, 5)), "b": rng.normal(size=(count, 6))}
    if kind == "dependent":  # twice the same, and one that is zero in between
        rows = {k: np.stack([r[0], 0 * r[0], 3 * r[0], r[1]]) for k, r in rows.items()}
    if kind == "tiny":  # a sample that is all but learned counts like the others
        rows = {
            k: r * np.reshape([1, 1e-7, 1e-3], (3, *[1] * (r.ndim - 1)))
            for k, r in rows.items()
        }
    if kind == "none":
        rows = {k: 0 * r for k, r in rows.items()}
    g = {"a": rng.normal(size=(8, 5)), "b": rng.normal(size=6)}
    found = jax.jit(off_span, static_argnames="per_leaf")(
        *jax.tree.map(jnp.float32, (g, rows)), per_leaf=per_leaf
    )
    flat = [np.concatenate([r.reshape(len(r), -1) for r in (rows["a"], rows["b"])], 1)]
    one = np.concatenate([g["a"].ravel(), g["b"]])
    expected = off64(one, flat[0])
    if per_leaf:
        expected = np.concatenate(
            [off64(g[k].ravel(), rows[k].reshape(len(rows[k]), -1)) for k in g]
        )
    got = np.concatenate([np.ravel(found["a"]), found["b"]])
    np.testing.assert_allclose(got, expected, atol=3e-6)
    for row in flat[0]:  # in both cases nothing of a whole row is left
        assert abs(row @ got) < 1e-5 * max(np.linalg.norm(row), 1e-30)


def gradients64(w, samples):
    """Return each sample's gradient of the cross-entropy, flat: kernel, bias."""
    x, y = np.asarray(samples.inputs, np.float64), np.asarray(samples.labels)
    error = softmax64(x @ w["k"] + w["b"]) - np.eye(3)[y]
    kernel = x[:, :, None] * error[:, None]
    return {"k": kernel.reshape(len(x), -1), "b": error}


@pytest.mark.parametrize(
    ("alpha", "directions", "per_leaf"),
    [(0.5, None, True), (0.0, None, False), (0.8, 2, False), (0.5, 1, True)],
)
def test_steps_in_float64(alpha, directions, per_leaf):
    optimizer = optax.chain(
        optax.add_decayed_weights(0.05), optax.sgd(0.1, momentum=0.9)
    )
    told = {"alpha": alpha, "directions": directions, "per_leaf": per_leaf}
    alg = orthograd(LINEAR, optimizer, **told)
    w = {k: np.asarray(v, np.float64) for k, v in START.items()}
    velocity = {k: np.zeros_like(v) for k, v in w.items()}
    state, step = alg.init(START, ()), jax.jit(alg.step)
    for _ in range(6):
        some = np.asarray(FORGET_BATCH.mask)
        up = {k: -g[some].mean(0) for k, g in gradients64(w, FORGET_BATCH).items()}
        kept = np.asarray(RETAIN_BATCH.mask).astype(float)
        own = gradients64(w, RETAIN_BATCH)
        mean = {k: (kept[:, None] * g).sum(0) / kept.sum() for k, g in own.items()}
        parts = np.split(np.arange(4), directions or 4)
        rows = {
            k: np.stack([(kept[p] @ g[p]) / max(kept[p].sum(), 1) for p in parts])
            for k, g in own.items()
        }
        if per_leaf:
            up = {k: off64(up[k], rows[k]) for k in up}
        else:
            flat = off64(
                np.concatenate([up["k"], up["b"]]),
                np.concatenate([rows["k"], rows["b"]], axis=1),
            )
            up = {"k": flat[:12], "b": flat[12:]}
        state, info = step(state, BOTH, KEY)
        for k in w:
            down = (alpha * mean[k] + (1 - alpha) * up[k]).reshape(w[k].shape)
            velocity[k] = 0.9 * velocity[k] + down + 0.05 * w[k]
            w[k] = w[k] - 0.1 * velocity[k]
        for k in w:
            moved = np.linalg.norm(w[k] - np.asarray(START[k], np.float64))
            far = np.linalg.norm(np.asarray(state.params[k], np.float64) - w[k])
            assert far < 2e-5 * moved
    assert info.weights[2] == 0  # the masked forget sample


def test_batch_statistics_stay_and_every_sample_has_its_own_gradient():
    model = batchnorm_net()
    params, at = model.init(KEY, RETAIN_BATCH.inputs)
    at = {"mean": at["mean"] + 0.3, "var": at["var"] * 2}
    one = ju.objectives.descent(model)._replace(train=False)

    def felt(alg):
        """Return how much of a step each retain sample feels, of all of it."""
        state, _ = jax.jit(alg.step)(alg.init(params, at), BOTH, KEY)
        trees_close(state.model_state, at)
        move = jax.tree.map(lambda new, old: new - old, state.params, params)
        size = optax.tree.norm(move)
        assert size > 1e-3

        @jax.jit
        def of(i):
            alone = jax.tree.map(lambda leaf: leaf[i][None], RETAIN_BATCH)
            grad = jax.grad(lambda p: one(p, at, alone, KEY)[0][0])(params)
            return optax.tree.vdot(grad, move) / optax.tree.norm(grad)

        return max(abs(float(of(i))) for i in (0, 1, 3)) / float(size)

    assert felt(orthograd(model, optax.sgd(1.0), alpha=0.0, per_leaf=False)) < 1e-5
    plain = ju.methods.gradient_ascent(model, optax.sgd(1.0), model_state="frozen")
    assert felt(plain) > 0.05


def test_it_forgets_at_less_cost_to_the_retain_batch():
    few = jax.tree.map(lambda leaf: leaf[:16], part(RETAIN))
    step = ju.UnlearnBatch(part(FORGET), few)

    def walk(alg, limit):
        """Step until the forget loss is so large; return the retain batch's loss."""
        state, step_fn = alg.init(original(), ()), jax.jit(alg.step)
        for _ in range(400):
            state, _ = step_fn(state, step, KEY)
            if loss(state.params, part(FORGET)) > limit:
                return loss(state.params, few)
        raise AssertionError("it never forgot")

    goal = 2 * loss(original(), part(FORGET))
    plain = walk(ju.methods.gradient_ascent(MODEL, optax.sgd(0.01)), goal)
    off = walk(orthograd(MODEL, optax.sgd(0.01), alpha=0.0, per_leaf=False), goal)
    before = loss(original(), few)
    assert plain - before > 4 * (off - before)


def test_mistakes():
    with pytest.raises(InputError, match="alpha=1.5"):
        orthograd(LINEAR, optax.sgd(0.1), alpha=1.5)
    with pytest.raises(InputError, match="directions=0"):
        orthograd(LINEAR, optax.sgd(0.1), directions=0)
    alg = orthograd(LINEAR, optax.sgd(0.1), directions=3)
    with pytest.raises(InputError, match="divisor of the batch's size"):
        alg.step(alg.init(START, ()), BOTH, KEY)
    with pytest.raises(InputError, match=r"ju\.data\.zipped"):
        alg.step(alg.init(START, ()), ju.UnlearnBatch(FORGET_BATCH), KEY)
    with pytest.raises(InputError, match="differ in structure or shapes"):
        off_span(jnp.zeros(3), jnp.zeros((2, 4)))
    with pytest.raises(InputError, match="directions=7 is no divisor"):
        Unlearning.of(method="orthograd", directions=7)
