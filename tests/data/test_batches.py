import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from jax_unlearn.data import Examples, Schedule, epoch_indices, supervised, take
from jax_unlearn.data.batches import reference_batches
from jax_unlearn.errors import InputError

EXAMPLES = Examples(
    np.arange(50, dtype=np.float32).reshape(50, 1, 1, 1) / 2,
    (np.arange(50) % 7).astype(np.int32),
)


@given(st.sets(st.integers(0, 99), min_size=1), st.integers(1, 40), st.integers(0, 9))
@settings(deadline=None)
def test_an_epoch_shows_each_sample_once(ids, batch_size, seed):
    index, mask = epoch_indices(list(ids), batch_size, rng=np.random.default_rng(seed))
    size = min(batch_size, len(ids))
    assert index.shape == mask.shape == (-(-len(ids) // size), size)
    assert sorted(index[mask].tolist()) == sorted(ids)
    assert set(index.ravel().tolist()) == ids
    assert mask[:-1].all()
    # Padding is real, and no image is twice in a batch.
    assert all(len(set(row)) == size for row in index.tolist())


@pytest.mark.parametrize(("ids", "size"), [([], 2), ([1], 0), ([1], 1.5), ([[1]], 1)])
def test_epochs_that_cannot_be(ids, size):
    with pytest.raises(InputError):
        epoch_indices(ids, size, rng=np.random.default_rng(0))


def test_take_gathers_the_rows_of_the_ids():
    mask = np.array([True, False, True])
    batch = take(EXAMPLES, [9, 0, 30], mask)
    np.testing.assert_array_equal(batch.inputs.ravel(), [4.5, 0.0, 15.0])
    np.testing.assert_array_equal(batch.labels, [2, 0, 2])
    np.testing.assert_array_equal(batch.index, [9, 0, 30])
    np.testing.assert_array_equal(batch.mask, mask)
    dtypes = [np.dtype(x.dtype).name for x in jax.tree.leaves(batch)]
    assert dtypes == ["float32", "int32", "int32", "bool"]
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(batch))


def test_take_stacks_steps_and_pytrees():
    trees = Examples({"a": EXAMPLES.inputs, "b": EXAMPLES.labels}, EXAMPLES.labels)
    batch = take(trees, [[1, 2], [3, 4], [5, 6]])
    assert batch.inputs["a"].shape == (3, 2, 1, 1, 1)
    np.testing.assert_array_equal(batch.inputs["b"], batch.labels)
    assert batch.mask.shape == (3, 2)
    assert batch.mask.all()


def test_a_schedule_counts_iterates_and_resumes():
    schedule = Schedule(lambda step: step * step, steps=5)
    assert len(schedule) == 5
    assert list(schedule) == list(schedule) == [0, 1, 4, 9, 16]
    rest = schedule.from_step(3)
    assert len(rest) == 2
    assert list(rest) == [9, 16]
    assert rest[1] == 1  # steps are those of the whole run
    assert list(rest.from_step(1)) == [1, 4, 9, 16]
    assert list(schedule.from_step(5)) == []
    for step in (-1, 6):
        with pytest.raises(InputError, match=f"step={step}"):
            schedule.from_step(step)
    for step in (-1, 5):
        with pytest.raises(IndexError, match=f"step={step}"):
            schedule[step]


def test_supervised_passes_are_complete_and_shuffled_anew():
    schedule = supervised(EXAMPLES, range(10, 40), batch_size=8, epochs=3, seed=1)
    assert len(schedule) == 12
    batches = list(schedule)
    orders = []
    for epoch in range(3):
        part = batches[4 * epoch : 4 * epoch + 4]
        order = np.concatenate([batch.index[batch.mask] for batch in part])
        assert sorted(order.tolist()) == list(range(10, 40))
        orders.append(tuple(order.tolist()))
    assert len(set(orders)) == 3
    np.testing.assert_array_equal(
        np.concatenate([b.labels for b in batches]),
        np.concatenate([b.index for b in batches]) % 7,
    )


def test_batches_depend_on_the_set_and_the_seed_only():
    first = supervised(EXAMPLES, [3, 1, 2, 9], batch_size=2, epochs=2, seed=1)
    again = supervised(EXAMPLES, np.array([1, 9, 2, 3]), batch_size=2, epochs=5, seed=1)
    for step in range(4):
        np.testing.assert_array_equal(first[step].index, again[step].index)
    other = supervised(EXAMPLES, range(40), batch_size=40, epochs=1, seed=2)
    same = supervised(EXAMPLES, range(40), batch_size=40, epochs=1, seed=1)
    assert not np.array_equal(other[0].index, same[0].index)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": []}, "at least one integer"),
        ({"ids": [0.5]}, "float64"),
        ({"ids": [[1]]}, r"shape \(1, 1\)"),
        ({"ids": [3, 50]}, "ids holds 50; the 50 samples have ids 0 to 49"),
        ({"ids": [-1]}, "ids holds -1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": True}, "epochs=True"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_mistakes_are_named_before_the_first_step(change, words):
    options = {"ids": [1, 2], "batch_size": 2, "epochs": 1, "seed": 0, **change}
    with pytest.raises(InputError, match=words):
        supervised(EXAMPLES, options.pop("ids"), **options)


def test_reference_whole_random_or_given():
    whole = reference_batches(EXAMPLES, range(20, 30), None, 0)
    assert whole(0) is whole(5)
    assert whole(0).index.tolist() == list(range(20, 30))
    some = reference_batches(EXAMPLES, range(20, 30), 4, 0)
    draws = [some(step).index.tolist() for step in range(20)]
    assert all(len(set(draw)) == 4 for draw in draws)
    assert set().union(*draws) == set(range(20, 30))
    assert some(3).index.tolist() == draws[3]
    given_batch = take(EXAMPLES, [1])
    assert reference_batches(EXAMPLES, given_batch, None, 0)(2) is given_batch
    assert reference_batches(EXAMPLES, None, None, 0)(2) is None


@pytest.mark.parametrize(
    ("reference", "size", "words"),
    [
        (None, 3, "reference_size=3 needs reference"),
        (take(EXAMPLES, [1]), 1, "reference_size=1 needs reference"),
        ([1, 2], 3, "more than the 2 reference ids"),
        ([1, 2], 0, "reference_size=0"),
        ([60], None, "reference holds 60"),
        ([], None, "reference of shape"),
    ],
)
def test_references_that_cannot_be(reference, size, words):
    with pytest.raises(InputError, match=words):
        reference_batches(EXAMPLES, reference, size, 0)
