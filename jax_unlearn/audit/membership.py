"""Population membership attacks: one percentage a model, named by its direction.

Three attacks circulate under the name "MIA", and point three ways. Each function says
what its number is the share of and what it should be compared with:

===========================  =====================================  ===================
function                     the number, in percent                 target
===========================  =====================================  ===================
`svc_mia_efficacy`           share of D_f called NON-member         Retrain's value
`entropy_mia_member_rate`    share of D_f called MEMBER             Retrain's value
`loss_mia_accuracy`          accuracy of telling D_f from unseen    50, or Retrain's
===========================  =====================================  ===================

None of them is better for being higher or lower. They judge a population and can miss
single samples that are still exposed. The samples may come in any order.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jax_unlearn._validate import at_least
from jax_unlearn.audit import _checks
from jax_unlearn.audit.evidence import Evidence, FigureCard
from jax_unlearn.audit.features import FLOOR, entropy
from jax_unlearn.audit.rates import share_positive
from jax_unlearn.errors import InputError

__all__ = ["entropy_mia_member_rate", "loss_mia_accuracy", "svc_mia_efficacy"]

MIN_LOSSES = 10  # a side, least for the cross-validated attack: a tenth is held out


def svc_mia_efficacy(
    retain_conf: Any, test_conf: Any, forget_conf: Any, *, seed: int = 0
) -> float:
    """Share of D_f called NON-member by an SVC on the true-class probability.

    100 · #{x in D_f : SVC(p_y(x)) = non-member} / |D_f|, where SVC(C=3, rbf,
    gamma="auto") has learned member (D_r) against non-member (D_t), from probabilities
    `[N]`, `[M]` and `[F]`; classes forgotten as a whole are to leave D_t. The larger of
    D_r and D_t is cut to a random sample of the other's size, so that neither class is
    the likelier one; SalUn cuts D_r only and takes its first samples (our choice).
    Target: the value of Retrain, not 100. At 0 every forget sample still looks like
    training data; 50 by definition (our choice) if all members and non-members share
    one value. Time grows with the square of M: ten seconds for 10,000. Source: SalUn
    (Fan et al., ICLR 2024).

    Raises:
      InputError: an empty set, or values outside [0, 1].

    >>> svc_mia_efficacy([1.0, 0.99, 0.98], [0.3, 0.4, 0.5], [0.99, 0.35, 1.0, 0.98])
    25.0
    """
    rng = _checks.generator(seed)
    given = dict(retain_conf=retain_conf, test_conf=test_conf, forget_conf=forget_conf)
    retain, test, forget = (
        np.sort(_checks.confidences(name, values)) for name, values in given.items()
    )
    retain, test = _equal_sizes(retain, test, rng)
    features = np.concatenate([retain, test])
    if np.ptp(features) == 0:
        return 50.0
    members = np.repeat([1, 0], [len(retain), len(test)])
    from sklearn.svm import SVC

    attack = SVC(C=3, kernel="rbf", gamma="auto").fit(features[:, None], members)
    return float(100 * np.mean(attack.predict(forget[:, None]) == 0))


def entropy_mia_member_rate(
    retain_probs: Any, test_probs: Any, forget_probs: Any, *, standardize: bool = False
) -> float:
    """Share of D_f called MEMBER by a logistic regression on the output's entropy.

    100 · #{x in D_f : LR(H(p(x))) = member} / |D_f|, where the regression (L2, C=1,
    balanced class weights) has learned member (D_r) against non-member (D_t). A sample
    exactly on the boundary counts half, so that constant entropies give 50 (our
    choice). The samples are those of `svc_mia_efficacy`, with all softmax
    probabilities, `[N, K]`, `[M, K]`, `[F, K]`. Target: the value of Retrain, not 0:
    the opposite direction. `standardize` divides the entropies by their standard
    deviation first; off, as published, the L2 penalty blinds the attack where all
    entropies are tiny. Source: Bad Teacher (Chundawat et al., 2023), SSD (Foster et
    al., 2024), SFRon.

    Raises:
      InputError: an empty set, or rows that are no probabilities.

    >>> sure, unsure = [[1.0, 0.0]] * 20, [[0.5, 0.5]] * 20
    >>> entropy_mia_member_rate(sure, unsure, [[1.0, 0.0]] * 3 + [[0.5, 0.5]])
    75.0
    """
    retain = entropy(_checks.probabilities("retain_probs", retain_probs))
    test = entropy(_checks.probabilities("test_probs", test_probs))
    forget = entropy(_checks.probabilities("forget_probs", forget_probs))
    members = np.repeat([1, 0], [len(retain), len(test)])
    features = np.concatenate([np.sort(retain), np.sort(test)])
    scale = (float(features.std()) or 1.0) if standardize else 1.0
    attack = _regression(features / scale, members, class_weight="balanced")
    return float(100 * share_positive(attack(forget / scale)))


def loss_mia_accuracy(
    forget_losses: Any,
    unseen_losses: Any,
    *,
    splits: int = 10,
    seed: int = 0,
    standardize: bool = False,
) -> float:
    """Accuracy of a logistic regression that tells D_f from unseen data by the loss.

    100 · the share of held-out samples put on their right side, averaged over `splits`
    random splits that hold out a tenth of either side, of the losses on D_f, `[F]`, and
    on unseen data of the same classes, `[M]`; the larger set is cut to a random sample
    of the other's size. `standardize` is that of `entropy_mia_member_rate`. Target: 50,
    which constant losses give; less is the noise of the splits. Where D_f and unseen
    data are not one distribution (a long-tailed D_f against a balanced test set),
    Retrain's value. Source: the starting kit of the NeurIPS 2023 unlearning challenge;
    SCRUB (Kurmanji et al., 2023).

    Raises:
      InputError: fewer than 10 samples a side, losses not finite, `splits` below 1.

    >>> loss_mia_accuracy([0.0] * 20, [9.0] * 20)
    100.0
    >>> loss_mia_accuracy([1.0] * 20, [1.0] * 20)
    50.0
    """
    at_least("splits", splits, 1, "try 10")
    forget = np.sort(_checks.vector("forget_losses", forget_losses))
    unseen = np.sort(_checks.vector("unseen_losses", unseen_losses))
    for name, losses in (("forget_losses", forget), ("unseen_losses", unseen)):
        if len(losses) < MIN_LOSSES:
            raise InputError(
                f"len({name})={len(losses)} is too few to hold out a tenth; give at "
                f"least {MIN_LOSSES}"
            )
    forget, unseen = _equal_sizes(forget, unseen, _checks.generator(seed))
    features = np.concatenate([forget, unseen])
    features = features / ((float(features.std()) or 1.0) if standardize else 1.0)
    members = np.repeat([1, 0], [len(forget), len(unseen)])
    from sklearn.model_selection import StratifiedShuffleSplit

    shares = []
    held_out = 2 * math.ceil(len(forget) / 10)
    cut = StratifiedShuffleSplit(splits, test_size=held_out, random_state=seed)
    for train, held in cut.split(features[:, None], members):
        attack = _regression(features[train], members[train])
        side = np.where(members[held] == 1, 1.0, -1.0)
        shares.append(share_positive(side * attack(features[held])))
    return float(100 * np.mean(shares))


def _equal_sizes(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the longer array to a random sample of the shorter one's length."""
    size = min(len(first), len(second))

    def cut(values: np.ndarray) -> np.ndarray:
        if len(values) == size:
            return values
        return values[np.sort(rng.choice(len(values), size, replace=False))]

    return cut(first), cut(second)


def _regression(features: np.ndarray, members: np.ndarray, **options: Any) -> Any:
    """Return the decision of a logistic regression, positive for members."""
    from sklearn.linear_model import LogisticRegression

    attack = LogisticRegression(**options).fit(features[:, None], members)
    return lambda query: attack.decision_function(query[:, None])


def _each(attack: Any, *parts: np.ndarray, **options: Any) -> list[float]:
    """Attack every model with what it says of some parts, `[N, ...]` each."""
    return [attack(*one, **options) for one in zip(*parts, strict=True)]


def _sets(models: Evidence, given: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Return what the models say of the retain, the test and the forget samples."""
    return given["retain"], given["test"][:, models.tested], given["forget"]


def _losses(models: Evidence) -> Iterator[np.ndarray]:
    """Yield the losses of the models on the forget and on the unseen samples."""
    for part in ("forget", "unseen"):
        yield -np.log(np.maximum(models.confidence[part], FLOOR))


MIA = FigureCard(
    "mia",
    "MIA (SVC, called non-member) %",
    "share of the forget samples that an SVC on the confidence calls non-members",
    alone=lambda models, seed: _each(
        svc_mia_efficacy, *_sets(models, models.confidence), seed=seed
    ),
    digits=1,
    bounds=(0, 100),
    counts="forget",
    kind="level",
    group="standard",
    tells="attack",
    headline=True,
    source="Fan et al. (SalUn), arXiv 2310.12508",
)
MIA_ENTROPY = MIA.like(
    "mia_entropy",
    "MIA (entropy, called member) %",
    "forget samples that a logistic regression on the entropy calls members",
    alone=lambda ours, seed: _each(entropy_mia_member_rate, *_sets(ours, ours.probs)),
    group="mia",
    source="Chundawat et al. (Bad Teacher), arXiv 2205.08096",
)
MIA_LOSS = MIA_ENTROPY.like(
    "mia_loss",
    "MIA (loss, accuracy) %",
    "accuracy of telling forget from unseen samples by the loss; guessing is 50",
    alone=lambda ours, seed: _each(loss_mia_accuracy, *_losses(ours), seed=seed),
    reads=("forget", "unseen"),
    least=MIN_LOSSES,
    source="Kurmanji et al. (SCRUB), arXiv 2302.09880",
)
