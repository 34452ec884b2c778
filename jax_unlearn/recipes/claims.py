"""The papers' claims, each as pairs of figures that the stored results can decide.

A claim says that one row has a smaller figure than another. It holds where that is so
in every pair with p < 0.05 (paired over the seeds), it holds partly where it is so in
some pair; else it does not hold, or these seeds do not show it. p-values are not
corrected for how many there are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jax_unlearn import audit
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.settings import ATTACKS
from jax_unlearn.recipes.compared import BASES, weighted
from jax_unlearn.recipes.proxies import BOUNDS

LEVEL = 0.05
Results = Mapping[str, Any]
Figure = Callable[[Results, str, str], Sequence[float]]
"""`(results, part, label) -> one value a seed`; KeyError where there is none."""


class Pair(NamedTuple):
    """One comparison.

    Attributes:
      part: of the tables.
      smaller, larger: labels of rows, as claimed.
    """

    part: str
    smaller: str
    larger: str


class Claim(NamedTuple):
    """What someone says.

    Attributes:
      text: the claim.
      source: whose.
      figure: what is compared.
      pairs: where.
    """

    text: str
    source: str
    figure: Figure
    pairs: tuple[Pair, ...]


class Verdict(NamedTuple):
    """What the results say of a claim.

    Attributes:
      word: "holds", "holds partly", "does not hold" or "not tested".
      clear, against: in how many pairs it is clearly so, and clearly not so.
      detail: each pair, with its difference and p.
    """

    word: str
    clear: int
    against: int
    detail: tuple[str, ...]


def gap(results: Results, part: str, label: str) -> Sequence[float]:
    """Return the Avg. Gap by seed."""
    return results[part]["rows"][slug(label)]["avg_gap"]["per_seed"]


def deviation(results: Results, part: str, label: str) -> Sequence[float]:
    """Return mean |p - p*| by seed."""
    return results[part]["rows"][slug(label)]["deviation"]["per_seed"]


def tail(results: Results, part: str, label: str) -> Sequence[float]:
    """Return the size of the tail's deviation by seed."""
    found = results[part]["rows"][slug(label)]["groups"]["tail"]["per_seed"]
    return [abs(value) for value in found]


def groups(results: Results, part: str, label: str) -> Sequence[float]:
    """Return p - p* of a group by seed; the label is "METHOD: group"."""
    method, _, group = label.partition(": ")
    return results[part]["rows"][slug(method)]["groups"][group]["per_seed"]


def robust(results: Results, part: str, label: str) -> Sequence[float]:
    """Return minus the accuracy under attack by seed: larger is claimed."""
    return [-value for value in results[part]["robust"][label]["per_seed"]]


def unrelated(results: Results, part: str, label: str) -> Sequence[float]:
    """Return minus a rank correlation by seed; the label is "score: with what"."""
    if label == "none":
        return [0.0] * len(results[part]["seeds"])
    score, _, other = label.partition(": ")
    return [-v for v in results[part]["correlation"][score][other]["per_seed"]]


def learned_gap(results: Results, part: str, label: str) -> Sequence[float]:
    """Return the Avg. Gap of the study of learned weights by seed."""
    return results[part]["rows"][label]["avg_gap"]["per_seed"]


def learned_deviation(results: Results, part: str, label: str) -> Sequence[float]:
    """Return mean |p - p*| of the study of learned weights by seed."""
    return results[part]["rows"][label]["deviation"]["per_seed"]


def _against(part: str, label: str, others: Sequence[str]) -> tuple[Pair, ...]:
    return tuple(Pair(part, label, other) for other in others)


_EXACT = "RL + FaLW (exact)"
_CHEAP = ("RL + FaLW (every 8)", "RL + FaLW (streaming)", "RL + FaLW (anchored)")
_GRID = "LoReUn, τ of the grid"
_SALUN = ("FT", "RL", "GA", "IU", "BE", "BS", "l1-sparse")
_ALL = (*_SALUN, "SalUn", "NegGrad+", "SFRon", "SCRUB", "Bad Teacher", "SSD")
_OURS = "Transport, no decay"

CLAIMS = (
    Claim(
        "Random labels and SalUn over-forget the tail and under-forget the head",
        "FaLW",
        groups,
        tuple(Pair("gamma-1", f"{m}: tail", f"{m}: head") for m in ("RL", "SalUn")),
    ),
    Claim(
        "FaLW is nearer to Retrain than its rivals on long-tailed requests, γ = 1",
        "FaLW",
        gap,
        _against("gamma-1", _EXACT, ("FT", "RL", "SalUn"))
        + _against("gamma-1", _CHEAP[0], ("FT", "RL", "SalUn")),
    ),
    Claim(
        "The same at every other γ",
        "FaLW",
        gap,
        tuple(
            Pair(f"gamma-{gamma}", _EXACT, rival)
            for gamma in ("0", "0.5", "1.5", "2")
            for rival in ("RL", "SalUn")
        ),
    ),
    Claim(
        "The balance factor lessens the tail's deviation",
        "FaLW",
        tail,
        tuple(
            Pair(f"gamma-{gamma}", _EXACT, "RL + FaLW, no balance")
            for gamma in ("1", "1.5", "2")
        ),
    ),
    Claim(
        "FaLW's exact moments bring it nearer to Retrain than cheaper ones do",
        "ours",
        gap,
        _against("gamma-1", _EXACT, _CHEAP),
    ),
    Claim(
        "Dynamic LoReUn brings every method nearer to Retrain",
        "LoReUn",
        gap,
        tuple(Pair("random10", weighted(b, "dynamic"), b) for b in BASES),
    ),
    Claim(
        "So does static LoReUn",
        "LoReUn",
        gap,
        tuple(Pair("random10", weighted(b, "static"), b) for b in BASES),
    ),
    *(
        Claim(
            f"So does LoReUn where {what} forgotten",
            "LoReUn",
            gap,
            tuple(
                Pair(part, weighted(base, how), base)
                for base in BASES
                for how in ("static", "dynamic")
            ),
        )
        for part, what in (("random50", "50 % are"), ("class", "a class is"))
    ),
    Claim(
        "LoReUn makes models more robust (accuracy under PGD)",
        "LoReUn",
        robust,
        tuple(
            Pair("proxies", f"{weighted(base, 'dynamic')}, {bound}", f"{base}, {bound}")
            for base in ("RL", "SalUn")
            for bound in BOUNDS
        ),
    ),
    Claim(
        "The loss says how hard a sample is: it goes with what Retrain says of it, and "
        "with what is left to forget",
        "LoReUn",
        unrelated,
        (
            Pair("proxies", "confidence: p*", "none"),
            Pair("proxies", "confidence: |p - p*| RL", "none"),
        ),
    ),
    Claim(
        "Learning the temperature beats a grid of equal cost (Avg. Gap)",
        "LoReUn's question",
        learned_gap,
        (Pair("learned", "LoReUn, τ learned", _GRID),),
    ),
    Claim(
        "Learning a weight for every sample beats it (Avg. Gap)",
        "LoReUn's question",
        learned_gap,
        (Pair("learned", "weights learned", _GRID),),
    ),
    Claim(
        "Learning a weight for every sample beats it (deviation by sample)",
        "LoReUn's question",
        learned_deviation,
        (Pair("learned", "weights learned", _GRID),),
    ),
    Claim(
        "LTU, with 30 % of the retain set, is nearer to Retrain than the others",
        "LTU",
        gap,
        _against("random10", "LTU", _ALL),
    ),
    Claim(
        "SalUn is nearer to Retrain than the rest of its table, 10 %",
        "SalUn",
        gap,
        _against("random10", "SalUn", _SALUN),
    ),
    Claim(
        "The same at 50 %",
        "SalUn",
        gap,
        _against("random50", "SalUn", _SALUN),
    ),
    Claim(
        "Endpoint transport (no decay) has the smallest Avg. Gap",
        "ours",
        gap,
        _against("random10", _OURS, (*_ALL, "LTU"))
        + _against("gamma-1", _OURS, ("RL", "SalUn", _EXACT, *_CHEAP)),
    ),
    Claim(
        "The same where forget samples are easier (near), or harder (far), than unseen",
        "ours",
        gap,
        tuple(
            Pair(part, _OURS, rival)
            for part in ("near", "far")
            for rival in ("FT", "RL")
        ),
    ),
    Claim(
        "Endpoint transport (no decay) has the smallest deviation by sample",
        "ours",
        deviation,
        _against("random10", _OURS, (*_ALL, "LTU"))
        + _against("gamma-1", _OURS, ("RL", "SalUn", _EXACT, *_CHEAP)),
    ),
    *(
        Claim(
            f"Fresh seeds: transport by a reference has the least {what}{where}",
            "ours",
            figure,
            tuple(
                Pair(part, "Transport by reference, no decay", rival)
                for part in parts
                for rival in ("FT", "RL", "SalUn", other, _OURS)
            ),
        )
        for parts, other, where in (
            (("fresh-random10",), "NegGrad+", ""),
            (("fresh-gamma-1",), _EXACT, ", γ = 1"),
            (("fresh-near", "fresh-far"), "NegGrad+", ", near and far"),
        )
        for figure, what in ((gap, "Avg. Gap"), (deviation, "deviation by sample"))
    ),
)

_THIRD = ("FT", "RL", "SalUn", "RL + LoReUn", "RL + FaLW")  # with as much to read

LTU_CLAIMS = (
    Claim(
        "LTU is nearer to Retrain than others that read 30 % of the retain set",
        "LTU",
        gap,
        _against("main", "LTU", _THIRD),
    ),
    *(
        Claim(text, "LTU", gap, _against("main", "LTU", others))
        for text, others in (
            ("The meta-test brings LTU nearer", ("LTU, no meta-test",)),
            ("Its second order brings LTU nearer", ("LTU, first order",)),
            ("Harmonized gradients bring LTU nearer", ("LTU, not harmonized",)),
            ("Query sets of several kinds bring LTU nearer", ("LTU, uniform queries",)),
            (
                "Several membership models bring LTU nearer than one",
                tuple(f"LTU, only {attack}" for attack in ATTACKS),
            ),
        )
    ),
    Claim(
        "Where 5 or 10 % may be read, LTU is nearer than FT and RL",
        "ours",
        gap,
        tuple(
            Pair("main", f"LTU, rho {rho}", f"{rival}, rho {rho}")
            for rho in ("0.05", "0.1")
            for rival in ("FT", "RL")
        ),
    ),
    *(
        Claim(
            f"On a {part} forget set LTU is nearer than they",
            "ours",
            gap,
            _against(part, "LTU", _THIRD),
        )
        for part in ("near", "far")
    ),
)


def judge(claim: Claim, results: Results) -> Verdict:
    """Return what results say of a claim; pairs that they lack are left out.

    Args:
      claim: one of `CLAIMS`.
      results: by part.

    >>> rows = {"ft": {"avg_gap": {"per_seed": [3.0, 3.1, 2.9]}}}
    >>> rows["rl"] = {"avg_gap": {"per_seed": [1.0, 1.2, 0.9]}}
    >>> claim = Claim("RL is nearer", "us", gap, (Pair("class", "RL", "FT"),))
    >>> judge(claim, {"class": {"rows": rows}})
    Verdict(word='holds', clear=1, against=0, \
detail=('class, RL less FT: -1.97, p < 0.001',))
    """
    differences, sure, detail = [], [], []
    for pair in claim.pairs:
        try:
            found = [
                claim.figure(results, pair.part, label)
                for label in (pair.smaller, pair.larger)
            ]
        except KeyError:
            continue
        test = audit.paired_test(*found)
        p = test.permutation_p if test.t_p is None else test.t_p
        differences.append(test.mean_difference)
        sure.append(p < LEVEL)
        names = f"{pair.part}, {pair.smaller} less {pair.larger}"
        told = f"{test.mean_difference:+.3g}"
        detail.append(f"{names}: {told}, p {p_text(p)}")
    if not differences:
        return Verdict("not tested", 0, 0, ())
    clear = sum(d < 0 and s for d, s in zip(differences, sure, strict=True))
    against = sum(d > 0 and s for d, s in zip(differences, sure, strict=True))
    if clear == len(differences):
        word = "holds"
    elif clear:
        word = "holds partly"
    else:
        word = "does not hold"
    return Verdict(word, clear, against, tuple(detail))


def p_text(p: float) -> str:
    """Return a p-value as the page tells it.

    >>> p_text(0.0004), p_text(0.0412)
    ('< 0.001', '0.041')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
