"""The figures of an audit by group of forget samples: averages hide the hard ones.

Shapes: N models, n samples of a part, F forget samples, K classes.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn._validate import one_of
from jax_unlearn.audit import _checks
from jax_unlearn.audit.auditor import Audit, audit, to_record
from jax_unlearn.audit.deviation import DEVIATION
from jax_unlearn.audit.evidence import (
    Evidence,
    FigureCard,
    ModelOutputs,
    PartLabels,
    evidence,
    judged,
)
from jax_unlearn.audit.figures import DIVISIONS, NEEDS, PROXIES
from jax_unlearn.audit.forgetting import EPSILON
from jax_unlearn.audit.klom import KLOM
from jax_unlearn.audit.lira import LIRA_AUC, LIRA_TPR_1
from jax_unlearn.audit.memorisation import Divider, Division
from jax_unlearn.audit.metrics import UA
from jax_unlearn.audit.records import visible
from jax_unlearn.errors import InputError, unknown_name

__all__ = ["OF_GROUPS", "Grouped", "audit_by_group", "divided", "group_table"]
__all__ += ["groups_record"]

OF_GROUPS: tuple[FigureCard, ...] = (UA, DEVIATION, LIRA_AUC, LIRA_TPR_1, EPSILON, KLOM)
"""What is told of each group unless others are asked for: of the forget samples."""


class Grouped(NamedTuple):
    """Figures by group of forget samples.

    Attributes:
      division: how the samples were divided.
      audits: the figures of each group that has samples, by its name.
    """

    division: Division
    audits: dict[str, Audit]


def audit_by_group(
    unlearned: Mapping[str, ModelOutputs] | ModelOutputs,
    retrained: ModelOutputs,
    labels: PartLabels,
    division: Division | Divider,
    *,
    original: ModelOutputs | None = None,
    kind: str = "logits",
    figures: Sequence[FigureCard] = OF_GROUPS,
    **options: Any,
) -> Grouped:
    """Audit unlearned models on each group of the forget samples apart.

    Target, null and verdict are those of `ju.audit.audit`, taken on the samples of the
    group alone; so is the number of models that a figure needs. Where models divide the
    samples (a `Divider` such as `by_memorisation`, of the originals and the Retrains)
    the first half of each kind divides and the second half is judged: dividing and
    judging by the same Retrains would make even another Retrain seem to forget too
    little of one group and too much of the other (regression to the mean). That takes
    twice as many models: 16 of each kind for what 8 allow undivided. Model i of a
    method is to come from original i; a single model is always judged.

    Args:
      unlearned: outputs of the unlearned models, of one method or by name.
      retrained: outputs of the Retrains.
      labels: true classes.
      division: groups that are known, or what makes them of outputs.
      original: outputs of the originals; a `Divider` needs them.
      kind: of the outputs, "logits" or "probabilities".
      figures: cards of what to tell.
      **options: further ones of `ju.audit.audit`.

    Raises:
      InputError: as `ju.audit.audit`; a divider without originals, fewer than two
        Retrains or originals to divide by, groups that overlap or are all empty.

    >>> rng = np.random.default_rng(0)
    >>> def models(shift):
    ...     return ModelOutputs(*(rng.normal(shift, 1, (8, 30, 2)) for _ in range(3)))
    >>> truth = PartLabels(*(np.arange(30) % 2 for _ in range(3)))
    >>> half = np.arange(30) < 15
    >>> known = Division("half", "by position", {"a": half, "b": ~half}, half * 1.0)
    >>> found = audit_by_group(models(0.0), models(0.0), truth, known)
    >>> {name: own.forgotten for name, own in found.audits.items()}
    {'a': 15, 'b': 15}
    """
    if isinstance(unlearned, ModelOutputs):
        unlearned = {"unlearned": unlearned}
    checked = functools.partial(evidence, labels=labels, kind=kind)
    target = checked("retrained", retrained)
    methods = {name: checked(name, given) for name, given in unlearned.items()}
    forget, divides = np.asarray(labels.forget), False
    if isinstance(division, Division):
        known = division
    else:
        if original is None:
            raise InputError(
                "original=None: the samples are divided by the originals beside the "
                "Retrains; give the originals' outputs too"
            )
        before, divides = checked("original", original), True
        if min(before.models, target.models) < 2:
            raise InputError(
                f"{before.models} originals and {target.models} Retrains: half of each "
                "divide the samples; give 2 or more, 16 for U-LiRA"
            )
        seen, never = (
            one.probs["forget"][: one.models // 2] for one in (before, target)
        )
        known = division(seen, never, forget)
    known = _checked(known, len(forget))

    def rest(given: Evidence, rows: np.ndarray) -> Evidence:
        held = given.models // 2 if divides else 0
        return judged(given, held, np.flatnonzero(rows))

    return Grouped(
        known,
        {
            name: audit(
                {key: rest(own, rows) for key, own in methods.items()},
                rest(target, rows),
                labels,
                figures=figures,
                **options,
            )
            for name, rows in known.groups.items()
        },
    )


def divided(
    names: Sequence[str],
    given: tuple[Mapping[str, ModelOutputs], ModelOutputs, PartLabels],
    original: ModelOutputs,
    *,
    kind: str = "logits",
    **options: Any,
) -> list[dict[str, Any]]:
    """Return the records of an audit by group, of divisions that have a name.

    Raises:
      InputError: as `audit_by_group`; a name of neither `DIVISIONS` nor `PROXIES`.
    """
    records = []
    for name in names:
        one_of("by", name, (*DIVISIONS, *PROXIES))
        counts = (np.asarray(one.forget) for one in (original, given[1]))
        check_divided(name, min(len(a) if a.ndim == 3 else 1 for a in counts))
        if name in PROXIES:
            labels = given[2]
            probs = evidence("original", original, labels, kind=kind).probs["forget"]
            division = PROXIES[name](probs, np.asarray(labels.forget))
        else:
            division = DIVISIONS[name]
        how = {"original": original, "kind": kind, **options}
        records.append(groups_record(audit_by_group(*given, division, **how)))
    return records


def check_divided(name: str, models: int) -> None:
    """Refuse a division that so many originals and Retrains cannot make."""
    if models < (need := NEEDS.get(name, 1)):
        raise InputError(
            f"by={name!r}, models={models}: half of the models divide the samples, the "
            f"others are judged; it takes {need} originals and Retrains, and U-LiRA "
            "16: give --models 16, or outputs of as many"
        )


def _checked(division: Division, samples: int) -> Division:
    """Return a division without its empty groups."""
    groups = {}
    for name, given in division.groups.items():
        rows = np.asarray(given)
        if rows.dtype.kind != "b" or rows.shape != (samples,):
            raise InputError(
                f"groups[{name!r}] of type {rows.dtype} and shape {rows.shape} must "
                f"be one bool for each of {samples} forget samples"
            )
        groups |= {name: rows} if rows.any() else {}
    if not groups:
        raise InputError(f"division {division.name!r} has no group with samples")
    twice = np.sum(list(groups.values()), axis=0)
    words = f"groups of {division.name!r}; give each sample to one"
    _checks.refuse("samples", twice, twice > 1, words)
    return division._replace(groups=groups)


def group_table(found: Grouped, name: str) -> str:
    """Lay the figures of a method by group out as a Markdown table.

    Each cell is the value, Retrain's or the null's, and the verdict.

    Raises:
      InputError: no such method.

    >>> from jax_unlearn.audit.auditor import Figure
    >>> figures = {"FT": {"ua": Figure(5.0, 1.0, 4.0, 3.0, 5.5, "inside")}}
    >>> own = Audit(figures, {}, {"FT": 8}, 8, 4, 20, 0.95, 30, {})
    >>> inside = np.ones(30, bool)
    >>> known = Division("all", "", {"all": inside}, inside * 1.0)
    >>> print(group_table(Grouped(known, {"all": own}), "FT").splitlines()[2])
    | UA % | 5.0 (4.0) inside |
    """
    first = next(iter(found.audits.values()))
    if name not in first.figures:
        raise unknown_name("method", name, first.figures)
    heads = [f"{group} ({own.forgotten})" for group, own in found.audits.items()]
    lines = [f"| figure | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for key in first.figures[name]:
        card, cells = first.cards[key], []
        for own in found.audits.values():
            figure = own.figures[name][key]
            digits = visible(figure, card.digits)
            target = f"{figure.target:.{digits}f}"
            value = f"{figure.value:.{digits}f} ({target}) {figure.verdict}"
            cells.append(value.rstrip())
        label = card.label.replace("|", "\\|")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def groups_record(found: Grouped) -> dict[str, Any]:
    """Return what results keep, JSON-able: curves and histograms are left out.

    >>> known = Division("all", "", {"all": np.ones(1, bool)}, np.ones(1))
    >>> groups_record(Grouped(known, {}))["scores"]
    [1.0]
    """
    division = found.division
    audits = {name: to_record(own) for name, own in found.audits.items()}
    bare = {"roc": None, "epsilon": None, "groups": {}, "intervals": {}}
    for record in audits.values():
        record["details"] = dict.fromkeys(record["figures"], bare)
    return {
        "name": division.name,
        "meaning": division.meaning,
        "models": division.models,
        "members": {n: np.flatnonzero(g).tolist() for n, g in division.groups.items()},
        "scores": np.round(division.scores, 4).tolist(),
        "audits": audits,
    }
