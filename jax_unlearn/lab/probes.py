"""Probes: what comes back of the forgotten when a model is pressed for it.

A kind of model brings its own. They are read beside Retrain treated alike: one
unlearned model and two Retrains (the target and the null), three for an interval.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn import _validate
from jax_unlearn.audit import Audit, Figure, FigureCard
from jax_unlearn.audit.auditor import level_figure
from jax_unlearn.audit.comparison import metric_row
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.results import NULL, RETRAIN

__all__ = ["Probe", "Probes", "check_probes", "judged", "of_figures", "over_seeds"]
__all__ += ["pressed", "probe_card", "with_probes"]


class Probe(NamedTuple):
    """What a model is put to, and the figures that it gives.

    Attributes:
      measure: `(subject, trained, request, seed) -> values`, by figure; of a pair, with
        the original that the model came of as a fifth.
      figures: what is said of each; the target of each is Retrain's value.
      cost: of one model, in gradients of single samples; F forget, S test samples.
      share: of the forget samples, which it counts in percent; 0: it counts others.
      pair: whether it looks at what changed from the original.
    """

    measure: Callable[..., Mapping[str, float]]
    figures: tuple[FigureCard, ...]
    cost: str
    share: float = 0.0
    pair: bool = False


Probes = Mapping[str, Probe]
"""By name."""


def probe_card(
    key: str,
    label: str,
    meaning: str,
    bounds: tuple[float, float] = (0.0, 100.0),
    digits: int = 1,
) -> FigureCard:
    """Return what is said of a figure of a probe: what is done to every model alike."""
    own = {"bounds": bounds, "digits": digits, "group": "Hidden memory"}
    return FigureCard(key, label, meaning, kind="level", **own)


def of_figures(known: Probes) -> dict[str, tuple[Probe, FigureCard]]:
    """Return the figures of probes, each with its probe, by their keys."""
    return {
        card.key: (probe, card) for probe in known.values() for card in probe.figures
    }


def check_probes(known: Probes, names: Sequence[str]) -> None:
    """Refuse a name that no probe has."""
    for name in names:
        _validate.one_of("probe", name, known)


def pressed(
    subject: Any,
    trained: Trained,
    request: Any,
    names: Sequence[str],
    *,
    original: Trained | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Return what the probes find of a model, which came of an original, by figure."""
    known: Probes = subject.modality.probes
    check_probes(known, names)
    found: dict[str, float] = {}
    for name in names:
        more = (original,) if known[name].pair else ()
        if more == (None,):
            raise InputError(
                f"probe={name!r} looks at what changed from the original; give "
                "original=, a trained model"
            )
        found |= known[name].measure(subject, trained, request, seed, *more)
    return found


def over_seeds(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Return what results hold of probes over seeds: means, and figures beside null.

    The interval is that of `ju.audit.compare`: from the differences of null and Retrain
    seed by seed; without a null, or of under three seeds, there is none.
    """
    told: dict[str, Any] = {
        key: {name: float(np.mean([s[name] for s in seeds])) for name in seeds[0]}
        for key, seeds in rows.items()
        if seeds
    }
    figures: dict[str, dict[str, Any]] = {}
    for key in [k for k in told if k not in (RETRAIN, NULL) and RETRAIN in told]:
        for name in told[key]:
            values, target, null = (
                np.array([seed[name] for seed in rows[side]], np.float64)
                for side in (key, RETRAIN, NULL if NULL in told else RETRAIN)
            )
            goal = float(target.mean())
            std = float(values.std(ddof=1)) if len(values) > 1 else None
            ends: tuple[Any, ...] = (None, None, "")
            if NULL in told and len(values) >= FEWEST:
                row = metric_row(values, target, null)
                ends = goal + row.null_low, goal + row.null_high, row.verdict
            figure = Figure(float(values.mean()), std, goal, *ends)
            figures.setdefault(key, {})[name] = figure._asdict()
    return {"probes": told, "probe_figures": figures}


def with_probes(
    found: Audit,
    probes: Mapping[str, Mapping[str, np.ndarray]],
    retrained: Mapping[str, np.ndarray],
    known: Probes,
) -> Audit:
    """Add to an audit what probes found of each model, `f64[N]`, as levels.

    Target and interval are from what they found of each Retrain, as of any level.
    """
    every = of_figures(known)
    figure = functools.partial(_level, every, found.forgotten, found.level)
    figures = {
        method: own
        | {key: figure(key, probes[method][key], retrained[key]) for key in retrained}
        for method, own in found.figures.items()
    }
    cards = {key: every[key][1] for key in retrained}
    return found._replace(figures=figures, cards={**found.cards, **cards})


def judged(
    found: Mapping[str, Mapping[str, float]],
    more: Sequence[Mapping[str, float]],
    forgotten: int,
    known: Probes,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the probes of models beside those of Retrains, as figures by row.

    `found` are values by row and figure, `more` those of Retrains without a row.
    """
    again = [found[key] for key in (RETRAIN, NULL) if key in found]
    again += more
    rows = [key for key in found if key not in (RETRAIN, NULL)]
    if not again:
        return {}

    def figure(row: str, key: str) -> Figure:
        values = np.array([one[key] for one in again], np.float64)
        own = np.array([found[row][key]], np.float64)
        return _level(of_figures(known), forgotten, 0.95, key, own, values)

    return {
        row: {key: figure(row, key)._asdict() for key in found[row]} for row in rows
    }


def _level(
    known: Mapping[str, tuple[Probe, FigureCard]],
    forgotten: int,
    level: float,
    key: str,
    values: np.ndarray,
    retrained: np.ndarray,
) -> Figure:
    """Return the values of a figure beside those of Retrains."""
    probe, card = known[key]
    samples = round(probe.share * forgotten)
    how = {"samples": samples, "bounds": card.bounds, "level": level}
    return level_figure(values, retrained, **how)
