import functools

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from jax_unlearn.data import (
    Examples,
    every_k,
    forget_only,
    merged,
    retain_only,
    sequential,
    take,
    zipped,
)
from jax_unlearn.data.schedules import combined
from jax_unlearn.errors import InputError
from jax_unlearn.types import UnlearnBatch

EXAMPLES = Examples(
    np.arange(60, dtype=np.float32).reshape(60, 1, 1, 1), np.zeros(60, np.int32)
)
FORGET, RETAIN, UNSEEN = np.arange(7), np.arange(7, 47), np.arange(47, 60)

ALL = {
    "forget_only": lambda **o: forget_only(EXAMPLES, FORGET, **o),
    "retain_only": lambda **o: retain_only(EXAMPLES, RETAIN, **o),
    "sequential": lambda **o: sequential(EXAMPLES, FORGET, RETAIN, **o),
    "zipped": lambda **o: zipped(EXAMPLES, FORGET, RETAIN, **o),
    "every_k": lambda **o: every_k(EXAMPLES, FORGET, RETAIN, k=3, **o),
    "merged": lambda **o: merged(EXAMPLES, FORGET, RETAIN, **o),
}


def _seen(batches):
    """Ids that count, in order."""
    parts = [batch.index[batch.mask] for batch in batches if batch is not None]
    return np.concatenate(parts).tolist() if parts else []


def _equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("name", ALL)
def test_every_schedule_is_seeded_known_in_length_and_resumes(name):
    make = functools.partial(ALL[name], batch_size=4, epochs=3, reference=UNSEEN)
    schedule = make(seed=3, reference_size=5)
    steps = list(schedule)
    assert len(schedule) == len(steps)
    assert all(isinstance(step, UnlearnBatch) for step in steps)
    _equal(steps, list(make(seed=3, reference_size=5)))
    middle = len(steps) // 2
    _equal(steps[middle:], list(make(seed=3, reference_size=5).from_step(middle)))
    _equal(steps[-1], make(seed=3, reference_size=5)[len(steps) - 1])
    other = list(make(seed=4, reference_size=5))
    for part in ("forget", "retain", "reference"):
        mine, others = (
            _seen([getattr(step, part) for step in run]) for run in (steps, other)
        )
        assert mine != others or not mine
        assert (
            set(mine)
            <= {
                "forget": set(FORGET.tolist()),
                "retain": set(RETAIN.tolist()),
                "reference": set(UNSEEN.tolist()),
            }[part]
        )


@pytest.mark.parametrize("name", ALL)
def test_every_schedule_gives_the_reference_with_every_step(name):
    make = functools.partial(ALL[name], batch_size=4, epochs=1)
    assert all(step.reference is None for step in make())
    assert all(
        step.reference.index.tolist() == UNSEEN.tolist()
        for step in make(reference=UNSEEN)
    )
    batch = take(EXAMPLES, UNSEEN[:2])
    assert all(step.reference is batch for step in make(reference=batch))
    drawn = [step.reference.index for step in make(reference=UNSEEN, reference_size=3)]
    assert {len(ids) for ids in drawn} == {3}


def test_single_sets_pass_over_all_samples():
    for schedule, part, ids in (
        (ALL["forget_only"](batch_size=3, epochs=4), "forget", FORGET),
        (ALL["retain_only"](batch_size=9, epochs=4), "retain", RETAIN),
    ):
        seen = _seen([getattr(step, part) for step in schedule])
        assert sorted(seen) == sorted(ids.tolist() * 4)


def test_sequential_forgets_first_in_each_epoch():
    steps = list(ALL["sequential"](batch_size=10, epochs=2))
    kinds = ["f" if step.retain is None else "r" for step in steps]
    assert "".join(kinds) == "frrrrfrrrr"
    for epoch in (steps[:5], steps[5:]):
        assert sorted(_seen([step.forget for step in epoch])) == FORGET.tolist()
        assert sorted(_seen([step.retain for step in epoch])) == RETAIN.tolist()


def test_zipped_passes_over_retain_once_and_forget_as_often_as_needed():
    steps = list(ALL["zipped"](batch_size=4, epochs=2))
    assert len(steps) == 20
    assert sorted(_seen([s.retain for s in steps[:10]])) == RETAIN.tolist()
    assert sorted(_seen([s.retain for s in steps[10:]])) == RETAIN.tolist()
    # 7 forget samples are 2 batches: 10 passes in 20 steps.
    for start in range(0, 20, 2):
        pair = [s.forget for s in steps[start : start + 2]]
        assert sorted(_seen(pair)) == FORGET.tolist()


def test_zipped_by_steps():
    steps = list(ALL["zipped"](batch_size=4, steps=13))
    assert len(steps) == 13
    _equal(steps, list(ALL["zipped"](batch_size=4, epochs=2))[:13])


@pytest.mark.parametrize("name", ALL)
def test_every_schedule_takes_a_number_of_steps(name):
    epochs = list(ALL[name](batch_size=4, epochs=2, seed=1))
    steps = ALL[name](batch_size=4, steps=len(epochs) - 1, seed=1)
    _equal(list(steps), epochs[:-1])


def test_forget_batches_may_be_of_another_size():
    for name in ("zipped", "sequential", "every_k"):
        steps = list(ALL[name](batch_size=4, forget_batch_size=3, epochs=2))
        for part, size in (("forget", 3), ("retain", 4)):
            batches = [getattr(step, part) for step in steps]
            assert {len(b.labels) for b in batches if b is not None} == {size}
    with pytest.raises(TypeError, match="forget_batch_size"):
        ALL["merged"](batch_size=4, forget_batch_size=3, epochs=1)


def test_a_plan_of_ones_own():
    def backwards(first, second):
        total = 3 * second
        return lambda epochs: total * epochs, lambda n: (None, total - 1 - n)

    sets = (EXAMPLES, FORGET, RETAIN)
    schedule, ends = combined(*sets, backwards, batch_size=10, epochs=1)
    assert ends == (12,)
    forwards = list(retain_only(EXAMPLES, RETAIN, batch_size=10, epochs=3))
    _equal(list(schedule), forwards[::-1])
    assert combined(*sets, backwards, batch_size=10, steps=5).ends == (5,)


def test_every_k_forgets_each_kth_step_from_the_first():
    steps = list(ALL["every_k"](batch_size=4, epochs=2))
    assert [s.forget is not None for s in steps] == [i % 3 == 0 for i in range(20)]
    assert all(s.retain is not None for s in steps)
    # No forget batch is lost between.
    assert sorted(_seen([s.forget for s in steps[:6]])) == FORGET.tolist()
    _equal(
        list(every_k(EXAMPLES, FORGET, RETAIN, batch_size=4, k=1, epochs=1)),
        list(zipped(EXAMPLES, FORGET, RETAIN, batch_size=4, epochs=1)),
    )


@given(st.integers(1, 20), st.integers(1, 40), st.integers(2, 70))
@settings(deadline=None)
def test_merged_batches_hold_the_share_of_the_sets(forget, retain, batch_size):
    ids = np.arange(forget + retain)
    schedule = merged(
        EXAMPLES, ids[:forget], ids[forget:], batch_size=batch_size, epochs=1
    )
    whole = min(batch_size, forget + retain)
    for step in schedule:
        sizes = len(step.forget.labels), len(step.retain.labels)
        assert sum(sizes) == whole
        assert min(sizes) >= 1
        exact = whole * forget / (forget + retain)
        assert abs(sizes[0] - exact) < 1
    assert sorted(_seen([step.retain for step in schedule])) == ids[forget:].tolist()


def test_merged_passes_over_both_sets_alike():
    examples = Examples(np.zeros((500, 1), np.float32), np.zeros(500, np.int32))
    steps = list(
        merged(examples, np.arange(100), np.arange(100, 500), batch_size=50, epochs=3)
    )
    assert len(steps) == 30
    assert sorted(_seen([s.forget for s in steps])) == sorted([*range(100)] * 3)


def test_shapes_do_not_change_from_step_to_step():
    for name, make in ALL.items():
        shapes = {
            (jax.tree.structure(step), tuple(x.shape for x in jax.tree.leaves(step)))
            for step in make(batch_size=4, epochs=2, reference=UNSEEN)
        }
        assert len(shapes) == (2 if name in ("sequential", "every_k") else 1)


@pytest.mark.parametrize("name", ["zipped", "every_k", "merged"])
@pytest.mark.parametrize("options", [{}, {"epochs": 1, "steps": 1}, {"steps": 0}])
def test_epochs_or_steps(name, options):
    with pytest.raises(InputError, match="steps="):
        ALL[name](batch_size=4, **options)


def test_mistakes_are_named():
    with pytest.raises(InputError, match="k=0"):
        every_k(EXAMPLES, FORGET, RETAIN, batch_size=4, k=0, epochs=1)
    with pytest.raises(InputError, match="batch_size=1 must be at least 2"):
        merged(EXAMPLES, FORGET, RETAIN, batch_size=1, epochs=1)
    with pytest.raises(InputError, match="0 forget_ids and 40 retain_ids"):
        merged(EXAMPLES, [], RETAIN, batch_size=4, epochs=1)
    with pytest.raises(InputError, match="forget_ids"):
        zipped(EXAMPLES, [], RETAIN, batch_size=4, epochs=1)
    with pytest.raises(InputError, match="retain_ids holds 99"):
        sequential(EXAMPLES, FORGET, [99], batch_size=4, epochs=1)


@pytest.mark.parametrize(("forget", "retain"), [([1, 1], [2, 3]), ([1, 2], [2, 3])])
def test_an_id_that_comes_twice_is_refused(forget, retain):
    word = f"come more than once, the first {forget[-1]}"
    with pytest.raises(InputError, match=word):
        zipped(EXAMPLES, forget, retain, batch_size=2, epochs=1)


def test_ids_that_are_bools_are_refused():
    marked = np.arange(len(EXAMPLES.labels)) < 3
    with pytest.raises(InputError, match=r"np.flatnonzero\(ids\)"):
        zipped(EXAMPLES, marked, ~marked, batch_size=2, epochs=1)
