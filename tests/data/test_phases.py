"""Schedules one after another, and the epochs of SCRUB."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from jax_unlearn.data import (
    Examples,
    forget_only,
    retain_only,
    sequential,
    supervised,
    zipped,
)
from jax_unlearn.data.schedules import Phased, phases, scrub_schedule
from jax_unlearn.errors import InputError

EXAMPLES = Examples(np.arange(60, dtype=np.float32)[:, None], np.zeros(60, np.int32))
FORGET, RETAIN, UNSEEN = np.arange(7), np.arange(7, 47), np.arange(47, 60)


def make(**options):
    options = dict(batch_size=10, epochs=3, forget_epochs=2) | options
    return scrub_schedule(EXAMPLES, FORGET, RETAIN, **options)


def seen(batches):
    """Return the ids that count, in order."""
    parts = [batch.index[batch.mask] for batch in batches if batch is not None]
    return np.concatenate(parts).tolist()


def equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def kinds(steps):
    assert all((step.forget is None) != (step.retain is None) for step in steps)
    return "".join("r" if step.forget is None else "f" for step in steps)


def test_scrub_forgets_before_it_retains_in_the_first_epochs_only():
    schedule, ends = make(forget_batch_size=4)
    steps = list(schedule)
    assert kinds(steps) == "ffrrrr" + "ffrrrr" + "rrrr"
    assert ends == (6, 12, 16)
    assert len(schedule) == 16
    for start, end in ((0, 6), (6, 12)):
        ids = seen([step.forget for step in steps[start:end]])
        assert sorted(ids) == FORGET.tolist()
    for start, end in ((0, 6), (6, 12), (12, 16)):
        ids = seen([step.retain for step in steps[start:end]])
        assert sorted(ids) == RETAIN.tolist()
    # each pass has an order of its own
    orders = [seen([s.retain for s in steps[a:b]]) for a, b in ((2, 6), (8, 12))]
    assert orders[0] != orders[1]
    assert {len(s.forget.labels) for s in steps if s.forget is not None} == {4}
    assert {len(s.retain.labels) for s in steps if s.retain is not None} == {10}


def test_scrub_with_all_epochs_is_sequential():
    options = dict(batch_size=6, epochs=3, seed=5, reference=UNSEEN, reference_size=2)
    whole = sequential(EXAMPLES, FORGET, RETAIN, **options)
    equal(list(make(forget_epochs=3, **options).schedule), list(whole))


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 45),
    st.integers(1, 9),
    st.data(),
)
@settings(deadline=None, max_examples=25)
def test_the_epochs_of_scrub_are_its_schedule_cut_at_the_ends(
    epochs, forget_epochs, batch_size, forget_batch_size, data
):
    phased = make(
        epochs=epochs,
        forget_epochs=min(forget_epochs, epochs),
        batch_size=batch_size,
        forget_batch_size=forget_batch_size,
    )
    schedule, ends = phased
    parts = phased.epochs()
    assert len(parts) == len(ends) == epochs
    assert np.cumsum([len(part) for part in parts]).tolist() == list(ends)
    steps = list(schedule)
    assert len(steps) == len(schedule) == ends[-1]
    equal(steps, [step for part in parts for step in part])
    for number, part in enumerate(parts):
        assert sorted(seen([step.retain for step in part])) == RETAIN.tolist()
        forgets = [step.forget for step in part if step.forget is not None]
        if number < forget_epochs:
            assert sorted(seen(forgets)) == FORGET.tolist()
        else:
            assert not forgets
    middle = data.draw(st.integers(0, len(steps)))
    equal(steps[middle:], list(schedule.from_step(middle)))


def test_scrub_is_seeded_and_gives_references():
    options = dict(reference=UNSEEN, reference_size=3)
    first, again = (list(make(seed=1, **options).schedule) for _ in range(2))
    equal(first, again)
    other = list(make(seed=2, **options).schedule)
    for part in ("retain", "reference"):
        ids, others = (seen([getattr(s, part) for s in run]) for run in (first, other))
        assert ids != others
    assert all(len(step.reference.index) == 3 for step in first)
    assert all(step.reference is None for step in make().schedule)


def test_phases_follow_one_another_and_resume():
    impair = zipped(EXAMPLES, FORGET, RETAIN, batch_size=10, epochs=1)
    repair = retain_only(EXAMPLES, RETAIN, batch_size=20, epochs=2, seed=1)
    whole = phases(impair, repair)
    steps = list(whole)
    assert len(whole) == len(steps) == 4 + 4
    equal(steps, [*impair, *repair])
    for start in range(9):
        equal(steps[start:], list(whole.from_step(start)))
    equal(whole[4], repair[0])
    with pytest.raises(IndexError, match="step=8"):
        whole[8]


def test_phases_nest_and_go_on_where_a_phase_stands():
    first = forget_only(EXAMPLES, FORGET, batch_size=3, epochs=1)
    second = retain_only(EXAMPLES, RETAIN, batch_size=9, epochs=1)
    equal(
        list(phases(first.from_step(2), second.from_step(5), first.from_step(3))),
        [first[2], *second.from_step(5)],
    )
    third = make().schedule
    nested = phases(phases(first, second), third)
    equal(list(nested), list(phases(first, second, third)))
    plain = supervised(EXAMPLES, RETAIN, batch_size=9, epochs=1)  # Batches, too
    equal(list(phases(plain, plain)), [*plain, *plain])


def test_one_epoch_is_one_part():
    phased = make(epochs=1, forget_epochs=1)
    assert isinstance(phased, Phased)
    assert phased.ends == (5,)
    (only,) = phased.epochs()
    equal(list(only), list(phased.schedule))


def test_mistakes_are_named():
    with pytest.raises(InputError, match=r"schedules=\(\)"):
        phases()
    with pytest.raises(InputError, match="forget_epochs=4 is more than epochs=3"):
        make(forget_epochs=4)
    for name in ("forget_epochs", "epochs", "batch_size", "forget_batch_size"):
        with pytest.raises(InputError, match=f"^{name}=0 "):
            make(**{name: 0})
    with pytest.raises(InputError, match="retain_ids holds 99"):
        scrub_schedule(EXAMPLES, FORGET, [99], batch_size=2, epochs=1, forget_epochs=1)
