"""KLoM against numpy's histogram and scipy's entropy, and in closed cases."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from jax_unlearn.audit.features import margins
from jax_unlearn.audit.klom import klom, klom_null
from jax_unlearn.errors import InputError


def reference(u, r, bins=20, clip=100.0, floor=1e-5):
    """One example, by numpy and scipy."""
    u, r = np.clip(u, -clip, clip), np.clip(r, -clip, clip)
    ends = min(u.min(), r.min()), max(u.max(), r.max())
    edges = np.linspace(*ends, bins + 1)
    p = np.histogram(u, edges)[0] / len(u)
    q = np.histogram(r, edges)[0] / len(r)
    return stats.entropy(np.maximum(p, floor), np.maximum(q, floor)), p, q


def draws(seed, n, m, examples, shift=0.3):
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, (n, examples)), rng.normal(0, 1.3, (m, examples))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 40),
    st.integers(2, 40),
    st.integers(2, 25),
    st.sampled_from([1e-5, 1e-2]),
)
def test_klom_matches_histograms(seed, n, m, bins, floor):
    u, r = draws(seed, n, m, 3)
    got = klom(u, r, bins=bins, clip=1.5, floor=floor)
    for k in range(3):
        expected, p, q = reference(u[:, k], r[:, k], bins, 1.5, floor)
        np.testing.assert_allclose(got.per_example[k], expected, rtol=1e-9, atol=1e-12)
        # The published code lifts q alone.
        published = stats.entropy(p, np.where(p > 0, np.maximum(q, floor), q))
        if floor == 1e-5:
            assert abs(got.per_example[k] - published) < 2 * bins * floor * 11.52
    assert got.mean == got.per_example.mean()
    assert got.median == np.median(got.per_example)
    assert got.quantile_95 == np.quantile(got.per_example, 0.95)
    assert (got.models, got.bins) == ((n, m), bins)
    assert np.all(got.per_example >= 0)
    assert np.all(got.per_example <= math.log(1 / floor))


@given(st.integers(0, 10_000), st.integers(2, 30))
def test_the_very_same_margins_have_no_divergence(seed, n):
    u, _ = draws(seed, n, 2, 4)
    order = np.random.default_rng(seed).permutation(n)
    assert klom(u, u[order]).per_example.tolist() == [0, 0, 0, 0]


def test_separated_margins_have_the_largest_divergence():
    rng = np.random.default_rng(0)
    u, r = rng.uniform(0, 0.1, (50, 3)), rng.uniform(4.9, 5, (30, 3))
    limit = math.log(1e5)
    for got in (klom(u, r), klom(r, u)):
        assert np.all(got.per_example > 0.999 * limit)
        assert np.all(got.per_example <= limit)


def test_the_largest_margin_is_counted():
    # Published code leaves the largest margin out of every bin; where all retrained
    # ones are equal and the largest, its q is empty and the divergence 0.
    u, r = np.full((8, 1), -3.0), np.full((8, 1), 2.0)
    edges = np.linspace(-3, 2, 21)
    assert np.all(np.digitize(r[:, 0], edges) == 21)  # bins count from 1 to 20
    for got in (klom(u, r).mean, klom(r, u).mean):
        assert abs(got - math.log(1e5)) < 0.01


def test_margins_beyond_the_clip_are_equal():
    u, r = np.array([[150.0], [-200.0]]), np.array([[-1e9], [101.0]])
    assert klom(u, r).mean == 0
    assert klom(u, r, clip=180.0).mean > 1
    assert klom(np.full((3, 1), 7.0), np.full((4, 1), 7.0)).mean == 0


def test_two_gaussians_have_nearly_their_divergence():
    # KL(N(d, 1) || N(0, 1)) = d^2 / 2.
    rng = np.random.default_rng(0)
    u, r = rng.normal(0.5, 1, (40_000, 3)), rng.normal(0, 1, (40_000, 3))
    np.testing.assert_allclose(klom(u, r).per_example, 0.125, rtol=0.08)


def test_divergence_ignores_place_and_scale():
    u, r = draws(5, 30, 20, 6)
    np.testing.assert_allclose(
        klom(4 * u - 8, 4 * r - 8).per_example, klom(u, r).per_example, rtol=1e-9
    )


def test_divergence_has_a_direction():
    rng = np.random.default_rng(0)
    narrow, wide = rng.uniform(4, 5, (60, 1)), rng.uniform(0, 10, (60, 1))
    assert klom(narrow, wide).mean < klom(wide, narrow).mean


def test_noise_of_filled_bins_is_that_of_chi_square():
    # E KL of two histograms of one distribution: (bins - 1)/2 (1/N + 1/M).
    rng = np.random.default_rng(0)
    u, r = rng.uniform(size=(400, 2000)), rng.uniform(size=(800, 2000))
    expected = (5 - 1) / 2 * (1 / 400 + 1 / 800)
    assert abs(klom(u, r, bins=5).mean / expected - 1) < 0.05


@pytest.mark.parametrize(("n", "m", "bins"), [(10, 10, 20), (100, 30, 20), (64, 64, 8)])
def test_null_is_what_other_draws_of_one_distribution_give(n, m, bins):
    rng = np.random.default_rng(7)
    u, r = rng.normal(3, 2, (n, 600)), rng.normal(3, 2, (m, 600))
    values = [reference(u[:, k], r[:, k], bins)[0] for k in range(600)]
    null = klom_null(n, m, bins=bins, draws=600)
    error = np.std(values) * math.sqrt(2 / 600)
    assert abs(null.mean - np.mean(values)) < 4 * error
    assert abs(null.quantile_95 / np.quantile(values, 0.95) - 1) < 0.15
    assert null.mean > (bins - 1) / 2 * (1 / n + 1 / m) > 0
    assert (null.models, null.per_example.shape) == ((n, m), (600,))


def test_null_falls_with_the_number_of_models():
    means = [klom_null(n, n).mean for n in (5, 10, 20, 50, 100, 200)]
    np.testing.assert_allclose(means, [7.9, 5.6, 3.1, 0.88, 0.35, 0.15], rtol=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_margins_match_logsumexp_and_the_logit_of_the_probability(seed, classes):
    rng = np.random.default_rng(seed)
    logits, labels = 3 * rng.normal(size=(4, 5, classes)), rng.integers(0, classes, 5)
    got = margins(logits, labels)
    for i in range(4):
        for j in range(5):
            rest = np.delete(logits[i, j], labels[j])
            expected = logits[i, j, labels[j]] - special.logsumexp(rest)
            assert abs(got[i, j] - expected) < 1e-9
    p = special.softmax(logits, axis=-1)[:, np.arange(5), labels]
    np.testing.assert_allclose(got, special.logit(p), rtol=1e-6, atol=1e-9)
    shifted = margins(special.log_softmax(logits, axis=-1), labels)
    np.testing.assert_allclose(shifted, got, rtol=1e-9, atol=1e-9)


def test_margins_of_sure_models_stay_exact():
    logits = np.array([[1e4, 0.0, -1e4], [-800.0, 0.0, 800.0], [60.0, 0.0, 0.0]])
    expected = [1e4, -1600.0, 60 - math.log(2)]
    np.testing.assert_allclose(margins(logits, [0, 0, 0]), expected, rtol=1e-14)
    half = jnp.asarray(logits, "bfloat16")
    assert margins(half, np.zeros(3, np.int32)).dtype == np.float64
    marked = margins([[1.0, 3.0, -np.inf]], [0])  # a class left out
    assert marked.tolist() == [-2.0]
    np.testing.assert_allclose(
        margins(jax.nn.log_softmax(jnp.array([[1.0, 3.0]])), [1]), [2.0], rtol=1e-6
    )


def test_five_hundred_examples_of_64_models_take_under_two_seconds():
    u, r = draws(0, 64, 64, 500)
    start = time.perf_counter()
    klom(u, r)
    assert time.perf_counter() - start < 2


GOOD = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: klom(GOOD[:1], GOOD), r"unlearned.*holds 1 model.*least 2"),
        (lambda: klom(GOOD, GOOD[:, :1]), "have different numbers of samples"),
        (lambda: klom(GOOD * np.nan, GOOD), r"unlearned\[0, 0\]=nan \(6 of 6"),
        (lambda: klom(GOOD, GOOD, bins=1), "bins=1 must be a whole"),
        (lambda: klom(GOOD, GOOD, bins=2.5), "bins=2.5"),
        (lambda: klom(GOOD, GOOD, clip=0), "clip=0 must be over 0"),
        (lambda: klom(GOOD, GOOD, clip=np.nan), "clip=nan"),
        (lambda: klom(GOOD, GOOD, floor=0), "floor=0 must lie"),
        (lambda: klom(GOOD, GOOD, floor=0.05), "floor=0.05 must lie"),
        (lambda: klom_null(1, 5), "unlearned_models=1"),
        (lambda: klom_null(5, 5, draws=0), "draws=0"),
        (lambda: klom_null(5, 5, bins=0), "bins=0"),
        (lambda: margins([[1.0], [2.0]], [0, 0]), "under 2 classes"),
        (lambda: margins([1.0, 2.0], [0]), "must have 2 axes"),
        (lambda: margins([[1.0, 2.0], [1.0]], [0, 0]), "no array of numbers"),
        (lambda: margins(np.zeros((2, 0, 3)), []), r"\(2, 0, 3\) is empty"),
        (lambda: margins([[1.0, 2.0]], [2]), r"labels\[0\]=2 is outside 0..1"),
        (lambda: margins([[1.0, 2.0]], [0, 0]), "give one label a sample"),
        (
            lambda: margins([[[0.0, 1.0]], [[np.nan, 1.0]]], [0]),
            r"logits\[1, 0\].*1 of",
        ),
        (lambda: margins([[0.0, -np.inf]], [0]), "no finite margin"),
        (lambda: margins([[0.0, -np.inf]], [1]), "no finite margin"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
