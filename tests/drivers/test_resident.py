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
from jax_unlearn.drivers.resident import gather

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


BOTH = HOST, FORGET, RETAIN
WEIGHTED = {"forget_batch_size": 2, "reference": UNSEEN}
CASES = {
    "training": (lambda: TRAIN, ju.data.retain_only, (HOST, RETAIN), {}),
    "in-turn": (relabel, ju.data.sequential, BOTH, {}),
    "weighted": (falw, ju.data.zipped, BOTH, WEIGHTED),
}


def trained(ids=RETAIN, seed=0):
    """Return the feed of two epochs of training on the samples."""
    schedule = ju.data.retain_only(HOST, ids, batch_size=6, epochs=2, seed=seed)
    return ju.resident.listed(schedule, HOST, epochs=2)


@functools.cache
def fresh(count):
    """Return the states of fresh models."""
    make = functools.partial(MODEL.init, inputs=EXAMPLES.inputs[:2])
    return jax.lax.map(lambda key: TRAIN.init(*make(key)), KEYS[:count])


@functools.cache
def start(unlearner):
    return unlearner.init(*jax.jit(MODEL.init)(KEYS[0], HOST.inputs[:2]))


@pytest.mark.parametrize("name", CASES)
def test_it_runs_what_the_plain_driver_runs(name):
    make, plan, given, options = CASES[name]
    schedule = plan(*given, batch_size=6, epochs=2, seed=3, **options)
    unlearner, feed = make(), ju.resident.listed(schedule, HOST, epochs=2)
    state, losses = start(unlearner), []

    def look(step, state, info):
        losses.append((info.forget_loss, info.retain_loss, info.update_norm))

    expected = ju.run(unlearner, state, schedule, KEYS[0], callback=look)
    args = ju.stack([state]), EXAMPLES, ju.stack([feed]), KEYS[:1]
    states, report = ju.resident.run(unlearner, *args, epochs=2)
    trees_close(ju.unstack(states)[0], expected, rtol=1e-5, atol=1e-6)
    each = np.array(losses).reshape(2, feed.steps, 3)
    counts = np.maximum((each != 0).sum(axis=1), 1)  # of steps that had such a loss
    means = (each.sum(axis=1) / counts).T
    np.testing.assert_allclose([row[0] for row in report], means, rtol=1e-4)


def schedules():
    options = {"batch_size": 6, "epochs": 2, "seed": 1}
    strategies = [uniform(len(RETAIN))] * 2
    impair = ju.data.zipped(*BOTH, **options)
    repair = ju.data.retain_only(HOST, RETAIN, batch_size=9, epochs=1)
    return {
        "sequential": ju.data.sequential(*BOTH, **options),
        "every": ju.data.every_k(*BOTH, k=2, **options),
        "merged": ju.data.merged(*BOTH, reference=UNSEEN, **options),
        "queried": ju.data.queried(*BOTH, strategies, query_size=3, **options),
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
    places = zip(feed.table[0].tolist(), feed.row[0].tolist(), strict=True)
    listed = (gather(feed.tables[which], row, EXAMPLES) for which, row in places)
    for ours, own in zip(listed, schedule, strict=True):
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
    feeds = [trained(), trained(np.arange(len(RETAIN)), seed=1)]
    states = fresh(2)
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
    options = {"reference": UNSEEN, "reference_size": 5}
    schedule = ju.data.zipped(*BOTH, batch_size=6, epochs=1, **options)
    feed = ju.resident.listed(schedule, HOST)
    (table,) = feed.tables
    rows = table.reference.index.tolist()
    assert all(len(set(row)) == 5 and set(row) <= set(UNSEEN) for row in rows)
    assert len({tuple(row) for row in rows}) == feed.steps


def test_each_pass_is_over_the_set_in_an_order_of_its_own():
    def tables(seed=0):
        options = {"batch_size": 6, "forget_batch_size": 3, "epochs": 3, "seed": seed}
        schedule = ju.data.zipped(*BOTH, **options)
        feed = ju.resident.listed(schedule, HOST, epochs=3)
        (table,) = feed.tables
        return [jax.tree.map(lambda leaf, r=rows: leaf[r], table) for rows in feed.row]

    orders, forgotten = [], []
    for table in tables():
        order = table.retain.index[table.retain.mask]
        assert sorted(order.tolist()) == RETAIN.tolist()
        orders.append(tuple(order.tolist()))
        forgotten.append(table.forget.index[table.forget.mask])
    assert len(set(orders)) == 3
    counts = np.bincount(np.concatenate(forgotten))  # 15 batches, 3 make a pass
    assert counts.tolist() == [5] * len(FORGET)
    assert tuple(tables(seed=1)[0].retain.index.ravel().tolist()) != orders[0]


def test_programs_compiled_in_threads_are_those_compiled_alone():
    states = fresh(1)
    variables = ju.unstack((states.params, states.model_state))[0]
    args = jax.tree.map(jnp.copy, states), EXAMPLES, ju.stack([trained()]), KEYS[:1]
    outputs = jax.jit(functools.partial(MODEL.apply, train=False))
    asked = *variables, EXAMPLES.inputs[RETAIN]
    waiting = ju.resident.compiling(
        {
            "train": (ju.resident.program(TRAIN, epochs=1), args),
            "outputs": (outputs, asked),
        }
    )
    ready = {name: future.result() for name, future in waiting.items()}
    alone = ju.predict(MODEL, *variables, HOST.inputs[RETAIN])
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
    listed, states = ju.resident.listed, fresh(1)
    feed = ju.stack([trained()])

    def run(states=states, feed=feed, keys=KEYS[:1], epochs=1):
        ju.resident.run(TRAIN, states, EXAMPLES, feed, keys, epochs=epochs)

    with pytest.raises(ju.InputError, match="2 keys for 1 models"):
        run(keys=KEYS)
    with pytest.raises(ju.InputError, match="not all at the end of an epoch of 5"):
        run(states=states._replace(step=states.step + 1))
    more = Examples(*(np.concatenate([part, part]) for part in HOST))
    schedule = ju.data.retain_only(more, [SIZE], batch_size=1, epochs=1)
    with pytest.raises(ju.InputError, match="id 40 of the feed"):
        run(feed=ju.stack([listed(schedule, more)]))
    with pytest.raises(ju.InputError, match="epochs=0"):
        run(epochs=0)
    with pytest.raises(ju.InputError, match="more than the 2 epochs"):
        run(epochs=3)
    schedule = ju.data.retain_only(HOST, RETAIN, batch_size=6, epochs=2)
    with pytest.raises(ju.InputError, match="no multiple of epochs=3"):
        listed(schedule, HOST, epochs=3)
    with pytest.raises(ju.InputError, match="labels of a batch"):
        listed(schedule, HOST._replace(labels=HOST.labels + 1))
    with pytest.raises(ju.InputError, match="inputs of a batch"):
        listed(schedule, HOST._replace(inputs=HOST.inputs + 1))


def test_a_run_that_diverges_names_model_and_epoch():
    states = fresh(1)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, states.params)
    args = states._replace(params=broken), EXAMPLES, ju.stack([trained()]), KEYS[:1]
    with pytest.raises(ju.NonFiniteError, match="model 0 is not finite in epoch 0"):
        ju.resident.run(TRAIN, *args, epochs=1)
