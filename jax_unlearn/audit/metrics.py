"""The figures of an unlearned model and their distance from Retrain's.

UA, FA, RA, TA and MIA in percent; the target of each is Retrain's value, so that none
is better for being higher or lower. Plain arrays in, from any framework.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.audit.evidence import Evidence, FigureCard
from jax_unlearn.audit.features import accuracy, true_class_confidence
from jax_unlearn.audit.membership import MIA, svc_mia_efficacy
from jax_unlearn.errors import InputError

__all__ = ["Metrics", "Predictions", "avg_gap", "check_metrics", "tow", "tow_mia"]
__all__ += ["unlearning_metrics"]

GAP_METRICS = ("ua", "ra", "ta", "mia")
"""The metrics that Avg. Gap averages over."""

CONSISTENT = 0.1  # how far UA + FA may be from 100: figures of a table are rounded


class Predictions(NamedTuple):
    """Softmax probabilities `[N, K]` under the test-time transform, and true classes.

    With the samples' ids in the training arrays, `index` `[N]`, overlapping forget and
    retain sets and repeated samples are found out.
    """

    probs: Any
    labels: Any
    index: Any = None


class Metrics(NamedTuple):
    """Five percentages, 0..100, each with Retrain's value as its target.

    Attributes:
      ua: unlearning accuracy, 100 - FA.
      fa, ra, ta: accuracy on D_f, on D_r, and on D_t without the classes forgotten as a
        whole.
      mia: share of D_f called non-member (`svc_mia_efficacy`).
    """

    ua: float
    fa: float
    ra: float
    ta: float
    mia: float


def unlearning_metrics(
    forget: Predictions,
    retain: Predictions,
    test: Predictions,
    *,
    forgotten_classes: Sequence[int] = (),
    seed: int = 0,
) -> Metrics:
    """UA, FA, RA, TA and the SVC's MIA of one model's predictions on D_f, D_r and D_t.

    The test samples of classes forgotten as a whole leave TA and the MIA. Source: the
    evaluation of SalUn (Fan et al., ICLR 2024).

    Raises:
      InputError: arrays that are no predictions; forget and retain sets that overlap; a
        forgotten class that D_r still holds, or that leaves no test sample.

    >>> sure, unsure = [0.9, 0.1], [0.4, 0.6]
    >>> unlearning_metrics(
    ...     Predictions([sure, unsure], [0, 0]),
    ...     Predictions([sure, sure], [0, 0]),
    ...     Predictions([unsure, unsure], [0, 1]),
    ... )
    Metrics(ua=50.0, fa=50.0, ra=100.0, ta=50.0, mia=50.0)
    """
    forget, retain = _checked("forget", forget), _checked("retain", retain)
    test = _checked("test", test)
    widths = [given.probs.shape[1] for given in (forget, retain, test)]
    if len(set(widths)) > 1:
        raise InputError(
            f"forget, retain and test have {widths} classes; give outputs of one model"
        )
    if forget.index is not None and retain.index is not None:
        both = np.intersect1d(forget.index, retain.index)
        if both.size:
            raise InputError(
                f"forget.index and retain.index share {both.size} ids, {both[0]} "
                "first; cut both sets from one split"
            )
    if len(forgotten_classes):
        test = _without_classes(retain, test, forgotten_classes)
    fa, ra, ta = (accuracy(*given[:2]) for given in (forget, retain, test))
    confidences = (true_class_confidence(*s[:2]) for s in (retain, test, forget))
    mia = svc_mia_efficacy(*confidences, seed=seed)
    return Metrics(ua=100 - fa, fa=fa, ra=ra, ta=ta, mia=mia)


def avg_gap(metrics: Metrics, retrained: Metrics) -> float:
    """Mean distance from Retrain over UA, RA, TA and MIA, in percentage points.

    (1/4) sum_m |m - m*|, 0 where all four agree, at most 100. Read it beside the gap
    between two Retrain models of different seeds (`compare`), which is not 0 either.

    Raises:
      InputError: a figure outside 0..100, or UA + FA other than 100.

    >>> method = Metrics(ua=3.0, fa=97.0, ra=99.5, ta=94.0, mia=14.5)
    >>> retrain = Metrics(ua=5.0, fa=95.0, ra=100.0, ta=94.5, mia=13.5)
    >>> avg_gap(method, retrain)
    1.0
    """
    return float(np.mean(_distances(metrics, retrained, GAP_METRICS)))


def tow(metrics: Metrics, retrained: Metrics) -> float:
    """Tug of war: how near Retrain on D_f, D_r and D_t at once.

    prod_{s in f, r, t} (1 - |acc_s - acc_s*|), accuracies as fractions: 0..1, 1 where
    all three are Retrain's. It takes and refuses what `avg_gap` does. Source: Zhao et
    al., "What makes unlearning hard and what to do about it", 2024.

    >>> method = Metrics(ua=50.0, fa=50.0, ra=100.0, ta=80.0, mia=50.0)
    >>> retrain = Metrics(ua=0.0, fa=100.0, ra=100.0, ta=100.0, mia=30.0)
    >>> round(tow(method, retrain), 12)
    0.4
    """
    return _product(metrics, retrained, ("fa", "ra", "ta"))


def tow_mia(metrics: Metrics, retrained: Metrics) -> float:
    """Tug of war with the membership attack in place of the accuracy on D_f.

    (1 - |MIA - MIA*|) · prod_{s in r, t} (1 - |acc_s - acc_s*|), as fractions: 0..1, 1
    where MIA and both accuracies are Retrain's. It takes and refuses what `tow` does.
    Source: Zhao et al., 2024.

    >>> retrain = Metrics(ua=0.0, fa=100.0, ra=100.0, ta=100.0, mia=30.0)
    >>> round(tow_mia(retrain._replace(ta=80.0, mia=50.0), retrain), 12)
    0.64
    """
    return _product(metrics, retrained, ("mia", "ra", "ta"))


def check_metrics(name: str, metrics: Metrics) -> Metrics:
    """Return `metrics`, called `name`, refusing what no model can score.

    Raises:
      InputError: a figure outside 0..100, or UA + FA more than 0.1 from 100.

    >>> check_metrics("row", Metrics(ua=5.0, fa=0.95, ra=1.0, ta=0.9, mia=0.1))
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: row.ua=5.0 and row.fa=0.95 must add up to 100; \
give percentages
    """
    for field, value in zip(Metrics._fields, metrics, strict=True):
        if not -1e-9 <= value <= 100 + 1e-9:
            raise InputError(
                f"{name}.{field}={value} is outside 0..100; give finite percentages"
            )
    if abs(metrics.ua + metrics.fa - 100) > CONSISTENT:
        raise InputError(
            f"{name}.ua={metrics.ua} and {name}.fa={metrics.fa} must add up to 100; "
            "give percentages"
        )
    return metrics


def _product(metrics: Metrics, retrained: Metrics, fields: tuple[str, ...]) -> float:
    shares = [1 - d / 100 for d in _distances(metrics, retrained, fields)]
    return float(np.clip(np.prod(shares), 0.0, 1.0))


def _distances(metrics: Metrics, retrained: Metrics, fields: Any) -> list[float]:
    m, r = check_metrics("metrics", metrics), check_metrics("retrained", retrained)
    return [abs(getattr(m, field) - getattr(r, field)) for field in fields]


def _checked(name: str, given: Predictions) -> Predictions:
    """Return `given` as numpy arrays, each checked."""
    probs = _checks.probabilities(f"{name}.probs", given.probs)
    labels = _checks.class_labels(f"{name}.labels", given.labels, *probs.shape)
    if given.index is None:
        return Predictions(probs, labels)
    index = np.asarray(given.index)
    if index.dtype.kind not in "iu" or index.shape != labels.shape:
        raise InputError(
            f"{name}.index of type {index.dtype}{list(index.shape)} must be integers "
            f"{list(labels.shape)}; give one id a sample, or None"
        )
    ids, counts = np.unique(index, return_counts=True)
    if counts.max() > 1:
        raise InputError(
            f"{name}.index holds id {ids[counts.argmax()]} {counts.max()} times; drop "
            "the padding and give each sample once"
        )
    return Predictions(probs, labels, index)


def _without_classes(
    retain: Predictions, test: Predictions, forgotten: Sequence[int]
) -> Predictions:
    """Return the test samples of the classes not forgotten."""
    name, num_classes = "forgotten_classes", test.probs.shape[1]
    classes = _checks.class_labels(name, forgotten, len(forgotten), num_classes)
    held, keep = np.isin(retain.labels, classes), ~np.isin(test.labels, classes)
    if held.any():
        raise InputError(
            f"{name}={classes.tolist()} but {held.sum()} retain samples are of these "
            "classes; name only classes forgotten as a whole"
        )
    if not keep.any():
        raise InputError(
            f"{name}={classes.tolist()} leave no test sample; give test samples of the "
            "other classes"
        )
    return Predictions(test.probs[keep], test.labels[keep])


def _accuracies(models: Evidence, part: str) -> np.ndarray:
    """Return the accuracy of each model in percent, `f64[N]`."""
    right = models.probs[part].argmax(axis=2) == models.labels[part]
    if part == "test":
        right = right[:, models.tested]
    return 100 * right.mean(axis=1)


def _mean(distance: Callable[[Metrics, Metrics], float]) -> Callable[..., float]:
    """Return the mean distance of each of some models from another one."""

    def rows(models: Evidence) -> list[Metrics]:
        levels = zip(*(models.levels[name] for name in GAP_METRICS), strict=True)
        return [Metrics(ua, 100 - ua, ra, ta, mia) for ua, ra, ta, mia in levels]

    def mean(models: Evidence, others: Evidence, seed: int) -> float:
        del seed
        pairs = zip(rows(models), rows(others), strict=True)
        return float(np.mean([distance(*pair) for pair in pairs]))

    return mean


UA = FigureCard(
    "ua",
    "UA %",
    "share of the forget samples got wrong: 100 - accuracy",
    alone=lambda models, seed: 100 - _accuracies(models, "forget"),
    digits=1,
    bounds=(0, 100),
    counts="forget",
    kind="level",
    group="standard",
    tells="answers",
    headline=True,
)
RA, TA = (
    UA.like(
        key,
        f"{key.upper()} %",
        f"accuracy on the {part} set",
        alone=lambda models, seed, part=part: _accuracies(models, part),
        counts=part,
        tells="others",
        headline=True,
    )
    for key, part in (("ra", "retain"), ("ta", "test"))
)
AVG_GAP = FigureCard(
    "avg_gap",
    "Avg. Gap",
    "mean distance from Retrain in UA, RA, TA and MIA",
    against=_mean(avg_gap),
    digits=2,
    bounds=(0, 100),
    group="standard",
    tells="gaps",
    levels=(UA, RA, TA, MIA),
    source="Fan et al. (SalUn), arXiv 2310.12508",
)
TOW = AVG_GAP.like(
    "tow",
    "ToW",
    "tug of war: product of 1 - distance from Retrain over the three accuracies",
    against=_mean(tow),
    digits=3,
    bounds=(0, 1),
    kind="closeness",
    source="Zhao et al., arXiv 2406.01257",
)
TOW_MIA = TOW.like(
    "tow_mia", "ToW-MIA", "tug of war with MIA in place of UA", against=_mean(tow_mia)
)
