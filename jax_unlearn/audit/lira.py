"""U-LiRA: can models that unlearned a sample be told from models that never saw it?

A population attack has one rule for all samples; this one has a rule for each, fitted
on an ensemble, and finds what the average hides. Shapes: N models that were trained
with the samples and unlearned them, M models that never saw them, F forget samples.
"""

from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks, rates
from jax_unlearn.audit.evidence import Evidence, FigureCard
from jax_unlearn.errors import InputError

__all__ = ["ULira", "u_lira"]

RELATIVE_FLOOR = 0.01  # least deviation, in root mean squares over the samples
ABSOLUTE_FLOOR = 1e-6  # least deviation in log-odds: the grain of float32 near 10
RESAMPLES = 1000  # bootstrap resamples of the samples
EDGES = 1024
"""Scores that bound the bins of the bootstrapped AUC; the AUC itself is not binned."""


class ULira(NamedTuple):
    """What U-LiRA finds on held-out models; 50 %, 0.5 and Retrain's values are targets.

    Attributes:
      accuracy: share of the models put on their right side at likelihood ratio 1, both
        kinds weighed alike, in percent.
      auc: area under the ROC curve of the models of one fold, averaged over the folds,
        0..1. Below 0.5 is the noise of too few models: read it as 0.5.
      accuracy_low, accuracy_high, auc_low, auc_high: their intervals over samples.
      tpr_1, tpr_01: true-positive rate at 1 % and at 0.1 % false positives.
      roc: ROC curve; like the rates, pooled over the folds.
      per_example_accuracy, per_example_auc: on each sample, `f64[F]`.
      models: (N, M).
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    auc: float
    auc_low: float
    auc_high: float
    tpr_1: rates.Rate
    tpr_01: rates.Rate
    roc: rates.Roc
    per_example_accuracy: np.ndarray
    per_example_auc: np.ndarray
    models: tuple[int, int]


def u_lira(
    unlearned: Any,
    retrained: Any,
    *,
    folds: int = 2,
    fix_variance: bool = False,
    level: float | None = 0.95,
    seed: int = 0,
) -> ULira:
    """Tell models that unlearned each sample from models that never saw it.

    For each sample x a Gaussian is fitted to the confidences of either kind of model on
    all folds but one, and the held-out models of BOTH kinds are scored with log N(s;
    mu_u, sigma_u) - log N(s; mu_r, sigma_r). A positive score says "unlearned". Every
    model is held out once and never scored by a Gaussian fitted to it; scored
    in-sample, two ensembles of one distribution would seem different.
    `u_lira(retrained_a, retrained_b)` is the null.

    - Accuracy and AUC compare models held out together and are averaged over the folds:
      50 and 0.5 in expectation for two ensembles of one distribution, however few;
      pooling the scores would pull the AUC of few models below 0.5. The ROC curve and
      both rates do pool them, for resolution. Models that vary as a whole lift the
      rates above 1 and 0.1 even under the null: read them beside it.
    - Model i of one kind is held out with model i of the other where N = M, so models
      that share a seed are never on both sides.
    - The intervals of accuracy and AUC resample SAMPLES (1000 times): they hold for
      these models, for cross-fitting few models leaves none to draw from. They take
      most of the time: with `level=None` they are not made (NaN). Those of the
      rates are Clopper-Pearson on N·F scores that share models: too narrow. The spread
      over other ensembles is seen by the null.
    - Standard deviations (over n - 1) count as at least 1 % of their root mean square
      over the samples of their kind, and at least 1e-6: a sample on which all fitted
      models agree is told apart with great but finite confidence, and scores 0, half
      right, where both kinds agree with each other too (our choice).

    Logit-scaled confidences are `[N, F]` and `[M, F]`, samples in one order; each kind
    needs twice as many models as folds. `fix_variance` uses the root mean square of the
    deviations for every sample, wise for few models, whose own deviations are noise
    (Carlini et al. do so). `seed` deals the models into folds and draws the resamples.
    Source: Hayes et al., arXiv 2403.01218; cross-fitting is our choice.

    Raises:
      InputError: too few models, different samples, scores that are not finite, fewer
        than two folds, a level outside (0, 1).

    >>> never_saw = [[0.0], [0.1], [0.2], [0.3]]
    >>> traced = u_lira([[5.0], [5.1], [5.2], [5.3]], never_saw)
    >>> traced.accuracy, traced.auc
    (100.0, 1.0)
    >>> erased = u_lira(never_saw, never_saw)
    >>> erased.accuracy, erased.auc
    (50.0, 0.5)
    """
    if level is not None:
        _checks.level(level)
    if folds < 2:
        raise InputError(f"folds={folds} hold nothing out; try 2")
    from scipy.stats import mannwhitneyu

    u, r = _checks.ensembles(unlearned, retrained, least=2 * folds)
    # Fold of each model; equal sizes are dealt alike.
    held_u, held_r = (
        _checks.generator(seed).permutation(np.arange(len(side)) % folds)
        for side in (u, r)
    )
    pairs, aucs, sample_aucs, sample_accuracies = [], [], [], []
    for fold in range(folds):
        ratio = _ratio(u[held_u != fold], r[held_r != fold], fix_variance)
        positive, negative = ratio(u[held_u == fold]), ratio(r[held_r == fold])
        pairs.append((positive, negative))
        aucs.append(rates.roc_auc(positive.ravel(), negative.ravel()))
        # Of each column, ties half.
        wins = mannwhitneyu(positive, negative, axis=0, method="asymptotic").statistic
        sample_aucs.append(wins / (len(positive) * len(negative)))
        right = rates.share_positive(positive) + rates.share_positive(-negative)
        sample_accuracies.append(right / 2)
    accuracies = 100 * np.mean(sample_accuracies, axis=0)
    accuracy_ends, auc_ends = (np.nan, np.nan), (np.nan, np.nan)
    if level is not None:
        # How often each bootstrap resample holds each sample, `[R, F]`.
        share = np.full(u.shape[1], 1 / u.shape[1])
        rng = _checks.generator(seed, 1)
        drawn = rng.multinomial(u.shape[1], share, size=RESAMPLES)
        counts = drawn.astype(np.float64)
        means = np.mean([_resampled_auc(p, n, counts) for p, n in pairs], axis=0)
        accuracy_ends = rates.quantiles(counts @ accuracies / u.shape[1], level)
        auc_ends = rates.quantiles(means, level)
    positives, negatives = (np.concatenate(s).ravel() for s in zip(*pairs, strict=True))
    return ULira(
        float(accuracies.mean()),
        *accuracy_ends,
        float(np.mean(aucs)),
        *auc_ends,
        tpr_1=rates.tpr_at_fpr(positives, negatives, fpr=0.01, level=level or 0.95),
        tpr_01=rates.tpr_at_fpr(positives, negatives, fpr=0.001, level=level or 0.95),
        roc=rates.roc_curve(positives, negatives),
        per_example_accuracy=accuracies,
        per_example_auc=np.mean(sample_aucs, axis=0),
        models=(len(u), len(r)),
    )


def _ratio(unlearned: np.ndarray, retrained: np.ndarray, fix_variance: bool) -> Any:
    """Fit both kinds; return the log-likelihood ratio as a function of `[n, F]`."""
    mean_u, std_u = _gaussian(unlearned, fix_variance)
    mean_r, std_r = _gaussian(retrained, fix_variance)

    def ratio(scores: np.ndarray) -> np.ndarray:
        z_u, z_r = (scores - mean_u) / std_u, (scores - mean_r) / std_r
        return (z_r**2 - z_u**2) / 2 + np.log(std_r / std_u)

    return ratio


def _gaussian(scores: np.ndarray, fix_variance: bool) -> tuple[np.ndarray, np.ndarray]:
    """Means and floored standard deviations, `[F]` each."""
    std = scores.std(axis=0, ddof=1)
    typical = np.sqrt(np.mean(std**2))
    if fix_variance:
        std = np.full_like(std, typical)
    floor = max(RELATIVE_FLOOR * typical, ABSOLUTE_FLOOR)
    return scores.mean(axis=0), np.maximum(std, floor)


def _resampled_auc(
    positive: np.ndarray, negative: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """AUC `[R]` of the scores of each resample's samples, pooled over them."""
    # Scores between two of the quantiles count as ties: 0.0005 of the AUC at most.
    values = np.unique(np.concatenate([positive, negative]))
    if len(values) > EDGES:
        even = np.linspace(0, len(values) - 1, EDGES).astype(np.int64)
        ends = [positive.min(), positive.max(), negative.min(), negative.max()]
        values = np.unique(np.concatenate([values[even], ends]))

    def histogram(scores: np.ndarray) -> np.ndarray:
        left = np.searchsorted(values, scores, side="left")
        bins = left + np.searchsorted(values, scores, side="right")
        width = 2 * len(values) + 1
        flat = bins + width * np.arange(scores.shape[1])
        count = np.bincount(flat.ravel(), minlength=width * scores.shape[1])
        # Whole numbers below 2^24 stay exact in the float32 product.
        per_sample = count.reshape(scores.shape[1], width).astype(np.float32)
        return (counts.astype(np.float32) @ per_sample).astype(np.float64)

    p, n = histogram(positive), histogram(negative)
    below = np.cumsum(n, axis=1) - n / 2
    return np.sum(p * below, axis=1) / (p.sum(axis=1) * n.sum(axis=1))


def _drawn(models: Evidence, others: Evidence, level: float) -> dict[str, Any]:
    """Return the ROC curve, and figures with intervals of their own."""
    found = u_lira(models.margins, others.margins, level=level)
    intervals = {
        LIRA_AUC.key: (found.auc, found.auc_low, found.auc_high),
        LIRA_TPR_1.key: found.tpr_1[:3],
        LIRA_TPR_01.key: found.tpr_01[:3],
    }
    return {"roc": found.roc, "intervals": intervals}


LIRA_ACCURACY = FigureCard(
    "lira_accuracy",
    "U-LiRA accuracy %",
    "how often one sample's output tells a model from Retrain; guessing is 50",
    against=lambda ours, others, seed: u_lira(
        ours.margins, others.margins, level=None, seed=seed
    ),
    read=attrgetter("accuracy"),
    digits=1,
    bounds=(0, 100),
    group="u_lira",
    tells="traces",
    models=8,
    source="Hayes et al., arXiv 2403.01218",
)
LIRA_AUC = LIRA_ACCURACY.like(
    "lira_auc",
    "U-LiRA AUC",
    "how well one output tells a model from Retrain; guessing is 0.5",
    read=attrgetter("auc"),
    digits=3,
    bounds=(0, 1),
    headline=True,
    detail=_drawn,
)
LIRA_TPR_1, LIRA_TPR_01 = (
    LIRA_ACCURACY.like(
        f"lira_{field}",
        f"U-LiRA TPR at {percent} % FPR, %",
        f"traces of samples found while {percent} % of Retrain's are called so",
        read=attrgetter(f"{field}.value"),
        digits=2,
    )
    for field, percent in (("tpr_1", 1), ("tpr_01", 0.1))
)
