"""A source looks like arrays, and only the rows asked for are read."""

import jax.numpy as jnp
import numpy as np
import pytest

import jax_unlearn as ju
from jax_unlearn.data import Examples, from_source, take, zipped
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError

IMAGES = np.arange(20 * 12, dtype=np.uint8).reshape(20, 2, 2, 3)
LABELS = np.arange(20) % 4


class Recording:
    """Records of arrays, and the list of the positions that were read."""

    def __init__(self, images=IMAGES):
        self.images, self.read = images, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, position):
        self.read.append(position)
        return {"image": self.images[position], "label": int(LABELS[position])}


class Together(Recording):
    """One that reads the records of a batch in one call."""

    def __getitem__(self, position):
        raise AssertionError("read one by one")

    def __getitems__(self, positions):
        self.read.append(positions)
        return [{"image": self.images[position]} for position in positions]


@pytest.mark.parametrize(
    "rows", [3, [3], [4, 1, 4], [[0, 19], [7, 7]], slice(3, 9, 2), np.uint8([5])]
)
def test_rows_are_those_of_the_array(rows):
    for source in (Recording(), Together()):
        inputs = from_source(source, LABELS).inputs
        np.testing.assert_array_equal(inputs[rows], IMAGES[rows])
        assert inputs[rows].dtype == np.uint8
    assert len(inputs) == 20
    assert inputs.shape == IMAGES.shape


def test_nothing_is_read_before_it_is_indexed_and_then_that_only():
    source = Recording()
    examples = from_source(source, LABELS)
    assert examples.labels.dtype == np.int32
    np.testing.assert_array_equal(examples.labels, LABELS)
    zipped(examples, [1, 2], range(3, 20), batch_size=4, epochs=1)
    assert source.read == []
    batch = take(examples, [9, 2])
    assert source.read == [9, 2]
    np.testing.assert_array_equal(batch.inputs, IMAGES[[9, 2]])
    np.testing.assert_array_equal(batch.labels, LABELS[[9, 2]])
    together = Together()
    take(from_source(together, LABELS), [9, 2])
    assert together.read == [[9, 2]]


def test_decode_makes_the_inputs_and_may_make_many():
    def decode(record):
        pixels = record["image"]
        return {"half": pixels / 2, "sum": pixels.sum(), "set": {"ids": [1, 2]}}

    inputs = from_source(Recording(), LABELS, decode=decode).inputs
    some = inputs[[[3, 1]]]
    # What JAX would make of them: 32 bits.
    assert some["half"].dtype == np.float32
    assert some["sum"].dtype == np.int32 or some["sum"].dtype == np.uint32
    np.testing.assert_array_equal(some["half"], IMAGES[[[3, 1]]] / np.float32(2))
    np.testing.assert_array_equal(some["sum"], IMAGES[[[3, 1]]].sum((-3, -2, -1)))
    assert [leaf.shape for leaf in some["set"]["ids"]] == [(1, 2), (1, 2)]


def test_predict_reads_a_pass_at_a_time():
    source = Recording(IMAGES.astype(np.float32))
    model = ju.from_stateless(lambda key, x: 0.0, lambda w, x: x.sum((1, 2, 3)) * w)
    examples = from_source(source, LABELS)
    outputs = predict(model, jnp.float32(2), (), examples.inputs, batch_size=8)
    np.testing.assert_array_equal(outputs, 2 * source.images.sum((1, 2, 3)))
    # The shape and two passes of 8; the last one is filled up with its last sample.
    assert source.read == [0, *range(20), 19, 19, 19, 19]


def test_it_is_not_loaded_whole_by_accident():
    source = Recording()
    inputs = from_source(source, LABELS).inputs
    for load in (np.asarray, jnp.asarray, ju.data.channel_stats):
        with pytest.raises(InputError, match="20 streamed records .* inputs.ids"):
            load(inputs)
    assert source.read == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "at least one whole number"),
        ([True] * 20, "at least one whole number"),
        ([1.0], "at least one whole number"),
        ([3, 20], r"rows=\[3, 20\] must be 0 to 19"),
        ([-1], r"rows=\[-1\] must be 0 to 19"),
        (slice(5, 5), "at least one whole number"),
    ],
)
def test_rows_that_are_not_there(rows, words):
    source = Recording()
    with pytest.raises(IndexError, match=words):
        from_source(source, LABELS).inputs[rows]
    assert source.read == []


def test_iteration_ends_with_the_records():
    assert len(list(from_source(Recording(), LABELS).inputs)) == 20


@pytest.mark.parametrize(
    ("source", "labels", "words"),
    [
        (iter([{"image": 0}]), [0], "type list_iterator has no length"),
        ({1}, [0], "type set has no length or no positions"),
        ([], [0], "source holds no records"),
        (Recording(), LABELS[:19], "19 labels for a source of 20 records"),
        (Recording(), LABELS / 2, "labels of type float64 must be integers"),
        (Recording(), LABELS - 1, r"labels\[0\]=-1"),
    ],
)
def test_sources_that_cannot_be_used(source, labels, words):
    with pytest.raises(InputError, match=words):
        from_source(source, labels)


@pytest.mark.parametrize(
    ("records", "decode", "words"),
    [
        ([{"picture": 1, "label": 2}], None, "no 'image' but picture, label; give dec"),
        ([b"raw bytes"], None, "no 'image' but b'raw bytes'; give decode"),
        ([{"image": "cat.png"}], None, "record 0 decodes to 'cat.png' of type <U7"),
        ([{"image": b"\x89PNG"}], None, "record 0 decodes to .* must return arrays of"),
        ([1], lambda record: None, "record 0 decodes to None; return an array"),
        ([1], lambda record: object(), "of type object; decode must return"),
        (
            [np.zeros(2), np.zeros(3)],
            lambda record: record,
            r"record 1 decodes to \[\(\(3,\), 'float32'\)\], record 0 to \[\(\(2,\)",
        ),
        (
            [np.zeros(2), np.zeros(2, np.uint8)],
            lambda record: record,
            "record 1 .* one shape and type",
        ),
        (
            [{"a": 0, "b": 0}, {"a": 0}],
            lambda record: record,
            "record 1 .* one shape and type",
        ),
    ],
)
def test_records_that_cannot_be_used(records, decode, words):
    examples = from_source(records, [0] * len(records), decode=decode)
    with pytest.raises(InputError, match=words):
        take(examples, range(len(records)))


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([2, 20], "forget_ids holds 20; the 20 samples have ids 0 to 19"),
        ([-1], "forget_ids holds -1"),
        ([], "at least one integer"),
        ([1.0], "type float64 must be a list of at least one integer"),
    ],
)
def test_ids_are_checked_before_anything_is_read(ids, words):
    source = Recording()
    examples: Examples = from_source(source, LABELS)
    with pytest.raises(InputError, match=words):
        zipped(examples, ids, [3, 4], batch_size=2, epochs=1)
    assert source.read == []
