"""The figures of an unlearned model and their distance from Retrain's.

UA, FA, RA, TA and MIA in percent; the target of each is Retrain's value, so that none
is better for being higher or lower. Plain arrays in, from any framework.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.audit.card import FigureCard
from jax_unlearn.audit.evidence import Evidence
from jax_unlearn.audit.features import accuracy, true_class_confidence
from jax_unlearn.audit.membership import MIA, svc_mia_efficacy
from jax_unlearn.errors import InputError

__all__ = ["Metrics", "Predictions", "avg_gap", "check_metrics", "tow", "tow_mia"]
__all__ += ["unlearning_metrics"]

GAP_METRICS = ("ua", "ra", "ta", "mia")
"""The metrics that Avg. Gap averages over."""

CONSISTENT = 0.1
"""How far UA + FA may be from 100: figures copied from a table are rounded."""


class Predictions(NamedTuple):
    """What a model says of a set of samples, under the test-time transform.

    Attributes:
      probs: softmax probabilities `[N, K]`.
      labels: true classes `[N]`.
      index: ids of the samples in the training arrays `[N]`, or None. With ids,
        overlapping forget and retain sets and repeated samples are found out.
    """

    probs: Any
    labels: Any
    index: Any = None


class Metrics(NamedTuple):
    """Five percentages, 0..100, each with Retrain's value as its target.

    Attributes:
      ua: unlearning accuracy, 100 - accuracy on D_f.
      fa: accuracy on D_f, 100 - UA.
      ra: accuracy on D_r.
      ta: accuracy on D_t, without the classes forgotten as a whole.
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
    """UA, FA, RA, TA and the SVC's MIA of one model.

    Source: the evaluation of SalUn (Fan et al., ICLR 2024).

    Args:
      forget: predictions on D_f.
      retain: predictions on D_r.
      test: predictions on D_t.
      forgotten_classes: classes forgotten as a whole; their test samples leave TA and
        the MIA.
      seed: draws the MIA's sample of D_r (see `svc_mia_efficacy`).

    Raises:
      InputError: arrays that are no predictions; forget and retain sets that overlap;
        a forgotten class that D_r still holds, or that leaves no test sample.

    >>> sure, unsure = [0.9, 0.1], [0.4, 0.6]
    >>> unlearning_metrics(
    ...     Predictions([sure, unsure], [0, 0]),
    ...     Predictions([sure, sure], [0, 0]),
    ...     Predictions([unsure, unsure], [0, 1]),
    ... )
    Metrics(ua=50.0, fa=50.0, ra=100.0, ta=50.0, mia=50.0)
    """
    forget, retain, test = (
        _checked(name, given)
        for name, given in (("forget", forget), ("retain", retain), ("test", test))
    )
    _check_sets(forget, retain, test)
    if len(forgotten_classes):
        test = _without_classes(retain, test, forgotten_classes)
    fa, ra, ta = (accuracy(*given[:2]) for given in (forget, retain, test))
    confidences = (
        true_class_confidence(*given[:2]) for given in (retain, test, forget)
    )
    mia = svc_mia_efficacy(*confidences, seed=seed)
    return Metrics(ua=100 - fa, fa=fa, ra=ra, ta=ta, mia=mia)


def avg_gap(metrics: Metrics, retrained: Metrics) -> float:
    """Mean distance from Retrain over UA, RA, TA and MIA, in percentage points.

    (1/4) sum_m |m - m*|, 0 where all four agree, at most 100. Read it beside the gap
    between two Retrain models of different seeds (`compare`), which is not 0 either.

    Args:
      metrics: of the unlearned model.
      retrained: of Retrain on the same split.

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
    all three are Retrain's. Source: Zhao et al., "What makes unlearning hard and what
    to do about it", 2024.

    Args:
      metrics: of the unlearned model.
      retrained: of Retrain on the same split.

    Raises:
      InputError: as `avg_gap`.

    >>> method = Metrics(ua=50.0, fa=50.0, ra=100.0, ta=80.0, mia=50.0)
    >>> retrain = Metrics(ua=0.0, fa=100.0, ra=100.0, ta=100.0, mia=30.0)
    >>> round(tow(method, retrain), 12)
    0.4
    """
    return _product(metrics, retrained, ("fa", "ra", "ta"))


def tow_mia(metrics: Metrics, retrained: Metrics) -> float:
    """Tug of war with the membership attack in place of the accuracy on D_f.

    (1 - |MIA - MIA*|) · prod_{s in r, t} (1 - |acc_s - acc_s*|), as fractions: 0..1, 1
    where MIA and both accuracies are Retrain's. Source: Zhao et al., 2024.

    Args:
      metrics: as in `tow`.
      retrained: as in `tow`.

    Raises:
      InputError: as `tow`.

    >>> method = Metrics(ua=50.0, fa=50.0, ra=100.0, ta=80.0, mia=50.0)
    >>> retrain = Metrics(ua=0.0, fa=100.0, ra=100.0, ta=100.0, mia=30.0)
    >>> round(tow_mia(method, retrain), 12)
    0.64
    """
    return _product(metrics, retrained, ("mia", "ra", "ta"))


def check_metrics(name: str, metrics: Metrics) -> Metrics:
    """Return `metrics` itself, refusing what no model can score.

    Args:
      name: what the message calls it.
      metrics: the figures.

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


def _distances(
    metrics: Metrics, retrained: Metrics, fields: tuple[str, ...]
) -> list[float]:
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


def _check_sets(forget: Predictions, retain: Predictions, test: Predictions) -> None:
    widths = [given.probs.shape[1] for given in (forget, retain, test)]
    if len(set(widths)) > 1:
        raise InputError(
            f"forget, retain and test have {widths} classes; give the outputs of one "
            "model"
        )
    if forget.index is None or retain.index is None:
        return
    both = np.intersect1d(forget.index, retain.index)
    if both.size:
        raise InputError(
            f"forget.index and retain.index share {both.size} ids, {both[0]} first; "
            "cut both sets from one split"
        )


def _without_classes(
    retain: Predictions, test: Predictions, forgotten: Sequence[int]
) -> Predictions:
    """Return the test samples of the classes not forgotten."""
    classes = _checks.class_labels(
        "forgotten_classes", forgotten, len(forgotten), test.probs.shape[1]
    )
    held = np.isin(retain.labels, classes)
    if held.any():
        raise InputError(
            f"forgotten_classes={classes.tolist()} but {held.sum()} retain samples are "
            "of these classes; name only classes forgotten as a whole"
        )
    keep = ~np.isin(test.labels, classes)
    if not keep.any():
        raise InputError(
            f"forgotten_classes={classes.tolist()} leave no test sample; give test "
            "samples of the other classes"
        )
    return Predictions(test.probs[keep], test.labels[keep])


def _accuracies(models: Evidence, part: str) -> np.ndarray:
    """Return the accuracy of each model in percent, `f64[N]`."""
    right = models.probs[part].argmax(axis=2) == models.labels[part]
    if part == "test":
        right = right[:, models.tested]
    return 100 * right.mean(axis=1)


def _model_by_model(
    distance: Callable[[Metrics, Metrics], float],
    models: Evidence,
    others: Evidence,
    seed: int,
) -> float:
    """Return the mean distance of each model from another one."""
    del seed
    pairs = zip(_rows(models), _rows(others), strict=True)
    return float(np.mean([distance(*pair) for pair in pairs]))


def _rows(models: Evidence) -> list[Metrics]:
    rows = zip(*(models.levels[name] for name in GAP_METRICS), strict=True)
    return [Metrics(ua, 100 - ua, ra, ta, mia) for ua, ra, ta, mia in rows]


UA = FigureCard(
    key="ua",
    alone=lambda models, seed: 100 - _accuracies(models, "forget"),
    label="UA %",
    digits=1,
    kind="level",
    meaning="100 - accuracy on the forget set",
    group="standard",
    tells="answers",
)
RA = dataclasses.replace(
    UA,
    key="ra",
    alone=lambda models, seed: _accuracies(models, "retain"),
    label="RA %",
    meaning="accuracy on the retain set",
    tells="others",
)
TA = dataclasses.replace(
    UA,
    key="ta",
    alone=lambda models, seed: _accuracies(models, "test"),
    label="TA %",
    meaning="accuracy on the test set",
    tells="others",
)
AVG_GAP = FigureCard(
    key="avg_gap",
    against=functools.partial(_model_by_model, avg_gap),
    label="Avg. Gap",
    digits=2,
    meaning="mean distance from Retrain in UA, RA, TA and MIA",
    group="standard",
    tells="gaps",
    levels=(UA, RA, TA, MIA),
    source="Fan et al. (SalUn), arXiv 2310.12508",
)
TOW = FigureCard(
    key="tow",
    against=functools.partial(_model_by_model, tow),
    label="ToW",
    kind="closeness",
    meaning="tug of war of the three accuracies, 0 to 1",
    group="standard",
    tells="gaps",
    levels=AVG_GAP.levels,
    source="Zhao et al., arXiv 2406.01257",
)
TOW_MIA = dataclasses.replace(
    TOW,
    key="tow_mia",
    against=functools.partial(_model_by_model, tow_mia),
    label="ToW-MIA",
    meaning="the same with the MIA for UA",
)
