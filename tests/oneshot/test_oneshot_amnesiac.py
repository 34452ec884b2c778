"""Amnesiac unlearning: the log of a run, and what is undone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oneshot_made import KEY, MODEL, accuracy, forget, loss, pieces, retain
from toys import batch, mlp, trees_close

import jax_unlearn as ju
from jax_unlearn.oneshot.amnesiac import UpdateLog, amnesiac

NET = mlp(width=4)
BATCHES = [
    ju.UnlearnBatch(
        retain=jax.tree.map(np.asarray, batch(step, 3, first_index=3 * step))
    )
    for step in range(6)
]
START, _ = NET.init(jax.random.key(1), BATCHES[0].retain.inputs)
SGD = ju.methods.finetune(NET, optax.sgd(0.3))


def train(count, *, alg=SGD, **options):
    """Return (parameters after `count` steps, the log)."""
    state = alg.init(START, ())
    log = UpdateLog(state, BATCHES, **options)
    run = ju.run(alg, state, BATCHES[:count], KEY, callback=log)
    return run.params, log


def test_the_last_batches_of_plain_sgd_are_undone():
    after, log = train(6)
    before, _ = train(4)
    touched = log.touched([12, 16])  # samples of the batches 4 and 5
    assert touched.tolist() == [False] * 4 + [True] * 2
    trees_close(amnesiac(after, log.updates, touched), before, rtol=1e-6, atol=1e-7)
    distance = optax.tree.norm(optax.tree.sub(after, before))
    assert float(distance) > 0.01
    # everything undone is the beginning
    trees_close(amnesiac(after, log.updates, [True] * 6), START, rtol=1e-6, atol=1e-7)


def test_the_log_is_not_of_donated_memory():
    """The entries stay what they were while the run overwrites its buffers."""
    _, log = train(6)
    states = [train(count)[0] for count in range(7)]
    for step, update in enumerate(log.updates):
        expected = jax.tree.map(np.subtract, states[step + 1], states[step])
        for name, leaf in update.items():
            assert isinstance(leaf, np.ndarray)
            np.testing.assert_array_equal(leaf, expected[name])


def test_momentum_carries_a_batch_on():
    momentum = ju.methods.finetune(NET, optax.sgd(0.3, momentum=0.9))
    after, log = train(6, alg=momentum)
    before, _ = train(4, alg=momentum)
    without = amnesiac(after, log.updates, log.touched([9]))  # batch 3 alone
    trees_close(
        amnesiac(after, log.updates, [False] * 4 + [True] * 2), before, atol=1e-6
    )
    never = ju.run(
        momentum, momentum.init(START, ()), BATCHES[:3] + BATCHES[4:], KEY
    ).params
    assert float(optax.tree.norm(optax.tree.sub(without, never))) > 0.01


def test_watched_samples_alone_are_kept():
    after, log = train(6, watched=[4, 17])
    assert [ids.tolist() for ids in log.ids] == [[3, 4, 5], [15, 16, 17]]
    assert log.touched([17]).tolist() == [False, True]
    before, _ = train(5)
    trees_close(amnesiac(after, log.updates, log.touched([17])), before, atol=1e-6)
    with pytest.raises(ju.InputError, match="forget_ids=9 was not watched"):
        log.touched([9])


def test_a_chunk_under_scan_is_one_entry():
    state = SGD.init(START, ())
    log = UpdateLog(state, BATCHES)
    after = ju.run(SGD, state, BATCHES, KEY, callback=log, scan=4).params
    assert [len(ids) for ids in log.ids] == [12, 6]
    before, _ = train(4)
    trees_close(amnesiac(after, log.updates, log.touched([15])), before, atol=1e-5)


def test_a_resumed_run_looks_its_batches_up_by_step():
    state = ju.run(SGD, SGD.init(START, ()), BATCHES[:3], KEY)
    log = UpdateLog(state, BATCHES)
    ju.run(SGD, state, BATCHES[3:], KEY, callback=log)
    assert [ids[0] for ids in log.ids] == [9, 12, 15]
    with pytest.raises(ju.InputError, match="step 4 after step 6"):
        ju.run(SGD, state, BATCHES[3:4], KEY, callback=log)


def test_ids_of_both_parts_without_padding():
    alg = ju.methods.neggrad_plus(NET, optax.sgd(0.1), alpha=0.9)
    padded = batch(7, 3, first_index=40, mask=[True, False, True])
    both = [ju.UnlearnBatch(padded, batch(8, 2, first_index=2))]
    state = alg.init(START, ())
    log = UpdateLog(state, both)
    ju.run(alg, state, both, KEY, callback=log)
    assert log.ids[0].tolist() == [2, 3, 40, 42]
    unknown = [ju.UnlearnBatch(retain=BATCHES[0].retain._replace(index=None))]
    state = SGD.init(START, ())
    with pytest.raises(ju.InputError, match="batch.index=None"):
        ju.run(SGD, state, unknown, KEY, callback=UpdateLog(state, unknown))


def test_mistakes_and_dtypes():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    updates = [{"w": np.float32([0.5, 0.25])}, {"w": np.float32([0.25, 0.25])}]
    got = amnesiac(params, updates, np.array([True, True]))
    assert got["w"].dtype == jnp.bfloat16
    assert got["w"].tolist() == [0.25, 0.5]
    trees_close(amnesiac(params, updates, [False, False]), params)
    with pytest.raises(ju.InputError, match="must be bool"):
        amnesiac(params, updates, [0, 1])  # step numbers, not truth values
    with pytest.raises(ju.InputError, match=r"bool\[1\] must be bool\[2\]"):
        amnesiac(params, updates, [True])
    with pytest.raises(ju.InputError, match="updates and the parameters"):
        amnesiac({"v": params["w"]}, updates, [True, False])


def test_it_forgets_the_class():
    parts = [
        p for _ in range(6) for p in (*pieces(retain(), 40), *pieces(forget(), 40))
    ]
    batches = [ju.UnlearnBatch(retain=part) for part in parts]
    params, _ = MODEL.init(jax.random.key(0), parts[0].inputs)
    alg = ju.methods.finetune(MODEL, optax.sgd(0.5))
    state = alg.init(params, ())
    log = UpdateLog(state, batches)
    after = ju.run(alg, state, batches, KEY, callback=log).params
    undone = amnesiac(after, log.updates, log.touched(forget().index))
    assert log.touched(forget().index).sum() == 6
    assert accuracy(after, forget()) > 0.9
    assert accuracy(undone, forget()) < 0.3
    assert loss(undone, forget()) > 5 * loss(after, forget())
    assert accuracy(undone, retain()) > 0.7
