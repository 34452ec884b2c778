"""RMIA: is the model surer of a sample than of others, beyond what references expect?

One attacked model, a few models that never saw the samples, and a population of unseen
samples to compare with; no ensemble of unlearned models. Shapes: n forget samples, m
unseen samples, M reference models. All inputs are true-class probabilities.
"""

from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.audit.evidence import Evidence, FigureCard
from jax_unlearn.audit.features import FLOOR
from jax_unlearn.audit.rates import Rate, quantiles, tpr_at_fpr
from jax_unlearn.errors import InputError

__all__ = ["Rmia", "rmia", "rmia_attack"]

RESAMPLES = 1000  # bootstrap resamples of the samples
CHUNK = 2**22  # most numbers a step of the bootstrap holds at once
ATTACKED = 4  # models of an ensemble that an audit attacks, one by one


class Rmia(NamedTuple):
    """Forget samples told from unseen ones by RMIA; the target is Retrain's value.

    Attributes:
      auc: P(forget sample scores above unseen sample) + P(equal)/2, 0..1; 0.5 where the
        forget samples look like unseen ones.
      auc_low, auc_high: its bootstrap interval over samples.
      tpr_1, tpr_01: share of the forget samples found at 1 % and 0.1 % false positives.
      forget_scores, unseen_scores: `f64[n]` and `f64[m]`, each of these without itself.
    """

    auc: float
    auc_low: float
    auc_high: float
    tpr_1: Rate
    tpr_01: Rate
    forget_scores: np.ndarray
    unseen_scores: np.ndarray


def rmia(
    target_forget: Any,
    reference_forget: Any,
    target_population: Any,
    reference_population: Any,
    *,
    a: float = 0.3,
    gamma: float = 2.0,
) -> np.ndarray:
    """Score of each forget sample: how many others it beats in relative likelihood.

    r(x) = p_theta(x)/p(x), p(x) = ((1 + a) p_out(x) + (1 - a))/2, score(x) = the share
    of population samples z with r(x)/r(z) > gamma; `f64[n]`, higher looks more like
    training data. p_out is the mean over reference models that never saw x; for models
    that did, none of which is trained (offline), a · p_out + 1 - a stands in, and p is
    the mean of both. Nothing is divided by r(z): a z of probability 0 is beaten by
    every x whose own is not. At a = 0 a model that saw x is taken to be certain of it,
    at 1 not to be changed by it: p = p_out then, which counts as at least 1e-30. The
    attacked model gives `[n]` and `[m]`, the references, which like it never saw the
    population, `[M, n]` and `[M, m]`; no forget sample is in the population. Source:
    Zarifzadeh et al., arXiv 2312.03262.

    Raises:
      InputError: values outside [0, 1], lengths that do not fit, different numbers of
        reference models, `a` outside 0..1, `gamma` below 1.

    >>> reference = [[0.5, 0.5]]  # p = (1.3 · 0.5 + 0.7)/2 = 0.675
    >>> rmia([0.9, 0.3], reference, [0.2, 0.4], reference).tolist()
    [1.0, 0.0]
    """
    forget = target_forget, reference_forget
    population = target_population, reference_population
    forget, population = _ratios({"forget": forget, "population": population}, a, gamma)
    return _beaten(forget, gamma * population) / len(population)


def rmia_attack(
    target_forget: Any,
    reference_forget: Any,
    target_unseen: Any,
    reference_unseen: Any,
    *,
    a: float = 0.3,
    gamma: float = 2.0,
    level: float = 0.95,
    seed: int = 0,
) -> Rmia:
    """Tell forget samples from unseen samples of the same model by their RMIA scores.

    The unseen samples serve twice: as the population, and as what the forget samples
    are told from. No sample is compared with itself: an unseen sample is scored with
    the m - 1 others, and in the AUC a pair (forget x, unseen z) is scored, both of it,
    with the m - 1 others than z. So two sets of one distribution give 0.5 in
    expectation at every m (our choice); the AUC of `forget_scores` against
    `unseen_scores` falls short by some 1/m, and so the rates, which threshold those
    scores, err on the low side for few unseen samples.

    0.5 is the target where D_f is distributed like the unseen samples. In general it is
    Retrain's value: score Retrain with the same references and unseen samples. Inputs,
    `a` and `gamma` are as for `rmia`, the Retrain that is the target itself is no
    reference, and the unseen samples are of the classes of D_f and distributed like
    them where possible. The interval of the AUC draws forget and unseen samples anew,
    1000 times, with the population kept; those of the rates are Clopper-Pearson.

    Raises:
      InputError: as `rmia`; fewer than two unseen samples, a level outside (0, 1).

    >>> sure, unsure, references = [0.9, 0.9], [0.2, 0.3], [[0.5, 0.5]]
    >>> rmia_attack(sure, references, unsure, references).auc
    1.0
    >>> rmia_attack(unsure, references, unsure, references).auc
    0.5
    """
    _checks.level(level)
    forget = target_forget, reference_forget
    unseen = target_unseen, reference_unseen
    forget, unseen = _ratios({"forget": forget, "unseen": unseen}, a, gamma)
    if len(unseen) < 2:
        raise InputError(
            f"len(target_unseen)={len(unseen)} leaves no population for the unseen "
            "sample itself; give at least 2"
        )
    scores = (
        _beaten(forget, gamma * unseen) / len(unseen),
        # gamma >= 1: no sample beats itself, so the count is over the others already.
        _beaten(unseen, gamma * unseen) / (len(unseen) - 1),
    )
    auc, drawn = _pair_auc(forget, unseen, gamma, seed)
    one, tenth = (tpr_at_fpr(*scores, fpr=fpr, level=level) for fpr in (0.01, 0.001))
    return Rmia(auc, *quantiles(drawn, level), one, tenth, *scores)


def _beaten(ratios: np.ndarray, hurdles: np.ndarray) -> np.ndarray:
    """Return how many hurdles lie below each ratio."""
    return np.searchsorted(np.sort(hurdles), ratios, side="left")


def _pair_auc(
    forget: np.ndarray, unseen: np.ndarray, gamma: float, seed: int
) -> tuple[float, np.ndarray]:
    """AUC over pairs (x, z), both scored without z, and its bootstrap `[R]`."""
    # Let k be how many samples z beats. x beats fewer of the others where r(x) is at
    # most the k-th smallest gamma · r (never that of z, which z does not beat), and no
    # more where it is at most the next of the others.
    order = np.argsort(gamma * unseen, kind="stable")
    hurdles = np.concatenate([[-np.inf], gamma * unseen[order], [np.inf]])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    beaten = _beaten(unseen, hurdles[1:-1])
    following = beaten + 1 + (place == beaten)
    sorted_forget = np.sort(forget)
    lose = np.searchsorted(sorted_forget, hurdles[beaten], side="right")
    no_win = np.searchsorted(sorted_forget, hurdles[following], side="right")
    n, m = len(forget), len(unseen)
    auc = 1 - (lose.sum() + no_win.sum()) / (2 * n * m)

    rng = _checks.generator(seed)
    drawn = np.empty(RESAMPLES)
    step = max(1, CHUNK // (n + m))
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        x = rng.multinomial(n, np.full(n, 1 / n), size=rows)
        z = rng.multinomial(m, np.full(m, 1 / m), size=rows)
        below = np.concatenate([np.zeros((rows, 1), x.dtype), x.cumsum(axis=1)], axis=1)
        missed = np.sum(z * (below[:, lose] + below[:, no_win]), axis=1)
        drawn[start : start + rows] = 1 - missed / (2 * n * m)
    return float(auc), drawn


def _ratios(
    sides: dict[str, tuple[Any, Any]], a: float, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return r of the two sides, each of a target and its references."""
    if not 0 <= a <= 1:
        raise InputError(f"a={a} is outside 0..1; try 0.3")
    if not (gamma >= 1 and np.isfinite(gamma)):
        raise InputError(f"gamma={gamma} must be at least 1 and finite; try 2.0")
    ratios, models = [], []
    for side, (target, reference) in sides.items():
        p = _checks.confidences(f"target_{side}", target)
        references = _checks.confidences(f"reference_{side}", reference, 2)
        if references.shape[1] != len(p):
            raise InputError(
                f"reference_{side}.shape={references.shape} does not fit "
                f"len(target_{side})={len(p)}; give one row a model, same samples"
            )
        models.append(len(references))
        expected = ((1 + a) * references.mean(axis=0) + (1 - a)) / 2
        # 0 only where a = 1 and no reference gives x any chance.
        ratios.append(p / np.maximum(expected, FLOOR))
    if models[0] != models[1]:
        first, second = (f"reference_{side}" for side in sides)
        raise InputError(
            f"{first} has {models[0]} models and {second} {models[1]}; give the same "
            "models for both"
        )
    return ratios[0], ratios[1]


def _attacks(models: Evidence, others: Evidence, seed: int) -> list[Rmia]:
    """Attack each model, with the others as references."""
    del seed  # of intervals that an audit does not show
    forget, unseen = (models.confidence[part] for part in ("forget", "unseen"))
    references = others.confidence
    return [
        rmia_attack(x, references["forget"], z, references["unseen"])
        for x, z in zip(forget[:ATTACKED], unseen[:ATTACKED], strict=True)
    ]


RMIA_AUC = FigureCard(
    "rmia_auc",
    "RMIA AUC",
    "forget samples told from unseen ones, with Retrains as references",
    against=_attacks,
    read=lambda attacks: float(np.mean([a.auc for a in attacks])),
    bounds=(0, 1),
    kind="level",
    group="rmia",
    tells="attack",
    models=2,
    reads=("unseen",),
    source="Zarifzadeh et al., arXiv 2312.03262",
)
RMIA_TPR_1 = RMIA_AUC.like(
    "rmia_tpr_1",
    "RMIA TPR at 1 % FPR, %",
    "forget samples found while 1 % of the unseen ones are called members",
    read=lambda attacks: float(np.mean([a.tpr_1.value for a in attacks])),
    digits=2,
    bounds=(0, 100),
)
