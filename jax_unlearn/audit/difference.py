"""The difference attack: who holds the model before and after sees what was removed.

A model that is served, then unlearned and served again, is seen twice. Even a Retrain
gives the forget samples away to whoever kept both: so Retrain's value is the target
here too. Less says that they are still there, more that unlearning marks them.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks, rates
from jax_unlearn.audit.evidence import Evidence, FigureCard
from jax_unlearn.audit.features import margins_from_probs
from jax_unlearn.errors import InputError

__all__ = ["DifferenceAttack", "Pair", "difference_attack", "difference_features"]

TOP = 3  # largest posteriors that the learned attack reads, in the original's order
SOLVER = "newton-cholesky"  # few columns: an iteration is one small solve
FEWEST = 4  # samples of a kind: two that fit, two that are judged
MOST = 5000  # samples of a side that an audit looks at


class Pair(NamedTuple):
    """What two models say of the same samples.

    Attributes:
      before: probabilities of the original, `[n, K]`.
      after: those of the model that came of it.
      labels: true classes, `[n]`.
    """

    before: Any
    after: Any
    labels: Any


class DifferenceAttack(NamedTuple):
    """What the attacks find; Retrain's values are the targets.

    Attributes:
      drop_auc: by the drop of the true class's log-odds alone, 0..1.
      auc: of the learned attack, averaged over two halves of the samples, 0..1.
      tpr_1: its share of forget samples found at 1 % false positives, over both halves.
    """

    drop_auc: float
    auc: float
    tpr_1: rates.Rate


def difference_features(pair: Pair) -> np.ndarray:
    """What an attacker reads off two models for each sample, `f64[n, D]`.

    The K' = min(K, 3) largest posteriors before, and those after in the same order, K'
    differences, the Euclidean distance of the whole posteriors, and the log-odds of the
    true class before, after, and their difference: the features of Chen et al. (sorted
    concatenation, sorted difference, Euclidean distance), cut to the largest posteriors
    so that few samples suffice, and the true class, which our attacker knows (our
    choice). Source: Chen et al., "When Machine Unlearning Jeopardizes Privacy", arXiv
    2005.02205.

    Raises:
      InputError: rows that are no probabilities, other shapes, labels that do not fit.

    >>> pair = Pair([[0.9, 0.1]], [[0.4, 0.6]], [0])
    >>> difference_features(pair).round(2).tolist()
    [[0.9, 0.1, 0.4, 0.6, 0.5, -0.5, 0.71, 2.2, -0.41, 2.6]]
    """
    before = _checks.probabilities("before", pair.before)
    after = _checks.probabilities("after", pair.after)
    if before.shape != after.shape:
        raise InputError(
            f"before.shape={before.shape} and after.shape={after.shape} differ; give "
            "what both models say of the same samples"
        )
    _checks.class_labels("labels", pair.labels, *before.shape)
    order = np.argsort(-before, axis=1, kind="stable")[:, :TOP]
    first, then = (np.take_along_axis(p, order, axis=1) for p in (before, after))
    distance = np.sqrt(np.sum((before - after) ** 2, axis=1))
    was, now = (margins_from_probs(p, pair.labels) for p in (before, after))
    columns = [*first.T, *then.T, *(first - then).T, distance, was, now, was - now]
    return np.stack(columns, axis=1)


def difference_attack(forget: Pair, others: Pair, *, seed: int = 0) -> DifferenceAttack:
    """Tell forget samples from others by what two models say before and after.

    One pair of models is enough. `drop_auc` needs no training: a sample whose log-odds
    fell more was more likely removed. The learned attack is a logistic regression (L2,
    C = 1) on `difference_features`, scaled to unit deviation; it is fitted on one half
    of the samples of either kind and judges the other half, and the other way round:
    an attacker who knows of half of the candidates what became of them. For samples of
    one distribution both AUCs are 0.5 in expectation.

    Others are samples that no model saw, or retain samples. Target: what the original
    and a Retrain show, which is far from 0.5 for samples that were memorised: removal
    itself is visible to whoever has both models. More than Retrain's says that
    unlearning marks the samples beyond that, less that they are still there. Source:
    Chen et al., arXiv 2005.02205, who train on shadow pairs; the halves are our choice.

    Raises:
      InputError: fewer than 4 samples of a kind, and what `difference_features` does.

    >>> sure, unsure = [0.9, 0.1], [0.5, 0.5]
    >>> gone = Pair([sure] * 8, [unsure] * 8, [0] * 8)
    >>> kept = Pair([sure] * 8, [sure] * 8, [0] * 8)
    >>> found = difference_attack(gone, kept)
    >>> found.drop_auc, found.auc
    (1.0, 1.0)
    >>> difference_attack(kept, kept).auc
    0.5
    """
    positive, negative = difference_features(forget), difference_features(others)
    if positive.shape[1] != negative.shape[1]:
        raise InputError("forget and others have other classes; give the same models'")
    for name, side in (("forget", positive), ("others", negative)):
        if len(side) < FEWEST:
            raise InputError(
                f"{name} holds {len(side)} samples, too few to fit one half and judge "
                f"the other; give {FEWEST} or more"
            )
    from sklearn.linear_model import LogisticRegression

    sides = positive, negative
    halves = [
        _checks.generator(seed, n).permutation(np.arange(len(side)) % 2)
        for n, side in enumerate(sides)
    ]
    aucs, scores = [], []
    for fold in (0, 1):
        fit = [side[half != fold] for side, half in zip(sides, halves, strict=True)]
        held = [side[half == fold] for side, half in zip(sides, halves, strict=True)]
        x = np.concatenate(fit)
        centre, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        y = np.repeat([1, 0], [len(side) for side in fit])
        attack = LogisticRegression(class_weight="balanced", solver=SOLVER)
        attack.fit((x - centre) / scale, y)
        found = [attack.decision_function((side - centre) / scale) for side in held]
        aucs.append(rates.roc_auc(*found))
        scores.append(found)
    pooled = (np.concatenate(side) for side in zip(*scores, strict=True))
    return DifferenceAttack(
        rates.roc_auc(positive[:, -1], negative[:, -1]),
        float(np.mean(aucs)),
        rates.tpr_at_fpr(*pooled, fpr=0.01),
    )


def _pairs(models: Evidence, part: str, seed: int) -> Iterator[Pair]:
    """Yield what each model and its original say of samples of a part."""
    before, labels = models.before, models.labels[part]
    assert before is not None  # the cards read "original"
    rows = np.arange(len(labels))
    if len(rows) > MOST:
        rows = np.sort(_checks.generator(seed, 3).choice(rows, MOST, replace=False))
    for was, now in zip(before.probs[part], models.probs[part], strict=True):
        yield Pair(was[rows], now[rows], labels[rows])


def _each(
    read: Callable[[DifferenceAttack], float], part: str
) -> Callable[[Evidence, int], list[float]]:
    """Return what reads an attack on each of some models, beside samples of a part."""

    def values(models: Evidence, seed: int) -> list[float]:
        sides = (_pairs(models, name, seed) for name in ("forget", part))
        pairs = zip(*sides, strict=True)
        return [read(difference_attack(*pair, seed=seed)) for pair in pairs]

    return values


def _drops(part: str) -> Callable[[Evidence, int], list[float]]:
    """Return what attacks each of some models by the drop of the log-odds alone."""

    def values(models: Evidence, seed: int) -> list[float]:
        del seed
        before = models.before
        assert before is not None
        forget, others = (before.odds[n] - models.odds[n] for n in ("forget", part))
        pairs = zip(forget, others, strict=True)
        return [rates.roc_auc(*pair) for pair in pairs]

    return values


DROP_AUC = FigureCard(
    "drop_auc",
    "drop of log-odds, AUC (unseen)",
    "forget told from unseen samples by how far the log-odds fell from the original's",
    alone=_drops("unseen"),
    bounds=(0, 1),
    kind="level",
    group="difference",
    tells="pair",
    reads=("original", "forget", "unseen"),
    least=FEWEST,
    source="after Chen et al., arXiv 2005.02205",
)
DROP_RETAIN_AUC = DROP_AUC.like(
    "drop_retain_auc",
    "drop of log-odds, AUC (retain)",
    "forget told from retain samples by how far the log-odds fell",
    alone=_drops("retain"),
    reads=("original", "forget", "retain"),
)
DIFFERENCE_AUC = DROP_AUC.like(
    "difference_auc",
    "difference attack AUC (unseen)",
    "forget told from unseen samples by an attack trained on both models' outputs",
    alone=_each(lambda found: found.auc, "unseen"),
    headline=True,
    source="Chen et al., arXiv 2005.02205",
)
DIFFERENCE_TPR_1 = DIFFERENCE_AUC.like(
    "difference_tpr_1",
    "difference attack TPR at 1 % FPR, %",
    "forget samples found while 1 % of the unseen ones are",
    alone=_each(lambda found: found.tpr_1.value, "unseen"),
    digits=2,
    bounds=(0, 100),
)
DIFFERENCE_RETAIN_AUC = DIFFERENCE_AUC.like(
    "difference_retain_auc",
    "difference attack AUC (retain)",
    "forget told from retain samples by an attack trained on both outputs",
    alone=_each(lambda found: found.auc, "retain"),
    reads=("original", "forget", "retain"),
)
