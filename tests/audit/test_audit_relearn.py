"""Relearn time against a float64 descent, and whether it tells models apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batchnorm_net, blobs, mlp, softmax64

import jax_unlearn as ju
from jax_unlearn.audit import relearn
from jax_unlearn.audit.relearn import relearn_steps
from jax_unlearn.data.sources import Examples
from jax_unlearn.errors import InputError, NonFiniteError

LINEAR = ju.from_stateless(lambda key, x: jnp.zeros((4, 3)), lambda w, x: x @ w)
SGD = optax.sgd(0.5)
KEY = jax.random.key(0)


def examples(seed=0, size=10):
    rng = np.random.default_rng(seed)
    return Examples(
        rng.normal(size=(size, 4)).astype(np.float32),
        rng.integers(0, 3, size).astype(np.int32),
    )


def start(seed=1):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)


def loss64(w, inputs, labels):
    p = softmax64(np.asarray(inputs, np.float64) @ w)
    return -np.log(p[np.arange(len(p)), labels]).mean()


def descent64(w, batches, steps):
    """Return the losses on all samples of `steps` steps of SGD, batches in turn."""
    w, losses = np.asarray(w, np.float64), []
    inputs = np.concatenate([b.inputs for b in batches])
    labels = np.concatenate([b.labels for b in batches])
    for step in range(steps + 1):
        losses.append(loss64(w, inputs, labels))
        b = batches[step % len(batches)]
        x = np.asarray(b.inputs, np.float64)
        error = softmax64(x @ w) - np.eye(3)[b.labels]
        w = w - 0.5 * x.T @ error / len(x)
    return np.array(losses)


def halves():
    x, y = examples()
    return [ju.Batch(x[:5], y[:5]), ju.Batch(x[5:], y[5:])]


def test_steps_are_those_of_a_float64_descent_over_several_passes():
    expected = descent64(start(), halves(), 9)
    bar = (expected[6] + expected[7]) / 2
    first = int(np.flatnonzero(expected <= bar)[0])
    assert first == 7  # in the fourth pass over the two batches
    found = relearn_steps(LINEAR, start(), (), halves(), SGD, KEY, loss_below=bar)
    assert (found.steps, found.reached) == (7, True)
    np.testing.assert_allclose(found.losses, expected[:8], rtol=1e-5)
    assert found.losses.dtype == np.float64


def test_no_step_where_the_loss_is_low_already():
    now = descent64(start(), halves(), 0)[0]
    found = relearn_steps(
        LINEAR, start(), (), halves(), SGD, KEY, loss_below=now + 1e-4
    )
    assert (found.steps, found.reached, len(found.losses)) == (0, True, 1)


@pytest.mark.parametrize(("limit", "reached"), [(6, False), (7, True), (8, True)])
def test_the_limit_stops_it(limit, reached):
    expected = descent64(start(), halves(), 9)
    bar = (expected[6] + expected[7]) / 2
    found = relearn_steps(
        LINEAR, start(), (), halves(), SGD, KEY, loss_below=bar, limit=limit
    )
    assert (found.steps, found.reached) == (min(limit, 7), reached)
    assert len(found.losses) == found.steps + 1


def test_all_kinds_of_batches_mean_the_same():
    data, ids = examples(), [0, 2, 3, 5, 9]
    options = {"loss_below": 0.0, "limit": 4}
    found = [
        relearn_steps(LINEAR, start(), (), batches, SGD, KEY, **options).losses
        for batches in (
            [ju.data.retain_only(data, ids, batch_size=5, epochs=1)[0].retain],
            ju.data.retain_only(data, ids, batch_size=5, epochs=1),
            [ju.UnlearnBatch(ju.Batch(data.inputs[ids], data.labels[ids]))],
        )
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-5)


def test_the_loss_counts_each_forget_sample_once_and_no_padding(monkeypatch):
    # Batches of 4 pad 7 samples with one of them; three passes show each three times.
    monkeypatch.setattr(relearn, "EVALUATED", 3)
    data, ids = examples(2, 12), [0, 1, 4, 6, 7, 9, 11]
    schedule = ju.data.forget_only(data, ids, batch_size=4, epochs=3)
    found = relearn_steps(
        LINEAR, start(), (), schedule, SGD, KEY, loss_below=0.0, limit=2
    )
    expected = loss64(np.asarray(start()), data.inputs[ids], data.labels[ids])
    assert found.losses[0] == pytest.approx(expected, rel=1e-6)


def test_a_repeated_id_counts_once():
    x, y = examples(2)
    ids = np.array([[0, 1, 2], [2, 3, 2]], np.int32)
    batches = [ju.Batch(x[i], y[i], i) for i in ids]
    found = relearn_steps(
        LINEAR, start(), (), batches, SGD, KEY, loss_below=0.0, limit=1
    )
    expected = loss64(np.asarray(start()), x[:4], y[:4])
    assert found.losses[0] == pytest.approx(expected, rel=1e-6)


def test_the_loss_can_be_taken_elsewhere():
    x, y = examples(3)
    elsewhere = ju.Batch(x, y, mask=jnp.arange(10) < 4)
    found = relearn_steps(
        LINEAR, start(), (), halves(), SGD, KEY, loss_below=0.0, limit=1,
        evaluate_on=elsewhere,
    )  # fmt: skip
    assert found.losses[0] == pytest.approx(
        loss64(np.asarray(start()), x[:4], y[:4]), rel=1e-6
    )


def test_training_is_in_train_mode_and_looking_in_eval_mode():
    net, (x, y) = batchnorm_net(), examples(4)
    params, state = net.init(jax.random.key(3), x)
    given = jax.tree.map(np.array, (params, state))
    batches = [ju.Batch(x, y)]
    found = relearn_steps(
        net, params, state, batches, SGD, KEY, loss_below=0.0, limit=1
    )
    p = softmax64(ju.predict(net, params, state, x))
    expected = -np.log(p[np.arange(10), y]).mean()
    assert found.losses[0] == pytest.approx(expected, rel=1e-5)
    alg = ju.methods.finetune(net, SGD)
    after = ju.run(
        alg, alg.init(params, state), [ju.UnlearnBatch(retain=batches[0])], KEY
    )
    p = softmax64(ju.predict(net, after.params, after.model_state, x))
    expected = -np.log(p[np.arange(10), y]).mean()
    assert found.losses[1] == pytest.approx(expected, rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, given, (params, state))  # untouched


def test_a_model_that_only_hides_relearns_faster_than_retrain():
    # Blobs whose third class is hidden by its outputs alone, or was never learned.
    net, (x, y) = mlp(width=16), blobs(0, 30)
    data, forget, retain = Examples(x, y), np.flatnonzero(y == 2), np.flatnonzero(y < 2)
    alg = ju.methods.finetune(net, optax.sgd(0.3))

    def trained(ids):
        params, state = net.init(jax.random.key(5), x)
        batches = ju.data.retain_only(data, ids, batch_size=90, epochs=150)
        return ju.run(alg, alg.init(params, state), batches, KEY).params

    original, retrained = trained(np.arange(90)), trained(retain)
    hidden = {**original, "v": original["v"] * jnp.array([[1.0, 1.0, 0.0]])}
    batches = ju.data.forget_only(data, forget, batch_size=30, epochs=1)

    def count(params):
        return relearn_steps(
            net, params, (), batches, optax.sgd(0.02), KEY, loss_below=0.3, limit=400
        )

    found = [count(params) for params in (original, hidden, retrained)]
    assert found[0].steps == 0
    assert 0 < found[1].steps < 0.5 * found[2].steps < 400
    assert all(f.reached for f in found)


X, Y = examples()
BATCH = ju.Batch(X, Y)


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([], {}, "batches hold no samples"),
        ([], {"evaluate_on": BATCH}, "batches is empty"),
        (iter([BATCH]), {}, "only once"),
        ([ju.UnlearnBatch(BATCH, BATCH)], {}, "2 of the batches"),
        ([ju.UnlearnBatch()], {}, "0 of the batches"),
        ([(X, Y)], {}, "hold a tuple"),
        ([ju.Batch(X, Y + 1)], {}, "labels"),
        ([BATCH], {"evaluate_on": ju.Batch(X, Y, mask=Y < 0)}, "no samples"),
        ([BATCH], {"loss_below": -1.0}, "loss_below=-1.0"),
        ([BATCH], {"loss_below": float("nan")}, "loss_below=nan"),
        ([BATCH], {"limit": 0}, "limit=0"),
    ],
)
def test_mistakes_are_named(batches, options, message):
    options = {"loss_below": 0.1, **options}
    with pytest.raises(InputError, match=message):
        relearn_steps(LINEAR, start(), (), batches, SGD, KEY, **options)


def test_divergence_is_found_out():
    with pytest.raises(InputError, match="given model"):
        relearn_steps(LINEAR, start() * np.nan, (), [BATCH], SGD, KEY, loss_below=0.1)
    wild = optax.sgd(float("inf"))
    with pytest.raises(NonFiniteError, match="after step 0") as caught:
        relearn_steps(LINEAR, start(), (), [BATCH], wild, KEY, loss_below=0.1)
    assert caught.value.step == 0


def test_recovery_is_that_of_a_float64_descent_on_other_samples():
    few, (x, y) = halves(), examples(5, 8)
    found = relearn.recovery(
        LINEAR, start(), (), few, ju.Batch(x, y), SGD, KEY, steps=7, every=3
    )
    assert found.steps.tolist() == [0, 3, 6, 7]
    w, losses, right = np.asarray(start(), np.float64), [], []
    for step in range(8):
        losses.append(loss64(w, x, y))
        right.append(100 * np.mean((x @ w).argmax(1) == y))
        b = few[step % 2]
        error = softmax64(np.asarray(b.inputs, np.float64) @ w) - np.eye(3)[b.labels]
        w = w - 0.5 * np.asarray(b.inputs, np.float64).T @ error / len(b.labels)
    np.testing.assert_allclose(found.losses, np.array(losses)[[0, 3, 6, 7]], rtol=1e-5)
    np.testing.assert_allclose(found.right, np.array(right)[[0, 3, 6, 7]])
    assert found.regained == found.right[-1] - found.right[0]


SCALED = ju.from_stateless(
    lambda key, x: {"gain": jnp.float32(1), "w": jnp.zeros((16, 2))},
    lambda p, x: p["gain"] * (x @ p["w"]),
)


def one_hot_samples():
    """Sixteen samples with a feature of their own each, of two classes in turn."""
    return np.eye(16, dtype=np.float32), (np.arange(16) % 2).astype(np.int32)


def test_relearning_a_few_finds_what_a_small_change_hides():
    """One scalar hides all; Retrain, which never knew, regains nothing."""
    x, y = one_hot_samples()
    knows = jnp.asarray(4.0 * np.eye(2)[y], jnp.float32)
    hidden = {"gain": jnp.float32(-0.05), "w": knows}
    retrain = {"gain": jnp.float32(1), "w": jnp.zeros((16, 2), jnp.float32)}
    again = {**retrain, "w": retrain["w"].at[:, 1].set(0.01)}  # of another seed
    few, held = ju.Batch(x[:4], y[:4]), ju.Batch(x[4:], y[4:])

    def probe(params):
        sgd = optax.sgd(0.05)
        return relearn.recovery(SCALED, params, (), [few], held, sgd, KEY, steps=10)

    found = {n: probe(p) for n, p in (("u", hidden), ("r", retrain), ("n", again))}
    assert found["u"].right[0] == 0  # nothing to be seen before
    assert found["u"].right[-1] == 100
    # features of their own: nothing is learned of the others but by the gain
    assert found["r"].regained == found["n"].regained == 0
    assert np.all(np.diff(found["u"].losses) < 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps=0 must be a whole number from 1"),
        ({"every": 0}, "every=0"),
        ({"batches": []}, "batches is empty"),
        ({"batches": iter(())}, "only once"),
        (
            {"held_out": ju.Batch(np.zeros((0, 4)), np.zeros(0, int))},
            "holds no samples",
        ),
        ({"params": jnp.full((4, 3), jnp.nan)}, "find out where it diverged"),
    ],
)
def test_recovery_refuses_what_cannot_be(change, words):
    x, y = examples()
    given = {"params": start(), "batches": halves(), "held_out": ju.Batch(x, y)}
    given |= {key: change[key] for key in given if key in change}
    how = {key: value for key, value in change.items() if key not in given}
    at = LINEAR, given["params"], (), given["batches"], given["held_out"], SGD, KEY
    with pytest.raises(InputError, match=words):
        relearn.recovery(*at, **how)


def test_recovery_that_diverges_names_the_step():
    x, y = examples()
    many = optax.sgd(1e38)
    at = LINEAR, start(), (), halves(), ju.Batch(x * 1e30, y), many, KEY
    with pytest.raises(NonFiniteError, match="not finite"):
        relearn.recovery(*at)
