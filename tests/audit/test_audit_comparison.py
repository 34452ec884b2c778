"""Comparison over seeds: scipy as reference, calibration of the verdict."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jax_unlearn import audit
from jax_unlearn.audit import Metrics
from jax_unlearn.errors import InputError

figures = st.lists(
    st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=6
)


def row(ua, ra, ta, mia):
    return Metrics(ua, 100 - ua, ra, ta, mia)


def runs(seed, count, center, spread=0.5):
    draws = np.random.default_rng(seed).normal(center, spread, (count, 4))
    return [row(*draw) for draw in draws.tolist()]


def test_comparison_by_hand():
    method = [row(3, 99, 93, 14), row(5, 99, 93, 16), row(4, 99, 93, 12)]
    retrained = [row(5, 100, 94, 12), row(6, 100, 94, 14), row(7, 100, 94, 16)]
    null = [row(6, 100, 94, 12), row(5, 100, 94, 14), row(7, 100, 94, 16)]
    got = audit.compare(method, retrained, null)
    # Gaps: (2+1+1+2)/4, (1+1+1+2)/4, (3+1+1+4)/4.
    assert got.seeds == 3
    np.testing.assert_allclose(got.avg_gap_mean, 5 / 3)
    np.testing.assert_allclose(got.avg_gap_std, np.std([1.5, 1.25, 2.25], ddof=1))
    np.testing.assert_allclose(got.null_avg_gap_mean, (0.25 + 0.25 + 0) / 3)
    np.testing.assert_allclose(
        got.tow_mean, 0.99**2 * np.mean([0.98, 0.99, 0.97]), rtol=1e-12
    )
    np.testing.assert_allclose(got.null_tow_mean, (0.99 + 0.99 + 1) / 3)
    ua = got.metrics["ua"]
    assert (ua["mean"], ua["std"]) == (4, 1)
    assert (ua["target_mean"], ua["target_std"], ua["difference"]) == (6, 1, -2)
    # null - retrained = 1, -1, 0: s = 1, and t(0.975, 2) = 4.3027 from any table.
    np.testing.assert_allclose(ua["null_high"], 4.302653 / math.sqrt(3), rtol=1e-6)
    assert ua["null_low"] == -ua["null_high"]
    verdicts = {name: entry["verdict"] for name, entry in got.metrics.items()}
    assert verdicts == {
        "ua": "inside",
        "fa": "inside",
        "ra": "outside",
        "ta": "outside",
        "mia": "inside",
    }


def test_a_method_equal_to_retrain_has_gap_zero_and_is_inside():
    retrained = runs(0, 4, 50)
    got = audit.compare(retrained, retrained, retrained)
    assert (got.avg_gap_mean, got.avg_gap_std, got.tow_mean) == (0, 0, 1)
    assert {entry["verdict"] for entry in got.metrics.values()} == {"inside"}
    narrow = audit.compare(retrained, retrained, runs(1, 4, 50), level=0.5)
    wide = audit.compare(retrained, retrained, runs(1, 4, 50), level=0.99)
    assert narrow.metrics["ta"]["null_high"] < wide.metrics["ta"]["null_high"]


def test_the_verdict_is_wrong_about_another_retrain_at_the_stated_rate():
    # The figures of one run are independent, so that each of 4 · 250 verdicts is
    # outside with probability 0.2: 200 ± 12.6.
    outside = 0
    for trial in range(250):
        method, retrained, null = (runs(3 * trial + k, 4, 50) for k in range(3))
        got = audit.compare(method, retrained, null, level=0.8).metrics
        outside += sum(
            got[name]["verdict"] == "outside" for name in ("ua", "ra", "ta", "mia")
        )
    assert abs(outside - 200) < 50


def test_higher_is_not_better():
    retrained, null = runs(0, 5, 50), runs(1, 5, 50)
    above = audit.compare(runs(2, 5, 60), retrained, null)
    below = audit.compare(runs(2, 5, 40), retrained, null)
    for got in (above, below):
        assert {entry["verdict"] for entry in got.metrics.values()} == {"outside"}
    assert abs(above.avg_gap_mean - below.avg_gap_mean) < 1


def test_a_comparison_can_be_written_and_read():
    got = audit.compare(
        runs(0, 3, 50), runs(1, 3, 50), runs(2, 3, 50), nothing=runs(3, 3, 60)
    )
    assert json.loads(json.dumps(got._asdict(), allow_nan=False)) == got._asdict()
    assert got.against_nothing is not None
    assert got.against_nothing["mean_difference"] < 0
    assert got.against_nothing["permutation_p"] == 0.25
    lines = audit.comparison_table(got).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        *("UA", "FA", "RA", "TA", "MIA", "Avg. Gap", "ToW")
    ]
    assert len({line.count("|") for line in lines}) == 1
    assert f"{got.null_avg_gap_mean:.2f}" in lines[-2]


def test_the_test_against_nothing_is_on_the_gaps_of_each_seed():
    method, nothing, retrained = runs(0, 5, 50), runs(1, 5, 55), runs(2, 5, 50)
    got = audit.compare(method, retrained, runs(3, 5, 50), nothing=nothing)
    gaps = [audit.avg_gap(m, r) for m, r in zip(method, retrained, strict=True)]
    before = [audit.avg_gap(m, r) for m, r in zip(nothing, retrained, strict=True)]
    assert got.against_nothing == audit.paired_test(gaps, before)._asdict()
    assert audit.paired_test(gaps, before).permutation_p == 2 / 2**5


@given(figures)
def test_paired_test_matches_scipy_and_a_loop(values):
    a, b = np.round(np.array(values).T, 3)
    d = a - b
    got = audit.paired_test(a, b)
    seen = abs(sum(d))
    patterns = list(itertools.product((1, -1), repeat=len(d)))
    hits = sum(abs(sum(d * np.array(s))) >= seen - 1e-9 for s in patterns)
    assert got.exact
    assert abs(got.permutation_p - hits / len(patterns)) < 1e-12
    back = audit.paired_test(b, a)
    assert (back.permutation_p, back.t_p) == (got.permutation_p, got.t_p)
    if np.ptp(d) > 1e-3:
        assert got.t is not None
        assert got.t_p is not None
        reference = stats.ttest_rel(a, b)
        np.testing.assert_allclose(got.t, reference.statistic, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got.t_p, reference.pvalue, rtol=1e-9)


def test_permutation_test_matches_scipy_on_twelve_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, 12), rng.normal(0, 1, 12)
    reference = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=10_000,
        vectorized=True,
    )
    got = audit.paired_test(a, b)
    np.testing.assert_allclose(got.permutation_p, reference.pvalue, rtol=1e-12)


def test_beyond_twelve_pairs_the_patterns_are_drawn():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 40), rng.normal(0, 1, 40)
    got = audit.paired_test(a, b)
    assert not got.exact
    assert got.t_p is not None
    assert abs(got.permutation_p - got.t_p) < 0.02
    assert got == audit.paired_test(a, b)
    assert got != audit.paired_test(a, b, seed=1)
    far = audit.paired_test(a + 100, b)
    assert far.permutation_p == 1 / 20_001


def test_differences_that_do_not_vary():
    same = audit.paired_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (same.permutation_p, same.t, same.t_p) == (1, None, None)
    # 0.3 - 0.1 and 0.4 - 0.2 differ by rounding only.
    shifted = audit.paired_test([0.3, 0.4, 0.7], [0.1, 0.2, 0.5])
    assert (shifted.permutation_p, shifted.t, shifted.t_p) == (0.25, None, None)
    assert abs(shifted.mean_difference - 0.2) < 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: audit.compare(r[:1], r[:1], r[:1]), "at least 2 seeds"),
        (lambda r: audit.compare(r[:2], r, r), r"len\(method\)=2 differs"),
        (lambda r: audit.compare(r, r, r[:2]), r"len\(null\)=2 differs"),
        (lambda r: audit.compare(r, r, r, nothing=r[:2]), r"len\(nothing\)=2"),
        (lambda r: audit.compare(r, r, r, level=95), "level=95"),
        (
            lambda r: audit.compare([*r[:2], r[2]._replace(ta=101)], r, r),
            r"method\[2\].ta=101",
        ),
        (lambda r: audit.paired_test([1.0], [2.0]), "at least 2 seeds"),
        (lambda r: audit.paired_test([1.0, 2.0], [2.0]), r"len\(b\)=1"),
        (lambda r: audit.paired_test([1.0, np.nan], [2.0, 1.0]), r"a\[1\]=nan"),
    ],
)
def test_unusable_runs_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(runs(0, 3, 50))
