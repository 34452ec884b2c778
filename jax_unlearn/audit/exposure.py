"""The retain set's privacy: can samples that stay be told from samples never seen?

Unlearning may expose those who did not ask for it: a few more passes over the retain
set memorise it further, and every sample that leaves makes others outliers (the privacy
onion). Read the figures beside Retrain's, and those of the original (before) beside
those of the method (after).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks, rates
from jax_unlearn.audit.evidence import Evidence, FigureCard
from jax_unlearn.audit.lira import ABSOLUTE_FLOOR
from jax_unlearn.errors import InputError

__all__ = ["Exposure", "retain_exposure"]

FEWEST_OF_CLASS = 4  # fitted scores of a class, below which those of all classes count
MOST = 5000  # samples of a side that an audit looks at


class Exposure(NamedTuple):
    """What an attack finds; Retrain's values are the targets, not 0.5 and 1.

    Attributes:
      auc: area under the ROC curve, averaged over two halves of the samples, 0..1.
      tpr_1: share of retain samples found at 1 % false positives, over both halves.
    """

    auc: float
    tpr_1: rates.Rate


def retain_exposure(
    retain: Any,
    never_seen: Any,
    retain_labels: Any,
    never_seen_labels: Any,
    *,
    seed: int = 0,
) -> Exposure:
    r"""Tell the retain samples of one model from samples that it never saw, by LiRA.

    .. math:: \Lambda(s, y) = \log N(s; \mu^{in}_y, \sigma^{in})
              {} - \log N(s; \mu^{out}_y, \sigma^{out})

    s is the log-odds of the true class, as `margins` returns it, `[R]` and `[M]`, and
    labels are `[R]` and `[M]`. The means are those of a class, the deviations those
    within the classes; both are fitted on one half of the samples and judge the other,
    and the other way round, so that samples of one distribution have an AUC of 0.5 in
    expectation. Of a class with fewer than 4 fitted samples of either kind, the means
    of all classes are taken.

    LiRA fits a Gaussian to each SAMPLE, over shadow models that lack it. Of one request
    no model lacks a retain sample; so the Gaussians are of a class (our choice), by an
    attacker who knows of half the samples whether they were trained on. A weaker attack
    than one with shadows: what it finds is there, what it does not find may be.
    Source: Carlini et al. (LiRA), arXiv 2112.03570; that unlearning can expose the
    retain samples: Hayes et al., arXiv 2403.01218.

    Raises:
      InputError: fewer than 4 samples of a kind, values not finite, other lengths.

    >>> rng = np.random.default_rng(0)
    >>> never, seen = rng.normal(0, 1, 2000), rng.normal(1, 1, 2000)
    >>> y = np.zeros(2000, int)
    >>> round(retain_exposure(seen, never, y, y).auc, 1)  # Phi(1 / sqrt 2) = 0.76
    0.8
    >>> round(retain_exposure(never, never, y, y).auc, 1)
    0.5
    """
    sides = []
    given = (retain, retain_labels), (never_seen, never_seen_labels)
    for name, (scores, labels) in zip(("retain", "never_seen"), given, strict=True):
        s = _checks.vector(name, scores)
        if len(s) < FEWEST_OF_CLASS:
            raise InputError(
                f"len({name})={len(s)} is too few to fit one half and judge the "
                f"other; give {FEWEST_OF_CLASS} samples or more"
            )
        y = np.asarray(labels)
        if y.shape != s.shape or y.dtype.kind not in "iu":
            raise InputError(
                f"{name}_labels of type {y.dtype}{list(y.shape)} must be the classes "
                f"of {len(s)} samples; give one whole number each"
            )
        # Halves of each class: one that lacks a class would misjudge the other.
        order = np.lexsort((_checks.generator(seed, len(sides)).random(len(s)), y))
        half = np.empty(len(s), np.int64)
        half[order] = np.arange(len(s)) % 2
        sides.append((s, y, half))
    aucs, found = [], []
    for fold in (0, 1):
        learned = [(s[half != fold], y[half != fold]) for s, y, half in sides]
        counts = [np.unique(y, return_counts=True) for _, y in learned]
        first, second = (k[n >= FEWEST_OF_CLASS] for k, n in counts)
        classes = np.intersect1d(first, second)
        fits = [_fitted(s, y, classes) for s, y in learned]
        scores = []
        for s, y, half in sides:
            held = s[half == fold], y[half == fold]
            scores.append(fits[0](*held) - fits[1](*held))
        aucs.append(rates.roc_auc(*scores))
        found.append(scores)
    positive, negative = (np.concatenate(side) for side in zip(*found, strict=True))
    return Exposure(
        float(np.mean(aucs)), rates.tpr_at_fpr(positive, negative, fpr=0.01)
    )


def _fitted(
    scores: np.ndarray, labels: np.ndarray, classes: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Fit a Gaussian to some classes; return the log-density of scores and labels."""
    everywhere = float(scores.mean())
    means = {k: float(scores[labels == k].mean()) for k in classes}

    def mean(labels: np.ndarray) -> np.ndarray:
        return np.array([means.get(k, everywhere) for k in labels])

    spread = float(np.sqrt(np.mean((scores - mean(labels)) ** 2)))
    spread = max(spread, ABSOLUTE_FLOOR)

    def density(given: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return -(((given - mean(labels)) / spread) ** 2) / 2 - np.log(spread)

    return density


def _exposures(models: Evidence, seed: int) -> Iterator[Exposure]:
    """Attack the retain samples of each model beside all samples that stay unseen."""
    stays = np.unique(models.labels["retain"])
    never = [("test", models.tested)]
    if "unseen" in models.odds:
        never.append(("unseen", np.isin(models.labels["unseen"], stays)))
    odds = np.concatenate([models.odds[part][:, rows] for part, rows in never], axis=1)
    truth = np.concatenate([models.labels[part][rows] for part, rows in never])
    own, labels = models.odds["retain"], models.labels["retain"]
    rng = _checks.generator(seed, 2)
    mine, others = (
        np.sort(rng.choice(len(y), min(len(y), MOST), replace=False))
        for y in (labels, truth)
    )
    for a, b in zip(own[:, mine], odds[:, others], strict=True):
        yield retain_exposure(a, b, labels[mine], truth[others], seed=seed)


RETAIN_AUC = FigureCard(
    "retain_auc",
    "retain LiRA AUC",
    "retain samples told from unseen ones; above Retrain's value they are exposed",
    alone=lambda models, seed: [found.auc for found in _exposures(models, seed)],
    bounds=(0, 1),
    kind="level",
    group="retain",
    tells="exposed",
    reads=("retain", "test"),
    least=FEWEST_OF_CLASS,
    headline=True,
    source="Carlini et al. (LiRA), arXiv 2112.03570; Hayes et al., arXiv 2403.01218",
)
RETAIN_TPR_1 = RETAIN_AUC.like(
    "retain_tpr_1",
    "retain LiRA TPR at 1 % FPR, %",
    "retain samples found while 1 % of those never seen are called members",
    alone=lambda models, seed: [f.tpr_1.value for f in _exposures(models, seed)],
    digits=2,
    bounds=(0, 100),
)
