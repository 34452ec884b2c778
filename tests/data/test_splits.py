import hashlib
import json
import struct

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from jax_unlearn.data import (
    digest,
    forget_split,
    given_split,
    holdout,
    long_tailed_counts,
    to_ids,
)
from jax_unlearn.errors import InputError

LABELS = np.random.default_rng(0).integers(0, 7, 500)


@given(
    st.lists(st.integers(0, 5), min_size=4, max_size=80),
    st.sampled_from(["random", "class", "long_tailed"]),
    st.sampled_from([0.1, 0.25, 0.5]),
    st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_forget_and_retain_part_the_samples(labels, kind, fraction, seed):
    total = round(fraction * len(labels))
    sizes = np.bincount(labels)
    if kind == "class":
        total = None
        fraction = 1.0
        assume(len(set(labels)) > 1)
    elif kind == "long_tailed":
        assume(0 < total <= sum(int(0.9 * n + 1e-9) for n in sizes))
    else:
        assume(total > 0)
    split = forget_split(labels, kind=kind, fraction=fraction, seed=seed)
    whole = np.concatenate([split.forget, split.retain])
    assert sorted(whole.tolist()) == list(range(len(labels)))
    assert np.all(np.diff(split.forget) > 0)
    assert np.all(np.diff(split.retain) > 0)
    assert split.forget.dtype == split.retain.dtype == np.int64
    manifest = json.loads(json.dumps(split.manifest))
    assert manifest == split.manifest
    counts = np.bincount(np.asarray(labels)[split.forget], minlength=max(labels) + 1)
    assert manifest["forget_counts"] == counts.tolist()
    if kind == "class":
        (forgotten,) = manifest["classes"]
        total = sizes[forgotten]
        assert counts[forgotten] == total
    assert len(split.forget) == total
    again = forget_split(labels, kind=kind, fraction=fraction, seed=seed)
    assert again.manifest == split.manifest


def test_defaults_of_fraction():
    assert len(forget_split(LABELS).forget) == 50
    assert len(forget_split(LABELS, kind="long_tailed").forget) == 50
    one = forget_split(LABELS, kind="class")
    chosen = one.manifest["classes"]
    assert len(chosen) == 1
    np.testing.assert_array_equal(one.forget, np.flatnonzero(np.isin(LABELS, chosen)))


def test_classes_and_part_of_them():
    split = forget_split(LABELS, kind="class", classes=[5, 2])
    np.testing.assert_array_equal(split.forget, np.flatnonzero(np.isin(LABELS, [2, 5])))
    half = forget_split(LABELS, kind="class", classes=[5, 2], fraction=0.5)
    assert len(half.forget) == round(len(split.forget) / 2)
    assert set(half.forget) < set(split.forget)


def test_the_seed_draws_every_class_and_every_sample():
    drawn = {
        forget_split(LABELS, kind="class", seed=seed).manifest["classes"][0]
        for seed in range(60)
    }
    assert drawn == set(range(7))
    counts = np.zeros(500)
    for seed in range(400):
        counts[forget_split(LABELS, seed=seed).forget] += 1
    # Binomial(400, 0.1): mean 40, standard deviation 6.
    assert abs(counts.mean() - 40) < 1e-9
    assert counts.std() == pytest.approx(6.0, rel=0.2)
    assert counts.min() > 10


def test_long_tailed_follows_the_equation_in_a_seeded_order():
    split = forget_split(LABELS, kind="long_tailed", fraction=0.3, gamma=1.5, seed=3)
    order = split.manifest["class_order"]
    assert sorted(order) == list(range(7))
    expected = long_tailed_counts(
        np.bincount(LABELS), 150, gamma=1.5, order=order, max_class_fraction=0.9
    )
    assert split.manifest["forget_counts"] == expected.tolist()
    orders = {
        tuple(forget_split(LABELS, kind="long_tailed", seed=s).manifest["class_order"])
        for s in range(10)
    }
    assert len(orders) > 5


def test_classes_without_samples_take_no_rank():
    labels = [1] * 50 + [4] * 50
    split = forget_split(labels, kind="long_tailed", fraction=0.3, num_classes=6)
    assert sorted(split.manifest["class_order"]) == [1, 4]
    assert sorted(split.manifest["forget_counts"]) == [0, 0, 0, 0, 10, 20]


GOLDEN = {
    "random": "ba911b3091fe",
    "class": "3a16dacfff4f",
    "long_tailed": "7cde8e537e25",
}


def test_a_seed_names_one_split_for_ever():
    # Golden: PCG64's raw stream is fixed, so these may never change.
    labels = np.arange(1000) % 10
    prefix = {
        kind: forget_split(labels, kind=kind, seed=1).manifest["forget_sha256"][:12]
        for kind in ("random", "class", "long_tailed")
    }
    assert prefix == GOLDEN


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "radnom"}, "unknown kind 'radnom'; did you mean 'random'"),
        ({"fraction": 0.0}, "forgets 0 of 500"),
        ({"fraction": 1.0}, "forgets 500 of 500"),
        ({"fraction": -0.1}, "fraction=-0.1"),
        ({"fraction": float("nan")}, "fraction=nan"),
        ({"fraction": "0.1"}, "fraction=0.1"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"classes": [1]}, "is for kind='class'"),
        ({"kind": "class", "classes": [7]}, "class 7 has no samples"),
        ({"kind": "class", "classes": [-1]}, "class -1 has no samples"),
        ({"kind": "class", "classes": []}, "must be a list of class numbers"),
        ({"kind": "class", "classes": [0.5]}, "must be a list of class numbers"),
        ({"kind": "class", "classes": list(range(7))}, "forgets 500 of 500"),
        ({"kind": "long_tailed", "fraction": 0.95}, "largest feasible fraction"),
        ({"num_classes": 3}, r"labels\[\d+\]=\d must be 0 to 2"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(InputError, match=words) as caught:
        forget_split(LABELS, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [[], [[1]], [0.0, 1.0], ["a"], [0, -1]])
def test_bad_labels(labels):
    with pytest.raises(InputError, match="labels"):
        forget_split(labels)


def test_the_largest_feasible_fraction_is_feasible():
    with pytest.raises(InputError) as caught:
        forget_split(LABELS, kind="long_tailed", fraction=0.95)
    largest = float(str(caught.value).split()[-1])
    split = forget_split(LABELS, kind="long_tailed", fraction=largest)
    assert len(split.forget) == round(largest * 500)


def test_digest_is_that_of_the_sorted_little_endian_bytes():
    expected = hashlib.sha256(struct.pack("<3q", 1, 2, 300)).hexdigest()
    assert digest([300, 1, 2]) == expected
    assert digest(np.array([2, 300, 1], ">i4")) == expected
    assert digest([1, 2, 301]) != expected


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_holdout_parts_the_samples(stratified, seed):
    train, unseen = holdout(LABELS, fraction=0.1, seed=seed, stratified=stratified)
    assert len(unseen) == 50
    assert sorted([*train, *unseen]) == list(range(500))
    if stratified:
        exact = np.bincount(LABELS) / 10
        assert np.all(np.abs(np.bincount(LABELS[unseen], minlength=7) - exact) < 1)
    other = holdout(LABELS, count=50, seed=seed + 10, stratified=stratified)[1]
    assert set(unseen) != set(other)


@pytest.mark.parametrize(
    "options", [{}, {"fraction": 0.1, "count": 5}, {"count": 0}, {"count": 500}]
)
def test_holdout_mistakes(options):
    with pytest.raises(InputError):
        holdout(LABELS, **options)


def test_positions_become_ids():
    train, unseen = holdout(LABELS, fraction=0.2)
    split = forget_split(LABELS[train], kind="class", classes=[3])
    moved = to_ids(split, train)
    assert set(LABELS[moved.forget]) == {3}
    assert sorted([*moved.forget, *moved.retain, *unseen]) == list(range(500))
    assert moved.manifest["forget_sha256"] == digest(moved.forget)
    assert split.manifest["forget_sha256"] == digest(split.forget)
    for wrong in (train[1:], train[::-1], np.stack([train, train])):
        with pytest.raises(InputError, match="increasing ids"):
            to_ids(split, wrong)


@pytest.mark.parametrize(
    ("forget", "words"),
    [
        ([], "ids is empty"),
        ([1, 1], r"ids\[1\]=1 repeats ids\[0\]"),
        ([-1], r"ids\[0\]=-1 is negative"),
        ([0.5], r"ids\[0\]=0.5 is not a whole number"),
        ([3], r"ids\[0\]=3 is out of range; the 3 training samples"),
        ([0, 1, 2], "ids names all 3 training samples"),
    ],
)
def test_given_sets_that_cannot_be(forget, words):
    with pytest.raises(InputError, match=words):
        given_split([0, 0, 1], forget)
    with pytest.raises(InputError, match="unknown kind 'nearby'; did you mean 'near'"):
        given_split([0, 0, 1], [0], kind="nearby")
