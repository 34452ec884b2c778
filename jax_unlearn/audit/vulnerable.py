"""RULI's split: what unlearning leaves of samples that were memorised, and of others.

Most samples drawn at random were never exposed: a model that saw them answers as one
that did not, so that any method seems to forget them. The forget samples are therefore
divided by how well the ORIGINALS tell them from models that never saw them, and the
figures of either group stand apart.
"""

from typing import Any, NamedTuple

import numpy as np

from jax_unlearn._validate import within
from jax_unlearn.audit import _checks
from jax_unlearn.audit.deviation import DEVIATION
from jax_unlearn.audit.evidence import Evidence, FigureCard
from jax_unlearn.audit.features import margins_from_probs
from jax_unlearn.audit.klom import KLOM
from jax_unlearn.audit.lira import LIRA_AUC, LIRA_TPR_1, u_lira
from jax_unlearn.audit.memorisation import Division
from jax_unlearn.audit.metrics import UA
from jax_unlearn.errors import InputError

__all__ = ["SPLIT", "Ruli", "by_vulnerability", "held_out_split", "ruli_split"]

LEAST = 4  # models of a kind that divide: two folds of two
SHARE = 1 / 3  # of the forget samples in either group


class Ruli(NamedTuple):
    """Forget samples by how exposed they were before unlearning.

    Attributes:
      vulnerable, protected: positions among the forget samples, ascending.
      auc: U-LiRA's AUC of each sample, originals against Retrains, `f64[F]`.
      models: originals, and as many Retrains, that divided; none of them is judged.
    """

    vulnerable: np.ndarray
    protected: np.ndarray
    auc: np.ndarray
    models: int


def ruli_split(
    originals: Any, retrained: Any, *, share: float = SHARE, seed: int = 0
) -> Ruli:
    """Divide forget samples into vulnerable and protected ones, before unlearning.

    Log-odds of the true class under originals, `[N, F]`, which were trained on the
    samples, and under as many models that were not, `[N, F]`. U-LiRA tells the two
    kinds apart sample by sample, its deviations shared by all samples (`fix_variance`),
    as few models need; vulnerable is the `share` of the samples with the largest AUC,
    protected that with the smallest, at least one each, and what lies between is
    neither. Equal AUCs are ordered by the distance of the means.

    The models that divide must not be those that are judged: a sample on which they
    happen to be apart would be called vulnerable, and found so. `ju.audit` holds some
    out. Source: after RULI (Naderloui et al., arXiv 2506.13009), whose attacker takes
    for vulnerable what LiRA on the original training finds at a very low
    false-positive rate, and for protected what it does not tell from guessing; thirds
    are our choice, since the ensembles of an audit are too few for such rates.

    Raises:
      InputError: fewer than 4 models of a kind or 2 samples, other numbers of models or
        samples, a share outside (0, 0.5].

    >>> rng = np.random.default_rng(0)
    >>> out = rng.normal(size=(8, 6))
    >>> seen = rng.normal(size=(8, 6)) + [9.0, 0.0, 0.0, 9.0, 0.0, 0.0]
    >>> ruli_split(seen, out).vulnerable.tolist()
    [0, 3]
    """
    within("share", share, "(0, 0.5]", "try 1/3")
    u, r = _checks.ensembles(originals, retrained, least=LEAST)
    if len(u) != len(r) or u.shape[1] < 2:
        raise InputError(
            f"originals.shape={u.shape}, retrained.shape={r.shape}: give as many of "
            "either, and 2 samples or more to divide"
        )
    auc = u_lira(u, r, fix_variance=True, level=None, seed=seed).per_example_auc
    order = np.lexsort((u.mean(axis=0) - r.mean(axis=0), auc))
    count = max(int(share * len(order)), 1)
    return Ruli(np.sort(order[-count:]), np.sort(order[:count]), auc, len(u))


def by_vulnerability(
    probs_in: np.ndarray, probs_out: np.ndarray, labels: np.ndarray
) -> Division:
    """Divide forget samples as `ruli_split` does: protected, between, vulnerable."""
    count = min(len(probs_in), len(probs_out))
    sides = (margins_from_probs(p[:count], labels) for p in (probs_in, probs_out))
    found = ruli_split(*sides)
    rows = np.arange(len(labels))
    protected, vulnerable = (
        np.isin(rows, own) for own in (found.protected, found.vulnerable)
    )
    middle = ~(protected | vulnerable)
    return Division(
        "vulnerability",
        f"thirds of the forget samples by how well U-LiRA tells {count} originals from "
        f"{count} Retrains on them (RULI)",
        {"protected": protected, "between": middle, "vulnerable": vulnerable},
        found.auc,
        count,
    )


def held_out_split(
    originals: Evidence | None, target: Evidence, seed: int
) -> Ruli | None:
    """Divide by the first third of the models of an audit, 4 or more; None if fewer."""
    if originals is None or originals.margins.shape[1] < 2:
        return None
    few = min(originals.models, target.models)
    count = max(few // 3, LEAST)
    if few <= count:
        return None
    return ruli_split(originals.margins[:count], target.margins[:count], seed=seed)


def _cards(name: str, words: str) -> tuple[FigureCard, ...]:
    """Return the figures of unlearning, of a group of the forget samples."""
    found = []
    for card in (UA, DEVIATION, LIRA_AUC, LIRA_TPR_1, KLOM):
        own = card.like(
            f"{name}_{card.key}",
            f"{name}: {card.label}",
            f"{card.label.removesuffix(' %')} of the forget samples {words}",
            group=name,
            within=name,
            reads=("original", "forget"),
            least=2,
            headline=name == "vulnerable" and card is LIRA_AUC,
            detail=None,
            source="after Naderloui et al. (RULI), arXiv 2506.13009",
        )
        found.append(own)
    return tuple(found)


SPLIT: tuple[FigureCard, ...] = (
    *_cards("vulnerable", "that the originals exposed most"),
    *_cards("protected", "that the originals exposed least"),
)
"""UA, |p - p*|, U-LiRA and KLoM, of the vulnerable and of the protected samples."""
