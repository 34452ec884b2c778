"""Memorisation: how much of a model's being right of a sample comes from the sample.

What is memorised is the hard part of a request: samples that the others teach anyway
leave nothing to forget. Shapes: M models, n samples, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.errors import InputError

__all__ = ["BINS", "Divider", "Division", "by_confidence", "by_memorisation"]
__all__ += ["memorisation", "memorisation_bins", "memorisation_proxy"]

BINS = ("low", "medium", "high")


class Division(NamedTuple):
    """Groups of the forget samples whose figures are told apart.

    Attributes:
      name: what divides them.
      meaning: how they were divided, in a line for readers.
      groups: members by name, `bool[F]`, in the order shown; no sample is in two.
      scores: what they were divided by, `f64[F]`.
      models: originals, and Retrains, that the scores were taken from.
    """

    name: str
    meaning: str
    groups: dict[str, np.ndarray]
    scores: np.ndarray
    models: int = 0


Divider = Callable[[np.ndarray, np.ndarray, np.ndarray], Division]
"""`(probs_in f64[N, F, K], probs_out f64[M, F, K], labels i64[F]) -> Division`: of
models trained with the forget samples, and of models trained without."""


def memorisation(right: Any, inside: Any) -> np.ndarray:
    r"""Estimate how much each sample is memorised: `f64[n]` in [-1, 1].

    .. math::
        \mathrm{mem}(i) = \Pr_{S \ni i}[f_S(x_i) = y_i]
          {} - \Pr_{S \not\ni i}[f_S(x_i) = y_i]

    0: models are as often right of the sample without having seen it; 1: only those
    that saw it are. `right` `[M, n]` says which model is right of which sample, or how
    sure it is (probabilities of the true class: a smoother score, our choice);
    `inside` `bool[M, n]` which model was trained on which sample. Models of random
    subsets of the data estimate it for all samples at once; of originals and of
    Retrains of one request, all forget samples are left out together, so that what
    they teach each other counts as memorised too. With M models in and out each, the
    standard error is up to 1/√(2M).

    Raises:
      InputError: a sample that no model, or every model, was trained on; shapes that
        differ, values outside [0, 1].

    Source: Feldman and Zhang, arXiv 2008.03703.

    >>> right = [[1, 1], [1, 1], [0, 1], [0, 1]]
    >>> trained_on = [[True, True], [True, True], [False, False], [False, False]]
    >>> memorisation(right, trained_on).tolist()
    [1.0, 0.0]
    """
    values = _checks.confidences("right", right, 2)
    member = np.asarray(inside)
    if member.dtype.kind != "b" or member.shape != values.shape:
        raise InputError(
            f"inside of type {member.dtype} and shape {member.shape} must be one bool "
            f"for each of right.shape={values.shape}; give [models, samples]"
        )
    count = member.sum(axis=0)
    words = "models of {all} were trained on it; give models with and without it"
    _checks.refuse("inside.sum(0)", count, count == 0, words.format(all=len(member)))
    words = "models, all of them, were trained on it; give some that were not"
    _checks.refuse("inside.sum(0)", count, count == len(member), words)
    seen = np.where(member, values, 0).sum(axis=0) / count
    return seen - np.where(member, 0, values).sum(axis=0) / (len(member) - count)


def memorisation_proxy(probs: Any, labels: Any) -> np.ndarray:
    """Guess how much each sample is memorised from one model: 1 - p_y, `f64[n]`.

    What a trained model is least sure of among its own samples is atypical, and
    memorised rather than learned from the others. Of checkpoints of one training,
    `[T, n, K]`, the mean over them, which tells late-learned samples better; of a
    single model `[n, K]`. It ranks samples, and estimates nothing: where all that a
    model was trained on is fitted alike, it is noise. `memorisation` measures.

    Raises:
      InputError: rows that are no probabilities, labels that do not fit them.

    Source: the proxy "confidence" of Zhao and Triantafillou, arXiv 2410.16516; a single
    checkpoint is our choice where there is no other.

    >>> memorisation_proxy([[0.75, 0.25], [0.5, 0.5]], [0, 1]).tolist()
    [0.25, 0.5]
    """
    p = _checks.probabilities("probs", probs, None)
    p = p[None] if p.ndim == 2 else p
    if p.ndim != 3:
        raise InputError(f"probs.shape={p.shape} must be [n, K] or [T, n, K]; reshape")
    y = _checks.class_labels("labels", labels, *p.shape[1:])
    return 1 - p[:, np.arange(len(y)), y].mean(axis=0)


def memorisation_bins(
    scores: Any, *, names: Sequence[str] = BINS, ties: Any = None
) -> dict[str, np.ndarray]:
    """Divide samples by rising score into bins of equal size: `bool[n]` by name.

    The first bins take what is left over. Equal scores go by `ties` `[n]`, if given,
    and then by position. With fewer samples than bins some are empty.

    Raises:
      InputError: scores that are not finite, fewer than two names, or one twice.

    Source: the three equal parts of RUM (Zhao et al., arXiv 2406.01257); ties: ours.

    >>> bins = memorisation_bins([0.9, 0.0, 0.2, 0.1])
    >>> {name: np.flatnonzero(inside).tolist() for name, inside in bins.items()}
    {'low': [1, 3], 'medium': [2], 'high': [0]}
    """
    values = _checks.vector("scores", scores)
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"names={list(names)}: give two or more, each another")
    second = np.zeros_like(values) if ties is None else _checks.vector("ties", ties)
    _checks.same_length("ties", second, "scores", values)
    order = np.lexsort((second, values))
    parts = np.array_split(order, len(names))
    rows = np.arange(len(values))
    return {n: np.isin(rows, part) for n, part in zip(names, parts, strict=True)}


def by_memorisation(
    probs_in: np.ndarray, probs_out: np.ndarray, labels: np.ndarray
) -> Division:
    """Divide forget samples by memorisation, measured on originals and Retrains.

    The score is the published one, of being right; samples with the same go by the
    smoother one, of the confidence (few models leave many alike).
    """
    both = np.concatenate([probs_in, probs_out])
    inside = np.zeros(both.shape[:2], np.bool_)
    inside[: len(probs_in)] = True
    sure = both[:, np.arange(len(labels)), labels]
    scores = memorisation(both.argmax(axis=2) == labels, inside)
    groups = memorisation_bins(scores, ties=memorisation(sure, inside))
    sides = ("original", len(probs_in)), ("Retrain", len(probs_out))
    told = " and ".join(f"{n} {word}{'s' * (n > 1)}" for word, n in sides)
    return Division(
        "memorisation",
        "thirds of the forget samples by how much more often models are right of a "
        f"sample that were trained on it, by {told}",
        groups,
        scores,
        len(probs_in),
    )


def by_confidence(probs: np.ndarray, labels: np.ndarray) -> Division:
    """Divide forget samples by the proxy of memorisation, of one original or more."""
    scores = memorisation_proxy(probs, labels)
    many = "the original" if len(probs) == 1 else f"{len(probs)} originals"
    return Division(
        "confidence",
        f"thirds of the forget samples by how unsure {many} of them was, highest "
        "last: a proxy of memorisation, which takes models trained without them",
        memorisation_bins(scores),
        scores,
        len(probs),
    )
