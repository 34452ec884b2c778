"""All figures of a language model at once, each beside its target and its null."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.audit.language.answers import (
    ks_quality,
    rouge_l,
    truth_ratio,
    truth_score,
)
from jax_unlearn.audit.language.attacks import (
    attack_auc,
    loss_score,
    min_k,
    min_k_plus_plus,
    privleak,
    reference_score,
    zlib_ratio,
)
from jax_unlearn.audit.language.tokens import (
    Ragged,
    exact_memorization,
    extraction_strength,
    mean_nll,
    perplexity,
    probability,
)
from jax_unlearn.errors import InputError

__all__ = ["Judged", "TextOutputs", "language_audit", "language_figures"]


class TextOutputs(NamedTuple):
    """What one model says of texts, by part: "forget", "retain", "unseen", "other".

    Attributes:
      nll: losses of the answers' tokens, ragged or `Scored`; "forget" must be there.
      right: whether each token was the likeliest, ragged.
      moments: (μ, σ) of each token, ragged, see `token_moments`.
      answers: what the model answered.
      paraphrased: mean losses of the true answer in other words, `[N]`.
      wrong: mean losses of wrong answers, `[N, J]`.
    """

    nll: Mapping[str, Ragged]
    right: Mapping[str, Sequence[ArrayLike]] = {}
    moments: Mapping[str, tuple[Ragged, Ragged]] = {}
    answers: Mapping[str, Sequence[str]] = {}
    paraphrased: Mapping[str, ArrayLike] = {}
    wrong: Mapping[str, ArrayLike] = {}


class Judged(NamedTuple):
    """A figure of an unlearned model.

    Attributes:
      value: its own.
      target: Retrain's, None where none was given.
      null: that of a Retrain of another seed, or None.
      distance: |value − target|, or None.
      inside: whether that is at most |null − target|, or None.
    """

    value: float
    target: float | None = None
    null: float | None = None
    distance: float | None = None
    inside: bool | None = None


def language_figures(
    outputs: TextOutputs,
    *,
    texts: Mapping[str, Sequence[str]] | None = None,
    reference: TextOutputs | None = None,
    retrained: TextOutputs | None = None,
    stem: Any = None,
) -> dict[str, float]:
    """Return every figure that the outputs of one model allow, by name.

    Args:
      outputs: of the model.
      texts: the true answers by part, for ROUGE and the zlib attack.
      reference: a model that saw none of the texts, for the reference attack.
      retrained: for those that compare texts one by one: forget quality ("ks_distance",
        "ks_p_value"), PrivLeak and "deviation", mean |p − p_r| over the forget texts.
      stem: of ROUGE's words, see `rouge_l`.

    Raises:
      InputError: no losses of forget texts; parts of other lengths.

    >>> outputs = TextOutputs({"forget": [[0.0], [1.0]], "unseen": [[2.0], [3.0]]})
    >>> found = language_figures(outputs)
    >>> found["auc_loss"], round(found["forget_probability"], 4)
    (1.0, 0.6839)
    """
    if "forget" not in outputs.nll:
        raise InputError(
            f"nll holds {', '.join(outputs.nll) or 'nothing'}: give that of 'forget'"
        )
    found: dict[str, float] = {}
    texts = texts or {}
    for part, nll in outputs.nll.items():
        found[f"{part}_probability"] = float(probability(nll).mean())
        found[f"{part}_loss"] = float(mean_nll(nll).mean())
        found[f"{part}_perplexity"] = perplexity(nll)
    for part, right in outputs.right.items():
        if part in ("forget", "retain"):
            found[f"{part}_extraction"] = float(extraction_strength(right).mean())
            found[f"{part}_memorization"] = float(exact_memorization(right).mean())
    for part, answers in outputs.answers.items():
        if part in texts:
            rouge = rouge_l(answers, texts[part], stem=stem)
            found[f"{part}_rouge"] = float(rouge.recall.mean())
    for part in outputs.paraphrased:
        for kind in ("paper", "geometric"):
            ratios = _ratios(outputs, part, kind)
            score = truth_score(ratios, forget=part == "forget")
            found[f"{part}_truth_{kind}"] = score
    if "unseen" in outputs.nll:
        for name, scores in _attacks(outputs, texts, reference).items():
            found[f"auc_{name}"] = attack_auc(*scores)
    if retrained is not None:
        found |= _compared(outputs, retrained)
    return found


def language_audit(
    unlearned: TextOutputs,
    retrained: TextOutputs | None = None,
    null: TextOutputs | None = None,
    *,
    texts: Mapping[str, Sequence[str]] | None = None,
    reference: TextOutputs | None = None,
) -> dict[str, Judged]:
    """Return every figure of an unlearned model with its target and its null.

    The target of a figure is Retrain's own; those that compare with Retrain
    ("deviation", "ks_distance", PrivLeak) have 0, and forget quality's p-value 1. The
    null is a Retrain of another seed in the unlearned model's place: a figure inside it
    is as near as chance allows. Without Retrain there is no target, and nothing is
    inside.

    >>> told = [TextOutputs({"forget": [[x], [x + 1]]}) for x in (1.0, 2.0, 2.2)]
    >>> row = language_audit(*told)["forget_loss"]
    >>> row.value, row.target, row.null.__round__(1), row.inside
    (1.5, 2.5, 2.7, False)
    """
    told = {"texts": texts, "reference": reference, "retrained": retrained}
    values = language_figures(unlearned, **told)
    if retrained is None:
        return {name: Judged(value) for name, value in values.items()}
    targets = language_figures(retrained, **told)
    nulls = {} if null is None else language_figures(null, **told)
    rows = {}
    for name, value in values.items():
        target, other = targets.get(name), nulls.get(name)
        if target is None:
            rows[name] = Judged(value)
            continue
        distance, inside = abs(value - target), None
        if other is not None:
            inside = bool(distance <= abs(other - target))
        rows[name] = Judged(value, target, other, distance, inside)
    return rows


def _ratios(outputs: TextOutputs, part: str, kind: str) -> np.ndarray:
    if part not in outputs.wrong:
        raise InputError(f"wrong holds no {part!r}, paraphrased does; give both")
    return truth_ratio(outputs.paraphrased[part], outputs.wrong[part], kind=kind)


def _attacks(
    outputs: TextOutputs,
    texts: Mapping[str, Sequence[str]],
    reference: TextOutputs | None,
) -> dict[str, list[np.ndarray]]:
    """Return scores of forget and unseen texts by attack."""
    parts = ("forget", "unseen")
    found = {
        "loss": [loss_score(outputs.nll[part]) for part in parts],
        "min_k": [min_k(outputs.nll[part]) for part in parts],
    }
    if all(part in outputs.moments for part in parts):
        found["min_k_plus_plus"] = [
            min_k_plus_plus(outputs.nll[part], *outputs.moments[part]) for part in parts
        ]
    if all(part in texts for part in parts):
        found["zlib"] = [zlib_ratio(outputs.nll[part], texts[part]) for part in parts]
    if reference is not None and all(part in reference.nll for part in parts):
        found["reference"] = [
            reference_score(outputs.nll[part], reference.nll[part]) for part in parts
        ]
    return found


def _compared(outputs: TextOutputs, retrained: TextOutputs) -> dict[str, float]:
    """Return the figures that compare a model with Retrain."""
    own, goal = (probability(each.nll["forget"]) for each in (outputs, retrained))
    if len(own) != len(goal):
        raise InputError(
            f"{len(own)} forget texts, {len(goal)} of Retrain; give the same texts"
        )
    found = {"deviation": float(np.abs(own - goal).mean())}
    if "forget" in outputs.paraphrased and "forget" in retrained.paraphrased:
        for kind in ("paper", "geometric"):
            pair = (_ratios(each, "forget", kind) for each in (outputs, retrained))
            quality = ks_quality(*pair)
            end = "" if kind == "geometric" else "_paper"
            found[f"ks_distance{end}"] = quality.distance
            found[f"ks_p_value{end}"] = quality.p_value
    if all("unseen" in each.nll for each in (outputs, retrained)):
        aucs = [
            attack_auc(min_k(each.nll["forget"]), min_k(each.nll["unseen"]))
            for each in (outputs, retrained)
        ]
        if aucs[1] < 1:
            found["privleak"] = privleak(*aucs)
    return found
