"""Streamed batches are those of the arrays in memory, whatever is read ahead."""

import functools
import io
import subprocess
import sys
import threading

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from PIL import Image
from toys import batchnorm_net, trees_close

import jax_unlearn as ju
from jax_unlearn.data import (
    Examples,
    every_k,
    forget_only,
    forget_split,
    from_source,
    from_tfds,
    merged,
    phases,
    read_labels,
    retain_only,
    scrub_schedule,
    sequential,
    streamed,
    supervised,
    zipped,
)
from jax_unlearn.drivers import checkpoint
from jax_unlearn.errors import InputError

COUNT, CLASSES = 40, 3
PIXELS = np.random.default_rng(0).normal(size=(COUNT, 4)).astype(np.float32)
LABELS = (np.arange(COUNT) % CLASSES).astype(np.int32)
FORGET, RETAIN, UNSEEN = np.arange(0, 14, 2), np.arange(14, 33), np.arange(35, 40)
MEMORY = Examples(PIXELS, LABELS)
KEY = jax.random.key(3)

SCHEDULES = {
    "forget_only": lambda x, **o: forget_only(x, FORGET, **o),
    "retain_only": lambda x, **o: retain_only(x, RETAIN, **o),
    "sequential": lambda x, **o: sequential(x, FORGET, RETAIN, **o),
    "zipped": lambda x, **o: zipped(x, FORGET, RETAIN, **o),
    "every_k": lambda x, **o: every_k(x, FORGET, RETAIN, k=3, **o),
    "merged": lambda x, **o: merged(x, FORGET, RETAIN, **o),
    "scrub": lambda x, **o: (
        scrub_schedule(x, FORGET, RETAIN, forget_epochs=1, **o).schedule
    ),
    "supervised": lambda x, **o: supervised(x, RETAIN, **o),
}


class Recording:
    """Records of the arrays; keeps the positions read, and by which threads."""

    def __init__(self, wait=lambda: None):
        self.read, self.threads, self._wait = [], set(), wait

    def __len__(self):
        return COUNT

    def __getitem__(self, position):
        self._wait()
        self.threads.add(threading.get_ident())
        self.read.append(position)
        return {"image": PIXELS[position], "label": int(LABELS[position])}


def _same(first, second):
    assert len(first) == len(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def _zipped(source=None, **options):
    examples = from_source(source or Recording(), LABELS)
    return zipped(examples, FORGET, RETAIN, **{"batch_size": 4, "epochs": 3} | options)


@pytest.mark.parametrize("name", SCHEDULES)
def test_streamed_batches_are_those_in_memory(name):
    make = functools.partial(SCHEDULES[name], batch_size=4, epochs=2, seed=5)
    source = Recording()
    batches = list(streamed(make(from_source(source, LABELS)), threads=3))
    _same(batches, list(make(MEMORY)))
    pairs = [[batch] if name == "supervised" else batch for batch in batches]
    parts = [part for pair in pairs for part in pair if part is not None]
    rows = np.concatenate([part.index for part in parts])
    # Each row was read once, no other record was, and each id counted as it should.
    assert sorted(source.read) == sorted(rows.tolist())
    counted = np.concatenate([part.index[part.mask] for part in parts])
    times = np.bincount(counted, minlength=COUNT)
    if name in ("forget_only", "sequential"):
        assert set(times[FORGET]) == {2}
    if name != "forget_only":
        assert set(times[RETAIN]) == {2}
    allowed = {"forget_only": [FORGET], "retain_only": [RETAIN], "supervised": [RETAIN]}
    sets = np.concatenate(allowed.get(name, [FORGET, RETAIN]))
    assert set(source.read) == set(sets.tolist())


@pytest.mark.parametrize("name", ["zipped", "sequential"])
def test_the_reference_and_phases_stream_too(name):
    def make(examples):
        schedule = SCHEDULES[name](
            examples, batch_size=4, epochs=1, reference=UNSEEN, reference_size=3
        )
        return phases(schedule, retain_only(examples, RETAIN, batch_size=8, epochs=1))

    _same(list(streamed(make(from_source(Recording(), LABELS)))), list(make(MEMORY)))


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_stream_resumes_anywhere_and_however_it_reads_ahead(data):
    steps = data.draw(st.integers(1, 12))
    schedule = _zipped(epochs=None, steps=steps, seed=data.draw(st.integers(0, 9)))
    whole = list(schedule)
    cut, start = (data.draw(st.integers(0, steps)) for _ in range(2))
    threads = data.draw(st.integers(1, 3))
    prefetch = threads + data.draw(st.integers(0, 9))
    first = streamed(schedule, threads=threads, prefetch=prefetch)
    head = [next(first) for _ in range(cut)]
    assert len(first) == steps - cut
    state = first.get_state()
    second = streamed(schedule.from_step(start), threads=1, prefetch=1)
    assert second.get_state() == {"step": start, "steps": steps}
    second.set_state(state)
    _same(head + list(second), whole)
    assert next(second, "over") == "over"
    assert second.get_state() == {"step": steps, "steps": steps}
    first.set_state({"step": start, "steps": steps})  # back, or on
    _same(list(first), whole[start:])


def _unlearner():
    model = batchnorm_net()
    params, model_state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    alg = ju.methods.random_label(
        model,
        optax.sgd(0.1, momentum=0.9),
        num_classes=CLASSES,
        redraw=True,
        weighting=ju.weights.loreun(temperature=0.5),
    )
    return alg, alg.init(params, model_state)


@pytest.mark.parametrize(("name", "scan"), [("zipped", 1), ("sequential", 3)])
def test_a_run_resumed_from_a_checkpoint_is_the_uninterrupted_one(name, scan, tmp_path):
    make = functools.partial(SCHEDULES[name], batch_size=4, epochs=3)
    alg, start = _unlearner()
    run = functools.partial(ju.run, alg, key=KEY, scan=scan)
    whole = run(start, make(MEMORY))
    source = Recording()
    stream = streamed(make(from_source(source, LABELS)), threads=2, prefetch=9)
    told = []

    def save_and_stop(done, state, info):
        told.append((done, stream.get_state()["step"], len(source.read)))
        if done < 5:
            return None
        record = {"stream": stream.get_state(done)}
        checkpoint.save(tmp_path / "half", state, record)
        return state

    run(start, stream, callback=save_and_stop)
    done, taken, read = told[-1]
    # More was read than taken; and where the form of the batches changes, ju.run has
    # taken one more than it has made steps.
    assert read > 8 * taken if name == "zipped" else read > 4 * taken
    assert {taken - done for done, taken, _ in told} == {0} if scan == 1 else {0, 1}
    assert checkpoint.read_record(tmp_path / "half")["stream"]["step"] == done
    back = checkpoint.load(tmp_path / "half", jax.eval_shape(lambda: start))
    again = streamed(make(from_source(Recording(), LABELS)))
    again.set_state(checkpoint.read_record(tmp_path / "half")["stream"])
    assert 0 < len(again) == len(make(MEMORY)) - done
    trees_close(run(back, again), whole, rtol=0, atol=0)
    # The same without a state of the stream: the step of the unlearning is enough.
    rest = make(from_source(Recording(), LABELS)).from_step(int(back.step))
    trees_close(run(back, streamed(rest)), whole, rtol=0, atol=0)


def test_batches_are_read_ahead_by_other_threads_at_the_same_time():
    # No read ends before two are under way: one thread alone would fail.
    pair = threading.Barrier(2, timeout=20)
    source = Recording(pair.wait)
    schedule = _zipped(source, batch_size=1, epochs=None, steps=8)
    batches = list(streamed(schedule, threads=2, prefetch=4))
    _same(batches, list(_zipped(batch_size=1, epochs=None, steps=8)))
    assert len(source.threads) == 2
    assert threading.get_ident() not in source.threads


def test_reading_goes_on_while_a_batch_is_used_but_no_further_than_asked():
    prefetch, size = 3, 8  # records of a step
    ahead = threading.Semaphore(0)
    source = Recording(ahead.release)
    stream = streamed(_zipped(source), threads=2, prefetch=prefetch)
    next(stream)
    for _ in range((1 + prefetch) * size):  # nobody takes a second batch meanwhile
        assert ahead.acquire(timeout=20)
    assert not ahead.acquire(timeout=0.2)
    assert len(source.read) == (1 + prefetch) * size
    assert stream.get_state()["step"] == 1


def test_threads_end_with_the_stream():
    before = threading.active_count()
    stream = streamed(_zipped(), threads=3)
    next(stream)
    workers = [t for t in threading.enumerate() if t.name.startswith("grain-prefetch")]
    assert threading.active_count() > before
    del stream
    for worker in workers:
        worker.join(timeout=20)
        assert not worker.is_alive()


def test_a_failed_read_loses_no_batch():
    failures = ["the disk is away"]

    def fail():
        if failures and len(source.read) >= 17:
            raise OSError(failures.pop())

    source = Recording(fail)
    stream, batches = streamed(_zipped(source), threads=2), []
    with pytest.raises(OSError, match="the disk is away"):
        batches.extend(iter(stream.__next__, None))
    assert 0 < len(batches) < len(_zipped()) - 1
    _same(batches + list(stream), list(_zipped()))


def test_a_source_cannot_end_the_stream_early():
    empty = iter(())
    stream = streamed(_zipped(Recording(lambda: next(empty))))
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(stream)
    assert stream.get_state()["step"] == 0


def test_each_host_streams_its_share():
    hosts, steps = 2, 5
    sources, parts = [Recording(), Recording()], []
    for host, source in enumerate(sources):
        schedule = zipped(
            from_source(source, LABELS),
            FORGET[host::hosts],
            RETAIN[host::hosts],
            batch_size=4 // hosts,
            steps=steps,
        )
        batches = list(streamed(schedule))
        assert len(batches) == steps
        parts += [batch.retain for batch in batches]
    assert not set(sources[0].read) & set(sources[1].read)
    seen = np.concatenate([part.index[part.mask] for part in parts])
    assert sorted(seen.tolist()) == RETAIN.tolist()


# The same by TFDS: a set prepared for real in array_record files, with its own writers;
# images are handed over as PNG files, because TFDS encodes arrays with TensorFlow.


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    def png(number):
        pixels = np.random.default_rng(number).integers(0, 256, (5, 4, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        file.seek(0)
        return file

    class StreamedPets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(5, 4, 3)),
                "label": tfds.features.ClassLabel(names=["cat", "dog", "emu"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {
                s: self._generate_examples(n) for s, n in (("train", 31), ("test", 9))
            }

        def _generate_examples(self, count):
            for n in range(count):
                yield n, {"image": png(n), "label": n % 3}

    folder = tmp_path_factory.mktemp("tfds")
    builder = StreamedPets(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return folder


def test_a_tfds_source_streams_what_from_tfds_loads(prepared):
    import tensorflow_datasets as tfds

    open_source = functools.partial(
        tfds.data_source, "streamed_pets", split="train", data_dir=prepared
    )
    train = from_tfds("streamed_pets", data_dir=prepared).train
    coded = open_source(decoders={"image": tfds.decode.SkipDecoding()})
    assert isinstance(coded[0]["image"], bytes)
    labels = read_labels(coded)
    np.testing.assert_array_equal(labels, train.labels)
    split = forget_split(labels, fraction=0.2, seed=1)
    make = functools.partial(
        zipped,
        forget_ids=split.forget,
        retain_ids=split.retain,
        batch_size=4,
        epochs=2,
    )
    batches = list(streamed(make(from_source(open_source(), labels)), threads=4))
    assert len(batches) == 14
    _same(batches, list(make(train)))


def test_labels_are_read_once_each_and_in_order():
    source = Recording()
    np.testing.assert_array_equal(read_labels(source), LABELS)
    assert sorted(source.read) == list(range(COUNT))
    assert read_labels([{"fine": np.uint8(200)}], key="fine").tolist() == [200]


# A budget of memory that the kernel holds the process to.

BUDGET = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np, optax
import jax_unlearn as ju

COUNT, SIDE, MIB = 640, 512, 2**20  # 640 images of 0.75 MiB

class OnDisk:
    def __len__(self):
        return COUNT
    def __getitem__(self, position):
        with open(sys.argv[1], "rb") as file:
            file.seek(position * SIDE * SIDE * 3)
            pixels = np.frombuffer(file.read(SIDE * SIDE * 3), np.uint8)
        return {"image": pixels.reshape(SIDE, SIDE, 3), "label": position % 2}

def init(key, inputs):
    return jnp.zeros((3, 2)), ()

def apply(params, model_state, inputs, *, train, key=None):
    return (inputs.astype(jnp.float32).mean((1, 2)) / 255) @ params, model_state

source = OnDisk()
examples = ju.data.from_source(source, np.arange(COUNT) % 2)
schedule = ju.data.zipped(
    examples, range(40), range(40, COUNT), batch_size=4, epochs=1
)
model = ju.Model(init, apply)
alg = ju.methods.neggrad_plus(model, optax.sgd(0.1), alpha=0.9)
start = alg.init(*model.init(jax.random.key(0), None))
first = ju.data.streamed(schedule, threads=2, prefetch=2)
ju.run(alg, start, [next(first)], jax.random.key(0), scan=1)  # compiled beforehand
del first

def data_size():
    with open("/proc/self/status") as lines:
        (line,) = [line for line in lines if line.startswith("VmData:")]
    return int(line.split()[1]) * 1024

limit = data_size() + 120 * MIB
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
assert (ju.data.read_labels(source, threads=2) == examples.labels).all()
rest = ju.data.streamed(schedule, threads=2, prefetch=2)
state = ju.run(alg, start, rest, jax.random.key(0), scan=1, check_every=1)
assert int(state.step) == len(schedule)
try:
    examples.inputs[:]
except MemoryError:
    print("whole: too large; streamed:", int(state.step), "steps")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is that of Linux")
def test_a_set_larger_than_the_memory_streams_and_would_not_load(tmp_path):
    path = tmp_path / "images"
    with open(path, "wb") as file:
        file.truncate(640 * 512 * 512 * 3)  # 480 MiB of zeros that take no disk
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BUDGET, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "whole: too large; streamed: 150 steps\n", done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": 0}, "threads=0 must be a positive integer"),
        ({"threads": 1.5}, "threads=1.5 must be a positive integer"),
        ({"prefetch": 0}, "prefetch=0 must be a positive integer"),
        ({"threads": 4, "prefetch": 3}, "threads=4 without work; raise it to 4"),
    ],
)
def test_reading_ahead_that_cannot_be(options, words):
    with pytest.raises(InputError, match=words):
        streamed(_zipped(), **options)
    with pytest.raises(InputError, match=words):
        read_labels(Recording(), **options)


def test_what_is_no_schedule_is_not_streamed():
    phased = scrub_schedule(
        MEMORY, FORGET, RETAIN, batch_size=4, epochs=2, forget_epochs=1
    )
    for wrong in (phased, [1], iter(_zipped())):
        with pytest.raises(
            InputError, match=f"schedule of type {type(wrong).__name__}"
        ):
            streamed(wrong)


@pytest.mark.parametrize(
    "state",
    [
        None,
        3,
        {},
        {"step": 1},
        {"step": 1, "steps": 14},
        {"step": 16, "steps": 15},
        {"step": -1, "steps": 15},
        {"step": 1.0, "steps": 15},
        {"step": True, "steps": 15},
        {"next_index": 1},
    ],
)
def test_states_of_something_else(state):
    stream = streamed(_zipped())
    next(stream)
    with pytest.raises(InputError, match="state=.*(not what get_state|15 steps; make)"):
        stream.set_state(state)
    assert stream.get_state() == {"step": 1, "steps": 15}
    _same(list(stream), list(_zipped())[1:])


@pytest.mark.parametrize("done", [-1, 3])
def test_no_more_is_done_than_was_taken(done):
    stream = streamed(_zipped())
    next(stream), next(stream)
    with pytest.raises(InputError, match=f"done={done} must be 0 to 2"):
        stream.get_state(done)
    assert stream.get_state(1) == {"step": 1, "steps": 15}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (iter([{"label": 0}]), "no length or no positions"),
        ([], "source holds no records"),
        ([{"label": 0}, {"image": 0}], "a record holds no 'label' but image"),
        ([{"label": 0}, {"label": 1.0}], "record 1 has label=1.0; a class is a whole"),
        ([{"label": -1}], "record 0 has label=-1"),
        ([{"label": 2**31}], "record 0 has label=2147483648"),
        ([{"label": [0, 1]}], "record 0 has label=.0, 1."),
        ([{"label": "cat"}], "record 0 has label='cat'"),
    ],
)
def test_labels_that_cannot_be_read(source, words):
    with pytest.raises(InputError, match=words):
        read_labels(source)


def test_a_wrong_record_is_told_where_the_batch_is_used():
    records = [{"image": 1.0}] * 5 + [{"picture": 1.0}]
    schedule = retain_only(
        from_source(records, [0] * 6), range(6), batch_size=2, epochs=1
    )
    with pytest.raises(InputError, match="no 'image' but picture"):
        list(streamed(schedule))


def test_without_grain_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    for call in (lambda: streamed(_zipped()), lambda: read_labels(Recording())):
        with pytest.raises(InputError, match=r"pip install 'jax-unlearn\[streams\]'"):
            call()
