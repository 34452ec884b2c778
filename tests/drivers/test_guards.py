"""Guards end a run before it goes too far; without them it does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import blobs, mlp, trees_close

import jax_unlearn as ju

KEY = jax.random.key(1)
MODEL = mlp()


def parts():
    """Return forget, held-out retain and unseen samples of overlapping clouds."""
    inputs, labels = blobs(0, 30)
    order = np.random.default_rng(0).permutation(len(labels))

    def part(ids):
        return ju.Batch(
            jnp.asarray(inputs[ids]),
            jnp.asarray(labels[ids]),
            jnp.asarray(ids, jnp.int32),
        )

    return part(order[:30]), part(order[30:60]), part(order[60:])


FORGET, RETAIN, UNSEEN = parts()


@pytest.fixture(scope="module")
def trained():
    params, _ = MODEL.init(KEY, FORGET.inputs)
    fit = ju.methods.finetune(MODEL, optax.sgd(0.5))
    batches = [ju.UnlearnBatch(retain=part) for part in (FORGET, RETAIN)] * 60
    return ju.run(fit, fit.init(params, ()), batches, KEY).params


@functools.cache
def climbing(rate):
    return ju.methods.gradient_ascent(MODEL, optax.sgd(rate))


def ascend(params, callback=None, *, rate=0.5, steps=60):
    alg = climbing(rate)
    batches = [ju.UnlearnBatch(FORGET)] * steps
    return ju.run(alg, alg.init(params, ()), batches, KEY, callback=callback)


def start(params):
    return climbing(0.5).init(params, ())


def accuracy(state, batch):
    logits = ju.predict(MODEL, state.params, (), batch.inputs)
    return 100 * np.mean(np.argmax(logits, -1) == np.asarray(batch.labels))


def confidence(params, batch):
    logits = np.asarray(ju.predict(MODEL, params, (), batch.inputs), np.float64)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return shares[np.arange(len(batch.labels)), np.asarray(batch.labels)]


def test_a_collapse_is_stopped_or_rolled_back(trained):
    assert accuracy(start(trained), RETAIN) > 85
    assert accuracy(ascend(trained), RETAIN) < 50  # without a guard it collapses
    stop = ju.guards.utility_guard(MODEL, RETAIN, bound=80, every=1)
    stopped = ascend(trained, stop)
    assert accuracy(stopped, RETAIN) < 80
    assert int(stopped.step) == stop.step < 60
    assert stop.reason.endswith("is under 80 %")
    back = ju.guards.utility_guard(
        MODEL, RETAIN, bound=80, every=1, roll_back=start(trained)
    )
    rolled = ascend(trained, back)
    assert accuracy(rolled, RETAIN) >= 80
    assert int(rolled.step) == stop.step - 1
    trees_close(rolled.params, ascend(trained, steps=stop.step - 1).params)


def test_rolled_back_to_the_start_where_nothing_passed(trained):
    guard = ju.guards.utility_guard(
        MODEL, RETAIN, bound=100, every=3, roll_back=start(trained)
    )
    rolled = ascend(trained, guard)
    assert guard.step == 3
    trees_close(rolled.params, trained)


def test_the_endpoint_weighs_classes_as_the_forget_set_does(trained):
    own, labels = confidence(trained, UNSEEN), np.asarray(FORGET.labels)
    endpoint = ju.guards.unseen_endpoint(own, UNSEEN.labels, labels)
    by_class = [own[np.asarray(UNSEEN.labels) == k].mean() for k in labels]
    assert endpoint == pytest.approx(np.mean(by_class))


def test_forgetting_ends_at_the_endpoint(trained):
    guard = ju.guards.endpoint_guard(MODEL, FORGET, endpoint=0.7, every=1)
    state = ascend(trained, guard, rate=0.02, steps=400)
    before = ascend(trained, rate=0.02, steps=guard.step - 1)
    reached = confidence(state.params, FORGET).mean()
    assert reached <= 0.7 < confidence(before.params, FORGET).mean()


def test_a_guard_that_never_acts_changes_no_bit(trained):
    guard = ju.guards.utility_guard(
        MODEL, RETAIN, bound=0, every=2, roll_back=start(trained)
    )
    watched, plain = ascend(trained, guard), ascend(trained)
    assert guard.reason is None
    assert guard.step is None
    for a, b in zip(jax.tree.leaves(watched), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_diverges_is_rolled_back(trained):
    with pytest.raises(ju.NonFiniteError):
        ascend(trained, rate=1e30)
    guard = ju.guards.finite_guard(roll_back=start(trained), every=1)
    state = ascend(trained, guard, rate=1e30)
    assert guard.reason == "the loss or the update is not finite"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert int(state.step) == guard.step - 1


def test_guards_and_other_callbacks_go_together(trained):
    seen = []
    guard = ju.guards.utility_guard(MODEL, RETAIN, bound=80, every=1)
    other = ju.guards.finite_guard(roll_back=start(trained), every=5)
    ascend(
        trained,
        ju.guards.first_of(lambda done, state, info: seen.append(done), guard, other),
    )
    assert seen == list(range(1, guard.step + 1))
    assert other.reason is None


def test_the_last_step_is_looked_at_where_the_length_is_known(trained):
    rest = {"bound": 80, "every": 60}
    late = ju.guards.utility_guard(MODEL, RETAIN, **rest)
    assert accuracy(ascend(trained, late, steps=50), RETAIN) < 80
    assert late.reason is None
    known = ju.guards.utility_guard(MODEL, RETAIN, **rest, steps=50)
    ascend(trained, known, steps=50)
    assert known.step == 50


def test_a_guard_goes_on_where_it_was_saved(trained):
    whole = ju.guards.utility_guard(
        MODEL, RETAIN, bound=80, every=4, roll_back=start(trained)
    )
    end = ascend(trained, whole)
    passed = ju.guards.utility_guard(
        MODEL, RETAIN, bound=80, every=4, roll_back=start(trained)
    )
    cut = whole.step - 2  # not at one of its looks
    ascend(trained, passed, steps=cut)
    again = ju.guards.utility_guard(
        MODEL, RETAIN, bound=80, every=4, roll_back=start(trained)
    )
    again.restore(passed.arrays())
    state = ascend(trained, steps=cut)
    alg = climbing(0.5)
    rest = [ju.UnlearnBatch(FORGET)] * 60
    rolled = ju.run(alg, state, rest, KEY, callback=again)
    assert again.step == whole.step
    trees_close(rolled.params, end.params, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ju.guards.utility_guard(MODEL, RETAIN, bound=101), "bound=101"),
        (lambda: ju.guards.utility_guard(MODEL, RETAIN, bound=np.nan), "bound=nan"),
        (lambda: ju.guards.endpoint_guard(MODEL, FORGET, endpoint=2), "endpoint=2"),
        (
            lambda: ju.guards.utility_guard(MODEL, RETAIN, bound=9, every=0),
            "every=0",
        ),
        (
            lambda: ju.guards.utility_guard(
                MODEL, ju.Batch(np.zeros((0, 2)), np.zeros(0)), bound=9
            ),
            "no samples",
        ),
        (lambda: ju.guards.unseen_endpoint([0.5], [0], [0, 1]), r"\[1\]"),
        (lambda: ju.guards.unseen_endpoint([0.5], [0], []), "forget classes"),
    ],
)
def test_wrong_guards(make, words):
    with pytest.raises(ju.InputError, match=words):
        make()
