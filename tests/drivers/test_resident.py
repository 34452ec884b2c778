"""Resident runs: the batches and the keys of `ju.run`, all models in one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batchnorm_net, trees_close

import jax_unlearn as ju
from jax_unlearn.data import Examples
from jax_unlearn.data.queries import uniform
from jax_unlearn.drivers.feeds import ORDER

CLASSES, SIZE = 3, 40
FORGET, RETAIN, UNSEEN = np.arange(7), np.arange(7, 32), np.arange(32, SIZE)
KEYS = jax.random.split(jax.random.key(7), 2)


def network():
    """Return a network of bytes with BatchNorm, mirrored and normalised inside."""
    flat = batchnorm_net(CLASSES)

    def init(key, inputs):
        return flat.init(key, inputs.reshape(len(inputs), -1))

    def apply(params, state, inputs, **options):
        return flat.apply(params, state, inputs.reshape(len(inputs), -1), **options)

    return ju.data.with_preprocessing(
        ju.Model(init, apply), mean=[0.5], std=[0.3], augment=ju.data.random_flip
    )


def samples():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (SIZE, 3, 3, 1), np.uint8)
    return Examples(images, rng.integers(0, CLASSES, SIZE).astype(np.int32))


MODEL, HOST = network(), samples()
EXAMPLES = ju.resident.place(HOST)
SGD = optax.sgd(0.1, momentum=0.9)
TRAIN = ju.methods.finetune(MODEL, SGD)


def relabel(**options):
    return ju.methods.random_label(MODEL, SGD, num_classes=CLASSES, **options)


def falw():
    counts = jnp.bincount(jnp.asarray(HOST.labels[FORGET]), length=CLASSES)
    return relabel(weighting=ju.weights.falw(counts), forward="merged")


BOTH = {"forget": FORGET, "retain": RETAIN, "batch_size": 6}
CASES = {
    "training": (lambda: TRAIN, {"retain": RETAIN, "batch_size": 6}),
    "in-turn": (relabel, {**BOTH, "order": "sequential"}),
    "weighted": (falw, {**BOTH, "forget_batch_size": 2, "reference": UNSEEN}),
}


@functools.cache
def start(unlearner):
    return unlearner.init(*jax.jit(MODEL.init)(KEYS[0], HOST.inputs[:2]))


@pytest.mark.parametrize("name", CASES)
def test_it_runs_what_the_plain_driver_runs(name):
    make, options = CASES[name]
    unlearner, feed = make(), ju.resident.drawn(**options, seed=3)
    state, losses = start(unlearner), []

    def look(step, state, info):
        losses.append((info.forget_loss, info.retain_loss, info.update_norm))

    steps = list(ju.resident.batches(feed, EXAMPLES, epochs=2))
    expected = ju.run(unlearner, state, steps, KEYS[0], callback=look)
    args = ju.stack([state]), EXAMPLES, ju.stack([feed]), KEYS[:1]
    states, report = ju.resident.run(unlearner, *args, epochs=2)
    trees_close(ju.unstack(states)[0], expected, rtol=1e-5, atol=1e-6)
    each = np.array(losses).reshape(2, feed.steps, 3)
    counts = np.maximum((each != 0).sum(axis=1), 1)  # of steps that had such a loss
    means = (each.sum(axis=1) / counts).T
    np.testing.assert_allclose([row[0] for row in report], means, rtol=1e-4)


def schedules():
    options = {"batch_size": 6, "epochs": 2, "seed": 1}
    both = HOST, FORGET, RETAIN
    strategies = [uniform(len(RETAIN))] * 2
    impair = ju.data.zipped(*both, **options)
    repair = ju.data.retain_only(HOST, RETAIN, batch_size=9, epochs=1)
    return {
        "sequential": ju.data.sequential(*both, **options),
        "every": ju.data.every_k(*both, k=2, **options),
        "merged": ju.data.merged(*both, reference=UNSEEN, **options),
        "queried": ju.data.queried(*both, strategies, query_size=3, **options),
        "phases": ju.data.phases(impair, repair).from_step(3),
    }


@pytest.mark.parametrize(
    ("name", "forms"),
    [("sequential", 2), ("every", 2), ("merged", 1), ("queried", 1), ("phases", 2)],
)
def test_a_listed_schedule_is_its_batches(name, forms):
    schedule = schedules()[name]
    feed = ju.resident.listed(schedule, HOST)
    assert len(feed.tables) == forms
    for ours, own in zip(
        ju.resident.batches(feed, EXAMPLES, epochs=1), schedule, strict=True
    ):
        assert jax.tree.structure(ours) == jax.tree.structure(own)
        assert jax.tree.all(jax.tree.map(np.array_equal, ours, own))
    if name == "merged":
        assert feed.tables[0].reference.index.shape == (1, len(UNSEEN))


def test_listing_reads_the_inputs_of_one_batch_a_form():
    class Records(list):
        reads = 0

        def __getitem__(self, position):
            self.reads += 1
            return super().__getitem__(position)

    records = Records({"image": image} for image in HOST.inputs)
    examples = ju.data.from_source(records, HOST.labels)
    schedule = ju.data.retain_only(examples, RETAIN, batch_size=5, epochs=9)
    assert ju.resident.listed(schedule, examples).steps == 45
    assert records.reads == 2 * 5  # the batch, and the examples by its index


def test_models_one_after_the_other_are_each_alone():
    feeds = [
        ju.resident.drawn(retain=ids, batch_size=6, seed=seed)
        for seed, ids in enumerate((RETAIN, np.arange(len(RETAIN))))
    ]
    states = ju.resident.starts(TRAIN, MODEL, KEYS, EXAMPLES)
    both, report = ju.resident.run(
        TRAIN, states, EXAMPLES, ju.stack(feeds), KEYS, epochs=2
    )
    for i, alone in enumerate(ju.unstack(states)):
        args = EXAMPLES, ju.stack([feeds[i]]), KEYS[i : i + 1]
        alone, _ = ju.resident.run(TRAIN, ju.stack([alone]), *args, epochs=1)
        alone, rest = ju.resident.run(TRAIN, alone, *args, epochs=1)  # goes on
        trees_close(ju.unstack(alone)[0], ju.unstack(both)[i])
        np.testing.assert_allclose(rest.retain_loss[0], report.retain_loss[i, 1:])
    assert not np.allclose(*ju.unstack(both.params["v"]))


def test_a_part_of_the_unseen_samples_is_another_each_step():
    feed = ju.resident.drawn(**BOTH, reference=UNSEEN, reference_size=5)
    _, _, (table,) = ORDER(feed, jnp.int32(0))
    rows = table.reference.index.tolist()
    assert all(len(set(row)) == 5 and set(row) <= set(UNSEEN) for row in rows)
    assert len({tuple(row) for row in rows}) == feed.steps


def test_each_pass_is_over_the_set_in_an_order_of_its_own():
    feed = ju.resident.drawn(FORGET, RETAIN, batch_size=6, forget_batch_size=3)
    orders, forgotten = [], []
    for number in range(3):
        _, _, (table,) = ORDER(feed, jnp.int32(number))
        order = table.retain.index[table.retain.mask]
        assert sorted(order.tolist()) == RETAIN.tolist()
        orders.append(tuple(order.tolist()))
        forgotten.append(table.forget.index[table.forget.mask])
    assert len(set(orders)) == 3
    counts = np.bincount(np.concatenate(forgotten))  # 15 batches, 3 make a pass
    assert counts.tolist() == [5] * len(FORGET)
    again = ju.resident.drawn(FORGET, RETAIN, batch_size=6, forget_batch_size=3, seed=1)
    assert tuple(ORDER(again, jnp.int32(0))[2][0].retain.index.ravel()) != orders[0]


def test_programs_compiled_in_threads_are_those_compiled_alone():
    feed = ju.stack([ju.resident.drawn(retain=RETAIN, batch_size=6)])
    states = ju.resident.starts(TRAIN, MODEL, KEYS[:1], EXAMPLES)
    variables = states.params, states.model_state
    args = states, EXAMPLES, feed, KEYS[:1]
    outputs = ju.resident.outputs(MODEL, batch_size=16)
    asked = *variables, EXAMPLES.inputs, jnp.asarray(RETAIN)
    ready = ju.resident.compiled_together(
        {
            "train": (ju.resident.program(TRAIN, epochs=1), args),
            "outputs": (outputs, asked),
        }
    )
    alone = ju.predict(MODEL, *ju.unstack(variables)[0], HOST.inputs[RETAIN])
    np.testing.assert_allclose(ready["outputs"].call(*asked)[0], alone, rtol=1e-5)
    expected, _ = ju.resident.run(TRAIN, *args, epochs=1)
    trees_close(ready["train"].call(*args)[0], expected)
    assert all(one.traced > 0 and one.compiled > 0 for one in ready.values())


def test_a_program_that_fails_does_not_take_the_others_along():
    def broken(x):
        raise ValueError("no such layer")

    x = jnp.ones(2)
    waiting = ju.resident.compiling(
        {"bad": (jax.jit(broken), (x,)), "good": (jax.jit(jnp.sum), (x,))}
    )
    assert waiting["good"].result().call(x) == 2
    with pytest.raises(ValueError, match="no such layer"):
        waiting["bad"].result()


def test_what_does_not_go_is_refused():
    drawn, listed = ju.resident.drawn, ju.resident.listed
    states = ju.resident.starts(TRAIN, MODEL, KEYS[:1], EXAMPLES)
    feed = ju.stack([drawn(retain=RETAIN, batch_size=6)])

    def run(states=states, feed=feed, keys=KEYS[:1], epochs=1):
        ju.resident.run(TRAIN, states, EXAMPLES, feed, keys, epochs=epochs)

    with pytest.raises(ju.InputError, match="2 keys for 1 models"):
        run(keys=KEYS)
    with pytest.raises(ju.InputError, match="not all at the end of an epoch of 5"):
        run(states=states._replace(step=states.step + 1))
    with pytest.raises(ju.InputError, match="id 40 of the feed"):
        run(feed=ju.stack([drawn(retain=[SIZE], batch_size=1)]))
    with pytest.raises(ju.InputError, match="epochs=0"):
        run(epochs=0)
    schedule = ju.data.retain_only(HOST, RETAIN, batch_size=6, epochs=2)
    with pytest.raises(ju.InputError, match="more than the 2 epochs"):
        run(feed=ju.stack([listed(schedule, HOST, epochs=2)]), epochs=3)
    with pytest.raises(ju.InputError, match="no multiple of epochs=3"):
        listed(schedule, HOST, epochs=3)
    with pytest.raises(ju.InputError, match="labels of a batch"):
        listed(schedule, HOST._replace(labels=HOST.labels + 1))
    with pytest.raises(ju.InputError, match="inputs of a batch"):
        listed(schedule, HOST._replace(inputs=HOST.inputs + 1))
    with pytest.raises(ju.InputError, match="at least one set"):
        drawn(batch_size=4)
    with pytest.raises(ju.InputError, match="list of sample ids"):
        drawn(retain=[-1], batch_size=4)


def test_a_run_that_diverges_names_model_and_epoch():
    states = ju.resident.starts(TRAIN, MODEL, KEYS[:1], EXAMPLES)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, states.params)
    feed = ju.stack([ju.resident.drawn(retain=RETAIN, batch_size=6)])
    args = states._replace(params=broken), EXAMPLES, feed, KEYS[:1]
    with pytest.raises(ju.NonFiniteError, match="model 0 is not finite in epoch 0"):
        ju.resident.run(TRAIN, *args, epochs=1)
