"""A method against Retrain over several seeds, read against the noise of the seeds.

Two Retrain models of different seeds differ too. That difference, the null, decides
whether a distance from Retrain means anything.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.audit.metrics import Metrics, avg_gap, check_metrics, tow
from jax_unlearn.audit.rates import student
from jax_unlearn.errors import InputError

__all__ = ["Comparison", "MetricRow", "PairedTest", "compare", "comparison_table"]
__all__ += ["paired_test"]

EXACT_SEEDS = 12  # up to so many pairs all 2^S sign patterns are tried
DRAWS = 20_000  # random sign patterns beyond that


class MetricRow(NamedTuple):
    """One metric over the seeds; percentages, and their differences from Retrain.

    Attributes:
      mean, std, target_mean, target_std: of the method, and of Retrain.
      difference: mean of the method minus mean of Retrain.
      null_low, null_high: where `difference` of a method that only differs from Retrain
        by its seeds lies at the chosen level.
      verdict: "inside" or "outside" that interval; "" from fewer than three seeds.
    """

    mean: float
    std: float
    target_mean: float
    target_std: float
    difference: float
    null_low: float
    null_high: float
    verdict: str


class PairedTest(NamedTuple):
    """Whether S paired figures differ by more than chance; two-sided p-values.

    Attributes:
      mean_difference, std_difference: of a - b, over the pairs.
      permutation_p: p-value of the sign-flip permutation test.
      exact: whether all 2^S sign patterns were tried.
      t, t_p: Student's t and its p-value, None where the differences do not vary.
    """

    pairs: int
    mean_difference: float
    std_difference: float
    permutation_p: float
    exact: bool
    t: float | None
    t_p: float | None

    @property
    def p(self) -> float:
        """Student's p, or the permutation's where there is none."""
        return self.permutation_p if self.t_p is None else self.t_p


class Comparison(NamedTuple):
    """A method beside Retrain and the null; `_asdict()` can be written as JSON.

    Attributes:
      seeds: number of seeds S.
      level: level of the null's intervals.
      metrics: a `MetricRow`, as a dictionary, for each of ua, fa, ra, ta, mia.
      avg_gap_mean, avg_gap_std, tow_mean, tow_std: of the method over the seeds.
      null_avg_gap_mean, null_avg_gap_std, null_tow_mean, null_tow_std: of the other
        Retrain.
      against_nothing: a `PairedTest`, as a dictionary, of the method's Avg. Gap minus
        that of doing nothing (negative: nearer to Retrain), or None.
    """

    seeds: int
    level: float
    metrics: dict[str, dict[str, Any]]
    avg_gap_mean: float
    avg_gap_std: float
    null_avg_gap_mean: float
    null_avg_gap_std: float
    tow_mean: float
    tow_std: float
    null_tow_mean: float
    null_tow_std: float
    against_nothing: dict[str, Any] | None


def compare(
    method: Sequence[Metrics],
    retrained: Sequence[Metrics],
    null: Sequence[Metrics],
    *,
    nothing: Sequence[Metrics] | None = None,
    level: float = 0.95,
) -> Comparison:
    """Compare a method with Retrain over seeds, with two Retrains as the null.

    Metrics are given one entry a seed, in one order and of the same splits: of the
    unlearned models, of Retrain, of Retrain from another random start, and (`nothing`)
    of the original models or None. Avg. Gap and ToW are taken seed by seed against the
    Retrain of that seed. A metric is inside the null if |mean(method) - mean(Retrain)|
    <= t · s / sqrt(S): s is the sample standard deviation of null_i - retrained_i, t
    the two-sided quantile of Student's t with S - 1 degrees of freedom. A method that
    is only another Retrain is inside with probability `level` if the figures are normal
    (our choice). "Inside" says that S seeds do not tell them apart, not that they are
    equal; five metrics at 0.95 put one outside more often than one time in twenty. Two
    seeds show one difference of two Retrains, and so no verdict is made of them.

    Raises:
      InputError: fewer than two seeds, sequences of different lengths, a figure
        outside 0..100, a level outside (0, 1).

    >>> retrain = [Metrics(ua, 100 - ua, 100, 94, 12) for ua in (6, 4, 5)]
    >>> other = [Metrics(ua, 100 - ua, 100, 94, 12) for ua in (5, 6, 4)]
    >>> ours = [Metrics(ua, 100 - ua, 99, 94, 12) for ua in (6, 5, 5)]
    >>> table = compare(ours, retrain, other)
    >>> table.metrics["ua"]["null_high"]  # 4.30 · 1.73 / √3
    4.30
    >>> table.metrics["ua"]["verdict"], table.metrics["ra"]["verdict"]
    ('inside', 'outside')
    """
    _checks.level(level)
    groups = {"method": method, "retrained": retrained, "null": null}
    others = {} if nothing is None else {"nothing": nothing}
    for name, rows in {**groups, **others}.items():
        if len(rows) < 2:
            raise InputError(
                f"len({name})={len(rows)} shows no spread; give metrics of at least 2 "
                "seeds"
            )
        _checks.same_length(name, rows, "retrained", retrained)
        for i, row in enumerate(rows):
            check_metrics(f"{name}[{i}]", row)
    columns = [np.asarray(rows, np.float64).T for rows in groups.values()]

    def per_seed(figure: Any, rows: Sequence[Metrics]) -> np.ndarray:
        return np.array([figure(m, r) for m, r in zip(rows, retrained, strict=True)])

    gaps, null_gaps = per_seed(avg_gap, method), per_seed(avg_gap, null)
    against = None
    if nothing is not None:
        against = paired_test(gaps, per_seed(avg_gap, nothing))._asdict()
    return Comparison(
        len(retrained),
        float(level),
        {
            field: metric_row(m, r, n, level)._asdict()
            for field, m, r, n in zip(Metrics._fields, *columns, strict=True)
        },
        *_spread(gaps),
        *_spread(null_gaps),
        *_spread(per_seed(tow, method)),
        *_spread(per_seed(tow, null)),
        against,
    )


def comparison_table(comparison: Comparison) -> str:
    """Lay a comparison out as a Markdown table, percentages with two decimals.

    >>> rows = [Metrics(ua, 100 - ua, 100, 94, 12) for ua in (5, 6, 7)]
    >>> print(comparison_table(compare(rows, rows, rows)).splitlines()[2])
    | UA | 6.00 ± 1.00 | 6.00 ± 1.00 | +0.00 | [+0.00, +0.00] | inside |
    """
    c = comparison
    lines = [
        "| metric | method | Retrain | difference | null's interval | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in c.metrics.items():
        cells = (
            name.upper(),
            f"{r['mean']:.2f} ± {r['std']:.2f}",
            f"{r['target_mean']:.2f} ± {r['target_std']:.2f}",
            f"{r['difference']:+.2f}",
            f"[{r['null_low']:+.2f}, {r['null_high']:+.2f}]",
            r["verdict"] or "–",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        f"| Avg. Gap | {c.avg_gap_mean:.2f} ± {c.avg_gap_std:.2f} | 0 | "
        f"| null: {c.null_avg_gap_mean:.2f} ± {c.null_avg_gap_std:.2f} | |",
        f"| ToW | {c.tow_mean:.3f} ± {c.tow_std:.3f} | 1 | "
        f"| null: {c.null_tow_mean:.3f} ± {c.null_tow_std:.3f} | |",
    ]
    return "\n".join(lines)


def paired_test(a: Any, b: Any, *, seed: int = 0) -> PairedTest:
    """Test whether paired figures differ, by sign flips and by Student's t.

    With d = a - b, of figures `[S]` of the same seeds, the permutation test asks how
    often flipping the signs of d at random gives a mean as far from 0 as the one seen.
    Up to 12 pairs all 2^S patterns are tried, so that p is at least 2/2^S: five pairs
    cannot go below 0.0625. Beyond, 20,000 patterns drawn by `seed`, p = (1 + hits)/(1 +
    20,000). The t-test asks the same of normal differences. For "the method against
    doing nothing" give Avg. Gaps. Differences that do not vary (all within 1e-12 of the
    largest figure) leave t and t_p None; the permutation test holds, with p = 1 where
    all are 0.

    Raises:
      InputError: fewer than two pairs, different lengths, figures not finite.

    >>> paired_test([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]).permutation_p
    0.25
    """
    x, y = _checks.vector("a", a), _checks.vector("b", b)
    _checks.same_length("a", x, "b", y)
    pairs = len(x)
    if pairs < 2:
        raise InputError(f"len(a)={pairs} gives no test; give at least 2 seeds")
    d = x - y
    rounding = 1e-12 * max(np.abs(x).max(), np.abs(y).max())
    d = np.where(np.abs(d) <= rounding, 0.0, d)
    exact = pairs <= EXACT_SEEDS
    if exact:
        signs = _all_signs(pairs)
    else:
        signs = 1 - 2 * _checks.generator(seed).integers(0, 2, (DRAWS, pairs))
    mean, spread = _spread(d)
    hits = int(np.sum(np.abs(signs @ d) / pairs >= abs(mean) - rounding))
    t = t_p = None
    if np.ptp(d) > rounding:
        # pages ask this of every pair of rows, and scipy.stats.t is slow
        from scipy.special import stdtr

        t = mean / (spread / math.sqrt(pairs))
        t_p = float(2 * stdtr(pairs - 1, -abs(t)))
    p = hits / len(signs) if exact else (1 + hits) / (1 + DRAWS)
    return PairedTest(pairs, mean, spread, p, exact, t, t_p)


@functools.cache
def _all_signs(pairs: int) -> np.ndarray:
    """Return all sign patterns of so many pairs, `[2^S, S]`."""
    return 1 - 2 * ((np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1)


def metric_row(
    method: np.ndarray, retrained: np.ndarray, null: np.ndarray, level: float = 0.95
) -> MetricRow:
    """Compare a figure with Retrain's seed by seed, as `compare` says."""
    difference = float(method.mean() - retrained.mean())
    spread = _spread(null - retrained)[1]
    half = float(student(level, len(method)) * spread / np.sqrt(len(method)))
    verdict = "inside" if abs(difference) <= half + 1e-9 else "outside"
    verdict = verdict if len(method) >= FEWEST else ""
    spreads = *_spread(method), *_spread(retrained)
    return MetricRow(*spreads, difference, 0.0 - half, half, verdict)


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Return mean and sample standard deviation."""
    return float(values.mean()), float(values.std(ddof=1))
