import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jax_unlearn.data import head_mid_tail, long_tailed_counts
from jax_unlearn.errors import InputError


def _by_bisection(caps, total, gamma):
    """Budgets min(λ r^-γ, cap), λ found by bisection: another road to the same law."""
    weight = np.arange(1, len(caps) + 1, dtype=np.float64) ** -gamma
    low, high = 0.0, total / weight.min() + 1.0
    for _ in range(300):
        middle = (low + high) / 2
        if np.minimum(middle * weight, caps).sum() < total:
            low = middle
        else:
            high = middle
    return np.minimum(high * weight, caps)


@st.composite
def problems(draw):
    sizes = draw(st.lists(st.integers(0, 60), min_size=1, max_size=12))
    order = draw(st.permutations(range(len(sizes))))
    cap = draw(st.sampled_from([0.3, 0.5, 0.9, 1.0]))
    caps = [math.floor(cap * n + 1e-9) for n in sizes]
    total = draw(st.integers(0, sum(caps)))
    gamma = draw(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0, 1.5, 2.0, 50.0]))
    return np.array(sizes), np.array(order), cap, np.array(caps), total, gamma


@given(problems())
@settings(max_examples=200, deadline=None)
def test_counts_keep_every_promise(problem):
    sizes, order, cap, caps, total, gamma = problem
    counts = long_tailed_counts(
        sizes, total, gamma=gamma, order=order, max_class_fraction=cap
    )
    assert counts.dtype == np.int64
    assert counts.sum() == total
    assert np.all((counts >= 0) & (counts <= caps))
    if gamma <= 2:
        np.testing.assert_array_less(
            np.abs(counts[order] - _by_bisection(caps[order], total, gamma)), 1 + 1e-6
        )
    # Among classes with room left, a smaller rank never gets less.
    roomy = counts[order][counts[order] < caps[order]]
    assert np.all(np.diff(roomy) <= 0)


def test_the_constants_of_cifar():
    order = np.arange(10)
    counts = long_tailed_counts(
        [4500] * 10, 4500, gamma=1.0, order=order, max_class_fraction=0.9
    )
    exact = 4500 / np.arange(1, 11) / (1 / np.arange(1.0, 11)).sum()
    assert counts.tolist() == [1536, 768, 512, 384, 307, 256, 220, 192, 171, 154]
    np.testing.assert_array_less(np.abs(counts - exact), 1)


def test_an_impossible_law_is_capped_and_shared_on():
    # CIFAR-100, 30 %, γ = 2: the plain law asks 8,257 of a class of 450.
    plain = 13_500 / (1 / np.arange(1.0, 101) ** 2).sum()
    assert round(plain) == 8257
    counts = long_tailed_counts(
        [450] * 100, 13_500, gamma=2.0, order=range(100), max_class_fraction=0.9
    )
    assert counts.sum() == 13_500
    assert counts[0] == counts.max() == 405
    free = counts[counts < 405]
    ranks = np.arange(1, 101)[counts < 405]
    # All on one curve λ / rank², each rounded by less than one sample.
    scale = (free * ranks.astype(float) ** 2)[0]
    np.testing.assert_array_less(np.abs(free - scale / ranks**2), 1.5)


def test_gamma_zero_is_balanced_and_classes_left_out_get_nothing():
    counts = long_tailed_counts(
        [30, 30, 30, 30], 32, gamma=0.0, order=[3, 1, 0], max_class_fraction=1.0
    )
    assert counts.tolist() == [10, 11, 0, 11]


def test_infeasible_names_the_numbers_and_the_largest_fraction():
    with pytest.raises(InputError) as caught:
        long_tailed_counts(
            [10, 10], 19, gamma=1.0, order=[0, 1], max_class_fraction=0.9
        )
    message = str(caught.value)
    assert all(part in message for part in ("total=19", "of 20", "at most 18", "0.9"))
    assert message.endswith("the largest feasible fraction is 0.9")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gamma": -1.0}, "gamma=-1.0"),
        ({"gamma": math.nan}, "gamma=nan"),
        ({"gamma": math.inf}, "gamma=inf"),
        ({"max_class_fraction": 0.0}, "max_class_fraction=0"),
        ({"max_class_fraction": 1.5}, "max_class_fraction=1.5"),
        ({"order": [0, 0]}, r"order=\[0, 0\]"),
        ({"order": [0, 2]}, r"order=\[0, 2\]"),
    ],
)
def test_bad_hyper_parameters(change, words):
    good = {"gamma": 1.0, "order": [0, 1], "max_class_fraction": 0.9}
    with pytest.raises(InputError, match=words):
        long_tailed_counts([10, 10], 5, **{**good, **change})


@given(st.lists(st.integers(0, 9), min_size=3, max_size=20))
def test_groups_are_ordered_thirds(counts):
    groups = head_mid_tail(counts)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(counts)))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    values = np.asarray(counts)
    assert values[groups.head].min() >= values[groups.mid].max()
    assert values[groups.mid].min() >= values[groups.tail].max()


def test_two_classes_have_no_thirds():
    with pytest.raises(InputError, match="at least 3"):
        head_mid_tail([1, 2])
