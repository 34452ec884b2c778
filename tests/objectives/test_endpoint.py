"""Transport targets against a brute-force plan."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_unlearn.errors import InputError
from jax_unlearn.objectives import (
    density_ratio,
    quantile_match,
    sharpness,
    target_table,
    transport_targets,
)

scores = st.lists(st.floats(-5, 5, width=16), min_size=1, max_size=12)


def brute_force_match(values, reference):
    """Return the reference value for each score, one score at a time."""
    ordered = sorted(reference)
    out = []
    for i, value in enumerate(values):
        rank = sum(v < value for v in values) + sum(v == value for v in values[:i])
        quantile = (rank + 0.5) / len(values)
        out.append(ordered[int(np.floor(quantile * len(reference) + 1e-9))])
    return out


@settings(max_examples=200, deadline=None)
@given(scores, scores)
def test_quantile_match_equals_brute_force(values, reference):
    chosen = quantile_match(np.array(values), np.array(reference))
    assert chosen.dtype == np.int64
    got = np.array(reference)[chosen]
    np.testing.assert_array_equal(got, brute_force_match(values, reference))
    # monotone: a larger score never gets a smaller reference value
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(got[order]) >= 0)


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(9)), st.permutations(range(9)))
def test_equal_sizes_are_matched_one_to_one(values, reference):
    chosen = quantile_match(np.array(values), np.array(reference))
    np.testing.assert_array_equal(np.sort(chosen), np.arange(9))
    np.testing.assert_array_equal(np.array(reference)[chosen], values)


def test_one_score_gets_the_median():
    assert quantile_match(np.array([7.0]), np.array([5.0, 1.0, 3.0])) == [2]


@settings(max_examples=100, deadline=None)
@given(
    scores,
    st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 4)), min_size=1, max_size=9),
)
def test_whole_weights_are_copies(values, weighted):
    reference, weights = map(np.array, zip(*weighted, strict=True))
    values = np.array(values)
    chosen = quantile_match(values, reference, weights)
    copied = quantile_match(values, np.repeat(reference, weights))
    again = np.repeat(np.arange(len(reference)), weights)[copied]
    np.testing.assert_array_equal(reference[chosen], reference[again])


def test_density_ratio_of_many_samples_is_that_of_the_densities():
    rng = np.random.default_rng(0)
    wanted, given = rng.beta(4, 2, 4000), rng.uniform(size=4000)
    got = density_ratio(wanted, given, width=0.03)
    inside = (given > 0.1) & (given < 0.9)
    expected = 20 * given**3 * (1 - given)  # of beta(4, 2) to uniform
    error = np.abs(got - expected)[inside]
    assert error.max() < 0.25
    assert (np.average(given, weights=got) - wanted.mean()) < 0.01
    same = density_ratio(wanted, wanted)
    np.testing.assert_allclose(same, 1, rtol=1e-12)
    assert (density_ratio(np.array([1e3]), given) > 0).all()


def test_hard_forget_samples_get_the_predictions_of_hard_unseen_ones():
    easy = np.tile([[0.9, 0.1]], (50, 1)), np.full(50, 0.9)
    hard = np.tile([[0.3, 0.7]], (50, 1)), np.full(50, 0.2)
    probs, unseen = (np.concatenate(pair) for pair in zip(easy, hard, strict=True))
    zeros = np.zeros(100, int)
    values, labels = np.linspace(0, 1, 20), np.zeros(20, int)
    plain = transport_targets(values, labels, probs, zeros)
    np.testing.assert_allclose(plain[:, 0].mean(), 0.6, rtol=1e-6)
    for ease, expected in ((0.2, 0.3), (0.9, 0.9)):
        given = np.full(20, ease), unseen
        got = transport_targets(values, labels, probs, zeros, ease=given)
        np.testing.assert_allclose(got[:, 0], expected, rtol=1e-6)
    alike = transport_targets(values, labels, probs, zeros, ease=(values * 0, zeros))
    np.testing.assert_array_equal(alike, plain)


def draw(seed, forget, unseen, classes=4, skip=()):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(unseen, classes))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    allowed = [k for k in range(classes) if k not in skip]
    return (
        rng.random(forget),
        rng.integers(0, classes, forget),
        probs,
        rng.choice(allowed, unseen),
    )


def brute_force_targets(values, labels, probs, unseen_labels, min_unseen):
    out = np.zeros((len(values), probs.shape[1]))
    true = [probs[j][unseen_labels[j]] for j in range(len(probs))]
    for k in set(labels):
        own = [j for j in range(len(probs)) if unseen_labels[j] == k]
        pool = own if len(own) >= min_unseen else list(range(len(probs)))
        members = [i for i in range(len(values)) if labels[i] == k]
        ordered = sorted(pool, key=lambda j: true[j])
        for rank, i in enumerate(sorted(members, key=lambda i: values[i])):
            j = ordered[int((rank + 0.5) * len(pool) / len(members))]
            row = list(probs[j])
            lender = unseen_labels[j]
            row[lender], row[k] = row[k], row[lender]
            out[i] = row
    return out


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("skip", [(), (2,)])
def test_targets_equal_brute_force(seed, skip):
    arrays = draw(seed, 30, 25, skip=skip)
    for min_unseen in (1, 5, 100):
        got = transport_targets(*arrays, min_unseen=min_unseen)
        assert got.dtype == np.float32
        np.testing.assert_allclose(
            got, brute_force_targets(*arrays, min_unseen), rtol=1e-6
        )
        np.testing.assert_allclose(got.sum(1), 1, rtol=1e-6)  # still distributions


def test_targets_are_monotone_in_each_class_also_when_borrowed():
    values, labels, probs, unseen_labels = draw(7, 40, 30, skip=(0, 3))
    targets = transport_targets(values, labels, probs, unseen_labels, min_unseen=3)
    for k in range(4):
        own = np.flatnonzero(labels == k)
        order = own[np.argsort(values[own])]
        assert len(own) > 3
        assert np.all(np.diff(targets[order, k]) >= 0)


def test_borrowed_rows_exchange_the_true_class():
    probs = np.array([[0.7, 0.2, 0.1]])
    got = transport_targets(np.array([0.5]), np.array([2]), probs, np.array([0]))
    np.testing.assert_allclose(got, [[0.1, 0.2, 0.7]], rtol=1e-6)
    np.testing.assert_array_equal(probs, [[0.7, 0.2, 0.1]])  # the argument is kept


def test_bad_input():
    values, labels, probs, unseen_labels = draw(0, 5, 6)
    with pytest.raises(InputError, match="unseen_labels is empty"):
        transport_targets(values, labels, probs[:0], unseen_labels[:0])
    with pytest.raises(InputError, match=r"len\(scores\)=5, len\(labels\)=4"):
        transport_targets(values, labels[:4], probs, unseen_labels)
    with pytest.raises(InputError, match=r"len\(unseen_probs\)=6"):
        transport_targets(values, labels, probs, unseen_labels[:3])
    with pytest.raises(InputError, match="5 forget and 6 unseen"):
        transport_targets(values, labels, probs, unseen_labels, ease=(values, values))


def test_target_table_scatters_rows():
    rows = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    table = target_table(np.array([4, 0, 2]), rows, 5)
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, [[2, 3], [0, 0], [4, 5], [0, 0], [0, 1]])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.4, 0.99))
def test_sharpened_predictions_are_as_sure_as_asked(seed, sure):
    logits = np.random.default_rng(seed).permuted(np.tile([0.0, 1, 3], (20, 1)), axis=1)
    logits *= np.linspace(0.1, 2, 20)[:, None]
    scaled = np.exp(sharpness(logits, sure) * logits)
    likely = (scaled / scaled.sum(1, keepdims=True)).max(1)
    assert likely.mean() == pytest.approx(sure, abs=1e-6)


def test_what_no_factor_reaches_gets_the_nearest_one():
    logits = np.array([[1.0, 0.0]])
    assert sharpness(logits, 0.2) == pytest.approx(0.01)  # never below 1/2
    assert sharpness(0 * logits, 0.9) == pytest.approx(100.0)  # never above it
    for bad, told in ((0.0, "sureness=0"), (1.5, "sureness=1.5"), (np.nan, "nan")):
        with pytest.raises(InputError, match=told):
            sharpness(logits, bad)
    with pytest.raises(InputError, match="logits.shape"):
        sharpness(np.zeros(3), 0.5)
