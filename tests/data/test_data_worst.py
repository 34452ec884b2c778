"""The search of the worst request, on losses that are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_unlearn.data import Search, capped_simplex, forget_split, worst_case
from jax_unlearn.errors import InputError


def projected(a, count):
    """Project by trying every break of the piecewise linear sum: exact, slow."""
    a = np.asarray(a, np.float64)
    marks = np.sort(np.concatenate([a, a - 1]))
    sums = np.array([np.clip(a - mark, 0, 1).sum() for mark in marks])
    last = np.flatnonzero(sums >= count - 1e-12)[-1]
    if last + 1 == len(marks) or sums[last] == sums[last + 1]:
        return np.clip(a - marks[last], 0, 1)
    share = (sums[last] - count) / (sums[last] - sums[last + 1])
    return np.clip(a - marks[last] - share * (marks[last + 1] - marks[last]), 0, 1)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.data())
def test_the_projection_is_the_exact_one(values, data):
    count = data.draw(st.integers(1, len(values)))
    found = capped_simplex(values, count)
    np.testing.assert_allclose(found, projected(values, count), atol=1e-9)
    assert found.sum() == pytest.approx(count, abs=1e-9)
    assert found.min() >= 0
    assert found.max() <= 1


def planted(kept):
    """Unlearning that raises the loss of each forgotten sample to a known value."""
    calls = []

    def unlearn(ids):
        calls.append(ids)
        return np.where(np.isin(np.arange(len(kept)), ids), kept, 0.01)

    return unlearn, calls


def test_it_finds_what_stays_low_though_it_is_unlearned():
    rng = np.random.default_rng(0)
    kept = rng.uniform(2, 4, 40)
    low = rng.permutation(40)[:8]
    kept[low] = rng.uniform(0.1, 0.3, 8)
    unlearn, calls = planted(kept)
    found = worst_case(unlearn, samples=40, count=8, rounds=40)
    assert len(calls) == len(found.left) == 40
    assert len(np.intersect1d(found.best, low)) >= 7
    assert found.left.min() == kept[found.best].mean()
    assert found.left[0] > 4 * found.left.min()  # of a random set


def test_a_reference_asks_for_what_retrain_would_not_know():
    kept, never = np.full(20, 0.2), np.full(20, 0.2)
    never[:5] = 3.0  # these alone are remembered: others do not teach them
    unlearn, _ = planted(kept)
    found = worst_case(unlearn, samples=20, count=5, rounds=10, reference=never)
    np.testing.assert_array_equal(found.best, np.arange(5))
    assert found.left.min() == pytest.approx(0.2 - 3.0)


def test_a_search_goes_on_where_it_stopped_and_a_seed_names_it():
    unlearn, _ = planted(np.random.default_rng(1).uniform(0, 3, 30))
    sizes, kept = {"samples": 30, "count": 6}, []
    whole = worst_case(unlearn, **sizes, rounds=9, seed=4, each=kept.append)
    on = worst_case(unlearn, **sizes, rounds=9, seed=4, found=kept[3])
    for one, other in zip(whole, on, strict=True):
        np.testing.assert_array_equal(one, other)
    other = worst_case(unlearn, **sizes, rounds=9, seed=5)
    assert other.left[0] != whole.left[0]
    done = worst_case(unlearn, **sizes, rounds=3, seed=4, found=whole)
    assert isinstance(done, Search)
    assert len(done.left) == 9  # nothing is lost where fewer are asked for


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 4}, "count=4 must be less than the 4 samples"),
        ({"count": 0}, "count=0"),
        ({"rounds": 0}, "rounds=0"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"unlearn": lambda ids: np.zeros(3)}, "4 finite numbers"),
        ({"unlearn": lambda ids: np.full(4, np.nan)}, "finite"),
        ({"reference": [1.0]}, "4 finite numbers"),
    ],
)
def test_a_search_that_cannot_be_is_refused(change, words):
    options = {"unlearn": planted(np.ones(4))[0], "samples": 4, "count": 2, **change}
    with pytest.raises(InputError, match=words):
        worst_case(options.pop("unlearn"), **options)


def test_labels_alone_do_not_name_the_worst():
    with pytest.raises(InputError, match="needs a model, not labels alone"):
        forget_split([0, 1], kind="worst")
