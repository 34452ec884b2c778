"""What a model answers, and what it holds for true: ROUGE, truth ratios, KS."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn import _validate
from jax_unlearn.audit.language.tokens import pair_of
from jax_unlearn.errors import InputError

__all__ = ["KsQuality", "Rouge", "knowmem", "ks_quality", "model_utility", "rouge_l"]
__all__ += ["truth_ratio", "truth_score", "verbmem"]


class Rouge(NamedTuple):
    """ROUGE-L of N answers, `f64[N]` each, 0 to 1."""

    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    f1: NDArray[np.float64]


class KsQuality(NamedTuple):
    """Two samples compared: their largest distance D, and the p-value of none."""

    distance: float
    p_value: float


def rouge_l(
    answers: Sequence[str],
    references: Sequence[str],
    *,
    stem: Callable[[str], str] | Literal["porter"] | None = None,
) -> Rouge:
    """Return recall, precision and F1 of the longest common subsequence of words.

    Words are runs of a–z and 0–9 in lower case. Give the answer alone, cut by its
    tokens: deleting the prompt from decoded text by its spelling loses more than that.
    `stem` reduces words of more than three letters; "porter" is Porter's stemmer of
    nltk, by which TOFU's code does so: it adds about a hundredth on paraphrases. 0
    where either has no word.

    Raises:
      InputError: another number of answers than of references; nltk is not installed.

    Reference: Lin 2004; the words are those of the package rouge-score.

    >>> found = rouge_l(["a cat sat"], ["The cat sat down."])
    >>> found.recall.tolist(), found.precision.round(4).tolist()
    ([0.5], [0.6667])
    """
    if len(answers) != len(references):
        raise InputError(
            f"{len(answers)} answers for {len(references)} references; give one each"
        )
    rows, stem = [], _porter() if stem == "porter" else stem
    for answer, reference in zip(answers, references, strict=True):
        given, wanted = _words(answer, stem), _words(reference, stem)
        common = _common(given, wanted)
        recall = common / len(wanted) if wanted else 0.0
        precision = common / len(given) if given else 0.0
        total = recall + precision
        rows.append((recall, precision, 2 * recall * precision / total if total else 0))
    columns = np.array(rows, np.float64).reshape(-1, 3).T
    return Rouge(*columns)


def knowmem(answers: Sequence[str], references: Sequence[str]) -> float:
    """Return mean ROUGE-L F1 without stemming, percent: MUSE's KnowMem.

    Of answers of 32 tokens to questions after a few examples.

    Reference: MUSE, arXiv 2407.06460, whose code stems nothing; copies of it do.

    >>> round(knowmem(["a cat sat"], ["The cat sat down."]), 2)
    57.14
    """
    return float(100 * rouge_l(answers, references).f1.mean())


def verbmem(continuations: Sequence[str], references: Sequence[str]) -> float:
    """Return mean ROUGE-L F1 of continuations, percent: MUSE's VerbMem.

    Of 128 tokens after the beginning of a text.

    Reference: MUSE, arXiv 2407.06460.

    >>> verbmem(["the end"], ["The end."])
    100.0
    """
    return knowmem(continuations, references)


def truth_ratio(
    paraphrased: ArrayLike, wrong: ArrayLike, *, kind: str = "paper"
) -> NDArray[np.float64]:
    """Return how likely wrong answers are beside a true one in other words, `f64[N]`.

    Of mean losses of the paraphrased answer, `[N]`, and of J wrong ones, `[N, J]`:
    "paper": mean_j p_j/p_para; "geometric": exp(ℓ̄_para − mean_j ℓ̄_j); "share":
    p_para/(p_para + Σ_j p_j/J). TOFU's code has the first in its utility and the second
    in forget quality, open-unlearning the second in both. The target is Retrain's
    value, not 1.

    Raises:
      InputError: an unknown kind, shapes that do not fit.

    Reference: TOFU, arXiv 2401.06121, equation 1.

    >>> given = [np.log(2.0)], [[np.log(2.0), np.log(8.0)]]  # p of 1/2; 1/2 and 1/8
    >>> [truth_ratio(*given, kind=k).item() for k in ("paper", "geometric", "share")]
    [0.625, 0.5, 0.6154]
    """
    _validate.choice("kind", kind, "paper", "geometric", "share")
    own, others = pair_of(paraphrased, wrong)
    if kind == "geometric":
        return np.exp(own - others.mean(axis=1))
    ratio = np.exp(own[:, None] - others).mean(axis=1)
    return ratio if kind == "paper" else 1 / (1 + ratio)


def truth_score(ratios: ArrayLike, *, forget: bool) -> float:
    """Return one number of truth ratios: mean min(R, 1/R), or mean max(0, 1 − R).

    The first of forget texts, the second of all others.

    Reference: TOFU, arXiv 2401.06121, and its code.

    >>> truth_score([0.5, 2.0], forget=True), truth_score([0.5, 2.0], forget=False)
    (0.5, 0.25)
    """
    r = np.asarray(ratios, np.float64)
    if r.ndim != 1 or not r.size or not (r >= 0).all():
        raise InputError("ratios must be one number of 0 or more a text, [N]")
    if not forget:
        return float(np.maximum(0, 1 - r).mean())
    positive = np.where(r > 0, r, 1.0)
    return float(np.where(r > 0, np.minimum(positive, 1 / positive), 0.0).mean())


def ks_quality(unlearned: ArrayLike, retrained: ArrayLike) -> KsQuality:
    """Compare truth ratios of forget texts with Retrain's: forget quality, (D, p).

    The p-value falls with the number of texts, whatever D, and depends on the reference
    answers chosen; Retrain against itself has 1, against a Retrain of another seed,
    which is the null to look at, less.

    Raises:
      InputError: empty samples.

    Reference: TOFU, arXiv 2401.06121, section 2.2.2.

    >>> ks_quality([0.1, 0.2, 0.9], [0.1, 0.2, 0.3]).distance.__round__(4)
    0.3333
    """
    first, second = (np.asarray(v, np.float64).ravel() for v in (unlearned, retrained))
    if not first.size or not second.size:
        raise InputError("empty truth ratios; give those of the forget texts")
    from scipy import stats

    found: Any = stats.ks_2samp(first, second)
    return KsQuality(float(found.statistic), float(found.pvalue))


def model_utility(figures: Mapping[str, float]) -> float:
    """Return the harmonic mean of figures of 0 to 1, 0 if any is 0.

    TOFU's are {retain, real authors, world facts} × {probability, ROUGE-L recall, truth
    score}. Of a model trained from scratch on your texts alone, the three of retain are
    all that mean something: call them so, it is another number.

    Raises:
      InputError: no figure, or one below 0 or not finite.

    Reference: TOFU, arXiv 2401.06121, section 2.2.1.

    >>> round(model_utility({"probability": 1.0, "rouge": 0.5}), 4)
    0.6667
    """
    if not figures:
        raise InputError("model_utility of no figure; give one or more")
    for name, value in figures.items():
        if not 0 <= value < np.inf:
            raise InputError(f"{name}={value} must be 0 or more, and finite")
    values = np.array(list(figures.values()), np.float64)
    return float(len(values) / (1 / values).sum()) if values.all() else 0.0


def _porter() -> Callable[[str], str]:
    """Return Porter's stemmer as the package rouge-score takes it."""
    try:
        from nltk.stem import porter  # type: ignore[import-not-found]
    except ImportError:
        raise InputError(
            "stems of words need nltk: pip install nltk; or leave the words as they are"
        ) from None
    return porter.PorterStemmer().stem


def _words(text: str, stem: Callable[[str], str] | None) -> list[str]:
    words = re.sub("[^a-z0-9]+", " ", text.lower()).split()
    if stem is None:
        return words
    return [stem(word) if len(word) > 3 else word for word in words]


def _common(first: list[str], second: list[str]) -> int:
    """Return the length of the longest common subsequence."""
    before = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for at, other in enumerate(second):
            longer = before[at] + 1 if word == other else max(before[at + 1], row[at])
            row.append(longer)
        before = row
    return before[-1]
